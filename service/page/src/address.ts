// What the page shows is in its address, `#view?name=value&..`, so that a reload or a link shows the same.
import { effect, signal, type Signal } from "@preact/signals";

const SETTLED_MS = 200; // browsers allow an address to change so often and no more

/** The view, and what follows it: `jobs/5f1d20b39c` is the view `jobs` of `5f1d20b39c`. */
export const path = signal("reconstruct");

interface Kept {
  signal: Signal<unknown>;
  otherwise: unknown;
  write: (value: never) => string;
  read: (text: string) => unknown;
}
const kept = new Map<string, Kept>();
const registered = signal(0);
const given = { value: new URLSearchParams() };

/** The address as it was read or written last; another one was set since, and will be read. */
let known = "";

function parse() {
  known = location.hash;
  const [before, after] = location.hash.slice(1).split("?", 2);
  try {
    path.value = decodeURI(before ?? "") || "reconstruct";
  } catch {
    path.value = "reconstruct"; // it is no address of ours
  }
  given.value = new URLSearchParams(after ?? "");
}
parse();

/** A signal whose value is in the address as `name` wherever it is not `otherwise`. */
export function inAddress<T>(name: string, otherwise: T, read: (text: string) => T, write: (value: T) => string = String) {
  const text = given.value.get(name);
  const made = signal(text === null ? otherwise : read(text));
  kept.set(name, { signal: made as Signal<unknown>, otherwise, write, read });
  registered.value += 1;
  return made;
}

export const textInAddress = (name: string, otherwise = "") => inAddress(name, otherwise, (text) => text);

export const numberInAddress = (name: string, otherwise: number, low: number, high: number) =>
  inAddress(name, otherwise, (text) => Math.min(high, Math.max(low, Number(text))) || otherwise, (value) => String(+value.toPrecision(7)));

/** The address of a view, with what is kept. */
export const href = (view: string) => `#${view}`;

function written(): string {
  registered.value; // what is kept from now on counts, too
  const params = new URLSearchParams();
  for (const [name, { signal, otherwise, write }] of kept) {
    const text = write(signal.value as never);
    if (text !== write(otherwise as never)) params.set(name, text);
  }
  const query = params.toString();
  return `#${path.value}${query && `?${query}`}`;
}

let waiting = 0;
function write(text: string) {
  clearTimeout(waiting);
  waiting = window.setTimeout(() => {
    if (location.hash !== known) return;
    history.replaceState(null, "", text);
    known = location.hash;
  }, SETTLED_MS);
}
effect(() => write(written()));

// A link of the page names a view alone; an address that somebody pastes says all.
addEventListener("hashchange", () => {
  const says = location.hash.includes("?");
  parse();
  if (!says) {
    write(written());
    return;
  }
  for (const [name, { signal, otherwise, read }] of kept) {
    const text = given.value.get(name);
    signal.value = text === null ? otherwise : read(text);
  }
});
