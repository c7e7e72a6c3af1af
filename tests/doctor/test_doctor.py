"""The doctor: it passes on a good machine and a good cluster, and names the machine, the fault and the way out."""

from __future__ import annotations

import functools
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import torch

from fbp_ray.doctor import checks, data, hardware, kernel, network, speed, storage, versions
from fbp_ray.doctor.__main__ import main
from fbp_ray.doctor.checks import DoctorConfig, examine
from fbp_ray.doctor.finding import Finding, some
from fbp_ray.doctor.hardware import GIB, Hardware, Room
from fbp_ray.doctor.machines import Here, Machine, Machines, T, Task, Trouble, attempt
from fbp_ray.doctor.network import End, Interfaces
from fbp_ray.doctor.report import advice, line, show
from fbp_ray.doctor.versions import CODE, Installed
from fbp_ray.errors import RunError
from fbp_ray.train.cluster import _why_not
from tests.support.scans import write_scan

ROOT = Path(__file__).parents[2]


class Pretended(Machines):
    """Machines that are all this one; a path begins with something else on some of them.

    Args:
        names: what they are called.
        moved: by name, what a path begins with, and what it begins with there.
    """

    def __init__(self, *names: str, moved: Mapping[str, tuple[Path, Path]] | None = None) -> None:
        super().__init__([Machine(name, f"10.0.0.{number}") for number, name in enumerate(names, start=1)])
        self.moved = dict(moved or {})

    def ask(self, tasks: Mapping[str, Task[T]], seconds: float) -> dict[str, T | Trouble]:
        return {name: attempt(self._there(name, task)) for name, task in tasks.items()}

    def _there(self, name: str, task: Task[T]) -> Task[T]:
        if name not in self.moved:
            return task
        assert isinstance(task, functools.partial)
        old, new = (str(path) for path in self.moved[name])
        words = [word.replace(old, new) if isinstance(word, str) else word for word in task.args]
        return functools.partial(task.func, *words)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scan(tmp_path_factory.mktemp("doctor") / "data")


@pytest.fixture(autouse=True)
def no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def faults(findings: Any) -> list[Finding]:
    return [finding for finding in findings if finding.state == "fault"]


def states(findings: Any) -> list[str]:
    return [finding.state for finding in findings]


# Versions


def have(**other: str) -> Installed:
    usual = {"python": "3.11.9", "torch": "2.15.0", "numpy": "2.4.1", "piq": "0.8.0", CODE: "0123abcd"}
    names = {"fbp_ray": "fbp-ray", "code": CODE}
    rest = {name: "1.0" for name in versions.MATTER if name not in usual}
    return Installed(usual | rest | {names.get(name, name): value for name, value in other.items()}, {})


def test_equal_versions_are_one_finding() -> None:
    (finding,) = versions.judge({"a": have(), "b": have()})
    assert finding.state == "ok"
    assert finding.machine == "a, b"
    assert "equal" in finding.found
    assert "numpy 2.4.1" in finding.found


def test_the_machine_with_another_version_is_named() -> None:
    (finding,) = versions.judge({"a": have(), "b": have(numpy="1.26.4"), "c": have()})
    assert (finding.check, finding.machine, finding.state) == ("versions", "b", "fault")
    assert finding.found == "numpy is 1.26.4, but 2.4.1 on a, c"
    assert "same environment" in finding.way_out


def test_a_version_that_is_too_old_for_the_package_is_named_once() -> None:
    text = "numpy is 1.26.4, but fbp-ray needs numpy>=2.0"
    (finding,) = versions.judge({"a": have(), "b": have(numpy="1.26.4")._replace(unmet={"numpy": text}), "c": have()})
    assert (finding.machine, finding.state, finding.found) == ("b", "fault", text)


def test_of_two_machines_the_first_is_right() -> None:
    (finding,) = versions.judge({"a": have(), "b": have(python="3.12.1")})
    assert (finding.machine, finding.found) == ("b", "python is 3.12.1, but 3.11.9 on a")


def test_other_code_of_the_same_version_is_a_fault_and_a_lesser_package_a_warning() -> None:
    both = versions.judge({"a": have(), "b": have(code="ffff0000"), "c": have(piq="0.9.0")})
    found = {finding.machine: finding for finding in both}
    assert sorted(found) == ["b", "c"]
    assert found["b"].state == "fault"
    assert "code of fbp_ray is ffff0000" in found["b"].found
    assert found["c"].state == "warning"


def test_the_code_is_known_by_a_digest(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "b.yaml").write_text("2")
    first = versions.digest(tmp_path)
    (tmp_path / "c.pyc").write_text("not code")
    assert versions.digest(tmp_path) == first
    (tmp_path / "inner" / "b.yaml").write_text("3")
    assert versions.digest(tmp_path) != first


def test_what_the_package_needs_and_does_not_find_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "fbp_ray-0.1.0.dist-info"
    folder.mkdir()
    needs = [
        "numpy>=99",
        "torch>=2",
        "no-such-package",
        "other-system; sys_platform == 'none'",
        "extra-one; extra == 'x'",
    ]
    lines = "".join(f"Requires-Dist: {need}\n" for need in needs)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: fbp-ray\nVersion: 0.1.0\n{lines}")
    monkeypatch.syspath_prepend(tmp_path)
    numpy, missing = versions.installed().unmet.values()
    assert numpy.startswith("numpy is 2")
    assert "numpy>=99" in numpy
    assert missing == "no-such-package is not installed, but fbp-ray needs no-such-package"
    found = faults(versions.check_versions(Here("this machine")))
    assert [finding.found for finding in found] == [numpy, missing]


def test_a_cluster_of_other_versions_is_a_finding() -> None:
    error = (
        "Version mismatch: The cluster was started with:\n    Ray: 2.50.0\nThis process was started with:\n Ray: 2.60.0"
    )
    finding = checks.refused("this process", RunError(_why_not("10.0.0.1:6379", error)))
    assert (finding.check, finding.state) == ("versions", "fault")
    assert "Ray: 2.50.0" in finding.found
    assert "same environment" in finding.way_out


# Processors, GPUs, disks


def machine_with(**other: Any) -> Hardware:
    usual = Hardware(processors=8, limit=None, gpus=[], cards=0, cuda=None, triton=True, rooms=[])
    return usual._replace(**other)


def test_this_machine_has_something() -> None:
    has = hardware.hardware("runs")
    assert 1 <= has.processors <= (os.cpu_count() or 1)
    assert all(0 <= room.free <= room.total for room in has.rooms)
    assert {"storage", "Ray"} <= {room.what for room in has.rooms}
    assert "storage" not in {room.what for room in hardware.rooms("s3://bucket/runs")}


@pytest.mark.parametrize(
    ("told", "has", "state", "said"),
    [
        (0, {}, "ok", "none"),
        (None, {"gpus": ["H100"], "cuda": "13.2"}, "ok", "H100"),
        (1, {"gpus": ["H100"], "cuda": "13.2"}, "ok", "H100"),
        (2, {"cuda": "13.2"}, "fault", "told of 2 GPUs, but torch sees 0; torch was built for CUDA 13.2"),
        (2, {}, "fault", "torch for CPUs alone"),
        (0, {"gpus": ["H100"], "cuda": "13.2"}, "warning", "stay idle"),
        (None, {"cards": 1}, "warning", "the machine has 1 GPUs, but torch sees 0"),
        (0, {"cuda": "13.2"}, "warning", "finds no driver"),
    ],
)
def test_gpus_of_torch_and_of_ray_are_compared(told: int | None, has: dict[str, Any], state: str, said: str) -> None:
    (finding,) = hardware.judge_gpus(Machine("a", "10.0.0.1", 8, told), machine_with(**has))
    assert (finding.machine, finding.state) == ("a", state)
    assert said in finding.found
    assert (finding.way_out == "") == (state == "ok")


def test_a_gpu_without_triton_is_a_warning() -> None:
    both = list(hardware.judge_gpus(Machine("a"), machine_with(gpus=["H100"], cuda="13.2", triton=False)))
    assert states(both) == ["ok", "warning"]
    assert "triton" in both[1].found


def test_more_processors_than_there_are_is_a_warning() -> None:
    finding = hardware.judge_processors(Machine("a", "10.0.0.1", 64, 0), machine_with(processors=2, limit=1.5))
    assert finding.state == "warning"
    assert "told of 64 processors, but it may use 2 (its container's limit is 1.5)" in finding.found
    assert "--num-cpus 2" in finding.way_out
    assert hardware.judge_processors(Machine("a", "10.0.0.1", 0, 0), machine_with()).state == "ok"


@pytest.mark.parametrize(
    ("what", "free", "total", "state", "way_out"),
    [
        ("storage", 0.5, 100, "warning", "--run.storage"),
        ("storage", 50, 100, "ok", ""),
        ("Ray", 4, 20, "warning", "--temp-dir"),
        ("Ray", 40, 1000, "warning", "--temp-dir"),
        ("Ray", 60, 1000, "ok", ""),
        ("shared memory", 0.06, 0.0625, "warning", "--shm-size"),
        ("shared memory", 12, 12, "ok", ""),
    ],
)
def test_full_disks_are_warnings(what: str, free: float, total: float, state: str, way_out: str) -> None:
    finding = hardware.judge_room(Machine("a"), Room(what, "/there", int(total * GIB), int(free * GIB)))
    assert (finding.check, finding.state) == ("disk", state)
    assert "/there" in finding.found
    assert way_out in finding.way_out


# Interfaces

THERE = Interfaces({"lo": ["127.0.0.1"], "eth0": ["10.0.0.1"], "eth1": ["192.168.0.1", "fd00::1"], "wlan": []}, None)


@pytest.mark.parametrize(
    ("wanted", "several", "said"),
    [
        ("eth7", True, "there is no interface 'eth7' (--scaling.interface) that is up, only eth0 (10.0.0.1), "),
        ("eth7", False, "there is no interface 'eth7'"),
        ("wlan", False, "the interface wlan has no address"),
        ("lo", True, "lo (127.0.0.1) is the loopback, which no other machine can reach"),
    ],
)
def test_a_wrong_interface_is_a_fault(wanted: str, several: bool, said: str) -> None:
    finding, end = network.judge(Machine("a", "10.0.0.1"), THERE, wanted, several)
    assert end is None
    assert (finding.check, finding.machine, finding.state) == ("interface", "a", "fault")
    assert said in finding.found
    assert "--scaling.interface" in finding.way_out


def test_the_interface_is_the_one_given_that_of_the_environment_or_that_of_rays_address() -> None:
    machine = Machine("a", "10.0.0.1")
    assert network.judge(machine, THERE, "eth1", True)[1] == End("eth1", "192.168.0.1")
    assert network.judge(machine, THERE._replace(environment="eth1"), None, True)[1] == End("eth1", "192.168.0.1")
    assert network.judge(machine, THERE, None, True)[1] == End("eth0", "10.0.0.1")
    assert network.judge(Machine("a", "127.0.0.1"), THERE, None, False)[0].state == "ok"
    assert network.judge(Machine("a"), THERE, None, False)[0].state == "ok"


def test_an_address_that_no_interface_has_is_a_warning() -> None:
    finding, end = network.judge(Machine("a", "172.16.0.9"), THERE, None, True)
    assert (finding.state, end) == ("warning", None)
    assert "172.16.0.9" in finding.found


def test_machines_that_reach_each_other_pass() -> None:
    ends = {name: End("lo", "127.0.0.1") for name in ("a", "b")}
    (finding,) = network.check_connections(Pretended("a", "b"), ends)
    assert (finding.state, finding.found) == ("ok", "they reach each other over lo")


def test_machines_that_do_not_reach_each_other_are_both_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = int(server.getsockname()[1])
    monkeypatch.setattr(network, "listen", lambda address, seconds: closed)
    ends = {name: End("lo", "127.0.0.1") for name in ("a", "b")}
    found = list(network.check_connections(Pretended("a", "b"), ends))
    assert [(finding.machine, finding.state) for finding in found] == [("a", "fault"), ("b", "fault")]
    assert found[0].found.startswith("lo (127.0.0.1) opens no connection to b, lo (127.0.0.1): ")
    assert "firewall" in found[0].way_out


def test_of_many_machines_each_tries_the_first_one() -> None:
    names = [str(number) for number in range(20)]
    pairs = network.pairs(names)
    assert pairs["0"] == names[1:]
    assert all(pairs[name] == ["0"] for name in names[1:])
    assert network.pairs(names[:3]) == {"0": ["1", "2"], "1": ["0", "2"], "2": ["0", "1"]}


# Storage


def check_storage(place: Path | str, machines: Machines | None = None) -> list[Finding]:
    return list(storage.check_storage(machines or Here("this machine"), str(place)))


def test_a_storage_that_all_share_passes_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    (finding,) = check_storage(tmp_path / "new" / "runs", Pretended("a", "b", "c"))
    assert (finding.state, finding.machine) == ("ok", "a, b, c")
    assert not list(tmp_path.iterdir())
    (tmp_path / "runs").mkdir()
    assert states(check_storage(tmp_path / "runs")) == ["ok"]
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_an_object_store_passes_and_nothing_is_left_in_it(object_store: str) -> None:
    from fbp_ray.storage import open_folder

    place = f"{object_store}/{uuid4().hex}/runs"
    assert states(check_storage(place, Pretended("a", "b"))) == ["ok"]
    assert not open_folder(place).names()


@pytest.mark.parametrize(
    ("exists", "said"), [(True, "is a folder of this machine's own"), (False, "there is no folder")]
)
def test_a_machine_that_does_not_share_the_storage_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool, said: str
) -> None:
    monkeypatch.setattr(storage, "SETTLE_SECONDS", 0.1)
    shared, own = tmp_path / "shared", tmp_path / "own"
    shared.mkdir()
    if exists:
        own.mkdir()
    (fault,) = check_storage(shared, Pretended("a", "b", "c", moved={"b": (shared, own)}))
    assert (fault.check, fault.machine, fault.state) == ("storage", "b", "fault")
    assert said in fault.found
    assert "a wrote" in fault.found
    assert "--run.storage" in fault.way_out
    assert not list(shared.iterdir())
    assert own.exists() == exists
    assert not exists or not list(own.iterdir())


def test_a_file_in_the_storages_place_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    (fault,) = check_storage(tmp_path / "runs")
    assert fault.state == "fault"
    assert f"{tmp_path / 'runs'} cannot be used" in fault.found
    assert "--run.storage" in fault.way_out
    assert (tmp_path / "runs").is_file()


def read_only(tmp_path: Path) -> Path:
    """A folder that this process cannot write to; root can write to any but those of the kernel."""
    if os.geteuid() == 0:
        return Path("/proc")
    tmp_path.chmod(0o500)
    return tmp_path


def test_a_storage_that_cannot_be_written_is_a_fault(tmp_path: Path) -> None:
    (fault,) = check_storage(read_only(tmp_path))
    assert fault.state == "fault"
    assert "cannot be used" in fault.found


def test_a_storage_of_an_unknown_kind_is_a_fault() -> None:
    (fault,) = check_storage("nowhere://bucket/runs")
    assert fault.state == "fault"
    assert "no place that can be written to" in fault.found


# Data


def test_the_same_data_everywhere_pass(scan: Path) -> None:
    (finding,) = data.check_data(Pretended("a", "b"), scan)
    assert (finding.state, finding.machine) == ("ok", "a, b")
    assert "12 train and 5 validation samples, sinograms (60, 67), images (47, 47)" in finding.found


def test_a_machine_without_the_data_is_named(scan: Path, tmp_path: Path) -> None:
    found = list(data.check_data(Pretended("a", "b", moved={"b": (scan, tmp_path / "gone")}), scan))
    (fault,) = faults(found)
    assert (fault.check, fault.machine) == ("data", "b")
    assert "there is no data folder" in fault.found
    assert "--data.dir" in fault.way_out


def test_other_data_on_one_machine_are_a_fault(scan: Path, tmp_path: Path) -> None:
    other = write_scan(tmp_path / "other", train=11)
    (fault,) = faults(data.check_data(Pretended("a", "b", "c", moved={"b": (scan, other)}), scan))
    assert fault.machine == "b"
    assert "11 train and 5 validation samples" in fault.found
    assert "but on a, c: 12 train" in fault.found


def test_damaged_data_are_a_fault(tmp_path: Path) -> None:
    folder = write_scan(tmp_path / "data")
    (folder / "ground_truth_train_000.hdf5").write_bytes(b"nothing")
    (fault,) = faults(data.check_data(Here("this machine"), folder))
    assert "ground_truth_train_000.hdf5" in fault.found


# Kernel and speed

RIGHT = kernel.Tried("cpu", kernel.Errors(1e-7, 1e-7, 1e-7, 0.02), seconds=0.3, cache="/cache")


def test_the_kernels_of_this_machine_are_right() -> None:
    (tried,) = [finding for finding in kernel.check_kernel(Here("this machine")) if "cpu" in finding.found]
    assert tried.state == "ok", tried
    found = kernel.try_kernel("cpu").errors
    assert max(found.project, found.backproject, found.adjoint) < 1e-5
    assert found.fbp < 0.1


def test_kernels_that_compute_wrongly_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    right = kernel.backproject
    monkeypatch.setattr(kernel, "backproject", lambda y, geometry: 1.001 * right(y, geometry))
    (fault,) = faults(kernel.check_kernel(Here("this machine")))
    assert "backproject, against float64, is off by 0.001" in fault.found
    assert "transpose" in fault.found
    assert "project, against float64, is off" not in fault.found.replace("backproject, against", "")
    (fault,) = kernel.judge("a", RIGHT._replace(errors=RIGHT.errors._replace(fbp=float("nan"))))
    assert "fbp(project(x)), against x, is off by nan" in fault.found


def test_kernels_that_cannot_be_kept_are_a_warning() -> None:
    assert states(kernel.judge("a", RIGHT)) == ["ok"]
    (warning,) = kernel.judge("a", RIGHT._replace(cache=None))
    assert warning.state == "warning"
    assert "NUMBA_CACHE_DIR" in warning.way_out
    assert states(kernel.judge("a", RIGHT._replace(device="cuda", cache=None))) == ["ok"]


def test_speed_is_measured_on_the_processors_that_ray_was_told_of() -> None:
    before = torch.get_num_threads()
    measured = speed.measure(1)
    assert measured.threads == 1
    assert measured.ms > 0
    assert measured.busy < 1.5
    assert torch.get_num_threads() == before


def test_a_machine_that_is_three_times_slower_is_a_warning() -> None:
    measured = speed.Speed(ms=7.6, threads=2, busy=1.9, load=0.5, waits="not set", limit=None)
    assert speed.judge("a", measured).state == "ok"
    slow = speed.judge("a", measured._replace(ms=40.0, busy=0.4, load=9.0, limit=0.5))
    assert slow.state == "warning"
    assert "40.0 ms an image with 2 threads; 7.5 is usual" in slow.found
    assert "0.4 of 2 processors were busy" in slow.found
    assert "limit 0.5 processors" in slow.found
    assert "with 1 thread;" in speed.judge("a", measured._replace(threads=1)).found
    assert "OMP_WAIT_POLICY=PASSIVE" in slow.way_out
    assert speed.expected(64) == speed.expected(16)


# The program


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    left_out = ("RAY_ADDRESS", "GLOO_SOCKET_IFNAME")
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    command = [sys.executable, "-m", "fbp_ray.doctor", *words]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=300, env={**kept, **environment}
    )


def test_a_good_machine_passes(scan: Path, tmp_path: Path) -> None:
    done = run("--data.dir", str(scan), "--run.storage", str(tmp_path / "runs"), "--scaling.interface", "lo")
    assert done.returncode == 0, done.stdout + done.stderr
    seen = {row.split()[1] for row in done.stdout.splitlines() if row.startswith(("ok", "warning"))}
    assert {"versions", "processors", "GPU", "disk", "interface", "storage", "data", "kernel", "speed"} <= seen
    assert "no faults" in done.stdout
    assert not done.stderr
    assert not list(tmp_path.iterdir())


def test_one_machine_is_looked_at_without_ray(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from fbp_ray.doctor.__main__ import main\n"
        f"main(['--quick', '--run.storage', {str(tmp_path)!r}])\n"
        "assert 'ray' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)


def test_what_is_wrong_is_named_with_the_way_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs").write_text("")
    words = ["--quick", "--data.dir", str(tmp_path / "none"), "--run.storage", str(tmp_path / "runs")]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--scaling.interface", "nope7"])
    assert ended.value.code == 1
    said = capsys.readouterr().out
    end = said[said.index("fault: ") :]
    assert f"there is no data folder {tmp_path / 'none'}" in end
    assert "there is no interface 'nope7'" in end
    assert f"{tmp_path / 'runs'} cannot be used" in end
    assert end.count("way out: ") == 3
    assert "3 faults" in end


def test_a_terminal_gets_a_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    found = [Finding("data", "a [b]", "fault", "there is\nno folder", "mount it"), Finding("disk", "a", "ok", "free")]
    assert show(iter(found), as_json=False) == found
    said = capsys.readouterr().out
    rows = [row.split() for row in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said).splitlines()]
    assert ["state", "check", "machine", "found"] in rows
    assert ["fault", "data", "a", "[b]", "there", "is", "no", "folder"] in rows
    assert "way out: mount it" in said


def test_a_program_gets_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--quick", "--json", "--data.dir", str(tmp_path / "none"), "--run.storage", str(tmp_path)])
    found = [Finding(**entry) for entry in json.loads(capsys.readouterr().out)]
    (fault,) = faults(found)
    assert (fault.check, bool(fault.way_out)) == ("data", True)
    assert {"versions", "storage", "kernel"} <= {finding.check for finding in found}
    assert "speed" not in {finding.check for finding in found}


def test_a_cluster_that_does_not_answer_is_a_finding_and_the_machine_is_looked_at(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = int(server.getsockname()[1])
    done = run("--quick", "--run.storage", str(tmp_path), RAY_ADDRESS=f"127.0.0.1:{closed}")
    assert done.returncode == 1
    assert f"no Ray cluster answers at 127.0.0.1:{closed}" in done.stdout
    assert "1 fault," in done.stdout
    assert "kernel" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_an_option_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--storage", "runs"])
    assert ended.value.code == 2
    assert "--storage" in capsys.readouterr().err


def test_a_check_that_hangs_does_not_hang_the_doctor() -> None:
    begin = time.monotonic()
    (answer,) = Here("this machine").everywhere(functools.partial(time.sleep, 20), 0.2).values()
    assert answer == Trouble("no answer within 0.2 s")
    assert time.monotonic() - begin < 5


def test_lines_and_advice() -> None:
    found = [
        Finding("storage", "b", "fault", "there is\nno folder", "mount it"),
        Finding("disk", "a", "warning", "full", "make room"),
        Finding("data", "a", "ok", "good"),
    ]
    assert line(found[0]) == "fault   storage     b: there is no folder"
    assert advice(found) == [
        "",
        "warning: disk, a: full",
        "  way out: make room",
        "",
        "fault: storage, b: there is no folder",
        "  way out: mount it",
        "",
        "1 fault, 1 warning",
    ]
    assert some(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


# A cluster


def test_a_good_cluster_passes(cluster: None, scan: Path, tmp_path: Path) -> None:
    words = {"data": {"dir": scan}, "run": {"storage": str(tmp_path)}, "ray": {"address": "auto"}}
    found = list(examine(DoctorConfig.model_validate(words)))
    assert not faults(found)
    assert {"cluster", "versions", "interface", "storage", "data", "kernel", "speed"} <= {f.check for f in found}
    (shared,) = [finding for finding in found if finding.check == "storage"]
    assert "all others see" in shared.found
    assert shared.machine.startswith("this process")
    assert not list(tmp_path.iterdir())


def test_a_node_that_does_not_answer_in_time_is_asked_again(cluster: None) -> None:
    from fbp_ray.doctor.nodes import Nodes

    nodes = Nodes()
    try:
        assert list(nodes.everywhere(checks.hello, 120).values()) == [socket.gethostname()]
        (late,) = nodes.everywhere(functools.partial(time.sleep, 60), 1).values()
        assert late == Trouble("no answer within 1 s")
        assert list(nodes.everywhere(checks.hello, 120).values()) == [socket.gethostname()]
        (lost,) = nodes.everywhere(functools.partial(os._exit, 1), 60).values()
        assert isinstance(lost, Trouble)
        assert list(nodes.everywhere(checks.hello, 120).values()) == [socket.gethostname()]
    finally:
        nodes.close()


def test_a_wrong_interface_of_a_node_is_named(cluster: None) -> None:
    from fbp_ray.doctor.nodes import Nodes

    nodes = Nodes()
    try:
        (fault,) = network.check_network(nodes, "nope7")
    finally:
        nodes.close()
    assert (fault.state, fault.machine) == ("fault", nodes.names[0])
    assert "'nope7'" in fault.found
