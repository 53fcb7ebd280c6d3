"""Where a device has no memory for many at once it takes fewer, and the result is the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import twins
from grevy import decode, model
from grevy.chunks import in_chunks
from grevy.config import TrainConfig
from grevy.decode import neighbours
from grevy.encoders import EncoderSpec
from grevy.errors import LimitError
from grevy.model import embed
from grevy.training import train


def _up_to(most: int, real: Any, size_of: Any) -> Any:
    """A function that has no memory for more than so many at once."""

    def work(*args: Any, **how: Any) -> Any:
        if size_of(*args) > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return real(*args, **how)

    return work


def test_everything_is_done_once_in_order() -> None:
    done: list[int] = []

    def work(a: int, b: int) -> None:
        if b - a > 3:
            raise torch.cuda.OutOfMemoryError
        done.extend(range(a, b))

    in_chunks(41, 16, work, what="rows")
    assert done == list(range(41))
    in_chunks(0, 16, work, what="rows")


def test_not_even_one_is_one_sentence() -> None:
    def work(a: int, b: int) -> None:
        raise torch.cuda.OutOfMemoryError

    with pytest.raises(LimitError, match="rows must fit in the memory of the device one by one"):
        in_chunks(41, 16, work, what="rows")


def test_embedding_halves_its_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    recording = twins.wave(300, 5)
    config = TrainConfig(encoder=EncoderSpec("offset5-model", 8, 3), batch_size=16, n_steps=3)
    (run,) = train([recording], [config], device="cpu")
    whole = embed(run, recording, device="cpu").values
    few = _up_to(60, model.encode, lambda spec, stack, x: x.shape[-2])
    monkeypatch.setattr(model, "encode", few)
    np.testing.assert_allclose(embed(run, recording, device="cpu").values, whole, atol=1e-6)
    monkeypatch.setattr(model, "encode", _up_to(0, model.encode, lambda spec, stack, x: 1))
    with pytest.raises(LimitError, match="windows must fit"):
        embed(run, recording, device="cpu")


def test_neighbours_halve_their_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 200, 3)).astype(np.float32)
    whole = neighbours(a, b, 5, device="cpu")
    few = _up_to(20, decode._top, lambda similar, k: len(similar))
    monkeypatch.setattr(decode, "_top", few)
    assert np.array_equal(neighbours(a, b, 5, device="cpu"), whole)
