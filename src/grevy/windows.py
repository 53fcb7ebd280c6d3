"""Receptive fields, centres that have a whole one, gathering: every off-by-one lives here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "ReceptiveField",
    "dense_rows",
    "keep",
    "padded_rows",
    "valid_centres",
    "widen",
    "within",
    "without",
]

Spans = NDArray[np.int64]
"""Stretches of samples, shape (E, 2), each [start, stop)."""


@dataclass(frozen=True)
class ReceptiveField:
    """The samples an encoder sees for centre i: i - left ... i + right - 1.

    `right` counts the centre itself, as `cebra.data.Offset` does, so `ReceptiveField(5, 5)` is
    five samples of past, the present, and four of future.
    """

    left: int
    right: int

    def __len__(self) -> int:
        return self.left + self.right


def valid_centres(spans: Spans, field: ReceptiveField, *, reach: int = 0) -> NDArray[np.int64]:
    """Samples whose window, and the window `reach` samples later, lie in one span.

    Parameters
    ----------
    spans : array of int64, shape (E, 2)
        [start, stop) stretches that no window may leave.
    field : ReceptiveField
    reach : int
        Samples ahead that must have a whole window too (the time offset of a positive pair).

    Returns
    -------
    array of int64, shape (n,), increasing

    Examples
    --------
    >>> valid_centres(np.array([[0, 6], [6, 9]]), ReceptiveField(1, 2)).tolist()
    [1, 2, 3, 4, 7]
    """
    parts = [np.arange(a + field.left, b - field.right + 1 - reach) for a, b in spans]
    return np.concatenate(parts).astype(np.int64) if parts else np.empty(0, dtype=np.int64)


def keep(spans: Spans, mask: NDArray[np.bool_]) -> Spans:
    """The parts of spans where a mask over samples is true, as spans."""
    parts = []
    for a, b in spans:
        flags = np.concatenate(([False], mask[a:b], [False])).astype(np.int8)
        steps = np.diff(flags)
        parts.append(np.stack([np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)], 1) + a)
    return np.concatenate(parts).astype(np.int64) if parts else np.empty((0, 2), dtype=np.int64)


def within(spans: Spans, borders: Spans) -> Spans:
    """Spans cut wherever they reach over a border: each part lies in one stretch of `borders`.

    Examples
    --------
    >>> within(np.array([[2, 8]]), np.array([[0, 5], [5, 7], [9, 12]])).tolist()
    [[2, 5], [5, 7]]
    """
    parts = [np.clip(spans, a, b) for a, b in borders]
    cut = np.concatenate([np.empty((0, 2)), *parts]).astype(np.int64)
    return cut[cut[:, 0] < cut[:, 1]]


def widen(mask: NDArray[np.bool_], before: int, after: int) -> NDArray[np.bool_]:
    """A mask over samples grown by `before` samples to the left and `after` to the right.

    Examples
    --------
    >>> widen(np.array([0, 0, 1, 0, 0], bool), 1, 2).astype(int).tolist()
    [0, 1, 1, 1, 1]
    """
    change = np.zeros(len(mask) + 1, dtype=np.int64)
    flags = np.concatenate(([False], mask, [False])).astype(np.int8)
    starts, stops = np.flatnonzero(np.diff(flags) == 1), np.flatnonzero(np.diff(flags) == -1)
    np.add.at(change, np.maximum(starts - before, 0), 1)
    np.add.at(change, np.minimum(stops + after, len(mask)), -1)
    return np.cumsum(change[:-1]) > 0


def without(spans: Spans, mask: NDArray[np.bool_], *, before: int = 0, after: int = 0) -> Spans:
    """Spans less the samples of a mask and a guard around them.

    Parameters
    ----------
    spans : array of int64, shape (E, 2)
    mask : array of bool, shape (T,)
        Samples to leave out.
    before, after : int
        Guard in samples: a sample up to `before` ahead of a left-out one goes too, as does one up
        to `after` behind it.

    Returns
    -------
    array of int64, shape (E', 2)
    """
    return keep(spans, ~widen(mask, before, after))


def dense_rows(start: Tensor, outputs: int, field: ReceptiveField, n_samples: int) -> Tensor:
    """Sample numbers behind segments of `outputs` neighbouring windows, time first.

    Parameters
    ----------
    start : int64 tensor, shape (..., n)
        Centre of the first window of each segment.
    outputs : int
        Windows a segment.
    field : ReceptiveField
    n_samples : int
        Rows past the end are clipped; the caller uses no window that needs them.

    Returns
    -------
    int64 tensor, shape (..., outputs + len(field) - 1, n)
    """
    steps = torch.arange(outputs + len(field) - 1, device=start.device) - field.left
    return (start[..., None, :] + steps[:, None]).clamp_(0, n_samples - 1)


def padded_rows(
    spans: Sequence[tuple[int, int]] | Spans, field: ReceptiveField
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Rows to gather so that every sample of every span gets a window, edges replicated.

    The spans are laid end to end, each with `left` copies of its first sample before it and
    `right - 1` of its last behind it, so one dense pass serves them all.

    Parameters
    ----------
    spans : array of int64, shape (E, 2)
    field : ReceptiveField

    Returns
    -------
    rows : array of int64, shape (R,)
        Sample numbers to gather.
    outputs : array of int64, shape (n,)
        Which window of the dense pass over `rows` belongs to each sample.
    samples : array of int64, shape (n,)
        The sample of each window.
    padded : array of bool, shape (n,)
        Whether the window holds replicated samples.
    """
    rows, outputs, samples, padded = [], [], [], []
    position = 0
    for a, b in spans:
        centres = np.arange(a, b)
        rows.append(np.clip(np.arange(a - field.left, b + field.right - 1), a, b - 1))
        outputs.append(position + np.arange(b - a))
        samples.append(centres)
        padded.append((centres - field.left < a) | (centres + field.right > b))
        position += len(rows[-1])
    if not rows:
        none = np.empty(0, dtype=np.int64)
        return none, none, none, none.astype(bool)
    return (
        np.concatenate(rows).astype(np.int64),
        np.concatenate(outputs).astype(np.int64),
        np.concatenate(samples).astype(np.int64),
        np.concatenate(padded),
    )
