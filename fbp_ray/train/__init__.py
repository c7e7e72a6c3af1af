"""Training: `python -m fbp_ray.train` starts a Ray `TorchTrainer` whose workers run `loop.train`.

program      the command: options, checks, run folder, how the run ended
loop         the training loop itself, which knows nothing of Ray
process      the processes that train together, and how they exchange values
record       resuming, the baseline to compare with, and what is saved after each epoch
events       the events of a run, for its display
display      the terminal: a live table, or lines
launch       Ray: the TorchTrainer
ray_worker   Ray: what each worker does around the loop, and errors that name what went wrong
cluster      Ray: joining a cluster or starting one, its machines, and what each worker gets
"""

from __future__ import annotations

from typing import Any


def train(**settings: Any) -> str:
    """Trains a run from Python, as the command line does: settings on top of the recipe, `quickstart` if none is named.

        run = train(data={"dir": "data/mine"}, train={"epochs": 5}, run={"name": "mine"})
        model = load_model(run)

    Args:
        settings: parts of `fbp_ray.config.TrainConfig`, as a YAML file has them.

    Returns:
        The run folder.

    Raises:
        ConfigError: a setting that does not hold.
        FbpRayError: the run cannot start, or stopped.
    """
    from fbp_ray.cli import on_recipe  # here, not above: the other modules of this package are imported without these
    from fbp_ray.config import TrainConfig
    from fbp_ray.train import program

    return str(program.train(on_recipe(TrainConfig, settings)))
