"""Extreme recordings and settings end in finite numbers or in an error, never in silent NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from grevy.config import TrainConfig
from grevy.encoders import EncoderSpec
from grevy.errors import DataError, DivergedError
from grevy.model import embed, held_out_bits
from grevy.recording import Recording, make_recording
from grevy.training import train

BASE = np.random.default_rng(0).normal(size=(160, 5)).astype(np.float32)
ACTIVITY = {
    "1e30": BASE * np.float32(1e30),
    "largest": BASE / np.abs(BASE).max() * np.float32(3e38),
    "1e-38": BASE * np.float32(1e-38),
    "constant": np.full_like(BASE, 3),
    "zero": np.zeros_like(BASE),
    "a constant channel": np.concatenate([BASE[:, :4], np.full((160, 1), 7, np.float32)], axis=1),
    "one sample of 1e20": np.where(np.arange(160)[:, None] == 80, np.float32(1e20), BASE),
    "far from zero": BASE + np.float32(1e7),
}


def outcome(activity: np.ndarray, **settings: Any) -> str:
    """How training and embedding end; whatever is returned must be finite and of unit length."""
    recording: Recording = make_recording(activity, rate_hz=20.0)
    config = TrainConfig(
        encoder=EncoderSpec("offset5-model", 8, 3), batch_size=16, n_steps=8, **settings
    )
    try:
        (run,) = train([recording], [config], device="cpu")
    except DivergedError:
        return "diverged"
    for numbers in (run.losses, run.temperatures, *(w.numpy() for w in run.sessions[0].weights)):
        assert np.isfinite(numbers).all()
    try:
        values = embed(run, recording, device="cpu").values
    except (DataError, DivergedError):
        return "refused"
    np.testing.assert_allclose(np.linalg.norm(values, axis=1), 1, atol=1e-5)
    spans = np.array([[100, 160]])
    assert np.isfinite(held_out_bits(run, recording, spans, n=32, n_references=16, device="cpu"))
    return "finite"


@pytest.mark.parametrize("scale", ["none", "zscore"])
@pytest.mark.parametrize("name", ACTIVITY)
def test_extreme_activity(name: str, scale: str) -> None:
    how = outcome(ACTIVITY[name], scale=scale)
    if scale == "zscore":
        assert how == "finite"
    else:
        assert (how != "finite") == (name in ("1e30", "largest", "one sample of 1e20"))


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("temperature", [1e-6, 1e-3, 1e3, 1e6])
def test_extreme_temperatures(temperature: float, distance: str) -> None:
    assert outcome(BASE, temperature=temperature, distance=distance) == "finite"


@pytest.mark.parametrize("learn", [False, True])
@pytest.mark.parametrize("rate", [1.0, 1e3, 1e6, 1e30])
def test_extreme_learning_rates(rate: float, learn: bool) -> None:
    how = outcome(BASE, learning_rate=rate, learn_temperature=learn)
    assert (how == "finite") == (rate == 1 or (rate == 1e3 and not learn))


def test_large_activity_is_named_where_training_diverges() -> None:
    recording = make_recording(ACTIVITY["largest"], rate_hz=20.0)
    config = TrainConfig(
        encoder=EncoderSpec("offset10-model-mse", 8, 3), distance="euclidean", batch_size=16,
        n_steps=8,
    )  # fmt: skip
    with pytest.raises(DivergedError, match=r"scale the activity, which reaches 3e\+38"):
        train([recording], [config], device="cpu")
