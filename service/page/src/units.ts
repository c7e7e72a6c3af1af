// Values of images in the units that people read. Hounsfield units are there for CT in LoDoPaB-CT's scale alone, with the constants of
// fbp_ray/data/layout.py; other data have attenuation in 1/m, or a unit that nobody knows.

const MU_WATER = 20;
const MU_AIR = 0.02;
export const MU_MAX = (3071 * (MU_WATER - MU_AIR)) / 1000 + MU_WATER;
const f = Math.fround;
const [MAX32, WATER32, SCALE32] = [f(MU_MAX), f(MU_WATER), f(1000 / (MU_WATER - MU_AIR))];

/** In HU, with the float32 arithmetic of the service's writers. */
export const hounsfield = (value: number) => f(f(f(value * MAX32) - WATER32) * SCALE32);

/** What the values of images stand for. */
export interface Scale {
  /** In the service's words. */
  words: string;
  /** 1/m that the value 1 stands for; null where that is not known. */
  perMetre: number | null;
  /** They are CT's, so that there are Hounsfield units. */
  hu: boolean;
}

/** The scale of images: X-Value-Unit and X-Value-Scale of an answer, `unit` and `value_scale` of a model. */
export function scaleOf(words: string, perMetre: number | null): Scale {
  return { words, perMetre, hu: perMetre !== null && Math.abs(perMetre / MU_MAX - 1) < 1e-4 };
}

/** Whether values may be compared. */
export const sameScale = (a: Scale, b: Scale) => a.words === b.words && a.perMetre === b.perMetre;

export const CT = scaleOf("attenuation in 1/m, divided by 81.35858", MU_MAX);

export type Unit = "HU" | "1/m" | "raw";
export interface Reading {
  name: string;
  of: (value: number) => number;
  /** The number, as people read it. */
  text: (number: number) => string;
}

/** The units in which values of a scale can be read, the usual one first. */
export function readings({ perMetre, hu }: Scale): Map<Unit, Reading> {
  const found = new Map<Unit, Reading>();
  const per = hu ? MU_MAX : perMetre;
  if (hu) found.set("HU", { name: "HU", of: hounsfield, text: (number) => `${number.toFixed(1)} HU` });
  if (per) found.set("1/m", { name: "1/m", of: (value) => value * per, text: (number) => `${hu ? number.toFixed(3) : number.toPrecision(5)} 1/m` });
  return found.set("raw", { name: "as in .npy", of: (value) => value, text: (number) => number.toPrecision(9) });
}

/** A value with its unit. */
export const shown = (value: number, { of, text }: Reading, difference = false) =>
  text(difference ? of(value) - of(0) : of(value)).replace(/^-/, "−");

export interface Window {
  level: number;
  width: number;
}
/** Level and width in HU. */
export const PRESETS: Record<string, Window> = {
  All: { level: -300, width: 1400 },
  Lung: { level: -600, width: 1500 },
  "Soft tissue": { level: 40, width: 400 },
  Bone: { level: 500, width: 2000 },
};

/** The grey, 0 to 255, of a value in the service's PNG; the window is in HU, or else in values. */
export function grey(value: number, { level, width }: Window, hu: boolean): number {
  const exact = f(f((hu ? hounsfield(value) : value) - f(level - width / 2)) * f(255 / width));
  const rounded = Math.round(exact);
  const even = Math.abs(exact % 1) === 0.5 ? 2 * Math.round(exact / 2) : rounded; // as numpy rounds
  return Math.min(255, Math.max(0, even));
}

/** Values in order, and the one below which a share of them lies, as numpy's percentiles. */
export function shares(values: Float32Array): (share: number) => number {
  const sorted = values.toSorted();
  return (share) => {
    const at = share * (sorted.length - 1);
    const [a, b] = [sorted[Math.floor(at)]!, sorted[Math.ceil(at)]!];
    return a + (b - a) * (at % 1);
  };
}
