"""What a run is, in words."""

from __future__ import annotations

from typing import Any

from fbp_ray.report.subject import Subject


def window_of(subject: Subject) -> str:
    """The window in words."""
    window = _settings_of(subject, "window")
    if not window:
        return ""
    start = window.get("init", "")
    cutoff = window.get("cutoff")
    return f"{window.get('kind')}, at the start {start}" + (f" {cutoff:g}" if isinstance(cutoff, float) else "")


def network_of(subject: Subject) -> str:
    """The network in words."""
    kind = str(_settings_of(subject, "postprocessing").get("kind", ""))
    return "none" if kind == "identity" else kind


def learned_from(subject: Subject) -> str:
    """Ground truth, the scans alone, or nothing."""
    target = subject.config.get("target")
    if target is None:
        return ""
    return "the scans alone, without ground truth" if target == "self" else "ground truth"


def data_of(subject: Subject) -> str:
    """What it was trained on, in a line."""
    data = subject.data
    described = data.get("description") or {}
    if not data.get("dir"):
        return "not known here"
    source = described.get("source") or ("data of an unknown source" if described else "LoDoPaB-CT")
    said = [str(source), str(data["dir"])]
    for name, what in (("train_samples", "training"), ("validation_samples", "validation")):
        if data.get(name):
            said.append(f"{data[name]} {what} samples")
    photons = data.get("photons") or described.get("photons")
    if photons:
        few = photons if isinstance(photons, list | tuple) else [photons]
        said.append(f"{' to '.join(f'{count:g}' for count in dict.fromkeys(few))} photons a ray")
    if (data.get("every") or 1) > 1:
        said.append(f"one angle of {data['every']}")
    if data.get("first_angles"):
        said.append(f"the first {data['first_angles']} angles")
    return ", ".join(said)


def _settings_of(subject: Subject, part: str) -> dict[str, Any]:
    if subject.manifest:
        return dict(subject.manifest.model.model_dump(mode="json")[part])
    return dict(subject.config.get(part) or {})
