"""All random numbers: a counter-based generator, so that a draw is a function of its address.

Philox-4x32-10 (Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3",
doi:10.1145/2063384.2063405), written as integer tensor operations: torch's own generators differ
between CPU and CUDA and cannot be asked for the thousandth step without the ones before it. Here
the number at (seed, purpose, step, lane) is the same on every device, alone or in a grid, resumed
or not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

__all__ = ["Purpose", "integers", "keys_of", "normals", "permutation", "uniforms", "words"]

_MASK = 0xFFFFFFFF
_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85


class Purpose(IntEnum):
    """What a number is for; different purposes are independent streams of one seed."""

    WEIGHTS = 1
    REFERENCE = 2
    NEGATIVE = 3
    POSITIVE = 4
    OFFSET = 5
    TIE = 6
    JUDGE = 7
    SPLIT = 8
    NULL = 9
    SESSION = 10
    MASK = 11
    DROPOUT = 12
    PRINT = 13
    SURROGATE = 14
    SUBSAMPLE = 15
    CONTROL = 16


Word = TypeVar("Word", int, Tensor)


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Word, Word]) -> Tensor:
    """Ten rounds of Philox-4x32 on int64 tensors that hold 32-bit words.

    Parameters
    ----------
    counter : four int64 tensors of one broadcast shape
        The words of the counter, each in [0, 2**32).
    key : (int, int), or two int64 tensors
        The words of the key; tensors broadcast with the counter.

    Returns
    -------
    words : int64 tensor, shape (*broadcast, 4)
        Four random 32-bit words.
    """
    # Not torch's own, which takes two seconds to import what it needs.
    shape = np.broadcast_shapes(*(w.shape for w in counter))
    x0, x1, x2, x3 = (word.expand(shape) for word in counter)
    k0, k1 = key[0] & _MASK, key[1] & _MASK
    for _ in range(10):
        # The 64-bit products wrap round in int64; masking after the shift gives the unsigned words.
        p0, p1 = x0 * _M0, x2 * _M1
        x0, x1, x2, x3 = (
            ((p1 >> 32) & _MASK) ^ x1 ^ k0,
            p1 & _MASK,
            ((p0 >> 32) & _MASK) ^ x3 ^ k1,
            p0 & _MASK,
        )
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return torch.stack([x0, x1, x2, x3], dim=-1)


def keys_of(seeds: Sequence[int]) -> Tensor:
    """The keys of several seeds, int64, shape (G, 2): `words` of all of them in one go."""
    return torch.tensor([[seed & _MASK, (seed >> 32) & _MASK] for seed in seeds])


def words(seed: int | Tensor, purpose: int, steps: Tensor, n: int) -> Tensor:
    """Random 32-bit words for each of some steps.

    Parameters
    ----------
    seed : int, or int64 tensor, shape (G, 2)
        64 bits are used. Or the keys of several seeds (`keys_of`), where the steps are.
    purpose : int
        A `Purpose`, or such a value plus a multiple of 256 for a sub-stream.
    steps : int64 tensor, shape (S,)
        Step numbers; the device of the result is theirs.
    n : int
        Words a step.

    Returns
    -------
    int64 tensor, shape (S, n), or (G, S, n) for keys, in [0, 2**32)
    """
    lanes = torch.arange(-(-n // 4), dtype=torch.int64, device=steps.device)
    step = steps.to(torch.int64)[:, None]
    zero = torch.zeros((), dtype=torch.int64, device=steps.device)
    counter = (lanes[None, :], step & _MASK, (step >> 32) & _MASK, zero + int(purpose))
    if isinstance(seed, Tensor):
        found = philox(counter, (seed[:, 0, None, None], seed[:, 1, None, None]))
    else:
        found = philox(counter, (seed & _MASK, (seed >> 32) & _MASK))
    return found.flatten(-2)[..., :n]


def integers(seed: int | Tensor, purpose: int, steps: Tensor, n: int, high: int | Tensor) -> Tensor:
    """Whole numbers in [0, high), shaped as `words`; bias below high / 2**32.

    Examples
    --------
    >>> a = integers(0, Purpose.REFERENCE, torch.arange(100), 5, 1000)
    >>> b = integers(0, Purpose.REFERENCE, torch.tensor([99]), 5, 1000)
    >>> bool((a[99] == b[0]).all())
    True
    """
    return (words(seed, purpose, steps, n) * high) >> 32


def uniforms(seed: int | Tensor, purpose: int, steps: Tensor, n: int) -> Tensor:
    """Numbers in the open interval (0, 1), float64, shaped as `words`."""
    return (words(seed, purpose, steps, n).to(torch.float64) + 0.5) / 2**32


def normals(seed: int, purpose: int, steps: Tensor, n: int) -> Tensor:
    """Standard normal numbers by Box and Muller, float64, shape (S, n)."""
    u = uniforms(seed, purpose, steps, 2 * n)
    return torch.sqrt(-2 * torch.log(u[:, :n])) * torch.cos(2 * math.pi * u[:, n:])


def permutation(seed: int, purpose: int, n: int, *, step: int = 0) -> Tensor:
    """One random order of n things, int64, shape (n,)."""
    return torch.argsort(words(seed, purpose, torch.tensor([step]), n)[0], stable=True)
