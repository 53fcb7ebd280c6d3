"""Prints of short stretches of a recording, by which samples are known again in another file.

A model keeps a few of what it was trained on, so that decoding from its embedding of the same
samples can be told from decoding of new ones, also when a part was cut out or labels were added.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from .draws import Purpose, words
from .windows import Spans

__all__ = ["prints_of", "share_seen"]

_PRINTED, _PRINTS = 16, 64
"""Samples that a print is made of, and prints that a run keeps."""


@cache
def _odd(channels: int) -> NDArray[np.uint64]:
    """A number for every channel, none of them even."""
    found = words(2023, Purpose.PRINT, torch.tensor([0, 1]), channels).numpy().astype(np.uint64)
    return np.asarray(((found[0] << np.uint64(32)) + found[1]) | np.uint64(1))


def _prints(activity: NDArray[np.float32]) -> NDArray[np.uint64]:
    """A number for every stretch of `_PRINTED` samples, (..., T - 15): equal where all values are.

    The activity is (..., T, C).
    """
    bits = np.ascontiguousarray(activity, dtype=np.float32).view(np.uint32).astype(np.uint64)
    with np.errstate(over="ignore"):
        row = (bits * _odd(activity.shape[-1])).sum(axis=-1, dtype=np.uint64)
        n = max(0, row.shape[-1] - _PRINTED + 1)
        total = np.zeros((*row.shape[:-1], n), dtype=np.uint64)
        for i in range(_PRINTED):
            total = total * np.uint64(0x9E3779B97F4A7C15) + row[..., i : i + n]
    return total


def prints_of(activity: NDArray[np.float32], spans: Spans) -> tuple[str, ...]:
    """Prints of stretches evenly spread over some spans; where nothing changes there is none.

    Parameters
    ----------
    activity : array of float32, shape (T, C)
    spans : array of int64, shape (E, 2)

    Returns
    -------
    tuple of str
        At most 64, of 16 hex digits each.
    """
    starts = [np.arange(a, b - _PRINTED + 1) for a, b in spans]
    every = np.concatenate([np.empty(0, dtype=np.int64), *starts])
    n = min(_PRINTS, len(every))
    first = every[np.unique(np.linspace(0, max(0, len(every) - 1), n).astype(np.int64))]
    stretches = np.asarray(activity[first[:, None] + np.arange(_PRINTED)])
    changing = (stretches != stretches[:, :1]).any(axis=(1, 2))
    return tuple(f"{int(p):016x}" for p in _prints(stretches[changing])[:, 0])


def share_seen(seen: Sequence[str], activity: NDArray[np.float32]) -> float:
    """How much of what was printed lies in some activity; NaN where nothing was.

    Parameters
    ----------
    seen : sequence of str
        From `prints_of`.
    activity : array of float32, shape (T, C)
    """
    if not len(seen):
        return float("nan")
    there: set[str] = set()
    kept = np.array([int(p, 16) for p in seen], dtype=np.uint64)
    step = max(1, 2**22 // max(1, activity.shape[1]))
    for i in range(0, len(activity), step):
        some = _prints(activity[i : i + step + _PRINTED - 1])
        there |= {f"{int(p):016x}" for p in kept[np.isin(kept, some)]}
    return sum(p in there for p in seen) / len(seen)
