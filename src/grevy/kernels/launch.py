"""How kernels are started, and compiled side by side before any of them is."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Launch", "compile_all", "is_planning", "launch", "planned"]

_THREADS = 16
"""Compile at once: most of a compilation runs outside Python."""


class Launch(NamedTuple):
    """A kernel with its grid, its arguments, and its options."""

    kernel: Any
    grid: tuple[int, ...]
    args: tuple[Any, ...]
    options: dict[str, Any]


_plan = threading.local()
_compiling = threading.Lock()


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
    """Start a kernel, or, inside `planned`, only note it."""
    noted: list[Launch] | None = getattr(_plan, "launches", None)
    if noted is None:
        kernel[grid](*args, **options)
    else:
        noted.append(Launch(kernel, grid, args, options))


def is_planning() -> bool:
    """Whether this thread is inside `planned`."""
    return getattr(_plan, "launches", None) is not None


@contextmanager
def planned() -> Iterator[list[Launch]]:
    """What this thread would launch inside; nothing is started and outputs hold anything."""
    noted: list[Launch] = []
    _plan.launches = noted
    try:
        yield noted
    finally:
        _plan.launches = None


def compile_all(launches: Sequence[Launch], where: torch.device) -> None:
    """Compile what was planned, side by side; compiled before, it takes no time.

    Then bring it to the device, one kernel after another and one thread at a time. Up to Triton 3.6
    at least, the C code that starts a kernel is a module of the same name for all of them: Python
    gives a module that it loads a second time the place of the one loaded last, and threads that
    do so side by side start one kernel by the code of another. Versions without such code still
    say that a kernel is there before it is.
    """
    from triton.runtime import driver

    different = {_variant(each): each for each in launches}
    index = torch.cuda.current_device() if where.index is None else where.index

    def compile_one(each: Launch) -> Any:
        torch.cuda.set_device(index)
        program = each.kernel.warmup(*each.args, grid=each.grid, **each.options)
        # Not kept, but compiled from here on, if there is anything to compile.
        driver.active.launcher_cls(program.src, program.metadata)
        return program

    threads = min(_THREADS, len(different), len(os.sched_getaffinity(0)))
    with _compiling:
        with ThreadPoolExecutor(max(1, threads)) as pool:
            programs = list(pool.map(compile_one, different.values()))
        for program in programs:
            _ = program.run


def _variant(each: Launch) -> object:
    """Launches that are equal in this are one compiled program."""
    return (id(each.kernel), *map(_kind, each.args), *sorted(each.options.items()))


def _kind(arg: Any) -> object:
    if isinstance(arg, Tensor):
        return arg.dtype, arg.data_ptr() % 16 == 0
    if isinstance(arg, int):
        return "int", arg == 1, arg % 16 == 0, arg >= 2**31
    return type(arg)
