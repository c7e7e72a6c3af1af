// Asks the worker for the quality of images.
import type { Picture } from "./draw";
import type { Quality } from "./quality";

let worker: Worker | null = null;
let asked = 0;
const waiting = new Map<number, (quality: Quality) => void>();

/** PSNR and SSIM of an image; null where the ground truth has another shape or a single value. */
export async function measure(image: Picture, truth: Picture): Promise<Quality | null> {
  if (image.shape.join() !== truth.shape.join() || Math.min(...image.shape) < 7) return null;
  if (!worker) {
    worker = new Worker(WORKER, { type: "module" });
    worker.onmessage = ({ data }) => {
      waiting.get(data.id)?.(data.quality);
      waiting.delete(data.id);
    };
  }
  const id = ++asked;
  const [rows, columns] = image.shape;
  worker.postMessage({ id, image: image.values.slice(), truth: truth.values.slice(), rows, columns });
  const found = await new Promise<Quality>((resolve) => waiting.set(id, resolve));
  return Number.isFinite(found.ssim) ? found : null;
}
