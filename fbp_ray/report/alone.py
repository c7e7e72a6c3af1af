"""The sections of a report on an evaluation without ground truth: estimated squared errors, halves of the scan."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fbp_ray.data.values import value_words
from fbp_ray.pictures import Scale, as_tile
from fbp_ray.report.charts import chart, legend_above
from fbp_ray.report.page import Html, bare_picture, element, joined, row, table
from fbp_ray.report.quality import missing, number
from fbp_ray.report.subject import Evaluation, Subject

RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def is_without_truth(evaluation: Evaluation | None) -> bool:
    """Whether an evaluation had no ground truth."""
    return evaluation is not None and evaluation.about.get("truth") is False


def quality_without_truth(subject: Subject) -> Html:
    """The squared errors, as the scan tells them, beside every Hann."""
    evaluation = subject.evaluation
    if evaluation is None or not evaluation.metrics or "alone" not in evaluation.measured:
        return missing(subject, "Quality on the test part")
    about, found = evaluation.about, evaluation.measured["alone"]
    risks = [abs(evaluation.figure(name, "risk") or 0.0) for name in evaluation.metrics]
    power = 3 * math.floor(math.log10(max(min(filter(None, risks), default=1.0), 1e-300)) / 3)
    scale, of_scale = 10.0**power, ", 10" + str(power).translate(RAISED) if power else ""
    finest = max(evaluation.figure(name, "resolved") or 0.0 for name in evaluation.metrics)
    length, many = ("µm", 1e3) if finest > 10 else ("mm", 1.0)
    rows: list[tuple[object, ...]] = []
    for name in evaluation.metrics:
        risk, less = evaluation.figure(name, "risk"), evaluation.figure(name, "less_than_hann")
        share = "" if name == "hann_risk" or less is None else f"{less:.0%}"
        noise, resolved = evaluation.figure(name, "noise"), evaluation.figure(name, "resolved")
        shortest = f"{many / resolved:.3g}" if resolved else "-"
        shown = "-" if risk is None else f"{risk / scale:.4g}"
        rows.append((evaluation.title(name), shown, share, _short(noise), shortest))
    heads = ("method", f"error²{of_scale}", "beats the best Hann on", "noise 1/m", f"resolved {length}")
    classes = ["best" if name == "learned" else "" for name in evaluation.metrics]
    caption = f"{str(about.get('split')).capitalize()} part, {about.get('samples')} images, without ground truth"
    learned = evaluation.figure("learned", "risk")

    def draw(axes: Any) -> None:
        axes.plot(found["cutoffs"], found["risks"], marker=".", color="tab:gray", label="Hann")
        if learned is not None:
            axes.axhline(learned, color="C0", label="learned")
        axes.set(xlabel="cut-off / Nyquist", ylabel="squared error, estimated")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")

    note = (
        "The squared error (error²), in the square of the data's unit, is estimated from a part of the scan that an "
        "image was not made from. It compares methods; for each it is too low by what no angle shows, and may be "
        "negative. The best Hann was chosen on these very images, which favours it."
    )
    return joined(
        [
            table(caption, heads, rows, classes),
            element("p", note, class_="note"),
            row(chart(draw, "estimated squared error of Hanns by cut-off, and of the learned FBP")),
        ]
    )


def images_without_truth(subject: Subject) -> Html:
    """The learned FBP beside the best Hann, and their difference."""
    evaluation = subject.evaluation
    if evaluation is None or not {"learned", "hann_risk"} <= evaluation.images.keys():
        return missing(subject, "Images")
    low, high, reach = evaluation.measured["alone"]["grey"]
    unit = evaluation.measured["alone"].get("unit")
    title = evaluation.title("hann_risk")
    parts: list[object] = [
        element(
            "p",
            f"Grey runs from {low:g} (black) to {high:g} (white); differences from {-reach:g} (blue) to {reach:g} "
            f"(red); all in {value_words(unit) if unit else 'the unit of the data'}.",
        )
    ]
    for classic, learned in zip(evaluation.images["hann_risk"], evaluation.images["learned"], strict=True):
        shown = {
            title: (classic, Scale(low, high, "gray")),
            "learned FBP": (learned, Scale(low, high, "gray")),
            "learned - Hann": (learned - classic, Scale(-reach, reach, "RdBu_r")),
        }
        tiles = (
            element(
                "figure",
                element("div", bare_picture(as_tile(image.astype(np.float32), scale), name), class_="tile"),
                element("figcaption", name),
            )
            for name, (image, scale) in shown.items()
        )
        parts.append(element("div", *tiles, class_="tiles"))
    return joined(parts)


def halves(subject: Subject) -> Html:
    """Noise power and Fourier ring correlation of the images of either half of the scan."""
    evaluation = subject.evaluation
    if evaluation is None or "alone" not in evaluation.measured:
        return missing(subject, "Noise and resolution")
    found = evaluation.measured["alone"]

    def rings(axes: Any) -> None:
        for number_, (name, values) in enumerate(found["correlation"].items()):
            axes.plot(found["ring_frequency"], values, color=f"C{number_}", label=evaluation.title(name))
        axes.plot(found["ring_frequency"], found["half_bit"], color="tab:gray", ls=":", label="half-bit")
        axes.set(xlabel="cycles/mm", ylim=(-0.2, 1.05), title="Fourier ring correlation")
        axes.grid(alpha=0.3)
        legend_above(axes)

    def power(axes: Any) -> None:
        for number_, (name, values) in enumerate(found["noise_power"].items()):
            axes.plot(found["noise_frequency"], values, color=f"C{number_}", label=evaluation.title(name))
        axes.set(xlabel="cycles/mm", ylabel="mm²/m²", yscale="log", title="noise power spectrum")
        axes.grid(alpha=0.3)
        legend_above(axes)

    said = (
        "From the images of the even and of the odd angles (of a fan beam, of half the photons each): half their "
        "difference has the noise of the image of all, "
        "and where they no longer agree by the half-bit criterion (van Heel and Schatz 2005) nothing more is resolved. "
        "A window that all angles share changes both images alike, and so not their correlation: a frequency counts as "
        "resolved where they agree, and a tenth of it is left beside the bare ramp."
    )
    return joined(
        [
            element("p", said),
            row(
                chart(rings, "Fourier ring correlation by frequency"), chart(power, "noise power spectra by frequency")
            ),
        ]
    )


def _short(value: float | None) -> str:
    return number(value, 0) if value is None else f"{value:.4g}"
