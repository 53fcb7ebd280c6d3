"""Nulls beside slow twins that relabel the session and decode it anew; levels and power."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.signal import lfilter

from grevy import nulls
from grevy.decode import Target, error, judge, neighbours, predict, predictions, tune
from grevy.evaluate import (
    EMBEDDING,
    Features,
    Problem,
    decode_folds,
    frame_problem,
    learnt_and_asked,
    scores,
)
from grevy.nulls import (
    content,
    families,
    identity,
    least_nulls,
    p_value,
    q_values,
    time_locked,
)
from grevy.recording import Recording, make_recording
from grevy.splits import Plan, mask_of, repeat_plan, training_spans
from grevy.stimulus import align, table_from_intervals

RATE = 30.0


def session(
    seed: int,
    *,
    movies: int = 3,
    repeats: int = 6,
    frames: int = 30,
    signal: float = 0.0,
    onset: float = 0.0,
    lengths: tuple[int, ...] = (),
) -> Recording:
    """Noise that remembers itself, a slow drift, and if asked an onset response or a trajectory."""
    rng = np.random.default_rng(seed)
    lasts = lengths or (frames,) * movies
    order = np.concatenate([rng.permutation(movies) for _ in range(repeats)])
    begins, at = [], 10
    for m in order:
        begins.append(at)
        at += lasts[m] + 10
    x = lfilter([1], [1, -0.9], rng.standard_normal((at, 6)) * 0.44, axis=0)
    x += np.cumsum(rng.standard_normal((at, 6)), axis=0) / np.sqrt(at) * 3
    ways = [lfilter([1], [1, -0.9], rng.standard_normal((n, 6)) * 0.44, axis=0) for n in lasts]
    common = rng.standard_normal(6)
    shown: list[tuple[float, str, int]] = []
    for begin, m in zip(begins, order, strict=True):
        n = lasts[m]
        x[begin : begin + n] += signal * ways[m]
        x[begin : begin + n] += onset * np.exp(-np.arange(n) / 10)[:, None] * common
        shown += [(begin + i, f"m{m}", i) for i in range(n)]
    start = np.array([s[0] for s in shown]) / RATE - 0.5 / RATE
    table = table_from_intervals(
        start, start + 1 / RATE, [s[1] for s in shown], [s[2] for s in shown]
    )
    recording = make_recording(x.astype(np.float32), rate_hz=RATE)
    return replace(recording, stimulus=align(recording.times_s, table))


def prepared(recording: Recording, folds: int = 6) -> tuple[Problem, Plan, list[Features]]:
    assert recording.stimulus is not None
    problem = frame_problem(recording)
    plan = repeat_plan(recording.stimulus, recording.epochs, n_folds=folds, seed=0, guard=3)
    rows = np.concatenate([np.arange(a, b) for a, b in plan.spans])
    f = Features({EMBEDDING: recording.activity[rows]}, rows)
    return problem, plan, [f] * plan.n_folds


def lengths_of(recording: Recording, problem: Problem) -> list[float]:
    track = recording.stimulus
    assert track is not None
    return [track.duration_s[track.names.index(name)] for name in problem.names]


# --- numbers -------------------------------------------------------------------------------------
def test_p_values_count_the_observed_one() -> None:
    null = np.arange(99.0)
    assert p_value(98.5, null, higher=True) == 0.01
    assert p_value(-1.0, null, higher=True) == 1.0
    assert p_value(-1.0, null, higher=False) == 0.01
    assert p_value(50.0, null, higher=True) == (49 + 1) / 100


def test_p_values_are_even_where_the_observed_is_one_of_the_nulls() -> None:
    rng = np.random.default_rng(0)
    p = [p_value(v[0], v[1:], higher=True) for v in rng.standard_normal((2000, 100))]
    assert stats.kstest(p, "uniform").pvalue > 1e-3
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.015)


def test_q_values_by_hand() -> None:
    p = [0.01, 0.04, 0.03, 0.5]
    expected = [0.04, 0.16 / 3, 0.16 / 3, 0.5]
    np.testing.assert_allclose(q_values(p), expected)


def test_with_fewer_nulls_than_needed_no_q_value_can_be_small() -> None:
    for n_tests in (1, 5, 12):
        least = least_nulls(n_tests)
        for m, possible in ((least, True), (least - 1, False)):
            best = np.ones(n_tests)
            best[0] = 1 / (m + 1)
            assert (q_values(list(best)).min() <= 0.05 + 1e-12) == possible


# --- slow twins ----------------------------------------------------------------------------------
def test_time_locked_is_decoding_with_shifted_moments() -> None:
    recording = session(1, signal=1.0)
    problem, plan, features = prepared(recording)
    found = time_locked(problem, plan, recording.epochs, features, n=5, seed=3)
    assert [t.stimulus for t in found] == list(problem.names)
    rows = features[0].samples
    for i in (0, 1, 5):
        y = problem.target.values[:, 0].astype(np.float64).copy()
        for s in range(len(problem.names)):
            here = rows[(problem.subset[rows] == s) & (plan.group[rows] >= 0)]
            before = problem.target.values[here, 0].astype(np.float32)
            y[here] = nulls._shifted(before, plan.group[here], np.array([i]), 3, s)[:, 0]
        again = replace(problem, target=Target(y[:, None], np.zeros(1)))
        decoded = decode_folds([again], plan, recording.epochs, lambda k: features[k])[0]
        table = {
            r.stimulus: r.value
            for r in scores(again, decoded)
            if (r.method, r.metric) == (EMBEDDING, "median error")
        }
        for t in found:
            value = t.observed if i == 0 else t.null[i - 1]
            assert value == pytest.approx(table[t.stimulus], abs=1e-5)


def test_shifts_keep_the_moments_of_a_presentation_and_their_order() -> None:
    own = np.repeat([0, 1, 2], 8)
    moments = np.tile(np.arange(8, dtype=np.float32), 3)
    shifted = nulls._shifted(moments, own, np.arange(200), 0, 0)
    np.testing.assert_array_equal(shifted[:, 0], moments)
    for g in range(3):
        part = shifted[own == g]
        assert (np.sort(part, axis=0) == np.arange(8)[:, None]).all()
        assert (np.diff(part, axis=0) % 8 == 1).all()
        counts = np.bincount(part[0].astype(int), minlength=8)
        assert counts.min() > 8  # every shift comes about as often
    assert not (shifted[own == 0] == shifted[own == 1]).all()


def _slow_content(
    problem: Problem,
    plan: Plan,
    epochs: NDArray[np.int64],
    f: Features,
    called: dict[tuple[int, int], int],
    movie: int,
) -> float:
    """One pseudo-movie, presentation by presentation and row by row, in float64."""
    subset, group = problem.subset[f.samples], plan.group[f.samples]
    z = f.values[EMBEDDING].astype(np.float64)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    y = problem.target.values[f.samples, 0]
    name = np.array([called.get((int(s), int(g)), -1) for s, g in zip(subset, group, strict=True)])

    def far(i: int, fit: NDArray[np.int64], width: float, own: bool) -> float:
        mine = fit[((name[fit] == name[i]) == own) & (group[fit] != group[i])]
        weight = np.exp((z[mine] @ z[i] - 1) / width)
        return abs(float(weight @ y[mine] / weight.sum()) - float(y[i]))

    gains = []
    for fold in range(plan.n_folds):
        trained = mask_of(training_spans(plan, epochs, fold), len(plan.fold))[f.samples]
        fit = np.flatnonzero(trained & (subset >= 0))
        chosen = {}
        for own in (True, False):
            inner = [np.mean([far(i, fit, w, own) for i in fit]) for w in nulls._WIDTHS]
            chosen[own] = nulls._WIDTHS[int(np.argmin(inner))]
        asked = (plan.fold[f.samples] == fold) & (name == movie)
        for s, g in {(int(a), int(b)) for a, b in zip(subset[asked], group[asked], strict=True)}:
            rows = np.flatnonzero(asked & (subset == s) & (group == g))
            errors = {o: np.median([far(i, fit, w, o) for i in rows]) for o, w in chosen.items()}
            gains.append(errors[False] - errors[True])
    return float(np.mean(gains))


def test_content_is_decoding_of_pseudo_movies() -> None:
    recording = session(2, movies=2, repeats=5, frames=12, signal=1.0)
    problem, plan, features = prepared(recording, folds=5)
    lengths = lengths_of(recording, problem)
    found = content(problem, plan, recording.epochs, features, lengths, n=3, seed=1)
    rows = features[0].samples
    names = nulls._names(problem.subset[rows], plan.group[rows], [[0, 1]], 3, 1)
    for i in range(4):
        called = {
            (int(s), int(g)): int(c)
            for s, g, c in zip(names.subset, names.repeat, names.called[i], strict=True)
        }
        for movie, t in enumerate(found):
            value = t.observed if i == 0 else t.null[i - 1]
            slow = _slow_content(problem, plan, recording.epochs, features[0], called, movie)
            assert value == pytest.approx(slow, abs=1e-5)


def test_identity_is_decoding_of_other_names() -> None:
    recording = session(3, movies=3, signal=1.0)
    problem, plan, features = prepared(recording)
    lengths = lengths_of(recording, problem)
    found = identity(problem, plan, recording.epochs, features, lengths, n=4, seed=5)
    assert found is not None
    f = features[0]
    subset, group = problem.subset[f.samples], plan.group[f.samples]
    names = nulls._names(subset, group, [[0, 1, 2]], 4, 5)
    x = f.values[EMBEDDING]
    for i in range(5):
        called = {
            (int(s), int(g)): int(c)
            for s, g, c in zip(names.subset, names.repeat, names.called[i], strict=True)
        }
        name = np.array([called[int(s), int(g)] for s, g in zip(subset, group, strict=True)])
        target = Target(name[:, None], np.zeros(1), 3)
        right = []
        for fold in range(plan.n_folds):
            spans = training_spans(plan, recording.epochs, fold)
            trained = mask_of(spans, len(plan.fold))[f.samples]
            fit, ask = learnt_and_asked(subset >= 0, group, trained, plan.fold[f.samples] == fold)
            settings = tune(x[fit], target, fit, group[fit], most=nulls._VOTERS[0])
            said = predict(x[fit], fit, x[ask], target, settings)
            hit = said[:, 0] == name[ask]
            right += [hit[group[ask] == g].mean() for g in np.unique(group[ask])]
        value = found.observed if i == 0 else found.null[i - 1]
        assert value == pytest.approx(np.mean(right), abs=1e-9)


def test_names_change_within_repeats_and_lengths_alone() -> None:
    subset, group = np.repeat([0, 1, 2, 3], 5), np.tile(np.arange(5), 4)
    names = nulls._names(subset, group, [[0, 1, 2]], 500, 0)
    np.testing.assert_array_equal(names.called[0], names.subset)
    for r in range(5):
        here = names.repeat == r
        assert (np.sort(names.called[:, here], axis=1) == np.arange(4)).all()
        assert (names.called[:, here & (names.subset == 3)] == 3).all()
        share = (names.called[1:, here & (names.subset == 0)] == 1).mean()
        assert share == pytest.approx(1 / 3, abs=0.08)
    assert families(
        Problem("frame", Target(np.zeros((1, 1)), np.zeros(1)), np.zeros(1, int), ("a", "b", "c"),
                "s", (1.0,) * 3),
        [30.0, 10.0, 30.0],
    ) == [[0, 2]]  # fmt: skip


def test_a_decoder_chooses_as_tune_does() -> None:
    rng = np.random.default_rng(4)
    x = rng.standard_normal((120, 4)).astype(np.float32)
    groups = np.repeat(np.arange(6), 20)
    fit, ask = np.arange(100), np.arange(100, 120)
    decoder = nulls._Decoder(x, fit, ask, groups[fit], "cpu")
    y = rng.standard_normal((120, 7)).astype(np.float32)
    found = decoder.errors(y[fit], y[ask])
    for c in range(7):
        target = Target(y[:, c : c + 1].astype(np.float64), np.zeros(1))
        settings = tune(x[fit], target, fit, groups[fit])
        said = predict(x[fit], fit, x[ask], target, settings)
        np.testing.assert_allclose(found[:, c], error(target, ask, said), atol=1e-5)
    table = judge(x[fit], groups[fit])
    assert table is not None
    nearest = neighbours(x[fit], x[ask], table.ks[-1], metric="cosine")
    means = nulls._Means(nearest, table.ks, 100)
    target = Target(y[:, :1].astype(np.float64), np.zeros(1))
    for mine, theirs in zip(
        means(y[fit][:, :1]), predictions(target, fit, nearest, table.ks), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


# --- what they say -------------------------------------------------------------------------------
def test_a_trajectory_is_claimed_and_an_onset_is_no_content() -> None:
    driven = session(5, movies=4, repeats=8, signal=2.0)
    problem, plan, features = prepared(driven, folds=8)
    lengths = lengths_of(driven, problem)
    assert all(t.p == 0.01 for t in time_locked(problem, plan, driven.epochs, features, n=99))
    movies = content(problem, plan, driven.epochs, features, lengths, n=99)
    assert all(t.p <= 0.05 for t in movies)
    named = identity(problem, plan, driven.epochs, features, lengths, n=99)
    assert named is not None
    assert named.p == 0.01
    start = session(6, movies=4, repeats=8, onset=6.0)
    problem, plan, features = prepared(start, folds=8)
    assert all(t.p <= 0.05 for t in time_locked(problem, plan, start.epochs, features, n=99))
    movies = content(problem, plan, start.epochs, features, lengths_of(start, problem), n=99)
    assert min(t.p for t in movies) > 0.01


def test_the_same_seed_gives_the_same_nulls_and_another_others() -> None:
    recording = session(7)
    problem, plan, features = prepared(recording)

    def null(seed: int, n: int) -> NDArray[np.float64]:
        return time_locked(problem, plan, recording.epochs, features, n=n, seed=seed)[0].null

    np.testing.assert_array_equal(null(1, 30), null(1, 30))
    np.testing.assert_allclose(null(1, 30), null(1, 200)[:30], rtol=1e-6)
    assert (null(1, 30) != null(2, 30)).any()


def test_movies_of_their_own_length_have_no_pseudo_movies() -> None:
    recording = session(8, movies=3, lengths=(30, 30, 18))
    problem, plan, features = prepared(recording)
    found = content(problem, plan, recording.epochs, features, lengths_of(recording, problem), n=19)
    assert {t.stimulus for t in found} == {"m0", "m1"}
