"""When the kernels for GPUs are used; the kernels themselves are in `gpu`."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

__all__ = ["KernelsFailed", "compiled", "kernels_for", "load_ahead"]

_MOST = 2**31 - 1
"""Numbers of one run in a tensor: places are counted in 32 bits."""

_ahead: list[threading.Thread] = []


class KernelsFailed(Exception):
    """The kernels cannot be compiled here; a warning has said why, and they are not used again."""


def kernels_for(x: Tensor, *, untried: bool = False) -> ModuleType | None:
    """The module of kernels if they can work on x, else None: then torch's operations do it.

    They need a CUDA device and Triton (which comes with torch on Linux), and are left out if the
    environment variable GREVY_KERNELS is "0".

    Parameters
    ----------
    x : tensor
    untried : bool
        The caller begins with `compiled`, which finds out whether they can be compiled here; else
        one is compiled and tried the first time.
    """
    if not x.is_cuda or x[0].numel() > _MOST or x.dtype not in (torch.float32, torch.bfloat16):
        return None
    if os.environ.get("GREVY_KERNELS") == "0" or _given_up.is_set():
        return None
    gpu = _loaded()
    return gpu if gpu is None or untried or _at_work(gpu) else None


def load_ahead(where: torch.device) -> None:
    """Begin to load Triton beside what the caller does next: it takes a second or two."""
    if where.type == "cuda" and os.environ.get("GREVY_KERNELS") != "0" and not _ahead:
        for part in (_speak_to_driver, _digest_triton):
            _ahead.append(threading.Thread(target=_quietly, args=(part,), daemon=True))
            _ahead[-1].start()


def _quietly(part: Callable[[], object]) -> None:
    # Whatever fails here is said when the kernels are asked for.
    with suppress(Exception):
        part()


def _speak_to_driver() -> None:
    """Have Triton compile the C code by which it speaks to the driver; it keeps it."""
    import triton

    triton.runtime.driver.active.get_current_target()


def _digest_triton() -> None:
    """Have Triton digest itself, half a gigabyte, for the names of kernels; it keeps that."""
    import triton

    triton.runtime.cache.triton_key()


@cache
def _loaded() -> ModuleType | None:
    """The kernels, not yet compiled."""
    for part in tuple(_ahead):
        part.join()
    try:
        return import_module(".gpu", __name__)
    except ImportError as error:
        _give_up(error)
        return None


_given_up, _works = threading.Event(), threading.Event()


def _at_work(gpu: ModuleType) -> bool:
    """Whether kernels can be compiled here, found by the first."""
    from .launch import is_planning

    if not (_works.is_set() or _given_up.is_set() or is_planning()):
        try:
            gpu.unit(torch.ones(1, 4, device="cuda"))
            _works.set()
        except Exception as error:  # no C compiler, an unknown device: torch can do the work
            _give_up(error)
    return not _given_up.is_set()


def _give_up(error: Exception) -> None:
    if _given_up.is_set():
        return
    _given_up.set()
    warnings.warn(
        f"the kernels for GPUs cannot be used here ({type(error).__name__}: {error}); "
        f"training takes torch's operations instead, which are slower.",
        RuntimeWarning,
        stacklevel=2,
    )


def compiled(work: Callable[[], object], where: torch.device) -> None:
    """Compile the kernels that some work launches side by side, without launching one of them.

    Torch's own operations in it do run, on numbers that are not there yet.

    Raises
    ------
    KernelsFailed
        If that cannot be done; `kernels_for` is None from then on.
    """
    if where.type != "cuda":
        return
    from .launch import compile_all, planned

    with planned() as launches, torch.autograd.set_multithreading_enabled(False):
        work()
    try:
        compile_all(launches, where)
    except Exception as error:
        _give_up(error)
        raise KernelsFailed from error
    _works.set()
