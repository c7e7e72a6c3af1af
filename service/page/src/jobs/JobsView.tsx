// The view Jobs: a new one, those that there are, and one of them.
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { path } from "../address";
import { getJson, isAbort, words, type Documents } from "../api";
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
    const documents = await Promise.all(active.map(({ id }) => getJson<Documents["JobDocument"]>(`jobs/${id}`, gone)));
    running.value = Object.fromEntries(documents.map(({ id, progress }) => [id, progress]));
    problem.value = "";
  } catch (error) {
    if (!isAbort(error)) problem.value = words(error);
  }
}

export function JobsView() {
  const id = path.value.split("/")[1];
  return id ? <JobView key={id} id={id} /> : <List />;
}

function List() {
  useEffect(() => {
    const gone = new AbortController();
    void (async () => {
      while (!gone.signal.aborted) {
        await look(gone.signal);
        await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
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
                  <th>Kind</th>
                  <th>State</th>
                  <th>Begun</th>
                </tr>
              </thead>
              <tbody>
                {jobs.value.map((job) => (
                  <tr key={job.id}>
                    <td>
                      <a href={`#jobs/${job.id}`}>{job.place.split("/").at(-1)}</a>
                    </td>
                    <td>{job.kind}</td>
                    <td>
                      <State job={job} />
                    </td>
                    <td>{when(job.started ?? job.created)}</td>
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
      <span class={`state ${status}`}>{status}</span> {progress?.total ? <Done {...progress} /> : <span class="note">{reason}</span>}
    </>
  );
}

export function Done({ done, total, unit }: Documents["Progress"]) {
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
