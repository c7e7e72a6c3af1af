"""Linters and schemas for everything in `docker/`: `make check-deploy`.

The tools come from the extra `deploy` of pyproject.toml. `kubectl` is used where it is there, for a second opinion.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.compose import COMPOSE, DOCKER, GPU, ROOT, read_compose
from tests.deploy.dockerfile import DOCKERFILE
from tests.deploy.kustomize import KUBERAY, OVERLAYS, build, read_resources
from tests.deploy.schemas import KUBERNETES, faults

SCRIPTS = [*sorted(DOCKER.glob("*.sh")), DOCKER / "slurm" / "train.sbatch"]


def main() -> int:
    """Runs every check and says what each found; the exit code is 1 where one found a fault."""
    found = 0
    for title, check in CHECKS.items():
        problems = list(check())
        print(f"{'FAILED' if problems else 'ok':8}{title}", *problems, sep="\n        ", flush=True)
        found += len(problems)
    print(f"{len(CHECKS)} checks, {found} faults")
    return int(found > 0)


def dockerfile() -> Iterator[str]:
    """hadolint."""
    yield from _run("hadolint", "--failure-threshold", "style", DOCKERFILE)


def shell() -> Iterator[str]:
    """shellcheck."""
    yield from _run("shellcheck", *SCRIPTS)


def compose() -> Iterator[str]:
    """The files by themselves, and as they are merged."""
    with tempfile.TemporaryDirectory() as folder:
        merged = Path(folder) / "merged.yaml"
        merged.write_text(yaml.safe_dump(read_compose(COMPOSE, GPU)), encoding="utf-8")
        yield from _run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE, GPU, merged)


def manifests() -> Iterator[str]:
    """What the overlays build, the jobs, and the Secret that docker/secrets.sh prints."""
    for overlay in OVERLAYS:
        for resource in build(KUBERAY / "overlays" / overlay):
            yield from (f"{overlay}: {fault}" for fault in faults(resource))
    for file in sorted((KUBERAY / "jobs").glob("*.yaml")):
        for resource in read_resources(file):
            yield from (f"{file.name}: {fault}" for fault in faults(resource))
    with tempfile.TemporaryDirectory() as folder:
        script = Path(shutil.copy(DOCKER / "secrets.sh", folder))
        printed = subprocess.run([script, "--kubernetes"], capture_output=True, text=True, check=True).stdout
        yield from (f"secrets.sh: {fault}" for fault in faults(yaml.safe_load(printed)))


def kustomize() -> Iterator[str]:
    """Whether kubectl builds the same."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        print("        there is no kubectl here: the overlays were built by tests/deploy/kustomize.py alone")
        return
    for overlay in OVERLAYS:
        folder = KUBERAY / "overlays" / overlay
        done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            yield f"{overlay}: {done.stderr.strip()}"
            continue
        theirs = _by_name(resource for resource in yaml.safe_load_all(done.stdout) if resource)
        mine = _by_name(build(folder))
        yield from (
            f"{overlay}: {name} differs" for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name)
        )


def dashboard() -> Iterator[str]:
    """Whether the dashboard is JSON that Grafana provisions: an uid, and panels that name the data source."""
    content = json.loads((DOCKER / "monitoring" / "grafana" / "fbp-ray.json").read_text(encoding="utf-8"))
    source = yaml.safe_load((DOCKER / "monitoring" / "grafana" / "datasource.yaml").read_text(encoding="utf-8"))
    uid = source["datasources"][0]["uid"]
    if not content.get("uid"):
        yield "it has no uid"
    for panel in content["panels"]:
        if panel["datasource"]["uid"] != uid or not all(target["expr"] for target in panel["targets"]):
            yield f"the panel {panel['title']!r} does not ask the data source {uid}"


def _by_name(found: Any) -> dict[str, Any]:
    return {f"{resource['kind']} {resource['metadata']['name']}": resource for resource in found}


def _run(tool: str, *arguments: object) -> Iterator[str]:
    program = shutil.which(tool, path=str(Path(sys.executable).parent)) or shutil.which(tool)
    if program is None:
        yield f"{tool} is not installed: pip install -c constraints.txt -e '.[deploy]'"
        return
    done = subprocess.run([program, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        yield from (done.stdout + done.stderr).strip().splitlines() or [f"{tool} ended with {done.returncode}"]


CHECKS: dict[str, Callable[[], Iterator[str]]] = {
    "Dockerfile (hadolint)": dockerfile,
    "shell scripts (shellcheck)": shell,
    "compose.yaml, compose.gpu.yaml, and both merged (the Compose specification's schema)": compose,
    f"manifests (schemas of Kubernetes {KUBERNETES} and KubeRay 1.7)": manifests,
    "overlays built as kubectl kustomize does": kustomize,
    "Grafana dashboard": dashboard,
}

if __name__ == "__main__":
    sys.exit(main())
