"""The sections of the report of one run."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import yaml

from fbp_ray.pictures import DIFFERENCE, GREY, as_tile
from fbp_ray.report import charts
from fbp_ray.report.page import (
    Html,
    bare_picture,
    contents,
    element,
    facts,
    joined,
    page,
    row,
    section,
    source_link,
    table,
    warning,
)
from fbp_ray.report.published import PUBLISHED, headings
from fbp_ray.report.subject import Evaluation, Subject

DECIMALS = {"psnr": 3, "ssim": 4, "psnr_fr": 3, "ssim_fr": 4}
COLUMNS = ("PSNR dB", "SSIM", "PSNR-FR dB", "SSIM-FR")
OVER = {"hann_psnr": "gain over the best Hann for PSNR", "hann_ssim": "gain over the best Hann for SSIM"}


def run_page(subject: Subject) -> str:
    """The page of one run."""
    parts = {
        "What was trained": what_was_trained(subject),
        "Quality": quality(subject),
        "Learning curves": learning_curves(subject),
        "The window": the_window(subject),
        "Images": images(subject),
        "Noise and resolution": noise_and_resolution(subject),
        "Time": time_an_image(subject),
        "Data and versions": data_and_versions(subject),
        "Settings": settings(subject),
    }
    notes = [warning(problem) for problem in subject.problems]
    sections = [section(name, part) for name, part in parts.items()]
    return page(f"Report of {subject.name}", *notes, contents(parts), *sections)


def number(value: float | None, places: int, sign: str = "") -> str:
    """A figure, or a dash where there is none."""
    return "-" if value is None or not math.isfinite(value) else f"{value:{sign}.{places}f}"


def what_was_trained(subject: Subject) -> Html:
    """The model, what it has learned from, and how the run stands."""
    run, manifest, data = subject.summary, subject.manifest, subject.data
    parts: list[object] = []
    if run and run.state not in ("completed", "unknown"):
        parts.append(warning(f"The run is {run.state}. {run.reason}".strip()))
    if manifest is None:
        parts.append(warning("There is no checkpoint yet that can be read: nothing is known of a model."))
    pairs = [
        ("window", window_of(subject)),
        ("network after it", network_of(subject)),
        ("learned parameters", "" if subject.parameters is None else f"{subject.parameters:,}".replace(",", " ")),
        ("learned from", learned_from(subject)),
        ("data", data_of(subject)),
        ("epochs", "" if run is None or run.epochs is None else f"{run.epochs_done} of {run.epochs}"),
        ("shown are the weights of epoch", manifest.epoch if manifest and manifest.epoch else ""),
        ("converted from", data.get("converted", "")),
        ("run", subject.given),
    ]
    return joined([*parts, facts(pairs)])


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
    said = [str(described.get("source") or "LoDoPaB-CT"), str(data["dir"])]
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


def missing(subject: Subject, what: str) -> Html:
    """Says what an evaluation would show, and how to get it."""
    found = "was not measured by this evaluation" if subject.evaluation else "takes an evaluation, and there is none"
    how = "" if subject.manifest else ", once there is a checkpoint"
    return warning(joined([f"{what} {found}. To get it{how}: ", element("code", subject.evaluate())]))


def quality(subject: Subject) -> Html:
    """The table against the Hanns and zeng, and the published figures."""
    evaluation = subject.evaluation
    if evaluation is None or not evaluation.metrics:
        parts: list[object] = [missing(subject, "Quality on the test part")]
        if (run := subject.summary) and run.psnr and run.ssim:
            psnr, ssim = ((number(b.value, p), number(b.gain, p, "+")) for b, p in ((run.psnr, 3), (run.ssim, 4)))
            found = [("best weights", psnr[0], ssim[0]), ("gain over the best Hann", psnr[1], ssim[1])]
            parts.append(table("On the validation part", ("", "PSNR dB", "SSIM"), found))
        return joined([*parts, *published(False)])
    about = evaluation.about
    parts = []
    if subject.manifest and about.get("epoch") != subject.manifest.epoch:
        parts.append(
            warning(
                joined(
                    [
                        f"The evaluation is of epoch {about.get('epoch')}, the run's best weights are now of epoch "
                        f"{subject.manifest.epoch}. To evaluate them: ",
                        element("code", subject.evaluate()),
                    ]
                )
            )
        )
    own = [name for name in evaluation.metrics.get("learned", {}) if name not in DECIMALS]
    rows: list[tuple[object, ...]] = [
        (evaluation.title(name), *_cells(evaluation, name, own), _milliseconds(evaluation, name))
        for name in evaluation.metrics
    ]
    classes = ["best" if name == "learned" else "" for name in evaluation.metrics]
    for name, what in OVER.items():
        if name in evaluation.metrics:
            classes.append("" if "apart" in classes else "apart")
            rows.append((what, *_gains(evaluation, name, own), ""))
    caption = f"{str(about.get('split')).capitalize()} part, {about.get('samples')} images" + _of_patients(about)
    parts.append(table(caption, ("method", *COLUMNS, *own, "ms an image"), rows, classes))
    foot = (
        "PSNR and SSIM take each image's own range, PSNR-FR and SSIM-FR the fixed range 1; never compare one kind with "
        "the other. The Hanns' cut-offs were chosen on the validation part."
    )
    if about.get("intervals_95", {}).get("learned", {}).get("psnr"):
        foot += " In brackets: 95 % confidence intervals, bootstrap over patients."
    parts.append(element("p", foot, class_="note"))
    return joined([*parts, *published(bool(about.get("same_as_published")))])


def _of_patients(about: dict[str, Any]) -> str:
    count = about.get("patients")
    return f" of {count} patient{'s'[: count != 1]}" if count else ""


def _between(interval: Any, places: int, sign: str = "") -> Html:
    if not isinstance(interval, list):
        return Html()
    low, high = (number(end, places - 1, sign) for end in interval)
    return joined([Html("<br>"), element("small", f"({low} to {high})")])


def _cells(evaluation: Evaluation, name: str, own: list[str]) -> Iterable[Html]:
    intervals = evaluation.about.get("intervals_95", {}).get(name, {})
    for figure, places in [*DECIMALS.items(), *((one, 4) for one in own)]:
        value = number(evaluation.figure(name, figure), places)
        yield joined([value, _between(intervals.get(figure), places)])


def _gains(evaluation: Evaluation, name: str, own: list[str]) -> Iterable[Html]:
    intervals = evaluation.about.get("gains_95", {}).get(name, {})
    for figure, places in [*DECIMALS.items(), *((one, 4) for one in own)]:
        gain = gain_of(evaluation, name, figure)
        yield joined([number(gain, places, "+"), _between(intervals.get(figure), places, "+")])


def gain_of(evaluation: Evaluation, over: str, figure: str) -> float | None:
    """How much better the learned FBP is in the mean."""
    one, other = evaluation.figure("learned", figure), evaluation.figure(over, figure)
    return None if one is None or other is None else one - other


def _milliseconds(evaluation: Evaluation, name: str) -> str:
    return number(evaluation.measured.get("milliseconds", {}).get(name), 1)


def published(same: bool) -> Iterable[Html]:
    """What others have published, marked so, with the sources; `same` says whether the images are the same."""
    for on, heading in headings(same).items():
        rows = [one for one in PUBLISHED if one.on == on]
        cells = [(f"{one.method} (published)", f"{one.psnr:.2f}", f"{one.ssim:.3f}") for one in rows]
        yield table(heading[0].upper() + heading[1:], ("method", "PSNR dB", "SSIM"), cells)
        for source in dict.fromkeys(one.source for one in rows):
            yield element("p", "Source: ", source_link(source), class_="note")


def learning_curves(subject: Subject) -> Html:
    """The curves of history.csv."""
    if not subject.history:
        if subject.data.get("converted"):
            why = "the weights were converted from those of another program"
        else:
            why = "no epoch has been finished" if subject.config else "these are weights without their run"
        return element("p", f"There is no history: {why}.")
    parts: list[object] = [charts.curves({subject.name: subject})]
    if not any("validation_psnr" in one for one in subject.history):
        parts.append(element("p", "The validation part has no ground truth, so there is neither PSNR nor SSIM."))
    return joined(parts)


def the_window(subject: Subject) -> Html:
    """The window's charts."""
    found = charts.windows(subject)
    if not found:
        why = (
            "The stage before the backprojection has no window that can be drawn."
            if subject.model
            else "There is no model that can be read."
        )
        return element("p", why)
    return row(*found)


def images(subject: Subject) -> Html:
    """Best, median and worst images, their differences from the ground truth, and a profile through them."""
    evaluation = subject.evaluation
    shown = evaluation.measured.get("shown", []) if evaluation else []
    if evaluation is None or not shown or not {"truth", "learned", "hann_psnr"} <= evaluation.images.keys():
        return missing(subject, "Images")
    parts: list[object] = [
        element(
            "p",
            f"Those with the highest, the median and the lowest gain over {evaluation.title('hann_psnr')}, in PSNR. "
            f"Grey runs from {GREY.low:g} (black) to {GREY.high:g} (white); differences from {DIFFERENCE.low:g} (blue, "
            f"too little) to {DIFFERENCE.high:g} (red, too much); all in attenuation / MU_MAX.",
        )
    ]
    for place, about in enumerate(shown):
        parts.append(_image(evaluation, about, place))
    return joined(parts)


def _image(evaluation: Evaluation, about: dict[str, Any], place: int) -> Html:
    truth = evaluation.images["truth"][place].astype(np.float32)
    line = int(np.argmax(truth.std(axis=0)))  # along x, where there is most to see
    called = f"the {about['what']} image"
    mark = element("span", class_="line", style=f"top:{100 * (line + 0.5) / truth.shape[1]:.1f}%")
    tiles = [_tile(as_tile(truth, GREY), f"ground truth of {called}", "ground truth; dashed: the profile", mark)]
    lines = {"ground truth": truth[:, line]}
    differences = []
    for name in ("hann_psnr", "learned"):
        image = evaluation.images[name][place].astype(np.float32)
        title, of = evaluation.title(name), about["quality"][name]
        figures = f"{number(of['psnr'], 2)} dB, SSIM {number(of['ssim'], 4)}"
        tiles.append(_tile(as_tile(image, GREY), f"{title}, {called}", f"{title}: {figures}"))
        what = f"{title} - ground truth"
        differences.append(_tile(as_tile(image - truth, DIFFERENCE), f"{what}, {called}", what))
        lines[title] = image[:, line]
    along = charts.profile(lines, f"profile of {called} along x, at y = {line} of {truth.shape[1]}")
    patient = f", patient {about['patient']}" if about.get("patient") else ""
    heading = f"{str(about['what']).capitalize()}: {number(about['gain'], 2, '+')} dB"
    return joined(
        [
            element("h3", heading),
            element("p", f"{about['name']}{patient}", class_="note"),
            element("div", *tiles, along, *differences, class_="tiles"),
        ]
    )


def _tile(content: bytes, described: str, caption: str, *over: Html) -> Html:
    return element(
        "figure", element("div", bare_picture(content, described), *over, class_="tile"), element("figcaption", caption)
    )


def noise_and_resolution(subject: Subject) -> Html:
    """Noise power spectra and transfer functions on a phantom."""
    evaluation = subject.evaluation
    if evaluation is None or not evaluation.measured.get("noise"):
        return missing(subject, "Noise and resolution")
    measured = evaluation.measured
    names = list(measured["noise"])
    parts: list[object] = [
        element(
            "p",
            "Measured on a disc of water with two round inserts, scanned several times"
            + (f" and {measured['photons']:g} photons a ray" if measured.get("photons") else "")
            + ". A method that depends on the sinogram is not linear: it may treat other images otherwise.",
        ),
        charts.noise_and_edges([(evaluation.title(name), evaluation, name) for name in names]),
    ]
    rows = []
    for name in names:
        edges = measured["edges"].get(name, {})
        halves = (number(edges.get(edge, {}).get("half"), 2) for edge in charts.EDGES)
        rows.append(
            (evaluation.title(name), number(measured["noise"][name]["hu"], 0), *halves, measured["scans"][name])
        )
    heads = [f"half contrast, edge of {contrast}, 1/mm" for contrast in charts.EDGES.values()]
    parts.append(table("Noise in water and resolution", ("method", "noise HU", *heads, "scans"), rows))
    if not any(measured["edges"].values()):
        parts.append(element("p", "The image's pixels are too coarse for the inserts: no edge can be looked at."))
    return joined(parts)


def time_an_image(subject: Subject) -> Html:
    """Milliseconds an image."""
    evaluation = subject.evaluation
    if evaluation is None or not evaluation.measured.get("milliseconds"):
        return missing(subject, "The time of an image")
    measured = evaluation.measured
    times = measured["milliseconds"]
    first = times.get("hann_psnr")
    rows = [
        (evaluation.title(name), number(ms, 2), number(ms / first if first else None, 2)) for name, ms in times.items()
    ]
    caption = f"Batches of {measured['batch']}, on {measured['machine']}"
    note = "Medians of the evaluation's own batches; other programs on the machine slow them down."
    return joined([table(caption, ("method", "ms an image", "in FBPs"), rows), element("p", note, class_="note")])


def data_and_versions(subject: Subject) -> Html:
    """Where the data come from, and what everything was made with."""
    described = subject.data.get("description") or {}
    about = subject.evaluation.about if subject.evaluation else {}
    counts = ", ".join(f"{part} {count}" for part, count in (described.get("samples") or {}).items())
    geometry = subject.model.geometry if subject.model else None
    scan = geometry and (
        f"{geometry.num_angles} angles, {geometry.cells} cells of {1000 * geometry.cell_size:.3g} mm; images of "
        f"{geometry.image_shape[0]} x {geometry.image_shape[1]} pixels of {1000 * geometry.pixel_size:.3g} mm"
    )
    pairs = [
        ("trained on", data_of(subject)),
        ("samples", counts),
        ("split", described.get("split", "")),
        ("scan", scan or ""),
        ("evaluated on", f"{about['data']}, {about.get('split')} part" if about.get("data") else ""),
        ("evaluation", subject.evaluation.folder if subject.evaluation else ""),
    ]
    parts: list[object] = [facts(pairs)]
    if origins := described.get("origins"):
        rows = [
            (
                one.get("patient", ""),
                one.get("collection", ""),
                one.get("licence", ""),
                source_link(str(one.get("reference", ""))),
            )
            for one in origins
        ]
        parts.append(table("Origins", ("patient", "collection", "licence", "reference"), rows, text=True))
    trained, evaluated = subject.versions, about.get("versions") or {}
    with_what = [(name, trained.get(name, "-"), evaluated.get(name, "-")) for name in {**trained, **evaluated}]
    parts.append(table("Versions", ("", "trained with", "evaluated with"), with_what, text=True))
    return joined(parts)


def settings(subject: Subject) -> Html:
    """The run's settings, or those of its model."""
    if subject.config:
        return element("pre", yaml.safe_dump(subject.config, sort_keys=False))
    if subject.manifest is None:
        return element("p", "There are no settings that can be read.")
    model = subject.manifest.model.model_dump(mode="json")
    model["geometry"].pop("angles", None)
    return joined(
        [element("p", "Only the model's settings are known:"), element("pre", yaml.safe_dump(model, sort_keys=False))]
    )
