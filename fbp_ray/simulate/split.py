"""Which slices go into which part, how many of them, in what order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fbp_ray.errors import ConfigError, DataError
from fbp_ray.simulate.config import SimulateConfig
from fbp_ray.simulate.protocol import generator
from fbp_ray.simulate.source import PARTS, Part, Slice, Source

SPLIT = (0.8, 0.1, 0.1)
"""Parts of the patients for train, validation and test, where neither the source nor the user says otherwise."""


def divide(source: Source, config: SimulateConfig) -> dict[Part, list[Slice]]:
    """The slices of each part that has any, in the order to write them.

    A source's own split is kept; otherwise whole patients are drawn for each part. Of each part the evenly spaced
    slices that `config` allows are taken and put into a random order, as in LoDoPaB-CT, so that the first so many are
    a fair subset.

    Raises:
        ConfigError: there are fewer patients than parts, or `--split` is given for a source that has its own.
        DataError: nothing is left.
    """
    if source.split and config.split:
        raise ConfigError(f"--split does not apply to this source, which has its own ({source.split}); leave it out")
    slices = source.slices if source.split else _by_patient(source.slices, config.split or SPLIT, config.seed)
    parts: dict[Part, list[Slice]] = {}
    for part in PARTS:
        there = [piece for piece in slices if piece.part == part]
        kept = _spaced(there, config.limit(part))
        if kept:
            parts[part] = [kept[k] for k in generator(config.seed, f"order of {part}").permutation(len(kept))]
    if not parts:
        raise DataError("no sample is left: raise --train, --validation or --test")
    return parts


def _spaced(slices: list[Slice], limit: int | None) -> list[Slice]:
    if limit is None or limit >= len(slices):
        return slices
    return [slices[k] for k in np.linspace(0, len(slices) - 1, limit).round().astype(int)]


def _by_patient(slices: tuple[Slice, ...], split: tuple[float, float, float], seed: int) -> list[Slice]:
    patients = sorted({piece.patient for piece in slices})
    counts = _shares(len(patients), np.asarray(split) / sum(split))
    drawn = generator(seed, "split").permutation(np.repeat(np.arange(len(PARTS)), counts))
    part = {patient: PARTS[number] for patient, number in zip(patients, drawn, strict=True)}
    return [Slice(piece.name, piece.patient, piece.load, part[piece.patient]) for piece in slices]


def _shares(patients: int, split: NDArray[np.float64]) -> NDArray[np.int64]:
    """The number of patients in each part: as near to the split as can be, one at least where it is not 0."""
    wanted = np.count_nonzero(split)
    if patients < wanted:
        raise ConfigError(
            f"there are {patients} patients for {wanted} parts, and parts never share a patient; choose fewer parts, "
            "for example --split 1,0,0 to put all into train (or 0,0,1: into test)"
        )
    quota = split * patients
    counts = np.maximum(np.floor(quota), split > 0).astype(np.int64)
    while counts.sum() < patients:
        counts[np.argmax(np.where(split > 0, quota - counts, -np.inf))] += 1
    while counts.sum() > patients:
        counts[np.argmax(np.where(counts > 1, counts - quota, -np.inf))] -= 1
    return counts
