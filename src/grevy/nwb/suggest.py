"""Choose the command that fits a file."""

from __future__ import annotations

import shlex
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .activity import RANK, UNITS_RANK
from .behavior import read_series
from .clock import period_of
from .facts import ActivityFacts, BehaviorFacts, StimulusFacts, UnitsFacts
from .files import neurodata_type
from .intervals import inside, spans, tagged, union
from .tables import Table, few_values

__all__ = ["options", "population"]

FEW_REPEATS = 3
"""Stimuli that repeat less often are no reason to leave out behaviour."""
_NEARLY_ALL = 0.95
"""Share of the activity over which behaviour is known that is held against its scores."""


def population(
    activity: tuple[ActivityFacts, ...], units: UnitsFacts | None, said: list[str]
) -> tuple[str, list[str]] | None:
    """What a run would read and the options for it, None where nothing can be run, saying why."""
    places: list[tuple[int, str, int, str]] = []
    for a in activity:
        n = a.n_channels if a.n_accepted is None else a.n_accepted
        places.append((RANK[a.kind], a.path, n, a.problem))
    if units is not None:
        places.append((UNITS_RANK, "units", units.n_units - units.n_silent, units.problem))
    places.sort(key=lambda p: p[0])
    for rank, path, n, problem in places:
        if problem or n < 2:
            continue
        others = [f"'{p}'" for _, p, m, q in places if p != path and m > 1 and not q]
        if others:
            said.append(f"A run reads '{path}'; --series chooses another: {', '.join(others)}.")
        if rank == RANK["fluorescence"]:
            said.append(f"'{path}' is raw fluorescence: bleaching and neuropil are in it.")
        return path, [] if path == places[0][1] else [f"--series {shlex.quote(path)}"]
    for _, path, n, problem in places:
        if problem:
            said.append(f"Nothing can be run: '{path}' cannot be read, as said above.")
        else:
            found = f"{n} channel{'s' * (n != 1)} with data"
            said.append(
                f"Nothing can be run: '{path}' holds {found}, and an embedding needs a population."
            )
    if not places:
        said.append(
            "Nothing can be run: the file holds neither traces of a population nor sorted units."
        )
    return None


def options(
    file: Any,
    behavior: tuple[BehaviorFacts, ...],
    tables: list[Table],
    stimuli: tuple[StimulusFacts, ...],
    times: NDArray[np.float64] | None,
    said: list[str],
) -> list[str]:
    """Options of `grevy run`: behaviour where stimuli repeat, else the label that promises most."""
    usable = [s for s in stimuli if not s.reason]
    if any(s.n_frames and s.n_repeats >= FEW_REPEATS for s in usable):
        return _beside(behavior)
    best = _best_series(file, behavior)
    if best is not None:
        paths = [b.path for b in behavior]
        chosen = [f"--label {shlex.quote(_short(best.path, paths))}"]
        epoch = _epoch(best, tables, times)
        return [f"--epochs {shlex.quote(epoch)}", *chosen] if epoch else chosen
    column = _best_column(tables)
    if column:
        return [f"--label {shlex.quote(column)}"]
    if usable:
        return []
    said.append(
        "There is nothing to decode: no stimulus repeats and no behaviour fits. A run shows the "
        "embedding without a claim."
    )
    return []


def _beside(behavior: tuple[BehaviorFacts, ...]) -> list[str]:
    """The behaviour that scores can be held against: continuous, and known nearly throughout."""
    paths = [b.path for b in behavior]
    names = [
        shlex.quote(_short(b.path, paths))
        for b in behavior
        if not b.problem and b.kind == "continuous" and (b.share or 0) >= _NEARLY_ALL
    ]
    return [f"--behaviour {' '.join(names)}"] if names else []


def _best_series(file: Any, behavior: tuple[BehaviorFacts, ...]) -> BehaviorFacts | None:
    """The series most worth decoding: the fullest circle, then positions, then the continuous."""
    best: tuple[float, BehaviorFacts] | None = None
    for one in behavior:
        if one.problem or one.kind != "continuous" or not one.share or one.share < 0.05:
            continue
        if (one.rate_hz or 0) < 1:
            continue
        group = file[one.path]
        values = read_series(one.path, group).values
        period = period_of(one.unit)
        score = 1.0
        if one.circular and period:
            score = 4.0 * float(1 - abs(np.nanmean(np.exp(2j * np.pi * values / period))))
        elif "SpatialSeries" in neurodata_type(group) or "osition" in one.path:
            score = 2.0
        if best is None or score > best[0]:
            best = (score, one)
    return None if best is None else best[1]


def _short(path: str, paths: list[str]) -> str:
    """The shortest end of an object path that no other path has."""
    parts = path.split("/")
    for n in range(1, len(parts)):
        end = "/".join(parts[-n:])
        if sum(p == end or p.endswith(f"/{end}") for p in paths) == 1:
            return end
    return path


def _epoch(label: BehaviorFacts, tables: list[Table], times: NDArray[np.float64] | None) -> str:
    """The tag of an epoch that holds nearly all of a label and leaves out time without it."""
    if times is None or label.share is None or label.share > 0.9:
        return ""
    known = times[(times >= (label.start_s or 0)) & (times <= (label.stop_s or 0))]
    best, fullest = "", 1.2 * label.share
    for one in tables:
        if one.name != "epochs":
            continue
        named: dict[str, list[NDArray[np.float64]]] = {}
        for tag, rows in tagged(one):
            named.setdefault(tag, []).append(rows)
        for tag, parts in named.items():
            time = union(np.concatenate(parts))
            held = int((inside(known, time) >= 0).sum())
            whole = int((inside(times, time) >= 0).sum())
            if held >= 0.9 * len(known) and held > fullest * whole:
                best, fullest = tag, held / whole
    return best


def _best_column(tables: list[Table]) -> str:
    """A column of trials that names a condition: few different words, each more than once."""
    for one in tables:
        if one.name == "epochs" or not np.isfinite(spans(one)[0]).any():
            continue
        for c in one.plain:
            if one.group[c].ndim != 1 or one.group[c].dtype.kind not in "OSiub":
                continue
            counts = few_values(one.column(c))
            if len(counts) >= 2 and counts[-1][1] >= 5 and one.name != "invalid_times":
                return f"{one.name}.{c}"
    return ""
