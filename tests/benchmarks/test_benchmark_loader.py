"""The parts of the loader's benchmark: its files, and that the tables say what was measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.loader import files, memory, report
from benchmarks.loader.readers import CASES, Case, rate
from benchmarks.loader.training import Epoch
from fbp_ray.data import LoDoPaB
from tests.support.scans import COARSE

RATES = {
    "h5py alone": 2000.0,
    "h5py into batches": 1500.0,
    "loader": 3000.0,
    "loader, cache memory": 5000.0,
    "loader, cache half": 1000.0,
}
FOUND = {case: [RATES[case.how] * case.processes * part for part in (0.5, 1.0, 3.0)] for case in CASES}


def test_files_of_both_layouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "ROWS", 32)
    files.write(tmp_path, COARSE)
    whole, cut = (files.open_set(tmp_path, layout, COARSE) for layout in files.LAYOUTS)
    assert len(whole) == len(cut) == 96
    assert len(whole.blocks) == 96 > len(cut.blocks)
    assert not np.array_equal(whole[0].observation, whole[1].observation)


def test_as_many_files_as_lodopab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "FILES", 1)
    files.write(tmp_path, COARSE)
    folder = files.as_many_as_lodopab(tmp_path, "a chunk a row")
    data = LoDoPaB(folder, "train", COARSE, files.TRAIN)
    assert data.place(files.TRAIN - 1) == (279, 107)


def test_the_speed_table_has_a_line_a_case() -> None:
    lines = report.speed_table(FOUND).splitlines()
    assert len(lines) == 2 + len(CASES)
    loader = [cell.strip() for cell in lines[4].strip("|").split("|")]
    assert loader == ["a chunk a row", "loader", "1", "3000", "1500", "9000", "150%", "75%"]


def test_processes_that_a_gpu_needs() -> None:
    def count(how: str) -> int:
        return report.needed(FOUND, Case("a chunk a row", how, 1))  # type: ignore[arg-type]

    assert [count(how) for how in ("loader", "loader, cache memory", "loader, cache half")] == [2, 1, 4]
    assert "4, extrapolated" in report.need_table(FOUND)
    assert rate(FOUND, Case("h5py's chunks", "loader", 2)) == 6000


def test_targets() -> None:
    epochs = [Epoch("a chunk a row", 10.0, 0.1, 0.2), Epoch("h5py's chunks", 10.0, 0.1, 1.2)]
    lines = report.target_table(FOUND, epochs).splitlines()[2:]
    assert [line.split("|")[-2].strip() for line in lines] == ["met", "met", "met", "missed"]
    assert "1.0% and 12.0%" in lines[3]
    assert "12.0%" in report.epoch_table(epochs)


def test_memory(tmp_path: Path) -> None:
    assert "1.020" in report.memory_table({"a chunk a row": {500: (1, 100), 35_820: (1, 102)}})
    assert memory._bytes("VmHWM") > 1e6
