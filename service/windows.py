"""Windows over HTTP: what a model makes of each frequency, and how noisy it takes each ray of a sinogram to be."""

from __future__ import annotations

import io
from functools import partial
from typing import Annotated, Any, get_args

import numpy as np
import torch
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from torch import Tensor, nn

from fbp_ray.filters import BandWindow, TableWindow, ZengWindow, analytic_window, is_plain
from fbp_ray.filters.adaptive import ENERGIES, VARIANCES
from fbp_ray.stage_settings import WindowName
from service.access import Reconstruct, token_of
from service.batching import Engine
from service.body_limits import read_body
from service.memory import MEGABYTE, Bill
from service.model_registry import ModelRegistry
from service.models import Name
from service.problems import Problem, documented
from service.readers import FORMATS, Content, is_packed, read_stack
from service.settings import LimitsConfig
from service.turns import Turns

MOST_FREQUENCIES, MOST_ANGLES = 257, 128  # that an answer has; a window is smooth between them
router = APIRouter(tags=["models"])
Numbers = list[float]


class WindowDocument(BaseModel):
    """The window of a model, as the share of each frequency that it keeps."""

    kind: str = Field(description="as in the model's settings")
    frequency: Numbers = Field(description="F of them, as fractions of Nyquist's")
    analytic: dict[str, Numbers] = Field(description="classic windows at these frequencies, with the given cut-off")
    window: Numbers | None = Field(default=None, description="(F): one for all rays, or the mean over the angles")
    by_angle: list[Numbers] | None = Field(
        default=None, description="(angles, F), where it differs from one to another"
    )
    angle: Numbers | None = Field(default=None, description="the angles of `by_angle`, rad")
    bands: list[Numbers] | None = Field(
        default=None, description="(M + 1, F), of a window by noise: the first is kept, the others have gains"
    )
    gains: list[list[Numbers]] | None = Field(
        default=None, description="(M, variances, energies): the window is bands[0] + sum of gains[m] bands[m + 1]"
    )
    log_variance: Numbers | None = Field(default=None, description="log10 of a ray's variance, of the gains' entries")
    log_energy: Numbers | None = Field(
        default=None, description="log10 of a band's energy over that of noise alone, of the gains' entries"
    )
    noise: bool = Field(default=False, description="whether it depends on each ray's noise: POST /noise shows that")


def _numbers(values: NDArray[Any] | Tensor) -> Any:
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    return np.round(array.astype(np.float64), 6).tolist()


def _some(values: NDArray[Any], most: int, axis: int) -> NDArray[Any]:
    """At most so many entries along an axis, evenly spaced, the first and the last among them."""
    length = values.shape[axis]
    return values.take(np.linspace(0, length - 1, min(length, most)).round().astype(int), axis)


def describe(stage: nn.Module, kind: str, theta: NDArray[np.float64], cutoff: float) -> WindowDocument:
    """The document of a filter stage.

    Args:
        stage: of a model.
        kind: its name in the settings.
        theta: (A,), the angles of the parallel beam, rad.
        cutoff: of the analytic windows.
    """
    found: dict[str, Any] = {}
    frequency = np.linspace(0, 1, MOST_FREQUENCIES)
    if isinstance(stage, BandWindow):
        bands = stage.bands().detach().cpu().numpy()
        frequency = _some(np.linspace(0, 1, bands.shape[-1]), MOST_FREQUENCIES, 0)
        energies = np.linspace(*ENERGIES) if stage.gains.shape[-1] > 1 else np.zeros(1)
        found = {
            "bands": _numbers(_some(bands, MOST_FREQUENCIES, 1)),
            "gains": _numbers(stage.gains),
            "log_variance": _numbers(np.linspace(*VARIANCES)),
            "log_energy": _numbers(energies),
        }
    elif is_plain(stage):
        window = stage.window().detach().cpu().numpy()
        frequency = _some(np.linspace(0, 1, window.shape[-1]), MOST_FREQUENCIES, 0)
        window = _some(window, MOST_FREQUENCIES, -1)
        found = {"window": _numbers(window if window.ndim == 1 else window.mean(0))}
        if window.ndim == 2:
            found |= {
                "by_angle": _numbers(_some(window, MOST_ANGLES, 0)),
                "angle": _numbers(_some(theta, MOST_ANGLES, 0)),
            }
    elif isinstance(stage, TableWindow):  # of which rays get parts: the analytic one that the least noisy get
        weight = stage.weight.detach().cpu().numpy()
        frequency = _some(np.linspace(0, 1, weight.shape[-1]), MOST_FREQUENCIES, 0)
        found = {"window": _numbers(_some(weight, MOST_FREQUENCIES, -1))}
    analytic = {name: _numbers(analytic_window(name, frequency, cutoff)) for name in get_args(WindowName)}
    noise = isinstance(stage, BandWindow | ZengWindow)
    return WindowDocument(kind=kind, frequency=_numbers(frequency), analytic=analytic, noise=noise, **found)


def _engine(request: Request, name: str) -> Engine:
    registry: ModelRegistry = request.app.state.registry
    return registry.get(name).engine


@router.get("/models/{name}/window", dependencies=[Reconstruct], responses=documented(401, 403, 404, 422, 503))
async def get_window(
    request: Request,
    name: Name,
    cutoff: Annotated[
        float, Query(gt=0, le=1, allow_inf_nan=False, description="of the analytic windows beside it")
    ] = 1.0,
) -> WindowDocument:
    """What a model's window keeps of each frequency, beside the classic windows."""
    turns: Turns = request.app.state.turns
    engine = await turns.run(_engine, request, name)
    assert engine.model is not None
    stage, kind = engine.model.filter, engine.model.config.window.kind
    return await turns.run(describe, stage, kind, engine.parallel.theta, cutoff)


@router.post(
    "/noise",
    dependencies=[Reconstruct],
    response_class=Response,
    responses={
        200: {
            "description": "log10 of the variance of line integrals, (angles, cells) or of tiles of these, as .npy",
            "content": {"application/x-npy": {"schema": {"type": "string", "format": "binary"}}},
        },
        **documented(400, 401, 403, 404, 408, 413, 415, 422, 503),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": f"One sinogram (angles, cells), as {FORMATS}.",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        },
        "parameters": [
            {
                "name": "X-Shape",
                "in": "header",
                "required": False,
                "description": "the shape of raw float32: angles,cells",
                "schema": {"type": "string", "pattern": r"^\d{1,7}(,\d{1,7}){1,2}$"},
                "example": "1000,513",
            }
        ],
    },
)
async def get_noise(
    request: Request, model: Annotated[str, Query(max_length=64, description="a model of GET /models")] = "best"
) -> Response:
    """How noisy a model takes each ray of a sinogram to be; what its window goes by."""
    state = request.app.state
    limits: LimitsConfig = state.settings.limits
    bill: Bill = request.state.bill
    turns: Turns = state.turns
    engine = await turns.run(_engine, request, model)
    assert engine.model is not None
    if not isinstance(engine.model.filter, BandWindow | ZengWindow):
        raise Problem(
            422,
            f"the window of {model}, {engine.model.config.window.kind}, is the same for all rays, noisy or not; "
            "GET /models/NAME/window shows it",
        )
    body = await read_body(request.receive, bill, request.headers, limits, int(limits.body_mb * MEGABYTE), "a body")
    shape = request.headers.get("x-shape")
    client = request.client.host if request.client else ""
    whose = f"{client} {token_of(request.headers, state.settings)}"
    unpacking: Turns = state.unpacking if shape is None and is_packed(body) else turns
    content = await unpacking.run_for(whose, partial(_noise, body, shape, engine, state.reader_pool, bill))
    return Response(content, media_type="application/x-npy")


def _noise(body: Content, shape: str | None, engine: Engine, reader_pool: Any, bill: Bill) -> bytes:
    with bill:
        stack = read_stack(body, shape, engine.geometry, f"the model {engine.name}", 1, reader_pool, bill)
        bill.take(16 * stack.sinograms.numel())
        model = engine.model
        assert model is not None
        stage = model.filter
        assert isinstance(stage, BandWindow | ZengWindow)
        with torch.inference_mode():
            levels = stage.noise_levels(model.rebinned(stack.sinograms.to(engine.device)))
        file = io.BytesIO()
        np.save(file, np.ascontiguousarray(levels[0].cpu().numpy(), dtype=np.float32))
        return file.getvalue()
