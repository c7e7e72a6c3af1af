"""The model that comes with the package: trained on the sample scans, scored on their test patient, put in its place.

    python -m benchmarks.weights

The same machine and the same versions give the same weights, bit for bit; see `benchmarks.golden` for others.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from fbp_ray.checkpoint import Checkpoint, read_model, write_checkpoint
from fbp_ray.shipped import CHEST_LOW_DOSE
from fbp_ray.simulate import SimulateConfig, simulate
from fbp_ray.storage import LocalFolder

DATA = Path("data/sample-all")
TARGET = LocalFolder(Path(__file__).parents[1] / "fbp_ray" / "weights" / CHEST_LOW_DOSE)


def main() -> None:
    """Replaces the weights in this source tree."""
    simulate(SimulateConfig(sample=True, out=DATA))
    with tempfile.TemporaryDirectory(prefix="weights-") as folder:
        run = Path(folder) / "run"
        place = ("--data.dir", DATA, "--run.storage", folder, "--run.name", "run", "--track.to", "none")
        _program("fbp_ray.train", "--recipe", CHEST_LOW_DOSE, "--scaling.num_workers", 1, *place)
        _program("fbp_ray.evaluate", "--checkpoint", run, "--panels", 0)
        _, (manifest, contents) = read_model(run)
        about = {**manifest.data, "dir": str(DATA)}  # without the place on this machine
        write_checkpoint(TARGET, Checkpoint(manifest.model_copy(update={"data": about}), contents))
        TARGET.write("metrics.json", (run / "evaluation-test" / "metrics.json").read_bytes())
    print(f"wrote {TARGET}")


def _program(module: str, *options: object) -> None:
    subprocess.run([sys.executable, "-m", module, *map(str, options)], check=True)


if __name__ == "__main__":
    main()
