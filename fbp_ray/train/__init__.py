"""Training: `python -m fbp_ray.train` starts a Ray `TorchTrainer` whose workers run `loop.train`.

program      checks, run folder, how the run ended
loop         the training loop itself, which knows nothing of Ray
process      the processes that train together, and how they exchange values
record       resuming, the baseline to compare with, and what is saved after each epoch
events       the events of a run, for its display
display      the terminal: a live table, or lines
launch       Ray: the TorchTrainer
ray_worker   Ray: what each worker does around the loop, and errors that name what went wrong
room         Ray: waiting for processors, and letting go of them
cluster      Ray: joining a cluster or starting one, its machines, and what each worker gets

The options are read here, so that a wrong one is known before torch is imported.
"""

from __future__ import annotations

from collections.abc import Sequence

from fbp_ray.cli import parse_with_recipe
from fbp_ray.config import TrainConfig


def main(argv: Sequence[str]) -> None:
    """Trains the run that the options describe."""
    config = parse_with_recipe(TrainConfig, argv, "python -m fbp_ray.train")
    from fbp_ray.train.program import train  # only now: torch takes seconds to import

    train(config)
