"""As many samples as LoDoPaB-CT has, made in a second: virtual data sets over one real file."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from fbp_ray.geometry import ParallelBeam
from tests.support.scans import COARSE

TRAIN = 35_820
"""Training samples of LoDoPaB-CT."""

ROWS = 128


def write_huge(folder: Path, samples: int = TRAIN, geometry: ParallelBeam = COARSE, part: str = "train") -> Path:
    """Writes a part in files of 128 rows, the last with what remains; every file's rows are those of one file.

    Row r holds values around r, for both kinds. There is a `dataset.json` too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for kind, shape in (("observation", geometry.sinogram_shape), ("ground_truth", geometry.image_shape)):
        source = f"rows_{kind}.h5"
        with h5py.File(folder / source, "w") as file:
            data = file.create_dataset("data", (ROWS, *shape), "f4", chunks=(1, *shape))
            noise = np.random.default_rng(0).random(shape, dtype=np.float32)
            for row in range(ROWS):
                data[row] = row + 0.01 * noise
        for number in range(-(-samples // ROWS)):
            rows = min(ROWS, samples - number * ROWS)
            layout = h5py.VirtualLayout((rows, *shape), "f4")
            layout[:] = h5py.VirtualSource(source, "data", (ROWS, *shape))[:rows]
            with h5py.File(folder / f"{kind}_{part}_{number:03d}.hdf5", "w", libver="latest") as file:
                file.create_virtual_dataset("data", layout)
    (folder / "dataset.json").write_text(f'{{"geometry": {geometry.model_dump_json()}}}')
    return folder
