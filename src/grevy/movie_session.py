"""A simulated two-photon session of movies, in the image of DANDI 000036 (Allen OpenScope).

::

    schedule -> display times, frames     latents a frame -> align -> latents a sample
             -> drive of every cell -> spikes -> calcium -> dF/F

Each movie has a smooth trajectory of its own through a few latents, the same in every repeat. Cells
mix the latents nonlinearly, spike at random, and are seen through a calcium indicator and noise. An
internal state, a transient at every onset and a slow drift can be added: none tells a movie's frame
from the clock since its onset, and so decoding must not live on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigError
from .random_series import positive, smooth, stream, wander
from .recording import Label, Recording, StimulusTrack, make_recording
from .stimulus import StimulusTable, align, table_from_series

__all__ = ["STRENGTHS", "SimulatedSession", "as_recording", "openscope", "stimulus_table"]

Order = Literal["random", "whole", "fixed"]
Dots = Literal["overlap", "single", "none"]
Series = tuple[NDArray[np.float64], NDArray[np.int64]]

STRENGTHS: Mapping[str, float] = MappingProxyType(
    {
        "mousecam": 1.0,
        "human_montage": 0.9,
        "mousecam_spatial_phase_scramble": 0.8,
        "man_writing": 0.7,
        "mouse_montage_1": 0.6,
        "conspecifics": 0.5,
        "mouse_montage_1_spatial_phase_scramble": 0.4,
        "crickets": 0.3,
        "mouse_montage_2": 0.2,
        "snake": 0.1,
        "mouse_montage_1_temporal_phase_scramble": 0.0,
    }
)
"""How strongly each movie drives the cells: the planted order; the last not at all."""

# The clocks of sub-389014, session 20180705T152908, in seconds.
_FIRST_S, _LAST_S = 27.475720, 4231.718994
_FIRST_STEPS_S = np.array([0.0, 0.016696, 0.033392, 0.050038, 0.066491, 0.083426])
_LAST_STEPS_S = np.array([-0.083395, -0.066720, -0.050058, -0.033375, -0.016669, 0.0])
_REFRESH_S = 0.0166794
_IMAGING_S = (4231.677128 - 27.47572) / 126757
_BEFORE, _AFTER = 133, 285
_TICKS, _SEGMENTS = 231_300, 123  # refreshes and unbroken stretches of the full-size session
_GAP_S = (_LAST_S - _FIRST_S - (_TICKS - _SEGMENTS) * _REFRESH_S) / (_SEGMENTS - 1)


@dataclass(frozen=True, eq=False)
class SimulatedSession:
    """What `openscope` makes: the arrays of one recording session, and the truth behind them.

    Attributes
    ----------
    activity : array of float32, shape (T, C)
        dF/F.
    times_s : array of float64, shape (T,)
        Imaging times in seconds, rounded to 10 microseconds.
    series : mapping of str to (times, frames)
        For each stimulus, by name, its display times in seconds, shape (N,), rounded to
        microseconds, and frame numbers, shape (N,).
    templates : mapping of str to array of uint8, shape (frames, height, width)
        The movies, as pictures.
    strength : mapping of str to float
        How strongly each movie drives the cells; 0 is the negative control.
    latents : array of float32, shape (T, D)
        What the stimulus drives the cells with, 0 where nothing is shown.
    state : array of float32, shape (T, 2)
        Internal state, independent of the stimulus; running follows its first dimension.
    running_cm_s, running_times_s : array, shape (R,)
        Running speed and its times in seconds, at the refresh rate of the display.
    seed : int
    """

    activity: NDArray[np.float32]
    times_s: NDArray[np.float64]
    series: Mapping[str, Series]
    templates: Mapping[str, NDArray[np.uint8]]
    strength: Mapping[str, float]
    latents: NDArray[np.float32]
    state: NDArray[np.float32]
    running_cm_s: NDArray[np.float64]
    running_times_s: NDArray[np.float64]
    seed: int


def openscope(
    seed: int = 0,
    *,
    movies: int | Mapping[str, float] = 11,
    n_repeats: int = 10,
    n_frames: int = 900,
    n_cells: int = 41,
    n_latents: int = 4,
    noise: float = 4.0,
    spikes_hz: float = 3.0,
    calcium_s: float = 0.7,
    smooth_s: float = 0.7,
    state: float = 0.3,
    onset: float = 0.0,
    drift: float = 0.0,
    order: Order = "random",
    dots: Dots = "overlap",
    frame_shape: tuple[int, int] = (12, 19),
) -> SimulatedSession:
    """Simulate a session of repeated movies, and three stimuli that cannot be decoded.

    Beside the movies, each `n_repeats` times at two refreshes a frame, there are "noise" (as often
    and as long, a new frame every refresh, the number never resets), "spontaneous" (one frame, in
    three stretches) and "dots" (at the very times of the last of these). With the defaults the
    session has the sizes of the real one: 127,177 samples of 41 cells, 241,200 timestamps of 14
    stimuli from 27.475720 to 4231.718994 s.

    Parameters
    ----------
    seed : int
    movies : int or mapping of str to float
        How many of the 11 movies of the real session, spread over `STRENGTHS` from the strongest
        to the undriven one; or names and strengths of your own.
    n_repeats, n_frames, n_cells, n_latents : int
    noise : float
        Standard deviation of the white measurement noise, as a share of the typical standard
        deviation of a cell's calcium.
    spikes_hz : float
        Mean rate of a cell: the fewer spikes, the more each cell's own noise weighs.
    calcium_s : float
        Decay of the indicator in seconds.
    smooth_s : float
        How long a movie's latents remember, in seconds.
    state : float
        Strength of the internal state (0 for none).
    onset : float
        Strength of a transient that follows the onset of every movie and of noise, the same for
        all of them.
    drift : float
        Strength of slow changes of each cell over the session.
    order : {"random", "whole", "fixed"}
        Whether the movies are shuffled anew in every cycle, all presentations are shuffled as a
        whole, or the movies come in one order.
    dots : {"overlap", "single", "none"}
        "dots" shares its times with "spontaneous", has one timestamp, or has none.
    frame_shape : (int, int)
        Height and width of the template pictures in pixels.

    Returns
    -------
    SimulatedSession

    Raises
    ------
    ConfigError
        If a size is below 1, there are fewer than 3 frames, or an option is unknown.

    Notes
    -----
    With `order="fixed"` the cycle is the same each time: which movie was shown is then confounded
    with time, and content and identity must not be claimed.

    Examples
    --------
    >>> session = openscope(movies=2, n_repeats=2, n_frames=60, n_cells=5)
    >>> dict(session.strength)
    {'mousecam': 1.0, 'mouse_montage_1_temporal_phase_scramble': 0.0}
    >>> sorted(set(session.series) - set(session.strength))
    ['dots', 'noise', 'spontaneous']
    """
    positive(n_repeats=n_repeats, n_frames=n_frames / 3, n_cells=n_cells, n_latents=n_latents)
    if order not in ("random", "whole", "fixed") or dots not in ("overlap", "single", "none"):
        raise ConfigError(
            f"order must be random, whole or fixed and dots overlap, single or none; "
            f"found {order!r} and {dots!r}."
        )
    strength = _chosen(movies)
    series = _schedule(seed, tuple(strength), n_repeats, n_frames, order, dots)
    times = _imaging_times(series)
    track = align(times, table_from_series(series))
    driven = {**strength, "noise": 0.5}
    latents = _latents(seed, track, driven, n_latents, smooth_s)
    inner = wander(stream(seed, 3), len(times), 2, 4.0 / _IMAGING_S)
    drive = _mix(seed, latents, n_cells) + state * inner @ stream(seed, 4).normal(
        0, 0.7, (2, n_cells)
    )
    drive += onset * _transient(times, track, driven) * stream(seed, 5).normal(1, 1, n_cells)
    slow = wander(stream(seed, 6), len(times), n_cells, 300.0 / _IMAGING_S)
    activity = _calcium(seed, drive + drift * slow, spikes_hz, calcium_s, noise)
    running_times = np.arange(times[0], times[-1], _REFRESH_S)
    speed = 8.0 * np.maximum(np.interp(running_times, times, inner[:, 0]), 0.0) ** 2
    return SimulatedSession(
        activity=activity,
        times_s=times,
        series=MappingProxyType(series),
        templates=MappingProxyType(_templates(seed, series, frame_shape)),
        strength=MappingProxyType(strength),
        latents=latents.astype(np.float32),
        state=inner.astype(np.float32),
        running_cm_s=speed + stream(seed, 8).normal(0, 0.1, len(speed)),
        running_times_s=running_times,
        seed=seed,
    )


def stimulus_table(session: SimulatedSession) -> StimulusTable:
    """The stimulus table of a simulated session, as its file would give it.

    Parameters
    ----------
    session : SimulatedSession

    Returns
    -------
    StimulusTable
    """
    return table_from_series(session.series)


def as_recording(session: SimulatedSession) -> Recording:
    """A simulated session as the recording that its file would be read as.

    Parameters
    ----------
    session : SimulatedSession

    Returns
    -------
    Recording
        With its stimulus track, and running speed in cm/s as the label "running".

    Examples
    --------
    >>> recording = as_recording(openscope(movies=3, n_repeats=2, n_frames=60, n_cells=5))
    >>> recording.stimulus.reasons["spontaneous"]
    'overlaps dots in time; shows a single frame'
    """
    running = np.interp(session.times_s, session.running_times_s, session.running_cm_s)
    return make_recording(
        session.activity,
        session.times_s,
        labels={"running": Label(running, "continuous", "cm/s")},
        stimulus=align(session.times_s, stimulus_table(session)),
        name="openscope",
        activity_unit="dF/F",
        source=f"grevy.synthetic.openscope(seed={session.seed})",
    )


def _chosen(movies: int | Mapping[str, float]) -> dict[str, float]:
    """Names and strengths of the movies, strongest first."""
    if not isinstance(movies, int):
        taken = set(movies) & {"dots", "noise", "spontaneous"}
        if not movies or taken:
            raise ConfigError(
                f"movies must name at least one movie, none of them dots, noise or spontaneous; "
                f"found {sorted(movies)}."
            )
        return dict(movies)
    if not 1 <= movies <= len(STRENGTHS):
        raise ConfigError(f"movies must be from 1 to {len(STRENGTHS)}; found {movies}.")
    every = list(STRENGTHS.items())
    picks = np.rint(np.linspace(0, len(every) - 1, movies)).astype(int)
    return dict(every[i] for i in picks)


def _schedule(
    seed: int, movies: Sequence[str], n_repeats: int, n_frames: int, order: Order, dots: Dots
) -> dict[str, Series]:
    """Display times and frames of every stimulus, sorted by name as a file lists them."""
    queue = _queue(stream(seed, 0), movies, n_repeats, order)
    stretches = iter([3 * n_frames, 3 * n_frames, 11 * n_frames])  # of spontaneous activity
    lengths = [next(stretches) if name == "spontaneous" else 2 * n_frames for name in queue]
    ticks = np.split(_ticks(stream(seed, 7), lengths), np.cumsum(lengths)[:-1])
    series: dict[str, Series] = {}
    for name in sorted({*queue}):
        times = np.concatenate([t for t, key in zip(ticks, queue, strict=True) if key == name])
        frames = np.arange(len(times))
        if name == "spontaneous":
            frames = np.zeros(len(times), np.int64)
        elif name != "noise":
            frames = frames // 2 % n_frames
        series[name] = (times, frames)
    shared = series["spontaneous"][0][6 * n_frames :]
    shared = shared[: {"overlap": len(shared), "single": 1, "none": 0}[dots]]
    series["dots"] = (shared.copy(), np.arange(len(shared)))
    return dict(sorted(series.items()))


def _queue(
    rng: np.random.Generator, movies: Sequence[str], n_repeats: int, order: Order
) -> list[str]:
    """The order of presentations; the last is snake, where there is such a movie."""
    last = "snake" if "snake" in movies else movies[-1]
    cycle = [*(name for name in movies if name != last), "noise", last]
    shown: list[str] = []
    for _ in range(n_repeats):
        if order == "random":
            rng.shuffle(cycle)
        shown += cycle
    if order == "whole":
        rng.shuffle(shown)
    final = len(shown) - 1 - shown[::-1].index(last)
    shown.append(shown.pop(final))
    pauses = [0, n_repeats // 3, 2 * (n_repeats // 3)]
    queue: list[str] = []
    for number in range(n_repeats):
        queue += ["spontaneous"] * pauses.count(number)
        queue += shown[number * len(cycle) : (number + 1) * len(cycle)]
    return queue


def _ticks(rng: np.random.Generator, lengths: Sequence[int]) -> NDArray[np.float64]:
    """Times of all refreshes in seconds: jitter of 0.1 ms, gaps of about 3 s between stretches."""
    pauses = rng.uniform(0.7, 1.3, len(lengths) - 1)
    pauses *= _GAP_S / pauses.mean()
    steps = np.full(sum(lengths), _REFRESH_S)
    steps[0] = 0.0
    steps[np.cumsum(lengths)[:-1]] = pauses
    times = np.cumsum(steps) + np.clip(rng.normal(0, 1e-4, len(steps)), -3e-4, 3e-4)
    end = float(steps.sum())
    times[:6] = _FIRST_STEPS_S
    times[-6:] = end + _LAST_STEPS_S
    micro = np.rint((_FIRST_S + times) * 1e6).astype(np.int64)
    micro[1:] += micro[1:] % 10 == 0  # never at the very instant of an imaging sample
    return np.asarray(micro / 1e6)


def _imaging_times(series: Mapping[str, Series]) -> NDArray[np.float64]:
    """Sample times from 133 samples before the stimulus to 285 after the last one inside it."""
    last = max(float(times[-1]) for times, _ in series.values() if len(times))
    n = int((last - _FIRST_S) / _IMAGING_S) + 1
    return np.asarray(np.round(_FIRST_S + np.arange(-_BEFORE, n + _AFTER) * _IMAGING_S, 5))


def _trajectory(
    seed: int, number: int, n_frames: int, n_latents: int, memory: float
) -> NDArray[np.float64]:
    """The latents of one movie, shape (n_frames, n_latents), deviation 1."""
    return wander(stream(seed, 1, number), n_frames, n_latents, memory)


def _latents(
    seed: int, track: StimulusTrack, driven: Mapping[str, float], n_latents: int, smooth_s: float
) -> NDArray[np.float64]:
    latents = np.zeros((len(track.index), n_latents))
    for number, (name, strength) in enumerate(driven.items()):
        which = track.names.index(name)
        shown = track.index == which
        refreshes = 1 if name == "noise" else 2
        memory = smooth_s / (_REFRESH_S * refreshes)
        path = _trajectory(seed, number, track.n_frames[which], n_latents, memory)
        latents[shown] = strength * path[track.frame[shown]]
    return latents


def _mix(seed: int, latents: NDArray[np.float64], n_cells: int) -> NDArray[np.float64]:
    """Drive of each cell, shape (T, n_cells): random saturating features, 0 for no latents."""
    rng, n_features = stream(seed, 2), 32
    into = rng.normal(0, 2, (latents.shape[1], n_features))
    bias = rng.normal(0, 1, n_features)
    out = rng.normal(0, 1.6 / np.sqrt(n_features), (n_features, n_cells))
    return np.asarray((np.tanh(latents @ into + bias) - np.tanh(bias)) @ out)


def _transient(
    times: NDArray[np.float64], track: StimulusTrack, driven: Mapping[str, float]
) -> NDArray[np.float64]:
    """A decay of half a second from the onset of every driven presentation, shape (T, 1)."""
    which = [track.names.index(name) for name in driven]
    starts = track.blocks["start_s"][np.isin(track.blocks["stimulus"], which)]
    at = np.searchsorted(starts, times, side="right") - 1
    since = np.where(at >= 0, times - starts[at], np.inf)
    return np.asarray(np.exp(-since / 0.5)[:, None])


def _calcium(
    seed: int, drive: NDArray[np.float64], spikes_hz: float, calcium_s: float, noise: float
) -> NDArray[np.float32]:
    """dF/F: Poisson spikes of rate exp(drive), a decaying indicator, white noise."""
    rates = np.exp(drive)
    rates = np.minimum(spikes_hz * rates / rates.mean(axis=0), 60.0)
    spikes = stream(seed, 9).poisson(rates * _IMAGING_S).astype(np.float64)
    memory = calcium_s / _IMAGING_S
    calcium = smooth(spikes, np.exp(-np.arange(max(1, int(8 * memory))) / max(memory, 1e-6)))
    spread = float(np.median(calcium.std(axis=0)))
    calcium += noise * spread * stream(seed, 10).standard_normal(calcium.shape)
    return np.asarray(
        0.1 * calcium * stream(seed, 11).lognormal(0, 0.2, drive.shape[1]), np.float32
    )


def _templates(
    seed: int, series: Mapping[str, Series], shape: tuple[int, int]
) -> dict[str, NDArray[np.uint8]]:
    """A picture for every frame: smooth moving fields for movies, pixels for noise and dots."""
    rows, columns = np.meshgrid(*(np.linspace(0, np.pi, n) for n in shape), indexing="ij")
    templates: dict[str, NDArray[np.uint8]] = {}
    for number, (name, (_, frames)) in enumerate(series.items()):
        rng, n = stream(seed, 12, number), int(frames.max(initial=0)) + 1
        if name == "spontaneous":
            templates[name] = np.full((n, *shape), 127, np.uint8)
        elif name in ("noise", "dots"):
            templates[name] = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
        else:
            waves = np.stack([np.cos(a * rows) * np.cos(b * columns) for a, b in _WAVES])
            field = np.tensordot(wander(rng, n, len(_WAVES), 15.0), waves, 1) / 2.0
            templates[name] = np.asarray(255.0 / (1.0 + np.exp(-field)), np.uint8)
    return templates


_WAVES = ((0, 1), (1, 0), (1, 1), (2, 1), (1, 3), (3, 2))
