"""The package's training loop under torchrun, without Ray: `torchrun --nproc-per-node 2 -m benchmarks.training.plain`.

It takes a configuration file, a run folder and its session, as `benchmarks.training.runs` makes them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import yaml

from fbp_ray.run import ResolvedConfig, RunFolder
from fbp_ray.train.loop import train
from fbp_ray.train.process import Process


def main(config: str, folder: str, session: str) -> None:
    """Trains in this process, one of those that torchrun has started."""
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // world_size))
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if on_gpu else torch.device("cpu")
    if world_size > 1 or on_gpu:  # a group of one, too, where there is NCCL to try
        dist.init_process_group("nccl" if on_gpu else "gloo", device_id=device if on_gpu else None)
    settings = ResolvedConfig.model_validate(yaml.safe_load(Path(config).read_text()))
    train(settings, RunFolder(folder, session), Process(rank, world_size, device), lambda event: None)
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
