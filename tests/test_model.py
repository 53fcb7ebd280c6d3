"""A run looks at a recording: windows one by one, spans alone, names of runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import twins
from grevy import model
from grevy.config import Adam, TrainConfig, latent_slices, run_hash
from grevy.encoders import Encoder, EncoderSpec, encode, initial_weights
from grevy.errors import ConfigError, DataError
from grevy.masks import Mask
from grevy.model import (
    Run,
    SessionEncoder,
    choose_device,
    effective_weights,
    embed,
    fingerprint,
    held_out_bits,
)
from grevy.pairs import ClassPairs, DeltaPairs, HybridPairs, NearPairs, TimePairs, prepare
from grevy.recording import Label, Recording, make_recording, restrict

EPOCHS = [(0, 30), (30, 33), (35, 80)]


def untrained(
    architecture: str = "offset10-model",
    channels: int = 5,
    *,
    scaled: bool = False,
    **settings: Any,
) -> Run:
    spec = EncoderSpec(architecture, 8, 3)
    config = TrainConfig(encoder=spec, **settings)
    mean, sd = torch.zeros(channels), torch.ones(channels)
    if scaled:
        mean, sd = torch.linspace(-2, 3, channels), torch.linspace(0.5, 4, channels)
    weights = tuple(initial_weights(spec, channels, 1))
    losses, warmth = np.zeros((1, 1, 2), np.float32), np.ones(1, np.float32)
    return Run(config, (SessionEncoder(weights, mean, sd),), losses, warmth, config.temperature)


@pytest.mark.parametrize("name", ["offset1-model", "offset10-model", "offset5-model"])
@pytest.mark.parametrize("scaled", [False, True])
def test_embedding_is_the_windows_one_by_one(name: str, scaled: bool) -> None:
    rec = twins.noise(80, 5, epochs=EPOCHS)
    run = untrained(name, scaled=scaled)
    spec = run.config.encoder
    module = twins.encoder(name, 5, 8, 3)
    twins.set_weights(module, run.sessions[0].weights)
    found = embed(run, rec, device="cpu")
    assert found.values.dtype == np.float32
    assert found.samples.tolist() == [i for a, b in EPOCHS for i in range(a, b)]
    row = 0
    for span in EPOCHS:
        for i in range(*span):
            window, replicated = twins.edge_window(rec.activity, i, span, spec.field)
            x = (torch.from_numpy(window) - run.sessions[0].mean) / run.sessions[0].sd
            expected = module(x.T[None]).detach().numpy()[0]
            np.testing.assert_allclose(found.values[row], expected, atol=2e-6)
            assert bool(found.padded[row]) == replicated
            row += 1
    np.testing.assert_allclose(np.linalg.norm(found.values, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "factor"), [("offset10-model", 1), ("offset1-model-mse", 1), ("resample-model", 4)]
)
def test_embeddings_are_smoothed_span_by_span(name: str, factor: int) -> None:
    rec = twins.noise(200, 5, epochs=[(0, 90), (90, 100), (110, 200)])
    plain, soft = untrained(name), untrained(name, smoothing=3.0)
    rough, found = embed(plain, rec, device="cpu"), embed(soft, rec, device="cpu")
    np.testing.assert_array_equal(found.samples, rough.samples)
    width = 3.0 / factor
    for a, b in rec.epochs:
        here = np.flatnonzero((rough.samples >= a) & (rough.samples < b))
        first, last = here[0], here[-1]
        for i in here:
            reach = int(4 * width + 0.5)
            at = np.arange(i - reach, i + reach + 1)
            weight = np.exp(-0.5 * ((at - i) / width) ** 2)
            rows = rough.values[np.clip(at, first, last)].astype(np.float64)
            expected = (weight[:, None] * rows).sum(axis=0) / weight.sum()
            if name != "offset1-model-mse":
                expected /= np.linalg.norm(expected)
            np.testing.assert_allclose(found.values[i], expected, atol=1e-5)
    dense = [embed(run, rec, dense=True, device="cpu").values for run in (plain, soft)]
    np.testing.assert_array_equal(*dense)


def test_smoothing_is_no_negative_number() -> None:
    with pytest.raises(ConfigError, match=r"smoothing.*-1"):
        TrainConfig(smoothing=-1.0)


def test_spans_see_nothing_outside() -> None:
    rec = twins.noise(80, 5)
    run = untrained()
    spans = np.array([[10, 25], [40, 70]])
    before = embed(run, rec, spans=spans, device="cpu")
    changed = np.full_like(rec.activity, 1e6)
    for a, b in spans:
        changed[a:b] = rec.activity[a:b]
    after = embed(run, replace(rec, activity=changed), spans=spans, device="cpu")
    assert np.array_equal(before.values, after.values)
    alone = embed(run, restrict(rec, 40, 70), device="cpu")
    np.testing.assert_allclose(before.values[15:], alone.values, atol=1e-6)
    assert before.padded.tolist() == [*([1] * 5 + [0] * 6 + [1] * 4), *alone.padded]


def test_an_epoch_border_is_not_seen_over_either() -> None:
    rec = twins.noise(80, 5, epochs=EPOCHS)
    changed = rec.activity.copy()
    changed[:30] += 5
    before = embed(untrained(), rec, device="cpu").values
    after = embed(untrained(), replace(rec, activity=changed), device="cpu").values
    same = np.flatnonzero((before == after).all(axis=1))
    assert same.tolist() == list(range(30, 78))


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    rec = twins.noise(300, 5, epochs=[(0, 120), (120, 300)])
    run = untrained()
    whole = embed(run, rec, device="cpu").values
    for chunk in (1, 7, 64, 299):
        monkeypatch.setattr(model, "_CHUNK", chunk)
        np.testing.assert_allclose(embed(run, rec, device="cpu").values, whole, atol=1e-6)


def test_no_spans_give_no_rows() -> None:
    found = embed(untrained(), twins.noise(20, 5), spans=np.empty((0, 2), dtype=np.int64))
    assert found.values.shape == (0, 3)
    assert len(found.samples) == len(found.padded) == 0


def test_what_does_not_fit_is_refused() -> None:
    run, rec = untrained(), twins.noise(50, 5)
    with pytest.raises(DataError, match="takes 5 channels; the recording 'noise' has 4"):
        embed(run, twins.noise(50, 4))
    for spans in ([[-3, 20]], [[0, 51]]):
        with pytest.raises(DataError, match="inside the 50 samples"):
            embed(run, rec, spans=np.array(spans))
    for device in ("abacus", "meta", "cuda:99" if not torch.cuda.is_available() else "mps"):
        with pytest.raises(ConfigError, match="device"):
            choose_device(device)
    assert choose_device("cpu") == torch.device("cpu")


def test_effective_weights_are_scaling_before_the_first_layer() -> None:
    run = untrained("offset5-model", scaled=True)
    x = torch.randn(1, 12, 4, 5, generator=torch.Generator().manual_seed(0))
    spec = run.config.encoder
    own = run.sessions[0]
    folded = effective_weights(own.weights, own.mean, own.sd)
    found = encode(spec, [w[None] for w in folded], x)
    expected = encode(spec, [w[None] for w in own.weights], (x - own.mean) / own.sd)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    stack = [torch.stack([w, 2 * w]) for w in own.weights]
    means, sds = torch.stack([own.mean, own.mean]), torch.stack([own.sd, 2 * own.sd])
    both = effective_weights(stack, means, sds)
    torch.testing.assert_close(both[0][0], folded[0])
    torch.testing.assert_close(both[0][1], folded[0])


def slow_bits(run: Run, rec: Recording, spans: list[tuple[int, int]], reach: int) -> float:
    """All references against all negatives: what many draws approach."""
    config = run.config
    z = embed(run, rec, spans=np.array(spans), device="cpu")
    row = {int(s): v for s, v in zip(z.samples, z.values.astype(np.float64), strict=True)}
    field = config.encoder.field
    anchors = twins.centres(spans, field.left, field.right, reach)
    all_of_them = np.stack([row[i] for i in anchors])
    later = np.stack([row[i + reach] for i in anchors])
    pos = (all_of_them * later).sum(1).mean() / config.temperature
    mean = np.exp(all_of_them @ all_of_them.T / config.temperature).mean(1)
    return float((pos - np.log(mean).mean()) / np.log(2))


def test_held_out_bits_are_those_of_all_pairs() -> None:
    rec = twins.wave(600, 5)
    run = untrained("offset5-model", pairs=TimePairs((3,)), temperature=0.2)
    spans = [(100, 300), (310, 500)]
    found = held_out_bits(run, rec, np.array(spans), n=2048, rounds=3, device="cpu")
    assert found == pytest.approx(slow_bits(run, rec, spans, 3), abs=0.03)
    assert found == held_out_bits(run, rec, np.array(spans), n=2048, rounds=3, device="cpu")


def test_held_out_bits_are_judged_on_single_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []
    real = model.draw

    def spy(*args: Any, **settings: Any) -> Any:
        seen.append(settings)
        return real(*args, **settings)

    monkeypatch.setattr(model, "draw", spy)
    rec = twins.wave(200, 5)
    held_out_bits(untrained(block=32, seed=5), rec, rec.epochs, n=16, rounds=2)
    assert seen == [{"batch": 1024, "n_negatives": 16, "block": 1}]


def test_held_out_bits_see_only_the_spans() -> None:
    rec = twins.wave(600, 5)
    run = untrained(pairs=TimePairs((3,)))
    changed = rec.activity.copy()
    changed[:200] = 1e6
    changed[400:] = 1e6
    spans = np.array([[200, 400]])
    bits = [
        held_out_bits(run, r, spans, n=256, rounds=2) for r in (rec, replace(rec, activity=changed))
    ]
    assert bits[0] == bits[1]


def test_an_encoder_that_says_the_same_of_everything_has_no_bits() -> None:
    run = untrained()
    constant = tuple(torch.zeros_like(w) if w.ndim == 3 else w for w in run.sessions[0].weights)
    rec = twins.noise(500, 5)
    blind = replace(run, sessions=(replace(run.sessions[0], weights=constant),))
    found = held_out_bits(blind, rec, rec.epochs, n=512, rounds=2)
    assert found == pytest.approx(0, abs=1e-4)


def test_hybrid_bits_are_the_mean_of_both_kinds() -> None:
    rec = twins.wave(600, 5)
    pairs = HybridPairs(DeltaPairs(("angle",)), TimePairs((2,)), 2)
    run = untrained(pairs=pairs)
    assert latent_slices(run.config) == [slice(0, 2), slice(None)]
    assert latent_slices(TrainConfig()) == [slice(None)]
    whole = held_out_bits(run, rec, rec.epochs, n=1024, rounds=4)
    time = held_out_bits(
        replace(run, config=replace(run.config, pairs=pairs.time)), rec, rec.epochs, n=1024
    )
    assert -1 < 2 * whole - time < 2
    assert whole != time


def test_too_short_a_stretch_to_judge_is_an_error() -> None:
    rec = twins.noise(100, 5)
    with pytest.raises(DataError, match="at least 11 samples"):
        held_out_bits(untrained(), rec, np.array([[0, 9]]))


def test_the_fingerprint_sees_everything_that_training_sees() -> None:
    def make(**changes: Any) -> Recording:
        label = Label(np.arange(20.0), "continuous", period=changes.pop("period", None))
        parts: dict[str, Any] = {
            "activity": np.arange(40.0).reshape(20, 2),
            "times_s": np.arange(20.0),
            "epochs": [[0, 20]],
            "labels": {"v": label},
        } | changes
        return make_recording(parts.pop("activity"), **parts)

    rec = make()
    values = np.arange(20.0)
    activity = rec.activity.copy()
    activity[3, 1] += 1e-3
    known = np.ones(20, dtype=bool)
    known[4] = False
    moved = values.copy()
    moved[7] = np.nextafter(7, 8)
    others = [
        make(activity=activity),
        make(activity=np.arange(40.0).reshape(20, 2)[:, ::-1]),
        make(times_s=np.arange(20.0) * 2),
        make(epochs=[[0, 10], [10, 20]]),
        make(period=30.0),
        make(labels={}),
        make(labels={"w": Label(values, "continuous")}),
        make(labels={"v": Label(moved, "continuous")}),
        make(labels={"v": Label(values, "continuous", known=known)}),
        make(labels={"v": Label(values.astype(np.int64), "discrete")}),
        make(labels={"v": Label(values[:, None], "continuous")}),
    ]
    seen = [fingerprint(r) for r in [rec, *others]]
    assert len(set(seen)) == len(seen)
    assert fingerprint(make()) == seen[0]
    assert fingerprint(make(name="another", channels=("a", "b"))) == seen[0]
    assert fingerprint(make(regions=("CA1", "CA3"))) == seen[0]
    all_known = {"v": Label(values, "continuous", known=np.ones(20, dtype=bool))}
    assert fingerprint(make(labels=all_known)) == seen[0]


def test_the_run_hash_sees_every_setting() -> None:
    config = TrainConfig()
    changes: list[dict[str, Any]] = [
        {"pairs": TimePairs((2,))},
        {"pairs": TimePairs((1, 2))},
        {"pairs": DeltaPairs(("a",))},
        {"pairs": NearPairs(("a",), sd=1.0)},
        {"pairs": ClassPairs("a")},
        {"pairs": ClassPairs("a", balanced=True)},
        {"encoder": EncoderSpec("offset5-model")},
        {"encoder": EncoderSpec(hidden=33)},
        {"encoder": EncoderSpec(latents=9)},
        {"temperature": 0.5},
        {"learning_rate": 1e-3},
        {"batch_size": 511},
        {"n_negatives": 511},
        {"n_steps": 999},
        {"seed": 1},
        {"block": 4},
        {"scale": "zscore"},
        {"distance": "euclidean"},
        {"learn_temperature": True},
        {"min_temperature": 0.2},
        {"adam": Adam(beta1=0.8)},
        {"adam": Adam(amsgrad=True)},
        {"masks": (Mask("neurons", (0.3,)),)},
        {"precision": "float32"},
        {"train_on": ((0, 10),)},
        {"train_on": ((0, 11),)},
        {"smoothing": 4.0},
    ]
    assert {key for change in changes for key in change} == set(vars(config))
    seen = [run_hash(replace(config, **change), "abc", "cpu") for change in [{}, *changes]]
    seen += [run_hash(config, "abd", "cpu"), run_hash(config, "abc", "cuda")]
    assert len(set(seen)) == len(seen)
    assert run_hash(TrainConfig(), "abc", "cpu") == seen[0]


def test_equal_configs_have_equal_hashes_however_their_numbers_are_written() -> None:
    plain = TrainConfig(
        NearPairs(("a",), sd=1.0), EncoderSpec(hidden=16), temperature=1.0, learning_rate=1.0,
        batch_size=64, seed=3, train_on=((0, 50), (60, 90)),
    )  # fmt: skip
    odd = TrainConfig(
        NearPairs(("a",), sd=np.float64(1)), EncoderSpec(hidden=np.int64(16)), 1, np.float32(1),
        batch_size=np.int32(64), seed=np.uint64(3),
        train_on=np.array([[0, 50], [60, 90]]),
    )  # fmt: skip
    assert odd == plain
    assert run_hash(odd, "abc", "cpu") == run_hash(plain, "abc", "cpu")


def test_negative_and_huge_seeds_are_seeds() -> None:
    rec = twins.noise(60, 2)
    assert prepare(rec, TimePairs(), EncoderSpec().field, rec.epochs)
    a, b = (initial_weights(EncoderSpec(), 2, s)[0] for s in (-1, 2**63))
    assert not torch.equal(a, b)


@pytest.mark.parametrize(
    ("name", "length", "factor"),
    [
        ("offset40-model-4x-subsample", 40, 4),
        ("offset20-model-4x-subsample", 20, 4),
        ("offset4-model-2x-subsample", 4, 2),
    ],
)
@pytest.mark.parametrize("chunk", [None, 3])
def test_resampling_span_by_span(name: str, length: int, factor: int, chunk: int | None) -> None:
    """Row k of a span is the window round its sample k * factor, as torch's module embeds it."""
    spans = [(0, 61), (61, 64), (70, 131), (131, 131 + length)]
    rec = twins.noise(200, 5)
    run = untrained(name, scaled=True)
    own, spec = run.sessions[0], run.config.encoder
    assert isinstance(spec, EncoderSpec)
    module = Encoder(spec, own.weights)
    padded = embed(run, rec, spans=np.array(spans), chunk=chunk, device="cpu")
    whole = embed(run, rec, spans=np.array(spans), pad=False, chunk=chunk, device="cpu")
    every = [i for a, b in spans for i in range(a, b, factor)]
    assert padded.samples.tolist() == every
    assert len(padded.values) == sum(-(-(b - a) // factor) for a, b in spans)
    inside = [
        i for a, b in spans for i in range(a + spec.field.left, b - spec.field.right + 1, factor)
    ]
    assert whole.samples.tolist() == inside
    assert len(inside) == sum(max(0, (b - a - length) // factor + 1) for a, b in spans)
    assert not whole.padded.any()
    for found in (padded, whole):
        for row, i in enumerate(found.samples.tolist()):
            (span,) = [(a, b) for a, b in spans if a <= i < b]
            window, replicated = twins.edge_window(rec.activity, i, span, spec.field)
            x = (torch.from_numpy(window) - own.mean) / own.sd
            expected = module(x.T[None].contiguous()).detach().numpy().reshape(-1)
            np.testing.assert_allclose(found.values[row], expected, atol=5e-6)
            assert bool(found.padded[row]) == replicated


def test_without_padding_the_padded_rows_are_left_out() -> None:
    rec = twins.noise(80, 5, epochs=EPOCHS)
    every = embed(untrained(), rec, device="cpu")
    whole = embed(untrained(), rec, pad=False, device="cpu")
    assert whole.samples.tolist() == twins.centres(EPOCHS, 5, 5)
    assert np.array_equal(whole.values, every.values[~every.padded])
    assert not whole.padded.any()


def test_bits_of_several_sessions_are_those_of_all_pairs() -> None:
    """Every reference meets the negatives of both sessions, each in the latents of its own."""
    rng = np.random.default_rng(0)
    recordings = [
        make_recording(
            rng.normal(size=(300, 5)),
            rate_hz=10.0,
            labels={"side": Label(rng.integers(0, 2, 300), "discrete")},
        )
        for _ in range(2)
    ]
    one = untrained("offset5-model", pairs=ClassPairs("side"), temperature=0.3)
    turned = tuple(-w for w in one.sessions[0].weights)
    run = replace(one, sessions=(one.sessions[0], replace(one.sessions[0], weights=turned)))
    spans = [np.array([[20, 200]]), np.array([[0, 150], [160, 290]])]
    z, side = [], []
    for s, (rec, some) in enumerate(zip(recordings, spans, strict=True)):
        found = embed(run, rec, spans=some, session=s, pad=False, device="cpu")
        z.append(found.values.astype(np.float64))
        side.append(rec.labels["side"].values[found.samples])
    weight = [np.full(len(x), 1 / len(x)) / 2 for x in z]  # sessions ask and answer alike
    latents, sides, weights = (np.concatenate(x) for x in (z, side, weight))
    near = latents @ latents.T / 0.3
    negative = np.log(np.exp(near) @ weights) @ weights
    same = np.zeros((len(sides), len(sides)))
    for part in (slice(0, len(z[0])), slice(len(z[0]), None)):
        alike = (sides[:, None] == sides[None, part]).astype(float)
        same[:, part] = alike / alike.sum(axis=1, keepdims=True) / 2
    expected = (weights @ (same * near).sum(axis=1) - negative) / np.log(2)
    bits = held_out_bits(run, recordings, spans, n=2048, rounds=4, device="cpu")
    assert bits == pytest.approx(expected, abs=0.05)
    swapped = held_out_bits(
        run, recordings[::-1], spans[::-1], sessions=[1, 0], n=2048, rounds=4, device="cpu"
    )
    assert swapped == pytest.approx(expected, abs=0.05)
