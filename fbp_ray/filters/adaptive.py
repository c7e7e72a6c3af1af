"""Windows that depend on each ray's noise: what stands out of the noise is kept, the rest is smoothed.

The filtered sinogram is a sum of frequency bands. The first, the lowest, is always kept; each of the others is
multiplied by a gain that is looked up in a learned table and differs from place to place:

    ray_noise   gain[m] = table[m](v)       v: the local variance of the line integrals
    adaptive    gain[m] = table[m](v, e)    e: the band's local energy over that which noise of this variance gives it

Both v and e are pure numbers, and enter by their logarithms: so a table serves other doses and other units. What lies
between its entries is interpolated; what lies beyond takes the outermost. The bands are differences of M + 1 windows,
each an analytic one plus a learned spline; at the start all gains are such that the sum is the plain analytic window.

The nearest relatives: Zeng and Zamyatin, Med. Phys. 40 (2013) 031113, chose for each ray one of eleven fixed windows by
its noise; Shtok, Elad and Zibulevsky, Int. J. Biomed. Imaging 2013, 609274, learned a shrinkage of sinograms.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fbp_ray.filters.bands import (
    BlockGains,
    apply_gains,
    interpolated,
    kernels_for,
    length_of,
    reference_bands,
    tile_means,
    tiles,
)
from fbp_ray.filters.filtering import filter_projections
from fbp_ray.filters.noise import CarriedNoise, estimated_photons, log_variance, smoothed
from fbp_ray.filters.ramp import frequencies, ramp, shortest_length
from fbp_ray.filters.windows import PARTS_AT_ONCE, TableWindow, analytic_window, spline_basis
from fbp_ray.geometry import ParallelBeam
from fbp_ray.stage_settings import WindowConfig, WindowName

CUTOFFS = (0.25, 0.5, 0.75, 1.0, 1.4)
"""Of the windows that divide the bands, in multiples of the configured cut-off."""

VARIANCES = (-4.5, 0.5, 11)
"""log10 of v: first and last entry of a table, and their number; from 30 000 photons of a ray to a third of one."""

ENERGIES = (-0.4, 2.0, 13)
"""log10 of e. 0 is noise alone; at 2 the band has 100 times the noise's energy."""

ZENG_LEVELS = 11
ZENG_HALF = 32.0  # where the window of a ray of median noise would fall to a half, in Nyquist's frequencies

_LEAST_ENERGY = 1e-3  # of the noise's: a blank region has a logarithm too
_STEP = 0.2  # of a window's coefficients: they move this much more slowly than the gains at the same learning rate


class BandWindow(nn.Module):
    """ramp x window, where the window has a gain for each band and place.

    Args:
        config: its kind is ray_noise or adaptive.
        geometry: the scan.
        dtype: of the weights.
        carried: how noise differs from that of rays that were measured, where the scan was rebinned.
    """

    basis: Tensor
    ramp: Tensor
    start: Tensor
    angle_scale: Tensor | None
    cell_weights: Tensor | None
    level: Tensor | None
    tile_level: Tensor | None
    colour: Tensor | None

    def __init__(
        self,
        config: WindowConfig,
        geometry: ParallelBeam,
        dtype: torch.dtype = torch.float32,
        carried: CarriedNoise | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        length = shortest_length(geometry.cells)
        frequency = frequencies(geometry.cells, length)
        outer: WindowName = "none" if config.init == "ones" else config.init
        inner: WindowName = "hann" if outer == "none" else outer
        names = (inner, inner, inner, outer, outer)
        windows = [analytic_window(n, frequency, c * config.cutoff) for n, c in zip(names, CUTOFFS, strict=True)]
        scale = geometry.angle_weights * geometry.cell_size / geometry.pixel_size**2
        even = np.ptp(scale) <= 1e-9 * scale.max()

        def constant(name: str, values: object) -> None:  # follows from the configuration: no learned state
            tensor = None if values is None else torch.tensor(np.asarray(values), dtype=dtype, device="cpu")
            self.register_buffer(name, tensor, persistent=False)

        constant("start", np.stack(windows))
        constant("basis", spline_basis(frequency, config.knots))
        constant("ramp", ramp(geometry.cells, geometry.cell_size, length) * scale.mean())
        constant("angle_scale", None if even else (scale / scale.mean())[:, None])
        cells = geometry.cell_weights
        constant("cell_weights", cells if np.ptp(cells) > 0 else None)
        constant("level", None if carried is None else carried.level)
        constant("tile_level", None if carried is None else tile_means(carried.level[None])[0])
        constant("colour", None if carried is None else np.sqrt(carried.density(frequency)))
        self.curvature = 1.0 if carried is None else carried.curvature
        gains = torch.tensor([1.0] * (len(CUTOFFS) - 2) + [0.0], dtype=dtype, device="cpu")
        entries = (VARIANCES[2], ENERGIES[2] if config.kind == "adaptive" else 1)
        self.gains = nn.Parameter(gains[:, None, None].expand(-1, *entries).clone())
        self.coefficients = nn.Parameter(torch.zeros(len(CUTOFFS), config.knots, dtype=dtype, device="cpu"))

    def windows(self) -> Tensor:
        """(M + 1, F): the window up to and including each band."""
        return self.start + _STEP * (self.coefficients[..., None] * self.basis.T).sum(1)

    def bands(self) -> Tensor:
        """(M + 1, F): the window of each band."""
        windows = self.windows()
        return torch.cat([windows[:1], windows[1:] - windows[:-1]])

    def forward(self, sinogram: Tensor) -> Tensor:
        """(B, A, D) -> (B, A, D), so that `backproject`, interpolating, makes of it the image in absolute units."""
        if self.cell_weights is not None:
            sinogram = sinogram * self.cell_weights.to(sinogram.dtype)
        learning = sinogram.requires_grad or any(parameter.requires_grad for parameter in self.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and learning):
            responses, noise = self._responses(sinogram.dtype)
            photons = self._photons(sinogram)

            def gate(rays: Tensor, energies: Tensor, samples: slice, rows: slice) -> Tensor:
                return self._gains(rays, energies, noise, photons[samples], rows)

            fast = None if learning or not sinogram.is_cpu else self._fast_gains(noise, photons)
            filtered = apply_gains(sinogram, responses, gate, self.config.kind == "adaptive", fast)
            return filtered if self.angle_scale is None else filtered * self.angle_scale.to(filtered.dtype)

    def noise_levels(self, sinogram: Tensor) -> Tensor:
        """(B, A, D) -> (B, S, T): log10 of the variance that each tile of 4 angles x 4 cells is taken to have."""
        if self.cell_weights is not None:
            sinogram = sinogram * self.cell_weights.to(sinogram.dtype)
        level = None if self.tile_level is None else self.tile_level.to(sinogram.dtype)
        return log_variance(sinogram, self.config.unit, self._photons(sinogram), level)

    def parts(self, sinogram: Tensor) -> Iterator[Tensor]:
        """What each entry of the tables adds to the filtered sinogram: (A, D) -> (entries, A, D), some at a time."""
        rays = sinogram[None] if self.cell_weights is None else sinogram[None] * self.cell_weights.to(sinogram.dtype)
        responses, noise = self._responses(sinogram.dtype)
        bands = reference_bands(rays, responses)[0, 1:]
        by_energy = self.config.kind == "adaptive"
        energies = tile_means(bands.square())[None] if by_energy else sinogram.new_empty(0)
        places = self._places(rays, energies, noise, self._photons(rays), slice(None))
        entries = self.gains[0].numel()
        hats = torch.eye(entries, device=sinogram.device, dtype=sinogram.dtype)  # of each, one entry is 1
        hats = hats.reshape(1, entries, *self.gains.shape[1:])
        for band, place in zip(bands, places, strict=True):
            found = functional.grid_sample(hats, place[None], padding_mode="border", align_corners=True)[0]
            for some in torch.split(found, PARTS_AT_ONCE):
                filtered = band * interpolated(some.reshape(len(some), *tiles(sinogram)), *sinogram.shape)
                yield filtered if self.angle_scale is None else filtered * self.angle_scale.to(filtered.dtype)

    def _responses(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(M + 1, F) those of the bands, and (M,) what each makes of noise of variance 1."""
        responses = (self.bands() * self.ramp).to(dtype)
        coloured = responses if self.colour is None else responses * self.colour.to(dtype)
        noise = _mean_square(coloured[1:]) / self.config.unit**2
        return responses, torch.maximum(noise, 1e-6 * noise.detach().max())  # a band may be empty

    def _photons(self, sinogram: Tensor) -> Tensor:
        """(B,): those of a ray that meets nothing, as they are known, or else estimated."""
        if isinstance(self.config.photons, float):
            return sinogram.new_full((sinogram.shape[0],), self.config.photons)
        if self.level is None:
            return estimated_photons(sinogram, self.config.unit)
        noisier = sinogram + self.level.to(sinogram.dtype) / self.config.unit  # so much more attenuation is as noisy
        return self.curvature * estimated_photons(noisier, self.config.unit)

    def _gains(self, sinogram: Tensor, energies: Tensor, noise: Tensor, photons: Tensor, rows: slice) -> Tensor:
        table = self.gains[:, None].to(sinogram.dtype)
        places = self._places(sinogram, energies, noise, photons, rows)
        found = functional.grid_sample(table, places, padding_mode="border", align_corners=True)
        return found.reshape(len(self.gains), sinogram.shape[0], *tiles(sinogram)).transpose(0, 1).contiguous()

    def _fast_gains(self, noise: Tensor, photons: Tensor) -> BlockGains | None:
        """`_gains` as a kernel, where kernels can be compiled."""
        kernels = kernels_for(noise)
        if kernels is None:
            return None
        noise_, photons_ = noise.numpy(), photons.tolist()
        table = self.gains.detach().to(noise.dtype).numpy()

        def find(rays: Tensor, energies: Tensor, sample: int, rows: slice) -> Tensor:
            means = rays.new_empty(tiles(rays))
            gains = rays.new_empty((len(table), *means.shape))
            kernels.tile_means(rays.numpy(), rays.shape[1], False, means.numpy())
            if self.tile_level is not None:
                means += self.tile_level[rows].to(means.dtype) / self.config.unit
            kernels.look_up(
                means.numpy(),
                energies.numpy(),
                noise_,
                table,
                (photons_[sample], self.config.unit),
                VARIANCES[:2],
                ENERGIES[:2],
                _LEAST_ENERGY,
                gains.numpy(),
            )
            return gains

        return find

    def _places(self, sinogram: Tensor, energies: Tensor, noise: Tensor, photons: Tensor, rows: slice) -> Tensor:
        """Where each tile stands in the table of each band: (M, B S, T, 2), along e and along v, -1 to 1."""
        level = None if self.tile_level is None else self.tile_level[rows].to(sinogram.dtype)
        variance = log_variance(sinogram, self.config.unit, photons, level)[:, None]
        across = _coordinate(variance, VARIANCES).expand(-1, len(self.gains), -1, -1)
        if self.config.kind == "adaptive":
            excess = smoothed(energies) / (noise[:, None, None] * 10 ** variance.clamp(-12, 12))
            along = _coordinate(torch.log10(excess + _LEAST_ENERGY), ENERGIES)
        else:
            along = torch.zeros_like(across)
        places = torch.stack([along, across], -1).transpose(0, 1).flatten(1, 2)
        return places.clamp(-1, 1).nan_to_num()  # grid_sample takes what is no number for an address


def _coordinate(value: Tensor, entries: tuple[float, float, int]) -> Tensor:
    """-1 at the first entry of a table, 1 at the last."""
    first, last, _ = entries
    return (value - first) * (2 / (last - first)) - 1


def _mean_square(responses: Tensor) -> Tensor:
    """What each response makes of white noise of variance 1: its mean square over all frequencies."""
    squares = responses.square()
    return (2 * squares.sum(-1) - squares[:, 0] - squares[:, -1]) / length_of(responses)


class ZengWindow(TableWindow):
    """The fixed windows of Zeng and Zamyatin, one of eleven for each ray by its noise: nothing is learned.

    A ray of variance v has the weight w = 1 / v, and the frequency f (a fraction of Nyquist's) the window
    1 - (1 - a w / f)^k times an analytic one. The former emulates k steps of a noise-weighted iteration. The weights
    are rounded to eleven levels, evenly spaced in their logarithm between the sinogram's extremes. k leaves a ray of
    median noise as it is, and lets the window of one with a hundred times its variance fall to a half at f = 0.32:
    that was best for PSNR on low-dose chest CT, where smaller k leave bands along the noisy rays.

    Args:
        geometry: the scan.
        start: (F,), the analytic window.
        unit: attenuation in 1/m that the value 1 stands for.
        carried: as for `BandWindow`.

    Source: G. L. Zeng and A. Zamyatin, Med. Phys. 40 (2013) 031113. The scale of k, the spacing of the levels and the
    analytic window are ours.
    """

    frequency: Tensor
    level: Tensor | None

    def __init__(self, geometry: ParallelBeam, start: Tensor, unit: float, carried: CarriedNoise | None = None) -> None:
        super().__init__(geometry, start, learned=False)
        self.unit = unit
        level = None if carried is None else carried.level.to(start.dtype)
        self.register_buffer("level", level, persistent=False)
        frequency = torch.tensor(frequencies(geometry.cells), dtype=start.dtype, device="cpu")
        self.register_buffer("frequency", frequency, persistent=False)

    def noise_levels(self, sinogram: Tensor) -> Tensor:
        """(B, A, D) -> (B, A, D): log10 of the variance of each ray, up to a constant."""
        if self.cell_weights is not None:
            sinogram = sinogram * self.cell_weights.to(sinogram.dtype)
        return -self._log_weight(sinogram) / math.log(10)

    def _log_weight(self, sinogram: Tensor) -> Tensor:
        """The logarithm of each ray's weight, up to a constant."""
        weight = -self.unit * sinogram
        return weight if self.level is None else weight - self.level

    def forward(self, sinogram: Tensor) -> Tensor:
        """(B, A, D) -> (B, A, D), so that `backproject`, interpolating, makes of it the image in absolute units."""
        if self.cell_weights is not None:
            sinogram = sinogram * self.cell_weights.to(sinogram.dtype)
        weight = self._log_weight(sinogram)
        lowest, highest = weight.amin((-2, -1), keepdim=True), weight.amax((-2, -1), keepdim=True)
        spacing = ((highest - lowest) / (ZENG_LEVELS - 1)).clamp(min=1e-12)
        level = ((weight - lowest) / spacing).round()
        median = weight.flatten(1).median(1).values[:, None, None]
        filtered = 0 * sinogram  # what is not finite stays so
        response = self.response * self.weight
        for number in range(ZENG_LEVELS):
            relative = torch.exp(lowest + number * spacing - median)[:, 0]  # (B, 1)
            # k steps of a small size a: (1 - a w / f)^k = exp(-k a w / f)
            falls = math.log(2) * ZENG_HALF * relative / self.frequency.clamp(min=1e-6)
            # Each sample has a window of its own: as angles of one scan they are filtered at once.
            windows = (response * (1 - torch.exp(-falls))[:, None]).expand(*sinogram.shape[:2], -1)
            whole = filter_projections(sinogram.reshape(1, -1, sinogram.shape[-1]), windows.flatten(0, 1))
            filtered += torch.where(level == number, whole.reshape(sinogram.shape), 0)
        return filtered
