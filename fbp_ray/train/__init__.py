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

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from fbp_ray.cli import on_recipe, parse_with_recipe
from fbp_ray.config import TrainConfig
from fbp_ray.data.layout import check_data
from fbp_ray.run import own_settings
from fbp_ray.train.cluster import keep_to_loopback


def main(
    argv: Sequence[str], called: str = "python -m fbp_ray.train", usual: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Trains the run that the options describe.

    Args:
        argv: the options.
        called: what takes them, for --help.
        usual: settings of that program on top of the recipe's.
    """
    config = parse_with_recipe(TrainConfig, argv, called, own_settings, usual)
    if config.data.dir is not None:
        check_data(config.data, config.target)
    keep_to_loopback(config.ray.address)
    from fbp_ray.train import program  # only now: torch takes seconds to import

    program.train(config)


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
    config = on_recipe(TrainConfig, settings, instead=own_settings)
    from fbp_ray.train import program

    return str(program.train(config))
