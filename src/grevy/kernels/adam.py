"""The update: sums over the parts of a gradient, Adam, and the weights as narrow numbers."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .launch import launch

__all__ = ["adam"]


@triton.jit
def _adam(
    flat, grad, momentum, square, largest, narrow, rate, corrections, counter,
    P, to_part, rest1, beta2, rest2, eps, decay,
    PARTS: tl.constexpr, LARGEST: tl.constexpr, NARROW: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    g = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = i < P
    at = g * P + i
    p, d = tl.load(flat + at, mask=here), tl.load(grad + at, mask=here)
    for part in tl.static_range(1, PARTS):
        d += tl.load(grad + part * to_part + at, mask=here)
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
    p -= size * m / (tl.sqrt(v) * second + eps)
    tl.store(flat + at, p, mask=here)
    if NARROW:
        tl.store(narrow + at, p.to(narrow.dtype.element_ty), mask=here)


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
    narrow: Tensor | None = None,
) -> None:
    """One update of G runs in place: (G, P) each, (G, 1) rates.

    `grad` may come in parts, (parts, G, P), that are added in order. `corrections` (steps, 2)
    holds 1 / (1 - beta1^t) and 1 / sqrt(1 - beta2^t); `counter` (1,) says in which of its rows the
    step is, so that a recorded step can be played again. `narrow` takes a copy in its own type.
    """
    runs, size = flat.shape
    parts = grad.shape[0] if grad.ndim == 3 else 1
    block = 1024 if size * runs >= 2**20 else 512
    launch(
        _adam, (triton.cdiv(size, block), runs),
        flat, grad, momentum, square, square if largest is None else largest,
        flat if narrow is None else narrow, rate, corrections, counter,
        size, runs * size, 1 - beta1, beta2, 1 - beta2, eps, decay,
        PARTS=parts, LARGEST=largest is not None, NARROW=narrow is not None, BLOCK=block,
    )  # fmt: skip
