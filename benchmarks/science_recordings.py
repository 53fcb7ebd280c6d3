"""What embeddings tell of real recordings and of simulated ones of known latents, held out.

Rows of science.py. What both libraries reach with five seeds is computed by parity.py, CEBRA's part
once, and kept with seeds and versions (results/parity-*.json, docs/parity.md says how): here it is
put beside plain baselines, nulls and negative controls on the same split.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from numpy.typing import NDArray
from scipy import stats
from scipy.io import loadmat
from scipy.ndimage import gaussian_filter1d
from scipy.signal import lfilter
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

import parity_judge as judge
import smoothed_reference
from grevy import synthetic
from grevy.config import TrainConfig
from grevy.encoders import EncoderSpec
from grevy.errors import ConfigError
from grevy.evaluate import (
    EMBEDDING,
    Predicted,
    Problem,
    decode_folds,
    features_of,
    frame_problem,
)
from grevy.model import Run, embed
from grevy.movie_session import STRENGTHS
from grevy.pairs import DeltaPairs, TimePairs
from grevy.quality import persistence, ring_test, surrogate
from grevy.recording import Label, Recording, make_recording
from grevy.scoring import differences, scores
from grevy.search import with_spans
from grevy.splits import Plan, repeat_plan, training_spans
from grevy.stimulus import align, table_from_intervals
from grevy.training import train
from grevy.windows import Spans, padded_rows
from parity_data import RATS, Dataset, Task, load, tasks
from parity_runs import estimator

Row = dict[str, Any]
RESULTS = Path(__file__).parent / "results"
MODES = ("time", "behavior", "hybrid")
WIDTHS = (2.0, 4.0, 8.0, 16.0)
"""Standard deviations, in samples, that smoothing is tried with."""
MOST_FOR_UMAP = 20_000
"""Samples: it takes minutes to place more."""


def folder() -> Path:
    """Where the real recordings lie."""
    if "GREVY_DATA" not in os.environ:
        raise SystemExit("the recordings lie in the folder that GREVY_DATA names; it is not set")
    return Path(os.environ["GREVY_DATA"])


def kept(library: str) -> dict[str, Any]:
    """Scores of every task by seed, as parity.py kept them."""
    name = "reference" if library == "cebra" else library
    found: dict[str, Any] = json.loads((RESULTS / f"parity-{name}.json").read_text())["tasks"]
    return found


def mean_ci(values: Sequence[float]) -> tuple[float, list[float]]:
    """Mean and 95 % t interval over seeds."""
    x = np.asarray(values, dtype=np.float64)
    half = float(stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return float(x.mean()), [float(x.mean()) - half, float(x.mean()) + half]


def welch(a: Sequence[float], b: Sequence[float]) -> tuple[float, list[float]]:
    """Difference of two means and its 95 % interval."""
    found = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    return float(np.mean(a) - np.mean(b)), [float(found.low), float(found.high)]


def beside(ours: Sequence[float], theirs: Sequence[float], *, small: bool) -> Row:
    """Ours beside CEBRA's by seed; passed unless ours are worse by more than chance explains."""
    value, ci = mean_ci(ours)
    gap, gap_ci = welch(ours, theirs)
    reference, reference_ci = mean_ci(theirs)
    worse = gap_ci[0] > 0 if small else gap_ci[1] < 0
    return {
        "value": value, "ci": ci, "must": "not worse than CEBRA",
        "reference": reference, "reference_ci": reference_ci, "gap": gap, "gap_ci": gap_ci,
        "passed": not worse, "seeds": len(ours),
    }  # fmt: skip


def word(gain_ci: Sequence[float]) -> str:
    """What a paired interval of gains can bear: "better", "worse", or "undecided"."""
    low, high = gain_ci
    return "better" if low > 0 else "worse" if high < 0 else "undecided"


OVER: Mapping[str, str] = {
    # beginning of a row's name: what its interval is over; the longest that fits counts
    "level_": "{seeds} simulated sessions (Clopper-Pearson)",
    "coverage": "range of the {n_each} scores, each over {seeds} sessions",
    "power": "t over {seeds} simulated sessions",
    "leaks": "{seeds} simulated recordings, two leaks each",
    "decoding": "t over {seeds} encoder seeds, one split",
    "consistency": "t over {seeds} encoder seeds, the same four rats and split",
    "consistency, labels": "t over {seeds} seeds of encoder and null, the same rats and split",
    "synthetic, flow": "t over {seeds} encoder seeds, one simulated set (CEBRA: {reference_seeds})",
    "synthetic, ring": "middle 95 % of {seeds} surrogates, one encoder seed each",
    "synthetic, torus": "{seeds} surrogates, one encoder seed each",
    "movie one": "jackknife over repeats, bounds averaged over {seeds} encoder seeds",
    "session": "one run",
    "robust": "t over {seeds} encoder seeds, one split",
    "preset": "t over {seeds} encoder seeds, one recording",
    "baselines": "one split",
}


def over(name: str, row: Row) -> str:
    """The unit of a row's interval: what it says itself, else by its name."""
    if row.get("ci_over"):
        return str(row["ci_over"])
    fitting = max((n for n in OVER if name.startswith(n)), key=len, default="")
    known = {"reference_seeds": "?", "n_each": len(row.get("each") or ()), **row}
    return OVER.get(fitting, "").format(**known)


# --- against CEBRA -------------------------------------------------------------------------------
def _decoding(scored: Row) -> tuple[str, list[float]]:
    name = next(n for n in scored["scores"] if n.startswith("decoding"))
    return name.removeprefix("decoding: "), scored["scores"][name]


def rat(name: str) -> Row:
    """The position of one rat by the label-guided encoder; CEBRA by the better of its two."""
    ours, theirs = kept("grevy"), kept("cebra")
    each = [_decoding(theirs[f"{name}, {mode}"])[1] for mode in ("time", "behavior")]
    best = min(each, key=lambda values: float(np.mean(values)))
    return {**beside(_decoding(ours[f"{name}, behavior"])[1], best, small=True), "unit": "cm"}


def rats() -> Row:
    """Mean over the four rats; CEBRA by the better of its two for each."""
    ours, theirs = kept("grevy"), kept("cebra")
    mine = np.mean([_decoding(ours[f"{r}, behavior"])[1] for r in RATS], axis=0)
    best = []
    for r in RATS:
        each = [_decoding(theirs[f"{r}, {mode}"])[1] for mode in ("time", "behavior")]
        best.append(min(each, key=lambda values: float(np.mean(values))))
    row = beside(mine.tolist(), np.mean(best, axis=0).tolist(), small=True)
    return {**row, "unit": "cm", "aim": -0.2, "relative": row["gap"] / row["reference"]}


def over_rats() -> Row:
    """grevy minus CEBRA, rat by rat: seeds say nothing of another rat, four rats say a little."""
    each = {r: rat(r)["gap"] for r in RATS}
    value, ci = mean_ci(list(each.values()))
    return {
        "value": value, "ci": ci, "must": None, "unit": "cm", "each": each, "seeds": 5,
        "verdict": word([-ci[1], -ci[0]]), "passed": None,
        "ci_over": f"t over {len(each)} rats, each the mean of 5 encoder seeds",
    }  # fmt: skip


def task(name: str) -> Row:
    """Decoding of one recording and mode."""
    measure, ours = _decoding(kept("grevy")[name])
    theirs = _decoding(kept("cebra")[name])[1]
    return {**beside(ours, theirs, small=judge.better_small(measure)), "unit": measure}


def consistency_of_rats() -> Row:
    """Between the four rats, label-guided, on held-out laps; what it is in sample stands beside."""
    name = "consistency between animals, held out: R2"
    ours, theirs = (kept(k)["four rats, behavior"]["scores"] for k in ("grevy", "cebra"))
    inside = name.replace("held out", "in sample")
    return {
        **beside(ours[name], theirs[name], small=False), "unit": "R2", "aim": 0.9,
        "in_sample": float(np.mean(ours[inside])),
        "reference_in_sample": float(np.mean(theirs[inside])), "published_in_sample": 0.943,
    }  # fmt: skip


def shuffled(n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Samples in random order."""
    return rng.permutation(n)


def moved(n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Samples moved round in time, by a quarter of the session at least, either way.

    Labels keep their memory, which shuffling takes from them.
    """
    return np.roll(np.arange(n), int(rng.integers(n // 4, n - n // 4 + 1)))


def as_recorded(n: int, _: np.random.Generator) -> NDArray[np.int64]:
    return np.arange(n)


Order = Callable[[int, np.random.Generator], NDArray[np.int64]]


def _relabelled_rat(name: str, seed: int, how: Order) -> tuple[Any, Any]:
    """Embedding means over places that were put in another order before the encoder learnt them."""
    torch.set_num_threads(1)
    data = load(name, folder())
    order = how(len(data.x), np.random.default_rng([seed, RATS.index(name)]))
    label, bins = data.label[order], data.bins[order]  # type: ignore[index]
    like = next(t for t in tasks() if t.name == f"{name}, behavior")
    first, last = judge.cut(len(data.x))
    model = estimator("grevy", seed, "cpu", like.parameters).fit(data.x[first], label[first])
    parts = [
        judge.Part(p.start, p.stop, np.asarray(model.transform(data.x[p]), dtype=np.float64))
        for p in (first, last)
    ]
    return tuple(judge.binned(p.inner, bins[p.used]) for p in parts)


def relabelled_consistency(n: int, jobs: int, how: Order) -> Row:
    """The same for labels that were shuffled, or moved, before training: what memory gives."""
    found = Parallel(jobs)(delayed(_relabelled_rat)(r, s, how) for s in range(n) for r in RATS)
    each = [found[i : i + len(RATS)] for i in range(0, len(found), len(RATS))]
    held = [judge.between_animals(parts) for parts in each]
    inside = [judge.between_animals([(a, a) for a, _ in parts]) for parts in each]
    value, ci = mean_ci(held)
    return {
        "value": value, "ci": ci, "must": "below .3", "passed": max(held) < 0.3, "seeds": n,
        "unit": "R2", "in_sample": float(np.mean(inside)), "each": held, "each_in_sample": inside,
    }  # fmt: skip


def pair_by_pair(parts: Sequence[tuple[Any, Any]]) -> NDArray[np.float64]:
    """Consistency of every ordered pair of animals, NaN on the diagonal."""
    n = len(parts)
    r2 = np.full((n, n), np.nan)
    for i in range(n):
        for j in range(n):
            if i != j:
                r2[i, j] = judge.one_way(parts[i], parts[j])
    return r2


def over_animals(r2: NDArray[np.float64]) -> tuple[float, list[float]]:
    """Mean over pairs of animals and its 95 % interval, by the jackknife over animals.

    Pairs that share an animal depend on one another, so animals are left out, not pairs.
    """
    n, whole = len(r2), float(np.nanmean(r2))
    without = [np.nanmean(np.delete(np.delete(r2, i, 0), i, 1)) for i in range(n)]
    _, ci = mean_ci([n * whole - (n - 1) * float(one) for one in without])
    half = (ci[1] - ci[0]) / 2
    return whole, [whole - half, whole + half]


def consistency_over_rats(n: int, jobs: int) -> Row:
    """Consistency rat by rat, and grevy minus CEBRA where kept fits of CEBRA have all four."""
    found = Parallel(jobs)(
        delayed(_relabelled_rat)(r, 20 + s, as_recorded) for s in range(n) for r in RATS
    )
    each = [pair_by_pair(found[i : i + len(RATS)]) for i in range(0, len(found), len(RATS))]
    mine = np.mean(each, axis=0)
    value, ci = over_animals(mine)
    row = {
        "value": value, "ci": ci, "must": None, "passed": None, "seeds": n, "unit": "R2",
        "pairs": [[None if np.isnan(v) else v for v in line] for line in mine.tolist()],
        "lowest": float(np.nanmin(mine)), "highest": float(np.nanmax(mine)),
        "ci_over": f"jackknife over {len(RATS)} rats, pairs the mean of {n} encoder seeds",
    }  # fmt: skip
    theirs = smoothed_reference.places()
    if theirs:
        reference = np.mean([pair_by_pair(parts) for parts in theirs], axis=0)
        row["reference"], row["reference_ci"] = over_animals(reference)
        row["gap"], row["gap_ci"] = over_animals(mine - reference)
        row |= {"verdict": word(row["gap_ci"]), "reference_seeds": len(theirs)}
    return row


def _flow(seed: int) -> float:
    like = next(t for t in tasks() if t.dataset == "flow")
    torch.set_num_threads(1)
    data = load("flow", Path())
    first, last = judge.cut(len(data.x))
    model = estimator("grevy", seed, "cpu", like.parameters).fit(data.x[first], data.label[first])
    parts = [
        judge.Part(p.start, p.stop, np.asarray(model.transform(data.x[p]), dtype=np.float64))
        for p in (first, last)
    ]
    return judge.decode(*parts, data.target, data.measure)[0]


def flow(n: int, jobs: int) -> Row:
    """The two latents of the paper's simulated counts, by a linear map, held out."""
    ours = Parallel(jobs)(delayed(_flow)(100 + seed) for seed in range(n))
    theirs = _decoding(kept("cebra")["flow, behavior"])[1]
    row = beside(ours, theirs, small=False)
    return {**row, "unit": "R2", "aim": 0.95, "published": 0.920, "reference_seeds": len(theirs)}


# --- the preset "robust" -------------------------------------------------------------------------
def _by_preset(name: str, seed: int) -> tuple[float, float, float]:
    """Scores of a plain fit, of the same fit smoothed as the preset does, and of the preset."""
    torch.set_num_threads(1)
    like = next(t for t in tasks() if t.name == name)
    data = load(like.dataset, folder())
    cut = judge.cut(len(data.x))
    label = () if like.mode == "time" else (data.label[cut[0]],)

    def fitted(preset: str) -> Run:
        settings = {**like.parameters, "preset": preset}
        run: Run = estimator("grevy", seed, "cpu", settings).fit(data.x[cut[0]], *label).run_
        return run

    def score(run: Run) -> float:
        parts = [
            judge.Part(
                p.start, p.stop,
                embed(run, make_recording(data.x[p], rate_hz=1.0)).values.astype(np.float64),
            )
            for p in cut
        ]  # fmt: skip
        return judge.decode(*parts, data.target, data.measure)[0]

    plain, robust = fitted("plain"), fitted("robust")
    smooth = replace(plain, config=replace(plain.config, smoothing=robust.config.smoothing))
    return score(plain), score(smooth), score(robust)


def robust(name: str, n: int, jobs: int) -> Row:
    """Decoding with the preset "robust", and what of its gain smoothing alone would give.

    Differences are between fits of the same seeds: of the preset and plain fits, and of the preset
    and plain fits that are smoothed alike.
    """
    found = np.array(Parallel(jobs)(delayed(_by_preset)(name, 20 + s) for s in range(n)))
    plain, smooth, ours = found.T.tolist()
    measure, theirs = _decoding(kept("cebra")[name])
    sign = -1 if judge.better_small(measure) else 1
    gain, gain_ci = mean_ci((sign * (found[:, 2] - found[:, 0])).tolist())
    trained, trained_ci = mean_ci((sign * (found[:, 2] - found[:, 1])).tolist())
    row = beside(ours, theirs, small=judge.better_small(measure))
    return {
        **row, "plain": plain, "smoothed": smooth, "robust": ours, "gain": gain,
        "gain_ci": gain_ci, "trained": trained, "trained_ci": trained_ci,
        "must": None, "passed": None, "verdict": word(gain_ci), "unit": measure,
    }  # fmt: skip


# --- plain baselines on the same split -----------------------------------------------------------
def baselines(name: str) -> Row:
    """Decoding of one recording from its windows, from as many principal components, by UMAP."""
    torch.set_num_threads(1)
    data = load(name, folder())
    like: Task = next(t for t in tasks() if t.dataset == name)
    found: Row = {}
    for method, parts in _plain(data, like).items():
        value, k = judge.decode(*parts, data.target, data.measure)
        found[method] = {"value": value, "k": k}
    found["smoothed kNN"] = _smoothed(data)
    return {"value": found["raw kNN"]["value"], "each": found, "unit": data.measure,
            "must": None, "passed": None, "ci": None, "seeds": 1}  # fmt: skip


def _windows(data: Dataset, like: Task) -> list[NDArray[np.float32]]:
    """Each part by itself, as the encoders see it: z-scored by the first, edges replicated."""
    field = EncoderSpec(like.parameters["model_architecture"]).field
    cut = judge.cut(len(data.x))
    trained = data.x[cut[0]].astype(np.float64)
    spread = trained.std(axis=0)
    windows = []
    for part in cut:
        z = (data.x[part] - trained.mean(axis=0)) / np.where(spread > 0, spread, 1)
        rows, outputs, _, _ = padded_rows(np.array([[0, len(z)]]), field)
        at = outputs[:, None] + np.arange(len(field))
        windows.append(z[rows[at]].reshape(len(outputs), -1).astype(np.float32))
    return windows


def _plain(data: Dataset, like: Task) -> dict[str, tuple[judge.Part, judge.Part]]:
    """Windows, and what they are reduced to, of each part."""
    cut, windows = judge.cut(len(data.x)), _windows(data, like)
    latents = like.parameters["output_dimension"]
    pca = PCA(min(50, *windows[0].shape), random_state=0).fit(windows[0])
    reduced = [pca.transform(w) for w in windows]
    shown = {"raw kNN": windows, "PCA kNN": [r[:, :latents] for r in reduced]}
    try:
        import umap
    except ImportError:
        print("umap-learn is not installed: no UMAP", flush=True)
        return _as_parts(shown, cut)
    if len(data.x) < MOST_FOR_UMAP:
        some = np.unique(np.linspace(0, len(reduced[0]) - 1, 4000).astype(int))
        model = umap.UMAP(n_components=latents, random_state=0, n_jobs=1).fit(reduced[0][some])
        shown["UMAP kNN"] = [np.asarray(model.transform(r)) for r in reduced]
    return _as_parts(shown, cut)


RIDGES = (1e0, 1e1, 1e2, 1e3, 1e4, 1e5)
"""Penalties that are tried, in windows whose channels have unit variance."""


def without_neighbours(name: str) -> Row:
    """Decoding of one recording by a ridge regression, and by the best constant."""
    torch.set_num_threads(1)
    data = load(name, folder())
    like: Task = next(t for t in tasks() if t.dataset == name)
    found = {"ridge": _ridge(data, like), "constant": {"value": constant(data)}}
    return {"value": found["ridge"]["value"], "each": found, "unit": data.measure,
            "must": None, "passed": None, "ci": None, "seeds": 1}  # fmt: skip


def _ridge(data: Dataset, like: Task) -> Row:
    """A linear map from the windows, its penalty chosen inside training; classes as 0 and 1."""
    first, last = judge.cut(len(data.x))
    train, test = (part.astype(np.float64) for part in _windows(data, like))
    one = judge.Part(first.start, first.stop, train)
    two = judge.Part(last.start, last.stop, test)
    classes = np.unique(data.target) if data.target.dtype.kind in "iu" else None
    y = data.target if classes is None else (data.target[:, None] == classes).astype(np.float64)

    def said(x: Any, z: Any, at: Any, penalty: float) -> NDArray[Any]:
        found = Ridge(penalty).fit(x, z).predict(at).reshape(len(at), -1)
        return found if classes is None else classes[found.argmax(axis=1)]

    x, z, truth = one.inner, y[one.used], data.target[one.used]
    fit, choose = judge.cut(len(x))
    sign = -1 if judge.better_small(data.measure) else 1

    def inside(penalty: float) -> float:
        guess = said(x[fit], z[fit], x[choose], penalty)
        return sign * judge.score(data.measure, truth[choose], guess)

    best = max(RIDGES, key=inside)
    value = judge.score(data.measure, data.target[two.used], said(x, z, two.inner, best))
    return {"value": value, "penalty": best}


def constant(data: Dataset) -> float:
    """The best guess without data: the median or mean of training, or its commonest class."""
    first, last = judge.cut(len(data.x))
    one, two = (judge.Part(p.start, p.stop, np.empty((0, 1))).used for p in (first, last))
    known, truth = data.target[one], data.target[two]
    if known.dtype.kind in "iu":
        guess: Any = np.bincount(known).argmax()
    else:
        middle = np.median if judge.better_small(data.measure) else np.mean
        guess = middle(known, axis=0)
    return judge.score(data.measure, truth, np.broadcast_to(guess, truth.shape))


def _as_parts(
    shown: Mapping[str, Sequence[NDArray[Any]]], cut: tuple[slice, slice]
) -> dict[str, tuple[judge.Part, judge.Part]]:
    return {
        method: (
            judge.Part(cut[0].start, cut[0].stop, np.asarray(a, dtype=np.float64)),
            judge.Part(cut[1].start, cut[1].stop, np.asarray(b, dtype=np.float64)),
        )
        for method, (a, b) in shown.items()
    }


def _smoothed(data: Dataset) -> Row:
    """Neighbours of channels that were smoothed by a Gaussian, its width chosen inside training."""
    first, last = judge.cut(len(data.x))
    sign = -1 if judge.better_small(data.measure) else 1
    x = data.x.astype(np.float64)

    def part(a: int, b: int, width: float) -> judge.Part:
        return judge.Part(a, b, gaussian_filter1d(x[a:b], width, axis=0))

    fit, choose = judge.cut(first.stop)
    tried = {
        width: judge.decode(
            part(fit.start, fit.stop, width), part(choose.start, choose.stop, width), data.target,
            data.measure,
        )[0]
        for width in WIDTHS
    }  # fmt: skip
    best = max(tried, key=lambda width: sign * tried[width])
    both = (part(first.start, first.stop, best), part(last.start, last.stop, best))
    value, k = judge.decode(*both, data.target, data.measure)
    return {"value": value, "k": k, "width": best}


# --- shapes that are known -----------------------------------------------------------------------
def _barcode(recording: Recording, seed: int, latents: int, dimension: int, steps: int) -> Any:
    """Of the held-out fifth of a recording, by an encoder that had time alone to go by."""
    torch.set_num_threads(1)
    n = int(0.8 * recording.n_samples)
    config = TrainConfig(
        TimePairs((10,)), EncoderSpec("offset10-model", 32, latents), learning_rate=1e-3,
        n_steps=steps, seed=seed, train_on=((0, n),),
    )  # fmt: skip
    run = train([recording], [config], device="cpu")[0]
    z = embed(run, recording, spans=np.array([[n + 40, recording.n_samples]]), pad=False).values
    return persistence(z, n_points=200, max_dimension=dimension)


def ring(n: int, jobs: int) -> Row:
    """A simulated ring of 30 cells: one loop, more so than in surrogates of it."""
    recording = synthetic.ring(16_000, 30)
    many = [recording, *(surrogate(recording, seed=s, apart=200) for s in range(n))]
    found = Parallel(jobs)(delayed(_barcode)(r, s, 3, 1, 500) for s, r in enumerate(many))
    test = ring_test(found[0], found[1:])
    return {
        "value": test.ratio, "ci": [test.null_low, test.null_high], "must": "ring",
        "verdict": test.verdict, "p": test.p, "betti": test.betti, "seeds": n,
        "passed": test.verdict == "ring" and test.betti[:2] == (1, 1), "unit": "longest / second",
    }  # fmt: skip


def torus(n: int, jobs: int) -> Row:
    """A simulated torus: one part, two loops and one void, and no such gap in surrogates.

    Its held-out fifth is long enough to visit all of it: with 6,400 samples the true angles
    themselves leave holes that live half as long as its loops.
    """
    recording = synthetic.torus(128_000, 100)
    many = [recording, *(surrogate(recording, seed=s, apart=300) for s in range(n))]
    found = Parallel(jobs)(delayed(_barcode)(r, s, 6, 2, 2000) for s, r in enumerate(many))
    betti = ring_test(found[0], found[1:]).betti
    return {
        "value": float(betti[1]), "ci": None, "must": "1, 2, 1", "betti": betti, "seeds": n,
        "passed": betti == (1, 2, 1), "unit": "loops",
    }  # fmt: skip


# --- negative controls ---------------------------------------------------------------------------
def movie_one(data: Path) -> tuple[Recording, NDArray[np.str_]]:
    """Neuropixels, natural movie one: 20 repeats of 30 bins of a second; regions of the units."""
    file = loadmat(data / "allen-npx-movie" / "prep_data_791319847.mat")
    act = file["act"].transpose(1, 2, 0)  # (repeats, bins, units)
    n_repeats, n_bins, n_units = act.shape
    times = np.arange(n_repeats * n_bins, dtype=np.float64)
    seconds = np.tile(np.arange(n_bins), n_repeats)
    table = table_from_intervals(times - 0.5, times + 0.5, ["movie"] * len(times), seconds)
    epochs = np.arange(n_repeats)[:, None] * n_bins + [0, n_bins]
    recording = make_recording(
        act.reshape(-1, n_units).astype(np.float32), times, epochs=epochs,
        stimulus=align(times, table),
    )  # fmt: skip
    return recording, np.array([str(r[0]) for r in file["unit_regs"].ravel()])


def movie_one_in(name: str) -> Recording:
    """Natural movie one as one region saw it."""
    recording, regions = movie_one(folder())
    kept_units = np.flatnonzero(regions == name)
    return replace(
        recording,
        activity=np.ascontiguousarray(recording.activity[:, kept_units]),
        channels=tuple(recording.channels[i] for i in kept_units),
    )


def region(name: str, n: int) -> Row:
    """Seconds of natural movie one from one region, encoder and decoder fitted in each fold."""
    row = _frames(movie_one_in(name), n)
    above = row["ci"][0] > row["chance"]
    must = "above chance" if name == "VISp" else "not above chance"
    return {**row, "must": must, "passed": above == (name == "VISp")}


MOVIE = TrainConfig(
    TimePairs((1,)), EncoderSpec("offset1-model", 32, 8), learning_rate=1e-3, n_steps=500,
    batch_size=256,
)  # fmt: skip
"""Encoders that have time alone, of samples of a second."""


def _decoded_frames(recording: Recording, config: TrainConfig) -> tuple[Problem, Predicted]:
    """Seconds decoded from five folds of repeats, encoders trained in each."""
    assert recording.stimulus is not None
    torch.set_num_threads(1)
    problem = frame_problem(recording)
    plan = repeat_plan(recording.stimulus, recording.epochs, n_folds=5, seed=0, guard=0)
    spans = [training_spans(plan, recording.epochs, f) for f in range(plan.n_folds)]
    runs = train([recording], [with_spans(config, s) for s in spans], device="cpu")
    features = [features_of(recording, plan.spans, s, r) for s, r in zip(spans, runs, strict=True)]
    return problem, decode_folds([problem], plan, recording.epochs, lambda f: features[f])[0]


def unseen(n: int, jobs: int) -> Row:
    """The preset on a recording that nothing of it was chosen on: movie one in visual cortex.

    Accuracy within a second, of plain encoders, with the preset, and with what of it is training
    (its smoothing is four samples wide, which are four seconds here). With the preset also where
    nothing can be found.
    """
    recording, robust = movie_one_in("VISp"), MOVIE.with_preset("robust")
    nothing = {"CA1": movie_one_in("CA1"), "seconds shuffled in every repeat": _mixed(recording)}
    kinds = {"plain": MOVIE, "trained": replace(robust, smoothing=0.0), "robust": robust}

    def one(config: TrainConfig, seen: Recording = recording) -> float:
        rows = scores(*_decoded_frames(seen, config))
        return next(r.value for r in rows if (r.method, r.metric) == (EMBEDDING, "accuracy"))

    asked = [replace(c, seed=seed) for c in kinds.values() for seed in range(n)]
    found = np.reshape(Parallel(jobs)(delayed(one)(c) for c in asked), (len(kinds), n))
    each = dict(zip(kinds, found.tolist(), strict=True))
    controls = Parallel(jobs)(
        delayed(one)(replace(robust, seed=seed), r) for r in nothing.values() for seed in range(n)
    )
    value, ci = mean_ci(each["robust"])
    gain, gain_ci = mean_ci((found[2] - found[0]).tolist())
    trained, trained_ci = mean_ci((found[1] - found[0]).tolist())
    return {
        "value": value, "ci": ci, "must": None, "passed": None, "seeds": n, "unit": "accuracy",
        "each": each, "gain": gain, "gain_ci": gain_ci, "trained": trained,
        "trained_ci": trained_ci, "verdict": word(gain_ci),
        "controls": dict(zip(nothing, np.reshape(controls, (-1, n)).tolist(), strict=True)),
    }  # fmt: skip


def _mixed(recording: Recording) -> Recording:
    """The same samples, those of every epoch in an order of their own: no second can be told."""
    rng, mixed = np.random.default_rng(0), recording.activity.copy()
    for a, b in recording.epochs:
        mixed[a:b] = rng.permutation(mixed[a:b])
    return replace(recording, activity=mixed)


def _frames(recording: Recording, n: int) -> Row:
    """Accuracy within a second by encoders that have time alone, mean over seeds."""
    values: list[tuple[float, ...]] = []
    gaps: dict[str, list[tuple[float, ...]]] = {}
    for seed in range(n):
        problem, found = _decoded_frames(recording, replace(MOVIE, seed=seed))
        row = next(
            r for r in scores(problem, found) if (r.method, r.metric) == (EMBEDDING, "accuracy")
        )
        values.append((row.value, row.low, row.high, row.chance))
        for d in differences(problem, found):
            if d.metric == "accuracy":
                gaps.setdefault(d.baseline, []).append((d.value, d.low, d.high))
    value, low, high, chance = np.mean(values, axis=0).tolist()
    return {
        "value": value, "ci": [low, high], "chance": chance, "unit": "accuracy", "seeds": n,
        "gaps": {method: np.mean(each, axis=0).tolist() for method, each in gaps.items()},
    }  # fmt: skip


def _noise_with_frames(seed: int) -> Recording:
    """Noise that remembers itself, ten repeats of a movie that it knows nothing of; its frames."""
    n_repeats, length = 10, 120
    rng, keep = np.random.default_rng(seed), np.exp(-1 / 20)
    x = lfilter([1], [1, -keep], rng.standard_normal((n_repeats * length, 30)), axis=0)
    at = np.arange(len(x)) / 30.0
    frames = np.tile(np.arange(length), n_repeats)
    table = table_from_intervals(at - 1 / 60, at + 1 / 60, ["movie"] * len(at), frames)
    label = Label(frames.astype(np.float64), "continuous")
    recording = make_recording(x.astype(np.float32), rate_hz=30.0, labels={"frame": label})
    return replace(recording, stimulus=align(recording.times_s, table))


def _fold_scores(
    recording: Recording, config: TrainConfig, plan: Plan, spans: Sequence[Spans], *, hide: bool
) -> float:
    """R2 of frames from encoders that were trained on these spans; `hide` hides where that was."""
    inside = [training_spans(plan, recording.epochs, f) for f in range(plan.n_folds)]
    runs = train([recording], [with_spans(config, s) for s in spans], device="cpu")
    features = [
        features_of(recording, plan.spans, s, r, baselines=False)
        for s, r in zip(inside, runs, strict=True)
    ]
    if hide:
        features = [replace(f, seen=np.empty((0, 2), dtype=np.int64)) for f in features]
    problem = frame_problem(recording)
    found = decode_folds([problem], plan, recording.epochs, lambda f: features[f])[0]
    rows = scores(problem, found)
    return next(r.value for r in rows if (r.method, r.metric) == (EMBEDDING, "r2"))


def leaks(n: int, jobs: int) -> Row:
    """Label-guided encoders of noise that saw what they are tested on: refused, always.

    In two ways: fitted on all repeats, and on one repeat more than the fold may. Beside it what
    the first would have scored, had it not been refused, and encoders fitted inside the folds.
    """
    torch.set_num_threads(1)
    config = TrainConfig(
        DeltaPairs(("frame",), 10), EncoderSpec("offset10-model", 32, 8), learning_rate=1e-3,
        n_steps=300,
    )  # fmt: skip
    escaped, leaky, honest = 0, [], []
    for seed in range(n):
        recording = _noise_with_frames(seed)
        assert recording.stimulus is not None
        plan = repeat_plan(
            recording.stimulus, recording.epochs, n_folds=5, seed=0, guard=20, set_aside=False
        )
        inside = [training_spans(plan, recording.epochs, f) for f in range(plan.n_folds)]
        tested = [np.flatnonzero(np.diff(np.r_[0, t.view(np.int8), 0]))[:2] for t in plan.tested]
        more = [np.concatenate([s, [t]]) for s, t in zip(inside, tested, strict=True)]
        whole = [recording.epochs] * plan.n_folds
        for spans in (whole, more):
            try:
                _fold_scores(recording, config, plan, spans, hide=False)
                escaped += 1
            except ConfigError:
                pass
        leaky.append(_fold_scores(recording, config, plan, whole, hide=True))
        honest.append(_fold_scores(recording, config, plan, inside, hide=False))
    return {
        "value": escaped / (2 * n), "ci": None, "must": "0: refused, always", "seeds": n,
        "passed": escaped == 0, "unit": "share not refused", "r2_of_noise_leaky": leaky,
        "r2_of_noise_honest": honest,
    }  # fmt: skip


# --- time ----------------------------------------------------------------------------------------
FOLDS, STIMULI, SAMPLES = 10, 12, 127_177
"""What a session of full size has: folds, stimuli that can be decoded, samples (DANDI 000036)."""


def full_session() -> synthetic.SimulatedSession:
    """A session on which a run with default settings has that many folds and stimuli.

    Of the default session, 11 movies can be decoded ("noise" never repeats), and of its 10 repeats
    2 are set aside for choosing. So: a twelfth movie, 12 repeats, and movies so much shorter (685
    frames) that there are as many samples as in the real session, and no fewer.
    """
    movies = {**STRENGTHS, "snake_temporal_phase_scramble": 0.15}
    return synthetic.openscope(seed=0, movies=movies, n_repeats=12, n_frames=685)


def whole_session(device: str) -> Row:
    """A simulated session of the size of DANDI 000036, file to report."""
    from grevy import nwb, run

    with tempfile.TemporaryDirectory() as place:
        file, out = Path(place) / "session.nwb", Path(place) / "out"
        session = full_session()
        nwb.write_openscope(file, session)
        begin = time.perf_counter()
        preset = {} if device == "cuda" else {"steps": 500}
        run(file, out, quiet=True, nulls=999, device=device, **preset)
        seconds = time.perf_counter() - begin
        results = json.loads((out / "results.json").read_text())
    frames = [s for s in results["results"]["scores"] if s["target"] == "frame"]
    stimuli = len({s["stimulus"] for s in frames})
    folds = max(s["n_repeats"] for s in frames)
    must = 120 if device == "cuda" else 900
    where = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} cores"
    return {
        "value": seconds, "ci": None, "must": f"under {must} s", "seeds": 1, "unit": "s",
        "passed": seconds < must and (folds, stimuli) == (FOLDS, STIMULI),
        "device": where, "settings": preset, "samples": len(session.activity), "folds": folds,
        "stimuli": stimuli,
    }  # fmt: skip


OTHERS = ("worm 0, discrete", "worm 1, discrete", "worm 2, discrete", "m1, behavior")
RECORDED: dict[str, tuple[int, Callable[[int, int], Row]]] = {
    # name: how many seeds (or nulls), the work
    "leaks": (3, leaks),
    **{f"decoding, {r}": (5, lambda n, jobs, r=r: rat(r)) for r in RATS},
    "decoding, four rats": (5, lambda n, jobs: rats()),
    "decoding, over rats": (5, lambda n, jobs: over_rats()),
    **{f"decoding, {t}": (5, lambda n, jobs, t=t: task(t)) for t in OTHERS},
    **{
        f"baselines, {d}": (1, lambda n, jobs, d=d: baselines(d))
        for d in (*RATS, "worm 0", "worm 1", "worm 2", "m1")
    },
    **{
        f"baselines without neighbours, {d}": (1, lambda n, jobs, d=d: without_neighbours(d))
        for d in (*RATS, "worm 0", "worm 1", "worm 2", "m1")
    },
    **{
        f"robust, {t}": (3, lambda n, jobs, t=t: robust(t, n, jobs))
        for t in (*(f"{r}, {m}" for r in RATS for m in ("behavior", "time")), *OTHERS)
    },
    "consistency, four rats": (5, lambda n, jobs: consistency_of_rats()),
    "consistency, over rats": (3, consistency_over_rats),
    "consistency, labels shuffled": (5, lambda n, jobs: relabelled_consistency(n, jobs, shuffled)),
    "consistency, labels moved": (5, lambda n, jobs: relabelled_consistency(n, jobs, moved)),
    "synthetic, flow": (20, flow),
    "synthetic, ring": (19, ring),
    "synthetic, torus": (5, torus),
    "movie one, VISp": (5, lambda n, jobs: region("VISp", n)),
    "movie one, CA1": (5, lambda n, jobs: region("CA1", n)),
    "preset, movie one, VISp": (5, unseen),
    "session of full size, cpu": (1, lambda n, jobs: whole_session("cpu")),
    "session of full size, gpu": (1, lambda n, jobs: whole_session("cuda")),
}
