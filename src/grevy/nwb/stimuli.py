"""What was shown: interval tables with frames, IndexSeries, or trials that name a stimulus."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..stimulus import StimulusTable, table_from_intervals, table_from_series
from .clock import clock
from .files import load, neurodata_type, walk
from .intervals import spans
from .tables import Table, interval_tables

__all__ = ["Shown", "find_stimuli"]

_NAMES = (
    "stimulus_name", "stim_name", "movie_name", "clip_name", "image_name", "stimulus_template_name",
    "stimulus", "stim", "movie", "clip", "framename", "stimulus_type", "stim_type",
)  # fmt: skip
"""Columns that name what was shown, the best first."""

_NO_TRIALS = ("epochs", "invalid_times")


@dataclass(frozen=True, eq=False)
class Shown:
    """The stimulus table of a file.

    Attributes
    ----------
    table : StimulusTable
    kind : {"IndexSeries", "intervals table"}
    source : dict of str to str
        Object path of each stimulus.
    n_rows : dict of str to int
        Rows of each stimulus as stored.
    notes : tuple of str
        What could not be used, or had to be assumed.
    """

    table: StimulusTable
    kind: str
    source: dict[str, str]
    n_rows: dict[str, int]
    notes: tuple[str, ...] = ()


@dataclass
class _Rows:
    """Rows of several interval tables, to be joined."""

    start: list[NDArray[np.float64]] = field(default_factory=list)
    stop: list[NDArray[np.float64]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    frames: list[NDArray[np.float64]] = field(default_factory=list)
    blocks: list[NDArray[np.float64]] = field(default_factory=list)
    source: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def find_stimuli(file: Any, wanted: Sequence[str] | None = None) -> Shown | None:
    """The stimuli of a file, None where it has none.

    Parameters
    ----------
    file : h5py.File
    wanted : sequence of str, optional
        Only the stimuli of these names.

    Returns
    -------
    Shown or None
        Of interval tables if one of them has a column `frame` (then tables that name a stimulus
        are taken too), else of IndexSeries, else of tables that name a stimulus.

    Raises
    ------
    DataError
        If `wanted` names a stimulus that is not there, or timestamps or frames cannot be used.
    """
    tables = [t for t in interval_tables(file) if t.name not in _NO_TRIALS]
    framed = [t for t in tables if "frame" in t.plain]
    series = _index_series(file)
    named = [t for t in tables if _name_column(t) is not None]
    if framed:
        others = [t for t in named if t not in framed and _name_column(t) == "stimulus_name"]
        own = [t for t in others if t.path.startswith("intervals/")]
        shown = _from_tables([t for t in tables if t in framed or t in own], wanted)
        if series:
            listed = ", ".join(series)
            note = f"IndexSeries were not read, since interval tables have frames: {listed}."
            shown = Shown(shown.table, shown.kind, shown.source, shown.n_rows, (*shown.notes, note))
        return shown
    if series:
        return _from_series(series, wanted)
    if named:
        return _from_tables(named, wanted)
    if wanted:
        raise DataError(
            f"stimuli must name stimuli of the file; found that it has none, not {list(wanted)}."
        )
    return None


def _index_series(file: Any) -> dict[str, tuple[str, Any]]:
    """Name, object path and group of each IndexSeries; the path is the name where names repeat."""
    found: dict[str, tuple[str, Any]] = {}
    for path, group in walk(file, ("stimulus/presentation", "acquisition", "processing")):
        if neurodata_type(group) == "IndexSeries" and "data" in group:
            name = path.rsplit("/", 1)[-1]
            found[path if name in found else name] = (path, group)
    return found


def _from_series(series: dict[str, tuple[str, Any]], wanted: Sequence[str] | None) -> Shown:
    _check_names(wanted, list(series))
    rows: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {}
    source, n_rows, notes = {}, {}, []
    for name, (path, group) in series.items():
        if wanted and name not in wanted:
            continue
        frames = load(group["data"]).ravel()
        when = clock(group)
        source[name], n_rows[name] = path, len(frames)
        n = 0 if when is None else len(frames) if when.n is None else min(len(frames), when.n)
        stamps = "no clock" if when is None else f"{when.n} timestamps"
        if when is None or (when.n is not None and when.n != len(frames)):
            notes.append(f"'{path}' has {len(frames)} frames and {stamps}: {n} rows were used.")
        rows[name] = (np.empty(0) if when is None else when.at(n), frames[:n])
    return Shown(table_from_series(rows), "IndexSeries", source, n_rows, tuple(notes))


def _name_column(one: Table) -> str | None:
    lower = {
        c.lower(): c
        for c in one.plain
        if one.group[c].ndim == 1 and one.group[c].dtype.kind in "OS"
    }
    return next((lower[c] for c in _NAMES if c in lower), None)


def _from_tables(tables: Sequence[Table], wanted: Sequence[str] | None) -> Shown:
    rows = _Rows()
    for one in tables:
        _append(rows, one)
    there = list(dict.fromkeys(rows.names))
    _check_names(wanted, there)
    names = np.array(rows.names, dtype=object)
    keep = np.isin(names, list(wanted)) if wanted else np.ones(len(names), bool)
    frames, blocks = np.concatenate(rows.frames)[keep], np.concatenate(rows.blocks)[keep]
    table = table_from_intervals(
        np.concatenate(rows.start)[keep],
        np.concatenate(rows.stop)[keep],
        [str(n) for n in names[keep]],
        frames if np.isfinite(frames).any() else None,
        blocks if np.isfinite(blocks).any() else None,
    )
    n_rows = {name: int((names == name).sum()) for name in table.names}
    source = {name: rows.source[name] for name in table.names}
    return Shown(table, "intervals table", source, n_rows, tuple(rows.notes))


def _append(rows: _Rows, one: Table) -> None:
    """Add the rows of one table that have a start and a stop."""
    time, assumed = spans(one)
    rows.notes += assumed
    column = _name_column(one)
    plain_name = re.sub(r"_presentations$", "", one.name)
    names = one.column(column) if column else np.full(one.n_rows, plain_name, dtype=object)
    ok = np.isfinite(time).all(axis=1) & (time[:, 1] >= time[:, 0])
    if not ok.all():
        rows.notes.append(
            f"{int((~ok).sum())} of {one.n_rows} rows of '{one.path}' have no usable times "
            f"and were left out."
        )
    rows.start.append(time[ok, 0])
    rows.stop.append(time[ok, 1])
    here = [str(n) or plain_name for n in names[ok]]
    rows.names += here
    rows.source |= {n: one.path for n in dict.fromkeys(here) if n not in rows.source}
    rows.frames.append(_numbers(one, "frame")[ok])
    rows.blocks.append(_numbers(one, "stimulus_block")[ok])


def _numbers(one: Table, column: str) -> NDArray[np.float64]:
    """A column of numbers, NaN where the table has none or a value is not finite."""
    if column not in one.plain or one.group[column].dtype.kind not in "iufb":
        return np.full(one.n_rows, np.nan)
    values = one.column(column).astype(np.float64).ravel()
    return np.where(np.isfinite(values), values, np.nan)


def _check_names(wanted: Sequence[str] | None, there: Sequence[str]) -> None:
    missing = [n for n in wanted or () if n not in there]
    if missing:
        raise DataError(
            f"stimuli must name stimuli of the file; found '{missing[0]}', which is none of "
            f"{', '.join(there[:40])}."
        )
