"""Find traces of a population in a file, and read them as (T, C)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal, assert_never

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..recording import gaps, not_finite, pieces
from ..room import room
from .clock import Axes, Clock, axes, clock, increasing, wrong_steps
from .files import (
    holds,
    is_array,
    is_group,
    load,
    matrix,
    neurodata_type,
    numbers,
    refuse_forged,
    text,
    walk,
)
from .tables import places, referenced

__all__ = [
    "Kind",
    "Looked",
    "NanPolicy",
    "Source",
    "TimesPolicy",
    "Traces",
    "find_activity",
    "find_series",
    "layout",
    "read_activity",
    "scan",
]  # fmt: skip

Kind = Literal["dff", "events", "deconvolved", "fluorescence", "neuropil", "one series a neuron",
               "other"]  # fmt: skip
NanPolicy = Literal["refuse", "drop-roi", "interpolate", "mask"]
TimesPolicy = Literal["refuse", "drop"]

RANK: dict[Kind, int] = {
    "dff": 0, "events": 1, "deconvolved": 1, "fluorescence": 2, "one series a neuron": 4,
    "neuropil": 5, "other": 6,
}  # fmt: skip
"""Order in which activity is chosen; 3 is the rank of binned units."""

UNITS_RANK = 3
MAX_NAN_S = 1.0
"""`nan="interpolate"` fills no gap longer than this."""

_KINDS: tuple[tuple[Kind, str], ...] = (
    ("neuropil", r"neuropil|background"),
    ("deconvolved", r"deconv|spks|inferred"),
    ("events", r"event"),
    ("dff", r"dff|df_?over_?f|delta_?f|df_f"),
)
_ACCEPTED = ("iscell", "is_cell", "accepted", "valid_roi")


@dataclass(frozen=True, eq=False)
class Source:
    """Traces in the file that have not been read.

    Attributes
    ----------
    path : str
        Object path; for one series a neuron their common beginning and "*".
    kind : Kind
    groups : tuple of h5py.Group
        One, or one a neuron.
    """

    path: str
    kind: Kind
    groups: tuple[Any, ...]

    @property
    def first(self) -> Any:
        """The (first) group."""
        return self.groups[0]


@dataclass(frozen=True, eq=False)
class Traces:
    """Activity as read: x (T, C) float32, times_s (T,) float64, what it is, what was done."""

    x: NDArray[np.float32]
    times_s: NDArray[np.float64]
    channels: tuple[str, ...]
    unit: str
    path: str
    notes: tuple[str, ...] = ()
    epochs: NDArray[np.int64] | None = field(default=None)
    regions: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Layout:
    """How a source lies in the file: its axes, clock, ROI table rows, which are accepted, where."""

    axes: Axes
    clock: Clock
    ids: tuple[str, ...]
    accepted: NDArray[np.bool_] | None = None
    accepted_by: str = ""
    regions: tuple[str, ...] = ()


def find_activity(file: Any) -> list[Source]:
    """Traces of populations in a file, the one to take first.

    Returns
    -------
    list of Source
        dF/F, then events and deconvolved traces, fluorescence, one series a neuron, neuropil;
        alike ones in the order of the file.
    """
    found: list[Source] = []
    singles: dict[str, list[tuple[str, Any]]] = {}
    for path, group in walk(file, ("processing", "acquisition", "analysis", "scratch")):
        data = group.get("data")
        if not holds(data, "iuf"):
            continue
        container = neurodata_type(group.parent)
        is_roi = neurodata_type(group) == "RoiResponseSeries" or "rois" in group
        if is_roi or container in ("DfOverF", "Fluorescence"):
            found.append(Source(path, _kind(path, container), (group,)))
        elif data.ndim == 1 and (numbered := re.fullmatch(r"(.*?\D)\d+", path)):
            singles.setdefault(numbered[1], []).append((path, group))
    for stem, members in singles.items():
        if len(members) >= 5 and len({g["data"].shape for _, g in members}) == 1:
            groups = tuple(g for _, g in members)
            found.append(Source(f"{stem}*", "one series a neuron", groups))
    return sorted(found, key=lambda source: RANK[source.kind])


def find_series(file: Any, path: str) -> Source:
    """The traces at an object path.

    Raises
    ------
    DataError
        If there are none.
    """
    known = find_activity(file)
    wanted = path.strip("/")
    for source in known:
        if source.path == wanted:
            return source
    group = file.get(wanted) if wanted else None
    if is_array(group):
        group, wanted = group.parent, group.parent.name.strip("/")
    if is_group(group) and holds(group.get("data"), "iufb"):
        return Source(wanted, _kind(wanted, neurodata_type(group.parent), "other"), (group,))
    listed = ", ".join(f"'{s.path}'" for s in known) or "none"
    raise DataError(
        f"series must be the object path of traces; found no data at '{path}'. Traces: {listed}."
    )


def _kind(path: str, container: str, otherwise: Kind = "fluorescence") -> Kind:
    for part in reversed(path.lower().split("/")[1:]):
        for kind, pattern in _KINDS:
            if re.search(pattern, part):
                return kind
    return "dff" if container == "DfOverF" else otherwise


def layout(source: Source) -> Layout:
    """Find out how a source lies in the file, without reading its data.

    Raises
    ------
    DataError
        If it has no usable clock, or nothing says which axis is time.
    """
    refuse_forged(source.first["data"])
    when = clock(source.first)
    if when is None:
        raise DataError(
            f"'{source.path}' must have timestamps, or a starting_time with a positive rate; found "
            f"neither. Choose another series."
        )
    if source.kind == "one series a neuron":
        found = axes(source.path, source.first["data"].shape, when.n, None)
        names = tuple(g.name.rsplit("/", 1)[-1] for g in source.groups)
        return Layout(Axes(False, found.n_samples, len(names), found.notes), when, names)
    region = source.first.get("rois", source.first.get("electrodes"))
    n_rois = None if region is None else len(region)
    found = axes(source.path, source.first["data"].shape, when.n, n_rois)
    if n_rois != found.n_channels:
        return Layout(found, when, tuple(str(i) for i in range(found.n_channels)))
    rows = numbers(region, np.int64).ravel()
    plane = referenced(region)
    if plane is None or (len(rows) and (rows.min() < 0 or rows.max() >= plane.n_rows)):
        return Layout(found, when, tuple(str(i) for i in rows))
    ids = load(plane.group["id"])[rows] if "id" in plane.group else rows
    column = next((c for c in plane.plain if c.lower() in _ACCEPTED), None)
    accepted = None
    if column is not None:
        values = numbers(plane.group[column], np.float64)
        accepted = (values if values.ndim == 1 else values[:, 0])[rows] > 0
    return Layout(
        found,
        when,
        tuple(str(i) for i in ids),
        accepted,
        f"{plane.name}.{column}" if column else "",
        places(plane, rows),
    )


def read_activity(
    source: Source, *, nan: NanPolicy = "refuse", times: TimesPolicy = "refuse"
) -> Traces:
    """Read traces: time first, accepted ROIs only, on an increasing clock, all values finite.

    Parameters
    ----------
    source : Source
    nan : {"refuse", "drop-roi", "interpolate", "mask"}
        What to do about values that are not finite: refuse, leave out their ROIs, fill gaps up to
        one second on a straight line, or leave out the samples where any channel has one, which
        become borders that no window crosses.
    times : {"refuse", "drop"}
        What to do about timestamps that do not increase: refuse, or drop the fewest samples.

    Returns
    -------
    Traces

    Raises
    ------
    DataError
        If the layout is not clear, or a policy says to refuse what was found.
    LimitError
        If the traces are too large.
    """
    how = layout(source)
    notes = [*how.axes.notes]
    keep = how.accepted
    if keep is not None:
        notes.append(
            f"{int(keep.sum())} of {len(keep)} ROIs are accepted by {how.accepted_by}; only they "
            f"were read."
        )
        if not keep.any():
            raise DataError(
                f"some ROIs of '{source.path}' must be accepted; found none in {how.accepted_by}. "
                f"Sort the cells first."
            )
    if source.kind == "fluorescence":
        notes.append("These are raw fluorescence traces: bleaching and neuropil are in them.")
    when = how.clock.at(how.axes.n_samples)
    x = _values(source, how, when)[: how.axes.n_samples]
    word = "" if source.kind == "one series a neuron" else "roi "
    channels = np.array([f"{word}{i}" for i in how.ids], dtype=object)
    regions = np.array(how.regions or ("",) * len(channels), dtype=object)
    if keep is not None:
        channels, regions = channels[keep], regions[keep]
    wrong = wrong_steps(when)
    if wrong:
        if times == "refuse":
            raise DataError(
                f"timestamps of '{source.path}' must increase; found {wrong}. Read it with "
                f"times='drop' (--times drop) to leave out the fewest samples."
            )
        kept = increasing(when)
        notes.append(
            f"{len(when) - len(kept)} samples with wrong timestamps were dropped: {wrong}."
        )
        x, when = x[kept], when[kept]
    if nan == "mask":
        x, when, borders, said = _masked(x, when, channels, source.path)
    else:
        borders = None
        x, stays, said = _finite(x, when, channels, source.path, nan)
        channels, regions = channels[stays], regions[stays]
    unit = text(source.first["data"].attrs.get("unit", ""))
    return Traces(
        x, when, tuple(channels), unit, source.path, (*notes, *said), borders,
        tuple(regions) if any(regions) else (),
    )  # fmt: skip


def _values(source: Source, how: Layout, when: NDArray[np.float64]) -> NDArray[np.float32]:
    if source.kind != "one series a neuron":
        return matrix(
            source.first["data"], np.float32, roi_first=how.axes.roi_first, keep=how.accepted
        )
    for group in source.groups[1:]:
        own = clock(group)
        if own is None or not np.array_equal(own.at(how.axes.n_samples), when, equal_nan=True):
            raise DataError(
                f"all series '{source.path}' must share one clock; found that '{group.name}' has "
                f"another than '{source.first.name}'. Choose one with series=."
            )
    x = room((len(source.first["data"]), len(source.groups)), np.float32)
    for i, group in enumerate(source.groups):
        x[:, i : i + 1] = matrix(group["data"], np.float32, roi_first=False)
    return x


def _finite(
    x: NDArray[np.float32],
    when: NDArray[np.float64],
    channels: NDArray[Any],
    path: str,
    nan: Literal["refuse", "drop-roi", "interpolate"],
) -> tuple[NDArray[np.float32], NDArray[np.bool_], tuple[str, ...]]:
    """Apply a NaN policy that keeps all samples: the traces, which channels stay, what was done."""
    hit, found = _not_finite(x, when, channels)
    if not found:
        return x, ~hit, ()
    match nan:
        case "refuse":
            raise DataError(
                f"activity of '{path}' must be finite; found {found}. Read it with nan='drop-roi', "
                f"nan='interpolate' or nan='mask' (--nan)."
            )
        case "drop-roi":
            if hit.all():
                raise DataError(
                    f"some channel of '{path}' must be finite throughout; found {found}."
                )
            return x[:, ~hit], ~hit, (f"{int(hit.sum())} channels were dropped: {found}.",)
        case "interpolate":
            for c in np.flatnonzero(hit):
                _fill(x[:, c], ~np.isfinite(x[:, c]), when, f"{channels[c]} of '{path}'")
            return x, np.ones_like(hit), (f"Interpolated in time: {found}.",)
        case _:
            assert_never(nan)


def _masked(
    x: NDArray[np.float32], when: NDArray[np.float64], channels: NDArray[Any], path: str
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.int64] | None, tuple[str, ...]]:
    """The traces and clock without samples that are not finite, the borders so made, what was done.

    The borders are given, not left to the steps of the clock: where most samples are left out, the
    usual step is a long one.
    """
    _, found = _not_finite(x, when, channels)
    if not found:
        return x, when, None, ()
    kept = np.flatnonzero(np.concatenate([np.isfinite(p).all(axis=1) for p in pieces(x)]))
    if len(kept) < 2:
        raise DataError(
            f"at least two samples of '{path}' must be finite in all channels; found {len(kept)}, "
            f"and {found}. Read it with nan='drop-roi'."
        )
    unbroken = np.zeros(len(when), np.int64)
    unbroken[gaps(when)[1:, 0]] = 1
    cuts = np.flatnonzero((np.diff(kept) > 1) | (np.diff(np.cumsum(unbroken)[kept]) > 0)) + 1
    edges = np.concatenate([[0], cuts, [len(kept)]])
    borders = np.stack([edges[:-1], edges[1:]], axis=1)
    said = f"{len(when) - len(kept)} samples were left out (nan='mask'): {found}."
    return x[kept], when[kept], borders, (said,)


def _not_finite(
    x: NDArray[np.float32], when: NDArray[np.float64], channels: NDArray[Any]
) -> tuple[NDArray[np.bool_], str]:
    """Which channels have values that are not finite, and how many, where; "" if there are none."""
    n_bad, first = not_finite(x)
    if not n_bad:
        return np.zeros(x.shape[1], bool), ""
    hit = sum((~np.isfinite(p)).sum(axis=0) for p in pieces(x)) > 0
    return hit, (
        f"{n_bad} values that are not finite, in {int(hit.sum())} of {x.shape[1]} "
        f"channels (the first at sample {first[0]}, {when[first[0]]:.6g} s, {channels[first[1]]})"
    )


def _fill(
    x: NDArray[np.float32], bad: NDArray[np.bool_], when: NDArray[np.float64], what: str
) -> None:
    good = np.flatnonzero(~bad)
    ends = len(good) == 0 or good[0] > 0 or good[-1] < len(x) - 1
    widest = float(np.diff(when[good]).max(initial=0.0, where=np.diff(good) > 1))
    if ends or widest > MAX_NAN_S:
        where = "at an end" if ends else f"over {widest:.3g} s"
        raise DataError(
            f"only gaps up to {MAX_NAN_S} s inside a trace can be interpolated; found one {where} "
            f"in {what}. Use nan='drop-roi', or restrict the epochs."
        )
    x[bad] = np.interp(when[bad], when[good], x[good])


@dataclass(frozen=True)
class Looked:
    """What the values and the clock of traces look like, and which options of a run they need."""

    findings: tuple[str, ...]
    advice: dict[str, str]


def scan(source: Source, how: Layout, times_s: NDArray[np.float64]) -> Looked:
    """Look at the values of traces: NaN, constant channels, wrong timestamps, gaps."""
    said: list[str] = []
    advice: dict[str, str] = {}
    wrong = wrong_steps(times_s)
    if wrong:
        said.append(f"Timestamps of '{source.path}' do not increase: {wrong}.")
        advice["--times"] = "drop"
    else:
        stretches = gaps(times_s)
        if len(stretches) > 1:
            said.append(
                f"'{source.path}' has {len(stretches) - 1} gaps in its timestamps, the longest of "
                f"{np.diff(times_s).max():.3g} s; no window crosses one."
            )
    x = _values(source, how, how.clock.at(how.axes.n_samples))
    names = np.array(how.ids, dtype=object)
    names = names if how.accepted is None else names[how.accepted]
    bad = sum(((~np.isfinite(p)).sum(axis=0) for p in pieces(x)), np.zeros(x.shape[1], np.int64))
    hit = np.flatnonzero(bad)
    if len(hit):
        listed = ", ".join(f"{bad[c]} in {names[c]}" for c in hit[:5])
        more = f", and {len(hit) - 5} more" if len(hit) > 5 else ""
        said.append(f"'{source.path}' has values that are not finite: {listed}{more}.")
        advice["--nan"] = "drop-roi" if len(hit) < x.shape[1] else "interpolate"
    alike = [(p == x[:1]).all(axis=0) for p in pieces(x)]
    same = np.flatnonzero(np.all(alike, axis=0)) if alike else np.empty(0, np.int64)
    if len(same):
        listed = ", ".join(str(names[c]) for c in same[:5])
        said.append(
            f"{len(same)} of {x.shape[1]} channels of '{source.path}' never change "
            f"({listed}{', ...' if len(same) > 5 else ''})."
        )
    return Looked(tuple(said), advice)
