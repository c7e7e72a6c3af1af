"""POST /array: a file of any format that the service reads, answered as .npy of float32."""

from __future__ import annotations

import io
from functools import partial

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import Response
from numpy.lib import format as npy
from numpy.typing import NDArray

from service.access import Reconstruct, token_of
from service.body_limits import read_body
from service.memory import MEGABYTE, Bill
from service.problems import Problem, documented
from service.reader_pool import ReaderPool
from service.readers import FORMATS, Content, is_packed, read_array
from service.settings import LimitsConfig
from service.turns import Turns

router = APIRouter(tags=["reconstruct"])
_BINARY = {"schema": {"type": "string", "format": "binary"}}


@router.post(
    "/array",
    dependencies=[Reconstruct],
    response_class=Response,
    responses={
        200: {"description": "The array as .npy, float32", "content": {"application/x-npy": _BINARY}},
        **documented(400, 401, 403, 408, 413, 415, 422, 503),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": f"A file: {FORMATS.partition(', or raw')[0]}.",
            "content": {"application/octet-stream": _BINARY},
        }
    },
)
async def convert_array(request: Request) -> Response:
    """The sinograms or images of a file as they are, so that a browser can show them: (y, x) or (n, y, x)."""
    state = request.app.state
    limits: LimitsConfig = state.settings.limits
    bill: Bill = request.state.bill
    most = int(limits.body_mb * MEGABYTE)
    body = await read_body(request.receive, bill, request.headers, limits, most, "a body")
    turns: Turns = state.unpacking if is_packed(body) else state.turns
    client = request.client.host if request.client else ""
    whose = f"{client} {token_of(request.headers, state.settings)}"
    content = await turns.run_for(whose, partial(_as_npy, body, state.reader_pool, bill))
    return Response(content, media_type="application/x-npy")


def _as_npy(body: Content, reader_pool: ReaderPool, bill: Bill) -> bytes:
    with bill:
        array: NDArray[np.floating] = read_array(body, None, reader_pool, bill)
        if array.ndim not in (2, 3):
            raise Problem(
                422, f"a sinogram or an image has two axes, a stack three, but this has the shape {array.shape}"
            )
        if array.size == 0:
            raise Problem(422, f"the array is empty: its shape is {array.shape}")
        if array.size * 4 > reader_pool.max_bytes:
            raise Problem(413, f"the array has more than {reader_pool.max_bytes} bytes as float32; send less")
        bill.take(8 * array.size)  # as float32, and the answer
        file = io.BytesIO()
        with np.errstate(over="ignore", invalid="ignore"):
            npy.write_array(file, np.require(array, "<f4", "C"), version=(1, 0), allow_pickle=False)
        return file.getvalue()
