"""The files in `docker/` agree with the programs that they start, and each other; `make check-deploy` asks more."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fbp_ray.cli import parse_with_recipe
from fbp_ray.config import TrainConfig
from fbp_ray.sweep.config import SweepTree
from fbp_ray.train.cluster import ENVIRONMENT
from service.observability import Metrics
from service.settings import read_settings
from tests.deploy.compose import COMPOSE, DOCKER, GPU, ROOT, read_compose
from tests.deploy.dockerfile import environment_of, last, read_dockerfile
from tests.deploy.kustomize import KUBERAY, OVERLAYS, build, read_resources
from tests.deploy.schemas import faults

ARGUMENTS, STAGES = read_dockerfile()
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
RAY = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]  # type: ignore[index]
PORTS = {"gcs": 6379, "dashboard": 8265, "metrics": 8080, "service": 8000}
JOBS = sorted((KUBERAY / "jobs").glob("*.yaml"))


def compose_services() -> dict[str, dict[str, Any]]:
    """Our own services of compose.yaml, by name."""
    return {name: of for name, of in read_compose()["services"].items() if "build" in of}


def overlay(name: str) -> list[dict[str, Any]]:
    return build(KUBERAY / "overlays" / name)


def the(kind: str, resources: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = (resource for resource in resources if resource["kind"] == kind)
    return found


def containers(value: Any) -> Iterator[dict[str, Any]]:
    """All containers of a resource, wherever they are."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("containers", "initContainers"):
                yield from inner
            else:
                yield from containers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from containers(inner)


def commands() -> dict[str, list[str]]:
    """Every command line in docker/, by where it is."""
    found = {f"compose {name}": of["command"] for name, of in compose_services().items()}
    merged = read_compose(COMPOSE, GPU)["services"]
    found |= {f"compose.gpu {name}": of["command"] for name, of in merged.items() if "build" in of}
    found |= {f"image {name}": last(STAGES, name, "CMD") for name in ("train", "service")}
    for resource in overlay("cpu"):
        for container in containers(resource):
            words = container.get("command", []) + container.get("args", [])
            if words:
                found[f"{resource['kind']} {container['name']}"] = words
    for file in JOBS:
        found[f"job {file.stem}"] = shlex.split(the("RayJob", read_resources(file))["spec"]["entrypoint"])
    for line in (DOCKER / "start.sh").read_text().splitlines():
        if line.startswith("python "):
            found["start.sh"] = shlex.split(line, comments=True)
    return found


@pytest.mark.parametrize(("where", "words"), commands().items(), ids=commands().keys())
def test_commands_are_taken_by_their_programs(
    where: str, words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if words[:2] == ["ray", "start"]:
        from ray.scripts.scripts import start

        assert start.make_context("ray start", words[2:])
        return
    assert words[:2] == ["python", "-m"], words
    module, options = words[2], words[3:]
    if module == "service":
        for secret in ("operate", "reconstruct"):
            (tmp_path / secret).write_text("x" * 32)
            monkeypatch.setenv(f"FBPRAY_ACCESS__{secret.upper()}_FILE", str(tmp_path / secret))
        assert read_settings(options)
    elif module == "fbp_ray.doctor":
        pytest.importorskip("fbp_ray.doctor")
        done = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True)
        for option in options:
            assert not option.startswith("--") or option in done.stdout
    else:
        config = parse_with_recipe(
            {"fbp_ray.train": TrainConfig, "sweeps.loss_weights": SweepTree}[module], options, where
        )
        assert config.data.dir is not None
        assert importlib.util.find_spec(module) is not None


def environments() -> dict[str, dict[str, str]]:
    """The variables of each container of ours."""
    found = {
        f"compose {name}": {**environment_of(STAGES, of["build"]["target"]), **of["environment"]}
        for name, of in compose_services().items()
    }
    for resource in overlay("cpu"):
        for container in containers(resource):
            found[f"{resource['kind']} {container['name']}"] = {
                **environment_of(STAGES, "service" if container["name"] == "service" else "train"),
                **{variable["name"]: variable["value"] for variable in container.get("env", [])},
            }
    return found


@pytest.mark.parametrize(("where", "variables"), environments().items(), ids=environments().keys())
def test_every_variable_is_a_setting(
    where: str, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert variables.items() >= ENVIRONMENT.items()
    assert all(isinstance(value, str) for value in variables.values())
    given = {name: value for name, value in variables.items() if name.startswith("FBPRAY_")}
    assert bool(given) == (where.endswith(" service")), where
    if not given:
        return
    for name, value in given.items():
        if name.endswith("_FILE"):
            assert value.startswith("/run/secrets/")
            (tmp_path / "token").write_text("x" * 32)
            value = str(tmp_path / "token")
        monkeypatch.setenv(name, value)
    settings = read_settings([])
    assert settings.port == PORTS["service"]
    assert settings.host == "0.0.0.0"
    assert str(settings.jobs.dashboard).endswith(f":{PORTS['dashboard']}")
    assert variables["RAY_ADDRESS"].endswith(f":{PORTS['gcs']}")
    assert str(settings.jobs.dashboard).split(":")[1].strip("/") == variables["RAY_ADDRESS"].partition(":")[0]
    assert variables["RAY_AUTH_MODE"] == "token"
    assert settings.access.operate
    assert settings.access.reconstruct


def test_a_name_of_kubernetes_cannot_become_a_setting() -> None:
    for name in OVERLAYS:
        resources = overlay(name)
        for resource in resources:
            if resource["kind"] == "Service":
                assert not resource["metadata"]["name"].upper().replace("-", "_").startswith("FBPRAY")
        pods = [the("Deployment", resources)["spec"]["template"]["spec"]]
        cluster = the("RayCluster", resources)["spec"]
        pods += [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
        assert all(pod["enableServiceLinks"] is False for pod in pods)


def test_ports_agree() -> None:
    compose = compose_services()
    assert last(STAGES, "service", "EXPOSE") == str(PORTS["service"])
    exposed = next(i.text for i in STAGES["train"].instructions if i.name == "EXPOSE").split()
    assert set(map(int, exposed)) == {PORTS["gcs"], PORTS["dashboard"], PORTS["metrics"]}
    assert compose["service"]["ports"] == [f"127.0.0.1:{PORTS['service']}:{PORTS['service']}"]
    head = " ".join(compose["head"]["command"])
    assert f"--port={PORTS['gcs']} " in head
    assert f"--dashboard-port={PORTS['dashboard']}" in head
    assert f"head:{PORTS['gcs']}" in " ".join(compose["worker"]["command"])
    for name in ("head", "worker"):
        assert f"--metrics-export-port={PORTS['metrics']}" in compose[name]["command"]
    prometheus = yaml.safe_load((DOCKER / "monitoring" / "prometheus.yaml").read_text())["scrape_configs"]
    assert prometheus[0]["static_configs"][0]["targets"] == [f"service:{PORTS['service']}"]
    assert prometheus[1]["dns_sd_configs"][0]["port"] == PORTS["metrics"]
    assert set(prometheus[1]["dns_sd_configs"][0]["names"]) <= set(compose)

    resources = overlay("cpu")
    cluster = the("RayCluster", resources)["spec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert group["rayStartParams"]["metrics-export-port"] == str(PORTS["metrics"])
    allowed = {
        port["port"]
        for resource in resources
        if resource["kind"] == "NetworkPolicy"
        for rule in resource["spec"]["ingress"]
        for port in rule.get("ports", [])
    }
    assert allowed == set(PORTS.values())


def test_images_and_versions_agree() -> None:
    tags = {f"fbp-ray-{target}:{VERSION}-{variant}" for target in ("train", "service") for variant in ("cpu", "cuda")}
    used = set()
    for files in ((COMPOSE,), (COMPOSE, GPU)):
        for service in read_compose(*files)["services"].values():
            if "build" not in service:
                assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", service["image"])
                continue
            variant = service["build"]["args"]["VARIANT"]
            assert service["image"] == f"fbp-ray-{service['build']['target']}:{VERSION}-{variant}"
            used.add(service["image"])
    for name in OVERLAYS:
        resources = overlay(name)
        assert the("RayCluster", resources)["spec"]["rayVersion"] == RAY
        for resource in resources:
            for container in containers(resource):
                assert container["image"] in tags
                used.add(container["image"])
    assert used == tags - {f"fbp-ray-service:{VERSION}-cuda"}
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", ARGUMENTS["PYTHON_IMAGE"])
    assert ARGUMENTS["BASE_DIGEST"] == "", "a digest is of the registry that it was read from: give it as an argument"
    assert VERSION in (DOCKER / "Dockerfile").read_text().partition("ARG")[0]


def test_images_have_a_user_a_health_check_and_no_compiler() -> None:
    for target in ("train", "service"):
        assert last(STAGES, target, "USER") == "10001:10001"
        assert last(STAGES, target, "HEALTHCHECK")[0] == "python"
        assert last(STAGES, target, "ENTRYPOINT") == ["fbp-ray-start"]
        assert STAGES[target].base == "runtime"
    steps = [i.text for i in STAGES["runtime"].instructions if i.name == "RUN"]
    assert all("pip" not in step for step in steps)
    assert all("gcc" not in step or step.startswith('if [ "${VARIANT}" = cuda ]') for step in steps)


def test_the_build_gets_what_it_copies_and_no_more() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = set()
    for stage in STAGES.values():
        for instruction in stage.instructions:
            if instruction.name == "COPY" and "--from" not in instruction.text:
                copied |= {word for word in instruction.text.split()[:-1] if not word.startswith("--")}
    outermost = {name for name in copied if not any(name.startswith(f"{other}/") for other in copied)}
    assert outermost == allowed
    assert all((ROOT / name).exists() for name in copied)
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {name.rstrip("*") for name in packages} <= copied


def test_everything_starts_after_what_it_needs() -> None:
    for name, service in read_compose()["services"].items():
        assert service.get("healthcheck") or last(STAGES, service["build"]["target"], "HEALTHCHECK")
        for needed, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}, name
            assert needed in read_compose()["services"]


def test_secrets_are_files_that_git_does_not_see(tmp_path: Path) -> None:
    script = shutil.copy(DOCKER / "secrets.sh", tmp_path)
    subprocess.run([script], check=True)
    made = {file.name: file.read_text() for file in (tmp_path / "secrets").iterdir()}
    assert made.keys() == read_compose()["secrets"].keys()
    assert len(set(made.values())) == len(made)
    assert all(re.fullmatch(r"[0-9a-f]{64}", token) for token in made.values())
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    printed = subprocess.run([script, "--kubernetes"], check=True, capture_output=True, text=True).stdout
    secret = yaml.safe_load(printed)
    assert secret["stringData"] == {"auth_token": made["ray"], **{n: made[n] for n in ("operate", "reconstruct")}}
    resources = overlay("cpu")
    assert the("RayCluster", resources)["spec"]["authOptions"] == {
        "mode": "token",
        "secretName": secret["metadata"]["name"],
    }
    volumes = the("Deployment", resources)["spec"]["template"]["spec"]["volumes"]
    assert {"secretName": secret["metadata"]["name"], "defaultMode": 0o440} in [v.get("secret") for v in volumes]
    assert secret["metadata"]["namespace"] == the("Namespace", resources)["metadata"]["name"]
    assert not [resource for resource in resources if resource["kind"] == "Secret"]
    assert "/docker/secrets/" in (ROOT / ".gitignore").read_text().splitlines()


def test_the_dashboard_shows_figures_that_there_are() -> None:
    dashboard = json.loads((DOCKER / "monitoring" / "grafana" / "fbp-ray.json").read_text())
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"\bfbp_\w+", target["expr"])
    }
    metrics = Metrics()
    there = {sample for metric in metrics.registry.collect() for sample in _samples(metric)}
    assert asked <= there, asked - there
    ours = {name for name in there if name.startswith("fbp_")}
    kinds = {re.sub(r"_(total|bucket|sum|count|created)$", "", name) for name in ours}
    assert {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in asked} == kinds - {"fbp_images_created"}


def _samples(metric: Any) -> set[str]:
    endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(metric.type, ("",))
    return {metric.name + ending for ending in endings}


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_fields_of_the_cluster_are_those_of_kuberay(name: str) -> None:
    assert [fault for resource in overlay(name) for fault in faults(resource, kubernetes=False)] == []
    assert [fault for file in JOBS for fault in faults(read_resources(file)[0], kubernetes=False)] == []
    broken = the("RayCluster", overlay(name))
    broken["spec"]["authOptions"]["mode"] = "tokens"
    broken["spec"]["rayVersions"] = RAY
    assert len(faults(broken, kubernetes=False)) == 2


def test_workers_are_limited_and_gpus_are_asked_for() -> None:
    for name, gpus in (("cpu", False), ("gpu", True)):
        cluster = the("RayCluster", overlay(name))["spec"]
        (group,) = cluster["workerGroupSpecs"]
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert ("nvidia.com/gpu" in limits) == gpus
        assert cluster.get("enableInTreeAutoscaling", False) == gpus
        for resource in overlay(name):
            assert all("memory" in container["resources"]["limits"] for container in containers(resource))


SLURM = """#!/bin/sh
echo "${0##*/} $*" >> "$CALLS"
case "${0##*/} $*" in
  scontrol*) printf 'node1\\nnode2\\nnode3\\n' ;;
  *' hostname '*) echo '127.0.1.1 10.9.8.7' ;;
  *' start '*) exec sleep 60 ;;
  *' - '*)  # waits for as many nodes as its last argument says
    cat > /dev/null
    for wanted; do :; done
    until [ "$(grep -c ' start ' "$CALLS")" -ge "$wanted" ]; do sleep 0.05; done ;;
esac
"""


def test_slurm_starts_ray_over_the_allocation_and_runs_the_same_command(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("scontrol", "srun"):
        (tools / tool).write_text(SLURM)
        (tools / tool).chmod(0o755)
    done = subprocess.run(
        ["bash", str(DOCKER / "slurm" / "train.sbatch"), "--data.dir", "/scratch/my data", "--run.name", "slurm"],
        env={
            "PATH": f"{tools}:/usr/bin:/bin",
            "CALLS": str(tmp_path / "calls"),
            "SLURM_SUBMIT_DIR": str(tmp_path),
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NODELIST": "node[1-3]",
            "SLURM_CPUS_PER_TASK": "8",
            "FBP_PYTHON": "/env/bin/python",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    started = [call for call in calls if " start " in call]
    assert len(started) == 3
    from ray.scripts.scripts import start

    for node, call in zip(("node1", "node2", "node3"), sorted(started), strict=True):
        assert f"--nodelist={node} " in call
        assert start.make_context("ray start", shlex.split(call.partition(" start ")[2]))
    assert "--node-ip-address=10.9.8.7 --port=6379" in next(call for call in started if "node1" in call)
    assert all("--address=10.9.8.7:6379" in call for call in started if "node1" not in call)
    assert calls[-1].endswith(
        "-m fbp_ray.train --ray.address 10.9.8.7:6379 --data.dir /scratch/my data --run.name slurm"
    )
    options = calls[-1].partition("fbp_ray.train ")[2].replace("my data", "data").split()
    assert parse_with_recipe(TrainConfig, options, "train").ray.address == "10.9.8.7:6379"
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".fbp-ray-")] == []


def test_the_readme_names_files_that_there_are() -> None:
    readme = (ROOT / "README.md").read_text() + (DOCKER / "README.md").read_text()
    for name in set(re.findall(r"(?<![\w/.-])docker/[\w./-]*\w", readme)):
        if not name.startswith("docker/secrets"):
            assert (ROOT / name).exists(), name
