"""The page of a run holds every part, whatever is missing, and nothing of what it shows is taken for HTML."""

from __future__ import annotations

import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml

from fbp_ray.baseline import Baseline
from fbp_ray.config import TrainConfig
from fbp_ray.errors import CheckpointError, ConfigError, RunError
from fbp_ray.evaluate import main as evaluate
from fbp_ray.evaluate.details import chosen
from fbp_ray.filters import WindowConfig
from fbp_ray.model import LearnableFBP, ModelConfig
from fbp_ray.report import main
from fbp_ray.report.published import PUBLISHED
from fbp_ray.report.words import scan_of
from fbp_ray.run import RunFolder
from fbp_ray.stage_settings import PostprocessingConfig
from tests.support.checkpoints import save_checkpoint
from tests.support.scans import COARSE, FAN, write_scan

SECTIONS = ["What was trained", "Quality", "Learning curves", "The window", "Images", "Noise and resolution", "Time"]
SECTIONS += ["Data and versions", "Settings"]
VOID = {"meta", "img", "br"}
NASTY = '<script>alert("x")</script>'


class Page(HTMLParser):
    """What stands in a page, once it is known to be well formed and to need nothing else."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.words: dict[str, list[str]] = {}
        self.feed(file.read_text(encoding="utf-8"))
        self.close()
        assert not self.open
        tags = {tag for tag, _ in self.attributes}
        assert not tags & {"script", "link", "iframe", "object"}
        for tag, given in self.attributes:
            for name in ("src", "href"):
                place = given.get(name) or "#"
                assert place.startswith(("#", "data:image/")) or (tag == "a" and place.startswith("https://"))
            assert not any(name.startswith("on") for name in given)
            if tag == "img":
                assert given["alt"]
            if tag == "th":
                assert given["scope"] in ("row", "col")
        styles = " ".join(self.words["style"])
        assert "@media print" in styles
        assert "url(" not in styles

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.setdefault(self.open[-1] if self.open else "", []).append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(words) for tag, words in self.words.items() if tag != "style")

    def count(self, tag: str) -> int:
        return sum(found == tag for found, _ in self.attributes)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scan(tmp_path_factory.mktemp("scan") / "data")


def make_run(place: Path, data: Path, kind: str = "adaptive", **others: object) -> Path:
    """A run folder as a training leaves it."""
    model = LearnableFBP(ModelConfig(geometry=COARSE, window=WindowConfig(kind=kind, photons=1000.0)))
    described = {"source": "phantoms", "samples": {"train": 12}, "origins": [{"patient": NASTY, "licence": "CC0"}]}
    about = {"dir": str(data), "description": described, **others}
    save_checkpoint(place / "best", model, epoch=2, metrics={"psnr": 21.0}, data=about)
    run = RunFolder(place)
    config = TrainConfig.model_validate({"data": {"dir": data}, "window": {"kind": kind}, "train": {"epochs": 3}})
    run.folder.write("config.yaml", yaml.safe_dump(config.model_dump(mode="json")))
    known = Baseline(hann_psnr=20, hann_ssim=0.5, hann_psnr_cutoff=0.6, hann_ssim_cutoff=0.5)
    run.folder.write("baseline.json", known.model_dump_json())
    row = {"lr": 0.1, "train_loss": 1.0, "validation_loss": 1.0, "validation_psnr": 20.5, "validation_ssim": 0.55}
    run.write_history([{"epoch": 1, **row}, {"epoch": 2, **row, "validation_loss": 0.5}])
    run.write_json("versions.json", {"python": "3", "torch": NASTY})
    run.set_status("completed")
    return place


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, scan: Path) -> Path:
    """One that is evaluated, with the patients of its images."""
    (scan / "patient_ids_rand_test.csv").write_text("1\n1\n2\n2\n")
    place = make_run(tmp_path_factory.mktemp("runs") / "a$b_<i>", scan)
    evaluate(["--checkpoint", str(place), "--hann_psnr", "0.6", "--hann_ssim", "0.5", "--panels", "0"])
    return place


def test_an_evaluation_writes_a_page_with_every_part(run: Path) -> None:
    page = Page(run / "evaluation-test" / "report.html")
    assert page.words["h2"] == SECTIONS
    assert not [words for words in page.words.get("p", []) if "takes an evaluation" in words]
    assert {"Report of a$b_<i>", *SECTIONS} <= set(page.words["h1"] + page.words["a"])
    assert {"FBP, Hann 0.60 (given)", "zeng, Hann 0.60", "learned FBP"} <= set(page.words["th"])
    assert any(words.startswith("(") and " to " in words for words in page.words["small"])
    for row in PUBLISHED:
        assert f"{row.method} (published)" in page.words["th"]
        assert row.source.rpartition(" ")[2] in page.words["a"]
    assert "not comparable: these are other images" in page.text
    # Curves 4, window 1 + 4, five tiles and a profile of three images, noise; the edges are too coarse here.
    assert page.count("img") == 4 + 5 + 3 * 6 + 1
    assert [words.split(":")[0] for words in page.words["h3"]] == ["Best", "Median", "Worst"]
    assert NASTY in page.words["td"]


def test_the_command_makes_the_same_page_again_and_spares_what_is_none(run: Path, tmp_path: Path) -> None:
    main([str(run)])
    assert (run / "report.html").read_bytes() == (run / "evaluation-test" / "report.html").read_bytes()
    main([str(run / "evaluation-test"), "--out", str(tmp_path / "page.html")])
    assert (tmp_path / "page.html").read_bytes() == (run / "report.html").read_bytes()
    main([str(run / "best"), "--out", str(tmp_path / "page.html")])  # replaces one of its own
    (tmp_path / "mine.html").write_text("<p>mine")
    with pytest.raises(RunError, match=r"mine.html is there already and is no report; choose another --out"):
        main([str(run), "--out", str(tmp_path / "mine.html")])
    assert (tmp_path / "mine.html").read_text() == "<p>mine"
    with pytest.raises(ConfigError, match=r"--out: must end in \.html"):
        main([str(run), "--out", "page.pdf"])
    with pytest.raises(CheckpointError, match=r"does not exist.*chest-low-dose"):
        main([str(tmp_path / "nowhere")])
    with pytest.raises(CheckpointError, match="is neither a run"):
        main([str(tmp_path)])


def test_three_runs_are_compared(run: Path, scan: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "_other\u00e9", scan, "frequency", photons=[100.0, 100.0])
    failed = tmp_path / "failed"
    RunFolder(failed).set_status("failed", NASTY)
    out = tmp_path / "comparison.html"
    main([str(run), str(other), str(failed), "--out", str(out)])
    page = Page(out)
    assert {"A a$b_<i>", "B _other\u00e9", "C failed"} <= set(page.words["th"])
    assert "trained on different data" in page.text
    assert "window.kind" in page.words["th"]
    assert page.count("img") == 4 + 5 + 1 + 1
    assert page.text.count("takes an evaluation, and there is none") == 2


def test_what_is_missing_is_named_and_the_rest_is_made(run: Path, scan: Path, tmp_path: Path) -> None:
    place = make_run(tmp_path / "run", scan)
    main([str(place)])
    page = Page(place / "report.html")
    assert page.words["h2"] == SECTIONS
    commands = [words for words in page.words["code"] if words.endswith(f"-m fbp_ray.evaluate --checkpoint {place}")]
    assert len(commands) == 4  # quality, images, noise, time
    assert "+0.500" in page.words["td"]  # over the Hann, on the validation part

    evaluated = tmp_path / "evaluated"
    shutil.copytree(run, evaluated)
    for name in ("images.npz", "measured.json"):  # as of an evaluation by an older version, or cut short
        (evaluated / "evaluation-test" / name).write_bytes(b"{")
    (evaluated / "history.csv").write_text("epoch,lr\n1,x\n")
    (evaluated / "best" / "manifest.json").write_text("{")
    main([str(evaluated)])
    page = Page(evaluated / "report.html")
    assert page.words["h2"] == SECTIONS
    for damaged in ("images.npz cannot be read", "measured.json cannot be read", "history.csv is damaged", "manifest"):
        assert damaged in page.text
    assert "zeng, Hann 0.60" in page.words["th"]


def test_runs_of_every_kind_make_a_page(tmp_path: Path, scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blind = make_run(tmp_path / "blind", scan)
    RunFolder(blind).write_history([{"epoch": 1, "lr": 0.1, "train_loss": 1.0, "validation_loss": 1.0}])
    converted = tmp_path / "converted"
    model = LearnableFBP(ModelConfig(geometry=COARSE, postprocessing=PostprocessingConfig(kind="unet")))
    save_checkpoint(converted / "best", model, epoch=0, data={"converted": f"{NASTY}.pth", "every": 1})
    RunFolder(converted).set_status("completed")
    running = tmp_path / "running"
    running.mkdir()
    shutil.copy(blind / "config.yaml", running)
    RunFolder(running).set_status("running", NASTY)
    said = {
        str(blind): "no ground truth, so there is neither PSNR nor SSIM",
        str(converted): "converted from those of another program",
        str(running): "The run is running",
        "chest-low-dose": "these are weights without their run",
    }
    for place, text in said.items():
        main([place, "--out", str(tmp_path / "page.html")])
        page = Page(tmp_path / "page.html")
        assert page.words["h2"] == SECTIONS
        assert text in page.text, place


def test_best_median_and_worst_leave_out_what_has_no_gain() -> None:
    assert chosen([3.0, np.nan, 1.0, np.inf, 2.0]) == {"best": 0, "median": 4, "worst": 2}
    assert chosen([np.nan]) == {"best": 0, "median": 0, "worst": 0}


def test_a_scan_is_said_with_its_beam_and_distances() -> None:
    assert scan_of(FAN) == (
        "fan beam, flat detector, source to axis 100 mm, to detector 200 mm; 48 angles, 30 cells of 2 mm; images of "
        "20 x 18 pixels of 1 mm"
    )
    assert scan_of(COARSE.model_copy(update={"axis_offset": 0.001})).startswith(
        "parallel beam; 60 angles, 67 cells of 5.5 mm, axis 1 mm off the middle; "
    )
