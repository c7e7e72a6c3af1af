"""The table of figures against the classic FBPs, and what others have published."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from fbp_ray.report.page import Html, element, joined, source_link, table, warning
from fbp_ray.report.published import PUBLISHED, headings
from fbp_ray.report.subject import Evaluation, Subject

DECIMALS = {"psnr": 3, "ssim": 4, "psnr_fr": 3, "ssim_fr": 4}
COLUMNS = ("PSNR dB", "SSIM", "PSNR-FR dB", "SSIM-FR")
OVER = {"hann_psnr": "gain over the best Hann for PSNR", "hann_ssim": "gain over the best Hann for SSIM"}


def number(value: float | None, places: int, sign: str = "") -> str:
    """A figure, or a dash where there is none."""
    return "-" if value is None or not math.isfinite(value) else f"{value:{sign}.{places}f}"


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
