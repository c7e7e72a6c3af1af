// A job as it goes, told by its events; its document is asked for now and then.
import type { Signal } from "@preact/signals";
import { getJson, isAbort, pause, Problem, words, type Documents } from "../api";
import { eventsOf } from "../stream";

export type Job = Documents["JobDocument"];
export type Row = Record<string, unknown>;
export const AGAIN_MS = 3000;
const DOCUMENT_MS = 2000; // from one look at the document to the next
const ROWS_MS = 100; // rows that come together are shown together

export interface Followed {
  job: Signal<Job | null>;
  rows: Signal<Row[]>;
  problem: Signal<string>;
  /** Whether there is no such job. */
  none: Signal<boolean>;
}

export const addressOf = (id: string) => `jobs/${encodeURIComponent(id)}`;

/** Follows a job until it has ended; when the service is away, from where it was. */
export async function follow(id: string, { job, rows, problem, none }: Followed, gone: AbortSignal) {
  let [seen, ended, asking] = ["", false, false];
  let fresh: Row[] = [];
  let shown = 0;
  const show = () => {
    clearTimeout(shown);
    shown = 0;
    if (fresh.length) rows.value = [...rows.value, ...fresh];
    fresh = [];
  };
  /** One look at a time, some seconds after what it is for. */
  const look = async () => {
    if (asking) return;
    asking = true;
    await pause(DOCUMENT_MS);
    try {
      if (!ended && !gone.aborted) {
        const found = await getJson<Job>(addressOf(id), gone);
        if (!ended) job.value = found;
      }
    } catch {
      // the events say what there is to say
    }
    asking = false;
  };
  while (!gone.aborted) {
    try {
      for await (const { name, id: number, data } of eventsOf(`${addressOf(id)}/events`, seen, gone)) {
        problem.value = "";
        seen = number;
        if (name === "status" || name === "end") {
          ended = name === "end";
          show();
          job.value = data as Job;
          if (ended) return;
        } else {
          fresh.push(data as Row);
          shown ||= window.setTimeout(show, ROWS_MS);
          void look();
        }
      }
    } catch (error) {
      if (isAbort(error)) return;
      if (error instanceof Problem && error.status === 404) none.value = true;
      problem.value = words(error);
      if (error instanceof Problem && error.status >= 400 && error.status < 500) return;
    }
    await pause(AGAIN_MS);
  }
}

/** How many are done: what the rows say where they are newer than the document. */
export function doneOf({ progress: { unit, done } }: Job, rows: Row[]): number {
  const epoch = Number(rows.at(-1)?.epoch ?? 0); // epoch 0 is a window that was solved
  const told = unit === "epoch" ? epoch : unit === "trial" || unit === "slab" ? rows.length : 0;
  return Math.max(done, told);
}
