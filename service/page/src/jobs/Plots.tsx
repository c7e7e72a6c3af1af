// Plots of a sweep's trials: PSNR against SSIM, and all their settings as lines from axis to axis.
import { useWidth } from "../parts/width";
import { paretoFront, scaleOf, short, withRoom, type Classic, type Scored } from "./trials";

export interface Plotted {
  trials: Scored[];
  best: Scored;
  classic: Classic | null;
  /** The name of the trial that is looked at. */
  chosen: string;
  choose: (name: string) => void;
}
const EDGE = 12; // pixels beside the axes
const [ABOVE, PITCH] = [26, 74]; // from the top to the first axis, and from one axis to the next
const HEIGHT = 340;
const [LEFT, BOTTOM] = [62, 46]; // of the plot of PSNR and SSIM

const classOf = (trial: Scored, best: Scored, chosen: string) => `${trial.status === "stopped" ? "early " : ""}${trial === best ? "best " : ""}${trial !== best && trial.name === chosen ? "chosen" : ""}`;

/** All settings and figures, an axis below the other; a line is a trial. */
export function Parallel({ trials, best, classic, chosen, choose }: Plotted) {
  const { place, width } = useWidth(560);
  const size = width - 2 * EDGE;
  const settings = Object.keys(best.parameters).map((name) => ({ name, of: (trial: Scored) => trial.parameters[name], mark: null as number | null, digits: 3 }));
  const figures = (["psnr", "ssim"] as const).map((name) => ({ name: name === "psnr" ? "PSNR, dB" : "SSIM", of: (trial: Scored): unknown => trial[name], mark: classic?.[name] ?? null, digits: 4 }));
  const axes = [...settings, ...figures].map(({ name, of, mark, digits }, row) => {
    const scale = scaleOf([...trials.map(of), ...(mark === null ? [] : [mark])], digits);
    const at = (value: unknown) => EDGE + scale.of(value) * size;
    return { name, y: ABOVE + row * PITCH, x: (trial: Scored) => at(of(trial)), mark: mark === null ? null : at(mark), ticks: withRoom(scale, size), log: scale.log };
  });
  const lineOf = (trial: Scored) => `M${axes.map(({ x, y }) => `${x(trial).toFixed(1)} ${y}`).join("L")}`;
  const last = (trial: Scored) => (trial.name === chosen ? 2 : trial === best ? 1 : 0); // is drawn above the others
  const height = ABOVE + axes.length * PITCH - 36;
  return (
    <div ref={place}>
      <svg class="plot" width={width} height={height} role="img" aria-label={`The settings of ${trials.length} trials, and what came of them`}>
        {[...trials].sort((a, b) => last(a) - last(b)).map((trial) => (
          <g key={trial.name} class={`trial ${classOf(trial, best, chosen)}`} onClick={() => choose(trial.name)} onPointerEnter={() => choose(trial.name)}>
            <title>trial {trial.name}</title>
            <path d={lineOf(trial)} />
            <path class="touch" d={lineOf(trial)} />
          </g>
        ))}
        {axes.map(({ name, y, mark, ticks, log }) => (
          <g key={name}>
            <path class="axis" d={`M${EDGE} ${y}H${EDGE + size}`} />
            <text x={EDGE} y={y - 9} class="name">
              {name}
              {log && ", logarithmic"}
            </text>
            {ticks.map(({ at, text, line }) => (
              <text key={text} x={EDGE + at * size} y={y + 16 + 14 * line} text-anchor="middle">
                {text}
              </text>
            ))}
            {mark !== null && <path class="classic" d={`M${mark} ${y - 9}v18`} />}
          </g>
        ))}
      </svg>
    </div>
  );
}

/** PSNR against SSIM, a point a trial; the broken line joins those that none beats in both. */
export function Pareto({ trials, best, classic, chosen, choose }: Plotted) {
  const { place, width } = useWidth(560);
  const all = [...trials, ...(classic ? [classic] : [])];
  const [across, up] = [width - LEFT - 2 * EDGE, HEIGHT - BOTTOM - 2 * EDGE];
  const [x, y] = [scaleOf(all.map(({ psnr }) => psnr), 4), scaleOf(all.map(({ ssim }) => ssim), 4)];
  const at = (one: Classic) => [LEFT + EDGE + x.of(one.psnr) * across, EDGE + (1 - y.of(one.ssim)) * up] as const;
  return (
    <div ref={place}>
      <svg class="plot" width={width} height={HEIGHT} role="img" aria-label={`PSNR and SSIM of ${trials.length} trials; the best is ${best.name}`}>
        <path class="axis" d={`M${LEFT} 0V${HEIGHT - BOTTOM}H${width}`} />
        {withRoom(x, across).map(({ at, text }) => (
          <text key={text} x={LEFT + EDGE + at * across} y={HEIGHT - BOTTOM + 16} text-anchor="middle">
            {text}
          </text>
        ))}
        {y.ticks.filter(({ at }, i) => i < 2 || (at > 0.08 && at < 0.92)).map(({ at, text }) => (
          <text key={text} x={LEFT - 6} y={EDGE + (1 - at) * up + 4} text-anchor="end">
            {text}
          </text>
        ))}
        <text x={LEFT + EDGE + across / 2} y={HEIGHT - 8} text-anchor="middle" class="name">
          PSNR, dB
        </text>
        <text x={14} y={EDGE + up / 2} text-anchor="middle" class="name" transform={`rotate(-90 14 ${EDGE + up / 2})`}>
          SSIM
        </text>
        {classic && <path class="classic" d={`M${at(classic)[0]} ${EDGE}v${up}M${LEFT + EDGE} ${at(classic)[1]}h${across}`} />}
        <path class="front" d={`M${paretoFront(trials).map((one) => at(one).join(" ")).join("L")}`} />
        {trials.map((one) => (
          <circle key={one.name} class={classOf(one, best, chosen)} cx={at(one)[0]} cy={at(one)[1]} r={one === best || one.name === chosen ? 7 : 5} onClick={() => choose(one.name)} onPointerEnter={() => choose(one.name)}>
            <title>{`trial ${one.name}: ${one.psnr.toFixed(2)} dB, ${short(one.ssim)}`}</title>
          </circle>
        ))}
      </svg>
    </div>
  );
}
