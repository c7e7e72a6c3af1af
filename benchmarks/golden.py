"""Whether a change has altered what a fixed seed trains: hashes of data and weights beside those that were recorded.

    python -m benchmarks.golden

Those of the data and of the run by the mean squared error are version 0.1.0's; the others were recorded when MS-SSIM
got a kernel, which rounds differently. They hold for one kind of processor and one set of versions: torch's FFTs and
the projector's vectors round differently on others. There, run it before and after a change and compare the two.
"""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import torch

from fbp_ray.checkpoint import read_model

ONE_WINDOW = (
    "--window.kind frequency --window.cutoff 1 --optim.lr 0.01 --optim.schedule plateau --loss.log_mse 0 "
    "--loss.local_ssim 0"
)
"""The quickstart of version 0.1.0, with its loss below."""

COMPOSITE = "--loss.l1 0.25 --loss.ms_ssim 1 --loss.edge 1"

RUNS = {
    "one window for all rays, 1 worker": (
        f"{ONE_WINDOW} {COMPOSITE} --train.epochs 3 --scaling.num_workers 1",
        "a208b263f9c6a01122b91fda",
    ),
    "one window for all rays, 2 workers": (
        f"{ONE_WINDOW} {COMPOSITE} --train.epochs 2 --scaling.num_workers 2",
        "bf08d5499d73c734deecb480",
    ),
    "reference, 1 worker": (
        "--recipe reference --train.epochs 1 --scaling.num_workers 1 --data.train_samples 12 "
        "--data.validation_samples 4",
        "61d8e332f0978d155d695717",
    ),
    "mean squared error, 2 workers": (
        f"{ONE_WINDOW} --train.epochs 2 --scaling.num_workers 2 --loss.mse 1 "
        "--loss.l1 0 --loss.ms_ssim 0 --loss.edge 0 --optim.lr 0.03",
        "e7cc90ad192881368d03e752",
    ),
}
DATA = "--phantoms 20 --train 16 --validation 6 --test 4 --split 0.6,0.2,0.2"
DATA_HASHES = {"observation_train_000.hdf5": "785a128f0d6c2087", "ground_truth_train_000.hdf5": "d7364aac538a97d0"}


def main() -> int:
    """Prints a row for each hash; 1 where one is another."""
    print(f"recorded on x86_64 with AVX-512, torch 2.15.0; this is {platform.machine()}, torch {torch.__version__}")
    same = True
    with tempfile.TemporaryDirectory(prefix="golden-") as folder:
        data = Path(folder) / "data"
        _program("fbp_ray.simulate", *DATA.split(), "--out", str(data))
        for name, recorded in DATA_HASHES.items():
            with h5py.File(data / name) as file:
                same &= _row(name, hashlib.sha256(file["data"][...].tobytes()).hexdigest(), recorded)
        for number, (name, (options, recorded)) in enumerate(RUNS.items()):
            place = ["--data.dir", str(data), "--run.storage", folder, "--run.name", str(number), "--track.to", "none"]
            _program("fbp_ray.train", *place, "--train.batch_size", "4", *options.split())
            same &= _row(name, _hash_of_weights(Path(folder) / str(number)), recorded)
    return 0 if same else 1


def _program(module: str, *options: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, *options], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"python -m {module} {' '.join(options)} failed:\n{done.stderr}")


def _hash_of_weights(run: Path) -> str:
    import safetensors.numpy

    (weight,) = safetensors.numpy.load(read_model(run)[1].contents["weights"]).values()
    return hashlib.sha256(weight.tobytes()).hexdigest()


def _row(name: str, found: str, recorded: str) -> bool:
    same = found.startswith(recorded)
    print(f"{name:32} {found[: len(recorded)]:24}  {'as recorded' if same else 'recorded: ' + recorded}", flush=True)
    return same


if __name__ == "__main__":
    sys.exit(main())
