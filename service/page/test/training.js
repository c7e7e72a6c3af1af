// Data of which a model is trained within seconds.
import { execFile } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { PYTHON, ROOT } from "./serving.js";

export const [ANGLES, CELLS, SIDE] = [24, 67, 47];
const GEOMETRY = {
  angles: { count: ANGLES, first: 0.05, step: Math.PI / ANGLES },
  cells: CELLS,
  cell_size: 0.0055,
  image_shape: [SIDE, SIDE],
  pixel_size: 0.0055,
};

/** Makes `data/small` and `scan.json` in a folder. The values are in 1/m, not in LoDoPaB-CT's scale. */
export async function smallData(folder) {
  mkdirSync(join(folder, "data"));
  writeFileSync(join(folder, "scan.json"), JSON.stringify(GEOMETRY));
  const options = ["-m", "fbp_ray.simulate", "--phantoms", "8", "--geometry", "scan.json", "--out", "data/small"];
  await promisify(execFile)(PYTHON, options, { cwd: folder, env: { ...process.env, PYTHONPATH: ROOT } });
  const description = join(folder, "data", "small", "dataset.json");
  writeFileSync(description, JSON.stringify({ ...JSON.parse(readFileSync(description, "utf8")), unit: 1 }));
}

/** Of a training of which one sees all and that is done soon. */
export const SETTINGS = {
  data: { dir: "data/small" },
  window: { kind: "frequency", init: "hann" },
  train: { epochs: 2, batch_size: 2 },
  scaling: { num_workers: 1 },
};
