"""A volume over two Ray nodes: the bytes are those of one process, and what cannot be done there is told in words."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import ray
import ray.data
import torch

from fbp_ray.cli import parse
from fbp_ray.reconstruct import ReconstructConfig, main, on_ray, program
from fbp_ray.reconstruct.partial import Partial
from fbp_ray.reconstruct.plan import make_plan
from fbp_ray.train.cluster import nodes
from tests.support.scans import write_scan

RAY = str(Path(sys.executable).with_name("ray"))


@pytest.fixture
def second_node(cluster: None) -> Iterator[None]:
    """Another node, of two processors, beside the one that all tests share."""
    address = ray.get_runtime_context().gcs_address
    words = [RAY, "start", f"--address={address}", "--num-cpus=2", "--block", "--object-store-memory=80000000"]
    node = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=dict(os.environ))
    said: list[str] = []
    try:
        assert node.stdout
        for line in node.stdout:
            said.append(line)
            if "runtime started" in line:
                break
        assert len(nodes()) == 2, "".join(said)
        yield
    finally:
        node.terminate()
        node.communicate()
        while len(nodes()) > 1:  # until the cluster knows, so that nobody is sent there
            time.sleep(0.1)


def test_two_nodes_make_the_volume_that_one_process_makes(
    second_node: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = write_scan(tmp_path / "data", train=1, validation=1, test=9)
    given = ["--window", "hann", "--cutoff", "0.6", "--data.dir", str(scan), "--part", "test", "--slab", "2", "--out"]
    with monkeypatch.context() as patch:
        patch.setattr(program, "_on_ray", lambda config: False)
        main([*given, str(tmp_path / "one.tif")])
    done: list[on_ray.Done] = []
    do = on_ray.do_on_ray

    def noted(*arguments: object) -> Iterator[on_ray.Done]:
        for each in do(*arguments):  # type: ignore[arg-type]
            done.append(each)
            yield each

    monkeypatch.setattr(on_ray, "do_on_ray", noted)
    # Otherwise the first to be there may do all.
    monkeypatch.setattr(ray.data.DataContext.get_current(), "wait_for_min_actors_s", 300)
    main([*given, str(tmp_path / "two.tif")])
    assert (tmp_path / "two.tif").read_bytes() == (tmp_path / "one.tif").read_bytes()
    assert sorted(each.slab for each in done) == [0, 1, 2, 3, 4]
    assert len({each.node for each in done}) == 2
    assert "on 2 machines" in capsys.readouterr().out


def test_what_an_actor_cannot_do_is_told_in_words(cluster: None, tmp_path: Path) -> None:
    """An error that it raised would have Ray start it, or its slab, over and over."""
    scan, out = write_scan(tmp_path / "data", train=1, validation=1, test=2), tmp_path / "a.h5"
    with h5py.File(scan / "observation_test_000.hdf5", "r+") as file:
        file["data"][0, 3, 4] = np.nan
    words = ["--window", "hann", "--data.dir", str(scan), "--part", "test", "--out", str(out), "--slab", "1"]
    plan = make_plan(parse(ReconstructConfig, words, ""))
    threads = torch.get_num_threads()
    unseen = on_ray.Actor(plan.model_dump_json(), str(out), threads)({"slab": np.array([1])})
    assert "choose a folder for --out that all machines share" in unseen["problem"][0]
    with Partial(out).begun(plan):
        actor = on_ray.Actor(plan.model_dump_json(), str(out), threads)
        assert actor({"slab": np.array([1])})["problem"] == [""]
        said = actor({"slab": np.array([0])})["problem"][0]
        assert "sample 0 of test has no usable observation" in said
        assert Partial(out).done() == {1}
