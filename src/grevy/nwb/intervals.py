"""Stretches of time: rows of interval tables, unions of them, and the epochs a user names."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .files import seconds
from .tables import Table, interval_tables

__all__ = ["Spans", "inside", "intersect", "restrict_to", "spans", "tagged", "union", "without"]

Spans = NDArray[np.float64]
"""[start, stop) in seconds, shape (k, 2)."""


def spans(one: Table) -> tuple[Spans, tuple[str, ...]]:
    """Start and stop of every row, shape (n_rows, 2), in seconds, and what had to be assumed.

    A row without a stop lasts until the next row starts; the last one as long as the median row.
    """
    start = seconds(one.group["start_time"])
    stop = seconds(one.group["stop_time"])
    missing = np.isfinite(start) & ~np.isfinite(stop)
    if not missing.any():
        return np.stack([start, stop], axis=1), ()
    order = np.argsort(start, kind="stable")
    following = np.full(len(start), np.nan)
    following[order[:-1]] = start[order[1:]]
    stop = np.where(missing, following, stop)
    lasts = stop - start
    typical = np.nanmedian(lasts) if np.isfinite(lasts).any() else np.nan
    stop = np.where(missing & ~np.isfinite(stop), start + typical, stop)
    note = (
        f"{int(missing.sum())} of {one.n_rows} rows of '{one.path}' have no stop_time: each was "
        f"taken to last until the next row starts."
    )
    return np.stack([start, stop], axis=1), (note,)


def union(intervals: Spans) -> Spans:
    """Sort intervals, drop empty ones, join those that touch or overlap; shape (k, 2)."""
    ok = np.isfinite(intervals).all(axis=1) & (intervals[:, 1] > intervals[:, 0])
    rows = intervals[ok][np.argsort(intervals[ok, 0], kind="stable")]
    if len(rows) == 0:
        return rows
    reach = np.maximum.accumulate(rows[:, 1])
    first = np.flatnonzero(np.append(True, rows[1:, 0] > reach[:-1]))
    return np.stack([rows[first, 0], reach[np.append(first[1:], len(rows)) - 1]], axis=1)


def intersect(a: Spans, b: Spans) -> Spans:
    """Time that lies in both of two unions of intervals."""
    edges = np.unique(np.concatenate([a.ravel(), b.ravel()]))
    if len(edges) < 2:
        return np.empty((0, 2))
    pieces = np.stack([edges[:-1], edges[1:]], axis=1)
    both = np.ones(len(pieces), bool)
    for spans_ in (a, b):
        both &= inside(pieces[:, 0], spans_) >= 0
    return union(pieces[both])


def without(a: Spans, b: Spans) -> Spans:
    """Time of the union `a` that does not lie in the union `b`."""
    if len(b) == 0:
        return a
    rest = np.concatenate([[-np.inf], b.ravel(), [np.inf]]).reshape(-1, 2)
    lo, hi = float(a.min(initial=0.0)) - 1, float(a.max(initial=0.0)) + 1
    return intersect(a, union(np.clip(rest, lo, hi)))


def inside(times_s: NDArray[np.float64], sorted_spans: Spans) -> NDArray[np.int64]:
    """Which of a union of intervals [start, stop) each time lies in, -1 for none."""
    if len(sorted_spans) == 0:
        return np.full(len(times_s), -1, np.int64)
    at = np.searchsorted(sorted_spans[:, 0], times_s, side="right") - 1
    ok = (at >= 0) & (times_s < sorted_spans[np.maximum(at, 0), 1])
    return np.where(ok, at, -1)


def restrict_to(file: Any, wanted: str) -> tuple[Spans, str]:
    """The time that a tag, an interval table or 'table:value' stands for.

    Returns
    -------
    spans : array, shape (k, 2)
        In seconds, in order, touching ones joined.
    note : str

    Raises
    ------
    DataError
        If nothing has that name, or it holds no time.
    """
    tables = interval_tables(file)
    tags: dict[str, list[Spans]] = {}
    for one in tables:
        if one.name == "epochs":
            for tag, rows in tagged(one):
                tags.setdefault(tag, []).append(rows)
    found: Spans | None = None
    said = ""
    head, _, tail = wanted.rpartition(":")
    by_name = {t.name: t for t in tables} | {t.path: t for t in tables}
    if wanted in tags:
        found, said = np.concatenate(tags[wanted]), f"epochs tagged '{wanted}'"
    elif wanted in by_name:
        found, said = spans(by_name[wanted])[0], f"the intervals of table '{wanted}'"
    elif head in by_name:
        found = spans(by_name[head])[0][_having(by_name[head], tail)]
        said = f"the rows of table '{head}' with '{tail}'"
    if found is None:
        names = ", ".join(sorted({t.name for t in tables})) or "none"
        raise DataError(
            f"epochs must name a tag, a table of intervals, or table:value; found '{wanted}'. Tags "
            f"of the file: {', '.join(sorted(tags)) or 'none'}; tables: {names}."
        )
    time = union(found)
    if len(time) == 0:
        raise DataError(f"epochs '{wanted}' must hold some time; found no row of finite length.")
    total = float(np.diff(time, axis=1).sum())
    return time, f"Only {said} were read: {len(time)} stretches, {total:.6g} s."


def tagged(one: Table) -> list[tuple[str, Spans]]:
    """Each tag of a table of epochs with its row, shape (1, 2); a row may have several tags."""
    rows = spans(one)[0]
    if "tags" in one.ragged:
        return [(str(tag), rows[[i]]) for i, tags in enumerate(one.rows("tags")) for tag in tags]
    words = [c for c in one.plain if one.group[c].dtype.kind in "OS"]
    return [(str(v), rows[[i]]) for c in words for i, v in enumerate(one.column(c))]


def _having(one: Table, value: str) -> NDArray[np.int64]:
    rows: set[int] = set()
    for c in one.plain:
        if c not in ("start_time", "stop_time") and one.group[c].ndim == 1:
            rows |= {i for i, v in enumerate(one.column(c).tolist()) if _same(v, value)}
    if "tags" in one.ragged:
        rows |= {i for i, tags in enumerate(one.rows("tags")) if value in [str(t) for t in tags]}
    if not rows:
        raise DataError(
            f"epochs '{one.name}:{value}': no row of '{one.path}' has the value '{value}'."
        )
    return np.array(sorted(rows), np.int64)


def _same(value: Any, wanted: str) -> bool:
    if isinstance(value, str):
        return value == wanted
    try:
        return float(value) == float(wanted)
    except (TypeError, ValueError):
        return str(value) == wanted
