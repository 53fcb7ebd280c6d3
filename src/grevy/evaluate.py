"""Scoring decoders: features and predictions fold by fold, scores repeat by repeat, intervals.

Everything fitted (scaling, PCA, encoder, k) is fitted on the training spans of its fold. Values and
intervals are taken over repeats (or blocks of time), never over samples, which are not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.decomposition import PCA

from .decode import Target, error, predict, tune
from .errors import DataError
from .linear import decode_linearly
from .model import Run, embed
from .recording import Label, Recording
from .results import Confusion, Difference, Score
from .splits import Plan, mask_of, training_spans
from .windows import ReceptiveField, Spans, padded_rows

__all__ = [
    "BASELINES",
    "EMBEDDING",
    "Features",
    "Predicted",
    "Problem",
    "confusion",
    "decode_folds",
    "differences",
    "features_of",
    "frame_problem",
    "identity_problem",
    "interval",
    "label_problem",
    "learnt_and_asked",
    "relative_error",
    "scores",
]

EMBEDDING, RAW, REDUCED, CONSTANT = "embedding", "raw kNN", "PCA kNN", "constant"
LINEAR = "linear"
BASELINES = (RAW, REDUCED, LINEAR, CONSTANT)
_COMPONENTS = 100
"""Of the windows, at most, that linear decoders see."""
_MOST_ROWS = 20_000
"""Training rows of one decoder; where there are more, every n-th is taken."""


@dataclass(frozen=True, eq=False)
class Problem:
    """One question put to every decoder.

    Attributes
    ----------
    name : str
        "frame", "stimulus" or a label's name.
    target : Target
        With one row a sample of the recording.
    subset : array of int64, shape (T,)
        Samples of one subset are decoded among themselves (the frames of one movie); -1 is left
        out.
    names : tuple of str
        Names of the subsets; ("",) where there is but one.
    unit : str
        Of the error.
    tolerance : tuple of float
        For each subset, the error that still counts as right.
    """

    name: str
    target: Target
    subset: NDArray[np.int64]
    names: tuple[str, ...]
    unit: str
    tolerance: tuple[float, ...]


def frame_problem(recording: Recording) -> Problem:
    """Which moment of its movie is on the screen, in seconds since the movie's start.

    An error counts as right within 1 s or 5 % of the movie, whichever is less.
    """
    track = recording.stimulus
    if track is None or not track.decodable:
        raise DataError("frames can be decoded only from stimuli that repeat; found none.")
    which = {track.names.index(name): i for i, name in enumerate(track.decodable)}
    subset = np.full(recording.n_samples, -1, dtype=np.int64)
    values = np.zeros((recording.n_samples, 1))
    for s, i in which.items():
        here = track.index == s
        subset[here] = i
        values[here, 0] = track.frame[here] * track.duration_s[s] / track.n_frames[s]
    tolerance = tuple(min(1.0, 0.05 * track.duration_s[s]) for s in which)
    return Problem("frame", Target(values, np.zeros(1)), subset, track.decodable, "s", tolerance)


def identity_problem(recording: Recording) -> Problem:
    """Which stimulus is on the screen, sample by sample."""
    frames = frame_problem(recording)
    target = Target(np.maximum(frames.subset, 0)[:, None], np.zeros(1), len(frames.names))
    subset = np.where(frames.subset >= 0, 0, -1)
    return Problem("stimulus", target, subset, ("",), "", (0.0,))


def label_problem(name: str, label: Label) -> Problem:
    """The value of a label at every sample where it is known.

    For a quantity an error counts as right within 5 % of its range (or of its period).
    """
    values = label.values.reshape(len(label.values), -1)
    subset = np.where(label.mask, 0, -1).astype(np.int64)
    if label.kind == "discrete":
        classes, code = np.unique(values[label.mask, 0], return_inverse=True)
        full = np.zeros((len(values), 1), dtype=np.int64)
        full[label.mask, 0] = code
        return Problem(name, Target(full, np.zeros(1), len(classes)), subset, ("",), "", (0.0,))
    known = values[label.mask]
    span = label.period or float(np.linalg.norm(np.ptp(known, axis=0)))
    target = Target(values.astype(np.float64), np.full(values.shape[1], label.period or 0.0))
    return Problem(name, target, subset, ("",), label.unit, (0.05 * span,))


@dataclass(frozen=True, eq=False)
class Features:
    """What each decoder sees: for each method an array (n, F), and the sample of each row."""

    values: Mapping[str, NDArray[np.float32]]
    samples: NDArray[np.int64]


def features_of(
    recording: Recording,
    spans: Spans,
    train_on: Spans,
    run: Run,
    *,
    baselines: bool = True,
    device: str = "auto",
) -> Features:
    """Embedding and baselines of some spans, each span seen alone.

    Parameters
    ----------
    recording : Recording
    spans : array of int64, shape (K, 2)
        Presentations or blocks.
    train_on : array of int64, shape (E, 2)
        Training spans of the fold: scaling and PCA see nothing else.
    run : Run
        Trained on the same spans.
    baselines : bool
        Whether to add the raw windows (the encoder's window, z-scored), their PCA to as many
        dimensions as the embedding has, and to as many as linear decoders see.
    device : str

    Returns
    -------
    Features
    """
    embedding = embed(run, recording, spans=spans, device=device)
    values = {EMBEDDING: embedding.values}
    if baselines:
        rows = np.concatenate([recording.activity[a:b] for a, b in train_on])
        spread = rows.std(axis=0)
        x = (recording.activity - rows.mean(axis=0)) / np.where(spread > 0, spread, 1)
        field = run.config.encoder.field
        windows = _windows(x, spans, field)
        trained = mask_of(train_on, recording.n_samples)[embedding.samples]
        most = min(_COMPONENTS, windows.shape[1], int(trained.sum()))
        pca = PCA(most, svd_solver="covariance_eigh").fit(windows[trained])
        parts = pca.transform(windows).astype(np.float32)
        values |= {RAW: windows, REDUCED: parts[:, : run.config.encoder.latents], LINEAR: parts}
    return Features(values, embedding.samples)


def _windows(x: NDArray[np.float32], spans: Spans, field: ReceptiveField) -> NDArray[np.float32]:
    rows, outputs, _, _ = padded_rows(spans, field)
    places = outputs[:, None] + np.arange(len(field))
    windows: NDArray[np.float32] = x[rows[places]].reshape(len(outputs), -1).astype(np.float32)
    return windows


@dataclass(frozen=True, eq=False)
class Predicted:
    """Predictions of each method for every scored sample; rows are aligned between methods.

    Attributes
    ----------
    samples : array of int64, shape (n,)
    group, subset : arrays of int64, shape (n,)
        Repeat (or block) and subset of each row.
    values : mapping of method to array of float64, shape (n, d)
    constants : tuple of arrays of float64, shape (n, d)
        What predictors that know the training labels only would say; each metric is held against
        the one that is best at it.
    """

    samples: NDArray[np.int64]
    group: NDArray[np.int64]
    subset: NDArray[np.int64]
    values: Mapping[str, NDArray[np.float64]]
    constants: tuple[NDArray[np.float64], ...]


def decode_folds(
    problems: Sequence[Problem],
    plan: Plan,
    epochs: Spans,
    features: Callable[[int], Features],
    *,
    device: str = "auto",
) -> list[Predicted]:
    """Decode every scored sample by a decoder that saw none of its fold.

    Parameters
    ----------
    problems : sequence of Problem
        Questions that share the plan.
    plan : Plan
    epochs : array of int64, shape (E, 2)
    features : callable
        Fold number to `Features`, whose fitted parts saw `training_spans(plan, epochs, fold)` only.
        Called once a fold.
    device : str

    Returns
    -------
    list of Predicted
        One a problem.
    """
    parts: list[list[Predicted]] = [[] for _ in problems]
    for fold in range(plan.n_folds):
        f = features(fold)
        trained = mask_of(training_spans(plan, epochs, fold), len(plan.fold))[f.samples]
        tested = plan.fold[f.samples] == fold
        for problem, found in zip(problems, parts, strict=True):
            found.append(_decode(problem, plan.group, f, trained, tested, device))
    return [_join(found) for found in parts]


def _join(parts: list[Predicted]) -> Predicted:
    def cat(arrays: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        return np.concatenate(arrays)

    return Predicted(
        np.concatenate([p.samples for p in parts]),
        np.concatenate([p.group for p in parts]),
        np.concatenate([p.subset for p in parts]),
        {m: cat([p.values[m] for p in parts]) for m in parts[0].values},
        tuple(cat([p.constants[i] for p in parts]) for i in range(len(parts[0].constants))),
    )


def _decode(
    problem: Problem,
    group: NDArray[np.int64],
    f: Features,
    trained: NDArray[np.bool_],
    tested: NDArray[np.bool_],
    device: str,
) -> Predicted:
    subset, groups = problem.subset[f.samples], group[f.samples]
    width = problem.target.values.shape[1]
    none = np.empty(0, dtype=np.int64)
    parts = [
        Predicted(
            none,
            none,
            none,
            dict.fromkeys(f.values, np.empty((0, width))),
            (np.empty((0, width)),) * (1 if problem.target.n_classes else 4),
        )
    ]
    for s in range(len(problem.names)):
        fit, ask = learnt_and_asked(subset == s, groups, trained, tested)
        if not len(fit) or not len(ask):
            continue
        rows = f.samples[fit]
        values = {}
        for method, x in f.values.items():
            if method == LINEAR:
                values[method] = decode_linearly(x[fit], rows, groups[fit], x[ask], problem.target)
                continue
            settings = tune(x[fit], problem.target, rows, groups[fit], device=device)
            values[method] = predict(x[fit], rows, x[ask], problem.target, settings, device=device)
        constants = tuple(
            np.repeat(c[None], len(ask), axis=0)
            for c in _constants(problem.target, rows, problem.tolerance[s])
        )
        parts.append(Predicted(f.samples[ask], groups[ask], subset[ask], values, constants))
    return _join(parts)


def learnt_and_asked(
    here: NDArray[np.bool_],
    groups: NDArray[np.int64],
    trained: NDArray[np.bool_],
    tested: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows that a decoder of one subset learns from, and rows that it is asked for."""
    fit = np.flatnonzero(trained & here & (groups >= 0))
    return fit[:: max(1, -(-len(fit) // _MOST_ROWS))], np.flatnonzero(tested & here)


def _constants(
    target: Target, rows: NDArray[np.int64], tolerance: float
) -> tuple[NDArray[np.float64], ...]:
    """The best guesses without data, one for each thing to be good at, each of shape (d,).

    For a quantity: least squared, mean and median distance to the training values, and most of
    them within the tolerance. For classes the commonest one.
    """
    y = np.asarray(target.values[rows], dtype=np.float64)
    if target.n_classes:
        return (np.array([float(np.bincount(y[:, 0].astype(np.int64)).argmax())]),)
    guesses = y[np.linspace(0, len(y) - 1, min(200, len(y))).astype(np.int64)]
    some = rows[np.linspace(0, len(rows) - 1, min(2000, len(rows))).astype(np.int64)]
    far = np.stack([error(target, some, np.broadcast_to(g, (len(some), g.size))) for g in guesses])
    straight = not target.periods.any()
    return (
        y.mean(axis=0) if straight else guesses[np.square(far).mean(axis=1).argmin()],
        guesses[far.mean(axis=1).argmin()],
        guesses[np.median(far, axis=1).argmin()],
        guesses[(far <= tolerance).mean(axis=1).argmax()],
    )


@dataclass(frozen=True)
class _Metric:
    name: str
    unit: str
    higher: bool


def _metrics(problem: Problem) -> tuple[_Metric, ...]:
    if problem.target.n_classes:
        return (_Metric("accuracy", "", True),)
    kept = (_Metric("median error", problem.unit, False), _Metric("accuracy", "", True))
    circular = bool(problem.target.periods.any())
    return kept if circular else (_Metric("r2", "", True), *kept)


def _replicates(
    metric: _Metric,
    problem: Problem,
    subset: int,
    rows: NDArray[np.int64],
    group: NDArray[np.int64],
    predicted: NDArray[np.float64],
) -> NDArray[np.float64]:
    """One number a repeat, whose mean is the score.

    The repeat's own score; for R2, which is pooled over repeats, its jackknife pseudo-value.
    """
    far = error(problem.target, rows, predicted)
    units = [np.flatnonzero(group == g) for g in np.unique(group)]
    if metric.name == "median error":
        return np.array([np.median(far[u]) for u in units])
    if metric.name == "accuracy":
        return np.array([np.mean(far[u] <= problem.tolerance[subset]) for u in units])
    y = np.asarray(problem.target.values[rows], dtype=np.float64)
    spread = np.square(y - y.mean(axis=0)).sum(axis=1)
    sse = np.array([np.square(far[u]).sum() for u in units])
    sst = np.array([spread[u].sum() for u in units])
    whole, n = 1 - sse.sum() / sst.sum(), len(units)
    if n < 2:
        return np.array([whole])
    without = 1 - (sse.sum() - sse) / (sst.sum() - sst)
    pseudo = n * whole - (n - 1) * without
    return np.asarray(pseudo + (whole - pseudo.mean()))


def interval(each: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean and 95 % t interval over repeats (or runs); NaN bounds below three."""
    n, mean = len(each), float(each.mean())
    if n < 3:
        return mean, float("nan"), float("nan")
    half = float(stats.t.ppf(0.975, n - 1) * each.std(ddof=1) / np.sqrt(n))
    return mean, mean - half, mean + half


def _by_subset(problem: Problem, p: Predicted) -> list[tuple[int, str, NDArray[np.int64]]]:
    picked = [(s, name, np.flatnonzero(p.subset == s)) for s, name in enumerate(problem.names)]
    return [(s, name, rows) for s, name, rows in picked if len(rows)]


def _all_replicates(
    metric: _Metric, problem: Problem, subset: int, p: Predicted, at: NDArray[np.int64]
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.float64]]:
    def of(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return _replicates(metric, problem, subset, p.samples[at], p.group[at], values[at])

    constants = [of(c) for c in p.constants]
    best = max(constants, key=lambda r: float(r.mean()) * (1 if metric.higher else -1))
    return {method: of(values) for method, values in p.values.items()}, best


def scores(problem: Problem, predicted: Predicted) -> list[Score]:
    """Score rows of every subset, method and metric, chance being the best constant predictor.

    Parameters
    ----------
    problem : Problem
    predicted : Predicted

    Returns
    -------
    list of Score
    """
    rows = []
    for s, name, at in _by_subset(problem, predicted):
        for metric in _metrics(problem):
            each, constant = _all_replicates(metric, problem, s, predicted, at)
            chance = float(constant.mean())
            for method, replicates in {**each, CONSTANT: constant}.items():
                value, low, high = interval(replicates)
                rows.append(
                    Score(
                        target=problem.name,
                        stimulus=name,
                        method=method,
                        metric=metric.name,
                        value=value,
                        chance=chance,
                        n_repeats=len(replicates),
                        low=low,
                        high=high,
                        unit=metric.unit,
                        higher_is_better=metric.higher,
                    )
                )
    return rows


def differences(problem: Problem, predicted: Predicted) -> list[Difference]:
    """Embedding minus each baseline, repeat by repeat on the same folds, with 95 % t intervals.

    The best constant predictor is one of the baselines: the difference to it says whether a score
    is better than chance, also where chance itself differs from block to block.
    """
    rows = []
    for s, name, at in _by_subset(problem, predicted):
        for metric in _metrics(problem):
            each, constant = _all_replicates(metric, problem, s, predicted, at)
            each = {**each, CONSTANT: constant}
            for baseline in BASELINES:
                if baseline not in each:
                    continue
                gap = each[EMBEDDING] - each[baseline]
                value, low, high = interval(gap)
                sign = 1 if metric.higher else -1
                better = "undecided"
                if sign * low > 0 and sign * high > 0:
                    better = "embedding"
                elif sign * low < 0 and sign * high < 0:
                    better = "baseline"
                rows.append(
                    Difference(
                        problem.name,
                        name,
                        metric.name,
                        baseline,
                        value,
                        low,
                        high,
                        len(gap),
                        better,
                        metric.unit,
                    )
                )
    return rows


def confusion(problem: Problem, predicted: Predicted, names: tuple[str, ...]) -> Confusion:
    """Samples of each class (rows) by the class that the embedding's decoder said (columns)."""
    n = len(names)
    truth = np.asarray(problem.target.values[predicted.samples, 0], dtype=np.int64)
    said = predicted.values[EMBEDDING][:, 0].astype(np.int64)
    counts = np.bincount(truth * n + said, minlength=n * n).reshape(n, n)
    return Confusion(names, tuple(tuple(int(c) for c in row) for row in counts), EMBEDDING)


def relative_error(
    problem: Problem,
    plan: Plan,
    choosing: int,
    f: Features,
    train_on: Spans,
    *,
    device: str = "auto",
) -> float:
    """Mean error of the embedding's decoder on a choosing fold, in units of the best constant's.

    Only samples set aside for choosing are used, for fitting the decoder too.

    Parameters
    ----------
    problem : Problem
    plan : Plan
    choosing : int
        Choosing fold that is judged.
    f : Features
        Of the plan's spans, from a run trained on `train_on`.
    train_on : array of int64, shape (E, 2)
        `choosing_spans(plan, epochs, choosing)`.
    device : str

    Returns
    -------
    float
        Averaged over subsets; below 1 is better than knowing nothing.
    """
    trained = mask_of(train_on, len(plan.fold))[f.samples] & (plan.choosing[f.samples] >= 0)
    tested = plan.choosing[f.samples] == choosing
    only = Features({EMBEDDING: f.values[EMBEDDING]}, f.samples)
    p = _decode(problem, plan.group, only, trained, tested, device)
    ratios = []
    for _, _, at in _by_subset(problem, p):
        far = error(problem.target, p.samples[at], p.values[EMBEDDING][at]).mean()
        guess = min(error(problem.target, p.samples[at], c[at]).mean() for c in p.constants)
        ratios.append(float(far / guess) if guess > 0 else 1.0)
    return float(np.mean(ratios)) if ratios else float("nan")
