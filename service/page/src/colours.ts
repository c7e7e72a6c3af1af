// Colours by value: 256 of them, and the values that have the first and the last.
import { hounsfield, MU_MAX, type Window } from "./units";

export interface Colours {
  /** 256 x RGBA. */
  table: Uint8Array<ArrayBuffer>;
  low: number;
  high: number;
}

function table(stops: [number, number, number][]): Uint8Array<ArrayBuffer> {
  const made = new Uint8Array(1024);
  for (let i = 0; i < 256; i++) {
    const at = (i / 255) * (stops.length - 1);
    const [a, b] = [stops[Math.floor(at)]!, stops[Math.ceil(at)]!];
    for (let c = 0; c < 3; c++) made[4 * i + c] = Math.round(a[c]! + (b[c]! - a[c]!) * (at % 1));
    made[4 * i + 3] = 255;
  }
  return made;
}

const GREY = table([[0, 0, 0], [255, 255, 255]]);
/** Blue for too little, red for too much. */
export const DIVERGING = table([[5, 48, 97], [67, 147, 195], [247, 247, 247], [214, 96, 77], [103, 0, 31]]);
/** Matplotlib's viridis, at nine places. */
export const VIRIDIS = table([
  [68, 1, 84], [71, 45, 123], [59, 82, 139], [44, 114, 142], [33, 145, 140], [40, 174, 128], [94, 201, 98], [173, 220, 48], [253, 231, 37],
]);

/** Of all differences of CT, so that any two can be compared; the one of reports and training pictures. */
export const DIFFERENCE = 0.08;
/** Of other data it is as large a share of what their brightest things have. */
export const DIFFERENCE_SHARE = DIFFERENCE / 0.45;
export const DIFFERENCE_HU = hounsfield(DIFFERENCE) - hounsfield(0);

/** The value that has so many HU. */
export const valueOf = (hu: number) => ((hu - hounsfield(0)) / 1000) * ((20 - 0.02) / MU_MAX);

/** Greys of a window, which is in HU or else in values. */
export function greys({ level, width }: Window, hu: boolean): Colours {
  const [low, high] = [level - width / 2, level + width / 2].map((end) => (hu ? valueOf(end) : end)) as [number, number];
  return { table: GREY, low, high };
}
export const differences = (reach: number): Colours => ({ table: DIVERGING, low: -reach, high: reach });

/** Greys from the least value to the most. */
export function spanning(values: Float32Array, colours: Uint8Array<ArrayBuffer> = GREY): Colours {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return { table: colours, low, high: high > low ? high : low + 1 };
}
