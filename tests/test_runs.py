"""The list of runs: what it says of each, and that no folder ends it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from fbp_ray import runs as program
from fbp_ray.config import TrainConfig
from fbp_ray.errors import ConfigError
from fbp_ray.run import RunFolder
from fbp_ray.runs import Best, Run, list_runs, main

CLASSIC = {"hann_psnr": 28.0, "hann_ssim": 0.70, "hann_psnr_cutoff": 0.54, "hann_ssim_cutoff": 0.4}


def make(storage: Path, name: str, psnr: tuple[float, ...] = (28.25, 28.5, 28.0), **status: Any) -> Path:
    """A run folder as the training leaves it; the loss is lowest in the second epoch, SSIM best in the last."""
    run = RunFolder(storage / name)
    run.begin(TrainConfig.model_validate({"train": {"epochs": 4}}))
    run.write_json("baseline.json", CLASSIC)
    if psnr:
        run.write_history(
            [
                {
                    "epoch": epoch,
                    "validation_loss": 1.0 + abs(epoch - 2),
                    "validation_psnr": value,
                    "validation_ssim": 0.7 + 0.01 * epoch,
                }
                for epoch, value in enumerate(psnr, start=1)
            ]
        )
    run.write_json("status.json", {"reason": "", **status})
    return storage / name


def only(storage: Path) -> Run:
    (run,) = list_runs(storage)
    return run


@pytest.fixture(scope="module")
def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_run_is_told_by_its_files(tmp_path: Path) -> None:
    path = make(tmp_path, "mine", state="completed")
    run = only(tmp_path)
    assert (run.name, run.state, run.path, run.reason) == ("mine", "completed", str(path), "")
    assert (run.epochs_done, run.epochs) == (3, 4)
    assert run.psnr == Best(28.5, 2, 0.5)
    assert run.ssim == Best(pytest.approx(0.72), 2, pytest.approx(0.02))
    assert run.changed is not None
    assert run.changed.timestamp() == pytest.approx((path / "status.json").stat().st_mtime)


def test_a_run_whose_process_is_gone_is_interrupted(tmp_path: Path, dead: int) -> None:
    here = socket.gethostname()
    for name, status in {
        "alive": {"host": here, "pid": os.getpid(), "started": psutil.Process().create_time()},
        "another": {"host": here, "pid": os.getpid(), "started": psutil.Process().create_time() - 100},
        "gone": {"host": here, "pid": dead, "started": 1.0},
        "elsewhere": {"host": f"not-{here}", "pid": dead},
        "silent": {},
    }.items():
        make(tmp_path, name, state="running", **status)
    found = {run.name: run for run in list_runs(tmp_path)}
    assert "the command that began it goes on with it" in found["gone"].reason
    states = {name: run.state for name, run in found.items()}
    assert states == {
        "alive": "running",
        "another": "interrupted",
        "gone": "interrupted",
        "elsewhere": "running",
        "silent": "running",
    }


def test_a_run_without_an_epoch_has_no_figures(tmp_path: Path) -> None:
    path = make(tmp_path, "young", psnr=(), state="failed")
    (path / "baseline.json").unlink()
    run = only(tmp_path)
    assert (run.epochs_done, run.epochs, run.psnr, run.ssim) == (0, 4, None, None)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("status.json", "{"),
        ("status.json", "[1]"),
        ("config.yaml", "train: ["),
        ("config.yaml", "train: {}"),
        ("baseline.json", "{}}"),
        ("history.csv", "epoch,loss\n1,2\n"),
        ("history.csv", "epoch,validation_psnr,validation_ssim\n1,2\n"),
        ("history.csv", b"\xff\xfe"),
    ],
)
def test_a_damaged_run_is_listed_as_damaged(tmp_path: Path, name: str, content: str | bytes) -> None:
    make(tmp_path, "good", state="completed")
    (make(tmp_path, "bad", state="completed") / name).write_bytes(
        content if isinstance(content, bytes) else content.encode()
    )
    states = {run.name: run for run in list_runs(tmp_path)}
    assert states["good"].state == "completed"
    assert states["bad"].state == "damaged"
    assert states["bad"].reason.startswith(f"{name} cannot be read")
    assert states["bad"].epochs == (None if name == "config.yaml" else 4)


def test_the_run_that_changed_last_is_in_front_and_other_folders_are_left_out(tmp_path: Path) -> None:
    for age, name in enumerate(("newest", "older", "oldest")):
        for file in make(tmp_path, name, state="completed").iterdir():
            os.utime(file, (1e9 - age, 1e9 - age))
    (tmp_path / "notes").mkdir()
    (tmp_path / "file.txt").write_text("")
    assert [run.name for run in list_runs(tmp_path)] == ["newest", "older", "oldest"]


def test_plain_lines_are_aligned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path, "short", state="completed")
    make(tmp_path, "a-longer-name", state="failed", reason="the loss is not\nfinite in epoch 3, step 7; " + "x" * 80)
    main(["--storage", str(tmp_path)])
    heading, *lines = capsys.readouterr().out.splitlines()
    by_name = {line.split()[0].rpartition("/")[2]: line for line in lines}
    for line in lines:
        assert line.index("28.500 (2)") == heading.index("PSNR dB")
    assert by_name["short"].split()[1:8] == ["completed", "3/4", "28.500", "(2)", "+0.500", "0.7200", "(2)"]
    assert "the loss is not finite in epoch 3, step 7; xxx" in by_name["a-longer-name"]
    assert by_name["a-longer-name"].endswith("...")
    assert len(lines) == 2


def test_json_has_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reason = "long " * 50
    path = make(tmp_path, "mine", state="failed", reason=reason)
    main(["--storage", str(tmp_path), "--json"])
    (run,) = json.loads(capsys.readouterr().out)
    assert run.pop("changed").endswith("+00:00")
    assert run == {
        "name": "mine",
        "state": "failed",
        "epochs_done": 3,
        "epochs": 4,
        "psnr": {"value": 28.5, "epoch": 2, "gain": 0.5},
        "ssim": {"value": pytest.approx(0.72), "epoch": 2, "gain": pytest.approx(0.02)},
        "path": str(path),
        "reason": reason,
    }


def test_a_terminal_gets_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "mine", state="failed", reason="see [/red] and [bold]")
    monkeypatch.setattr(program, "Console", lambda: Console(force_terminal=True, width=200, color_system=None))
    main(["--storage", str(tmp_path)])
    out = capsys.readouterr().out
    for text in ("mine", "failed", "3/4", "28.500 (2)", "+0.500", "0.7200 (2)", "see [/red] and [bold]"):
        assert text in out


def test_an_empty_storage_says_how_to_make_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--storage", str(tmp_path)])
    assert "python -m fbp_ray.train" in capsys.readouterr().out
    main(["--storage", str(tmp_path), "--json"])
    assert json.loads(capsys.readouterr().out) == []


def test_a_missing_storage_says_which_option_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no folder .*nowhere.*--storage DIR"):
        main(["--storage", str(tmp_path / "nowhere")])
