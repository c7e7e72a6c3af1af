"""The parts of the benchmark: that peers compute what this project does, and that the tables say what was measured."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import volume
from benchmarks.projector import growth, machine, peers, report
from benchmarks.projector.cases import OURS, Case, own_cases, updates
from benchmarks.projector.timing import Timing, best_batch, interleaved
from fbp_ray.geometry import ParallelBeam, RegularAngles
from fbp_ray.model import fbp
from fbp_ray.projector import backproject, project
from tests.support.scans import COARSE, smooth_images

ROOT = Path(__file__).parents[2]


def scan(**changes: object) -> ParallelBeam:
    fields = {
        "angles": RegularAngles(count=90, first=0.01, step=math.pi / 90),
        "cells": 91,
        "cell_size": 1e-3,
        "image_shape": (61, 61),
        "pixel_size": 1e-3,
        **changes,
    }
    return ParallelBeam(**fields)  # type: ignore[arg-type]


def phantom(geometry: ParallelBeam) -> Tensor:
    return torch.from_numpy(smooth_images(1, geometry, seed=3))


def difference(theirs: Tensor, ours: Tensor, geometry: ParallelBeam) -> float:
    """Relative, within 0.8 of the image's half-width from the axis."""
    x, y = torch.from_numpy(geometry.x)[:, None], torch.from_numpy(geometry.y)[None, :]
    within = x**2 + y**2 < (0.8 * x.max()) ** 2
    return ((theirs - ours)[:, within].norm() / ours[:, within].norm()).item()


class TestPeers:
    def test_scikit_image(self) -> None:
        geometry = scan()
        sinogram = project(phantom(geometry), geometry)
        assert difference(peers.skimage(geometry)(sinogram), fbp(sinogram, geometry, "none"), geometry) < 1e-5

    def test_torchtomo(self) -> None:
        pytest.importorskip("torchtomo")
        geometry = scan(cell_size=2 / 90, pixel_size=2 / 60)
        sinogram = project(phantom(geometry), geometry)
        assert difference(peers.torchtomo(geometry)(sinogram), fbp(sinogram, geometry, "none"), geometry) < 1e-5

    def test_diffct(self) -> None:
        pytest.importorskip("diffct")
        geometry = scan(pixel_size=1.3e-3, cells=131)
        sinogram = project(phantom(geometry), geometry)
        assert difference(peers.diffct(geometry, "cpu")(sinogram), fbp(sinogram, geometry, "none"), geometry) < 1e-4

    @pytest.mark.parametrize("changes", [{}, {"pixel_size": 1.3e-3, "cells": 131}])
    def test_astra_but_for_what_rays_and_pixels_differ_in(self, changes: dict[str, float]) -> None:
        pytest.importorskip("astra")
        geometry = scan(**changes)
        image = phantom(geometry)
        sinogram = project(image, geometry)
        theirs = peers.astra(geometry)
        assert difference(theirs["FBP"].call(sinogram), fbp(sinogram, geometry, "none"), geometry) < 0.03
        assert difference(theirs["backproject"].call(sinogram), backproject(sinogram, geometry), geometry) < 0.015
        assert ((theirs["project"].call(image) - sinogram).norm() / sinogram.norm()).item() < 0.025

    def test_the_reference_operator(self) -> None:
        geometry = scan(image_shape=(60, 62))
        sinogram = torch.rand(2, *geometry.sinogram_shape)
        theirs = peers.reference_operator(geometry, geometry.num_angles, side=80)(sinogram)
        ours = backproject(sinogram, geometry, interpolate=True) * geometry.cell_size / geometry.pixel_size**2
        assert difference(theirs, ours, geometry) < 1e-5

    def test_a_peer_that_is_not_installed_says_how_to_get_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(peers.MODULES, peers.ASTRA, "no_such_module")
        assert "pip install -e '.[bench]'" in (peers.missing(peers.ASTRA) or "")
        assert peers.missing(peers.SKIMAGE) is None


def timing(seconds: float, implementation: str, operation: str, batch: int, *, extra: int | None = None) -> Timing:
    case = Case(implementation, operation, batch, lambda: None)  # type: ignore[arg-type]
    return Timing(case, [9 * seconds, seconds, 0.5 * seconds], [1.0] * 3, extra)


GIVEN = [
    timing(0.010, OURS, "FBP", 32),
    timing(0.012, OURS, "FBP", 4, extra=3 * 4 * 4 * 1000 * 513),
    timing(0.004, OURS, "filter", 4),
    timing(0.006, OURS, "backproject", 32),
    timing(0.015, OURS, "project", 32),
    timing(0.040, OURS, "training step", 4),
    timing(0.504, peers.ASTRA, "FBP", 1),
    timing(0.480, peers.ASTRA, "backproject", 1),
    timing(0.300, peers.TORCHTOMO, "FBP", 1),
    timing(0.210, peers.TORCHTOMO, "FBP", 4),
    timing(24.0, peers.REFERENCE, "training step", 1),
]


class TestTables:
    def test_targets(self) -> None:
        found = {t.name: t for t in report.targets(GIVEN, ParallelBeam.lodopab())}
        values = {name: (t.value and round(t.value, 4), t.holds) for name, t in found.items()}
        assert values == {
            "backproject, batch 32: x ASTRA's backprojection": (80, True),
            "FBP, batch 32: x ASTRA's FBP": (50.4, True),
            "FBP, batch 32: x torchtomo's FBP, batch 4": (21, False),
            "FBP, batch 4: x ASTRA's FBP": (42, False),
            "FBP, one image: x ASTRA's FBP": (None, None),
            "training step, batch 4: x the reference operator": (600, True),
            "project / backproject, time, batch 32": (2.5, False),
            "FBP, batch 4: extra memory / the sinograms": (3, True),
            "filter / FBP, time, batch 4": (0.3333, True),
        }
        table = report.target_table(list(found.values()))
        assert [line.split("|")[-2].strip() for line in table.splitlines()[2:]].count("not measured") == 1

    def test_a_case_is_compared_with_the_same_operation_of_the_peers_best_batch(self) -> None:
        beside = report.ratios(GIVEN[0], GIVEN)
        assert beside == pytest.approx({peers.ASTRA: 50.4, peers.TORCHTOMO: 21})
        assert best_batch(GIVEN, peers.TORCHTOMO, "FBP", "cuda") is None

    def test_updates_a_second(self) -> None:
        geometry = ParallelBeam.lodopab()
        assert updates(geometry, "FBP") == 131_044_000
        assert report.gups(GIVEN[0], geometry) == pytest.approx(13.1044)
        assert report.gups(GIVEN[5], geometry) == pytest.approx(2 * 131.044e6 / 0.040 / 1e9)

    def test_the_speed_table_has_a_line_a_case(self) -> None:
        lines = report.speed_table(GIVEN, ParallelBeam.lodopab()).splitlines()
        assert len(lines) == 2 + len(GIVEN)
        assert len({len(line) for line in lines}) == 1
        first = [cell.strip() for cell in lines[2].strip("|").split("|")]
        assert first[:9] == ["FBP", OURS, "32", "cpu", "10", "5", "13.1", "50.4", "21"]

    def test_json_holds_every_round(self) -> None:
        written = report.as_json(GIVEN, ParallelBeam.lodopab())[0]
        assert written["seconds_an_image"] == GIVEN[0].seconds
        assert written["times_faster_than"][peers.ASTRA] == pytest.approx(50.4)


class TestMeasuring:
    def test_cases_take_turns_after_a_warm_up(self) -> None:
        calls: list[str] = []
        cases = [Case(name, "FBP", 4, lambda name=name: calls.append(name), part=0.5) for name in ("a", "b")]
        timings = interleaved(cases, 2)
        assert calls == ["a", "b"] * 3
        assert [len(t.seconds) for t in timings] == [2, 2]
        assert cases[0].images == 2

    def test_the_cases_of_this_project_run(self) -> None:
        cases = list(own_cases(COARSE, batches=(1, 2)))
        assert len({case.name for case in cases}) == len(cases) == 10
        for case in cases:
            case.run()

    @pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured on Linux only")
    def test_extra_memory_is_what_a_call_takes_for_a_while(self) -> None:
        case = 'Case("anyone", "FBP", 1, lambda: torch.ones(25_000_000).sum())'
        imports = "import torch; from benchmarks.projector import memory; from benchmarks.projector.cases import Case"
        program = f"{imports}; print(memory._extra({case}))"  # in a process whose memory no other test takes or frees
        done = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, cwd=ROOT)
        assert int(done.stdout) == pytest.approx(100_000_000, rel=0.1)

    def test_points_of_growth_differ_in_one_thing(self) -> None:
        points = list(growth.points(threads=6))
        base = ParallelBeam.lodopab()
        same = [p.geometry for p in points if (p.axis, p.value) in (("angles", 1000), ("image side", 362))]
        assert [g.sinogram_shape + g.image_shape for g in same] == [base.sinogram_shape + base.image_shape] * 2
        assert [p.value for p in points if p.axis == "threads"] == [1, 2, 4, 6]
        assert {p.case.batch for p in points if p.axis != "batch"} == {growth.BATCH}

    def test_the_plot_and_table_of_growth(self, tmp_path: Path) -> None:
        points = [growth._point("batch", batch, COARSE, batch, 1) for batch in (1, 2)]
        timings = interleaved([point.case for point in points], 1)
        assert len(growth.growth_table(points, timings).splitlines()) == 4
        growth.plot(points, timings, tmp_path / "growth.png")
        assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")

    def test_the_machine_is_named(self) -> None:
        assert machine.machine()["processor"]
        assert machine.versions()["torch"] == torch.__version__.split("+")[0]


def test_a_volumes_row_is_told_by_the_slope_and_with_all_that_is_there_once() -> None:
    bare = [volume.Took(0.1, 0.2)] * 3
    short, whole = [volume.Took(10.0, 12.0, 3e9)], [volume.Took(17.04, 25.44, 4e9)]  # 32 rows and 96
    said = volume.report(bare, short, whole, slab=32, rows=96)
    assert "a row more 110 ms (+10.0%), a row of 96, all included 177.5 ms (+77.5%)" in said
    assert "a row of 2048, by both 113.2 ms (+13.2%)" in said
    assert "a row more 210 ms (+5.0%)" in said
    assert "memory 4 GB at the highest" in said
