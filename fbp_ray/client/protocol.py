"""Requests and what their answers mean, as sequences of steps."""

from __future__ import annotations

import io
import itertools
import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import quote
from uuid import uuid4

import httpx
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from fbp_ray.client.documents import Job, Model, Reconstruction
from fbp_ray.client.steps import Call, Pause, Send, Steps
from fbp_ray.errors import ConfigError, DataError, GeometryError, ServiceError

TRIES = 8
"""The most times that a request is sent."""

PATIENCE = 60.0
"""Seconds to wait, all waits of a request together, for a service that says to come back later."""

CONNECTIONS = 3
"""The most connections that may fail in a row; every request here may be sent twice without doing its work twice."""

_LOST = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
_FIRST_PAUSE = 0.2

Document = TypeVar("Document", bound=BaseModel)


def exchange(call: Call) -> Steps[httpx.Response]:
    """The answer to a request, which is sent again when its connection fails or the service is full.

    Raises:
        ServiceError: no answer, or one that says no.
    """
    waited, failed = 0.0, 0
    for tries in itertools.count(1):
        try:
            answer: httpx.Response = yield Send(call)
        except httpx.TransportError as error:
            failed += 1
            if not isinstance(error, _LOST) or failed >= CONNECTIONS:
                raise unreachable(call, error) from error
            pause = _FIRST_PAUSE * 2 ** (failed - 1)
        else:
            if answer.is_success:
                return answer
            later = retry_after(answer)
            if later is None or tries >= TRIES or waited + later > PATIENCE:
                raise refusal(call, answer)
            pause, failed = later, 0
        waited += pause
        yield Pause(pause)
    raise AssertionError("unreachable")


def ready() -> Steps[bool]:
    """Whether the models are loaded and warm."""
    call = Call("GET", "/health/ready")
    try:
        answer: httpx.Response = yield Send(call)
    except httpx.TransportError as error:
        raise unreachable(call, error) from error
    if answer.status_code != 503 and not answer.is_success:
        raise refusal(call, answer)
    return answer.is_success


def reconstruct(
    array: Any, model: str | None, method: str | None, window: str | None, cutoff: float | None
) -> Steps[Reconstruction]:
    """Images of sinograms."""
    values = as_sinograms(array)
    options = {"model": model, "method": method, "window": window, "cutoff": cutoff}
    call = Call(
        "POST",
        "/reconstruct",
        {"output": "npy"} | {name: str(value) for name, value in options.items() if value is not None},
        {"Content-Type": "application/octet-stream", "X-Shape": ",".join(map(str, values.shape))},
        values.tobytes(),
    )
    answer = yield from exchange(call)
    return reconstruction(call, answer, values.ndim)


def models() -> Steps[list[Model]]:
    """The models that serve."""
    call = Call("GET", "/models")
    answer = yield from exchange(call)
    return [document(Model, call, item) for item in members(call, answer, "models")]


def model(name: str) -> Steps[Model]:
    """One of them."""
    return (yield from _get(Model, Call("GET", f"/models/{_part(name)}")))


def activate(name: str, source: str) -> Steps[Model]:
    """Has the model of a folder serve under a name."""
    return (yield from _get(Model, post(f"/models/{_part(name)}/activate", {"source": source})))


def submit(kind: str, config: Mapping[str, Any] | BaseModel, key: str | None, more: Mapping[str, Any]) -> Steps[Job]:
    """A new job, or the one that was submitted with the same key before."""
    if isinstance(config, BaseModel):
        config = config.model_dump(mode="json", exclude_unset=True)
    try:
        call = post("/jobs", {"kind": kind, **more, "config": dict(config)})
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"the configuration of a job should be a dictionary that JSON can hold, or a pydantic model; got "
            f"{config!r:.100}: {error}"
        ) from None
    return (yield from _get(Job, call._replace(headers={**call.headers, "Idempotency-Key": key or uuid4().hex})))


def jobs(status: str | None, limit: int) -> Steps[list[Job]]:
    """The jobs."""
    call = Call("GET", "/jobs", {"limit": str(limit)} | ({"status": status} if status else {}))
    answer = yield from exchange(call)
    return [document(Job, call, item) for item in members(call, answer, "jobs")]


def job(id: str) -> Steps[Job]:
    """One of them."""
    return (yield from _get(Job, Call("GET", job_path(id))))


def stop(id: str) -> Steps[Job]:
    """Has a job stop."""
    return (yield from _get(Job, Call("POST", job_path(id) + "/stop")))


def activate_job(id: str, name: str) -> Steps[Model]:
    """Has the result of a job serve under a name."""
    return (yield from _get(Model, post(job_path(id) + "/activate", {"name": name})))


def job_path(id: str) -> str:
    """Where a job is."""
    return f"/jobs/{_part(id)}"


def post(path: str, body: Mapping[str, Any]) -> Call:
    """A request with a JSON body; raises TypeError or ValueError where JSON cannot hold it."""
    content = json.dumps(body, allow_nan=False).encode()
    return Call("POST", path, headers={"Content-Type": "application/json"}, content=content)


def as_sinograms(array: Any) -> NDArray[np.float32]:
    """A sinogram (A, D) or a stack (n, A, D) as little-endian float32: a numpy array, or a torch tensor anywhere.

    Raises:
        GeometryError: other axes.
        DataError: values that are not floating point.
    """
    if hasattr(array, "detach"):
        array = array.detach().cpu()
        array = (array.float() if array.is_floating_point() else array).numpy()
    values = np.asarray(array)
    if values.dtype.kind != "f":
        counts = "; photon counts become line integrals by -log(counts / unattenuated)" * (values.dtype.kind in "iu")
        raise DataError(f"line integrals are floating point, but this array holds {values.dtype}{counts}")
    if values.ndim not in (2, 3):
        raise GeometryError(
            f"a sinogram has the axes (angles, cells), a stack (n, angles, cells), but this array has the shape "
            f"{values.shape}; reshape it"
        )
    with np.errstate(over="ignore"):  # the service refuses what is not finite, and says where it is
        return np.ascontiguousarray(values, dtype="<f4")


def reconstruction(call: Call, answer: httpx.Response, axes: int) -> Reconstruction:
    """The images of an answer; raises ServiceError where it holds none."""
    head = answer.headers
    try:
        image = np.load(io.BytesIO(answer.content), allow_pickle=False)
        if image.dtype != np.float32 or image.ndim != axes:
            raise ValueError(f"{image.dtype} of shape {image.shape}")
        return Reconstruction(
            image=image,
            model=head["x-model"],
            version=head["x-model-version"],
            method=head["x-method"],
            geometry=head["x-geometry"],
            unit=head["x-value-unit"],
            seconds=float(head["x-seconds"]),
            request_id=request_id(answer),
        )
    except (ValueError, EOFError, KeyError) as error:
        raise strange(call, answer, f"a float32 array with {axes} axes and X- headers", error) from None


def members(call: Call, answer: httpx.Response, name: str) -> list[Any]:
    """The list in a JSON answer."""
    content = _json(call, answer)
    found = content.get(name) if isinstance(content, dict) else None
    if not isinstance(found, list):
        raise strange(call, answer, f"JSON with a list `{name}`", None)
    return found


def document(kind: type[Document], call: Call, content: Any) -> Document:
    """A part of a JSON answer as what it should be; raises ServiceError."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ServiceError(
            f"the answer to {call} should be a {kind.__name__.lower()}, but {where}: {first['msg']}; is it the fbp-ray "
            "service that answers there, and of this version?"
        ) from None


def _get(kind: type[Document], call: Call) -> Steps[Document]:
    answer = yield from exchange(call)
    return document(kind, call, _json(call, answer))


def _json(call: Call, answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError as error:
        raise strange(call, answer, "JSON", error) from None


def _part(name: str) -> str:
    """A name as a part of a path."""
    if not name.strip("."):
        raise ConfigError(f"a name or an id is expected; got {name!r}")
    return quote(name, safe="")


def retry_after(answer: httpx.Response, now: Callable[[], float] = time.time) -> float | None:
    """The seconds after which the service wants to be asked again; None where it does not."""
    given = answer.headers.get("retry-after")
    if answer.status_code != 503 or given is None:
        return None
    try:
        return max(0.0, float(given))
    except ValueError:
        pass
    try:
        date: datetime = parsedate_to_datetime(given)
    except ValueError:
        return None
    return max(0.0, date.replace(tzinfo=date.tzinfo or UTC).timestamp() - now())


def request_id(answer: httpx.Response) -> str:
    """What the service's log has a request under."""
    given: str = answer.headers.get("x-request-id", "")
    return given.split(",")[0].strip()


def refusal(call: Call, answer: httpx.Response) -> ServiceError:
    """The error that an answer tells of."""
    try:
        problem = answer.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {"detail": " ".join(answer.text.split())[:300] or answer.reason_phrase or "no reason given"}
    detail = str(problem.get("detail", problem))
    id = str(problem.get("request_id") or request_id(answer))
    token = {401: "; give it as Client(url, token=...)"}.get(answer.status_code, "")
    log = f" (request {id} in the service's log)" if id else ""
    return ServiceError(
        f"{call} was refused with {answer.status_code}: {detail}{token}{log}",
        status=answer.status_code,
        detail=detail,
        request_id=id,
    )


def unreachable(call: Call, error: httpx.TransportError) -> ServiceError:
    """The error of a request that got no answer."""
    try:
        where = str(error.request.url.copy_with(path="/", query=None)).rstrip("/?")
    except RuntimeError:  # it did not get as far as a request
        where = "the url"
    why = str(error) or type(error).__name__
    if isinstance(error, httpx.ReadTimeout | httpx.WriteTimeout | httpx.PoolTimeout):
        message = (
            f"no answer to {call} from {where} in time ({why}); send fewer sinograms a request, or give Client a "
            "longer timeout"
        )
    else:
        message = (
            f"no service answers {call} at {where}: {why}; start one with `python -m service`, or give Client the url "
            "of one that runs, such as http://127.0.0.1:8000"
        )
    return ServiceError(message, detail=why)


def strange(call: Call, answer: httpx.Response, expected: str, error: Exception | None) -> ServiceError:
    """The error of an answer that the service does not give."""
    kind = answer.headers.get("content-type", "no type")
    why = f" ({str(error)[:200]})" if error else ""
    return ServiceError(
        f"the answer to {call} should be {expected}, but it has {len(answer.content)} bytes of {kind}{why}; is it the "
        f"fbp-ray service that answers at {answer.url.host}?",
        status=answer.status_code,
        request_id=request_id(answer),
    )
