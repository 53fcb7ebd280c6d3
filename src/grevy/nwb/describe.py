"""Say what is in an NWB file, what is remarkable about it, and which command fits it."""

from __future__ import annotations

import shlex
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import GrevyError
from ..stimulus import align, remarks
from .activity import RANK, UNITS_RANK, Source, find_activity, layout, scan
from .behavior import Series, behavior_series, read_series
from .clock import clock
from .facts import (
    ActivityFacts,
    BehaviorFacts,
    ColumnFacts,
    Description,
    FileFacts,
    StimulusFacts,
    TableFacts,
    UnitsFacts,
)
from .files import (
    NwbFile,
    file_bytes,
    holds,
    load,
    of_file,
    open_nwb,
    outside_text,
    points_outside,
    refuse_forged,
    text,
)  # fmt: skip
from .intervals import spans
from .stimuli import Shown, find_stimuli
from .suggest import options, population
from .tables import Table, few_values, interval_tables
from .units import DEFAULT_BIN_S, Units, bins, find_units, unit_span

__all__ = ["describe"]

SCAN_BYTES = 512 << 20
"""Traces larger than this are described without looking at their values."""


def describe(path: NwbFile, *, allow_external: bool = False) -> Description:
    """Look at an NWB file: activity, units, stimuli, behaviour, intervals, and what is wrong.

    Parameters
    ----------
    path : path, binary file or h5py.File
        An NWB 2 file, HDF5 or a folder of Zarr; it is opened read-only. One that is open stays so.
    allow_external : bool
        Whether the file may point to data in other files.

    Returns
    -------
    Description

    Raises
    ------
    DataError
        If the file is no NWB 2 file, or is damaged.
    LimitError
        If a part that must be read does not fit into memory.
    UnsafeFileError
        If the file points outside itself and `allow_external` is not set.
    """
    with open_nwb(path, allow_external=allow_external) as file:
        outside = points_outside(file) if allow_external else None
        said = [outside_text(outside)] if outside else []
        sources, units = find_activity(file), find_units(file)
        advice: dict[str, str] = {}
        activity = tuple(
            _activity(s, said if s is sources[0] else [], advice if s is sources[0] else {})
            for s in sources
        )
        counted = None if units is None else _units(units, said)
        times = _sample_times(sources, activity, units, counted)
        stimuli = _stimuli(file, times, said)
        behavior = tuple(_behavior(p, g, times, said) for p, g in behavior_series(file, sources))
        said += _empty(behavior)
        tables = interval_tables(file)
        intervals = tuple(_table(t, said) for t in tables)
        usable = population(activity, counted, said)
        suggestion = ""
        if usable is not None:
            path_read, chosen = usable
            if sources and path_read == sources[0].path:
                chosen += [f"{k} {v}" for k, v in advice.items()]
            chosen += options(file, behavior, tables, stimuli, times, said)
            if outside:
                chosen.append("--allow-external")
            suggestion = " ".join([f"grevy run {shlex.quote(of_file(path))}", *chosen])
        return Description(
            file=_file(path, file),
            activity=activity,
            units=counted,
            stimuli=stimuli,
            behavior=behavior,
            intervals=intervals,
            findings=tuple(dict.fromkeys(f[:1].upper() + f[1:] for f in said)),
            suggestion=suggestion,
        )


def _file(path: NwbFile, file: Any) -> FileFacts:
    def at(name: str) -> str:
        found = file.get(name)
        if not holds(found, "OSUiuf") or not found.size:
            return ""
        refuse_forged(found)
        return text(found[(0,) * found.ndim])

    return FileFacts(
        path=of_file(path),
        size_bytes=file_bytes(file),
        nwb_version=text(file.attrs.get("nwb_version", "")),
        identifier=at("identifier"),
        session_description=at("session_description"),
        session_start_time=at("session_start_time"),
        subject=at("general/subject/subject_id"),
        species=at("general/subject/species"),
    )


def _rate(times: NDArray[np.float64]) -> float | None:
    steps = np.diff(times[np.isfinite(times)])
    step = float(np.median(steps)) if len(steps) else 0.0
    return 1 / step if step > 0 else None


def _ends(times: NDArray[np.float64]) -> tuple[float | None, float | None]:
    finite = times[np.isfinite(times)]
    return (float(finite.min()), float(finite.max())) if len(finite) else (None, None)


def _activity(source: Source, said: list[str], advice: dict[str, str]) -> ActivityFacts:
    shape = tuple(int(n) for n in source.first["data"].shape)
    if source.kind == "one series a neuron":
        shape = (*shape, len(source.groups))
    unit = text(source.first["data"].attrs.get("unit", ""))
    try:
        how = layout(source)
    except GrevyError as error:
        said.append(str(error))
        none = (None, None, None)
        return ActivityFacts(
            source.path, source.kind, shape, 0, 0, None, "unclear", *none, unit, str(error)
        )
    said += how.axes.notes
    times = how.clock.at(how.axes.n_samples)
    n_accepted = None
    if how.accepted is not None:
        n_accepted = int(how.accepted.sum())
        if n_accepted < len(how.accepted):
            said.append(
                f"{n_accepted} of {len(how.accepted)} ROIs of '{source.path}' are accepted by "
                f"{how.accepted_by}; only they are read."
            )
    if np.prod(shape) * 8 <= SCAN_BYTES:
        looked = scan(source, how, times)
        said += looked.findings
        advice |= looked.advice
    else:
        said.append(f"The values of '{source.path}' were not looked at: it is too large.")
    return ActivityFacts(
        source.path, source.kind, shape, how.axes.n_samples, how.axes.n_channels, n_accepted,
        how.axes.orientation, _rate(times), *_ends(times), unit,
    )  # fmt: skip


def _units(units: Units, said: list[str]) -> UnitsFacts:
    columns = []
    for name in units.columns:
        try:
            values = units.column(name)
        except GrevyError as error:
            said.append(str(error))
            continue
        counts_of = few_values(values) if values.dtype.kind in "Obiu" and name != "id" else ()
        often = values.dtype.kind in "Ob" or 2 * len(counts_of) <= units.n
        columns.append(ColumnFacts(name, counts_of if often else ()))
        if name == "location" and len(counts_of) > 1:
            places = ", ".join(f"{v or 'unnamed'} ({n})" for v, n in counts_of)
            one = next(v for v, _ in counts_of if v)
            said.append(
                f'Units come from {len(counts_of)} places: {places}; --units "location == '
                f"'{one}'\" takes one of them."
            )
    try:
        stop = units.table.ends("spike_times")
        counts = np.diff(np.append(0, stop))
        silent = int((counts == 0).sum())
        if silent:
            said.append(f"{silent} of {units.n} units have no spikes.")
        (start, last), *_ = unit_span(units).tolist()
    except GrevyError as error:
        said.append(str(error))
        return UnitsFacts(units.n, 0, 0, None, None, tuple(columns), str(error))
    if last - start > 7 * 86400:
        said.append(
            f"Spike times run from {start:.6g} to {last:.6g}, which would be "
            f"{(last - start) / 86400:.3g} days: they may be sample numbers instead of seconds."
        )
    if "obs_intervals" in units.table.ragged:
        said.append(
            "Units have obs_intervals; only time in which all chosen units were observed is read."
        )
    return UnitsFacts(units.n, int(counts.sum()), silent, start, last, tuple(columns))


def _sample_times(
    sources: list[Source],
    activity: tuple[ActivityFacts, ...],
    units: Units | None,
    counted: UnitsFacts | None,
) -> NDArray[np.float64] | None:
    """Times of the activity that `read` would choose, None where none can be read."""
    readable = [(RANK[s.kind], s) for s, a in zip(sources, activity, strict=True) if not a.problem]
    spiking = counted is not None and not counted.problem and counted.stop_s is not None
    if readable and not (spiking and readable[0][0] > UNITS_RANK):
        how = layout(readable[0][1])
        times = how.clock.at(how.axes.n_samples)
        return np.unique(times[np.isfinite(times)])
    if counted is None or counted.problem or counted.start_s is None or counted.stop_s is None:
        return None
    try:
        start, stop, _ = bins(np.array([[counted.start_s, counted.stop_s]]), DEFAULT_BIN_S)
    except GrevyError:
        return None
    return (start + stop) / 2


def _stimuli(
    file: Any, times: NDArray[np.float64] | None, said: list[str]
) -> tuple[StimulusFacts, ...]:
    try:
        shown = find_stimuli(file)
    except GrevyError as error:
        said.append(str(error))
        return ()
    if shown is None:
        return ()
    said += shown.notes
    _templates(file, shown, said)
    track = align(np.empty(0) if times is None else times, shown.table)
    facts = []
    for i, name in enumerate(track.names):
        own = track.blocks[track.blocks["stimulus"] == i]
        start, stop = (
            (float(own["start_s"].min()), float(own["stop_s"].max())) if len(own) else (None, None)
        )
        reason = "" if times is None else track.reasons.get(name, "")
        framed = bool((shown.table.frame[shown.table.name == i] >= 0).any())
        facts.append(StimulusFacts(
            name, shown.source[name], shown.kind, shown.n_rows[name],
            track.n_frames[i] if framed else 0, len(own),
            start, stop, reason,
        ))  # fmt: skip
    if len(track.reasons) <= 8 and times is not None:
        said += remarks(track)
    elif times is not None:
        said.append(
            f"Frames of {len(track.reasons)} of {len(track.names)} stimuli cannot be decoded."
        )
    return tuple(facts)


def _templates(file: Any, shown: Shown, said: list[str]) -> None:
    """Compare frame numbers with the pictures they point to."""
    if shown.kind != "IndexSeries":
        return
    empty = []
    for name, path in shown.source.items():
        template = file[path].get("indexed_timeseries")
        if template is None or "data" not in template:
            if "indexed_images" not in file[path]:
                said.append(
                    f"'{path}' points to no template that is in the file: nothing says how many "
                    f"frames there are."
                )
            continue
        if "timestamps" in template and len(template["timestamps"]) == 0:
            empty.append(name)
        frames, n = load(file[path]["data"]), len(template["data"])
        if frames.size and int(frames.max()) >= n:
            said.append(f"'{path}' shows frame {int(frames.max())} of a template with {n} frames.")
    if empty:
        said.append(
            f"{len(empty)} stimulus templates have empty timestamps, which are not needed: times "
            f"come from stimulus/presentation."
        )


def _behavior(
    path: str, group: Any, times: NDArray[np.float64] | None, said: list[str]
) -> BehaviorFacts:
    shape = tuple(int(n) for n in group["data"].shape)
    unit = text(group["data"].attrs.get("unit", ""))
    series: Series | None = None
    problem = ""
    try:
        series = read_series(path, group)
    except GrevyError as error:
        problem = str(error)
        said.append(problem)
    if series is None:
        when = clock(group)
        stamps = np.empty(0) if when is None else when.at(shape[0])
        return BehaviorFacts(
            path, shape, None, unit, "unclear", False, None, *_ends(stamps), problem
        )
    said += series.notes
    missing = int((~series.known).sum())
    if missing == len(series.known):
        problem = f"'{path}' holds no finite value."
    elif missing:
        first = int(np.flatnonzero(~series.known)[0])
        said.append(
            f"'{path}' has {missing} of {len(series.known)} samples that are not finite (the first "
            f"at {series.times_s[first]:.6g} s); labels are unknown there."
        )
    start, stop = _ends(series.times_s)
    share = None
    if times is not None and len(times) and start is not None and stop is not None:
        share = float(((times >= start) & (times <= stop)).mean())
    kind = "discrete" if series.discrete else "continuous"
    return BehaviorFacts(
        path,
        shape,
        _rate(series.times_s),
        unit,
        kind,
        series.period is not None,
        share,
        start,
        stop,
        problem,
    )


def _table(one: Table, said: list[str]) -> TableFacts:
    time, assumed = spans(one)
    said += assumed
    values = []
    if "tags" in one.ragged:
        try:
            tags = np.array([str(t) for row in one.rows("tags") for t in row], dtype=object)
            values.append(("tags", few_values(tags)))
        except GrevyError as error:
            said.append(str(error))
    for c in one.plain:
        if one.group[c].ndim == 1 and one.group[c].dtype.kind in "OS":
            column = one.column(c)
            if column.dtype == object and all(isinstance(v, str) for v in column):
                values.append((c, few_values(column)))
    columns = tuple(c for c in (*one.plain, *one.ragged) if c not in ("start_time", "stop_time"))
    kept = tuple((c, v) for c, v in values if len(v) > 1)
    return TableFacts(one.path, one.n_rows, columns, *_ends(time.ravel()), kept)


def _empty(behavior: tuple[BehaviorFacts, ...]) -> list[str]:
    """One sentence for all series without a finite value."""
    empty = [b.path for b in behavior if b.problem.endswith("holds no finite value.")]
    if not empty:
        return []
    listed = ", ".join(f"'{p}'" for p in empty[:5])
    return [
        f"{len(empty)} series hold no finite value: {listed}{', ...' if len(empty) > 5 else ''}."
    ]
