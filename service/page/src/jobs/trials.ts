// The trials of a sweep: what their rows say, which is best and by what, and where their values stand on an axis.
import type { Job, Row } from "./follow";

export interface Trial {
  name: string;
  /** completed, stopped (early) or failed. */
  status: string;
  reason: string;
  epochs: number;
  psnr: number | null;
  ssim: number | null;
  merit: number | null;
  parameters: Record<string, unknown>;
}
export interface Scored extends Trial {
  psnr: number;
  ssim: number;
}
/** The classic FBP with its best Hann window, on the same images. */
export interface Classic {
  psnr: number;
  ssim: number;
}

export function trialsOf(rows: Row[]): Trial[] {
  const number = (value: unknown) => (typeof value === "number" ? value : null);
  return rows.map(({ trial, status, reason, epochs, psnr, ssim, merit, parameters }) => ({
    name: String(trial),
    status: String(status),
    reason: String(reason ?? ""),
    epochs: Number(epochs ?? 0),
    psnr: number(psnr),
    ssim: number(ssim),
    merit: number(merit),
    parameters: (parameters ?? {}) as Record<string, unknown>,
  }));
}

export const hasScore = (trial: Trial): trial is Scored => trial.status !== "failed" && trial.psnr !== null && trial.ssim !== null;

export const byMerit = (one: Trial, other: Trial) => (other.merit ?? -Infinity) - (one.merit ?? -Infinity);

/** What trials are ranked by, in words. */
export function meritOf({ request }: Job): string {
  const metric = (request.config as { sweep?: { metric?: string } } | undefined)?.sweep?.metric ?? "combined";
  return metric === "combined" ? "gain in PSNR over the classic FBP, dB, + 20 times the gain in SSIM" : `gain in ${metric.toUpperCase()} over the classic FBP`;
}

export function classicOf({ progress: { best } }: Job): Classic | null {
  const [psnr, ssim] = [best.psnr, best.ssim].map((figure) => (typeof figure?.value === "number" && typeof figure.over_fbp === "number" ? figure.value - figure.over_fbp : null));
  return typeof psnr === "number" && typeof ssim === "number" ? { psnr, ssim } : null;
}

/** The trials that none beats in both figures, by PSNR. */
export function paretoFront<T extends { psnr: number; ssim: number }>(trials: T[]): T[] {
  return trials.filter((one) => !trials.some((other) => other.psnr >= one.psnr && other.ssim >= one.ssim && (other.psnr > one.psnr || other.ssim > one.ssim))).sort((a, b) => a.psnr - b.psnr);
}

export const short = (value: unknown) => (typeof value === "number" ? String(+value.toPrecision(4)) : typeof value === "string" ? value : JSON.stringify(value));

export interface Tick {
  /** 0 to 1 along the axis. */
  at: number;
  text: string;
}
export interface Scale {
  of: (value: unknown) => number;
  ticks: Tick[];
  /** Whether the values are choices, each of which has a tick. */
  choices: boolean;
  log: boolean;
}
const FEW = 6; // different numbers that are choices rather than a range

/** An axis for values: a range of numbers, in logarithms where they are far apart, or choices, each of which is named. */
export function scaleOf(values: unknown[], digits = 3): Scale {
  const numbers = values.every((value) => typeof value === "number") ? (values as number[]) : null;
  const kinds = [...new Set(values.map(short))];
  if (!numbers || (kinds.length <= FEW && kinds.length < values.length / 2)) {
    if (numbers) kinds.sort((a, b) => Number(a) - Number(b));
    const at = (index: number) => (kinds.length > 1 ? index / (kinds.length - 1) : 0.5);
    return { of: (value) => at(kinds.indexOf(short(value))), ticks: kinds.map((text, index) => ({ at: at(index), text })), choices: true, log: false };
  }
  const [low, high] = [Math.min(...numbers), Math.max(...numbers)];
  const log = low > 0 && high / low > 20;
  const along = (value: number) => (log ? Math.log(value) : value);
  const of = (value: unknown) => (high > low ? (along(value as number) - along(low)) / (along(high) - along(low)) : 0.5);
  const between = (log ? decades(low, high) : rounds(low, high)).filter((value) => of(value) > 0.02 && of(value) < 0.98);
  const text = (value: number) => String(+value.toPrecision(digits));
  return { of, log, choices: false, ticks: [low, ...(high > low ? [high] : []), ...between].map((value) => ({ at: of(value), text: text(value) })) };
}

const decades = (low: number, high: number) => Array.from({ length: 40 }, (_, i) => 10 ** (i - 20)).filter((value) => value > low && value < high);

function rounds(low: number, high: number): number[] {
  const rough = (high - low) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough)!;
  return Array.from({ length: 9 }, (_, i) => (Math.ceil(low / step) + i) * step).filter((value) => value < high);
}

/** The ticks whose names have room, the first ones before others, choices in two lines; `size` is the length of the axis, in pixels. */
export function withRoom({ ticks, choices }: Scale, size: number, letter = 7.5): (Tick & { line: number })[] {
  const taken: [number, number, number][] = [];
  const found: (Tick & { line: number })[] = [];
  for (const tick of ticks) {
    const half = (tick.text.length * letter) / 2 + 4;
    const middle = Math.min(size - half, Math.max(half, tick.at * size));
    const line = (choices ? [0, 1] : [0]).find((line) => !taken.some(([from, to, on]) => on === line && middle - half < to && middle + half > from));
    if (line === undefined) continue;
    taken.push([middle - half, middle + half, line]);
    found.push({ ...tick, at: middle / size, line });
  }
  return found;
}
