"""The names under which trackers show the figures of an epoch."""

from __future__ import annotations

from typing import Any

AS_THEY_ARE = ("lr", "samples_per_second", "reading", "seconds")


def scalars(row: dict[str, Any], baseline: dict[str, float]) -> dict[str, float]:
    """train/loss, train/l1 .., validation/loss .. validation/ssim, classic/psnr_hann, gain/psnr, lr ..

    Args:
        row: an epoch of the history: `train_*`, `validation_*`, and figures that keep their names.
        baseline: the classic FBP on the same validation part; a gain is the learned figure minus the classic one.
    """
    named = {name: float(row[name]) for name in AS_THEY_ARE if name in row}
    for name, value in row.items():
        part, _, figure = name.partition("_")
        if part in ("train", "validation"):
            named[f"{part}/{figure}"] = float(value)
    for figure in ("psnr", "ssim"):
        classic = float(baseline[f"hann_{figure}"])
        named[f"classic/{figure}_hann"] = classic
        named[f"gain/{figure}"] = float(row[f"validation_{figure}"]) - classic
    return named
