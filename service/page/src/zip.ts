// The entries of a .npz file, which is a zip of .npy files.

const END = 0x06054b50;
const ENTRY = 0x02014b50;
const MOST = 64;

/** Opens an entry: what it unpacks to. */
export type Open = () => Promise<Blob>;

/** The entries by name, unpacked when they are opened; null for a zip that is damaged or too unusual for this. */
export async function zipEntries(file: Blob): Promise<Map<string, Open> | null> {
  const tailAt = Math.max(0, file.size - 65557);
  const tail = new DataView(await file.slice(tailAt).arrayBuffer());
  let end = tail.byteLength - 22;
  while (end >= 0 && tail.getUint32(end, true) !== END) end--;
  if (end < 0) return null;
  const count = tail.getUint16(end + 10, true);
  const listAt = tail.getUint32(end + 16, true);
  const list = new DataView(await file.slice(listAt, listAt + tail.getUint32(end + 12, true)).arrayBuffer());
  const entries = new Map<string, Open>();
  let at = 0;
  for (let number = 0; number < count && number < MOST; number++) {
    if (at + 46 > list.byteLength || list.getUint32(at, true) !== ENTRY) return null;
    const method = list.getUint16(at + 10, true);
    const [size, unpacked] = [list.getUint32(at + 20, true), list.getUint32(at + 24, true)];
    const nameLength = list.getUint16(at + 28, true);
    const begin = list.getUint32(at + 42, true);
    const name = new TextDecoder().decode(new Uint8Array(list.buffer, at + 46, nameLength));
    if (size === 0xffffffff || unpacked === 0xffffffff || (method !== 0 && method !== 8)) return null;
    entries.set(name.replace(/\.npy$/, ""), () => unpack(file, begin, size, method));
    at += 46 + nameLength + list.getUint16(at + 30, true) + list.getUint16(at + 32, true);
  }
  return entries;
}

async function unpack(file: Blob, begin: number, size: number, method: number): Promise<Blob> {
  const head = new DataView(await file.slice(begin, begin + 30).arrayBuffer());
  const from = begin + 30 + head.getUint16(26, true) + head.getUint16(28, true);
  const packed = file.slice(from, from + size);
  if (method === 0) return packed;
  return new Response(packed.stream().pipeThrough(new DecompressionStream("deflate-raw"))).blob();
}
