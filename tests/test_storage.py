"""Folders on a disk and in an object store behave alike."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

import pytest

from fbp_ray.errors import ConfigError
from fbp_ray.storage import Folder, LocalFolder, RemoteFolder, open_folder, probe


@pytest.fixture(params=["disk", "fsspec", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "disk":
        return open_folder(tmp_path / "a")
    if request.param == "fsspec":
        return open_folder(f"memory://{uuid4().hex}/a")
    bucket: str = request.getfixturevalue("object_store")
    return open_folder(f"{bucket}/{uuid4().hex}/a")


def test_what_is_written_is_read(folder: Folder) -> None:
    assert not folder.exists()
    assert folder.names() == []
    assert folder.folders() == []
    folder.write("x.bin", b"\0\1")
    folder.write("text", "µ")
    (folder / "inner").write("y", b"")
    assert folder.exists()
    assert folder.names() == ["text", "x.bin"]
    assert folder.folders() == ["inner"]
    assert folder.read("x.bin") == b"\0\1"
    assert folder.read("text").decode() == "µ"
    assert folder.has("x.bin")
    assert not folder.has("inner")
    assert str(folder / "inner") == f"{folder}/inner"
    assert (folder / "inner").name == "inner"
    assert (folder / "inner").parent.names() == folder.names()


def test_a_file_is_replaced_and_removed(folder: Folder) -> None:
    folder.write("x", b"old")
    folder.write("x", b"new and longer")
    assert folder.read("x") == b"new and longer"
    folder.remove("x")
    folder.remove("x")
    assert not folder.has("x")
    with pytest.raises(FileNotFoundError):
        folder.read("x")


def test_a_name_means_the_same_elsewhere(folder: Folder) -> None:
    folder.write("x", b"1")
    assert open_folder(str(folder.absolute())).read("x") == b"1"
    assert open_folder(folder) is folder


def test_a_crash_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = open_folder(tmp_path)
    folder.write("x", b"old")

    def fail(number: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        folder.write("x", b"new")
    assert folder.names() == ["x"]
    assert folder.read("x") == b"old"


def test_a_probe_leaves_nothing_behind(folder: Folder) -> None:
    probe(folder)
    assert folder.names() == []


def test_a_probe_of_what_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        probe(open_folder(tmp_path / "file"))
    monkeypatch.setattr(LocalFolder, "read", lambda *_: b"something else")
    with pytest.raises(OSError, match=r"is not there, or has another content"):
        probe(open_folder(tmp_path / "new"))
    assert open_folder(tmp_path / "new").names() == []


@pytest.mark.parametrize(
    ("place", "kind"),
    [("runs", LocalFolder), ("/a/b", LocalFolder), ("file:///a/b", LocalFolder), ("memory://a", RemoteFolder)],
)
def test_a_place_is_a_path_or_a_uri(place: str, kind: type[Folder]) -> None:
    assert isinstance(open_folder(place), kind)


def test_an_unknown_kind_of_store_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"nowhere://x is no place.*s3://"):
        open_folder("nowhere://x")


def test_a_bucket_that_does_not_exist_is_an_os_error(object_store: str) -> None:
    with pytest.raises(OSError, match=r"(?i)bucket"):
        open_folder("s3://there-is-no-such-bucket/a").write("x", b"1")
