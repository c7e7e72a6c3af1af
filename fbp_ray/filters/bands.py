"""Splitting a sinogram into frequency bands, and adding them up again with a gain for every place in it.

    bands[m] = inverse FFT(FFT(sinogram) x responses[m])            m = 0 .. M, along the detector
    result   = bands[0] + sum over m >= 1 of gain[m] x bands[m]

Gains are smooth, so they are given for tiles of 4 angles x 4 cells and interpolated between the tiles' centres. What
they depend on, the bands' local energies and the sinogram's local means, are means over the same tiles.

On a CPU the bands exist for a few projections at a time where no gradient is wanted. A training step has those of two
samples at a time, and works them out again once for all their gradients: to keep them all takes a quarter less time and
twice the memory. On other devices, under torch.compile, within torch.func and for second derivatives the same is done
in torch's own operations, the functions called `reference_...`, which the kernels are tested against.

Dimensions: B batch, A angles, D cells, F frequencies, M bands beside the first, S = ceil(A / 4) and T = ceil(D / 4).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fbp_ray.projector import where_compiled
from fbp_ray.threads import parallel_for_torch

TILE = 4
SAMPLES_AT_ONCE = 2  # of a training step
ANGLES_AT_ONCE = 32 * TILE  # the spectrum and the bands of so many projections stay in the processor's cache

Gate = Callable[[Tensor, Tensor, slice, slice], Tensor]
"""(b, a, D) some projections of some samples, (b, M, s, T) energies of their bands, which samples and which rows of
tiles -> (b, M, s, T).

The gains of a tile depend on the next tiles to either side and on nothing further away, and a sample's on no other."""


BlockGains = Callable[[Tensor, Tensor, int, slice], Tensor]
"""(a, D) projections of a sample, (M, s, T) energies of their bands, the sample, its rows of tiles -> (M, s, T)."""


def apply_gains(
    sinogram: Tensor, responses: Tensor, gate: Gate, by_energy: bool = True, fast: BlockGains | None = None
) -> Tensor:
    """The sum of the sinogram's bands, each with the gains that `gate` works out.

    Args:
        sinogram: (B, A, D), float32 or float64.
        responses: (M + 1, F), real, of the same dtype; the first band is kept whole.
        gate: gives the gains.
        by_energy: whether they depend on the energies; if not, `gate` gets an empty tensor in their place.
        fast: the same as `gate` for where no gradient is wanted on a CPU.

    Returns:
        (B, A, D). On a CPU it depends neither on the number of threads nor on what else is in the batch.
    """
    if not _on_kernels(sinogram):
        bands = reference_bands(sinogram, responses)
        energies = tile_means(bands[:, 1:].square()) if by_energy else sinogram.new_empty(0)
        return reference_sum(bands, gate(sinogram, energies, slice(None), slice(None)))
    if torch.is_grad_enabled():
        sums = []
        for first in range(0, max(1, len(sinogram)), SAMPLES_AT_ONCE):
            samples, kept = slice(first, first + SAMPLES_AT_ONCE), _Kept(by_energy)
            rays = sinogram[samples]
            energies = _Energies.apply(rays, responses, kept) if by_energy else sinogram.new_empty(0)
            sums.append(_Sum.apply(rays, responses, gate(rays, energies, samples, slice(None)), kept))
        return torch.cat(sums)

    def of_gate(rays: Tensor, energies: Tensor, sample: int, rows: slice) -> Tensor:
        return gate(rays[None], energies[None], slice(sample, sample + 1), rows)[0]

    return _by_blocks(sinogram, responses, fast or of_gate, by_energy)


def tiles(sinogram: Tensor) -> tuple[int, int]:
    """(S, T), how many tiles cover the last two dimensions."""
    angles, cells = sinogram.shape[-2:]
    return -(-angles // TILE), -(-cells // TILE)


def tile_means(values: Tensor) -> Tensor:
    """(..., A, D) -> (..., S, T), the mean over each tile; those at the ends may be smaller."""
    pooled = functional.avg_pool2d(values.flatten(0, -3)[:, None], TILE, ceil_mode=True, count_include_pad=False)
    return pooled.reshape(*values.shape[:-2], *tiles(values))


def length_of(responses: Tensor) -> int:
    """The length that projections are padded to for responses (..., F)."""
    return 2 * (responses.shape[-1] - 1)


def reference_bands(sinogram: Tensor, responses: Tensor) -> Tensor:
    """(B, A, D) -> (B, M + 1, A, D)."""
    length, cells = length_of(responses), sinogram.shape[-1]
    spectrum = torch.fft.rfft(sinogram, n=length)[:, None] * responses[:, None]
    filtered: Tensor = torch.fft.irfft(spectrum, n=length)
    return filtered[..., :cells]


def reference_sum(bands: Tensor, gains: Tensor) -> Tensor:
    """(B, M + 1, A, D) and (B, M, S, T) -> (B, A, D)."""
    whole = interpolated(gains, *bands.shape[-2:])
    return bands[:, 0] + (whole * bands[:, 1:]).sum(1)


def interpolated(gains: Tensor, angles: int, cells: int) -> Tensor:
    """(..., S, T) -> (..., A, D), between the centres of the tiles."""
    size = [TILE * count for count in gains.shape[-2:]]
    flat = gains.reshape(1, -1, *gains.shape[-2:])
    whole = functional.interpolate(flat, size=size, mode="bilinear", align_corners=False)
    return whole[..., :angles, :cells].reshape(*gains.shape[:-2], angles, cells)


def _reference_energies(sinogram: Tensor, responses: Tensor) -> Tensor:
    return tile_means(reference_bands(sinogram, responses[1:]).square())


def _reference_result(sinogram: Tensor, responses: Tensor, gains: Tensor) -> Tensor:
    return reference_sum(reference_bands(sinogram, responses), gains)


class _Kept:
    """The bands of a few samples, and the spectrum they are made of, while something follows that needs them.

    Args:
        energies: whether the gradients to the energies need them too, after those of the sum.
    """

    def __init__(self, energies: bool) -> None:
        self.energies = energies
        self.release()

    def release(self) -> None:
        """Gives their memory back; who needs them again works them out again."""
        self.bands: Tensor | None = None
        self.spectrum: Tensor | None = None

    def of(self, sinogram: Tensor, responses: Tensor) -> tuple[Tensor, Tensor]:
        """(B, M + 1, A, D) and (B, A, F), worked out where they are not there."""
        if self.bands is None or self.spectrum is None:
            cells, length = sinogram.shape[-1], length_of(responses)
            self.bands = sinogram.new_empty((len(sinogram), len(responses), *sinogram.shape[1:]))
            shape = (*sinogram.shape[:2], responses.shape[-1])
            self.spectrum = sinogram.new_empty(shape, dtype=torch.promote_types(sinogram.dtype, torch.complex64))
            bands, spectra, blocks = self.bands, self.spectrum, _blocks(sinogram)

            def one_block(number: int) -> None:
                sample, block = number // len(blocks), blocks[number % len(blocks)]
                spectrum = torch.fft.rfft(sinogram[sample, block], n=length)
                spectra[sample, block] = spectrum
                for response, band in zip(responses, bands[sample], strict=True):
                    band[block] = torch.fft.irfft(spectrum * response, n=length)[:, :cells]

            parallel_for_torch(one_block, len(sinogram) * len(blocks))
        return self.bands, self.spectrum


class _FromBands(torch.autograd.Function):
    """A function of the bands of a sinogram; `reference` says what it is."""

    reference: Callable[..., Tensor]
    to_inputs: Callable[..., tuple[Tensor | None, ...]]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        *tensors, ctx.kept = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @classmethod
    def differentiate(cls, ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return *cls.to_inputs(gradient, ctx.needs_input_grad, ctx.kept, *inputs), None
        backward = torch.func.vjp(cls.reference, *inputs)[1]  # a second derivative is wanted
        return *backward(gradient), None


def _bands_along(ctx: Any, along: Tensor | None, responses_along: Tensor | None) -> tuple[Tensor, Tensor]:
    """The bands, and how they change along a change of the sinogram and of the responses."""
    sinogram, responses = ctx.saved_tensors[:2]
    change = torch.zeros_like(sinogram) if along is None else along
    change = reference_bands(change, responses)
    if responses_along is not None:
        change = change + reference_bands(sinogram, responses_along)
    return reference_bands(sinogram, responses), change


class _Energies(_FromBands):
    """(B, A, D), (M + 1, F) -> (B, M, S, T): the mean squares of the bands after the first."""

    reference = staticmethod(_reference_energies)

    @staticmethod
    def forward(sinogram: Tensor, responses: Tensor, kept: _Kept) -> Tensor:
        bands, _ = kept.of(sinogram, responses)
        energies = sinogram.new_empty((len(sinogram), len(responses) - 1, *tiles(sinogram)))
        kernels, cells = _kernels(sinogram.dtype), sinogram.shape[-1]

        def one_sample(number: int) -> None:
            for band, energy in zip(bands[number, 1:].numpy(), energies[number].numpy(), strict=True):
                kernels.tile_means(band, cells, True, energy)

        parallel_for_torch(one_sample, len(sinogram))
        return energies

    @staticmethod
    def to_inputs(
        gradient: Tensor, needed: tuple[bool, ...], kept: _Kept, sinogram: Tensor, responses: Tensor
    ) -> tuple[Tensor | None, ...]:
        kernels = _kernels(sinogram.dtype)

        def to_bands(number: int, bands: Tensor, along: Tensor) -> None:
            along[1:] = bands[1:]
            for band, means in zip(along[1:].numpy(), gradient[number], strict=True):
                kernels.times_means(band, means.contiguous().numpy())

        found = _through_bands(to_bands, 1, needed, kept, sinogram, responses)
        kept.release()
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _Energies.differentiate(ctx, gradients[0])

    @staticmethod
    def jvp(ctx: Any, *along: Tensor | None) -> Tensor:
        bands, change = _bands_along(ctx, *along[:2])
        return tile_means(2 * bands[:, 1:] * change[:, 1:])

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Tensor) -> tuple[Tensor, int]:
        return torch.func.vmap(_reference_energies, in_dims[:2])(*inputs[:2]), 0


class _Sum(_FromBands):
    """(B, A, D), (M + 1, F), (B, M, S, T) -> (B, A, D): the sum of the bands with their gains."""

    reference = staticmethod(_reference_result)

    @staticmethod
    def forward(sinogram: Tensor, responses: Tensor, gains: Tensor, kept: _Kept) -> Tensor:
        bands, _ = kept.of(sinogram, responses)
        result, kernels = bands[:, 0].clone(), _kernels(sinogram.dtype)

        def one_sample(number: int) -> None:
            for band, gain in zip(bands[number, 1:].numpy(), gains[number], strict=True):
                kernels.add_interpolated(band, gain.contiguous().numpy(), 0, result[number].numpy())

        parallel_for_torch(one_sample, len(sinogram))
        kept.release()
        return result

    @staticmethod
    def to_inputs(
        gradient: Tensor, needed: tuple[bool, ...], kept: _Kept, sinogram: Tensor, responses: Tensor, gains: Tensor
    ) -> tuple[Tensor | None, ...]:
        to_gains, kernels = torch.zeros_like(gains), _kernels(sinogram.dtype)

        def to_bands(number: int, bands: Tensor, along: Tensor) -> None:
            back = gradient[number].contiguous()
            along[0] = back
            along[1:] = 0
            for m, (band, to_band) in enumerate(zip(bands[1:].numpy(), along[1:].numpy(), strict=True)):
                kernels.sum_to_tiles(back.numpy(), band, to_gains[number, m].numpy())
                kernels.add_interpolated(back.numpy(), gains[number, m].contiguous().numpy(), 0, to_band)

        found = *_through_bands(to_bands, 0, needed, kept, sinogram, responses), to_gains
        if not kept.energies:
            kept.release()
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _Sum.differentiate(ctx, gradients[0])

    @staticmethod
    def jvp(
        ctx: Any, along: Tensor | None, responses_along: Tensor | None, gains_along: Tensor | None, _: None
    ) -> Tensor:
        bands, change = _bands_along(ctx, along, responses_along)
        result = reference_sum(change, ctx.saved_tensors[2])
        return result if gains_along is None else result + reference_sum(bands, gains_along) - bands[:, 0]

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Tensor) -> tuple[Tensor, int]:
        return torch.func.vmap(_reference_result, in_dims[:3])(*inputs[:3]), 0


def _through_bands(
    to_bands: Callable[[int, Tensor, Tensor], None],
    first: int,
    needed: tuple[bool, ...],
    kept: _Kept,
    sinogram: Tensor,
    responses: Tensor,
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients to sinogram and responses.

    `to_bands` is given a sample's number, its bands and room for the gradients to them, which are 0 before the `first`.
    """
    cells, length = sinogram.shape[-1], length_of(responses)
    to_sinogram = torch.empty_like(sinogram, memory_format=torch.contiguous_format) if needed[0] else None
    to_responses = sinogram.new_zeros((len(sinogram), *responses.shape)) if needed[1] else None

    bands, spectra = kept.of(sinogram, responses)

    def one_sample(number: int) -> None:
        gradients = torch.empty_like(bands[number])
        to_bands(number, bands[number], gradients)
        for block in _blocks(sinogram):
            along = torch.fft.rfft(gradients[first:, block], n=length)
            if to_responses is not None:
                to_responses[number, first:] += (along * spectra[number, block].conj_physical()).real.sum(1)
            if to_sinogram is not None:
                back = torch.fft.irfft((along * responses[first:, None]).sum(0), n=length)
                to_sinogram[number, block] = back[:, :cells]

    parallel_for_torch(one_sample, len(sinogram))
    if to_responses is None:
        return to_sinogram, None
    total = to_responses.sum(0) * (2 / length)  # every frequency but the first and last stands for its negative too
    total[:, [0, -1]] /= 2
    return to_sinogram, total


def _on_kernels(sinogram: Tensor) -> bool:
    return kernels_for(sinogram) is not None


def kernels_for(array: Tensor) -> Any:
    """The module of the CPU kernels, where they serve such an array."""
    return _kernels(array.dtype) if array.is_cpu and not torch.compiler.is_compiling() else None


@functools.cache
def _kernels(dtype: torch.dtype) -> Any:
    def load() -> Any:
        from fbp_ray.filters import band_kernels

        one = np.ones((1, 1), str(dtype).removeprefix("torch."))  # no tensor: within torch.func it has no array
        band_kernels.tile_means(one, 1, False, one)
        return band_kernels

    return where_compiled("windows by noise run", load)


def _blocks(sinogram: Tensor) -> list[slice]:
    return [slice(first, first + ANGLES_AT_ONCE) for first in range(0, sinogram.shape[-2], ANGLES_AT_ONCE)]


def _by_blocks(sinogram: Tensor, responses: Tensor, block_gains: BlockGains, by_energy: bool) -> Tensor:
    """A few projections at a time, from the bands to the result: nothing but that leaves the processor's cache.

    A block's own gains depend on two rows of tiles to either side, which are worked out with it.
    """
    result = torch.empty_like(sinogram, memory_format=torch.contiguous_format)
    angles, cells, length = *sinogram.shape[1:], length_of(responses)
    blocks, kernels = _blocks(sinogram), _kernels(sinogram.dtype)

    def filter_block(number: int) -> None:
        sample, block = number // len(blocks), blocks[number % len(blocks)]
        around = slice(max(0, block.start - 2 * TILE), min(angles, block.stop + 2 * TILE))
        rays = sinogram[sample, around]
        spectrum = torch.fft.rfft(rays, n=length)
        bands = [torch.fft.irfft(spectrum * response, n=length).numpy() for response in responses]
        energies = sinogram.new_empty((len(bands) - 1 if by_energy else 0, *tiles(rays)))
        for band, energy in zip(bands[1:], energies, strict=False):
            kernels.tile_means(band, cells, True, energy.numpy())
        gains = block_gains(rays, energies, sample, _rows(around))
        own, before = result[sample, block].numpy(), block.start - around.start
        own[:] = bands[0][before : before + len(own), :cells]
        for band, gain in zip(bands[1:], gains, strict=True):
            kernels.add_interpolated(band, gain.numpy(), before, own)

    parallel_for_torch(filter_block, len(sinogram) * len(blocks))
    return result


def _rows(angles: slice) -> slice:
    """The rows of tiles that cover some angles, of which the first is the first of a tile."""
    return slice(angles.start // TILE, -(-angles.stop // TILE))
