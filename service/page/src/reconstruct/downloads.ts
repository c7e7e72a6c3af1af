// What one sees, as files.
import { refreshModels } from "../access";
import { call, Problem, whole } from "../api";
import { columnsOf, rowsOf, valueAt } from "../draw";
import { request, type Image } from "../images";
import { writeNpy } from "../npy";
import { save } from "../parts/save";
import { grey } from "../units";
import { scale, shownOf, shownWindow } from "./state";

type What = NonNullable<ReturnType<typeof shownOf>>;

/** The name of a file: of what is shown, whatever is asked for meanwhile. */
function nameOf({ title, minus, index }: Pick<What, "title" | "minus" | "index">, ending: string) {
  return `${(minus ? `${title} minus ${minus}` : title).replace(/[^\w.-]+/g, "-")}-${index}.${ending}`;
}

/** The image as it is shown, whole, a pixel each; in greys these are the service's own. */
export async function savePng(id: string) {
  const what = shownOf(id);
  if (!what) return;
  const { picture, colours, minus } = what;
  const [columns, rows] = [columnsOf(picture), rowsOf(picture)];
  const pixels = new ImageData(columns, rows);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const value = valueAt(picture, column, row);
      const at = 4 * (row * columns + column);
      if (minus) {
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
  save(await canvas.convertToBlob({ type: "image/png" }), nameOf(what, "png"));
}

/** The values that are shown, axis 0 = x, as the service has them. */
export function saveNpy(id: string) {
  const what = shownOf(id);
  if (what) save(writeNpy(what.picture.shape, what.picture.values), nameOf(what, "npy"));
}

/** The image that is shown as the service writes it, marked as research use; raises Problem where another model has taken its place. */
export async function saveDicom({ ask, index, version }: Image) {
  const { level, width } = shownWindow.value;
  const window = `&output=dcm&level=${level}&width=${width}`;
  const answer = await call(`reconstruct?${ask.query}${window}`, await request(ask, index, 1));
  const made = answer.headers.get("X-Model-Version");
  if (made !== version) {
    void refreshModels().catch(() => undefined);
    throw new Problem(0, `The image shown is of version ${version} of ${ask.title}, but the service has version ${made} now. The image is made anew: save that one.`);
  }
  save(new Blob([await whole(answer)]), nameOf({ title: ask.title, minus: "", index }, "dcm"));
}
