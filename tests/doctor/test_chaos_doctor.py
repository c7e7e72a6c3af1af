"""The doctor on two hosts with a network between them: it passes, and names the host that has a fault.

`pytest -m chaos`: real processes, real `ray start`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fbp_ray
from fbp_ray.doctor.checks import Finding
from tests.support.hosts import PORT, Host, two_hosts
from tests.support.scans import write_scan

pytestmark = pytest.mark.chaos

SECONDS = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and a place for runs that both hosts see, and in `hidden` the same again, which the second one does not."""
    made = tmp_path_factory.mktemp("doctor")
    for place in (made, made / "hidden"):
        write_scan(place / "data")
        (place / "runs").mkdir()
    return made


@pytest.fixture(scope="module")
def hosts(folder: Path) -> Iterator[tuple[Host, Host]]:
    """A head and another machine, which finds `hidden` empty."""
    with two_hosts(Path("/tmp/fbpdoc")) as (head, other):
        if head.namespace is None:
            pytest.skip("without root no folder can be hidden from a process, and there is one interface only")
        head.start_ray(head, folder / "ray")
        other.start_ray(head, folder / "ray", without=folder / "hidden")
        yield head, other


def examine(head: Host, folder: Path, log: Path, **changed: Any) -> tuple[int, list[Finding], str]:
    """The doctor's exit code, what it found, and all that it said."""
    options = {
        "ray.address": f"{head.address}:{PORT}",
        "data.dir": folder / "data",
        "run.storage": folder / "runs",
        **{name.replace("_", "."): value for name, value in changed.items()},
    }
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    process = head.start([sys.executable, "-m", "fbp_ray.doctor", "--quick", "--json", *words], log)
    code = process.wait(SECONDS)
    said = log.read_text()
    assert "Traceback" not in said
    return code, [Finding(**entry) for entry in json.loads(said[said.index("[\n") :])], said


def faults(found: list[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.state == "fault"]


def test_a_good_stack_passes(hosts: tuple[Host, Host], folder: Path, tmp_path: Path) -> None:
    code, found, said = examine(hosts[0], folder, tmp_path / "log")
    assert code == 0, said
    network = [finding.found for finding in found if finding.check == "network"]
    assert network == ["they reach each other over eth0"]
    interfaces = {finding.machine.split()[0]: finding.found for finding in found if finding.check == "interface"}
    assert interfaces == {host.address: f"eth0 ({host.address})" for host in hosts}
    assert not list((folder / "runs").iterdir())


def test_a_storage_that_one_host_does_not_share_is_named(
    hosts: tuple[Host, Host], folder: Path, tmp_path: Path
) -> None:
    head, other = hosts
    (folder / "hidden" / "runs").mkdir(exist_ok=True)
    code, found, said = examine(head, folder, tmp_path / "log", run_storage=folder / "hidden" / "runs")
    assert code == 1
    (fault,) = faults(found)
    assert fault.check == "storage", said
    assert fault.machine.startswith(other.address)
    assert "there is no folder" in fault.found
    assert "--run.storage" in fault.remedy
    (fault,) = faults(examine(head, folder, tmp_path / "log2", run_storage=folder / "hidden")[1])
    assert fault.machine.startswith(other.address)
    assert "is a folder of this machine's own" in fault.found
    assert not list((folder / "hidden" / "runs").iterdir())


def test_a_data_folder_that_one_host_lacks_is_named(hosts: tuple[Host, Host], folder: Path, tmp_path: Path) -> None:
    head, other = hosts
    code, found, said = examine(head, folder, tmp_path / "log", data_dir=folder / "hidden" / "data")
    assert code == 1
    (fault,) = faults(found)
    assert fault.check == "data", said
    assert fault.machine.startswith(other.address)
    assert f"there is no data folder {folder / 'hidden' / 'data'}" in fault.found


@pytest.mark.parametrize(("name", "said"), [("eth7", "there is no interface 'eth7'"), ("lo", "is the loopback")])
def test_a_wrong_interface_is_named(
    hosts: tuple[Host, Host], folder: Path, tmp_path: Path, name: str, said: str
) -> None:
    code, found, _ = examine(hosts[0], folder, tmp_path / "log", scaling_interface=name)
    assert code == 1
    assert {fault.machine.split()[0] for fault in faults(found)} == {host.address for host in hosts}
    assert all(fault.check == "interface" and said in fault.found for fault in faults(found))


def test_an_interface_that_leads_nowhere_is_named_with_both_ends(
    hosts: tuple[Host, Host], folder: Path, tmp_path: Path
) -> None:
    for number, host in enumerate(hosts, start=1):
        for words in (
            ["link", "add", "eth1", "type", "veth", "peer", "name", "eth1-end"],
            ["addr", "add", f"10.78.0.{number}/24", "dev", "eth1"],
            ["link", "set", "eth1", "up"],
            ["link", "set", "eth1-end", "up"],
        ):
            subprocess.run(["ip", "-n", str(host.namespace), *words], check=True, capture_output=True)
    code, found, said = examine(hosts[0], folder, tmp_path / "log", scaling_interface="eth1")
    assert code == 1
    first, second = faults(found)
    assert (first.check, second.check) == ("network", "network"), said
    assert first.machine.startswith(hosts[0].address)
    assert "eth1 (10.78.0.1) opens no connection to 10.77.0.2" in first.found
    assert "eth1 (10.78.0.2)" in first.found
    assert second.machine.startswith(hosts[1].address)


def test_a_cluster_of_another_ray_is_a_finding(hosts: tuple[Host, Host], folder: Path, tmp_path: Path) -> None:
    code = (
        "import ray, sys\n"
        "ray.__version__ = '2.61.0'\n"
        "from fbp_ray.doctor import main\n"
        f"main(['--quick', '--ray.address', '{hosts[0].address}:{PORT}', '--run.storage', {str(folder / 'runs')!r}])\n"
    )
    process = hosts[0].start([sys.executable, "-c", code], tmp_path / "log")
    assert process.wait(SECONDS) == 1
    said = (tmp_path / "log").read_text()
    assert "fault   versions    this process" in said
    assert "Ray: 2.61.0" in said
    assert "Traceback" not in said


def test_a_host_that_is_lost_is_named_and_the_others_are_looked_at(
    hosts: tuple[Host, Host], folder: Path, tmp_path: Path
) -> None:
    """The last but one: one host is left."""
    head, other = hosts
    other.kill()
    _, found, said = examine(head, folder, tmp_path / "log")
    named = [finding for finding in found if finding.machine.startswith(other.address)]
    assert [finding.check for finding in named] == ["cluster"], said
    assert named[0].state in ("warning", "fault")  # as the head knows it already, or does not yet
    kernels = [finding.machine.split()[0] for finding in found if finding.check == "kernel"]
    assert kernels == [head.address]


def test_another_version_of_a_package_and_older_code_on_one_host_are_named(
    hosts: tuple[Host, Host], folder: Path, tmp_path: Path
) -> None:
    """The last one: it starts the hosts again."""
    head, other = hosts
    own = tmp_path / "own"
    package = Path(fbp_ray.__file__).parent
    shutil.copytree(package, own / "fbp_ray", ignore=shutil.ignore_patterns("__pycache__"))
    (own / "fbp_ray" / "losses.py").write_text((package / "losses.py").read_text() + "# older\n")
    (own / "numpy-1.0.0.dist-info").mkdir()
    metadata = "Metadata-Version: 2.1\nName: numpy\nVersion: 1.0.0\n"
    (own / "numpy-1.0.0.dist-info" / "METADATA").write_text(metadata)
    for host in hosts:
        host.kill()
    head.start_ray(head, tmp_path / "ray")
    other.start_ray(head, tmp_path / "ray", without=package, PYTHONPATH=str(own))
    code, found, said = examine(head, folder, tmp_path / "log")
    assert code == 1
    numpy, older = faults(found)
    assert numpy.check == older.check == "versions", said
    assert numpy.machine == older.machine
    assert older.machine.startswith(other.address)
    assert numpy.found.startswith("numpy is 1.0.0, but ")
    assert older.found.startswith("the code of fbp_ray is ")
