"""Centres of windows drawn on the device: the numbers of `draws.integers`, looked up in a table."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .launch import launch

__all__ = ["draw_centres"]


@triton.jit(do_not_specialize=["first"])  # else it is compiled anew for some chunks of steps
def _draw_centres(
    out, anchors, seed, base, count, later, first, N, at, beside, runs, width,
    PURPOSE: tl.constexpr, LATER: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    g, row = tl.program_id(1), tl.program_id(2).to(tl.int64)
    lane = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    key, step = tl.load(seed + g), first + row
    low = (key & 0xFFFFFFFF).to(tl.uint32)
    high = ((key >> 32) & 0xFFFFFFFF).to(tl.uint32)
    zero = lane.to(tl.uint32) * 0
    x0, x3 = lane.to(tl.uint32), zero + PURPOSE
    x1 = zero + (step & 0xFFFFFFFF).to(tl.uint32)
    x2 = zero + ((step >> 32) & 0xFFFFFFFF).to(tl.uint32)
    for _ in tl.static_range(10):  # Philox-4x32 (Salmon et al. 2011)
        a = x0.to(tl.uint64) * 0xD2511F53
        b = x2.to(tl.uint64) * 0xCD9E8D57
        x0, x2 = (b >> 32).to(tl.uint32) ^ x1 ^ low, (a >> 32).to(tl.uint32) ^ x3 ^ high
        x1, x3 = b.to(tl.uint32), a.to(tl.uint32)
        low += 0x9E3779B9
        high += 0xBB67AE85
    n, begin = tl.load(count + g).to(tl.uint64), tl.load(base + g)
    line = out + (row * runs + g) * width
    for word in tl.static_range(4):
        x = x0 if word == 0 else (x1 if word == 1 else (x2 if word == 2 else x3))
        place = ((x.to(tl.uint64) * n) >> 32).to(tl.int64)
        i = 4 * lane + word
        centre = tl.load(anchors + begin + place, mask=i < N)
        tl.store(line + at + i, centre, mask=i < N)
        if LATER:
            tl.store(line + beside + i, centre + tl.load(later + g), mask=i < N)


def draw_centres(
    out: Tensor,
    anchors: Tensor,
    seed: Tensor,
    base: Tensor,
    count: Tensor,
    *,
    first: int,
    purpose: int,
    n: int,
    at: int,
    later: Tensor | None = None,
    beside: int = 0,
) -> None:
    """Draw n centres for every row and run of `out`, (steps, G, W), int64.

    A run's anchors are the `count` behind `base` in one list of all runs', (G,) each. Row r holds
    the draws of step `first` + r, from column `at` on; from column `beside` on the same centres
    moved by `later`, (G,).
    """
    steps, runs, width = out.shape
    block = 128
    launch(
        _draw_centres, (triton.cdiv(n, 4 * block), runs, steps),
        out, anchors, seed, base, count, base if later is None else later, first,
        n, at, beside, runs, width, PURPOSE=purpose, LATER=later is not None, BLOCK=block,
    )  # fmt: skip
