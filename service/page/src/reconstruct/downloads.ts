// What one sees, as files.
import { call, whole } from "../api";
import { columnsOf, rowsOf, valueAt } from "../draw";
import { request } from "../images";
import { writeNpy } from "../npy";
import { save } from "../parts/save";
import { grey } from "../units";
import type { Panel } from "./panel";
import { scale, shownOf, shownWindow, slice, title } from "./state";

const nameOf = (id: string, ending: string) => `${title(id).replace(/[^\w.-]+/g, "-")}-${slice.value}.${ending}`;

/** The image as it is shown, whole, a pixel each; in greys these are the service's own. */
export async function savePng(id: string) {
  const what = shownOf(id);
  if (!what) return;
  const { picture, colours, isDifference } = what;
  const [columns, rows] = [columnsOf(picture), rowsOf(picture)];
  const pixels = new ImageData(columns, rows);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const value = valueAt(picture, column, row);
      const at = 4 * (row * columns + column);
      if (isDifference) {
        const share = Math.min(1, Math.max(0, (value - colours.low) / (colours.high - colours.low)));
        pixels.data.set(colours.table.subarray(4 * Math.round(255 * share), 4 * Math.round(255 * share) + 4), at);
      } else {
        const level = grey(value, shownWindow.value, scale.value.hu);
        pixels.data.set([level, level, level, 255], at);
      }
    }
  }
  const canvas = new OffscreenCanvas(columns, rows);
  canvas.getContext("2d")!.putImageData(pixels, 0, 0);
  save(await canvas.convertToBlob({ type: "image/png" }), nameOf(id, "png"));
}

/** The values that are shown, axis 0 = x, as the service has them. */
export function saveNpy(id: string) {
  const what = shownOf(id);
  if (what) save(writeNpy(what.picture.shape, what.picture.values), nameOf(id, "npy"));
}

/** The image as the service writes it, marked as research use. */
export async function saveDicom(panel: Panel) {
  const ask = panel.asked();
  if (!ask) return;
  const { level, width } = shownWindow.value;
  const window = `&output=dcm&level=${level}&width=${width}`;
  const answer = await call(`reconstruct?${ask.query}${window}`, await request(ask, slice.value, 1));
  save(new Blob([await whole(answer)]), nameOf(panel.id, "dcm"));
}
