// PSNR and SSIM beside the page, which goes on answering.
import { quality } from "./quality";

addEventListener("message", ({ data: { id, image, truth, rows, columns } }) => {
  postMessage({ id, quality: quality(image, truth, rows, columns) });
});
