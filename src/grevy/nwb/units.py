"""Sorted units: choose some by a condition, bin their spikes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError, LimitError
from .activity import Traces
from .files import (
    holds,
    is_group,
    load,
    numbers,
    refers,
    refuse_ages,
    refuse_forged,
    refuse_size,
    seconds,
)
from .intervals import Spans, intersect, union
from .tables import Table, few_values, places, referenced, table

__all__ = [
    "DEFAULT_BIN_S",
    "Units",
    "bin_spikes",
    "choose",
    "find_units",
    "read_units",
    "unit_span",
]

DEFAULT_BIN_S = 0.05
MAX_BINS = 50_000_000
"""A day at 2 ms; more comes from spike times that are no seconds."""

_TOKEN = re.compile(r"\s*(?:('[^']*'|\"[^\"]*\")|(==|!=|<=|>=|<|>)|([^\s'\"=!<>]+))")


@dataclass(frozen=True, eq=False)
class Units:
    """The units table of a file, spikes not yet read.

    Attributes
    ----------
    table : Table
    columns : tuple of str
        Those that a condition may name; `location` is looked up in the table of electrodes where
        the units have none of their own.
    """

    table: Table
    columns: tuple[str, ...]

    @property
    def n(self) -> int:
        """Number of units."""
        return self.table.n_rows

    @property
    def ids(self) -> NDArray[Any]:
        """Id of each unit, shape (n,)."""
        group = self.table.group
        return load(group["id"]).ravel() if "id" in group else np.arange(self.n)

    def column(self, name: str) -> NDArray[Any]:
        """A column that a condition may name, shape (n,)."""
        if name == "id":
            return self.ids
        if name in self.table.plain:
            return self.table.column(name)
        rows = _electrode_rows(self.table)
        if rows is None:
            raise DataError(f"'{self.table.path}' has no column '{name}'.")
        places = rows[0].column(name)
        return np.array([places[i] if i >= 0 else "" for i in rows[1]], dtype=object)


def find_units(file: Any) -> Units | None:
    """The units table of a file, None where it has none with spikes."""
    group = file.get("units")
    if not is_group(group) or "spike_times" not in group:
        return None
    if "spike_times_index" not in group:
        return None
    one = table("units", group)
    plain = tuple(
        c for c in one.plain if group[c].ndim == 1 and group[c].dtype.kind in "iufbOS"
        and not refers(group[c]) and c not in ("electrodes", "spike_times")
    )  # fmt: skip
    found = _electrode_rows(one)
    own = found is not None and "location" in found[0].plain and "location" not in plain
    return Units(one, (*plain, "location", "id") if own else (*plain, "id"))


def _electrode_rows(units: Table) -> tuple[Table, NDArray[np.int64]] | None:
    """The table of electrodes and the row of each unit's first electrode, -1 for none."""
    group = units.group
    if "electrodes" in group:
        electrodes = referenced(group["electrodes"])
        if electrodes is None:
            return None
        rows = numbers(group["electrodes"], np.int64).ravel()
        if "electrodes" in units.ragged:
            ends = units.ends("electrodes")
            begins = np.append(0, ends[:-1])
            padded = np.append(rows, -1)
            rows = np.where(ends > begins, padded[np.minimum(begins, len(rows))], -1)
        rows = np.where(rows < electrodes.n_rows, rows, -1)
        return (electrodes, rows) if len(rows) == units.n_rows else None
    path = "general/extracellular_ephys/electrodes"
    if "peak_channel_id" in units.plain and path in group.file:
        electrodes = table(path, group.file[path])
        ids = {int(v): i for i, v in enumerate(load(electrodes.group["id"]).ravel())}
        peak = units.column("peak_channel_id")
        return electrodes, np.array([ids.get(int(v), -1) for v in peak], np.int64)
    return None


def choose(units: Units, condition: str | None) -> NDArray[np.int64]:
    """Rows of the units that meet a condition.

    Parameters
    ----------
    units : Units
    condition : str or None
        Comparisons `COLUMN OP VALUE` with ==, !=, <, <=, >, >=, joined by `and`; VALUE is a
        number, a word, or text in quotes. Nothing is ever evaluated as code.

    Returns
    -------
    array of int64
        At least one row.

    Raises
    ------
    ConfigError
        If the condition cannot be read.
    DataError
        If a column does not exist or cannot be compared, or no unit is left.
    """
    chosen = np.ones(units.n, bool)
    for column, op, value in _parse(condition) if condition is not None else []:
        if column not in units.columns:
            raise DataError(
                f"a condition on units must name a column; found '{column}'. Columns: "
                f"{', '.join(units.columns)}."
            )
        chosen &= _compare(units.column(column), column, op, value)
    rows = np.flatnonzero(chosen)
    if len(rows) == 0:
        raise DataError(
            f"some units must meet '{condition}'; found none of {units.n}. "
            f"{_values(units, condition)}"
        )
    return rows


def _values(units: Units, condition: str | None) -> str:
    said = []
    for column, _, _ in _parse(condition) if condition else []:
        counts = few_values(units.column(column))
        if counts:
            said.append(f"{column} is {', '.join(f'{v} ({n})' for v, n in counts)}")
    return f"In the file {'; '.join(said)}." if said else ""


def _parse(condition: str) -> list[tuple[str, str, str]]:
    tokens: list[tuple[str, str]] = []
    at = 0
    end = len(condition.rstrip())
    while at < end:
        found = _TOKEN.match(condition, at)
        if found is None:
            raise _unreadable(condition, condition[at:])
        quoted, op, word = found.groups()
        tokens.append(("text", quoted[1:-1]) if quoted else ("op", op) if op else ("word", word))
        at = found.end()
    parts: list[tuple[str, str, str]] = []
    while True:
        kinds = [kind for kind, _ in tokens[:3]]
        if len(kinds) < 3 or kinds[0] == "op" or kinds[1] != "op" or kinds[2] == "op":
            raise _unreadable(condition, " ".join(word for _, word in tokens[:3]))
        parts.append((tokens[0][1], tokens[1][1], tokens[2][1]))
        tokens = tokens[3:]
        if not tokens:
            return parts
        if tokens[0] != ("word", "and"):
            raise _unreadable(condition, tokens[0][1])
        tokens = tokens[1:]


def _unreadable(condition: str, where: str) -> ConfigError:
    return ConfigError(
        f"units must be comparisons joined by 'and', such as \"location == 'CA1' and quality == "
        f"good\"; found '{condition}', unclear at '{where}'. Put text with spaces in quotes."
    )


def _compare(values: NDArray[Any], column: str, op: str, wanted: str) -> NDArray[np.bool_]:
    if values.dtype.kind == "O":
        words = np.array([str(v) for v in values], dtype=object)
        if op == "==":
            return np.asarray(words == wanted, bool)
        if op == "!=":
            return np.asarray(words != wanted, bool)
        raise DataError(f"column '{column}' holds text, which can be == or !=; found '{op}'.")
    number = {"true": 1.0, "false": 0.0}.get(wanted.lower())
    if number is None:
        try:
            number = float(wanted)
        except ValueError:
            raise DataError(
                f"column '{column}' holds numbers; found '{wanted}' to compare with. Give a number."
            ) from None
    table_of = {
        "==": np.equal, "!=": np.not_equal, "<": np.less, "<=": np.less_equal,
        ">": np.greater, ">=": np.greater_equal,
    }  # fmt: skip
    return np.asarray(table_of[op](values.astype(np.float64), number), bool)


def spike_trains(units: Units, rows: NDArray[np.int64]) -> list[NDArray[np.float64]]:
    """Spike times in seconds of the units in `rows`, only theirs read.

    Raises
    ------
    DataError
        If the table's index points beyond its spikes, or a spike time is not finite.
    """
    stop = units.table.ends("spike_times")
    if len(stop) != units.n:
        raise DataError(
            f"'units' must have one list of spikes a unit; found {len(stop)} for {units.n}."
        )
    start = np.append(0, stop[:-1])
    spikes = units.table.group["spike_times"]
    if not holds(spikes, "iuf"):
        raise DataError(f"spike times must be real numbers; found {spikes.dtype}. Mend the file.")
    refuse_forged(spikes)
    refuse_size(8 * int((stop - start)[rows].sum()), "spike times of the chosen units")
    trains = []
    for row in rows:
        train = np.asarray(spikes[start[row] : stop[row]], np.float64)
        if not np.isfinite(train).all():
            raise DataError(
                f"spike times must be finite; found {int((~np.isfinite(train)).sum())} that are "
                f"not, in unit {units.ids[row]} (row {row} of 'units'). Leave it out with "
                f"units='id != {units.ids[row]}'."
            )
        trains.append(refuse_ages(train, spikes.name))
    return trains


def unit_span(units: Units, condition: str | None = None) -> Spans:
    """From the first to the last spike of the units that meet a condition, shape (1, 2).

    Raises
    ------
    DataError
        If they have no spikes.
    """
    trains = [t for t in spike_trains(units, choose(units, condition)) if len(t)]
    if not trains:
        raise DataError("the chosen units must have spikes; found none. Choose other units.")
    return np.array([[min(float(t.min()) for t in trains), max(float(t.max()) for t in trains)]])


def observed(units: Units, rows: NDArray[np.int64]) -> Spans | None:
    """Time in which all units of `rows` were observed, None where the file does not say."""
    if "obs_intervals" not in units.table.ragged:
        return None
    times = seconds(units.table.group["obs_intervals"])
    stop = units.table.ends("obs_intervals")
    start = np.append(0, stop[:-1])
    seen: dict[bytes, Spans] = {}
    for row in rows:
        own = union(times[start[row] : stop[row]].reshape(-1, 2))
        seen.setdefault(own.tobytes(), own)
    time, *rest = seen.values()
    for other in rest:
        time = intersect(time, other)
    return time


def bins(
    time: Spans, bin_s: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Cut stretches of time into whole bins.

    Parameters
    ----------
    time : array, shape (k, 2)
        A union of intervals in seconds.
    bin_s : float

    Returns
    -------
    start_s, stop_s : array of float64, shape (T,)
        Each bin is [start, stop). The first of a stretch starts with it; a rest too short for a
        bin is left out.
    epochs : array of int64, shape (E, 2)
        [start, stop) bin numbers of each stretch that holds any.

    Raises
    ------
    LimitError
        If that makes more than `MAX_BINS` bins.
    """
    with np.errstate(over="ignore"):
        fit = np.floor(np.diff(time, axis=1)[:, 0] / bin_s * (1 + 1e-12) + 1e-9)
    if not fit.sum() <= MAX_BINS:
        raise LimitError(
            f"at most {MAX_BINS} bins can be read; found {fit.sum():.4g} of {bin_s:g} s, from "
            f"{time.min():.6g} to {time.max():.6g} s. Use wider bins or fewer epochs, and "
            f"check that spike times are in seconds."
        )
    n = fit.astype(np.int64)
    first = np.repeat(time[:, 0], n)
    step = np.arange(int(n.sum())) - np.repeat(np.cumsum(n) - n, n)
    stops = np.cumsum(n)
    epochs = np.stack([stops - n, stops], axis=1)[n > 0]
    return first + step * bin_s, first + (step + 1) * bin_s, epochs


def bin_spikes(
    train: NDArray[np.float64], start_s: NDArray[np.float64], stop_s: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Count spikes in sorted bins [start, stop), shape (T,)."""
    at = np.searchsorted(start_s, train, side="right") - 1
    ok = at >= 0
    ok[ok] = train[ok] < stop_s[at[ok]]
    return np.bincount(at[ok], minlength=len(start_s)).astype(np.float32)


def read_units(
    units: Units, *, condition: str | None, bin_s: float | None, within: Spans
) -> Traces:
    """Spike counts of the units that meet a condition.

    Parameters
    ----------
    units : Units
    condition : str or None
        As in `choose`.
    bin_s : float or None
        Width of a bin in seconds; None for `DEFAULT_BIN_S`.
    within : array, shape (k, 2)
        The time to read, in seconds.

    Returns
    -------
    Traces
        x is float32 counts (T, C), times are bin centres, epochs the stretches.

    Raises
    ------
    ConfigError
        If the condition or the bin width cannot be used.
    DataError
        If no unit or no whole bin is left, or the spikes are damaged.
    """
    width = DEFAULT_BIN_S if bin_s is None else float(bin_s)
    if not (np.isfinite(width) and width > 0):
        raise ConfigError(f"bin_s must be a positive number of seconds; found {bin_s}.")
    rows = choose(units, condition)
    trains = spike_trains(units, rows)
    notes = []
    seen = observed(units, rows)
    if seen is not None:
        before = float(np.diff(within, axis=1).sum())
        within = intersect(within, seen)
        after = float(np.diff(within, axis=1).sum())
        if after < before:
            notes.append(
                f"Units were observed for {after:.6g} of {before:.6g} s (obs_intervals); only "
                f"that was read."
            )
    start, stop, epochs = bins(within, width)
    if len(start) < 2:
        total = float(np.diff(within, axis=1).sum())
        raise DataError(
            f"the chosen time must hold at least two bins of {width} s; found {total:.6g} s. "
            f"Choose other epochs or units, or narrower bins."
        )
    refuse_size(4 * len(start) * len(rows), f"{len(start)} bins x {len(rows)} units")
    x = np.empty((len(start), len(rows)), np.float32)
    for c, train in enumerate(trains):
        x[:, c] = bin_spikes(train, start, stop)
    said = f" with {condition}" if condition else ""
    assumed = " (the default)" if bin_s is None else ""
    notes.insert(
        0,
        f"Spikes of {len(rows)} of {units.n} units{said} were counted in bins of {width:g} s"
        f"{assumed}.",
    )
    silent = int((x.sum(axis=0) == 0).sum())
    if silent:
        notes.append(f"{silent} of the units have no spike in the time that was read.")
    channels = tuple(f"unit {i}" for i in units.ids[rows])
    return Traces(
        x, (start + stop) / 2, channels, "spikes/bin", "units", tuple(notes), epochs,
        _places(units, rows),
    )  # fmt: skip


def _places(units: Units, rows: NDArray[np.int64]) -> tuple[str, ...]:
    """Where some units lie: as `Units.column` finds it, () where the file does not say."""
    if "location" in units.table.plain:
        return places(units.table, rows)
    found = _electrode_rows(units.table)
    return () if found is None else places(found[0], found[1][rows])
