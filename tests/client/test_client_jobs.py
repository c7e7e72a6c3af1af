"""The client's side of the protocol, with answers made up: full and lost services, jobs and their events."""

from __future__ import annotations

import asyncio
import io
import json
import pickle
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from rich.console import Console

from fbp_ray.client import AsyncClient, Client, Job, connection
from fbp_ray.client.follow import AWAY, JobDisplay
from fbp_ray.config import TrainConfig
from fbp_ray.errors import ConfigError, RunError, ServiceError

Handler = Callable[[httpx.Request], httpx.Response]
ROWS = [
    {"epoch": float(n), "train_loss": 1 / n, "validation_loss": 2 / n, "validation_psnr": 30.0 + n} for n in (1, 2, 3)
]


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that clients made, none of which takes any time; the clock goes on by them."""
    made: list[float] = []

    async def sleep(seconds: float) -> None:
        made.append(seconds)

    clock = SimpleNamespace(sleep=made.append, monotonic=lambda: sum(made))
    monkeypatch.setattr("fbp_ray.client.connection.time", clock)
    monkeypatch.setattr("fbp_ray.client.connection.asyncio", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr("fbp_ray.client.follow.time", clock)
    return made


class Script:
    """Answers by a list, the last one again and again; an exception is raised. Remembers the requests."""

    def __init__(self, *answers: httpx.Response | Exception | Handler) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx.Response) else answer(request)


class Stream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body in parts; an exception among them breaks the connection."""

    def __init__(self, parts: Iterable[str | Exception]) -> None:
        self.parts = parts

    def __iter__(self) -> Iterator[bytes]:
        for part in self.parts:
            if isinstance(part, Exception):
                raise part
            yield part.encode()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self:
            yield part


def client(handler: Handler) -> Client:
    return Client(transport=httpx.MockTransport(handler))


def busy(after: str | None = "2") -> httpx.Response:
    headers = {} if after is None else {"Retry-After": after}
    problem = {"detail": "256 images wait already", "request_id": "abc", "status": 503}
    return httpx.Response(503, json=problem, headers=headers)


def image(shape: tuple[int, ...] = (2, 2), dtype: Any = np.float32) -> httpx.Response:
    content = io.BytesIO()
    np.save(content, np.ones(shape, dtype))
    names = ("X-Model", "X-Model-Version", "X-Method", "X-Geometry", "X-Value-Unit")
    return httpx.Response(200, content=content.getvalue(), headers={**dict.fromkeys(names, "x"), "X-Seconds": "0.01"})


def document(status: str = "running", rows: int = 0, reason: str = "", id: str = "5f1d") -> dict[str, Any]:
    return {
        "id": id,
        "kind": "train",
        "status": status,
        "reason": reason,
        "created": "2026-05-01T12:00:00Z",
        "started": None,
        "ended": None,
        "place": "/data/runs/train-5f1d",
        "request": {"kind": "train", "config": {}},
        "progress": {"unit": "epoch", "done": rows, "total": 3, "rows": ROWS[:rows], "best": {}, "problem": ""},
    }


def job(status: str = "running", rows: int = 0, reason: str = "") -> httpx.Response:
    return httpx.Response(200, json=document(status, rows, reason))


def sse(*parts: str | Exception) -> httpx.Response:
    return httpx.Response(200, stream=Stream(parts), headers={"Content-Type": "text/event-stream; charset=utf-8"})


def event(kind: str, data: Any, id: str) -> str:
    return f"event: {kind}\nid: {id}\ndata: {json.dumps(data)}\n\n"


SINOGRAM = np.zeros((4, 3), np.float32)


def test_a_full_service_is_asked_again_when_it_says(pauses: list[float]) -> None:
    script = Script(busy("2"), busy("0.5"), image())
    with client(script) as service:
        assert service.reconstruct(SINOGRAM).image.shape == (2, 2)
    assert pauses == [2.0, 0.5]
    first, *others = (request.read() for request in script.requests)
    assert others == [first, first]
    assert script.requests[0].headers["X-Shape"] == "4,3"


def test_a_date_to_come_back_at_is_understood(pauses: list[float]) -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    with client(Script(busy(soon), job())) as service:
        service.job("5f1d")
    assert 25 < pauses[0] <= 30


@pytest.mark.parametrize(
    ("after", "waits"), [("1000", 0), (None, 0), ("soon", 0), ("20", 3), ("0", connection.TRIES - 1)]
)
def test_patience_has_an_end(pauses: list[float], after: str | None, waits: int) -> None:
    with client(Script(busy(after))) as service, pytest.raises(ServiceError, match="503: 256 images wait") as caught:
        service.reconstruct(SINOGRAM)
    assert len(pauses) == waits
    assert (caught.value.status, caught.value.detail, caught.value.request_id) == (
        503,
        "256 images wait already",
        "abc",
    )


def test_a_lost_connection_is_made_again(pauses: list[float]) -> None:
    lost = httpx.RemoteProtocolError("Server disconnected")
    with client(Script(lost, httpx.ConnectError("refused"), job())) as service:
        assert service.job("5f1d").status == "running"
    assert pauses == [0.2, 0.4]
    with client(Script(lost)) as service, pytest.raises(ServiceError, match="python -m service"):
        service.job("5f1d")
    assert len(pauses) == 2 + connection.CONNECTIONS - 1


def test_what_took_too_long_is_not_asked_again(pauses: list[float]) -> None:
    script = Script(httpx.ReadTimeout("timed out"), image())
    with client(script) as service, pytest.raises(ServiceError, match="longer timeout"):
        service.reconstruct(SINOGRAM)
    assert len(script.requests) == 1


def test_a_service_that_is_not_ready_is_no_error(pauses: list[float]) -> None:
    with client(Script(busy(), httpx.Response(200, json={"status": "ready"}))) as service:
        assert not service.ready()
        assert service.ready()
    assert not pauses


@pytest.mark.parametrize(
    "answer",
    [
        image((2, 2, 2)),
        image(dtype=object),
        image(dtype=np.float64),
        httpx.Response(200, content=image().content[:-3], headers=image().headers),
        httpx.Response(200, content=image().content),
        httpx.Response(200, text="<html>welcome</html>"),
        httpx.Response(200, content=b""),
    ],
    ids=["axes", "pickle", "float64", "short", "headers", "html", "empty"],
)
def test_answers_that_hold_no_image_are_refused(answer: httpx.Response) -> None:
    with (
        client(lambda request: answer) as service,
        pytest.raises(ServiceError, match="should be a float32 array with 2"),
    ):
        service.reconstruct(SINOGRAM)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="hello"),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={"models": [{"name": 3}]}),
    ],
)
def test_something_else_that_answers_is_told_from_the_service(answer: httpx.Response) -> None:
    with client(lambda request: answer) as service, pytest.raises(ServiceError, match="is it the fbp-ray"):
        service.models()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.Response(502, text="<h1>Bad\n gateway</h1>"), "502: <h1>Bad gateway</h1>"),
        (httpx.Response(307, headers={"Location": "https://elsewhere"}), "307: Temporary Redirect"),
        (httpx.Response(500, json="sorry"), '500: "sorry"'),
    ],
)
def test_a_refusal_without_a_problem_document_says_what_there_is(answer: httpx.Response, said: str) -> None:
    with client(lambda request: answer) as service, pytest.raises(ServiceError, match=f"refused with {said}"):
        service.models()


def test_a_submission_that_is_repeated_has_the_same_key() -> None:
    script = Script(httpx.ReadError("reset"), busy("0"), httpx.Response(201, json=document("pending")))
    with client(script) as service:
        assert service.submit("sweep", {"sweep": {"trials": 4}}, space="loss_weights").id == "5f1d"
        service.submit("train", {})
        service.submit("train", {}, idempotency_key="mine")
    keys = [request.headers["Idempotency-Key"] for request in script.requests]
    assert len(set(keys[:3])) == 1
    assert len({*keys[2:]}) == 3
    assert keys[-1] == "mine"
    body = {"kind": "sweep", "space": "loss_weights", "config": {"sweep": {"trials": 4}}}
    assert json.loads(script.requests[0].content) == body


def test_a_configuration_is_sent_as_far_as_it_was_set() -> None:
    script = Script(httpx.Response(201, json=document("pending")))
    with client(script) as service:
        service.submit("train", TrainConfig.model_validate({"train": {"epochs": 2}, "data": {"dir": "/data"}}))
        with pytest.raises(ConfigError, match="that JSON can hold"):
            service.submit("train", {"optim": {"lr": float("nan")}})
        with pytest.raises(ConfigError, match="that JSON can hold"):
            service.submit("train", {"data": {"dir": object()}})
    assert json.loads(script.requests[0].content)["config"] == {"train": {"epochs": 2}, "data": {"dir": "/data"}}
    assert len(script.requests) == 1


def test_jobs_are_listed_stopped_and_activated() -> None:
    model = {
        "name": "best",
        "version": "0123",
        "source": "s",
        "automatic": False,
        "activated": "2026-05-01T12:00:00Z",
        "created": "2026-05-01T12:00:00Z",
        "epoch": 3,
        "metrics": {},
        "geometry": {},
        "unit": "u",
    }
    summary = {name: value for name, value in document("succeeded").items() if name not in ("request", "progress")}
    script = Script(httpx.Response(200, json={"jobs": [summary]}), job("stopped"), httpx.Response(200, json=model))
    with client(script) as service:
        (listed,) = service.jobs(status="succeeded")
        assert (listed.id, listed.has_ended, listed.created.year) == ("5f1d", True, 2026)
        assert service.stop("5f1d").status == "stopped"
        assert service.activate_job("5f1d").name == "best"
        with pytest.raises(ConfigError, match="id is expected"):
            service.stop("..")
    asked = [f"{request.method} {request.url.path}" for request in script.requests]
    assert asked == ["GET /jobs", "POST /jobs/5f1d/stop", "POST /jobs/5f1d/activate"]
    assert json.loads(script.requests[-1].content) == {"name": "best"}


class Service:
    """A job's document and its events, each visit to the events a stream of its own."""

    def __init__(self, documents: Sequence[httpx.Response | Exception], *streams: httpx.Response | Exception) -> None:
        self.documents = Script(*documents)
        self.streams = Script(*streams)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        return (self.streams if request.url.path.endswith("/events") else self.documents)(request)


def interrupted() -> Service:
    """A job that runs through its three epochs while a connection is lost and the service is started again."""
    return Service(
        [job("pending"), httpx.ConnectError("refused"), job(rows=2), job("succeeded", 3)],
        sse(": hello\n\n", event("status", document(rows=0), "0"), event("epoch", ROWS[0], "2"), httpx.ReadError("")),
        sse(
            "id: 3\r\nevent: epo",
            f"ch\r\ndata: {json.dumps(ROWS[2])}\r\n\r\n",
            event("end", {"status": "succeeded"}, "4"),
        ),
    )


def test_a_job_is_followed_across_lost_connections(pauses: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    answers = interrupted()
    with client(answers) as service:
        assert service.wait("5f1d").status == "succeeded"
    assert [request.headers.get("Last-Event-ID") for request in answers.streams.requests] == [None, "2"]
    assert capsys.readouterr().out.splitlines() == [
        "train 5f1d pending",
        "train 5f1d running",
        "train 5f1d: epoch 1/3  loss 1  validation 2  PSNR 31.00 dB",
        "train 5f1d: epoch 2/3  loss 0.5  validation 1  PSNR 32.00 dB",
        "train 5f1d: epoch 3/3  loss 0.3333  validation 0.6667  PSNR 33.00 dB",
        "train 5f1d succeeded",
    ]


def test_the_asynchronous_client_follows_a_job_too(capsys: pytest.CaptureFixture[str]) -> None:
    async def follow() -> Job:
        async with AsyncClient(transport=httpx.MockTransport(interrupted())) as service:
            return await service.wait("5f1d")

    assert asyncio.run(follow()).progress.done == 3
    assert len(capsys.readouterr().out.splitlines()) == 6


def test_a_service_without_events_is_asked_now_and_then(pauses: list[float]) -> None:
    answers = Service([job("pending"), job(), job(rows=1), job("stopped", 1)], httpx.Response(404, text="no"))
    with client(answers) as service:
        assert service.wait("5f1d", progress=False).status == "stopped"
    assert len(answers.streams.requests) == 1
    assert pauses == [1.0, 2.0, 2.0]


@pytest.mark.parametrize(("status", "said"), [("failed", "failed"), ("lost", "was lost")])
def test_a_job_that_failed_is_an_error_with_its_reason(status: str, said: str) -> None:
    answers = Service([job(), job(status, 1, "the loss is not finite")], sse(event("end", {}, "1")))
    with client(answers) as service, pytest.raises(RunError, match=f"train job 5f1d {said}: the loss is not finite"):
        service.wait("5f1d", progress=False)


def test_waiting_for_a_job_has_an_end(pauses: list[float]) -> None:
    quiet = Service([job()], httpx.ReadTimeout("timed out"))
    with client(quiet) as service, pytest.raises(TimeoutError, match=r"5f1d is running after 7\.5 s; it goes on"):
        service.wait("5f1d", timeout=7.5, progress=False)
    assert sum(pauses) == 7.5


def test_waiting_has_an_end_while_a_quiet_job_sends_signs_of_life(pauses: list[float]) -> None:
    def pings() -> Iterator[str]:
        while True:
            pauses.append(1.0)
            yield ": ping\n\n"

    quiet = httpx.Response(200, stream=Stream(pings()), headers={"Content-Type": "text/event-stream"})
    with client(Service([job()], quiet)) as service, pytest.raises(TimeoutError, match=r"running after 7\.5 s"):
        service.wait("5f1d", timeout=7.5, progress=False)


def test_the_client_without_an_event_loop_works_inside_one(pauses: list[float]) -> None:
    async def notebook() -> list[str]:
        with client(interrupted()) as service:
            assert service.wait("5f1d", progress=False).status == "succeeded"
        with client(lambda request: httpx.Response(200, text="one\ntwo\n")) as service:
            return list(service.logs("5f1d"))

    assert asyncio.run(notebook()) == ["one", "two"]


def test_a_service_that_is_gone_for_good_is_an_error(pauses: list[float]) -> None:
    gone = httpx.ConnectError("refused")
    with client(Service([job(), gone], gone)) as service, pytest.raises(ServiceError, match="no service answers"):
        service.wait("5f1d", progress=False)
    assert AWAY < sum(pauses) < AWAY + 5


def test_a_job_that_there_is_not_is_an_error_at_once(pauses: list[float]) -> None:
    missing = httpx.Response(404, json={"detail": "there is no job 'none'", "request_id": "r"})
    for ask in (
        lambda service: service.wait("none", progress=False),
        lambda service: list(service.logs("none")),
        lambda service: list(service.logs("none", follow=True)),
    ):
        with client(Script(missing)) as service, pytest.raises(ServiceError, match="404: there is no job 'none'"):
            ask(service)
    assert not pauses


def test_strange_events_change_nothing() -> None:
    odd = sse("data\n\n", "data: {\n\n", event("epoch", [1], "1"), event("news", {"status": "failed"}, "2"), "data: x")
    with client(Service([job(), job("succeeded")], odd)) as service:
        assert service.wait("5f1d", progress=False).status == "succeeded"


def test_events_have_several_lines_and_comments(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = json.dumps(ROWS[0]).split(", ", 1)
    parts = f": hello\nevent: epoch\nid: 7\ndata: {first},\ndata:{second}\n\n\ndata: {{}}\n\n"
    answers = Service([job(), job(rows=1), job("succeeded", 1)], sse(parts), sse(event("end", {}, "8")))
    with client(answers) as service:
        service.wait("5f1d")
    assert answers.streams.requests[1].headers["Last-Event-ID"] == "7"
    assert capsys.readouterr().out.splitlines()[1] == "train 5f1d: epoch 1/3  loss 1  validation 2  PSNR 31.00 dB"


def test_a_log_is_read_and_followed_without_a_line_twice(pauses: list[float]) -> None:
    def text(*parts: str | Exception) -> httpx.Response:
        return httpx.Response(200, stream=Stream(parts), headers={"Content-Type": "text/plain"})

    lost = text("one\ntw", "o\nthr", httpx.ReadError(""))
    closing = text("one\ntwo\n")  # the service was told to end
    whole = text("one\ntwo\nthree\nfour")
    script = Script(lost, httpx.ConnectError(""), closing, job(), whole, job("succeeded"))
    with client(script) as service:
        assert list(service.logs("5f1d", follow=True)) == ["one", "two", "three", "four"]
    assert [request.url.path for request in script.requests][2:] == ["/jobs/5f1d/logs", "/jobs/5f1d"] * 2
    assert script.requests[0].url.query == b"follow=1"
    with client(lambda request: httpx.Response(200, text="one\ntwo\n")) as service:
        assert list(service.logs("5f1d")) == ["one", "two"]

    async def first() -> str:
        parts = text("one\n", "two\n")
        async with AsyncClient(transport=httpx.MockTransport(lambda request: parts)) as service:
            return await anext(service.logs("5f1d", follow=True))

    assert asyncio.run(first()) == "one"


def test_a_terminal_shows_a_bar_with_the_latest_figures() -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=120, _environ={"TERM": "xterm"})
    with JobDisplay(console) as display:
        for rows in (0, 1, 2):
            display.show(Job.model_validate(document(rows=rows, reason="[it] waits")))
    last = re.sub(r"\x1b\[[^A-Za-z]*[A-Za-z]", "", output.getvalue()).splitlines()[-1]
    for part in ("train 5f1d running: [it] waits", "2/3", "validation 1 ", "PSNR 32.00 dB"):
        assert part in last


def test_errors_travel_between_processes() -> None:
    error = ServiceError("no", status=503, detail="full", request_id="r")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.status, again.detail, again.request_id) == ("no", 503, "full", "r")
