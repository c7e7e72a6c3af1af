"""Recorded on a GPU: an inference that is launched once rather than kernel by kernel.

A filtered backprojection of one image is a dozen kernels of a few microseconds each, and launching them from Python
takes longer than they do. CUDA keeps a sequence of launches as a graph; replaying it is one launch.
"""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fbp_ray.caches import Own, apart_from_caches

_KEPT = 4  # graphs; each holds the memory of its call
_LOCK = threading.RLock()  # a graph reads one place and writes one, whoever calls; and one is recorded at a time


class _Graph(NamedTuple):
    graph: torch.cuda.CUDAGraph
    given: Tensor
    made: Tensor
    own: Own
    """The tables that it reads, which others' scans would drive out of the caches."""


class Recorded:
    """A function of a tensor, recorded at its first call for each shape and dtype, and replayed from then on.

        fast = Recorded(model.eval())
        image = fast(sinogram)

    Args:
        function: (tensor on a GPU) -> tensor, such as a `LearnableFBP` in `eval()` or `functools.partial(fbp,
            geometry=geometry)`. It has to do the same for each tensor of a shape, and not wait for the GPU. Weights
            that are changed in place, as by `load_state_dict`, count from the next call on.

    Results are the function's own, bit for bit, without gradients. Any number of threads may call, on one stream. A
    tensor that is not on a GPU goes to the function, and so do all where the function cannot be recorded, with a
    warning.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self._function = function
        self._graphs: OrderedDict[tuple[object, ...], _Graph] = OrderedDict()
        self._refused = False

    @torch.no_grad()
    def __call__(self, tensor: Tensor) -> Tensor:
        """The function's result, in memory of its own."""
        if tensor.device.type == "cuda" and not self._refused:
            with _LOCK:
                recorded = self._graph(tensor)
                if recorded is not None:
                    recorded.given.copy_(tensor)
                    recorded.graph.replay()
                    return recorded.made.clone()
        return self._function(tensor)

    def _graph(self, tensor: Tensor) -> _Graph | None:
        key = (tuple(tensor.shape), tensor.dtype, tensor.device)
        if key not in self._graphs:
            try:
                self._graphs[key] = self._record(tensor)
            except torch.OutOfMemoryError:
                raise  # which smaller batches, or a later call, may not meet
            except RuntimeError as error:
                self._refused = True
                warnings.warn(f"a GPU launches kernel by kernel what cannot be recorded: {error}", stacklevel=3)
                return None
            if len(self._graphs) > _KEPT:
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(key)
        return self._graphs[key]

    def _record(self, tensor: Tensor) -> _Graph:
        own: Own = {}
        with torch.inference_mode(False):  # else it could not be overwritten outside of it
            given = tensor.clone()
        with torch.cuda.device_of(tensor), apart_from_caches(own):  # type: ignore[no-untyped-call]
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):  # what is made once, tables and compiled kernels, must not be recorded
                self._function(given)
                stream.synchronize()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                    made = self._function(given)
            torch.cuda.current_stream().wait_stream(stream)
        return _Graph(graph, given, made, own)
