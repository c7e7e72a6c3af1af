"""The doctor: it passes on a good machine and a good cluster, and names the machine, the fault and the remedy."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import torch

from fbp_ray.doctor import DoctorConfig, checks, main, show
from fbp_ray.doctor import machine as machine_facts
from fbp_ray.doctor.checks import DECISIVE, Finding, check_interface, check_versions
from fbp_ray.doctor.cluster import Peer, collect, examine, ray_nodes, start
from fbp_ray.doctor.machine import CODE, Machine, MachineReport, Request, examine_machine, leave_mark
from fbp_ray.errors import ConfigError
from fbp_ray.storage import open_folder
from tests.support.scans import write_scan

ROOT = Path(__file__).parents[2]
THIS = Machine("this machine")
REPORT = MachineReport(
    versions=dict.fromkeys(DECISIVE, "1.0") | {"piq": "0.8.0", CODE: "0123abcd"},
    unmet={},
    processors=2,
    gpus=[],
    cards=0,
    cuda=None,
    triton=True,
    interfaces={"lo": ["127.0.0.1"], "eth0": ["10.0.0.1"], "eth1": ["192.168.0.1", "fd00::1"], "wlan": []},
    gloo=None,
    temporary="/tmp",
    disks={},
    data=None,
    errors={"project on cpu": 1e-7},
    ms=None,
    problems={},
)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scan(tmp_path_factory.mktemp("doctor") / "data")


@pytest.fixture(autouse=True)
def no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def faults(findings: Any) -> list[Finding]:
    return [finding for finding in findings if finding.state == "fault"]


def named(*reports: MachineReport) -> dict[Machine, MachineReport]:
    return {Machine(name): report for name, report in zip("abc", reports, strict=False)}


# Versions


def has(**other: str) -> MachineReport:
    changed = {CODE if name == "code" else name: version for name, version in other.items()}
    return replace(REPORT, versions=REPORT.versions | changed)


def test_equal_versions_are_one_finding() -> None:
    (finding,) = check_versions(named(has(), has()))
    assert (finding.state, finding.machine, finding.remedy) == ("ok", "a, b", "")
    assert "numpy 1.0" in finding.found


@pytest.mark.parametrize(
    ("found", "machine", "state", "said"),
    [
        ([has(), has(numpy="1.26.4"), has()], "b", "fault", "numpy is 1.26.4, but 1.0 on a, c"),
        ([has(), has(code="ffff0000"), has()], "b", "fault", "the code of fbp_ray is ffff0000, but 0123abcd on a, c"),
        ([has(), has(), has(piq="0.9.0")], "c", "warning", "piq is 0.9.0, but 0.8.0 on a, b"),
        ([has(), replace(has(numpy="0.9"), unmet={"numpy": "numpy is 0.9"})], "b", "fault", "numpy is 0.9"),
    ],
)
def test_the_machine_with_another_version_is_named(
    found: list[MachineReport], machine: str, state: str, said: str
) -> None:
    (finding,) = check_versions(named(*found))
    assert (finding.check, finding.machine, finding.state, finding.found) == ("versions", machine, state, said)
    assert "constraints.txt" in finding.remedy


def test_the_code_is_known_by_a_digest(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "b.yaml").write_text("2")
    first = machine_facts.digest(tmp_path)
    (tmp_path / "c.pyc").write_text("not code")
    assert machine_facts.digest(tmp_path) == first
    (tmp_path / "inner" / "b.yaml").write_text("3")
    assert machine_facts.digest(tmp_path) != first


# Processors, GPUs, disks


@pytest.mark.parametrize(
    ("in_ray", "seen", "cards", "state", "said"),
    [
        (0, [], 0, "ok", "none"),
        (None, ["H100"], 0, "ok", "H100"),
        (2, [], 0, "fault", "Ray was told of 2, but torch, built for CPUs alone, sees 0"),
        (0, ["H100"], 1, "warning", "the others stay idle"),
        (None, [], 1, "warning", "the machine has 1"),
    ],
)
def test_gpus_of_torch_and_of_ray_are_compared(
    in_ray: int | None, seen: list[str], cards: int, state: str, said: str
) -> None:
    _, finding = checks.check_hardware({Machine("a", gpus=in_ray): replace(REPORT, gpus=seen, cards=cards)})
    assert (finding.check, finding.machine, finding.state) == ("GPU", "a", state)
    assert said in finding.found
    assert (finding.remedy == "") == (state == "ok")


def test_a_gpu_without_triton_and_more_processors_than_there_are_are_warnings() -> None:
    found = checks.check_hardware({Machine("a", cpus=64, gpus=1): replace(REPORT, gpus=["H100"], triton=False)})
    processors, triton = found
    assert processors.state == triton.state == "warning"
    assert processors.found == "Ray was told of 64, but it may use 2"
    assert "triton" in triton.found


@pytest.mark.parametrize(
    ("holds", "free", "total", "state"),
    [
        ("storage", 0.5, 100, "warning"),
        ("storage", 50, 100, "ok"),
        ("Ray", 4, 20, "warning"),
        ("Ray", 40, 1000, "warning"),
        ("Ray", 60, 1000, "ok"),
        ("shared memory", 0.06, 0.0625, "warning"),
    ],
)
def test_full_disks_are_warnings(holds: str, free: float, total: float, state: str) -> None:
    (finding,) = checks.check_disks({THIS: replace(REPORT, disks={f"{holds} (/there)": (total, free)})})
    assert (finding.check, finding.state) == ("disk", state)
    assert f"{holds} (/there): {free:.1f} of" in finding.found


def test_a_folder_too_long_for_rays_sockets_is_a_fault() -> None:
    long, short = (replace(REPORT, temporary="/" + "x" * count) for count in (39, 38))
    room = {"Ray (/xxx)": (100.0, 50.0)}
    (fault,) = checks.check_disks({THIS: replace(long, disks=room)})  # and no line says that the folder is right
    assert fault.state == "fault"
    assert "make room" not in fault.remedy
    assert "TMPDIR is /xxx" in fault.found
    assert "leave 39 characters" in fault.found
    assert "such as /tmp" in fault.remedy
    assert not list(checks.check_disks({THIS: short}))


# Interfaces and connections

A = Machine("a", address="10.0.0.1")


@pytest.mark.parametrize(
    ("wanted", "several", "said"),
    [
        ("eth7", True, "there is no interface 'eth7'"),
        ("eth7", False, "there is no interface 'eth7'"),
        ("wlan", False, "there is no interface 'wlan' that is up and has an address; there are eth0 (10.0.0.1), "),
        ("lo", True, "lo (127.0.0.1) is the loopback, which no other machine can reach"),
    ],
)
def test_a_wrong_interface_is_a_fault(wanted: str, several: bool, said: str) -> None:
    finding, address = check_interface(A, REPORT, wanted, several)
    assert address == ""
    assert (finding.check, finding.machine, finding.state) == ("interface", "a", "fault")
    assert said in finding.found
    assert "--scaling.interface" in finding.remedy


def test_the_interface_is_the_one_given_that_of_the_environment_or_that_of_rays_address() -> None:
    assert check_interface(A, REPORT, "eth1", True)[1] == "192.168.0.1"
    assert check_interface(A, replace(REPORT, gloo="eth1"), None, True)[1] == "192.168.0.1"
    assert check_interface(A, REPORT, None, True)[1] == "10.0.0.1"
    assert check_interface(Machine("a"), REPORT, None, False)[0].state == "ok"
    finding, address = check_interface(Machine("a", address="172.16.0.9"), REPORT, None, True)
    assert (finding.state, address) == ("warning", "")
    assert "172.16.0.9" in finding.found


def test_a_peer_that_is_not_reached_is_named() -> None:
    one, other = Peer("127.0.0.1"), Peer("127.0.0.1")
    places = {"one": ("127.0.0.1", one.listen()), "other": ("127.0.0.1", other.listen())}
    assert one.reach(places) == other.reach(places) == ""
    other.server.close()
    assert one.reach(places).startswith("opens no connection to other: ")
    one.server.close()


# Storage


def share(first: Path | str, *others: Path | str) -> tuple[list[Finding], str]:
    """What is found where machines have these folders in the place of the storage, and the folder that was tried."""
    mark = uuid4().hex
    place = leave_mark(str(first), mark)
    reports = [examine_machine(Request(str(there), mark)) for there in (place, *others)]
    open_folder(place).remove(mark)
    return list(checks.check_problems(named(*reports))), place


def test_a_storage_that_all_share_passes_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    assert share(tmp_path / "new" / "runs", tmp_path) == ([], str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_an_object_store_passes_and_nothing_is_left_in_it(object_store: str) -> None:
    storage = f"{object_store}/{uuid4().hex}/runs"
    assert share(storage, storage) == ([], storage)
    assert not open_folder(storage).names()


@pytest.mark.parametrize(
    ("exists", "said"), [(True, "is a folder of this machine's own"), (False, "there is no folder")]
)
def test_a_machine_that_does_not_share_the_storage_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool, said: str
) -> None:
    monkeypatch.setattr(machine_facts, "SETTLE_SECONDS", 0.1)
    shared, own = tmp_path / "shared", tmp_path / "own"
    shared.mkdir()
    if exists:
        own.mkdir()
    (fault,), _ = share(shared, own, shared)
    assert (fault.check, fault.machine, fault.state) == ("storage", "b", "fault")
    assert said in fault.found
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
        config = DoctorConfig.model_validate({"run": {"storage": str(place)}, "quick": True})
        (fault,) = faults(examine(config))
        assert fault.found.startswith(f"{place} cannot be used: ")
        assert "--run.storage" in fault.remedy
    assert (tmp_path / "runs").is_file()


# Data


def check_data(*folders: Path) -> list[Finding]:
    reports = named(*(examine_machine(Request("s3://none", data=str(folder))) for folder in folders))
    return [*checks.check_problems(reports), *checks.check_data(reports)]


def test_the_same_data_everywhere_pass(scan: Path) -> None:
    (finding,) = check_data(scan, scan)
    assert (finding.state, finding.machine) == ("ok", "a, b")
    assert "12 train and 5 validation samples, sinograms (60, 67), images (47, 47)" in finding.found


def test_a_machine_with_other_data_or_none_is_named(scan: Path, tmp_path: Path) -> None:
    damaged = write_scan(tmp_path / "damaged")
    (damaged / "ground_truth_train_000.hdf5").write_bytes(b"nothing")
    (fault,) = faults(check_data(scan, write_scan(tmp_path / "other", train=11), scan))
    assert fault.machine == "b"
    assert "11 train and 5 validation samples" in fault.found
    assert "but on a, c: 12 train" in fault.found
    missing, broken = faults(check_data(scan, tmp_path / "gone", damaged))
    assert (missing.machine, broken.machine) == ("b", "c")
    assert "there is no data folder" in missing.found
    assert "--data.dir" in missing.remedy
    assert "ground_truth_train_000.hdf5" in broken.found


# Kernel and speed


@pytest.mark.parametrize("factor", [1.001, float("nan")])
def test_a_projector_that_computes_wrongly_is_a_fault(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    right = machine_facts.backproject
    monkeypatch.setattr(machine_facts, "backproject", lambda *scan, **how: factor * right(*scan, **how))
    (fault,) = faults(checks.check_kernel({THIS: examine_machine(Request("s3://none"))}))
    assert f"backproject on cpu, 1 at a time is off by {factor - 1:.2g}" in fault.found
    assert not re.search(r"(^|; )project", fault.found)


def test_a_projector_that_fails_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no compiler")

    monkeypatch.setattr(machine_facts, "backproject", fail)
    (fault,) = checks.check_problems({THIS: examine_machine(Request("s3://none"))})
    assert (fault.state, fault.found) == ("fault", "OSError: no compiler")


def test_speed_is_measured_on_the_processors_that_ray_counts_on() -> None:
    before = torch.get_num_threads()
    report = examine_machine(Request("s3://none", speed=True, cpus=1))
    (finding,) = checks.check_speed({Machine("a", cpus=1): report})
    assert "ms an image on 1 of 2 processors; 9.3 is usual" in finding.found.replace(f"of {report.processors}", "of 2")
    assert torch.get_num_threads() == before


def test_a_machine_that_is_three_times_slower_is_a_warning() -> None:
    fast, slow = checks.check_speed(named(replace(REPORT, ms=7.6), replace(REPORT, ms=40.0)))
    assert (fast.state, slow.state) == ("ok", "warning")
    assert "40.0 ms an image on 2 of 2 processors; 4.7 is usual" in slow.found
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
    end = said[said.index("\nfault ") :]
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


def test_faults_stand_last_with_their_remedies(capsys: pytest.CaptureFixture[str]) -> None:
    show(FOUND, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "ok      GPU         a      none",
        "warning disk        a      full",
        "        remedy: make room",
        "fault   data        a [b]  there is no folder",
        "        remedy: mount it",
        "1 fault, 1 warning",
    ]
    assert checks.names(map(Machine, "abcde")) == "a, b, c and 2 more"


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


def test_an_option_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="--storage: there is no such option"):
        main(["--storage", "runs"])


def test_a_machine_that_hangs_does_not_hang_the_doctor() -> None:
    answers, silent = collect({THIS: start(THIS, threading.Event().wait)}, 0.2)
    assert not answers
    assert silent == {THIS: "no answer within 0.2 s"}


# A cluster


def test_a_good_cluster_passes(cluster: None, scan: Path, tmp_path: Path) -> None:
    words = {"data": {"dir": scan}, "run": {"storage": str(tmp_path)}, "ray": {"address": "auto"}}
    found = examine(DoctorConfig.model_validate(words))
    assert not faults(found)
    assert {"cluster", "versions", "interface", "storage", "data", "kernel", "speed"} <= {f.check for f in found}
    (shared,) = [finding for finding in found if finding.check == "storage"]
    assert "all see what one writes" in shared.found
    assert shared.machine.startswith("this process")
    assert not list(tmp_path.iterdir())


def test_a_node_that_is_silent_or_loses_its_process_is_named(cluster: None) -> None:
    (node,), lost = ray_nodes()
    assert not lost
    assert collect({node: start(node, lambda: time.sleep(60))}, 1) == ({}, {node: "no answer within 1 s"})
    answers, silent = collect({node: start(node, lambda: os._exit(1))}, 120)
    assert (answers, list(silent)) == ({}, [node])
    assert collect({node: start(node, lambda: socket.gethostname())}, 120) == ({node: socket.gethostname()}, {})


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
