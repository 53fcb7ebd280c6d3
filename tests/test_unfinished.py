"""Training that was ended goes on from its checkpoint, and ends as if it had not been."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import twins
from grevy import stack
from grevy.config import Adam, TrainConfig
from grevy.encoders import EncoderSpec
from grevy.errors import ConfigError, DivergedError, LimitError
from grevy.masks import Mask
from grevy.model import Run
from grevy.pairs import ClassPairs, DeltaPairs, HybridPairs, TimePairs
from grevy.recording import Label, Recording, make_recording
from grevy.store import load
from grevy.training import adapt, resume, train
from grevy.unfinished import Checkpoint

CONFIG = TrainConfig(
    TimePairs((2,)), EncoderSpec("offset5-model", 8, 3), learning_rate=3e-3, batch_size=16,
    n_steps=23, precision="float32",
)  # fmt: skip
HOT = replace(CONFIG, learning_rate=1e30, distance="euclidean")


class Ended(Exception):
    """What stands for the end of a process."""


def recording(seed: int = 0) -> Recording:
    wave = twins.wave(200, 5, seed=seed)
    side = np.random.default_rng(seed).integers(0, 3, 200)
    labels = {**wave.labels, "side": Label(side, "discrete")}
    return make_recording(wave.activity, rate_hz=20.0, labels=labels)


def same(a: Run, b: Run) -> bool:
    """Everything, to the last bit."""
    return (
        a.digest == b.digest
        and a.config == b.config
        and np.array_equal(a.losses, b.losses)
        and np.array_equal(a.temperatures, b.temperatures)
        and (a.temperature, a.seen, a.parent, a.recording_hash, a.n_negatives)
        == (b.temperature, b.seen, b.parent, b.recording_hash, b.n_negatives)
        and a.state is not None
        and b.state is not None
        and all(torch.equal(x, vars(b.state)[n]) for n, x in vars(a.state).items())
    )


@pytest.fixture
def mortal(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Short chunks, and a process that ends after so many steps of any stack."""
    monkeypatch.setattr(stack, "_CHUNK", 4)
    real = stack._Program.step

    def end_after(most: int) -> None:
        left = [most]

        def step(self: Any, now: Any) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise Ended
            real(self, now)

        monkeypatch.setattr(stack._Program, "step", step)

    return end_after


def until_it_ends(
    work: Callable[[Checkpoint], Any], folder: Path, mortal: Callable[[int], None], steps: int
) -> tuple[Any, int]:
    """What work returns at last, each attempt in a process of its own, and the attempts."""
    for attempt in range(1, 50):
        mortal(steps)
        try:
            return work(Checkpoint(folder, every_s=0)), attempt
        except Ended:
            continue
    raise AssertionError("it never ends")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"learn_temperature": True, "min_temperature": 0.999, "scale": "zscore"},
        {"adam": Adam(amsgrad=True, weight_decay=0.01)},
        {"masks": (Mask("timesteps", (0.4,)),)},
        {"pairs": HybridPairs(DeltaPairs(("angle",)), TimePairs((3,)), 2)},
        {"batch_size": None},
        {"precision": "bfloat16"},
    ],
    ids=str,
)
def test_the_end_is_the_same_to_the_last_bit(
    changes: dict[str, Any], tmp_path: Path, mortal: Callable[[int], None]
) -> None:
    configs = [replace(CONFIG, n_steps=14, seed=s, **changes) for s in range(2)]
    whole = train([recording()], configs, device="cpu")
    found, attempts = until_it_ends(
        lambda c: train([recording()], configs, device="cpu", checkpoint=c), tmp_path, mortal, 9
    )
    assert attempts > 1
    assert all(same(a, b) for a, b in zip(found, whole, strict=True))


def test_sessions_shapes_and_other_company_go_on_too(
    tmp_path: Path, mortal: Callable[[int], None]
) -> None:
    recordings = [recording(), recording(1)]
    base = replace(CONFIG, pairs=ClassPairs("side"))
    configs = [base, replace(base, encoder=EncoderSpec("offset5-model", 8, 2)), *(
        replace(base, seed=s) for s in (1, 2)
    )]  # fmt: skip
    whole = train(recordings, configs, device="cpu")
    mortal(30)
    with pytest.raises(Ended):
        train(recordings, configs, device="cpu", checkpoint=Checkpoint(tmp_path, every_s=0))
    mortal(1000)
    order = [3, 1, 2]  # three of them, in another order and in other stacks
    some = [configs[i] for i in order]
    found = train(recordings, some, device="cpu", checkpoint=Checkpoint(tmp_path, every_s=0))
    assert all(same(run, whole[i]) for run, i in zip(found, order, strict=True))


def test_going_on_and_adapting_go_on(tmp_path: Path, mortal: Callable[[int], None]) -> None:
    (first,) = train([recording()], [CONFIG], device="cpu")
    more = resume(first, [recording()], 15, device="cpu")
    found, attempts = until_it_ends(
        lambda c: resume(first, [recording()], 15, device="cpu", checkpoint=c),
        tmp_path / "resume", mortal, 6,
    )  # fmt: skip
    assert attempts > 1
    assert same(found, more)
    mortal(1000)
    other = twins.wave(150, 7, seed=4)
    adapted = adapt(first, [other], CONFIG, device="cpu")
    found, attempts = until_it_ends(
        lambda c: adapt(first, [other], CONFIG, device="cpu", checkpoint=c),
        tmp_path / "adapt", mortal, 6,
    )  # fmt: skip
    assert attempts > 1
    assert same(found, adapted)


def test_parts_of_one_training_are_kept_side_by_side(tmp_path: Path) -> None:
    """As where the number of steps is chosen: parts that go on from one another, in one folder."""

    def parts(checkpoint: Checkpoint | None) -> Run:
        config = replace(CONFIG, scale="zscore")
        (run,) = train([recording()], [config], device="cpu", checkpoint=checkpoint)
        for _ in range(2):
            run = resume(run, [recording()], 5, device="cpu", checkpoint=checkpoint)
        return run

    checkpoint = Checkpoint(tmp_path, every_s=1e9)
    found = parts(checkpoint)
    checkpoint.flush()
    assert len(list(tmp_path.iterdir())) == 1
    assert same(found, parts(None))
    assert same(found, parts(Checkpoint(tmp_path, every_s=0)))


def test_what_is_finished_is_kept_until_it_is_cleared(
    tmp_path: Path, mortal: Callable[[int], None]
) -> None:
    mortal(1000)
    folder = tmp_path / "unfinished"
    checkpoint = Checkpoint(folder, every_s=0)
    (run,) = train([recording()], [CONFIG], device="cpu", checkpoint=checkpoint)
    mortal(0)  # nothing more is trained
    for again in (checkpoint, Checkpoint(folder)):
        assert same(train([recording()], [CONFIG], device="cpu", checkpoint=again)[0], run)
    checkpoint.clear()
    assert not folder.exists()
    with pytest.raises(Ended):
        train([recording()], [CONFIG], device="cpu", checkpoint=checkpoint)


def test_nothing_is_written_before_its_time(tmp_path: Path) -> None:
    rare = Checkpoint(tmp_path / "rare", every_s=3600)
    train([recording()], [CONFIG], device="cpu", checkpoint=rare)
    assert not rare.folder.exists()
    rare.clear()
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="seconds apart"):
            Checkpoint(tmp_path, every_s=wrong)


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "foreign", "another format"])
def test_what_cannot_be_trusted_is_said_and_trained_anew(
    damage: str, tmp_path: Path, mortal: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    config = replace(CONFIG, seed=9) if damage == "foreign" else CONFIG
    mortal(9)
    with pytest.raises(Ended):
        train([recording()], [config], device="cpu", checkpoint=Checkpoint(tmp_path, every_s=0))
    (path,) = tmp_path.iterdir()
    blob = bytearray(path.read_bytes())
    match damage:
        case "flipped":
            blob[-100] ^= 1  # one bit of a weight or of an average
        case "cut":
            del blob[-100:]
        case "empty":
            blob.clear()
        case "another format":
            blob = bytearray(blob.replace(b"grevy-unfinished", b"grevy-unfurnished"[:16]))
    path.write_bytes(blob)
    mortal(1000)
    with caplog.at_level(logging.WARNING, "grevy"):
        (found,) = train(
            [recording()], [CONFIG], device="cpu", checkpoint=Checkpoint(tmp_path, every_s=3600)
        )
    (said,) = caplog.messages
    assert "trained anew" in said
    assert ("other settings or another recording" in said) == (damage == "foreign")
    assert same(found, train([recording()], [CONFIG], device="cpu")[0])


@pytest.mark.parametrize(("how", "threads"), [(signal.SIGINT, 1), (signal.SIGTERM, 2)])
def test_a_signal_is_heard_once_the_state_is_written(
    how: signal.Signals, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("grevy.training.idle_processors", lambda: 2)
    configs = [replace(CONFIG, n_steps=200, seed=s) for s in range(2)]
    whole = train([recording()], configs, device="cpu")
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder, seen = tmp_path / "u", threading.Event()

    def once(_: Any) -> None:
        if not seen.is_set():
            seen.set()
            os.kill(os.getpid(), how)  # as others send it: the main thread hears

    try:
        torch.set_num_threads(threads)
        with pytest.raises(KeyboardInterrupt):
            train(
                [recording()], configs, device="cpu", on_step=once,
                checkpoint=Checkpoint(folder, every_s=3600),
            )  # fmt: skip
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
        left = Checkpoint(folder)._read()
        assert left
        assert any(len(tensors["losses"]) < 200 for _, tensors in left.values())
        found = train([recording()], configs, device="cpu", checkpoint=Checkpoint(folder))
    finally:
        torch.set_num_threads(1)
        signal.signal(signal.SIGTERM, before)
    assert all(same(a, b) for a, b in zip(found, whole, strict=True))


# --- Runs that diverge ---------------------------------------------------------------------------
def test_one_that_diverges_does_not_end_the_others() -> None:
    good = [replace(CONFIG, distance="euclidean", seed=s) for s in range(2)]
    whole = train([recording()], good, device="cpu")
    with pytest.raises(
        DivergedError, match=r"run 2 of 3 did not at step \d+ with learning rate 1e\+30"
    ) as error:
        train([recording()], [good[0], HOT, good[1]], device="cpu")
    one, none, other = error.value.runs
    assert none is None
    assert same(one, whole[0])
    assert same(other, whole[1])


def test_the_last_good_weights_are_kept_and_lead_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack, "_CHUNK", 4)
    real = stack._Program.step

    def fails_at_14(self: Any, now: Any) -> None:
        real(self, now)
        if int(self.number) == 14:
            self.parameters.flat[0, 0] = float("nan")

    config = replace(CONFIG, learn_temperature=True)
    (well,) = train([recording()], [replace(config, n_steps=12)], device="cpu")
    monkeypatch.setattr(stack._Program, "step", fails_at_14)
    checkpoint = Checkpoint(tmp_path, every_s=3600)
    with pytest.raises(DivergedError, match=r"it did not at step 15 .* after 12 steps") as error:
        train([recording()], [config], device="cpu", checkpoint=checkpoint)
    run = error.value.run
    assert run.digest == well.digest
    assert np.array_equal(run.losses, well.losses)
    assert run.temperature == pytest.approx(well.temperature, rel=1e-6)
    checkpoint.clear()
    (path,) = tmp_path.iterdir()
    assert str(path) in str(error.value)
    assert load(path).digest == well.digest
    monkeypatch.setattr(stack._Program, "step", real)
    cooler = replace(config, learning_rate=1e-4)
    onwards = resume(run, [recording()], 5, config=cooler, device="cpu")
    assert len(onwards.losses) == 17


def test_divergence_is_found_by_the_last_update_and_after_a_checkpoint(tmp_path: Path) -> None:
    config = replace(CONFIG, learning_rate=1e39, n_steps=1)
    for _ in range(2):
        with pytest.raises(DivergedError, match=r"at step 0 .*1e"):
            train([recording()], [config], device="cpu", checkpoint=Checkpoint(tmp_path, every_s=0))
    assert not list(tmp_path.glob("unfinished-*"))


def test_memory_that_runs_out_in_training_is_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(stack._Program, "step", full)
    with pytest.raises(LimitError, match="Use a smaller batch_size"):
        train([recording()], [CONFIG], device="cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: not run")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_gpu_goes_on_from_a_checkpoint(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack, "_CHUNK", 40)
    base = replace(CONFIG, n_steps=200, precision=precision)  # type: ignore[arg-type]
    shapes = (EncoderSpec("offset5-model", 16, 6), EncoderSpec("offset10-model", 16, 3))
    # Latents that differ train padded, in one stack; another architecture beside them.
    configs = [base, *(replace(base, seed=s, encoder=e) for s, e in enumerate(shapes))]
    whole = train([recording()], configs, device="cuda")
    seen: list[int] = []

    def end(_: Any) -> None:
        seen.append(1)
        if len(seen) == 5:
            raise Ended

    with pytest.raises(Ended):
        train(
            [recording()], configs, device="cuda", on_step=end,
            checkpoint=Checkpoint(tmp_path, every_s=0),
        )  # fmt: skip
    left = Checkpoint(tmp_path)._read()
    assert any(0 < len(tensors["losses"]) < 200 for _, tensors in left.values())
    found = train([recording()], configs, device="cuda", checkpoint=Checkpoint(tmp_path))
    for ours, theirs in zip(found, whole, strict=True):
        np.testing.assert_allclose(ours.losses, theirs.losses, rtol=1e-5, atol=1e-6)
