"""`python -m fbp_ray.evaluate --checkpoint runs/NAME --data.dir DIR`: scores a trained model beside the classic FBP.

The options are here, so that a wrong one is known before torch is imported; `program` is what it does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fbp_ray.cli import parse
from fbp_ray.config import Amount, Count, MetricsConfig, PhotonRange
from fbp_ray.settings import Frozen, LocalPath, PlaceName

Cutoff = Annotated[float, Field(gt=0, le=1)]


class EvaluateData(Frozen):
    """What to evaluate on."""

    dir: LocalPath | None = Field(
        default=None, description="data folder; without it the one that the model was trained on"
    )
    every: Count | None = Field(
        default=None, description="use each so many of the angles; without it as many as the model was trained on"
    )
    first_angles: Count | None = Field(
        default=None,
        description="use the first so many of the angles alone; without it those that the model was trained on",
    )
    photons: PhotonRange | None = Field(
        default=None,
        description="draw the noise anew, with so many photons a ray, or from so many to so many; without it the one "
        "number that the model was trained for, else the noise of the data",
    )
    samples: Count | None = Field(default=None, description="use the first so many samples")


class EvaluateConfig(Frozen):
    """Scores a trained model beside the classic FBP: PSNR, SSIM, pictures.

    PSNR and SSIM take each image's own range, as LoDoPaB-CT defines them. PSNR-FR and SSIM-FR take the fixed range 1
    and come out higher, PSNR by about 4 dB: never compare one kind with the other. Without ground truth: the squared
    error as the scan tells it, beside every Hann, noise, and resolution.
    """

    checkpoint: PlaceName = Field(
        description="run folder (its best checkpoint), checkpoint folder, its URI, or chest-low-dose"
    )
    data: EvaluateData = EvaluateData()
    split: Literal["train", "validation", "test"] = Field(default="test", description="part of the data to score")
    protocol: Literal["lodopab"] | None = Field(
        default=None,
        description="lodopab: over the whole part, with 95 % confidence intervals over its patients, beside what has "
        "been published",
    )
    submission: LocalPath | None = Field(
        default=None,
        description="write the images of the challenge's observations in the data folder to this zip file, in the "
        "challenge's format, instead of scoring",
    )
    out: PlaceName | None = Field(
        default=None,
        description="new folder for the results; without it evaluation-SPLIT beside the checkpoint, or in runs/NAME",
    )
    overwrite: bool = Field(default=False, description="replace the results of an earlier evaluation")
    metrics: MetricsConfig = MetricsConfig()
    panels: Amount = Field(default=4, description="pictures of images, evenly spaced")
    hann_psnr: Cutoff | None = Field(
        default=None, description="Hann cut-off to compare with; without it the best for PSNR on the validation part"
    )
    hann_ssim: Cutoff | None = Field(
        default=None, description="Hann cut-off to compare with; without it the best for SSIM on the validation part"
    )

    @model_validator(mode="after")
    def _whole_part_or_whole_challenge(self) -> EvaluateConfig:
        if self.protocol and self.data.samples is not None:
            raise ValueError("the protocol scores the whole part; leave out data.samples")
        if self.protocol and self.submission:
            raise ValueError("a submission is not scored, since its ground truth is secret; leave out protocol")
        if self.submission and self.data.samples is not None:
            raise ValueError("a submission has all images of the challenge; leave out data.samples")
        return self


def main(argv: Sequence[str]) -> None:
    """Evaluates the model that the options name."""
    config = parse(EvaluateConfig, argv, "python -m fbp_ray.evaluate")
    from fbp_ray.evaluate.program import evaluate  # only now: torch takes seconds to import

    evaluate(config)
