"""What a person sees of a training: everything once, on a terminal and elsewhere."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import pytest
from rich.console import Console

from fbp_ray.baseline import Baseline
from fbp_ray.cli import clock
from fbp_ray.train.display import TimeLeft, TrainingDisplay
from fbp_ray.train.events import Doing, EpochEnd, Event, Started, Step, Warned, WorkersLost


def start(epoch: int = 0, shares: tuple[int, ...] = (4, 4), cache: str = "") -> Event:
    baseline = Baseline(hann_psnr=28.171, hann_psnr_cutoff=0.54, hann_ssim=0.7008, hann_ssim_cutoff=0.4)
    return Started(epoch, epochs=12, steps=10, workers=len(shares), shares=shares, cache=cache, baseline=baseline)


def step(epoch: int, number: int) -> Event:
    return Step(epoch, number, steps=10, loss=0.25)


def epoch(number: int, psnr: float = 28.5) -> Event:
    parts = {"loss": 0.5 / number, "l1": 0.0123, "ms_ssim": 0.0912}
    validation = {"loss": 0.6 / number, "l1": 0.0131, "ms_ssim": 0.0988, "psnr": psnr, "ssim": 0.7123}
    return EpochEnd(
        {
            "epoch": number,
            "lr": 0.01,
            **{f"train_{name}": value for name, value in parts.items()},
            **{f"validation_{name}": value for name, value in validation.items()},
            "samples_per_second": 61.25,
            "reading": 0.031,
            "seconds": 8.4,
        }
    )


def warning(text: str) -> Event:
    return Warned(text)


def failure(number: int) -> Event:
    return WorkersLost("worker 1 was lost", failures=number, max_failures=3)


def shown(
    events: list[Event], terminal: bool, width: int = 140, height: int = 60, seconds: Callable[[], float] = lambda: 0.0
) -> list[str]:
    """The lines that stand there when the training has ended."""
    output = io.StringIO()
    console = Console(
        file=output,
        force_terminal=terminal,
        width=width,
        height=height,
        legacy_windows=False,
        _environ={"TERM": "xterm"},
    )
    with TrainingDisplay(console, seconds) as display:
        for event in events:
            display.show(event)
    return screen(output.getvalue())


def screen(output: str) -> list[str]:
    """What a terminal shows after `output`: cursor movements and erasures carried out, empty lines left out."""
    lines, row, column = [""], 0, 0
    for token in re.findall(r"\x1b\[\??[\d;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", output):
        if token == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif token == "\r":
            column = 0
        elif token.startswith("\x1b"):
            if token.endswith("A"):
                row -= int(token[2:-1] or 1)
            elif token.endswith("K"):
                lines[row] = ""
        else:
            lines[row] = lines[row][:column].ljust(column) + token + lines[row][column + len(token) :]
            column += len(token)
    return [line.strip() for line in lines if line.strip()]


HISTORY = [
    start(),
    step(1, 5),
    epoch(1),
    step(2, 5),
    failure(1),
    start(1, (8,)),
    epoch(2),
    warning("mlflow failed"),
    warning("mlflow failed"),
    failure(2),
    start(1, (4, 4)),
    epoch(2),
    epoch(3),
]


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_appears_twice(terminal: bool) -> None:
    lines = shown(HISTORY, terminal)
    assert len(lines) == len(set(lines))
    for once in (
        "2 workers, 8 samples a step (4 + 4); a change of workers changes the shares, not the batch or the learning",
        "28.171",
        "0.7008",
        "failure 1 of at most 3: worker 1 was lost",
        "failure 2 of at most 3: worker 1 was lost",
        "warning: mlflow failed",
        "going on after epoch 1 of 12 with 1 worker (8 samples a step: 8)",
        "going on after epoch 1 of 12 with 2 workers (8 samples a step: 4 + 4)",
    ):
        assert sum(once in line for line in lines) == 1, once
    rows = [re.match(r"(?:epoch +|best )?(\d+)[/ ]", line) for line in lines if "28.500" in line]
    assert [int(row[1]) for row in rows if row] == [1, 2, 3]


def test_an_epoch_that_was_done_again_replaces_its_row() -> None:
    events = [start(), epoch(1), epoch(2, psnr=28.5), failure(1), start(1), epoch(2, psnr=28.6)]
    lines = shown(events, terminal=True)
    assert [line for line in lines if "28.5" in line] == [lines[-2]]
    assert "28.600" in lines[-1]
    assert sum("PSNR 28.500" in line for line in shown(events, terminal=False)) == 2


def test_elsewhere_there_is_a_line_an_epoch() -> None:
    lines = shown([start(cache="the data are kept in memory (0.2 GB)"), *map(epoch, range(1, 13))], terminal=False)
    assert lines[1] == "the data are kept in memory (0.2 GB)"
    assert lines[2] == "classic FBP on the validation part: Hann 0.54 28.171 dB, Hann 0.40 SSIM 0.7008"
    assert lines[4] == (
        "epoch  2/12  loss 0.25  validation 0.3  PSNR 28.500 dB  SSIM 0.7123  lr 0.01  61.2 samples/s  reading 3%  "
        "8.4 s"
    )
    assert len(lines) == 3 + 12


def test_a_resumed_run_says_where_it_goes_on() -> None:
    for terminal in (False, True):
        assert "going on after epoch 3 of 12" in shown([start(3)], terminal)


def test_many_workers_are_counted() -> None:
    (line, *_) = shown([start(shares=(5, 5, 4, 4, 4, 4, 4, 4))], terminal=False)
    assert line.startswith("8 workers, 34 samples a step (2 x 5 + 6 x 4);")


def test_a_long_epoch_says_now_and_then_that_it_lives() -> None:
    times = iter(range(0, 10_000, 5))
    events = [start(), *(step(1, number) for number in range(1, 11)), *(step(1, number) for number in range(1, 11))]
    lines = [line for line in shown(events, terminal=False, seconds=lambda: float(next(times))) if "step" in line]
    said = [line for line in lines if line.startswith("epoch")]
    assert 1 <= len(said) < 10
    assert len(said) == len(set(said))


def test_the_table_has_the_classic_fbp_and_every_part_of_the_loss() -> None:
    lines = shown([start(), epoch(1), epoch(2)], terminal=True)
    headings = re.findall(r"\S+", lines[2])
    assert headings == [
        "epoch",
        "lr",
        *(["loss", "l1", "ms_ssim"] * 2),
        "dB",
        "FBP",
        "SSIM",
        "FBP",
        "/s",
        "ing",
        "time",
    ]
    rows = [line.split() for line in lines if "Hann" in line or "28.500" in line]
    assert rows[0] == ["FBP", "Hann", "0.54", "28.171"]
    assert rows[1] == ["FBP", "Hann", "0.40", "0.7008"]
    losses = ["0.250", "0.0123", "0.0912", "0.300", "0.0131", "0.0988"]
    figures = ["28.500", "+0.329", "0.7123", "+0.0115", "61.2", "3%", "0:08"]
    assert rows[3] == ["best", "2", "0.01", *losses, *figures]


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_a_narrow_terminal_leaves_out_whole_columns(width: int) -> None:
    lines = shown([start(), epoch(1)], terminal=True, width=width)
    assert not any("…" in line for line in lines)
    table = lines[-5:]
    assert all(len(line) <= width for line in table)
    assert {"28.500", "0.7123", "0.600"} <= set(table[-1].split())


def test_a_low_terminal_shows_the_newest_rows_and_the_end_all_of_them() -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=140, height=16, _environ={"TERM": "xterm"})
    with TrainingDisplay(console) as display:
        for event in (start(), *map(epoch, range(1, 10))):
            display.show(event)
        with console.capture() as live:
            console.print(display)
    assert "(4 more)" in live.get()
    assert "epoch 10/12" in live.get()
    final = screen(output.getvalue())
    assert [line.split()[-1] for line in final[-9:]] == ["0:08"] * 9
    assert not any("step" in line for line in final[-12:])


def test_before_and_between_trainings_the_terminal_says_what_it_waits_for() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, _environ={"TERM": "xterm"})
    display = TrainingDisplay(console)
    for events, expected in (([], "starting"), ([start(), failure(1)], "starting the workers again")):
        for event in events:
            display.show(event)
        with console.capture() as live:
            console.print(display)
        assert expected in live.get()


@pytest.mark.parametrize("terminal", [False, True])
def test_what_is_being_done_before_the_first_step_is_said_once(terminal: bool) -> None:
    events = [Doing("starting Ray"), Doing("starting Ray"), start(), epoch(1)]
    assert sum("starting Ray" in line for line in shown(events, terminal)) == (0 if terminal else 1)
    console = Console(file=io.StringIO(), force_terminal=True, width=100, _environ={"TERM": "xterm"})
    display = TrainingDisplay(console)
    display.show(events[0])
    with console.capture() as live:
        console.print(display)
    assert "starting Ray" in live.get()


def test_images_that_no_mean_takes_in_are_counted() -> None:
    baseline = Baseline(hann_psnr=28, hann_psnr_cutoff=0.5, hann_ssim=0.7, hann_ssim_cutoff=0.4, without_range=3)
    event = Started(0, epochs=1, steps=1, workers=1, shares=(4,), cache="", baseline=baseline)
    for terminal in (False, True):
        assert any("3 of the validation images have one value" in line for line in shown([event, epoch(1)], terminal))


def test_a_run_that_never_began_leaves_no_table() -> None:
    assert shown([], terminal=True) == []


def test_the_time_left_is_that_of_the_whole_run() -> None:
    left = TimeLeft(done=2, epochs=12, now=100.0)
    assert left.seconds(2.0, 105.0) is None
    assert left.seconds(2.5, 110.0) == pytest.approx(10 / 0.5 * 9.5)
    left.finished(3, 30.0, 130.0)
    assert left.seconds(3.5, 140.0) == pytest.approx(9 * 30 - 10)
    assert left.seconds(3.99, 900.0) == pytest.approx(8 * 30)
    left.finished(12, 30.0, 1000.0)
    assert left.seconds(12.0, 1001.0) == 0


@pytest.mark.parametrize(("seconds", "text"), [(7.4, "0:07"), (59.6, "1:00"), (754, "12:34"), (3723, "1:02:03")])
def test_times_are_written_as_on_a_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
