// PSNR and SSIM as fbp_ray/metrics.py has them: the data range is the ground truth's own, SSIM has a uniform 7 x 7 window.

const SIDE = 7;
const [K1, K2] = [0.01, 0.03];

export interface Quality {
  psnr: number;
  ssim: number;
}

/** Of an image (rows, columns) beside its ground truth. */
export function quality(image: Float32Array, truth: Float32Array, rows: number, columns: number): Quality {
  let [low, high, squares] = [Infinity, -Infinity, 0];
  for (let i = 0; i < truth.length; i++) {
    low = Math.min(low, truth[i]!);
    high = Math.max(high, truth[i]!);
    squares += (image[i]! - truth[i]!) ** 2;
  }
  const range = high - low;
  return { psnr: 10 * Math.log10(range ** 2 / (squares / truth.length)), ssim: ssim(image, truth, rows, columns, range) };
}

function ssim(image: Float32Array, truth: Float32Array, rows: number, columns: number, range: number): number {
  const [c1, c2] = [(K1 * range) ** 2, (K2 * range) ** 2];
  const [inside, sample] = [SIDE ** 2, SIDE ** 2 / (SIDE ** 2 - 1)];
  // For each column the sums over SIDE rows of x, y, xx, yy and xy.
  const sums = Array.from({ length: 5 }, () => new Float64Array(columns));
  const add = (row: number, sign: number) => {
    for (let column = 0; column < columns; column++) {
      const [x, y] = [image[row * columns + column]!, truth[row * columns + column]!];
      sums[0]![column]! += sign * x;
      sums[1]![column]! += sign * y;
      sums[2]![column]! += sign * x * x;
      sums[3]![column]! += sign * y * y;
      sums[4]![column]! += sign * x * y;
    }
  };
  let total = 0;
  for (let row = 0; row < rows; row++) {
    add(row, 1);
    if (row < SIDE - 1) continue;
    const box = [0, 0, 0, 0, 0];
    for (let column = 0; column < columns; column++) {
      for (let k = 0; k < 5; k++) box[k]! += sums[k]![column]! - (column >= SIDE ? sums[k]![column - SIDE]! : 0);
      if (column < SIDE - 1) continue;
      const [x, y] = [box[0]! / inside, box[1]! / inside];
      const xx = sample * (box[2]! / inside - x * x);
      const yy = sample * (box[3]! / inside - y * y);
      const xy = sample * (box[4]! / inside - x * y);
      total += ((2 * x * y + c1) * (2 * xy + c2)) / ((x * x + y * y + c1) * (xx + yy + c2));
    }
    add(row - SIDE + 1, -1);
  }
  return total / ((rows - SIDE + 1) * (columns - SIDE + 1));
}
