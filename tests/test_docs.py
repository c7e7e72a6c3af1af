"""The examples of docs/python.md run as they are written, and make what is said beside them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

PAGE = Path(__file__).parents[1] / "docs" / "python.md"


def test_the_examples_run_and_make_what_they_say() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 4
    names: dict[str, Any] = {}
    for block in blocks:
        if "train(" in block:  # which takes some time, and is tested elsewhere
            continue
        exec(compile(block, str(PAGE), "exec"), names)
        for name, shape in re.findall(r"^(\w+) = .*# \((\d+, \d+)\)", block, re.MULTILINE):
            assert str(tuple(names[name].shape)) == f"({shape})", name
        if "again" in block:
            error = (names["again"] - names["image"]).square().mean() / names["image"].square().mean()
            assert error < 0.02  # the edges
    assert torch.isfinite(names["image"]).all()
