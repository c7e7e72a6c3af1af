// The view Window: what a model keeps of each frequency, of which rays.
import { computed, useSignal } from "@preact/signals";
import { models } from "../access";
import { spanning, VIRIDIS } from "../colours";
import { pixelAt, valueAt, type Picture } from "../draw";
import { Canvas } from "../parts/Canvas";
import { Chart, type Curve } from "../parts/Chart";
import { Fault } from "../parts/Fault";
import { Slider } from "../reconstruct/Controls";
import { stack } from "../reconstruct/given";
import { cutoff } from "../reconstruct/state";
import { angleIndex, chooseModel, windowDocument, logEnergy, logVariance, model, noise, noiseProblem, problem } from "./state";
import { mapOf, windowByNoise } from "./weights";

const HIGHEST = 1.4; // weight of the map's last colour, where none is higher
const DASH = [5, 4];
const FIRST_CLASSIC = 2; // colour: those of the learned ones come before

const curves = computed((): Curve[] => {
  const doc = windowDocument.value;
  if (!doc) return [];
  const learned: Curve[] = [];
  if (doc.window) learned.push({ name: doc.by_angle ? "learned, mean" : doc.noise ? "learned, least noise" : "learned", values: doc.window, width: 3 });
  if (doc.by_angle) learned.push({ name: "at the angle", values: doc.by_angle[Math.min(angleIndex.value, doc.by_angle.length - 1)]!, width: 2 });
  if (doc.bands) learned.push({ name: "at the noise", values: windowByNoise(doc, logVariance.value, logEnergy.value), width: 3 });
  const classic = Object.entries(doc.analytic).map(([name, values], number) => ({ name: name === "none" ? "none (ramp)" : name, values, dash: DASH, width: 1.5, colour: FIRST_CLASSIC + number }));
  return [...learned, ...classic];
});
const range = computed((): [number, number] => [-0.1, Math.max(1.5, ...curves.value.map(({ values }) => Math.max(...(values as number[])) + 0.1))]);
const map = computed(() => windowDocument.value && mapOf(windowDocument.value, logEnergy.value));
const mapPicture = computed((): Picture | null => {
  const found = map.value;
  return found && { values: found.values, shape: [found.rows, found.values.length / found.rows], transposed: false };
});
const mapColours = computed(() => {
  const highest = (map.value?.values ?? new Float32Array()).reduce((most, value) => Math.max(most, value), HIGHEST);
  return { table: VIRIDIS, low: 0, high: Math.ceil(10 * highest) / 10 };
});

export function WindowView() {
  const doc = windowDocument.value;
  return (
    <div class="main">
      <fieldset>
        <legend>Window of</legend>
        <div class="buttons">
          {models.value.map(({ name }) => (
            <button type="button" key={name} aria-pressed={name === model.value} onClick={() => chooseModel(name)}>
              {name}
            </button>
          ))}
          {!models.value.length && <p class="note">No model serves yet: train one, or activate one.</p>}
        </div>
        <Fault text={problem.value} />
      </fieldset>
      {doc && (
        <div class="window">
          <section class="card" aria-label="Over frequency">
            <h2>{doc.kind.replaceAll("_", " ")}</h2>
            <Chart x={doc.frequency} xName="frequency / Nyquist" yName="window" curves={curves.value} range={range.value} label="Windows over frequency" />
            <Slider label="Cut-off of the classic ones" value={cutoff.value} low={0.05} high={1} step={0.01} onInput={(value) => (cutoff.value = value)} />
            <Kind />
          </section>
          {map.value && <Map />}
          {doc.noise && <Noise />}
        </div>
      )}
    </div>
  );
}

/** Which rays the learned curve is of. */
function Kind() {
  const doc = windowDocument.value!;
  if (doc.by_angle) {
    const angles = doc.angle!;
    const index = Math.min(angleIndex.value, angles.length - 1);
    return (
      <>
        <Slider label="Angle, number" value={index} low={0} high={angles.length - 1} step={1} onInput={(value) => (angleIndex.value = value)} />
        <p class="note">{((angles[index]! * 180) / Math.PI).toFixed(1)}°</p>
      </>
    );
  }
  if (!doc.bands) return <p class="note">{doc.noise ? "Noisier rays are smoothed more, by a formula." : "It is the same for all rays."}</p>;
  const [variances, energies] = [doc.log_variance!, doc.log_energy!];
  return (
    <>
      <Slider label="Noise: log10 of a ray's variance" value={logVariance.value} low={variances[0]!} high={variances.at(-1)!} step={0.05} onInput={(value) => (logVariance.value = value)} />
      {energies.length > 1 && (
        <Slider label="What stands out: log10 of a band's energy over its noise's" value={logEnergy.value} low={energies[0]!} high={energies.at(-1)!} step={0.05} onInput={(value) => (logEnergy.value = value)} />
      )}
    </>
  );
}

function Map() {
  const { first, last } = map.value!;
  const byAngle = !!windowDocument.value!.by_angle;
  const end = (value: number) => (byAngle ? `${((value * 180) / Math.PI).toFixed(0)}°` : <Power of={value} />);
  return (
    <section class="card" aria-label="Map">
      <h2>{byAngle ? "By angle" : "By noise"}</h2>
      <p class="ends">
        <span>↓ {byAngle ? "angle" : "variance"} {end(first)} to {end(last)}</span>
        <span>frequency →</span>
      </p>
      <div class="map">
        <Canvas picture={mapPicture.value!} colours={mapColours.value} label={`The window over frequency, ${byAngle ? "by angle" : "by noise"}`} />
      </div>
      <div class="scale">
        <span>0</span>
        <span class="bar viridis" />
        <span>{mapColours.value.high}</span>
      </div>
    </section>
  );
}

function Noise() {
  const under = useSignal<number | null>(null);
  const picture = noise.value;
  const colours = picture && spanning(picture.values, VIRIDIS);
  const at = (event: PointerEvent & { currentTarget: HTMLElement }) => {
    const box = event.currentTarget.getBoundingClientRect();
    const pixel = picture && pixelAt(picture, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
    return pixel ? valueAt(picture, ...pixel) : null;
  };
  return (
    <section class="card" aria-label="Noise">
      <h2>Noise of the sinogram</h2>
      {!stack.value && (
        <p class="note">
          Drop a sinogram in the view <a href="#reconstruct">Reconstruct</a> to see how noisy each of its rays is taken to be.
        </p>
      )}
      <Fault text={noiseProblem.value} />
      {picture && (
        <>
          <p class="ends">
            <span>↓ angles, cells →</span>
            <output>{under.value === null ? "press for the window of a ray" : <>variance <Power of={under.value} /></>}</output>
          </p>
          <div
            class="map square"
            onPointerMove={(event) => (under.value = at(event))}
            onPointerLeave={() => (under.value = null)}
            onClick={(event) => (logVariance.value = at(event as unknown as PointerEvent & { currentTarget: HTMLElement }) ?? logVariance.value)}
          >
            <Canvas picture={picture} colours={colours!} label="How noisy each ray is: log10 of its variance" />
          </div>
          <div class="scale">
            <span>
              <Power of={colours!.low} />
            </span>
            <span class="bar viridis" />
            <span>
              <Power of={colours!.high} />
            </span>
          </div>
        </>
      )}
    </section>
  );
}

function Power({ of }: { of: number }) {
  return (
    <>
      10<sup>{of.toFixed(1).replace("-", "−")}</sup>
    </>
  );
}
