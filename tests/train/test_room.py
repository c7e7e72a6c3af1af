"""Room in the cluster: what has returned has let go of it, and a wait that nobody will end says who holds it."""

from __future__ import annotations

import signal
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.util import placement_group, remove_placement_group

from fbp_ray.errors import RunError
from fbp_ray.sweep import LogRange, sweep
from fbp_ray.sweep.report import SweepProgress, TrialEpoch, TrialEvent
from fbp_ray.train import main, room
from fbp_ray.train.room import Shares, fit_and_let_go, shares, wait_for_room
from tests.support.scans import write_scan


class Actor:
    """Stands for an actor: frames refer to it, and closures, and it refers to itself."""

    def __init__(self) -> None:
        self.itself = self

    def end(self, error: BaseException) -> None:
        def callback() -> None:
            assert self.itself
            raise error

        callback()


@pytest.mark.parametrize(
    ("raised", "seen"),
    [(ValueError(), ValueError), (SystemExit(0), KeyboardInterrupt), (SystemExit(signal.SIGTERM), SystemExit)],
)
def test_an_error_that_is_kept_keeps_nothing_of_the_cluster(
    cluster: None, raised: BaseException, seen: type[BaseException]
) -> None:
    references: list[weakref.ref[Actor]] = []

    def fit() -> None:
        actor = Actor()
        references.append(weakref.ref(actor))
        signal.signal(signal.SIGINT, lambda *_: actor)
        ray.get(placement_group([{"CPU": 2}]).ready())
        actor.end(raised)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(seen) as kept:
        fit_and_let_go(fit)
    assert signal.getsignal(signal.SIGINT) is handler
    assert references[0]() is None
    wait_for_room({"CPU": 2}, pytest.fail)
    if seen is ValueError:
        assert "in callback" in kept.value.__notes__[0]


def test_others_are_waited_for_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PATIENCE", 0.0)
    monkeypatch.setattr(room, "HOPELESS_SECONDS", 0.0)
    seen = iter([Shares(0, 0, 2, 0), Shares(1, 0, 1, 0), Shares(2, 0, 0, 0)])
    monkeypatch.setattr(room, "shares", lambda kind: next(seen))
    said: list[str] = []
    wait_for_room({"CPU": 2, "GPU": 0}, said.append)
    assert ["other programs 2" in said[0], "other programs 1" in said[1], len(said)] == [True, True, 2]


def test_who_has_the_processors_is_known(cluster: None, taken: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shares("CPU") == Shares(free=0, ours=2, theirs=0, rest=0)
    job = ray.get_runtime_context().get_job_id()
    theirs = {name.replace(job, "ff000000"): group for name, group in room.placement_group_table().items()}
    monkeypatch.setattr(room, "placement_group_table", lambda: theirs)
    assert shares("CPU") == Shares(free=0, ours=0, theirs=2, rest=0)
    monkeypatch.setattr(room, "placement_group_table", dict)
    assert shares("CPU") == Shares(free=0, ours=0, theirs=0, rest=2)


@pytest.fixture
def taken(cluster: None) -> Iterator[None]:
    """A cluster whose processors this process has reserved."""
    wait_for_room({"CPU": 2}, pytest.fail)
    group = placement_group([{"CPU": 2}])
    ray.get(group.ready())
    yield
    remove_placement_group(group)
    wait_for_room({"CPU": 2}, pytest.fail)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scan(tmp_path_factory.mktemp("scan") / "data", train=13, validation=5)


def options(scan: Path, part: str, storage: Path) -> list[str]:
    return [
        "--data.dir",
        str(scan),
        "--loss.ms_ssim",
        "0",
        "--window.kind",
        "frequency",
        f"--{part}.storage",
        str(storage),
        f"--{part}.name",
        "it",
    ]


def sweep_rates(scan: Path, storage: Path, epochs: int = 3) -> None:
    argv = [*options(scan, "sweep", storage), "--train.epochs", str(epochs), "--sweep.trials", "2"]
    sweep({"optim.lr": LogRange(1e-3, 1e-1)}, argv, "script.py")


@pytest.mark.usefixtures("taken")
def test_a_wait_that_nobody_will_end_says_who_holds_what(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "HOPELESS_SECONDS", 0.5)
    with pytest.raises(RunError, match=r"nobody gives any back: 2 CPU needed, 0 free; this process holds 2"):
        main(options(scan, "run", tmp_path))
    with pytest.raises(RunError, match=r"nobody gives any back: 1 CPU needed, 0 free; this process holds 2"):
        sweep_rates(scan, tmp_path / "sweep")


def test_a_sweep_that_was_interrupted_has_let_go_of_its_trials(
    cluster: None, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: SweepProgress, event: TrialEvent, results: object = None) -> None:
        if isinstance(event, TrialEpoch):
            raise KeyboardInterrupt

    monkeypatch.setattr(SweepProgress, "show", interrupt)
    with pytest.raises(KeyboardInterrupt) as kept:
        sweep_rates(scan, tmp_path, epochs=100_000)
    wait_for_room({"CPU": 2}, pytest.fail)
    assert kept.value is not None
