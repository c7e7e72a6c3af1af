// What the view Reconstruct makes of the files, and how it shows that. What is chosen is in the address.
import { batch, computed, effect, signal } from "@preact/signals";
import { access, models } from "../access";
import { inAddress, numberInAddress, textInAddress } from "../address";
import { words } from "../api";
import { DIFFERENCE, DIFFERENCE_SHARE, differences, greys, type Colours } from "../colours";
import type { Picture, Region } from "../draw";
import { nameOf, type Ask, type Image } from "../images";
import { values } from "../source";
import { hounsfield, CT, readings, sameScale, scaleOf, shares, type Reading, type Unit, type Window } from "../units";
import { fileProblem, geometry, scan, slice, stack, truthProblem, truths } from "./given";
import { Panel } from "./panel";

export const MOST_MODELS = 3;
export const WINDOWS = ["none", "shepp-logan", "cosine", "hamming", "hann"] as const;

export const chosenWindow = inAddress<string>("window", "", (text) => WINDOWS.find((known) => known === text) ?? "");
export const cutoff = numberInAddress("cutoff", 1, 0.05, 1);
const chosen = inAddress<string[] | null>("models", null, (text) => [...new Set(text.split(",").filter(Boolean))], (names) => (names ?? ["-"]).join(","));
const level = numberInAddress("level", -300, -2000, 6000);
const width = numberInAddress("width", 1400, 1, 10000);
const windowText = (window: Window | null) => (window ? `${window.level},${window.width}` : "");
/** The window of images that are not in HU, in their own values; null until there is one. */
const ownWindow = inAddress<Window | null>(
  "values",
  null,
  (text) => {
    const [level, width] = text.split(",").map(Number);
    return Number.isFinite(level) && width! > 0 && width! < Infinity ? { level: level!, width: width! } : null;
  },
  windowText,
);
/** The unit that was chosen, which not all data have. */
export const chosenUnit = inAddress<Unit>("unit", "HU", (text) => (["HU", "1/m", "raw"] as const).find((known) => known === text) ?? "HU");
/** The panel that the others are shown minus; empty for none. */
export const reference = textInAddress("minus");
export const region = inAddress<Region>(
  "at",
  { x: 0.5, y: 0.5, zoom: 1 },
  (text) => {
    const [x, y, zoom] = text.split(",").map(Number);
    return x && y && zoom && zoom >= 1 ? { x, y, zoom } : { x: 0.5, y: 0.5, zoom: 1 };
  },
  ({ x, y, zoom }) => [x, y, zoom].map((part) => +part.toFixed(4)).join(","),
);

/** A place in all images, as fractions of the sides. */
export interface Place {
  x: number;
  y: number;
}
export const pointer = signal<Place | null>(null);
export const line = inAddress<[Place, Place] | null>(
  "line",
  null,
  (text) => {
    const [a, b, c, d] = text.split(",").map(Number);
    return d === undefined || [a, b, c, d].some(Number.isNaN) ? null : [{ x: a!, y: b! }, { x: c!, y: d }];
  },
  (ends) => (ends ? ends.flatMap(({ x, y }) => [+x.toFixed(5), +y.toFixed(5)]).join(",") : ""),
);
export type Tool = "window" | "move" | "line";
export const tool = signal<Tool>("window");

export const classicWindow = computed(() => chosenWindow.value || access.value?.window || "hann");
export const shownModels = computed(() => {
  if (chosen.value) return chosen.value.slice(0, MOST_MODELS);
  const names = models.value.map(({ name }) => name);
  return names.includes("best") ? ["best"] : names.slice(0, 1);
});

export function choose(name: string, on: boolean) {
  const others = shownModels.value.filter((other) => other !== name);
  chosen.value = on ? [...others, name].slice(-MOST_MODELS) : others;
}

/** The model in whose geometry the classic FBP is made: the first one that takes such sinograms. */
export const scanOf = computed(() => {
  const fitting = (name: string) => {
    const shape = models.value.find((model) => model.name === name)?.geometry.sinogram_shape;
    return shape?.[0] === stack.value?.rows && shape?.[1] === stack.value?.columns;
  };
  return geometry.value ? undefined : [...shownModels.value, ...models.value.map(({ name }) => name)].find(fitting);
});
const pixelOf = (name: string | undefined) => {
  const metres = models.value.find((model) => model.name === name)?.geometry.pixel_size_m;
  return metres === undefined ? null : 1000 * metres;
};
const versions = computed(() => new Map(models.value.map(({ name, version }) => [name, version])));

function askClassic(): Ask | null {
  if (!stack.value || !access.value) return null;
  const model = scanOf.value ? `model=${encodeURIComponent(scanOf.value)}&method=fbp` : "model=classic-fbp";
  const version = versions.value.get(scanOf.value ?? "best") ?? "";
  const query = `${model}&window=${classicWindow.value}&cutoff=${cutoff.value}`;
  const title = `Classic FBP: ${classicWindow.value} ${cutoff.value.toFixed(2)}`;
  return { title, stack: stack.value, query, version, geometry: geometry.value, pixel: scan.value?.pixel ?? pixelOf(scanOf.value) };
}

function askModel(name: string): Ask | null {
  if (!stack.value || !access.value) return null;
  return { title: name, stack: stack.value, query: `model=${encodeURIComponent(name)}`, version: versions.value.get(name) ?? "", geometry: "", pixel: pixelOf(name) };
}

/** A picture, what it is called, and the slice that it is of. */
export interface Shown {
  picture: Picture;
  title: string;
  index: number;
  /** A side of a pixel, in mm; null where that is not known. */
  pixel: number | null;
}

/** The ground truth of the slice. */
export const truth = signal<Shown | null>(null);
/** There is one for each sinogram. */
const truthsFit = computed(() => truths.value?.count === stack.value?.count);
effect(() => {
  const [from, index] = [truths.value, slice.value];
  if (!from || !truthsFit.value) {
    truth.value = null;
    return;
  }
  void values(from, index)
    .then((found) => {
      if (truths.value !== from || slice.value !== index) return;
      truth.value = { picture: { values: found, shape: [from.rows, from.columns], transposed: true }, title: "Ground truth", index, pixel: null };
    })
    .catch((error: unknown) => (truthProblem.value = words(error)));
});

const made = new Map<string, Panel>();
const around = { slice, truth, count: () => panels.peek().length };
const panelOf = (id: string, ask: () => Ask | null) => made.get(id) ?? made.set(id, new Panel(id, ask, around)).get(id)!;
const CLASSIC = "fbp";
export const TRUTH = "truth";

export const panels = computed((): Panel[] => [
  panelOf(CLASSIC, askClassic),
  ...(geometry.value ? [] : shownModels.value).map((name) => panelOf(`model ${name}`, () => askModel(name))), // they have scans of their own
]);
/** Tells panels that nobody looks at to do nothing. */
effect(() => {
  const now = new Set(panels.value);
  for (const panel of made.values()) panel.watched.value = now.has(panel);
});

/** What a panel is to show, which is not there yet; empty where it shows that. */
export function lacks(panel: Panel): string {
  const [image, ask] = [panel.image.value, panel.asked()];
  if (!ask || (image && image.index === slice.value && nameOf(image.ask) === nameOf(ask))) return "";
  return nameOfSlice(ask.title, slice.value);
}

/** What a picture is called, with its slice in a stack. */
export const nameOfSlice = (title: string, index: number) => (stack.value && stack.value.count > 1 ? `${title}, slice ${index}` : title);

export const sinogram = signal<Picture | null>(null);
effect(() => {
  const [from, index] = [stack.value, slice.value];
  if (!from) {
    sinogram.value = null;
    return;
  }
  void values(from, Math.min(index, from.count - 1))
    .then((found) => {
      if (stack.value === from && slice.value === index) sinogram.value = { values: found, shape: [from.rows, from.columns], transposed: false };
    })
    .catch((error: unknown) => (fileProblem.value = words(error)));
});

const firstPanel = computed(() => panels.value.find(({ image }) => image.value) ?? null);
const firstImage = computed(() => firstPanel.value?.image.value ?? null);

/** What all values stand for that are shown: those of the first image, or until there is one those of its model. */
export const scale = computed(() => {
  const model = models.value.find(({ name }) => name === scanOf.value);
  if (firstImage.value) return firstImage.value.scale;
  return model ? scaleOf(model.unit, model.value_scale) : geometry.value ? scaleOf("", null) : CT;
});

/** Why an image cannot be shown beside the first one; empty where it can. */
export function foreign(image: Image | null): string {
  if (!image || sameScale(image.scale, scale.value) || panels.value.some(({ busy }) => busy.value)) return "";
  return `Its values are ${image.scale.words}, but those of the others ${scale.value.words}, so they are not compared. Choose models of one unit.`;
}

const units = computed(() => readings(scale.value));
export const unitChoices = computed(() => [...units.value]);
export const unit = computed((): Unit => (units.value.has(chosenUnit.value) ? chosenUnit.value : unitChoices.value[0]![0]));
export const reading = computed((): Reading => units.value.get(unit.value)!);

/** The images that there are, by panel. */
export const images = computed(() => {
  const found = new Map<string, Shown>();
  for (const { id, image: { value: image } } of panels.value) {
    if (image && sameScale(image.scale, scale.value)) found.set(id, { picture: image.picture, title: image.ask.title, index: image.index, pixel: image.ask.pixel });
  }
  if (truth.value) found.set(TRUTH, truth.value);
  return found;
});

/** Whether two images are of the same slice and shape, so that they can be compared. */
export const alike = (a: Shown, b: Shown) => a.index === b.index && a.picture.shape.join() === b.picture.shape.join();

/** Why the ground truth cannot be compared with; empty where it can. */
export const truthMismatch = computed(() => {
  if (truths.value && stack.value && !truthsFit.value) {
    return (
      `${truths.value.name} has ${truths.value.count} ${truths.value.count === 1 ? "image" : "images"} for ${stack.value.count} ` +
      `${stack.value.count === 1 ? "sinogram" : "sinograms"}, so they are not compared. Drop the ground truth of this file.`
    );
  }
  const [beside, image] = [truth.value?.picture, [...images.value].find(([id]) => id !== TRUTH)?.[1].picture];
  if (beside && !beside.values.every(Number.isFinite)) return "The ground truth has values that are NaN or infinite, so that there are no PSNR and SSIM.";
  if (!beside || !image || beside.shape.join() === image.shape.join()) return "";
  return (
    `The ground truth has images of ${beside.shape.join(" × ")}, but the reconstructions have ${image.shape.join(" × ")}, so they are not ` +
    "compared. Drop the one of this scan, axis 0 = x."
  );
});

effect(() => {
  if (stack.value && !truths.value && reference.value === TRUTH) reference.value = ""; // the next one is another
});

/** What images hold that are not in HU: those of the stack that is shown. */
interface Range {
  of: Image;
  panel: Panel;
  low: number;
  high: number;
  /** Of differences. */
  reach: number;
}
/** Null for CT, and until there is an image. */
export const range = signal<Range | null>(null);

function rangeOf(image: Image, panel: Panel): Range {
  const at = shares(image.picture.values); // with the shares of the service's PNG, and of reports
  return { of: image, panel, low: at(0.001), high: at(0.999), reach: +(DIFFERENCE_SHARE * Math.max(at(0.998), 1e-12)).toPrecision(2) };
}

const windowOf = ({ low, high }: Range): Window => rounded({ level: (low + high) / 2, width: high - low });

effect(() => {
  const [panel, image, before] = [firstPanel.value, firstImage.value, range.peek()];
  if (!panel || !image || image.scale.hu) return;
  const known = before?.of.ask.stack === image.ask.stack && sameScale(before.of.scale, image.scale);
  if (known && before.panel === panel) return;
  range.value = rangeOf(image, panel);
  // An image that comes later may stand before the one whose window this is; a window that somebody has chosen stays.
  const chosen = before ? known && windowText(ownWindow.peek()) !== windowText(windowOf(before)) : !!ownWindow.peek();
  if (!chosen) ownWindow.value = windowOf(range.value);
});

/** Level and width, in HU or else in values. */
export const shownWindow = computed((): Window => {
  const { hu } = scale.value;
  return hu ? { level: level.value, width: width.value } : (ownWindow.value ?? { level: 0.5, width: 1 });
});
/** How far differences reach, either way. */
export const reach = computed(() => (scale.value.hu ? DIFFERENCE : (range.value?.reach ?? DIFFERENCE)));

const grey = computed(() => greys(shownWindow.value, scale.value.hu));
const diverging = computed(() => differences(reach.value));
const subtracted = new WeakMap<Picture, { from: Picture; made: Picture }>();

/** What a panel shows: its image, or that minus the reference's, which is then named. */
export function shownOf(id: string): (Shown & { colours: Colours; minus: string }) | null {
  const image = images.value.get(id);
  if (!image) return null;
  const other = reference.value === id ? undefined : images.value.get(reference.value);
  if (!other || !alike(image, other)) return { ...image, colours: grey.value, minus: "" };
  const { picture } = image;
  let found = subtracted.get(picture);
  if (found?.from !== other.picture) {
    const difference = picture.values.map((value, i) => value - other.picture.values[i]!);
    found = { from: other.picture, made: { ...picture, values: difference } };
    subtracted.set(picture, found);
  }
  return { ...image, picture: found.made, colours: diverging.value, minus: other.title };
}

/** What the others are shown minus; empty where nothing is. */
export const subtrahend = computed(() => [...images.value.keys()].map((id) => shownOf(id)!.minus).find(Boolean) ?? "");

export function setWindow(window: Window) {
  if (!scale.value.hu) {
    ownWindow.value = rounded(window);
    return;
  }
  batch(() => {
    level.value = Math.min(6000, Math.max(-2000, Math.round(window.level)));
    width.value = Math.min(10000, Math.max(1, Math.round(window.width)));
  });
}

/** A window with the digits of the address. */
function rounded({ level, width }: Window): Window {
  const digits = (value: number) => +value.toPrecision(6);
  return { level: digits(level), width: digits(Math.max(1e-9, width)) };
}

/** Moves level and width by shares of what there is to see. */
export function dragWindow(across: number, down: number) {
  const { level, width } = shownWindow.value;
  const { low, high } = range.value ?? { low: 0, high: 1 };
  const step = Math.max(width, scale.value.hu ? 50 : (high - low) / 50);
  setWindow({ level: level + down * step, width: width + across * step });
}

/** Level and width that show what the first image holds. */
export function fitWindow() {
  const [panel, first] = [firstPanel.value, firstImage.value];
  if (!panel || !first) return;
  if (!scale.value.hu) return setWindow(windowOf(rangeOf(first, panel)));
  const at = shares(first.picture.values);
  const [low, high] = [hounsfield(at(0.005)), hounsfield(at(0.995))];
  setWindow({ level: (low + high) / 2, width: high - low });
}
