"""Scores, their intervals by the jackknife, and differences between decoders."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from grevy.decode import Target, error
from grevy.evaluate import (
    EMBEDDING,
    RAW,
    Features,
    Predicted,
    Problem,
    decode_folds,
    frame_problem,
    label_problem,
)
from grevy.recording import Label
from grevy.scoring import Jackknife, differences, every_score, scores
from grevy.splits import block_plan, repeat_plan
from test_evaluate import _features, recording_of
from test_splits import session


def test_of_independent_repeats_the_interval_is_students() -> None:
    """The jackknife of a mean is its standard error."""
    each = np.array([1.0, 2.0, 3.0, 6.0, 2.5])
    without = np.array([np.delete(each, i).mean() for i in range(5)])
    value, low, high = Jackknife(float(each.mean()), without).interval()
    half = stats.t.ppf(0.975, 4) * each.std(ddof=1) / np.sqrt(5)
    assert (value, low, high) == pytest.approx((2.9, 2.9 - half, 2.9 + half))
    assert np.isnan(Jackknife(1.0, without[:2]).interval()[1:]).all()


def _predicted(problem: Problem, better: float, worse: float) -> Predicted:
    rng = np.random.default_rng(0)
    n = len(problem.subset)
    truth = np.asarray(problem.target.values, dtype=np.float64)
    values = {
        EMBEDDING: truth + better * rng.standard_normal(truth.shape),
        RAW: truth + worse * rng.standard_normal(truth.shape),
    }
    group = np.arange(n) * 8 // n
    constants = (np.full_like(truth, truth.mean()), np.full_like(truth, np.median(truth)))
    return Predicted(np.arange(n), group, np.zeros(n, np.int64), values, constants)


@pytest.mark.parametrize(
    ("better", "worse", "verdict"), [(0.1, 0.5, "embedding"), (0.5, 0.1, "baseline")]
)
def test_differences_say_who_is_better(better: float, worse: float, verdict: str) -> None:
    y = np.random.default_rng(1).standard_normal((800, 1))
    problem = Problem("x", Target(y, np.zeros(1)), np.zeros(800, np.int64), ("",), "m", (0.2,))
    found = differences(problem, _predicted(problem, better, worse))
    rows = [r for r in found if r.baseline == RAW]
    assert {r.better for r in found if r.baseline == "constant"} == {"embedding"}
    assert {r.metric for r in rows} == {"r2", "rank correlation", "median error", "accuracy"}
    assert {r.better for r in rows} == {verdict}
    same = [r for r in differences(problem, _predicted(problem, 0.3, 0.3)) if r.baseline == RAW]
    assert sum(r.better == "undecided" for r in same) >= 2


def test_rank_correlation_is_spearmans_in_every_repeat() -> None:
    rng = np.random.default_rng(1)
    y = np.round(rng.standard_normal((800, 2)), 1)  # with ties
    problem = Problem("x", Target(y, np.zeros(2)), np.zeros(800, np.int64), ("",), "m", (0.2,))
    p = _predicted(problem, 0.5, 0.9)
    rows = {r.method: r for r in scores(problem, p) if r.metric == "rank correlation"}
    each = [
        stats.spearmanr(y[p.group == g, j], p.values[RAW][p.group == g, j]).statistic
        for g in range(8) for j in range(2)
    ]  # fmt: skip
    assert rows[RAW].value == pytest.approx(np.mean(each))
    assert rows["constant"].value == rows[RAW].chance == 0
    still = replace(problem, target=Target(np.ones((800, 2)), np.zeros(2)))
    row = next(r for r in scores(still, _predicted(still, 1, 1)) if r.metric == "rank correlation")
    assert np.isnan(row.value)


def test_pooled_r2_is_the_score_and_chance_is_the_mean() -> None:
    y = np.random.default_rng(1).standard_normal((800, 1))
    problem = Problem("x", Target(y, np.zeros(1)), np.zeros(800, np.int64), ("",), "m", (0.2,))
    p = _predicted(problem, 0.3, 0.5)
    row = next(r for r in scores(problem, p) if r.metric == "r2" and r.method == EMBEDDING)
    said = p.values[EMBEDDING]
    assert row.value == pytest.approx(1 - ((y - said) ** 2).sum() / ((y - y.mean()) ** 2).sum())
    assert row.chance == pytest.approx(0.0, abs=1e-9)
    assert row.low < row.value < row.high


def test_intervals_are_jackknifed_over_what_is_tested_and_what_is_learnt_from() -> None:
    """Written out once more, repeat by repeat; what is said without one is tested by itself."""
    track = session(7, 1, 24, 6, 0)
    t = len(track.index)
    rng = np.random.default_rng(0)
    angle = track.frame / 24 * np.pi
    known = np.stack([np.cos(angle), np.sin(angle)], 1) + 0.5 * rng.standard_normal((t, 2))
    recording = recording_of(rng.standard_normal((t, 3)), stimulus=track)
    problem = frame_problem(recording)
    features = Features({EMBEDDING: known.astype(np.float32)}, np.arange(t))
    plan = repeat_plan(track, recording.epochs, n_folds=7, seed=0, guard=0)  # two are set aside
    found = decode_folds([problem], plan, recording.epochs, lambda _: features)[0]
    row = next(r for r in scores(problem, found) if r.metric == "median error")
    assert row.n_repeats == 5

    def of(p: Predicted, keep: np.ndarray, values: np.ndarray) -> float:
        far = np.abs(values[keep, 0] - problem.target.values[p.samples[keep], 0])
        groups = p.group[keep]
        return float(np.mean([np.median(far[groups == g]) for g in np.unique(groups)]))

    without = []
    for g in range(7):
        said = found.without[EMBEDDING][g]
        rest = found.group != g
        values = np.where(np.isnan(said), found.values[EMBEDDING], said)
        without.append(of(found, rest, values))
    expected = Jackknife(of(found, found.group >= 0, found.values[EMBEDDING]), np.array(without))
    assert (row.value, row.low, row.high) == pytest.approx(expected.interval())


def _one_score(
    metric: str, problem: Problem, p: Predicted, rows: np.ndarray, said: np.ndarray
) -> float:
    """A score as it is defined, from the rows that are there."""
    far = error(problem.target, p.samples[rows], said[rows])
    y = np.asarray(problem.target.values[p.samples[rows]], dtype=np.float64)
    of = [p.group[rows] == g for g in np.unique(p.group[rows])]
    if metric == "r2":
        return float(1 - np.square(far).sum() / np.square(y - y.mean(axis=0)).sum())
    if metric == "median error":
        return float(np.mean([np.median(far[g]) for g in of]))
    if metric == "accuracy":
        return float(np.mean([np.mean(far[g] <= problem.tolerance[0]) for g in of]))
    each = []
    for g in of:
        columns = [
            0.0 if np.ptp(s) == 0 else float(stats.spearmanr(t, s).statistic)
            for t, s in zip(y[g].T, said[rows][g].T, strict=True)
            if np.ptp(t) > 0
        ]
        each += [float(np.mean(columns))] if columns else []
    return float(np.mean([e for e in each if np.isfinite(e)] or [np.nan]))


@pytest.mark.parametrize("kind", ["a quantity", "two quantities", "a circle", "classes"])
@pytest.mark.parametrize("seed", range(3))
def test_every_score_and_its_jackknife_are_those_written_out(kind: str, seed: int) -> None:
    """Repeats of unequal length, in no order, some never tested; some methods say nothing."""
    rng = np.random.default_rng([seed, len(kind)])
    n, wide = 400, 2 if kind == "two quantities" else 1
    y = np.round(rng.uniform(0, 6, (n, wide)), 1)
    target = Target(y, np.full(wide, 7.0 if kind == "a circle" else 0.0))
    if kind == "classes":
        target = Target(rng.integers(0, 5, (n, 1)), np.zeros(1), 5)
    group = rng.choice(6, n, p=[0.3, 0.3, 0.2, 0.1, 0.09, 0.01])
    y[group == 3] = 2.0  # there is no order in this one
    problem = Problem("x", target, np.zeros(n, np.int64), ("",), "m", (0.4,))

    def said() -> np.ndarray:
        noisy = np.asarray(target.values) + np.round(rng.standard_normal((n, wide)))
        return np.asarray(noisy, dtype=np.float64)

    def left_out() -> dict[int, np.ndarray]:  # repeat 7 is learnt from and never tested
        each = {g: said() for g in (*range(6), 7)}
        for g, values in each.items():
            values[(group == g) | (rng.random(n) < 0.2) | (group == (g + 1) % 6)] = np.nan
        return each

    silent = np.where((group == 2)[:, None], np.nan, said())
    values = {EMBEDDING: said(), RAW: said(), "flat": np.full((n, wide), 3.0), "silent": silent}
    without = {EMBEDDING: left_out(), RAW: {2: said()}, "silent": left_out()}
    constants = tuple(np.full((n, wide), c) for c in (1.0, 2.0, 3.0))
    p = Predicted(np.arange(n), group, np.zeros(n, np.int64), values, constants, without)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # means of nothing
        for scored in every_score(problem, p):
            assert set(scored.each) == {*values, "constant"}
            for method, words in values.items():
                found = scored.each[method]
                keep = np.arange(n)
                whole = _one_score(scored.metric, problem, p, keep, words)
                assert found.value == pytest.approx(whole, abs=1e-12, nan_ok=True)
                repeats = [*range(6), 7]
                assert len(found.without) == len(repeats)
                for g, value in zip(repeats, found.without, strict=True):
                    other = without.get(method, {}).get(g, np.full((n, wide), np.nan))
                    words_then = np.where(np.isnan(other), words, other)
                    expected = _one_score(
                        scored.metric, problem, p, np.flatnonzero(group != g), words_then
                    )
                    assert value == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_folds_that_overlap_have_intervals_as_wide_as_those_that_do_not() -> None:
    """45 pairs of ten repeats are no more data than ten repeats."""
    widths = {1: [], 2: []}  # type: dict[int, list[float]]
    for seed in range(6):
        track = session(10, 1, 24, 6, seed)
        t = len(track.index)
        rng = np.random.default_rng(seed)
        angle = track.frame / 24 * np.pi
        x = np.stack([np.cos(angle), np.sin(angle)], 1) + 0.6 * rng.standard_normal((t, 2))
        recording = recording_of(x, stimulus=track)
        problem = frame_problem(recording)
        for leave_out in (1, 2):
            plan = repeat_plan(
                track, recording.epochs, n_folds=45, seed=0, guard=0, leave_out=leave_out,
                set_aside=False,
            )  # fmt: skip
            found = decode_folds([problem], plan, recording.epochs, lambda _, x=x: _features(x))[0]
            row = next(r for r in scores(problem, found) if r.metric == "median error")
            assert row.n_repeats == 10
            widths[leave_out].append(row.high - row.low)
    assert 0.6 < np.mean(widths[2]) / np.mean(widths[1]) < 1.6


def test_chance_is_the_best_constant_for_each_metric() -> None:
    """Half of the time at one angle, the rest anywhere: the mode wins accuracy, not the mean."""
    rng = np.random.default_rng(0)
    n = 3000
    angle = np.where(rng.random(n) < 0.5, 300.0, rng.uniform(0, 360, n))
    label = Label(angle, "continuous", "deg", 360.0)
    recording = recording_of(rng.standard_normal((n, 3)), labels={"angle": label})
    problem = label_problem("angle", label)
    plan = block_plan(label.mask, recording.epochs, n_folds=5, seed=0, guard=3)
    values = rng.standard_normal((n, 3))
    found = decode_folds([problem], plan, recording.epochs, lambda _: _features(values))[0]
    rows = {s.metric: s for s in scores(problem, found) if s.method == EMBEDDING}
    # Within 18 degrees (5 % of the circle) of 300: half, and a tenth of the rest.
    assert rows["accuracy"].chance == pytest.approx(0.55, abs=0.05)
    assert rows["accuracy"].value <= rows["accuracy"].chance + 0.02
    assert rows["median error"].chance < 18
    skewed = Label(rng.exponential(1.0, n), "continuous")
    problem = label_problem("skewed", skewed)
    found = decode_folds([problem], plan, recording.epochs, lambda _: _features(values))[0]
    rows = {s.metric: s for s in scores(problem, found) if s.method == EMBEDDING}
    assert rows["r2"].chance == pytest.approx(0, abs=0.02)
    assert rows["median error"].chance < np.median(np.abs(skewed.values - skewed.values.mean()))
