from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from fbp_ray import cli
from fbp_ray.cli import parse_with_recipe, read_recipe, run_program
from fbp_ray.config import TrainConfig
from fbp_ray.errors import ConfigError, RunError
from fbp_ray.scan import ScanConfig
from fbp_ray.settings import this_python
from fbp_ray.solve import USUAL
from fbp_ray.versions import unmet_requirements


def parse(*argv: str) -> TrainConfig:
    return parse_with_recipe(TrainConfig, argv, "train")


def test_without_options_it_is_the_quickstart() -> None:
    assert parse().recipe == "quickstart"
    assert parse().train.epochs == read_recipe("quickstart")["train"]["epochs"]


def test_the_reference_recipe_is_the_reference_experiment() -> None:
    config = parse("--recipe", "reference")
    assert (config.window.kind, config.window.init) == ("angle_frequency", "ones")
    weights = {name: weight for name, weight in config.loss.weights.items() if weight}
    assert weights == {"l1": 0.25, "ms_ssim": 1.0, "edge": 1.0}
    assert (config.optim.lr, config.optim.plateau_factor, config.optim.plateau_patience) == (1e-3, 0.5, 1)
    assert (config.train.epochs, config.train.batch_size) == (10, 8)  # 4 in each of two processes
    assert (config.data.train_samples, config.data.validation_samples) == (1000, 1000)


def test_the_command_line_wins_over_the_file_and_the_file_over_the_recipe(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("recipe: reference\noptim: {lr: 0.5}\ntrain: {epochs: 3, seed: 7}\n")
    config = parse("--config", str(file), "--train.epochs", "4")
    assert (config.recipe, config.window.kind) == ("reference", "angle_frequency")
    assert (config.optim.lr, config.train.epochs, config.train.seed) == (0.5, 4, 7)
    assert config.optim.plateau_factor == 0.5


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.yaml").write_text("data: {dir: ~/data}\ninit: {checkpoint: s3://bucket/~}\n")
    config = parse("--config=~/mine.yaml", "--run.storage=~/runs")
    assert (config.data.dir, config.run.storage) == (tmp_path / "data", str(tmp_path / "runs"))
    assert config.init.checkpoint == "s3://bucket/~"


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("optim: {lr: 0.5}\n", encoding="utf-8-sig")
    assert parse("--config", str(file)).optim.lr == 0.5


def test_a_saved_configuration_is_a_configuration_file(tmp_path: Path) -> None:
    config = parse("--recipe", "reference", "--data.dir", "/data", "--window.init", "hann", "--window.cutoff", "0.6")
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert parse("--config", str(file)) == config


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--optim.lr", "-1"), r"^--optim.lr: must be greater than 0 \(got '-1'\)$"),
        (("--window.kind", "learned"), "^--window.kind: must be 'fixed', 'frequency', 'angle_frequency', 'spline',"),
        (("--window.cutoff", "bset"), r"^--window.cutoff: must be a number or 'best' \(got 'bset'\)$"),
        (("--train.epochs", "few"), r"^--train.epochs: must be a whole number \(got 'few'\)$"),
        (("--optim", "0.1"), "^--optim: has settings of its own, and no value"),
        (("--optim.lr",), "^--optim.lr: a value is missing$"),
        (("--loss.ms_sim", "1"), "^--loss.ms_sim: there is no such option, the nearest is --loss.ms_ssim; --help"),
        (
            ("--train.epoch=3", "--foo", "1"),
            r"^--train.epoch: .* is --train.epochs; .*\n +--foo: there is no such",
        ),
        (("mine",), "'mine' belongs to no option"),
        (
            ("--recipe", "slow"),
            "no recipe is called 'slow'; there are chest-low-dose, .*lodopab-tiny, .*quickstart, reference",
        ),
        (("--recipe", "../secret"), "no recipe is called"),
        (("--split", "photons"), "split is photons, but from ground truth nothing is held out; add --target self"),
        (("--config", "/nowhere.yaml"), "cannot be read"),
        (("--loss.own", "my_code:Roughness"), "^--loss.own: takes NAME=VALUE"),
        (("--window.options", "path=[1,2]"), r"^--window.options: takes NAME=VALUE, and values .* as JSON"),
        (("--loss.own", "a:B=1", "--loss.options", "a:B={power: 2}"), r"loss.options.*must be a JSON object"),
        (
            ("--data.photons", "9000", "100"),
            "^--data.photons: run from 9000 to 100; give the smaller number first",
        ),
        (("--loss.log_mse", "0", "--loss.local_ssim", "0"), "all loss weights are 0"),
        (("--run.name", "../up"), "^--run.name: must be letters, digits and . _ - alone"),
    ],
)
def test_bad_values_name_the_option(argv: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(*argv)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("optim: {learning_rate: 1}", "optim.learning_rate: there is no such setting; --help lists them"),
        ("optim: {plateau: 1}", r"there is no such setting, the nearest is --optim.plateau_factor; .*in .*bad.yaml\)"),
        (
            "optin: {lr: 1}",
            r"optin: there is no such setting, the nearest is --optim; --help lists them \(in .*bad.yaml\)",
        ),
        ("optim: {lr: -1}", r"optim.lr: must be greater than 0 \(got -1, in .*bad.yaml\)"),
        ("a: [", "not valid YAML"),
        ("3", "mapping"),
    ],
)
def test_bad_files_name_what_is_wrong(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=message):
        parse("--config", str(file))


def test_a_file_is_not_blamed_for_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "good.yaml"
    file.write_text("optim: {lr: 0.5}")
    with pytest.raises(ConfigError) as refused:
        parse("--config", str(file), "--optim.lr", "-1")
    assert str(refused.value) == "--optim.lr: must be greater than 0 (got '-1')"


@pytest.mark.parametrize(("error", "code"), [(ConfigError("no"), 2), (RunError("stopped"), 1)])
def test_an_error_is_a_message_and_an_exit_code(
    capsys: pytest.CaptureFixture[str], error: Exception, code: int
) -> None:
    def fail(_: object) -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        run_program(fail)
    assert ended.value.code == code
    assert capsys.readouterr().err == f"error: {error}\n"


def test_what_is_missing_or_outside_the_tested_range_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needs = [
        "numpy>=99",
        "torch>=2",
        "ray[train]<2",
        "no-such-package",
        "other-system; sys_platform == 'none'",
        "extra-one; extra == 'x'",
    ]
    folder = tmp_path / "fbp_ray-0.1.0.dist-info"
    folder.mkdir()
    lines = "".join(f"Requires-Dist: {need}\n" for need in needs)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: fbp-ray\nVersion: 0.1.0\n{lines}")
    monkeypatch.syspath_prepend(tmp_path)
    numpy, ray, missing = unmet_requirements().values()
    assert re.fullmatch(r"numpy is 2.*, but fbp-ray needs numpy>=99", numpy)
    assert re.fullmatch(r"ray is 2.*, but fbp-ray needs ray\[train\]<2", ray)
    assert missing == "no-such-package is not installed, but fbp-ray needs no-such-package"

    run_program(lambda argv: None)  # of these, only Ray may change what the programs rely on
    assert capsys.readouterr().err == f"warning: {ray}\n"


@pytest.mark.parametrize(
    ("python", "found", "cwd", "command"),
    [
        ("/a b/.venv/bin/python", None, "/a b", ".venv/bin/python"),
        ("/a b/.venv/bin/python", "/usr/bin/python", "/elsewhere", "'/a b/.venv/bin/python'"),
        ("/a b/.venv/bin/python", "/a b/.venv/bin/python", "/elsewhere", "python"),
    ],
)
def test_a_printed_command_calls_this_python_from_where_one_stands(
    monkeypatch: pytest.MonkeyPatch, python: str, found: str | None, cwd: str, command: str
) -> None:
    monkeypatch.setattr("sys.executable", python)
    monkeypatch.setattr("shutil.which", lambda name: found)
    monkeypatch.setattr(Path, "cwd", lambda: Path(cwd))
    assert this_python() == command


def test_the_extras_that_messages_name_are_there() -> None:
    root = Path(__file__).parents[1]
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    files = [*root.glob("fbp_ray/**/*.py"), *root.glob("service/**/*.py"), *root.glob("benchmarks/**/*.py")]
    files += [*root.glob("docs/*.md"), root / "README.md"]
    named = {part for file in files for part in re.findall(r"(?:fbp-ray|'\.)\[([a-z]+)\]", file.read_text())}
    assert "serve" in named
    assert named <= extras.keys()


def test_a_file_wins_over_what_a_program_usually_does(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("window: {kind: ray_noise}")
    found = parse_with_recipe(TrainConfig, ["--config", str(file)], "solve", usual=USUAL)
    assert (found.window.kind, found.window.init, found.train.epochs) == ("ray_noise", "solve", 0)
    found = parse_with_recipe(TrainConfig, ["--config", str(file), "--window.kind", "spline"], "solve", usual=USUAL)
    assert found.window.kind == "spline"


@pytest.mark.parametrize("arc", [["-76,76"], ["-76", "76"], ["-7.6e1", "76"], ["=-76", "76"]])
def test_numbers_below_zero_are_no_options(arc: list[str]) -> None:
    first, *rest = ["--read.arc" + arc[0], *arc[1:]] if arc[0][0] == "=" else ["--read.arc", *arc]
    options = ["tomo.tif", "--out", "data", first, *rest, "--axis.column", "-2e-1", "--bin", "2"]
    config = cli.parse(ScanConfig, options, "python -m fbp_ray.scan")
    assert (config.read.arc, config.axis.column, config.bin) == ((-76, 76), -0.2, 2)
