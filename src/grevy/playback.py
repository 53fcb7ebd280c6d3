"""Steps that a GPU plays again by itself: a step is recorded once, its draws lie in a table.

A step of a small encoder is some fifty kernels of a few microseconds; started one by one from
Python they take ten times as long as they run. Recorded as a CUDA graph they are started at once.
A graph does the same thing to the same places in memory each time, so whatever changes from step to
step lies on the device: the table of draws, and a counter that says which row is next.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from math import prod
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from .drawing import Draw

__all__ = ["at", "lane", "later", "pack", "record", "stacked", "unpack"]

_RECORDING = threading.Lock()


def stacked(draws: Sequence[Draw]) -> Draw:
    """Draws of G runs as one, every tensor with the runs on its second axis (steps, G, ...)."""
    return _with(
        draws[0], [torch.stack(list(of), dim=1) for of in zip(*map(_tensors, draws), strict=True)]
    )


def at(draw: Draw, i: int, where: torch.device) -> Draw:
    """The draws of the i-th step, (G, ...)."""
    return _with(draw, [t[i].to(where) for t in _tensors(draw)])


def pack(draw: Draw) -> Tensor:
    """All draws of a step as one row, (steps, L)."""
    return torch.cat([t.flatten(1) for t in _tensors(draw)], dim=1)


def unpack(row: Tensor, like: Draw) -> Draw:
    """A row of `pack` as the draws of a step; `like` has their shapes behind an axis of steps."""
    shapes = [t.shape[1:] for t in _tensors(like)]
    parts = torch.split(row, [prod(shape) for shape in shapes])
    return _with(like, [p.view(shape) for p, shape in zip(parts, shapes, strict=True)])


def _tensors(draw: Draw) -> list[Tensor]:
    """What differs from step to step: negatives that are the references are not there twice."""
    own = [] if draw.others else [draw.negative]
    return [*(g.start for g in draw.groups), draw.reference, *draw.positives, *own]


def _with(draw: Draw, tensors: list[Tensor]) -> Draw:
    """A draw with other tensors in the order of `_tensors`."""
    rest = iter(tensors)
    groups = tuple(replace(g, start=next(rest)) for g in draw.groups)
    reference = next(rest)
    positives = tuple(next(rest) for _ in draw.positives)
    return replace(
        draw,
        groups=groups,
        reference=reference,
        positives=positives,
        negative=reference if draw.others else next(rest),
    )


def record(work: Callable[[], object]) -> Callable[[], None]:
    """Record what is done on this thread's stream, without doing it; returns what plays it."""
    graph = torch.cuda.CUDAGraph()
    # By hand, since torch.cuda.graph collects garbage and empties caches first: half a second.
    with _RECORDING:
        torch.cuda.current_stream().synchronize()
        graph.capture_begin(capture_error_mode="thread_local")
        try:
            work()
        finally:
            graph.capture_end()
    return graph.replay


def lane(where: torch.device) -> AbstractContextManager[Any]:
    """A stream of its own, on which nothing waits for other stacks and steps can be recorded."""
    if where.type != "cuda":
        return nullcontext()
    stream = torch.cuda.Stream(where)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(where))
    return torch.cuda.stream(stream)


def later(x: Tensor) -> Callable[[], NDArray[Any]]:
    """Start copying numbers to the host; the function waits for them, and for nothing behind."""
    if not x.is_cuda:
        return x.numpy
    copy = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
    copy.copy_(x, non_blocking=True)
    done = torch.cuda.Event()  # type: ignore[no-untyped-call]
    done.record()

    def wait() -> NDArray[Any]:
        done.synchronize()
        return copy.numpy()

    return wait
