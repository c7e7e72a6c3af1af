// What a job prints, as it comes.
import { useSignal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { call, isAbort, pause, Problem, words } from "../api";
import { Fault } from "../parts/Fault";
import { save } from "../parts/save";
import { useTask } from "../parts/task";
import { textOf } from "../stream";
import { addressOf, AGAIN_MS } from "./follow";

const MOST = 200_000; // characters that are shown
const NEAR = 16; // pixels from the end that are at the end

/** `ended`: the job is over, so that no more comes. */
export function Log({ id, ended }: { id: string; ended: boolean }) {
  const [text, left, problem] = [useSignal(""), useSignal(0), useSignal("")];
  const saving = useTask();
  const element = useRef<HTMLPreElement>(null);
  const atEnd = useRef(true);
  const over = useRef(ended);
  over.current = ended;
  useEffect(() => {
    const gone = new AbortController();
    void (async () => {
      while (!gone.signal.aborted) {
        try {
          let [all, length] = ["", 0];
          for await (const part of textOf(`${addressOf(id)}/logs?follow=true`, { signal: gone.signal })) {
            length += part.length;
            all = (all + part).slice(-MOST);
            [text.value, left.value] = [all, length - all.length];
          }
          if (over.current) return;
          await pause(AGAIN_MS); // a service that is restarted ends it, too
        } catch (error) {
          if (isAbort(error)) return;
          problem.value = error instanceof Problem && error.status ? words(error) : "";
          await pause(AGAIN_MS);
        }
      }
    })();
    return () => gone.abort();
  }, [id]);
  useLayoutEffect(() => {
    if (atEnd.current && element.current) element.current.scrollTop = element.current.scrollHeight;
  }, [text.value]);
  const download = () =>
    saving.run(async () => {
      save(await (await call(`${addressOf(id)}/logs`)).blob(), `${id}.log`);
      return "";
    });
  return (
    <details class="card" open>
      <summary>Log</summary>
      <Fault text={problem.value || saving.problem.value} />
      <p class="buttons">
        {left.value > 0 && <span class="note">The last {MOST.toLocaleString()} characters; {left.value.toLocaleString()} before them are in the download.</span>}
        {text.value && (
          <button type="button" disabled={saving.busy.value} onClick={() => void download()}>
            Download the log
          </button>
        )}
      </p>
      <pre
        tabIndex={0}
        ref={element}
        onScroll={({ currentTarget: { scrollHeight, scrollTop, clientHeight } }) => (atEnd.current = scrollHeight - scrollTop - clientHeight < NEAR)}
      >
        {text.value.replace(/\x1b\[[0-9;]*m/g, "") || "nothing yet"}
      </pre>
    </details>
  );
}
