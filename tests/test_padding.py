"""Runs of different latents as one stack: each is the run that it is by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import twins
from grevy import training
from grevy.config import Adam, TrainConfig
from grevy.encoders import EncoderSpec
from grevy.masks import Mask
from grevy.model import Run
from grevy.padding import alike, cut, padded
from grevy.pairs import DeltaPairs, HybridPairs, TimePairs
from grevy.recording import Label, Recording, make_recording
from grevy.stack import Activity, Prepared, shape, train_stack
from grevy.training import resume, train

QUICK = TrainConfig(
    TimePairs((3,)), EncoderSpec("offset10-model", 8, 3), learning_rate=3e-3, batch_size=32,
    n_steps=20, precision="float32",
)  # fmt: skip
LATENTS = (3, 7, 2)


def _recordings(n: int) -> list[Recording]:
    made = []
    for seed in range(n):
        wave = twins.wave(300, 6, seed=seed)
        label = Label(np.cumsum(np.random.default_rng(seed).normal(size=300)), "continuous")
        made.append(make_recording(wave.activity, rate_hz=20.0, labels={"place": label}))
    return made


def _prepared(recordings: list[Recording], config: TrainConfig) -> list[Prepared]:
    found = []
    for seed, latents in enumerate(LATENTS):
        own = replace(config, encoder=replace(config.encoder, latents=latents), seed=seed)  # type: ignore[type-var]
        weights = [
            training.initial_weights(own.encoder, r.n_channels, own.seed, session=s)
            for s, r in enumerate(recordings)
        ]
        found.append(training._prepare(recordings, own, weights))
    return found


def _together(recordings: list[Recording], prepared: list[Prepared]) -> list[Run]:
    activity = [Activity(torch.from_numpy(r.activity), torch.device("cpu")) for r in recordings]
    trained = train_stack(activity, padded(prepared), "", lambda steps, progress: None)
    return [cut(run, own) for run, own in zip(trained, prepared, strict=True)]


@pytest.mark.parametrize("n_sessions", [1, 2])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"distance": "euclidean", "learn_temperature": True},
        {"adam": Adam(amsgrad=True, weight_decay=0.01), "learn_temperature": True},
        {"masks": (Mask("neurons", (0.5,)),)},
    ],
)
def test_a_padded_run_is_the_run_alone(n_sessions: int, more: dict[str, Any]) -> None:
    recordings = _recordings(n_sessions)
    pairs = TimePairs((3,)) if n_sessions == 1 else DeltaPairs(("place",), 3)
    prepared = _prepared(recordings, replace(QUICK, pairs=pairs, **more))
    for run, own in zip(_together(recordings, prepared), prepared, strict=True):
        (expected,) = train(recordings, [own.config], device="cpu")
        assert run.config == expected.config
        np.testing.assert_allclose(run.losses, expected.losses, rtol=1e-5, atol=1e-6)
        for mine, theirs in zip(run.sessions, expected.sessions, strict=True):
            for a, b in zip(mine.weights, theirs.weights, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        assert run.state is not None
        assert expected.state is not None
        torch.testing.assert_close(run.state.momentum, expected.state.momentum, atol=1e-5, rtol=0)
        torch.testing.assert_close(run.state.square, expected.state.square, atol=1e-6, rtol=0)
        assert len(run.state.largest) == len(expected.state.largest)
        # What was cut can go on by itself.
        again, as_expected = (resume(r, recordings, 3, device="cpu") for r in (run, expected))
        np.testing.assert_allclose(again.losses, as_expected.losses, rtol=1e-4, atol=1e-5)


def test_what_is_alike_may_be_stacked() -> None:
    recordings = _recordings(1)
    few, many, other = _prepared(recordings, QUICK)
    assert len({shape(alike(run)) for run in (few, many, other)}) == 1
    assert len({shape(run) for run in (few, many, other)}) == 3
    assert padded([few]) == [few]


@pytest.mark.parametrize(
    "changed",
    [
        {"encoder": EncoderSpec("offset1-model-mse", 8, 3)},  # latents set the width of its layers
        {"encoder": EncoderSpec("offset36-model-dropout", 8, 3)},
        {"pairs": HybridPairs(DeltaPairs(("place",), 3), TimePairs((3,)), behavior_latents=2)},
    ],
)
def test_what_cannot_be_padded_is_left_alone(changed: dict[str, Any]) -> None:
    for run in _prepared(_recordings(1), replace(QUICK, **changed)):
        assert alike(run) is run


def test_runs_that_go_on_are_left_alone() -> None:
    recordings = _recordings(1)
    (run,) = train(recordings, [QUICK], device="cpu")
    own = replace(_prepared(recordings, QUICK)[0], start=run)
    assert alike(own) is own
