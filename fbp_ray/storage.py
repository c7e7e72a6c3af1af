"""Folders on a disk or in an object store, whose files are written whole or not at all.

A place is a path, or a URI that pyarrow or fsspec knows: `runs`, `/mnt/shared/runs`, `s3://bucket/runs`, `gs://..`.
Who may write to an object store, and at which address it answers, its own settings say (`AWS_ACCESS_KEY_ID`,
`AWS_ENDPOINT_URL`, ..).
"""

from __future__ import annotations

import errno
import os
import re
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from uuid import uuid4

from fbp_ray.errors import ConfigError
from fbp_ray.settings import expand_home

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_UNFINISHED = ".tmp"
URI = re.compile(r"([a-z][a-z0-9+.-]+)://(.*)", re.DOTALL)


class LocalFolder:
    """A folder on a disk, or on one that several machines share. Its methods may raise an OSError.

    Args:
        path: of the folder, which need not exist yet: writing into it makes it. `Path(folder)` gives the path back.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def __fspath__(self) -> str:
        return str(self.path)

    def __truediv__(self, name: str) -> LocalFolder:
        """The folder `name` in this one."""
        return LocalFolder(self.path / name)

    @property
    def parent(self) -> LocalFolder:
        """The folder that this one is in."""
        return LocalFolder(self.path.parent)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.name or str(self.path)

    def absolute(self) -> LocalFolder:
        """The same folder, by a name that means it in every process of the machine."""
        return LocalFolder(self.path.absolute())

    def exists(self) -> bool:
        """Whether it is there; in an object store, whether anything is in it."""
        return self.path.exists()

    def names(self) -> list[str]:
        """The files in it, sorted; none where it does not exist."""
        return sorted(e.name for e in self.path.iterdir() if e.is_file()) if self.path.is_dir() else []

    def folders(self) -> list[str]:
        """The folders in it, sorted; none where it does not exist."""
        return sorted(e.name for e in self.path.iterdir() if e.is_dir()) if self.path.is_dir() else []

    def has(self, name: str) -> bool:
        """Whether the file is there."""
        return (self.path / name).is_file()

    def read(self, name: str, most: int | None = None) -> bytes:
        """The content of a file.

        Args:
            name: of the file.
            most: bytes that it may have.

        Raises:
            FileNotFoundError: there is none.
            OSError: it is no file, as a pipe is not, or has more bytes.
        """
        return read_file(self.path / name, most)

    def changed(self, name: str) -> datetime | None:
        """When a file was last written, None where there is none."""
        file = self.path / name
        return datetime.fromtimestamp(file.stat().st_mtime, UTC) if file.is_file() else None

    def write(self, name: str, content: bytes | str) -> None:
        """Writes a file so that a reader, or a crash, finds either the old one or the whole new one."""
        write_atomically(self.path / name, content)

    def remove(self, name: str) -> None:
        """Removes a file; nothing happens where there is none."""
        (self.path / name).unlink(missing_ok=True)


class RemoteFolder:
    """A folder of an object store, where a file appears when its last byte has arrived; methods as in `LocalFolder`.

    Args:
        system: the store.
        path: of the folder, as the store has it.
        uri: of the folder, as a person has it.
    """

    def __init__(self, system: FileSystem, path: str, uri: str) -> None:
        self.system = system
        self.path = path
        self.uri = uri

    def __str__(self) -> str:
        return self.uri

    def __truediv__(self, name: str) -> RemoteFolder:
        return RemoteFolder(self.system, f"{self.path}/{name}", f"{self.uri}/{name}")

    @property
    def parent(self) -> RemoteFolder:
        return RemoteFolder(self.system, self.path.rpartition("/")[0], self.uri.rpartition("/")[0])

    @property
    def name(self) -> str:
        return self.uri.rpartition("/")[2]

    def absolute(self) -> RemoteFolder:
        return self

    def exists(self) -> bool:
        return bool(self.names() or self.folders())

    def names(self) -> list[str]:
        return self._entries(files=True)

    def folders(self) -> list[str]:
        return self._entries(files=False)

    def _entries(self, files: bool) -> list[str]:
        from pyarrow.fs import FileSelector

        entries = self.system.get_file_info(FileSelector(self.path, allow_not_found=True))
        return sorted(e.base_name for e in entries if e.is_file == files)

    def has(self, name: str) -> bool:
        return bool(self.system.get_file_info(f"{self.path}/{name}").is_file)

    def read(self, name: str, most: int | None = None) -> bytes:
        with self.system.open_input_stream(f"{self.path}/{name}") as file:
            content = bytes(file.read() if most is None else file.read(most + 1))
        if most is not None and len(content) > most:
            raise _too_large(name, most)
        return content

    def changed(self, name: str) -> datetime | None:
        found: datetime | None = self.system.get_file_info(f"{self.path}/{name}").mtime
        return found

    def write(self, name: str, content: bytes | str) -> None:
        # Stores have no folders to make; file systems behind fsspec may.
        self.system.create_dir(self.path, recursive=True)
        with self.system.open_output_stream(f"{self.path}/{name}") as file:
            file.write(content.encode() if isinstance(content, str) else content)

    def remove(self, name: str) -> None:
        if self.has(name):
            self.system.delete_file(f"{self.path}/{name}")


Folder: TypeAlias = LocalFolder | RemoteFolder
Place: TypeAlias = str | Path | Folder


def open_folder(place: Place) -> Folder:
    """The folder that a path or a URI means.

    Raises:
        ConfigError: a URI of a kind that neither pyarrow nor an installed fsspec package knows, or of a store that does
            not answer.
    """
    if isinstance(place, LocalFolder | RemoteFolder):
        return place
    found = URI.fullmatch(str(place))
    if found is None:
        return LocalFolder(Path(expand_home(str(place))))
    scheme, path = found.groups()
    if scheme == "file":
        return LocalFolder(Path("/" + path.lstrip("/")))
    return _open_remote(str(place).rstrip("/"), scheme, path.strip("/"))


def _open_remote(uri: str, scheme: str, path: str) -> RemoteFolder:
    from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem

    try:
        system, path = FileSystem.from_uri(uri)
        return RemoteFolder(system, path.rstrip("/"), uri)
    except ValueError as error:
        reason = str(error)
    except OSError as error:
        raise ConfigError(
            f"{uri} cannot be reached: {error}; check the name of the bucket, and the store's settings "
            "(AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ..)"
        ) from None
    try:
        import fsspec

        return RemoteFolder(PyFileSystem(FSSpecHandler(fsspec.filesystem(scheme))), path, uri)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"{uri} is no place that can be written to: pyarrow says {reason!r}, fsspec says {str(error)!r}; use a "
            "path, s3://BUCKET/FOLDER, gs://BUCKET/FOLDER, or install the fsspec package of this kind of store"
        ) from None


def absolute(place: str) -> str:
    """A place by a name that means it in every process of the machine; a URI is that already. Nothing is opened."""
    return place if URI.fullmatch(place) else str(Path(expand_home(place)).absolute())


def probe(folder: Folder) -> None:
    """Writes a small file, reads it back and removes it; raises OSError where that cannot be done."""
    name = f"probe-{uuid4().hex}"
    folder.write(name, name)
    try:
        if folder.read(name).decode() != name or name not in folder.names():
            raise OSError(f"a file that was written to {folder} is not there, or has another content")
    finally:
        folder.remove(name)


def copy_folder(source: Folder, target: Folder) -> None:
    """Copies the files of a folder, and of those in it, into another."""
    for name in source.names():
        target.write(name, source.read(name))
    for name in source.folders():
        copy_folder(source / name, target / name)


def read_file(path: Path, most: int | None = None) -> bytes:
    """The content of a file, as `LocalFolder.read` says; whoever opens a pipe would wait for its other end."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "this is no file, but a pipe, a socket or a device", str(path))
        if most is not None and status.st_size > most:
            raise _too_large(path.name, most)
        return file.read()


def _too_large(name: str, most: int) -> OSError:
    return OSError(errno.EFBIG, f"it has more than the {most} bytes that it may have", name)


def is_unfinished(name: str) -> bool:
    """Whether a file is what `write_atomically` leaves when it is killed."""
    return name.startswith(".") and name.endswith(_UNFINISHED)


def is_begun(folder: Folder) -> bool:
    """Whether somebody has put something into a folder, or whole files of a program are there."""
    return bool(folder.folders()) or not all(map(is_unfinished, folder.names()))


def write_atomically(path: Path, content: bytes | str, mode: int = 0o666) -> None:
    """Writes `content` to `path` so that a reader, or a crash, finds either the old file or the whole new one.

    `mode` says who may use a new file, less what the process's umask takes away.
    """
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}{_UNFINISHED}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
