"""Samples are known again wherever they lie; others are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from grevy import store
from grevy.config import TrainConfig
from grevy.encoders import EncoderSpec
from grevy.errors import FormatError
from grevy.prints import _PRINTED, _prints, prints_of, share_seen
from grevy.recording import make_recording
from grevy.training import resume, train


def noise(seed: int, n: int = 2000, channels: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, channels)).astype(np.float32)


def test_a_print_is_of_its_stretch_alone() -> None:
    x = noise(0, 100)
    whole = _prints(x)
    assert len(whole) == 100 - _PRINTED + 1
    assert len(np.unique(whole)) == len(whole)
    for i in (0, 13, len(whole) - 1):
        assert _prints(x[i : i + _PRINTED])[0] == whole[i]
    for row in (0, 5, _PRINTED - 1):
        changed = x[:_PRINTED].copy()
        changed[row, 3] = np.nextafter(changed[row, 3], 9)
        assert _prints(changed)[0] != whole[0]
    for n in range(_PRINTED):
        assert len(_prints(x[:n])) == 0
    turned = x[:_PRINTED][::-1]
    assert _prints(turned)[0] != whole[0]


def test_what_was_printed_is_found_in_parts_and_nowhere_else() -> None:
    x = noise(1)
    seen = prints_of(x, np.array([[0, 1000], [1500, 2000]]))
    assert len(seen) == 64
    assert share_seen(seen, x) == 1.0
    assert share_seen(seen, x[500:]) == pytest.approx(2 / 3, abs=0.05)
    assert share_seen(seen, x[1000:1500]) == 0.0
    assert share_seen(seen, noise(2)) == 0.0
    assert np.isnan(share_seen((), x))


def test_silence_is_no_evidence() -> None:
    counts = np.zeros((500, 4), dtype=np.float32)
    assert prints_of(counts, np.array([[0, 500]])) == ()
    assert prints_of(noise(5), np.array([[0, _PRINTED - 1]])) == ()  # too short to hold one
    counts[250] = 1
    assert len(prints_of(counts, np.array([[0, 500]]))) <= 3


def test_a_run_keeps_prints_of_all_it_was_trained_on(tmp_path: Path) -> None:
    first, second = noise(3, 300), noise(4, 300)
    config = TrainConfig(
        encoder=EncoderSpec("offset5-model", 4, 3), n_steps=2, batch_size=16, train_on=((0, 200),)
    )
    (run,) = train([make_recording(first, rate_hz=10)], [config])
    assert share_seen(run.seen, first[:200]) == 1.0
    assert share_seen(run.seen, first[200:]) == 0.0
    more = resume(run, [make_recording(second, rate_hz=10)], 2)
    assert share_seen(more.seen, first) == share_seen(more.seen, second) == 0.5
    path = store.save(more, tmp_path / "m")
    assert store.load(path).seen == more.seen
    with pytest.raises(FormatError, match="prints"):
        store.load(store.save(replace(more, seen=("x",)), tmp_path / "wrong"))
