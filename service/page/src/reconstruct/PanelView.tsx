// A panel of the comparison: the image, what is drawn over it, and its figures.
import { useSignal } from "@preact/signals";
import { words } from "../api";
import { columnsOf, pixelAt, rowsOf, valueAt } from "../draw";
import { Canvas } from "../parts/Canvas";
import { Fault } from "../parts/Fault";
import { shown } from "../units";
import { saveDicom, saveNpy, savePng } from "./downloads";
import { gestures } from "./gestures";
import type { Panel } from "./panel";
import { foreign, line, pictures, pointer, reading, reference, region, scale, shownOf, stack, title, tool, truth, TRUTH, type Place } from "./state";

export function PanelView({ id, panel }: { id: string; panel?: Panel }) {
  const what = shownOf(id);
  const name = title(id);
  return (
    <figure class="panel" data-panel={id} aria-busy={panel?.busy.value ?? false}>
      <figcaption>
        <strong title={name}>{name}</strong>
        {what?.isDifference && <span class="note">minus {title(reference.value)}</span>}
      </figcaption>
      <div class="frame">
        {what ? <Shown id={id} {...what} /> : <div class="empty">{!stack.value && "no sinogram yet"}</div>}
        {panel?.busy.value && <Busy panel={panel} />}
        <Fault text={foreign(panel?.image.value ?? null)} />
        <Fault text={panel?.problem.value ?? ""} retry={() => panel && (panel.retries.value += 1)} />
      </div>
      <Figures id={id} panel={panel} />
      {what && <Downloads id={id} panel={panel} />}
    </figure>
  );
}

function Busy({ panel }: { panel: Panel }) {
  return (
    <div class="busy">
      <progress aria-label={`${panel.id} is being reconstructed`} />
      <button type="button" onClick={() => panel.cancel()}>
        Cancel
      </button>
    </div>
  );
}

function Shown({ id, picture, colours, isDifference }: { id: string } & NonNullable<ReturnType<typeof shownOf>>) {
  const aspect = columnsOf(picture) / rowsOf(picture);
  const keys = "Arrow keys move the cursor, + and - zoom, 0 shows all, L draws a line, Alt and arrows set level and width.";
  return (
    <div
      class={`image ${tool.value}`}
      style={{ aspectRatio: String(aspect) }}
      tabIndex={0}
      role="group"
      aria-label={`${title(id)}${isDifference ? `, minus ${title(reference.value)}` : ""}. ${keys}`}
      ref={(element) => void (element && gestures(element, picture))}
    >
      <Canvas picture={picture} colours={colours} region={region.value} label={title(id)} />
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
        {value === null ? "–" : shown(value, reading.value, what!.isDifference)}
      </output>
      {psnr !== undefined && (
        <span>
          PSNR <b>{psnr.toFixed(2)}</b> dB, SSIM <b>{ssim!.toFixed(4)}</b>
        </span>
      )}
      {!panel && truth.value && <span>{truth.value.shape.join(" × ")}</span>}
    </p>
  );
}

function Downloads({ id, panel }: { id: string; panel: Panel | undefined }) {
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
      <button type="button" aria-label={`PNG of ${title(id)}`} onClick={run(() => savePng(id))}>
        PNG
      </button>
      <button type="button" aria-label={`npy of ${title(id)}`} onClick={run(() => saveNpy(id))}>
        npy
      </button>
      {panel && id !== TRUTH && (
        <button type="button" aria-label={`DICOM of ${title(id)}`} onClick={run(() => saveDicom(panel))}>
          DICOM
        </button>
      )}
      {pictures.value.size > 1 && (
        <label class="minus">
          <input
            type="checkbox"
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
