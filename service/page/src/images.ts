// What was reconstructed: each image is asked for once, and the oldest are forgotten when they are too many.
import { refreshModels } from "./access";
import { call, CUT_OFF, Problem, whole } from "./api";
import type { Picture } from "./draw";
import { readNpy } from "./npy";
import { refuseIfLarge, type Stack } from "./source";
import { scaleOf, type Scale } from "./units";

const MOST_BYTES = 256e6;
const numbers = new WeakMap<Stack, number>();
let stacks = 0;

/** What to have reconstructed, by what. */
export interface Ask {
  /** As people call it. */
  title: string;
  stack: Stack;
  /** Options of POST /reconstruct. */
  query: string;
  /** Of the model: another one makes other images. */
  version: string;
  /** The stack's own scan, as JSON; empty where the model's holds. */
  geometry: string;
  /** A side of a pixel of its images, in mm; null where that is not known. */
  pixel: number | null;
}

/** An image, and what made it. */
export interface Image {
  picture: Picture;
  ask: Ask;
  /** The slice that it is of. */
  index: number;
  /** The model's version, as the service has it. */
  version: string;
  /** What its values stand for. */
  scale: Scale;
}

const kept = new Map<string, Image>();
/** What is on its way. */
const pending = new Map<string, Promise<Image>>();
let bytes = 0;

/** Names what is asked for, but for the slice. */
export function nameOf({ stack, query, version, geometry }: Ask): string {
  if (!numbers.has(stack)) numbers.set(stack, ++stacks);
  return `${numbers.get(stack)} ${query} ${version} ${geometry}`;
}

/** An image that is there already. */
export function known(ask: Ask, index: number): Image | undefined {
  const key = `${nameOf(ask)} ${index}`;
  const found = kept.get(key);
  if (found) {
    kept.delete(key); // to the end of the order in which they are forgotten
    kept.set(key, found);
  }
  return found;
}

/** Whether an image is there or on its way, without counting that as a use of it. */
export function has(ask: Ask, index: number): boolean {
  const key = `${nameOf(ask)} ${index}`;
  return kept.has(key) || pending.has(key);
}

/** How many images there is room for, where `panels` share it. */
export const room = (image: Image, panels: number) => Math.floor(MOST_BYTES / panels / image.picture.values.byteLength) - 1;

/** The body and headers of a request for some slices; raises Problem for too much. */
export async function request(ask: Ask, first: number, count: number): Promise<RequestInit> {
  const { stack, geometry } = ask;
  const content = await stack.read(first, count);
  refuseIfLarge(content.size, count > 1 ? `A part of ${stack.name}` : `A sinogram of ${stack.name}`, "Raise the service's limits.body_mb.");
  const shape = `${count > 1 ? `${count},` : ""}${stack.rows},${stack.columns}`;
  if (!geometry) return { method: "POST", headers: { "X-Shape": shape }, body: content };
  const form = new FormData();
  form.set("sinogram", content);
  form.set("geometry", geometry);
  return { method: "POST", headers: { "X-Shape": shape }, body: form };
}

/** Has slices reconstructed, and keeps their images; a single one may be on its way already. Raises Problem. */
export async function load(ask: Ask, first: number, count: number, signal: AbortSignal): Promise<Image> {
  const keys = Array.from({ length: count }, (_, number) => `${nameOf(ask)} ${first + number}`);
  if (count === 1) {
    await pending.get(keys[0]!)?.catch(() => undefined);
    signal.throwIfAborted();
    const found = known(ask, first);
    if (found) return found;
  }
  const coming = reconstruct(ask, first, count, signal);
  for (const key of keys) pending.set(key, coming);
  try {
    return await coming;
  } finally {
    for (const key of keys) if (pending.get(key) === coming) pending.delete(key);
  }
}

async function reconstruct(ask: Ask, first: number, count: number, signal: AbortSignal): Promise<Image> {
  const answer = await call(`reconstruct?${ask.query}`, { ...(await request(ask, first, count)), signal });
  const read = readNpy(await whole(answer));
  if (!read) throw new Problem(0, CUT_OFF);
  const version = answer.headers.get("X-Model-Version") ?? "";
  if (answer.headers.get("X-Method") === "learned" && version !== ask.version) void refreshModels().catch(() => undefined);
  const shape = read.shape.slice(-2) as [number, number];
  const size = shape[0] * shape[1];
  let image: Image | undefined;
  for (let number = 0; number < count; number++) {
    const values = count > 1 ? read.values.subarray(number * size, (number + 1) * size) : read.values;
    const made = {
      picture: { values, shape, transposed: true },
      ask,
      index: first + number,
      version,
      scale: scaleOf(answer.headers.get("X-Value-Unit") ?? "", Number(answer.headers.get("X-Value-Scale")) || null),
    };
    image ??= made;
    keep(`${nameOf(ask)} ${first + number}`, made);
  }
  return image!;
}

function keep(key: string, image: Image) {
  kept.set(key, image);
  bytes += image.picture.values.byteLength;
  for (const [oldest, { picture }] of kept) {
    if (bytes <= MOST_BYTES) break;
    kept.delete(oldest);
    bytes -= picture.values.byteLength;
  }
}
