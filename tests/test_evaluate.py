from __future__ import annotations

import numpy as np
import pytest

from grevy.config import TrainConfig
from grevy.decode import Target
from grevy.encoders import EncoderSpec
from grevy.evaluate import (
    EMBEDDING,
    RAW,
    REDUCED,
    Features,
    Predicted,
    Problem,
    _interval,
    confusion,
    decode_folds,
    differences,
    features_of,
    frame_problem,
    identity_problem,
    label_problem,
    relative_error,
    scores,
)
from grevy.model import embed
from grevy.recording import Label, Recording, make_recording
from grevy.splits import block_plan, choosing_spans, repeat_plan, training_spans
from grevy.training import train
from test_splits import session


def recording_of(activity: np.ndarray, **more: object) -> Recording:
    return make_recording(activity, rate_hz=10.0, **more)  # type: ignore[arg-type]


def _features(values: np.ndarray) -> Features:
    return Features({EMBEDDING: values.astype(np.float32)}, np.arange(len(values)))


def test_frames_written_into_the_features_are_decoded_and_noise_is_not() -> None:
    track = session(10, 2, 40, 8, 0)
    t = len(track.index)
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((t, 6))
    angle = track.frame / 40 * np.pi
    known = np.stack([np.cos(angle), np.sin(angle)], 1) + 0.01 * rng.standard_normal((t, 2))
    recording = recording_of(noise, stimulus=track)
    plan = repeat_plan(track, recording.epochs, n_folds=8, seed=0, guard=5)
    problem = frame_problem(recording)
    for values, good in ((known, True), (noise, False)):
        found = decode_folds([problem], plan, recording.epochs, lambda _, v=values: _features(v))
        rows = [r for r in scores(problem, found[0]) if r.method == EMBEDDING]
        assert len(rows) == 2 * 3
        for row in rows:
            assert row.n_repeats == 8
            if row.metric == "median error":
                assert row.chance == pytest.approx(0.25, abs=0.02)
                assert (row.value < 0.05) if good else (row.value > 0.15)
            elif row.metric == "r2":
                assert (row.value > 0.95) if good else (row.value < 0.2)


def test_every_scored_sample_is_decoded_once_and_never_from_its_own_fold() -> None:
    track = session(6, 2, 20, 6, 1)
    t = len(track.index)
    recording = recording_of(np.random.default_rng(0).standard_normal((t, 3)), stimulus=track)
    plan = repeat_plan(track, recording.epochs, n_folds=4, seed=0, guard=4)
    # Each sample's features name its fold; a decoder that could use its own fold would find itself.
    unique = np.random.default_rng(1).standard_normal((t, 8))
    problem = frame_problem(recording)
    found = decode_folds([problem], plan, recording.epochs, lambda _: _features(unique))[0]
    assert sorted(found.samples) == list(np.flatnonzero(plan.fold >= 0))
    exact = found.values[EMBEDDING][:, 0] == problem.target.values[found.samples, 0]
    assert exact.mean() < 0.3


def test_baselines_see_training_spans_only() -> None:
    track = session(6, 2, 20, 6, 1)
    t = len(track.index)
    x = np.random.default_rng(0).standard_normal((t, 5)).astype(np.float32)
    recording = recording_of(x, stimulus=track)
    plan = repeat_plan(track, recording.epochs, n_folds=4, seed=0, guard=4)
    spans = training_spans(plan, recording.epochs, 0)
    config = TrainConfig(
        encoder=EncoderSpec("offset5-model", 4, 3), n_steps=2, batch_size=32, n_negatives=32,
        train_on=tuple((int(a), int(b)) for a, b in spans),
    )  # fmt: skip
    run = train([recording], [config])[0]
    before = features_of(recording, plan.spans, spans, run)
    changed = x.copy()
    changed[plan.fold == 0] += 100.0
    after = features_of(recording_of(changed, stimulus=track), plan.spans, spans, run)
    rows = plan.fold[before.samples] != 0
    for method in (EMBEDDING, RAW, REDUCED):
        assert (before.values[method][rows] == after.values[method][rows]).all()
    assert before.values[RAW].shape[1] == 5 * 5
    assert before.values[REDUCED].shape[1] == 3


def test_each_presentation_is_embedded_alone() -> None:
    track = session(3, 1, 20, 0, 1)
    x = np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32)
    recording = recording_of(x, stimulus=track)
    plan = repeat_plan(track, recording.epochs, n_folds=3, seed=0, guard=0)
    config = TrainConfig(encoder=EncoderSpec("offset10-model", 4, 3), n_steps=1, batch_size=8)
    run = train([recording], [config])[0]
    f = features_of(recording, plan.spans, recording.epochs, run, baselines=False)
    for a, b in plan.spans:
        alone = embed(run, recording_of(x[a:b])).values
        np.testing.assert_allclose(f.values[EMBEDDING][a:b], alone, atol=1e-6)


def test_intervals_are_t_intervals() -> None:
    values = np.array([1.0, 2.0, 3.0, 6.0])
    mean, low, high = _interval(values)
    half = 3.182446 * values.std(ddof=1) / 2
    assert (mean, low, high) == pytest.approx((3.0, 3.0 - half, 3.0 + half), rel=1e-5)
    assert np.isnan(_interval(values[:2])[1])


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
    assert {r.metric for r in rows} == {"r2", "median error", "accuracy"}
    assert {r.better for r in rows} == {verdict}
    same = [r for r in differences(problem, _predicted(problem, 0.3, 0.3)) if r.baseline == RAW]
    assert sum(r.better == "undecided" for r in same) >= 2


def test_pooled_r2_is_the_score_and_chance_is_the_mean() -> None:
    y = np.random.default_rng(1).standard_normal((800, 1))
    problem = Problem("x", Target(y, np.zeros(1)), np.zeros(800, np.int64), ("",), "m", (0.2,))
    p = _predicted(problem, 0.3, 0.5)
    row = next(r for r in scores(problem, p) if r.metric == "r2" and r.method == EMBEDDING)
    said = p.values[EMBEDDING]
    assert row.value == pytest.approx(1 - ((y - said) ** 2).sum() / ((y - y.mean()) ** 2).sum())
    assert row.chance == pytest.approx(0.0, abs=1e-9)
    assert row.low < row.value < row.high


def test_labels_keep_their_kind_period_and_unknown_samples() -> None:
    known = np.array([True] * 90 + [False] * 10)
    angle = Label(np.linspace(0, 6.2, 100), "continuous", "rad", 2 * np.pi, known)
    problem = label_problem("angle", angle)
    assert (problem.subset[90:] == -1).all()
    assert problem.tolerance == (pytest.approx(0.05 * 2 * np.pi),)
    side = Label(np.array([3, 7] * 50), "discrete")
    problem = label_problem("side", side)
    assert problem.target.n_classes == 2
    assert set(problem.target.values[:, 0]) == {0, 1}


def test_identity_and_confusion_count_every_sample() -> None:
    track = session(6, 3, 20, 6, 1)
    t = len(track.index)
    recording = recording_of(np.random.default_rng(0).standard_normal((t, 3)), stimulus=track)
    plan = repeat_plan(track, recording.epochs, n_folds=4, seed=0, guard=4)
    problem = identity_problem(recording)
    values = np.eye(4)[track.index] + 0.01 * np.random.default_rng(0).standard_normal((t, 4))
    found = decode_folds([problem], plan, recording.epochs, lambda _: _features(values))[0]
    row = next(r for r in scores(problem, found) if r.method == EMBEDDING)
    assert row.value == 1.0
    assert row.chance == pytest.approx(1 / 3)
    table = np.array(confusion(problem, found, track.names).counts)
    assert table.sum() == (plan.fold >= 0).sum()
    assert (table == np.diag(np.diag(table))).all()


def test_choosing_uses_nothing_that_is_scored() -> None:
    track = session(10, 2, 20, 6, 1)
    t = len(track.index)
    recording = recording_of(np.random.default_rng(0).standard_normal((t, 3)), stimulus=track)
    plan = repeat_plan(track, recording.epochs, n_folds=8, seed=0, guard=4)
    problem = frame_problem(recording)
    spans = choosing_spans(plan, recording.epochs, 0)
    values = np.random.default_rng(1).standard_normal((t, 5))
    before = relative_error(problem, plan, 0, _features(values), spans)
    values[plan.fold >= 0] += 1000.0
    assert relative_error(problem, plan, 0, _features(values), spans) == before


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
