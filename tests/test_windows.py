"""Windows against loops: no off-by-one, and none that leaves its span."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import twins
from grevy.windows import (
    ReceptiveField,
    dense_rows,
    keep,
    padded_rows,
    valid_centres,
    widen,
    within,
    without,
)

_LAWS = settings(max_examples=60, deadline=None, derandomize=True)
fields = st.builds(ReceptiveField, st.integers(0, 4), st.integers(1, 4))


@st.composite
def spans_of(draw: st.DrawFn, *, least: int = 1) -> np.ndarray:
    """Stretches in order, some of them touching."""
    position, found = 0, []
    for _ in range(draw(st.integers(1, 4))):
        start = position + draw(st.integers(0, 3))
        position = start + draw(st.integers(least, 12))
        found.append((start, position))
    return np.array(found, dtype=np.int64)


@given(spans_of(), fields, st.integers(0, 5))
@_LAWS
def test_valid_centres_are_those_whose_samples_all_lie_in_one_span(
    spans: np.ndarray, field: ReceptiveField, reach: int
) -> None:
    found = valid_centres(spans, field, reach=reach)
    assert found.dtype == np.int64
    assert found.tolist() == twins.centres(spans.tolist(), field.left, field.right, reach)


def test_no_spans_no_centres() -> None:
    none = np.empty((0, 2), dtype=np.int64)
    assert valid_centres(none, ReceptiveField(1, 1)).shape == (0,)
    assert keep(none, np.ones(3, dtype=bool)).shape == (0, 2)
    assert [len(a) for a in padded_rows(none, ReceptiveField(1, 1))] == [0, 0, 0, 0]


@given(spans_of(), st.data())
@_LAWS
def test_keep_keeps_the_samples_of_the_mask_and_every_border(
    spans: np.ndarray, data: st.DataObject
) -> None:
    n = int(spans[-1, 1])
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    found = keep(spans, mask)
    samples = [i for a, b in found for i in range(a, b)]
    assert samples == [i for a, b in spans for i in range(a, b) if mask[i]]
    owner = {i: k for k, (a, b) in enumerate(spans) for i in range(a, b)}
    for a, b in found:
        assert a < b
        assert owner[a] == owner[b - 1]


@given(spans_of(), spans_of())
@_LAWS
def test_within_cuts_at_every_border(spans: np.ndarray, borders: np.ndarray) -> None:
    owner = {i: k for k, (a, b) in enumerate(borders) for i in range(a, b)}
    found = within(spans, borders)
    samples = [i for a, b in found for i in range(a, b)]
    assert samples == [i for a, b in spans for i in range(a, b) if i in owner]
    for a, b in found:
        assert a < b
        assert owner[a] == owner[b - 1]


def test_within_no_borders_is_nothing() -> None:
    assert within(np.array([[0, 3]]), np.empty((0, 2), dtype=np.int64)).shape == (0, 2)


@given(
    st.lists(st.booleans(), min_size=1, max_size=30),
    st.integers(0, 4),
    st.integers(0, 4),
)
@_LAWS
def test_widen_grows_a_mask(mask: list[bool], before: int, after: int) -> None:
    found = widen(np.array(mask), before, after)
    expected = [
        any(mask[max(0, i - after) : i + before + 1])  # a true sample within reach of i
        for i in range(len(mask))
    ]
    assert found.tolist() == expected


def test_without_guards_on_the_stated_sides() -> None:
    mask = np.zeros(20, dtype=bool)
    mask[8:10] = True
    found = without(np.array([[0, 12], [12, 20]]), mask, before=2, after=1)
    assert found.tolist() == [[0, 6], [11, 12], [12, 20]]


@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=3),
    st.integers(1, 5),
    fields,
)
@_LAWS
def test_dense_rows_hold_the_window_of_every_output(
    starts: list[int], outputs: int, field: ReceptiveField
) -> None:
    n = 30
    rows = dense_rows(torch.tensor(starts), outputs, field, n)
    assert rows.shape == (outputs + len(field) - 1, len(starts))
    for s, start in enumerate(starts):
        for o in range(outputs):
            wanted = [start + o + k for k in range(-field.left, field.right)]
            assert rows[o : o + len(field), s].tolist() == [min(max(j, 0), n - 1) for j in wanted]


@given(spans_of(), fields)
@_LAWS
def test_padded_rows_give_each_sample_its_window_with_edges_replicated(
    spans: np.ndarray, field: ReceptiveField
) -> None:
    activity = np.arange(int(spans[-1, 1]))[:, None]
    rows, outputs, samples, padded = padded_rows(spans, field)
    assert samples.tolist() == [i for a, b in spans for i in range(a, b)]
    assert len(rows) == sum(b - a + len(field) - 1 for a, b in spans)
    span_of = {i: (int(a), int(b)) for a, b in spans for i in range(a, b)}
    for output, sample, flag in zip(outputs, samples, padded, strict=True):
        expected, replicated = twins.edge_window(activity, sample, span_of[sample], field)
        assert rows[output : output + len(field)].tolist() == expected[:, 0].tolist()
        assert bool(flag) == replicated
