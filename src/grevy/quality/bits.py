"""Goodness of fit on held-out samples, beside that of surrogates whose channels are unrelated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from ..draws import Purpose, integers
from ..errors import ConfigError, DataError
from ..model import Run, fingerprint, held_out_bits
from ..nulls import band, interval, p_value
from ..recording import Recording
from ..results import HeldOutBits
from ..windows import Spans
from .parts import two_parts

__all__ = ["bits_with_surrogate", "surrogate"]

Matrix = NDArray[np.float64]


def surrogate(recording: Recording, *, seed: int, apart: int) -> Recording:
    """Each channel shifted round its epochs by a lag of its own.

    A channel keeps its distribution and its autocorrelation. What it tells of other channels, and
    of labels and stimuli, which stay where they were, is lost.

    Parameters
    ----------
    recording : Recording
    seed : int
        Of the lags.
    apart : int
        How far, in samples, the lags of any two channels are to lie from each other, and from the
        labels, the way round the epoch: the encoder's window, plus the offset of its pairs, plus
        how long the activity or its indicator remembers. Where an epoch has no room for so much,
        lags are as far apart as C + 1 of them can be; with more channels than samples some share
        a lag, and stay as related as they were.

    Returns
    -------
    Recording
        With a copy of the activity, in memory; its last note says what was done. Samples outside
        of epochs stay as they are.

    Raises
    ------
    ConfigError
        If `apart` is below 1.

    Notes
    -----
    One jump a channel and epoch remains where its end meets its start. Lags are drawn among all
    that keep the distance. Drift that lasts as long as the epoch survives in part: two ramps are
    related at any lag.

    Examples
    --------
    >>> from grevy.synthetic import ring
    >>> recording = ring(1000, 20)
    >>> shifted = surrogate(recording, seed=0, apart=20)
    >>> bool((np.sort(shifted.activity, axis=0) == np.sort(recording.activity, axis=0)).all())
    True
    """
    if apart < 1:
        raise ConfigError(f"the lags of channels must be at least 1 sample apart; found {apart}.")
    activity = np.array(recording.activity)
    least = apart
    for e, (a, b) in enumerate(recording.epochs.tolist()):
        lags, room = _lags(recording.n_channels, b - a, apart, seed, e)
        least = min(least, room)
        for c, lag in enumerate(lags.tolist()):
            activity[a:b, c] = np.roll(activity[a:b, c], lag)
    note = (
        f"Surrogate: each channel is shifted round its epochs by a lag of its own, lags at least "
        f"{least} samples apart (seed {seed})."
    )
    return replace(recording, activity=activity, notes=(*recording.notes, note))


def _lags(n: int, length: int, apart: int, seed: int, epoch: int) -> tuple[NDArray[np.int64], int]:
    """A lag for each of n channels, and how far apart they are; lag 0 is that of the labels."""
    room = min(apart, length // (n + 1))
    # What is left of the circle when all have their room is dealt out at random.
    slack = length - (n + 1) * room
    step = torch.tensor([epoch])
    extra = integers(seed, Purpose.SURROGATE, step, n, slack + 1)[0].numpy()
    rank = np.argsort(np.argsort(extra, kind="stable"))
    return extra + (rank + 1) * room, room


def bits_with_surrogate(
    runs: Sequence[Run],
    surrogates: Sequence[tuple[Recording, Sequence[Run]]],
    recording: Recording,
    spans: Spans,
    *,
    device: str = "auto",
) -> HeldOutBits:
    """Goodness of fit on held-out samples, beside that of runs trained and judged on surrogates.

    Bits above chance are no evidence by themselves: a series that only remembers itself gives them
    too, the more the shorter the offset and the lower the temperature. What a surrogate lacks is
    what channels have in common, and in common with labels.

    Parameters
    ----------
    runs : sequence of Run
        Of one configuration but for the seed, trained on the recording without the held-out spans.
    surrogates : sequence of (Recording, sequence of Run)
        From `surrogate`, and runs of the same configuration trained on it. With fewer runs each
        than the recording has, their mean varies more and p errs on the safe side.
    recording : Recording
    spans : array of int64, shape (E, 2)
        Held out.
    device : str

    Returns
    -------
    HeldOutBits
        Its intervals are over runs and surrogates of this recording: they do not say what another
        recording would give. That of the gain is Welch's.

    Raises
    ------
    ConfigError
        If there are no runs or no surrogates, or configurations differ in more than the seed.
    DataError
        If a run trained on a held-out sample, or on another recording than it is judged on.
    """
    if not runs or not surrogates or not all(len(theirs) for _, theirs in surrogates):
        raise ConfigError(
            f"bits need at least one run and one surrogate, each with a run; found {len(runs)} "
            f"runs and surrogates with {[len(theirs) for _, theirs in surrogates]}."
        )
    task = replace(runs[0].config, seed=0)
    for run in (*runs, *(run for _, theirs in surrogates for run in theirs)):
        if replace(run.config, seed=0) != task:
            raise ConfigError(
                "bits compare runs of one configuration, in which only seeds may differ; found "
                f"{run.config} beside {runs[0].config}."
            )
    found = _bits(runs, recording, spans, "the recording", device)
    null = np.array(
        [
            _bits(theirs, shifted, spans, f"surrogate {i}", device).mean()
            for i, (shifted, theirs) in enumerate(surrogates)
        ]
    )
    value, low, high = interval(found)
    null_mean, null_low, null_high = band(null)
    gain, gain_low, gain_high = _welch(found, null)
    return HeldOutBits(
        runs=tuple(found.tolist()),
        surrogates=tuple(null.tolist()),
        value=value,
        low=low,
        high=high,
        null_mean=null_mean,
        null_low=null_low,
        null_high=null_high,
        gain=gain,
        gain_low=gain_low,
        gain_high=gain_high,
        p=p_value(value, null, higher=True),
    )


def _bits(
    runs: Sequence[Run], recording: Recording, spans: Spans, name: str, device: str
) -> Matrix:
    """Held-out bits of each run; it must have trained on this recording, elsewhere."""
    own = fingerprint(recording)
    for i, run in enumerate(runs):
        if run.recording_hash not in ("", own):
            raise DataError(
                f"run {i} of {name} must be judged on what it was trained on; found the "
                f"fingerprint {own}, not {run.recording_hash}. Train surrogates' runs on them."
            )
        two_parts(run, recording, spans, 0)
    return np.array([held_out_bits(run, recording, spans, device=device) for run in runs])


def _welch(a: Matrix, b: Matrix) -> tuple[float, float, float]:
    """Difference of two means and its 95 % interval (Welch 1947); NaN bounds for single values."""
    gap = float(a.mean() - b.mean())
    if min(len(a), len(b)) < 2:
        return gap, math.nan, math.nan
    parts = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    if not sum(parts):
        return gap, gap, gap
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (len(a) - 1) + parts[1] ** 2 / (len(b) - 1))
    half = float(stats.t.ppf(0.975, freedom) * np.sqrt(sum(parts)))
    return gap, gap - half, gap + half
