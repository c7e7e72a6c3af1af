"""`kustomize build` for what `docker/kuberay` uses of it; anything else in a kustomization.yaml is an error.

`python -m tests.deploy` compares the result with that of `kubectl kustomize`, where there is one.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.compose import DOCKER

KUBERAY = DOCKER / "kuberay"
OVERLAYS = ("cpu", "gpu")
Resource = dict[str, Any]
_KNOWN = {"apiVersion", "kind", "resources", "namespace", "labels", "images", "patches"}


def build(folder: Path) -> list[Resource]:
    """The resources of a folder with a kustomization.yaml."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    unknown = sorted(set(kustomization) - _KNOWN)
    if unknown:
        raise ValueError(f"{folder}/kustomization.yaml uses {unknown}, which this build does not know")
    resources: list[Resource] = []
    for name in kustomization.get("resources", ()):
        path = folder / name
        resources += build(path) if path.is_dir() else read_resources(path)
    resources = copy.deepcopy(resources)  # what YAML's anchors share must be changed one by one
    resources = [_unshare(resource) for resource in resources]
    for patch in kustomization.get("patches", ()):
        found = [resource for resource in resources if _matches(resource, patch["target"])]
        if not found:
            raise ValueError(f"{folder}: nothing is {patch['target']}")
        for resource in found:
            for operation in yaml.safe_load(patch["patch"]):
                _apply(resource, operation)
    for resource in resources:
        if kustomization.get("namespace") and resource["kind"] != "Namespace":
            resource["metadata"]["namespace"] = kustomization["namespace"]
        for label in kustomization.get("labels", ()):
            resource["metadata"].setdefault("labels", {}).update(label["pairs"])
        for image in kustomization.get("images", ()):
            _set_image(resource, image)
    return resources


def read_resources(path: Path) -> list[Resource]:
    """The documents of a file."""
    return [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document]


def _unshare(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unshare(inner) for key, inner in value.items()}
    return [_unshare(inner) for inner in value] if isinstance(value, list) else value


def _matches(resource: Resource, target: dict[str, str]) -> bool:
    group, _, version = resource["apiVersion"].rpartition("/")
    known = {"group": group, "version": version, "kind": resource["kind"], "name": resource["metadata"].get("name")}
    return all(known[key] == value for key, value in target.items())


def _apply(resource: Resource, operation: dict[str, Any]) -> None:
    """An operation of RFC 6902: add, replace or remove."""
    *parents, key = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
    place: Any = resource
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place[part]
    index: Any = int(key) if isinstance(place, list) and key != "-" else key
    there = index < len(place) if isinstance(index, int) else index in place
    if operation["op"] in ("replace", "remove") and not there:
        raise ValueError(f"{resource['kind']} has no {operation['path']} to {operation['op']}")
    if operation["op"] == "remove":
        del place[index]
    elif isinstance(place, list) and operation["op"] == "add":
        place.insert(len(place) if key == "-" else index, operation["value"])
    elif operation["op"] in ("add", "replace"):
        place[index] = operation["value"]
    else:
        raise ValueError(f"no operation is called {operation['op']!r} here")


def _set_image(value: Any, image: dict[str, str]) -> None:
    """Gives containers of an image its new name and tag."""
    if isinstance(value, list):
        for inner in value:
            _set_image(inner, image)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key in ("containers", "initContainers"):
                for container in inner:
                    if container["image"].partition(":")[0] == image["name"]:
                        container["image"] = f"{image.get('newName', image['name'])}:{image['newTag']}"
            _set_image(inner, image)
