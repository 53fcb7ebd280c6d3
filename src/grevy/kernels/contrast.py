"""InfoNCE and unit length: streaming sums of exponentials, with gradients from the same numbers."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import launch

__all__ = ["contrast", "log_sum_exp", "tell", "unit", "unit_back"]

_SIDE = 64
_WARPS = 2


# --- pieces, for any encoder and loss ------------------------------------------------------------
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
    launch(
        _unit, (triton.cdiv(length.numel(), rows),),
        h, z, length, length.numel(), h.shape[-1], ROWS=rows, COLS=cols,
    )  # fmt: skip
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
    launch(
        _unit_back, (triton.cdiv(length.numel(), rows),),
        grad, z, length, to_h, length.numel(), z.shape[-1], ROWS=rows, COLS=cols,
    )  # fmt: skip
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
    launch(
        _by_rows, (triton.cdiv(n_rows, 16), runs),
        a, b, b if c is None else c, values, to_a, n_rows, n_cols, depth, others, 1 / n_rows,
        EXTRA=c is not None, OTHERS=others > 0, ROWS=16, COLS=2 * side, WIDE=wide,
    )  # fmt: skip
    if not needed:
        return values, None, None, None
    to_b = torch.empty_like(b)
    to_c = None if c is None else torch.empty_like(c)
    launch(
        _by_columns, (triton.cdiv(n_cols, 16), runs),
        a, b, b if c is None else c, values, to_b, to_b if to_c is None else to_c,
        n_rows, n_cols, depth, others, 1 / n_rows,
        EXTRA=c is not None, OTHERS=others > 0, ROWS=2 * side, COLS=16, WIDE=wide,
    )  # fmt: skip
    return values, to_a, to_b, to_c


# --- the whole of it, for unit vectors in one list -----------------------------------------------
@triton.jit
def _attract(
    h, to_h, own, told, sharp,
    E, B, N, positive, negative,
    D: tl.constexpr, OTHERS: tl.constexpr, DIGITS: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    g = tl.program_id(1).to(tl.int64)
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, WIDE)
    base = h + g * E * D
    s = tl.load(sharp + g)
    there = (r < B)[:, None] & (d < D)[None, :]
    a, length = _on_sphere(tl.load(base + r[:, None] * D + d[None, :], mask=there, other=0.0))
    at = positive + r
    p, length_p = _on_sphere(tl.load(base + at[:, None] * D + d[None, :], mask=there, other=0.0))
    agree = tl.sum(a * p, axis=1)
    top = tl.full((ROWS,), -float("inf"), dtype=tl.float32)
    total = tl.zeros((ROWS,), dtype=tl.float32)
    warm = tl.zeros((ROWS,), dtype=tl.float32)
    mean = tl.zeros((ROWS, WIDE), dtype=tl.float32)
    for first in range(0, N, COLS):
        n = first + tl.arange(0, COLS)
        z, _ = _on_sphere(
            tl.load(
                base + (negative + n)[:, None] * D + d[None, :],
                mask=(n < N)[:, None] & (d < D)[None, :],
                other=0.0,
            )
        )
        c = tl.dot(a, tl.trans(z), input_precision=DIGITS)
        counts = (n < N)[None, :] & (r < B)[:, None]
        if OTHERS:
            counts &= r[:, None] != n[None, :]
        x = tl.where(counts, s * c, -float("inf"))
        higher = tl.maximum(top, tl.max(x, axis=1))
        floor = tl.where(higher == -float("inf"), 0.0, higher)
        e = tl.exp(x - floor[:, None])
        fade = tl.exp(top - floor)
        total = total * fade + tl.sum(e, axis=1)
        warm = warm * fade + tl.sum(e * c, axis=1)
        mean = tl.dot(e, z, mean * fade[:, None], input_precision=DIGITS)
        top = higher
    total = tl.where(r < B, total, 1.0)
    out = told + g * 3 * B + r
    tl.store(out, -s * agree, mask=r < B)
    tl.store(out + B, top + tl.log(total), mask=r < B)
    tl.store(out + 2 * B, s * (warm / total - agree), mask=r < B)
    share = s / B
    to_a = share * (mean / total[:, None] - p)
    place = to_h + g * E * D + d[None, :]
    if OTHERS:
        tl.store(own + (g * B + r)[:, None] * D + d[None, :], to_a, mask=there)
    else:
        to_a = _off_sphere(to_a, a, length)
        tl.store(place + r[:, None] * D, to_a.to(to_h.dtype.element_ty), mask=there)
    to_p = _off_sphere(-share * a, p, length_p)
    tl.store(place + at[:, None] * D, to_p.to(to_h.dtype.element_ty), mask=there)


@triton.jit
def _repel(
    h, to_h, own, told, sharp,
    E, B, N, negative,
    D: tl.constexpr, OTHERS: tl.constexpr, DIGITS: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    g = tl.program_id(1).to(tl.int64)
    n = tl.program_id(0) * COLS + tl.arange(0, COLS)
    d = tl.arange(0, WIDE)
    base = h + g * E * D
    s = tl.load(sharp + g)
    there = (n < N)[:, None] & (d < D)[None, :]
    at = negative + n
    z, length = _on_sphere(tl.load(base + at[:, None] * D + d[None, :], mask=there, other=0.0))
    mean = tl.zeros((COLS, WIDE), dtype=tl.float32)
    for first in range(0, B, ROWS):
        r = first + tl.arange(0, ROWS)
        a, _ = _on_sphere(
            tl.load(
                base + r[:, None] * D + d[None, :],
                mask=(r < B)[:, None] & (d < D)[None, :],
                other=0.0,
            )
        )
        whole = tl.load(told + g * 3 * B + B + r, mask=r < B, other=0.0)
        c = tl.dot(z, tl.trans(a), input_precision=DIGITS)
        counts = (n < N)[:, None] & (r < B)[None, :]
        if OTHERS:
            counts &= n[:, None] != r[None, :]
        e = tl.where(counts, tl.exp(tl.where(counts, s * c - whole[None, :], 0.0)), 0.0)
        mean = tl.dot(e, a, mean, input_precision=DIGITS)
    to_z = s / B * mean
    if OTHERS:  # a reference is a negative of others, and both give to its gradient
        to_z += tl.load(own + (g * B + n)[:, None] * D + d[None, :], mask=there, other=0.0)
    to_z = _off_sphere(to_z, z, length)
    tl.store(
        to_h + g * E * D + at[:, None] * D + d[None, :],
        to_z.to(to_h.dtype.element_ty),
        mask=there,
    )


@triton.jit
def _on_sphere(h):
    x = h.to(tl.float32)
    length = tl.maximum(tl.sqrt(tl.sum(x * x, axis=1)), 1e-12)
    return x / length[:, None], length


@triton.jit
def _off_sphere(grad, z, length):
    """The gradient by h from that by z = h / |h|; below the least length that is constant."""
    along = tl.where(length > 1e-12, tl.sum(grad * z, axis=1), 0.0)
    return (grad - z * along[:, None]) / length[:, None]


def contrast(
    h: Tensor,
    to_h: Tensor,
    own: Tensor,
    told: Tensor,
    sharp: Tensor,
    *,
    positive: int,
    negative: int,
    n_negatives: int,
) -> None:
    """InfoNCE of latents in one list, and its gradient by them before they are of unit length.

    Of h (G, E, D) the first B are references, B from `positive` on their positives, and
    `n_negatives` from `negative` on the negatives; if these are the references, each leaves itself
    out. Written are the gradients `to_h` (G, E, D) of all of these, and `told` (G, 3, B): of every
    reference both parts of the loss, and the slope by the logarithm of `sharp` (G,), which is 1
    over the temperature. `own` (G, B, D) is scratch.
    """
    runs, entries, depth = h.shape
    batch = told.shape[2]
    others = negative == 0
    wide = max(16, triton.next_power_of_2(depth))
    # Narrow latents have no more digits than products of tf32 keep. Wider tiles spill registers.
    digits, warps = ("ieee", 4) if h.dtype == torch.float32 else ("tf32", _WARPS)
    side = _SIDE if wide <= 32 else 32 if wide <= 64 else 16
    launch(
        _attract, (triton.cdiv(batch, 16), runs), h, to_h, own, told, sharp,
        entries, batch, n_negatives, positive, negative,
        D=depth, OTHERS=others, DIGITS=digits, ROWS=16, COLS=side, WIDE=wide, num_warps=warps,
    )  # fmt: skip
    launch(
        _repel, (triton.cdiv(n_negatives, 16), runs), h, to_h, own, told, sharp,
        entries, batch, n_negatives, negative,
        D=depth, OTHERS=others, DIGITS=digits, ROWS=side, COLS=16, WIDE=wide, num_warps=warps,
    )  # fmt: skip


@triton.jit
def _tell(
    told, sharp, seen, to_sharp, counter,
    B, runs, to_run, LEARNED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    g = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK)
    positive = tl.zeros((BLOCK,), dtype=tl.float32)
    negative = tl.zeros((BLOCK,), dtype=tl.float32)
    slope = tl.zeros((BLOCK,), dtype=tl.float32)
    for first in range(0, B, BLOCK):
        r = first + i
        own = told + g * 3 * B + r
        positive += tl.load(own, mask=r < B, other=0.0)
        negative += tl.load(own + B, mask=r < B, other=0.0)
        slope += tl.load(own + 2 * B, mask=r < B, other=0.0)
    out = seen + (tl.load(counter) * runs + g) * 3
    tl.store(out, tl.sum(positive, axis=0) / B)
    tl.store(out + 1, tl.sum(negative, axis=0) / B)
    tl.store(out + 2, 1 / tl.load(sharp + g))
    if LEARNED:
        tl.store(to_sharp + g * to_run, tl.sum(slope, axis=0) / B)


def tell(
    told: Tensor, sharp: Tensor, seen: Tensor, counter: Tensor, to_sharp: Tensor | None
) -> None:
    """Means of what `contrast` told, and the temperature, as the row `counter` of `seen`.

    `seen` is (steps, G, 3); `to_sharp` (G,) takes the slope by the logarithm of `sharp`.
    """
    runs, _, batch = told.shape
    block = min(1024, max(16, triton.next_power_of_2(batch)))
    launch(
        _tell, (runs,), told, sharp, seen, told if to_sharp is None else to_sharp, counter,
        batch, runs, 0 if to_sharp is None else to_sharp.stride(0),
        LEARNED=to_sharp is not None, BLOCK=block,
    )  # fmt: skip
