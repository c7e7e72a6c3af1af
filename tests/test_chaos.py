"""What is killed in the middle of an epoch comes back, and the run ends as if nothing had happened.

`pytest -m chaos`: real processes, real `ray start`, kill -9.
"""

from __future__ import annotations

import contextlib
import csv
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from fbp_ray.checkpoint import read_manifest
from tests.support.checkpoints import weights_of
from tests.support.hosts import PORT, QUIET, Host, family, two_hosts
from tests.support.scans import write_scan

pytestmark = pytest.mark.chaos

EPOCHS = 6
SECONDS = 240


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data whose epochs last a second or two, and a place for the runs."""
    made = tmp_path_factory.mktemp("chaos")
    write_scan(made / "data", train=1200, validation=24)
    return made


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> Path:
    """The run that the others must end like."""
    done = subprocess.run(command(folder, "undisturbed"), env=environment(), cwd=ROOT, check=False, capture_output=True)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return folder / "runs" / "undisturbed"


ROOT = Path(__file__).parents[1]


def environment() -> dict[str, str]:
    return {**os.environ, **QUIET}


TRIALS = 9


def sweep_command(folder: Path) -> list[str]:
    options = {
        "data.dir": folder / "data",
        "data.train_samples": 400,
        "loss.ms_ssim": 0,
        "window.kind": "frequency",
        "train.epochs": 4,
        "sweep.storage": folder / "sweeps",
        "sweep.name": "killed",
        "sweep.trials": TRIALS,
    }
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    return [sys.executable, "-m", "sweeps.loss_weights", *words]


def ended(sweep: Path) -> dict[str, dict[str, str]]:
    """What results.csv says of the trials that have ended, by trial."""
    file = sweep / "results.csv"
    if not file.is_file():
        return {}
    with file.open() as lines:
        return {row["trial"]: row for row in csv.DictReader(lines) if row["status"] in ("completed", "stopped")}


def command(folder: Path, name: str, *more: str, epochs: int = EPOCHS) -> list[str]:
    options = {
        "data.dir": folder / "data",
        "run.storage": folder / "runs",
        "run.name": name,
        "loss.ms_ssim": 0,
        "window.kind": "frequency",
        "optim.lr": 0.05,
        "train.epochs": epochs,
        "scaling.num_workers": 2,
    }
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    return [sys.executable, "-m", "fbp_ray.train", *words, *more]


def rows(run: Path) -> list[dict[str, str]]:
    file = run / "history.csv"
    if not file.is_file():
        return []
    with file.open() as lines:
        return list(csv.DictReader(lines))


def wait_for(run: Path, epochs: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Waits until so many epochs are finished, then for the middle of the next one."""
    until = time.monotonic() + SECONDS
    while len(rows(run)) < epochs:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.02)
    time.sleep(0.4 * float(rows(run)[-1]["seconds"]))


def ends_like(run: Path, undisturbed: Path, log: Path) -> None:
    for part in ("best", "last"):
        mine, theirs = (weights_of(where / part) for where in (run, undisturbed))
        assert torch.equal(mine, theirs), log.read_text()
        assert read_manifest(run / part).epoch == read_manifest(undisturbed / part).epoch
    kept = ("epoch", "lr", "train_loss", "validation_loss", "validation_psnr", "validation_ssim")
    assert [[row[name] for name in kept] for row in rows(run)] == [
        [row[name] for name in kept] for row in rows(undisturbed)
    ]
    left = [file for file in run.rglob("*") if file.name.endswith(".tmp") or file.name.startswith("probe-")]
    assert not left
    manifest = read_manifest(run / "last")
    before = read_manifest(run / "last", "previous.json")
    expected = {"manifest.json", "previous.json", *manifest.files.values(), *before.files.values()}
    assert {file.name for file in (run / "last").iterdir()} == expected


@contextlib.contextmanager
def started(words: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program, and the end of it and its family whatever happens."""
    with log.open("ab") as file:
        process = subprocess.Popen(words, env=environment(), cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        for one in family(process.pid):
            with contextlib.suppress(psutil.Error):
                one.kill()
        process.wait()


def test_a_worker_that_is_killed_is_replaced(folder: Path, undisturbed: Path, tmp_path: Path) -> None:
    run, log = folder / "runs" / "worker", tmp_path / "log"
    with started(command(folder, "worker"), log) as process:
        wait_for(run, 2, process, log)
        workers = [one for one in family(process.pid) if "RayTrainWorker" in "".join(one.cmdline()[:1])]
        assert len(workers) == 2
        workers[1].kill()
        assert process.wait(SECONDS) == 0, log.read_text()
    ends_like(run, undisturbed, log)
    said = log.read_text()
    assert "lost" in said
    assert "going on after epoch" in said
    assert "Traceback" not in said


def test_the_same_command_goes_on_when_the_driver_was_killed(folder: Path, undisturbed: Path, tmp_path: Path) -> None:
    run, log = folder / "runs" / "driver", tmp_path / "log"
    with started(command(folder, "driver"), log) as process:
        wait_for(run, 2, process, log)
        relatives = family(process.pid)
        process.kill()
        process.wait()
    with started(command(folder, "driver"), log) as process:
        assert process.wait(SECONDS) == 0, log.read_text()
    for relative in relatives:  # Ray's agents outlive the driver for a while
        with contextlib.suppress(psutil.Error):
            relative.kill()
    ends_like(run, undisturbed, log)
    assert "going on after epoch" in log.read_text()


def test_a_sweep_whose_driver_was_killed_goes_on_and_repeats_nothing(folder: Path, tmp_path: Path) -> None:
    sweep, log = folder / "sweeps" / "killed", tmp_path / "log"
    words = sweep_command(folder)
    until = time.monotonic() + SECONDS
    with started(words, log) as process:
        while len(ended(sweep)) < TRIALS // 3:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.02)
        relatives = family(process.pid)
        process.kill()
        process.wait()
    for relative in relatives:  # Ray's agents outlive the driver for a while
        with contextlib.suppress(psutil.Error):
            relative.kill()
    first = ended(sweep)
    assert TRIALS // 3 <= len(first) < TRIALS
    finished = {name: (sweep / "trials" / name / "history.csv").stat().st_mtime_ns for name in first}
    with started(words, log) as process:
        assert process.wait(SECONDS) == 0, log.read_text()
    both = ended(sweep)
    assert sorted(both) == sorted(path.name for path in (sweep / "trials").iterdir())
    assert sorted(both) == [f"{number:04d}" for number in range(TRIALS)]
    assert len({(row["optim.lr"], row["loss.log_mse"]) for row in both.values()}) == TRIALS
    assert all((sweep / "trials" / name / "history.csv").stat().st_mtime_ns == when for name, when in finished.items())
    assert {name: both[name]["merit"] for name in first} == {name: row["merit"] for name, row in first.items()}
    best = max(both, key=lambda name: float(both[name]["merit"]))
    assert next(iter(both)) == best
    mine, theirs = (weights_of(place) for place in (sweep / "best", sweep / "trials" / best))
    assert torch.equal(mine, theirs)
    assert f"going on: {len(first)} trials are finished" in log.read_text()


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Host, Host]]:
    with two_hosts(Path("/tmp/fbpch")) as made:
        yield made


def across(host: Host) -> list[str]:
    return ["--ray.address", f"{host.address}:{PORT}"]


def test_a_machine_that_is_lost_and_comes_back_is_taken_up(
    folder: Path, undisturbed: Path, tmp_path: Path, hosts: tuple[Host, Host]
) -> None:
    run, log, ray_log = folder / "runs" / "machine", tmp_path / "log", tmp_path / "ray"
    head, other = hosts
    head.start_ray(head, ray_log)
    other.start_ray(head, ray_log)
    process = head.start(command(folder, "machine", *across(head)), log)
    wait_for(run, 2, process, log)
    other.kill()
    time.sleep(5)
    other.start_ray(head, ray_log)
    assert process.wait(SECONDS) == 0, log.read_text()
    ends_like(run, undisturbed, log)
    head.kill()
    other.kill()


def test_the_same_command_goes_on_after_a_power_failure(
    folder: Path, undisturbed: Path, tmp_path: Path, hosts: tuple[Host, Host]
) -> None:
    run, log, ray_log = folder / "runs" / "power", tmp_path / "log", tmp_path / "ray"
    head, other = hosts
    for epochs in (2, None):
        head.start_ray(head, ray_log)
        other.start_ray(head, ray_log)
        process = head.start(command(folder, "power", *across(head)), log)
        if epochs is not None:
            wait_for(run, epochs, process, log)
            head.kill()
            other.kill()
            process.wait()
    assert process.wait(SECONDS) == 0, log.read_text()
    ends_like(run, undisturbed, log)
    head.kill()
    other.kill()


def test_fewer_workers_go_on_and_a_machine_that_comes_back_is_used(
    folder: Path, tmp_path: Path, hosts: tuple[Host, Host]
) -> None:
    run, log, ray_log = folder / "runs" / "elastic", tmp_path / "log", tmp_path / "ray"
    head, other = hosts
    head.start_ray(head, ray_log)
    other.start_ray(head, ray_log)
    words = command(folder, "elastic", *across(head), "--scaling.min_workers", "1", epochs=1000)
    process = head.start(words, log)

    def wait_for_workers(count: int) -> None:
        until = time.monotonic() + SECONDS
        while not rows(run) or float(rows(run)[-1]["workers"]) != count:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)

    wait_for_workers(2)
    other.kill()
    wait_for_workers(1)
    other.start_ray(head, ray_log)
    wait_for_workers(2)
    process.kill()
    process.wait()
    head.kill()
    other.kill()

    table = rows(run)
    assert [int(row["epoch"]) for row in table] == list(range(1, len(table) + 1))
    losses = [float(row["validation_loss"]) for row in table]
    assert max(losses[1:]) < min(losses) + 0.1  # the logarithm of 10 %
    said = log.read_text()
    assert "1 worker" in said
    assert "8 samples a step" in said


@pytest.mark.parametrize(
    ("hidden", "said"), [("data", "no LoDoPaB-CT files at all"), ("runs", "does not have the run folder")]
)
def test_a_machine_that_lacks_a_folder_is_named_at_the_start(
    folder: Path, tmp_path: Path, hosts: tuple[Host, Host], hidden: str, said: str
) -> None:
    head, other = hosts
    if head.namespace is None:
        pytest.skip("without root no folder can be hidden from a process")
    log, ray_log = tmp_path / "log", tmp_path / "ray"
    (folder / "runs").mkdir(exist_ok=True)
    head.start_ray(head, ray_log)
    other.start_ray(head, ray_log, without=folder / hidden)
    process = head.start(command(folder, f"without-{hidden}", *across(head)), log)
    assert process.wait(SECONDS) != 0
    head.kill()
    other.kill()
    assert f"the machine {other.address}" in log.read_text()
    assert said in log.read_text()
    assert "Traceback" not in log.read_text()
    assert not rows(folder / "runs" / f"without-{hidden}")
