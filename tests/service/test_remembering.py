"""What the service remembers: written before anything starts, one truth for several processes, fit to be shown."""

from __future__ import annotations

import asyncio
import errno
import itertools
import json
import logging
import sqlite3
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import create_app
from service.jobs import head as head_module
from service.jobs.cluster import Unreachable, ray_token
from service.jobs.head import LocalHead, processes_of
from service.jobs.looks import Looks
from service.model_registry import ModelRegistry
from service.observability import MAX_CLIENT, RequestObserver, TextLines
from service.problems import Problem
from service.turns import Turns
from tests.support.job_service import FakeCluster, JobService
from tests.support.serving import running, save_model, settings_for


@pytest.fixture
def open_service(tmp_path: Path) -> Iterator[Callable[..., JobService]]:
    made: list[JobService] = []

    def make(cluster: FakeCluster | None = None, **jobs: Any) -> JobService:
        made.append(JobService(tmp_path, cluster or FakeCluster(), **jobs))
        return made[-1]

    yield make
    for service in made:
        service.close()


@pytest.fixture
def service(open_service: Callable[..., JobService]) -> JobService:
    return open_service(FakeCluster(local=False))


@contextmanager
def unwritable(database: Any) -> Iterator[None]:
    """The state folder as a read-only one."""
    database._writer.execute("PRAGMA query_only = ON")
    yield
    database._writer.execute("PRAGMA query_only = OFF")


def at_once(count: int, call: Callable[[int], httpx.Response]) -> list[httpx.Response]:
    answers: list[httpx.Response] = []
    threads = [threading.Thread(target=lambda n=n: answers.append(call(n))) for n in range(count)]  # type: ignore[misc]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


class TestSizes:
    def test_a_grid_is_refused_or_taken_without_being_built(
        self, service: JobService, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("fbp_ray.sweep.space.itertools.product", lambda *_: pytest.fail("it is built"))
        for trials, status in ((10**12, 422), (20_000, 422), (9_999, 201)):
            sweep = {
                "kind": "sweep",
                "space": "loss_weights",
                "config": {"sweep": {"search": "grid", "trials": trials}},
            }
            assert service.http.post("/jobs", json=sweep).status_code == status

    def test_counts_that_nothing_could_hold_are_refused(self, service: JobService) -> None:
        for config in (
            {"sweep": {"trials": 10**12}},
            {"sweep": {"trials": 10**400, "search": "random"}},
            {"train": {"epochs": 10**18}},
            {"scaling": {"num_workers": 10**30}},
            {"track": {"images": 10**12}},
        ):
            answer = service.http.post("/jobs", json={"kind": "sweep", "space": "loss_weights", "config": config})
            assert answer.status_code == 422, config

    def test_of_many_errors_a_few_are_told(self, service: JobService) -> None:
        answer = service.http.post("/jobs", json={"kind": "train", "config": {f"k{n}" * 99: 1 for n in range(900)}})
        assert answer.status_code == 422
        assert len(answer.text) < 10_000
        assert "880 errors more" in answer.text

    def test_so_many_jobs_wait_and_no_more(self, open_service: Callable[..., JobService]) -> None:
        service = open_service(FakeCluster(), queue=2)
        first = service.post()
        service.until(first["id"], "pending", "not started")  # it does not wait for its turn any more
        for _ in range(2):
            service.post()
        answer = service.http.post("/jobs", json={"kind": "train"})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")
        assert "--jobs.queue" in answer.json()["detail"]


class TestAFolderThatCannotBeWritten:
    def test_jobs_say_so_and_go_on_when_it_can(self, open_service: Callable[..., JobService]) -> None:
        cluster = FakeCluster()
        service = open_service(cluster)
        first = service.post()
        while f"fbp-{first['id']}" not in cluster.jobs:
            time.sleep(0.01)
        second = service.post()
        opened = 0
        open_cluster = cluster.open

        def counted(closing: threading.Event) -> Any:
            nonlocal opened
            opened += 1
            return open_cluster(closing)

        cluster.open = counted  # type: ignore[method-assign]
        with unwritable(service.record):
            cluster.now(first["id"], "succeeded")
            for answer in (
                service.http.post("/jobs", json={"kind": "train"}),
                service.http.post(f"/jobs/{second['id']}/stop"),
            ):
                assert answer.status_code == 503, answer.text
                assert answer.headers["retry-after"]
                assert "cannot be used" in answer.json()["detail"]
            service.until(second["id"], "pending", "cannot be used")
            assert (opened, len(cluster.submitted)) == (0, 1)  # nothing starts that could not be recorded
        service.until(first["id"], "succeeded")
        service.until(second["id"], "pending", "not started")
        assert (opened, len(cluster.submitted)) == (1, 2)

    def test_a_full_one_is_507_until_there_is_room(self, service: JobService) -> None:
        writer = service.record._writer
        writer.execute(f"PRAGMA max_page_count = {writer.execute('PRAGMA page_count').fetchone()[0]}")
        job = {"kind": "evaluate", "config": {"checkpoint": f"/cluster/{'x/' * 1900}"}}
        answer = service.http.post("/jobs", json=job)
        assert (answer.status_code, "make room" in answer.json()["detail"]) == (507, True), answer.text
        assert service.http.get("/jobs").json() == {"jobs": []}
        writer.execute("PRAGMA max_page_count = 100000")
        assert service.http.post("/jobs", json=job).status_code == 201

    def test_no_head_is_started_without_room_for_its_record(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        script = tmp_path / "ray"
        script.write_text("#!/bin/sh\nsleep 60\n")
        script.chmod(0o700)
        monkeypatch.setattr(head_module, "_ray", lambda: str(script))
        write, room, started = head_module.write_atomically, 0, []
        popen = subprocess.Popen

        def full(path: Path, *content: Any, **mode: Any) -> None:
            nonlocal room
            room -= 1
            if room < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            write(path, *content, **mode)

        def start(*command: Any, **how: Any) -> Any:
            started.append(how["env"]["RAY_TMPDIR"])
            return popen(*command, **how)

        monkeypatch.setattr(head_module, "write_atomically", full)
        monkeypatch.setattr(subprocess, "Popen", start)
        head = LocalHead(tmp_path)
        for room in (0, 1, 1):  # noqa: B007  of the token, of the head to come, and of the one that runs
            with pytest.raises(Unreachable, match=r"No space left.*jobs wait until there is room"):
                head.open(threading.Event())
        assert len(started) == 1  # the process's number is not known before; it is ended
        assert processes_of(started[0]) == []
        assert not Path(started[0]).exists()

    @pytest.mark.parametrize("left", ["", "ab12", "\x00" * 64])
    def test_half_a_token_is_none(self, tmp_path: Path, left: str) -> None:
        (tmp_path / "ray-token").write_text(left)
        token = LocalHead(tmp_path)._token()
        assert len(token) == 64
        assert LocalHead(tmp_path)._token() == token == (tmp_path / "ray-token").read_text()
        assert stat.S_IMODE((tmp_path / "ray-token").stat().st_mode) == 0o600

    def test_models_say_so(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        save_model(tmp_path / "model")
        app = create_app(settings_for(tmp_path))
        source = {"source": str(tmp_path / "model")}
        with running(settings_for(tmp_path), app) as client:
            client.post("/models/mine/activate", json=source).raise_for_status()
            with unwritable(app.state.database):
                assert client.delete("/models/mine").status_code == 503
                assert client.post("/models/other/activate", json=source).status_code == 503
            assert [model["name"] for model in client.get("/models").json()["models"]] == ["mine"]

            def full(*_: Any) -> None:
                raise OSError(errno.ENOSPC, "No space left on device")

            monkeypatch.setattr("service.model_registry.write_checkpoint", full)
            assert client.post("/models/other/activate", json=source).status_code == 507
            assert client.delete("/models/mine").status_code == 204


def status_of(call: Callable[[], Any]) -> int:
    with pytest.raises(Problem) as problem:
        call()
    if problem.value.status == 503:
        assert problem.value.headers["Retry-After"]
    return problem.value.status


class TestOneTruth:
    @pytest.fixture
    def registries(self, tmp_path: Path) -> Iterator[Callable[[], ModelRegistry]]:
        """Services of one state folder, as after a restart: nothing is loaded."""
        save_model(tmp_path / "model")
        apps = []

        def make() -> ModelRegistry:
            apps.append(create_app(settings_for(tmp_path)))
            registry: ModelRegistry = apps[-1].state.registry
            return registry

        yield make
        for app in apps:
            app.state.database.close()

    @pytest.mark.parametrize("name", ["best", "mine"])
    def test_after_a_restart_nothing_else_answers_in_a_models_place(
        self, registries: Callable[[], ModelRegistry], tmp_path: Path, name: str
    ) -> None:
        before = registries()
        before.load()
        version = before.activate(name, str(tmp_path / "model")).engine.version
        after = registries()
        asks = [lambda: after.engine(name, None, None, None)]
        if name == "best":
            asks += [lambda: after.engine(None, None, None, None), lambda: after.engine(None, "fbp", "hann", 0.5)]
        for ask in asks:
            assert status_of(ask) == 503
        assert after.absent[name] == "the models are being loaded"
        after.load()
        assert name not in after.absent
        assert after.engine(name, None, None, None).version == version
        (tmp_path / "state" / "models").rename(tmp_path / "away")  # its copy is lost
        lost = registries()
        lost.load()
        for ask in (lambda: lost.engine(name, None, None, None), lambda: lost.get(name)):
            assert status_of(ask) == 503
        lost.forget(name)
        if name == "best":
            assert lost.engine(None, None, None, None).name == "classic-fbp"
        assert status_of(lambda: lost.get(name)) == 404

    def test_a_storage_that_was_away_at_the_start_is_looked_for_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        app, looks = create_app(settings_for(tmp_path)), 0
        registry: ModelRegistry = app.state.registry
        find = registry._completed_runs

        def away_at_first() -> Any:
            nonlocal looks
            looks += 1
            if looks <= 2:
                raise OSError("s3://KEY:SECRET@ct does not answer")
            return find()

        monkeypatch.setattr(registry, "_completed_runs", away_at_first)
        with pytest.raises(OSError, match="does not answer"):
            registry.load()
        assert "SECRET" not in (registry.waiting_for or "SECRET")
        assert status_of(lambda: registry.engine(None, None, None, None)) == 503
        with running(settings_for(tmp_path), app):  # until it is ready
            assert looks > 2
            assert registry.engine(None, None, None, None).name == "classic-fbp"

    def test_a_deleted_model_is_gone_from_every_service_at_once(
        self, registries: Callable[[], ModelRegistry], tmp_path: Path
    ) -> None:
        first, second = registries(), registries()
        first.load()
        second.load()
        for name in ("mine", "best"):
            first.activate(name, str(tmp_path / "model"))
        second.load()
        assert second.engine(None, None, None, None).name == "best"
        first.forget("mine")
        first.forget("best")
        assert status_of(lambda: second.get("mine")) == 404
        assert (
            status_of(lambda: second.engine(None, None, None, None)) == 503
        )  # not the classic FBP, until it has looked
        second.load()
        assert second.engine(None, None, None, None).name == "classic-fbp"

    def test_a_model_that_is_deleted_while_it_loads_stays_deleted(
        self, registries: Callable[[], ModelRegistry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, second = registries(), registries()
        first.load()
        first.activate("mine", str(tmp_path / "model"))
        load = second._load

        def slow(*args: Any, **more: Any) -> Any:
            model = load(*args, **more)
            first.forget("mine")
            return model

        monkeypatch.setattr(second, "_load", slow)
        second.load()
        assert status_of(lambda: second.get("mine")) == 404

    def test_eight_deletions_at_once_are_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        save_model(tmp_path / "model")
        app, all_eight = create_app(settings_for(tmp_path)), threading.Barrier(8, timeout=20)
        app.state.activating = Turns(8, 8, 60)
        write = app.state.database.write

        def together(statement: str, values: Any) -> int:
            if statement.startswith("DELETE"):
                all_eight.wait()
            return int(write(statement, values))

        monkeypatch.setattr(app.state.database, "write", together)
        with running(settings_for(tmp_path), app) as client:
            for name in ("mine", "best"):
                client.post(f"/models/{name}/activate", json={"source": str(tmp_path / "model")}).raise_for_status()
                answers = at_once(8, lambda _: client.delete(f"/models/{name}"))  # noqa: B023
                assert sorted(answer.status_code for answer in answers) == [204] + [404] * 7

    @pytest.mark.parametrize("key", [{"Idempotency-Key": "k"}, {}])
    def test_two_services_take_a_key_or_a_folder_once(
        self, open_service: Callable[..., JobService], monkeypatch: pytest.MonkeyPatch, key: dict[str, str]
    ) -> None:
        cluster = FakeCluster()
        services = [open_service(cluster), open_service(cluster)]
        both = threading.Barrier(2, timeout=90)
        monkeypatch.setattr("service.jobs.manager.check", lambda *_: both.wait())
        body = {"kind": "train", "config": {"run": {"name": "mine"}}}
        answers = at_once(2, lambda n: services[n].http.post("/jobs", json=body, headers=key))
        assert sorted(answer.status_code for answer in answers) == ([200, 201] if key else [201, 409])
        assert len(services[0].http.get("/jobs").json()["jobs"]) == 1

    def test_a_job_that_comes_back_does_not_share_a_folder(self, open_service: Callable[..., JobService]) -> None:
        service = open_service(cluster := FakeCluster(local=False), lost_seconds=0.05, at_once=2)
        first = service.post({"run": {"name": "mine"}})
        while f"fbp-{first['id']}" not in cluster.jobs:
            time.sleep(0.01)
        cluster.now(first["id"], "running")
        service.until(first["id"], "running")
        cluster.silent = True
        lost = service.until(first["id"], "lost")
        cluster.nodes = lambda: cluster.machines  # type: ignore[method-assign]
        second = service.http.post("/jobs", json=lost["request"])
        assert second.status_code == 201
        cluster.silent = False
        service.until(first["id"], "lost", "another job has its folder")
        assert cluster.jobs[f"fbp-{first['id']}"].status == "stopped"

    def test_a_record_in_which_two_jobs_share_a_folder_is_put_right(self, tmp_path: Path) -> None:
        old = JobService(tmp_path, FakeCluster())
        old.record._writer.execute("DROP INDEX jobs_by_place")
        old.close()
        database = sqlite3.connect(tmp_path / "state" / "service.sqlite")
        for id in ("a", "b"):
            row = (id, "train", '{"kind": "train", "config": {}}', 1, "pending", "", "", "", id, "d", "/cluster/x", 0)
            database.execute(
                "INSERT INTO jobs (id, kind, config, created, status, reason, submission, head, key, digest, place, "
                "stopping) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
        database.commit()
        database.close()
        new = JobService(tmp_path, FakeCluster())
        assert [new.get(id)["status"] for id in ("a", "b")] == ["pending", "failed"]
        new.close()


class TestWhatCanBeShownAgain:
    def test_nothing_else_is_taken(self, service: JobService) -> None:
        service.jobs._own = ("a:B",)
        for body in (
            r'{"kind": "train", "config": {"data": {"dir": "/cluster/\ud800"}}}',
            r'{"kind": "train", "config": {"data": {"dir": "/cluster/a\u0000b"}}}',
            r'{"kind": "train", "config": {"run": {"storage": "memory://a/\udfff"}}}',
            r'{"kind": "train", "config": {"run": {"storage": "memory://a\u0000/x"}}}',
            r'{"kind": "train", "config": {"scaling": {"interface": "a\u0000"}}}',
            r'{"kind": "train", "config": {"scaling": {"interface": "\ud800"}}}',
            r'{"kind": "train", "config": {"window": {"kind": "a:B", "options": {"\ud800": 1}}}}',
            r'{"kind": "train", "config": {"window": {"kind": "a:B", "options": {"x": [NaN, 1e999]}}}}',
            r'{"kind": "train", "config": {"optim": {"lr": NaN}}}',
            r'{"kind": "evaluate", "config": {"checkpoint": "/cluster/\ud800\udc00\udc00"}}',
            r'{"kind": "train", "\ud800": 1}',
            '{"kind": "train", "config": {"track": {"to": [[], {}]}}}',
            r'{"kind": "\ud800"}',
            '{"kind": "train", "config": {"train": {"epochs": 1' + "0" * 5000 + "}}}",
            '{"kind": "train", "config": {"train": {"seed": -1' + "0" * 4000 + "}}}",
        ):
            answer = service.http.post("/jobs", content=body, headers={"Content-Type": "application/json"})
            assert answer.status_code in (400, 422), body
        assert service.http.get("/jobs").json() == {"jobs": []}

    def test_what_an_older_version_or_a_file_holds_is_shown_with_replacements(self, service: JobService) -> None:
        job = service.post({"run": {"name": "mine"}})
        config = json.dumps({"kind": "train", "config": {"data": {"dir": "\ud800", "x": float("nan")}}})
        service.record.write("UPDATE jobs SET config = ? WHERE id = ?", (config, job["id"]))
        Path(job["place"]).mkdir(parents=True)
        Path(job["place"], "status.json").write_text(r'{"state": "\ud800", "reason": "\ud800"}')
        assert service.get(job["id"])["request"]["config"]["data"] == {"dir": "?", "x": None}
        with service.http.stream("GET", f"/jobs/{job['id']}/events") as answer:
            assert next(answer.iter_lines()) == "event: status"
            service.closing.set()


class TestLooks:
    def test_a_list_of_jobs_takes_the_same_few_reads_however_many_wait(self, service: JobService) -> None:
        service.jobs._cluster.silent = True  # type: ignore[attr-defined]
        row = "'train', '{}', ?, 'pending', '', '', '', ?, 'd', ?, 0"
        for n in range(400):
            service.record.write(
                "INSERT INTO jobs (id, kind, config, created, status, reason, submission, head, key, digest, place, "
                f"stopping) VALUES (?, {row})",
                (f"job-{n:03d}", n, f"key-{n}", f"/cluster/{n}"),
            )
        service.jobs.close()
        service.jobs._dispatcher.problem = ""
        reads, read = 0, service.record.read

        def counted(*args: Any) -> Any:
            nonlocal reads
            reads += 1
            return read(*args)

        service.record.read = counted  # type: ignore[method-assign]
        listed = service.http.get("/jobs?limit=1000").json()["jobs"]
        assert [job["id"] for job in listed] == [f"job-{n:03d}" for n in reversed(range(400))]
        assert "job-000 (pending) and 398 more" in listed[0]["reason"]
        assert reads <= 3

    def test_all_who_follow_share_a_look(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("service.jobs.looks.LOOK_SECONDS", 0.01)
        looked: list[str] = []

        def look(id: str) -> int:
            looked.append(id)
            return len(looked)

        async def follow() -> list[int]:
            looks = Looks(asyncio.to_thread)
            gone = asyncio.create_task(looks.next(look, "a"))
            others = [asyncio.create_task(looks.next(look, "a")) for _ in range(50)]
            await asyncio.sleep(0)
            gone.cancel()
            found = await asyncio.gather(*others)
            return [*found, await looks.next(look, "a")]

        assert asyncio.run(follow()) == [1] * 50 + [2]
        assert looked == ["a", "a"]

    def test_whoever_comes_as_a_look_ends_waits_for_the_next(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("service.jobs.looks.LOOK_SECONDS", 0.01)

        async def here(look: Any, *args: Any) -> Any:
            return look(*args)

        async def follow() -> list[int]:
            looks, found = Looks(here), itertools.count(1)

            def look() -> int:
                return next(found)

            first = asyncio.create_task(looks.next(look))
            began = {*asyncio.all_tasks()}
            await asyncio.sleep(0)
            (looking,) = {*asyncio.all_tasks()} - began
            while not looking.done():  # and none of those that wait for it has been told
                await asyncio.sleep(0)
            return [await looks.next(look), await looks.next(look), await first]

        assert asyncio.run(asyncio.wait_for(follow(), 10)) == [2, 3, 1]


class TestLogs:
    def test_a_line_of_text_is_one_line(self) -> None:
        record = logging.LogRecord(
            "service", 20, "", 0, "GET /%s", ("a\nERROR root: b\x1b[2J\u2028\u202e\ud800",), None
        )
        assert TextLines().format(record) == r"INFO service: GET /a\nERROR root: b\x1b[2J\u2028\u202e\ud800"
        try:
            raise ValueError("a\nERROR root: b\x1b")
        except ValueError as error:
            record.exc_info = (ValueError, error, error.__traceback__)
        _, *others = TextLines().format(record).split("\n")
        assert all(line.startswith("    ") and line.isprintable() for line in others)

    def test_what_a_caller_says_of_itself_is_cut(self, caplog: pytest.LogCaptureFixture) -> None:
        class Counter:
            def __init__(self) -> None:
                self.seen: list[tuple[Any, ...]] = []

            def labels(self, *values: Any) -> Any:
                self.seen.append(values)
                return self

            def inc(self, *_: Any) -> None: ...

            observe = inc

        class Metrics:
            requests = seconds = Counter()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})

        async def nothing(*_: Any) -> None: ...

        scope = {
            "type": "http",
            "method": "X" * 999,
            "path": "/" + "y" * 9999,
            "headers": [],
            "client": ("z" * 9999, 1),
        }
        with caplog.at_level(logging.INFO, "service.access"):
            asyncio.run(RequestObserver(app, Metrics())(scope, nothing, nothing))  # type: ignore[arg-type]
        (record,) = caplog.records
        assert len(record.client) == MAX_CLIENT  # type: ignore[attr-defined]
        assert len(record.getMessage()) < 400
        assert Metrics.requests.seen[0] == ("other", "none", 200)


def test_rays_token_goes_where_it_is_meant_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret")
    assert ray_token() == ray_token("http://127.0.0.1:8265") == "secret"
    for elsewhere in ("http://10.9.9.9:8265", "https://ray.example", "http://[", "http://127.0.0.1@ray.example"):
        assert ray_token(elsewhere) is None
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert ray_token("http://head:8265") == "secret"
    assert ray_token("http://other:8265") is None
    monkeypatch.setenv("RAY_AUTH_TOKEN", "meant")
    assert ray_token("http://other:8265") == "meant"
