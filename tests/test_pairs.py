"""Pairs: every rule checked against brute force on what was drawn, centre by centre."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import twins
from grevy.drawing import Draw, centres_of, draw
from grevy.draws import Purpose, integers, normals
from grevy.errors import ConfigError, DataError
from grevy.pairs import (
    ClassPairs,
    DeltaPairs,
    HybridPairs,
    MixedPairs,
    NearPairs,
    Pairs,
    PairTable,
    TimePairs,
    prepare,
    prepare_sessions,
    wrap,
)
from grevy.recording import Label, Recording
from grevy.windows import ReceptiveField

_LAWS = settings(max_examples=40, deadline=None, derandomize=True)
FIELDS = [ReceptiveField(0, 1), ReceptiveField(2, 3), ReceptiveField(5, 5)]
KINDS: list[Pairs] = [
    TimePairs((1,)),
    TimePairs((7,)),
    TimePairs((1, 4, 9)),
    TimePairs((60,)),
    TimePairs((3, 60)),
    DeltaPairs(("place",), lag=2),
    DeltaPairs(("angle",), lag=3),
    DeltaPairs(("place", "angle")),
    NearPairs(("place",), sd=0.3),
    NearPairs(("angle",), sd=0.5),
    NearPairs(("angle", "place"), sd=0.2),
    ClassPairs("side"),
    ClassPairs("side", balanced=True),
    HybridPairs(DeltaPairs(("angle",)), TimePairs((5,))),
    HybridPairs(NearPairs(("place",), sd=0.1), TimePairs((60,))),
    HybridPairs(ClassPairs("side"), TimePairs((2, 60))),
    HybridPairs(ClassPairs("side", balanced=True), TimePairs((2,))),
]


def recording(epochs: list[tuple[int, int]], *, seed: int = 0, known: bool = True) -> Recording:
    """Noise with a label of each sort; `place` is quantised, so that it has ties."""
    rng = np.random.default_rng(seed)
    n = epochs[-1][1]
    place = np.round(np.cumsum(rng.normal(0, 0.2, n)), 1) + 1e6
    angle = np.mod(np.cumsum(rng.normal(0.1, 0.2, n)), 2 * np.pi)
    side = rng.choice([-3, 2, 7], n, p=[0.5, 0.4, 0.1])
    mask = None if known else rng.random(n) < 0.9
    if mask is not None:
        place, angle = np.where(mask, place, np.nan), np.where(mask, angle, np.inf)
    labels = {
        "place": Label(place, "continuous", "m", known=mask),
        "angle": Label(angle, "continuous", "rad", period=2 * np.pi, known=mask),
        "side": Label(side, "discrete", known=mask),
    }
    return twins.noise(n, 3, epochs=epochs, labels=labels)


def values(rec: Recording, names: tuple[str, ...]) -> tuple[np.ndarray, list[float]]:
    """Labels as columns, and their periods."""
    columns = [np.asarray(rec.labels[name].values, dtype=np.float64) for name in names]
    return np.stack(columns, axis=1), [rec.labels[name].period or 0.0 for name in names]


def check_label_pairs(
    rec: Recording,
    table: PairTable,
    pairs: Pairs,
    address: tuple[int, int],
    reference: list[int],
    positive: list[int],
    everywhere: list[tuple[int, int]],
) -> None:
    """Positives of label pairs, from the addresses of their draws and brute force."""
    seed, step = address
    anchors = table.anchors
    steps = torch.tensor([step])
    batch = len(reference)
    assert set(positive) <= set(anchors.tolist())
    if isinstance(pairs, ClassPairs):
        side = rec.labels[pairs.label].values
        assert [side[i] for i in positive] == [side[i] for i in reference]
        return
    assert isinstance(pairs, DeltaPairs | NearPairs)
    labels, periods = values(rec, pairs.labels)
    if isinstance(pairs, DeltaPairs):
        known = np.all([rec.labels[name].mask for name in pairs.labels], axis=0)
        changes = [
            labels[i + pairs.lag] - labels[i]
            for a, b in everywhere
            for i in range(a, b - pairs.lag)
            if known[i : i + pairs.lag + 1].all()
        ]
        row = integers(seed, Purpose.POSITIVE, steps, batch, len(changes))[0].tolist()
        change = [changes[i] for i in row]
    else:
        z = normals(seed, Purpose.POSITIVE, steps, batch * labels.shape[1])[0]
        change = list(pairs.sd * z.reshape(batch, -1).numpy())
    for r, p, d in zip(reference, positive, change, strict=True):
        assert p in anchors[twins.nearest(labels[anchors], labels[r] + d, periods)]


def check(
    rec: Recording,
    pairs: Pairs,
    field: ReceptiveField,
    table: PairTable,
    drawn: Draw,
    step: int,
    seed: int,
) -> None:
    """Everything that must hold of one step (the first of `drawn`)."""
    spans = [(int(a), int(b)) for a, b in rec.epochs]
    owner = {i: k for k, (a, b) in enumerate(spans) for i in range(a, b)}
    whole = set(twins.centres(spans, field.left, field.right))
    reference, positives, negative = twins.triplets(drawn, 0)
    assert whole.issuperset(reference)
    assert whole.issuperset(negative)
    for found in positives:
        assert len(found) == len(reference)
        assert whole.issuperset(found)
    time = pairs.time if isinstance(pairs, HybridPairs) else pairs
    behavior = pairs.behavior if isinstance(pairs, HybridPairs) else pairs
    if isinstance(time, TimePairs):
        later = positives[-1]
        assert {p - r for r, p in zip(reference, later, strict=True)} <= set(time.offsets)
        assert [owner[r] for r in reference] == [owner[p] for p in later]
        offset = integers(seed, Purpose.OFFSET, torch.tensor([step]), len(later), len(time.offsets))
        expected = [time.offsets[i] for i in offset[0].tolist()]
        assert [p - r for r, p in zip(reference, later, strict=True)] == expected
    if not isinstance(behavior, TimePairs):
        mask = rec.labels["place"].mask
        assert mask[reference].all()
        assert mask[negative].all()
        check_label_pairs(rec, table, behavior, (seed, step), reference, positives[0], spans)


@st.composite
def epochs_of(draw: st.DrawFn, *, shortest: int = 75, most: int = 4) -> list[tuple[int, int]]:
    position, found = 0, []
    for _ in range(draw(st.integers(1, most))):
        start = position + draw(st.integers(0, 2))
        position = start + draw(st.integers(shortest, shortest + 60))
        found.append((start, position))
    return found


@pytest.mark.parametrize("pairs", KINDS, ids=str)
@given(
    epochs=epochs_of(),
    field=st.sampled_from(FIELDS),
    block=st.sampled_from([1, 2, 5, 32, 1000]),
    batch=st.sampled_from([1, 7, 64]),
    n_negatives=st.sampled_from([3, 50]),
    seed=st.integers(0, 2**40),
    step=st.integers(0, 10**6),
    known=st.booleans(),
)
@settings(_LAWS, max_examples=10)
def test_every_kind_of_pair_obeys_its_rule(
    pairs: Pairs,
    epochs: list[tuple[int, int]],
    field: ReceptiveField,
    block: int,
    batch: int,
    n_negatives: int,
    seed: int,
    step: int,
    known: bool,
) -> None:
    rec = recording(epochs, known=known)
    table = prepare(rec, pairs, field, rec.epochs)
    shape = {"batch": batch, "n_negatives": n_negatives, "block": block}
    drawn = draw(table, seed, torch.tensor([step]), **shape)
    assert drawn.reference.shape == (1, batch)
    assert drawn.negative.shape == (1, n_negatives)
    assert len(drawn.positives) == (2 if isinstance(pairs, HybridPairs) else 1)
    check(rec, pairs, field, table, drawn, step, seed)
    flat = twins.flat_centres(drawn, 0)
    for places in (drawn.reference, drawn.negative, *drawn.positives):
        slow = [[flat[i] for i in places[0]]]
        assert centres_of(drawn.groups, places).tolist() == slow


@pytest.mark.parametrize("pairs", KINDS, ids=str)
def test_a_step_is_the_same_whichever_steps_are_drawn_with_it(pairs: Pairs) -> None:
    rec = recording([(0, 150), (150, 300), (303, 420)])
    table = prepare(rec, pairs, FIELDS[2], rec.epochs)
    shape = {"batch": 40, "n_negatives": 24, "block": 16}
    many = draw(table, 3, torch.tensor([9, 2, 5, 100]), **shape)
    for i, step in enumerate([9, 2, 5, 100]):
        one = draw(table, 3, torch.tensor([step]), **shape)
        for a, b in zip(many.groups, one.groups, strict=True):
            assert a.outputs == b.outputs
            assert torch.equal(a.start[i], b.start[0])
        assert torch.equal(many.reference[i], one.reference[0])
        assert torch.equal(many.negative[i], one.negative[0])
        for a, b in zip(many.positives, one.positives, strict=True):
            assert torch.equal(a[i], b[0])


@pytest.mark.parametrize("pairs", KINDS, ids=str)
@pytest.mark.parametrize("block", [8, 32])
def test_more_splits_than_there_is_room_for_still_give_valid_triplets(
    pairs: Pairs, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from grevy import drawing as module

    rec = recording([(i, i + 75) for i in range(0, 375, 75)])
    table = prepare(rec, pairs, FIELDS[1], rec.epochs)
    monkeypatch.setattr(module, "_capacity", lambda table, n, block: -(-n // block))
    overflown = 0
    for step in range(4):
        drawn = draw(table, 0, torch.tensor([step]), batch=64, n_negatives=64, block=block)
        check(rec, pairs, FIELDS[1], table, drawn, step, 0)
        reference = twins.triplets(drawn, 0)[0]
        overflown += reference.count(reference[0]) > 1 and block > 1
    if not (isinstance(pairs, ClassPairs) and pairs.balanced):
        assert overflown  # otherwise this test shows nothing


@given(
    st.lists(st.integers(0, 39), min_size=1, max_size=12, unique=True),
    st.integers(2, 40),
)
@_LAWS
def test_borders_in_a_block_are_counted_over_all_its_beginnings(
    breaks: list[int], block: int
) -> None:
    from grevy import drawing as module

    counts = [sum((begin + k) % 40 in breaks for k in range(block - 1)) for begin in range(40)]
    found = module._splits(np.array(sorted(breaks)), 40, block)
    assert found == pytest.approx((np.mean(counts), np.var(counts), max(counts)))


def test_room_for_splits_is_rarely_too_small_even_where_borders_crowd() -> None:
    """Labels that come and go put many borders in one place: blocks there split into many."""
    n = 20_000
    known = np.ones(n, dtype=bool)
    known[5000:6000:2] = False
    label = Label(np.zeros(n, dtype=np.int64), "discrete", known=known)
    rec = twins.noise(n, 1, labels={"side": label})
    pairs = ClassPairs("side")
    table = prepare(rec, pairs, FIELDS[2], rec.epochs)
    drawn = draw(table, 0, torch.arange(500), batch=512, n_negatives=8, block=32)
    found = centres_of(drawn.groups, drawn.reference)
    first = integers(0, Purpose.REFERENCE, torch.arange(500), 16, len(table.anchors))
    places = (first[:, :, None] + torch.arange(32)) % len(table.anchors)
    expected = torch.from_numpy(table.anchors)[places.reshape(500, -1)]
    assert int((found != expected).any(dim=1).sum()) <= 1


EPOCHS = [(0, 40), (40, 55), (57, 90)]


@pytest.mark.parametrize("block", [1, 4, 13])
@pytest.mark.parametrize("field", FIELDS)
def test_references_and_negatives_are_uniform_over_the_anchors(
    block: int, field: ReceptiveField
) -> None:
    rec = recording(EPOCHS)
    table = prepare(rec, TimePairs((2,)), field, rec.epochs)
    spans = [(a, b) for a, b in EPOCHS]
    assert table.anchors.tolist() == twins.centres(spans, field.left, field.right, 2)
    drawn = draw(table, 1, torch.arange(6000), batch=26, n_negatives=13, block=block)
    for places in (drawn.reference, drawn.negative):
        found = centres_of(drawn.groups, places).numpy()
        for column in (0, 1, 6, 12):  # one of a block each: independent from step to step
            counts = np.array([(found[:, column] == a).sum() for a in table.anchors])
            assert counts.sum() == 6000
            assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("block", [1, 4])
def test_negatives_know_nothing_of_references_nor_one_block_of_the_next(block: int) -> None:
    rec = recording(EPOCHS)
    table = prepare(rec, TimePairs((2,)), FIELDS[1], rec.epochs)
    drawn = draw(table, 1, torch.arange(6000), batch=8, n_negatives=8, block=block)
    reference = centres_of(drawn.groups, drawn.reference).numpy() // 15
    negative = centres_of(drawn.groups, drawn.negative).numpy() // 15
    for a, b in (
        (reference[:, 0], negative[:, 0]),
        (reference[:, 5], negative[:, 5]),
        (reference[:, 0], reference[:, 4]),
        (reference[1:, 0], reference[:-1, 0]),
    ):
        counts = np.bincount(a * 6 + b, minlength=36).reshape(6, 6)
        assert stats.chi2_contingency(counts).pvalue > 1e-3


def test_every_block_is_equally_likely_so_that_every_centre_is_exactly() -> None:
    """Counting, not sampling: all beginnings together cover each centre `block` times."""
    from grevy import drawing as module

    rec = recording(EPOCHS)
    table = prepare(rec, TimePairs((2,)), FIELDS[1], rec.epochs)
    count, block = len(table.anchors), 7
    places = (torch.arange(count)[:, None] + torch.arange(block)) % count
    kept, start, flat = module._segments(table, places, block)
    assert torch.equal(kept, places)
    grid = start[:, None, :] + torch.arange(block)[:, None]
    found = grid.reshape(count, -1).gather(1, flat)
    assert np.array_equal(found.numpy(), table.anchors[places.numpy()])
    assert set(np.bincount(found.reshape(-1).numpy())[table.anchors].tolist()) == {block}


@pytest.mark.parametrize(
    "pairs",
    [TimePairs((1, 3)), DeltaPairs(("place",)), NearPairs(("angle",), sd=0.4), ClassPairs("side")],
    ids=str,
)
def test_blocks_draw_from_the_same_law_as_single_draws(pairs: Pairs) -> None:
    rec = recording(EPOCHS)
    table = prepare(rec, pairs, FIELDS[1], rec.epochs)
    counts = []
    for seed, block in ((1, 1), (2, 8)):
        drawn = draw(table, seed, torch.arange(4000), batch=16, n_negatives=8, block=block)
        reference = centres_of(drawn.groups, drawn.reference).numpy()
        positive = centres_of(drawn.groups, drawn.positives[0]).numpy()
        side = rec.labels["side"].values
        pair = (reference[:, 10] // 15) * 10 + positive[:, 10] // 15  # coarse joint law
        counts.append(np.bincount(pair, minlength=100))
        counts[-1] = np.concatenate([counts[-1], np.bincount(side[positive[:, 10]] + 3)])
    table2 = np.stack(counts)[:, np.sum(counts, axis=0) >= 20]
    assert stats.chi2_contingency(table2).pvalue > 1e-3


def test_positives_are_uniform_among_ties() -> None:
    values = np.array([0.0, 1.0, 1.0, 1.0, 2.0, 5.0, 5.0])
    rec = twins.noise(7, 1, labels={"v": Label(values, "continuous")})
    table = prepare(rec, NearPairs(("v",), sd=1e-9), ReceptiveField(0, 1), rec.epochs)
    drawn = draw(table, 0, torch.arange(3000), batch=4, n_negatives=1, block=1)
    reference = centres_of(drawn.groups, drawn.reference).numpy().reshape(-1)
    positive = centres_of(drawn.groups, drawn.positives[0]).numpy().reshape(-1)
    for members in ([0], [1, 2, 3], [4], [5, 6]):
        counts = np.bincount(positive[np.isin(reference, members)], minlength=7)
        assert counts.sum() == counts[members].sum()
        assert len(members) == 1 or stats.chisquare(counts[members]).pvalue > 1e-3


def test_two_labels_equally_far_share_by_their_number_of_samples() -> None:
    """A change of +1 from 0 lands between 0 and 2; three samples carry 2, one carries 0."""
    values = np.array([0.0, 2.0, 2.0, 2.0, -50.0, -49.0])
    known = np.ones(6, dtype=bool)
    rec = twins.noise(6, 1, labels={"v": Label(values, "continuous", known=known)})
    table = prepare(rec, DeltaPairs(("v",), lag=1), ReceptiveField(0, 1), rec.epochs)
    steps = torch.arange(20_000)
    drawn = draw(table, 4, steps, batch=1, n_negatives=1, block=1)
    reference = centres_of(drawn.groups, drawn.reference).numpy()[:, 0]
    positive = centres_of(drawn.groups, drawn.positives[0]).numpy()[:, 0]
    change = np.diff(values)[integers(4, Purpose.POSITIVE, steps, 1, 5)[:, 0].numpy()]
    middle = (reference == 0) & (change == 1)
    counts = np.bincount(positive[middle], minlength=6)
    assert counts[4:].sum() == 0
    assert stats.chisquare(counts[:4]).pvalue > 1e-3


@given(
    raw=st.lists(st.integers(0, 15), min_size=2, max_size=25),
    queries=st.lists(st.floats(-3, 19, allow_nan=False), min_size=1, max_size=12),
    period=st.sampled_from([0.0, 16.0, 5.5]),
    shift=st.sampled_from([0.0, 1e6, -3.25]),
    columns=st.sampled_from([1, 2]),
    u=st.floats(0.001, 0.999),
)
@settings(_LAWS, max_examples=150)
def test_nearest_label_is_the_brute_force_one(
    raw: list[int], queries: list[float], period: float, shift: float, columns: int, u: float
) -> None:
    from grevy import drawing as module

    shift = 0.0 if period else shift
    label = Label(np.array(raw, dtype=float) + shift, "continuous", period=period or None)
    rec = twins.noise(len(raw), 1, labels={"v": label, "w": label})
    names = ("v", "w")[:columns]
    table = prepare(rec, NearPairs(names, sd=1.0), ReceptiveField(0, 1), rec.epochs)
    index = table.lookups[0]
    centred = np.array(raw, dtype=float) - (0.0 if period else np.mean(raw))
    q = np.array(queries) - (0.0 if period else np.mean(raw))
    query = np.stack([q] * columns, axis=1)
    wrapped = wrap(query, index.periods)
    found = module._nearest(index, wrapped, np.full(len(q), u))
    rows = np.stack([centred] * columns, axis=1)
    for i, row in enumerate(query):
        assert found[i] in twins.nearest(rows, row, [period] * columns, slack=1e-8)


def test_a_circular_label_is_near_across_its_seam() -> None:
    values = np.array([0.05, 1.0, 2.0, 3.0, 4.0, 5.0, 6.2])
    for names in (("v",), ("v", "zero")):
        labels = {
            "v": Label(values, "continuous", period=2 * np.pi),
            "zero": Label(np.zeros(7), "continuous"),
        }
        rec = twins.noise(7, 1, labels=labels)
        table = prepare(rec, NearPairs(names, sd=0.1), ReceptiveField(0, 1), rec.epochs)
        drawn = draw(table, 0, torch.arange(500), batch=8, n_negatives=1, block=1)
        reference = centres_of(drawn.groups, drawn.reference)
        positive = centres_of(drawn.groups, drawn.positives[0])
        over = positive[reference == 6]
        assert set(over.tolist()) == {0, 6}
        assert set(positive[reference == 3].tolist()) == {3}


def test_large_labels_keep_their_last_digits() -> None:
    rng = np.random.default_rng(0)
    values = rng.permutation(300) * 1e-3 + 1e9
    rec = twins.noise(300, 1, labels={"v": Label(values, "continuous")})
    table = prepare(rec, NearPairs(("v",), sd=1e-9), ReceptiveField(0, 1), rec.epochs)
    drawn = draw(table, 0, torch.arange(10), batch=50, n_negatives=1, block=1)
    assert torch.equal(
        centres_of(drawn.groups, drawn.reference), centres_of(drawn.groups, drawn.positives[0])
    )


def test_positives_of_a_class_are_uniform_over_it() -> None:
    side = np.array([3, 3, 3, 7, 7, 3, 7, 3])
    rec = twins.noise(8, 1, labels={"side": Label(side, "discrete")})
    table = prepare(rec, ClassPairs("side"), ReceptiveField(0, 1), rec.epochs)
    drawn = draw(table, 0, torch.arange(2000), batch=4, n_negatives=4, block=1)
    reference = centres_of(drawn.groups, drawn.reference).numpy()
    positive = centres_of(drawn.groups, drawn.positives[0]).numpy()
    for kind in (3, 7):
        counts = np.bincount(positive[side[reference] == kind], minlength=8)
        assert (counts[side != kind] == 0).all()
        assert stats.chisquare(counts[side == kind]).pvalue > 1e-3


@pytest.mark.parametrize("hybrid", [False, True])
def test_balanced_classes_are_equally_likely(hybrid: bool) -> None:
    side = np.array([3] * 90 + [7] * 10)
    rec = twins.noise(100, 1, labels={"side": Label(side, "discrete")})
    pairs: Pairs = ClassPairs("side", balanced=True)
    if hybrid:
        pairs = HybridPairs(ClassPairs("side", balanced=True), TimePairs((1,)))
    table = prepare(rec, pairs, ReceptiveField(0, 1), rec.epochs)
    drawn = draw(table, 0, torch.arange(1000), batch=8, n_negatives=8, block=8)
    for places in (drawn.reference, drawn.negative):
        found = centres_of(drawn.groups, places).numpy()
        assert stats.binomtest(int((side[found] == 3).sum()), found.size, 0.5).pvalue > 1e-3
        counts = np.bincount(found[side[found] == 3].reshape(-1), minlength=90)
        assert stats.chisquare(counts[:90]).pvalue > 1e-3


def test_offsets_are_equally_likely_and_pure_of_what_else_is_drawn() -> None:
    rec = recording([(0, 500)])
    table = prepare(rec, TimePairs((1, 2, 9)), FIELDS[1], rec.epochs)
    drawn = draw(table, 0, torch.arange(300), batch=20, n_negatives=4, block=4)
    gap = centres_of(drawn.groups, drawn.positives[0]) - centres_of(drawn.groups, drawn.reference)
    counts = np.bincount(gap.reshape(-1).numpy(), minlength=10)
    assert set(np.flatnonzero(counts).tolist()) == {1, 2, 9}
    assert stats.chisquare(counts[[1, 2, 9]]).pvalue > 1e-3


def test_spans_given_never_reach_over_the_epochs_of_the_recording() -> None:
    rec = recording([(0, 50), (50, 100), (110, 160)])
    for field in FIELDS:
        table = prepare(rec, TimePairs((3,)), field, np.array([[10, 130], [135, 160]]))
        spans = [(10, 50), (50, 100), (110, 130), (135, 160)]
        assert table.anchors.tolist() == twins.centres(spans, field.left, field.right, 3)
    table = prepare(rec, DeltaPairs(("place",), lag=4), FIELDS[0], np.array([[10, 130]]))
    place = rec.labels["place"].values
    changes = [place[i + 4] - place[i] for a, b in spans[:3] for i in range(a, b - 4)]
    assert np.allclose(table.changes[:, 0], changes)


def test_errors_name_what_is_missing() -> None:
    rec = recording([(0, 100)])
    field = FIELDS[2]
    with pytest.raises(DataError, match=r"'speed'.*place, angle, side"):
        prepare(rec, NearPairs(("speed",), sd=1.0), field, rec.epochs)
    with pytest.raises(DataError, match="'side' is discrete"):
        prepare(rec, DeltaPairs(("side",)), field, rec.epochs)
    with pytest.raises(DataError, match="one discrete label"):
        prepare(rec, ClassPairs("place"), field, rec.epochs)
    with pytest.raises(DataError, match="at least 210 samples"):
        prepare(rec, TimePairs((200,)), field, rec.epochs)
    unknown = replace(rec.labels["angle"], known=np.zeros(100, dtype=bool))
    dark = twins.noise(100, 1, labels={"angle": unknown})
    with pytest.raises(DataError, match="known"):
        prepare(dark, NearPairs(("angle",), sd=1.0), field, dark.epochs)
    with pytest.raises(DataError, match="lag 150"):
        prepare(rec, DeltaPairs(("place",), lag=150), field, rec.epochs)


@pytest.mark.parametrize(
    "make",
    [
        lambda: TimePairs(()),
        lambda: TimePairs((0,)),
        lambda: TimePairs((3, -1)),
        lambda: DeltaPairs((), lag=1),
        lambda: DeltaPairs(("a",), lag=0),
        lambda: NearPairs(("a",), sd=0.0),
        lambda: NearPairs(("a",), sd=float("nan")),
        lambda: NearPairs(("a",), sd=float("inf")),
        lambda: NearPairs((), sd=1.0),
        lambda: HybridPairs(ClassPairs("a"), TimePairs(), behavior_latents=0),
    ],
)
def test_senseless_pairs_are_refused(make: object) -> None:
    with pytest.raises(ConfigError, match="found"):
        make()  # type: ignore[operator]


def test_mixed_pairs_draw_classes_evenly_and_the_nearest_label_within() -> None:
    """With hardly any noise: the samples of the class that share the reference's label, evenly."""
    side = np.array([3] * 90 + [7] * 10)
    place = np.tile(np.arange(5.0), 20)
    labels = {"side": Label(side, "discrete"), "place": Label(place, "continuous")}
    rec = twins.noise(100, 1, labels=labels)
    pairs = MixedPairs(NearPairs(("place",), sd=1e-9), "side")
    table = prepare(rec, pairs, ReceptiveField(0, 1), rec.epochs)
    drawn = draw(table, 0, torch.arange(1500), batch=8, n_negatives=8, block=8)
    reference, positive, negative = (
        centres_of(drawn.groups, x).numpy()
        for x in (drawn.reference, drawn.positives[0], drawn.negative)
    )
    for found in (reference, negative):
        assert stats.binomtest(int((side[found] == 3).sum()), found.size, 0.5).pvalue > 1e-3
        counts = np.bincount(found.reshape(-1), minlength=100)
        assert stats.chisquare(counts[:90]).pvalue > 1e-3
    assert (side[reference] == side[positive]).all()
    assert (place[reference] == place[positive]).all()
    for kind, value in ((3, 2.0), (7, 4.0)):
        own = (side == kind) & (place == value)
        counts = np.bincount(positive[own[reference]], minlength=100)
        assert (counts[~own] == 0).all()
        assert stats.chisquare(counts[own]).pvalue > 1e-3
    free = replace(pairs, balanced=False)
    drawn = draw(
        prepare(rec, free, ReceptiveField(0, 1), rec.epochs), 0, torch.arange(1500),
        batch=8, n_negatives=8, block=8,
    )  # fmt: skip
    first = side[centres_of(drawn.groups, drawn.reference).numpy()[:, 0]]
    assert stats.binomtest(int((first == 3).sum()), 1500, 0.9).pvalue > 1e-3


def test_sessions_that_do_not_mean_the_same_are_named() -> None:
    def with_label(label: Label) -> Recording:
        return twins.noise(60, 2, labels={"v": label})

    line = np.arange(60.0)
    one = with_label(Label(line, "continuous"))
    others = [
        with_label(Label(np.stack([line, line], 1), "continuous")),
        with_label(Label(line, "continuous", period=100.0)),
    ]
    for other in others:
        with pytest.raises(DataError, match=r"same columns and periods.* session 1 "):
            prepare_sessions(
                [one, other], DeltaPairs(("v",)), FIELDS[0], [one.epochs, other.epochs]
            )
    sides = [with_label(Label(np.arange(60) % 2 + 5 * s, "discrete")) for s in range(2)]
    spans = [r.epochs for r in sides]
    with pytest.raises(DataError, match="class 5 of label 'v' is absent from session 0"):
        prepare_sessions(sides, ClassPairs("v"), FIELDS[0], spans)
    with pytest.raises(DataError, match="no class of label 'v' exists in every session"):
        prepare_sessions(sides, ClassPairs("v", shared_only=True), FIELDS[0], spans)
    with pytest.raises(ConfigError, match="cannot align 2 of them"):
        prepare_sessions(sides, TimePairs(), FIELDS[0], spans)
