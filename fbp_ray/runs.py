"""`python -m fbp_ray.runs` lists the runs of a storage: how each stands, how good it is, where it is."""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import yaml
from pydantic import Field
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fbp_ray.baseline import Baseline, Figure
from fbp_ray.cli import parse, run_program
from fbp_ray.config import LoopConfig
from fbp_ray.errors import ConfigError, RunError
from fbp_ray.run import RunFolder, is_alive
from fbp_ray.settings import Frozen, PlaceName, as_json, as_text, what_is_wrong
from fbp_ray.storage import Folder, Place, open_folder

T = TypeVar("T")

FIGURES = ("epoch", "validation_loss")  # what the list needs of history.csv, beside PSNR and SSIM where it has them
SHORT = 100  # characters of a reason that is not in JSON
WIDE = 100  # columns of a terminal that has room for the time
GONE = "its process is gone; the command that began it goes on with it"
HEADINGS = ("run", "state", "epochs", "PSNR dB", "over FBP", "SSIM", "over FBP", "changed", "why")
COLOURS = {
    "running": "cyan",
    "completed": "green",
    "stopped": "yellow",
    "failed": "red",
    "interrupted": "yellow",
    "damaged": "red",
}


class RunsConfig(Frozen):
    """Lists the runs of a storage: state, epochs, PSNR and SSIM of the best weights beside the classic FBP, path."""

    storage: PlaceName = Field(default="runs", description="folder that holds the run folders, or the URI of one")
    as_json: bool = Field(default=False, alias="json", description="print JSON, with all that is known")


class Best(NamedTuple):
    """A figure of the best weights (`best/`) on the validation part, and the epoch that they are from."""

    value: float
    epoch: int
    gain: float | None
    """Over the classic FBP with the Hann window that is best for the figure."""


class Run(NamedTuple):
    """What is known of one run."""

    name: str
    state: str
    """running, completed, stopped (early), failed, interrupted (its process is gone), damaged (a file cannot be read)
    or unknown."""

    epochs_done: int
    epochs: int | None
    psnr: Best | None
    ssim: Best | None
    changed: datetime | None
    path: str
    reason: str


def main(argv: Sequence[str]) -> None:
    """Lists the runs of the storage that the options name."""
    config = parse(RunsConfig, argv, "python -m fbp_ray.runs")
    runs = list_runs(config.storage)
    console = Console()
    if config.as_json:
        print(as_json([_as_dict(run) for run in runs]))
    elif not runs:
        print(f"no run in {config.storage}; make one with python -m fbp_ray.train, or name another folder: --storage")
    elif console.is_terminal:
        _print_table(console, runs)
    else:
        _print_lines(runs)


def list_runs(storage: Place) -> list[Run]:
    """The runs of a storage, the one that changed last in front; folders that are no runs are left out.

    Raises:
        ConfigError: there is no such folder, or it cannot be read.
    """
    folder = open_folder(storage)
    try:
        if not folder.exists():
            raise ConfigError(
                f"there is no folder {storage}; name the one that holds the run folders: --storage DIR. "
                "python -m fbp_ray.train makes runs/ where it is started"
            )
        inner = [folder / name for name in folder.folders()]
        runs = [summary(run) for run in inner if run.has("config.yaml") or run.has("status.json")]
    except OSError as error:
        raise ConfigError(f"{storage} cannot be read: {error}") from None
    return sorted(runs, key=lambda run: (-run.changed.timestamp() if run.changed else 0.0, run.name))


def summary(folder: Folder) -> Run:
    """What the files say; a file that cannot be read is the run's state and reason, and the others still count."""
    run = RunFolder(folder)
    damaged: list[str] = []

    def content(name: str, read: Callable[[], T]) -> T | None:
        try:
            return read() if folder.has(name) else None
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError, RunError) as error:
            why = error if isinstance(error, RunError) else what_is_wrong(error)
            damaged.append(f"{name} cannot be read ({why})")
            return None

    status = content("status.json", run.status) or {}
    loop = content("config.yaml", lambda: _loop(folder))
    baseline = content("baseline.json", lambda: Baseline.model_validate_json(as_text(folder.read("baseline.json"))))
    rows = content("history.csv", lambda: _checked(run.read_history())) or []
    state = "damaged" if damaged else _state(status)
    times = [folder.changed(name) for name in ("status.json", "history.csv", "config.yaml")]
    return Run(
        name=folder.name,
        state=state,
        epochs_done=int(rows[-1]["epoch"]) if rows else 0,
        epochs=loop.epochs if loop else None,
        psnr=_best(rows, "psnr", baseline, loop or LoopConfig()),
        ssim=_best(rows, "ssim", baseline, loop or LoopConfig()),
        changed=max((time for time in times if time is not None), default=None),
        path=str(folder),
        reason="; ".join(damaged) or (GONE if state == "interrupted" else str(status.get("reason") or "")),
    )


def _checked(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """The rows; raises KeyError where one lacks what every run has."""
    return [{**row, **{name: row[name] for name in FIGURES}} for row in rows]


def _state(status: dict[str, Any]) -> str:
    """The state that the run wrote; interrupted where its process on this machine is gone without having said so."""
    state = str(status.get("state", "unknown"))
    if state == "running" and status.get("host") == socket.gethostname() and not is_alive(status):
        return "interrupted"
    return state


def _loop(folder: Folder) -> LoopConfig:
    """The settings by which the best weights were chosen, and the number of epochs."""
    known = yaml.safe_load(folder.read("config.yaml"))["train"]
    return LoopConfig(epochs=known["epochs"], monitor=known.get("monitor", "loss"))


def _best(rows: list[dict[str, float]], figure: Figure, baseline: Baseline | None, loop: LoopConfig) -> Best | None:
    if not rows:
        return None
    judged = [loop.judge(row) if loop.monitored in row else math.nan for row in rows]
    losses = [value if math.isfinite(value) else math.inf for value in judged]
    row = rows[losses.index(min(losses))]  # the first of the lowest, as the training keeps it
    value = row.get(f"validation_{figure}")
    if value is None:  # there is no ground truth
        return None
    return Best(value, int(row["epoch"]), baseline.gain(figure, value) if baseline else None)


def _cells(run: Run) -> tuple[str, ...]:
    psnr, ssim = run.psnr, run.ssim
    reason = " ".join(run.reason.split())
    return (
        run.path,
        run.state,
        _epochs(run),
        "" if psnr is None else f"{psnr.value:.3f} ({psnr.epoch})",
        "" if psnr is None or psnr.gain is None else f"{psnr.gain:+.3f}",
        "" if ssim is None else f"{ssim.value:.4f} ({ssim.epoch})",
        "" if ssim is None or ssim.gain is None else f"{ssim.gain:+.4f}",
        "" if run.changed is None else f"{run.changed.astimezone():%Y-%m-%d %H:%M}",
        reason if len(reason) <= SHORT else reason[: SHORT - 3] + "...",
    )


def _epochs(run: Run) -> str:
    """Epochs done of how many; nothing for a run that was not trained here."""
    if run.epochs is None:
        return f"{run.epochs_done}/?" if run.epochs_done else ""
    return f"{run.epochs_done}/{run.epochs}"


def _print_table(console: Console, runs: list[Run]) -> None:
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        caption="of the weights in best/; in brackets their epoch",
        caption_justify="left",
    )
    shown = HEADINGS[:-1] if console.width >= WIDE else HEADINGS[:-2]
    for heading in shown:
        words = heading in ("run", "state", "changed")
        heading = heading.replace("over ", "over\n")
        table.add_column(heading, justify="left" if words else "right", no_wrap=heading != "run", overflow="fold")
    for run in runs:
        path, state, *figures = (escape(cell) for cell in _cells(run)[: len(shown)])
        table.add_row(path, f"[{COLOURS.get(run.state, 'default')}]{state}[/]", *figures)
    console.print(table)
    for run in runs:
        if run.reason:
            console.print(f"{run.path}: {_cells(run)[-1]}", markup=False, highlight=False, soft_wrap=True)


def _print_lines(runs: list[Run]) -> None:
    rows = [HEADINGS, *(_cells(run) for run in runs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _as_dict(run: Run) -> dict[str, Any]:
    known = run._asdict() | {name: best and best._asdict() for name, best in (("psnr", run.psnr), ("ssim", run.ssim))}
    return known | {"changed": run.changed and run.changed.isoformat(timespec="seconds")}


if __name__ == "__main__":
    run_program(main)
