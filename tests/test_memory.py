"""The memory that a container leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from fbp_ray import memory

FREE = {2: ("memory.max", "memory.current", "max"), 1: ("memory.limit_in_bytes", "memory.usage_in_bytes", str(2**63))}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("inner", ["outer/inner", "."])  # inside a container of version 1 its own group is the top
def test_limits_of_control_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int, inner: str) -> None:
    top = tmp_path / "groups" / ("memory" if version == 1 else ".")
    limit, usage, without = FREE[version]
    (top / inner).mkdir(parents=True)
    for group, most, used, cached in ((top / inner, without, 50, 20), ((top / inner).parent, "1000", 500, 100)):
        if inner == "." and most == without:
            continue
        group = top if inner == "." else group
        (group / limit).write_text(f"{most}\n")
        (group / usage).write_text(f"{used}\n")
        (group / "memory.stat").write_text(f"anon 1\ninactive_file {cached}\ntotal_inactive_file {cached}\n")
    own = tmp_path / "own"
    own.write_text("1:cpu:/elsewhere\n" + ("5:memory:/outer/inner\n0::/\n" if version == 1 else "0::/outer/inner\n"))
    assert min(memory.container_free_bytes(tmp_path / "groups", own)) == 600
    monkeypatch.setattr(memory, "CONTROL_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(memory, "OWN_GROUPS", own)
    assert memory.available_bytes() == 600
    assert memory.container_free_bytes(tmp_path / "groups", tmp_path / "none") == []
