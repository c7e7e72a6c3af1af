// The view Models: what serves, its figures and where it came from; switch, and switch back; runs and their reports.
import { signal, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { absent, mayOperate, models, refreshModels } from "../access";
import { getJson, isAbort, send, words, type Documents } from "../api";
import { when } from "../jobs/JobsView";
import { Fault } from "../parts/Fault";
import { Report } from "../parts/Report";
import { useTask } from "../parts/task";
import { Wide } from "../parts/Wide";
import { chooseModel } from "../window/state";

type Model = Documents["ModelDocument"];
type Run = Documents["RunDocument"];
const runs = signal<Run[]>([]);
const runsProblem = signal("");
/** What served under a name before this tab switched it. */
const before = signal<Record<string, Model>>({});
/** What the next model is to serve as. */
const servesAs = signal("best");

export function ModelsView() {
  useEffect(() => void refreshModels().catch(() => undefined), []);
  return (
    <div class="main">
      {Object.entries(absent.value).map(([name, why]) => (
        <p class="card" role="status" key={name}>
          {name} does not serve yet: {why}.
        </p>
      ))}
      {models.value.length + Object.keys(absent.value).length === 0 && (
        <p class="card">No model serves: the classic FBP answers. Train one, or have one of the runs below serve.</p>
      )}
      <div class="window">
        {models.value.map((model) => (
          <ModelCard key={model.name} model={model} />
        ))}
      </div>
      {mayOperate.value && <Activate />}
      {mayOperate.value && <Runs />}
    </div>
  );
}

/** Has a source serve under a name; remembers what served before. */
async function activate(name: string, source: string): Promise<string> {
  const served = models.value.find((model) => model.name === name);
  const model = await send<Model>("POST", `models/${encodeURIComponent(name)}/activate`, { source });
  if (served && served.version !== model!.version) before.value = { ...before.value, [name]: served };
  await refreshModels();
  return `${name} serves version ${model!.version} of ${source} now.`;
}

async function remove(name: string): Promise<string> {
  await send("DELETE", `models/${encodeURIComponent(name)}`);
  await refreshModels();
  return "";
}

function ModelCard({ model }: { model: Model }) {
  const { name, version, source, automatic, metrics, geometry } = model;
  const { problem, said, busy, run } = useTask();
  const earlier = before.value[name];
  const itsRun = runs.value.find(({ place }) => source === place || source.startsWith(`${place}/`));
  const back = () =>
    run(async () => {
      const { [name]: _, ...others } = before.value;
      const done = earlier!.automatic ? await remove(name) : await activate(name, earlier!.source);
      before.value = others;
      return done;
    });
  const fan = geometry.source_to_axis_m !== null && geometry.source_to_axis_m !== undefined;
  const facts: [string, string][] = [
    ["version", version],
    ["from", source],
    ["serves since", `${when(model.activated)}${automatic ? ", as the newest" : ""}`],
    ["trained until", `epoch ${model.epoch}, ${when(model.created)}`],
    ["window", model.window.replaceAll("_", " ")],
    ["sinograms", `${geometry.sinogram_shape.join(" × ")} (angles × cells), ${fan ? "fan" : "parallel"} beam`],
    ["images", `${geometry.image_shape.join(" × ")}, ${(geometry.pixel_size_m * 1000).toPrecision(4)} mm a pixel`],
    ["values", model.unit],
    ["validation", ["psnr", "ssim"].filter((figure) => figure in metrics).map((figure) => `${figure.toUpperCase()} ${metrics[figure]!.toFixed(figure === "psnr" ? 2 : 4)}`).join(", ") || "–"],
    ["phantom", `${(100 * model.phantom_error).toFixed(2)} % error`],
    ["device", model.device],
  ];
  return (
    <section class="card" aria-label={`Model ${name}`} data-model={name}>
      <h2>{name}</h2>
      <dl>
        {facts.map(([what, value]) => (
          <div key={what}>
            <dt>{what}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
      <div class="buttons">
        <a href="#window" onClick={() => chooseModel(name)}>
          Its window
        </a>
        {itsRun?.reports.map((place) => <Report key={place} place={place} folder={itsRun.place} />)}
        {mayOperate.value && earlier && (
          <button type="button" disabled={busy.value} onClick={() => void back()}>
            Switch back to {earlier.version}
          </button>
        )}
        {mayOperate.value && !automatic && (
          <button type="button" disabled={busy.value} onClick={() => void run(() => remove(name))}>
            Stop serving it
          </button>
        )}
        {busy.value && <progress aria-label="The service is at work" />}
      </div>
      <Fault text={problem.value} />
      {said.value && <p role="status">{said.value}</p>}
    </section>
  );
}

const SHIPPED = "chest-low-dose"; // it comes with the package (docs/weights.md)

function Activate() {
  const { problem, said, busy, run } = useTask();
  const source = useSignal("");
  return (
    <form
      class="card"
      onSubmit={(event) => {
        event.preventDefault();
        void run(() => activate(servesAs.value.trim(), source.value.trim()));
      }}
    >
      <h2>Serve another model</h2>
      <label>
        Run, checkpoint or sweep folder, or its URI
        <input required value={source.value} placeholder="runs/mine" onInput={(event) => (source.value = event.currentTarget.value)} />
        <button type="button" onClick={() => (source.value = SHIPPED)}>
          {SHIPPED}
        </button>
      </label>
      <label>
        as
        <input required value={servesAs.value} size={12} pattern="[A-Za-z0-9][A-Za-z0-9._\-]{0,63}" title="letters, digits and . _ -, the first a letter or a digit" onInput={(event) => (servesAs.value = event.currentTarget.value)} />
      </label>
      <p class="note">Requests that name no model get best. Under other names more models serve beside it: Reconstruct compares three. A model first has to reconstruct a phantom; until then what serves goes on serving.</p>
      <div class="buttons">
        <button type="submit" disabled={busy.value}>
          Serve it
        </button>
        {busy.value && <progress aria-label="The model is loaded and checked" />}
      </div>
      <Fault text={problem.value} />
      {said.value && <p role="status">{said.value}</p>}
    </form>
  );
}

function Runs() {
  const { problem, said, busy, run } = useTask();
  useEffect(() => {
    const gone = new AbortController();
    getJson<Documents["RunList"]>("runs", gone.signal)
      .then((found) => ([runs.value, runsProblem.value] = [found.runs, found.problem]))
      .catch((error: unknown) => isAbort(error) || (runsProblem.value = words(error)));
    return () => gone.abort();
  }, []);
  const figure = (value: Documents["Figure"] | null, digits: number) => (value?.value === null || value === null ? "–" : value.value.toFixed(digits));
  return (
    <section class="card" aria-label="Runs">
      <h2>Runs and reports</h2>
      <Fault text={runsProblem.value || problem.value} />
      {said.value && <p role="status">{said.value}</p>}
      {runs.value.length === 0 && <p class="note">The service sees none yet.</p>}
      {runs.value.length > 0 && (
        <Wide label="Runs that the service can see">
          <table>
            <thead>
              <tr>
                <th>Run</th>
                <th>Serve</th>
                <th>Reports</th>
                <th>State</th>
                <th>Epochs</th>
                <th>PSNR, dB</th>
                <th>SSIM</th>
                <th>Changed</th>
              </tr>
            </thead>
            <tbody>
              {runs.value.map((one) => (
                <tr key={one.place}>
                  <td title={one.place}>{one.name}</td>
                  <td>
                    {one.model && (
                      <button
                        type="button"
                        disabled={busy.value}
                        aria-label={`Serve ${one.name} as ${servesAs.value}`}
                        onClick={() => void run(() => activate(servesAs.value.trim(), one.place))}
                      >
                        as {servesAs.value}
                      </button>
                    )}
                  </td>
                  <td>{one.reports.length ? one.reports.map((place) => <Report key={place} place={place} folder={one.place} />) : "–"}</td>
                  <td title={one.reason}>{one.state === "report" ? (one.model ? "sweep" : "evaluation") : one.state}</td>
                  <td>{one.state === "report" ? "–" : one.epochs === 0 ? "solved" : `${one.epochs_done} of ${one.epochs ?? "?"}`}</td>
                  <td>{figure(one.psnr, 2)}</td>
                  <td>{figure(one.ssim, 4)}</td>
                  <td>{one.changed ? when(one.changed) : "–"}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </Wide>
      )}
    </section>
  );
}
