"""The runs that the service can see, their reports, and the newest picture of a job's, over HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from fbp_ray.report.program import REPORT
from fbp_ray.run import NEWEST
from fbp_ray.runs import Best, summary
from fbp_ray.storage import Folder
from service.access import Operate
from service.jobs.documents import Figure, has_model, report_of, reports_in, showable
from service.jobs.manager import Jobs
from service.jobs.routes import JobId
from service.memory import MEGABYTE, Bill
from service.places import Places, without_secrets
from service.problems import Problem, documented
from service.settings import Settings
from service.turns import Turns

MOST_RUNS = 200
MOST_BYTES = 32 * MEGABYTE  # of a report or a picture
SANDBOX = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
"""A report has styles and pictures inside, and nothing that runs."""
router = APIRouter(dependencies=[Operate], tags=["runs"])


class RunDocument(BaseModel):
    """A run folder."""

    name: str
    place: str
    state: str = Field(
        description="running, completed, stopped, failed, interrupted, damaged or unknown; `report` for what is no run "
        "and has a report: an evaluation or a sweep"
    )
    reason: str
    epochs_done: int
    epochs: int | None
    psnr: Figure | None
    ssim: Figure | None
    changed: datetime | None
    model: bool = Field(description="whether it has a model that can serve")
    reports: list[str] = Field(description="places whose report GET /report gives")


class RunList(BaseModel):
    """Runs, the one that changed last in front."""

    runs: list[RunDocument]
    problem: str = Field(default="", description="a storage that cannot be read, if any")


def _figure(best: Best | None) -> Figure | None:
    return None if best is None else Figure(value=showable(best.value), epoch=best.epoch, over_fbp=showable(best.gain))


def _document(folder: Folder) -> RunDocument:
    run = summary(folder)
    reports = reports_in(folder)
    known = folder.has("status.json")
    return RunDocument(
        name=run.name,
        place=without_secrets(run.path),
        state=run.state if known else "report",
        reason=showable(run.reason),
        epochs_done=run.epochs_done,
        epochs=run.epochs,
        psnr=_figure(run.psnr),
        ssim=_figure(run.ssim),
        changed=run.changed if known else folder.changed(report_of(folder)),
        model=has_model(folder),
        reports=reports,
    )


def find_runs(settings: Settings) -> RunList:
    """The runs in the two storages of the settings, and what else has a report; of many those that changed last."""
    places, problem = Places.of(settings), ""
    found: dict[str, tuple[float, Folder]] = {}
    for storage in dict.fromkeys((settings.models.storage, settings.jobs.storage)):
        try:
            folder = places.open(without_secrets(storage))
            for name in folder.folders() if folder.exists() else ():
                inner = folder / name
                changed = inner.changed("status.json")
                if changed is None and (report := report_of(inner)):
                    changed = inner.changed(report)
                if changed is not None:
                    found[str(inner)] = changed.timestamp(), inner
        except OSError as error:
            problem = f"{without_secrets(storage)} cannot be read: {error}"
    newest = sorted(found.values(), key=lambda item: -item[0])[:MOST_RUNS]
    return RunList(runs=[_document(folder) for _, folder in newest], problem=problem)


@router.get("/runs", summary="List runs", responses=documented(401, 403, 503))
async def list_runs(request: Request) -> RunList:
    """The runs that models may come from, with their figures and reports."""
    storing: Turns = request.app.state.storing
    return await storing.run(find_runs, request.app.state.settings)


def _read(folder: Folder, name: str, bill: Bill) -> bytes:
    try:
        with bill:
            if folder.has(name):
                bill.take(MOST_BYTES)
                return folder.read(name, MOST_BYTES)
    except OSError as error:
        raise Problem(404, f"{name} of {without_secrets(str(folder))} cannot be read: {error}") from None
    raise Problem(404, f"{without_secrets(str(folder))} has no {name} yet")


@router.get(
    "/report",
    summary="Read a report",
    response_class=Response,
    responses={
        200: {"description": "The page", "content": {"text/html": {"schema": {"type": "string"}}}},
        **documented(401, 403, 404, 422, 503),
    },
)
async def get_report(
    request: Request, place: Annotated[str, Query(max_length=1000, description="one of a run's `reports`")]
) -> Response:
    """The report of a run, an evaluation or a sweep, a page that needs nothing else."""
    storing: Turns = request.app.state.storing
    places = Places.of(request.app.state.settings)

    def read() -> bytes:
        folder = places.open(place)
        return _read(folder, report_of(folder) or REPORT, request.state.bill)

    content = await storing.run(read)
    return Response(content, media_type="text/html", headers={"Content-Security-Policy": SANDBOX})


@router.get(
    "/jobs/{id}/newest",
    summary="See a job's newest reconstruction",
    response_class=Response,
    responses={
        200: {"description": "The picture", "content": {"image/png": {"schema": {"type": "string"}}}},
        **documented(401, 403, 404, 422, 503),
    },
)
async def get_newest(request: Request, id: JobId) -> Response:
    """The classic FBP, the reconstruction of the newest epoch, and the ground truth, of a validation sample."""
    storing: Turns = request.app.state.storing
    jobs: Jobs = request.app.state.jobs
    content = await storing.run(lambda: _read(jobs.folder(id), NEWEST, request.state.bill))
    if not content.startswith(b"\x89PNG"):
        raise Problem(404, f"job {id} has no picture: {NEWEST} in its folder is none")
    return Response(content, media_type="image/png", headers={"Cache-Control": "no-store"})
