"""POST /reconstruct: a body of sinograms in, images out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from torch import Tensor

from fbp_ray.filters import WindowName
from service.access import Reconstruct
from service.engine import UNIT, Engine
from service.formats.decode import FORMATS, Stack, decode, file_of_form
from service.formats.encode import MEDIA_TYPES, Image, Output, Wanted, encode
from service.formats.pictures import Display
from service.problems import Problem, documented

router = APIRouter(tags=["reconstruct"])
GONE = 499  # what proxies log for a client that went away; nobody receives it


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
        float, Field(ge=-2000, le=6000, allow_inf_nan=False, description="middle of a PNG's greys, in HU")
    ] = -300
    width: Annotated[float, Field(ge=1, le=10000, allow_inf_nan=False, description="from black to white, in HU")] = 1400


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
                    "properties": {"sinogram": {"type": "string", "format": "binary"}},
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
        "description": "Images: attenuation / 81.35858 per metre, axis 0 = x; pictures are transposed.",
        "content": {media: _BINARY if media != "application/json" else {} for media in MEDIA_TYPES.values()},
        "headers": {
            "X-Model": {"description": "the model's name", **_TEXT},
            "X-Model-Version": {"description": "its version, or the classic FBP's window", **_TEXT},
            "X-Method": {"description": "learned or fbp", **_TEXT},
            "X-Geometry": {"description": "digest of the geometry", **_TEXT},
            "X-Value-Unit": {"description": "of the values", **_TEXT},
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
    engine: Engine = state.catalogue.engine(options.model, options.method, options.window, options.cutoff)
    state.batcher.refuse_if_full()
    try:
        async with state.bodies.read(request) as body:
            began = time.perf_counter()
            with state.batcher.on_its_way():
                stack = await _decode(request, body, engine)
                images = state.batcher.submit(engine, stack.sinograms)
            wanted = _wanted(options, engine, stack)
            try:
                async with asyncio.timeout(state.settings.limits.request_seconds):
                    await _unless_gone(request, images if _needs_all(wanted) else images[:1])
            except TimeoutError:
                raise Problem(
                    503,
                    f"no image after {state.settings.limits.request_seconds:g} s; send fewer, or try again later",
                    {"Retry-After": "5"},
                ) from None
            finally:
                if not all(image.done() and not image.cancelled() for image in images[:1]):
                    _give_up(images)
            headers = _headers(engine, wanted, time.perf_counter() - began)
            if _needs_all(wanted):
                content = b"".join([part async for part in encode(wanted, _finished(images))])
                return Response(content, headers=headers, media_type=wanted.media_type)
            return StreamingResponse(
                encode(wanted, _as_they_finish(images)), headers=headers, media_type=wanted.media_type
            )
    except ClientDisconnect:
        return Response(status_code=GONE)


async def _decode(request: Request, body: bytearray, engine: Engine) -> Stack:
    state = request.app.state
    content: bytes | bytearray = body
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        content = await file_of_form(request.headers, body, state.bodies.most)
    return await run_in_threadpool(
        decode,
        content,
        request.headers.get("x-shape"),
        engine.geometry,
        engine.name,
        state.settings.limits.stack,
        state.bodies.most,
        state.guarded,
    )


def _wanted(options: ReconstructOptions, engine: Engine, stack: Stack) -> Wanted:
    about = {
        "model": engine.name,
        "version": engine.version,
        "method": engine.method,
        "geometry": engine.digest,
        "unit": UNIT,
    }
    display = Display(options.level, options.width, engine.geometry.pixel_size * 1000)
    return Wanted(options.output, len(stack.sinograms), engine.geometry.image_shape, stack.alone, about, display)


def _needs_all(wanted: Wanted) -> bool:
    """Whether the answer can begin only when all images are there."""
    return wanted.images == 1 or wanted.output in ("h5", "tif")


def _headers(engine: Engine, wanted: Wanted, seconds: float) -> dict[str, str]:
    return {
        "X-Model": engine.name,
        "X-Model-Version": engine.version,
        "X-Method": engine.method,
        "X-Geometry": engine.digest,
        "X-Value-Unit": UNIT,
        "X-Seconds": f"{seconds:.4f}",
        "Content-Disposition": f'inline; filename="{wanted.file_name}"',
    }


async def _unless_gone(request: Request, images: Sequence[asyncio.Future[Tensor]]) -> None:
    """Waits for images; raises ClientDisconnect as soon as nobody waits for them any more."""
    ready: asyncio.Future[list[Tensor]] = asyncio.gather(*images)
    gone = asyncio.ensure_future(_gone(request))
    waiting: set[asyncio.Future[Any]] = {ready, gone}
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            raise ClientDisconnect
        await ready
    finally:
        gone.cancel()
        ready.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _give_up(images: Sequence[asyncio.Future[Tensor]]) -> None:
    for image in images:
        image.cancel()


async def _finished(images: Sequence[asyncio.Future[Tensor]]) -> AsyncIterator[Image]:
    for image in images:
        yield _values(image.result())


async def _as_they_finish(images: Sequence[asyncio.Future[Tensor]]) -> AsyncIterator[Image]:
    try:
        for image in images:
            yield _values(await image)
    finally:
        _give_up(images)


def _values(image: Tensor) -> Image:
    values: Image = np.ascontiguousarray(image.numpy(), dtype=np.float32)
    return values
