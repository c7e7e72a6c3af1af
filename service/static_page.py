"""The page: its built files, public, from memory, under the names of the build's manifest and no others."""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response

from service.problems import Problem

BUILT = Path(__file__).parent / "page" / "dist"
"""Where `make page` puts it; `manifest.json` there has the media type of each file by its name."""

WITHOUT = (
    "The page is not built here; `make page` builds it (it needs Node 20), and wheels and images contain it. The API "
    "works as ever: /docs describes it.\n"
)
INDEX = "index.html"
POLICY = (
    "default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""No code or style but from the service itself. `blob:` are pictures that the page has fetched with its token."""

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class BuiltFile:
    """A file of the page."""

    content: bytes
    packed: bytes | None
    """The same by gzip, where that is less."""

    media_type: str
    tag: str


def read_page(folder: Path = BUILT) -> dict[str, BuiltFile]:
    """The files of the page by name; none where it is not built."""
    try:
        manifest: dict[str, str] = json.loads((folder / "manifest.json").read_bytes())
    except FileNotFoundError:
        return {}
    files = {}
    for name, media_type in manifest.items():
        content = (folder / name).read_bytes()
        packed = gzip.compress(content, mtime=0)
        tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        files[name] = BuiltFile(content, packed if len(packed) < 0.9 * len(content) else None, media_type, tag)
    return files


@router.api_route("/", methods=["GET", "HEAD"])
async def index(request: Request) -> Response:
    """The page, or one line on how to get it."""
    if not request.app.state.page:
        return PlainTextResponse(WITHOUT, headers=HEADERS)
    return _answer(request, INDEX, "no-cache")


@router.api_route("/page/{name}", methods=["GET", "HEAD"])
async def file(request: Request, name: str) -> Response:
    """A file of the page. Its name has a digest of its content, so browsers may keep it."""
    return _answer(request, name, "public, max-age=31536000, immutable")


def _answer(request: Request, name: str, caching: str) -> Response:
    found: BuiltFile | None = request.app.state.page.get(name)
    if found is None:
        raise Problem(404, f"the page has no file {name:.80}; load it anew from /")
    headers = {**HEADERS, "Cache-Control": caching, "ETag": found.tag, "Vary": "Accept-Encoding"}
    if request.headers.get("if-none-match") == found.tag:
        return Response(status_code=304, headers=headers)
    content = found.content
    if found.packed is not None and "gzip" in request.headers.get("accept-encoding", ""):
        content, headers["Content-Encoding"] = found.packed, "gzip"
    return Response(content, headers=headers, media_type=found.media_type)
