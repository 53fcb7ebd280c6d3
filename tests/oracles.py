"""Slow, obvious twins of what grevy computes. Loops are meant; nothing here is fast or clever."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# --- The OpenScope notebook's stimulus loops, step for step, its faults included -----------------


def notebook_table(series: Mapping[str, tuple[Sequence[float], Sequence[int]]]) -> list[tuple]:
    """Rows (start, stop, frame, name): every timestamp but the last of each series, sorted."""
    rows = []
    for name, (times, frames) in series.items():
        rows += list(zip(times[:-1], times[1:], frames[:-1], [name] * len(times[:-1]), strict=True))
    rows.sort(key=lambda row: row[0])
    return rows


def notebook_intervals(
    start: Any, frame: Any, name: Any
) -> tuple[list[tuple[float, float]], list[int], list[str]]:
    """Runs of one frame of one stimulus; each lasts until the next starts; the last is lost."""
    intervals, frames, names = [], [], []
    begin = start[0]
    for i in range(len(start)):
        if i + 1 == len(start):
            continue
        this_frame, next_frame, next_start = frame[i], frame[i + 1], start[i + 1]
        this_name, next_name = name[i], name[i + 1]
        if this_frame != next_frame or this_name != next_name:
            intervals.append((begin, next_start))
            frames.append(this_frame)
            names.append(this_name)
            begin = next_start
    return intervals, frames, names


def notebook_samples(
    times: Sequence[float], intervals: Sequence[tuple[float, float]], frames: Any, names: Any
) -> tuple[list[int], list[str], int]:
    """Frame and stimulus of every sample within an interval, and how many came before."""
    i = j = before = 0
    of_frame, of_name = [], []
    while i < len(times) and j < len(intervals):
        start, stop = intervals[j]
        if times[i] >= start and times[i] <= stop:
            of_frame.append(frames[j])
            of_name.append(names[j])
            i += 1
        elif times[i] < start:
            i += 1
            before += 1
        else:
            j += 1
    return of_frame, of_name, before


def notebook_repeats(frames: Sequence[int]) -> list[list[int]]:
    """Positions of each repeat of one stimulus: a repeat ends where the next frame is 0."""
    repeats: list[list[int]] = []
    current: list[int] = []
    last = max(frames)
    for i in range(len(frames) - 1):
        if frames[i] < last:
            current.append(i)
        if frames[i + 1] == 0 or i == len(frames) - 2:
            repeats.append(list(current))
            current.clear()
    return repeats


# --- The rules of grevy.stimulus for series, one row and one sample at a time --------------------


def obvious_track(
    times: Sequence[float],
    series: Mapping[str, tuple[Sequence[float], Sequence[int]]],
    refreshes: float = 3.0,
) -> list[tuple[str, int, int]]:
    """(stimulus, frame, repeat) of every sample, ("", -1, -1) where nothing was shown."""
    rows = notebook_table(series)
    pace = {name: np.median(np.diff(when)) for name, (when, _) in series.items() if len(when) > 1}
    falls = {
        name: sum(np.sign(np.diff(np.asarray(what, int)[:-1]))) < 0
        for name, (_, what) in series.items()
    }
    last: dict[str, int] = {}
    repeat: list[int] = []
    ends: list[float] = []
    for i, (start, stop, frame, name) in enumerate(rows):
        refresh = pace[name]
        ends.append(start + refresh if stop - (start + refresh) > refreshes * refresh else stop)
        if name not in last:
            repeat.append(0)
        else:
            k = last[name]
            step = int(frame) - int(rows[k][2])
            reset = step > 0 if falls[name] else step < 0
            gap = start - ends[k] > refreshes * refresh
            taken = i - k > 1 and start - rows[k][0] > 1.5 * refresh
            repeat.append(repeat[k] + int(reset or gap or taken))
        last[name] = i
    told = []
    for t in times:
        i = max((k for k in range(len(rows)) if rows[k][0] <= t), default=-1)
        if i < 0:
            told.append(("", -1, -1))
            continue
        end = ends[i]
        if i + 1 < len(rows) and rows[i + 1][0] - end <= refreshes * pace[rows[i][3]]:
            end = rows[i + 1][0]
        told.append((rows[i][3], rows[i][2], repeat[i]) if t < end else ("", -1, -1))
    return told
