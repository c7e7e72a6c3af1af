// What is compared, and how it is shown.
import { models } from "../access";
import { DIFFERENCE_HU } from "../colours";
import { PRESETS, UNITS, type Unit } from "../units";
import {
  choose, classicWindow, cutoff, fitWindow, level, MOST_MODELS, reference, region, setWindow, shownModels, title, tool, unit, width, chosenWindow, WINDOWS,
  type Tool,
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
              <input type="checkbox" checked={on} disabled={full && !on} onChange={() => choose(name, !on)} />
              <span>
                {name} <span class="note">{source.split("/").at(-1)} {version}</span>
              </span>
            </label>
          );
        })}
        {!models.value.length && <p class="note">No model serves yet.</p>}
      </fieldset>
    </>
  );
}

export function Display() {
  return (
    <fieldset>
      <legend>Display</legend>
      <div class="buttons" role="group" aria-label="Presets of level and width">
        {Object.entries(PRESETS).map(([name, preset]) => (
          <button
            type="button"
            key={name}
            aria-pressed={level.value === preset.level && width.value === preset.width}
            onClick={() => setWindow(preset)}
          >
            {name}
          </button>
        ))}
        <button type="button" onClick={fitWindow}>
          Fit
        </button>
      </div>
      <Slider label="Level" value={level.value} low={-2000} high={3000} step={1} suffix=" HU" onInput={(value) => setWindow({ level: value, width: width.value })} />
      <Slider label="Width" value={width.value} low={1} high={6000} step={1} suffix=" HU" onInput={(value) => setWindow({ level: level.value, width: value })} />
      <label>
        Values in
        <select value={unit.value} onChange={(event) => (unit.value = event.currentTarget.value as Unit)}>
          {Object.entries(UNITS).map(([name, { name: text }]) => (
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
      {reference.value && (
        <div class="scale">
          <span>−{DIFFERENCE_HU.toFixed(0)} HU</span>
          <span class="bar" />
          <span>+{DIFFERENCE_HU.toFixed(0)} HU</span>
          <p class="note">
            minus {title(reference.value)}{" "}
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
  suffix?: string;
  onInput: (value: number) => void;
}

export function Slider({ label, value, low, high, step, suffix = "", onInput }: SliderProps) {
  return (
    <label class="slider">
      {label}
      <output>{(step < 1 ? value.toFixed(2) : String(value)).replace("-", "−") + suffix}</output>
      <input type="range" min={low} max={high} step={step} value={value} onInput={(event) => onInput(+event.currentTarget.value)} />
    </label>
  );
}
