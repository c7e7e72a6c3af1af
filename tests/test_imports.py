"""Imports flow one way, and the core runs wherever torch does."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fbp_ray"
CORE = (
    "errors",
    "geometry",
    "projector",
    "rebinning",
    "filters",
    "networks",
    "model",
    "losses",
    "metrics",
    "structure",
    "baseline",
    "storage",
    "shipped",
    "checkpoint",
)
ORDER = (
    ("angles", "errors", "caches", "gpus", "graphs", "memory", "own_names", "settings", "threads", "versions"),
    ("stage_settings", "package_index"),
    ("config",),
    ("geometry",),
    ("projector", "rebinning", "own"),
    ("structure_kernels", "structure_gpu"),
    ("structure",),
    ("filters", "networks"),
    ("split",),
    ("model",),
    ("metrics", "storage", "client", "self_target"),
    ("losses", "shipped"),
    ("checkpoint", "baseline", "data", "cli"),
    ("least_squares",),
    ("trackers",),
    ("pictures",),
    ("run", "simulate"),
    ("runs",),
    ("report",),
    ("train", "evaluate", "scan"),
    ("sweep", "doctor", "solve", "export", "convert", "reconstruct"),
)


def imports_of(module: str) -> set[str]:
    """The top-level parts of fbp_ray, and the other packages, that a part's files import."""
    files = (PACKAGE / module).rglob("*.py") if (PACKAGE / module).is_dir() else [PACKAGE / f"{module}.py"]
    found: set[str] = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = {f"fbp_ray.{a.name}" for a in node.names} if node.module == "fbp_ray" else {node.module}
                found |= names
    return {name.split(".")[1] if name.startswith("fbp_ray.") else name.split(".")[0] for name in found}


def parts() -> set[str]:
    return {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}


def test_every_part_has_its_place() -> None:
    assert {name for layer in ORDER for name in layer} == parts() - {"__init__"}


@pytest.mark.parametrize("layer", range(len(ORDER)))
def test_imports_flow_one_way(layer: int) -> None:
    later = {name for names in ORDER[layer + 1 :] for name in names}
    for module in ORDER[layer]:
        assert not imports_of(module) & later, module


def test_the_core_imports_neither_ray_nor_fastapi() -> None:
    modules = ", ".join(
        f"fbp_ray.{name}" for name in (*CORE, "data", "config", "pictures", "trackers", "client", "train.loop")
    )
    code = (
        "import sys\n"
        f"import fbp_ray, {modules}\n"
        "loaded = sorted({'ray', 'fastapi', 'starlette', 'numba', 'matplotlib', 'tensorboard'} & set(sys.modules))\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)


def test_options_are_read_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    wrong = {
        "fbp_ray.train": ["--optim.lr", "fast"],
        "fbp_ray.evaluate": ["--split", "all"],
        "fbp_ray.reconstruct": ["--window", "hann", "--data.dir", "data", "--out", "volume.nii"],
        "fbp_ray.export": ["--to", "nowhere"],
        "fbp_ray.convert": ["--unet", "weights.txt", "--out", "runs/none"],
        "fbp_ray.simulate": ["--phantoms", "0"],
        "fbp_ray.scan": ["tomo.nxs", "--out", "data", "--bin", "0"],
        "fbp_ray.doctor": ["--quick=perhaps"],
        "fbp_ray.report": ["runs/mine", "--out", "page.pdf"],
        "fbp_ray.runs": ["--storage", str(tmp_path / "nowhere")],
        "sweeps.learning_rate": ["--sweep.trials", "0"],
        "sweeps.loss_weights": ["--loss.l1", "-1"],
        "service": ["--port", "many"],
        "service.serve": ["--replicas.min", "2"],
    }
    code = f"""
import runpy, sys
heavy = {{"torch", "torchvision", "ray", "piq", "h5py", "numba", "pydicom", "fastapi", "matplotlib"}}
for program, wrong in {wrong}.items():
    for options in (["--help"], wrong):
        sys.argv = [program, *options]
        try:
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            assert bool(end.code) == (options is wrong), (program, options, end.code)
        assert not heavy & set(sys.modules), (program, options, heavy & set(sys.modules))
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)


def test_the_client_needs_no_torch() -> None:
    assert {name for name in imports_of("client") if name in parts()} == {"client", "errors", "geometry"}
    code = (
        "import sys, fbp_ray.client\n"
        "loaded = sorted({'torch', 'ray', 'fastapi', 'service'} & set(sys.modules))\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)


def test_the_package_gives_its_names_when_they_are_asked_for() -> None:
    code = (
        "import fbp_ray\n"
        "assert set(fbp_ray.__all__) <= set(dir(fbp_ray))\n"
        "found = {name: getattr(fbp_ray, name) for name in fbp_ray.__all__}\n"
        "assert all(thing.__name__ == name for name, thing in found.items()), found\n"
        "assert not hasattr(fbp_ray, 'no_such_name')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)
