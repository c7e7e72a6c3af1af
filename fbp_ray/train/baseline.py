"""The classic FBP on the validation part, which every epoch is shown beside."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from fbp_ray.baseline import Baseline, best_hann
from fbp_ray.data import Batches, LoDoPaB
from fbp_ray.metrics import psnr, ssim
from fbp_ray.model import fbp
from fbp_ray.run import RunFolder
from fbp_ray.train.process import Process, Sums

CUTOFF_SAMPLES = 32  # the cut-off is chosen on so many validation samples at most
FILE = "baseline.json"


def measure_baseline(run: RunFolder, dataset: LoDoPaB, batches: Batches, process: Process) -> Baseline:
    """PSNR and SSIM of the Hann that is best for each, with its cut-off; from the run folder where they are known.

    Args:
        run: keeps them in baseline.json.
        dataset: the validation part.
        batches: this process's share of it.
        process: which of the processes this is.
    """
    known = process.from_first(lambda: run.read_json(FILE))
    if known is not None:
        return Baseline.model_validate(known)
    geometry = dataset.geometry
    mine = range(process.rank, min(CUTOFF_SAMPLES, len(dataset)), process.world_size)
    chosen = DataLoader(Subset(dataset, mine), 4)

    def pairs() -> Iterator[tuple[Tensor, Tensor]]:
        for batch in chosen:
            yield batch.observation.to(process.device), batch.ground_truth.to(process.device)

    cutoffs = best_hann(pairs, geometry, process.add_up)
    sums = Sums(process)
    with torch.no_grad():
        for batch in batches.epoch(0):
            observation, target = batch.observation.to(process.device), batch.ground_truth.to(process.device)
            if len(target):
                by_psnr = psnr(fbp(observation, geometry, "hann", cutoffs.psnr), target).mean()
                by_ssim = ssim(fbp(observation, geometry, "hann", cutoffs.ssim), target).mean()
                sums.add(len(target), {"hann_psnr": by_psnr, "hann_ssim": by_ssim})
    figures = Baseline(**sums.means(), hann_psnr_cutoff=cutoffs.psnr, hann_ssim_cutoff=cutoffs.ssim)
    if process.rank == 0:
        run.write_json(FILE, figures.model_dump())
    return figures
