"""Several sessions, full batches, mixed pairs, and every option of the trainer, against twins."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

import twins
from grevy.config import Adam, TrainConfig
from grevy.drawing import Draw, draw
from grevy.encoders import EncoderSpec, initial_weights
from grevy.errors import ConfigError, DataError
from grevy.model import embed, held_out_bits
from grevy.pairs import (
    ClassPairs,
    DeltaPairs,
    HybridPairs,
    MixedPairs,
    NearPairs,
    Pairs,
    TimePairs,
    prepare,
    prepare_sessions,
)
from grevy.recording import Label, Recording, make_recording
from grevy.store import load, save
from grevy.training import adapt, resume, train
from grevy.windows import ReceptiveField

FIELD = ReceptiveField(2, 3)
SPEC = EncoderSpec("offset5-model", 6, 3)
QUICK = TrainConfig(
    DeltaPairs(("place",), lag=2), SPEC, learning_rate=3e-3, batch_size=12, n_negatives=20,
    n_steps=15, block=4, seed=5, precision="float32",
)  # fmt: skip
LABELLED: list[Pairs] = [
    DeltaPairs(("place",), lag=2),
    NearPairs(("place", "angle"), sd=0.3),
    ClassPairs("side"),
    ClassPairs("side", balanced=True),
    MixedPairs(DeltaPairs(("place",)), "side"),
    MixedPairs(NearPairs(("angle",), sd=0.4), "side", balanced=False),
    HybridPairs(DeltaPairs(("place",)), TimePairs((3,)), 2),
    HybridPairs(MixedPairs(NearPairs(("place",), sd=0.2), "side"), TimePairs((2, 60)), 2),
]


def session(seed: int, n: int = 220, channels: int = 4, shift: float = 0.0) -> Recording:
    rng = np.random.default_rng(seed)
    labels = {
        "place": Label(np.round(np.cumsum(rng.normal(0, 0.3, n)), 1) + shift, "continuous"),
        "angle": Label(rng.uniform(0, 6, n), "continuous", period=2 * math.pi),
        "side": Label(rng.integers(0, 3, n), "discrete"),
    }
    cut = n // 2
    return make_recording(
        rng.normal(size=(n, channels)), rate_hz=10.0, epochs=[[0, cut], [cut, n]], labels=labels
    )


SESSIONS = [session(0), session(1, 180, 5, shift=0.7), session(2, 200, 3)]


def entries(drawn: Draw, step: int) -> list[tuple[int, int]]:
    """(session, centre) of every entry of the flat list."""
    found = []
    for g in drawn.groups:
        for o in range(g.outputs):
            found += [(g.session, int(c) + o) for c in g.start[step]]
    return found


def at(drawn: Draw, places: Tensor, step: int) -> list[tuple[int, int]]:
    flat = entries(drawn, step)
    return [flat[int(p)] for p in places[step]]


@pytest.mark.parametrize("pairs", LABELLED, ids=str)
@pytest.mark.parametrize("block", [1, 4])
def test_every_session_asks_and_answers_as_much(pairs: Pairs, block: int) -> None:
    tables = prepare_sessions(SESSIONS, pairs, FIELD, [r.epochs for r in SESSIONS])
    drawn = draw(tables, 3, torch.arange(6), batch=8, n_negatives=10, block=block)
    for step in range(6):
        reference = at(drawn, drawn.reference, step)
        assert [s for s, _ in reference] == [0] * 8 + [1] * 8 + [2] * 8
        assert [s for s, _ in at(drawn, drawn.negative, step)] == [0] * 10 + [1] * 10 + [2] * 10
        behavior = at(drawn, drawn.positives[0], step)
        assert sorted(s for s, _ in behavior) == [0] * 8 + [1] * 8 + [2] * 8
        for s, c in [*reference, *behavior]:
            assert c in tables[s].anchors
        if isinstance(pairs, HybridPairs):
            for (s, c), (t, d) in zip(reference, at(drawn, drawn.positives[1], step), strict=True):
                assert s == t
                assert d - c in pairs.time.offsets


def test_positives_have_the_class_of_their_reference_in_whatever_session() -> None:
    tables = prepare_sessions(SESSIONS, ClassPairs("side"), FIELD, [r.epochs for r in SESSIONS])
    drawn = draw(tables, 1, torch.arange(20), batch=16, block=4)
    for step in range(20):
        for (s, c), (t, d) in zip(
            at(drawn, drawn.reference, step), at(drawn, drawn.positives[0], step), strict=True
        ):
            sides = [r.labels["side"].values for r in SESSIONS]
            assert sides[s][c] == sides[t][d]


def test_positives_carry_the_nearest_label_of_the_session_they_lie_in() -> None:
    """With hardly any noise the query is the reference's own label."""
    pairs = NearPairs(("place",), sd=1e-9)
    tables = prepare_sessions(SESSIONS, pairs, FIELD, [r.epochs for r in SESSIONS])
    drawn = draw(tables, 2, torch.arange(10), batch=16, block=1)
    place = [r.labels["place"].values for r in SESSIONS]
    for step in range(10):
        for (s, c), (t, d) in zip(
            at(drawn, drawn.reference, step), at(drawn, drawn.positives[0], step), strict=True
        ):
            far = np.abs(place[t][tables[t].anchors] - place[s][c])
            assert abs(place[t][d] - place[s][c]) == pytest.approx(far.min(), abs=1e-6)


def test_queries_are_dealt_out_evenly() -> None:
    tables = prepare_sessions(SESSIONS, ClassPairs("side"), FIELD, [r.epochs for r in SESSIONS])
    drawn = draw(tables, 2, torch.arange(400), batch=8, block=1)
    counts = np.zeros((3, 3))
    for step in range(400):
        for (s, _), (t, _) in zip(
            at(drawn, drawn.reference, step), at(drawn, drawn.positives[0], step), strict=True
        ):
            counts[s, t] += 1
    assert stats.chisquare(counts.reshape(-1)).pvalue > 1e-3


def test_mixed_positives_by_brute_force() -> None:
    rec = SESSIONS[0]
    pairs = MixedPairs(NearPairs(("place",), sd=1e-9), "side")
    table = prepare(rec, pairs, FIELD, rec.epochs)
    drawn = draw(table, 4, torch.arange(200), batch=12, block=8)
    place, side = rec.labels["place"].values, rec.labels["side"].values
    drawn_classes = []
    for step in range(200):
        reference = at(drawn, drawn.reference, step)
        for (_, c), (_, d) in zip(reference, at(drawn, drawn.positives[0], step), strict=True):
            own = table.anchors[side[table.anchors] == side[c]]
            assert side[d] == side[c]
            assert abs(place[d] - place[c]) == pytest.approx(np.abs(place[own] - place[c]).min())
            drawn_classes.append(side[c])
    assert stats.chisquare(np.bincount(drawn_classes)).pvalue > 1e-3  # classes are equally likely


@pytest.mark.parametrize("pairs", LABELLED, ids=str)
def test_one_session_in_a_list_is_one_session(pairs: Pairs) -> None:
    rec = SESSIONS[0]
    one = draw(prepare(rec, pairs, FIELD, rec.epochs), 7, torch.arange(5), batch=8, block=4)
    (table,) = prepare_sessions([rec], pairs, FIELD, [rec.epochs])
    many = draw([table], 7, torch.arange(5), batch=8, block=4)
    assert torch.equal(one.reference, many.reference)
    for a, b in zip(one.positives, many.positives, strict=True):
        assert torch.equal(a, b)


@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(20, 90))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_a_full_batch_is_every_anchor_in_order(seed: int, offset: int, cut: int) -> None:
    rec = twins.noise(100, 3, epochs=[(0, cut), (cut, 100)])
    spans = [(a, b) for a, b in rec.epochs.tolist()]
    wanted = twins.centres(spans, FIELD.left, FIELD.right, offset)
    if len(wanted) < 2:
        return
    table = prepare(rec, TimePairs((offset,)), FIELD, rec.epochs)
    drawn = draw(table, seed, torch.arange(2), batch=None, block=8)
    for step in range(2):
        assert [c for _, c in at(drawn, drawn.reference, step)] == wanted
        assert [c for _, c in at(drawn, drawn.positives[0], step)] == [c + offset for c in wanted]
        assert sorted(c for _, c in at(drawn, drawn.negative, step)) == wanted


def test_apart_no_window_serves_two_roles() -> None:
    rec = SESSIONS[0]
    pairs = HybridPairs(DeltaPairs(("place",)), TimePairs((3,)), 2)
    table = prepare(rec, pairs, FIELD, rec.epochs)
    drawn = draw(table, 0, torch.arange(3), batch=8, n_negatives=9, block=4, apart=True)
    roles = [drawn.reference, *drawn.positives, drawn.negative]
    used = torch.cat(roles, dim=1)
    assert all(len(set(row.tolist())) == 8 + 8 + 8 + 9 for row in used)
    assert all(g.outputs == 1 for g in drawn.groups)


def test_what_cannot_be_aligned_is_refused() -> None:
    spans = [r.epochs for r in SESSIONS]
    with pytest.raises(ConfigError, match="time pairs hold within a session"):
        prepare_sessions(SESSIONS, TimePairs(), FIELD, spans)
    few = Label(np.minimum(SESSIONS[1].labels["side"].values, 1), "discrete")
    lacking = replace(SESSIONS[1], labels={**SESSIONS[1].labels, "side": few})
    three = [SESSIONS[0], lacking, SESSIONS[2]]
    with pytest.raises(DataError, match="class 2 of label 'side' is absent from session 1"):
        prepare_sessions(three, ClassPairs("side"), FIELD, spans)
    tables = prepare_sessions(three, ClassPairs("side", shared_only=True), FIELD, spans)
    for table, rec in zip(tables, three, strict=True):
        assert set(rec.labels["side"].values[table.anchors]) == {0, 1}
    straight = Label(SESSIONS[1].labels["angle"].values, "continuous")
    other = replace(SESSIONS[1], labels={**SESSIONS[1].labels, "angle": straight})
    with pytest.raises(DataError, match="same columns and periods"):
        prepare_sessions([SESSIONS[0], other], NearPairs(("angle",), sd=1.0), FIELD, spans[:2])
    bare = replace(SESSIONS[2], labels={}, name="third")
    with pytest.raises(DataError, match="'third' has: none"):
        prepare_sessions([SESSIONS[0], bare], ClassPairs("side"), FIELD, spans[:2])


# --- The trainer, step by step as torch has it ---------------------------------------------------
def slow(
    recordings: list[Recording], config: TrainConfig
) -> tuple[list[list[Tensor]], np.ndarray, np.ndarray, float]:
    """Training with torch's layers and Adam, one window at a time, a module a session."""
    spec = config.encoder
    assert isinstance(spec, EncoderSpec)
    modules = []
    for s, rec in enumerate(recordings):
        module = twins.encoder(spec.architecture, rec.n_channels, spec.hidden, spec.latents)
        twins.set_weights(module, initial_weights(spec, rec.n_channels, config.seed, session=s))
        if config.distance == "euclidean":
            module = module[:-1].append(torch.nn.Flatten())
        modules.append(module)
    sharpness = torch.tensor(-math.log(config.temperature), requires_grad=config.learn_temperature)
    parameters = [p for m in modules for p in m.parameters()]
    a = config.adam
    adam = torch.optim.Adam(
        [*parameters, sharpness] if config.learn_temperature else parameters,
        lr=config.learning_rate, betas=(a.beta1, a.beta2), eps=a.eps,
        weight_decay=a.weight_decay, amsgrad=a.amsgrad,
    )  # fmt: skip
    tables = prepare_sessions(recordings, config.pairs, spec.field, [r.epochs for r in recordings])
    losses, warmth = [], []
    for step in range(config.n_steps):
        drawn = draw(
            tables, config.seed, torch.tensor([step]), batch=config.batch_size,
            n_negatives=config.n_negatives, block=config.block,
        )  # fmt: skip

        def latents(places: Tensor, drawn: Draw = drawn) -> Tensor:
            rows = []
            for s, c in at(drawn, places, 0):
                window = twins.window(recordings[s].activity, c, spec.field)
                rows.append(modules[s](torch.from_numpy(window.T.copy())[None])[0])
            return torch.stack(rows)

        r, n = latents(drawn.reference), latents(drawn.negative)
        tau = torch.exp(-sharpness)
        terms = []
        for k, places in enumerate(drawn.positives):
            some = slice(None)
            if isinstance(config.pairs, HybridPairs) and k == 0:
                some = slice(0, config.pairs.behavior_latents)
            p = latents(places)
            if config.distance == "cosine":
                near = (r[:, some] * p[:, some]).sum(1)
                others = r[:, some] @ n[:, some].T
            else:
                near = -(r[:, some] - p[:, some]).square().sum(1)
                others = -(r[:, None, some] - n[None, :, some]).square().sum(2)
            if drawn.others:
                others = others.masked_fill(twins.same_block(len(r), drawn.others) > 0, -torch.inf)
            terms.append((-(near / tau).mean(), torch.logsumexp(others / tau, 1).mean()))
        adam.zero_grad()
        torch.stack([x + y for x, y in terms]).sum().backward()
        warmth.append(float(tau.detach()))
        adam.step()
        if config.learn_temperature and config.min_temperature is not None:
            with torch.no_grad():
                sharpness.clamp_(max=-math.log(config.min_temperature))
        losses.append([[float(x.detach()), float(y.detach())] for x, y in terms])
    return (
        [twins.get_weights(m) for m in modules],
        np.array(losses),
        np.array(warmth),
        float(torch.exp(-sharpness.detach())),
    )


OTHERS: dict[str, Any] = {"n_negatives": None, "block": 1}
MSE = EncoderSpec("offset10-model-mse", 6, 3)
OPTIONS: dict[str, tuple[int, dict[str, Any]]] = {
    "two sessions": (2, {}),
    "three sessions, hybrid": (3, {"pairs": LABELLED[6]}),
    "two sessions, classes": (2, {"pairs": ClassPairs("side")}),
    "mixed": (1, {"pairs": LABELLED[4]}),
    "euclidean": (1, {"distance": "euclidean", "encoder": MSE, "temperature": 0.7}),
    "the others, two sessions": (2, OTHERS),
    "the others, hybrid": (1, {**OTHERS, "pairs": LABELLED[6]}),
    "learned temperature": (1, {"learn_temperature": True, "min_temperature": 0.1}),
    "at its floor": (1, {"learn_temperature": True, "min_temperature": 0.98, "n_steps": 25}),
    "sessions that learn it": (2, {"learn_temperature": True, "pairs": ClassPairs("side")}),
    "amsgrad": (1, {"adam": Adam(amsgrad=True), "learning_rate": 1e-2}),
    "decay": (1, {"adam": Adam(beta1=0.8, beta2=0.95, eps=1e-6, weight_decay=0.1)}),
    "full batch": (1, {"pairs": TimePairs((4,)), "batch_size": None, "n_negatives": None}),
    "full batch with labels": (1, {"batch_size": None, "n_negatives": None}),
    "full batch of sessions": (2, {"batch_size": None, "n_negatives": None, "n_steps": 6}),
}


@pytest.mark.parametrize("what", OPTIONS)
def test_training_is_that_of_torch(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    n, changes = OPTIONS[what]
    if what == "euclidean":  # the twin's layers without the last
        plain = twins.encoder

        def named(architecture: str, *rest: int) -> torch.nn.Sequential:
            return plain(architecture.replace("-mse", ""), *rest)

        monkeypatch.setattr(twins, "encoder", named)
    recordings = [session(s, 90 + 10 * s, 3 + s) for s in range(n)]
    config = replace(QUICK, **changes)
    (run,) = train(recordings, [config], device="cpu")
    weights, losses, warmth, final = slow(recordings, config)
    np.testing.assert_allclose(run.losses, losses, rtol=5e-5, atol=5e-5)
    np.testing.assert_allclose(run.temperatures, warmth, rtol=1e-5)
    assert run.temperature == pytest.approx(final, rel=1e-5)
    assert len(run.sessions) == n
    for own, theirs in zip(run.sessions, weights, strict=True):
        # Euclidean distances do not see the last bias: what moves it is rounding.
        seen = len(theirs) - (what == "euclidean")
        for found, expected in list(zip(own.weights, theirs, strict=True))[:seen]:
            torch.testing.assert_close(found, expected, rtol=2e-4, atol=5e-5)
    if what == "learned temperature":
        assert run.temperatures[0] == 1
        assert len(set(run.temperatures.tolist())) == len(run.temperatures)


def test_a_temperature_below_its_floor_begins_there_and_can_rise() -> None:
    """White noise wants a high temperature; clamped in the loss it would have no gradient."""
    config = replace(
        QUICK, temperature=0.2, learn_temperature=True, min_temperature=0.5, n_steps=60,
        pairs=NearPairs(("angle",), sd=0.1), learning_rate=1e-2,
    )  # fmt: skip
    (run,) = train([SESSIONS[0]], [config], device="cpu")
    assert run.temperatures[0] == pytest.approx(0.5)
    assert run.temperatures.max() > 0.52
    assert run.temperatures.min() >= 0.5 * (1 - 1e-6)


def test_what_can_be_told_apart_cools_to_the_floor_and_no_further() -> None:
    config = replace(
        QUICK, pairs=NearPairs(("angle",), sd=0.05), learn_temperature=True, min_temperature=0.9,
        learning_rate=1e-2, n_steps=80,
    )  # fmt: skip
    (run,) = train([twins.wave(400, 6)], [config], device="cpu")
    assert run.temperatures[-1] == pytest.approx(0.9, rel=1e-6)
    assert run.temperatures.min() >= 0.9 * (1 - 1e-6)


# --- Going on, adapting --------------------------------------------------------------------------
@pytest.mark.parametrize("changes", [{}, {"learn_temperature": True, "adam": Adam(amsgrad=True)}])
def test_training_in_two_parts_is_training_once(changes: dict[str, Any], tmp_path: Any) -> None:
    recordings = SESSIONS[:2]
    config = replace(QUICK, n_steps=14, **changes)
    (whole,) = train(recordings, [config], device="cpu")
    (half,) = train(recordings, [replace(config, n_steps=6)], device="cpu")
    half = load(save(half, tmp_path / "half"))
    more = resume(half, recordings, 8, device="cpu")
    assert more.digest == whole.digest
    assert np.array_equal(more.losses, whole.losses)
    assert more.config == whole.config
    assert more.temperature == whole.temperature
    assert more.parent == half.digest
    with pytest.raises(ConfigError, match=r"\[4, 5\]; found \[4, 3\]"):
        resume(half, [SESSIONS[0], SESSIONS[2]], 5, device="cpu")


@pytest.mark.parametrize(("old", "new"), [(1, 1), (1, 2), (3, 1), (2, 2)])
def test_adapting_fits_the_first_layer_alone(old: int, new: int) -> None:
    (run,) = train(SESSIONS[:old], [QUICK], device="cpu")
    before = run.digest
    fresh = [session(9 + s, 150, 7 + s) for s in range(new)]
    adapted = adapt(run, fresh, replace(QUICK, n_steps=10), device="cpu")
    assert run.digest == before
    assert adapted.parent == before
    assert [s.n_channels for s in adapted.sessions] == [7 + s for s in range(new)]
    for s, own in enumerate(adapted.sessions):
        kept = run.sessions[s if new == old else 0].weights
        start = initial_weights(SPEC, 7 + s, QUICK.seed, session=s)
        assert all(torch.equal(a, b) for a, b in zip(own.weights[2:], kept[2:], strict=True))
        assert not torch.equal(own.weights[0], start[0])
        assert not torch.equal(own.weights[1], start[1])
    with pytest.raises(ConfigError, match="encoder it was trained with"):
        adapt(run, fresh, replace(QUICK, encoder=EncoderSpec("offset10-model", 6, 3)))


def test_an_encoder_whose_later_layers_see_the_channels_says_so() -> None:
    spec = EncoderSpec("offset40-model-4x-subsample", 6, 3)
    config = replace(QUICK, encoder=spec, n_steps=2)
    (run,) = train([session(0)], [config], device="cpu")
    with pytest.raises(ConfigError, match="adapts only to 4 channels"):
        adapt(run, [session(1, channels=5)], config, device="cpu")


def test_sessions_are_embedded_by_their_own_encoder() -> None:
    (run,) = train(SESSIONS, [QUICK], device="cpu")
    for s, rec in enumerate(SESSIONS):
        found = embed(run, rec, session=s).values
        alone = replace(run, sessions=(run.sessions[s],))
        assert np.array_equal(found, embed(alone, rec).values)
    with pytest.raises(ConfigError, match="0 to 2; found 3"):
        embed(run, SESSIONS[0], session=3)
    with pytest.raises(DataError, match="takes 5 channels"):
        embed(run, SESSIONS[0], session=1)


def test_noise_of_two_sessions_has_no_bits() -> None:
    """All negatives count: with those of one session alone noise would seem to have one bit."""
    (run,) = train(SESSIONS[:2], [replace(QUICK, pairs=ClassPairs("side"))], device="cpu")
    fresh = [session(20), session(21, channels=5)]
    bits = held_out_bits(run, fresh, [r.epochs for r in fresh], n=256, n_references=128)
    assert abs(bits) < 0.25


# --- Architectures that need care ----------------------------------------------------------------
@pytest.mark.parametrize("n", [77, 80, 83])
def test_resampling_gives_a_row_every_fourth_sample(n: int) -> None:
    spec = EncoderSpec("offset40-model-4x-subsample", 6, 3)
    config = replace(QUICK, encoder=spec, n_steps=2, pairs=TimePairs((2,)))
    (run,) = train([session(0)], [config], device="cpu")
    rec = twins.noise(n, 4)
    found = embed(run, rec)
    assert found.samples.tolist() == list(range(0, n, 4))
    whole = embed(run, rec, pad=False)
    assert len(whole.values) == (n - 40) // 4 + 1
    assert not whole.padded.any()
    dense = embed(run, rec, dense=True)
    assert dense.samples.tolist() == list(range(n))
    np.testing.assert_allclose(dense.values[::4], found.values, atol=1e-6)
    rows = [dense.samples.tolist().index(s) for s in whole.samples]
    np.testing.assert_allclose(dense.values[rows], whole.values, atol=1e-6)


def test_scaling_where_it_cannot_be_folded_is_training_on_scaled_data() -> None:
    spec = EncoderSpec("offset1-model-mse-resnet-2layers", 6, 3)
    rec = session(3)
    mean, sd = rec.activity.mean(0, dtype=np.float64), rec.activity.std(0, dtype=np.float64)
    scaled = replace(rec, activity=((rec.activity - mean) / sd).astype(np.float32))
    config = replace(QUICK, encoder=spec, distance="euclidean")
    (a,) = train([rec], [replace(config, scale="zscore")], device="cpu")
    (b,) = train([scaled], [config], device="cpu")
    np.testing.assert_allclose(a.losses, b.losses, rtol=1e-4, atol=1e-4)
    found, expected = embed(a, rec).values, embed(b, scaled).values
    # Euclidean distances do not see where the embedding lies as a whole.
    np.testing.assert_allclose(found - found.mean(0), expected - expected.mean(0), atol=2e-3)


def test_dropout_trains_and_is_off_afterwards() -> None:
    spec = EncoderSpec("offset36-model-dropout", 6, 3)
    config = replace(QUICK, encoder=spec, n_steps=4, pairs=TimePairs((2,)))
    plain = replace(config, encoder=EncoderSpec("offset36-model", 6, 3))
    rec = session(4)
    first, second = (train([rec], [config], device="cpu")[0] for _ in range(2))
    assert first.digest == second.digest
    (without,) = train([rec], [plain], device="cpu")
    assert not np.allclose(first.losses, without.losses, atol=1e-4)
    same = replace(first, config=replace(config, encoder=plain.encoder))
    assert np.array_equal(embed(first, rec).values, embed(same, rec).values)
