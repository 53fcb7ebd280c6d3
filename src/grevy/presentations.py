"""What presentations of stimuli can be used for: which repeat, which are whole, in what order.

Judges a `StimulusTrack`; `stimulus.align` makes one.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .recording import StimulusTrack

__all__ = ["order_confounds", "reasons_against", "remarks", "short_presentations"]

COMPLETE = 0.9
"""A presentation shorter than this share of its stimulus's median counts as cut short."""
_ORDERS = 199
_ALIKE = 0.01
"""Cycles resemble one another if at most this share of so many random orders do so as much."""


def reasons_against(
    track: StimulusTrack, times_s: NDArray[np.float64], slack_s: NDArray[np.float64]
) -> dict[str, str]:
    """Find the stimuli that frames cannot be decoded from.

    Parameters
    ----------
    track : StimulusTrack
        Its own `reasons` are not looked at.
    times_s : array, shape (T,)
        Sample times of the recording in seconds.
    slack_s : array, shape (names,)
        Seconds that presentations of a stimulus may overlap those of another.

    Returns
    -------
    dict of str to str
        For each such stimulus why, in words that follow its name: it has no rows, overlaps
        another in time, lies outside the recording, has no samples, shows a single frame, never
        repeats, has no fixed order of frames, or fewer than two complete presentations.
    """
    overlaps = _overlaps(track.blocks, slack_s)
    reasons: dict[str, str] = {}
    for number, key in enumerate(track.names):
        own = track.blocks[track.blocks["stimulus"] == number]
        mine = track.index == number
        said = []
        if len(own) == 0:
            said.append("has no rows in the stimulus table")
        if number in overlaps:
            said.append(f"overlaps {', '.join(track.names[i] for i in overlaps[number])} in time")
        if len(own) and not mine.any():
            said.append(_unseen(times_s, own))
        elif len(own):
            said += _unusable(track.repeat[mine], track.frame[mine])
        if said:
            reasons[key] = "; ".join(said)
    return reasons


def _overlaps(blocks: NDArray[np.void], slack_s: NDArray[np.float64]) -> dict[int, list[int]]:
    """Stimuli shown at one time for longer than either's slack, both ways."""
    if len(blocks) < 2:
        return {}
    name, stop = blocks["stimulus"], blocks["stop_s"]
    holds = np.where(stop >= np.maximum.accumulate(stop), np.arange(len(stop)), 0)
    before = np.maximum.accumulate(holds)[:-1]  # of the earlier blocks the one that ends last
    shared = np.minimum(stop[before], stop[1:]) - blocks["start_s"][1:]
    slack = np.minimum(slack_s[name[before]], slack_s[name[1:]])
    both = (shared > slack) & (name[before] != name[1:])
    pairs = {(int(a), int(b)) for a, b in zip(name[before][both], name[1:][both], strict=True)}
    others: dict[int, list[int]] = {}
    for one, two in sorted(pairs | {(b, a) for a, b in pairs}):
        others.setdefault(one, []).append(two)
    return others


def _unseen(times: NDArray[np.float64], blocks: NDArray[np.void]) -> str:
    begin, end = float(blocks["start_s"].min()), float(blocks["stop_s"].max())
    if len(times) and (end <= times[0] or begin > times[-1]):
        return (
            f"is shown outside the recording ({begin:.3f}-{end:.3f} s, recorded "
            f"{times[0]:.3f}-{times[-1]:.3f} s)"
        )
    return "has no samples"


def _unusable(repeat: NDArray[np.int32], frame: NDArray[np.int32]) -> list[str]:
    """What is wrong with the samples of one stimulus, the gravest first."""
    if frame.min() == frame.max():
        return ["shows a single frame"]
    _, lasted = np.unique(repeat, return_counts=True)
    if len(lasted) < 2:
        return ["never repeats"]
    if (lasted >= COMPLETE * np.median(lasted)).sum() < 2:
        return ["has fewer than two complete presentations"]
    pairs = np.unique(repeat.astype(np.int64) * (int(frame.max()) + 1) + frame)
    frames, times_seen = np.unique(pairs % (int(frame.max()) + 1), return_counts=True)
    if (times_seen > 1).mean() < 0.5:
        return ["never repeats: its frame numbers go on from one presentation to the next"]
    if len(pairs) < 0.5 * len(frames) * len(lasted):
        return [
            f"has no fixed order of frames: a presentation shows {len(pairs) / len(lasted):.3g}"
            f" of {len(frames)} frames on average"
        ]
    return []


def short_presentations(track: StimulusTrack, *, share: float = COMPLETE) -> NDArray[np.bool_]:
    """Mark presentations that were cut short, by the display or by the ends of the recording.

    They stay in the track, samples and all; whoever splits by repeat decides about them.

    Parameters
    ----------
    track : StimulusTrack
    share : float
        A presentation with fewer samples than this share of its stimulus's median is short.

    Returns
    -------
    array of bool, shape (K,)
        One a row of `track.blocks`. Presentations without a sample are short.

    Examples
    --------
    >>> from grevy.stimulus import align, table_from_series
    >>> table = table_from_series({"movie": ([0, 1, 2, 3, 4, 5, 6], [0, 1, 0, 0, 1, 0, 1])})
    >>> short_presentations(align([0.5, 1.5, 2.5, 3.5, 4.5, 5.5], table)).tolist()
    [False, False, True]
    """
    stimulus, repeat = track.blocks["stimulus"], track.blocks["repeat"]
    shown = track.index >= 0
    width = int(max(repeat.max(initial=0), track.repeat.max(initial=0))) + 1
    key = track.index[shown].astype(np.int64) * width + track.repeat[shown]
    held = np.bincount(key, minlength=len(track.names) * width).reshape(-1, width)
    samples = held[stimulus, repeat]
    short: NDArray[np.bool_] = samples == 0
    for number in range(len(track.names)):
        own = (stimulus == number) & (samples > 0)
        if own.any():
            short |= own & (samples < share * np.median(samples[own]))
    return short


def order_confounds(track: StimulusTrack) -> str | None:
    """Say if names cannot be exchanged as they were drawn, so that stimuli and time are confounded.

    A null that gives presentations other names is fair only if the experiment could have been run
    in that order (`nulls.exchange`). Only stimuli that can be decoded count. Refused are an order
    that is the same in every cycle, and stimuli that are each shown in one unbroken run of repeats.
    Those of equal length may come in cycles that hold each once (repeat r of all before repeat
    r + 1 of any), drawn anew every time, or in an order that was drawn as a whole; refused are
    orders that return to a stimulus after so many presentations more often than 99 % of those that
    are drawn at random do, and whole orders that keep stimuli to a part of the session as few do.

    Parameters
    ----------
    track : StimulusTrack

    Returns
    -------
    str or None
        One sentence, or None where nothing speaks against the exchange.

    Examples
    --------
    >>> from grevy.stimulus import align, table_from_intervals
    >>> times = np.arange(13.0)
    >>> names = ["a", "a", "b", "b"] * 3
    >>> table = table_from_intervals(times[:-1], times[1:], names, [0, 1] * 6)
    >>> order_confounds(align(times[:-1] + 0.5, table))
    'The order of the 2 stimuli is the same in all 3 cycles (a, b): which stimulus was shown is ...
    """
    usable = [i for i, key in enumerate(track.names) if key not in track.reasons]
    blocks = track.blocks[np.argsort(track.blocks["start_s"], kind="stable")]
    blocks = blocks[np.isin(blocks["stimulus"], usable)]
    reason = _one_order([track.names[i] for i in blocks["stimulus"]])
    for length in dict.fromkeys(round(track.duration_s[i], 3) for i in usable):
        kin = [i for i in usable if round(track.duration_s[i], 3) == length]
        own = blocks[np.isin(blocks["stimulus"], kin)]
        if reason is None and len(kin) > 1:
            reason = _not_random(own)
    return reason


def _one_order(order: list[str]) -> str | None:
    """Why an order is fixed: it is periodic, or each stimulus has its own stretch of time."""
    n_stimuli = len(set(order))
    if n_stimuli < 2:
        return None
    for period in range(n_stimuli, len(order) // 2 + 1):
        if order[period:] == order[:-period]:
            listed = ", ".join(order[:period][:8])
            what = f"{n_stimuli} stimuli" if period == n_stimuli else f"{period} presentations"
            return (
                f"The order of the {what} is the same in all {len(order) // period} cycles "
                f"({listed}{', ...' if period > 8 else ''}): which stimulus was shown is "
                "confounded with time in the cycle."
            )
    changes = sum(a != b for a, b in pairwise(order))
    if changes == n_stimuli - 1 and len(order) > n_stimuli:
        return (
            f"Each of the {n_stimuli} stimuli is shown in one unbroken run of repeats: which "
            "stimulus was shown is confounded with time in the session."
        )
    return None


def _not_random(blocks: NDArray[np.void]) -> str | None:
    """Why presentations, in order of time, do not look drawn at random, by cycles or as a whole.

    The largest of all returns, in standard deviations of what random orders have, is compared with
    that of those orders; so is, for a whole order, how far apart the stimuli lie on average.
    """
    order, repeat = blocks["stimulus"].astype(np.int64), blocks["repeat"]
    stimuli, code = np.unique(order, return_inverse=True)
    cycles = bool((np.diff(repeat) >= 0).all())
    keys = np.random.default_rng(0).random((_ORDERS, len(order))) + (repeat if cycles else 0)
    orders = np.concatenate([code[None], code[np.argsort(keys, axis=1)]])
    lags = range(1, min(2 * len(stimuli), len(order)))
    found = [(orders[:, lag:] == orders[:, :-lag]).sum(axis=1) for lag in lags]
    if not cycles:
        place = np.arange(len(order)) - (len(order) - 1) / 2
        found.append(sum(((orders == s) @ place) ** 2 / (code == s).sum() for s in set(code)))
    values = np.array(found)
    spread = values[:, 1:].std(axis=1, keepdims=True)
    z = (values - values[:, 1:].mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1)
    worst = z.max(axis=0)
    if (1 + (worst[1:] >= worst[0]).sum()) / (1 + _ORDERS) > _ALIKE:
        return None
    which = int(z[:, 0].argmax())
    if which < len(lags):
        lag = which + 1
        said = (
            f"{values[which, 0]:.0f} of {len(order) - lag} presentations show again what was shown "
            f"{lag} before, where orders drawn at random have {values[which, 1:].mean():.3g}"
        )
    else:
        said = "some are shown earlier in the session than others, more than orders drawn at random"
    if cycles:
        return (
            f"The cycles of the {len(stimuli)} stimuli resemble one another: {said}. Which "
            "stimulus was shown may be confounded with time in the cycle."
        )
    return (
        f"The {len(stimuli)} stimuli of equal length were not shown in cycles that hold each of "
        f"them once, nor in an order drawn at random: {said}. Names cannot be exchanged as they "
        "were drawn, and which stimulus was shown may be confounded with time in the session."
    )


def remarks(track: StimulusTrack) -> tuple[str, ...]:
    """What a careful person would remark on in a stimulus track before using it.

    Parameters
    ----------
    track : StimulusTrack

    Returns
    -------
    tuple of str
        One sentence a remark: stimuli that cannot be decoded, short presentations, an order that
        confounds stimuli with time.
    """
    said = [f"Frames of '{key}' cannot be decoded: it {why}." for key, why in track.reasons.items()]
    short = short_presentations(track)
    for key in track.decodable:
        own = track.blocks["stimulus"] == track.names.index(key)
        if (short & own).any():
            which = ", ".join(str(i) for i in track.blocks["repeat"][short & own])
            said.append(
                f"'{key}': {int((short & own).sum())} of {int(own.sum())} presentations have fewer "
                f"than {COMPLETE:.0%} of the median number of samples (repeat {which})."
            )
    order = order_confounds(track)
    return (*said, *([] if order is None else [order]))
