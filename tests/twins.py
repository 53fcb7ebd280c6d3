"""Slow, obvious twins of the numeric core. Loops are meant; nothing here is fast or clever."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from grevy.drawing import Draw
from grevy.recording import Label, Recording, make_recording
from grevy.windows import ReceptiveField


# --- Windows -------------------------------------------------------------------------------------
def centres(spans: Iterable[tuple[int, int]], left: int, right: int, reach: int = 0) -> list[int]:
    """Samples whose every needed neighbour lies in their own span, found by looking at each."""
    found = []
    for a, b in spans:
        for i in range(a, b):
            needed = range(i - left, i + right + reach)
            if all(a <= j < b for j in needed) and a <= i + reach < b:
                found.append(i)
    return found


def window(activity: np.ndarray, centre: int, field: ReceptiveField) -> np.ndarray:
    """The samples an encoder sees for one centre, (W, C)."""
    return np.stack([activity[centre + k] for k in range(-field.left, field.right)])


def edge_window(
    activity: np.ndarray, centre: int, span: tuple[int, int], field: ReceptiveField
) -> tuple[np.ndarray, bool]:
    """The same with the first and last sample of the span replicated; and whether one was."""
    wanted = [centre + k for k in range(-field.left, field.right)]
    inside = [min(max(j, span[0]), span[1] - 1) for j in wanted]
    return np.stack([activity[j] for j in inside]), inside != wanted


# --- Loss ----------------------------------------------------------------------------------------
def info_nce(
    reference: Sequence[Sequence[float]],
    positive: Sequence[Sequence[float]],
    negative: Sequence[Sequence[float]],
    temperature: float,
) -> tuple[float, float, float]:
    """Loss of lists of vectors, term by term, in python's own numbers."""

    def similar(a: Sequence[float], b: Sequence[float]) -> float:
        return math.fsum(x * y for x, y in zip(a, b, strict=True)) / temperature

    pos = [-similar(r, p) for r, p in zip(reference, positive, strict=True)]
    neg = []
    for r in reference:
        s = [similar(r, n) for n in negative]
        top = max(s)
        neg.append(top + math.log(math.fsum(math.exp(x - top) for x in s)))
    a, b = math.fsum(pos) / len(pos), math.fsum(neg) / len(neg)
    return a, b, a + b


# --- Encoders of torch's own layers --------------------------------------------------------------
class Skip(nn.Module):
    """x[..., 1:-1] + f(x)."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.inner = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x[..., 1:-1] + self.inner(x)


class Unit(nn.Module):
    """Unit length along axis 1; a last axis of one sample is dropped."""

    def forward(self, x: Tensor) -> Tensor:
        x = x / x.norm(dim=1, keepdim=True)
        return x.squeeze(2) if x.ndim == 3 and x.shape[2] == 1 else x


def encoder(architecture: str, n_channels: int, hidden: int, latents: int) -> nn.Sequential:
    """An encoder from (windows, channels, W) to (windows, latents)."""
    if architecture == "offset1-model":
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(n_channels, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden // 2),
            nn.GELU(),
            nn.Linear(hidden // 2, latents),
            Unit(),
        )
    skips, last = {"offset5-model": (1, 2), "offset10-model": (3, 3)}[architecture]
    return nn.Sequential(
        nn.Conv1d(n_channels, hidden, 2),
        nn.GELU(),
        *[Skip(nn.Conv1d(hidden, hidden, 3), nn.GELU()) for _ in range(skips)],
        nn.Conv1d(hidden, latents, last),
        Unit(),
    )


def to_torch(weights: Sequence[Tensor]) -> list[Tensor]:
    """grevy's weights, (kernel, in, out), laid out for a module: (out, in[, kernel])."""
    return [w.permute(2, 1, 0) if w.ndim == 3 else w for w in weights]


def set_weights(module: nn.Module, weights: Sequence[Tensor]) -> None:
    """Copy grevy's weights into a module whose parameters come in the same order."""
    parameters = list(module.parameters())
    assert len(parameters) == len(weights)
    with torch.no_grad():
        for parameter, weight in zip(parameters, to_torch(weights), strict=True):
            weight = weight.squeeze(2) if parameter.ndim == 2 else weight
            assert parameter.shape == weight.shape
            parameter.copy_(weight)


def get_weights(module: nn.Module) -> list[Tensor]:
    """A module's parameters in grevy's layout."""
    found = []
    for p in module.parameters():
        w = p.detach().clone()
        if w.ndim == 2:
            w = w[:, :, None]
        found.append(w.permute(2, 1, 0).contiguous() if w.ndim == 3 else w)
    return found


# --- Nearest labels ------------------------------------------------------------------------------
def distances(labels: np.ndarray, query: np.ndarray, periods: Sequence[float]) -> np.ndarray:
    """Euclidean distance of every row; around the circle in columns that have a period."""
    total = np.zeros(len(labels))
    for column, period in enumerate(periods):
        d = np.abs(labels[:, column] - query[column])
        if period:
            d = np.minimum(d % period, period - d % period)
        total += d**2
    return np.sqrt(total)


def nearest(
    labels: np.ndarray, query: np.ndarray, periods: Sequence[float], slack: float = 1e-9
) -> list[int]:
    """Every row of labels that is as near to the query as the nearest one."""
    found = distances(labels, query, periods)
    return np.flatnonzero(found <= found.min() + slack).tolist()


# --- Draws ---------------------------------------------------------------------------------------
def flat_centres(draw: Draw, step: int) -> list[int]:
    """The centre of every entry of the flat list of one step."""
    found = []
    for group in draw.groups:
        for o in range(group.outputs):
            found += [int(start) + o for start in group.start[step]]
    return found


def triplets(draw: Draw, step: int) -> tuple[list[int], list[list[int]], list[int]]:
    """Centres of the references, of each kind of positive, and of the negatives of one step."""
    flat = flat_centres(draw, step)
    return (
        [flat[i] for i in draw.reference[step]],
        [[flat[i] for i in p[step]] for p in draw.positives],
        [flat[i] for i in draw.negative[step]],
    )


# --- Recordings ----------------------------------------------------------------------------------
def noise(
    n_samples: int,
    n_channels: int = 5,
    *,
    epochs: Sequence[tuple[int, int]] | None = None,
    labels: Mapping[str, Label] | None = None,
    seed: int = 0,
) -> Recording:
    """White noise, with whatever epochs and labels a test needs."""
    x = np.random.default_rng(seed).standard_normal((n_samples, n_channels))
    return make_recording(x, rate_hz=10.0, epochs=epochs, labels=labels, name="noise")


def wave(n_samples: int = 3000, n_channels: int = 12, *, seed: int = 0) -> Recording:
    """An angle that wanders round a circle, channels tuned to it, little noise."""
    rng = np.random.default_rng(seed)
    angle = np.cumsum(rng.normal(0.05, 0.1, n_samples))
    tuning = np.exp(2 * (np.cos(angle[:, None] - np.linspace(0, 2 * np.pi, n_channels, False)) - 1))
    x = tuning + 0.1 * rng.standard_normal(tuning.shape)
    labels = {"angle": Label(np.mod(angle, 2 * np.pi), "continuous", "rad", period=2 * np.pi)}
    return make_recording(x, rate_hz=20.0, labels=labels, name="wave")


def same_block(n: int, block: int) -> torch.Tensor:
    """One where two of n references are of one block, shape (n, n)."""
    return torch.tensor([[float(i // block == j // block) for j in range(n)] for i in range(n)])
