"""The trainer: step for step against torch's own layers and Adam, and the laws of a run."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

import twins
from grevy import training
from grevy.config import Adam, TrainConfig
from grevy.drawing import draw
from grevy.encoders import EncoderSpec, initial_weights, module_spec
from grevy.errors import ConfigError, DataError, DivergedError
from grevy.masks import Mask
from grevy.model import Run, embed, held_out_bits
from grevy.pairs import (
    ClassPairs,
    DeltaPairs,
    HybridPairs,
    NearPairs,
    TimePairs,
    prepare,
)
from grevy.recording import Label, Recording, make_recording
from grevy.stack import Activity, product_type
from grevy.training import Progress, adapt, resume, train
from grevy.windows import ReceptiveField

SMALL = EncoderSpec("offset10-model", hidden=8, latents=3)
QUICK = TrainConfig(
    TimePairs((2,)), SMALL, learning_rate=3e-3, batch_size=32, n_negatives=48, n_steps=20, block=8,
    precision="float32",
)  # fmt: skip


def recording(*, seed: int = 0) -> Recording:
    wave = twins.wave(400, 6, seed=seed)
    side = np.random.default_rng(seed).integers(0, 3, 400)
    labels = {**wave.labels, "side": Label(side, "discrete")}
    return make_recording(
        wave.activity, rate_hz=20.0, epochs=[[0, 150], [150, 260], [265, 400]], labels=labels
    )


def equal(a: Run, b: Run) -> bool:
    same = a.digest == b.digest and a.temperature == b.temperature
    return same and bool(np.array_equal(a.losses, b.losses))


def twin(rec: Recording, config: TrainConfig) -> tuple[list[torch.Tensor], np.ndarray]:
    """The same training with torch's layers, its Adam, and one window at a time."""
    spec = config.encoder
    module = twins.encoder(spec.architecture, rec.n_channels, spec.hidden, spec.latents)
    twins.set_weights(module, initial_weights(spec, rec.n_channels, config.seed))
    adam = torch.optim.Adam(module.parameters(), lr=config.learning_rate)
    spans = rec.epochs if config.train_on is None else np.array(config.train_on)
    table = prepare(rec, config.pairs, spec.field, spans)
    activity = rec.activity
    if config.scale == "zscore":
        rows = np.concatenate([activity[a:b] for a, b in spans]).astype(np.float64)
        activity = ((activity - rows.mean(0)) / rows.std(0)).astype(np.float32)
    history = []
    for step in range(config.n_steps):
        drawn = draw(
            table,
            config.seed,
            torch.tensor([step]),
            batch=config.batch_size,
            n_negatives=config.n_negatives,
            block=config.block,
        )
        reference, positives, negative = twins.triplets(drawn, 0)

        def latents(centres: list[int]) -> torch.Tensor:
            windows = np.stack([twins.window(activity, c, spec.field) for c in centres])
            z: torch.Tensor = module(torch.from_numpy(windows).transpose(1, 2))
            return z

        r, n = latents(reference), latents(negative)
        pos, neg = torch.zeros(()), torch.zeros(())
        for k, p in enumerate(latents(c) for c in positives):
            some = slice(None)
            if isinstance(config.pairs, HybridPairs) and k == 0:
                some = slice(0, config.pairs.behavior_latents)
            pos = pos - (r[:, some] * p[:, some]).sum(1).mean() / config.temperature
            each = torch.exp(r[:, some] @ n[:, some].T / config.temperature)
            own = twins.same_block(len(r), drawn.others) if drawn.others else torch.zeros_like(each)
            neg = neg + torch.log((each * (1 - own)).sum(1)).mean()
        adam.zero_grad()
        (pos + neg).backward()
        adam.step()
        history.append((pos.item(), neg.item()))
    return twins.get_weights(module), np.array(history)


@pytest.mark.parametrize(
    "config",
    [
        QUICK,
        replace(QUICK, encoder=EncoderSpec("offset1-model", 6, 2), block=1, temperature=0.3),
        replace(QUICK, encoder=EncoderSpec("offset5-model", 6, 2), pairs=TimePairs((1, 30))),
        replace(QUICK, block=1, n_negatives=None),
        replace(QUICK, block=1, n_negatives=None, pairs=NearPairs(("angle",), sd=0.1)),
        replace(QUICK, n_negatives=None),
        replace(QUICK, pairs=DeltaPairs(("angle",)), seed=3, learning_rate=1e-2),
        replace(QUICK, pairs=NearPairs(("angle",), sd=0.1), train_on=((20, 140), (160, 250))),
        replace(QUICK, pairs=ClassPairs("side", balanced=True)),
        replace(QUICK, pairs=HybridPairs(DeltaPairs(("angle",)), TimePairs((3,)), 2)),
        replace(QUICK, scale="zscore", train_on=((0, 150), (270, 400))),
    ],
    ids=[
        "time", "offset1", "offset5", "others", "near, others", "blocks", "delta", "near", "class",
        "hybrid", "zscore",
    ],
)  # fmt: skip
def test_twenty_steps_are_those_of_torch(config: TrainConfig) -> None:
    rec = recording()
    run = train([rec], [config], device="cpu")[0]
    weights, history = twin(rec, config)
    np.testing.assert_allclose(run.history, history, rtol=2e-5, atol=2e-5)
    start = initial_weights(config.encoder, rec.n_channels, config.seed)
    for found, slow, first in zip(run.sessions[0].weights, weights, start, strict=True):
        if config.scale == "none":
            torch.testing.assert_close(found, slow, rtol=1e-4, atol=3e-5)
        else:  # rounding differs with scaled weights, so the paths part a little sooner
            torch.testing.assert_close(found, slow, rtol=1e-3, atol=3e-4)
        assert not torch.equal(found, first)


def test_alone_is_the_same_as_in_a_grid_bit_for_bit() -> None:
    rec = recording()
    configs = [
        QUICK,
        replace(QUICK, seed=1),
        replace(QUICK, learning_rate=1e-2),
        replace(QUICK, temperature=0.2),
        replace(QUICK, train_on=((0, 150), (150, 260))),
        replace(QUICK, scale="zscore"),
        replace(QUICK, n_steps=7),
        replace(QUICK, pairs=TimePairs((5,))),
        replace(QUICK, pairs=NearPairs(("angle",), sd=0.2)),
        replace(QUICK, encoder=EncoderSpec("offset5-model", 8, 3)),
    ]
    together = train([rec], configs, device="cpu")
    for config, run in zip(configs, together, strict=True):
        assert run.config == config
        assert equal(run, train([rec], [config], device="cpu")[0])


def test_the_reference_shape_is_the_same_alone_and_in_a_grid() -> None:
    """At full width the products of a batch must not take another road than those of one."""
    rec = twins.noise(2000, 41)
    config = TrainConfig(TimePairs((10,)), EncoderSpec(hidden=32, latents=16), n_steps=3)
    configs = [replace(config, seed=s, learning_rate=10.0**-s) for s in range(2, 5)]
    for config, run in zip(configs, train([rec], configs, device="cpu"), strict=True):
        assert equal(run, train([rec], [config], device="cpu")[0])


def test_order_and_company_do_not_matter() -> None:
    rec = recording()
    a, b = replace(QUICK, seed=1), replace(QUICK, seed=2)
    one, two = train([rec], [a, b], device="cpu"), train([rec], [b, a, b], device="cpu")
    assert equal(one[0], two[1])
    assert equal(one[1], two[0])
    assert equal(one[1], two[2])


@pytest.mark.parametrize("seed", range(6))
def test_unusual_widths_are_the_same_in_company(seed: int) -> None:
    """Where shares of a stack begin at other places in memory, products round otherwise."""
    rng = np.random.default_rng([seed, 7])
    rec = make_recording(rng.standard_normal((300, rng.integers(2, 40))), rate_hz=30.0)
    architecture = ("offset1-model", "offset5-model", "offset10-model")[seed % 3]
    hidden, latents = int(rng.integers(2, 9)) * (8 if seed < 3 else 1), int(rng.integers(2, 12))
    batch = 16 * int(rng.integers(1, 10)) + (seed == 5)
    config = replace(
        QUICK, encoder=EncoderSpec(architecture, hidden, latents), batch_size=batch, n_steps=4,
        precision="float32",
    )  # fmt: skip
    configs = [replace(config, seed=s) for s in range(3)]
    for config, run in zip(configs, train([rec], configs, device="cpu"), strict=True):
        assert equal(run, train([rec], [config], device="cpu")[0])


def test_equal_configs_equal_weights_and_another_seed_others() -> None:
    rec = recording()
    first, again, other = (
        train([rec], [replace(QUICK, seed=s)], device="cpu")[0] for s in (0, 0, 1)
    )
    assert equal(first, again)
    assert not equal(first, other)
    assert first.recording_hash == again.recording_hash
    assert first.history.shape == (20, 2)
    assert first.history.dtype == np.float32


def test_more_steps_begin_like_fewer() -> None:
    """A run's draws and steps do not depend on how many follow (nor on the chunks drawn)."""
    rec = recording()
    short, long = (train([rec], [replace(QUICK, n_steps=n)], device="cpu")[0] for n in (49, 103))
    assert np.array_equal(short.history, long.history[:49])


def test_what_lies_outside_train_on_is_never_seen() -> None:
    rec = recording()
    config = replace(QUICK, scale="zscore", train_on=((20, 140), (300, 390)))
    changed = rec.activity.copy()
    outside = np.ones(400, dtype=bool)
    outside[20:140] = outside[300:390] = False
    changed[outside] = 1e6
    a = train([rec], [config], device="cpu")[0]
    b = train([replace(rec, activity=changed)], [config], device="cpu")[0]
    assert equal(a, b)
    assert torch.equal(a.sessions[0].mean, b.sessions[0].mean)


def test_train_on_is_cut_at_the_gaps_of_the_recording() -> None:
    rec = recording()
    gap = rec.activity.copy()
    gap[260:265] = 1e6  # samples of no epoch
    config = replace(QUICK, scale="zscore", train_on=((100, 400),))
    a = train([rec], [config], device="cpu")[0]
    b = train([replace(rec, activity=gap)], [config], device="cpu")[0]
    assert equal(a, b)
    cut = replace(config, train_on=((100, 150), (150, 260), (265, 400)))
    assert equal(a, replace(train([rec], [cut], device="cpu")[0], config=config))


def test_zscore_is_training_on_scaled_data() -> None:
    rec = recording()
    activity = rec.activity * np.float32(40) + np.float32(7)
    raw = replace(rec, activity=activity)
    rows = activity.astype(np.float64)
    scaled = replace(rec, activity=((rows - rows.mean(0)) / rows.std(0)).astype(np.float32))
    spans = tuple((int(a), int(b)) for a, b in rec.epochs)
    whole = np.concatenate([rows[a:b] for a, b in spans])
    scaled = replace(rec, activity=((rows - whole.mean(0)) / whole.std(0)).astype(np.float32))
    a = train([raw], [replace(QUICK, scale="zscore")], device="cpu")[0]
    b = train([scaled], [QUICK], device="cpu")[0]
    np.testing.assert_allclose(a.history, b.history, rtol=1e-4, atol=1e-4)
    for x, y in zip(a.sessions[0].weights, b.sessions[0].weights, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-3, atol=3e-4)
    np.testing.assert_allclose(a.sessions[0].mean, whole.mean(0), rtol=1e-5)
    np.testing.assert_allclose(a.sessions[0].sd, whole.std(0), rtol=1e-5)


def test_a_channel_that_never_changes_is_harmless_when_scaled() -> None:
    rec = recording()
    activity = rec.activity.copy()
    activity[:, 2] = 0.1
    run = train([replace(rec, activity=activity)], [replace(QUICK, scale="zscore")])[0]
    assert float(run.sessions[0].sd[2]) == 1
    assert np.isfinite(run.history).all()


def test_divergence_names_the_step_and_the_settings() -> None:
    rec = recording()
    silly = replace(QUICK, learning_rate=1e30, n_steps=80)
    with pytest.raises(DivergedError, match=r"at step [1-9]\d* with learning rate 1e\+30"):
        train([rec], [QUICK, silly], device="cpu")


def test_weights_that_end_beyond_all_numbers_are_a_divergence() -> None:
    """The last step's loss is computed before its update: the weights must be looked at too."""
    with pytest.raises(DivergedError, match="1e"):
        train([recording()], [replace(QUICK, learning_rate=1e39, n_steps=1)], device="cpu")


def test_progress_counts_up_to_the_total() -> None:
    rec = recording()
    seen: list[Progress] = []
    configs = [
        replace(QUICK, n_steps=110),
        replace(QUICK, n_steps=110, seed=1),
        replace(QUICK, n_steps=30, pairs=HybridPairs(DeltaPairs(("angle",)), TimePairs())),
    ]
    runs = train([rec], configs, device="cpu", on_step=seen.append)
    done = [p.done for p in seen]
    assert done == sorted(set(done))
    assert done[-1] == 250
    assert {p.of for p in seen} == {250}
    assert all(p.total == p.positive + p.negative for p in seen)
    last = runs[2].history[-10:].mean(0)
    assert seen[-1].positive == pytest.approx(last[0], rel=1e-5)
    assert seen[-1].bits == pytest.approx((np.log(48) - last.sum() / 2) / np.log(2), abs=1e-4)


def test_structure_is_learned_and_held_out_bits_show_it() -> None:
    rec = twins.wave(4000, 12)
    config = TrainConfig(
        TimePairs((5,)), EncoderSpec(hidden=16, latents=3), 0.5, 1e-2, 128, 128, 200, block=8,
        train_on=((0, 3000),),
    )  # fmt: skip
    run = train([rec], [config], device="cpu")[0]
    total = run.history.sum(axis=1)
    assert total[-20:].mean() < total[0] - 0.8
    assert held_out_bits(run, rec, np.array([[3000, 4000]]), n=1024, rounds=2) > 0.8


def test_white_noise_teaches_nothing_that_lasts() -> None:
    rec = twins.noise(4000, 12)
    config = TrainConfig(
        TimePairs((12,)), EncoderSpec(hidden=16, latents=3), 1.0, 1e-3, 128, 128, 100, block=8,
        train_on=((0, 3000),),
    )  # fmt: skip
    run = train([rec], [config], device="cpu")[0]
    bits = held_out_bits(run, rec, np.array([[3000, 4000]]), n=2048, rounds=2)
    assert -0.3 < bits < 0.05


def test_a_smooth_signal_beats_chance_only_where_it_is_smooth() -> None:
    """Pairs further apart than the signal remembers teach nothing on samples set aside."""
    rng = np.random.default_rng(0)
    x = ndimage.gaussian_filter1d(rng.standard_normal((4000, 6)), 4, axis=0) * 5
    rec = make_recording(x, rate_hz=10.0)
    spec = EncoderSpec("offset1-model", 16, 3)
    bits = []
    for offset in (1, 60):
        config = TrainConfig(
            TimePairs((offset,)), spec, 0.5, 1e-2, 128, 128, 150, train_on=((0, 3000),)
        )
        run = train([rec], [config], device="cpu")[0]
        bits.append(held_out_bits(run, rec, np.array([[3000, 4000]]), n=1024, rounds=2))
    assert bits[0] > 1
    assert bits[1] < 0.1


def test_recordings_that_may_not_be_written_to_train_without_a_murmur() -> None:
    rec = recording()
    frozen = rec.activity.copy()
    frozen.flags.writeable = False
    a = train([replace(rec, activity=frozen)], [QUICK], device="cpu")[0]
    assert equal(a, train([rec], [QUICK], device="cpu")[0])


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 0},
        {"n_negatives": 0},
        {"n_steps": 0},
        {"block": 0},
        {"batch_size": 1.5},
        {"seed": 0.5},
        {"temperature": 0.0},
        {"temperature": float("inf")},
        {"learning_rate": -1.0},
        {"learning_rate": float("nan")},
        {"scale": "zscored"},
        {"train_on": ((0, 50), (40, 90))},
        {"train_on": ((50, 50),)},
        {"train_on": ((50, 90), (0, 40))},
        {"train_on": ((-5, 90),)},
        {"train_on": (5, 90)},
        {
            "pairs": HybridPairs(ClassPairs("side"), TimePairs(), behavior_latents=9),
            "encoder": EncoderSpec(latents=8),
        },
    ],
    ids=str,
)
def test_senseless_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="found"):
        replace(QUICK, **settings)


def test_settings_that_do_not_fit_the_recording_are_refused() -> None:
    rec = recording()
    with pytest.raises(ConfigError, match="cannot align 2 of them"):
        train([rec, rec], [QUICK])
    with pytest.raises(ConfigError, match="at least one recording"):
        train([], [QUICK])
    with pytest.raises(ConfigError, match="400 samples"):
        train([rec], [replace(QUICK, train_on=((0, 401),))])
    with pytest.raises(DataError, match="at least 12 samples"):
        train([rec], [replace(QUICK, train_on=((0, 8),))])
    with pytest.raises(ConfigError, match="device"):
        train([rec], [QUICK], device="abacus")
    assert train([rec], []) == []


# --- Going on: what may change and what may not --------------------------------------------------
def goes_on_as(config: TrainConfig, **changes: Any) -> Run:
    """Twice as long as `config`, in two parts, the second with other settings."""
    (first,) = train([recording()], [config], device="cpu")
    return resume(first, [recording()], config.n_steps, config=replace(config, **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"scale": "zscore", "train_on": ((0, 150), (270, 400))},
        {"batch_size": None, "n_negatives": None, "n_steps": 4},
        {"masks": (Mask("timesteps", (0.4,)),), "scale": "zscore"},
        {"pairs": HybridPairs(DeltaPairs(("angle",)), TimePairs((3,)), 2)},
        {"pairs": ClassPairs("side", balanced=True), "distance": "euclidean"},
        {"encoder": EncoderSpec("offset36-model-dropout", 4, 2), "n_steps": 5},
        {"learn_temperature": True, "min_temperature": 0.999},
        {"adam": Adam(amsgrad=True, weight_decay=0.01), "n_steps": 30},
    ],
    ids=str,
)
def test_two_halves_are_the_whole_bit_for_bit(changes: dict[str, Any]) -> None:
    config = replace(QUICK, **changes)
    (whole,) = train([recording()], [replace(config, n_steps=2 * config.n_steps)], device="cpu")
    found = goes_on_as(config)
    assert equal(found, whole)
    assert np.array_equal(found.temperatures, whole.temperatures)
    assert found.config == whole.config


def test_another_temperature_holds_from_there_on() -> None:
    found = goes_on_as(QUICK, temperature=0.3)
    assert found.temperatures[:20].tolist() == [1.0] * 20
    assert found.temperatures[20:] == pytest.approx(0.3)
    assert found.temperature == 0.3
    assert not np.array_equal(found.losses, goes_on_as(QUICK).losses)


def test_another_floor_holds_from_its_first_step_on() -> None:
    learned = replace(QUICK, learn_temperature=True)
    found = goes_on_as(learned, min_temperature=1.4)
    assert found.temperatures[:20].max() < 1.1
    assert found.temperatures[20:].min() >= 1.4 * (1 - 1e-6)
    assert found.temperature >= 1.4 * (1 - 1e-6)


def test_without_the_state_of_its_optimiser_a_run_begins_with_a_fresh_one() -> None:
    """The first update of Adam is as long as the learning rate, in every number."""
    (first,) = train([recording()], [replace(QUICK, n_steps=50)], device="cpu")
    bare = replace(first, state=None)
    one = resume(bare, [recording()], 1, device="cpu")
    for a, b in zip(one.sessions[0].weights, first.sessions[0].weights, strict=True):
        moved = (a - b).abs()
        assert moved.max() <= QUICK.learning_rate * 1.001
        assert moved.median() >= QUICK.learning_rate * 0.99
    two = resume(bare, [recording()], 2, device="cpu")
    assert equal(two, resume(one, [recording()], 1, device="cpu"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"pairs": HybridPairs(ClassPairs("side"), TimePairs())}, "as many terms"),
        ({"learn_temperature": True}, "`learn_temperature` as it was"),
        ({"adam": Adam(amsgrad=True)}, "amsgrad only where"),
        ({"encoder": EncoderSpec("offset5-model", 8, 3)}, "encoder it began with"),
    ],
)
def test_what_cannot_go_on_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        goes_on_as(QUICK, **changes)


@pytest.mark.parametrize("changes", [{}, {"learn_temperature": True}])
def test_an_adapted_run_goes_on_with_its_first_layer_alone(changes: dict[str, Any]) -> None:
    config = replace(QUICK, **changes)
    (old,) = train([recording()], [config], device="cpu")
    rec = twins.wave(300, 9, seed=4)
    whole = adapt(old, [rec], replace(config, n_steps=16), device="cpu")
    half = adapt(old, [rec], replace(config, n_steps=9), device="cpu")
    found = resume(half, [rec], 7, device="cpu")
    assert equal(found, whole)
    for a, b in zip(found.sessions[0].weights[2:], old.sessions[0].weights[2:], strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ConfigError, match="at least one recording"):
        adapt(old, [], config)


# --- Sessions ------------------------------------------------------------------------------------
def test_sessions_alone_and_in_a_grid_are_the_same_bit_for_bit() -> None:
    recordings = [recording(), recording(seed=1)]
    base = replace(QUICK, pairs=ClassPairs("side"), n_steps=8)
    configs = [
        base,
        replace(base, seed=1, learn_temperature=True),
        replace(base, seed=2, learn_temperature=True, min_temperature=0.9),
        replace(base, temperature=0.3, distance="euclidean"),
        replace(base, pairs=NearPairs(("angle",), sd=0.2)),
        replace(base, adam=Adam(amsgrad=True)),
        replace(base, seed=3, learn_temperature=True),
        replace(base, seed=4),
    ]
    for config, run in zip(configs, train(recordings, configs, device="cpu"), strict=True):
        (alone,) = train(recordings, [config], device="cpu")
        assert equal(run, alone)
        assert np.array_equal(run.temperatures, alone.temperatures)


def test_every_session_is_trained_on_its_own_stretches() -> None:
    recordings = [recording(), recording(seed=1)]
    stretches = (((0, 100),), ((160, 250), (270, 400)))
    config = replace(QUICK, pairs=ClassPairs("side"), scale="zscore", train_on=stretches)
    (run,) = train(recordings, [config], device="cpu")
    hidden = []
    for rec, spans in zip(recordings, stretches, strict=True):
        changed = np.full_like(rec.activity, 1e6)
        for a, b in spans:
            changed[a:b] = rec.activity[a:b]
        hidden.append(replace(rec, activity=changed))
    assert equal(run, train(hidden, [config], device="cpu")[0])
    (same,) = train(recordings, [replace(config, train_on=((0, 150),))], device="cpu")
    twice = replace(config, train_on=(((0, 150),), ((0, 150),)))
    assert equal(same, train(recordings, [twice], device="cpu")[0])
    for few in (recordings[:1], [*recordings, recording(seed=2)]):
        with pytest.raises(ConfigError, match=rf"found 2 for {len(few)} sessions"):
            train(few, [config], device="cpu")


# --- Somebody's own module -----------------------------------------------------------------------
class Mine(torch.nn.Module):
    """A convolution over the window and a frozen turn of what it gives."""

    num_output = 3

    def __init__(self, channels: int = 6) -> None:
        super().__init__()
        self.first = torch.nn.Conv1d(channels, 5, 4)
        self.frozen = torch.nn.Linear(5, 5).requires_grad_(False)
        self.last = torch.nn.Linear(5, 3)

    def get_offset(self) -> ReceptiveField:
        return ReceptiveField(1, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.last(torch.tanh(self.frozen(self.first(x)[..., 0])))
        return z / z.norm(dim=1, keepdim=True)


def own_module(seed: int = 0) -> Mine:
    torch.manual_seed(seed)
    return Mine()


@pytest.mark.parametrize("scale", ["none", "zscore"])
def test_a_module_trains_as_in_a_loop_of_torch(scale: Any) -> None:
    module = own_module()
    rec = recording()
    config = replace(QUICK, encoder=module_spec(module), scale=scale)
    before = copy.deepcopy(module.state_dict())
    (run,) = train([rec], [config], device="cpu")
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    trained = own_module()
    adam = torch.optim.Adam([p for p in trained.parameters() if p.requires_grad], 3e-3)
    table = prepare(rec, config.pairs, config.encoder.field, rec.epochs)
    rows = np.concatenate([rec.activity[a:b] for a, b in rec.epochs]).astype(np.float64)
    activity = rec.activity
    if scale == "zscore":
        activity = ((activity - rows.mean(0)) / rows.std(0)).astype(np.float32)
    for step in range(20):
        drawn = draw(table, 0, torch.tensor([step]), batch=32, n_negatives=48, block=8)
        reference, (positive,), negative = twins.triplets(drawn, 0)
        r, p, n = (
            trained(
                torch.from_numpy(
                    np.stack([twins.window(activity, c, ReceptiveField(1, 3)).T for c in some])
                )
            )
            for some in (reference, positive, negative)
        )
        pos, neg = -(r * p).sum(1).mean(), torch.logsumexp(r @ n.T, 1).mean()
        adam.zero_grad()
        (pos + neg).backward()
        adam.step()
        np.testing.assert_allclose(run.history[step], [pos.item(), neg.item()], rtol=1e-4)
    own = [p.detach() for p in trained.parameters() if p.requires_grad]
    for a, b in zip(run.sessions[0].weights, own, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    found = embed(run, rec, pad=False, device="cpu")
    windows = [twins.window(activity, c, ReceptiveField(1, 3)).T for c in found.samples]
    expected = trained(torch.from_numpy(np.stack(windows))).detach().numpy()
    np.testing.assert_allclose(found.values, expected, atol=1e-3)


def test_a_module_goes_on_and_is_not_adapted() -> None:
    config = replace(QUICK, encoder=module_spec(own_module()))
    (whole,) = train([recording()], [replace(config, n_steps=40)], device="cpu")
    assert equal(goes_on_as(config), whole)
    with pytest.raises(ConfigError, match="custom module cannot be adapted"):
        adapt(whole, [recording()], config)


@pytest.mark.parametrize("scale", ["none", "zscore"])
def test_narrow_products_lead_nearly_to_the_same_even_far_from_zero(scale: Any) -> None:
    rec = recording()
    far = make_recording(
        rec.activity + 3e4, rate_hz=20.0, epochs=rec.epochs.tolist(), labels=rec.labels
    )
    # Raw offsets saturate the encoder; by their weights they can also be taken out of it.
    config = replace(QUICK, n_steps=40, scale=scale)
    wide, narrow = train([rec], [config, replace(config, precision="bfloat16")], device="cpu")
    gap = np.abs(wide.losses.sum(-1) - narrow.losses.sum(-1)).max()
    assert 0 < gap < 0.02
    if scale == "zscore":
        one, other = train([far], [config, replace(config, precision="bfloat16")], device="cpu")
        assert np.abs(one.losses.sum(-1) - other.losses.sum(-1)).max() < 0.02


def test_precision_is_what_the_device_has_and_what_the_encoder_allows() -> None:
    cpu = torch.device("cpu")
    plain = replace(QUICK, precision="bfloat16")
    assert product_type(plain, cpu) == torch.bfloat16
    assert product_type(QUICK, cpu) == torch.float32
    for other in (
        replace(plain, encoder=EncoderSpec("offset1-model-mse-resnet-2layers", 8, 2)),
        replace(plain, block=1, masks=(Mask("neurons", (0.3,)),)),
    ):
        assert product_type(other, cpu) == torch.float32


def test_stacks_hold_what_caches_hold() -> None:
    config, rec = replace(QUICK, batch_size=512), recording()
    activity = [Activity(torch.from_numpy(rec.activity), torch.device("cpu"))]
    for hidden, most in ((16, 8), (32, 4), (128, 1), (1024, 1)):
        wide = replace(config, encoder=EncoderSpec("offset10-model", hidden, 3))
        assert training._most(activity, [training._prepare([rec], wide, [])]) == most
    members = list(range(7))
    parts = training._parts(members, 2, 2)
    assert sorted(m for part in parts for m in part) == members
    assert max(map(len, parts)) == 2
    assert training._parts(members, 2, 100) == [[0, 2, 4, 6], [1, 3, 5]]


def test_a_run_knows_its_precision() -> None:
    rec = recording()
    (run,) = train([rec], [replace(QUICK, precision="auto")], device="cpu")
    used = (
        "bfloat16"
        if product_type(replace(QUICK, precision="auto"), torch.device("cpu")) == torch.bfloat16
        else "float32"
    )
    assert run.config.precision == used
    assert equal(run, train([rec], [run.config], device="cpu")[0])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("hidden", [16, 64])
def test_the_number_of_threads_changes_no_bit(
    precision: Any, hidden: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "idle_processors", lambda: 2)
    config = replace(
        QUICK, encoder=EncoderSpec("offset10-model", hidden, 8), batch_size=256, block=1,
        n_negatives=None, n_steps=6, precision=precision,
    )  # fmt: skip
    one, rec = train([recording()], [config], device="cpu")[0], recording()
    try:
        torch.set_num_threads(2)
        two = train([rec], [config], device="cpu")[0]
        among = train([rec], [replace(config, seed=5), config], device="cpu")[1]
    finally:
        torch.set_num_threads(1)
    assert equal(one, two)
    assert equal(one, among)
