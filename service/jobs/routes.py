"""Jobs over HTTP. All of it needs the role `operate`.

Between two looks at a job, an answer without an end (a log that is followed, or events) holds no thread.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Header, Path, Query, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from service.access import Operate
from service.jobs.documents import JobActivation, JobDocument, JobList, Status
from service.jobs.looks import Looks
from service.jobs.manager import Jobs
from service.jobs.program import EXAMPLES, JobRequest
from service.problems import documented
from service.turns import Turns

END = "end"  # the name of the last event, and its id
router = APIRouter(prefix="/jobs", tags=["jobs"], dependencies=[Operate])
_REFUSED = documented(401, 403, 422)
_NO_JOB = documented(401, 403, 404, 422)
_NOT_CACHED = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


async def _jobs(request: Request) -> Jobs:
    jobs: Jobs = request.app.state.jobs
    return jobs


async def _storing(request: Request) -> Turns:
    turns: Turns = request.app.state.storing
    return turns


async def _looks(request: Request) -> Looks:
    looks: Looks = request.app.state.looks
    return looks


TheJobs = Annotated[Jobs, Depends(_jobs)]
Storing = Annotated[Turns, Depends(_storing)]
JobId = Annotated[str, Path(description="the job's id, as POST /jobs and GET /jobs have it", examples=["5f1d20b39c"])]


@router.post(
    "",
    status_code=201,
    summary="Submit a job",
    response_model=JobDocument,
    responses={
        200: {"model": JobDocument, "description": "The job of an earlier request with the same Idempotency-Key"},
        201: {
            "description": "The job; it runs when its turn comes",
            "headers": {"Location": {"description": "where the job is", "schema": {"type": "string"}}},
        },
        **documented(400, 401, 403, 409, 413, 415, 422, 503, 507),
    },
)
async def submit(
    request: Request,
    response: Response,
    jobs: TheJobs,
    storing: Storing,
    body: Annotated[JobRequest, Body(discriminator="kind", openapi_examples=EXAMPLES)],
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            pattern=r"^[!-~]+$",
            description="with the same key and body the answer is the same job, however often it is sent; visible "
            "ASCII. The same key with another body is refused (409)",
            examples=["c5d2b2f0-reference-1"],
        ),
    ] = None,
) -> Any:
    """Takes a training, a sweep, an evaluation or a reconstruction.

    What cannot be is refused at once: settings that do not hold, a run that is complete, more processors than the
    cluster has. The configuration of a run or sweep that was interrupted, with its name, goes on with it.
    """
    job, replayed = await storing.run(jobs.submit, body, idempotency_key)
    response.headers["Location"] = str(request.url_for("get_job", id=job.id).path)
    if replayed:
        response.status_code = 200
        response.headers["Idempotency-Replayed"] = "true"
    return job


@router.get("", summary="List jobs", response_model=JobList, responses=_REFUSED)
async def list_jobs(
    jobs: TheJobs,
    storing: Storing,
    limit: Annotated[int, Query(ge=1, le=1000, description="so many at most")] = 100,
    status: Annotated[Status | None, Query(description="those of this status alone")] = None,
) -> Any:
    """The jobs that the service knows, the newest in front."""
    return JobList(jobs=await storing.run(jobs.newest, limit, status))


@router.get("/{id}", summary="See how a job stands", response_model=JobDocument, responses=_NO_JOB)
async def get_job(jobs: TheJobs, storing: Storing, id: JobId) -> Any:
    """A job's status, why it is pending or has failed, its progress by epoch, and its best metrics."""
    return await storing.run(jobs.get, id)


@router.get(
    "/{id}/logs",
    summary="Read what a job prints",
    response_class=PlainTextResponse,
    responses={200: {"description": "The log, or the last 4 MB of it"}, **_NO_JOB},
)
async def get_log(
    request: Request,
    jobs: TheJobs,
    storing: Storing,
    looks: Annotated[Looks, Depends(_looks)],
    id: JobId,
    follow: Annotated[bool, Query(description="go on until the job has ended")] = False,
) -> Response:
    """The log of a job, also after its cluster is gone."""
    part, ended = await storing.run(jobs.log, id)
    if not follow:
        return PlainTextResponse(part.content, headers=_NOT_CACHED)

    async def parts() -> AsyncIterator[bytes]:
        nonlocal part, ended
        yield part.content
        while not (ended or request.app.state.closing.is_set()):
            part, ended = await looks.next(jobs.log, id, part.end)
            if part.content:
                yield part.content

    return StreamingResponse(parts(), media_type="text/plain; charset=utf-8", headers=_NOT_CACHED)


async def _rows_seen(
    response: Response,
    jobs: TheJobs,
    storing: Storing,
    id: JobId,
    last_event_id: Annotated[
        str | None, Header(description="the id of the last event that the caller has seen: it goes on from there")
    ] = None,
) -> int | None:
    """The rows that the caller has already; None where it has seen the end."""
    job = await storing.run(jobs.get, id)
    response.headers["Cache-Control"] = "no-store"
    if last_event_id == END and job.ended is not None:
        response.status_code = 204
        return None
    digits = last_event_id or ""
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else 0


@router.get(
    "/{id}/events",
    summary="Follow a job by its events",
    response_class=EventSourceResponse,
    responses={
        200: {
            "description": "Server-sent events: `status` and `end` with the job's document, `epoch`, `trial` or "
            "`evaluation` with a row of its progress",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        204: {"description": "The caller has seen the end already, so that a browser does not come back"},
        **_NO_JOB,
    },
)
async def get_events(
    request: Request,
    jobs: TheJobs,
    storing: Storing,
    looks: Annotated[Looks, Depends(_looks)],
    id: JobId,
    seen: Annotated[int | None, Depends(_rows_seen)],
) -> AsyncIterator[ServerSentEvent]:
    """What happens to a job, as it happens."""
    # `status` is the job's document, at first and when its status or reason is another; `epoch` (of a sweep `trial`, of
    # an evaluation `evaluation`) a row of its progress. Their ids are the number of rows until then.
    last: tuple[str, str] | None = None
    job = await storing.run(jobs.get, id)
    while seen is not None:
        if (job.status, job.reason) != last:
            last = job.status, job.reason
            yield ServerSentEvent(event="status", id=str(seen), data=_without_rows(job))
        for row in job.progress.rows[seen:]:
            seen += 1
            yield ServerSentEvent(event=job.progress.unit, id=str(seen), data=row)
        if job.ended is not None:
            yield ServerSentEvent(event=END, id=END, data=_without_rows(job))
            return
        if request.app.state.closing.is_set():
            return
        job = await looks.next(jobs.get, id)


def _without_rows(job: JobDocument) -> JobDocument:
    """The document; its rows are events of their own."""
    return job.model_copy(update={"progress": job.progress.model_copy(update={"rows": []})})


@router.post(
    "/{id}/stop",
    status_code=202,
    summary="Stop a job",
    response_model=JobDocument,
    responses={
        200: {"model": JobDocument, "description": "It had not begun and is stopped"},
        202: {"description": "It is being stopped, which takes seconds; what is finished is kept"},
        **documented(401, 403, 404, 409, 422, 503, 507),
    },
)
async def stop_job(response: Response, jobs: TheJobs, storing: Storing, id: JobId) -> Any:
    """Ends a job. The same request as before then goes on with its run."""
    job = await storing.run(jobs.stop, id)
    if job.ended is not None:
        response.status_code = 200
    return job


@router.post(
    "/{id}/activate",
    summary="Have the result of a job serve",
    response_class=Response,
    responses={
        200: {
            "description": "The model that serves now",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ModelDocument"}}},
        },
        **documented(400, 401, 403, 404, 409, 413, 415, 422, 503, 507),
    },
)
async def activate_job(
    request: Request, jobs: TheJobs, id: JobId, body: Annotated[JobActivation | None, Body()] = None
) -> Response:
    """Loads the best model of a training or a sweep, checks it, and switches to it without losing a request."""
    activating: Turns = request.app.state.activating
    model = await activating.run(jobs.activate, id, (body or JobActivation()).name)
    return Response(model.model_dump_json(), media_type="application/json")
