"""What a recording is: activity, its clock, what the animal did and saw. Reads no files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import DataError
from .room import as_float32

__all__ = [
    "Label",
    "Recording",
    "StimulusTrack",
    "findings",
    "gaps",
    "make_recording",
    "mean_and_sd",
    "not_finite",
    "pieces",
    "restrict",
]

_PIECE = 2**24
"""Numbers looked at together where a recording may be larger than memory."""
LabelKind = Literal["continuous", "discrete"]


@dataclass(frozen=True, eq=False)
class Label:
    """One behavioural variable, sampled where the activity is.

    Attributes
    ----------
    values : array, shape (T,) or (T, d)
        float64 for a continuous label, int64 for a discrete one. Where `known` is false the value
        means nothing.
    kind : {"continuous", "discrete"}
        Stated, never guessed.
    unit : str
        Unit of `values`, "" where the file gives none.
    period : float or None
        For a circular label the length of the circle in `unit` (2 pi for radians): distances,
        means and errors are then taken around it.
    known : array of bool, shape (T,), or None
        Where the label was measured. None means everywhere. Unknown samples form no label pair and
        are never decoded; they do train time pairs.
    names : tuple of str
        For a discrete label the name of each class; empty where classes are plain numbers.
    """

    values: NDArray[np.float64] | NDArray[np.int64]
    kind: LabelKind
    unit: str = ""
    period: float | None = None
    known: NDArray[np.bool_] | None = None
    names: tuple[str, ...] = ()

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Where the label is known, shape (T,)."""
        return np.ones(len(self.values), dtype=bool) if self.known is None else self.known


@dataclass(frozen=True, eq=False)
class StimulusTrack:
    """What was on the screen at every sample of a recording.

    Attributes
    ----------
    names : tuple of str
        The stimuli of the session; `index` points into it.
    index : array of int32, shape (T,)
        Which stimulus, -1 where there was none.
    frame : array of int32, shape (T,)
        Frame of the movie (or step since onset where the table has no frames), -1 for no stimulus.
    repeat : array of int32, shape (T,)
        Which presentation of this stimulus, counted from 0 in order of time, -1 for no stimulus.
    n_frames : tuple of int
        Frames of each stimulus (the largest frame number shown, plus one).
    duration_s : tuple of float
        Median length of one presentation of each stimulus, in seconds.
    blocks : array, shape (K,), fields (stimulus i4, repeat i4, start_s f8, stop_s f8)
        Every presentation, in order of start.
    reasons : mapping of str to str
        Stimuli that frames cannot be decoded from, each with the reason ("never repeats", "has no
        samples", "overlaps NAME", ...). A stimulus not listed here can be decoded.
    """

    names: tuple[str, ...]
    index: NDArray[np.int32]
    frame: NDArray[np.int32]
    repeat: NDArray[np.int32]
    n_frames: tuple[int, ...]
    duration_s: tuple[float, ...]
    blocks: NDArray[np.void]
    reasons: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def decodable(self) -> tuple[str, ...]:
        """Names of the stimuli that no reason speaks against."""
        return tuple(name for name in self.names if name not in self.reasons)


BLOCK_DTYPE = np.dtype(
    [("stimulus", np.int32), ("repeat", np.int32), ("start_s", np.float64), ("stop_s", np.float64)]
)


@dataclass(frozen=True, eq=False)
class Recording:
    """One session: activity of a population, its clock, and what else is known at each sample.

    Attributes
    ----------
    activity : array of float32, shape (T, C)
        Time first. dF/F, counts a bin, or whatever `activity_unit` says.
    times_s : array of float64, shape (T,)
        Time of each sample in seconds (for binned spikes the middle of the bin), increasing.
    epochs : array of int64, shape (E, 2)
        Stretches of unbroken sampling as [start, stop) sample numbers; no window crosses a border.
    labels : mapping of str to Label
    channels : tuple of str, length C
    stimulus : StimulusTrack or None
    name : str
    activity_unit : str
    source : str
        Where the activity was read from: the object path inside the file, or how it was made.
    notes : tuple of str
        What reading did that a reader of the results must know (orientation, dropped timestamp,
        NaN policy, rejected ROIs), one sentence each.
    regions : tuple of str, length C or 0
        Where each channel lies, in the file's words, "" where it does not say; empty where it says
        nothing of any.
    """

    activity: NDArray[np.float32]
    times_s: NDArray[np.float64]
    epochs: NDArray[np.int64]
    labels: Mapping[str, Label] = field(default_factory=lambda: MappingProxyType({}))
    channels: tuple[str, ...] = ()
    stimulus: StimulusTrack | None = None
    name: str = ""
    activity_unit: str = ""
    source: str = ""
    notes: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()

    @property
    def n_samples(self) -> int:
        """T, the number of samples."""
        return int(self.activity.shape[0])

    @property
    def n_channels(self) -> int:
        """C, the number of cells, units or regions."""
        return int(self.activity.shape[1])

    @property
    def rate_hz(self) -> float:
        """Samples a second: one over the median step of `times_s`."""
        return float(1.0 / np.median(np.diff(self.times_s)))


def gaps(times_s: NDArray[np.float64], *, factor: float = 1.5) -> NDArray[np.int64]:
    """Split a clock into stretches of unbroken sampling.

    A step longer than `factor` times the median step opens a new epoch.

    Parameters
    ----------
    times_s : array, shape (T,)
        Sample times in seconds, increasing.
    factor : float
        How many median steps make a gap.

    Returns
    -------
    epochs : array of int64, shape (E, 2)
        [start, stop) sample numbers.

    Examples
    --------
    >>> gaps(np.array([0.0, 0.1, 0.2, 0.9, 1.0])).tolist()
    [[0, 3], [3, 5]]
    """
    n = len(times_s)
    if n < 3:
        return np.array([[0, n]], dtype=np.int64)
    steps = np.diff(times_s)
    cuts = np.flatnonzero(steps > factor * np.median(steps)) + 1
    edges = np.concatenate(([0], cuts, [n]))
    return np.stack([edges[:-1], edges[1:]], axis=1).astype(np.int64)


def make_recording(
    activity: ArrayLike,
    times_s: ArrayLike | None = None,
    *,
    rate_hz: float | None = None,
    epochs: ArrayLike | None = None,
    labels: Mapping[str, Label] | None = None,
    channels: Sequence[str] = (),
    regions: Sequence[str] = (),
    stimulus: StimulusTrack | None = None,
    name: str = "",
    activity_unit: str = "",
    source: str = "",
    notes: Sequence[str] = (),
) -> Recording:
    """Check arrays and make a `Recording` of them; the one place where a recording is validated.

    Parameters
    ----------
    activity : array_like, shape (T, C)
        Finite numbers, time first; kept as float32. A memory-mapped float32 array stays on disk:
        it is looked through once, and then read where it is needed.
    times_s : array_like, shape (T,), optional
        Sample times in seconds, strictly increasing. Give this or `rate_hz`.
    rate_hz : float, optional
        Samples a second, for an evenly sampled recording that starts at 0 s.
    epochs : array_like, shape (E, 2), optional
        [start, stop) sample numbers of unbroken stretches, in order and without overlap. Found
        from gaps in `times_s` where absent.
    labels, channels, regions, stimulus, name, activity_unit, source, notes
        As in `Recording`.

    Returns
    -------
    Recording

    Raises
    ------
    DataError
        If a shape, a clock, an epoch or a label does not hold what is promised above.

    Examples
    --------
    >>> recording = make_recording(np.zeros((100, 3)), rate_hz=10.0)
    >>> recording.n_samples, recording.n_channels, round(recording.rate_hz, 3)
    (100, 3, 10.0)
    """
    x = _real(activity, "activity")
    if x.ndim != 2 or x.shape[0] < 2 or x.shape[1] < 1:
        raise DataError(
            f"activity must have shape (time, channels) with at least 2 samples and 1 channel; "
            f"found shape {x.shape}. Put time on the first axis."
        )
    if times_s is None:
        if rate_hz is None or not rate_hz > 0:
            raise DataError(
                f"a recording needs times_s or a positive rate_hz; found rate_hz={rate_hz}."
            )
        with np.errstate(over="ignore", invalid="ignore"):  # refused below
            times = np.arange(x.shape[0], dtype=np.float64) / rate_hz
    else:
        with np.errstate(over="ignore"):
            times = _real(times_s, "times_s").astype(np.float64, copy=False)
    _check_clock(times, x.shape[0])
    x = as_float32(x)
    n_bad, where = not_finite(x)
    if n_bad:
        raise DataError(
            f"activity must be finite; found {n_bad} values that are not, the first at "
            f"sample {where[0]}, channel {where[1]}. Drop the channel or interpolate before."
        )
    borders = gaps(times) if epochs is None else np.asarray(epochs, dtype=np.int64)
    _check_epochs(borders, len(times))
    for key, label in (labels or {}).items():
        _check_label(key, label, len(times))
    if channels and len(channels) != x.shape[1]:
        raise DataError(f"found {len(channels)} channel names for {x.shape[1]} channels.")
    if regions and len(regions) != x.shape[1]:
        raise DataError(
            f"regions must name one for each of the {x.shape[1]} channels, or none; found "
            f"{len(regions)}. Use '' where one is not known."
        )
    return Recording(
        activity=x,
        times_s=times,
        epochs=borders,
        labels=MappingProxyType(dict(labels or {})),
        channels=tuple(channels) or tuple(f"channel {i}" for i in range(x.shape[1])),
        stimulus=stimulus,
        name=name,
        activity_unit=activity_unit,
        source=source,
        notes=tuple(notes),
        regions=tuple(regions),
    )


def pieces(x: NDArray[Any], spans: NDArray[np.int64] | None = None) -> Iterator[NDArray[Any]]:
    """Some rows of an array after the other, few enough to be held whatever its size.

    Parameters
    ----------
    x : array, shape (T, ...)
        May lie on disk.
    spans : array of int64, shape (E, 2), optional
        Only these rows, and no piece over a border.
    """
    step = max(1, _PIECE // max(1, x[:1].size))
    for a, b in [(0, len(x))] if spans is None else spans.tolist():
        for i in range(a, b, step):
            yield x[i : min(i + step, b)]


def not_finite(x: NDArray[Any]) -> tuple[int, tuple[int, int]]:
    """How many values of (T, C) are NaN or infinite, and row and column of the first."""
    count, first, row = 0, (0, 0), 0
    for piece in pieces(x):
        good = np.isfinite(piece)
        if not good.all():
            if not count:
                at = np.argwhere(~good)[0]
                first = (row + int(at[0]), int(at[1]))
            count += int(good.size - np.count_nonzero(good))
        row += len(piece)
    return count, first


def mean_and_sd(
    x: NDArray[Any], spans: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each column over some rows, in float64 and two passes.

    A column that never changes has an sd of exactly 0, whatever its mean is rounded to.
    """
    n = int((spans[:, 1] - spans[:, 0]).sum())
    mean = sum(p.sum(axis=0, dtype=np.float64) for p in pieces(x, spans)) / n
    square = sum(np.square(p - mean).sum(axis=0) for p in pieces(x, spans)) / n
    spread = np.sqrt(square)
    return np.asarray(mean), np.where(spread > 1e-12 * np.abs(mean), spread, 0.0)


def _real(values: ArrayLike, what: str) -> NDArray[Any]:
    """An array of real numbers; text is refused, and complex numbers, whose half would be lost."""
    x = np.asarray(values)
    if x.dtype.kind == "O":
        with suppress(TypeError, ValueError):
            x = x.astype(np.float64)
    if x.dtype.kind not in "iufb":
        raise DataError(
            f"{what} must hold real numbers; found an array of {x.dtype}. Choose or convert its "
            f"columns before."
        )
    return x


def _check_clock(times: NDArray[np.float64], n_samples: int) -> None:
    if times.shape != (n_samples,):
        raise DataError(
            f"times_s must hold one time for each of the {n_samples} samples; "
            f"found shape {times.shape}."
        )
    bad = np.flatnonzero(~np.isfinite(times))
    if len(bad):
        raise DataError(
            f"times_s must be finite; found {len(bad)} that are not, first at {bad[0]}."
        )
    back = np.flatnonzero(np.diff(times) <= 0)
    if len(back):
        i = int(back[0])
        raise DataError(
            f"times_s must increase; found {len(back)} steps that do not, the first from "
            f"{times[i]:.6f} s (sample {i}) to {times[i + 1]:.6f} s. Sort or drop these samples."
        )


def _check_epochs(epochs: NDArray[np.int64], n_samples: int) -> None:
    ok = (
        epochs.ndim == 2
        and epochs.shape[1:] == (2,)
        and len(epochs) > 0
        and bool((epochs[:, 0] < epochs[:, 1]).all())
        and bool((epochs[1:, 0] >= epochs[:-1, 1]).all())
        and epochs[0, 0] >= 0
        and epochs[-1, 1] <= n_samples
    )
    if not ok:
        raise DataError(
            f"epochs must be [start, stop) pairs in order, without overlap, inside the "
            f"{n_samples} samples; found {epochs.tolist()[:5]}."
        )


def _check_label(key: str, label: Label, n_samples: int) -> None:
    values = label.values
    if values.ndim not in (1, 2) or len(values) != n_samples:
        raise DataError(
            f"label '{key}' must have one row for each of the {n_samples} samples; "
            f"found shape {values.shape}."
        )
    if label.known is not None and label.known.shape != (n_samples,):
        raise DataError(f"label '{key}': `known` must have shape ({n_samples},).")
    if label.kind == "discrete" and values.dtype.kind not in "iu":
        raise DataError(f"discrete label '{key}' must hold integers; found {values.dtype}.")
    if label.kind == "discrete" and label.period is not None:
        raise DataError(f"discrete label '{key}' cannot have a period.")
    if not np.isfinite(values[label.mask]).all():
        raise DataError(
            f"label '{key}' must be finite where it is known; mark other samples in `known`."
        )
    if label.period is not None and not label.period > 0:
        raise DataError(f"label '{key}': period must be positive, found {label.period}.")


def restrict(recording: Recording, start: int, stop: int) -> Recording:
    """Cut out samples [start, stop) with everything that belongs to them.

    Parameters
    ----------
    recording : Recording
    start, stop : int
        Sample numbers.

    Returns
    -------
    Recording
        With epochs, labels and stimulus track cut alike; times are kept as they were.

    Raises
    ------
    DataError
        If fewer than two samples remain.
    """
    start, stop, _ = slice(start, stop).indices(recording.n_samples)
    if stop - start < 2:
        raise DataError(
            f"at least two samples must remain; found [{start}, {stop}) of "
            f"{recording.n_samples} samples."
        )
    cut = np.clip(recording.epochs, start, stop) - start
    labels = {
        key: replace(
            label,
            values=label.values[start:stop],
            known=None if label.known is None else label.known[start:stop],
        )
        for key, label in recording.labels.items()
    }
    track = recording.stimulus
    if track is not None:
        inside = (track.blocks["stop_s"] > recording.times_s[start]) & (
            track.blocks["start_s"] <= recording.times_s[stop - 1]
        )
        track = replace(
            track,
            index=track.index[start:stop],
            frame=track.frame[start:stop],
            repeat=track.repeat[start:stop],
            blocks=track.blocks[inside],
        )
    return replace(
        recording,
        activity=recording.activity[start:stop],
        times_s=recording.times_s[start:stop],
        epochs=cut[cut[:, 0] < cut[:, 1]],
        labels=MappingProxyType(labels),
        stimulus=track,
    )


def findings(recording: Recording) -> tuple[str, ...]:
    """What a careful person would remark on in a recording before using it.

    Parameters
    ----------
    recording : Recording

    Returns
    -------
    tuple of str
        One sentence a remark: silent channels, identical channels, long gaps, unknown labels.
    """
    notes: list[str] = []
    x = recording.activity
    alike = [(piece == x[:1]).all(axis=0) for piece in pieces(x)]
    constant = np.flatnonzero(np.all(alike, axis=0))
    if len(constant):
        first = ", ".join(recording.channels[i] for i in constant[:5])
        notes.append(f"{len(constant)} of {x.shape[1]} channels never change ({first}).")
    if len(recording.epochs) > 1:
        longest = float(np.diff(recording.times_s).max())
        notes.append(
            f"{len(recording.epochs)} stretches of unbroken sampling; the longest gap is "
            f"{longest:.3g} s."
        )
    for key, label in recording.labels.items():
        share = float(label.mask.mean())
        if share < 1:
            notes.append(f"label '{key}' is known at {share:.1%} of the samples.")
    return tuple(notes)
