"""Steps from a table of draws: the same numbers as steps one by one, whatever is drawn."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from grevy import stack
from grevy.config import Adam, TrainConfig
from grevy.custom import ModuleSpec
from grevy.drawing import Draw, Segments
from grevy.encoders import EncoderSpec
from grevy.errors import DivergedError
from grevy.masks import Mask
from grevy.model import Run
from grevy.pairs import ClassPairs, DeltaPairs, HybridPairs, Pairs, TimePairs
from grevy.playback import at, lane, later, pack, stacked, unpack
from grevy.recording import Label, Recording, make_recording
from grevy.training import resume, train
from grevy.windows import ReceptiveField

HERE = torch.device("cpu")
PAIRS: dict[str, Pairs] = {
    "time": TimePairs((10,)),
    "times": TimePairs((1, 7)),
    "behavior": DeltaPairs(("angle",), 3),
    "class": ClassPairs("side"),
    "hybrid": HybridPairs(DeltaPairs(("angle",), 3), TimePairs((2,))),
}
MASKS = (Mask("neurons", (0.2, 0.5)), Mask("time_block", (0.4,), span=2))
WINDOWED: dict[str, Callable[[TrainConfig], TrainConfig]] = {
    "": lambda config: config,
    "masks": lambda config: replace(config, block=1, masks=MASKS),
    "dropout": lambda config: replace(
        config, block=1, encoder=replace(config.encoder, architecture="offset36-model-dropout")
    ),
}
"""What is drawn of every window besides its place."""


def _session(seed: int) -> Recording:
    rng = np.random.default_rng(seed)
    angle = np.cumsum(rng.normal(0.05, 0.05, 400))
    x = np.cos(angle[:, None] - np.arange(5)) + 0.3 * rng.standard_normal((400, 5))
    labels = {
        "angle": Label(angle, "continuous"),
        "side": Label((np.sin(angle) > 0).astype(np.int64), "discrete"),
    }
    return make_recording(x, rate_hz=20, epochs=[[0, 150], [150, 400]], labels=labels)


def _random_draw(*, others: int) -> Draw:
    def some(n: int) -> torch.Tensor:
        return torch.randint(0, 1000, (6, n))

    reference = some(8)
    return Draw(
        (Segments(some(5), 3), Segments(some(7), 1, 1)),
        reference,
        (some(8), some(8)),
        reference if others else some(11),
        others,
    )


@pytest.mark.parametrize("others", [0, 4])
def test_a_row_of_the_table_is_the_step_it_was_made_of(others: int) -> None:
    both = stacked([_random_draw(others=others) for _ in range(3)])
    rows = pack(both)
    assert rows.shape[0] == 6
    for i in (0, 3, 5):
        found, expected = unpack(rows[i], both), at(both, i, HERE)
        assert found.others == others
        for a, b in (
            (found.reference, expected.reference),
            (found.negative, expected.negative),
            *zip(found.positives, expected.positives, strict=True),
            *((g.start, h.start) for g, h in zip(found.groups, expected.groups, strict=True)),
        ):
            assert torch.equal(a, b)
        assert [(g.outputs, g.session) for g in found.groups] == [(3, 0), (1, 1)]


@pytest.mark.parametrize(
    ("kind", "block", "windowed"),
    [
        *itertools.product(PAIRS, (1, 8), ("",)),
        ("time", 1, "masks"),
        ("hybrid", 1, "masks"),
        ("behavior", 1, "dropout"),
    ],
)
def test_played_steps_are_steps(
    kind: str, block: int, windowed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = [_session(0)] if kind in ("time", "times", "hybrid") else [_session(0), _session(1)]
    configs = [
        TrainConfig(
            PAIRS[kind], EncoderSpec("offset5-model", 6, 4), batch_size=16, n_steps=12,
            block=block, seed=seed, learn_temperature=True, adam=Adam(amsgrad=True),
        )
        for seed in (0, 1)
    ]  # fmt: skip
    configs = [WINDOWED[windowed](config) for config in configs]
    recorded: list[Callable[[], None]] = []

    def record(step: Callable[[], None]) -> Callable[[], None]:
        recorded.append(step)
        return step

    def runs() -> list[Run]:
        first = train(sessions, configs, device="cpu")
        return [*first, *(resume(run, sessions, 7, device="cpu") for run in first)]

    plain = runs()
    monkeypatch.setattr(stack, "_recordable", lambda config, where: True)
    monkeypatch.setattr(stack, "record", record)
    monkeypatch.setattr(stack, "_CHUNK", 5)
    monkeypatch.setattr(stack, "_PLAYED", 2)
    for ours, theirs in zip(runs(), plain, strict=True):
        np.testing.assert_array_equal(ours.losses, theirs.losses)
        np.testing.assert_array_equal(ours.temperatures, theirs.temperatures)
        assert ours.digest == theirs.digest
    assert recorded, "no step was recorded"


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: not run")


@needs_cuda
@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("windowed", WINDOWED)
def test_a_gpu_plays_what_it_does_step_by_step(
    kind: str, precision: str, windowed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainConfig(
        PAIRS[kind], EncoderSpec("offset10-model", 32, 8), batch_size=64, n_steps=120,
        learn_temperature=True, precision=precision,  # type: ignore[arg-type]
    )  # fmt: skip
    # Two shapes, so that two stacks run side by side on streams of their own.
    configs = [config, replace(config, encoder=EncoderSpec("offset5-model", 16, 4))]
    configs = [WINDOWED[windowed](config) for config in configs]
    played = train([_session(0)], configs, device="cuda")
    again = train([_session(0)], configs, device="cuda")
    alone = [train([_session(0)], [c], device="cuda")[0] for c in configs]
    monkeypatch.setattr(stack, "_recordable", lambda config, where: False)
    plain = train([_session(0)], configs, device="cuda")
    for runs in (again, alone, plain):
        for ours, theirs in zip(runs, played, strict=True):
            np.testing.assert_allclose(ours.losses, theirs.losses, rtol=1e-5, atol=1e-6)


@needs_cuda
def test_a_gpu_tells_of_a_run_that_diverged() -> None:
    config = TrainConfig(
        TimePairs((3,)), EncoderSpec("offset5-model", 8, 4), learning_rate=1e30, n_steps=400
    )
    with pytest.raises(DivergedError, match="learning rate"):
        train([_session(0)], [config], device="cuda")


@pytest.mark.parametrize("kind", PAIRS)
def test_what_is_drawn_ahead_is_what_is_drawn_in_time(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = [_session(0)] if kind in ("time", "times", "hybrid") else [_session(0), _session(1)]
    config = TrainConfig(
        PAIRS[kind], EncoderSpec("offset5-model", 6, 4), batch_size=16, n_steps=23
    )  # fmt: skip
    monkeypatch.setattr(stack, "_CHUNK", 3)
    (plain,) = train(sessions, [config], device="cpu")
    seen: list[int] = []

    def ahead(self: stack._Program, spans: list[tuple[int, int]]) -> Iterator[Draw | None]:
        seen.append(len(spans))
        return stack._drawn_ahead(self.stack, spans, 2)

    monkeypatch.setattr(stack._Program, "draws", ahead)
    (found,) = train(sessions, [config], device="cpu")
    assert seen == [8]
    np.testing.assert_array_equal(found.losses, plain.losses)


def test_draws_that_fail_say_so() -> None:
    with pytest.raises(AttributeError):
        list(stack._drawn_ahead([None], [(0, 3), (3, 3)], 2))  # type: ignore[list-item]


def test_steps_are_recorded_on_a_gpu_but_for_custom_modules() -> None:
    config = TrainConfig(TimePairs((2,)), EncoderSpec("offset5-model", 6, 4))
    gpu = torch.device("cuda")
    for of in WINDOWED.values():
        assert stack._recordable(of(config), gpu)
        assert not stack._recordable(of(config), HERE)
    custom = ModuleSpec(torch.nn.Linear(5, 4), ReceptiveField(0, 1), 4)
    assert not stack._recordable(replace(config, encoder=custom), gpu)


def test_on_a_cpu_nothing_is_put_off() -> None:
    x = torch.randn(3, 2)
    with lane(HERE):
        np.testing.assert_array_equal(later(x)(), x.numpy())
