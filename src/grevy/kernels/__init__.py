"""When the kernels for GPUs are used; the kernels themselves are in `gpu`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

__all__ = ["compiled", "kernels_for"]

_MOST = 2**31 - 1
"""Numbers of one run in a tensor: places are counted in 32 bits."""


def kernels_for(x: Tensor) -> ModuleType | None:
    """The module of kernels if they can work on x, else None: then torch's operations do it.

    They need a CUDA device and Triton (which comes with torch on Linux), and are left out if the
    environment variable GREVY_KERNELS is "0".
    """
    if not x.is_cuda or x[0].numel() > _MOST or x.dtype not in (torch.float32, torch.bfloat16):
        return None
    return None if os.environ.get("GREVY_KERNELS") == "0" else _gpu()


@cache
def _gpu() -> ModuleType | None:
    """The kernels, tried once: they are compiled where they run."""
    try:
        from . import gpu

        gpu.unit(torch.ones(1, 4, device="cuda"))
    except Exception as error:
        # ImportError, no C compiler, an unknown device: whatever it is, torch can do the work.
        warnings.warn(
            f"the kernels for GPUs cannot be used here ({type(error).__name__}: {error}); "
            f"training takes torch's operations instead, which are slower.",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return gpu


def compiled(work: Callable[[], None], where: torch.device) -> None:
    """Compile the kernels that some work launches side by side, without launching one of them.

    Torch's own operations in it do run, on numbers that are not there yet.
    """
    if where.type != "cuda" or _gpu() is None:
        return
    from .launch import compile_all, planned

    with planned() as launches, torch.autograd.set_multithreading_enabled(False):
        work()
    compile_all(launches, where)
