"""Decoding fold by fold: questions, what each decoder sees, and what it says of held-out samples.

Everything fitted (scaling, PCA, encoder, k) is fitted on the training spans of its fold, and a fold
whose encoder saw a sample that it is tested on is refused. `scoring` makes scores of what was said.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from .decode import Target, error, predict, predict_without, tune
from .errors import ConfigError, DataError, MissingExtraError
from .linear import best_penalty, decode_linearly, fit_and_say, say_without
from .model import Run, embed, smoothed
from .processors import side_by_side
from .recording import Label, Recording
from .splits import Judging, Plan, mask_of, trained_samples
from .windows import ReceptiveField, Spans, padded_rows

__all__ = [
    "BASELINES",
    "CONSTANT",
    "EMBEDDING",
    "RAW",
    "Features",
    "Predicted",
    "Problem",
    "by_subset",
    "decode_folds",
    "features_of",
    "frame_problem",
    "identity_problem",
    "label_problem",
    "learnt_and_asked",
    "plain_features",
    "relative_errors",
    "scaled_windows",
]

EMBEDDING, RAW, REDUCED, CONSTANT = "embedding", "raw kNN", "PCA kNN", "constant"
LINEAR, MANIFOLD = "linear", "UMAP kNN"
BASELINES = (RAW, REDUCED, MANIFOLD, LINEAR, CONSTANT)
_COMPONENTS = 100
"""Of the windows, at most, that linear decoders see."""
_MOST_MANIFOLD = 10_000
"""Training rows that UMAP is fitted on, at most; where there are more, every n-th is taken."""
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
    """What each decoder sees.

    Attributes
    ----------
    values : mapping of method to array of float32, shape (n, F)
    samples : array of int64, shape (n,)
        The sample of each row.
    seen : array of int64, shape (E, 2)
        Where the encoder, and whatever else these numbers depend on, was fitted; empty where
        nothing was.
    """

    values: Mapping[str, NDArray[np.float32]]
    samples: NDArray[np.int64]
    seen: Spans = field(default_factory=lambda: np.empty((0, 2), dtype=np.int64))


def features_of(
    recording: Recording,
    spans: Spans,
    train_on: Spans,
    run: Run,
    *,
    baselines: bool = True,
    manifold: bool = False,
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
        Trained on the same spans; where it was trained goes into `seen`.
    baselines : bool
        Whether to add the raw windows (the encoder's window, z-scored), their PCA to as many
        dimensions as the embedding has, and to as many as linear decoders see; all smoothed over
        time as the embedding is.
    manifold : bool
        Whether to add UMAP of the windows, with as many dimensions as the embedding (McInnes, Healy
        & Melville 2018, arXiv:1802.03426; 24 neighbours, as in the comparison of CEBRA's authors).
    device : str

    Returns
    -------
    Features

    Raises
    ------
    MissingExtraError
        If UMAP is asked for and not installed.
    """
    embedding = embed(run, recording, spans=spans, device=device)
    values = {EMBEDDING: embedding.values}
    if baselines:
        field, latents = run.config.encoder.field, run.config.encoder.latents
        plain, _ = plain_features(recording.activity, spans, train_on, field, latents)
        values |= plain
        if manifold:
            trained = mask_of(train_on, recording.n_samples)[embedding.samples]
            fit = np.flatnonzero(trained)
            values[MANIFOLD] = _umap(plain[LINEAR], fit, latents, run.config.seed)
        lengths, width = [b - a for a, b in spans], run.config.smoothing
        values |= {m: smoothed(v, lengths, width) for m, v in values.items() if m != EMBEDDING}
    own = run.config.spans(0)
    seen = recording.epochs if own is None else np.concatenate([own, train_on])
    return Features(values, embedding.samples, seen)


def _umap(
    x: NDArray[np.float32], fit: NDArray[np.int64], dimensions: int, seed: int
) -> NDArray[np.float32]:
    try:
        import umap
    except ImportError as error:
        raise MissingExtraError(
            "UMAP is drawn with umap-learn, which is not installed. Run: pip install 'grevy[umap]'"
        ) from error
    some = fit[:: max(1, -(-len(fit) // _MOST_MANIFOLD))]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="n_jobs value")  # a seed means one thread
        model = umap.UMAP(
            n_components=dimensions, n_neighbors=24, min_dist=1e-4, random_state=seed % 2**32
        )
        model.fit(x[some])
        return np.asarray(model.transform(x), dtype=np.float32)


def plain_features(
    activity: NDArray[np.float32],
    spans: Spans,
    train_on: Spans,
    field: ReceptiveField,
    latents: int,
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.int64]]:
    """What the baselines see of some spans, fitted on training samples alone, and which samples.

    The z-scored windows ("raw kNN"), as many of their principal components as there are latents
    ("PCA kNN"), and as many as linear decoders see ("linear"), each (n, F). Parameters are those of
    `scaled_windows`.
    """
    windows, samples = scaled_windows(activity, spans, train_on, field)
    trained = mask_of(train_on, len(activity))[samples]
    most = min(_COMPONENTS, windows.shape[1], int(trained.sum()))
    pca = PCA(most, svd_solver="covariance_eigh").fit(windows[trained])
    parts = pca.transform(windows).astype(np.float32)
    return {RAW: windows, REDUCED: parts[:, :latents], LINEAR: parts}, samples


def scaled_windows(
    x: NDArray[np.float32], spans: Spans, train_on: Spans, field: ReceptiveField
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """What an encoder sees of each sample of some spans, z-scored: features that learnt nothing.

    Parameters
    ----------
    x : array, shape (T, C)
        Activity, or anything else that has a row a sample.
    spans : array of int64, shape (K, 2)
        Each seen alone, its edges replicated.
    train_on : array of int64, shape (E, 2)
        Means and deviations are those of these samples.
    field : ReceptiveField

    Returns
    -------
    windows : array of float32, shape (n, W * C)
    samples : array of int64, shape (n,)
        The sample of each window.
    """
    trained = np.concatenate([x[a:b] for a, b in train_on])
    spread = trained.std(axis=0)
    z = (x - trained.mean(axis=0)) / np.where(spread > 0, spread, 1)
    rows, outputs, samples, _ = padded_rows(spans, field)
    places = outputs[:, None] + np.arange(len(field))
    return z[rows[places]].reshape(len(outputs), -1).astype(np.float32), samples


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
    without : mapping of method to dict of group to array of float64, shape (n, d)
        What would have been said had a repeat (or block) not been there to learn from; NaN where
        it was not. For intervals (`scoring`).
    """

    samples: NDArray[np.int64]
    group: NDArray[np.int64]
    subset: NDArray[np.int64]
    values: Mapping[str, NDArray[np.float64]]
    constants: tuple[NDArray[np.float64], ...]
    without: Mapping[str, Mapping[int, NDArray[np.float64]]] = field(default_factory=dict)


def decode_folds(
    problems: Sequence[Problem],
    plan: Plan,
    epochs: Spans,
    features: Callable[[int], Features],
    *,
    device: str = "auto",
    leave_out: bool = True,
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
    leave_out : bool
        Whether to find out what would be said without each repeat, for intervals.

    Returns
    -------
    list of Predicted
        One a problem.

    Raises
    ------
    ConfigError
        If an encoder was trained on samples that its fold tests: what it remembers of them would
        be taken for what the population knows. (Not if the plan is `shuffled`, which is known to
        leak.)
    """
    parts: list[list[Predicted]] = [[] for _ in problems]
    for fold in range(plan.n_folds):
        f = features(fold)
        _refuse_leaks(plan, fold, f)
        trained = trained_samples(plan, epochs, fold)[f.samples]
        tested = plan.tested[fold][f.samples]
        for problem, found in zip(problems, parts, strict=True):
            found.append(
                _decode(problem, plan.group, f, trained, tested, device, leave_out=leave_out)
            )
    return [_join(found) for found in parts]


def _refuse_leaks(plan: Plan, fold: int, f: Features) -> None:
    if plan.shuffled:
        return
    both = mask_of(f.seen, len(plan.group)) & plan.tested[fold]
    if both.any():
        raise ConfigError(
            f"what a fold tests must be new to its encoder; fold {fold} was trained on "
            f"{int(both.sum())} of its {int(plan.tested[fold].sum())} test samples (the first is "
            f"{int(both.argmax())}). Train it on `training_spans(plan, epochs, {fold})`."
        )


def _join(parts: list[Predicted]) -> Predicted:
    def cat(arrays: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        return np.concatenate(arrays)

    return Predicted(
        np.concatenate([p.samples for p in parts]),
        np.concatenate([p.group for p in parts]),
        np.concatenate([p.subset for p in parts]),
        {m: cat([p.values[m] for p in parts]) for m in parts[0].values},
        tuple(cat([p.constants[i] for p in parts]) for i in range(len(parts[0].constants))),
        {m: _join_without([p for p in parts if len(p.samples)], m) for m in parts[0].values},
    )


def _join_without(parts: list[Predicted], method: str) -> dict[int, NDArray[np.float64]]:
    groups = sorted({g for p in parts for g in p.without.get(method, {})})

    def of(p: Predicted, g: int) -> NDArray[np.float64]:
        return p.without[method].get(g, np.full_like(p.values[method], np.nan))

    return {g: np.concatenate([of(p, g) for p in parts]) for g in groups}


def _decode(
    problem: Problem,
    group: NDArray[np.int64],
    f: Features,
    trained: NDArray[np.bool_],
    tested: NDArray[np.bool_],
    device: str,
    *,
    leave_out: bool = False,
) -> Predicted:
    """Fit and ask every decoder in every subset; with `leave_out` also without each group."""
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
    asked = [
        learnt_and_asked(subset == s, groups, trained, tested) for s in range(len(problem.names))
    ]
    there = [s for s, (fit, ask) in enumerate(asked) if len(fit) and len(ask)]

    def say(work: tuple[int, str]) -> _Said:
        (fit, ask), x = asked[work[0]], f.values[work[1]]
        decoder = _linearly if work[1] == LINEAR else _by_neighbours
        return decoder(
            x[fit], f.samples[fit], groups[fit], x[ask], problem.target, device, leave_out
        )

    work = [(s, method) for s in there for method in f.values]
    said = dict(zip(work, side_by_side(say, work), strict=True))
    for s in there:
        fit, ask = asked[s]
        constants = tuple(
            np.repeat(c[None], len(ask), axis=0)
            for c in _constants(problem.target, f.samples[fit], problem.tolerance[s])
        )
        values = {m: said[s, m][0] for m in f.values}
        without = {m: said[s, m][1] for m in f.values}
        parts.append(
            Predicted(f.samples[ask], groups[ask], subset[ask], values, constants, without)
        )
    return _join(parts)


_Said = tuple[NDArray[np.float64], dict[int, NDArray[np.float64]]]


def _by_neighbours(
    x: NDArray[np.float32],
    rows: NDArray[np.int64],
    groups: NDArray[np.int64],
    query: NDArray[np.float32],
    target: Target,
    device: str,
    leave_out: bool,
) -> _Said:
    settings = tune(x, target, rows, groups, device=device)
    if leave_out:
        return predict_without(x, rows, groups, query, target, settings, device=device)
    return predict(x, rows, query, target, settings, device=device), {}


def _linearly(
    x: NDArray[np.float32],
    rows: NDArray[np.int64],
    groups: NDArray[np.int64],
    query: NDArray[np.float32],
    target: Target,
    device: str,
    leave_out: bool,
) -> _Said:
    if not leave_out:
        return decode_linearly(x, rows, groups, query, target), {}
    penalty = best_penalty(x, rows, groups, target)
    said = fit_and_say(x, rows, query, target, penalty)
    return said, say_without(x, rows, groups, query, target, penalty)


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


def relative_errors(
    problem: Problem, plan: Plan, split: Judging, f: Features, *, device: str = "auto"
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Mean error of the embedding's decoder in every judged presentation, over the best constant's.

    Parameters
    ----------
    problem : Problem
    plan : Plan
    split : Judging
        What the decoder learns from, and what is judged.
    f : Features
        Of the plan's spans, from a run trained on `split.train_on`.
    device : str

    Returns
    -------
    errors : array of float64, shape (n,)
        One number a presentation (subset and group); below 1 is better than knowing nothing.
    group : array of int64, shape (n,)
        Its repeat (or block).
    """
    only = Features({EMBEDDING: f.values[EMBEDDING]}, f.samples)
    learnt, judged = split.learnt[f.samples], split.judged[f.samples]
    p = _decode(problem, plan.group, only, learnt, judged, device)
    ratios, groups = list[float](), list[int]()
    for _, _, at in by_subset(problem, p):
        guess = min(error(problem.target, p.samples[at], c[at]).mean() for c in p.constants)
        for g in np.unique(p.group[at]):
            rows = at[p.group[at] == g]
            far = error(problem.target, p.samples[rows], p.values[EMBEDDING][rows]).mean()
            ratios.append(float(far / guess) if guess > 0 else 1.0)
            groups.append(int(g))
    return np.array(ratios), np.array(groups, dtype=np.int64)


def by_subset(problem: Problem, p: Predicted) -> list[tuple[int, str, NDArray[np.int64]]]:
    """Number, name and rows of every subset that anything was said of."""
    picked = [(s, name, np.flatnonzero(p.subset == s)) for s, name in enumerate(problem.names)]
    return [(s, name, rows) for s, name, rows in picked if len(rows)]
