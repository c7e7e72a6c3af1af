// Values of images, attenuation / MU_MAX, as Hounsfield units, with the constants of fbp_ray/data/layout.py.

const MU_WATER = 20;
const MU_AIR = 0.02;
export const MU_MAX = (3071 * (MU_WATER - MU_AIR)) / 1000 + MU_WATER;
const f = Math.fround;
const [MAX32, WATER32, SCALE32] = [f(MU_MAX), f(MU_WATER), f(1000 / (MU_WATER - MU_AIR))];

/** In HU, with the float32 arithmetic of the service's writers. */
export const hounsfield = (value: number) => f(f(f(value * MAX32) - WATER32) * SCALE32);

export type Unit = "HU" | "1/m" | "raw";
export const UNITS: Record<Unit, { name: string; of: (value: number) => number; digits: number }> = {
  HU: { name: "HU", of: hounsfield, digits: 1 },
  "1/m": { name: "1/m", of: (value) => value * MU_MAX, digits: 3 },
  raw: { name: "as in .npy", of: (value) => value, digits: 9 },
};

/** A value with its unit. */
export function shown(value: number, unit: Unit, difference = false): string {
  const { of, digits } = UNITS[unit];
  if (unit === "raw") return value.toPrecision(digits);
  const number = difference ? of(value) - of(0) : of(value);
  return `${number.toFixed(digits)} ${unit}`.replace("-", "−");
}

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

/** The grey, 0 to 255, of a value in the service's PNG. */
export function grey(value: number, { level, width }: Window): number {
  const exact = f(f(hounsfield(value) - f(level - width / 2)) * f(255 / width));
  const rounded = Math.round(exact);
  const even = Math.abs(exact % 1) === 0.5 ? 2 * Math.round(exact / 2) : rounded; // as numpy rounds
  return Math.min(255, Math.max(0, even));
}
