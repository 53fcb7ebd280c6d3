from __future__ import annotations

import dataclasses
import sys
import types

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from grevy import evaluate
from grevy.config import TrainConfig
from grevy.decode import predict, tune
from grevy.encoders import EncoderSpec
from grevy.errors import ConfigError, MissingExtraError
from grevy.evaluate import (
    EMBEDDING,
    LINEAR,
    MANIFOLD,
    RAW,
    REDUCED,
    Features,
    decode_folds,
    features_of,
    frame_problem,
    identity_problem,
    label_problem,
    relative_errors,
)
from grevy.linear import best_penalty, fit_and_say
from grevy.model import embed
from grevy.recording import Label, Recording, make_recording
from grevy.scoring import confusion, scores
from grevy.search import with_spans
from grevy.splits import choosing_splits, mask_of, repeat_plan, shuffled_plan, training_spans
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
        assert len(rows) == 2 * 4
        for row in rows:
            assert row.n_repeats == 8
            if row.metric == "median error":
                assert row.chance == pytest.approx(0.25, abs=0.02)
                assert (row.value < 0.05) if good else (row.value > 0.15)
            elif row.metric in ("r2", "rank correlation"):
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
    assert sorted(found.samples) == list(np.flatnonzero(plan.scored))
    exact = found.values[EMBEDDING][:, 0] == problem.target.values[found.samples, 0]
    assert exact.mean() < 0.3


def test_what_is_said_without_a_repeat_is_what_decoders_without_it_say() -> None:
    track = session(6, 2, 20, 6, 3)
    t = len(track.index)
    rng = np.random.default_rng(0)
    recording = recording_of(rng.standard_normal((t, 3)), stimulus=track)
    plan = repeat_plan(track, recording.epochs, n_folds=6, seed=0, guard=0, set_aside=False)
    phase = np.where(track.frame >= 0, track.frame, 0)[:, None] / 20 * np.pi + track.index[:, None]
    x = (np.cos(phase - np.arange(4)) + 0.4 * rng.standard_normal((t, 4))).astype(np.float32)
    for problem in (frame_problem(recording), identity_problem(recording)):
        features = Features({EMBEDDING: x, LINEAR: x}, np.arange(t))
        found = decode_folds([problem], plan, recording.epochs, lambda _, f=features: f)[0]
        for method in (EMBEDDING, LINEAR):
            assert set(found.without[method]) == set(range(6))
        for i in rng.permutation(len(found.samples))[:25]:
            here = (problem.subset == found.subset[i]) & (plan.group >= 0)
            fit = np.flatnonzero(here & (plan.group != found.group[i]))
            settings = tune(x[fit], problem.target, fit, plan.group[fit])
            for g in range(6):
                rest = fit[plan.group[fit] != g]
                said = found.without[EMBEDDING][g][i]
                if g == found.group[i]:
                    assert np.isnan(said).all()
                    continue
                at = [found.samples[i]]
                np.testing.assert_allclose(
                    said, predict(x[rest], rest, x[at], problem.target, settings)[0], atol=1e-6
                )
                penalty = best_penalty(x[fit], fit, plan.group[fit], problem.target)
                np.testing.assert_allclose(
                    found.without[LINEAR][g][i],
                    fit_and_say(x[rest], rest, x[at], problem.target, penalty)[0],
                    atol=1e-5,
                )


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
    changed[plan.tested[0]] += 100.0
    after = features_of(recording_of(changed, stimulus=track), plan.spans, spans, run)
    rows = ~plan.tested[0][before.samples]
    for method in (EMBEDDING, RAW, REDUCED):
        assert (before.values[method][rows] == after.values[method][rows]).all()
    assert before.values[RAW].shape[1] == 5 * 5
    assert before.values[REDUCED].shape[1] == 3


def test_baselines_are_smoothed_as_the_embedding_is() -> None:
    track = session(6, 2, 20, 6, 1)
    x = np.random.default_rng(0).standard_normal((len(track.index), 5))
    recording = recording_of(x, stimulus=track)
    plan = repeat_plan(track, recording.epochs, n_folds=4, seed=0, guard=4)
    config = TrainConfig(encoder=EncoderSpec("offset5-model", 4, 3), n_steps=2, batch_size=32)
    run = train([recording], [config], device="cpu")[0]
    soft = dataclasses.replace(run, config=dataclasses.replace(config, smoothing=2.0))
    train_on = training_spans(plan, recording.epochs, 0)
    plain, smooth = (features_of(recording, plan.spans, train_on, r) for r in (run, soft))
    assert plain.values.keys() == smooth.values.keys()
    for method, values in plain.values.items():
        for a, b in plan.spans:
            here = (plain.samples >= a) & (plain.samples < b)
            expected = gaussian_filter1d(values[here], 2.0, axis=0, mode="nearest")
            if method == EMBEDDING:
                expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
            np.testing.assert_allclose(smooth.values[method][here], expected, atol=1e-5)


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
    assert table.sum() == plan.scored.sum()
    assert (table == np.diag(np.diag(table))).all()


def test_choosing_uses_nothing_that_is_scored() -> None:
    track = session(10, 2, 20, 6, 1)
    t = len(track.index)
    recording = recording_of(np.random.default_rng(0).standard_normal((t, 3)), stimulus=track)
    plan = repeat_plan(track, recording.epochs, n_folds=8, seed=0, guard=4)
    problem = frame_problem(recording)
    split = choosing_splits(plan, recording.epochs)[0]
    values = np.random.default_rng(1).standard_normal((t, 5))
    before, _ = relative_errors(problem, plan, split, _features(values))
    assert len(before) == 2  # a presentation of each movie
    values[plan.scored] += 1000.0
    assert (relative_errors(problem, plan, split, _features(values))[0] == before).all()


def test_an_encoder_that_saw_what_it_is_tested_on_is_refused() -> None:
    track = session(6, 2, 20, 6, 1)
    t = len(track.index)
    x = np.random.default_rng(0).standard_normal((t, 5)).astype(np.float32)
    recording = recording_of(x, stimulus=track)
    plan = repeat_plan(track, recording.epochs, n_folds=4, seed=0, guard=4)
    problem = frame_problem(recording)
    config = TrainConfig(encoder=EncoderSpec("offset5-model", 4, 3), n_steps=2, batch_size=32)
    everything = train([recording], [config])[0]

    def leaky(fold: int) -> Features:
        spans = training_spans(plan, recording.epochs, fold)
        return features_of(recording, plan.spans, spans, everything, baselines=False)

    with pytest.raises(ConfigError, match=r"fold 0 was trained on 40 of its 40 test samples"):
        decode_folds([problem], plan, recording.epochs, leaky)
    first = training_spans(plan, recording.epochs, 0)
    own = train([recording], [with_spans(config, first)])[0]

    def right_once(fold: int) -> Features:  # scaling and PCA of fold 1 would see its test samples
        return features_of(recording, plan.spans, first, own)

    with pytest.raises(ConfigError, match="fold 1 was trained on"):
        decode_folds([problem], plan, recording.epochs, right_once)
    shuffled = shuffled_plan(problem.subset >= 0, recording.epochs, n_folds=4, seed=0)
    assert decode_folds([problem], shuffled, recording.epochs, leaky)  # which says that it leaks


def test_umap_is_a_baseline_fitted_on_training_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    track = session(6, 2, 20, 6, 1)
    x = np.random.default_rng(0).standard_normal((len(track.index), 5)).astype(np.float32)
    recording = recording_of(x, stimulus=track)
    plan = repeat_plan(track, recording.epochs, n_folds=4, seed=0, guard=4)
    spans = training_spans(plan, recording.epochs, 0)
    config = TrainConfig(encoder=EncoderSpec("offset5-model", 4, 3), n_steps=2, batch_size=32)
    run = train([recording], [with_spans(config, spans)])[0]
    seen: list[np.ndarray] = []

    class Umap:
        def __init__(self, **settings: object) -> None:
            assert settings["n_components"] == 3

        def fit(self, x: np.ndarray) -> None:
            seen.append(x)

        def transform(self, x: np.ndarray) -> np.ndarray:
            return x[:, :3]

    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=Umap))
    f = features_of(recording, plan.spans, spans, run, manifold=True)
    trained = mask_of(spans, recording.n_samples)[f.samples]
    np.testing.assert_array_equal(seen[0], f.values[LINEAR][trained])
    assert f.values[MANIFOLD].shape == (len(f.samples), 3)
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(MissingExtraError, match=r"grevy\[umap\]"):
        features_of(recording, plan.spans, spans, run, manifold=True)


@pytest.mark.slow  # it is compiled when it is first used
def test_umap_itself() -> None:
    pytest.importorskip("umap", reason="the umap extra is not installed: not run")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 6)).astype(np.float32)
    a = evaluate._umap(x, np.arange(200), 2, 0)
    np.testing.assert_array_equal(a, evaluate._umap(x, np.arange(200), 2, 0))
    assert a.shape == (300, 2)
    assert np.isfinite(a).all()
