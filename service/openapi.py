"""`python -m service.openapi` prints the outline of the OpenAPI document, of which the page's types are made."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

from service.app import create_app
from service.settings import Settings

_WORDS = ("description", "title", "summary", "version")


def outline() -> dict[str, Any]:
    """The document without its words: what requests and answers consist of."""
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(Settings(state=Path(folder)))
        try:
            found: dict[str, Any] = _without_words(app.openapi())
        finally:
            app.state.database.close()
    return found


def digest(found: dict[str, Any]) -> str:
    """Names an outline; the first line of the page's types has that of the one they were made of."""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def _without_words(part: Any) -> Any:
    if isinstance(part, list):
        return [_without_words(item) for item in part]
    if not isinstance(part, dict):
        return part
    return {
        name: _without_words(value)
        for name, value in part.items()
        if not (name in _WORDS and isinstance(value, str)) and name not in ("examples", "example")
    }


if __name__ == "__main__":
    document = outline()
    print(json.dumps({"digest": digest(document), "document": {"openapi": "3.1.0", **document}}))
