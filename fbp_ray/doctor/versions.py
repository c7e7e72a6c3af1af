"""The same versions and the same code on every machine, and those that the package needs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement

import fbp_ray
from fbp_ray.checkpoint import versions
from fbp_ray.doctor.finding import Finding, some, usual
from fbp_ray.doctor.machines import Machines, answered, troubles

SECONDS = 60.0
CODE = "the code of fbp_ray"
MATTER = ("python", "fbp-ray", "torch", "numpy", "numba", "ray", CODE)
"""What must be equal; where another version differs, results may."""

SAME = (
    "give every machine the same environment: the same container image, or pip install -c constraints.txt in each; "
    "then start Ray there again"
)


class Installed(NamedTuple):
    """What a machine has."""

    versions: dict[str, str]
    unmet: dict[str, str]
    """By its name, what the package needs and does not find, in words."""


def installed() -> Installed:
    """What this machine has."""
    return Installed(versions() | {CODE: digest(Path(fbp_ray.__file__).parent)}, unmet())


def digest(package: Path) -> str:
    """Eight hexadecimal digits that stand for the code and the recipes of a package."""
    files = sorted(path for suffix in ("py", "yaml") for path in package.rglob(f"*.{suffix}"))
    whole = hashlib.sha256()
    for path in files:
        whole.update(f"{path.relative_to(package).as_posix()}\0".encode())
        whole.update(path.read_bytes())
    return whole.hexdigest()[:8]


def unmet() -> dict[str, str]:
    """The requirements of the installed package that do not hold. Code that is not installed says none."""
    try:
        needed = [Requirement(line) for line in metadata.requires("fbp-ray") or []]
    except metadata.PackageNotFoundError:
        return {}
    found = {}
    for requirement in needed:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            found[requirement.name] = f"{requirement.name} is not installed, but fbp-ray needs {requirement}"
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            found[requirement.name] = f"{requirement.name} is {version}, but fbp-ray needs {requirement}"
    return found


def check_versions(machines: Machines) -> Iterator[Finding]:
    """Asks every machine what it has, and compares."""
    answers = machines.everywhere(installed, SECONDS)
    yield from troubles("versions", answers, SAME)
    yield from judge(answered(answers))


def judge(found: Mapping[str, Installed]) -> Iterator[Finding]:
    """A finding for each machine that has something else than most, or not what the package needs."""
    well = True
    for name, there in found.items():
        for text in there.unmet.values():
            well = False
            yield Finding("versions", name, "fault", text, "pip install -c constraints.txt -e . puts it right")
    for what in next(iter(found.values())).versions if found else ():
        has = {name: there.versions.get(what, "not known") for name, there in found.items()}
        most = usual(has.values())
        like = [name for name, version in has.items() if version == most]
        for name, version in has.items():
            if version != most and what not in found[name].unmet:
                well = False
                text = f"{what} is {version}, but {most} on {some(like)}"
                yield Finding("versions", name, "fault" if what in MATTER else "warning", text, SAME)
    if well and found:
        first = next(iter(found.values())).versions
        text = ", ".join(f"{what} {first[what]}" for what in MATTER)
        yield Finding("versions", some(list(found)), "ok", text if len(found) == 1 else f"equal: {text}")
