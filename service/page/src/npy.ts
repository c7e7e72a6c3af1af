// NumPy's format .npy, version 1 and 2: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html

export interface NpyHeader {
  shape: number[];
  /** Such as `<f4`. */
  type: string;
  fortran: boolean;
  /** Where the values begin, in bytes. */
  begin: number;
}

const LONGEST = 4096; // bytes of a header

/** The header of a .npy file; null where it is none. */
export async function npyHeader(file: Blob): Promise<NpyHeader | null> {
  return headerOf(new Uint8Array(await file.slice(0, LONGEST).arrayBuffer()));
}

function headerOf(bytes: Uint8Array): NpyHeader | null {
  if (bytes.length < 12 || String.fromCharCode(...bytes.subarray(1, 6)) !== "NUMPY" || bytes[0] !== 0x93) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const wide = view.getUint8(6) > 1;
  const start = wide ? 12 : 10;
  const begin = start + (wide ? view.getUint32(8, true) : view.getUint16(8, true));
  const text = new TextDecoder("latin1").decode(bytes.subarray(start, begin));
  const type = /'descr':\s*'([^']+)'/.exec(text)?.[1];
  const shape = /'shape':\s*\(([\d,\s]*)\)/.exec(text)?.[1];
  if (!type || shape === undefined || begin > bytes.length) return null;
  return { type, begin, fortran: /'fortran_order':\s*True/.test(text), shape: shape.split(",").filter((n) => n.trim()).map(Number) };
}

/** The values of a .npy file of float32, and their shape; null where it is not whole. */
export function readNpy(content: ArrayBuffer): { shape: number[]; values: Float32Array } | null {
  const header = headerOf(new Uint8Array(content, 0, Math.min(LONGEST, content.byteLength)));
  if (header?.type !== "<f4" || header.fortran) return null;
  const count = header.shape.reduce((a, b) => a * b, 1);
  if (content.byteLength !== header.begin + 4 * count) return null;
  return { shape: header.shape, values: new Float32Array(content, header.begin, count) };
}

/** The content of a .npy file of float32. */
export function writeNpy(shape: number[], values: Float32Array): Blob {
  const text = `{'descr': '<f4', 'fortran_order': False, 'shape': (${shape.join(", ")}${shape.length === 1 ? "," : ""}), }`;
  const length = Math.ceil((text.length + 11) / 64) * 64 - 10;
  const head = new Uint8Array(10 + length);
  head.set([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, length & 255, length >> 8]);
  head.set(new TextEncoder().encode(text.padEnd(length - 1) + "\n"), 10);
  return new Blob([head, values as Float32Array<ArrayBuffer>]);
}
