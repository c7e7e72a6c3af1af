// The painter without WebGL: every pixel of the screen is looked up.
import { columnsOf, rowsOf, type Painter } from "./draw";

export function plainPainter(canvas: HTMLCanvasElement): Painter {
  const context = canvas.getContext("2d")!;
  let pixels = new ImageData(1, 1);
  return {
    paint(picture, { table, low, high }, { x, y, zoom }) {
      const { width, height } = canvas;
      const [columns, rows] = [columnsOf(picture), rowsOf(picture)];
      const [acrossStep, downStep] = picture.transposed ? [picture.shape[1], 1] : [1, picture.shape[1]];
      const colours = new Uint32Array(table.buffer);
      if (pixels.width !== width || pixels.height !== height) pixels = new ImageData(width, height);
      const out = new Uint32Array(pixels.data.buffer).fill(0);
      const scale = 255 / (high - low);
      const across = new Int32Array(width);
      for (let i = 0; i < width; i++) across[i] = Math.floor((x - 0.5 / zoom + (i + 0.5) / zoom / width) * columns);
      for (let j = 0; j < height; j++) {
        const row = Math.floor((y - 0.5 / zoom + (j + 0.5) / zoom / height) * rows);
        if (row < 0 || row >= rows) continue;
        for (let i = 0; i < width; i++) {
          const column = across[i]!;
          if (column < 0 || column >= columns) continue;
          const share = (picture.values[column * acrossStep + row * downStep]! - low) * scale;
          out[j * width + i] = colours[share > 0 ? (share < 255 ? (share + 0.5) | 0 : 255) : 0]!;
        }
      }
      context.putImageData(pixels, 0, 0);
    },
    free() {},
  };
}
