"""What a run is, in words."""

from __future__ import annotations

from typing import Any

from fbp_ray.geometry import FanBeam, Geometry
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


def scan_of(geometry: Geometry) -> str:
    """A scan and its images in a line; lengths in millimetres."""
    beam, across = "parallel beam", 1000 * geometry.cell_size
    if isinstance(geometry, FanBeam):
        beam = (
            f"fan beam, {geometry.detector} detector, source to axis {1000 * geometry.source_to_axis:.5g} mm, to "
            f"detector {1000 * geometry.source_to_detector:.5g} mm"
        )
    off = f", axis {1000 * geometry.axis_offset:.3g} mm off the middle" if geometry.axis_offset else ""
    high, wide = geometry.image_shape
    return (
        f"{beam}; {geometry.num_angles} angles, {geometry.cells} cells of {across:.3g} mm{off}; images of {high} x "
        f"{wide} pixels of {1000 * geometry.pixel_size:.3g} mm"
    )


def _settings_of(subject: Subject, part: str) -> dict[str, Any]:
    if subject.manifest:
        return dict(subject.manifest.model.model_dump(mode="json")[part])
    return dict(subject.config.get(part) or {})
