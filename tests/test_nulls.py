"""Nulls beside slow twins that relabel the session and decode it anew; levels and power."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from scipy.signal import lfilter

import grevy.nulls.decoder as module
from grevy.decode import Target, error, judge, neighbours, predict, predictions, tune
from grevy.evaluate import (
    EMBEDDING,
    Features,
    Problem,
    decode_folds,
    frame_problem,
    label_problem,
    learnt_and_asked,
)
from grevy.nulls import (
    blocks_forget,
    content,
    exchanged,
    identity,
    label_blocks,
    least_nulls,
    names,
    p_value,
    q_values,
    shifted_samples,
    time_locked,
)
from grevy.nulls.decoder import Decoder, Means, distances, medians
from grevy.nulls.exchange import exchange_names
from grevy.recording import Label, Recording, make_recording
from grevy.scoring import scores
from grevy.splits import Plan, block_plan, repeat_plan, trained_samples
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
    whole: bool = False,
) -> Recording:
    """Noise that remembers itself, a slow drift, and if asked an onset response or a trajectory.

    The order of movies is drawn cycle by cycle, or as a whole.
    """
    rng = np.random.default_rng(seed)
    lasts = lengths or (frames,) * movies
    order = np.concatenate([rng.permutation(movies) for _ in range(repeats)])
    order = rng.permutation(order) if whole else order
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
    for i in (0, 1, 5):
        taken = shifted_samples(problem, plan, np.array([i]), 3)[:, 0]
        again = replace(problem, target=Target(problem.target.values[taken], np.zeros(1)))
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
    moments = np.tile(np.arange(8), 3)
    target = Target(moments[:, None].astype(np.float64), np.zeros(1))
    problem = Problem("frame", target, np.zeros(24, dtype=np.int64), ("",), "s", (1.0,))
    none = np.full(24, -1)
    plan = Plan(np.array([[0, 24]]), own, np.zeros((1, 24), bool), none, 0, 0)
    shifted = moments[shifted_samples(problem, plan, np.arange(200), 0)]
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
        trained = trained_samples(plan, epochs, fold)[f.samples]
        fit = np.flatnonzero(trained & (subset >= 0))
        chosen = {}
        for own in (True, False):
            inner = [np.mean([far(i, fit, w, own) for i in fit]) for w in names._WIDTHS]
            chosen[own] = names._WIDTHS[int(np.argmin(inner))]
        asked = plan.tested[fold][f.samples] & (name == movie)
        for s, g in {(int(a), int(b)) for a, b in zip(subset[asked], group[asked], strict=True)}:
            rows = np.flatnonzero(asked & (subset == s) & (group == g))
            errors = {o: np.median([far(i, fit, w, o) for i in rows]) for o, w in chosen.items()}
            gains.append(errors[False] - errors[True])
    return float(np.mean(gains))


@pytest.mark.parametrize("whole", [False, True])
def test_content_is_decoding_of_pseudo_movies(whole: bool) -> None:
    recording = session(2, movies=2, repeats=5, frames=12, signal=1.0, whole=whole)
    problem, plan, features = prepared(recording, folds=5)
    lengths = lengths_of(recording, problem)
    found = content(problem, plan, recording.epochs, features, lengths, n=3, seed=1)
    rows = features[0].samples
    drawn = exchange_names(problem.subset[rows], plan.group[rows], [[0, 1]], 3, 1)
    for i in range(4):
        called = {
            (int(s), int(g)): int(c)
            for s, g, c in zip(drawn.subset, drawn.repeat, drawn.called[i], strict=True)
        }
        for movie, t in enumerate(found):
            value = t.observed if i == 0 else t.null[i - 1]
            slow = _slow_content(problem, plan, recording.epochs, features[0], called, movie)
            assert value == pytest.approx(slow, abs=1e-5)


def test_samples_take_the_name_of_their_presentation() -> None:
    recording = session(4, movies=4, lengths=(30, 30, 30, 18))
    problem, plan, _ = prepared(recording)
    lengths = lengths_of(recording, problem)
    taken = names.renamed_samples(problem, plan, lengths, 7, 3)
    (alike,) = names.families(problem, lengths)
    assert len(alike) == 3
    inside = (problem.subset >= 0) & (plan.group >= 0)
    assert (taken[~inside] == np.flatnonzero(~inside)[:, None]).all()
    said = problem.subset[taken]
    drawn = exchange_names(problem.subset[inside], plan.group[inside], [alike], 7, 3)
    changed = 0
    for s, g, called in zip(drawn.subset, drawn.repeat, drawn.called[1:].T, strict=True):
        here = (problem.subset == s) & (plan.group == g)
        assert (said[here] == called).all()
        changed += int((called != s).sum())
        assert s in alike or (called == s).all()  # it has no other of its length
    assert changed


@pytest.mark.parametrize("whole", [False, True])
def test_identity_is_decoding_of_other_names(whole: bool) -> None:
    recording = session(3, movies=3, signal=1.0, whole=whole)
    problem, plan, features = prepared(recording)
    lengths = lengths_of(recording, problem)
    found = identity(problem, plan, recording.epochs, features, lengths, n=4, seed=5)
    assert found is not None
    f = features[0]
    subset, group = problem.subset[f.samples], plan.group[f.samples]
    drawn = exchange_names(subset, group, [[0, 1, 2]], 4, 5)
    x = f.values[EMBEDDING]
    for i in range(5):
        called = {
            (int(s), int(g)): int(c)
            for s, g, c in zip(drawn.subset, drawn.repeat, drawn.called[i], strict=True)
        }
        name = np.array([called[int(s), int(g)] for s, g in zip(subset, group, strict=True)])
        target = Target(name[:, None], np.zeros(1), 3)
        right = []
        for fold in range(plan.n_folds):
            trained = trained_samples(plan, recording.epochs, fold)[f.samples]
            tested = plan.tested[fold][f.samples]
            fit, ask = learnt_and_asked(subset >= 0, group, trained, tested)
            settings = tune(x[fit], target, fit, group[fit], most=names._VOTERS[0])
            said = predict(x[fit], fit, x[ask], target, settings)
            hit = said[:, 0] == name[ask]
            right += [hit[group[ask] == g].mean() for g in np.unique(group[ask])]
        value = found.observed if i == 0 else found.null[i - 1]
        assert value == pytest.approx(np.mean(right), abs=1e-9)


@pytest.mark.parametrize("which", range(5))
def test_a_decoder_chooses_as_tune_does(which: int) -> None:
    rng = np.random.default_rng(4)
    x = rng.standard_normal((120, 4)).astype(np.float32)
    if which % 2:  # on a sphere there is one metric
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    groups = np.repeat(np.arange(6), 20)
    fit, ask = np.arange(100), np.arange(100, 120)
    kinds = [
        Target(rng.standard_normal((120, 1)), np.zeros(1)),
        Target(rng.standard_normal((120, 2)), np.zeros(2)),
        Target(rng.uniform(0, 360, (120, 1)), np.array([360.0])),
        Target(rng.uniform(0, 5, (120, 2)), np.array([5.0, 0.0])),
        Target(rng.integers(0, 4, (120, 1)), np.zeros(1), 4),
    ]
    kind = kinds[which]
    decoder = Decoder(x, fit, ask, groups[fit], kind, "cpu")
    order = np.stack([rng.permutation(120) for _ in range(7)], axis=1)
    y = np.asarray(kind.values, dtype=np.float64)[order]
    found = decoder.errors(torch.from_numpy(y[fit]), torch.from_numpy(y[ask])).numpy()
    for c in range(7):
        target = replace(kind, values=kind.values[order[:, c]])
        settings = tune(x[fit], target, fit, groups[fit])
        said = predict(x[fit], fit, x[ask], target, settings)
        np.testing.assert_allclose(found[:, c], error(target, ask, said), rtol=1e-5, atol=1e-5)
    table = judge(x[fit], groups[fit])
    assert table is not None
    nearest = neighbours(x[fit], x[ask], table.ks[-1], metric="cosine")
    means = Means(torch.from_numpy(nearest), table.ks)
    plain = Target(rng.standard_normal((120, 1)), np.zeros(1))
    numbers = torch.from_numpy(plain.values[fit].astype(np.float32))
    for mine, theirs in zip(
        means(numbers), predictions(plain, fit, nearest, table.ks), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: not run")
@pytest.mark.parametrize("n_classes", [0, 4])
def test_a_gpu_takes_means_and_medians_to_the_bit(n_classes: int) -> None:
    rng = np.random.default_rng()
    nearest = torch.from_numpy(rng.integers(-1, 500, (301, 100)))
    y = torch.from_numpy(rng.standard_normal((500, 300)).astype(np.float32))
    ks = (1, 2, 3, 5, 8, 12, 18, 25, 35, 50, 75, 100)
    pairs = zip(Means(nearest, ks)(y), Means(nearest.cuda(), ks)(y.cuda()), strict=True)
    for here, there in pairs:
        assert torch.equal(here, there.cpu())
        for rows in (300, 301):
            np.testing.assert_array_equal(medians(here[:rows]), medians(there[:rows]))
    # Whole numbers about zero, so that products are exact, too, and neighbours the same.
    half = rng.integers(-500, 500, (120, 5))
    x = np.concatenate([half[:100], -half[:100], half[100:], -half[100:]]).astype(np.float32)
    groups = np.repeat(np.arange(6), 40)
    fit, ask = np.arange(200), np.arange(200, 240)
    kind = Target(rng.integers(0, 4, (240, 1)), np.zeros(1), n_classes)
    order = np.stack([rng.permutation(240) for _ in range(50)], axis=1)
    labels = torch.from_numpy(np.asarray(kind.values, dtype=np.float64)[order])
    each = []
    for device in ("cpu", "cuda"):
        found = Decoder(x, fit, ask, groups[fit], kind, device)
        assert found.metrics == ("cosine", "euclidean")
        found.outer, found.inner = found.outer[1:], found.inner[1:]  # no lengths, which are roots
        y = labels.to(device)
        each.append(found.errors(y[fit], y[ask]).cpu())
    assert torch.equal(*each)


def test_few_nulls_at_a_time_are_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    recording = session(3, signal=0.5)
    problem, plan, features = prepared(recording)
    args = (problem, plan, recording.epochs, features)
    whole = time_locked(*args, n=50, device="cpu")
    monkeypatch.setattr(module, "_NUMBERS", 2000)
    for a, b in zip(whole, time_locked(*args, n=50, device="cpu"), strict=True):
        np.testing.assert_array_equal(a.null, b.null)


def test_distances_are_those_of_the_score() -> None:
    rng = np.random.default_rng(0)
    circle = Target(rng.uniform(0, 7, (40, 2)), np.array([7.0, 0.0]))
    said = rng.uniform(0, 7, (40, 2))
    angle = 2 * np.pi * said[:, 0] / 7
    numbers = np.stack([np.cos(angle), np.sin(angle), said[:, 1]], axis=1).astype(np.float32)
    truth = torch.from_numpy(np.asarray(circle.values)[:, None])
    found = distances(circle, torch.from_numpy(numbers), truth)[:, 0]
    np.testing.assert_allclose(found, error(circle, np.arange(40), said), atol=1e-4)


# --- labels by blocks ----------------------------------------------------------------------------
def behaviour(seed: int, *, signal: float, n: int = 1500, tau: int = 8) -> Recording:
    """A label that remembers itself for `tau` samples, a population that knows it or not."""
    rng = np.random.default_rng(seed)
    keep = np.exp(-1 / tau)
    series = lfilter([1], [1, -keep], rng.standard_normal((n, 6)), axis=0) * np.sqrt(1 - keep**2)
    label = series[:, 0]
    x = series[:, 1:5] + signal * label[:, None] * rng.standard_normal(4)
    labels = {
        "speed": Label(label, "continuous", "cm/s"),
        "angle": Label(np.mod(90 * label, 360), "continuous", "deg", 360.0),
        "state": Label((label > 0).astype(np.int64), "discrete"),
    }
    return make_recording(x.astype(np.float32), rate_hz=20.0, labels=labels)


def blocks_of(recording: Recording, name: str) -> tuple[Problem, Plan, list[Features]]:
    problem = label_problem(name, recording.labels[name])
    plan = block_plan(problem.subset >= 0, recording.epochs, n_folds=8, seed=0, guard=20)
    f = Features({EMBEDDING: recording.activity}, np.arange(recording.n_samples))
    return problem, plan, [f] * plan.n_folds


@pytest.mark.parametrize("name", ["speed", "angle", "state"])
def test_a_label_is_tested_by_decoding_exchanged_blocks(name: str) -> None:
    recording = behaviour(1, signal=1.0)
    problem, plan, features = blocks_of(recording, name)
    found = label_blocks(problem, plan, recording.epochs, features, n=4, seed=2)
    metric = "accuracy" if name == "state" else "median error"
    assert (found.claim, found.stimulus, found.statistic) == ("label", name, metric)
    for i in (0, 1, 4):
        taken = exchanged(plan, np.array([i]), 2)[:, 0]
        target = replace(problem.target, values=problem.target.values[taken])
        again = replace(problem, target=target)
        decoded = decode_folds([again], plan, recording.epochs, lambda k: features[k])[0]
        row = next(r for r in scores(again, decoded) if (r.method, r.metric) == (EMBEDDING, metric))
        value = found.observed if i == 0 else found.null[i - 1]
        assert value == pytest.approx(row.value, abs=1e-4)


def test_blocks_exchange_labels_in_order_and_the_first_is_the_truth() -> None:
    recording = behaviour(0, signal=0.0, n=1003)
    _, plan, _ = blocks_of(recording, "speed")
    taken = exchanged(plan, np.arange(60), 0)
    np.testing.assert_array_equal(taken[:, 0], np.arange(1003))
    for b in range(int(plan.group.max()) + 1):
        own = plan.group == b
        for i in range(1, 60):
            assert len(np.unique(plan.group[taken[own, i]])) == 1
            assert set(np.diff(taken[own, i])) <= {0, 1, 2}
    givers = plan.group[taken[plan.group == 0][0, 1:]]
    assert len(np.unique(givers)) > 5
    np.testing.assert_array_equal(exchanged(plan, np.array([7]), 0)[:, 0], taken[:, 7])


def test_a_known_label_is_claimed_and_an_unknown_one_as_often_as_alpha_says() -> None:
    recording = behaviour(3, signal=1.5)
    problem, plan, features = blocks_of(recording, "speed")
    assert label_blocks(problem, plan, recording.epochs, features, n=99).p == 0.01
    p = []
    for seed in range(40):
        recording = behaviour(100 + seed, signal=0.0, n=700)
        problem, plan, features = blocks_of(recording, "speed")
        p.append(label_blocks(problem, plan, recording.epochs, features, n=39).p)
    assert np.mean(np.array(p) <= 0.05) < 0.2  # 2 of 40 expected
    assert 0.3 < np.mean(p) < 0.7


def test_blocks_that_remember_may_not_exchange_labels() -> None:
    slow = behaviour(0, signal=0.0, tau=400)
    problem, plan, _ = blocks_of(slow, "speed")
    assert "more than half of a block" in blocks_forget(problem, plan, 999)
    quick = behaviour(0, signal=0.0)
    problem, plan, _ = blocks_of(quick, "speed")
    assert blocks_forget(problem, plan, 999) == ""
    few = block_plan(problem.subset >= 0, quick.epochs, n_folds=4, seed=0, guard=5, set_aside=False)
    assert "fewer ways than the 999 nulls" in blocks_forget(problem, few, 999)


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
