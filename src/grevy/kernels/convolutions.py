"""A layer and its gradients as products, and the gathering of what the first layer sees.

Time lies first in all activity, (runs, time, segments, channels): tap t of a convolution meets the
same rows, `t * gap * segments` further on, so a layer is one product whose depth is taps times
channels, without a copy of any window. A row of activity may be wider than its channels: what lies
behind them is zero, and gives every row an address that is read in one piece.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import launch

__all__ = ["bend_back", "convolve", "gather", "n_splits", "spread", "weigh"]

_SKIPS = {"": 0, "inner": 1, "outer": 2}
_PROCESSORS = 132
"""Multiprocessors to keep busy, as many as an H100 has; others differ little."""
_STAGES = 3
"""Loads under way at once."""
_SPLITS = 16
"""Parts of a gradient at most: every one is written and read again."""


@triton.jit
def _gelu(x):
    return 0.5 * x * (1 + tl.erf(x * 0.7071067811865476))


@triton.jit
def _slope(x):
    """Of GELU."""
    e = tl.exp(-0.5 * x * x) * 0.3989422804014327
    return 0.5 * (1 + tl.erf(x * 0.7071067811865476)) + x * e


# --- forwards ------------------------------------------------------------------------------------
@triton.jit
def _convolve(
    x, weight, bias, centre, y, bent,
    rows, in_rows, shift, middle, to_weight, to_bias,
    C: tl.constexpr, WIDE: tl.constexpr, H: tl.constexpr,
    TAPS: tl.constexpr, SKIP: tl.constexpr, BEND: tl.constexpr, KEEP: tl.constexpr,
    EXACT: tl.constexpr, CENTRED: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    g = tl.program_id(2).to(tl.int64)
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    h = tl.program_id(1) * COLS + tl.arange(0, COLS)
    d = tl.arange(0, DEPTH)
    own_x = x + g * in_rows * WIDE
    own_w = weight + g * to_weight
    acc = tl.zeros((ROWS, COLS), dtype=tl.float32)
    apart = tl.zeros((COLS,), dtype=tl.float32)
    BLOCKS: tl.constexpr = (C + DEPTH - 1) // DEPTH
    for i in range(TAPS * BLOCKS):
        tap = i // BLOCKS
        c = (i % BLOCKS) * DEPTH + d
        a = tl.load(
            own_x + (r + tap * shift)[:, None] * WIDE + c[None, :],
            mask=(r < rows)[:, None] & (c < WIDE)[None, :],
            other=0.0,
        )
        w = tl.load(
            own_w + (tap * C + c)[:, None] * H + h[None, :],
            mask=(c < C)[:, None] & (h < H)[None, :],
            other=0.0,
        )
        if CENTRED:
            k = tl.load(centre + g * C + c, mask=c < C, other=0.0)
            apart += tl.sum(w.to(tl.float32) * k[:, None], axis=0)
        if EXACT:
            acc = tl.dot(a, w, acc, input_precision="tf32x3")
        else:
            acc = tl.dot(a, w.to(a.dtype), acc)
    there = (r < rows)[:, None] & (h < H)[None, :]
    out = g * rows * H + r[:, None] * H + h[None, :]
    acc += (tl.load(bias + g * to_bias + h, mask=h < H, other=0.0).to(tl.float32) + apart)[None, :]
    if SKIP:
        beside = tl.load(
            own_x + (r + middle)[:, None] * WIDE + h[None, :],
            mask=there & (h < C)[None, :],
            other=0.0,
        ).to(tl.float32)
    if SKIP == 1:
        acc += beside
    if BEND:
        if KEEP:
            tl.store(bent + out, acc.to(bent.dtype.element_ty), mask=there)
        acc = _gelu(acc)
    if SKIP == 2:
        acc += beside
    tl.store(y + out, acc.to(y.dtype.element_ty), mask=there)


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    gap: int,
    skip: str,
    bend: bool,
    keep: bool,
    centre: Tensor | None = None,
    out: tuple[Tensor, Tensor | None] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """A layer forwards: (G, S, n, C), (G, k, C, H), (G, H) -> (G, S', n, H), of the type of x.

    Also what went into GELU, in the same type, if `bend` and `keep`. Weights of one run lie
    together; those of the next may lie anywhere behind them. `centre` (G, C) is what was taken
    from x beforehand and belongs to it. `out` has room for both.
    """
    runs, time, n, wide = x.shape
    taps, channels, width = weight.shape[1:]
    left = time - (taps - 1) * gap
    if out is None:
        y = x.new_empty(runs, left, n, width)
        out = y, torch.empty_like(y) if bend and keep else None
    y, bent = out
    rows, cols = _tile(left * n, width, runs, x)
    depth = _power(channels, 64)
    launch(
        _convolve, (triton.cdiv(left * n, rows), triton.cdiv(width, cols), runs),
        x, weight, bias, bias if centre is None else centre, y, y if bent is None else bent,
        left * n, time * n, gap * n, (taps - 1) // 2 * gap * n, weight.stride(0), bias.stride(0),
        C=channels, WIDE=wide, H=width, TAPS=taps, SKIP=_SKIPS[skip], BEND=bend,
        KEEP=bent is not None, EXACT=x.dtype == torch.float32, CENTRED=centre is not None,
        ROWS=rows, COLS=cols, DEPTH=depth,
        num_warps=_warps(rows, cols, x), num_stages=_STAGES,
    )  # fmt: skip
    return y, bent


# --- backwards -----------------------------------------------------------------------------------
@triton.jit
def _bend_back(grad, bent, out, size, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(bent + i, mask=i < size, other=0.0).to(tl.float32)
    g = tl.load(grad + i, mask=i < size, other=0.0).to(tl.float32)
    tl.store(out + i, (g * _slope(x)).to(out.dtype.element_ty), mask=i < size)


def bend_back(grad: Tensor, bent: Tensor) -> Tensor:
    """The gradient by what went into GELU, from that by what came out; all of one shape."""
    out = torch.empty_like(bent)
    size = out.numel()
    launch(_bend_back, (triton.cdiv(size, 1024),), grad, bent, out, size, BLOCK=1024)
    return out


@triton.jit
def _spread(
    grad, weight, beside, bent, to_x, to_bent,
    rows, in_rows, shift, middle, to_weight,
    C: tl.constexpr, H: tl.constexpr, TAPS: tl.constexpr, SKIP: tl.constexpr,
    BEND: tl.constexpr, KEEP: tl.constexpr, EXACT: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    g = tl.program_id(2).to(tl.int64)
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * COLS + tl.arange(0, COLS)
    d = tl.arange(0, DEPTH)
    own_w = weight + g * to_weight
    acc = tl.zeros((ROWS, COLS), dtype=tl.float32)
    BLOCKS: tl.constexpr = (H + DEPTH - 1) // DEPTH
    for i in range(TAPS * BLOCKS):
        tap = i // BLOCKS
        h = (i % BLOCKS) * DEPTH + d
        from_row = r - tap * shift
        a = tl.load(
            grad + g * rows * H + from_row[:, None] * H + h[None, :],
            mask=((from_row >= 0) & (from_row < rows))[:, None] & (h < H)[None, :],
            other=0.0,
        )
        w = tl.load(
            own_w + (tap * C + c)[:, None] * H + h[None, :],
            mask=(c < C)[:, None] & (h < H)[None, :],
            other=0.0,
        )
        if EXACT:
            acc = tl.dot(a, tl.trans(w), acc, input_precision="tf32x3")
        else:
            acc = tl.dot(a, tl.trans(w.to(a.dtype)), acc)
    if SKIP:
        from_row = r - middle
        there = ((from_row >= 0) & (from_row < rows))[:, None] & (c < min(C, H))[None, :]
        acc += tl.load(
            beside + g * rows * H + from_row[:, None] * H + c[None, :], mask=there, other=0.0
        ).to(tl.float32)
    there = (r < in_rows)[:, None] & (c < C)[None, :]
    out = g * in_rows * C + r[:, None] * C + c[None, :]
    if KEEP:
        tl.store(to_x + out, acc.to(to_x.dtype.element_ty), mask=there)
    if BEND:
        acc *= _slope(tl.load(bent + out, mask=there, other=0.0).to(tl.float32))
        tl.store(to_bent + out, acc.to(to_bent.dtype.element_ty), mask=there)


def spread(
    grad: Tensor,
    weight: Tensor,
    beside: Tensor | None,
    *,
    time: int,
    gap: int,
    bent: Tensor | None = None,
    out: tuple[Tensor | None, Tensor | None] | None = None,
) -> tuple[Tensor | None, Tensor | None]:
    """The gradient by the input of a layer: (G, S', n, H), (G, k, C, H) -> (G, S, n, C).

    `beside`, of the shape of `grad`, is added at the middle tap: what a skip hands back. With
    `bent`, what went into the GELU that the input came out of, also the gradient by that. `out`
    has room for those of the two that are wanted.
    """
    runs, left, n, width = grad.shape
    taps, channels = weight.shape[1], weight.shape[2]
    if out is None:
        room = grad.new_empty(runs, time, n, channels)
        out = room, None if bent is None else torch.empty_like(room)
    to_x, to_bent = out
    some = to_bent if to_x is None else to_x
    rows, cols = _tile(time * n, channels, runs, grad)
    launch(
        _spread, (triton.cdiv(time * n, rows), triton.cdiv(channels, cols), runs),
        grad, weight, grad if beside is None else beside, grad if bent is None else bent,
        some, some if to_bent is None else to_bent,
        left * n, time * n, gap * n, (taps - 1) // 2 * gap * n, weight.stride(0),
        C=channels, H=width, TAPS=taps, SKIP=beside is not None, BEND=to_bent is not None,
        KEEP=to_x is not None, EXACT=grad.dtype == torch.float32,
        ROWS=rows, COLS=cols, DEPTH=_power(width, 64),
        num_warps=_warps(rows, cols, grad), num_stages=_STAGES,
    )  # fmt: skip
    return out


@triton.jit
def _weigh(
    x, grad, centre, to_weight, to_bias,
    rows, in_rows, shift, each, to_split, to_run,
    C: tl.constexpr, WIDE: tl.constexpr, H: tl.constexpr,
    TAPS: tl.constexpr, EXACT: tl.constexpr, CENTRED: tl.constexpr,
    DOWN: tl.constexpr, ACROSS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    DOWNS: tl.constexpr = (C + DOWN - 1) // DOWN
    ACROSSES: tl.constexpr = (H + ACROSS - 1) // ACROSS
    place = tl.program_id(0)
    tap = place // (DOWNS * ACROSSES)
    c = (place // ACROSSES) % DOWNS * DOWN + tl.arange(0, DOWN)
    h = place % ACROSSES * ACROSS + tl.arange(0, ACROSS)
    split, g = tl.program_id(1), tl.program_id(2).to(tl.int64)
    d = tl.arange(0, DEPTH)
    acc = tl.zeros((DOWN, ACROSS), dtype=tl.float32)
    beside = tl.zeros((DEPTH, ACROSS), dtype=tl.float32)
    for i in range(0, each, DEPTH):
        r = split * each + i + d
        here = (i + d < each) & (r < rows)
        a = tl.load(
            x + g * in_rows * WIDE + (r + tap * shift)[:, None] * WIDE + c[None, :],
            mask=here[:, None] & (c < WIDE)[None, :],
            other=0.0,
        )
        b = tl.load(
            grad + g * rows * H + r[:, None] * H + h[None, :],
            mask=here[:, None] & (h < H)[None, :],
            other=0.0,
        )
        if EXACT:
            acc = tl.dot(tl.trans(a), b, acc, input_precision="tf32x3")
        else:
            acc = tl.dot(tl.trans(a), b, acc)
        beside += b.to(tl.float32)
    total = tl.sum(beside, axis=0)
    if CENTRED:
        acc += tl.load(centre + g * C + c, mask=c < C, other=0.0)[:, None] * total[None, :]
    own = split.to(tl.int64) * to_split + g * to_run
    tl.store(
        to_weight + own + (tap * C + c)[:, None] * H + h[None, :],
        acc,
        mask=(c < C)[:, None] & (h < H)[None, :],
    )
    if place < ACROSSES:  # the first tap's first channels also sum for the bias
        tl.store(to_bias + own + h, total, mask=h < H)


def n_splits(rows: int, taps: int, channels: int, width: int, runs: int) -> int:
    """How many programs share the samples of one gradient: enough to keep a GPU busy."""
    places = taps * triton.cdiv(channels, 128) * triton.cdiv(width, 128)
    return int(max(1, min(_SPLITS, triton.cdiv(rows, 256), _PROCESSORS // (places * runs))))


def weigh(
    x: Tensor,
    grad: Tensor,
    *,
    taps: int,
    gap: int,
    channels: int | None = None,
    centre: Tensor | None = None,
    out: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """The gradients by weight and bias: (G, S, n, C), (G, S', n, H) -> (G, k, C, H), (G, H).

    Samples are dealt out to several programs, whose float32 sums are added in order; with `out`,
    (splits, G, k C H) and (splits, G, H), of one layout and perhaps narrower than the tensor they
    are taken from, they are left there apart.
    """
    runs, time, n, wide = x.shape
    channels = wide if channels is None else channels
    left, width = grad.shape[1], grad.shape[3]
    down, across = _power(channels, 128), _power(width, 128)
    places = taps * triton.cdiv(channels, down) * triton.cdiv(width, across)
    size = taps * channels * width
    parts = None
    if out is None:
        splits = n_splits(left * n, taps, channels, width, runs)
        parts = torch.empty(splits, runs, size + width, device=x.device)
        out = parts[..., :size], parts[..., size:]
    to_weight, to_bias = out
    splits, depth = len(to_weight), 64 if x.dtype != torch.float32 else 32
    each = triton.cdiv(triton.cdiv(left * n, splits), depth) * depth
    launch(
        _weigh, (places, splits, runs),
        x, grad, grad if centre is None else centre, to_weight, to_bias,
        left * n, time * n, gap * n, each, to_weight.stride(0), to_weight.stride(1),
        C=channels, WIDE=wide, H=width, TAPS=taps, EXACT=x.dtype == torch.float32,
        CENTRED=centre is not None, DOWN=down, ACROSS=across, DEPTH=depth,
        num_warps=_warps(down, across, x), num_stages=_STAGES,
    )  # fmt: skip
    if parts is not None:
        whole = parts.sum(dim=0) if splits > 1 else parts[0]
        to_weight, to_bias = whole[:, :size], whole[:, size:]
        return to_weight.view(runs, taps, channels, width), to_bias
    return out


def _power(n: int, most: int) -> int:
    """A tile's side: a power of two, at least the 16 that a product takes."""
    return int(max(16, min(most, triton.next_power_of_2(n))))


def _tile(rows: int, width: int, runs: int, x: Tensor) -> tuple[int, int]:
    """Rows and columns of a tile: as many columns as leave two tiles to every multiprocessor."""
    tall, cols = 64 if rows >= 64 else 16, _power(width, 128)
    if x.dtype == torch.float32 and rows * runs >= 256 * _PROCESSORS:
        tall = 128  # three products for every number read
    tiles = triton.cdiv(rows, tall) * runs
    while cols > 32 and tiles * triton.cdiv(width, cols) < 2 * _PROCESSORS:
        cols //= 2
    return tall, cols


def _warps(rows: int, cols: int, x: Tensor) -> int:
    """Each holds its part of a tile in registers; three products of tf32 take more of them."""
    return 8 if rows * cols * (2 if x.dtype == torch.float32 else 1) >= 128 * 128 else 4


# --- what the first layer sees -------------------------------------------------------------------
@triton.jit
def _gather(
    samples, start, place, offset, factor, x,
    T, rows, n, before, to_run, to_step,
    C: tl.constexpr, WIDE: tl.constexpr, OFFSET: tl.constexpr, FACTOR: tl.constexpr,
    STEPS: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    g = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    own = start + g * to_run
    if STEPS:
        own += tl.load(place) * to_step
    at = tl.load(own + row % n, mask=row < rows, other=0) + row // n - before
    at = tl.minimum(tl.maximum(at, 0), T - 1)
    for c0 in range(0, WIDE, COLS):
        c = c0 + tl.arange(0, COLS)
        value = tl.load(
            samples + at[:, None] * C + c[None, :],
            mask=(row < rows)[:, None] & (c < C)[None, :],
            other=0.0,
        )
        if OFFSET:
            value -= tl.load(offset + g * C + c, mask=c < C, other=0.0)[None, :]
        if FACTOR:
            value *= tl.load(factor + g * C + c, mask=c < C, other=0.0)[None, :]
        value = tl.where((c < C)[None, :], value, 0.0)
        tl.store(
            x + (g * rows + row[:, None]) * WIDE + c[None, :],
            value.to(x.dtype.element_ty),
            mask=(row < rows)[:, None] & (c < WIDE)[None, :],
        )


def gather(
    samples: Tensor,
    start: Tensor,
    offset: Tensor | None,
    *,
    before: int,
    time: int,
    kind: torch.dtype,
    factor: Tensor | None = None,
    place: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Segments of `time` samples from `before` ahead of each start, less an offset, times a factor.

    (T, C) float32, (G, n) int64, (G, C) or None twice -> (G, time, n, C). Rows outside the
    recording are its first and last. With `place` (1,), `start` is (steps, G, n), of which it says
    the row. `out` (G, time, n, C' >= C) has zeros behind the channels.
    """
    runs, n = start.shape[-2:]
    total, channels = samples.shape
    if out is None:
        out = torch.empty(runs, time, n, channels, dtype=kind, device=samples.device)
    wide = out.shape[-1]
    cols = min(256, triton.next_power_of_2(wide))
    rows = max(1, 1024 // cols)
    launch(
        _gather, (triton.cdiv(time * n, rows), runs),
        samples, start, start if place is None else place,
        samples if offset is None else offset, samples if factor is None else factor, out,
        total, time * n, n, before, start.stride(-2), start.stride(0),
        C=channels, WIDE=wide, OFFSET=offset is not None, FACTOR=factor is not None,
        STEPS=place is not None, ROWS=rows, COLS=cols, num_warps=4,
    )  # fmt: skip
    return out
