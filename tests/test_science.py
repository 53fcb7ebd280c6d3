"""Does it find what is there? A ring is recovered, and labels that say nothing find nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import twins
from grevy.config import TrainConfig
from grevy.encoders import EncoderSpec
from grevy.model import embed, held_out_bits
from grevy.pairs import NearPairs, Pairs, TimePairs
from grevy.recording import Label, Recording
from grevy.training import train

N, CUT = 6000, 4500
TRAIN, TEST = ((0, CUT),), np.array([[CUT, N]])
BASE = TrainConfig(
    encoder=EncoderSpec("offset10-model", hidden=24, latents=3),
    temperature=0.3,
    learning_rate=3e-3,
    batch_size=256,
    n_negatives=256,
    n_steps=400,
    block=8,
    train_on=TRAIN,
)


def ring() -> Recording:
    """An angle that wanders, in Poisson counts of neurons tuned to it."""
    rec = twins.wave(N, 30, seed=5)
    rng = np.random.default_rng(6)
    rates = np.clip(rec.activity, 0, None) * 3
    return replace(rec, activity=rng.poisson(rates).astype(np.float32))


def angle_error(rec: Recording, pairs: Pairs) -> tuple[float, float]:
    """Median error in degrees of nearest-neighbour decoding on the last quarter, and its bits."""
    run = train([rec], [replace(BASE, pairs=pairs)], device="cpu")[0]
    truth = np.asarray(rec.labels["truth"].values)
    known = embed(run, rec, spans=np.array(TRAIN), device="cpu")
    new = embed(run, rec, spans=TEST, device="cpu")
    near = np.argsort(-(new.values @ known.values.T), axis=1)[:, :15]
    votes = np.exp(1j * truth[known.samples][near]).sum(1)
    wrong = np.angle(votes * np.exp(-1j * truth[new.samples]))
    bits = held_out_bits(run, rec, TEST, n=1024, rounds=2)
    return float(np.degrees(np.median(np.abs(wrong)))), bits


@pytest.fixture(scope="module")
def recording() -> Recording:
    torch.set_num_threads(1)
    rec = ring()
    angle = rec.labels["angle"]
    shuffled = np.random.default_rng(7).permutation(np.asarray(angle.values))
    labels = {
        "angle": angle,
        "truth": angle,
        "shuffled": Label(shuffled, "continuous", "rad", period=2 * np.pi),
    }
    return replace(rec, labels=labels)


@pytest.mark.parametrize(
    ("pairs", "floor_bits"),
    [(TimePairs((3,)), 1.5), (NearPairs(("angle",), sd=0.2), 1.5)],
    ids=["time", "angle"],
)
def test_a_ring_is_recovered(recording: Recording, pairs: Pairs, floor_bits: float) -> None:
    error, bits = angle_error(recording, pairs)
    assert error < 8  # degrees; chance is 90
    assert bits > floor_bits


def test_shuffled_labels_find_nothing(recording: Recording) -> None:
    error, bits = angle_error(recording, NearPairs(("shuffled",), sd=0.2))
    assert bits < 0.05
    assert error > 20
