"""Read an NWB file as a `Recording`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError
from ..recording import Recording, StimulusTrack, gaps, make_recording
from ..stimulus import align
from .activity import (
    RANK,
    UNITS_RANK,
    NanPolicy,
    Source,
    TimesPolicy,
    Traces,
    find_activity,
    find_series,
    read_activity,
)
from .behavior import find_label
from .files import NwbFile, of_file, open_nwb, outside_text, points_outside
from .intervals import Spans, inside, restrict_to, spans, union, without
from .stimuli import find_stimuli
from .tables import table
from .units import Units, find_units, read_units, unit_span

__all__ = ["read"]


def read(
    path: NwbFile,
    *,
    series: str | None = None,
    units: str | None = None,
    bin_s: float | None = None,
    epochs: str | None = None,
    stimuli: Sequence[str] | None = None,
    labels: Sequence[str] = (),
    nan: NanPolicy = "refuse",
    times: TimesPolicy = "refuse",
    allow_external: bool = False,
) -> Recording:
    """Read the activity of one session, its stimuli, and what the animal did.

    Without `series`, `units` and `bin_s` the activity is the first there is of: dF/F, events or
    deconvolved traces, fluorescence, binned units, one series a neuron, neuropil.

    Parameters
    ----------
    path : path, binary file or h5py.File
        An NWB 2 file, HDF5 or a folder of Zarr; it is opened read-only. One that is open stays so.
    series : str, optional
        Object path of the traces to read.
    units : str, optional
        Condition on columns of the units table, such as ``"location == 'CA1' and snr > 2"``.
    bin_s : float, optional
        Width of a spike-count bin in seconds; 0.05 by default.
    epochs : str, optional
        The part of the session to read: a tag of the table `epochs`, the name of an interval table,
        or ``table:value``. Several intervals give several epochs of the recording.
    stimuli : sequence of str, optional
        The stimuli to align; all of them by default.
    labels : sequence of str
        Behaviour to read: ends of object paths (``ry``, ``CompassDirection/ry``) or TABLE.COLUMN.
    nan : {"refuse", "drop-roi", "interpolate", "mask"}
        What to do about traces that are not finite; "mask" leaves out the samples.
    times : {"refuse", "drop"}
        What to do about timestamps that do not increase.
    allow_external : bool
        Whether the file may point to data in other files.

    Returns
    -------
    Recording
        `notes` say whatever was decided, left out or assumed.

    Raises
    ------
    ConfigError
        If the settings contradict each other, or `units` cannot be read as a condition.
    DataError
        If the file is no NWB 2 file, is damaged, or does not hold what was asked for.
    LimitError
        If what was asked for does not fit into memory.
    UnsafeFileError
        If the file points outside itself and `allow_external` is not set.
    """
    _check_settings(series, units, bin_s, labels, nan, times)
    with open_nwb(path, allow_external=allow_external) as file:
        sources = find_activity(file)
        time, notes = (None, "") if epochs is None else restrict_to(file, epochs)
        invalid, warned = _invalid(file)
        chosen, others = _choose(file, sources, series, units is not None or bin_s is not None)
        if isinstance(chosen, Units):
            whole = unit_span(chosen, units) if time is None else time
            traces = read_units(
                chosen, condition=units, bin_s=bin_s, within=without(whole, invalid)
            )
        else:
            traces = _within(read_activity(chosen, nan=nan, times=times), time, invalid)
        outside = points_outside(file) if allow_external else None
        warned += [outside_text(outside)] if outside else []
        said = [*traces.notes, *([notes] if notes else []), *warned]
        if others:
            said.append(f"Activity was read from '{traces.path}'; not read: {', '.join(others)}.")
        track, aligned = _stimuli(file, traces.times_s, stimuli)
        found = {}
        for name in labels:
            found[name], remarks = find_label(file, name, traces.times_s, sources, times=times)
            said += remarks
        return make_recording(
            traces.x,
            traces.times_s,
            epochs=traces.epochs,
            labels=found,
            channels=traces.channels,
            regions=traces.regions,
            stimulus=track,
            name=Path(of_file(path)).name,
            activity_unit=traces.unit,
            source=traces.path,
            notes=[*said, *aligned],
        )


def _check_settings(
    series: str | None,
    units: str | None,
    bin_s: float | None,
    labels: Sequence[str],
    nan: str,
    times: str,
) -> None:
    if series is not None and (units is not None or bin_s is not None):
        raise ConfigError("series chooses traces, units and bin_s choose spikes: give only one.")
    if nan not in get_args(NanPolicy):
        raise ConfigError(f"nan must be one of {', '.join(get_args(NanPolicy))}; found '{nan}'.")
    if times not in ("refuse", "drop"):
        raise ConfigError(f"times must be 'refuse' or 'drop'; found '{times}'.")
    if isinstance(labels, str):
        raise ConfigError(f"labels must be a sequence of names; found the text '{labels}'.")


def _choose(
    file: Any, sources: list[Source], series: str | None, want_units: bool
) -> tuple[Source | Units, list[str]]:
    """What to read as activity, and what else could have been."""
    units = find_units(file)
    if series is not None and series.strip("/") != "units":
        return find_series(file, series), []
    if want_units and units is None:
        raise DataError(
            "units and bin_s need a units table with spike_times; found none. Use series."
        )
    ranked: list[tuple[int, str, Source | Units]] = [(RANK[s.kind], s.path, s) for s in sources]
    if units is not None:
        ranked.append((UNITS_RANK, "units", units))
    if not ranked:
        raise DataError(
            "the file must hold traces of a population or sorted units; found neither. Name an "
            "object path with series=, if one of its series is activity."
        )
    ranked.sort(key=lambda r: r[0])
    best = ranked[0][2]
    if units is not None and (want_units or series is not None):
        best = units
    return best, [f"'{p}'" for _, p, thing in ranked if thing is not best]


def _invalid(file: Any) -> tuple[Spans, list[str]]:
    """Time that the file itself calls invalid."""
    none = np.empty((0, 2))
    if "intervals/invalid_times" not in file:
        return none, []
    one = table("intervals/invalid_times", file["intervals/invalid_times"])
    if not {"start_time", "stop_time"} <= set(one.plain) or one.n_rows == 0:
        return none, []
    rows, notes = spans(one)
    time = union(rows)
    total = float(np.diff(time, axis=1).sum())
    return time, [
        *notes,
        f"{total:.6g} s in {len(time)} stretches are left out as intervals/invalid_times.",
    ]


def _within(traces: Traces, time: Spans | None, invalid: Spans) -> Traces:
    """Cut traces to stretches of time, less what is invalid; each stretch is an epoch."""
    when = traces.times_s
    if time is None and len(invalid) == 0:
        return traces
    unbroken = gaps(when) if traces.epochs is None else traces.epochs
    stretch = np.zeros(len(when), np.int64)
    stretch[unbroken[1:, 0]] = 1
    stretch = np.cumsum(stretch)
    span = np.zeros(len(when), np.int64) if time is None else inside(when, time)
    keep = (span >= 0) & (inside(when, invalid) < 0)
    kept = np.flatnonzero(keep)
    if len(kept) < 2:
        raise DataError(
            f"the chosen time must hold at least two samples of '{traces.path}', which runs from "
            f"{when[0]:.6g} to {when[-1]:.6g} s; found {len(kept)}. Choose other epochs."
        )
    new = (np.diff(kept) > 1) | (np.diff(stretch[kept]) > 0) | (np.diff(span[kept]) != 0)
    edges = np.concatenate([[0], np.flatnonzero(new) + 1, [len(kept)]])
    borders = np.stack([edges[:-1], edges[1:]], axis=1)
    return replace(traces, x=traces.x[kept], times_s=when[kept], epochs=borders)


def _stimuli(
    file: Any, times_s: NDArray[np.float64], wanted: Sequence[str] | None
) -> tuple[StimulusTrack | None, list[str]]:
    shown = find_stimuli(file, wanted)
    if shown is None:
        return None, []
    return align(times_s, shown.table), list(shown.notes)
