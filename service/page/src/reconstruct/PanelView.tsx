// A panel of the comparison: the image, what is drawn over it, and its figures.
import { useSignal } from "@preact/signals";
import { models } from "../access";
import { words } from "../api";
import { columnsOf, pixelAt, rowsOf, valueAt } from "../draw";
import { Canvas } from "../parts/Canvas";
import { Fault } from "../parts/Fault";
import { shown } from "../units";
import { saveDicom, saveNpy, savePng } from "./downloads";
import { stack } from "./given";
import { gestures } from "./gestures";
import type { Panel } from "./panel";
import { foreign, images, lacks, line, nameOfSlice, pointer, reading, reference, region, scale, shownOf, tool, truth, type Place } from "./state";

export function PanelView({ id, panel }: { id: string; panel?: Panel }) {
  const what = shownOf(id);
  const wanted = panel ? lacks(panel) : "";
  const name = what ? nameOfSlice(what.title, what.index) : (panel?.asked()?.title ?? "");
  const source = panel && models.value.find(({ name }) => id === `model ${name}`)?.source.split("/").at(-1);
  return (
    <figure class={`panel ${wanted ? "lacking" : ""}`} data-panel={id} aria-busy={panel?.busy.value ?? false}>
      <figcaption>
        <strong title={name}>{name}</strong>
        {source && <span class="note">{source}</span>}
        {what?.minus && <span class="note">minus {what.minus}</span>}
      </figcaption>
      <div class="frame">
        {what ? <Image what={what} /> : <div class="empty">{!stack.value && "no sinogram yet"}</div>}
        {panel?.busy.value && <Busy panel={panel} wanted={wanted} />}
        <Fault text={foreign(panel?.image.value ?? null)} />
        <Fault text={panel?.problem.value ?? ""} {...(panel && !panel.refused.value ? { retry: () => (panel.retries.value += 1) } : {})} />
      </div>
      <Figures id={id} panel={panel} />
      {what && <Downloads id={id} what={what} panel={panel} />}
    </figure>
  );
}

function Busy({ panel, wanted }: { panel: Panel; wanted: string }) {
  return (
    <div class="busy">
      <span>{wanted || "This image"} is being made</span>
      <progress aria-label={`${wanted || panel.id} is being reconstructed`} />
      <button type="button" onClick={() => panel.cancel()}>
        Cancel
      </button>
      <span class="slow">The service has not answered for ten seconds: it is busy, or hangs. The page goes on waiting.</span>
    </div>
  );
}

type What = NonNullable<ReturnType<typeof shownOf>>;

function Image({ what: { picture, colours, title, minus } }: { what: What }) {
  const aspect = columnsOf(picture) / rowsOf(picture);
  const keys = "Arrow keys move the cursor, + and - zoom, 0 shows all, L draws a line, Alt and arrows set level and width.";
  return (
    <div
      class={`image ${tool.value}`}
      style={{ aspectRatio: String(aspect) }}
      tabIndex={0}
      role="group"
      aria-label={`${minus ? `${title}, minus ${minus}` : title}. ${keys}`}
      ref={(element) => void (element && gestures(element, picture))}
    >
      <Canvas picture={picture} colours={colours} region={region.value} label={title} />
      <Overlay />
      {scale.value.hu && (
        <>
          <span class="side left">R</span>
          <span class="side right">L</span>
          <span class="side top">A</span>
          <span class="side bottom">P</span>
        </>
      )}
    </div>
  );
}

/** The cursor and the line, in fractions of what is shown. */
function Overlay() {
  const { x, y, zoom } = region.value;
  const at = (place: Place) => ({ x: 100 * ((place.x - x) * zoom + 0.5), y: 100 * ((place.y - y) * zoom + 0.5) });
  const cursor = pointer.value && at(pointer.value);
  const ends = line.value?.map(at);
  return (
    <svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">
      {cursor && <path class="cursor" d={`M${cursor.x} 0V100M0 ${cursor.y}H100`} />}
      {ends && <path class="line" d={`M${ends[0]!.x} ${ends[0]!.y}L${ends[1]!.x} ${ends[1]!.y}`} />}
    </svg>
  );
}

function Figures({ id, panel }: { id: string; panel: Panel | undefined }) {
  const what = shownOf(id);
  const pixel = what && pointer.value && pixelAt(what.picture, pointer.value.x, pointer.value.y);
  const value = what && pixel ? valueAt(what.picture, ...pixel) : null;
  const { psnr, ssim } = (what && panel?.quality.value) ?? {};
  return (
    <p class="figures">
      <output class="value" data-value={value === null ? "" : value.toPrecision(9)}>
        {value === null ? "–" : shown(value, reading.value, !!what!.minus)}
      </output>
      {psnr !== undefined && (
        <span>
          PSNR <b>{psnr.toFixed(2)}</b> dB, SSIM <b>{ssim!.toFixed(4)}</b>
        </span>
      )}
      {!panel && truth.value && <span>{truth.value.picture.shape.join(" × ")}</span>}
    </p>
  );
}

function Downloads({ id, what: { title }, panel }: { id: string; what: What; panel: Panel | undefined }) {
  const problem = useSignal("");
  const run = (what: () => Promise<void> | void) => async () => {
    problem.value = "";
    try {
      await what();
    } catch (error) {
      problem.value = words(error);
    }
  };
  return (
    <div class="downloads">
      <button type="button" aria-label={`PNG of ${title}`} onClick={run(() => savePng(id))}>
        PNG
      </button>
      <button type="button" aria-label={`npy of ${title}`} onClick={run(() => saveNpy(id))}>
        npy
      </button>
      {panel?.image.value && (
        <button type="button" aria-label={`DICOM of ${title}`} onClick={run(() => saveDicom(panel.image.value!))}>
          DICOM
        </button>
      )}
      {images.value.size > 1 && (
        <label class="minus">
          <input
            type="checkbox"
            aria-label={`others minus this: ${title}`}
            checked={reference.value === id}
            onChange={() => (reference.value = reference.value === id ? "" : id)}
          />
          others minus this
        </label>
      )}
      <Fault text={problem.value} />
    </div>
  );
}
