"""Every kind of pair with every architecture: it trains, all of it, and devices agree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from grevy.config import TrainConfig
from grevy.encoders import ARCHITECTURES as ARCHITECTURES_BY_NAME
from grevy.encoders import EncoderSpec
from grevy.model import embed, held_out_bits
from grevy.pairs import (
    ClassPairs,
    DeltaPairs,
    HybridPairs,
    MixedPairs,
    NearPairs,
    Pairs,
    TimePairs,
)
from grevy.recording import Label, Recording, make_recording
from grevy.training import train

KINDS: dict[str, Pairs] = {
    "time": TimePairs((3,)),
    "times": TimePairs((2, 40)),
    "far": TimePairs((60,)),
    "delta": DeltaPairs(("angle",), 3),
    "plane": DeltaPairs(("plane", "angle"), 3),
    "near": NearPairs(("angle",), 0.1),
    "class": ClassPairs("quadrant"),
    "balanced": ClassPairs("quadrant", balanced=True),
    "hybrid": HybridPairs(DeltaPairs(("angle",), 3), TimePairs((3,))),
}
ARCHITECTURES = ("offset1-model", "offset5-model", "offset10-model")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: not run")


def turning() -> Recording:
    """A population tuned to an angle, in three stretches."""
    rng = np.random.default_rng(0)
    angle = np.cumsum(rng.normal(0.05, 0.05, 1500))
    cells = np.linspace(0, 2 * np.pi, 9, endpoint=False)
    x = np.exp(np.cos(angle[:, None] - cells)) + 0.1 * rng.standard_normal((1500, 9))
    around = np.mod(angle, 2 * np.pi)
    labels = {
        "angle": Label(around, "continuous", "rad", 2 * np.pi),
        "plane": Label(np.stack([np.cos(angle), np.sin(angle)], 1), "continuous"),
        "quadrant": Label((around // (np.pi / 2)).astype(np.int64), "discrete"),
    }
    return make_recording(x, rate_hz=20, epochs=[[0, 500], [500, 900], [900, 1500]], labels=labels)


def config_of(kind: str, architecture: str) -> TrainConfig:
    return TrainConfig(
        pairs=KINDS[kind], encoder=EncoderSpec(architecture, 8, 4), learning_rate=1e-2,
        batch_size=64, n_negatives=48, n_steps=30, block=16, scale="zscore",
        precision="float32",
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_trains_every_weight_and_embeds_every_sample(kind: str, architecture: str) -> None:
    recording, config = turning(), config_of(kind, architecture)
    first = train([recording], [replace(config, n_steps=1)])[0]
    run = train([recording], [config])[0]
    assert all(
        (a != b).any()
        for a, b in zip(first.sessions[0].weights, run.sessions[0].weights, strict=True)
    )
    embedding = embed(run, recording)
    assert embedding.values.shape == (1500, 4)
    assert list(embedding.samples) == list(range(1500))
    assert embedding.padded.sum() == 3 * (len(config.encoder.field) - 1)
    np.testing.assert_allclose(np.linalg.norm(embedding.values, axis=1), 1, atol=1e-5)
    assert run.history.shape == (30, 2)
    assert np.isfinite(held_out_bits(run, recording, np.array([[900, 1500]]), n=128))


@needs_cuda
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_cuda_trains_as_the_cpu_does(kind: str, architecture: str) -> None:
    recording, config = turning(), config_of(kind, architecture)
    here = train([recording], [config], device="cpu")[0]
    there = train([recording], [config], device="cuda")[0]
    np.testing.assert_allclose(there.history, here.history, atol=2e-2)
    z = [embed(r, recording, device=d).values for r, d in ((here, "cpu"), (here, "cuda"))]
    np.testing.assert_allclose(z[0], z[1], atol=1e-4)


OTHERS = (
    "offset36-model",
    "offset36-model-more-dropout",
    "offset10-model-mse",
    "offset1-model-v4",
    "offset1-model-mse-tanh",
    "offset1-model-mse-resnet-2layers",
    "offset4-model-2x-subsample",
    "offset20-model-4x-subsample",
)
MIXED: dict[str, Pairs] = {
    "mixed": MixedPairs(DeltaPairs(("angle",), 3), "quadrant"),
    "mixed near": MixedPairs(NearPairs(("plane",), 0.3), "quadrant", balanced=False),
    "mixed hybrid": HybridPairs(MixedPairs(NearPairs(("angle",), 0.2), "quadrant"), TimePairs()),
}


@pytest.mark.parametrize("kind", ["time", *MIXED])
@pytest.mark.parametrize("architecture", OTHERS)
def test_other_architectures_train_and_embed_two_sessions(kind: str, architecture: str) -> None:
    pairs = {**KINDS, **MIXED}[kind]
    spec = EncoderSpec(architecture, 8, 4)
    normalised = ARCHITECTURES_BY_NAME[architecture].normalise
    config = replace(
        config_of("time", "offset1-model"),
        encoder=spec, pairs=pairs, n_steps=4, batch_size=16, n_negatives=12,
        distance="cosine" if normalised else "euclidean",
    )  # fmt: skip
    recordings = [turning()] if kind == "time" else [turning(), turning()]
    first = train(recordings, [replace(config, n_steps=1)])[0]
    run = train(recordings, [config])[0]
    for s, rec in enumerate(recordings):
        for a, b in zip(first.sessions[s].weights, run.sessions[s].weights, strict=True):
            assert (a != b).any()
        found = embed(run, rec, session=s)
        every = [i for a, b in rec.epochs.tolist() for i in range(a, b, spec.factor)]
        assert found.samples.tolist() == every
        assert found.values.shape == (len(every), 4)
        assert np.isfinite(found.values).all()
        if normalised:
            np.testing.assert_allclose(np.linalg.norm(found.values, axis=1), 1, atol=1e-5)
    stretches = [np.array([[900, 1500]])] * len(recordings)
    assert np.isfinite(held_out_bits(run, recordings, stretches, n=64, n_references=64))
