// The view Jobs: a new one, those that there are, and one of them.
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { path } from "../address";
import { getJson, isAbort, pause, words, type Documents } from "../api";
import { Fault } from "../parts/Fault";
import { Wide } from "../parts/Wide";
import { NewJob } from "./Form";
import { JobView } from "./JobView";

const LOOK_MS = 2000;
const jobs = signal<Documents["JobSummary"][] | null>(null);
const running = signal<Record<string, Documents["Progress"]>>({});
const problem = signal("");

async function look(gone: AbortSignal) {
  try {
    jobs.value = (await getJson<Documents["JobList"]>("jobs?limit=200", gone)).jobs;
    const active = jobs.value.filter(({ status }) => status === "running");
    const documents = await Promise.all(active.map(({ id }) => getJson<Documents["JobDocument"]>(`jobs/${encodeURIComponent(id)}`, gone)));
    running.value = Object.fromEntries(documents.map(({ id, progress }) => [id, progress]));
    problem.value = "";
  } catch (error) {
    if (!isAbort(error)) problem.value = words(error);
  }
}

export function JobsView() {
  const id = path.value.split("/").slice(1).join("/");
  if (!id) return <List />;
  return /^[\w-]+$/.test(id) ? <JobView key={id} id={id} /> : <NoSuchJob id={id} />;
}

/** An address that names no job. */
export function NoSuchJob({ id }: { id: string }) {
  return (
    <p class="card">
      <span>
        There is no job {id.slice(0, 100)}. <a href="#jobs">All jobs</a> has those that there are.
      </span>
    </p>
  );
}

function List() {
  useEffect(() => {
    const gone = new AbortController();
    void (async () => {
      while (!gone.signal.aborted) {
        await look(gone.signal);
        await pause(LOOK_MS);
      }
    })();
    return () => gone.abort();
  }, []);
  return (
    <div class="two">
      <NewJob onSubmitted={(id) => (location.hash = `#jobs/${id}`)} />
      <section class="card" aria-label="Jobs">
        <h2>Jobs</h2>
        <Fault text={problem.value} />
        {jobs.value?.length === 0 && <p class="note">None yet.</p>}
        {!!jobs.value?.length && (
          <Wide label="Jobs, the newest in front">
            <table>
              <thead>
                <tr>
                  <th>Job</th>
                  <th>State</th>
                </tr>
              </thead>
              <tbody>
                {jobs.value.map((job) => (
                  <tr key={job.id}>
                    <td>
                      <a href={`#jobs/${encodeURIComponent(job.id)}`}>{job.place.split("/").at(-1)}</a>
                      <p class="note">
                        {job.kind}, {job.started ? `begun ${when(job.started)}` : `submitted ${when(job.created)}`}
                      </p>
                    </td>
                    <td>
                      <State job={job} />
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          </Wide>
        )}
      </section>
    </div>
  );
}

function State({ job: { id, status, reason } }: { job: Documents["JobSummary"] }) {
  const progress = running.value[id];
  return (
    <>
      <span class={`state ${status}`}>{status}</span> {progress?.total ? <Done {...progress} /> : <span class="note">{inShort(reason)}</span>}
    </>
  );
}

const MOST_REASON = 160; // characters of a reason in the list
const inShort = (text: string) => (text.length > MOST_REASON ? `${text.slice(0, MOST_REASON)} …` : text);

export function Done({ done, total, unit }: Pick<Documents["Progress"], "done" | "total" | "unit">) {
  if (total === 0) return <p class="note">A window that is solved, without epochs.</p>;
  return (
    <label class="done">
      <progress max={total ?? 1} value={done} />
      <span class="note">
        {unit} {done} of {total ?? "?"}
      </span>
    </label>
  );
}

export const when = (time: string) => new Date(time).toLocaleString(undefined, { dateStyle: "short", timeStyle: "short" });
