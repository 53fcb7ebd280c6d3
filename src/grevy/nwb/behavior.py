"""Labels: behaviour series and trial columns at the samples of the activity, never extrapolated."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..recording import Label
from .activity import Source, TimesPolicy
from .clock import axes, clock, increasing, period_of, wrong_steps
from .files import holds, load, matrix, neurodata_type, refuse_bomb, text, walk
from .intervals import spans
from .tables import Table, interval_tables

__all__ = [
    "EMBEDDING",
    "Series",
    "at_samples",
    "behavior_series",
    "circle",
    "find_label",
    "read_series",
]

MAX_GAP_STEPS = 5.0
"""A label is unknown between two of its samples that are more than so many median steps apart."""

AVERAGE_FROM = 2.0
"""Labels are averaged within a sample that is at least so many of their own steps long."""

EMBEDDING = "grevy_embedding"
"""What `export` calls an embedding: to decode it from the traces it was made of proves nothing."""

_NOT_BEHAVIOR = re.compile(
    "Image|TwoPhoton|OnePhoton|Optical|Electrical|LFP|IndexSeries|RoiResponse|SpikeEvent|"
    "Decomposition|VoltageClamp|CurrentClamp"
)


@dataclass(frozen=True, eq=False)
class Series:
    """A behaviour series as read.

    Attributes
    ----------
    values : array, shape (n,) or (n, d)
        float64 if continuous; int64 if discrete.
    times_s : array of float64, shape (n,)
    known : array of bool, shape (n,)
    period : float or None
        Length of the circle in `unit`.
    """

    path: str
    values: NDArray[Any]
    times_s: NDArray[np.float64]
    known: NDArray[np.bool_]
    unit: str
    period: float | None
    discrete: bool
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def behavior_series(file: Any, activity: list[Source]) -> list[tuple[str, Any]]:
    """Path and group of every series that may hold behaviour: no traces, images or embeddings."""
    taken = {g.name for source in activity for g in source.groups}
    found = []
    for path, group in walk(file, ("acquisition", "processing", "analysis", "scratch")):
        data = group.get("data")
        kinds = neurodata_type(group) + " " + neurodata_type(group.parent)
        if (
            holds(data, "iufbOS")
            and ("timestamps" in group or "starting_time" in group)
            and data.ndim in (1, 2)
            and group.name not in taken
            and not path.endswith(f"/{EMBEDDING}")
            and not _NOT_BEHAVIOR.search(kinds)
        ):
            found.append((path, group))
    return found


def read_series(path: str, group: Any, *, times: TimesPolicy = "refuse") -> Series:
    """Read a behaviour series: floats are continuous, whole numbers, truths and text discrete.

    Raises
    ------
    DataError
        If it has no usable clock, or its timestamps do not increase and `times` says to refuse.
    """
    when = clock(group)
    if when is None:
        raise DataError(
            f"'{path}' must have timestamps, or a starting_time with a positive rate; found "
            f"neither. Choose another label."
        )
    data = group["data"]
    refuse_bomb(data)
    how = axes(path, data.shape, when.n, None)
    times_s = when.at(how.n_samples)
    notes = list(how.notes)
    unit = text(data.attrs.get("unit", ""))
    names: tuple[str, ...] = ()
    values: NDArray[Any]
    scaled = float(text(data.attrs.get("conversion", 1))) != 1.0
    discrete = data.dtype.kind in "OSb" or (data.dtype.kind in "iu" and not scaled)
    if data.dtype.kind in "OS":
        values, names = _classes([text(v) for v in load(data).ravel()])
    elif discrete:
        values = load(data).astype(np.int64)
        values = values.T if how.roi_first else values
    else:
        values = matrix(data, np.float64, roi_first=how.roi_first)
        values = values[:, 0] if data.ndim == 1 else values
    values = values[: how.n_samples]
    wrong = wrong_steps(times_s)
    if wrong:
        if times == "refuse":
            raise DataError(
                f"timestamps of '{path}' must increase; found {wrong}. Read it with times='drop' "
                f"(--times drop) to leave out the fewest samples."
            )
        kept = increasing(times_s)
        notes.append(
            f"{len(times_s) - len(kept)} samples of '{path}' with wrong timestamps were dropped: "
            f"{wrong}."
        )
        values, times_s = values[kept], times_s[kept]
    known: NDArray[np.bool_] = np.asarray(np.isfinite(values).reshape(len(values), -1).all(axis=1))
    one_axis = not discrete and values.ndim == 1
    period = circle(values[known].astype(np.float64), unit) if one_axis else None
    if one_axis and period is None and period_of(unit) is not None:
        notes.append(
            f"'{path}' is in {unit} but spans more than one turn: it is not read as circular."
        )
    return Series(path, values, times_s, known, unit, period, discrete, names, tuple(notes))


@np.errstate(over="ignore")  # what is too far apart lies on no circle
def circle(values: NDArray[np.float64], unit: str) -> float | None:
    """Length of the circle that values in an angular unit lie on, None where they exceed a turn."""
    period = period_of(unit)
    if period is None or len(values) == 0:
        return period
    return period if float(np.ptp(values)) <= period * (1 + 1e-6) else None


def _classes(words: list[str]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    names = tuple(sorted(set(words)))
    number = {name: i for i, name in enumerate(names)}
    return np.array([number[w] for w in words], np.int64), names


@np.errstate(over="ignore", invalid="ignore")  # what overflows is not finite, and refused
def at_samples(series: Series, times_s: NDArray[np.float64]) -> Label:
    """A series at the times of the activity.

    Parameters
    ----------
    series : Series
    times_s : array of float64, shape (T,)
        Increasing, in seconds.

    Returns
    -------
    Label
        Continuous series are interpolated, or averaged where a sample of the activity spans
        several of theirs, around the circle where they have a period; discrete ones take the
        nearest value. Unknown before the first and after the last value, in gaps, and beside NaN.
    """
    values, ts, known = series.values, series.times_s, series.known
    n = len(ts)
    if n < 2:
        empty = np.zeros((len(times_s), *values.shape[1:]), values.dtype)
        return _label(series, empty, np.zeros(len(times_s), bool))
    step = float(np.median(np.diff(ts)))
    inside = (times_s >= ts[0]) & (times_s <= ts[-1])
    left = np.clip(np.searchsorted(ts, times_s, side="right") - 1, 0, n - 2)
    right = left + 1
    share = np.clip((times_s - ts[left]) / (ts[right] - ts[left]), 0.0, 1.0)
    ok = inside & (ts[right] - ts[left] <= MAX_GAP_STEPS * step * (1 + 1e-9))
    exact = np.where(share == 1.0, right, left)
    hit = inside & ((share == 0.0) | (share == 1.0))
    if series.discrete:
        nearest = np.where(share < 0.5, left, right)
        return _label(series, values[nearest], (ok | hit) & known[nearest])
    ok = np.where(hit, known[exact], ok & known[left] & known[right])
    clean = np.where(known if values.ndim == 1 else known[:, None], values, 0.0)
    across = clean[right] - clean[left]
    if series.period is not None:
        across = _wrap(across, series.period, centred=True)
    out = clean[left] + (share if values.ndim == 1 else share[:, None]) * across
    wide = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 0.0
    if wide >= AVERAGE_FROM * step:
        mean, count = _means(series, clean, times_s, wide)
        several = count > 0
        out = np.where(several if values.ndim == 1 else several[:, None], mean, out)
        ok = inside & (several | ok)
    if series.period is not None:
        low = float(values[known].min(initial=0.0))
        out = _wrap(out, series.period, centred=low < 0)
    return _label(series, np.where(ok if out.ndim == 1 else ok[:, None], out, 0.0), ok)


def _means(
    series: Series, clean: NDArray[np.float64], times_s: NDArray[np.float64], wide: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Mean of the known values within half a sample of each time, and how many there are."""
    first = np.searchsorted(series.times_s, times_s - wide / 2, side="left")
    stop = np.searchsorted(series.times_s, times_s + wide / 2, side="left")

    def within(x: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = np.concatenate([np.zeros((1, *x.shape[1:])), np.cumsum(x, axis=0)])
        return np.asarray(sums[stop] - sums[first])

    count = np.rint(within(series.known.astype(np.float64))).astype(np.int64)
    mask = series.known if clean.ndim == 1 else series.known[:, None]
    if series.period is None:
        centre = clean[series.known].mean(axis=0) if series.known.any() else 0.0
        shape = count if clean.ndim == 1 else count[:, None]
        return centre + within((clean - centre) * mask) / np.maximum(shape, 1), count
    turn = np.exp(2j * np.pi * clean / series.period) * mask
    sine, cosine = within(turn.imag), within(turn.real)
    return np.arctan2(sine, cosine) * series.period / (2 * np.pi), count


def _wrap(x: NDArray[np.float64], period: float, *, centred: bool) -> NDArray[np.float64]:
    """Values on the circle, in [-period/2, period/2) or [0, period)."""
    half = period / 2 if centred else 0.0
    out = np.mod(x + half, period)
    return np.asarray(np.where(out >= period, 0.0, out) - half)


def _label(series: Series, values: NDArray[Any], known: NDArray[np.bool_]) -> Label:
    return Label(
        values=values,
        kind="discrete" if series.discrete else "continuous",
        unit=series.unit,
        period=series.period,
        known=known,
        names=series.names,
    )


def find_label(
    file: Any,
    name: str,
    times_s: NDArray[np.float64],
    activity: list[Source],
    *,
    times: TimesPolicy = "refuse",
) -> tuple[Label, tuple[str, ...]]:
    """The label that a name stands for, at the samples, and notes on how it was read.

    Parameters
    ----------
    file : h5py.File
    name : str
        End of an object path (`ry`, `CompassDirection/ry`), or TABLE.COLUMN of an interval table.
    times_s : array of float64, shape (T,)
    activity : list of Source
        Traces, which are no labels.
    times : {"refuse", "drop"}

    Raises
    ------
    DataError
        If no series or column, or more than one, has that name.
    """
    wanted = name.strip("/")
    series = dict(behavior_series(file, activity))
    columns: dict[str, tuple[Table, str]] = {}
    for one in interval_tables(file):
        for c in one.plain:
            if (
                c not in ("start_time", "stop_time")
                and one.group[c].ndim == 1
                and one.group[c].dtype.kind in "iufbOS"
            ):
                columns[f"{one.path}/{c}"] = (one, c)
    fits = [p for p in series if p == wanted or p.endswith(f"/{wanted}")]
    fits += [p for p, (t, c) in columns.items() if wanted in (p, f"{t.name}.{c}", f"{t.path}.{c}")]
    exact = [p for p in fits if p == wanted]
    fits = exact or fits
    if len(fits) == 1:
        if fits[0] in series:
            read = read_series(fits[0], series[fits[0]], times=times)
            return at_samples(read, times_s), read.notes
        return _from_column(*columns[fits[0]], times_s)
    short = [*series, *(f"{t.name}.{c}" for t, c in columns.values())]
    if fits:
        raise DataError(
            f"label '{name}' must name one series; found {', '.join(fits)}. Give more of the path."
        )
    near = difflib.get_close_matches(wanted, [s.rsplit("/", 1)[-1] for s in short], n=1)
    mean = f" Did you mean '{near[0]}'?" if near else ""
    raise DataError(
        f"label '{name}' must name a behaviour series or TABLE.COLUMN; found none.{mean} There "
        f"are: {', '.join(short[:40]) or 'none'}{', ...' if len(short) > 40 else ''}."
    )


def _from_column(
    one: Table, column: str, times_s: NDArray[np.float64]
) -> tuple[Label, tuple[str, ...]]:
    """A column of an interval table at the samples, known only inside rows; later rows count."""
    time, notes = spans(one)
    raw = one.column(column)
    names: tuple[str, ...] = ()
    if raw.dtype.kind == "O":
        values, names = _classes([str(v) for v in raw])
    else:
        values = raw.astype(np.float64 if raw.dtype.kind == "f" else np.int64)
    ok = np.isfinite(time).all(axis=1) & np.isfinite(values)
    rows = np.flatnonzero(ok)[np.argsort(time[ok, 0], kind="stable")]
    if len(rows) == 0:
        raise DataError(
            f"label '{one.name}.{column}' must have values in rows with times; found none."
        )
    at = np.searchsorted(time[rows, 0], times_s, side="right") - 1
    row = rows[np.maximum(at, 0)]
    known = (at >= 0) & (times_s < time[row, 1])
    picked = np.where(known, values[row], values.dtype.type(0))
    kind = "continuous" if values.dtype.kind == "f" else "discrete"
    return Label(
        picked, "continuous" if kind == "continuous" else "discrete", known=known, names=names
    ), notes
