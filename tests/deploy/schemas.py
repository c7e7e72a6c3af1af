"""Kubernetes resources against schemas: Kubernetes' own, and one for KubeRay's RayCluster and RayJob."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

KUBERNETES = "1.33"
KUBERAY_SCHEMA = Path(__file__).parent / "schemas" / "kuberay-v1.7.0.json"
_DEFINITIONS = "https://kubernetes.io/api/_definitions.json"


def faults(resource: dict[str, Any], kubernetes: bool = True) -> list[str]:
    """What a schema finds wrong with a resource, a line each.

    Args:
        resource: to look at.
        kubernetes: whether Kubernetes' own schemas are installed (the package kubernetes-validate); without them
            nothing is asked but the fields of RayCluster and RayJob themselves.
    """
    own = resource["apiVersion"] == "ray.io/v1"
    if not own and not kubernetes:
        return []
    if own:
        kind = resource["kind"]
        schema = json.loads(KUBERAY_SCHEMA.read_text(encoding="utf-8"))
        schema = {"$defs": schema["$defs"], "$ref": f"#/$defs/{kind}"}
    else:
        group, _, version = resource["apiVersion"].rpartition("/")
        schema = _kubernetes("-".join(filter(None, (resource["kind"].lower(), group.partition(".")[0], version))))
    definitions = _kubernetes("_definitions") if kubernetes else True
    if definitions is True:
        schema = _without_references(schema)
        registry: Registry[Any] = Registry()
    else:
        registry = Registry().with_resource(_DEFINITIONS, DRAFT202012.create_resource(definitions))
    name = resource["metadata"].get("name") or resource["metadata"].get("generateName")
    return [
        f"{resource['kind']} {name}: {error.json_path}: {error.message[:300]}"
        for error in Draft202012Validator(schema, registry=registry).iter_errors(resource)
    ]


def _kubernetes(name: str) -> Any:
    folder = resources.files("kubernetes_validate") / "kubernetes-json-schema" / f"v{KUBERNETES}.0-local-strict"
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def _without_references(schema: Any) -> Any:
    """The schema with everything allowed where it refers to Kubernetes' definitions."""
    if isinstance(schema, list):
        return [_without_references(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    if str(schema.get("$ref", "")).startswith(_DEFINITIONS):
        return {}
    return {key: _without_references(inner) for key, inner in schema.items()}
