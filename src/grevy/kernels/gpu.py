"""Kernels for GPUs, in Triton: a layer, its gradients, InfoNCE, Adam, gathering, each in one pass.

Every function here has a twin made of torch's own operations, which says what it must compute:
`layers` for the layers, `losses` for InfoNCE, `stack` for the rest. Products take bfloat16 numbers
with sums in float32 where the activity is bfloat16; float32 numbers are taken apart into three of
tf32, which keeps their digits. Sums over samples are taken in a fixed order, so that the same step
gives the same bits.

Time lies first in all activity, (runs, time, segments, channels): tap t of a convolution meets the
same rows, `t * gap * segments` further on, so a layer is one product whose depth is taps times
channels, without a copy of any window.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = [
    "adam",
    "bend_back",
    "convolve",
    "gather",
    "log_sum_exp",
    "spread",
    "unit",
    "unit_back",
    "weigh",
]

_SKIPS = {"": 0, "inner": 1, "outer": 2}


# --- the layer -----------------------------------------------------------------------------------
@triton.jit
def _gelu(x):
    return 0.5 * x * (1 + tl.erf(x * 0.7071067811865476))


@triton.jit
def _convolve(
    x, weight, bias, y, bent,
    rows, in_rows, shift, middle, C, H, to_weight, to_bias,
    TAPS: tl.constexpr, SKIP: tl.constexpr, BEND: tl.constexpr, KEEP: tl.constexpr,
    EXACT: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    g = tl.program_id(2).to(tl.int64)
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    h = tl.program_id(1) * COLS + tl.arange(0, COLS)
    d = tl.arange(0, DEPTH)
    own_x = x + g * in_rows * C
    own_w = weight + g * to_weight
    acc = tl.zeros((ROWS, COLS), dtype=tl.float32)
    blocks = tl.cdiv(C, DEPTH)
    for i in range(TAPS * blocks):
        tap = i // blocks
        c = (i - tap * blocks) * DEPTH + d
        a = tl.load(
            own_x + (r + tap * shift)[:, None] * C + c[None, :],
            mask=(r < rows)[:, None] & (c < C)[None, :],
            other=0.0,
        )
        w = tl.load(
            own_w + (tap * C + c)[:, None] * H + h[None, :],
            mask=(c < C)[:, None] & (h < H)[None, :],
            other=0.0,
        )
        if EXACT:
            acc = tl.dot(a, w, acc, input_precision="tf32x3")
        else:
            acc = tl.dot(a, w.to(a.dtype), acc)
    there = (r < rows)[:, None] & (h < H)[None, :]
    out = g * rows * H + r[:, None] * H + h[None, :]
    acc += tl.load(bias + g * to_bias + h, mask=h < H, other=0.0)[None, :]
    if SKIP:
        beside = tl.load(
            own_x + (r + middle)[:, None] * C + h[None, :],
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
    x: Tensor, weight: Tensor, bias: Tensor, *, gap: int, skip: str, bend: bool, keep: bool
) -> tuple[Tensor, Tensor | None]:
    """A layer forwards: (G, S, n, C), (G, k, C, H), (G, H) -> (G, S', n, H), of the type of x.

    Also what went into GELU, in the same type, if `bend` and `keep`. Weights of one run lie
    together; those of the next may lie anywhere behind them.
    """
    runs, time, n, channels = x.shape
    taps, width = weight.shape[1], weight.shape[3]
    left = time - (taps - 1) * gap
    y = x.new_empty(runs, left, n, width)
    bent = torch.empty_like(y) if bend and keep else None
    rows, cols, depth = _tile(left * n), _power(width, 128), _power(channels, 64)
    _convolve[(triton.cdiv(left * n, rows), triton.cdiv(width, cols), runs)](
        x, weight, bias, y, y if bent is None else bent,
        left * n, time * n, gap * n, (taps - 1) // 2 * gap * n, channels, width,
        weight.stride(0), bias.stride(0),
        TAPS=taps, SKIP=_SKIPS[skip], BEND=bend, KEEP=bent is not None,
        EXACT=x.dtype == torch.float32, ROWS=rows, COLS=cols, DEPTH=depth,
        num_warps=_warps(rows, cols, x),
    )  # fmt: skip
    return y, bent


@triton.jit
def _bend_back(grad, bent, out, size, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(bent + i, mask=i < size, other=0.0).to(tl.float32)
    g = tl.load(grad + i, mask=i < size, other=0.0).to(tl.float32)
    slope = 0.5 * (1 + tl.erf(x * 0.7071067811865476))
    slope += x * tl.exp(-0.5 * x * x) * 0.3989422804014327
    tl.store(out + i, (g * slope).to(out.dtype.element_ty), mask=i < size)


def bend_back(grad: Tensor, bent: Tensor) -> Tensor:
    """The gradient by what went into GELU, from that by what came out; all of one shape."""
    out = torch.empty_like(bent)
    _bend_back[(triton.cdiv(out.numel(), 1024),)](grad, bent, out, out.numel(), BLOCK=1024)
    return out


@triton.jit
def _spread(
    grad, weight, beside, to_x,
    rows, in_rows, shift, middle, C, H, to_weight,
    TAPS: tl.constexpr, SKIP: tl.constexpr, EXACT: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    g = tl.program_id(2).to(tl.int64)
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * COLS + tl.arange(0, COLS)
    d = tl.arange(0, DEPTH)
    own_w = weight + g * to_weight
    acc = tl.zeros((ROWS, COLS), dtype=tl.float32)
    blocks = tl.cdiv(H, DEPTH)
    for i in range(TAPS * blocks):
        tap = i // blocks
        h = (i - tap * blocks) * DEPTH + d
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
    tl.store(
        to_x + g * in_rows * C + r[:, None] * C + c[None, :],
        acc.to(to_x.dtype.element_ty),
        mask=(r < in_rows)[:, None] & (c < C)[None, :],
    )


def spread(grad: Tensor, weight: Tensor, beside: Tensor | None, *, time: int, gap: int) -> Tensor:
    """The gradient by the input of a layer: (G, S', n, H), (G, k, C, H) -> (G, S, n, C).

    `beside`, of the shape of `grad`, is added at the middle tap: what a skip hands back.
    """
    runs, left, n, width = grad.shape
    taps, channels = weight.shape[1], weight.shape[2]
    to_x = grad.new_empty(runs, time, n, channels)
    rows, cols, depth = _tile(time * n), _power(channels, 128), _power(width, 64)
    _spread[(triton.cdiv(time * n, rows), triton.cdiv(channels, cols), runs)](
        grad, weight, grad if beside is None else beside, to_x,
        left * n, time * n, gap * n, (taps - 1) // 2 * gap * n, channels, width,
        weight.stride(0),
        TAPS=taps, SKIP=beside is not None, EXACT=grad.dtype == torch.float32,
        ROWS=rows, COLS=cols, DEPTH=depth, num_warps=_warps(rows, cols, grad),
    )  # fmt: skip
    return to_x


@triton.jit
def _weigh(
    x, grad, parts,
    rows, in_rows, shift, C, H, each, size,
    TAPS: tl.constexpr, EXACT: tl.constexpr,
    DOWN: tl.constexpr, ACROSS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    down, across = tl.cdiv(C, DOWN), tl.cdiv(H, ACROSS)
    place = tl.program_id(0)
    tap = place // (down * across)
    c = (place // across) % down * DOWN + tl.arange(0, DOWN)
    h = place % across * ACROSS + tl.arange(0, ACROSS)
    split, g = tl.program_id(1), tl.program_id(2).to(tl.int64)
    d = tl.arange(0, DEPTH)
    acc = tl.zeros((DOWN, ACROSS), dtype=tl.float32)
    total = tl.zeros((ACROSS,), dtype=tl.float32)
    for i in range(0, each, DEPTH):
        r = split * each + i + d
        here = (i + d < each) & (r < rows)
        a = tl.load(
            x + g * in_rows * C + (r + tap * shift)[:, None] * C + c[None, :],
            mask=here[:, None] & (c < C)[None, :],
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
        total += tl.sum(b.to(tl.float32), axis=0)
    own = parts + (split * tl.num_programs(2) + g) * size
    tl.store(
        own + (tap * C + c)[:, None] * H + h[None, :],
        acc,
        mask=(c < C)[:, None] & (h < H)[None, :],
    )
    if place < across:  # the first tap's first channels also sum for the bias
        tl.store(own + TAPS * C * H + h, total, mask=h < H)


def weigh(x: Tensor, grad: Tensor, *, taps: int, gap: int) -> tuple[Tensor, Tensor]:
    """The gradients by weight and bias: (G, S, n, C), (G, S', n, H) -> (G, k, C, H), (G, H).

    Samples are dealt out to several programs, whose float32 sums are added in order.
    """
    runs, time, n, channels = x.shape
    left, width = grad.shape[1], grad.shape[3]
    down, across = _power(channels, 128), _power(width, 128)
    places = taps * triton.cdiv(channels, down) * triton.cdiv(width, across)
    splits = max(1, min(triton.cdiv(left * n, 128), triton.cdiv(264, places * runs)))
    each = triton.cdiv(triton.cdiv(left * n, splits), 32) * 32
    splits = triton.cdiv(left * n, each)
    size = taps * channels * width + width
    parts = torch.empty(splits, runs, size, device=x.device)
    _weigh[(places, splits, runs)](
        x, grad, parts, left * n, time * n, gap * n, channels, width, each, size,
        TAPS=taps, EXACT=x.dtype == torch.float32, DOWN=down, ACROSS=across, DEPTH=32,
        num_warps=_warps(down, across, x),
    )  # fmt: skip
    whole = parts.sum(dim=0) if splits > 1 else parts[0]
    return whole[:, :-width].view(runs, taps, channels, width), whole[:, -width:]


def _power(n: int, most: int) -> int:
    """A tile's side: a power of two, at least the 16 that a product takes."""
    return int(max(16, min(most, triton.next_power_of_2(n))))


def _tile(rows: int) -> int:
    """Rows of a tile: as many as leave a tile for every multiprocessor."""
    return 128 if rows >= 128 * 264 else 64 if rows >= 1024 else 16


def _warps(rows: int, cols: int, x: Tensor) -> int:
    """Each holds its part of a tile in registers; three products of tf32 take more of them."""
    return 8 if rows * cols * (2 if x.dtype == torch.float32 else 1) >= 128 * 128 else 4


# --- what the first layer sees -------------------------------------------------------------------
@triton.jit
def _gather(
    samples, start, centre, x,
    T, C, before, n, time,
    CENTRED: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    row, g = tl.program_id(0), tl.program_id(1).to(tl.int64)
    step, segment = row // n, row % n
    at = tl.load(start + g * n + segment) + step - before
    at = tl.minimum(tl.maximum(at, 0), T - 1)
    for c0 in range(0, C, COLS):
        c = c0 + tl.arange(0, COLS)
        value = tl.load(samples + at * C + c, mask=c < C, other=0.0)
        if CENTRED:
            value -= tl.load(centre + g * C + c, mask=c < C, other=0.0)
        out = x + (g * time * n + row) * C + c
        tl.store(out, value.to(x.dtype.element_ty), mask=c < C)


def gather(
    samples: Tensor,
    start: Tensor,
    centre: Tensor | None,
    *,
    before: int,
    time: int,
    kind: torch.dtype,
) -> Tensor:
    """Segments of `time` samples from `before` ahead of each start, less each channel's centre.

    (T, C) float32, (G, n) int64, (G, C) or None -> (G, time, n, C). Rows outside the recording are
    its first and last.
    """
    runs, n = start.shape
    total, channels = samples.shape
    x = torch.empty(runs, time, n, channels, dtype=kind, device=samples.device)
    cols = min(1024, triton.next_power_of_2(channels))
    _gather[(time * n, runs)](
        samples, start, samples if centre is None else centre, x,
        total, channels, before, n, time,
        CENTRED=centre is not None, COLS=cols, num_warps=1 if cols <= 256 else 4,
    )  # fmt: skip
    return x


# --- the loss ------------------------------------------------------------------------------------
@triton.jit
def _unit(h, z, length, rows, D, ROWS: tl.constexpr, COLS: tl.constexpr):
    r = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, COLS)
    there = (r < rows)[:, None] & (d < D)[None, :]
    x = tl.load(h + r[:, None] * D + d[None, :], mask=there, other=0.0).to(tl.float32)
    norm = tl.maximum(tl.sqrt(tl.sum(x * x, axis=1)), 1e-12)
    tl.store(z + r[:, None] * D + d[None, :], x / norm[:, None], mask=there)
    tl.store(length + r, norm, mask=r < rows)


def unit(h: Tensor) -> tuple[Tensor, Tensor]:
    """Latents over their length: (..., D) of any type -> (..., D) and (...) in float32."""
    z = torch.empty(h.shape, device=h.device)
    length = torch.empty(h.shape[:-1], device=h.device)
    rows, cols = _unit_tile(h)
    _unit[(triton.cdiv(length.numel(), rows),)](
        h, z, length, length.numel(), h.shape[-1], ROWS=rows, COLS=cols
    )
    return z, length


@triton.jit
def _unit_back(grad, z, length, to_h, rows, D, ROWS: tl.constexpr, COLS: tl.constexpr):
    r = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, COLS)
    there = (r < rows)[:, None] & (d < D)[None, :]
    g = tl.load(grad + r[:, None] * D + d[None, :], mask=there, other=0.0)
    x = tl.load(z + r[:, None] * D + d[None, :], mask=there, other=0.0)
    norm = tl.load(length + r, mask=r < rows, other=1.0)
    along = tl.where(norm > 1e-12, tl.sum(g * x, axis=1), 0.0)  # below it the length is constant
    out = (g - x * along[:, None]) / norm[:, None]
    tl.store(to_h + r[:, None] * D + d[None, :], out.to(to_h.dtype.element_ty), mask=there)


def unit_back(grad: Tensor, z: Tensor, length: Tensor, kind: torch.dtype) -> Tensor:
    """The gradient by h, in its type, from that by z = h / |h|."""
    to_h = torch.empty(z.shape, dtype=kind, device=z.device)
    rows, cols = _unit_tile(z)
    _unit_back[(triton.cdiv(length.numel(), rows),)](
        grad, z, length, to_h, length.numel(), z.shape[-1], ROWS=rows, COLS=cols
    )
    return to_h


def _unit_tile(x: Tensor) -> tuple[int, int]:
    cols = triton.next_power_of_2(x.shape[-1])
    return max(1, 1024 // cols), cols


@triton.jit
def _by_rows(
    a, b, c, values, to_a,
    A, B, D, others, share,
    EXTRA: tl.constexpr, OTHERS: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    g = tl.program_id(1).to(tl.int64)
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, WIDE)
    mine = tl.load(
        a + (g * A + r)[:, None] * D + d[None, :],
        mask=(r < A)[:, None] & (d < D)[None, :],
        other=0.0,
    )
    top = tl.full((ROWS,), -float("inf"), dtype=tl.float32)
    total = tl.zeros((ROWS,), dtype=tl.float32)
    mean = tl.zeros((ROWS, WIDE), dtype=tl.float32)
    for first in range(0, B, COLS):
        n = first + tl.arange(0, COLS)
        them = tl.load(
            b + (g * B + n)[:, None] * D + d[None, :],
            mask=(n < B)[:, None] & (d < D)[None, :],
            other=0.0,
        )
        s = tl.dot(mine, tl.trans(them), input_precision="ieee")
        if EXTRA:
            s += tl.load(c + g * B + n, mask=n < B, other=0.0)[None, :]
        counts = (n < B)[None, :] & (r < A)[:, None]
        if OTHERS:
            counts &= (r // others)[:, None] != (n // others)[None, :]
        s = tl.where(counts, s, -float("inf"))
        higher = tl.maximum(top, tl.max(s, axis=1))
        base = tl.where(higher == -float("inf"), 0.0, higher)
        e = tl.exp(s - base[:, None])
        fade = tl.exp(top - base)
        total = total * fade + tl.sum(e, axis=1)
        mean = tl.dot(e, them, mean * fade[:, None], input_precision="ieee")
        top = higher
    total = tl.where(r < A, total, 1.0)
    tl.store(values + g * A + r, top + tl.log(total), mask=r < A)
    tl.store(
        to_a + (g * A + r)[:, None] * D + d[None, :],
        mean / total[:, None] * share,
        mask=(r < A)[:, None] & (d < D)[None, :],
    )


@triton.jit
def _by_columns(
    a, b, c, values, to_b, to_c,
    A, B, D, others, share,
    EXTRA: tl.constexpr, OTHERS: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    g = tl.program_id(1).to(tl.int64)
    n = tl.program_id(0) * COLS + tl.arange(0, COLS)
    d = tl.arange(0, WIDE)
    mine = tl.load(
        b + (g * B + n)[:, None] * D + d[None, :],
        mask=(n < B)[:, None] & (d < D)[None, :],
        other=0.0,
    )
    extra = tl.zeros((COLS,), dtype=tl.float32)
    if EXTRA:
        extra += tl.load(c + g * B + n, mask=n < B, other=0.0)
    weight = tl.zeros((COLS,), dtype=tl.float32)
    mean = tl.zeros((COLS, WIDE), dtype=tl.float32)
    for first in range(0, A, ROWS):
        r = first + tl.arange(0, ROWS)
        them = tl.load(
            a + (g * A + r)[:, None] * D + d[None, :],
            mask=(r < A)[:, None] & (d < D)[None, :],
            other=0.0,
        )
        s = tl.dot(mine, tl.trans(them), input_precision="ieee") + extra[:, None]
        whole = tl.load(values + g * A + r, mask=r < A, other=0.0)
        counts = (n < B)[:, None] & (r < A)[None, :]
        if OTHERS:
            counts &= (n // others)[:, None] != (r // others)[None, :]
        e = tl.where(counts, tl.exp(tl.where(counts, s - whole[None, :], 0.0)), 0.0)
        mean = tl.dot(e, them, mean, input_precision="ieee")
        weight += tl.sum(e, axis=1)
    tl.store(
        to_b + (g * B + n)[:, None] * D + d[None, :],
        mean * share,
        mask=(n < B)[:, None] & (d < D)[None, :],
    )
    if EXTRA:
        tl.store(to_c + g * B + n, weight * share, mask=n < B)


def log_sum_exp(
    a: Tensor, b: Tensor, c: Tensor | None, others: int, *, needed: bool
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Of every row i the log of sum_n exp(a_i . b_n + c_n), and the gradients of their mean.

    (G, A, D), (G, B, D), (G, B) or None -> (G, A), and if `needed` (G, A, D), (G, B, D), (G, B).
    Above 0, `others` leaves the b of a row's own block of so many out. Similarities live in
    registers, a tile at a time: nothing of size A x B is ever held.
    """
    runs, n_rows, depth = a.shape
    n_cols = b.shape[1]
    values = torch.empty(runs, n_rows, device=a.device)
    to_a = torch.empty_like(a)
    wide = max(16, triton.next_power_of_2(depth))
    side = 32 if wide <= 64 else 16
    _by_rows[(triton.cdiv(n_rows, 16), runs)](
        a, b, b if c is None else c, values, to_a, n_rows, n_cols, depth, others, 1 / n_rows,
        EXTRA=c is not None, OTHERS=others > 0, ROWS=16, COLS=2 * side, WIDE=wide,
    )  # fmt: skip
    if not needed:
        return values, None, None, None
    to_b = torch.empty_like(b)
    to_c = None if c is None else torch.empty_like(c)
    _by_columns[(triton.cdiv(n_cols, 16), runs)](
        a, b, b if c is None else c, values, to_b, to_b if to_c is None else to_c,
        n_rows, n_cols, depth, others, 1 / n_rows,
        EXTRA=c is not None, OTHERS=others > 0, ROWS=2 * side, COLS=16, WIDE=wide,
    )  # fmt: skip
    return values, to_a, to_b, to_c


# --- the update ----------------------------------------------------------------------------------
@triton.jit
def _adam(
    flat, grad, momentum, square, largest, rate, corrections, counter,
    P, rest1, beta2, rest2, eps, decay,
    LARGEST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    g = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = i < P
    at = g * P + i
    p, d = tl.load(flat + at, mask=here), tl.load(grad + at, mask=here)
    m, v = tl.load(momentum + at, mask=here), tl.load(square + at, mask=here)
    step = tl.load(counter)
    first, second = tl.load(corrections + 2 * step), tl.load(corrections + 2 * step + 1)
    d += decay * p
    m += (d - m) * rest1
    v = v * beta2 + d * d * rest2
    tl.store(momentum + at, m, mask=here)
    tl.store(square + at, v, mask=here)
    if LARGEST:
        v = tl.maximum(v, tl.load(largest + at, mask=here))
        tl.store(largest + at, v, mask=here)
    size = tl.load(rate + g) * first
    tl.store(flat + at, p - size * m / (tl.sqrt(v) * second + eps), mask=here)


def adam(
    flat: Tensor,
    grad: Tensor,
    momentum: Tensor,
    square: Tensor,
    largest: Tensor | None,
    rate: Tensor,
    corrections: Tensor,
    counter: Tensor,
    *,
    beta1: float,
    beta2: float,
    eps: float,
    decay: float,
) -> None:
    """One update of G runs in place: (G, P) five times, (G, 1) rates.

    `corrections` (steps, 2) holds 1 / (1 - beta1^t) and 1 / sqrt(1 - beta2^t); `counter` (1,) says
    in which of its rows the step is, so that a recorded step can be played again.
    """
    runs, size = flat.shape
    _adam[(triton.cdiv(size, 1024), runs)](
        flat, grad, momentum, square, square if largest is None else largest,
        rate, corrections, counter, size, 1 - beta1, beta2, 1 - beta2, eps, decay,
        LARGEST=largest is not None, BLOCK=1024,
    )  # fmt: skip
