// Curves, by uPlot, in the colours of the page.
import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";

export interface Curve {
  name: string;
  values: (number | null)[];
  dash?: number[];
  /** Of the colours of curves; its place by default. */
  colour?: number;
  width?: number;
}

const dark = matchMedia("(prefers-color-scheme: dark)");
const theme = signal(dark.matches);
dark.addEventListener("change", () => (theme.value = dark.matches));
const HEIGHT = 240;
const LETTER = 7.5; // pixels of a digit

/** The numbers of an axis with as many digits as tell them apart. */
function apart(values: number[]): string[] {
  const digits = values.length > 1 ? Math.ceil(-Math.log10(values[1]! - values[0]!) - 1e-9) : 0;
  return values.map((value) => value.toFixed(Math.min(12, Math.max(0, digits + 1))).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, ""));
}

/** Curves over a shared axis; the legend has the values under the cursor. */
export function Chart(props: { x: number[]; xName: string; yName: string; curves: Curve[]; label: string; range?: [number, number]; digits?: number; whole?: boolean }) {
  const { x, xName, yName, curves, label, range, digits = 4, whole = false } = props;
  const place = useRef<HTMLDivElement>(null);
  const chart = useRef<uPlot | null>(null);
  const shape = curves.map(({ name }) => name).join("\n") + xName + yName + theme.value + String(range);
  useEffect(() => {
    const element = place.current!;
    const colour = (name: string) => {
      element.style.color = `var(${name})`; // what light-dark() and the like come to
      return getComputedStyle(element).color;
    };
    const axis = { stroke: colour("--text"), grid: { stroke: colour("--faint"), width: 1 }, ticks: { stroke: colour("--faint"), width: 1 } };
    const shown = (value: number | null) => (value === null || value === undefined ? "–" : String(+value.toPrecision(digits)));
    const made = new uPlot(
      {
        width: element.clientWidth,
        height: HEIGHT,
        scales: { x: { time: false }, ...(range ? { y: { range } } : {}) },
        axes: [{ ...axis, label: xName, labelSize: 20, ...(whole ? { incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] } : {}) }, { ...axis, label: yName, labelSize: 20, values: (_, values) => apart(values), size: (_, texts) => Math.max(56, 20 + LETTER * Math.max(0, ...(texts ?? []).map((text) => text.length))) }],
        series: [
          { label: xName, value: (_, value) => shown(value) },
          ...curves.map(({ name, dash, width = 1.5, colour: own }, number) => ({
            label: name,
            stroke: colour(`--curve-${(own ?? number) % 8}`),
            width,
            ...(dash ? { dash } : {}),
            points: { show: (made: uPlot) => made.data[0].length === 1 }, // a line needs two
            value: (_: uPlot, value: number | null) => shown(value),
          })),
        ],
      },
      [x, ...curves.map(({ values }) => values)] as uPlot.AlignedData,
      element,
    );
    element.style.color = "";
    chart.current = made;
    const observer = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height: HEIGHT }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
    };
  }, [shape]);
  useEffect(() => chart.current?.setData([x, ...curves.map(({ values }) => values)] as uPlot.AlignedData), [x, curves]);
  return <div class="chart" role="group" aria-label={label} ref={place} />;
}
