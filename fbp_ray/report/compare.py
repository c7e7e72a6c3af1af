"""The page that compares runs: curves over one another, one table, windows side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fbp_ray.report import charts
from fbp_ray.report.alone import is_without_truth
from fbp_ray.report.page import Html, contents, element, joined, page, row, section, table, warning
from fbp_ray.report.quality import gain_of, missing, number, published
from fbp_ray.report.subject import Subject
from fbp_ray.report.words import data_of, learned_from, network_of, window_of
from fbp_ray.settings import flatten

SEEN = ("split", "samples", "every", "first_angles", "photons", "photons_known")
"""Of evaluations: figures can be compared where these are the same, and the data."""


def comparison_page(subjects: Sequence[Subject]) -> str:
    """The page of several runs."""
    named = {charts.plain(label): one for label, one in labelled(subjects)}
    parts = {
        "The runs": the_runs(subjects),
        "Quality": quality(subjects),
        "Learning curves": learning_curves(named),
        "Windows": windows(subjects),
        "Noise and resolution": noise_and_resolution(named),
        "Settings that differ": settings(subjects),
    }
    notes = [warning(f"{one.name}: {problem}") for one in subjects for problem in one.problems]
    notes += [warning(text) for text in differences(subjects)]
    sections = [section(name, part) for name, part in parts.items()]
    return page(f"{len(subjects)} runs compared", *notes, contents(parts), *sections)


def labelled(subjects: Sequence[Subject]) -> list[tuple[str, Subject]]:
    """Each run with a letter and its name."""
    letters = [chr(ord("A") + place) if place < 26 else str(place) for place in range(len(subjects))]
    return [(f"{letter} {one.name}", one) for letter, one in zip(letters, subjects, strict=True)]


def differences(subjects: Sequence[Subject]) -> list[str]:
    """What keeps the runs' figures from being compared."""
    said = []
    if len({_data(one.data) for one in subjects}) > 1:
        said.append(
            "The runs were trained on different data, which the table names: the validation figures cannot be compared."
        )
    evaluated = [one.evaluation.about for one in subjects if one.evaluation]
    if len({_evaluated(about) for about in evaluated}) > 1:
        said.append("The runs were evaluated on different images or noise: their figures cannot be compared.")
    if {bool(one.config.get("target") == "self") for one in subjects if one.config} == {True, False}:
        said.append("Some runs learned without ground truth: their loss is another figure than that of the others.")
    return said


def _data(data: Mapping[str, Any]) -> str:
    """Data by what they are, or by where they are if they do not say."""
    described = data.get("description")
    what = described.get("request") or described if isinstance(described, dict) else data.get("dir")
    return repr((what, *(data.get(name) for name in ("every", "first_angles", "photons", "train_samples"))))


def _evaluated(about: Mapping[str, Any]) -> str:
    return repr((about.get("data"), *(about.get(name) for name in SEEN)))


def the_runs(subjects: Sequence[Subject]) -> Html:
    """What each run is."""
    rows = []
    for label, one in labelled(subjects):
        run = one.summary
        epochs = "" if run is None or run.epochs is None else f"{run.epochs_done} of {run.epochs}"
        count = "-" if one.parameters is None else f"{one.parameters}"
        state = "weights" if run is None else run.state
        rows.append(
            (
                label,
                state,
                epochs,
                window_of(one),
                network_of(one),
                count,
                learned_from(one),
                data_of(one),
            )
        )
    heads = ("run", "state", "epochs", "window", "network", "parameters", "learned from", "data")
    return table("What was trained on what", heads, rows, text=True)


def quality(subjects: Sequence[Subject]) -> Html:
    """One table of all runs: the validation part, and the evaluations."""
    rows, parts = [], []
    for label, one in labelled(subjects):
        run, evaluation = one.summary, one.evaluation
        best = [run.psnr if run else None, run.ssim if run else None]
        validation = [
            (number(b and b.value, p), number(b and b.gain, p, "+")) for b, p in zip(best, (3, 4), strict=True)
        ]
        cells: list[str] = ["-"] * 6
        if evaluation and evaluation.metrics:
            about, pairs = evaluation.about, (("psnr", "hann_psnr", 3), ("ssim", "hann_ssim", 4))
            figures = [
                text
                for figure, over, places in pairs
                for text in (
                    number(evaluation.figure("learned", figure), places),
                    number(gain_of(evaluation, over, figure), places, "+"),
                )
            ]
            ms = number(evaluation.measured.get("milliseconds", {}).get("learned"), 1)
            cells = [f"{about.get('split')}, {about.get('samples')} images", *figures, ms]
        else:
            parts.append(element("div", element("p", label), missing(one, "Quality on the test part")))
        rows.append((label, *validation[0], *validation[1], *cells))
    gains = ("PSNR dB", "over Hann", "SSIM", "over Hann")
    heads = ("run", *(f"validation {one}" for one in gains), "evaluated on", *gains, "ms an image")
    return joined(
        [
            table("The learned FBPs", heads, rows),
            *parts,
            *_classic(subjects),
            *_without_truth(subjects),
            *published(_all_published(subjects)),
        ]
    )


def _without_truth(subjects: Sequence[Subject]) -> list[Html]:
    """What evaluations without ground truth have found."""
    rows = []
    for label, one in labelled(subjects):
        evaluation = one.evaluation
        for name in evaluation.metrics if evaluation and is_without_truth(evaluation) else ():
            assert evaluation is not None
            risk, noise, resolved = (evaluation.figure(name, figure) for figure in ("risk", "noise", "resolved"))
            figures = ("-" if value is None else f"{value:.4g}" for value in (risk, noise, resolved and 1 / resolved))
            rows.append((f"{label}: {evaluation.title(name)}", *figures))
    heads = ("run and method", "squared error, estimated", "noise 1/m", "resolution mm")
    return [table("Without ground truth", heads, rows)] if rows else []


def _all_published(subjects: Sequence[Subject]) -> bool:
    return all(one.evaluation is not None and one.evaluation.about.get("same_as_published") for one in subjects)


def _classic(subjects: Sequence[Subject]) -> list[Html]:
    """The methods that nothing was learned for, of each evaluation."""
    rows = []
    for label, one in labelled(subjects):
        evaluation = one.evaluation
        for name in evaluation.metrics if evaluation else ():
            if evaluation and name != "learned" and not is_without_truth(evaluation):
                figures = (number(evaluation.figure(name, f), p) for f, p in (("psnr", 3), ("ssim", 4)))
                rows.append((f"{label}: {evaluation.title(name)}", *figures))
    return [table("What they are compared with", ("run and method", "PSNR dB", "SSIM"), rows)] if rows else []


def learning_curves(named: Mapping[str, Subject]) -> Html:
    """All curves over one another."""
    known = {name: one for name, one in named.items() if one.history}
    without = [one.name for one in named.values() if not one.history]
    parts: list[object] = [charts.curves(known)] if known else []
    if without:
        parts.append(element("p", f"Without a history: {', '.join(without)}."))
    return joined(
        [*parts, element("p", "Dotted: the best Hann on the validation part of the run of this colour.", class_="note")]
    )


def windows(subjects: Sequence[Subject]) -> Html:
    """The windows of each run, side by side."""
    parts: list[Html] = []
    for label, one in labelled(subjects):
        found = charts.windows(one)
        parts += [element("h3", label), row(*found) if found else element("p", "no window to draw")]
    return joined(parts)


def noise_and_resolution(named: Mapping[str, Subject]) -> Html:
    """Noise and resolution of the learned FBPs."""
    series = [
        (name, one.evaluation, "learned")
        for name, one in named.items()
        if one.evaluation and "learned" in one.evaluation.measured.get("noise", {})
    ]
    return (
        charts.noise_and_edges(series)
        if series
        else element("p", "None of the runs has an evaluation that measured it on a phantom.")
    )


def settings(subjects: Sequence[Subject]) -> Html:
    """A row for each setting that is not the same in all runs."""
    flat = [flatten(one.config) for one in subjects]
    names = [name for name in dict.fromkeys(name for one in flat for name in one) if not name.startswith("run.")]
    rows = []
    for name in names:
        values = [str(one[name]) if name in one else "-" for one in flat]
        if len(set(values)) > 1:
            rows.append((name, *values))
    if not rows:
        return element("p", "None of those that are known.")
    return table("Settings", ("setting", *(label for label, _ in labelled(subjects))), rows, text=True)
