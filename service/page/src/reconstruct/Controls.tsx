// What is compared, and how it is shown.
import { models } from "../access";
import { DIFFERENCE_HU } from "../colours";
import { PRESETS, type Unit } from "../units";
import { geometry, stack } from "./given";
import {
  choose, chosenUnit, chosenWindow, classicWindow, cutoff, fitWindow, MOST_MODELS, range, reach, reference, region, scale, scanOf, setWindow, shownModels,
  shownWindow, subtrahend, tool, unit, unitChoices, WINDOWS, type Tool,
} from "./state";

export function Comparison() {
  const full = shownModels.value.length >= MOST_MODELS;
  return (
    <>
      <fieldset>
        <legend>Classic FBP</legend>
        <label>
          Window
          <select value={classicWindow.value} onChange={(event) => (chosenWindow.value = event.currentTarget.value)}>
            {WINDOWS.map((name) => (
              <option key={name} value={name}>
                {name === "none" ? "none (ramp)" : name}
              </option>
            ))}
          </select>
        </label>
        <Slider label="Cut-off" value={cutoff.value} low={0.05} high={1} step={0.01} onInput={(value) => (cutoff.value = value)} />
      </fieldset>
      <fieldset>
        <legend>Models, {MOST_MODELS} at most</legend>
        {models.value.map(({ name, source, version }) => {
          const on = shownModels.value.includes(name);
          return (
            <label key={name} class="check">
              <input type="checkbox" checked={on} disabled={(full && !on) || !!geometry.value} onChange={() => choose(name, !on)} />
              <span>
                {name} <span class="note">{source.split("/").at(-1)} {version}</span>
              </span>
            </label>
          );
        })}
        {shownModels.value
          .filter((name) => !models.value.some((model) => model.name === name))
          .map((name) => (
            <label key={name} class="check">
              <input type="checkbox" checked onChange={() => choose(name, false)} />
              <span>
                {name} <span class="note">does not serve any more</span>
              </span>
            </label>
          ))}
        {!models.value.length && <p class="note">No model serves yet.</p>}
        {stack.value && models.value.length > 0 && !scanOf.value && !geometry.value && (
          <p class="note">
            No model that serves takes sinograms of {stack.value.rows} × {stack.value.columns}. <a href="#models">Models</a> has others serve; chest-low-dose,
            which comes along, takes LoDoPaB-CT's.
          </p>
        )}
        {geometry.value && <p class="note">The sinogram has a scan of its own, and models have theirs: the classic FBP alone is made.</p>}
        {models.value.length === 1 && (
          <p class="note">
            More can serve beside it: <a href="#models">Models</a>.
          </p>
        )}
      </fieldset>
    </>
  );
}

/** How far the sliders of level and width go: in HU, or as far as what the images hold. */
function reaches() {
  if (scale.value.hu) return { least: -2000, most: 3000, widest: 6000, step: 1, text: (value: number) => `${value} HU` };
  const { low, high } = range.value ?? { low: 0, high: 1 };
  const span = Math.max(high - low, 1e-9);
  return { least: low - span / 2, most: high + span / 2, widest: 3 * span, step: span / 1000, text: (value: number) => String(+value.toPrecision(4)) };
}

export function Display() {
  const { hu, perMetre } = scale.value;
  const { level, width } = shownWindow.value;
  const { least, most, widest, step, text } = reaches();
  const ends = hu ? `${DIFFERENCE_HU.toFixed(0)} HU` : `${+(reach.value * (perMetre ?? 1)).toPrecision(3)}${perMetre ? " 1/m" : ""}`;
  return (
    <fieldset>
      <legend>Display</legend>
      <div class="buttons" role="group" aria-label="Presets of level and width">
        {hu &&
          Object.entries(PRESETS).map(([name, preset]) => (
            <button type="button" key={name} aria-pressed={level === preset.level && width === preset.width} onClick={() => setWindow(preset)}>
              {name}
            </button>
          ))}
        <button type="button" onClick={fitWindow}>
          Fit
        </button>
      </div>
      <Slider label="Level" value={level} low={least} high={most} step={step} text={text} onInput={(level) => setWindow({ level, width })} />
      <Slider label="Width" value={width} low={step} high={widest} step={step} text={text} onInput={(width) => setWindow({ level, width })} />
      {!hu && <p class="note">Level and width are in the images' own values.</p>}
      <label>
        Values in
        <select value={unit.value} onChange={(event) => (chosenUnit.value = event.currentTarget.value as Unit)}>
          {unitChoices.value.map(([name, { name: text }]) => (
            <option key={name} value={name}>
              {text}
            </option>
          ))}
        </select>
      </label>
      <div class="buttons" role="group" aria-label="What dragging does">
        {(["window", "move", "line"] as Tool[]).map((name) => (
          <button type="button" key={name} aria-pressed={tool.value === name} onClick={() => (tool.value = name)}>
            {{ window: "Level, width", move: "Move", line: "Line" }[name]}
          </button>
        ))}
        {region.value.zoom > 1 && (
          <button type="button" onClick={() => (region.value = { x: 0.5, y: 0.5, zoom: 1 })}>
            Show all
          </button>
        )}
      </div>
      {subtrahend.value && (
        <div class="scale">
          <span>−{ends}</span>
          <span class="bar" />
          <span>+{ends}</span>
          <p class="note">
            minus {subtrahend.value}{" "}
            <button type="button" onClick={() => (reference.value = "")}>
              Show the images
            </button>
          </p>
        </div>
      )}
    </fieldset>
  );
}

interface SliderProps {
  label: string;
  value: number;
  low: number;
  high: number;
  step: number;
  /** The value, as people read it. */
  text?: (value: number) => string;
  onInput: (value: number) => void;
}

export function Slider({ label, value, low, high, step, text = step < 1 ? (value) => value.toFixed(2) : String, onInput }: SliderProps) {
  return (
    <label class="slider">
      {label}
      <output>{text(value).replace("-", "−")}</output>
      <input type="range" aria-label={label} min={low} max={high} step={step} value={value} onInput={(event) => onInput(+event.currentTarget.value)} />
    </label>
  );
}
