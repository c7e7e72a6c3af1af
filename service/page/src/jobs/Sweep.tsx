// A sweep: its trials in plots and a table, the best and by what it is, and what failed and why.
import { useSignal } from "@preact/signals";
import { textInAddress } from "../address";
import { Wide } from "../parts/Wide";
import type { Job, Row } from "./follow";
import { Parallel, Pareto } from "./Plots";
import { byMerit, classicOf, hasScore, meritOf, short, trialsOf, type Trial } from "./trials";

/** The trial that is looked at, of which job: `5f1d20b39c:0003`. */
const looked = textInAddress("trial");
const MOST = 30; // trials in the table until all are asked for

export function SweepCharts({ rows, job }: { rows: Row[]; job: Job }) {
  const [of, chosen] = looked.value.split(":");
  const choose = (name: string) => void (looked.value = `${job.id}:${name}`);
  const trials = trialsOf(rows).sort(byMerit);
  const scored = trials.filter(hasScore);
  const failed = trials.filter(({ status }) => status === "failed");
  const best = scored[0];
  const classic = classicOf(job);
  if (!trials.length) return null;
  const shown = (of === job.id && scored.find(({ name }) => name === chosen)) || best;
  const plotted = best && { trials: scored, best, classic, chosen: shown!.name, choose };
  return (
    <>
      <Failed failed={failed} all={trials.length} />
      {plotted && (
        <>
          <section class="card" aria-label="A trial">
            <h2>
              {shown === best ? "The best, trial" : "Trial"} {shown!.name}
            </h2>
            <p class="note">
              The best is trial {best.name}, by the {meritOf(job)}.
            </p>
            <p class="figures best" role="status">
              {described(shown!).map((text) => (
                <span key={text}>{text}</span>
              ))}
            </p>
          </section>
          <div class="window">
            <section class="chart-card">
              <h2>PSNR against SSIM, one point a trial</h2>
              <Pareto {...plotted} />
              <Key classic={!!classic} front />
            </section>
            <section class="chart-card">
              <h2>All trials, one line each</h2>
              <Parallel {...plotted} />
              <Key classic={!!classic} />
            </section>
          </div>
        </>
      )}
      <Table trials={trials} chosen={shown?.name} choose={choose} />
    </>
  );
}

function described({ psnr, ssim, merit, status, epochs, parameters }: Trial): string[] {
  const how = status === "stopped" ? "ended early" : status;
  return [
    ...Object.entries(parameters).map(([name, value]) => `${name} ${short(value)}`),
    `PSNR ${psnr?.toFixed(2) ?? "–"} dB`,
    `SSIM ${ssim?.toFixed(4) ?? "–"}`,
    ...(merit === null ? [] : [`ranked by ${merit.toFixed(3)}`]),
    `${how} after ${epochs} ${epochs === 1 ? "epoch" : "epochs"}`,
  ];
}

function Failed({ failed, all }: { failed: Trial[]; all: number }) {
  if (!failed.length) return null;
  const reasons = new Map<string, string[]>();
  for (const { name, reason } of failed) reasons.set(reason, [...(reasons.get(reason) ?? []), name]);
  return (
    <section class="fault" aria-label="Trials that failed">
      <h2>{failed.length === all ? `All ${all} trials have failed` : `${failed.length} of ${all} trials have failed`}</h2>
      {[...reasons].map(([reason, names]) => (
        <p key={reason}>
          Trial {names.slice(0, 8).join(", ")}
          {names.length > 8 && ` and ${names.length - 8} more`}: {reason || "its log says why"}
        </p>
      ))}
    </section>
  );
}

function Key({ classic, front = false }: { classic: boolean; front?: boolean }) {
  const entries = [
    ["trial", "completed"],
    ["trial early", "ended early"],
    ["trial best", "the best"],
    ["trial chosen", "the one above"],
    ...(front ? [["front", "none is better in both"]] : []),
    ...(classic ? [["classic", "classic FBP, best Hann"]] : []),
  ] as const;
  return (
    <p class="figures note">
      {entries.map(([name, text]) => (
        <span key={name}>
          <svg class="plot key" width={26} height={12} aria-hidden="true">
            {front && name!.startsWith("trial") ? (
              <circle class={name!.slice("trial ".length)} cx={13} cy={6} r={5} />
            ) : (
              <g class={name}>
                <path class={name === "classic" || name === "front" ? name : ""} d="M0 6H26" />
              </g>
            )}
          </svg>{" "}
          {text}
        </span>
      ))}
    </p>
  );
}

function Table({ trials, chosen, choose }: { trials: Trial[]; chosen: string | undefined; choose: (name: string) => void }) {
  const all = useSignal(false);
  const names = Object.keys(trials[0]!.parameters);
  return (
    <section class="card" aria-label="Trials, the best in front">
      <h2>Trials, the best in front</h2>
      <Wide label="Trials">
        <table>
          <thead>
            <tr>
              {["Trial", "State", "PSNR, dB", "SSIM", "Ranked by", "Epochs", ...names].map((name) => (
                <th key={name}>{name}</th>
              ))}
            </tr>
          </thead>
          <tbody>
            {trials.slice(0, all.value ? trials.length : MOST).map((trial) => (
              <tr key={trial.name}>
                <td>
                  {hasScore(trial) ? (
                    <button type="button" aria-pressed={trial.name === chosen} onClick={() => choose(trial.name)}>
                      {trial.name}
                    </button>
                  ) : (
                    trial.name
                  )}
                </td>
                <td>{trial.status === "stopped" ? "ended early" : trial.status}</td>
                <td>{trial.psnr?.toFixed(2) ?? "–"}</td>
                <td>{trial.ssim?.toFixed(4) ?? "–"}</td>
                <td>{trial.merit?.toFixed(3) ?? "–"}</td>
                <td>{trial.epochs}</td>
                {names.map((name) => (
                  <td key={name}>{short(trial.parameters[name])}</td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </Wide>
      {!all.value && trials.length > MOST && (
        <div class="buttons">
          <button type="button" onClick={() => (all.value = true)}>
            Show all {trials.length}
          </button>
        </div>
      )}
    </section>
  );
}
