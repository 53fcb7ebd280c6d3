"""How good embeddings are: closed forms, slow twins, planted cases in which chance looks good."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from grevy.config import TrainConfig
from grevy.encoders import EncoderSpec
from grevy.errors import ConfigError, DataError
from grevy.model import Run, embed, held_out_bits
from grevy.nulls import band
from grevy.pairs import NearPairs, TimePairs
from grevy.quality import (
    Split,
    bits_with_surrogate,
    consistency,
    effective_dimension,
    over_bins,
    participation_ratio,
    split,
    surrogate,
)
from grevy.quality import bits as bits_module
from grevy.recording import Label, Recording, make_recording
from grevy.synthetic import ring
from grevy.training import train

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import parity_judge as judge

RNG = np.random.default_rng
HELD = np.array([[1600, 2000]])
TASK = TrainConfig(
    pairs=TimePairs((5,)),
    encoder=EncoderSpec("offset5-model", hidden=16, latents=3),
    batch_size=64,
    learning_rate=5e-3,
    n_steps=80,
    train_on=((0, 1550),),
)


def parts_of(embeddings: list[np.ndarray], n_trained: int) -> list[Split]:
    rows = np.arange(len(embeddings[0]))
    return [
        Split(z[:n_trained], z[n_trained:], rows[:n_trained], rows[n_trained:]) for z in embeddings
    ]


# --- surrogates ----------------------------------------------------------------------------------
def planted(lengths: list[int], n_channels: int) -> Recording:
    """Every sample says where it was: its lag can be read."""
    ends = np.cumsum(lengths)
    epochs = np.stack([ends - lengths, ends], axis=1)
    x = np.tile(np.arange(ends[-1], dtype=np.float32)[:, None], (1, n_channels))
    label = Label(np.arange(ends[-1]) % 3, "discrete")
    return make_recording(x, rate_hz=1.0, epochs=epochs, labels={"a": label})


def read_lags(shifted: Recording, a: int, b: int) -> list[int]:
    return [int(round(a - v) % (b - a)) for v in shifted.activity[a]]


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 60), min_size=1, max_size=3),
    n_channels=st.integers(1, 8),
    apart=st.integers(1, 30),
    seed=st.integers(0, 2**40),
)
def test_each_channel_is_turned_round_each_epoch_by_a_lag_of_its_own(
    lengths: list[int], n_channels: int, apart: int, seed: int
) -> None:
    recording = planted(lengths, n_channels)
    shifted = surrogate(recording, seed=seed, apart=apart)
    for a, b in recording.epochs.tolist():
        n, lags = b - a, read_lags(shifted, a, b)
        for c, lag in enumerate(lags):
            turned = [recording.activity[a + (i - lag) % n, c] for i in range(n)]
            assert shifted.activity[a:b, c].tolist() == turned
        room = min(apart, n // (n_channels + 1))
        everyone = [0, *lags]  # the labels stay, as a channel of lag 0 would
        for one, other in combinations(everyone, 2):
            gap = abs(one - other) % n
            assert min(gap, n - gap) >= room
    assert shifted.labels["a"] is recording.labels["a"]
    assert shifted.epochs is recording.epochs


def test_lags_are_seeded_and_differ_between_seeds_and_epochs_and_cover_the_epoch() -> None:
    recording = planted([100, 100], 3)

    def lags(seed: int) -> list[int]:
        shifted = surrogate(recording, seed=seed, apart=10)
        return read_lags(shifted, 0, 100) + read_lags(shifted, 100, 200)

    assert lags(0) == lags(0)
    every = np.array([lags(seed) for seed in range(150)])
    assert len({tuple(row) for row in every.tolist()}) > 145
    assert (every[:, :3] != every[:, 3:]).any(axis=1).mean() > 0.95
    assert (every.min(), every.max()) == (10, 90)
    means = every.mean(axis=0)  # channels are exchangeable: a lag's mean is half the epoch
    assert np.abs(means - 50).max() < 4 * every.std() / np.sqrt(len(every))


def test_a_surrogate_says_what_it_is_and_the_recording_stays() -> None:
    recording = planted([30], 9)
    before = recording.activity.copy()
    shifted = surrogate(recording, seed=3, apart=10)
    assert "at least 3 samples apart (seed 3)" in shifted.notes[-1]
    assert (recording.activity == before).all()
    with pytest.raises(ConfigError, match="at least 1 sample apart; found 0"):
        surrogate(recording, seed=0, apart=0)


def test_a_surrogate_keeps_autocorrelation_and_loses_correlation() -> None:
    rng = RNG(0)
    common = np.convolve(rng.standard_normal(4000), np.exp(-np.arange(30) / 5), "same")
    x = common[:, None] * [1, -1, 2] + 0.1 * rng.standard_normal((4000, 3))
    recording = make_recording(x, rate_hz=1.0)
    y = surrogate(recording, seed=1, apart=60).activity
    power = [np.abs(np.fft.rfft(z.astype(float), axis=0)) for z in (recording.activity, y)]
    np.testing.assert_allclose(power[0], power[1], rtol=1e-5, atol=1e-2)
    assert np.abs(np.corrcoef(x.T)[np.triu_indices(3, 1)]).min() > 0.9
    assert np.abs(np.corrcoef(y.T)[np.triu_indices(3, 1)]).max() < 0.2


# --- bits ----------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def trained() -> tuple[Recording, list[Run], list[tuple[Recording, list[Run]]]]:
    recording = ring(2000, 20, seed=1)
    shifted = [surrogate(recording, seed=s, apart=30) for s in range(3)]
    runs = train([recording], [replace(TASK, seed=s) for s in range(3)], device="cpu")
    return recording, runs, [(r, train([r], [TASK], device="cpu")) for r in shifted]


def test_bits_of_related_channels_lie_far_above_their_surrogates(
    trained: tuple[Recording, list[Run], list[tuple[Recording, list[Run]]]],
) -> None:
    recording, runs, surrogates = trained
    found = bits_with_surrogate(runs, surrogates, recording, HELD, device="cpu")
    assert found.runs == tuple(held_out_bits(r, recording, HELD, device="cpu") for r in runs)
    slow = [held_out_bits(theirs[0], r, HELD, device="cpu") for r, theirs in surrogates]
    assert found.surrogates == tuple(slow)
    assert found.value > 1.5 * found.null_high
    assert found.gain == pytest.approx(np.mean(found.runs) - np.mean(slow))
    assert found.gain_low > 0
    assert found.p == 0.25
    welch = stats.ttest_ind(found.runs, slow, equal_var=False).confidence_interval(0.95)
    assert (found.gain_low, found.gain_high) == pytest.approx((welch.low, welch.high))
    student = stats.t.interval(0.95, 2, np.mean(found.runs), stats.sem(found.runs))
    assert (found.low, found.high) == pytest.approx(student)
    assert found == bits_with_surrogate(runs, surrogates, recording, HELD, device="cpu")


def test_channels_that_are_unrelated_gain_nothing() -> None:
    rng = RNG(3)
    noise = np.stack(
        [np.convolve(rng.standard_normal(2020), np.ones(20) / 5, "valid") for _ in range(8)], axis=1
    )[:2000]
    recording = make_recording(noise, rate_hz=10.0)
    shifted = [surrogate(recording, seed=s, apart=40) for s in range(3)]
    runs = train([recording], [replace(TASK, seed=s) for s in range(2)], device="cpu")
    others = [(r, train([r], [replace(TASK, seed=9)], device="cpu")) for r in shifted]
    found = bits_with_surrogate(runs, others, recording, HELD, device="cpu")
    assert found.value > 0.3  # well above chance, of nothing but memory
    assert abs(found.gain) < 0.3 * found.value
    assert math.isnan(found.low)


def test_bits_are_refused_for_what_does_not_compare(
    trained: tuple[Recording, list[Run], list[tuple[Recording, list[Run]]]],
) -> None:
    recording, runs, surrogates = trained
    with pytest.raises(ConfigError, match="at least one run and one surrogate"):
        bits_with_surrogate(runs, [], recording, HELD)
    warm = replace(runs[0], config=replace(TASK, temperature=0.1))
    with pytest.raises(ConfigError, match="only seeds may differ"):
        bits_with_surrogate([runs[0], warm], surrogates, recording, HELD)
    with pytest.raises(DataError, match="run 0 of surrogate 0 must be judged on what it was"):
        bits_with_surrogate(runs, [(recording, surrogates[0][1])], recording, HELD)
    with pytest.raises(DataError, match="found 50, the first sample 1500"):
        bits_with_surrogate(runs, surrogates, recording, np.array([[1500, 1900]]))


def test_the_interval_of_a_gain_has_edges() -> None:
    assert all(map(math.isnan, bits_module._welch(np.ones(1), np.zeros(3))[1:]))
    assert bits_module._welch(np.ones(2), np.zeros(3)) == (1, 1, 1)
    assert all(map(math.isnan, band(np.empty(0))))


# --- parts ---------------------------------------------------------------------------------------
def test_parts_are_embedded_alone_and_hold_no_padded_sample(
    trained: tuple[Recording, list[Run], list[tuple[Recording, list[Run]]]],
) -> None:
    recording, runs, _ = trained
    found = split(runs[0], recording, np.array([[1600, 1700], [1800, 1900]]), device="cpu")
    kept = [*range(1602, 1698), *range(1802, 1898)]
    assert found.held_out_keys.tolist() == kept
    assert found.trained_keys.tolist() == list(range(2, 1548))
    whole = embed(runs[0], recording, device="cpu").values
    np.testing.assert_allclose(found.held_out, whole[kept], atol=1e-6)
    np.testing.assert_allclose(found.trained, whole[2:1548], atol=1e-6)
    with pytest.raises(DataError, match="held-out spans must hold samples with a whole window of"):
        split(runs[0], recording, np.array([[1600, 1603]]))
    everywhere = replace(runs[0], config=replace(TASK, train_on=None))
    with pytest.raises(DataError, match="no sample that the run trained on"):
        split(everywhere, recording, HELD)
    with pytest.raises(ConfigError, match="found 1"):
        split(runs[0], recording, HELD, session=1)


# --- consistency ---------------------------------------------------------------------------------
def naive(a: Split, b: Split) -> float:
    """The R2 of the rows that both have, by dictionaries and normal equations."""

    def both(rows_a: np.ndarray, keys_a: np.ndarray, rows_b: np.ndarray, keys_b: np.ndarray):
        theirs = dict(zip(keys_b.tolist(), rows_b, strict=True))
        pairs = [
            (x, theirs[k]) for k, x in zip(keys_a.tolist(), rows_a, strict=True) if k in theirs
        ]
        return np.array([[*x, 1.0] for x, _ in pairs]), np.array([y for _, y in pairs])

    x, y = both(a.trained, a.trained_keys, b.trained, b.trained_keys)
    u, v = both(a.held_out, a.held_out_keys, b.held_out, b.held_out_keys)
    left = v - u @ np.linalg.solve(x.T @ x, x.T @ y)
    return float(1 - (left**2).sum() / ((v - v.mean(axis=0)) ** 2).sum())


def noisy_parts(seed: int, n_runs: int = 4) -> list[Split]:
    rng = RNG(seed)
    z = rng.standard_normal((150, 2))
    found = []
    for _ in range(n_runs):
        d = int(rng.integers(2, 5))
        y = z @ rng.standard_normal((2, d)) + rng.uniform(0.2, 2) * rng.standard_normal((150, d))
        t, h = np.sort(rng.permutation(100)[:80]), 100 + np.sort(rng.permutation(50)[:40])
        found.append(Split(y[t], y[h], t, h))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_consistency_is_that_of_pairs_one_by_one(seed: int) -> None:
    parts = noisy_parts(seed)
    found = consistency(parts)
    slow = [[naive(a, b) if a is not b else np.nan for b in parts] for a in parts]
    np.testing.assert_allclose(found.pairs, slow, rtol=1e-9)
    assert found.value == pytest.approx(np.nanmean(slow))
    twice = [Split(p.trained, p.trained, p.trained_keys, p.trained_keys) for p in parts]
    assert found.in_sample == pytest.approx(consistency(twice).value)
    shared = [np.intersect1d(a.trained_keys, b.trained_keys) for a in parts for b in parts]
    assert found.n_trained == min(map(len, shared))
    assert (found.n_nulls, found.units) == (0, ("0", "1", "2", "3"))
    assert all(map(math.isnan, (found.p, found.null_mean, found.null_in_sample)))


def test_consistency_is_what_the_judge_of_the_benchmarks_finds() -> None:
    rng = RNG(1)
    z = [rng.standard_normal((300, 3)) + np.sin(np.arange(300) / 9)[:, None] for _ in range(5)]
    found = consistency(parts_of(z, 200))
    pseudo = judge.between_seeds([(e[:200], e[200:]) for e in z])
    assert found.value == pytest.approx(np.mean(pseudo))
    half = stats.t.ppf(0.975, 4) * stats.sem(pseudo)
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half))
    table = [(e[:200].copy(), e[200:].copy()) for e in z]
    for i, (train_rows, test_rows) in enumerate(table):
        train_rows[rng.integers(0, 200, 20)] = np.nan
        test_rows[i] = np.nan
    gaps = [
        Split(t[k], h[m], np.flatnonzero(k), np.flatnonzero(m))
        for t, h in table
        for k, m in [(np.isfinite(t[:, 0]), np.isfinite(h[:, 0]))]
    ]
    assert consistency(gaps).value == pytest.approx(judge.between_animals(table))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_turning_scaling_and_moving_an_embedding_changes_nothing(seed: int) -> None:
    rng = RNG(seed)
    z = rng.standard_normal((2, 60, 3)) + rng.standard_normal((60, 1))
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    other = 7 * z[1] @ turn + rng.standard_normal(3)
    before, after = (consistency(parts_of([z[0], y], 40)) for y in (z[1], other))
    np.testing.assert_allclose(before.pairs, after.pairs, rtol=1e-7, atol=1e-9)


def test_embeddings_of_one_unit_are_averaged_and_not_compared() -> None:
    parts = noisy_parts(5, 6)
    names = ["a", "a", "b", "b", "c", "c"]
    found = consistency(parts, units=names)
    assert found.units == ("a", "b", "c")
    for u, a in enumerate("abc"):
        for v, b in enumerate("abc"):
            values = [
                naive(parts[i], parts[j])
                for i in range(6)
                for j in range(6)
                if names[i] == a and names[j] == b and a != b
            ]
            if values:
                assert found.pairs[u][v] == pytest.approx(np.mean(values))
    assert np.isfinite(found.low)
    assert math.isnan(consistency(parts[:4], units=names[:4]).low)


def test_the_jackknife_covers_what_other_runs_would_give() -> None:
    """Runs of unequal quality, drawn anew: the mean over all pairs is known from many of them."""

    def drawn(seed: int, n: int) -> list[Split]:
        rng = RNG(seed)
        z = RNG(0).standard_normal((240, 2))
        noise = rng.uniform(0.1, 1.2, n)
        return parts_of([z + s * rng.standard_normal((240, 2)) for s in noise], 120)

    truth = consistency(drawn(1, 60)).value
    for n, width in ((3, 2.0), (6, 0.8)):
        found = [consistency(drawn(100 + s, n)) for s in range(60)]
        assert np.mean([f.low <= truth <= f.high for f in found]) > 0.85
        assert np.mean([f.high - f.low for f in found]) < width


def test_memorised_labels_are_consistent_in_sample_only() -> None:
    """Two animals of noise: what was trained lies where the label says, what was not anywhere."""
    rng = RNG(7)
    n = 4000
    labels = [Label(rng.uniform(0, 1, n), "continuous") for _ in range(2)]

    def animal(label: Label) -> Split:
        track = np.stack([np.cos(3 * label.values), np.sin(3 * label.values)], axis=1)
        memory = track @ np.linalg.qr(rng.standard_normal((2, 2)))[0]
        memory[3000:] = rng.standard_normal((1000, 2))
        rows = np.arange(n)
        return Split(memory[:3000], memory[3000:], rows[:3000], rows[3000:])

    found = consistency(over_bins([animal(la) for la in labels], labels, n_bins=50))
    assert found.in_sample > 0.99
    assert found.value < 0.1


def test_noise_fitted_to_labels_is_no_more_consistent_than_its_null() -> None:
    """Trained: encoders guided by a label that noise knows nothing of, and by shuffled ones."""

    def animal(seed: int, turn: int) -> Recording:
        rng = RNG(seed)
        place = (np.arange(900) / 150) % 1
        return make_recording(
            rng.standard_normal((900, 240)),
            rate_hz=10.0,
            labels={"place": Label(np.roll(place, turn), "continuous")},
        )

    config = TrainConfig(
        pairs=NearPairs(("place",), 0.05),
        encoder=EncoderSpec("offset1-model", hidden=32, latents=3),
        batch_size=128,
        learning_rate=3e-3,
        n_steps=150,
        train_on=((0, 300),),
    )

    def parts(turns: list[int]) -> list[Split]:
        animals = [animal(s, t) for s, t in enumerate(turns)]
        runs = [
            train([a], [replace(config, seed=s)], device="cpu")[0] for s, a in enumerate(animals)
        ]
        held = np.array([[600, 900]])
        both = [split(r, a, held, device="cpu") for r, a in zip(runs, animals, strict=True)]
        return over_bins(both, [a.labels["place"] for a in animals], n_bins=30)

    found = consistency(parts([0, 0]), [parts([40, 310])])
    assert min(found.in_sample, found.null_in_sample) > 0.5
    assert max(found.value, found.null_mean) < 0
    assert found.p >= 0.5


def test_a_shared_code_is_consistent_on_held_out_laps_and_its_null_is_not() -> None:
    rng = RNG(8)
    n = 3000

    def animal(*, knows: bool) -> tuple[Split, Label]:
        angle = np.cumsum(0.05 + 0.1 * rng.standard_normal(n))
        said = angle if knows else np.roll(angle, int(rng.integers(500, 2500)))
        code = np.stack([np.cos(said), np.sin(said)], axis=1) @ rng.standard_normal((2, 3))
        z = code + 0.3 * rng.standard_normal((n, 3))
        rows = np.arange(n)
        label = Label(angle, "continuous", unit="rad", period=2 * np.pi)
        return Split(z[:2000], z[2100:], rows[:2000], rows[2100:]), label

    def session(*, knows: bool) -> list[Split]:
        several = [animal(knows=knows) for _ in range(3)]
        return over_bins([p for p, _ in several], [la for _, la in several], n_bins=40)

    found = consistency(session(knows=True), [session(knows=False) for _ in range(19)])
    assert found.value > 0.9
    assert found.null_high < 0.5 * found.value
    assert found.p == 0.05
    assert found.low < found.value < found.high <= 1


def test_consistency_is_refused_where_it_would_mean_nothing() -> None:
    parts = noisy_parts(0)
    with pytest.raises(DataError, match="at least two units"):
        consistency(parts[:1])
    with pytest.raises(DataError, match="at least two units"):
        consistency(parts, units=["a"] * 4)
    with pytest.raises(DataError, match="3 names for 4"):
        consistency(parts, units=["a", "b", "c"])
    with pytest.raises(DataError, match="found 3 in null 1"):
        consistency(parts, [parts, parts[:3]])
    few = parts_of(list(RNG(0).standard_normal((2, 8, 3))), 4)
    with pytest.raises(DataError, match=r"more training rows than the 4 numbers .* found 4 and 4"):
        consistency(few)
    flat = parts_of([RNG(0).standard_normal((20, 2)), np.full((20, 2), 0.1)], 10)
    with pytest.raises(DataError, match=r"embeddings 0 and 1 of null 0 .* collapsed"):
        consistency(parts_of(list(RNG(0).standard_normal((2, 20, 2))), 10), [flat])


# --- bins ----------------------------------------------------------------------------------------
def test_rows_are_means_over_bins_that_have_enough_samples() -> None:
    rng = RNG(2)
    values = [rng.uniform(0, 1 + s, 200) for s in range(2)]
    labels = [Label(v, "continuous", known=rng.uniform(size=200) > 0.2) for v in values]
    parts = parts_of(list(rng.standard_normal((2, 200, 3))), 140)
    found = over_bins(parts, labels, n_bins=20, least=4)
    known = np.concatenate([v[la.mask] for v, la in zip(values, labels, strict=True)])
    edges = np.linspace(known.min(), known.max(), 21)
    for part, label, whole in zip(found, labels, parts, strict=True):
        for rows, keys, z, at in (
            (part.trained, part.trained_keys, whole.trained, whole.trained_keys),
            (part.held_out, part.held_out_keys, whole.held_out, whole.held_out_keys),
        ):
            slow = {}
            for b in range(20):
                last = np.inf if b == 19 else edges[b + 1]
                inside = [
                    z[i]
                    for i, t in enumerate(at)
                    if label.mask[t] and edges[b] <= label.values[t] < last
                ]
                if len(inside) >= 4:
                    slow[b] = np.mean(inside, axis=0)
            assert keys.tolist() == list(slow)
            np.testing.assert_allclose(rows, list(slow.values()), atol=1e-12)


def test_classes_columns_and_circles_have_bins_of_their_own() -> None:
    rng = RNG(4)
    parts = parts_of(list(rng.standard_normal((2, 300, 2))), 200)
    state = [Label(np.where(rng.uniform(size=300) < 0.5, 7, -3 - s), "discrete") for s in range(2)]
    found = over_bins(parts, state)
    assert [p.trained_keys.tolist() for p in found] == [[1, 2], [0, 2]]  # -4 and -3 are not shared
    two = [
        Label(np.stack([rng.uniform(size=300), rng.integers(0, 2, 300)], axis=1), "continuous")
        for _ in range(2)
    ]
    many = over_bins(parts, two, n_bins=20, least=1)
    assert max(p.trained_keys.max() for p in many) + 1 == 2 * 20
    turns = rng.uniform(0, 1, 300)
    circle = [Label(turns + s, "continuous", period=1.0) for s in (0, 3)]
    a, b = over_bins(parts, circle, n_bins=10, least=1)
    assert a.trained_keys.tolist() == b.trained_keys.tolist() == list(range(10))


def test_bins_are_refused_for_labels_that_differ() -> None:
    parts = parts_of(list(RNG(0).standard_normal((2, 30, 2))), 20)
    metres = Label(np.linspace(0, 1, 30), "continuous", unit="m")
    with pytest.raises(DataError, match="one kind, unit, period"):
        over_bins(parts, [metres, replace(metres, unit="cm")])
    with pytest.raises(DataError, match="found 1 for 2"):
        over_bins(parts, [metres])
    with pytest.raises(DataError, match="found none in embedding 0"):
        over_bins(parts, [metres, metres], least=25)
    with pytest.raises(DataError, match="known at some samples"):
        over_bins(parts, [replace(metres, known=np.zeros(30, bool))] * 2)
    with pytest.raises(ConfigError, match="at least 2 bins"):
        over_bins(parts, [metres, metres], n_bins=1)


# --- dimension -----------------------------------------------------------------------------------
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), d=st.integers(1, 6))
def test_participation_ratio_is_that_of_the_eigenvalues(seed: int, d: int) -> None:
    rng = RNG(seed)
    x = rng.standard_normal((50, d)) @ rng.standard_normal((d, d)) + 100
    values = np.linalg.eigvalsh(np.atleast_2d(np.cov(x.T)))
    assert participation_ratio(x) == pytest.approx(values.sum() ** 2 / (values**2).sum(), rel=1e-6)
    assert 1 - 1e-9 <= participation_ratio(x) <= d + 1e-9


def test_participation_ratio_has_closed_forms() -> None:
    t = np.arange(360) * np.pi / 180
    circle = np.stack([np.cos(t), np.sin(t), 0 * t], axis=1)
    assert participation_ratio(circle) == pytest.approx(2)
    assert participation_ratio(np.outer(t, [1, 2, 3, 4])) == pytest.approx(1)
    spans = np.array([[0, 360]])
    both = np.concatenate([circle, RNG(0).standard_normal((40, 3))])
    assert participation_ratio(both, spans) == pytest.approx(2)
    n, d = 100, 50  # as its notes say of few rows
    few = np.mean([participation_ratio(RNG(s).standard_normal((n, d))) for s in range(20)])
    assert few == pytest.approx(d / (1 + d / n), rel=0.05)
    with pytest.raises(DataError, match="3 columns must vary"):
        participation_ratio(np.full((5, 3), 0.1))


def test_dimension_of_an_embedding_stands_beside_that_of_the_same_activity(
    trained: tuple[Recording, list[Run], list[tuple[Recording, list[Run]]]],
) -> None:
    recording, runs, _ = trained
    loud = replace(recording, activity=recording.activity * np.array([50.0] + [1] * 18 + [0], "f4"))
    found = effective_dimension(runs[0], loud, HELD, device="cpu")
    x = loud.activity[1602:1998].astype(float)
    values = np.linalg.eigvalsh(np.corrcoef(x[:, :-1].T))
    assert found.scaled_activity == pytest.approx(values.sum() ** 2 / (values**2).sum())
    assert found.activity == pytest.approx(participation_ratio(x))
    assert found.activity < 1.1 < found.scaled_activity
    own = split(runs[0], loud, HELD, device="cpu").held_out
    assert found.embedding == pytest.approx(participation_ratio(own))
    assert (found.n_latents, found.n_channels, found.n_samples) == (3, 20, 396)
