"""What others have published on LoDoPaB-CT, each figure with its source."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fbp_ray.settings import Frozen

Set = Literal["test", "challenge"]


class Published(Frozen):
    """What somebody has published on LoDoPaB-CT, with each image's own range; without a source it is refused."""

    method: str
    on: Set
    """The public test part (trained on all of the training part), or the challenge set, whose images are secret."""

    psnr: float
    ssim: float
    source: Annotated[str, Field(pattern=r"https://\S+")]


IMAGES: dict[Set, int] = {"test": 3553, "challenge": 3678}
_REVIEW = (
    "Otero Baguer, Leuschner, Schmidt, Inverse Problems 36 (2020) 094004, https://doi.org/10.1088/1361-6420/aba415"
)
_CHALLENGE = "Leuschner et al., J. Imaging 7 (2021) 44, https://doi.org/10.3390/jimaging7030044"
PUBLISHED = tuple(
    Published(method=method, on=on, psnr=psnr, ssim=ssim, source=source)
    for on, source, rows in (
        (
            "test",
            _REVIEW,
            (
                ("FBP, Hann 0.641", 30.37, 0.739),
                ("iRadonMAP", 30.99, 0.749),
                ("TV", 32.95, 0.803),
                ("learned gradient descent", 34.67, 0.817),
                ("FBP + U-Net", 35.48, 0.837),
                ("learned primal-dual", 35.73, 0.843),
            ),
        ),
        (
            "challenge",
            _CHALLENGE,
            (
                ("FBP", 30.19, 0.727),
                ("TV", 33.36, 0.830),
                ("DIP + TV", 34.41, 0.845),
                ("MS-D-CNN", 35.85, 0.858),
                ("FBP + U-Net", 36.00, 0.862),
                ("ISTA U-Net", 36.09, 0.862),
                ("learned primal-dual", 36.25, 0.866),
            ),
        ),
    )
    for method, psnr, ssim in rows
)


def are_the_published_images(part: str, count: int, description: object) -> bool:
    """Whether a part is the public test part itself: genuine data, which have no description, and all of it."""
    return description is None and part == "test" and count == IMAGES["test"]


def headings(same: bool) -> dict[Set, str]:
    """What stands above the figures of each set; `same` says whether ours are of the public test part too."""
    comparable = "the same images" if same else "not comparable: these are other images"
    return {
        "test": f"published on the public test part of LoDoPaB-CT, {IMAGES['test']} images ({comparable})",
        "challenge": f"published on the challenge set, {IMAGES['challenge']} images (not comparable: other images)",
    }
