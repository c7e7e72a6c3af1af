"""The doctor: it passes on a good machine and a good cluster, and names the machine, the fault and the remedy."""

from __future__ import annotations

import functools
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import torch

from fbp_ray.doctor import DoctorConfig, cluster_checks, examine, kernel, machine_checks, main, show
from fbp_ray.doctor.cluster_checks import Endpoint, Interfaces, check_connections, check_data, choose_interface
from fbp_ray.doctor.machine_checks import CODE, Installed, check_versions
from fbp_ray.doctor.machines import Failure, Finding, Machine, ask, names, ray_nodes
from tests.support.scans import write_scan

ROOT = Path(__file__).parents[2]
THIS = Machine("this machine")


class Elsewhere(Machine):
    """This machine under another name, where a path begins with something else."""

    def __init__(self, name: str, old: Path, new: Path) -> None:
        super().__init__(name)
        self.old, self.new = str(old), str(new)

    def start(self, task: Callable[[], Any]) -> Future[Any | Failure]:
        assert isinstance(task, functools.partial)
        words = [word.replace(self.old, self.new) if isinstance(word, str) else word for word in task.args]
        return super().start(functools.partial(task.func, *words))


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


def has(**other: str) -> Installed:
    usual = {"python": "3.11.9", "torch": "2.15.0", "numpy": "2.4.1", "piq": "0.8.0", CODE: "0123abcd"}
    rest = {name: "1.0" for name in machine_checks.DECISIVE if name not in usual}
    return Installed(usual | rest | {CODE if name == "code" else name: value for name, value in other.items()}, {})


def compare(*found: Installed) -> list[Finding]:
    return list(check_versions({Machine(name): there for name, there in zip("abc", found, strict=False)}))


def test_equal_versions_are_one_finding() -> None:
    (finding,) = compare(has(), has())
    assert (finding.state, finding.machine) == ("ok", "a, b")
    assert finding.found.startswith("equal: ")
    assert "numpy 2.4.1" in finding.found


@pytest.mark.parametrize(
    ("found", "machine", "state", "said"),
    [
        ([has(), has(numpy="1.26.4"), has()], "b", "fault", "numpy is 1.26.4, but 2.4.1 on a, c"),
        ([has(), has(python="3.12.1")], "b", "fault", "python is 3.12.1, but 3.11.9 on a"),
        ([has(), has(code="ffff0000"), has()], "b", "fault", "the code of fbp_ray is ffff0000, but 0123abcd on a, c"),
        ([has(), has(), has(piq="0.9.0")], "c", "warning", "piq is 0.9.0, but 0.8.0 on a, b"),
        (
            [has(), has(numpy="1.26.4")._replace(unmet={"numpy": "numpy is 1.26.4, but fbp-ray needs numpy>=2.0"})],
            "b",
            "fault",
            "numpy is 1.26.4, but fbp-ray needs numpy>=2.0",
        ),
    ],
)
def test_the_machine_with_another_version_is_named(found: list[Installed], machine: str, state: str, said: str) -> None:
    (finding,) = compare(*found)
    assert (finding.check, finding.machine, finding.state, finding.found) == ("versions", machine, state, said)
    assert "constraints.txt" in finding.remedy


def test_the_code_is_known_by_a_digest(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "b.yaml").write_text("2")
    first = machine_checks.digest(tmp_path)
    (tmp_path / "c.pyc").write_text("not code")
    assert machine_checks.digest(tmp_path) == first
    (tmp_path / "inner" / "b.yaml").write_text("3")
    assert machine_checks.digest(tmp_path) != first


def test_what_is_missing_or_outside_the_tested_range_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    numpy, ray, missing = (fault.found for fault in faults(compare(machine_checks.installed())))
    assert re.fullmatch(r"numpy is 2.*, but fbp-ray needs numpy>=99", numpy)
    assert re.fullmatch(r"ray is 2.*, but fbp-ray needs ray\[train\]<2", ray)
    assert missing == "no-such-package is not installed, but fbp-ray needs no-such-package"


# Processors, GPUs, disks


@pytest.mark.parametrize(
    ("in_ray", "seen", "cards", "cuda", "state", "said"),
    [
        (0, [], 0, None, "ok", "none"),
        (None, ["H100"], 0, "13.2", "ok", "H100"),
        (1, ["H100"], 0, "13.2", "ok", "H100"),
        (2, [], 0, "13.2", "fault", "told of 2 GPUs, but torch sees 0; torch was built for CUDA 13.2"),
        (2, [], 0, None, "fault", "torch for CPUs alone"),
        (0, ["H100"], 0, "13.2", "warning", "stay idle"),
        (None, [], 1, None, "warning", "the machine has 1 GPUs, but torch sees 0"),
        (0, [], 0, "13.2", "warning", "finds no driver"),
    ],
)
def test_gpus_of_torch_and_of_ray_are_compared(
    in_ray: int | None, seen: list[str], cards: int, cuda: str | None, state: str, said: str
) -> None:
    (finding,) = machine_checks.compare_gpus("a", in_ray, seen, cards, cuda, triton=True)
    assert (finding.machine, finding.state) == ("a", state)
    assert said in finding.found
    assert (finding.remedy == "") == (state == "ok")


def test_a_gpu_without_triton_is_a_warning() -> None:
    both = list(machine_checks.compare_gpus("a", 1, ["H100"], 1, "13.2", triton=False))
    assert states(both) == ["ok", "warning"]
    assert "triton" in both[1].found


def test_more_processors_than_there_are_is_a_warning() -> None:
    finding = machine_checks.compare_processors("a", 64, 2, 1.5)
    assert finding.state == "warning"
    assert "told of 64 processors, but it may use 2 (its container's limit is 1.5)" in finding.found
    assert "--num-cpus 2" in finding.remedy
    assert machine_checks.compare_processors("a", 0, 2, None).state == "ok"


@pytest.mark.parametrize(
    ("holds", "free", "total", "state", "remedy"),
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
def test_full_disks_are_warnings(holds: str, free: float, total: float, state: str, remedy: str) -> None:
    finding = machine_checks.check_room("a", holds, Path("/there"), total, free)
    assert (finding.check, finding.state) == ("disk", state)
    assert "/there" in finding.found
    assert remedy in finding.remedy


@pytest.mark.parametrize("variable", ["RAY_TMPDIR", "TMPDIR"])
def test_a_folder_too_long_for_rays_sockets_is_a_fault(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    for name in ("RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "/tmp/" + "x" * 60)
    (fault,) = faults(machine_checks.hardware("a", None, None, "s3://bucket/runs"))
    assert fault.found.startswith(f"{variable} is /tmp/xxx")
    assert f"set {variable} to a shorter path" in fault.remedy
    monkeypatch.setenv(variable, "/tmp/short")
    assert not faults(machine_checks.hardware("a", None, None, "s3://bucket/runs"))


# Interfaces and connections

THERE = Interfaces({"lo": ["127.0.0.1"], "eth0": ["10.0.0.1"], "eth1": ["192.168.0.1", "fd00::1"], "wlan": []}, None)
ETH1 = THERE._replace(environment="eth1")
A = Machine("a", "10.0.0.1")


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
    finding, endpoint = choose_interface(A, THERE, wanted, several)
    assert endpoint is None
    assert (finding.check, finding.machine, finding.state) == ("interface", "a", "fault")
    assert said in finding.found
    assert "--scaling.interface" in finding.remedy


def test_the_interface_is_the_one_given_that_of_the_environment_or_that_of_rays_address() -> None:
    assert choose_interface(A, THERE, "eth1", True)[1] == Endpoint("eth1", "192.168.0.1")
    assert choose_interface(A, ETH1, None, True)[1] == Endpoint("eth1", "192.168.0.1")
    assert choose_interface(A, THERE, None, True)[1] == Endpoint("eth0", "10.0.0.1")
    assert choose_interface(Machine("a"), THERE, None, False)[0].state == "ok"
    finding, endpoint = choose_interface(Machine("a", "172.16.0.9"), THERE, None, True)
    assert (finding.state, endpoint) == ("warning", None)
    assert "172.16.0.9" in finding.found


def test_machines_that_reach_each_other_pass() -> None:
    (finding,) = check_connections({Machine(name): Endpoint("lo", "127.0.0.1") for name in "abc"})
    assert (finding.state, finding.found) == ("ok", "they reach each other over lo")


def test_machines_that_do_not_reach_each_other_are_both_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = int(server.getsockname()[1])
    monkeypatch.setattr(cluster_checks, "listen", lambda address: closed)
    found = list(check_connections({Machine(name): Endpoint("lo", "127.0.0.1") for name in "ab"}))
    assert [(finding.machine, finding.state) for finding in found] == [("a", "fault"), ("b", "fault")]
    assert found[0].found.startswith("lo (127.0.0.1) opens no connection to b, lo (127.0.0.1): ")
    assert "firewall" in found[0].remedy


# Storage


def check_storage(place: Path | str, *machines: Machine) -> list[Finding]:
    return list(cluster_checks.check_storage(machines or [THIS], str(place)))


def test_a_storage_that_all_share_passes_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    (finding,) = check_storage(tmp_path / "new" / "runs", *map(Machine, "abc"))
    assert (finding.state, finding.machine) == ("ok", "a, b, c")
    assert not list(tmp_path.iterdir())
    (tmp_path / "runs").mkdir()
    assert states(check_storage(tmp_path / "runs")) == ["ok"]
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_an_object_store_passes_and_nothing_is_left_in_it(object_store: str) -> None:
    from fbp_ray.storage import open_folder

    place = f"{object_store}/{uuid4().hex}/runs"
    assert states(check_storage(place, *map(Machine, "ab"))) == ["ok"]
    assert not open_folder(place).names()


@pytest.mark.parametrize(
    ("exists", "said"), [(True, "is a folder of this machine's own"), (False, "there is no folder")]
)
def test_a_machine_that_does_not_share_the_storage_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool, said: str
) -> None:
    monkeypatch.setattr(cluster_checks, "SETTLE_SECONDS", 0.1)
    shared, own = tmp_path / "shared", tmp_path / "own"
    shared.mkdir()
    if exists:
        own.mkdir()
    (fault,) = check_storage(shared, Machine("a"), Elsewhere("b", shared, own), Machine("c"))
    assert (fault.check, fault.machine, fault.state) == ("storage", "b", "fault")
    assert said in fault.found
    assert "a wrote" in fault.found
    assert "--run.storage" in fault.remedy
    assert not list(shared.iterdir())
    assert own.exists() == exists
    assert not exists or not list(own.iterdir())


def test_a_storage_that_cannot_be_written_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    read_only = Path("/proc")  # where root cannot write either
    if os.geteuid() != 0:
        read_only = tmp_path / "read_only"
        read_only.mkdir(mode=0o500)
    for place in (tmp_path / "runs", read_only, "nowhere://bucket/runs"):
        (fault,) = check_storage(place)
        assert fault.state == "fault"
        assert fault.found.startswith(f"{place} cannot be used: ")
        assert "--run.storage" in fault.remedy
    assert (tmp_path / "runs").is_file()


# Data


def test_the_same_data_everywhere_pass(scan: Path) -> None:
    (finding,) = check_data([Machine("a"), Machine("b")], scan)
    assert (finding.state, finding.machine) == ("ok", "a, b")
    assert "12 train and 5 validation samples, sinograms (60, 67), images (47, 47)" in finding.found


def test_a_machine_with_other_data_or_none_is_named(scan: Path, tmp_path: Path) -> None:
    machines = [Machine("a"), Elsewhere("b", scan, write_scan(tmp_path / "other", train=11)), Machine("c")]
    (fault,) = faults(check_data(machines, scan))
    assert fault.machine == "b"
    assert "11 train and 5 validation samples" in fault.found
    assert "but on a, c: 12 train" in fault.found
    (fault,) = faults(check_data([Machine("a"), Elsewhere("b", scan, tmp_path / "gone")], scan))
    assert (fault.check, fault.machine) == ("data", "b")
    assert "there is no data folder" in fault.found
    assert "--data.dir" in fault.remedy


def test_damaged_data_are_a_fault(tmp_path: Path) -> None:
    folder = write_scan(tmp_path / "data")
    (folder / "ground_truth_train_000.hdf5").write_bytes(b"nothing")
    (fault,) = faults(check_data([THIS], folder))
    assert "ground_truth_train_000.hdf5" in fault.found


# Kernel and speed


def test_the_kernels_of_this_machine_are_right() -> None:
    (tried,) = [finding for finding in kernel.check_kernel([THIS]) if "cpu" in finding.found]
    assert tried.state == "ok", tried


@pytest.mark.parametrize("factor", [1.001, float("nan")])
def test_kernels_that_compute_wrongly_are_a_fault(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    right = kernel.backproject
    monkeypatch.setattr(kernel, "backproject", lambda y, geometry: factor * right(y, geometry))
    (fault,) = faults(kernel.check_kernel([THIS]))
    assert f"backproject, against float64, is off by {factor - 1:.2g}" in fault.found
    assert "transpose" in fault.found
    assert "project, against float64, is off" not in fault.found.replace("backproject, against", "")


def test_kernels_that_cannot_be_kept_are_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file" / "cache"))
    (warning,) = kernel.check_kernel([THIS])
    assert warning.state == "warning"
    assert "NUMBA_CACHE_DIR" in warning.remedy


def test_speed_is_measured_on_the_processors_that_ray_counts_on() -> None:
    before = torch.get_num_threads()
    (finding,) = kernel.check_speed([Machine("a", cpus=1)])
    assert "ms an image with 1 thread; 9.3 is usual" in finding.found
    assert torch.get_num_threads() == before


def test_a_machine_that_is_three_times_slower_is_a_warning() -> None:
    assert kernel.compare_speed("a", ms=7.6, threads=2, busy=1.9).state == "ok"
    slow = kernel.compare_speed("a", ms=40.0, threads=2, busy=0.4)
    assert slow.state == "warning"
    assert "40.0 ms an image with 2 threads; 4.7 is usual" in slow.found
    assert "0.4 of 2 processors were busy" in slow.found
    assert "OMP_WAIT_POLICY=PASSIVE" in slow.remedy


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
        "from fbp_ray.doctor import main\n"
        f"main(['--quick', '--run.storage', {str(tmp_path)!r}])\n"
        "assert 'ray' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)


def test_what_is_wrong_is_named_with_the_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    assert end.count("remedy: ") == 3
    assert "3 faults" in end


FOUND = [
    Finding("data", "a [b]", "fault", "there is\nno folder", "mount it"),
    Finding("disk", "a", "warning", "full", "make room"),
    Finding("GPU", "a", "ok", "none"),
]


def test_a_terminal_gets_a_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    assert show(iter(FOUND), as_json=False) == FOUND
    said = capsys.readouterr().out
    rows = [row.split() for row in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said).splitlines()]
    assert ["state", "check", "machine", "found"] in rows
    assert ["fault", "data", "a", "[b]", "there", "is", "no", "folder"] in rows
    assert "remedy: mount it" in said


def test_a_log_gets_lines_and_the_remedies_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    show(iter(FOUND), as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "fault   data        a [b]: there is no folder",
        "warning disk        a: full",
        "ok      GPU         a: none",
        "",
        "warning: disk, a: full",
        "  remedy: make room",
        "",
        "fault: data, a [b]: there is no folder",
        "  remedy: mount it",
        "",
        "1 fault, 1 warning",
    ]
    assert names(map(Machine, "abcde")) == "a, b, c and 2 more"


def test_a_program_gets_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--quick", "--json", "--data.dir", str(tmp_path / "none"), "--run.storage", str(tmp_path)])
    found = [Finding(**entry) for entry in json.loads(capsys.readouterr().out)]
    (fault,) = faults(found)
    assert (fault.check, bool(fault.remedy)) == ("data", True)
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


def test_a_task_that_hangs_does_not_hang_the_doctor() -> None:
    begin = time.monotonic()
    answers, (fault,) = ask("disk", {THIS: functools.partial(time.sleep, 20)}, 0.2, "look at it")
    assert not answers
    assert fault == Finding("disk", "this machine", "fault", "no answer within 0.2 s", "look at it")
    assert time.monotonic() - begin < 5


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
    (node,), _ = ray_nodes()
    assert ask("a", {node: socket.gethostname}, 120, "") == ({node: socket.gethostname()}, [])
    _, (late,) = ask("b", {node: functools.partial(time.sleep, 60)}, 1, "")
    assert late.found == "no answer within 1 s"
    _, (lost,) = ask("c", {node: functools.partial(os._exit, 1)}, 120, "")
    assert lost.found.startswith("no process could be started there, or it was lost: ")
    assert ask("a", {node: socket.gethostname}, 120, "")[0] == {node: socket.gethostname()}


def test_a_wrong_interface_of_a_node_is_named(cluster: None) -> None:
    nodes, _ = ray_nodes()
    (fault,) = cluster_checks.check_network(nodes, "nope7")
    assert (fault.state, fault.machine) == ("fault", nodes[0].name)
    assert "'nope7'" in fault.found


def test_a_cluster_of_other_versions_is_a_finding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import ray

    error = (
        "Version mismatch: The cluster was started with:\n    Ray: 2.50.0\nThis process was started with:\n Ray: 2.60.0"
    )

    def refuse(**options: Any) -> None:
        raise RuntimeError(error)

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    words = {"run": {"storage": str(tmp_path)}, "ray": {"address": "auto"}, "quick": True}
    (fault,) = faults(examine(DoctorConfig.model_validate(words)))
    assert fault.check == "versions"
    assert "Ray: 2.50.0" in fault.found
    assert "same environment" in fault.remedy
