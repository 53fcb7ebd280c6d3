"""Controls beside slow twins, and on sessions and recordings of which the answer is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.io import loadmat
from scipy.signal import lfilter

from grevy.config import TrainConfig
from grevy.controls import (
    BEHAVIOUR,
    behaviour_alone,
    drift,
    effective_samples,
    onset_clock,
    sample_sizes,
    subsets,
)
from grevy.controls.channels import _thinned
from grevy.controls.distance import _JUDGED, _mean_of_pairs, _trend
from grevy.decode import METRICS, Target, candidates, evenly
from grevy.draws import Purpose, uniforms
from grevy.encoders import EncoderSpec
from grevy.errors import DataError
from grevy.evaluate import (
    EMBEDDING,
    RAW,
    Features,
    Problem,
    decode_folds,
    features_of,
    frame_problem,
    identity_problem,
    label_problem,
    learnt_and_asked,
)
from grevy.model import Run
from grevy.nulls import families
from grevy.recording import Label, Recording, make_recording
from grevy.scoring import differences, scores
from grevy.search import with_spans
from grevy.splits import (
    Plan,
    block_plan,
    mask_of,
    repeat_plan,
    trained_samples,
    training_spans,
)
from grevy.stimulus import align, table_from_intervals
from grevy.training import train
from grevy.windows import ReceptiveField
from test_nulls import lengths_of, prepared, session

FIELD = ReceptiveField(2, 2)


def _median_errors(
    problem: Problem,
    samples: NDArray[np.int64],
    said: NDArray[np.float64],
    group: NDArray[np.int64],
) -> dict[int, float]:
    far = np.abs(problem.target.values[samples, 0] - said)
    return {int(g): float(np.median(far[group == g])) for g in np.unique(group)}


def _nearest(
    train: NDArray[np.float32], query: NDArray[np.float32], metric: str
) -> NDArray[np.int64]:
    """All training rows by distance, one query at a time, in float64."""
    a, b = train.astype(np.float64), query.astype(np.float64)
    if metric == "cosine":
        a = a / np.linalg.norm(a, axis=1, keepdims=True)
        b = b / np.linalg.norm(b, axis=1, keepdims=True)
    return np.array([np.argsort(((a - row) ** 2).sum(axis=1), kind="stable") for row in b])


# --- behaviour alone -----------------------------------------------------------------------------
def with_running(seed: int, tells: float, *, unknown: float = 0.0) -> Recording:
    """A session with running that follows the moment (more or less), and a circular gaze."""
    recording = session(seed, signal=1.0)
    track = recording.stimulus
    assert track is not None
    rng = np.random.default_rng(seed)
    n = recording.n_samples
    running = tells * np.maximum(track.frame, 0) / 10 + rng.standard_normal(n)
    known = rng.random(n) >= unknown
    labels = {
        "running": Label(running, "continuous", "cm/s", known=known),
        "gaze": Label(rng.uniform(0, 360, n), "continuous", "deg", 360.0),
        "lick": Label(rng.integers(0, 2, n), "discrete"),
    }
    return replace(recording, labels=labels)


def _slow_behaviour(
    recording: Recording, plan: Plan, fold: int, f: Features, known: NDArray[np.bool_]
) -> Features:
    """Windows of running and gaze, sample by sample, edges replicated inside a presentation."""
    gaze = 2 * np.pi * recording.labels["gaze"].values / 360
    x = np.stack([recording.labels["running"].values, np.cos(gaze), np.sin(gaze)], axis=1)
    mine = mask_of(training_spans(plan, recording.epochs, fold), len(known)) & known
    z = (x - x[mine].mean(axis=0)) / x[mine].std(axis=0)
    rows, windows = [], []
    for i, sample in enumerate(f.samples):
        a, b = next((a, b) for a, b in plan.spans if a <= sample < b)
        seen = np.clip(np.arange(sample - FIELD.left, sample + FIELD.right), a, b - 1)
        if known[seen].all():
            rows.append(i)
            windows.append(z[seen].ravel())
    values = {
        EMBEDDING: f.values[EMBEDDING][rows],
        BEHAVIOUR: np.array(windows, dtype=np.float32),
    }
    return Features(values, f.samples[rows])


def test_behaviour_is_decoding_of_its_windows_where_they_are_known() -> None:
    recording = with_running(1, 1.0, unknown=0.05)
    problem, plan, features = prepared(recording)
    found = behaviour_alone(recording, problem, plan, features, ("running", "gaze"), FIELD)
    known = recording.labels["running"].mask
    slow = [_slow_behaviour(recording, plan, k, f, known) for k, f in enumerate(features)]
    decoded = decode_folds([problem], plan, recording.epochs, lambda k: slow[k])[0]
    expected = scores(problem, decoded)
    assert len(found.scores) == len(expected)
    for mine, theirs in zip(found.scores, expected, strict=True):
        assert (mine.stimulus, mine.method, mine.metric) == (
            theirs.stimulus, theirs.method, theirs.metric,
        )  # fmt: skip
        assert mine.value == pytest.approx(theirs.value, abs=1e-3)
        assert mine.chance == theirs.chance
    gaps = [d for d in differences(problem, decoded) if d.baseline == BEHAVIOUR]
    assert [d.stimulus for d in found.differences] == [d.stimulus for d in gaps]
    assert len(gaps) == 4 * len(problem.names)
    n_scored = int((plan.scored & (problem.subset >= 0)).sum())
    assert found.share == pytest.approx(len(decoded.samples) / n_scored)
    assert 0.7 < found.share < 0.95  # 0.95 ** 4 of the windows
    assert found.labels == ("running", "gaze")


def test_behaviour_that_follows_the_movie_decodes_it_and_other_behaviour_does_not() -> None:
    for tells in (2.0, 0.0):
        recording = with_running(2, tells)
        problem, plan, features = prepared(recording)
        found = behaviour_alone(recording, problem, plan, features, ("running",), FIELD)
        assert found.share == 1.0
        rows = [s for s in found.scores if (s.method, s.metric) == (BEHAVIOUR, "median error")]
        ratio = np.mean([s.value / s.chance for s in rows])
        better = {d.better for d in found.differences if d.metric == "median error"}
        if tells:
            assert ratio < 0.5
            assert "embedding" not in better
        else:
            assert ratio > 0.8


def test_behaviour_tells_labels_in_blocks_too() -> None:
    rng = np.random.default_rng(0)
    n = 1500
    position = np.cumsum(rng.standard_normal(n)) / 10
    labels = {
        "position": Label(position, "continuous", "m"),
        "running": Label(position + 0.01 * rng.standard_normal(n), "continuous", "cm/s"),
    }
    recording = make_recording(rng.standard_normal((n, 4)), rate_hz=10.0, labels=labels)
    problem = label_problem("position", labels["position"])
    plan = block_plan(np.ones(n, bool), recording.epochs, n_folds=4, seed=0, guard=5)
    rows = np.concatenate([np.arange(a, b) for a, b in plan.spans])
    features = [Features({EMBEDDING: recording.activity[rows]}, rows)] * 4
    found = behaviour_alone(recording, problem, plan, features, ("running",), FIELD)
    better = {d.metric: d.better for d in found.differences}
    assert better["median error"] != "embedding"
    by = {s.method: s.value for s in found.scores if s.metric == "median error"}
    assert by[BEHAVIOUR] < 0.5 * by[EMBEDDING]


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ((), "at least one"),
        (("pupil",), "found 'pupil'"),
        (("running", "lick"), "'lick' is discrete"),
        (("frame",), "is what is decoded"),
        (("nowhere",), "nowhere in that of fold 0"),
        (("blinks",), "found blinks in none"),
    ],
)
def test_behaviour_that_is_none_is_refused(labels: Sequence[str], says: str) -> None:
    recording = with_running(3, 0.0)
    n = recording.n_samples
    values = np.zeros(n)
    extra = {
        "frame": Label(values, "continuous"),
        "nowhere": Label(values, "continuous", known=np.zeros(n, bool)),
        "blinks": Label(values, "continuous", known=np.arange(n) % 2 > 0),
    }
    recording = replace(recording, labels={**recording.labels, **extra})
    problem, plan, features = prepared(recording)
    with pytest.raises(DataError, match=says):
        behaviour_alone(recording, problem, plan, features, labels, FIELD)


# --- onset clock ---------------------------------------------------------------------------------
def _slow_clock(
    problem: Problem, plan: Plan, epochs: NDArray[np.int64], f: Features, source: int, asked: int
) -> dict[int, float]:
    """Median error of every held-out presentation of one stimulus, decoded from another."""
    x, subset, groups = f.values[EMBEDDING], problem.subset[f.samples], plan.group[f.samples]
    y = problem.target.values[f.samples, 0]
    found = {}
    for fold in range(plan.n_folds):
        trained = trained_samples(plan, epochs, fold)[f.samples]
        tested = plan.tested[fold][f.samples]
        fit, _ = learnt_and_asked(subset == source, groups, trained, tested)
        judged, ask = learnt_and_asked((subset >= 0) & (subset != source), groups, trained, tested)
        best = (np.inf, 0, "")
        for metric in METRICS:
            order = _nearest(x[fit], x[judged], metric)
            for k in candidates(len(fit)):
                far = []
                for i, near in zip(judged, order, strict=True):
                    others = fit[near][groups[fit[near]] != groups[i]][:k]
                    far.append(abs(y[others].mean() - y[i]))
                score = float(np.mean(far))
                if score < best[0] - 1e-12 or (abs(score - best[0]) < 1e-12 and k > best[1]):
                    best = (score, k, metric)
        ask = ask[subset[ask] == asked]
        order = _nearest(x[fit], x[ask], best[2])
        said = np.array([y[fit[near[: best[1]]]].mean() for near in order])
        found |= _median_errors(problem, f.samples[ask], said, groups[ask])
    return found


def test_the_clock_is_decoding_from_every_other_movie() -> None:
    recording = session(4, movies=3, repeats=5, frames=16, signal=1.0, onset=2.0)
    problem, plan, features = prepared(recording, folds=3)
    epochs, lengths = recording.epochs, lengths_of(recording, problem)
    rows = onset_clock(problem, plan, epochs, features, lengths)
    assert [r.stimulus for r in rows] == list(problem.names)
    decoded = decode_folds([problem], plan, epochs, lambda k: features[k])[0]
    table = {
        s.stimulus: s
        for s in scores(problem, decoded)
        if (s.method, s.metric) == (EMBEDDING, "median error")
    }
    for i, row in enumerate(rows):
        slow = [_slow_clock(problem, plan, epochs, features[0], j, i) for j in range(3) if j != i]
        cross = np.mean([list(s.values()) for s in slow], axis=0)
        assert row.others == pytest.approx(cross.mean(), abs=1e-5)
        assert row.own == table[row.stimulus].value
        assert row.chance == table[row.stimulus].chance
        assert row.clock == pytest.approx(row.chance - row.others)
        assert row.content == pytest.approx(row.others - row.own)
        assert (row.n_others, row.n_repeats) == (2, 3)
        assert row.clock_low < row.clock < row.clock_high


def test_a_clock_is_found_where_there_is_one_and_content_where_there_is_content() -> None:
    start = session(6, movies=3, repeats=8, onset=6.0)
    problem, plan, features = prepared(start, folds=8)
    lengths = lengths_of(start, problem)
    for row in onset_clock(problem, plan, start.epochs, features, lengths):
        assert row.clock_low > 0
        assert row.content_low < 0.03  # of a second; the clock is good for more
        assert row.clock > 2 * row.content
    driven = session(5, movies=3, repeats=8, signal=2.0)
    problem, plan, features = prepared(driven, folds=8)
    rows = onset_clock(problem, plan, driven.epochs, features, lengths_of(driven, problem))
    assert all(row.content_low > 0 for row in rows)
    assert np.mean([row.others / row.chance for row in rows]) > 0.85


def test_movies_without_their_like_have_no_clock() -> None:
    recording = session(8, movies=3, lengths=(30, 30, 18))
    problem, plan, features = prepared(recording)
    lengths = lengths_of(recording, problem)
    rows = onset_clock(problem, plan, recording.epochs, features, lengths)
    assert {r.stimulus for r in rows} == {"m0", "m1"}
    assert all(r.n_others == 1 for r in rows)
    assert len(families(problem, lengths)) == 1
    with pytest.raises(DataError, match="classes"):
        onset_clock(identity_problem(recording), plan, recording.epochs, features, lengths)


# --- drift ---------------------------------------------------------------------------------------
def drifting(
    seed: int, turn: float, *, repeats: int = 10, frames: int = 24, noise: float = 0.5
) -> Recording:
    """One movie; what it evokes is replaced, bit by bit, by what it evokes in the end."""
    rng = np.random.default_rng(seed)
    n = repeats * (frames + 6)
    x = lfilter([1], [1, -0.5], rng.standard_normal((n, 5)), axis=0) * noise
    ways = lfilter([1], [1, -0.8], rng.standard_normal((2, frames, 5)), axis=1)
    begins = 6 + np.arange(repeats) * (frames + 6)
    for r, begin in enumerate(begins - 6):
        angle = turn * r / max(repeats - 1, 1)
        x[begin : begin + frames] += np.cos(angle) * ways[0] + np.sin(angle) * ways[1]
    at = ((begins - 6)[:, None] + np.arange(frames)).ravel() / 30.0
    table = table_from_intervals(
        at - 0.5 / 30, at + 0.5 / 30, ["m"] * len(at), np.tile(np.arange(frames), repeats).tolist()
    )
    recording = make_recording(x.astype(np.float32), rate_hz=30.0)
    return replace(recording, stimulus=align(recording.times_s, table))


def _slow_drift(
    problem: Problem, plan: Plan, epochs: NDArray[np.int64], f: Features
) -> tuple[dict[tuple[int, int], float], list[int]]:
    """Median error of every held-out presentation from every whole one, and k of each fold."""
    x, groups, y = f.values[EMBEDDING], plan.group[f.samples], problem.target.values[f.samples, 0]
    found, ks = {}, []
    for fold in range(plan.n_folds):
        trained = trained_samples(plan, epochs, fold)[f.samples]
        rows = {int(g): np.flatnonzero(groups == g) for g in np.unique(groups[groups >= 0])}
        whole = {g: r for g, r in rows.items() if trained[r].all()}
        fit = np.concatenate(list(whole.values()))
        judged = fit[evenly(len(fit), _JUDGED)]
        best = (np.inf, 0, "")
        for metric in METRICS:
            for k in candidates(min(map(len, whole.values()))):
                far = []
                for r in whole.values():
                    some = judged[~np.isin(judged, r)]
                    near = _nearest(x[r], x[some], metric)[:, :k]
                    far += list(np.abs(y[r][near].mean(axis=1) - y[some]))
                score = float(np.mean(far))
                if score < best[0] - 1e-12 or (abs(score - best[0]) < 1e-12 and k > best[1]):
                    best = (score, k, metric)
        ks.append(best[1])
        for a in np.unique(groups[plan.tested[fold][f.samples]]):
            for g, r in whole.items():
                near = _nearest(x[r], x[rows[int(a)]], best[2])[:, : best[1]]
                far_a = np.abs(y[r][near].mean(axis=1) - y[rows[int(a)]])
                found[int(a), g] = float(np.median(far_a))
    return found, ks


def test_drift_is_decoding_from_one_repeat_at_a_time() -> None:
    recording = drifting(0, 1.0, repeats=7, frames=20, noise=2.0)
    problem, plan, features = prepared(recording, folds=4)
    plan = replace(plan, guard=8)  # more than the gap: neighbours are cut, and left out
    row = drift(problem, plan, recording.epochs, features, n=19)[0]
    slow, ks = _slow_drift(problem, plan, recording.epochs, features[0])
    assert max(ks) > 1  # or a repeat that decodes itself would not be seen
    assert all(abs(a - b) > 1 for a, b in slow)
    by = {
        d: {a: np.mean([e for (i, j), e in slow.items() if i == a and abs(i - j) == d])
            for a in {i for i, j in slow if abs(i - j) == d}}
        for d in {abs(i - j) for i, j in slow}
    }  # fmt: skip
    assert [p.distance for p in row.by_distance] == sorted(by)
    for p in row.by_distance:
        assert p.value == pytest.approx(np.mean(list(by[p.distance].values())), abs=1e-5)
        assert p.n_presentations == len(by[p.distance])
    # The slope, by least squares on dummies.
    pairs = list(slow)
    repeats = sorted({r for pair in pairs for r in pair})
    design = np.array(
        [[abs(i - j), *(i == r for r in repeats), *(j == r for r in repeats)] for i, j in pairs],
        dtype=float,
    )
    slope = np.linalg.lstsq(design, np.array([slow[p] for p in pairs]), rcond=None)[0][0]
    assert row.slope == pytest.approx(slope, abs=1e-5)
    assert (row.statistic, row.unit, row.n_repeats) == ("median error", "s", 5)


def test_a_code_that_turns_drifts_and_one_that_stays_does_not() -> None:
    for turn, found in ((np.pi / 2, True), (0.0, False)):
        recording = drifting(1, turn)
        problem, plan, features = prepared(recording, folds=10)
        row = drift(problem, plan, recording.epochs, features, n=199)[0]
        first, last = row.by_distance[0], row.by_distance[-1]
        assert (row.p <= 0.01) == found
        assert (row.slope > 0.003) == found
        assert (first.value < 0.7 * last.value) == found
        assert first.low < first.value < first.high
    classes = identity_problem(recording)
    row = drift(classes, plan, recording.epochs, features, n=9)[0]
    assert row.statistic == "error rate"


def test_pairs_that_folds_ask_for_twice_count_once() -> None:
    asked, learnt, far = _mean_of_pairs(
        np.array([2, 1, 2, 1]), np.array([0, 2, 0, 0]), np.array([1.0, 5.0, 3.0, 7.0])
    )
    assert list(zip(asked, learnt, far, strict=True)) == [(1, 0, 7.0), (1, 2, 5.0), (2, 0, 2.0)]
    recording = drifting(3, 1.0, repeats=5)
    assert recording.stimulus is not None
    problem, _, features = prepared(recording)
    plan = repeat_plan(
        recording.stimulus, recording.epochs, n_folds=10, seed=0, guard=3, leave_out=2,
        set_aside=False,
    )  # fmt: skip
    row = drift(problem, plan, recording.epochs, features[:1] * plan.n_folds, n=9)[0]
    assert row.n_repeats == 5
    assert row.by_distance[0].n_presentations == 5


def _pairs(n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    table = np.array([(i, j) for i in range(n) for j in range(n) if i != j])
    return table[:, 0], table[:, 1]


def test_p_values_of_drift_are_those_of_all_orders_and_hold_their_level() -> None:
    asked, learnt = _pairs(5)
    rng = np.random.default_rng(0)
    far = rng.standard_normal(20) + 0.3 * np.abs(asked - learnt)
    levels = np.concatenate([np.eye(5)[asked], np.eye(5)[learnt]], axis=1)

    def slope(order: Sequence[int]) -> float:
        far_apart = np.abs(np.array(order)[asked] - np.array(order)[learnt])[:, None]
        return float(np.linalg.lstsq(np.hstack([far_apart, levels]), far, rcond=None)[0][0])

    every = np.array([slope(order) for order in permutations(range(5))])
    observed, p = _trend(asked, learnt, far, 3999, 0, 0)
    assert observed == pytest.approx(every[0])
    assert p == pytest.approx((every >= every[0] - 1e-9).mean(), abs=0.03)
    # Presentations that differ, the last ones most, are no drift.
    asked, learnt = _pairs(8)
    found = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        bad = np.arange(8) ** 2 / 10 + rng.standard_normal(8)
        far = bad[asked] + bad[learnt] + rng.standard_normal(56)
        found.append(_trend(asked, learnt, far, 199, seed, 0)[1])
    assert 0.02 <= np.mean(np.array(found) <= 0.05) <= 0.09
    assert np.mean(found) == pytest.approx(0.5, abs=0.06)


def test_few_repeats_give_no_small_p() -> None:
    for n, least in ((4, 1 / 3), (5, 1 / 15), (6, 1 / 90)):
        asked, learnt = _pairs(n)
        far = np.abs(asked - learnt).astype(float)
        slope, p = _trend(asked, learnt, far, 3999, 0, 0)
        assert slope == pytest.approx(1.0)
        assert p == pytest.approx(least, rel=0.25)
    for n in (2, 3):
        asked, learnt = _pairs(n)
        assert np.isnan(_trend(asked, learnt, np.abs(asked - learnt).astype(float), 9, 0, 0)).all()
    recording = drifting(2, 1.0, repeats=2)
    problem, plan, features = prepared(recording, folds=2)
    row = drift(problem, plan, recording.epochs, features, n=9)[0]
    assert np.isnan(row.p)
    assert [(p.distance, p.n_presentations) for p in row.by_distance] == [(1, 2)]


# --- subsets of channels -------------------------------------------------------------------------
def test_subsets_are_decoded_from_their_own_channels_beside_as_many_others() -> None:
    recording = session(9, movies=2, signal=1.0)
    problem, plan, _ = prepared(recording, folds=3)
    masks = {"first": np.arange(6) < 2, "last": np.arange(6) >= 4}
    rows = subsets(recording, problem, plan, masks, FIELD, n_random=3, seed=1)
    assert {r.subset for r in rows} == {"first", "last"}
    assert len(rows) == 2 * len(problem.names) * 4

    def slow(mask: NDArray[np.bool_]) -> dict[tuple[str, str], float]:
        part = make_recording(
            recording.activity[:, mask], recording.times_s, stimulus=recording.stimulus
        )

        def features(fold: int) -> Features:
            spans = training_spans(plan, part.epochs, fold)
            trained = np.concatenate([part.activity[a:b] for a, b in spans])
            z = (part.activity - trained.mean(axis=0)) / trained.std(axis=0)
            windows, samples = [], []
            for a, b in plan.spans:
                for i in range(a, b):
                    seen = np.clip(np.arange(i - FIELD.left, i + FIELD.right), a, b - 1)
                    windows.append(z[seen].ravel())
                    samples.append(i)
            return Features({RAW: np.array(windows, np.float32)}, np.array(samples))

        found = decode_folds([problem], plan, part.epochs, features)[0]
        return {(s.stimulus, s.metric): s.value for s in scores(problem, found) if s.method == RAW}

    keys = uniforms(1, Purpose.CONTROL, torch.arange(3), 6).numpy()
    drawn = [slow(m) for m in _thinned(np.ones(6, bool), 2, keys)]
    for name, mask in masks.items():
        own = slow(mask)
        for r in [r for r in rows if r.subset == name]:
            at = (r.stimulus, r.metric)
            assert r.value == pytest.approx(own[at], abs=1e-4)
            assert r.random == pytest.approx(np.mean([d[at] for d in drawn]), abs=1e-4)
            assert r.difference == pytest.approx(r.value - r.random, abs=1e-9)
            assert r.random_low <= r.random <= r.random_high
            assert (r.n_channels, r.n_random, r.method) == (2, 3, RAW)


def test_draws_have_their_size_their_seed_and_lie_inside() -> None:
    mask = np.arange(20) % 2 == 0
    keys = uniforms(0, Purpose.CONTROL, torch.arange(500), 20).numpy()
    draws = np.array(_thinned(mask, 4, keys))
    assert (draws.sum(axis=1) == 4).all()
    assert not draws[:, ~mask].any()
    np.testing.assert_allclose(draws[:, mask].mean(axis=0), 0.4, atol=0.08)
    (same,) = _thinned(mask, 10, keys)
    np.testing.assert_array_equal(same, mask)


def test_thinned_subsets_are_compared_at_one_size() -> None:
    recording = session(10, movies=2, signal=3.0)
    noise = np.random.default_rng(0).standard_normal((recording.n_samples, 3)).astype(np.float32)
    recording = make_recording(
        np.hstack([recording.activity, noise]), recording.times_s, stimulus=recording.stimulus
    )
    problem, plan, _ = prepared(recording, folds=3)
    masks = {"cells": np.arange(9) < 6, "noise": np.arange(9) >= 6}
    kwargs = {"size": 2, "n_random": 4}
    rows = subsets(recording, problem, plan, masks, FIELD, **kwargs)  # type: ignore[arg-type]
    again = subsets(recording, problem, plan, masks, FIELD, **kwargs)  # type: ignore[arg-type]
    assert rows == again
    error = {
        name: np.mean([r.value for r in rows if (r.subset, r.metric) == (name, "median error")])
        for name in masks
    }
    assert error["cells"] < 0.8 * error["noise"]
    assert {r.n_channels for r in rows} == {2}
    assert {r.random for r in rows if r.subset == "cells"} == {
        r.random for r in rows if r.subset == "noise"
    }
    alone = subsets(recording, problem, plan, masks, FIELD, n_random=0)
    assert all(np.isnan(r.random) and np.isnan(r.difference_low) for r in alone)
    assert {r.n_random for r in alone} == {0}


def test_an_embedding_of_a_subset_is_trained_on_its_channels_and_folds() -> None:
    recording = session(11, movies=2, repeats=4, frames=16, signal=1.0)
    problem, plan, _ = prepared(recording, folds=2)
    config = TrainConfig(
        encoder=EncoderSpec("offset5-model", 4, 3), n_steps=3, batch_size=32, n_negatives=32
    )
    recording = replace(recording, regions=tuple("abcdef"))
    seen: list[tuple[tuple[str, ...], tuple[str, ...]]] = []

    def trainer(part: Recording, spans: Sequence[NDArray[np.int64]]) -> list[Run]:
        seen.append((part.channels, part.regions))
        return train([part], [with_spans(config, s) for s in spans])

    mask = np.array([True, False, True, True, False, False])
    field = config.encoder.field
    rows = subsets(recording, problem, plan, {"some": mask}, field, n_random=1, trainer=trainer)
    assert seen[0] == (("channel 0", "channel 2", "channel 3"), ("a", "c", "d"))
    assert len(seen) == 2
    part = make_recording(
        recording.activity[:, mask], recording.times_s, stimulus=recording.stimulus
    )
    spans = [training_spans(plan, part.epochs, fold) for fold in range(plan.n_folds)]
    runs = train([part], [with_spans(config, s) for s in spans])
    found = decode_folds(
        [problem],
        plan,
        part.epochs,
        lambda k: features_of(part, plan.spans, spans[k], runs[k]),
    )[0]
    expected = {
        (s.stimulus, s.method, s.metric): s.value
        for s in scores(problem, found)
        if s.method in (EMBEDDING, RAW)
    }
    assert {(r.stimulus, r.method, r.metric): r.value for r in rows} == expected


@pytest.mark.parametrize(
    ("mask", "more", "says"),
    [
        (np.ones(5, bool), {}, "6 channels"),
        (np.zeros(6, bool), {}, "at least 1 of them; found 0"),
        (np.arange(6), {}, "mask over"),
        (np.arange(6) < 2, {"size": 3}, "at least 3 of them; found 2"),
        (np.arange(6) < 4, {"size": 3, "n_random": 0}, "n_random=0"),
    ],
)
def test_subsets_that_are_none_are_refused(
    mask: NDArray[np.bool_], more: dict[str, int], says: str
) -> None:
    recording = session(12, movies=2)
    problem, plan, _ = prepared(recording, folds=2)
    with pytest.raises(DataError, match=says):
        subsets(recording, problem, plan, {"x": mask}, FIELD, **more)  # type: ignore[arg-type]


def test_visual_cortex_tells_the_movie_and_hippocampus_does_not(data_dir: Path) -> None:
    """Neuropixels, natural movie one: 20 repeats of 30 s in bins of a second."""
    file = loadmat(data_dir / "allen-npx-movie" / "prep_data_791319847.mat")
    act = file["act"].transpose(1, 2, 0)  # (repeats, bins, units)
    region = np.array([str(r[0]) for r in file["unit_regs"].ravel()])
    n_repeats, n_bins, n_units = act.shape
    times = np.arange(n_repeats * n_bins, dtype=np.float64)
    table = table_from_intervals(
        times - 0.5, times + 0.5, ["movie"] * len(times), np.tile(np.arange(n_bins), n_repeats)
    )
    recording = make_recording(
        act.reshape(-1, n_units).astype(np.float32),
        times,
        epochs=np.arange(n_repeats)[:, None] * n_bins + [0, n_bins],
        labels={
            name: Label(file[key].ravel().astype(np.float64), "continuous")
            for name, key in (("running", "spd"), ("pupil", "ppw"))
        },
        stimulus=align(times, table),
    )
    problem = frame_problem(recording)
    assert recording.stimulus is not None
    plan = repeat_plan(recording.stimulus, recording.epochs, n_folds=4, seed=0, guard=0)
    now = ReceptiveField(0, 1)
    masks = {name: region == name for name in ("VISp", "CA1")}
    rows = subsets(recording, problem, plan, masks, now, n_random=3)
    by = {(r.subset, r.metric): r for r in rows}
    assert {r.chance for r in rows if r.metric == "median error"} == {7.5}
    assert by["VISp", "median error"].high < 1.0
    assert by["VISp", "accuracy"].low > 0.8
    assert by["VISp", "accuracy"].difference_low > 0  # better than 93 units of anywhere
    assert by["CA1", "median error"].high > 7.0
    assert by["CA1", "accuracy"].low < by["CA1", "accuracy"].chance == pytest.approx(0.1)
    assert by["CA1", "accuracy"].difference_high < -0.3
    samples = np.arange(recording.n_samples)
    z = recording.activity[:, masks["VISp"]]
    features = [Features({EMBEDDING: z}, samples)] * plan.n_folds
    control = behaviour_alone(recording, problem, plan, features, ("running", "pupil"), now)
    assert {d.better for d in control.differences} == {"embedding"}
    alone = next(s for s in control.scores if (s.method, s.metric) == (BEHAVIOUR, "median error"))
    assert alone.value > 5


# --- sample sizes --------------------------------------------------------------------------------
def _ar(rng: np.random.Generator, n: int, keep: float) -> NDArray[np.float64]:
    x = lfilter([1], [1, -keep], rng.standard_normal(n + 1000))
    return np.asarray(x[1000:, None])


def _worth(x: NDArray[np.float64], **more: NDArray[np.generic]) -> float:
    known = more.get("known", np.ones(len(x), bool))
    epochs = more.get("epochs", np.array([[0, len(x)]]))
    return effective_samples(Target(x, np.zeros(x.shape[1])), known, epochs)  # type: ignore[arg-type]


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.9, 0.97])
def test_effective_samples_of_an_autoregressive_series(keep: float) -> None:
    """Its autocorrelation is keep ** lag, so n (1 - keep) / (1 + keep) samples are independent."""
    n = 200_000
    found = _worth(_ar(np.random.default_rng(1), n, keep))
    assert found == pytest.approx(n * (1 - keep) / (1 + keep), rel=0.08)
    assert found <= n


def test_effective_samples_keep_to_their_bounds() -> None:
    rng = np.random.default_rng(2)
    assert _worth(np.full((100, 1), 0.1)) == 1.0
    assert _worth(np.arange(100.0)[:, None]) < 5
    assert _worth(_ar(rng, 5000, -0.9)) == 5000  # never more than there are
    with pytest.raises(DataError, match="found nowhere"):
        _worth(np.zeros((9, 1)), known=np.zeros(9, bool))


def test_effective_samples_by_loops_over_epochs_and_unknown_samples() -> None:
    rng = np.random.default_rng(3)
    n = 240
    epochs = np.array([[0, 100], [110, 240]])
    for target, columns in (
        (Target(x := np.hstack([_ar(rng, n, 0.8), 2 * _ar(rng, n, 0.5)]), np.zeros(2)), x),
        (
            Target(a := np.cumsum(rng.standard_normal((n, 1)), 0) * 20 % 360, np.array([360.0])),
            np.exp(2j * np.pi * a / 360),
        ),
        (
            Target(c := (_ar(rng, n, 0.8) > 0).astype(np.int64), np.zeros(1), 2),
            np.hstack([c == 0, c == 1]).astype(float),
        ),
    ):
        known = rng.random(n) < 0.9
        inside = [t for a, b in epochs for t in range(a, b) if known[t]]
        z = columns - columns[inside].mean(axis=0)
        rho = []
        for lag in range(130):
            products = [
                float((z[t] * z[t + lag].conj()).real.sum())
                for a, b in epochs
                for t in range(a, b - lag)
                if known[t] and known[t + lag]
            ]
            rho.append(float(np.mean(products)) if products else 0.0)
        total, lag = 0.0, 0
        while lag + 1 < len(rho) and rho[lag] + rho[lag + 1] > 0:
            total += (rho[lag] + rho[lag + 1]) / rho[0]
            lag += 2
        worth = len(inside) / max(2 * total - 1, 1.0)
        assert effective_samples(target, known, epochs) == pytest.approx(worth)


def test_sample_sizes_count_repeats_and_samples_of_embedding_and_labels() -> None:
    recording = session(13, movies=2, repeats=7)
    problem, plan, features = prepared(recording, folds=5)
    which = identity_problem(recording)
    scored = np.unique(plan.group[plan.scored])
    unscored = (problem.subset == 1) & np.isin(plan.group, scored[:2])
    plan = replace(plan, tested=plan.tested & ~unscored)
    embedding, frame, stimulus = sample_sizes(recording, [problem, which], plan, features[0])
    shown = int((problem.subset >= 0).sum())
    assert [r.series for r in (embedding, frame, stimulus)] == [EMBEDDING, "frame", "stimulus"]
    for r in (embedding, frame, stimulus):
        assert r.n_samples == shown
        # Of 7, two are set aside, and two of one movie are not scored.
        assert r.n_repeats == (3 if r is frame else 5)
        assert 1 <= r.n_effective < shown / 5
        assert r.memory_s == pytest.approx(shown / r.n_effective / 30.0)
