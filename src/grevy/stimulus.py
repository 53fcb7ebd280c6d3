"""What was on the screen and when: stimulus tables, frame intervals, the frame of every sample.

::

    table_from_series / table_from_intervals -> StimulusTable     one row a refresh or table row
    frame_intervals(table)                   -> FrameIntervals    runs of one frame, presentations
    align(times_s, table)                    -> StimulusTrack     frame, stimulus, repeat a sample

The rows of all stimuli form one timeline: a row lasts until the next row starts. Five rules go
beyond that:

1. A *gap* longer than `gap_s` is no stimulus. Where a row states no end of its own (a series of
   timestamps) it then lasts one refresh, the median step of its stimulus.
2. A *presentation* (one repeat) of a stimulus ends where its frame number resets, where a gap
   opens, where another stimulus takes over for a refresh or more, or where the block number of
   the file changes. A stimulus whose frames mostly fall (a movie run backwards) resets by rising.
3. Intervals are half open: a sample taken at the instant of a change sees the new frame.
4. Where rows of two stimuli overlap the later row counts, and both stimuli get a reason.
5. Rows without a frame (clips, trials) are one presentation each, and the frame of a sample is its
   step since onset. In a stimulus that has frames elsewhere, a row without one is a blank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import ConfigError, DataError
from .presentations import order_confounds, reasons_against, remarks, short_presentations
from .recording import BLOCK_DTYPE, StimulusTrack

__all__ = [
    "FrameIntervals",
    "StimulusTable",
    "align",
    "frame_intervals",
    "order_confounds",
    "remarks",
    "short_presentations",
    "table_from_intervals",
    "table_from_series",
]

GAP_REFRESHES = {False: 3.0, True: 0.5}
"""Default `gap_s` in refreshes, without and with stops of its own in the table.

A display that drops a frame now and then must not end a presentation, hence three where only
starts are known; where the file states when a row stops, half a refresh absorbs its rounding.
"""


@dataclass(frozen=True, eq=False)
class StimulusTable:
    """What the file says was shown, one row a display refresh or table row, sorted by start.

    Attributes
    ----------
    start_s, stop_s : array of float64, shape (n,)
        Seconds on the clock of the recording. Equal starts keep the order of the file.
    frame : array of int64, shape (n,)
        Frame of the movie, -1 where a row has none.
    name : array of int32, shape (n,)
        Stimulus of the row, an index into `names`.
    names : tuple of str
        All stimuli of the session, those without rows too.
    has_frames : bool
        Whether any row has a frame.
    stops_stated : bool
        Whether `stop_s` comes from the file; False where it is only the next timestamp of the same
        series, which after the last refresh of a presentation may be minutes later.
    block : array of int64, shape (n,), or None
        Presentation block of the file; a change of it opens a new repeat.
    """

    start_s: NDArray[np.float64]
    stop_s: NDArray[np.float64]
    frame: NDArray[np.int64]
    name: NDArray[np.int32]
    names: tuple[str, ...]
    has_frames: bool
    stops_stated: bool = True
    block: NDArray[np.int64] | None = None

    @property
    def n_rows(self) -> int:
        """Number of rows, n."""
        return len(self.start_s)


@dataclass(frozen=True, eq=False)
class FrameIntervals:
    """Runs of rows that show one frame of one stimulus, and the presentations they form.

    Attributes
    ----------
    start_s, stop_s : array of float64, shape (m,)
        Each interval is [start, stop) in seconds; sorted, and none overlaps the next.
    frame : array of int64, shape (m,)
        -1 where the table has no frames.
    name : array of int32, shape (m,)
        Index into `names` of the table.
    first_row, stop_row : array of int64, shape (m,)
        Rows [first, stop) of the table that the interval is made of.
    block : array of int64, shape (m,)
        Presentation that the interval belongs to, an index into `blocks`.
    blocks : array, shape (K,), fields as in `StimulusTrack.blocks`
        Every presentation, in order of start.
    """

    start_s: NDArray[np.float64]
    stop_s: NDArray[np.float64]
    frame: NDArray[np.int64]
    name: NDArray[np.int32]
    first_row: NDArray[np.int64]
    stop_row: NDArray[np.int64]
    block: NDArray[np.int64]
    blocks: NDArray[np.void]


def table_from_series(series: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> StimulusTable:
    """Make a stimulus table of one series of timestamps and frame numbers a stimulus.

    This is the layout of DANDI 000036 (IndexSeries). N timestamps give N - 1 rows, each lasting
    until the next timestamp of its series.

    Parameters
    ----------
    series : mapping of str to (times, frames)
        For each stimulus the display times in seconds, shape (N,), not decreasing, and the frame
        numbers, shape (N,). Stimuli with no or one timestamp have no rows but stay in `names`.

    Returns
    -------
    StimulusTable

    Raises
    ------
    DataError
        If times and frames differ in length, times are not finite or fall, or frames are not whole
        numbers.

    Examples
    --------
    >>> table = table_from_series({"movie": ([0.0, 0.1, 0.2], [0, 1, 2]), "dots": ([5.0], [0])})
    >>> table.n_rows, table.frame.tolist(), table.names
    (2, [0, 1], ('movie', 'dots'))
    """
    starts, stops, frames, names = [], [], [], []
    for number, (key, (when, what)) in enumerate(series.items()):
        times = np.asarray(when, dtype=np.float64).ravel()
        shown = _whole(what, f"frames of stimulus '{key}'")
        if len(times) != len(shown):
            raise DataError(
                f"stimulus '{key}' must have one frame a timestamp; found {len(times)} timestamps "
                f"and {len(shown)} frames."
            )
        if not np.isfinite(times).all() or (np.diff(times) < 0).any():
            raise DataError(
                f"timestamps of stimulus '{key}' must be finite and must not fall; found "
                f"{int((~np.isfinite(times)).sum())} not finite and "
                f"{int((np.diff(times) < 0).sum())} falling steps. Sort or drop them."
            )
        starts.append(times[:-1])
        stops.append(times[1:])
        frames.append(shown[:-1])
        names.append(np.full(max(len(times) - 1, 0), number))
    return _sorted_table(
        _join(starts, np.float64),
        _join(stops, np.float64),
        _join(frames, np.int64),
        _join(names, np.int32),
        tuple(series),
        stops_stated=False,
    )


def table_from_intervals(
    start_s: ArrayLike,
    stop_s: ArrayLike,
    names: Sequence[str],
    frames: ArrayLike | None = None,
    blocks: ArrayLike | None = None,
) -> StimulusTable:
    """Make a stimulus table of an interval table: presentations, trials, clips.

    Parameters
    ----------
    start_s, stop_s : array_like, shape (n,)
        Seconds; no row may stop before it starts. In any order.
    names : sequence of str, length n
        Stimulus of each row.
    frames : array_like, shape (n,), optional
        Frame of each row; NaN or negative where a row has none.
    blocks : array_like, shape (n,), optional
        Presentation block of each row (`stimulus_block` of Allen tables); NaN counts as -1.

    Returns
    -------
    StimulusTable
        `names` in order of first appearance in the file.

    Raises
    ------
    DataError
        If lengths differ, times are not finite, a row stops before it starts, or frames or blocks
        are not whole numbers.

    Examples
    --------
    >>> table = table_from_intervals([3.0, 0.0], [4.0, 2.0], ["b", "a"])
    >>> table.start_s.tolist(), [table.names[i] for i in table.name], table.has_frames
    ([0.0, 3.0], ['a', 'b'], False)
    """
    start = np.asarray(start_s, dtype=np.float64).ravel()
    stop = np.asarray(stop_s, dtype=np.float64).ravel()
    n = len(start)
    frame = np.full(n, -1, np.int64) if frames is None else _whole(frames, "column of frames")
    block = None if blocks is None else _whole(blocks, "column of blocks")
    lengths = [n, len(stop), len(names), len(frame), n if block is None else len(block)]
    if len(set(lengths)) > 1:
        raise DataError(
            f"columns of a stimulus table must have one length; found start, stop, names, frames, "
            f"blocks with {lengths}."
        )
    bad = np.flatnonzero(~(np.isfinite(start) & np.isfinite(stop) & (stop >= start)))
    if len(bad):
        raise DataError(
            f"rows of a stimulus table must have finite times and stop after they start; found "
            f"{len(bad)} that do not, the first row {bad[0]} from {start[bad[0]]} to "
            f"{stop[bad[0]]} s. Drop or mend these rows."
        )
    known = {key: i for i, key in enumerate(dict.fromkeys(names))}
    name = np.fromiter((known[key] for key in names), dtype=np.int32, count=n)
    return _sorted_table(start, stop, frame, name, tuple(known), stops_stated=True, block=block)


def _join(parts: Sequence[NDArray[np.generic]], dtype: type[np.generic]) -> NDArray[np.generic]:
    return np.concatenate([np.empty(0, dtype), *parts]).astype(dtype)


def _whole(values: ArrayLike, what: str) -> NDArray[np.int64]:
    """Whole numbers as int64, with -1 for NaN and for anything negative."""
    raw = np.asarray(values).ravel()
    if len(raw) == 0:
        return np.empty(0, np.int64)
    if raw.dtype.kind not in "iufb":
        raise DataError(f"{what} must be numbers; found {raw.dtype}.")
    numbers = np.where(np.isnan(raw), -1, raw) if raw.dtype.kind == "f" else raw
    with np.errstate(invalid="ignore"):  # what is too large is not equal, and refused
        whole = numbers.astype(np.int64)
    bad = np.flatnonzero(whole != numbers)
    if len(bad):
        raise DataError(
            f"{what} must be whole numbers; found {len(bad)} that are not, the first "
            f"{raw[bad[0]]} in row {bad[0]}."
        )
    return np.maximum(whole, -1)


def _sorted_table(
    start: NDArray[np.generic],
    stop: NDArray[np.generic],
    frame: NDArray[np.generic],
    name: NDArray[np.generic],
    names: tuple[str, ...],
    *,
    stops_stated: bool,
    block: NDArray[np.int64] | None = None,
) -> StimulusTable:
    order = np.argsort(start, kind="stable")
    return StimulusTable(
        start_s=start[order].astype(np.float64),
        stop_s=stop[order].astype(np.float64),
        frame=frame[order].astype(np.int64),
        name=name[order].astype(np.int32),
        names=names,
        has_frames=bool((frame.astype(np.int64) >= 0).any()),
        stops_stated=stops_stated,
        block=None if block is None else block[order],
    )


@dataclass(frozen=True, eq=False)
class _Clock:
    """The pace of each stimulus, shape (names,): has it frames, refresh and gap in seconds."""

    framed: NDArray[np.bool_]
    refresh_s: NDArray[np.float64]
    gap_s: NDArray[np.float64]


def _clock(table: StimulusTable, gap_s: float | None) -> _Clock:
    if gap_s is not None and not gap_s >= 0:
        raise ConfigError(f"gap_s must be at least 0 seconds; found {gap_s}.")
    n = len(table.names)
    framed = np.zeros(n, dtype=bool)
    framed[table.name[table.frame >= 0]] = True
    lasted = table.stop_s - table.start_s
    refresh = np.zeros(n)
    for number in range(n):
        own = lasted[table.name == number]
        refresh[number] = np.median(own) if len(own) else 0.0
    gap = np.full(n, gap_s) if gap_s is not None else GAP_REFRESHES[table.stops_stated] * refresh
    if gap_s is None:
        gap = np.where(framed, gap, 0.0)
    return _Clock(framed, refresh, gap)


def _ends(table: StimulusTable, clock: _Clock) -> NDArray[np.float64]:
    """When each row stops by itself, shape (n,): one refresh after its start where a gap opens."""
    if table.stops_stated:
        return table.stop_s
    one = table.start_s + clock.refresh_s[table.name]
    return np.where(table.stop_s - one > clock.gap_s[table.name], one, table.stop_s)


def _presentations(
    table: StimulusTable, clock: _Clock, ends: NDArray[np.float64], shown: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.void]]:
    """Which presentation each row belongs to (-1 for a blank), and all presentations."""
    rows = np.flatnonzero(shown)
    order = np.argsort(table.name[rows], kind="stable")  # each stimulus's own rows, in time
    chain = rows[order]
    name, frame, start = table.name[chain], table.frame[chain], table.start_s[chain]
    same = np.append(False, name[1:] == name[:-1])
    step = np.append(0, np.diff(frame)) * same
    backwards = np.bincount(name, np.sign(step), len(table.names)) < 0
    reset = np.where(backwards[name], -step, step) < 0
    before_s = np.append(0.0, start[:-1])
    gap = start - np.append(0.0, ends[chain][:-1]) > clock.gap_s[name]
    between = np.append(0, np.diff(order)) > 1
    taken = between & (start - before_s > 1.5 * clock.refresh_s[name])
    first = ~same | reset | gap | taken | (frame < 0)
    if table.block is not None:
        first |= np.append(0, np.diff(table.block[chain])) != 0
    begins = np.flatnonzero(first)
    blocks = np.zeros(len(begins), dtype=BLOCK_DTYPE)
    blocks["stimulus"] = name[begins]
    opens = np.flatnonzero(np.append(True, np.diff(name[begins]) != 0))
    blocks["repeat"] = np.arange(len(begins)) - np.repeat(
        opens, np.diff(np.append(opens, len(begins)))
    )
    blocks["start_s"] = start[begins]
    shown_until = np.minimum(ends, _ends(table, _clock(table, None)))  # whatever gap was asked for
    blocks["stop_s"] = np.maximum.reduceat(shown_until[chain], begins)
    in_time = np.argsort(blocks["start_s"], kind="stable")
    rank = np.empty(len(begins), np.int64)
    rank[in_time] = np.arange(len(begins))
    block = np.full(table.n_rows, -1, np.int64)
    block[chain] = rank[np.cumsum(first) - 1]
    return block, blocks[in_time]


def frame_intervals(table: StimulusTable, *, gap_s: float | None = None) -> FrameIntervals:
    """Join rows that show one frame of one stimulus, and find the presentations.

    Parameters
    ----------
    table : StimulusTable
    gap_s : float, optional
        Seconds from the end of a row to the start of the next above which nothing was shown.
        Default: 3 refreshes of the stimulus (its median row) where only starts are known, half a
        refresh where the file states stops, 0 for stimuli without frames. With infinity no gap
        is ever opened, and each frame lasts until the next, whenever that is.

    Returns
    -------
    FrameIntervals

    Raises
    ------
    ConfigError
        If `gap_s` is negative.

    Examples
    --------
    >>> table = table_from_series({"movie": ([0.0, 0.1, 0.2, 0.3, 9.0, 9.1], [0, 0, 1, 1, 0, 0])})
    >>> found = frame_intervals(table)
    >>> found.start_s.tolist(), found.stop_s.round(3).tolist(), found.frame.tolist()
    ([0.0, 0.2, 9.0], [0.2, 0.4, 9.1], [0, 1, 0])
    >>> found.blocks["repeat"].tolist()
    [0, 1]
    """
    clock = _clock(table, gap_s)
    if table.n_rows == 0:
        none, zero = np.empty(0), np.empty(0, np.int64)
        blocks = np.empty(0, dtype=BLOCK_DTYPE)
        return FrameIntervals(none, none, zero, table.name, zero, zero, zero, blocks)
    ends = _ends(table, clock)
    shown = (table.frame >= 0) | ~clock.framed[table.name]
    block, blocks = _presentations(table, clock, ends, shown)
    following = np.append(table.start_s[1:], ends[-1])
    until = np.where(following - ends > clock.gap_s[table.name], ends, following)
    joined = (until[:-1] == following[:-1]) & (block[1:] == block[:-1]) & shown[1:] & shown[:-1]
    joined &= table.frame[1:] == table.frame[:-1]
    first = np.flatnonzero(np.append(True, ~joined))
    stop = np.append(first[1:], table.n_rows)
    keep = shown[first]
    first, stop = first[keep], stop[keep]
    return FrameIntervals(
        start_s=table.start_s[first],
        stop_s=until[stop - 1],
        frame=table.frame[first],
        name=table.name[first],
        first_row=first,
        stop_row=stop,
        block=block[first],
        blocks=blocks,
    )


def align(times_s: ArrayLike, table: StimulusTable, *, gap_s: float | None = None) -> StimulusTrack:
    """Say for every sample which frame of which stimulus was shown, and in which repeat.

    Parameters
    ----------
    times_s : array_like, shape (T,)
        Sample times of the recording in seconds, increasing.
    table : StimulusTable
    gap_s : float, optional
        As in `frame_intervals`.

    Returns
    -------
    StimulusTrack
        Its `reasons` name every stimulus whose frames cannot be decoded, and why.

    Raises
    ------
    ConfigError
        If `gap_s` is negative.

    Notes
    -----
    Two binary searches and a handful of sorts: O((n + T) log n), no Python loop over rows.

    Examples
    --------
    >>> table = table_from_series({"movie": ([0.0, 0.1, 0.2, 9.0, 9.1, 9.2], [0, 1, 1, 0, 1, 1])})
    >>> track = align([0.05, 0.15, 5.0, 9.05, 9.15], table)
    >>> track.frame.tolist(), track.repeat.tolist(), track.decodable
    ([0, 1, -1, 0, 1], [0, 0, -1, 1, 1], ('movie',))
    """
    times = np.asarray(times_s, dtype=np.float64)
    found = frame_intervals(table, gap_s=gap_s)
    at = np.searchsorted(found.start_s, times, side="right") - 1
    inside = at >= 0
    inside[inside] = times[inside] < found.stop_s[at[inside]]
    hit = at[inside]
    index, frame, repeat = (np.full(len(times), -1, np.int32) for _ in range(3))
    index[inside] = found.name[hit]
    repeat[inside] = found.blocks["repeat"][found.block[hit]]
    frame[inside] = _frames(times, inside, found, hit)
    n_frames, duration = [], []
    for number in range(len(table.names)):
        own = found.blocks[found.blocks["stimulus"] == number]
        largest = int(found.frame[found.name == number].max(initial=-1))
        largest = largest if largest >= 0 else int(frame[index == number].max(initial=-1))
        n_frames.append(largest + 1)
        duration.append(float(np.median(own["stop_s"] - own["start_s"])) if len(own) else 0.0)
    track = StimulusTrack(
        names=table.names,
        index=index,
        frame=frame,
        repeat=repeat,
        n_frames=tuple(n_frames),
        duration_s=tuple(duration),
        blocks=found.blocks,
    )
    clock = _clock(table, None)
    slack_s = np.where(clock.framed, 1.01, 0.05) * clock.refresh_s
    reasons = reasons_against(track, times, slack_s)
    return replace(track, reasons=MappingProxyType(reasons))


def _frames(
    times: NDArray[np.float64],
    inside: NDArray[np.bool_],
    found: FrameIntervals,
    hit: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Frame of each sample that has one; where the table gives none, its step since onset."""
    frame = found.frame[hit]
    bare = np.flatnonzero(frame < 0)
    if len(bare) == 0:
        return frame
    dt = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    when = times[inside][bare]
    _, first, which = np.unique(hit[bare], return_index=True, return_inverse=True)
    late = np.floor((when[first] - found.start_s[hit[bare][first]]) / dt)  # first sample missed?
    frame[bare] = late[which] + np.rint((when - when[first][which]) / dt)
    return frame
