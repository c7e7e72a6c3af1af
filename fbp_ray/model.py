"""The model: filter -> backproject -> post-processing, rebuilt from its configuration alone."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from fbp_ray.caches import cached
from fbp_ray.errors import ConfigError, GeometryError
from fbp_ray.filters import TableWindow, analytic_window, build_filter, filter_projections, frequencies
from fbp_ray.geometry import Geometry
from fbp_ray.networks import build_network
from fbp_ray.own_names import is_own
from fbp_ray.projector import backproject_filtered, check_array
from fbp_ray.rebinning import rebin
from fbp_ray.settings import Frozen
from fbp_ray.stage_settings import PostprocessingConfig, WindowConfig, WindowName

if TYPE_CHECKING:
    from fbp_ray.split import PartOfScan


class ModelConfig(Frozen):
    """All that is needed to build a `LearnableFBP`; its weights come beside it."""

    geometry: Geometry
    window: WindowConfig = WindowConfig()
    postprocessing: PostprocessingConfig = PostprocessingConfig()

    @property
    def own_code(self) -> list[str]:
        """What of somebody's own the model needs."""
        return [kind for kind in (self.window.kind, self.postprocessing.kind) if is_own(kind)]


class LearnableFBP(nn.Module):
    """A filtered backprojection with a learnable filter stage.

    Maps a sinogram (..., A, D), in the image's unit times metres, to an image (..., H, W). At its start, before any
    training, it is the classic FBP with the window of its configuration. The sinogram of a fan beam is rebinned first,
    and all that follows works on its parallel beam.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.filter = build_filter(config.window, config.geometry)
        self.postprocessing = build_network(config.postprocessing, config.geometry.parallel)
        self.network_dtype = torch.float32
        """Of the network's convolutions while it trains (autocast); the rest, and inference, are float32."""
        self.checkpointing = False
        """Whether a training network keeps its input alone, and computes what its gradients need again."""
        self._filters: dict[PartOfScan, nn.Module] = {}  # for a part; their weights are those of `filter`

    @property
    def geometry(self) -> Geometry:
        """The scan that this model reconstructs, and the grid on which it does."""
        return self.config.geometry

    def forward(
        self,
        sinogram: Tensor,
        storage_dtype: torch.dtype | None = None,
        some: PartOfScan | None = None,
    ) -> Tensor:
        """(..., A, D) -> (..., H, W).

        With `some` the sinogram is one of some of the scan's angles or photons, and nothing is known of the others: the
        stage is one for these with the same weights, of which a table by angle has the rows of these.

        For inference on a GPU, `storage_dtype=torch.float16` keeps the filtered sinogram in half precision; see
        `fbp_ray.projector.backproject`.

        Raises:
            GeometryError: the sinogram does not fit the model's geometry.
        """
        geometry = self.geometry if some is None else some
        batch = self.rebinned(sinogram, geometry)
        filtered = self.filter(batch) if some is None else self._filtered(batch, some)
        _check_made(f"the window {self.config.window.kind}", filtered, "sinograms", tuple(batch.shape[1:]))
        image = self._network(backproject_filtered(filtered, geometry, storage_dtype))
        _check_made(f"the network {self.config.postprocessing.kind}", image, "images", self.geometry.image_shape)
        return image.to(sinogram.dtype).reshape(*sinogram.shape[:-2], *self.geometry.image_shape)

    def rebinned(self, sinogram: Tensor, geometry: Geometry | None = None) -> Tensor:
        """What the filter stage gets: (..., A, D) -> (B, A', D') of the parallel beam, float32 at least."""
        return _batch(sinogram, self.geometry if geometry is None else geometry)

    def _network(self, image: Tensor) -> Tensor:
        if not self.training or (self.network_dtype == torch.float32 and not self.checkpointing):
            return self.postprocessing(image)  # type: ignore[no-any-return]
        with torch.autocast(image.device.type, self.network_dtype, enabled=self.network_dtype != torch.float32):
            if not self.checkpointing:
                return self.postprocessing(image)  # type: ignore[no-any-return]
            again = functools.partial(_statistics_kept, self.postprocessing)
            return checkpoint(  # type: ignore[no-any-return]
                self.postprocessing, image, use_reentrant=False, context_fn=lambda: (nullcontext(), again())
            )

    def _filtered(self, sinogram: Tensor, some: PartOfScan) -> Tensor:
        stage = self._stage(some).to(sinogram.device).train(self.training)
        return functional_call(stage, self._weights(stage, some), sinogram)  # type: ignore[no-any-return]

    def stage_for(self, some: PartOfScan) -> nn.Module:
        """The filter stage for some of the angles or photons, with the weights as they are now, not to be learned."""
        stage = self._stage(some).to(next(self.parameters()).device)
        with torch.no_grad():
            stage.load_state_dict(self._weights(stage, some))
        return stage

    def _stage(self, some: PartOfScan) -> nn.Module:
        if some not in self._filters:
            window = self.config.window
            if isinstance(window.photons, float):
                window = window.model_copy(update={"photons": window.photons * some.photons})
            with torch.random.fork_rng(devices=[]):  # a window of one's own may start at random
                self._filters[some] = build_filter(window, some)
        return self._filters[some]

    def _weights(self, stage: nn.Module, some: PartOfScan) -> dict[str, Tensor]:
        """The state of `filter` for a stage that was made for a part of the scan."""
        weights = self.filter.state_dict(keep_vars=True)
        for name, own in stage.state_dict().items():
            theirs = weights[name]
            for axis in range(own.ndim):
                sizes = own.shape[axis], theirs.shape[axis]
                if sizes == (some.num_angles, self.geometry.num_angles):  # a table by angle
                    weights[name] = some.take(weights[name], axis)
                elif sizes[0] != sizes[1]:
                    raise ConfigError(
                        f"the window {self.config.window.kind}, made for some of the angles, cannot have its weights: "
                        f"{name} is {tuple(own.shape)} for {some.num_angles} angles, {tuple(theirs.shape)} for all "
                        f"{self.geometry.num_angles}; let each axis have an entry for each angle, or as many always"
                    )
        return weights


def _check_made(stage: str, made: object, of: str, shape: tuple[int, ...]) -> None:
    """Raises GeometryError where a stage, which may be somebody's own, gives something else than it has to."""
    if not isinstance(made, Tensor) or not made.is_floating_point():
        came = str(made.dtype) if isinstance(made, Tensor) else f"a {type(made).__name__}"
        raise GeometryError(f"{stage} made {came} of {of}; it has to give a tensor of floating-point numbers")
    if made.shape[1:] != shape:
        raise GeometryError(f"{stage} made {tuple(made.shape[1:])} of {of} {shape}; it has to keep their shape")


@contextmanager
def _statistics_kept(network: nn.Module) -> Iterator[None]:
    """Keeps batch normalisations from counting a batch twice that goes through the network a second time."""
    kept = [(buffer, buffer.clone()) for buffer in network.buffers()]
    try:
        yield
    finally:
        for buffer, value in kept:
            buffer.data.copy_(value)


def fbp(
    sinogram: Tensor,
    geometry: Geometry,
    window: WindowName = "hann",
    cutoff: float = 1.0,
    storage_dtype: torch.dtype | None = None,
) -> Tensor:
    """The classic filtered backprojection, in absolute units: `fbp(project(x, g), g)` gives back a smooth x.

    Args:
        sinogram: (..., A, D), line integrals in the image's unit times metres, floating point, any device.
        geometry: the scan and the image grid; a fan beam is rebinned to its parallel beam first.
        window: none (the bare ramp), shepp-logan, cosine, hamming or hann.
        cutoff: the window's cut-off as a fraction of the Nyquist frequency, above 0.
        storage_dtype: torch.float16 keeps the filtered sinogram in half precision on a GPU; see
            `fbp_ray.projector.backproject`.

    Returns:
        (..., H, W) of the same dtype and device.

    Raises:
        GeometryError: the sinogram does not fit the geometry.
        ConfigError: an unknown window or a cut-off that is not positive.
    """
    batch = _batch(sinogram, geometry)
    cells, response = _classic_filter(geometry, window, float(cutoff), batch.device, batch.dtype)
    filtered = filter_projections(batch if cells is None else batch * cells, response)
    image = backproject_filtered(filtered, geometry, storage_dtype)
    return image.to(sinogram.dtype).reshape(*sinogram.shape[:-2], *geometry.image_shape)


def _batch(sinogram: Tensor, geometry: Geometry) -> Tensor:
    """(..., A, D) -> (B, A', D') of the parallel beam.

    Half precision becomes float32: the filtered sinogram may leave float16's range.
    """
    check_array(sinogram, geometry, "sinogram")
    at_least = sinogram if sinogram.dtype == torch.float64 else sinogram.float()
    return rebin(at_least.reshape(math.prod(sinogram.shape[:-2]), *geometry.sinogram_shape), geometry)


def _classic_filter(
    geometry: Geometry, window: WindowName, cutoff: float, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor | None, Tensor]:
    if torch.compiler.is_compiling():
        from fbp_ray.projector.compiled import constant

        return constant(_look_up_filter, geometry, window, cutoff, device, dtype)  # type: ignore[no-any-return]
    return _cached_filter(geometry, window, cutoff, device, dtype)


def _look_up_filter(
    geometry: Geometry, window: WindowName, cutoff: float, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor | None, Tensor]:
    """The cached filter, as a plain function: a graph cannot call a cache."""
    return _cached_filter(geometry, window, cutoff, device, dtype)


@cached(32)
def _cached_filter(
    geometry: Geometry, window: WindowName, cutoff: float, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor | None, Tensor]:
    parallel = geometry.parallel
    analytic_window(window, np.zeros(1), cutoff)  # an unknown name or a bad cut-off ends here, with the way out
    start = torch.tensor(analytic_window(window, frequencies(parallel.cells), cutoff), dtype=dtype, device="cpu")
    stage = TableWindow(parallel, start, learned=False).to(device)
    return stage.cell_weights, stage.response * stage.weight
