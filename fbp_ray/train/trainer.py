"""Ray's `TorchTrainer`, without helpers that a training of this project has no use for.

Each is an actor, a process that wakes a hundred times a second to look for signals, which takes a hundredth of a
processor from the training. Ray has no setting for it, so this goes by the names of its callbacks: should a later Ray
call them otherwise, the helpers are started again, and nothing else changes.
"""

from __future__ import annotations

from typing import Any

from ray.train.v2.torch.torch_trainer import TorchTrainer

OF_RAY_DATA = frozenset({"DatasetsCallback"})  # the workers read their HDF5 files themselves
OF_OTHERS_CLUSTERS = frozenset({"PlacementGroupCleanerCallback"})  # frees what a killed driver leaves reserved


class LeanTrainer(TorchTrainer):
    """Takes what `TorchTrainer` does.

    Args:
        alone: the cluster ends with this process, so that nothing can be left reserved on it.
    """

    def __init__(self, *args: Any, alone: bool, **named: Any) -> None:
        self._unused = OF_RAY_DATA | (OF_OTHERS_CLUSTERS if alone else frozenset())
        super().__init__(*args, **named)

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [callback for callback in callbacks if type(callback).__name__ not in self._unused]
