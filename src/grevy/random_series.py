"""Random ingredients of simulated recordings: streams, smooth series, causal filters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigError

__all__ = ["positive", "smooth", "stream", "wander"]


def stream(seed: int, *purpose: int) -> np.random.Generator:
    """A generator of its own for every seed and purpose."""
    return np.random.default_rng((seed, *purpose))


def positive(**sizes: float) -> None:
    """Raise ConfigError for the first size below 1."""
    for key, value in sizes.items():
        if not value >= 1:
            raise ConfigError(f"{key} must be at least 1; found {value}.")


def smooth(x: NDArray[np.float64], kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Causal convolution along the first axis, from zero, by FFT."""
    n = len(x) + len(kernel) - 1
    size = 1 << (n - 1).bit_length()
    spectrum = np.fft.rfft(x, size, axis=0) * np.fft.rfft(kernel, size)[:, None]
    return np.asarray(np.fft.irfft(spectrum, size, axis=0)[: len(x)])


def wander(rng: np.random.Generator, n: int, d: int, scale: float) -> NDArray[np.float64]:
    """Smooth Gaussian series, shape (n, d), mean 0, deviation 1, remembering `scale` samples."""
    half = max(1, int(3 * scale))
    kernel = np.exp(-0.5 * (np.arange(-half, half + 1) / max(scale, 1e-6)) ** 2)
    series = smooth(rng.standard_normal((n + 2 * half, d)), kernel)[2 * half :]
    return np.asarray(series / np.sqrt((kernel**2).sum()))
