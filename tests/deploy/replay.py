"""What the images would run, run: `python -m tests.deploy.replay`, and `--help` for its options.

No container engine is needed. The install steps are those of the Dockerfile, in a folder that is empty before; then a
head, two workers and the service run from there on four hosts, with the commands, the environment, the tokens and the
health checks of compose.yaml, read from it. A training job is submitted over HTTP, a worker's host loses its power and
comes back, the job finishes, and the service reconstructs with what was learned.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.deploy.compose import DOCKER, ROOT, read_compose
from tests.deploy.dockerfile import environment_of, last, read_dockerfile
from tests.deploy.hosts import COVER, NETWORK, OUTSIDE, Host, Names, make_network

INSIDE = "FBP_REPLAY_INSIDE"
SYSTEM = ("apt-get", "groupadd")  # steps that change the system around the environment; here it is that of the machine
PAIR = ROOT / "tests" / "data" / "lodopab_pair" / "lodopab_test_3456.npz"
PATH = "/opt/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BASE = Path(sys.base_prefix)
USER = 10001
LEFT_OUT = shutil.ignore_patterns("__pycache__", "node_modules", "dist")  # as .dockerignore has it
PAGE = "from urllib.request import urlopen; assert b'<script' in urlopen('http://127.0.0.1:8000/').read()"
SECONDS = 600
EPOCHS = 40


def main(argv: Sequence[str]) -> int:
    """Installs, then runs itself again where it has a network and processes of its own."""
    parser = argparse.ArgumentParser(prog="python -m tests.deploy.replay", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--environment", type=Path, help="an environment to use instead of installing one (5 GB)")
    parser.add_argument("--folder", type=Path, help="where to install; without it one that is removed at the end")
    options = parser.parse_args(argv)
    if os.environ.get(INSIDE):
        return Stack(options.folder, options.environment).show()
    if options.environment and options.environment.resolve().is_relative_to("/tmp"):
        parser.error("every host has a /tmp of its own, so the environment cannot be there")
    why = _missing()
    if why is not None:
        print(f"NOT RUN, so nothing is shown: {why}")
        return 2
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="fbp-replay-"))).resolve()
    try:
        Installation(folder, options.environment and options.environment.absolute()).install()
        given = ["--environment", str(options.environment.absolute())] if options.environment else []
        words = [sys.executable, "-m", "tests.deploy.replay", "--folder", str(folder), *given]
        own = ["--net", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc"]
        last_will = ["setpriv", "--pdeathsig", "KILL"]  # nothing outlives this process
        command = [*last_will, *_unshare(), *own, *words]
        return subprocess.run(command, env={**os.environ, INSIDE: "1"}, cwd=ROOT, check=False).returncode
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


def _unshare() -> list[str]:
    return ["unshare", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]), "--mount"]


def _missing() -> str | None:
    """What of this machine does not allow hosts, if anything."""
    programs = [name for name in ("unshare", "nsenter", "setpriv", "ip") if shutil.which(name) is None]
    if programs:
        return f"hosts need {', '.join(programs)} (util-linux, iproute2)"
    bridge = "ip link add hosts type bridge && mount -t tmpfs try /mnt"
    done = subprocess.run(
        [*_unshare(), "--net", "--pid", "--fork", "--mount-proc", "sh", "-c", bridge], capture_output=True
    )
    return None if done.returncode == 0 else f"this machine allows no hosts: {done.stderr.decode().strip()}"


class Installation:
    """The Dockerfile's install steps.

    Args:
        folder: what the image would have goes there.
        environment: to use instead; only the project is installed then, into a folder of its own.
    """

    def __init__(self, folder: Path, environment: Path | None) -> None:
        self.folder = folder
        self.environment = environment
        self.arguments, self.stages = read_dockerfile()
        self.source = folder / "src"
        self.opt = folder / "opt"
        self.page = folder / "page"

    def install(self) -> None:
        """Runs the steps; those that were skipped are named."""
        own = "fbp-ray" if self.environment is None else "project"
        for made in (self.source, self.opt / own, self.opt / "bin", self.folder / "home", self.folder / "scratch"):
            made.mkdir(parents=True, exist_ok=True)
        if not (BASE / "bin" / "python").exists() and not (self.opt / "bin" / "python").exists():
            (self.opt / "bin" / "python").symlink_to(os.path.realpath(sys.executable))
        began = time.monotonic()
        self._build_page()
        arguments: dict[str, str] = {"CPU_INDEX": ""}  # the ordinary index: the other is not reached from everywhere
        for stage in ("base", "environment", "runtime"):
            for instruction in self.stages[stage].instructions:
                if instruction.name == "ARG":
                    name, _, value = instruction.text.partition("=")
                    arguments.setdefault(name, value)
                elif instruction.name == "COPY":
                    self._copy(instruction.text)
                elif instruction.name == "RUN":
                    self._step(stage, instruction.text, arguments)
        print(f"installed in {time.monotonic() - began:.0f} s", flush=True)

    def _copy(self, text: str) -> None:
        *sources, target = [word for word in text.split() if not word.startswith("--")]
        if "--from=page" in text:
            if self.page.exists():
                shutil.copytree(self.page / sources[0].lstrip("/"), self.source / target, dirs_exist_ok=True)
            return
        if "--from" in text:
            return  # from one stage to another: here both are the same folder
        for source in sources:
            if target.startswith("/usr/local/bin/"):
                copied = self.opt / "bin" / Path(target).name
                shutil.copy(ROOT / source, copied)
                copied.chmod(0o755)
            elif (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, self.source / target, dirs_exist_ok=True, ignore=LEFT_OUT)
            else:
                shutil.copy(ROOT / source, self.source / target)

    def _build_page(self) -> None:
        """The stage of the page, in a folder of its own: it needs Node, and nothing of the environment."""
        if shutil.which("npm") is None:
            print("skipped, as there is no Node here: the stage of the page", flush=True)
            return
        here = self.page
        for instruction in self.stages["page"].instructions:
            if instruction.name == "WORKDIR":
                here = self.page / instruction.text.lstrip("/")
                here.mkdir(parents=True, exist_ok=True)
            elif instruction.name == "COPY":
                *sources, target = instruction.text.split()
                place = self.page / target.lstrip("/") if target.startswith("/") else here / target
                place.mkdir(parents=True, exist_ok=True)
                for source in sources:
                    if (ROOT / source).is_dir():
                        shutil.copytree(ROOT / source, place, dirs_exist_ok=True, ignore=LEFT_OUT)
                    else:
                        shutil.copy(ROOT / source, place)
            elif instruction.name == "RUN":
                print(f"RUN {instruction.text}", flush=True)
                subprocess.run(["sh", "-euc", instruction.text], check=True, cwd=here)

    def _step(self, stage: str, text: str, arguments: dict[str, str]) -> None:
        if any(word in text for word in SYSTEM):
            print(f"skipped, as it is about the system: RUN {text[:100]} ..", flush=True)
            return
        if self.environment is not None:
            if "pip wheel" not in text:
                print(f"skipped, as the environment is given: RUN {text[:100]} ..", flush=True)
                return
            text = (
                text.partition("&&")[0] + "&& python -m pip install --quiet --no-deps --target /opt/project dist/*.whl"
            )
        print(f"RUN {text[:160]}", flush=True)
        step = f'{COVER}{_mounts(self.folder, self.environment)}\ncd "$source"\n{text}'
        environment = environment_of(self.stages, stage)
        home = {"HOME": "/home/fbp", "source": str(self.source), "scratch": str(self.folder / "scratch")}
        passed = {
            name: value for name, value in os.environ.items() if name.startswith("PIP_") or "proxy" in name.lower()
        }
        subprocess.run(
            [*_unshare(), "sh", "-euc", step],
            env={**passed, **arguments, **_filled(environment, arguments), **home, "PATH": _path(self.environment)},
            check=True,
            cwd="/",
        )


def _path(environment: Path | None) -> str:
    return f"{environment or '/opt/fbp-ray'}/bin:{PATH}"


def _filled(environment: dict[str, str], values: dict[str, str]) -> dict[str, str]:
    return {
        name: re.sub(r"\$\{(\w+)\}", lambda found: values.get(found[1], ""), value)
        for name, value in environment.items()
    }


def _mounts(folder: Path, environment: Path | None) -> str:
    """Shell lines that put the files where an image has them."""
    lines = ["cover /opt", "cover /home"]
    lines += [f"bind {shlex.quote(str(place))} /opt/{place.name}" for place in sorted((folder / "opt").iterdir())]
    lines += [f"bind {shlex.quote(str(folder / 'home'))} /home/fbp"]
    if environment is None and BASE not in (Path("/usr"), Path("/usr/local")):
        lines.append(f"mount --rbind {shlex.quote(str(BASE))} /usr/local")  # where the base image has its Python
    return "\n".join(lines)


class Stack:
    """The services of compose.yaml, each on a host, or on as many as it has replicas.

    Args:
        folder: of the installation.
        environment: that was used.
    """

    def __init__(self, folder: Path, environment: Path | None) -> None:
        self.folder = folder
        self.environment = environment
        self.compose = read_compose()
        self.stages = read_dockerfile()[1]
        self.work = folder / "work"
        self.tokens = folder / "secrets"
        self.hosts: dict[str, Host] = {}
        self._services: dict[str, str] = {}
        names = []
        for service in self._in_order():
            replicas = self.compose["services"][service].get("deploy", {}).get("replicas", 1)
            for number in range(1, replicas + 1):
                name = service if replicas == 1 else f"{service}-{number}"
                self._services[name] = service
                names.append(name)
        self._numbers = {name: number for number, name in enumerate(names, start=1)}

    def _in_order(self) -> list[str]:
        """The services, without those of a profile, each after those that it depends on."""
        left = {
            name: set(of.get("depends_on", ())) for name, of in self.compose["services"].items() if "profiles" not in of
        }
        order: list[str] = []
        while left:
            ready = [name for name, needs in left.items() if needs <= set(order)]
            order += ready
            left = {name: needs for name, needs in left.items() if name not in ready}
        return order

    def show(self) -> int:
        """Starts everything, and has it train, lose a machine, sweep and reconstruct."""
        began = time.monotonic()
        self._prepare()
        make_network()
        addresses: dict[str, list[str]] = {}
        for name, number in self._numbers.items():
            for known in {name, self._services[name]}:
                addresses.setdefault(known, []).append(f"{NETWORK}.{number}")
        Names(addresses).start()
        try:
            for service in self._in_order():
                names = [name for name, of in self._services.items() if of == service]
                for name in names:
                    self._start(name)
                for name in names:
                    self._until_healthy(name)
            self._show()
        except Exception as error:
            print(f"FAILED: {type(error).__name__}: {error}")
            for name, host in self.hosts.items():
                print(
                    f"--- the end of what {name} printed",
                    *host.log.read_text(errors="replace").splitlines()[-25:],
                    sep="\n",
                )
            return 1
        finally:
            for host in self.hosts.values():
                host.kill()
        print(f"all of it held, in {time.monotonic() - began:.0f} s")
        return 0

    def _prepare(self) -> None:
        """Volumes, secrets and names."""
        self.tokens.mkdir(exist_ok=True)
        script = shutil.copy(DOCKER / "secrets.sh", self.folder)
        subprocess.run([script], check=True)
        for made in (self.work / "runs", self.work / "data", self.folder / "state", self.folder / "logs"):
            made.mkdir(parents=True, exist_ok=True)
        (self.folder / "hosts").write_text("127.0.0.1 localhost\n")
        users = Path("/etc/passwd").read_text() + f"fbp:x:{USER}:{USER}::/home/fbp:/bin/sh\n"
        (self.folder / "hosts.users").write_text(users)
        (self.folder / "hosts.dns").write_text(f"nameserver {OUTSIDE}\n")
        simulate = [sys.executable, "-m", "fbp_ray.simulate", "--phantoms", "36", "--split", "24,8,4"]
        data = self.work / "data" / "replay"
        if not data.exists():
            subprocess.run([*simulate, "--out", str(data)], check=True, cwd=ROOT)
        if self._drops_root():
            for made in (self.work, self.folder / "state", self.folder / "home"):
                subprocess.run(["chown", "--recursive", f"{USER}:{USER}", made], check=True)

    def _drops_root(self) -> bool:
        """Whether hosts run as the image's user: not in a user namespace, nor where the environment may be root's."""
        return self.environment is None and Path("/proc/self/uid_map").read_text().split()[2] != "1"

    def _start(self, name: str) -> None:
        service = self.compose["services"][self._services[name]]
        target = service["build"]["target"]
        mounts = [_mounts(self.folder, self.environment), "cover /srv", "cover /run"]
        for volume in service["volumes"]:
            source, place = volume.split(":")[:2]
            if not source.startswith("."):
                mounts.append(f"bind {shlex.quote(str(self.folder / source))} {place}")
        for secret in service["secrets"]:
            known = self.folder / self.compose["secrets"][secret]["file"]
            mounts.append(f"mkdir -p /run/secrets; cp {shlex.quote(str(known))} /run/secrets/{secret}")
        drop = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs"]
        host = self.hosts.get(name) or Host(
            name,
            self._numbers[name],
            "\n".join(mounts),
            self.folder / "hosts",
            drop if self._drops_root() else [],
            self.folder / "logs" / name,
        )
        self.hosts[name] = host
        environment = {**environment_of(self.stages, target), **service["environment"], "PATH": _path(self.environment)}
        environment.pop("SOURCE_DATE_EPOCH", None)
        if self.environment is not None:
            environment["PYTHONPATH"] = "/opt/project"
        elif str(BASE) != "/usr":
            environment["LD_LIBRARY_PATH"] = "/usr/local/lib"  # the linker of the base image knows it by itself
        host.start(
            [*last(self.stages, target, "ENTRYPOINT"), *service["command"]], environment, service.get("shm_size", "64m")
        )
        print(f"{name} ({host.address}): {' '.join(service['command'])}", flush=True)

    def _until_healthy(self, name: str) -> None:
        service = self.compose["services"][self._services[name]]
        test = service.get("healthcheck", {}).get("test") or [
            "CMD",
            *last(self.stages, service["build"]["target"], "HEALTHCHECK"),
        ]
        host, began = self.hosts[name], time.monotonic()
        while host.execute(test[1:]).returncode != 0:
            if not host.running() or time.monotonic() - began > 240:
                raise RuntimeError(f"{name} does not become healthy")
            time.sleep(1)
        print(f"{name} is healthy after {time.monotonic() - began:.0f} s", flush=True)

    def _show(self) -> None:
        workers = [name for name, service in self._services.items() if service == "worker"]
        refused = self._refused("/jobs")
        assert refused == 401, refused
        print("without a token: 401")
        if shutil.which("npm") is not None:
            page = self.hosts["service"].execute(["python", "-c", PAGE])
            assert page.returncode == 0, page
            print("the page is there")
        data = "/srv/fbp-ray/data/replay"
        config = {
            "data": {"dir": data},
            "run": {"name": "replay", "storage": "/srv/fbp-ray/runs"},
            "train": {"epochs": EPOCHS, "patience": 0},
            "window": {"kind": "frequency", "init": "hann"},
            "loss": {"mse": 1, "log_mse": 0, "local_ssim": 0},
            "optim": {"lr": 0.03},
            "scaling": {"num_workers": len(workers)},
        }
        job = self._post("/jobs", {"kind": "train", "config": config})["id"]
        self._until(lambda: len(self._history()) >= 4, job)
        driver = next(one for one in self.hosts["head"].processes() if "service.jobs.program" in _line(one))
        assert str(Path(f"/proc/{driver.pid}/cwd").readlink()) == "/srv/fbp-ray", (
            "jobs do not start in the shared folder"
        )
        on = [name for name in workers if any("RayTrainWorker" in _line(one) for one in self.hosts[name].processes())]
        print(f"the job {job} trains on {' and '.join(on)}; epoch {len(self._history())} of {EPOCHS} is finished")
        assert on == workers, on
        self.hosts[workers[-1]].kill()
        print(f"{workers[-1]} has lost its power", flush=True)
        time.sleep(5)
        known = len(self._history())
        assert known < EPOCHS, "the run was over before a machine was lost"
        self._start(workers[-1])
        self._until_healthy(workers[-1])
        ended = self._until_ended(job)
        rows = self._history()
        print(f"the job {ended['status']}: {len(rows)} epochs, with {rows[-1]['workers']} workers in the last one")
        assert ended["status"] == "succeeded", (ended, self._ask("GET", f"/jobs/{job}/logs").decode())
        assert [int(row["epoch"]) for row in rows] == list(range(1, EPOCHS + 1))
        said = self._ask("GET", f"/jobs/{job}/logs").decode()
        print(*(line for line in said.splitlines() if "lost" in line or "going on" in line), sep="\n")
        assert "lost" in said, said

        model = self._post(f"/jobs/{job}/activate", {})
        self._reconstruct(model)
        sweep = {
            "data": {"dir": data},
            "sweep": {"name": "replayed", "storage": "/srv/fbp-ray/runs", "trials": 2},
            "train": {"epochs": 2},
        }
        job = self._post("/jobs", {"kind": "sweep", "space": "learning_rate", "config": sweep})["id"]
        ended = self._until_ended(job)
        assert ended["status"] == "succeeded", (ended, self._ask("GET", f"/jobs/{job}/logs").decode())
        progress = ended["progress"]
        print(f"the sweep {job} succeeded: {progress['done']} trials, best {progress['best']['parameters']}")
        self._figures()

    def _reconstruct(self, model: dict[str, Any]) -> None:
        import numpy as np

        with np.load(PAIR) as pair:
            truth = next(np.squeeze(pair[name]) for name in pair.files if "truth" in name)
        images = {}
        for method in ("learned", "fbp"):
            path = f"/reconstruct?method={method}&output=npy"
            content, headers = self._exchange("POST", path, PAIR.read_bytes(), "reconstruct")
            images[method] = np.squeeze(np.load(io.BytesIO(content)))
            if method == "learned":
                assert headers["x-model-version"] == model["version"], (dict(headers), model)
        assert images["learned"].shape == truth.shape, images["learned"].shape
        figures = {name: _psnr(image, truth) for name, image in images.items()}
        print(
            f"the model {model['version']} of that job reconstructs the genuine pair: {figures['learned']:.2f} dB, "
            f"the classic FBP {figures['fbp']:.2f} dB",
            flush=True,
        )
        assert min(figures.values()) > 28, "a transposed image, or one in another unit, has half of it"

    def _figures(self) -> None:
        """Whether what the dashboard shows is there."""
        panels = json.loads((DOCKER / "monitoring" / "grafana" / "fbp-ray.json").read_text(encoding="utf-8"))["panels"]
        asked = {
            name
            for panel in panels
            for target in panel["targets"]
            for name in re.findall(r"\b(?:fbp|ray)_\w+", target["expr"])
        }
        asked = {name for name in asked if "gpu" not in name}
        there = self._ask("GET", "/metrics", token="reconstruct").decode()
        for name in ("head", *[name for name, service in self._services.items() if service == "worker"]):
            there += _open(f"http://{self.hosts[name].address}:8080/metrics").decode()
        missing = sorted(name for name in asked if name not in there)
        assert not missing, missing
        print(f"Prometheus would find all {len(asked)} figures of the dashboard")

    def _history(self) -> list[dict[str, str]]:
        file = self.work / "runs" / "replay" / "history.csv"
        if not file.is_file():
            return []
        with file.open() as lines:
            return list(csv.DictReader(lines))

    def _until(self, holds: Any, job: str) -> None:
        until = time.monotonic() + SECONDS
        while not holds():
            document = json.loads(self._ask("GET", f"/jobs/{job}"))
            if document["status"] not in ("pending", "running") or time.monotonic() > until:
                raise RuntimeError(
                    f"{document['status']}: {document['reason']}; {self._ask('GET', f'/jobs/{job}/logs').decode()}"
                )
            time.sleep(0.5)

    def _until_ended(self, job: str) -> dict[str, Any]:
        until = time.monotonic() + SECONDS
        while True:
            document: dict[str, Any] = json.loads(self._ask("GET", f"/jobs/{job}"))
            if document["status"] not in ("pending", "running"):
                return document
            if time.monotonic() > until:
                raise RuntimeError(
                    f"the job {job} does not end: {document}; {self._ask('GET', f'/jobs/{job}/logs').decode()}"
                )
            time.sleep(1)

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            return dict(json.loads(self._exchange("POST", path, json.dumps(body).encode(), "operate")[0]))
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"POST {path}: {error.code} {error.read().decode()}") from None

    def _refused(self, path: str) -> int | None:
        """With which status a request without a token is refused."""
        try:
            self._ask("GET", path, token=None)
        except urllib.error.HTTPError as error:
            return error.code
        return None

    def _ask(self, method: str, path: str, token: str | None = "operate") -> bytes:
        return self._exchange(method, path, None, token)[0]

    def _exchange(self, method: str, path: str, body: bytes | None, token: str | None) -> tuple[bytes, Any]:
        service = next(name for name, of in self._services.items() if of == "service")
        headers = {"Content-Type": "application/json" if body and body[:1] == b"{" else "application/octet-stream"}
        if token is not None:
            headers["Authorization"] = f"Bearer {(self.folder / 'secrets' / token).read_text()}"
        request = urllib.request.Request(
            f"http://{self.hosts[service].address}:8000{path}", data=body, headers=headers, method=method
        )
        with urllib.request.urlopen(request, timeout=180) as answer:
            return answer.read(), answer.headers


def _open(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return bytes(answer.read())


def _line(process: Any) -> str:
    """The command line of a process, as far as it is still there."""
    import psutil

    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _psnr(image: Any, truth: Any) -> float:
    import numpy as np

    return float(10 * np.log10((truth.max() - truth.min()) ** 2 / np.mean((image - truth) ** 2)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
