"""The data and settings of the comparison with CEBRA: recordings, synthetic sets, tasks.

The real recordings are arrays that their authors published; `load` finds them below the folder
that GREVY_DATA names. The synthetic sets are drawn here from fixed seeds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy.io
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mode = Literal["time", "behavior", "hybrid", "discrete"]
Measure = Literal["error, cm", "error, deg", "accuracy", "R2 of position", "R2 of z"]

RATS = ("achilles", "buddy", "cicero", "gatsby")
WORMS = ("worm 0", "worm 1", "worm 2")
TRACK_M = 1.6


@dataclass(frozen=True, eq=False)
class Dataset:
    """One recording and what is known beside it.

    Attributes
    ----------
    name : str
    x : array of float32, shape (T, C)
        Counts or calcium traces, as they are given to `fit`.
    label : array, shape (T, k) of float64, or (T,) of int64
        What the modes that use a label are given.
    target : array, shape (T, k) of float64, or (T,) of int64
        What is decoded.
    measure : str
        How decoding is scored.
    bins : array of int64, shape (T,), or None
        Places that mean the same in another animal; -1 where there is none.
    """

    name: str
    x: NDArray[np.float32]
    label: NDArray[Any]
    target: NDArray[Any]
    measure: Measure
    bins: NDArray[np.int64] | None = None

    @property
    def digest(self) -> str:
        """Tells whether two machines work on the same numbers."""
        parts = (self.x, np.round(self.label, 6), np.round(self.target, 6))
        return hashlib.sha256(
            b"".join(np.ascontiguousarray(p).tobytes() for p in parts)
        ).hexdigest()[:16]


@dataclass(frozen=True)
class Task:
    """What is fitted: a dataset, a mode, and parameters by CEBRA's names."""

    dataset: str
    mode: Mode
    settings: tuple[tuple[str, Any], ...]

    @property
    def name(self) -> str:
        return f"{self.dataset}, {self.mode}"

    @property
    def cost(self) -> float:
        """Steps, weighted by what one costs CEBRA; only for the order of work."""
        settings = dict(self.settings)
        return float(settings["max_iterations"]) * (2.0 if self.mode == "hybrid" else 1.0)

    @property
    def parameters(self) -> dict[str, Any]:
        return dict(self.settings)


_COMMON = {
    "model_architecture": "offset10-model",
    "batch_size": 512,
    "learning_rate": 3e-4,
    "temperature": 1.0,
    "distance": "cosine",
    "num_hidden_units": 32,
    "output_dimension": 8,
}
_CONDITION: Mapping[Mode, dict[str, Any]] = {
    "time": {"conditional": "time", "time_offsets": 10},
    "behavior": {"conditional": "time_delta", "time_offsets": 10},
    "hybrid": {"conditional": "time_delta", "time_offsets": 10, "hybrid": True},
    "discrete": {},
}
_FLOW = {
    "model_architecture": "offset1-model-mse",
    "distance": "euclidean",
    "conditional": "delta_normal",
    "delta": 0.1,
    "learning_rate": 1e-4,
    "output_dimension": 2,
}


def _task(dataset: str, mode: Mode, steps: int, more: Mapping[str, Any] | None = None) -> Task:
    settings = {**_COMMON, **_CONDITION[mode], **(more or {}), "max_iterations": steps}
    if "delta" in settings:
        del settings["time_offsets"]
    return Task(dataset, mode, tuple(sorted(settings.items())))


def tasks() -> list[Task]:
    """Everything that is fitted, in the order of the table."""
    rat_modes: tuple[Mode, ...] = ("time", "behavior", "hybrid")
    return [
        *[_task(rat, mode, 1500) for mode in rat_modes for rat in RATS],
        *[_task(worm, "discrete", 1000) for worm in WORMS],
        _task("m1", "behavior", 1500),
        _task("flow", "behavior", 5000, _FLOW),
        *[_task("ring", mode, 1000, {"output_dimension": 3}) for mode in ("time", "behavior")],
    ]


def load(name: str, folder: Path) -> Dataset:
    """A dataset by name; `folder` is used by the real ones alone."""
    if name in RATS:
        return _rat(name, folder / "rat-hippocampus" / f"{name}.npz")
    if name in WORMS:
        return _worm(name, folder / "celegans")
    if name == "m1":
        return _reach(folder / "m1-reach" / "m1_stevenson_2011.mat")
    return flow() if name == "flow" else ring()


def _rat(name: str, path: Path) -> Dataset:
    """CA1 on a linear track: counts in 25 ms; label position (m) and the two directions."""
    with np.load(path, allow_pickle=False) as file:
        x, label = file["x"].astype(np.float32), file["b"].astype(np.float64)
    place = np.minimum(np.int64(label[:, 0] / TRACK_M * 40), 39)
    bins = place + 40 * np.int64(label[:, 1] > 0.5)
    return Dataset(name, x, label, label[:, :1], "error, cm", bins)


def _worm(name: str, folder: Path) -> Dataset:
    """Whole-brain calcium of a worm; label one of eight states of behaviour."""
    number = name.split()[-1]
    x = np.load(folder / f"neural_data_worm_{number}.npy", allow_pickle=False)
    state = np.load(folder / f"behaviour_data_worm_{number}.npy", allow_pickle=False)
    state = state.astype(np.int64)
    return Dataset(name, x.astype(np.float32), state, state, "accuracy")


def _reach(path: Path) -> Dataset:
    """Motor cortex while the hand reaches: counts in 50 ms; label the hand's place in the plane."""
    file = scipy.io.loadmat(path)
    hand = np.ascontiguousarray(file["handPos"][:2].T, dtype=np.float64)
    x = np.ascontiguousarray(file["spikes"].T, dtype=np.float32)
    return Dataset("m1", x, hand, hand, "R2 of position")


# --- synthetic sets ------------------------------------------------------------------------------
def flow(seed: int = 0, n: int = 15_000, channels: int = 100) -> Dataset:
    """Counts from a 2-D latent through a random flow: Zhou & Wei 2020, as used for CEBRA.

    The label u is uniform on [0, 2 pi]; the latent z is normal about (u, 2 sin u) with variances
    0.6 - 0.3 |sin u| and 0.3 |sin u|; padded with zeros it goes through four blocks of two affine
    coupling layers, dimensions shuffled between blocks, and counts are Poisson with
    log rate 2.2 tanh(.).

    References
    ----------
    Zhou & Wei, NeurIPS 2020 (arXiv:2011.04798); Schneider, Lee & Mathis 2023, Fig. 1.
    """
    rng = np.random.default_rng(seed)
    u = rng.uniform(0, 2 * np.pi, n)
    spread = 0.3 * np.abs(np.sin(u))
    mean = np.stack([u, 2 * np.sin(u)], axis=1)
    z = mean + rng.standard_normal((n, 2)) * np.sqrt(np.stack([0.6 - spread, spread], axis=1))
    h = np.zeros((n, channels))
    h[:, :2] = z
    for block in range(4):
        if block:
            h = h[:, rng.permutation(channels)]
        h = _couple(_couple(h, rng), rng)
    counts = rng.poisson(np.exp(2.2 * np.tanh(h)))
    return Dataset("flow", counts.astype(np.float32), u[:, None], z, "R2 of z")


def _couple(h: Floats, rng: np.random.Generator) -> Floats:
    """One affine coupling layer: half of the dimensions scale and shift the others, then swap.

    The scales add to zero, so that volume is kept; weights are drawn as Glorot & Bengio 2010 do.
    """
    half = h.shape[1] // 2
    fixed, moved = h[:, :half], h[:, half:]
    out = fixed
    widths = (half, 25, 25, 2 * moved.shape[1] - 1)
    for layer, (a, b) in enumerate(pairwise(widths)):
        limit = np.sqrt(6 / (a + b))
        out = out @ rng.uniform(-limit, limit, (a, b))
        out = np.maximum(out, 0) if layer < 2 else out
    scale = 0.1 * np.tanh(out[:, : moved.shape[1] - 1])
    scale = np.concatenate([scale, -scale.sum(axis=1, keepdims=True)], axis=1)
    shift = out[:, moved.shape[1] - 1 :]
    return np.concatenate([moved * np.exp(scale) + shift, fixed], axis=1)


def ring(seed: int = 0, n: int = 8_000, channels: int = 60) -> Dataset:
    """Head-direction-like cells: an angle that wanders smoothly, bumps of tuning, Poisson counts.

    At most one spike a sample is expected of a cell at its preferred angle.
    """
    rng = np.random.default_rng(seed)
    speed = np.zeros(n)
    for i in range(1, n):
        speed[i] = 0.95 * speed[i - 1] + 0.015 * rng.standard_normal()
    angle = np.cumsum(speed)
    preferred = rng.uniform(0, 2 * np.pi, channels)
    rate = np.exp(3 * (np.cos(angle[:, None] - preferred) - 1))
    label = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return Dataset("ring", rng.poisson(rate).astype(np.float32), label, label, "error, deg")
