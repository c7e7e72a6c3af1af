// A job: how it stands, what came of it so far, what was asked for, its log; stop it, serve its model, submit it again.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { refreshModels } from "../access";
import { forReaders, send, type Documents } from "../api";
import { Fault } from "../parts/Fault";
import { Report } from "../parts/Report";
import { useTask } from "../parts/task";
import { Wide } from "../parts/Wide";
import { addressOf, doneOf, follow, type Job, type Row } from "./follow";
import { openWith } from "./held";
import { Done, NoSuchJob, when } from "./JobsView";
import { Log } from "./Log";
import { SweepCharts } from "./Sweep";
import { Curves, Newest } from "./Training";

export function JobView({ id }: { id: string }) {
  const [job, rows, problem, none] = [useSignal<Job | null>(null), useSignal<Row[]>([]), useSignal(""), useSignal(false)];
  useEffect(() => {
    const gone = new AbortController();
    void follow(id, { job, rows, problem, none }, gone.signal);
    return () => gone.abort();
  }, [id]);
  const now = job.value;
  if (none.value) return <NoSuchJob id={id} />;
  return (
    <div class="main">
      <p>
        <a href="#jobs">All jobs</a>
      </p>
      <Fault text={problem.value} />
      {now && (
        <>
          <section class="card" aria-label="How it stands">
            <h2>
              {now.kind} {now.place.split("/").at(-1)}
            </h2>
            {now.reason && now.status !== "succeeded" && (
              <p class={now.status === "failed" || now.status === "lost" ? "fault" : "note"}>{forReaders(now.reason)}</p>
            )}
            <p>
              <span class={`state ${now.status}`}>{now.status}</span>{" "}
              <span class="note">
                {now.place}, submitted {when(now.created)}
                {now.ended && `, ended ${when(now.ended)}`}
              </span>
            </p>
            <Done unit={now.progress.unit} total={now.progress.total} done={doneOf(now, rows.value)} />
            <Fault text={now.progress.problem} />
            <Actions job={now} />
            <Best best={now.progress.best} />
          </section>
          {now.kind === "train" && <Curves rows={rows.value} best={now.progress.best} />}
          {now.kind === "sweep" && <SweepCharts rows={rows.value} job={now} />}
          {now.kind === "evaluate" && <Table rows={rows.value} />}
          {now.kind === "train" && <Newest id={id} epoch={now.progress.done} there={now.progress.picture} />}
          {now.kind === "reconstruct" && <Volume job={now} />}
          <Request job={now} />
          <Log id={id} ended={!!now.ended} />
        </>
      )}
    </div>
  );
}

function Actions({ job }: { job: Job }) {
  const [stopping, serving, opening] = [useTask(), useTask(), useTask()];
  const name = useSignal("best");
  const stop = () => stopping.run(async () => ((await send("POST", `${addressOf(job.id)}/stop`)), "It is being stopped; what is finished is kept."));
  const serve = () =>
    serving.run(async () => {
      const model = await send<Documents["ModelDocument"]>("POST", `${addressOf(job.id)}/activate`, { name: name.value });
      await refreshModels();
      return `${model!.name} serves version ${model!.version} now.`;
    });
  const open = () => opening.run(async () => (await openWith(job), ""));
  const busy = stopping.busy.value || serving.busy.value || opening.busy.value;
  const said = (job.ended ? "" : stopping.said.value) || serving.said.value;
  return (
    <>
      <div class="buttons">
        {job.progress.reports?.map((place) => <Report key={place} place={place} folder={job.place} />)}
        {!job.ended && (
          <button type="button" disabled={busy} onClick={() => void stop()}>
            Stop
          </button>
        )}
        {job.ended && (
          <button type="button" disabled={busy} onClick={() => void open()}>
            {job.status === "succeeded" ? "Another job like this" : "Submit again"}
          </button>
        )}
        {job.progress.model && (
          <>
            <button type="button" disabled={busy} onClick={() => void serve()}>
              Serve this model
            </button>
            <label>
              as
              <input value={name.value} size={10} onInput={(event) => (name.value = event.currentTarget.value)} />
            </label>
          </>
        )}
        {busy && <progress aria-label="The service is at work" />}
      </div>
      <Fault text={stopping.problem.value || serving.problem.value || opening.problem.value} />
      {said && <p role="status">{said}</p>}
    </>
  );
}

function Best({ best }: { best: Documents["Best"] }) {
  const figure = (name: string, { value, epoch, over_fbp }: Documents["Figure"], digits: number) =>
    value === null ? null : (
      <span>
        {name} <b>{value.toFixed(digits)}</b>
        {over_fbp !== null && over_fbp !== undefined && ` (${over_fbp < 0 ? "−" : "+"}${Math.abs(over_fbp).toFixed(digits)} over the classic FBP)`}
        {epoch ? `, epoch ${epoch}` : ""}
      </span>
    );
  return (
    <p class="figures best">
      {best.psnr && figure("PSNR, dB", best.psnr, 2)}
      {best.ssim && figure("SSIM", best.ssim, 4)}
    </p>
  );
}

const WORDS: Record<string, string> = {
  hann_psnr: "Hann, best for PSNR",
  hann_ssim: "Hann, best for SSIM",
  zeng: "Zeng",
  psnr: "PSNR, dB",
  ssim: "SSIM",
  psnr_fr: "PSNR, dB, of range 1",
  ssim_fr: "SSIM, of range 1",
};
const inWords = (name: string) => WORDS[name] ?? name.replaceAll("_", " ");

function Table({ rows }: { rows: Row[] }) {
  if (!rows.length) return null;
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const cell = (value: unknown) => (typeof value === "number" ? +value.toPrecision(5) : inWords(String(value ?? "–")));
  return (
    <section class="chart-card">
      <Wide label="Figures">
        <table>
          <thead>
            <tr>
              {names.map((name) => (
                <th key={name}>{inWords(name)}</th>
              ))}
            </tr>
          </thead>
          <tbody>
            {rows.map((row) => (
              <tr key={String(row[names[0]!])}>
                {names.map((name) => (
                  <td key={name}>{cell(row[name])}</td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </Wide>
    </section>
  );
}

function Facts({ facts, settings = false }: { facts: [string, unknown][]; settings?: boolean }) {
  return (
    <dl class={settings ? "settings" : undefined}>
      {facts.map(([what, value]) => (
        <div key={what}>
          <dt>{what}</dt>
          <dd>{typeof value === "string" ? value : JSON.stringify(value)}</dd>
        </div>
      ))}
    </dl>
  );
}

/** Settings by their dotted names. */
function flat(settings: unknown, before = ""): [string, unknown][] {
  return Object.entries(settings as Record<string, unknown>).flatMap(([name, value]): [string, unknown][] =>
    value && typeof value === "object" && !Array.isArray(value) && Object.keys(value).length ? flat(value, `${before}${name}.`) : [[before + name, value]],
  );
}

function Volume({ job: { request, place, status } }: { job: Job }) {
  const given = new Map(flat(request.config ?? {}));
  const by = given.get("checkpoint") ?? `the classic FBP, ${String(given.get("window"))}, cut-off ${String(given.get("cutoff") ?? 1)}`;
  return (
    <section class="card">
      <h2>The volume</h2>
      <Facts
        facts={[
          ["where", status === "succeeded" ? place : `${place}, once it is complete; until then ${place}.partial`],
          ["of", given.get("data.dir")],
          ["rows", given.get("rows") ?? (given.get("part") ? `those of the ${String(given.get("part"))} part` : "all")],
          ["by", by],
        ]}
      />
    </section>
  );
}

function Request({ job: { request } }: { job: Job }) {
  const facts: [string, unknown][] = [...(request.space ? [["searched", String(request.space).replaceAll("_", " ")] as [string, unknown]] : []), ...flat(request.config ?? {})];
  return (
    <details class="card">
      <summary>What was asked for</summary>
      <p class="note">All else is the recipe's, or the default.</p>
      <Facts facts={facts} settings />
    </details>
  );
}
