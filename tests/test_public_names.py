"""The project uses what other packages document, and nothing that their next release may take away."""

from __future__ import annotations

import pytest

from tests.support.private_names import names_in, private_names

ALLOWED: dict[str, str] = {}
"""By `file: name`, private names that there is no way around, and why."""


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import ray._private", "ray._private"),
        ("import ray\nray._private.worker", "ray._private.worker"),
        ("from ray import _private as p", "ray._private"),
        ("import ray.train as rt\nrt._x", "ray.train._x"),
        ("from ray import train\ntrain._x()", "ray.train._x"),
        ("import ray\nhere = ray.train\nthere = here\nthere._x", "ray.train._x"),
        ("import ray\ngetattr(ray.train, '_x')", "ray.train._x"),
        ("import ray\nnode = getattr(ray, 'worker')\nnode._x", "ray.worker._x"),
        ("import ray\nray.get_actor('a')._x", "ray.get_actor._x"),
        ("import ray\ndef f():\n    actor = ray.get_actor('a')\n    return actor._x", "ray.get_actor._x"),
        ("import torch\ndef f(x: torch.Tensor):\n    return x._base", "torch.Tensor._base"),
        ("import ray\nray.init(_system_config={})", "ray.init._system_config"),
        ("from httpx import Client\nwith Client() as c:\n    c._transport", "httpx.Client._transport"),
        (
            "from torch.optim import Adam\nclass A(Adam):\n    def step(self):\n        super()._hook()",
            "torch.optim.Adam._hook",
        ),
        (
            "from torch.optim import Adam\nclass A(Adam):\n    def step(self):\n        self._hook()",
            "?._hook",
        ),
        ("def f(error):\n    return getattr(error, '_cause', None)", "?._cause"),
        ("def f(error):\n    return error._cause", "?._cause"),
        ("from ray.train.v2.api.exceptions import X", "ray.train.v2.api.exceptions.X"),
        ("import ray.train.v2", "ray.train.v2"),
        ("from ray import dashboard", "ray.dashboard"),
        ("from ray.experimental.internal_kv import put", "ray.experimental.internal_kv.put"),
        ("from ray.tune.execution.placement_groups import P", "ray.tune.execution.placement_groups.P"),
        ("from numba.core.registry import cpu_target", "numba.core.registry.cpu_target"),
        ("run([python, '-m', 'ray.scripts.scripts', 'start'])", "ray.scripts.scripts"),
        ("run([python, '-c', 'from ray import _private; print(1)'])", "ray._private"),
        ("run([python, '-c', f'import ray; ray._private.f({1})'])", "ray._private.f"),
        ("import_module('ray._private')", "ray._private"),
    ],
)
def test_private_names_are_found(source: str, name: str) -> None:
    assert {path for _, path in names_in(source)} == {name}


@pytest.mark.parametrize(
    "source",
    [
        "import ray\nray.__version__\nray.init(num_cpus=1)",
        "from ray.train import TrainingFailedError\nfrom ray.util.queue import Queue",
        '"""What ray._private did."""',
        "class A:\n    def __init__(self):\n        self._x = 1\nA()._x",
        "import ray\ndef f(ray):\n    return ray.x",
        "from fbp_ray.run import _read",
        "point._replace(x=1)._asdict()",
        "text = 'see https://docs.ray.io/ray._x'",
    ],
)
def test_public_names_and_our_own_are_left_alone(source: str) -> None:
    assert not names_in(source)


def test_the_project_uses_public_names_only() -> None:
    uses = [str(use) for use in private_names() if f"{use.file}: {use.name}" not in ALLOWED]
    assert not uses, "\n".join(uses)


def test_every_exception_is_needed() -> None:
    assert set(ALLOWED) <= {f"{use.file}: {use.name}" for use in private_names()}
