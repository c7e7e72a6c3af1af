"""`python -m benchmarks.fan FOLDER`: measured fan-beam scans against the reconstructions that came with them.

FOLDER holds `htc2022_*.npz`, discs of the Helsinki Tomography Challenge 2022 (Meaney, de Moura, Siltanen; CC BY 4.0)
with `sinogram` (angle, cell), `angles_deg`, the distances and sizes in mm, and `reference_fbp`, which has a scale of
its own. For each the image of the bare ramp is compared with it, both in the best linear grey scale. And what the
rebinning takes is set beside an FBP of the parallel beam, in processor time, for batches of 1 and 8.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from fbp_ray import FanBeam, fbp
from fbp_ray.rebinning import rebin

ROUNDS = 7


def scan_of(file: np.lib.npyio.NpzFile) -> FanBeam:
    """The geometry that the file of a disc describes."""
    reference = file["reference_fbp"]
    return FanBeam(
        angles=tuple(np.deg2rad(file["angles_deg"].astype(float)).tolist()),
        cells=file["sinogram"].shape[1],
        cell_size=float(file["cell_mm"]) / 1e3,
        image_shape=reference.shape,
        pixel_size=float(file["pixel_mm"]) / 1e3,
        source_to_axis=float(file["distance_source_axis_mm"]) / 1e3,
        source_to_detector=float(file["distance_source_detector_mm"]) / 1e3,
    )


def relative_error(image: np.ndarray, reference: np.ndarray) -> float:
    """Of the image in the best linear grey scale, a x image + b."""
    columns = np.stack([image.ravel(), np.ones(image.size)], 1)
    scaled = columns @ np.linalg.lstsq(columns, reference.ravel(), rcond=None)[0]
    return float(np.linalg.norm(scaled - reference.ravel()) / np.linalg.norm(reference))


def milliseconds(work: Callable[[], object]) -> float:
    """The least processor time of some rounds."""
    times = []
    for _ in range(ROUNDS + 1):
        began = time.process_time()
        work()
        times.append(1e3 * (time.process_time() - began))
    return min(times[1:])


def main() -> None:
    """Prints a line a disc, and the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="holds htc2022_*.npz")
    files = sorted(parser.parse_args().folder.glob("htc2022_*.npz"))
    if not files:
        parser.error("there is no htc2022_*.npz in that folder")
    for path in files:
        with np.load(path) as file:
            scan, reference = scan_of(file), file["reference_fbp"].astype(float)
            sinogram = torch.from_numpy(file["sinogram"].astype(np.float32))
        image = fbp(sinogram, scan, "none").double().numpy()
        print(f"{path.stem}: relative error {100 * relative_error(image.T[::-1], reference):.2f} %", flush=True)
    for batch in (1, 8):
        sinograms = sinogram.expand(batch, -1, -1).contiguous()
        rebinned = rebin(sinograms, scan)
        ours = milliseconds(lambda s=sinograms: rebin(s, scan))  # type: ignore[misc]
        whole = milliseconds(lambda s=rebinned: fbp(s, scan.parallel))  # type: ignore[misc]
        print(f"batch {batch}: rebinning {ours:.1f} ms, the FBP after it {whole:.1f} ms, {100 * ours / whole:.0f} %")


if __name__ == "__main__":
    main()
