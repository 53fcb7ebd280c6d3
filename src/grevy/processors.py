"""Processors: how many are idle, and independent work spread over them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

__all__ = ["idle_processors", "side_by_side"]

_AT_ONCE = 8
"""Pieces of work at a time: more wait for one another's Python, and each takes memory."""

T = TypeVar("T")
R = TypeVar("R")


def side_by_side(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """`work` of each item, in order, as many at a time as processors are idle.

    Each has one thread for its products, however many there are beside it: results do not depend on
    that. The first error ends it.
    """
    items, usual = list(items), torch.get_num_threads()
    lanes = min(len(items), _AT_ONCE)
    if lanes > 1:
        lanes = min(lanes, idle_processors() if usual > 1 else 1)
    with threadpool_limits(1, user_api="blas"):
        if lanes < 2:
            try:
                torch.set_num_threads(1)
                return [work(item) for item in items]
            finally:
                torch.set_num_threads(usual)
        with ThreadPoolExecutor(lanes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            try:
                return list(pool.map(work, items))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def idle_processors() -> int:
    """Processors that nothing else uses just now, at least 1; all of them where that is unknown."""
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    before = _idle_ticks()
    if before is None or mine == 1:
        return mine
    begin = time.perf_counter()
    time.sleep(0.06)
    after, ticks = _idle_ticks(), (time.perf_counter() - begin) * os.sysconf("SC_CLK_TCK")
    idle = mine if after is None else round((after - before) / ticks)
    return max(1, min(mine, idle))


def _idle_ticks() -> int | None:
    """How long all processors together have been idle, as Linux counts it."""
    try:
        first = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    except OSError:
        return None
    return int(first[4]) + int(first[5]) or None  # some sandboxes count nothing
