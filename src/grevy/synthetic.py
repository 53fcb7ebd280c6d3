"""Recordings whose latents are known: circles, the paper's two dimensions, a session of movies.

numpy only. Equal arguments give equal recordings; each ingredient has a random stream of its own,
so that changing the noise leaves schedule, latents and tuning as they were.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigError
from .movie_session import SimulatedSession, as_recording, openscope, stimulus_table
from .random_series import positive, stream, wander
from .recording import Label, Recording, make_recording

__all__ = [
    "SimulatedSession",
    "as_recording",
    "openscope",
    "poisson_2d",
    "ring",
    "stimulus_table",
    "torus",
]


def ring(
    n_samples: int = 5000,
    n_channels: int = 50,
    *,
    rate_hz: float = 40.0,
    peak_hz: float = 20.0,
    width: float = 0.5,
    speed: float = 1.0,
    seed: int = 0,
) -> Recording:
    """Simulate a population tuned to an angle that wanders around a circle.

    Parameters
    ----------
    n_samples, n_channels : int
    rate_hz : float
        Bins a second.
    peak_hz : float
        Firing rate at the preferred angle, spikes a second.
    width : float
        Width of the tuning curves in radians.
    speed : float
        Standard deviation of the angular velocity, radians a second.
    seed : int

    Returns
    -------
    Recording
        Poisson counts; label "angle", continuous, radians, period 2 pi.

    Raises
    ------
    ConfigError
        If a size or rate is not positive.

    Examples
    --------
    >>> recording = ring(1000, 20)
    >>> recording.activity.shape, recording.labels["angle"].period.__round__(3)
    ((1000, 20), 6.283)
    """
    angle = _angles(n_samples, 1, rate_hz, speed, seed)
    return _circles(angle, n_channels, rate_hz, peak_hz, width, seed, "angle", "ring")


def torus(
    n_samples: int = 10000,
    n_channels: int = 100,
    *,
    rate_hz: float = 40.0,
    peak_hz: float = 40.0,
    width: float = 0.7,
    speed: float = 1.0,
    seed: int = 0,
) -> Recording:
    """Simulate a population tuned to two angles at once, each wandering around its circle.

    Parameters
    ----------
    n_samples, n_channels, rate_hz, peak_hz, width, speed, seed
        As in `ring`.

    Returns
    -------
    Recording
        Poisson counts; label "angles", shape (n_samples, 2), continuous, radians, period 2 pi.

    Raises
    ------
    ConfigError
        If a size or rate is not positive.

    Examples
    --------
    >>> torus(1000, 20).labels["angles"].values.shape
    (1000, 2)
    """
    angle = _angles(n_samples, 2, rate_hz, speed, seed)
    return _circles(angle, n_channels, rate_hz, peak_hz, width, seed, "angles", "torus")


def _angles(n: int, d: int, rate_hz: float, speed: float, seed: int) -> NDArray[np.float64]:
    positive(n_samples=n / 2)
    if not (rate_hz > 0 and speed >= 0):
        raise ConfigError(f"rate_hz must be positive, speed not negative: {rate_hz}, {speed}.")
    rng = stream(seed, 0)
    velocity = speed * wander(rng, n, d, 0.5 * rate_hz)
    start = rng.uniform(0, 2 * np.pi, d)
    return np.asarray((start + np.cumsum(velocity, axis=0) / rate_hz) % (2 * np.pi))


def _circles(
    angle: NDArray[np.float64],
    n_channels: int,
    rate_hz: float,
    peak_hz: float,
    width: float,
    seed: int,
    label: str,
    name: str,
) -> Recording:
    positive(n_channels=n_channels)
    if not (peak_hz > 0 and width > 0):
        raise ConfigError(f"peak_hz and width must be positive; found {peak_hz}, {width}.")
    rng = stream(seed, 1)
    preferred = rng.uniform(0, 2 * np.pi, (n_channels, angle.shape[1]))
    near = (np.cos(angle[:, None, :] - preferred) - 1).sum(axis=2) / width**2
    counts = stream(seed, 2).poisson(peak_hz / rate_hz * np.exp(near))
    values = angle[:, 0] if angle.shape[1] == 1 else angle
    return make_recording(
        counts,
        rate_hz=rate_hz,
        labels={label: Label(values, "continuous", "rad", period=2 * np.pi)},
        name=name,
        activity_unit="spikes a bin",
        source=f"grevy.synthetic.{name}(seed={seed})",
    )


def poisson_2d(n_samples: int = 15000, n_channels: int = 100, *, seed: int = 0) -> Recording:
    """Simulate the two-dimensional latent of the CEBRA paper, through a random flow, as counts.

    A label u is uniform on [0, 2 pi]; the latent is normal with mean (u, 2 sin u) and variances
    (0.6 - 0.3 |sin u|, 0.3 |sin u|). Padded with zeros to `n_channels` dimensions it passes a
    random RealNVP flow f; counts are Poisson with rates exp(2.2 tanh(f)).

    Parameters
    ----------
    n_samples, n_channels : int
    seed : int

    Returns
    -------
    Recording
        Labels "u", shape (n_samples,), and "latent", shape (n_samples, 2), both continuous.
        Samples are independent: the clock (1 Hz) means nothing.

    Raises
    ------
    ConfigError
        If there are fewer than 2 samples or 4 channels.

    References
    ----------
    Zhou and Wei 2020, "Learning identifiable and interpretable latent models of high-dimensional
    neural activity using pi-VAE", arXiv:2011.04798. Schneider, Lee and Mathis 2023,
    doi:10.1038/s41586-023-06031-6.

    Examples
    --------
    >>> recording = poisson_2d(500)
    >>> recording.activity.shape, sorted(recording.labels)
    ((500, 100), ['latent', 'u'])
    """
    positive(n_samples=n_samples / 2, n_channels=n_channels / 4)
    rng = stream(seed, 0)
    u = rng.uniform(0, 2 * np.pi, n_samples)
    bend = np.abs(np.sin(u))
    mean = np.stack([u, 2 * np.sin(u)], axis=1)
    variance = np.stack([0.6 - 0.3 * bend, 0.3 * bend], axis=1)
    latent = mean + np.sqrt(variance) * rng.standard_normal((n_samples, 2))
    padded = np.concatenate([latent, np.zeros((n_samples, n_channels - 2))], axis=1)
    rates = np.exp(2.2 * np.tanh(_flow(padded, stream(seed, 1))))
    return make_recording(
        stream(seed, 2).poisson(rates),
        rate_hz=1.0,
        labels={"u": Label(u, "continuous", "rad"), "latent": Label(latent, "continuous")},
        name="poisson_2d",
        activity_unit="spikes a bin",
        source=f"grevy.synthetic.poisson_2d(seed={seed})",
    )


def _flow(x: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """RealNVP with random weights: 4 blocks of two affine couplings, permuted in between."""
    n = x.shape[1]
    for block in range(4):
        if block:
            x = x[:, rng.permutation(n)]
        for _ in range(2):
            x = _coupling(x, n // 2, rng)
    return x


def _coupling(x: NDArray[np.float64], half: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Scale and shift the second half by a net of the first, then swap them; volume preserving."""
    kept, changed = x[:, :half], x[:, half:]
    n = changed.shape[1]
    hidden = kept
    for width in (25, 25):
        hidden = np.maximum(hidden @ _dense(hidden.shape[1], width, rng), 0.0)
    out = hidden @ _dense(hidden.shape[1], 2 * n - 1, rng)
    scale = 0.1 * np.tanh(out[:, : n - 1])
    scale = np.concatenate([scale, -scale.sum(axis=1, keepdims=True)], axis=1)
    return np.concatenate([changed * np.exp(scale) + out[:, n - 1 :], kept], axis=1)


def _dense(n_in: int, n_out: int, rng: np.random.Generator) -> NDArray[np.float64]:
    limit = np.sqrt(6.0 / (n_in + n_out))  # Glorot's uniform, biases zero
    return rng.uniform(-limit, limit, (n_in, n_out))
