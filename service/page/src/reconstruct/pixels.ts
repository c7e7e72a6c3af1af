// The values along a line, pixel by pixel, as they are: nothing is interpolated.
import { columnsOf, rowsOf, valueAt, type Picture } from "../draw";
import type { Place } from "./state";

/** The pixels along a line, one for each step of the longer side, and how far each is from the first, in pixels. */
export function pixelsAlong([a, b]: [Place, Place], columns: number, rows: number) {
  const clip = (value: number, length: number) => Math.min(length - 1, Math.max(0, Math.floor(value * length)));
  const [x0, y0, x1, y1] = [clip(a.x, columns), clip(a.y, rows), clip(b.x, columns), clip(b.y, rows)];
  const steps = Math.max(Math.abs(x1 - x0), Math.abs(y1 - y0), 1);
  return Array.from({ length: steps + 1 }, (_, i) => ({
    column: Math.round(x0 + ((x1 - x0) * i) / steps),
    row: Math.round(y0 + ((y1 - y0) * i) / steps),
    away: (Math.hypot(x1 - x0, y1 - y0) * i) / steps,
  }));
}

export function profile(picture: Picture, pixels: ReturnType<typeof pixelsAlong>): number[] {
  return pixels.map(({ column, row }) => valueAt(picture, column, row));
}

export const sidesOf = (picture: Picture): [number, number] => [columnsOf(picture), rowsOf(picture)];
