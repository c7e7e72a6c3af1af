// Files as they are dropped. Of a .npy or .npz the browser reads slices; other formats the service turns into .npy.
import { access } from "./access";
import { call, CHANGED, Problem } from "./api";
import { npyHeader } from "./npy";
import { zipEntries } from "./zip";

const SINOGRAMS = ["data", "sinogram", "observation"]; // as the service looks for them
const TRUTHS = ["ground_truth", "truth", "image"];
const TYPES: Record<string, number> = { "<f4": 4, "<f8": 8 };

/** Arrays of one shape in a row, (count, rows, columns). */
export interface Stack {
  name: string;
  count: number;
  rows: number;
  columns: number;
  /** It was one array, not a stack of one. */
  single: boolean;
  /** Some of them as little-endian float32. */
  read: (first: number, count: number) => Promise<Blob>;
}

/** What a file holds. */
export interface Dropped {
  sinograms: Stack;
  /** The ground truth that comes with them, which is unpacked when it is asked for. */
  truths: () => Promise<Stack | null>;
}

/** The sinograms of a file, and the ground truth that comes with them; raises Problem. */
export async function openSinograms(file: File, signal: AbortSignal): Promise<Dropped> {
  const entries = await readable(file, zipEntriesOf);
  if (entries) {
    const names = [...entries.keys()];
    const name = SINOGRAMS.find((known) => entries.has(known)) ?? (names.length === 1 ? names[0] : undefined);
    const truth = TRUTHS.find((known) => entries.has(known) && known !== name);
    const sinograms = name === undefined ? null : await stackOf(await entries.get(name)!(), file.name);
    if (sinograms) {
      return { sinograms, truths: async () => (truth ? stackOf(await entries.get(truth)!(), `${file.name}: ${truth}`) : null) };
    }
  }
  return { sinograms: (await stackOf(file, file.name)) ?? (await byService(file, signal)), truths: async () => null };
}

/** The images of a file; raises Problem. */
export async function openTruths(file: File, signal: AbortSignal): Promise<Stack> {
  const entries = await readable(file, zipEntriesOf);
  const name = entries && (TRUTHS.find((known) => entries.has(known)) ?? (entries.size === 1 ? [...entries.keys()][0] : undefined));
  const found = entries && name !== undefined && name !== null ? await stackOf(await entries.get(name)!(), file.name) : null;
  return found ?? (await stackOf(file, file.name)) ?? (await byService(file, signal));
}

/** Images of a stack as float32; raises Problem. */
export async function values(stack: Stack, index: number): Promise<Float32Array> {
  try {
    return new Float32Array(await (await stack.read(index, 1)).arrayBuffer());
  } catch {
    throw new Problem(0, CHANGED);
  }
}

/** A scan, a ParallelBeam or FanBeam. */
export interface Scan {
  name: string;
  json: string;
  angles: number;
  cells: number;
  /** Of its images, axis 0 and axis 1. */
  columns: number;
  rows: number;
  /** A side of a pixel, in mm. */
  pixel: number;
}

/** The scan that a file describes, a dataset.json too; raises Problem. */
export async function openScan(file: File): Promise<Scan> {
  const text = await readable(file, () => file.text());
  try {
    const given = JSON.parse(text) as Record<string, unknown>;
    const scan = (given.geometry ?? given) as Record<string, unknown>;
    const angles = Array.isArray(scan.angles) ? scan.angles.length : (scan.angles as { count: unknown }).count;
    const [columns, rows] = scan.image_shape as unknown[];
    const lengths = [angles, scan.cells, columns, rows, scan.pixel_size];
    if (lengths.every((length) => typeof length === "number")) {
      return { name: file.name, json: JSON.stringify(scan), angles: lengths[0]!, cells: lengths[1]!, columns: lengths[2]!, rows: lengths[3]!, pixel: 1000 * lengths[4]! };
    }
  } catch {
    // as any other that is no scan
  }
  throw new Problem(
    0,
    `${file.name} is no scan: JSON with angles, cells, cell_size, image_shape and pixel_size, in metres and radians, is expected. ` +
      "ParallelBeam.model_dump_json() writes it, and a dataset.json has it. Nothing was changed.",
  );
}

async function readable<T>(file: File, read: (file: File) => Promise<T>): Promise<T> {
  try {
    return await read(file);
  } catch {
    throw new Problem(0, `The browser cannot read ${file.name}: it was moved, is a folder, or may not be read. Choose it again.`);
  }
}

async function zipEntriesOf(file: File) {
  const begin = new Uint8Array(await file.slice(0, 4).arrayBuffer());
  return begin[0] === 0x50 && begin[1] === 0x4b ? zipEntries(file) : null;
}

/** The stack that a .npy file is; null where the service has to read it. */
async function stackOf(file: Blob, name: string): Promise<Stack | null> {
  const header = await npyHeader(file);
  const bytes = header && TYPES[header.type];
  if (!header || !bytes || header.fortran || header.shape.length < 2 || header.shape.length > 3 || header.shape.includes(0)) return null;
  const single = header.shape.length === 2;
  const [count, rows, columns] = (single ? [1, ...header.shape] : header.shape) as [number, number, number];
  const size = bytes * rows * columns;
  if (file.size !== header.begin + size * count) {
    throw new Problem(0, `${name} should have ${header.begin + size * count} bytes, but has ${file.size}. Was it cut short? Save it again.`);
  }
  const read = async (first: number, many: number) => {
    const part = file.slice(header.begin + first * size, header.begin + (first + many) * size);
    return bytes === 4 ? part : new Blob([new Float32Array(new Float64Array(await part.arrayBuffer()))]);
  };
  return { name, count, rows, columns, single, read };
}

async function byService(file: File, signal: AbortSignal): Promise<Stack> {
  refuseIfLarge(file.size, file.name, "Save the stack as .npy (float32), of which the page sends a slice at a time.");
  const answer = await call("array", { method: "POST", body: file, signal });
  const stack = await stackOf(await answer.blob(), file.name);
  if (!stack) throw new Problem(0, `The service's answer for ${file.name} was cut off half way; try again.`);
  return stack;
}

/** Raises Problem for more than the service takes at a time, before it is sent. */
export function refuseIfLarge(size: number, name: string, advice = "") {
  const most = access.value?.body_bytes ?? Infinity;
  if (size > most) {
    throw new Problem(
      413,
      `${name} has ${megabytes(size)}, and the service takes at most ${megabytes(most)} at a time. Nothing was sent. ${advice}`,
    );
  }
}

const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
