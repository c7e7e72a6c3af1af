"""The sections of the report of one run."""

from __future__ import annotations

from typing import Any

import numpy as np
import yaml

from fbp_ray.data.values import in_hounsfield, value_words
from fbp_ray.pictures import as_tile
from fbp_ray.report import charts
from fbp_ray.report.alone import halves, images_without_truth, is_without_truth, quality_without_truth
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
from fbp_ray.report.quality import missing, number, quality
from fbp_ray.report.subject import Evaluation, Subject
from fbp_ray.report.words import data_of, learned_from, network_of, scan_of, window_of


def run_page(subject: Subject) -> str:
    """The page of one run."""
    alone = is_without_truth(subject.evaluation)
    parts = {
        "What was trained": what_was_trained(subject),
        "Quality": quality_without_truth(subject) if alone else quality(subject),
        "Learning curves": learning_curves(subject),
        "The window": the_window(subject),
        "Images": images_without_truth(subject) if alone else images(subject),
        "Noise and resolution": halves(subject) if alone else noise_and_resolution(subject),
        "Time": time_an_image(subject),
        "Data and versions": data_and_versions(subject),
        "Settings": settings(subject),
    }
    notes = [warning(problem) for problem in subject.problems]
    sections = [section(name, part) for name, part in parts.items()]
    return page(f"Report of {subject.name}", *notes, contents(parts), *sections)


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
    grey, difference = charts.scales_of(evaluation)
    words = value_words(charts.unit_of(evaluation))
    parts: list[object] = [
        element(
            "p",
            f"Those with the highest, the median and the lowest gain over {evaluation.title('hann_psnr')}, in PSNR. "
            f"Grey runs from {grey.low:g} (black) to {grey.high:g} (white); differences from {difference.low:g} (blue, "
            f"too little) to {difference.high:g} (red, too much); all in {words}.",
        )
    ]
    for place, about in enumerate(shown):
        parts.append(_image(evaluation, about, place))
    return joined(parts)


def _image(evaluation: Evaluation, about: dict[str, Any], place: int) -> Html:
    grey, difference = charts.scales_of(evaluation)
    truth = evaluation.images["truth"][place].astype(np.float32)
    line = int(np.argmax(truth.std(axis=0)))  # along x, where there is most to see
    called = f"the {about['what']} image"
    mark = element("span", class_="line", style=f"top:{100 * (line + 0.5) / truth.shape[1]:.1f}%")
    tiles = [_tile(as_tile(truth, grey), f"ground truth of {called}", "ground truth; dashed: the profile", mark)]
    lines = {"ground truth": truth[:, line]}
    differences = []
    for name in ("hann_psnr", "learned"):
        image = evaluation.images[name][place].astype(np.float32)
        title, of = evaluation.title(name), about["quality"][name]
        figures = f"{number(of['psnr'], 2)} dB, SSIM {number(of['ssim'], 4)}"
        tiles.append(_tile(as_tile(image, grey), f"{title}, {called}", f"{title}: {figures}"))
        what = f"{title} - ground truth"
        differences.append(_tile(as_tile(image - truth, difference), f"{what}, {called}", what))
        lines[title] = image[:, line]
    along = charts.profile(
        lines,
        f"profile of {called} along x, at y = {line} of {truth.shape[1]}",
        value_words(charts.unit_of(evaluation)),
    )
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
    ct = in_hounsfield(charts.unit_of(evaluation))
    kind = "of water" if ct else "as bright as water is among bones"
    parts: list[object] = [
        element(
            "p",
            f"Measured on a disc {kind} with two round inserts, scanned several times"
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
    heads = [f"half contrast, edge of {contrast}, 1/mm" for contrast in charts.edges(ct).values()]
    noise = ("Noise in water", "noise HU") if ct else ("Noise in the disc", "noise ‰")
    parts.append(table(f"{noise[0]} and resolution", ("method", noise[1], *heads, "scans"), rows))
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
    first = times.get("hann_psnr") or times.get("hann_risk")
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
    pairs = [
        ("trained on", data_of(subject)),
        ("samples", counts),
        ("split", described.get("split", "")),
        ("scan", scan_of(geometry) if geometry else ""),
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
