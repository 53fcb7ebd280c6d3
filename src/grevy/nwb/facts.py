"""What `describe` finds in a file: plain facts, ready for JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .activity import Kind

__all__ = ["ActivityFacts", "BehaviorFacts", "ColumnFacts", "Description", "FileFacts",
           "StimulusFacts", "TableFacts", "UnitsFacts", "to_json"]  # fmt: skip


@dataclass(frozen=True)
class FileFacts:
    """The file as a whole; strings are as the file has them."""

    path: str
    size_bytes: int
    nwb_version: str
    identifier: str
    session_description: str
    session_start_time: str
    subject: str
    species: str


@dataclass(frozen=True)
class ActivityFacts:
    """One set of traces. `problem` says why it cannot be read, "" where it can."""

    path: str
    kind: Kind
    shape: tuple[int, ...]
    n_samples: int
    n_channels: int
    n_accepted: int | None
    orientation: str
    rate_hz: float | None
    start_s: float | None
    stop_s: float | None
    unit: str
    problem: str = ""


@dataclass(frozen=True)
class ColumnFacts:
    """A column of the units table; `counts` where it has few distinct values."""

    name: str
    counts: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class UnitsFacts:
    """The units table. `problem` says why it cannot be read, "" where it can."""

    n_units: int
    n_spikes: int
    n_silent: int
    start_s: float | None
    stop_s: float | None
    columns: tuple[ColumnFacts, ...]
    problem: str = ""


@dataclass(frozen=True)
class StimulusFacts:
    """One stimulus. `reason` says why its frames cannot be decoded, "" where they can."""

    name: str
    path: str
    kind: str
    n_rows: int
    n_frames: int
    n_repeats: int
    start_s: float | None
    stop_s: float | None
    reason: str = ""


@dataclass(frozen=True)
class BehaviorFacts:
    """One behaviour series. `share` is that of the activity's time span which it covers."""

    path: str
    shape: tuple[int, ...]
    rate_hz: float | None
    unit: str
    kind: str
    circular: bool
    share: float | None
    start_s: float | None
    stop_s: float | None
    problem: str = ""


@dataclass(frozen=True)
class TableFacts:
    """One table of intervals; `values` counts the tags or other words in it, where few."""

    path: str
    n_rows: int
    columns: tuple[str, ...]
    start_s: float | None
    stop_s: float | None
    values: tuple[tuple[str, tuple[tuple[str, int], ...]], ...]


@dataclass(frozen=True)
class Description:
    """What is in an NWB file.

    Attributes
    ----------
    file : FileFacts
    activity : tuple of ActivityFacts
        In the order in which `read` would choose; binned units come after fluorescence.
    units : UnitsFacts or None
    stimuli : tuple of StimulusFacts
    behavior : tuple of BehaviorFacts
    intervals : tuple of TableFacts
    findings : tuple of str
        What a careful person would remark on, one sentence each.
    suggestion : str
        The command that fits the file, "" where none does; a finding then says why.
    """

    file: FileFacts
    activity: tuple[ActivityFacts, ...]
    units: UnitsFacts | None
    stimuli: tuple[StimulusFacts, ...]
    behavior: tuple[BehaviorFacts, ...]
    intervals: tuple[TableFacts, ...]
    findings: tuple[str, ...]
    suggestion: str


def to_json(description: Description) -> dict[str, Any]:
    """A description as plain lists, dicts, text and numbers, for `json.dumps`."""
    return asdict(description)
