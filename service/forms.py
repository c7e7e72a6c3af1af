"""What a multipart form of a request for images holds: one file, and the geometry of its scan where it gives one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import NamedTuple

from python_multipart.exceptions import FormParserError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from service.memory import Bill
from service.problems import Problem
from service.readers import Content


class Form(NamedTuple):
    """What a multipart form holds."""

    file: bytes
    geometry: str | bytes | None
    """The field `geometry`, as text or as a file."""


def read_form(headers: Headers, body: Content, max_field: int, bill: Bill) -> Form:
    """The one file of a multipart form, and the geometry beside it.

    Args:
        headers: of the request.
        body: the form.
        max_field: bytes that the field `geometry` may have.
        bill: of the request.

    Raises:
        Problem: 400, the form is damaged, or holds no file, several, or other fields; 503, there is no memory for it
            now; 507, no room on the disk that takes large files.
    """
    with bill:
        bill.take(2 * len(body))  # what the parser puts aside, and what is read of that
        try:
            return asyncio.run(_read_form(headers, body, max_field))
        except OSError as error:
            raise Problem(
                507, f"a file in a form is put aside first, which fails: {error}; send it as the body"
            ) from None


_FORM = "for example curl -F sinogram=@scan.npy -F 'geometry=<geometry.json'"


async def _read_form(headers: Headers, body: Content, max_field: int) -> Form:
    async def stream() -> AsyncGenerator[bytes, None]:
        for begin in range(0, len(body), 1 << 16):
            yield bytes(body[begin : begin + (1 << 16)])

    try:
        # a file more than there may be of sinograms: the geometry comes as one, too (curl -F geometry=@scan.json)
        parser = MultiPartParser(headers, stream(), max_files=2, max_fields=1, max_part_size=max_field)
        form = await parser.parse()
    except (MultiPartException, FormParserError, KeyError, ValueError, AssertionError) as error:
        why = getattr(error, "message", "") or str(error) or type(error).__name__
        raise Problem(
            400,
            f"the form cannot be read: {why}; send one file, and no more than {max_field} bytes of geometry: {_FORM}",
        ) from None
    try:
        parts = [(name == "geometry", part) for name, part in form.multi_items()]
        geometries = [part for is_geometry, part in parts if is_geometry]
        others = [part for is_geometry, part in parts if not is_geometry]
        if len(geometries) > 1 or len(others) != 1 or not isinstance(others[0], UploadFile):
            names = [f"{name:.40}" for name, _ in form.multi_items()]
            raise Problem(400, f"a form holds one file and may have `geometry`, but this one has {names}: {_FORM}")
        found = geometries[0] if geometries else None
        geometry = await found.read(max_field + 1) if isinstance(found, UploadFile) else found
        return Form(await others[0].read(), geometry)
    finally:
        await form.close()
