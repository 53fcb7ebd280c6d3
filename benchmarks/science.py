"""Do the statistics hold what they promise, and what do embeddings tell held out?

    python benchmarks/science.py [--only level_content ...] [--jobs 2] [--scale 1.0] [--json FILE]
                                 [--rerun-reference]

Simulated sessions of which the truth is known are decoded directly, without an encoder (but for the
row "trained"): what is tested are nulls and intervals. Real recordings and simulated ones of known
latents are in science_recordings.py and need GREVY_DATA. `results_page.py` writes docs/results.md.
Activity is noise that remembers itself for 20 samples, on a slow random walk; movies of 60 frames
come in random order, ten times each. `--scale 0.1` takes a tenth of the sessions. A row says what
was found, its 95 % interval (Clopper & Pearson 1934 for shares), what that is over, and what it
must be. What CEBRA reaches is kept; --rerun-reference fits CEBRA anew first, as parity.py does.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from numpy.typing import NDArray
from scipy import stats
from scipy.ndimage import gaussian_filter1d
from scipy.signal import lfilter

from grevy.config import TrainConfig
from grevy.encoders import EncoderSpec
from grevy.evaluate import (
    CONSTANT,
    EMBEDDING,
    LINEAR,
    Features,
    decode_folds,
    features_of,
    frame_problem,
    label_problem,
)
from grevy.nulls import content, identity, label_blocks, q_values, time_locked
from grevy.pairs import TimePairs
from grevy.recording import Label, Recording, make_recording
from grevy.scoring import differences, scores
from grevy.search import with_spans
from grevy.splits import block_plan, repeat_plan, training_spans
from grevy.stimulus import align, table_from_intervals
from grevy.training import train
from science_recordings import RECORDED, over

Row = dict[str, Any]
RATE, FRAMES, GAP, DIMS = 30.0, 60, 15, 8


def session(
    seed: int,
    *,
    movies: int = 4,
    onset: float = 0.0,
    strength: Sequence[float] = (),
    truth: int | None = None,
    drift: float = 1.0,
    whole: bool = False,
) -> Recording:
    """A session; `truth` seeds what belongs to the session and not to its noise.

    That is the order of movies, drawn cycle by cycle or as a whole, the slow drift, and what the
    movies evoke; by default they are seeded as the noise is.
    """
    rng = np.random.default_rng(seed)
    own = rng if truth is None else np.random.default_rng([2, truth])
    order = np.concatenate([own.permutation(movies) for _ in range(10)])
    order = own.permutation(order) if whole else order
    n = len(order) * (FRAMES + GAP) + GAP
    keep = np.exp(-1 / 20)
    x = lfilter([1], [1, -keep], rng.standard_normal((n, DIMS)) * np.sqrt(1 - keep**2), axis=0)
    x += drift * 3 * np.cumsum(own.standard_normal((n, DIMS)), axis=0) / np.sqrt(n)
    evoked = np.random.default_rng([1, seed if truth is None else truth])
    ways = gaussian_filter1d(evoked.standard_normal((movies, FRAMES, DIMS)), 5, axis=1)
    ways /= ways.std()
    common = evoked.standard_normal(DIMS) * np.exp(-np.arange(FRAMES) / 10)[:, None]
    begins = GAP + (FRAMES + GAP) * np.arange(len(order))
    for begin, m in zip(begins, order, strict=True):
        x[begin : begin + FRAMES] += onset * common
        x[begin : begin + FRAMES] += (strength[m] if len(strength) else 0.0) * ways[m]
    at = (begins[:, None] + np.arange(FRAMES)).ravel() / RATE
    names = [f"movie {m:02d}" for m in np.repeat(order, FRAMES)]
    frames = np.tile(np.arange(FRAMES), len(order)).tolist()
    table = table_from_intervals(at - 0.5 / RATE, at + 0.5 / RATE, names, frames)
    recording = make_recording(x.astype(np.float32), rate_hz=RATE)
    return replace(recording, stimulus=align(recording.times_s, table))


def prepared(recording: Recording) -> tuple[Any, ...]:
    assert recording.stimulus is not None
    torch.set_num_threads(1)
    problem = frame_problem(recording)
    plan = repeat_plan(recording.stimulus, recording.epochs, n_folds=10, seed=0, guard=10)
    rows = np.concatenate([np.arange(a, b) for a, b in plan.spans])
    f = Features({EMBEDDING: recording.activity[rows]}, rows)
    return problem, plan, recording.epochs, [f] * plan.n_folds


def lengths_of(recording: Recording, problem: Any) -> list[float]:
    track = recording.stimulus
    assert track is not None
    return [track.duration_s[track.names.index(name)] for name in problem.names]


# --- levels --------------------------------------------------------------------------------------
def one_time_locked(seed: int) -> float:
    recording = session(seed)
    problem, plan, epochs, features = prepared(recording)
    one = replace(problem, names=problem.names[:1])
    return time_locked(one, plan, epochs, features, n=199, seed=seed)[0].p


def one_content(seed: int, *, whole: bool = False) -> float:
    recording = session(seed, onset=3.0, whole=whole)
    problem, *rest = prepared(recording)
    found = content(problem, *rest, lengths_of(recording, problem), n=199, seed=seed)
    return found[0].p


def one_identity(seed: int, *, whole: bool = False) -> float:
    recording = session(seed, onset=3.0, whole=whole)
    problem, *rest = prepared(recording)
    found = identity(problem, *rest, lengths_of(recording, problem), n=199, seed=seed)
    assert found is not None
    return found.p


def one_label(seed: int) -> float:
    """A label and a population that know nothing of each other, both with memory; slow drift."""
    rng = np.random.default_rng(seed)
    torch.set_num_threads(1)
    n, keep = 3000, np.exp(-1 / 20)
    x = lfilter([1], [1, -keep], rng.standard_normal((n, DIMS)) * np.sqrt(1 - keep**2), axis=0)
    x += 3 * np.cumsum(rng.standard_normal((n, DIMS)), axis=0) / np.sqrt(n)
    label = Label(lfilter([1], [1, -keep], rng.standard_normal(n)), "continuous")
    recording = make_recording(x.astype(np.float32), rate_hz=RATE, labels={"y": label})
    problem = label_problem("y", label)
    plan = block_plan(label.mask, recording.epochs, n_folds=10, seed=0, guard=40)
    f = Features({EMBEDDING: recording.activity}, np.arange(n))
    return label_blocks(problem, plan, recording.epochs, [f] * 10, n=199, seed=seed).p


def one_time_locked_trained(seed: int) -> float:
    """The same with encoders that were trained in every fold, on time alone."""
    recording = session(seed, movies=2)
    problem, plan, epochs, _ = prepared(recording)
    config = TrainConfig(
        TimePairs((10,)), EncoderSpec("offset10-model", 32, 8), learning_rate=1e-3, n_steps=200,
        batch_size=256, seed=seed,
    )  # fmt: skip
    spans = [training_spans(plan, epochs, fold) for fold in range(plan.n_folds)]
    runs = train([recording], [with_spans(config, s) for s in spans])
    features = [
        features_of(recording, plan.spans, s, r, baselines=False)
        for s, r in zip(spans, runs, strict=True)
    ]
    one = replace(problem, names=problem.names[:1])
    return time_locked(one, plan, epochs, features, n=199, seed=seed)[0].p


def level(one: Callable[[int], float], n: int, jobs: int) -> Row:
    p = np.array(Parallel(jobs)(delayed(one)(seed) for seed in range(n)))
    false = int((p <= 0.05).sum())
    low, high = stats.binomtest(false, n).proportion_ci()
    return {
        "value": false / n, "ci": [low, high], "must": [0.035, 0.065], "seeds": n,
        "mean_p": float(p.mean()), "passed": 0.035 <= false / n <= 0.065,
    }  # fmt: skip


# --- intervals and power -------------------------------------------------------------------------
def one_interval(seed: int) -> list[tuple[float, float, float]]:
    recording = session(seed, movies=2, strength=(1.0, 0.5), truth=0, drift=0.3)
    problem, plan, epochs, features = prepared(recording)
    found = decode_folds([problem], plan, epochs, lambda fold: features[fold])[0]
    rows = scores(problem, found)
    return [(r.value, r.low, r.high) for r in rows if r.method == EMBEDDING and r.metric != "r2"]


def coverage(n: int, jobs: int) -> Row:
    """The same movies, order and drift in every session: the truth is the mean over sessions."""
    found = np.array(Parallel(jobs)(delayed(one_interval)(seed) for seed in range(n)))
    truth = found[:, :, 0].mean(axis=0)
    held = (found[:, :, 1] <= truth) & (truth <= found[:, :, 2])
    each = held.mean(axis=0)
    return {
        "value": float(each.mean()), "each": each.tolist(), "seeds": n,
        "ci": [float(each.min()), float(each.max())],  # of the scores, lowest and highest
        "must": [0.92, 0.98], "passed": bool((each >= 0.92).all() and (each <= 0.98).all()),
    }  # fmt: skip


def one_of_everything(seed: int) -> dict[str, tuple[float, float, float]]:
    """Every score that a run would print, and every difference, with their intervals."""
    recording = session(seed, movies=2, strength=(1.0, 0.5), truth=0, drift=0.3)
    problem, plan, epochs, (f, *_) = prepared(recording)
    both = replace(f, values={**f.values, LINEAR: f.values[EMBEDDING]})
    found = decode_folds([problem], plan, epochs, lambda _: both)[0]
    rows = {
        f"{r.stimulus}, {r.metric}, {r.method}": (r.value, r.low, r.high)
        for r in scores(problem, found)
        if r.method != CONSTANT
    }
    return rows | {
        f"{d.stimulus}, {d.metric}, {EMBEDDING} - {d.baseline}": (d.value, d.low, d.high)
        for d in differences(problem, found)
    }


def coverage_of_everything(n: int, jobs: int) -> Row:
    """As `coverage`, of R2, of a linear decoder's scores and of paired differences, too."""
    each = Parallel(jobs)(delayed(one_of_everything)(seed) for seed in range(n))
    shares = {}
    for name in each[0]:
        value, low, high = np.array([e[name] for e in each]).T
        shares[name] = float(((low <= value.mean()) & (value.mean() <= high)).mean())
    held = np.array(list(shares.values()))
    return {
        "value": float(held.mean()), "each": shares, "seeds": n,
        "ci": [float(held.min()), float(held.max())], "must": [0.92, 0.98],
        "passed": bool((held >= 0.92).all() and (held <= 0.98).all()),
    }  # fmt: skip


# In units of the noise that remembers itself. At 2.2 the error is a sixth of chance; half of the
# faint ones cannot be told from none, and no score could order them.
STRENGTHS, FAINT = np.linspace(0, 2.2, 12), np.linspace(0, 1.1, 12)


def one_power(seed: int, strengths: NDArray[np.float64]) -> tuple[list[float], float]:
    rng = np.random.default_rng([2, seed])
    mine = rng.permutation(strengths)
    recording = session(seed, movies=12, strength=mine)
    problem, plan, epochs, features = prepared(recording)
    found = time_locked(problem, plan, epochs, features, n=299, seed=seed)
    q = q_values([t.p for t in found])
    strength = mine[[int(t.stimulus.split()[1]) for t in found]]
    order = stats.spearmanr(strength, [-t.observed for t in found]).statistic
    return [float(q[np.argmin(np.abs(strength - s))]) for s in strengths], float(order)


def power(n: int, jobs: int, strengths: NDArray[np.float64], must: float | None) -> Row:
    found = Parallel(jobs)(delayed(one_power)(seed, strengths) for seed in range(n))
    q, order = np.array([f[0] for f in found]), np.array([f[1] for f in found])
    share = (q < 0.05).mean(axis=0)
    half = stats.t.ppf(0.975, n - 1) * order.std(ddof=1) / np.sqrt(n)
    return {
        "value": float(order.mean()), "ci": [order.mean() - half, order.mean() + half],
        "must": must, "seeds": n, "share_by_strength": share.tolist(),
        "strengths": strengths.tolist(),
        "passed": None if must is None else bool(
            order.mean() >= must and stats.spearmanr(strengths, share)[0] > 0.9
        ),
    }  # fmt: skip


ROWS: dict[str, tuple[int, Callable[[int, int], Row]]] = {
    "level_time_locked": (1000, lambda n, jobs: level(one_time_locked, n, jobs)),
    "level_content": (1000, lambda n, jobs: level(one_content, n, jobs)),
    "level_identity": (1000, lambda n, jobs: level(one_identity, n, jobs)),
    "level_content, whole order": (
        1000,
        lambda n, jobs: level(partial(one_content, whole=True), n, jobs),
    ),
    "level_identity, whole order": (
        1000,
        lambda n, jobs: level(partial(one_identity, whole=True), n, jobs),
    ),
    "level_label": (1000, lambda n, jobs: level(one_label, n, jobs)),
    "level_time_locked, trained": (400, lambda n, jobs: level(one_time_locked_trained, n, jobs)),
    "coverage": (500, coverage),
    "coverage, everything": (500, coverage_of_everything),
    "power": (20, lambda n, jobs: power(n, jobs, STRENGTHS, 0.9)),
    "power, faint": (20, lambda n, jobs: power(n, jobs, FAINT, None)),
    **RECORDED,
}


def rerun_reference(jobs: int) -> list[list[str]]:
    """The commands that fit CEBRA anew: parity.py's, and its embeddings smoothed."""
    here, again = Path(__file__).parent, "--rerun-reference"
    return [
        [str(here / "parity.py"), again, "--reference-only", "--workers", str(jobs)],
        [str(here / "smoothed_reference.py"), again],
    ]


def merge(path: Path, row: Row) -> None:
    """Write a row into a file of rows, in place of an older one of its name."""
    rows = json.loads(path.read_text()) if path.exists() else []
    kept = [r for r in rows if r["row"] != row["row"]]
    path.write_text(json.dumps([*kept, row], indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=ROWS, default=None)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rerun-reference", action="store_true", help="fit CEBRA anew first")
    options = parser.parse_args()
    for command in rerun_reference(options.jobs) if options.rerun_reference else ():
        subprocess.run([sys.executable, *command], check=True)
    for name, (n, work) in ROWS.items():
        if name not in (options.only or ROWS):
            continue
        if name.endswith(", gpu") and not torch.cuda.is_available():
            print(f"{name:28s} no CUDA device: not run", flush=True)
            continue
        begin = time.perf_counter()
        row = {"row": name, **work(max(2, round(options.scale * n)), options.jobs)}
        row = {
            "reference": None,
            **row,
            "ci_over": over(name, row),
            "date": datetime.now(UTC).date().isoformat(),
        }
        between = f"({row['ci'][0]:.3f} to {row['ci'][1]:.3f})" if row["ci"] else ""
        verdict = {True: "holds", False: "FAILS", None: ""}[row["passed"]]
        print(
            f"{name:28s} {row['value']:.3f} {between}  must {row['must']}  {verdict}  "
            f"{time.perf_counter() - begin:.0f} s",
            flush=True,
        )
        if options.json:
            merge(options.json, row)


if __name__ == "__main__":
    main()
