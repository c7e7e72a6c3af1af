"""What the kernels for GPUs need, and whether this machine has it."""

from __future__ import annotations

import functools
import importlib.util
from typing import Any

import torch

# Said rather than left to Triton, whose default differs between versions.
FUSED: dict[str, Any] = {"enable_fp_fusion": True}


@functools.cache
def has_triton() -> bool:
    """Whether Triton, which the kernels are written in, is installed."""
    return importlib.util.find_spec("triton") is not None


@functools.cache
def has_products(device: torch.device) -> bool:
    """Whether Triton can multiply matrices on the tensor cores of this GPU: from the compute capability 8.0 on."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 0)
