"""The judge of the comparison with CEBRA: from embeddings and labels to scores, and nothing else.

It knows neither library. A recording is cut in time: the first 80 % train the encoder and the
decoder, the last 20 % are scored, `GAP` samples between them belong to neither. Each part is
embedded by itself, and `EDGE` samples at either end of a part, whose windows had to be padded,
are not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from sklearn.neighbors import NearestNeighbors

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

GAP, EDGE = 40, 10
N_NEGATIVES = N_REFERENCES = 4096
NEIGHBOURS = (1, 4, 9, 16, 25, 49, 100)
KEPT = 1000
DRAW_SEED = 20_23


@dataclass(frozen=True, eq=False)
class Part:
    """A stretch of the recording [start, stop) and its embedding, shape (stop - start, D)."""

    start: int
    stop: int
    z: Floats

    @property
    def used(self) -> slice:
        """The samples of the recording that may be used."""
        return slice(self.start + EDGE, self.stop - EDGE)

    @property
    def inner(self) -> Floats:
        """The embedding of `used`."""
        return self.z[EDGE : len(self.z) - EDGE]


def cut(n: int) -> tuple[slice, slice]:
    """Samples to train on and samples to score."""
    last = int(0.8 * n)
    return slice(0, last), slice(last + GAP, n)


# --- bits ----------------------------------------------------------------------------------------
def positives(
    references: Ints,
    label: NDArray[Any] | None,
    n: int,
    rng: np.random.Generator,
    *,
    lag: int | None = None,
    delta: float | None = None,
) -> Ints:
    """For each reference in [0, n) the sample that the task calls alike.

    Without a label: `lag` samples later. A label of whole numbers: any sample of that class.
    Otherwise the sample with the label nearest to the reference's label after a change: one that
    the label made somewhere within `lag` samples, or a normal one of standard deviation `delta`.
    """
    if label is None:
        assert lag is not None
        return references + lag
    if label.dtype.kind in "iu":
        order = np.argsort(label, kind="stable")
        first = np.searchsorted(label[order], label[references], side="left")
        after = np.searchsorted(label[order], label[references], side="right")
        return order[rng.integers(first, after)]
    if delta is None:
        assert lag is not None
        ends = rng.integers(lag, n, len(references))
        change = label[ends] - label[ends - lag]
    else:
        change = delta * rng.standard_normal((len(references), label.shape[1]))
    return np.asarray(cKDTree(label).query(label[references] + change)[1], dtype=np.int64)


def info_nce(
    reference: Floats,
    positive: Floats,
    negative: Floats,
    *,
    distance: Literal["cosine", "euclidean"],
    temperature: float,
) -> float:
    """Mean over references of log sum_n exp s(r, n) - s(r, p), in nats; float64 throughout."""

    def similar(a: Floats, b: Floats) -> Floats:
        if distance == "cosine":
            return (a * b).sum(axis=-1) / temperature
        return -np.square(a - b).sum(axis=-1) / temperature

    total = -similar(reference, positive)
    for begin in range(0, len(reference), 64):
        s = similar(reference[begin : begin + 64, None], negative[None])
        top = s.max(axis=1)
        total[begin : begin + 64] += top + np.log(np.exp(s - top[:, None]).sum(axis=1))
    return float(total.mean())


def bits(
    z: Floats,
    label: NDArray[Any] | None,
    *,
    lag: int | None = None,
    delta: float | None = None,
    distance: Literal["cosine", "euclidean"] = "cosine",
    temperature: float = 1.0,
) -> float:
    """Goodness of fit above chance of one stretch, by references and negatives of fixed seed.

    The 4,096 negatives are drawn independently of the 4,096 references, all from this stretch.
    """
    rng = np.random.default_rng(DRAW_SEED)
    n = len(z)
    references = rng.integers(0, n - lag if label is None and lag else n, N_REFERENCES)
    negatives = rng.integers(0, n, N_NEGATIVES)
    alike = positives(references, label, n, rng, lag=lag, delta=delta)
    loss = info_nce(
        z[references], z[alike], z[negatives], distance=distance, temperature=temperature
    )
    return float((np.log(N_NEGATIVES) - loss) / np.log(2))


# --- decoding ------------------------------------------------------------------------------------
def score(measure: str, truth: NDArray[Any], predicted: NDArray[Any]) -> float:
    """One number for a prediction; an error is better small, everything else large."""
    match measure:
        case "error, cm":
            return float(100 * np.median(np.abs(predicted - truth)))
        case "error, deg":
            turn = np.arctan2(predicted[:, 1], predicted[:, 0]) - np.arctan2(
                truth[:, 1], truth[:, 0]
            )
            return float(np.degrees(np.median(np.abs((turn + np.pi) % (2 * np.pi) - np.pi))))
        case "accuracy":
            return float((predicted == truth).mean())
        case "R2 of position" | "R2 of z":
            left = np.square(truth - predicted).sum(axis=0)
            return float((1 - left / np.square(truth - truth.mean(axis=0)).sum(axis=0)).mean())
        case _:
            raise ValueError(f"measure must be one that the table knows; found {measure!r}.")


def better_small(measure: str) -> bool:
    """Whether less is better."""
    return measure.startswith("error")


def _near(z: Floats, query: Floats) -> Ints:
    """The nearest samples of z to each query, nearest first; for unit vectors cosine's order."""
    k = min(max(NEIGHBOURS), len(z))
    return np.asarray(NearestNeighbors(n_neighbors=k).fit(z).kneighbors(query)[1], dtype=np.int64)


def _vote(target: NDArray[Any], near: Ints, k: int) -> NDArray[Any]:
    """What the k nearest say: their mean, or the class that most of them have."""
    found = target[near[:, :k]]
    if target.dtype.kind not in "iu":
        return np.asarray(found.mean(axis=1))
    classes = np.unique(target)
    return classes[(found[..., None] == classes).sum(axis=1).argmax(axis=1)]


def decode(train: Part, test: Part, target: NDArray[Any], measure: str) -> tuple[float, int]:
    """Score of a decoder fitted on the training part, and its k (0: a linear fit).

    k is chosen inside the training part: neighbours from its first 80 %, scored on its last,
    the gap between.
    """
    z, y, truth = train.inner, target[train.used], target[test.used]
    if measure == "R2 of z":
        return score(measure, truth, linear_map(z, y, test.inner)), 0
    fit, choose = cut(len(z))
    near = _near(z[fit], z[choose])
    sign = -1 if better_small(measure) else 1
    values = [sign * score(measure, y[choose], _vote(y[fit], near, k)) for k in NEIGHBOURS]
    k = NEIGHBOURS[int(np.argmax(values))]
    return score(measure, truth, _vote(y, _near(z, test.inner), k)), k


def linear_map(x: Floats, y: Floats, at: Floats) -> Floats:
    """Least squares with an intercept from x to y, evaluated at other rows."""
    centre = x.mean(axis=0)
    weights = np.linalg.lstsq(x - centre, y - y.mean(axis=0), rcond=None)[0]
    return np.asarray((at - centre) @ weights + y.mean(axis=0))


# --- consistency ---------------------------------------------------------------------------------
def likeness(train_a: Floats, train_b: Floats, test_a: Floats, test_b: Floats) -> float:
    """R2 of embedding b on held-out rows by a linear map from a that was fitted on training rows.

    Variances are pooled over the latents: a rotation of b changes nothing, as it should, since
    embeddings are only defined up to one.
    """
    left = np.square(test_b - linear_map(train_a, train_b, test_a)).sum()
    return float(1 - left / np.square(test_b - test_b.mean(axis=0)).sum())


def between_seeds(parts: list[tuple[Floats, Floats]]) -> list[float]:
    """Consistency of embeddings (train rows, test rows) of one recording, one value a seed.

    The mean over all ordered pairs of seeds is a mean of dependent numbers. The values are its
    jackknife pseudo-values: they have that mean, and their spread gives its standard error.
    """
    n = len(parts)
    r2 = np.full((n, n), np.nan)
    for i, (train_a, test_a) in enumerate(parts):
        for j, (train_b, test_b) in enumerate(parts):
            if i != j:
                r2[i, j] = likeness(train_a, train_b, test_a, test_b)
    whole = np.nanmean(r2)
    without = [np.nanmean(np.delete(np.delete(r2, s, 0), s, 1)) for s in range(n)]
    return [float(n * whole - (n - 1) * one) for one in without]


def between_animals(parts: list[tuple[Floats, Floats]]) -> float:
    """Consistency of embeddings of several animals, (train rows, test rows), in the same bins.

    Mean over ordered pairs of animals; bins (rows; NaN where empty) that only one of the two has
    are left out. With the training rows given twice it is the in-sample figure of the literature.
    """
    values = []
    for i, a in enumerate(parts):
        for j, b in enumerate(parts):
            if i != j:
                values.append(one_way(a, b))
    return float(np.mean(values))


def one_way(a: tuple[Floats, Floats], b: tuple[Floats, Floats]) -> float:
    """Consistency of one ordered pair of animals, on the bins that both have."""
    (train_a, train_b), (test_a, test_b) = _common(a[0], b[0]), _common(a[1], b[1])
    return likeness(train_a, train_b, test_a, test_b)


def _common(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    both = np.isfinite(a[:, 0]) & np.isfinite(b[:, 0])
    return a[both], b[both]


def binned(z: Floats, bins: Ints, *, n_bins: int = 80, least: int = 3) -> Floats:
    """Mean embedding in every bin, NaN where fewer than `least` samples fell."""
    inside = bins >= 0
    count = np.bincount(bins[inside], minlength=n_bins).astype(np.float64)
    total = np.zeros((n_bins, z.shape[1]))
    np.add.at(total, bins[inside], z[inside])
    count[count < least] = np.nan
    return np.asarray(total / count[:, None])


def thinned(z: Floats) -> Floats:
    """At most `KEPT` rows, evenly spaced."""
    return z[np.unique(np.linspace(0, len(z) - 1, min(KEPT, len(z))).astype(np.int64))]
