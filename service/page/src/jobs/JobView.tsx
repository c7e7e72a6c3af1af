// A job: how it stands, its curves as they come, its newest picture, its log; stop it, serve its model.
import { useSignal, type Signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { refreshModels } from "../access";
import { call, getJson, isAbort, Problem, send, words, type Documents } from "../api";
import { Chart } from "../parts/Chart";
import { Fault } from "../parts/Fault";
import { useTask } from "../parts/task";
import { Wide } from "../parts/Wide";
import { eventsOf, textOf } from "../stream";
import { Done, when } from "./JobsView";
import { SweepCharts } from "./Sweep";

type Job = Documents["JobDocument"];
export type Row = Record<string, unknown>;
const AGAIN_MS = 3000;
const MOST_LOG = 200_000; // characters that are shown

export function JobView({ id }: { id: string }) {
  const job = useSignal<Job | null>(null);
  const rows = useSignal<Row[]>([]);
  const problem = useSignal("");
  useEffect(() => {
    const gone = new AbortController();
    void follow(id, job, rows, problem, gone.signal);
    return () => gone.abort();
  }, [id]);
  const now = job.value;
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
            {now.reason && now.status !== "succeeded" && <p class={now.status === "failed" || now.status === "lost" ? "fault" : "note"}>{now.reason}</p>}
            <p>
              <span class={`state ${now.status}`}>{now.status}</span>{" "}
              <span class="note">
                {now.place}, submitted {when(now.created)}
                {now.ended && `, ended ${when(now.ended)}`}
              </span>
            </p>
            <Done {...now.progress} done={Math.max(now.progress.done, rows.value.length)} />
            <Fault text={now.progress.problem} />
            <Actions job={now} hasModel={rows.value.length > 0} />
            <Best best={now.progress.best} />
          </section>
          {now.kind === "train" && <Curves rows={rows.value} best={now.progress.best} />}
          {now.kind === "sweep" && <SweepCharts rows={rows.value} />}
          {now.kind === "evaluate" && <Table rows={rows.value} />}
          {now.kind === "train" && <Newest id={id} epoch={rows.value.length} />}
          <Log id={id} />
        </>
      )}
    </div>
  );
}

/** Follows a job by its events until it has ended; when the service is away, from where it was. */
async function follow(id: string, job: Signal<Job | null>, rows: Signal<Row[]>, problem: Signal<string>, gone: AbortSignal) {
  let seen = "";
  while (!gone.aborted) {
    try {
      for await (const { name, id: number, data } of eventsOf(`jobs/${id}/events`, seen, gone)) {
        problem.value = "";
        seen = number;
        if (name === "status" || name === "end") job.value = data as Job;
        else {
          rows.value = [...rows.value, data as Row];
          if (name === "epoch") job.value = await getJson<Job>(`jobs/${id}`, gone);
        }
        if (name === "end") return;
      }
    } catch (error) {
      if (isAbort(error)) return;
      problem.value = words(error);
      if (error instanceof Problem && error.status >= 400 && error.status < 500) return;
    }
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
}

function Actions({ job, hasModel }: { job: Job; hasModel: boolean }) {
  const { problem, said, busy, run } = useTask();
  const name = useSignal("best");
  const stop = () => run(async () => ((await send("POST", `jobs/${job.id}/stop`)), "It is being stopped; what is finished is kept."));
  const serve = () =>
    run(async () => {
      const model = await send<Documents["ModelDocument"]>("POST", `jobs/${job.id}/activate`, { name: name.value });
      await refreshModels();
      return `${model!.name} serves version ${model!.version} now.`;
    });
  const makesModels = job.kind === "train" || job.kind === "sweep";
  return (
    <>
      <div class="buttons">
        {!job.ended && (
          <button type="button" disabled={busy.value} onClick={() => void stop()}>
            Stop
          </button>
        )}
        {makesModels && hasModel && (
          <>
            <button type="button" disabled={busy.value} onClick={() => void serve()}>
              Serve this model
            </button>
            <label>
              as
              <input value={name.value} size={10} onInput={(event) => (name.value = event.currentTarget.value)} />
            </label>
          </>
        )}
        {busy.value && <progress aria-label="The service is at work" />}
      </div>
      <Fault text={problem.value} />
      {said.value && <p role="status">{said.value}</p>}
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

const number = (value: unknown) => (typeof value === "number" && Number.isFinite(value) ? value : null);

function Curves({ rows, best }: { rows: Row[]; best: Documents["Best"] }) {
  if (!rows.length) return null;
  const x = rows.map(({ epoch }) => Number(epoch));
  const names = Object.keys(rows[0]!);
  const curve = (name: string, label = name.replace("_", " ").replaceAll("_", "-")) => ({ name: label, values: rows.map((row) => number(row[name])) });
  const losses = names.filter((name) => /^(train|validation)_/.test(name) && !/_(psnr|ssim|range)/.test(name)).map((name) => curve(name));
  const quality = (["psnr", "ssim"] as const).filter((name) => names.includes(`validation_${name}`));
  return (
    <div class="window">
      <section class="chart-card">
        <h2>Loss and its parts</h2>
        <Chart x={x} whole xName="epoch" yName="loss" curves={losses} label="Losses by epoch" />
      </section>
      {quality.map((name) => {
        const { value, over_fbp } = best[name] ?? {};
        const classic = typeof value === "number" && typeof over_fbp === "number" ? value - over_fbp : null;
        const line = classic === null ? [] : [{ name: "classic FBP, best Hann", values: x.map(() => classic), dash: [6, 4] }];
        const title = name === "psnr" ? "PSNR, dB" : "SSIM";
        return (
          <section class="chart-card" key={name}>
            <h2>{title}</h2>
            <Chart x={x} whole xName="epoch" yName={title} curves={[curve(`validation_${name}`, "learned"), ...line]} label={`${title} by epoch`} />
          </section>
        );
      })}
      {names.includes("lr") && (
        <section class="chart-card">
          <h2>Learning rate</h2>
          <Chart x={x} whole xName="epoch" yName="rate" curves={[curve("lr", "learning rate")]} label="Learning rate by epoch" />
        </section>
      )}
    </div>
  );
}

/** The newest reconstruction, fetched anew after each epoch. */
function Newest({ id, epoch }: { id: string; epoch: number }) {
  const picture = useSignal("");
  useEffect(() => {
    const gone = new AbortController();
    call(`jobs/${id}/newest`, { signal: gone.signal })
      .then((answer) => answer.blob())
      .then((content) => {
        URL.revokeObjectURL(picture.value);
        picture.value = URL.createObjectURL(content);
      })
      .catch(() => undefined); // there is none yet
    return () => gone.abort();
  }, [id, epoch]);
  if (!picture.value) return null;
  return (
    <section class="chart-card">
      <h2>The newest reconstruction</h2>
      <Wide label="The picture">
        <img src={picture.value} alt={`Reconstructions of a validation sample after epoch ${epoch}`} />
      </Wide>
    </section>
  );
}

function Table({ rows }: { rows: Row[] }) {
  if (!rows.length) return null;
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const cell = (value: unknown) => (typeof value === "number" ? +value.toPrecision(5) : String(value ?? "–"));
  return (
    <section class="chart-card">
      <Wide label="Figures">
      <table>
        <thead>
          <tr>
            {names.map((name) => (
              <th key={name}>{name.replaceAll("_", " ")}</th>
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

function Log({ id }: { id: string }) {
  const text = useSignal("");
  const problem = useSignal("");
  useEffect(() => {
    const gone = new AbortController();
    void (async () => {
      while (!gone.signal.aborted) {
        try {
          let all = "";
          for await (const part of textOf(`jobs/${id}/logs?follow=true`, { signal: gone.signal })) {
            text.value = all = (all + part).slice(-MOST_LOG);
          }
          return;
        } catch (error) {
          if (isAbort(error)) return;
          problem.value = error instanceof Problem && error.status ? words(error) : "";
          await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
        }
      }
    })();
    return () => gone.abort();
  }, [id]);
  return (
    <details class="card" open>
      <summary>Log</summary>
      <Fault text={problem.value} />
      <pre tabIndex={0} ref={(element) => void (element && (element.scrollTop = element.scrollHeight))}>
        {text.value.replace(/\x1b\[[0-9;]*m/g, "") || "nothing yet"}
      </pre>
    </details>
  );
}
