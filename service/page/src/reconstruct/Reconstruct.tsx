// The view Reconstruct: a sinogram, and images of it side by side.
import { computed, signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { access } from "../access";
import { spanning } from "../colours";
import { Canvas } from "../parts/Canvas";
import { Comparison, Display } from "./Controls";
import { Files } from "./Files";
import { PanelView } from "./PanelView";
import { Profile } from "./Profile";
import { fileName, openSample, SAMPLE_NAME, stack } from "./given";
import { panels, scale, shownWindow, sinogram, truth, TRUTH } from "./state";

export function Reconstruct() {
  useEffect(() => {
    if (access.value && !stack.value && fileName.value === SAMPLE_NAME) void openSample(); // after a reload
  }, [access.value]);
  return (
    <div class="reconstruct">
      <aside aria-label="What is shown">
        <Files />
        <Comparison />
        {narrow.value ? <Dock /> : <Display />}
      </aside>
      <div class="main">
        <section class="panels" aria-label="Images">
          {panels.value.map((panel) => (
            <PanelView key={panel.id} id={panel.id} panel={panel} />
          ))}
          {truth.value && <PanelView id={TRUTH} />}
          <Sinogram />
        </section>
        <p class="note">
          {scale.value.hu
            ? "Seen as radiologists do, from the feet: R is the patient's right, A the front, where the scan lies so (as LoDoPaB-CT's do)."
            : `Axis 0 of the image goes to the right, axis 1 down. The values are ${scale.value.words || "those of the sinogram, divided by metres"}.`}
        </p>
        <Profile />
      </div>
    </div>
  );
}

const NARROW = matchMedia("(max-width: 760px)"); // as in style.css
const narrow = signal(NARROW.matches);
NARROW.addEventListener("change", ({ matches }) => (narrow.value = matches));

/** On a phone, level and width stay at hand below the images. */
function Dock() {
  const { level, width } = shownWindow.value;
  const [short, unit] = [(value: number) => String(+value.toPrecision(4)).replace("-", "−"), scale.value.hu ? " HU" : ""];
  return (
    <details class="dock">
      <summary>
        Display: level {short(level)}, width {short(width)}{unit}
      </summary>
      <Display />
    </details>
  );
}

const sinogramColours = computed(() => sinogram.value && spanning(sinogram.value.values));

function Sinogram() {
  const picture = sinogram.value;
  if (!picture) return null;
  return (
    <figure class="panel" data-panel="sinogram">
      <figcaption>
        <strong>Sinogram</strong>
      </figcaption>
      <div class="frame">
        <div class="image still">
          <Canvas picture={picture} colours={sinogramColours.value!} label="The sinogram: angles downwards, detector cells to the right" />
        </div>
      </div>
      <p class="figures">
        <span>
          {picture.shape[0]} angles ↓, {picture.shape[1]} cells →
        </span>
      </p>
    </figure>
  );
}
