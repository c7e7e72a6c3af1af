// The window of a model for rays of a kind, of what the service tells of it.
import type { Documents } from "../api";

type Doc = Documents["WindowDocument"];

/** The place of a value in evenly spaced entries, and how far it is to the next. */
function between(entries: number[], value: number): [number, number] {
  if (entries.length < 2) return [0, 0];
  const at = ((value - entries[0]!) / (entries.at(-1)! - entries[0]!)) * (entries.length - 1);
  const low = Math.min(entries.length - 2, Math.max(0, Math.floor(at)));
  return [low, Math.min(1, Math.max(0, at - low))];
}

/** The window of rays of some variance, where a band has some energy: gains are interpolated as the model does. */
export function windowByNoise(doc: Doc, logVariance: number, logEnergy: number): number[] {
  const [v, dv] = between(doc.log_variance!, logVariance);
  const [e, de] = between(doc.log_energy!, logEnergy);
  const gains = doc.gains!.map((table) => {
    const at = (row: number) => (table[row] ?? table.at(-1)!)[e]! * (1 - de) + ((table[row] ?? table.at(-1)!)[e + 1] ?? 0) * de;
    return at(v) * (1 - dv) + (dv ? at(v + 1) * dv : 0);
  });
  const [first, ...others] = doc.bands!;
  return first!.map((value, f) => others.reduce((sum, band, m) => sum + gains[m]! * band[f]!, value));
}

const ROWS = 96; // of the map by noise

/** The window over what it depends on, (rows, F), and what the rows are; null where it is the same for all rays. */
export function mapOf(doc: Doc, logEnergy: number): { values: Float32Array; rows: number; first: number; last: number } | null {
  const columns = doc.frequency.length;
  let lines: number[][];
  let ends: number[];
  if (doc.by_angle) [lines, ends] = [doc.by_angle, doc.angle!];
  else if (doc.bands) {
    const [low, high] = [doc.log_variance![0]!, doc.log_variance!.at(-1)!];
    ends = [low, high];
    lines = Array.from({ length: ROWS }, (_, i) => windowByNoise(doc, low + ((high - low) * i) / (ROWS - 1), logEnergy));
  } else return null;
  const values = new Float32Array(lines.length * columns);
  lines.forEach((one, row) => values.set(one, row * columns));
  return { values, rows: lines.length, first: ends[0]!, last: ends.at(-1)! };
}
