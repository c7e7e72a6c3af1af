"""Random thorax phantoms: a body of ellipses with lungs, heart, spine, ribs, vessels and nodules, in HU.

They have the shapes and contrasts of a chest, not its texture: good for trying things out and for tests, no substitute
for scans.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fbp_ray.simulate.protocol import AIR_HU, generator
from fbp_ray.simulate.source import Part, Slice, Source


class Ellipse(NamedTuple):
    """Sizes and places in halves of the image: x to the right, y downwards, both -1 to 1; the angle in radians."""

    x: float
    y: float
    a: float
    b: float
    angle: float
    hounsfield: float


def phantoms(counts: dict[Part | None, int], shape: tuple[int, int], seed: int) -> Source:
    """As many phantoms for each part, each its own patient; part None leaves it to the split.

    Args:
        counts: the number for each part.
        shape: (H, W) of the image that will be made of them.
        seed: of their anatomy.
    """
    slices = []
    for part, count in counts.items():
        for number in range(count):
            name = f"phantom {number}" if part is None else f"{part} phantom {number}"
            slices.append(Slice(name, name, partial(_load, name, shape, seed), part))
    return Source("phantoms", tuple(slices), split="each part has its own phantoms" if None not in counts else "")


def _load(name: str, shape: tuple[int, int], seed: int) -> NDArray[np.float32]:
    return draw(thorax(generator(seed, f"anatomy of {name}")), (shape[1], shape[0]))


def thorax(random: np.random.Generator) -> list[Ellipse]:
    """The ellipses of one chest, each drawn over those before it."""

    def around(value: float, spread: float = 0.08) -> float:
        return value * random.uniform(1 - spread, 1 + spread)

    width, depth = around(0.86), around(0.62)
    lung = random.uniform(-900, -780)
    body = [
        Ellipse(0, 0, width, depth, 0, around(-100)),  # fat
        Ellipse(0, 0, width - around(0.06, 0.5), depth - around(0.06, 0.5), 0, around(50, 0.3)),  # muscle
    ]
    lungs = [
        Ellipse(
            side * around(0.48) * width,
            around(-0.02, 1),
            around(0.36) * width,
            around(0.66) * depth,
            side * around(0.12),
            lung,
        )
        for side in (-1, 1)
    ]
    vessels = []
    for chosen in random.integers(0, 2, size=random.integers(20, 50)):
        size = random.exponential(0.012) + 0.005
        vessels.append(_within(lungs[chosen], size, size * random.uniform(0.4, 1), random, random.uniform(-50, 80)))
    for chosen in random.integers(0, 2, size=random.integers(0, 4)):
        size = random.uniform(0.015, 0.06)
        vessels.append(_within(lungs[chosen], size, size, random, random.uniform(-100, 100)))
    middle = [
        Ellipse(0, around(-0.05, 1), around(0.16), around(0.62) * depth, 0, around(30, 0.4)),  # mediastinum
        Ellipse(
            around(0.12, 0.6), around(-0.2) * depth, around(0.26), around(0.22), around(0.5), around(45, 0.3)
        ),  # heart
        Ellipse(around(0.1), around(0.42) * depth, around(0.05), around(0.05), 0, around(150, 0.7)),  # aorta
        Ellipse(0, around(0.1, 1), 0.03, 0.03, 0, AIR_HU),  # trachea
    ]
    spine = around(0.62) * depth
    bones = [
        Ellipse(0, spine, around(0.13), around(0.1), 0, around(600)),
        Ellipse(0, spine, around(0.11), around(0.08), 0, around(250)),
        Ellipse(0, spine + 0.13, around(0.08), around(0.05), 0, around(500)),
        Ellipse(0, spine + 0.11, 0.035, 0.035, 0, around(30)),  # spinal canal
        Ellipse(0, -0.84 * depth, around(0.1), 0.025, 0, around(350)),  # sternum
    ]
    start = random.uniform(0, 2 * np.pi)
    for turn in start + np.linspace(0, 2 * np.pi, random.integers(10, 17), endpoint=False):
        x, y = 0.87 * width * np.cos(turn), 0.87 * depth * np.sin(turn)
        tangent = float(np.arctan2(depth * np.cos(turn), -width * np.sin(turn)))
        bones.append(Ellipse(x, y, around(0.07, 0.4), around(0.022), tangent, around(700)))
        bones.append(Ellipse(x, y, around(0.05, 0.4), around(0.011), tangent, around(200)))
    return [*body, *lungs, *vessels, *middle, *bones]


def _within(lung: Ellipse, a: float, b: float, random: np.random.Generator, hounsfield: float) -> Ellipse:
    turn, reach = random.uniform(0, 2 * np.pi), 0.85 * np.sqrt(random.random())
    x = lung.x + reach * lung.a * np.cos(turn)
    y = lung.y + reach * lung.b * np.sin(turn)
    return Ellipse(x, y, a, b, random.uniform(0, np.pi), hounsfield)


def draw(ellipses: list[Ellipse], shape: tuple[int, int]) -> NDArray[np.float32]:
    """(rows, columns) float32 in HU, air around; edges are about a pixel wide, as a scanner's are."""
    rows, columns = shape
    y = ((np.arange(rows) + 0.5) / rows * 2 - 1)[:, None]
    x = ((np.arange(columns) + 0.5) / columns * 2 - 1)[None, :]
    edge = 2 / min(shape)
    image = np.full(shape, AIR_HU, np.float32)
    for ellipse in ellipses:
        reach = max(ellipse.a, ellipse.b) + 2 * edge
        box = np.s_[
            slice(*np.searchsorted(y[:, 0], (ellipse.y - reach, ellipse.y + reach))),
            slice(*np.searchsorted(x[0], (ellipse.x - reach, ellipse.x + reach))),
        ]
        dx, dy = x[:, box[1]] - ellipse.x, y[box[0]] - ellipse.y
        along = dx * np.cos(ellipse.angle) + dy * np.sin(ellipse.angle)
        across = dy * np.cos(ellipse.angle) - dx * np.sin(ellipse.angle)
        inwards = (1 - np.hypot(along / ellipse.a, across / ellipse.b)) * min(ellipse.a, ellipse.b)
        share = np.clip(inwards / edge + 0.5, 0, 1)
        image[box] += (share * (ellipse.hounsfield - image[box])).astype(np.float32)
    return image
