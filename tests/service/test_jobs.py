"""Jobs over HTTP, on a cluster that only pretends: statuses, queue, refusals, streams, restarts."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fbp_ray.baseline import Baseline
from fbp_ray.config import TrainConfig
from fbp_ray.errors import ConfigError
from fbp_ray.reconstruct import ReconstructConfig
from fbp_ray.reconstruct.partial import Partial
from fbp_ray.reconstruct.plan import make_plan
from fbp_ray.run import RunFolder
from service.jobs.cluster import RayJobs, Refused, Unreachable, find_dashboard
from service.jobs.program import command, main
from service.jobs.store import JobLogs
from tests.support.job_service import FakeCluster, JobService
from tests.support.scans import write_scan

SOON = 20.0


class Service(JobService):
    """On a cluster that only pretends."""

    cluster: FakeCluster

    def __init__(self, folder: Path, cluster: FakeCluster, **jobs: Any) -> None:
        self.cluster = cluster
        super().__init__(folder, cluster, **{"lost_seconds": 0.05, **jobs})

    def submitted(self, id: str) -> None:
        end = time.monotonic() + SOON
        while f"fbp-{id}" not in self.cluster.jobs:
            assert time.monotonic() < end, self.get(id)
            time.sleep(0.01)

    def runs(self, **more: Any) -> dict[str, Any]:
        """A job that runs."""
        job = self.post(**more)
        self.submitted(job["id"])
        self.cluster.now(job["id"], "running")
        return self.until(job["id"], "running")


@pytest.fixture
def open_service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    made: list[Service] = []

    def make(cluster: FakeCluster | None = None, **jobs: Any) -> Service:
        made.append(Service(tmp_path, cluster or FakeCluster(), **jobs))
        return made[-1]

    yield make
    for service in made:
        service.close()


@pytest.fixture
def service(open_service: Callable[..., Service]) -> Service:
    return open_service()


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scan(tmp_path_factory.mktemp("scan") / "data")


VOLUME = {"window": "hann", "data": {"dir": "data/nowhere"}, "out": "runs/a.h5"}


def refused(service: Service, status: int, body: dict[str, Any], *words: str, **headers: str) -> None:
    answer = service.http.post("/jobs", json=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    for word in words:
        assert word in answer.json()["detail"]
    assert service.cluster.submitted == []


def test_a_job_goes_from_pending_to_success(service: Service) -> None:
    answer = service.http.post("/jobs", json={"kind": "train", "config": {"train": {"epochs": 3}}})
    assert answer.status_code == 201
    job = answer.json()
    assert answer.headers["location"] == f"/jobs/{job['id']}"
    assert job["status"] == "pending"
    assert job["request"]["config"]["run"]["name"] == f"train-{job['id']}"
    assert job["place"] == str(service.folder / "runs" / f"train-{job['id']}")
    service.submitted(job["id"])
    assert service.until(job["id"], "pending", "not started yet")["started"] is None
    service.cluster.now(job["id"], "running")
    assert service.until(job["id"], "running")["reason"] == ""
    service.cluster.now(job["id"], "succeeded", "Job finished successfully.")
    done = service.until(job["id"], "succeeded")
    assert done["ended"] > done["started"] >= done["created"]
    assert done["progress"]["total"] == 3
    assert service.metrics.registry.get_sample_value("fbp_jobs", {"status": "succeeded"}) == 1


def test_nothing_of_a_caller_is_in_the_command_and_no_variable_is_put_in(service: Service) -> None:
    place = f"{service.folder}/${{HOME}}; rm -rf '"
    job = service.runs(config={"init": {"checkpoint": None}, "run": {"storage": place}})
    ((submission, line, variables),) = service.cluster.submitted
    assert submission == f"fbp-{job['id']}"
    assert line == "python -m service.jobs.program train"
    assert "$" not in variables["FBP_RAY_JOB"]
    request = json.loads(base64.b64decode(variables["FBP_RAY_JOB"]))
    assert request["config"]["run"]["storage"] == place
    assert command("/a b/python", "sweep") == "'/a b/python' -m service.jobs.program sweep"


def test_a_second_job_waits_and_says_for_what(service: Service) -> None:
    first = service.runs()
    second = service.post()
    assert first["id"] in service.until(second["id"], "pending")["reason"]
    third = service.post()
    answer = service.http.post(f"/jobs/{second['id']}/stop")
    assert answer.status_code == 200
    assert answer.json()["status"] == "stopped"
    assert len(service.cluster.submitted) == 1
    service.cluster.now(first["id"], "succeeded")
    service.submitted(third["id"])
    assert f"fbp-{second['id']}" not in service.cluster.jobs
    listed = service.http.get("/jobs").json()["jobs"]
    assert [job["id"] for job in listed] == [third["id"], second["id"], first["id"]]
    assert [job["id"] for job in service.http.get("/jobs?status=stopped").json()["jobs"]] == [second["id"]]
    assert len(service.http.get("/jobs?limit=1").json()["jobs"]) == 1


def test_a_running_job_is_stopped_and_only_once(service: Service) -> None:
    job = service.runs()
    service.cluster.stops = False
    answer = service.http.post(f"/jobs/{job['id']}/stop")
    assert answer.status_code == 202
    assert "being stopped" in answer.json()["reason"]
    service.cluster.stops = True
    assert service.until(job["id"], "stopped")["reason"] == "it was stopped on request"
    again = service.http.post(f"/jobs/{job['id']}/stop")
    assert again.status_code == 409
    assert "ended already" in again.json()["detail"]


def test_a_job_that_the_cluster_holds_back_is_stopped_when_it_would_run(service: Service) -> None:
    job = service.post()
    service.submitted(job["id"])
    service.until(job["id"], "pending", "not started yet")
    assert service.http.post(f"/jobs/{job['id']}/stop").status_code == 202
    service.until(job["id"], "pending", "being stopped")
    service.cluster.now(job["id"], "running")
    service.until(job["id"], "stopped")


def test_the_same_key_is_the_same_job(service: Service) -> None:
    body = {"kind": "train", "config": {"train": {"epochs": 2}}}
    first, second = (service.http.post("/jobs", json=body, headers={"Idempotency-Key": "k1"}) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json()["id"] == second.json()["id"]
    assert second.headers["idempotency-replayed"] == "true"
    other = service.http.post("/jobs", json={"kind": "train"}, headers={"Idempotency-Key": "k1"})
    assert other.status_code == 409
    assert "new key" in other.json()["detail"]
    for key in ("a b", "x" * 256, ""):
        assert service.http.post("/jobs", json=body, headers={"Idempotency-Key": key}).status_code == 422


def test_one_key_sent_at_once_is_one_job(service: Service) -> None:
    answers: list[Any] = []
    body = {"kind": "train"}
    send = lambda: answers.append(service.http.post("/jobs", json=body, headers={"Idempotency-Key": "k"}))  # noqa: E731
    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [201]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"kind": "bake"}, ["train", "sweep", "evaluate"]),
        ({"kind": "train", "config": {"train": {"epochs": 0}}}, ["epochs"]),
        ({"kind": "train", "config": {"learning_rate": 1}}, ["there is no such setting"]),
        ({"kind": "train", "config": {"recipe": "../x"}}, ["quickstart"]),
        ({"kind": "train", "config": {"window": {"kind": "fixed"}}}, ["learns nothing"]),
        ({"kind": "train", "config": {"window": {"kind": "os.path:join"}}}, ["os.path:join", "models.own"]),
        ({"kind": "train", "config": {"ray": {"address": "h:6379"}}}, ["does not choose its cluster"]),
        ({"kind": "train", "config": {"scaling": {"num_workers": 8}}}, ["8 workers", "2 processors"]),
        ({"kind": "train", "config": {"data": {"dir": "/nowhere"}}}, ["/nowhere"]),
        ({"kind": "train", "config": {"data": {"dir": "/no\x00where"}}}, []),
        ({"kind": "train", "config": {"run": {"storage": "what://x"}}}, ["what://x"]),
        ({"kind": "sweep", "config": {}}, ["space"]),
        ({"kind": "sweep", "space": "other"}, ["loss_weights"]),
        ({"kind": "sweep", "space": "loss_weights", "config": {"run": {"name": "x"}}}, ["sweep.name"]),
        ({"kind": "sweep", "space": "loss_weights", "config": {"sweep": {"max_concurrent": 9}}}, ["room for 2"]),
        ({"kind": "sweep", "space": "loss_weights", "config": {"sweep": {"workers_per_trial": 3}}}, ["room for 0"]),
        (
            {"kind": "sweep", "space": "loss_weights", "config": {"sweep": {"search": "grid", "trials": 2}}},
            ["combinations"],
        ),
        ({"kind": "evaluate", "config": {"checkpoint": "/cluster/nowhere"}}, ["no checkpoint"]),
        ({"kind": "evaluate", "config": {}}, ["checkpoint"]),
        ({"kind": "reconstruct", "config": {**VOLUME, "out": "/elsewhere/a.h5"}}, ["may not use /elsewhere/a.h5"]),
        ({"kind": "reconstruct", "config": {**VOLUME, "out": "runs/a.nii"}}, ["must end with .tif"]),
        ({"kind": "reconstruct", "config": {**VOLUME, "ray": {"address": "h:6379"}}}, ["does not choose its cluster"]),
        ({"kind": "reconstruct", "config": VOLUME}, ["there is no data folder"]),
        ({"kind": "evaluate", "config": {"checkpoint": "runs/x", "submission": "/tmp/x.zip"}}, ["no submission"]),
    ],
)
def test_what_cannot_be_is_refused(service: Service, body: dict[str, Any], words: list[str]) -> None:
    refused(service, 422, body, *words)


def test_what_is_refused_is_told_by_field(service: Service) -> None:
    config = {"window": {"init": "hann", "cutoff": "hello"}, "data": {"photons": [200, 100]}, "train": {"monitor": "x"}}
    answer = service.http.post("/jobs", json={"kind": "train", "config": config}).json()
    assert {
        "field": "train.config.train.monitor",
        "message": "must be loss, psnr, ssim, min:NAME or max:NAME",
    } in answer["errors"]
    fields = [error["field"] for error in answer["errors"]]
    assert "train.config.data.photons" in fields
    assert "train.config.window.cutoff.constrained-float" in fields
    for part, config in {
        "--data.dir: the service may not use /etc,": {"data": {"dir": "/etc"}},
        "--init.checkpoint: ": {"init": {"checkpoint": "runs/none"}, "data": {"dir": "data"}},
        "--recipe: no recipe": {"recipe": "none"},
        "not a URI": {"data": {"dir": "s3://bucket/x"}},
    }.items():
        (service.folder / "data").mkdir(exist_ok=True)
        refused(service, 422, {"kind": "train", "config": config}, part)


def test_a_configuration_that_is_too_long_is_refused(service: Service) -> None:
    refused(service, 413, {"kind": "train", "config": {"data": {"dir": "/x" * 60_000}}}, "bytes")


def test_a_run_that_is_complete_or_another_is_refused(service: Service, scan: Path) -> None:
    config = TrainConfig.model_validate(
        {
            "data": {"dir": str(scan)},
            "window": {"kind": "frequency"},
            "loss": {"ms_ssim": 0},
            "run": {"name": "done", "storage": str(service.folder)},
        }
    )
    run = RunFolder(service.folder / "done")
    run.begin(config)
    run.set_status("completed")
    body = {
        "kind": "train",
        "config": {"data": {"dir": str(scan)}, "window": {"kind": "frequency"}, "loss": {"ms_ssim": 0}},
    }
    body["config"]["run"] = {"name": "done", "storage": str(service.folder)}  # type: ignore[index]
    refused(service, 409, body, "is complete", "extend")
    run.set_status("failed", "lost")
    refused(service, 409, body, "other settings")
    (service.folder / "runs" / "taken").mkdir(parents=True)
    (service.folder / "runs" / "taken" / "file").touch()
    refused(
        service, 409, {"kind": "evaluate", "config": {"checkpoint": "runs/x", "out": f"{service.folder}/runs/taken"}}
    )
    refused(
        service, 409, {"kind": "sweep", "space": "loss_weights", "config": {"sweep": {"name": "taken"}}}, "no sweep"
    )


def test_a_volume_is_made_by_a_job(service: Service, scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its slabs are told while it is made; it makes no model, and a file that is in the way is refused."""
    out = service.folder / "a.h5"
    config = {"window": "hann", "data": {"dir": str(scan)}, "part": "train", "slab": 5, "out": str(out)}
    job = service.runs(kind="reconstruct", config=config)
    assert job["place"] == str(out)
    partial = Partial(out)
    with partial.begun(make_plan(ReconstructConfig.model_validate(config))):
        partial.mark(0)
        while (progress := service.get(job["id"])["progress"])["unit"] != "slab":
            time.sleep(0.01)
        assert (progress["unit"], progress["done"], progress["total"]) == ("slab", 1, 3)
        assert progress["rows"] == [{"slab": 1, "of": 3}]
    (_, _, variables) = service.cluster.submitted[0]
    monkeypatch.setenv("FBP_RAY_JOB", variables["FBP_RAY_JOB"])
    monkeypatch.setattr("fbp_ray.reconstruct.program._on_ray", lambda config: False)
    main(["reconstruct"])
    assert out.exists()
    service.cluster.now(job["id"], "succeeded")
    progress = service.until(job["id"], "succeeded")["progress"]
    assert (progress["done"], progress["total"], progress["problem"]) == (1, 1, "")
    assert "makes no model" in service.http.post(f"/jobs/{job['id']}/activate").json()["detail"]
    out.write_text("a letter")
    answer = service.http.post("/jobs", json={"kind": "reconstruct", "config": config})
    assert answer.status_code == 409
    assert "is no volume of this program" in answer.json()["detail"]


def test_two_jobs_do_not_share_a_folder(service: Service) -> None:
    job = service.runs(config={"run": {"name": "mine"}})
    answer = service.http.post("/jobs", json={"kind": "train", "config": {"run": {"name": "mine"}}})
    assert answer.status_code == 409
    assert job["id"] in answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("get", ""),
        ("get", "/logs"),
        ("get", "/logs?follow=1"),
        ("get", "/events"),
        ("post", "/stop"),
        ("post", "/activate"),
    ],
)
def test_an_unknown_job_is_404(service: Service, method: str, path: str) -> None:
    answer = service.http.request(method, f"/jobs/nope{path}")
    assert answer.status_code == 404
    assert "there is no job 'nope'" in answer.json()["detail"]


def test_a_failed_job_says_why(service: Service) -> None:
    job = service.runs()
    service.cluster.logs[f"fbp-{job['id']}"] = "run x\nerror: the data are gone\n       put them back\n"
    service.cluster.now(job["id"], "failed", "Job entrypoint command failed with exit code 2, last logs ...")
    assert service.until(job["id"], "failed")["reason"] == "the data are gone\n       put them back"
    second = service.runs()
    service.cluster.now(second["id"], "failed", "node died")
    assert service.until(second["id"], "failed")["reason"] == "node died"


def test_a_job_that_is_not_taken_fails(service: Service) -> None:
    service.cluster.refuses = "the cluster does not take the job: no agent"
    assert "no agent" in service.until(service.post()["id"], "failed")["reason"]
    service.cluster.refuses, service.cluster.broken = "", "Ray does not start"
    assert "Ray does not start" in service.until(service.post()["id"], "failed")["reason"]


def history(place: str, epochs: int) -> None:
    run = RunFolder(place)
    run.begin(TrainConfig.model_validate({"train": {"epochs": 5}}))
    baseline = Baseline(hann_psnr=30.0, hann_ssim=0.8, hann_psnr_cutoff=0.9, hann_ssim_cutoff=0.7)
    run.write_json("baseline.json", baseline.model_dump())
    row = {"validation_ssim": 0.9, "train_loss": float("nan")}
    rows = [{"epoch": n, "validation_loss": 1 / n, "validation_psnr": 30.0 + n, **row} for n in range(1, epochs + 1)]
    run.write_history(rows)


def test_progress_is_by_epoch_beside_the_classic_fbp(service: Service) -> None:
    job = service.runs()
    history(job["place"], 2)
    end = time.monotonic() + SOON
    while (progress := service.get(job["id"])["progress"])["done"] < 2:  # a folder is not read at each request
        assert time.monotonic() < end, progress
    assert (progress["unit"], progress["done"], progress["total"]) == ("epoch", 2, 5)
    assert progress["rows"][1]["validation_psnr"] == 32
    assert progress["rows"][1]["train_loss"] is None
    assert progress["best"]["psnr"] == {"value": 32.0, "epoch": 2, "over_fbp": 2.0}
    Path(job["place"], "history.csv").write_text("epoch,validation_loss,validation_psnr,validation_ssim\n1,2,x,y\n")
    service.cluster.now(job["id"], "succeeded")
    service.until(job["id"], "succeeded")
    assert "cannot be read" in service.get(job["id"])["progress"]["problem"]


def events(text: str) -> list[tuple[str, str, Any]]:
    found = []
    for block in text.strip().split("\n\n"):
        if not block.startswith(":"):
            lines = dict(line.split(": ", 1) for line in block.splitlines())
            found.append((lines["event"], lines["id"], json.loads(lines["data"])))
    return found


def test_events_tell_of_epochs_and_of_the_end(service: Service) -> None:
    job = service.runs()
    history(job["place"], 2)
    text = ""
    with service.http.stream("GET", f"/jobs/{job['id']}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert "no-store" in answer.headers["cache-control"]
        assert answer.headers["x-accel-buffering"] == "no"
        for line in answer.iter_lines():
            text += line + "\n"
            if line == "id: 2":
                history(job["place"], 3)
                service.cluster.now(job["id"], "succeeded")
    found = events(text)
    kinds = [kind for kind, _, _ in found]
    assert kinds in (
        ["status", "epoch", "epoch", "epoch", "status", "end"],
        ["status", "epoch", "epoch", "status", "epoch", "end"],
    )
    assert found[0][2]["progress"]["rows"] == []
    assert [data["epoch"] for kind, _, data in found if kind == "epoch"] == [1, 2, 3]
    assert found[-1][2]["status"] == "succeeded"
    later = events(service.http.get(f"/jobs/{job['id']}/events", headers={"Last-Event-ID": "2"}).text)
    assert [(kind, id) for kind, id, _ in later] == [("status", "2"), ("epoch", "3"), ("end", "end")]
    assert service.http.get(f"/jobs/{job['id']}/events", headers={"Last-Event-ID": "end"}).status_code == 204


def test_logs_are_followed_to_the_end_and_kept(service: Service) -> None:
    job = service.runs()
    name = f"fbp-{job['id']}"
    service.cluster.logs[name] = "one\n"
    text = ""
    with service.http.stream("GET", f"/jobs/{job['id']}/logs?follow=1") as answer:
        for part in answer.iter_text():
            text += part
            if text == "one\n":
                service.cluster.logs[name] = "one\ntwo ä\n"
                service.cluster.now(job["id"], "succeeded")
    assert text == "one\ntwo ä\n"
    answer = service.http.get(f"/jobs/{job['id']}/logs")
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.text == "one\ntwo ä\n"


@pytest.mark.parametrize("path", ["logs?follow=1", "events"])
def test_streams_end_with_the_service(service: Service, path: str) -> None:
    job = service.runs()
    service.cluster.logs[f"fbp-{job['id']}"] = "one\n"
    with service.http.stream("GET", f"/jobs/{job['id']}/{path}") as answer:
        assert answer.status_code == 200
        for _ in answer.iter_raw():
            service.closing.set()  # the stream has begun


def test_a_log_is_kept_within_its_bounds(tmp_path: Path) -> None:
    logs = JobLogs(tmp_path, max_bytes=100)
    text, seen, position = "", b"", 0
    for number in range(60):
        text += f"line {number}\n"
        logs.keep("a", text)
        part = logs.read("a", position)
        seen, position = seen + part.content, part.end
    assert seen.decode() == text
    kept = logs.read("a").content.decode()
    assert len(kept) <= 100
    assert text.endswith(kept)
    assert kept.startswith("line")
    assert JobLogs(tmp_path).read("a").content.decode() == kept


def test_a_restart_of_the_service_finds_its_jobs(open_service: Callable[..., Service]) -> None:
    before = open_service()
    running, waiting = before.runs(), before.post()
    before.close()
    assert before.cluster.closed is True
    after = open_service(before.cluster)
    assert after.get(running["id"])["status"] == "running"
    after.cluster.now(running["id"], "succeeded")
    after.until(running["id"], "succeeded")
    after.submitted(waiting["id"])
    history(running["place"], 1)
    refused_ = after.http.post(f"/jobs/{running['id']}/activate")
    assert refused_.status_code == 409
    assert "no model yet" in refused_.json()["detail"]
    Path(running["place"], "best").mkdir()
    Path(running["place"], "best", "manifest.json").write_text("{}")
    answer = after.http.post(f"/jobs/{running['id']}/activate", json={"name": "mine"})
    assert answer.json() == {"name": "mine", "source": running["place"]}
    assert after.http.post(f"/jobs/{running['id']}/activate").json()["name"] == "best"


def test_a_job_recorded_and_not_submitted_is_submitted_after_a_restart(open_service: Callable[..., Service]) -> None:
    service = open_service()
    job = service.post()
    service.submitted(job["id"])
    service.cluster.jobs.clear()  # as if the service had been killed in between
    service.submitted(job["id"])
    assert [name for name, _, _ in service.cluster.submitted] == [f"fbp-{job['id']}"] * 2


def test_a_job_is_lost_with_its_head_and_goes_on_when_asked_again(service: Service) -> None:
    job = service.runs()
    history(job["place"], 2)
    service.cluster.dead = True
    lost = service.until(job["id"], "lost")
    assert "head that it ran on is gone" in lost["reason"]
    assert "go on from epoch 3" in lost["reason"]
    assert service.http.post(f"/jobs/{job['id']}/stop").status_code == 409
    Path(job["place"], "config.yaml").unlink()
    Path(job["place"], "status.json").unlink()
    Path(job["place"], "baseline.json").unlink()
    Path(job["place"], "history.csv").unlink()
    Path(job["place"], "versions.json").unlink()
    again = service.http.post("/jobs", json=lost["request"])
    assert again.status_code == 201
    assert again.json()["place"] == job["place"]
    service.submitted(again.json()["id"])
    assert service.cluster.head == "head-1+"


def test_a_job_that_had_not_begun_survives_its_head(service: Service) -> None:
    job = service.post()
    service.submitted(job["id"])
    service.cluster.abandon()
    service.submitted(job["id"])
    service.cluster.now(job["id"], "running")
    service.until(job["id"], "running")


def test_a_silent_cluster_loses_its_jobs_and_finds_them_again(open_service: Callable[..., Service]) -> None:
    service = open_service(FakeCluster(local=False))
    job = service.runs()
    service.cluster.silent = True
    assert "does not answer" in service.until(job["id"], "lost")["reason"]
    answer = service.http.post("/jobs", json={"kind": "train"})
    assert answer.status_code == 503
    assert "try again" in answer.json()["detail"]
    service.cluster.silent = False
    assert service.until(job["id"], "running")["ended"] is None
    del service.cluster.jobs[f"fbp-{job['id']}"]
    assert "does not know it any more" in service.until(job["id"], "lost")["reason"]


def test_what_is_elsewhere_is_left_to_the_cluster(open_service: Callable[..., Service]) -> None:
    service = open_service(FakeCluster(local=False))
    service.post(config={"data": {"dir": "/cluster/data"}})
    service.post(kind="evaluate", config={"checkpoint": "/cluster/runs/a"})


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """The address of a server that gives every request the same answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            assert self.headers["Authorization"] == "Bearer secret", asked
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, b"<html>hello</html>", "is no Ray cluster.*FBPRAY_JOBS__DASHBOARD"),
        (200, b'{"other": 1}', "is no Ray cluster.*KeyError"),
        (401, b"Unauthorized: bad token", r"another token \(Unauthorized: bad token\); set RAY_AUTH_TOKEN"),
        (500, b"Traceback\nValueError: no\n", r"does not .*: ValueError: no \(HTTP 500\)"),
    ],
)
def test_what_answers_otherwise_than_ray_is_said(status: int, body: bytes, said: str) -> None:
    with answering(status, body) as address:
        jobs = RayJobs(address, "secret")
        for ask in (lambda: jobs.look("a"), jobs.nodes, lambda: jobs.submit("a", "true", {}), lambda: jobs.stop("a")):
            with pytest.raises(Unreachable, match=said):
                ask()


def test_a_job_that_the_cluster_does_not_know_is_refused_or_none() -> None:
    with answering(404, b"no such job") as address:
        jobs = RayJobs(address, "secret")
        assert jobs.look("a") is None
        jobs.stop("a")
        with pytest.raises(Refused, match=r"has no log of the job: no such job \(HTTP 404\)"):
            jobs.log("a")
        with pytest.raises(Refused, match="does not take the job: no such job"):
            jobs.submit("a", "true", {})


def test_a_cluster_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:2")  # leads nowhere, and not to this machine
    with pytest.raises(Unreachable, match=r"http://127\.0\.0\.1:1 does not answer"):
        RayJobs("http://127.0.0.1:1").version()
    with pytest.raises(Unreachable, match=r"is no address of a Ray dashboard.*FBPRAY_JOBS__DASHBOARD"):
        RayJobs("http://host:port")
    with pytest.raises(Unreachable, match="FBPRAY_JOBS__DASHBOARD"):
        find_dashboard("ray://host:10001")
    with pytest.raises(Unreachable, match="no Ray cluster answers"):
        find_dashboard("127.0.0.1:1")


def test_a_job_without_its_configuration_names_the_other_programs() -> None:
    with pytest.raises(ConfigError, match=r"python -m fbp_ray\.train"):
        main(["train"])


def test_every_status_is_documented(service: Service) -> None:
    paths = service.app.openapi()["paths"]
    assert set(paths["/jobs"]["post"]["responses"]) == set(
        "200 201 400 401 403 409 413 415 422 503 507".split()  # noqa: SIM905
    )
    content = paths["/jobs/{id}/events"]["get"]["responses"]["200"]["content"]
    assert list(content) == ["text/event-stream"]
    assert list(paths["/jobs/{id}/logs"]["get"]["responses"]["200"]["content"]) == ["text/plain"]


def test_of_two_services_with_one_state_folder_one_looks_after_the_jobs(
    open_service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.jobs.dispatcher.LEAD_SECONDS", 0.05)
    monkeypatch.setattr("service.jobs.dispatcher.IDLE_SECONDS", 0.05)
    cluster = FakeCluster()
    first, second = open_service(cluster), open_service(cluster)
    job = second.post()
    first.submitted(job["id"])
    cluster.now(job["id"], "running")
    assert second.until(job["id"], "running")["status"] == "running"
    assert [submission for submission, _, _ in cluster.submitted] == [f"fbp-{job['id']}"]
    first.close()
    cluster.now(job["id"], "succeeded")
    second.until(job["id"], "succeeded")
