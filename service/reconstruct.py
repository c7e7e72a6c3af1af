"""POST /reconstruct: a body of sinograms in, images out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Annotated, Any, Literal
from urllib.parse import quote

import numpy as np
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect
from torch import Tensor

from fbp_ray.data.values import in_hounsfield
from fbp_ray.stage_settings import WindowName
from service.access import Reconstruct, token_of
from service.batching import CLASSIC_FBP, Engine
from service.body_limits import read_body
from service.forms import read_form
from service.given_geometry import geometry_of, prepare
from service.memory import MEGABYTE, Bill
from service.problems import Problem, documented
from service.readers import FORMATS, GIVEN, Content, Stack, is_packed, read_stack
from service.settings import LimitsConfig
from service.turns import Turns
from service.writers import MEDIA_TYPES, Image, ImageFile, Output, write

router = APIRouter(tags=["reconstruct"])


class ReconstructOptions(BaseModel):
    """What to make of the sinograms."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[
        str | None, Field(max_length=64, description="a model of GET /models; without it `best`, else the classic FBP")
    ] = None
    method: Annotated[
        Literal["learned", "fbp"] | None, Field(description="fbp: the classic FBP in the model's geometry")
    ] = None
    window: Annotated[WindowName | None, Field(description="of the classic FBP")] = None
    cutoff: Annotated[
        float | None,
        Field(gt=0, le=1, allow_inf_nan=False, description="of the window, as a fraction of Nyquist's frequency"),
    ] = None
    output: Annotated[Output, Field(description="format of the answer; png and dcm of a stack come in a zip")] = "npy"
    level: Annotated[
        float | None,
        Field(
            ge=-1e9,
            le=1e9,
            allow_inf_nan=False,
            description="middle of a PNG's greys: in HU, -300 by default; where X-Value-Unit is not CT's, in "
            "the images' values, and by default the middle of each image's own",
        ),
    ] = None
    width: Annotated[
        float | None,
        Field(gt=0, le=1e9, allow_inf_nan=False, description="from black to white, likewise; 1400 HU by default"),
    ] = None


_BINARY = {"schema": {"type": "string", "format": "binary"}}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": f"One sinogram (angles, cells) or a stack (n, angles, cells), as {FORMATS}.",
        "content": {
            **dict.fromkeys(
                (
                    "application/octet-stream",
                    "application/x-npy",
                    "application/zip",
                    "application/x-hdf5",
                    "image/tiff",
                ),
                _BINARY,
            ),
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "sinogram": {"type": "string", "format": "binary"},
                        "geometry": {
                            "type": "string",
                            "description": "the stack's own scan, a ParallelBeam or FanBeam as JSON (metres, radians), "
                            "for the classic FBP; without it the sinograms are of the model's scan",
                        },
                    },
                    "required": ["sinogram"],
                }
            },
        },
    },
    "parameters": [
        {
            "name": "X-Shape",
            "in": "header",
            "required": False,
            "description": "the shape of raw float32: angles,cells or images,angles,cells",
            "schema": {"type": "string", "pattern": r"^\d{1,7}(,\d{1,7}){1,2}$"},
            "example": "1000,513",
        }
    ],
}
_TEXT = {"schema": {"type": "string"}}
_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Images: attenuation in 1/m, divided by X-Value-Scale (81.35858 for CT), axis 0 = x; "
        "pictures are transposed.",
        "content": {media: _BINARY if media != "application/json" else {} for media in MEDIA_TYPES.values()},
        "headers": {
            "X-Model": {"description": "the model's name", **_TEXT},
            "X-Model-Version": {"description": "its version, or the classic FBP's window", **_TEXT},
            "X-Model-Source": {"description": "where it comes from, as in a URL; empty for the classic FBP", **_TEXT},
            "X-Method": {"description": "learned or fbp", **_TEXT},
            "X-Geometry": {"description": "digest of the geometry", **_TEXT},
            "X-Value-Unit": {"description": "what the values are, in words", **_TEXT},
            "X-Value-Scale": {
                "description": "1/m that the value 1 stands for; left out where that is not known",
                "schema": {"type": "number"},
            },
            "X-Seconds": {"description": "from the whole request to the first image", **_TEXT},
            "X-Request-Id": {"description": "what the log has it under", **_TEXT},
        },
    }
}


@router.post(
    "/reconstruct",
    dependencies=[Reconstruct],
    response_class=Response,
    responses=_ANSWER | documented(400, 401, 403, 404, 408, 413, 415, 422, 503),
    openapi_extra=_BODY,
)
async def reconstruct(request: Request, options: Annotated[ReconstructOptions, Query()]) -> Response:
    """Reconstructs sinograms with a learned model, or with the classic FBP; a stack's are sent as they finish."""
    state = request.app.state
    limits: LimitsConfig = state.settings.limits
    bill: Bill = request.state.bill
    engine: Engine = state.registry.engine(options.model, options.method, options.window, options.cutoff)
    state.batcher.refuse_if_full()
    most = int(limits.body_mb * MEGABYTE)
    body = await read_body(request.receive, bill, request.headers, limits, most, "a body")
    began = time.perf_counter()
    with state.batcher.on_its_way():
        stack, engine = await _read_stack(request, body, engine, options)
        del body  # an array that is not made of it does not keep it
        file = _image_file(options, engine, stack)
        bill.take(file.memory)
        images = state.batcher.submit(engine, stack.sinograms)
    del stack
    await _wait(request, images, all=file.needs_all)
    headers = {
        "X-Model": engine.name,
        "X-Model-Version": engine.version,
        "X-Model-Source": quote(engine.source, safe="/:"),
        "X-Method": engine.method,
        "X-Geometry": engine.digest,
        "X-Value-Unit": engine.values,
        "X-Seconds": f"{time.perf_counter() - began:.4f}",
        "Content-Disposition": f'inline; filename="{file.name}"',
    }
    if engine.unit is not None:
        headers["X-Value-Scale"] = repr(engine.unit)
    content = write(file, _values(images), state.turns.run)
    if file.needs_all:
        whole = b"".join([part async for part in content])
        return Response(whole, headers=headers, media_type=file.media_type)
    return StreamingResponse(content, headers=headers, media_type=file.media_type)


async def _read_stack(
    request: Request, body: memoryview, engine: Engine, options: ReconstructOptions
) -> tuple[Stack, Engine]:
    """The sinograms, and what reconstructs them: `engine`, or the classic FBP in a geometry that comes with them."""
    state, headers, bill = request.app.state, request.headers, request.state.bill
    limits: LimitsConfig = state.settings.limits
    turns: Turns = state.turns
    unpacking: Turns = state.unpacking
    content: Content = body
    whose, given = f"the model {engine.name}", False
    client = request.client.host if request.client else ""
    in_turn = partial(unpacking.run_for, f"{client} {token_of(headers, state.settings)}")
    if headers.get("content-type", "").lower().startswith("multipart/form-data"):
        form = await turns.run(read_form, headers, body, limits.json_kb * 1000, bill)
        content, given = form.file, form.geometry is not None
        if form.geometry is not None:
            _refuse_geometry_of_model(options, engine)
            geometry = await in_turn(partial(geometry_of, form.geometry, limits, bill))
            engine, whose = state.registry.given(geometry, options.window, options.cutoff, bill), GIVEN
        del form
    shape = headers.get("x-shape")
    read: Callable[[], Stack] = partial(
        read_stack, content, shape, engine.geometry, whose, limits.stack, state.reader_pool, bill
    )
    packed = shape is None and is_packed(content)
    stack = await (in_turn(read) if packed else turns.run(read))
    if given:
        await in_turn(partial(prepare, engine, bill))
    return stack, engine


def _refuse_geometry_of_model(options: ReconstructOptions, engine: Engine) -> None:
    if engine.method != "fbp" or options.model not in (None, CLASSIC_FBP):
        raise Problem(
            422,
            f"the form has a geometry, but the model {options.model or engine.name} has one of its own: leave the "
            f"geometry out, or ask for the classic FBP with ?model={CLASSIC_FBP}",
        )


def _image_file(options: ReconstructOptions, engine: Engine, stack: Stack) -> ImageFile:
    return ImageFile(
        output=options.output,
        images=len(stack.sinograms),
        shape=engine.geometry.image_shape,
        single=stack.single,
        about={
            "model": engine.name,
            "version": engine.version,
            "method": engine.method,
            "geometry": engine.digest,
            "unit": engine.values,
        },
        level=options.level,
        width=options.width,
        in_hu=in_hounsfield(engine.unit),
        pixel_mm=engine.geometry.pixel_size * 1000,
    )


async def _wait(request: Request, images: Sequence[asyncio.Future[Tensor]], all: bool) -> None:
    """Waits for the first image, or for all; gives all up when that fails.

    Raises:
        ClientDisconnect: nobody waits for them any more.
        Problem: 500, the model failed; 503, it takes too long.
    """
    seconds = request.app.state.settings.limits.request_seconds
    ready: asyncio.Future[list[Tensor]] = asyncio.gather(*(images if all else images[:1]))
    gone = asyncio.ensure_future(_disconnect(request))
    waiting: set[asyncio.Future[Any]] = {ready, gone}
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            await ready
        elif gone.done():
            raise ClientDisconnect
        else:
            raise Problem(503, f"no image after {seconds:g} s; send fewer, or try again later", {"Retry-After": "5"})
    except BaseException:
        _give_up(images)
        raise
    finally:
        gone.cancel()
        ready.cancel()


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _give_up(images: Sequence[asyncio.Future[Tensor]]) -> None:
    for image in images:
        image.cancel()


async def _values(images: Sequence[asyncio.Future[Tensor]]) -> AsyncIterator[Image]:
    try:
        for image in images:
            yield np.ascontiguousarray((await image).numpy(), dtype=np.float32)
    finally:
        _give_up(images)
