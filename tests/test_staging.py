"""Samples brought to a device for some steps at a time give the same run, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from grevy import CEBRA, stack
from grevy.config import TrainConfig
from grevy.drawing import Segments
from grevy.encoders import EncoderSpec
from grevy.loading import arrays, load_data
from grevy.model import embed, fingerprint
from grevy.pairs import DeltaPairs, HybridPairs, Pairs, TimePairs
from grevy.recording import Label, make_recording, mean_and_sd, not_finite
from grevy.staging import fits, needed
from grevy.training import train
from grevy.windows import ReceptiveField, dense_rows

PAIRS: dict[str, Pairs] = {
    "time": TimePairs((10,)),
    "times": TimePairs((1, 7)),
    "behavior": DeltaPairs(("angle",), 3),
    "hybrid": HybridPairs(DeltaPairs(("angle",), 3), TimePairs((2,))),
}


def _session(seed: int, n: int = 3000) -> Any:
    rng = np.random.default_rng(seed)
    angle = np.cumsum(rng.normal(0.05, 0.05, n))
    x = np.cos(angle[:, None] - np.arange(5)) + 0.3 * rng.standard_normal((n, 5))
    labels = {"angle": Label(angle, "continuous")}
    return make_recording(x, rate_hz=20, epochs=[[0, 900], [900, n]], labels=labels)


def test_windows_of_staged_samples_are_what_they_were() -> None:
    rng = torch.Generator().manual_seed(0)
    samples = torch.randn(500, 3, generator=rng)
    field = ReceptiveField(3, 4)
    groups = [
        Segments(torch.randint(3, 480, (4, 9), generator=rng), 1),
        Segments(torch.randint(3, 480, (4, 5), generator=rng), 12),
    ]
    rows, starts = needed(groups, field, 500)
    assert (rows.diff() > 0).all()
    compact = samples[rows]
    assert len(rows) < 500
    for group, start in zip(groups, starts, strict=True):
        there = samples[dense_rows(group.start, group.outputs, field, 500)]
        here = compact[dense_rows(start, group.outputs, field, len(rows))]
        assert torch.equal(there, here)


def test_segments_that_reach_over_an_end_leave_the_rest_alone() -> None:
    samples, field = torch.randn(60, 2), ReceptiveField(3, 4)
    group = Segments(torch.tensor([[3, 55]]), 8)
    rows, (start,) = needed([group], field, 60)
    compact = samples[rows]
    there = samples[dense_rows(group.start, 8, field, 60)]
    here = compact[dense_rows(start, 8, field, len(rows))]
    inside = group.start[:, None] + torch.arange(14)[:, None] - 3 < 60
    assert torch.equal(there[inside], here[inside])


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("block", [1, 8])
def test_staged_training_is_training(
    kind: str, precision: Any, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = [_session(0), _session(1)] if kind == "behavior" else [_session(0)]
    configs = [
        TrainConfig(
            PAIRS[kind], EncoderSpec("offset5-model", 6, 4), batch_size=16, n_steps=20,
            block=block, seed=seed, precision=precision, scale="zscore",
        )
        for seed in (0, 1)
    ]  # fmt: skip
    plain = train(sessions, configs, device="cpu")
    staged = [0]

    def none_fits(n_bytes: int, where: torch.device) -> bool:
        staged[0] += 1
        return False

    monkeypatch.setattr(stack, "fits", none_fits)
    monkeypatch.setattr(stack, "_STAGE", 2**14)  # a few steps at a time
    for ours, theirs in zip(train(sessions, configs, device="cpu"), plain, strict=True):
        np.testing.assert_array_equal(ours.losses, theirs.losses)
        assert ours.digest == theirs.digest
    assert staged[0] == len(sessions)


def test_a_recording_on_the_host_fits() -> None:
    assert fits(2**60, torch.device("cpu"))


def _on_disk(path: Path, n: int = 4000) -> np.ndarray:
    rng = np.random.default_rng(3)
    x = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n, 6))
    x[:] = np.cumsum(rng.standard_normal((n, 6)), axis=0) * 0.1 + 5
    x.flush()
    return x


def test_a_mapped_array_is_used_where_it_lies(tmp_path: Path) -> None:
    _on_disk(tmp_path / "x.npy")
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    recording = make_recording(mapped, rate_hz=30.0)
    assert np.shares_memory(recording.activity, mapped)
    loaded = make_recording(np.array(mapped), rate_hz=30.0)
    assert fingerprint(recording) == fingerprint(loaded)
    config = TrainConfig(
        TimePairs((5,)), EncoderSpec("offset5-model", 8, 3), batch_size=32, n_steps=20,
        scale="zscore",
    )  # fmt: skip
    ours, theirs = train([recording], [config])[0], train([loaded], [config])[0]
    assert ours.digest == theirs.digest
    np.testing.assert_array_equal(embed(ours, recording).values, embed(theirs, loaded).values)


def test_the_estimator_takes_a_mapped_array(tmp_path: Path) -> None:
    _on_disk(tmp_path / "x.npy")
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    how = {"max_iterations": 10, "random_state": 0, "batch_size": 64}
    z = CEBRA(**how).fit(mapped).transform(mapped)
    np.testing.assert_array_equal(z, CEBRA(**how).fit(np.array(mapped)).transform(np.array(mapped)))


def test_a_large_npy_file_is_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = _on_disk(tmp_path / "x.npy")
    assert not isinstance(load_data(tmp_path / "x.npy"), np.memmap)
    monkeypatch.setattr(arrays, "_MAPPED", 1000)
    mapped = load_data(tmp_path / "x.npy")
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(mapped, x)
    with open(tmp_path / "x.npy", "ab") as file:
        file.write(b"more")
    with pytest.raises(OSError, match="bytes"):
        load_data(tmp_path / "x.npy")


def test_values_that_are_not_finite_are_found_piece_by_piece(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("grevy.recording._PIECE", 40)
    x = np.zeros((100, 4))
    assert not_finite(x) == (0, (0, 0))
    x[57, 2], x[80, 0] = np.nan, np.inf
    assert not_finite(x) == (2, (57, 2))


def test_mean_and_sd_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).standard_normal((1000, 3)).astype(np.float32) + 30000
    x[:, 1] = 0.1
    spans = np.array([[10, 400], [500, 990]])
    whole = np.concatenate([x[a:b] for a, b in spans]).astype(np.float64)
    monkeypatch.setattr("grevy.recording._PIECE", 100)
    mean, sd = mean_and_sd(x, spans)
    np.testing.assert_allclose(mean, whole.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(sd[[0, 2]], whole.std(axis=0)[[0, 2]], rtol=1e-9)
    assert sd[1] == 0
