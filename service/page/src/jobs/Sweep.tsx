// A sweep: what PSNR costs in SSIM, and all settings of all trials as lines.
import type { Row } from "./JobView";

interface Trial {
  name: string;
  psnr: number;
  ssim: number;
  merit: number;
  parameters: Record<string, unknown>;
}
const [WIDTH, HEIGHT, EDGE] = [560, 320, 74];

/** The trials that none beats in both figures, by PSNR. */
export function paretoFront<T extends { psnr: number; ssim: number }>(trials: T[]): T[] {
  return trials.filter((one) => !trials.some((other) => other.psnr >= one.psnr && other.ssim >= one.ssim && (other.psnr > one.psnr || other.ssim > one.ssim))).sort((a, b) => a.psnr - b.psnr);
}

/** Where a value stands between the least and the most, 0 to 1; in logarithms where they are far apart. */
function scale(values: number[]): (value: number) => number {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const log = low > 0 && high / low > 20;
  const of = (value: number) => (log ? Math.log(value) : value);
  return (value) => (high > low ? (of(value) - of(low)) / (of(high) - of(low)) : 0.5);
}

export function SweepCharts({ rows }: { rows: Row[] }) {
  const trials = rows.flatMap((row): Trial[] => {
    const { trial, psnr, ssim, merit, parameters } = row;
    return typeof psnr === "number" && typeof ssim === "number"
      ? [{ name: String(trial), psnr, ssim, merit: typeof merit === "number" ? merit : -Infinity, parameters: parameters as Record<string, unknown> }]
      : [];
  });
  const best = trials.reduce<Trial | null>((found, one) => (found && found.merit >= one.merit ? found : one), null);
  if (!best) return null;
  return (
    <div class="window">
      <section class="chart-card">
        <h2>What PSNR costs in SSIM</h2>
        <Pareto trials={trials} best={best} />
      </section>
      <section class="chart-card">
        <h2>All trials</h2>
        <Parallel trials={trials} best={best} />
      </section>
      <section class="chart-card">
        <h2>The best, trial {best.name}</h2>
        <dl>
          {Object.entries({ ...best.parameters, "PSNR, dB": best.psnr, SSIM: best.ssim }).map(([name, value]) => (
            <div key={name}>
              <dt>{name}</dt>
              <dd>{typeof value === "number" ? +value.toPrecision(5) : String(value)}</dd>
            </div>
          ))}
        </dl>
      </section>
    </div>
  );
}

function Pareto({ trials, best }: { trials: Trial[]; best: Trial }) {
  const [x, y] = [scale(trials.map(({ psnr }) => psnr)), scale(trials.map(({ ssim }) => ssim))];
  const at = ({ psnr, ssim }: Trial) => [EDGE + x(psnr) * (WIDTH - 2 * EDGE), HEIGHT - EDGE - y(ssim) * (HEIGHT - 2 * EDGE)] as const;
  const ends = (values: number[], digits: number) => [Math.min(...values).toFixed(digits), Math.max(...values).toFixed(digits)];
  const [psnr, ssim] = [ends(trials.map((one) => one.psnr), 2), ends(trials.map((one) => one.ssim), 4)];
  return (
    <svg class="plot" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={`PSNR and SSIM of ${trials.length} trials; the best is ${best.name}`}>
      <path class="front" d={`M${paretoFront(trials).map((one) => at(one).join(" ")).join("L")}`} />
      {trials.map((one) => (
        <circle key={one.name} class={one === best ? "chosen" : ""} cx={at(one)[0]} cy={at(one)[1]} r={one === best ? 7 : 4}>
          <title>{`trial ${one.name}: ${one.psnr.toFixed(2)} dB, ${one.ssim.toFixed(4)}`}</title>
        </circle>
      ))}
      <text x={EDGE} y={HEIGHT - 26}>{psnr[0]}</text>
      <text x={WIDTH / 2} y={HEIGHT - 26} text-anchor="middle">PSNR, dB</text>
      <text x={WIDTH - EDGE} y={HEIGHT - 26} text-anchor="end">{psnr[1]}</text>
      <text x={EDGE - 12} y={HEIGHT - EDGE + 4} text-anchor="end">{ssim[0]}</text>
      <text x={EDGE - 12} y={EDGE + 4} text-anchor="end">{ssim[1]}</text>
      <text x={EDGE - 12} y={HEIGHT / 2} text-anchor="end">SSIM</text>
    </svg>
  );
}

function Parallel({ trials, best }: { trials: Trial[]; best: Trial }) {
  const names = [...Object.keys(best.parameters), "PSNR, dB", "SSIM"];
  const of = (trial: Trial, name: string) => (name === "PSNR, dB" ? trial.psnr : name === "SSIM" ? trial.ssim : trial.parameters[name]);
  const axes = names.map((name, i) => {
    const values = trials.map((trial) => of(trial, name));
    const numbers = values.every((value) => typeof value === "number");
    const kinds = [...new Set(values.map(String))];
    const place = numbers ? scale(values as number[]) : (value: number) => (kinds.length > 1 ? value / (kinds.length - 1) : 0.5);
    return {
      name,
      x: EDGE + (i * (WIDTH - 2 * EDGE)) / (names.length - 1),
      at: (trial: Trial) => HEIGHT - EDGE - place(numbers ? (of(trial, name) as number) : kinds.indexOf(String(of(trial, name)))) * (HEIGHT - 2 * EDGE),
      ends: numbers ? [Math.min(...(values as number[])), Math.max(...(values as number[]))].map((value) => String(+value.toPrecision(4))) : [kinds[0]!, kinds.at(-1)!],
    };
  });
  const lineOf = (trial: Trial) => `M${axes.map((axis) => `${axis.x} ${axis.at(trial)}`).join("L")}`;
  return (
    <svg class="plot" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={`The settings of ${trials.length} trials, and what came of them`}>
      {trials.filter((trial) => trial !== best).map((trial) => (
        <path key={trial.name} class="trial" d={lineOf(trial)} />
      ))}
      <path class="chosen" d={lineOf(best)} />
      {axes.map(({ name, x, ends }, number) => (
        <g key={name} text-anchor="middle">
          <path class="axis" d={`M${x} ${EDGE}V${HEIGHT - EDGE}`} />
          <text x={x} y={EDGE - 10}>{ends[1]}</text>
          <text x={x} y={HEIGHT - EDGE + 20}>{ends[0]}</text>
          <text x={x} y={HEIGHT - (number % 2 ? 8 : 28)} class="name">{name.split(".").at(-1)}</text>
        </g>
      ))}
    </svg>
  );
}
