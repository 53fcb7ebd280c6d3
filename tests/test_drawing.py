"""Draws of several sessions, full batches and windows apart: each positive found by brute force."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

import twins
from grevy.drawing import Draw, draw
from grevy.draws import Purpose, integers, normals, words
from grevy.errors import ConfigError
from grevy.pairs import (
    ClassPairs,
    DeltaPairs,
    HybridPairs,
    LabelPairs,
    MixedPairs,
    NearPairs,
    Pairs,
    PairTable,
    TimePairs,
    prepare,
    prepare_sessions,
)
from grevy.recording import Label, Recording
from grevy.windows import ReceptiveField

FIELD = ReceptiveField(2, 3)
LABELLED: list[Pairs] = [
    DeltaPairs(("place",), lag=3),
    DeltaPairs(("angle", "place")),
    NearPairs(("angle",), sd=0.5),
    NearPairs(("place", "angle"), sd=0.3),
    ClassPairs("side"),
    ClassPairs("side", balanced=True),
    MixedPairs(DeltaPairs(("place",), lag=2), "side"),
    MixedPairs(DeltaPairs(("angle",)), "side", balanced=False),
    MixedPairs(NearPairs(("angle", "place"), sd=0.4), "side"),
    HybridPairs(DeltaPairs(("angle",)), TimePairs((3,)), 2),
    HybridPairs(MixedPairs(NearPairs(("place",), sd=0.2), "side"), TimePairs((2, 40)), 2),
]


def session(seed: int, n: int, cut: int, *, known: bool = True, shift: float = 0.0) -> Recording:
    """Labels in steps, so that they have ties, and absent here and there."""
    rng = np.random.default_rng(seed)
    mask = None if known else rng.random(n) < 0.95
    place = np.round(np.cumsum(rng.normal(0, 0.3, n)), 1) + shift
    if mask is not None:
        place = np.where(mask, place, np.nan)
    side = rng.choice([-1, 4, 9], n, p=[0.6, 0.3, 0.1])
    labels = {
        "place": Label(place, "continuous", known=mask),
        "angle": Label(rng.uniform(0, 6, n), "continuous", period=2 * math.pi),
        "side": Label(side, "discrete"),
    }
    return twins.noise(n, 2, epochs=[(0, cut), (cut, n)], labels=labels, seed=seed)


def entries(drawn: Draw, step: int) -> list[tuple[int, int]]:
    """(session, centre) of every entry of the flat list of a step."""
    found = []
    for g in drawn.groups:
        for o in range(g.outputs):
            found += [(g.session, int(c) + o) for c in g.start[step]]
    return found


def at(drawn: Draw, places: Tensor, step: int) -> list[tuple[int, int]]:
    flat = entries(drawn, step)
    return [flat[int(p)] for p in places[step]]


def columns(rec: Recording, names: tuple[str, ...]) -> tuple[np.ndarray, list[float]]:
    values = [np.asarray(rec.labels[name].values, dtype=np.float64) for name in names]
    return np.stack(values, axis=1), [rec.labels[name].period or 0.0 for name in names]


def wanted_changes(
    recordings: list[Recording], pairs: DeltaPairs | NearPairs, seed: int, step: int, n: int,
    names: tuple[str, ...],
) -> list[np.ndarray]:  # fmt: skip
    """The change of label of each of n positives, from the address of its draw."""
    if isinstance(pairs, NearPairs):
        z = normals(seed, Purpose.POSITIVE, torch.tensor([step]), n * len(pairs.labels))
        return list(pairs.sd * z.reshape(n, -1).numpy())
    seen = []
    for rec in recordings:
        labels, _ = columns(rec, pairs.labels)
        known = np.all([rec.labels[name].mask for name in names], axis=0)
        for a, b in rec.epochs.tolist():
            seen += [
                labels[i + pairs.lag] - labels[i]
                for i in range(a, b - pairs.lag)
                if known[i : i + pairs.lag + 1].all()
            ]
    row = integers(seed, Purpose.POSITIVE, torch.tensor([step]), n, len(seen))[0]
    return [seen[i] for i in row.tolist()]


def check_positives(
    recordings: list[Recording], tables: list[PairTable], pairs: LabelPairs, drawn: Draw,
    step: int, seed: int, at_step: int,
) -> None:  # fmt: skip
    """Positives by loops over every anchor of the session they were laid out in."""
    reference = at(drawn, drawn.reference, at_step)
    positive = at(drawn, drawn.positives[0], at_step)
    continuous = pairs.behavior if isinstance(pairs, MixedPairs) else pairs
    names: tuple[str, ...] = () if isinstance(continuous, ClassPairs) else continuous.labels
    classes = pairs.label if isinstance(pairs, ClassPairs | MixedPairs) else None
    changes: list[np.ndarray] = []
    if not isinstance(continuous, ClassPairs):
        used = (*names, classes) if classes else names
        changes = wanted_changes(recordings, continuous, seed, step, len(reference), used)
    for k, ((s, c), (t, d)) in enumerate(zip(reference, positive, strict=True)):
        candidates = tables[t].anchors
        if classes is not None:
            side = [rec.labels[classes].values for rec in recordings]
            candidates = candidates[side[t][candidates] == side[s][c]]
        if changes:
            mine, periods = columns(recordings[s], names)
            theirs, _ = columns(recordings[t], names)
            near = twins.nearest(theirs[candidates], mine[c] + changes[k], periods)
            candidates = candidates[near]
        assert d in candidates


@pytest.mark.parametrize("pairs", LABELLED, ids=str)
@given(
    lengths=st.lists(st.integers(110, 170), min_size=1, max_size=3),
    block=st.sampled_from([1, 4, 64]),
    batch=st.sampled_from([1, 9, 40]),
    n_negatives=st.sampled_from([None, 3, 30]),
    seed=st.integers(0, 2**40),
    step=st.integers(0, 10**6),
    known=st.booleans(),
)
@settings(max_examples=12, deadline=None, derandomize=True)
def test_every_positive_obeys_its_rule_in_the_session_it_lies_in(
    pairs: Pairs, lengths: list[int], block: int, batch: int, n_negatives: int | None,
    seed: int, step: int, known: bool,
) -> None:  # fmt: skip
    recordings = [session(s, n, n // 2, known=known, shift=0.4 * s) for s, n in enumerate(lengths)]
    tables = prepare_sessions(recordings, pairs, FIELD, [r.epochs for r in recordings])
    drawn = draw(
        tables, seed, torch.tensor([step]), batch=batch, n_negatives=n_negatives, block=block
    )
    asks = [s for s in range(len(lengths)) for _ in range(batch)]
    reference = at(drawn, drawn.reference, 0)
    assert [s for s, _ in reference] == asks
    assert sorted(s for s, _ in at(drawn, drawn.positives[0], 0)) == asks
    negative = at(drawn, drawn.negative, 0)
    assert [s for s, _ in negative] == [
        s for s in range(len(lengths)) for _ in range(n_negatives or batch)
    ]
    for s, c in [*reference, *negative]:
        assert c in tables[s].anchors
    behavior = pairs.behavior if isinstance(pairs, HybridPairs) else pairs
    assert not isinstance(behavior, TimePairs)
    check_positives(recordings, tables, behavior, drawn, step, seed, 0)
    if isinstance(pairs, HybridPairs):
        for (s, c), (t, d) in zip(reference, at(drawn, drawn.positives[1], 0), strict=True):
            (own,) = [(a, b) for a, b in recordings[s].epochs.tolist() if a <= c < b]
            assert s == t
            assert d - c in pairs.time.offsets
            assert own[0] + FIELD.left <= d <= own[1] - FIELD.right


def test_the_order_of_sessions_is_a_uniform_permutation() -> None:
    """Every order of a small step equally often; and the one that the words of its address give."""
    recordings = [session(s, 120, 60) for s in range(2)]
    pairs = ClassPairs("side")
    tables = prepare_sessions(recordings, pairs, FIELD, [r.epochs for r in recordings])
    steps = torch.arange(3000)
    drawn = draw(tables, 9, steps, batch=2, n_negatives=1, block=1)
    dealt = [tuple(s for s, _ in at(drawn, drawn.positives[0], i)) for i in range(3000)]
    kinds = sorted(set(dealt))
    assert len(kinds) == 6  # which two of four queries session 0 answers
    assert stats.chisquare([dealt.count(k) for k in kinds]).pvalue > 1e-4
    order = words(9, Purpose.SESSION, steps, 4).argsort(dim=1)
    assert [{int(i) for i in row[:2]} for row in order] == [
        {i for i, s in enumerate(d) if s == 0} for d in dealt
    ]


def test_labels_are_centred_by_one_shift_for_all_sessions() -> None:
    recordings = [session(0, 130, 60, shift=1e6), session(1, 120, 70, shift=1e6 + 50)]
    tables = prepare_sessions(
        recordings, NearPairs(("place", "angle"), sd=1.0), FIELD, [r.epochs for r in recordings]
    )
    shifts = []
    for table, rec in zip(tables, recordings, strict=True):
        raw, _ = columns(rec, ("place", "angle"))
        assert table.labels is not None
        shifts.append(raw[table.anchors] - table.labels)
    both = np.concatenate(shifts)
    np.testing.assert_allclose(both, np.broadcast_to(both[0], both.shape), atol=1e-9)
    assert (both[:, 1] == 0).all()  # a circle has no middle
    pooled = np.concatenate([t.labels[:, 0] for t in tables if t.labels is not None])
    assert abs(pooled.mean()) < 1e-6
    assert abs(tables[0].labels[:, 0].mean()) > 10  # type: ignore[index]


def test_classes_have_the_same_numbers_in_every_session() -> None:
    """Also where a session lacks some, which `shared_only` leaves out: from all three roles."""
    a, b = session(0, 130, 60), session(1, 120, 70)
    side = b.labels["side"].values
    b = replace(b, labels={**b.labels, "side": Label(np.where(side == 4, 9, side), "discrete")})
    for pairs in (
        ClassPairs("side", shared_only=True),
        ClassPairs("side", balanced=True, shared_only=True),
        MixedPairs(DeltaPairs(("place",)), "side", shared_only=True),
    ):
        tables = prepare_sessions([a, b], pairs, FIELD, [a.epochs, b.epochs])
        for table, rec in zip(tables, (a, b), strict=True):
            assert table.code is not None
            values = rec.labels["side"].values[table.anchors]
            assert [(-1, 9)[c] for c in table.code] == values.tolist()
        drawn = draw(tables, 0, torch.arange(20), batch=8, block=4)
        for step in range(20):
            check_positives([a, b], tables, pairs, drawn, step, 0, step)
            for role in (drawn.reference, drawn.negative, *drawn.positives):
                for s, c in at(drawn, role, step):
                    assert (a, b)[s].labels["side"].values[c] != 4


@pytest.mark.parametrize("pairs", [*LABELLED, TimePairs((2,)), TimePairs((1, 40))], ids=str)
@pytest.mark.parametrize("apart", [False, True])
def test_a_list_of_one_session_is_that_session_bit_for_bit(pairs: Pairs, apart: bool) -> None:
    rec = session(3, 150, 70)
    table = prepare(rec, pairs, FIELD, rec.epochs)
    shape = {"batch": 12, "n_negatives": 7, "block": 5, "apart": apart}
    one = draw(table, 7, torch.arange(4), **shape)  # type: ignore[arg-type]
    (listed,) = prepare_sessions([rec], pairs, FIELD, [rec.epochs])
    many = draw([listed], 7, torch.arange(4), **shape)  # type: ignore[arg-type]
    for a, b in zip(one.groups, many.groups, strict=True):
        assert torch.equal(a.start, b.start)
        assert (a.outputs, a.session) == (b.outputs, 0)
    for x, y in zip(
        (one.reference, one.negative, *one.positives),
        (many.reference, many.negative, *many.positives),
        strict=True,
    ):
        assert torch.equal(x, y)


def test_the_first_session_asks_as_it_would_alone() -> None:
    """References of a session depend on its own table and number; the second has its own draws."""
    recordings = [session(0, 130, 60), session(0, 130, 60)]
    tables = prepare_sessions(recordings, ClassPairs("side"), FIELD, [r.epochs for r in recordings])
    both = draw(tables, 5, torch.arange(3), batch=16, block=4)
    alone = draw(tables[0], 5, torch.arange(3), batch=16, block=4)
    for step in range(3):
        asked = [c for _, c in at(both, both.reference, step)]
        assert asked[:16] == [c for _, c in at(alone, alone.reference, step)]
        assert asked[16:] != asked[:16]


# --- All samples at once -------------------------------------------------------------------------
@pytest.mark.parametrize(
    "pairs", [p for p in LABELLED if "balanced=True" not in str(p)] + [TimePairs((1, 40))], ids=str
)
@given(
    lengths=st.lists(st.integers(110, 700), min_size=1, max_size=2),
    n_negatives=st.sampled_from([None, 11]),
    block=st.sampled_from([1, 8]),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=5, deadline=None, derandomize=True)
def test_a_full_batch_is_every_anchor_of_every_session_in_order(
    pairs: Pairs, lengths: list[int], n_negatives: int | None, block: int, seed: int
) -> None:
    """Longer than a segment (256 samples), with unknown labels and a border between epochs."""
    if isinstance(pairs, TimePairs):
        lengths = lengths[:1]
    recordings = [session(s, n, n // 2, known=False) for s, n in enumerate(lengths)]
    tables = prepare_sessions(recordings, pairs, FIELD, [r.epochs for r in recordings])
    drawn = draw(tables, seed, torch.tensor([5]), batch=None, n_negatives=n_negatives, block=block)
    everything = [(s, int(c)) for s, t in enumerate(tables) for c in t.anchors]
    assert at(drawn, drawn.reference, 0) == everything
    if n_negatives is None:
        assert at(drawn, drawn.negative, 0) == everything
    else:
        assert drawn.negative.shape == (1, n_negatives * len(tables))
        assert set(at(drawn, drawn.negative, 0)) <= set(everything)
    behavior = pairs.behavior if isinstance(pairs, HybridPairs) else pairs
    if not isinstance(behavior, TimePairs):
        check_positives(recordings, tables, behavior, drawn, 5, seed, 0)
    if isinstance(pairs, HybridPairs | TimePairs):
        time = pairs.time if isinstance(pairs, HybridPairs) else pairs
        for (s, c), (t, d) in zip(everything, at(drawn, drawn.positives[-1], 0), strict=True):
            (own,) = [(a, b) for a, b in recordings[s].epochs.tolist() if a <= c < b]
            assert s == t
            assert d - c in time.offsets
            assert own[0] <= d < own[1]


@pytest.mark.parametrize("pairs", [ClassPairs("side", balanced=True), LABELLED[6], TimePairs()])
def test_a_full_batch_has_no_even_classes_and_no_windows_apart(pairs: Pairs) -> None:
    rec = session(0, 120, 60)
    table = prepare(rec, pairs, FIELD, rec.epochs)
    apart = isinstance(pairs, TimePairs)
    with pytest.raises(ConfigError, match="give a batch_size"):
        draw(table, 0, torch.arange(2), batch=None, block=4, apart=apart)


# --- Windows apart -------------------------------------------------------------------------------
@pytest.mark.parametrize("pairs", [*LABELLED, TimePairs((2,)), TimePairs((1, 40))], ids=str)
@pytest.mark.parametrize("n_sessions", [1, 2])
def test_apart_every_role_has_windows_of_its_own_and_the_law_stays(
    pairs: Pairs, n_sessions: int
) -> None:
    if isinstance(pairs, TimePairs) and n_sessions > 1:
        return
    recordings = [session(s, 130 + s, 60) for s in range(n_sessions)]
    tables = prepare_sessions(recordings, pairs, FIELD, [r.epochs for r in recordings])
    drawn = draw(tables, 2, torch.arange(5), batch=8, n_negatives=9, block=4, apart=True)
    used = torch.cat([drawn.reference, *drawn.positives, drawn.negative], dim=1)
    size = sum(g.start.shape[1] * g.outputs for g in drawn.groups)
    assert all(g.outputs == 1 for g in drawn.groups)
    assert all(sorted(row.tolist()) == list(range(size)) for row in used)
    # A group never mixes roles, so that masks drawn a group are drawn a role.
    edges = np.cumsum([0] + [g.start.shape[1] for g in drawn.groups])
    roles = np.empty(size, dtype=int)
    for k, role in enumerate((drawn.reference, *drawn.positives, drawn.negative)):
        roles[role[0].numpy()] = k
    assert all(len(set(roles[a:b])) == 1 for a, b in itertools.pairwise(edges))
    behavior = pairs.behavior if isinstance(pairs, HybridPairs) else pairs
    for step in range(5):
        if not isinstance(behavior, TimePairs):
            check_positives(recordings, tables, behavior, drawn, step, 2, step)
        if isinstance(pairs, HybridPairs | TimePairs):
            time = pairs.time if isinstance(pairs, HybridPairs) else pairs
            reference = at(drawn, drawn.reference, step)
            for (s, c), (t, d) in zip(reference, at(drawn, drawn.positives[-1], step), strict=True):
                assert (s, d - c in time.offsets) == (t, True)


@pytest.mark.parametrize("block", [1, 4])
def test_the_references_of_other_blocks_are_the_negatives(block: int) -> None:
    rec = session(0, 200, 90)
    table = prepare(rec, TimePairs((3,)), FIELD, rec.epochs)
    steps = torch.arange(4)
    drawn = draw(table, 0, steps, batch=20, block=block)
    assert drawn.others == block
    assert drawn.n_negatives == 20 - block
    assert torch.equal(drawn.negative, drawn.reference)
    for more in ({"n_negatives": 20}, {"batch": 18, "block": 4}, {"apart": True}, {"batch": 1}):
        other = draw(table, 0, steps, **{"batch": 20, "block": 1, **more})  # type: ignore[arg-type]
        assert not other.others
        assert other.n_negatives == other.negative.shape[1]


def test_windows_far_from_their_positives_are_embedded_by_themselves() -> None:
    """Whichever needs fewer windows: one long segment, or two short ones."""
    steps, rec = torch.arange(2), session(1, 300, 150)
    for offset, block, together in ((1, 1, True), (10, 1, False), (10, 32, True), (30, 8, False)):
        table = prepare(rec, TimePairs((offset,)), FIELD, rec.epochs)
        drawn = draw(table, 0, steps, batch=64, n_negatives=64, block=block)
        widths = [g.outputs for g in drawn.groups]
        assert (widths[0] == block + offset) == together
