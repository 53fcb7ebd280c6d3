"""Which axis is time, and when each sample was taken."""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .files import load, refuse_ages, seconds, text

__all__ = ["Axes", "Clock", "axes", "clock", "increasing", "period_of", "wrong_steps"]


@dataclass(frozen=True, eq=False)
class Clock:
    """The clock of a series as the file states it.

    Attributes
    ----------
    times_s : array of float64, shape (m,), or None
        Timestamps, where the file has them.
    start_s, rate_hz : float
        Otherwise the time of the first sample, and samples a second. NaN where not stated.
    """

    times_s: NDArray[np.float64] | None
    start_s: float = float("nan")
    rate_hz: float = float("nan")

    @property
    def n(self) -> int | None:
        """Number of timestamps, None where only a rate is stated."""
        return None if self.times_s is None else len(self.times_s)

    def at(self, n_samples: int) -> NDArray[np.float64]:
        """Times of `n_samples` samples in seconds."""
        if self.times_s is not None:
            return self.times_s[:n_samples]
        with np.errstate(over="ignore"):  # of a rate that is nearly zero
            return self.start_s + np.arange(n_samples) / self.rate_hz


def clock(group: Any) -> Clock | None:
    """The clock of a TimeSeries, None where it states none that can be used."""
    if "timestamps" in group:
        stamps = group.get("timestamps")  # None for a link to what is not there
        times = np.empty(0) if stamps is None else seconds(stamps).ravel()
        return Clock(times) if len(times) else None
    if "starting_time" in group:
        start = group["starting_time"]
        first, rate = float(text(load(start))), float(text(start.attrs.get("rate", "nan")))
        refuse_ages(np.array([first]), start.name)
        if np.isfinite(first) and np.isfinite(rate) and rate > 0:
            return Clock(None, first, rate)
    return None


@dataclass(frozen=True)
class Axes:
    """Which axis of a stored array is time.

    Attributes
    ----------
    roi_first : bool
        Whether the array lies (C, T).
    n_samples, n_channels : int
        T and C. T is the number of samples that have a timestamp.
    notes : tuple of str
        How it was decided, where that needs saying.
    """

    roi_first: bool
    n_samples: int
    n_channels: int
    notes: tuple[str, ...] = ()

    @property
    def orientation(self) -> Literal["time first", "roi first"]:
        """In words."""
        return "roi first" if self.roi_first else "time first"


def axes(where: str, shape: tuple[int, ...], stamps: int | None, rois: int | None) -> Axes:
    """Decide which axis is time from the number of timestamps and of ROIs, never from the lengths.

    Parameters
    ----------
    where : str
        Object path, for messages.
    shape : tuple of int
        Shape as stored, one or two axes.
    stamps : int or None
        Number of timestamps; None where a rate is stated.
    rois : int or None
        Number of ROIs, where the file lists them.

    Returns
    -------
    Axes

    Raises
    ------
    DataError
        If no axis fits the timestamps, or nothing says which axis is time.
    """
    if len(shape) not in (1, 2) or 0 in shape:
        raise DataError(
            f"a series must have one or two axes and hold data; found shape {shape} in '{where}'. "
            f"Choose another series."
        )
    if len(shape) == 1:
        return _trim(where, False, shape[0], 1, stamps)
    fits = [stamps is None or abs(n - stamps) <= 1 for n in shape]
    by_rois = [rois is not None and shape[1 - i] == rois and shape[i] != rois for i in (0, 1)]
    if not any(fits):
        raise DataError(
            f"one axis of '{where}' must be as long as its timestamps; found shape {shape} and "
            f"{stamps} timestamps. Choose another series, or mend the file."
        )
    if all(fits) and any(by_rois):
        fits = by_rois
    elif all(fits) and stamps is None and rois is None:
        fits = [True, False]  # the order that NWB asks for, and nothing in the file against it
    if all(fits):
        raise DataError(
            f"the file must say which axis of '{where}' is time; found shape {shape}, "
            f"{'a rate' if stamps is None else f'{stamps} timestamps'} and "
            f"{'no' if rois is None else rois} ROIs, which fit both ways or neither. Read the "
            f"array yourself and hand it to grevy.make_recording."
        )
    roi_first = fits[1]
    t, c = (shape[1], shape[0]) if roi_first else shape
    return _trim(where, roi_first, t, c, stamps, rois)


def _trim(
    where: str, roi_first: bool, t: int, c: int, stamps: int | None, rois: int | None = None
) -> Axes:
    notes = []
    if roi_first:
        notes.append(
            f"'{where}' is stored (roi, time), shape ({c}, {t}); it is transposed when read."
        )
    if rois is not None and rois != c:
        notes.append(f"'{where}' has {c} channels but lists {rois} ROIs.")
    if stamps is not None and abs(stamps - t) > 1:
        raise DataError(
            f"'{where}' must have one timestamp a sample; found {t} samples and {stamps} "
            f"timestamps. Choose another series, or mend the file."
        )
    if stamps == t + 1:
        notes.append(
            f"'{where}' has one timestamp too many ({stamps} for {t} samples): the last is dropped."
        )
    elif stamps == t - 1:
        notes.append(
            f"'{where}' has one timestamp too few ({stamps} for {t} samples): the last sample is "
            f"dropped."
        )
    n = t if stamps is None else min(t, stamps)
    if n < 2:
        raise DataError(
            f"'{where}' must have at least two samples; found {n}. Choose another series."
        )
    return Axes(roi_first, n, c, tuple(notes))


def wrong_steps(times_s: NDArray[np.float64]) -> str:
    """In words what is wrong with a clock, with counts and the first place; "" where nothing is."""
    missing = np.flatnonzero(~np.isfinite(times_s))
    said = []
    if len(missing):
        said.append(f"{len(missing)} that are not finite (the first at sample {missing[0]})")
    kept = np.flatnonzero(np.isfinite(times_s))
    steps = np.diff(times_s[kept])
    for name, which in (("repeated", steps == 0), ("falling", steps < 0)):
        at = np.flatnonzero(which)
        if len(at):
            i, j = kept[at[0]], kept[at[0] + 1]
            said.append(
                f"{len(at)} {name} (the first from {times_s[i]:.6f} s at sample {i} to "
                f"{times_s[j]:.6f} s at sample {j})"
            )
    return ", ".join(said)


def increasing(times_s: NDArray[np.float64]) -> NDArray[np.int64]:
    """The most samples whose times strictly increase, as sample numbers.

    One stray timestamp far ahead costs one sample, not all that follow it.
    """
    ends: list[float] = []  # smallest last time of an increasing run of each length
    last: list[int] = []
    before = np.full(len(times_s), -1, np.int64)
    for i, t in enumerate(times_s.tolist()):
        if not np.isfinite(t):
            continue
        k = bisect_left(ends, t)
        before[i] = last[k - 1] if k else -1
        if k == len(ends):
            ends.append(t)
            last.append(i)
        else:
            ends[k], last[k] = t, i
    kept = []
    i = last[-1] if last else -1
    while i >= 0:
        kept.append(i)
        i = int(before[i])
    return np.array(kept[::-1], np.int64)


def period_of(unit: str) -> float | None:
    """Length of the circle in an angular unit, None for any other unit."""
    word = unit.strip().lower()
    if re.fullmatch(r"rad(ian)?s?", word):
        return 2 * np.pi
    if re.fullmatch(r"deg(ree)?s?|°", word):
        return 360.0
    return None
