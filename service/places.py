"""Where models and jobs may be: in the places that the settings name, and in nothing that a link there leads to."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from fbp_ray.errors import ConfigError
from fbp_ray.settings import expand_home
from fbp_ray.shipped import is_shipped, open_place
from fbp_ray.storage import URI, Folder, LocalFolder, open_folder, read_file
from service.settings import Settings

LONGEST = 4000  # characters of a place


class Places:
    """The places that the service may use.

    Args:
        roots: folders, and URIs of folders or buckets. These may have options, `s3://ct/runs?region=..`.
    """

    def __init__(self, roots: Iterable[str]) -> None:
        self._roots = {_normal(without_secrets(root)): root for root in roots}

    @classmethod
    def of(cls, settings: Settings) -> Places:
        """Those of the settings: the two storages, `runs` and `data` where it was started, and what `places` names."""
        return cls([settings.models.storage, settings.jobs.storage, "runs", "data", *settings.places])

    def resolve(self, place: str) -> str:
        """A place by the only name that it has: absolute, without `..`, double slashes and links.

        Raises:
            ConfigError: it is not one that the service may use, or no name of a place at all.
        """
        found = _normal(place)
        if self._root(found) is None:
            raise ConfigError(
                f"the service may not use {found:.200}, only what is in {', '.join(sorted(self._roots))}; its setting "
                "`places` adds others"
            )
        return found

    def open(self, place: str) -> Folder:
        """The folder at a place; its files are not read where they are links to what the service may not use.

        Raises:
            ConfigError: as `resolve`, or as `open_folder`.
        """
        found = self.resolve(place)
        if not URI.fullmatch(found):
            return _Linked(Path(found), self)
        root = self._root(found) or found
        if self._roots[root] == without_secrets(self._roots[root]):
            return open_folder(found)
        try:
            folder = open_folder(self._roots[root])  # the options of the setting hold for what is in it
        except ConfigError:
            raise ConfigError(f"{found} cannot be reached with the options that the service's settings have") from None
        inner = found.removeprefix(root).strip("/")
        return folder / inner if inner else folder

    def resolve_model(self, place: str) -> str:
        """The same for a model, which may be one that comes with the package."""
        return place if is_shipped(place) else self.resolve(place)

    def open_model(self, place: str) -> Folder:
        """The same for a model, which may be one that comes with the package."""
        return open_place(place) if is_shipped(place) else self.open(place)

    def _root(self, place: str) -> str | None:
        """The innermost of the roots that a place is in."""
        found = [root for root in self._roots if place == root or place.startswith(root.rstrip("/") + "/")]
        return max(found, key=len, default=None)


class _Linked(LocalFolder):
    """A folder in which links may lead from one of the service's places to another, and not out of them."""

    def __init__(self, path: Path, places: Places) -> None:
        super().__init__(path)
        self._places = places

    def __truediv__(self, name: str) -> LocalFolder:
        return _Linked(self.path / name, self._places)

    @property
    def parent(self) -> LocalFolder:
        return _Linked(self.path.parent, self._places)

    def absolute(self) -> LocalFolder:
        return self

    def read(self, name: str, most: int | None = None) -> bytes:
        try:
            return read_file(Path(self._places.resolve(str(self.path / name))), most)
        except ConfigError:
            raise PermissionError(f"{name} is a link out of the places that the service may use") from None


def without_secrets(place: str) -> str:
    """A place as it may be shown: the URI of a store without a user, keys and options."""
    found = URI.fullmatch(place)
    if found is None:
        return place
    scheme, rest = found.groups()
    return f"{scheme}://{rest.partition('?')[0].partition('#')[0].rpartition('@')[2]}"


def _normal(place: str) -> str:
    if not place.isprintable() or len(place) > LONGEST:
        raise ConfigError(f"a place is a path or a URI of at most {LONGEST} characters, all of which can be shown")
    found = URI.fullmatch(place)
    if found is None or found[1] == "file":
        return os.path.realpath(expand_home(place) if found is None else "/" + found[2].lstrip("/"))
    store, _, path = found[2].partition("/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if set("?#@%\\") & set(found[2]) or ".." in parts:
        raise ConfigError(
            f"{found[1]}://.. has more than a bucket and a folder: a user, keys, options or '..'; give SCHEME://BUCKET/"
            "FOLDER, and what the store needs in the environment of the service (AWS_ENDPOINT_URL, ..)"
        )
    return f"{found[1]}://{'/'.join([store, *parts])}"
