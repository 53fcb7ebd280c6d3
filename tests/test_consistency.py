"""Consistency and alignment against slow twins, and against CEBRA's where it is there."""

from __future__ import annotations

import copy
import importlib
import itertools
import warnings
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression

from grevy.consistency import align_embeddings, consistency_score
from grevy.errors import ConfigError, DataError
from grevy.plotting.models import plot_consistency
from grevy.procrustes import OrthogonalProcrustesAlignment, ensemble_embeddings


@pytest.fixture
def cebra() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("cebra")
        for name in ("data.helper", "integrations.sklearn.helpers", "integrations.sklearn.metrics"):
            importlib.import_module(f"cebra.{name}")
    return module


def clouds(seed: int, sizes: tuple[tuple[int, int], ...]) -> list[np.ndarray]:
    """Embeddings that have something to do with each other."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((max(n for n, _ in sizes), 3))
    return [
        common[:n] @ rng.standard_normal((3, d)) + rng.standard_normal((n, d)) for n, d in sizes
    ]


def tracks(
    seed: int, lengths: tuple[int, ...], d: int = 3, noise: float = 0.3
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Embeddings of a position that wanders, and the position."""
    rng = np.random.default_rng(seed)
    embeddings, labels = [], []
    for n in lengths:
        phase = np.cumsum(12 / n + 0.03 * rng.standard_normal(n)) + rng.uniform(0, 6)
        position = 50 - 50 * np.abs(np.mod(phase, 2) - 1)
        curve = np.stack([np.cos(position / 20 * (i + 1)) for i in range(d)], axis=1)
        turn = np.linalg.qr(rng.standard_normal((d, d)))[0]
        embeddings.append(curve @ turn + noise * rng.standard_normal((n, d)))
        labels.append(position)
    return embeddings, labels


# --- Twins ---------------------------------------------------------------------------------------
def slow_r2(a: Any, b: Any) -> float:
    """R2 of scikit-learn's regression."""
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    return float(LinearRegression().fit(a, b).score(a, b))


def slow_bins(embeddings: Any, labels: Any, n_bins: int) -> list[np.ndarray]:
    """Means over bins of one column of floats, sample by sample."""
    low, high = min(map(min, labels)), max(map(max, labels))
    edges = np.linspace(low, high, n_bins)
    out = []
    for e, label in zip(embeddings, labels, strict=True):
        bins = [sum(v >= edge for edge in edges) for v in label]
        rows = []
        for b in range(1, n_bins):
            for far in (0, 1, 2):
                inside = [row for row, at in zip(e, bins, strict=True) if abs(at - b) <= far]
                if inside:
                    mean = np.mean(inside, axis=0)
                    rows.append(mean / np.sqrt(np.sum(mean**2)))
                    break
        out.append(np.array(rows))
    return out


def slow_cells(embeddings: Any, cells: Any) -> list[np.ndarray]:
    """Means over what has the same name in all datasets."""
    shared = sorted(set.intersection(*[set(c) for c in cells]))
    out = []
    for e, names in zip(embeddings, cells, strict=True):
        rows = []
        for name in shared:
            mean = np.mean([row for row, n in zip(e, names, strict=True) if n == name], axis=0)
            rows.append(mean / np.linalg.norm(mean))
        out.append(np.array(rows))
    return out


def every_pair(matrices: Any) -> list[float]:
    return [slow_r2(a, b) for a, b in itertools.permutations(matrices, 2)]


# --- Runs ----------------------------------------------------------------------------------------
@given(
    seed=st.integers(0, 2**32),
    n=st.integers(12, 60),
    widths=st.lists(st.integers(1, 6), min_size=2, max_size=4),
)
@settings(max_examples=25, deadline=None)
def test_runs_are_compared_by_regression_of_every_ordered_pair(
    seed: int, n: int, widths: list[int]
) -> None:
    runs = clouds(seed, tuple((n, d) for d in widths))
    scores, pairs, ids = consistency_score(runs, between="runs")
    np.testing.assert_allclose(scores, every_pair(runs), atol=1e-10)
    assert pairs.tolist() == [list(p) for p in itertools.permutations(range(len(runs)), 2)]
    assert ids.tolist() == list(range(len(runs)))
    both, same_pairs, _ = consistency_score(runs, between="runs", symmetric=True)
    table = {tuple(p): s for p, s in zip(pairs.tolist(), scores, strict=True)}
    assert both == pytest.approx([(table[a, b] + table[b, a]) / 2 for a, b in pairs.tolist()])
    assert same_pairs.tolist() == pairs.tolist()


def test_columns_that_repeat_or_do_not_vary_are_what_scikit_learn_says() -> None:
    a, b = clouds(0, ((50, 3), (50, 3)))
    a = np.column_stack([a, a[:, 0] + a[:, 1], np.full(50, 0.5)])
    scores, _, _ = consistency_score([a, b])
    np.testing.assert_allclose(scores, every_pair([a, b]), atol=1e-10)


def test_without_a_word_runs_are_compared_and_with_labels_datasets() -> None:
    runs = clouds(1, ((40, 3), (40, 2)))
    np.testing.assert_array_equal(consistency_score(runs)[0], consistency_score(runs, "runs")[0])
    embeddings, labels = tracks(1, (900, 700))
    np.testing.assert_array_equal(
        consistency_score(embeddings, labels=labels)[0],
        consistency_score(embeddings, "datasets", labels)[0],
    )


# --- Datasets ------------------------------------------------------------------------------------
@given(seed=st.integers(0, 2**32), n_bins=st.integers(8, 40))
@settings(max_examples=15, deadline=None)
def test_datasets_are_compared_by_means_over_bins(seed: int, n_bins: int) -> None:
    rng = np.random.default_rng(seed)
    labels = [rng.permutation(np.linspace(0, 1, n) ** 1.5) for n in (150, 90, 120)]
    embeddings = clouds(seed, ((150, 3), (90, 4), (120, 2)))
    expected = slow_bins(embeddings, labels, n_bins)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few bins
        scores, pairs, ids = consistency_score(
            embeddings, labels=labels, dataset_ids=["c", "a", "b"], num_discretization_bins=n_bins
        )
    np.testing.assert_allclose(scores, every_pair(expected), atol=1e-8)
    assert pairs.tolist() == [list(p) for p in itertools.permutations(["c", "a", "b"], 2)]
    assert ids.tolist() == ["c", "a", "b"]
    for found, slow in zip(
        align_embeddings(embeddings, labels, n_bins=n_bins), expected, strict=True
    ):
        np.testing.assert_allclose(found, slow, atol=1e-12)


def test_empty_bins_borrow_from_their_neighbours() -> None:
    """Levels three bins apart: two of three bins are empty in every dataset."""
    rng = np.random.default_rng(0)
    edges = np.linspace(0.0, 1.0, 31)
    levels = (edges[:-1:3] + edges[1::3]) / 2
    labels = [np.r_[0.0, rng.permutation(np.tile(levels, 6)), 1.0] for _ in range(2)]
    embeddings = clouds(0, ((len(labels[0]), 3), (len(labels[0]), 3)))
    expected = slow_bins(embeddings, labels, 31)
    assert len(expected[0]) == 30
    for found, slow in zip(align_embeddings(embeddings, labels, n_bins=31), expected, strict=True):
        np.testing.assert_allclose(found, slow, atol=1e-12)


def test_a_dataset_that_comes_twice_gives_one_score_a_pair() -> None:
    embeddings, labels = tracks(2, (800, 800, 900, 700))
    ids = ["a-b", "a-b", "c", "a"]
    scores, pairs, back = consistency_score(embeddings, labels=labels, dataset_ids=ids)
    means = slow_bins(embeddings, labels, 100)
    members = {"a-b": [0, 1], "c": [2], "a": [3]}
    expected = [
        np.mean([slow_r2(means[i], means[j]) for i in members[a] for j in members[b]])
        for a, b in itertools.permutations(members, 2)
    ]
    assert pairs.tolist() == [list(p) for p in itertools.permutations(members, 2)]
    np.testing.assert_allclose(scores, expected, atol=1e-8)
    assert back.tolist() == ids
    axes = plot_consistency(scores, pairs, back)
    assert len(axes.get_xticks()) == 3


def test_names_with_dashes_are_not_mixed_up() -> None:
    """'a-b' with 'c', and 'a' with 'b-c', are two pairs."""
    embeddings, labels = tracks(3, (600,) * 4)
    names = ["a-b", "c", "a", "b-c"]
    scores, pairs, _ = consistency_score(embeddings, labels=labels, dataset_ids=names)
    assert len(scores) == len(pairs) == 12
    np.testing.assert_allclose(scores, every_pair(slow_bins(embeddings, labels, 100)), atol=1e-8)


def test_integers_are_classes_one_bin_each() -> None:
    rng = np.random.default_rng(4)
    labels = [rng.permutation(np.tile([-7, 2, 3, 90, 1000, 1001], 20)) for _ in range(3)]
    embeddings = [
        np.array([[np.sin(v), np.cos(v)] for v in label]) + 0.1 * rng.standard_normal((120, 2))
        for label in labels
    ]
    scores, _, _ = consistency_score(embeddings, labels=labels, num_discretization_bins=3)
    np.testing.assert_allclose(scores, every_pair(slow_cells(embeddings, labels)), atol=1e-10)
    assert align_embeddings(embeddings, labels)[0].shape == (6, 2)
    raw = align_embeddings(embeddings, labels, normalize=False)[1]
    np.testing.assert_allclose(raw[0], embeddings[1][labels[1] == -7].mean(axis=0))
    columns = [np.stack([label, label % 2], axis=1) for label in labels]
    again, _, _ = consistency_score(embeddings, labels=columns)
    np.testing.assert_allclose(again, scores, atol=1e-12)


def test_a_missing_class_is_named() -> None:
    embeddings = clouds(5, ((90, 2), (60, 2)))
    labels = [np.tile([1, 2, 8], 30), np.tile([1, 2], 30)]
    with pytest.raises(DataError, match=r"found no sample of 8 in dataset 'rat' \(embedding 1\)"):
        consistency_score(embeddings, labels=labels, dataset_ids=["mouse", "rat"])


@pytest.mark.parametrize("values", [(0.0, 10.0), (-1.5, 0.1, 7.0, 7.5), (False, True)])
def test_labels_of_few_values(values: tuple[float, ...]) -> None:
    rng = np.random.default_rng(6)
    labels = [rng.permutation(np.tile(values, 30)) for _ in range(2)]
    embeddings = [np.eye(4)[np.searchsorted(values, v)][:, :2] + 0.2 for v in labels]
    embeddings = [e + 0.2 * rng.standard_normal(e.shape) for e in embeddings]
    found = align_embeddings(embeddings, labels)
    for ours, slow in zip(found, slow_cells(embeddings, labels), strict=True):
        np.testing.assert_allclose(ours, slow, atol=1e-12)
    if len(values) == 2:
        with pytest.warns(UserWarning, match=r"2 parameters fits 2 bins .* 1 by construction"):
            scores, _, _ = consistency_score(embeddings, labels=labels)
        assert scores == pytest.approx([1, 1])
    else:
        scores, _, _ = consistency_score(embeddings, labels=labels)
        np.testing.assert_allclose(scores, every_pair(found), atol=1e-10)


def test_a_range_that_one_dataset_lacks_is_named() -> None:
    embeddings = clouds(7, ((200, 3), (200, 3)))
    labels = [np.linspace(0, 1, 200), np.r_[np.linspace(0, 0.4, 100), np.linspace(0.6, 1, 100)]]
    with pytest.raises(DataError, match=r"dataset 1 .* within 2 bins of 0\.43"):
        consistency_score(embeddings, labels=labels, num_discretization_bins=101)


def test_a_gap_that_all_datasets_have_is_left_out() -> None:
    embeddings = clouds(8, ((200, 3), (100, 3)))
    labels = [np.r_[np.linspace(0, 0.4, n), np.linspace(0.6, 1, n)] for n in (100, 50)]
    means = align_embeddings(embeddings, labels, n_bins=51)
    cells = [[min(49, int(v * 50 + 1e-9)) for v in label] for label in labels]
    for ours, slow in zip(means, slow_cells(embeddings, cells), strict=True):
        np.testing.assert_allclose(ours, slow, atol=1e-12)


def test_several_columns_are_binned_together() -> None:
    """Two wide columns share the bins, a column of few values has one for each."""
    rng = np.random.default_rng(9)
    labels, embeddings, cells = [], [], []
    for n in (3000, 2500):
        xy = rng.uniform(0, 1, (n, 2))
        xy[:4] = [[0, 0], [1, 1], [0, 1], [1, 0]]
        way = rng.choice([-1.0, 1.0], n)
        labels.append(np.column_stack([xy, way]))
        embeddings.append(np.column_stack([xy, way]) + 0.1 * rng.standard_normal((n, 3)))
        tenths = np.minimum(9, np.floor(10 * xy))
        cells.append([(a, b, w) for (a, b), w in zip(tenths, way, strict=True)])
    scores, _, _ = consistency_score(embeddings, labels=labels, num_discretization_bins=100)
    slow = slow_cells(embeddings, cells)
    assert len(slow[0]) == 200
    np.testing.assert_allclose(scores, every_pair(slow), atol=1e-8)
    position = [np.column_stack([x[:, 0], x[:, 2] > 0, x[:, 2] < 0]) for x in labels]
    assert len(align_embeddings(embeddings, position)[0]) == 200


def test_cells_that_not_all_datasets_have_are_left_out_and_said() -> None:
    rng = np.random.default_rng(10)
    labels = [rng.uniform(0, 1, (2000, 2)), rng.uniform(0, 1, (2000, 2)) * [0.35, 1]]
    embeddings = [x + 0.1 for x in labels]
    with pytest.warns(UserWarning, match=r"only 4\d% of the samples of dataset 0"):
        scores, _, _ = consistency_score(embeddings, labels=labels)
    assert (scores > 0.8).all()


def test_labels_stay_as_they_are_and_may_be_lists_or_tensors() -> None:
    embeddings, labels = tracks(11, (600, 500))
    expected = consistency_score(embeddings, labels=labels)[0]
    given = [labels[0].tolist(), torch.tensor(labels[1])]
    before = copy.copy(given)
    tensors = [torch.tensor(e, requires_grad=True) for e in embeddings]
    np.testing.assert_array_equal(consistency_score(tensors, labels=given)[0], expected)
    assert all(a is b for a, b in zip(given, before, strict=True))
    column = [label[:, None] for label in labels]
    np.testing.assert_array_equal(consistency_score(embeddings, labels=column)[0], expected)


def test_rows_with_nan_are_left_out_and_counted() -> None:
    embeddings, labels = tracks(12, (600, 500))
    whole = consistency_score([embeddings[0][5:], embeddings[1]], labels=[labels[0][5:], labels[1]])
    embeddings[0][:5, 1] = np.nan
    with pytest.warns(UserWarning, match="5 rows"):
        scores, _, _ = consistency_score(embeddings, labels=labels)
    np.testing.assert_allclose(scores, whole[0], atol=1e-2)


# --- Null ----------------------------------------------------------------------------------------
def test_the_null_tells_a_tie_from_none() -> None:
    embeddings, labels = tracks(13, (3000, 2500, 2800))
    scores, pairs, _, null = consistency_score(embeddings, labels=labels, null=49, random_state=0)
    assert null.shape == (49, len(pairs))
    assert (scores > null.max(axis=0)).all()
    runs = [embeddings[0], embeddings[0] @ np.ones((3, 3)) + 0.5, embeddings[0] ** 3]
    scores, pairs, _, null = consistency_score(runs, null=49, random_state=0)
    assert null.shape == (49, 6)
    assert (scores > null.max(axis=0)).all()


def test_without_a_tie_p_is_uniform() -> None:
    """Embeddings that are slow and independent of slow labels and of each other."""
    ranks: dict[str, list[float]] = {"runs": [], "datasets": []}
    for seed in range(40):
        rng = np.random.default_rng(seed)
        spectrum = rng.standard_normal((4, 20, 3)) + 1j * rng.standard_normal((4, 20, 3))
        slow = np.fft.irfft(np.pad(spectrum, ((0, 0), (1, 0), (0, 0))), 1000, axis=1)
        embeddings = list(slow[:2])
        labels = [np.argsort(np.argsort(x)) / 1000 for x in slow[2:, :, 0]]
        for kind, arguments in (("runs", {}), ("datasets", {"labels": labels})):
            scores, _, _, null = consistency_score(
                embeddings,
                kind,
                num_discretization_bins=20,
                null=19,
                random_state=seed,
                **arguments,
            )
            ranks[kind].append(float((null[:, 0] >= scores[0]).mean()))
    for found in ranks.values():
        assert 0.3 < np.mean(found) < 0.7
        assert np.mean(np.array(found) == 0) < 0.2


def test_the_null_is_what_shifted_labels_give() -> None:
    embeddings, labels = tracks(14, (400, 300))
    null = consistency_score(embeddings, labels=labels, null=2, random_state=5)[3]
    rng = np.random.default_rng(5)
    for draw in null:
        turns = rng.random(2)
        moved = [
            np.roll(label, -int(u * len(label))) for label, u in zip(labels, turns, strict=True)
        ]
        np.testing.assert_allclose(draw, consistency_score(embeddings, labels=moved)[0], atol=1e-10)
    runs = clouds(14, ((80, 2), (80, 3)))
    null = consistency_score(runs, null=2, random_state=5)[3]
    rng = np.random.default_rng(5)
    for draw in null:
        rolled = [np.roll(e, int(u * 80), axis=0) for e, u in zip(runs, rng.random(2), strict=True)]
        np.testing.assert_allclose(draw, every_pair(rolled), atol=1e-10)


def test_the_same_seed_gives_the_same_null() -> None:
    runs = clouds(15, ((80, 2), (80, 3)))
    first, again, other = (consistency_score(runs, null=3, random_state=s)[3] for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    both = consistency_score(runs, null=3, random_state=1, symmetric=True)[3]
    np.testing.assert_allclose(both, np.repeat(first.mean(axis=1, keepdims=True), 2, axis=1))


# --- Refusals ------------------------------------------------------------------------------------
def with_value(x: np.ndarray, at: tuple[int, ...], value: float) -> np.ndarray:
    x = x.copy()
    x[at] = value
    return x


A, B = clouds(20, ((30, 2), (30, 2)))
T = np.linspace(0, 1, 30)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"embeddings": [A]}, "at least 2 to be compared; found 1"),
        ({"between": "rats"}, "'runs' or 'datasets'; found 'rats'"),
        ({"between": "datasets"}, "labels must be given to compare datasets"),
        ({"dataset_ids": ["a", "b"]}, "labels must be given to compare datasets"),
        ({"between": "runs", "labels": [T, T]}, "labels must not be given to compare runs"),
        ({"between": "runs", "dataset_ids": [0, 1]}, "dataset_ids must not be given"),
        ({"embeddings": [A, B[:20]]}, "found 30 in embedding 0 and 20 in embedding 1"),
        ({"embeddings": [A, B[:, 0]]}, r"embedding 1 must be .* shape \(30,\)"),
        ({"embeddings": [A, with_value(B, (4, 1), np.nan)]}, "nan in row 4, column 1"),
        ({"embeddings": [A, np.ones((30, 2))]}, "embedding 1 must vary"),
        ({"labels": [T]}, "found 1 for 2 embeddings"),
        ({"labels": [T, T[:29]]}, "29 labels and 30 samples"),
        ({"labels": [T, with_value(T, (3,), np.nan)]}, "found nan in row 3"),
        ({"labels": [T, ["a", "b"] * 15]}, "labels of dataset 1 .* Number the classes"),
        ({"labels": [T, np.arange(30)]}, "one kind, .* found float64 with 1 .* and int64 with 1"),
        ({"labels": [T, np.zeros((30, 2))]}, "found float64 with 1 columns and float64 with 2"),
        ({"labels": [T, T], "dataset_ids": ["a"]}, "found 1 ids for 2 embeddings"),
        ({"labels": [T, T], "dataset_ids": ["a", "a"]}, "at least two datasets; found only 'a'"),
        ({"labels": [T, T], "num_discretization_bins": 1}, "at least 2; found 1"),
        ({"labels": [T * 0, T * 0]}, "found 1. Give labels that vary"),
        ({"embeddings": [A, B * np.nan], "labels": [T, T]}, "rows without NaN; found none in data"),
        ({"null": -1}, "found -1"),
        ({"null": True}, "found True"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_words(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        consistency_score(**{"embeddings": [A, B], **given})
    assert isinstance(caught.value, ConfigError | DataError)


# --- Rotations -----------------------------------------------------------------------------------
def slow_rotation(
    reference: np.ndarray, data: np.ndarray, ref_label: np.ndarray, label: np.ndarray, top_k: int
) -> np.ndarray:
    """Every pair written out, and scipy's solution."""
    left, right = [], []
    for row, at in zip(data, label, strict=True):
        far = [float(np.sum((at - other) ** 2)) for other in ref_label]
        for j in sorted(range(len(reference)), key=far.__getitem__)[:top_k]:
            left.append(row)
            right.append(reference[j])
    return np.asarray(scipy.linalg.orthogonal_procrustes(np.array(left), np.array(right))[0])


@given(seed=st.integers(0, 2**32), columns=st.integers(1, 3), top_k=st.integers(1, 7))
@settings(max_examples=15, deadline=None)
def test_the_rotation_is_scipys_for_the_nearest_labels(seed: int, columns: int, top_k: int) -> None:
    reference, data = clouds(seed, ((60, 3), (45, 3)))
    rng = np.random.default_rng(seed)
    ref_label, label = rng.standard_normal((60, columns)), rng.standard_normal((45, columns))
    alignment = OrthogonalProcrustesAlignment(top_k)
    turned = alignment.fit_transform(reference, data, ref_label, label)
    expected = slow_rotation(reference, data, ref_label, label, top_k)
    np.testing.assert_allclose(turned, data @ expected, atol=1e-8)
    np.testing.assert_allclose(alignment.transform(data[:3]), turned[:3])


def test_samples_of_equal_labels_share_their_place() -> None:
    """The rotation does not depend on the order of samples: it is that of the tied ones' mean."""
    rng = np.random.default_rng(0)
    reference, data = clouds(0, ((200, 3), (150, 3)))
    ref_label, label = np.repeat(np.arange(4), 50), rng.integers(0, 4, 150)
    expected = OrthogonalProcrustesAlignment(5).fit_transform(reference, data, ref_label, label)
    means = np.array([reference[ref_label == c].mean(axis=0) for c in range(4)])
    slow, _ = scipy.linalg.orthogonal_procrustes(data, means[label])
    np.testing.assert_allclose(expected, data @ slow, atol=1e-10)
    order = rng.permutation(200)
    again = OrthogonalProcrustesAlignment(5).fit_transform(
        reference[order], data, ref_label[order], label
    )
    np.testing.assert_allclose(again, expected, atol=1e-10)
    # Two samples at place 0 and two at place 1: of three partners of place 0 the third is shared.
    few = OrthogonalProcrustesAlignment(3).fit(reference[:4], data[:40], [0, 0, 1, 1], np.zeros(40))
    partner = reference[:2].sum(axis=0) + reference[2:4].mean(axis=0)
    slow, _ = scipy.linalg.orthogonal_procrustes(data[:40], np.tile(partner, (40, 1)))
    np.testing.assert_allclose(partner @ few.rotation_.T @ slow, partner, atol=1e-8)


def test_large_labels_do_not_cancel() -> None:
    reference, data = clouds(1, ((80, 3), (80, 3)))
    label = np.random.default_rng(1).uniform(0, 1, 80)
    expected = OrthogonalProcrustesAlignment(1).fit_transform(reference, data, label, label)
    moved = OrthogonalProcrustesAlignment(1).fit_transform(
        reference, data, label + 1e9, label + 1e9
    )
    np.testing.assert_allclose(moved, expected, atol=1e-8)


def test_a_subsample_is_seeded_and_comes_near() -> None:
    rng = np.random.default_rng(2)
    reference = rng.standard_normal((3000, 3))
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    data = reference @ turn + 0.1 * rng.standard_normal((3000, 3))
    found = [
        OrthogonalProcrustesAlignment(2, 1200, random_state=s).fit(reference, data).rotation_
        for s in (0, 0, 1)
    ]
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] != found[2]).any()
    np.testing.assert_allclose(found[0], turn.T, atol=0.15)
    whole = OrthogonalProcrustesAlignment(2, 10**6, random_state=0).fit(reference, data).rotation_
    np.testing.assert_array_equal(
        whole, OrthogonalProcrustesAlignment(2).fit(reference, data).rotation_
    )


def test_a_subsample_is_of_the_drawn_pairs_and_of_no_others() -> None:
    """Most drawn samples keep only some of their partners."""
    reference, data = clouds(5, ((90, 3), (60, 3)))
    rng = np.random.default_rng(5)
    ref_label, label = rng.standard_normal(90), rng.standard_normal(60)
    found = OrthogonalProcrustesAlignment(4, 50, random_state=7)
    found.fit(reference, data, ref_label, label)
    nearest = np.argsort(np.abs(label[:, None] - ref_label), axis=1)[:, :4]
    drawn = np.random.default_rng(7).choice(240, 50, replace=False, shuffle=False)
    slow, _ = scipy.linalg.orthogonal_procrustes(
        data[drawn // 4], reference[nearest.ravel()[drawn]]
    )
    np.testing.assert_allclose(found.rotation_, slow, atol=1e-10)


def test_the_mean_of_turned_embeddings() -> None:
    first, second, third = clouds(3, ((70, 3), (70, 3), (70, 3)))
    several = [first, second, third]
    expected = first.copy()
    time = np.arange(70)[:, None]
    for e in (second, third):
        expected += e @ slow_rotation(first, e, time, time, 5)
    expected /= 3
    found = ensemble_embeddings(several)
    np.testing.assert_allclose(found, expected, atol=1e-10)
    np.testing.assert_allclose(ensemble_embeddings(several, n_jobs=1), found, atol=1e-12)
    unit = ensemble_embeddings(several, post_norm=True)
    np.testing.assert_allclose(unit, found / np.linalg.norm(found, axis=1, keepdims=True))
    label = [np.random.default_rng(4).permutation(np.arange(70.0)) for _ in several]
    assert (ensemble_embeddings(several, labels=label) != found).any()
    floats = [torch.tensor(e, dtype=torch.float32) for e in several]
    assert ensemble_embeddings(floats).dtype == np.float32
    np.testing.assert_array_equal(ensemble_embeddings([first]), first)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ((A, B[:20]), "without labels, .* found 20 and 30"),
        ((A, B, T), "found no label"),
        ((A, B, None, T), "found no ref_label"),
        ((A, B[:, :1]), "same dimensions; found 1 and 2"),
        ((A[:3], B[:3]), "at least top_k = 5 samples; found 3"),
        ((A, B, T[:29], T), "ref_label must be .* 29 labels and 30 samples"),
        ((A, B, T, T[:28]), "label must be .* of data; found 28 labels and 30 samples"),
        ((A, B, T, np.stack([T, T], 1)), "same columns; found 1 and 2"),
        ((A, with_value(B, (2, 0), np.nan)), "data must be finite; found nan in row 2"),
        ((A, B, T, with_value(T, (9,), np.inf)), "label must be finite"),
    ],
)
def test_what_cannot_be_turned_is_refused_in_words(given: tuple[Any, ...], says: str) -> None:
    with pytest.raises(DataError, match=says):
        OrthogonalProcrustesAlignment().fit(*given)


def test_other_refusals() -> None:
    with pytest.raises(NotFittedError, match="call fit before transform"):
        OrthogonalProcrustesAlignment().transform(A)
    with pytest.raises(DataError, match="2 dimensions of fit; found 1"):
        OrthogonalProcrustesAlignment().fit(A, B).transform(A[:, 0])
    with pytest.raises(ConfigError, match="top_k must be"):
        OrthogonalProcrustesAlignment(0)
    with pytest.raises(ConfigError, match="subsample must be"):
        OrthogonalProcrustesAlignment(5, 0)
    with pytest.raises(DataError, match=r"\(30, 2\) in embedding 0 and \(30, 1\) in embedding 1"):
        ensemble_embeddings([A, B[:, :1]])
    with pytest.raises(DataError, match="found 1 for 2 embeddings"):
        ensemble_embeddings([A, B], labels=[T])
    with pytest.raises(DataError, match="found none"):
        ensemble_embeddings([])
    with pytest.raises(ConfigError, match="n_jobs"):
        ensemble_embeddings([A, B], n_jobs=None)  # type: ignore[arg-type]


# --- CEBRA ---------------------------------------------------------------------------------------
def test_cebra_gives_the_same_consistency(cebra: ModuleType) -> None:
    theirs = cebra.integrations.sklearn.metrics.consistency_score
    runs = clouds(30, ((300, 3), (300, 5), (300, 2)))
    for ours, other in zip(consistency_score(runs, "runs"), theirs(runs, "runs"), strict=True):
        np.testing.assert_allclose(ours, other, atol=1e-8)
    embeddings, labels = tracks(30, (2000, 1500, 1800))
    for n_bins in (100, 37):
        for kind in (np.float64, np.float32):
            given = [label.astype(kind) for label in labels]
            ours = consistency_score(embeddings, "datasets", given, ["c", "a", "b"], n_bins)
            other = theirs(embeddings, "datasets", list(given), ["c", "a", "b"], n_bins)
            np.testing.assert_allclose(ours[0], other[0], atol=1e-8)
            assert ours[1].tolist() == other[1].tolist()
            assert ours[2].tolist() == other[2].tolist()
    ours, other = (f(embeddings, "datasets", list(labels)) for f in (consistency_score, theirs))
    assert ours[2].tolist() == other[2].tolist()
    repeated = consistency_score(embeddings, "datasets", labels, ["a", "a", "b"])
    other = theirs(embeddings, "datasets", list(labels), ["a", "a", "b"])
    np.testing.assert_allclose(repeated[0], other[0], atol=1e-8)


def test_cebra_gives_the_same_alignment(cebra: ModuleType) -> None:
    embeddings, labels = tracks(31, (1200, 900))
    for normalize in (True, False):
        ours = align_embeddings(embeddings, labels, normalize, 60)
        other = cebra.integrations.sklearn.helpers.align_embeddings(
            embeddings, labels, normalize, 60
        )
        for a, b in zip(ours, other, strict=True):
            np.testing.assert_allclose(a, np.array(b), atol=1e-12)
    helper = cebra.data.helper
    for top_k in (1, 5):
        for fitted in (
            (embeddings[0], embeddings[1], labels[0], labels[1]),
            (embeddings[0][:900], embeddings[1]),
            (embeddings[0][:900, 0], embeddings[1][:, 0]),
        ):
            ours = OrthogonalProcrustesAlignment(top_k).fit_transform(*fitted)
            other = helper.OrthogonalProcrustesAlignment(top_k).fit_transform(*fitted)
            assert ours.shape == other.shape
            np.testing.assert_allclose(ours, other, atol=1e-8)
    several = [e[:900] for e in (*embeddings, embeddings[0] ** 2)]
    for post_norm in (True, False):
        np.testing.assert_allclose(
            ensemble_embeddings(several, post_norm=post_norm),
            helper.ensemble_embeddings(several, post_norm=post_norm),
            atol=1e-8,
        )


def test_where_cebra_is_wrong(cebra: ModuleType) -> None:
    theirs = cebra.integrations.sklearn.metrics.consistency_score
    embeddings, labels = tracks(32, (600, 500, 550))
    scores, pairs, _ = theirs(embeddings, "datasets", list(labels), ["a", "a", "b"])
    assert (len(scores), len(pairs)) == (2, 4)
    given: list[Any] = [label.tolist() for label in labels]
    theirs(embeddings, "datasets", given)
    assert not any(isinstance(label, list) for label in given)
    two = [np.where(label > 50, 10.0, 0.0) for label in labels]
    with pytest.raises(ValueError, match="close enough"):
        theirs(embeddings, "datasets", two)
    with pytest.raises(NotImplementedError):
        theirs(embeddings, "datasets", [np.stack([label, label], axis=1) for label in labels])
    names = ["a-b", "c", "a", "b-c"]
    embeddings, labels = tracks(33, (600,) * 4)
    scores, pairs, _ = theirs(embeddings, "datasets", list(labels), names)
    assert len(scores) < len(pairs) == 12
    rng = np.random.default_rng(0)
    reference, data = clouds(34, ((400, 3), (400, 3)))
    label, order = rng.integers(0, 3, 400), rng.permutation(400)
    turned = [
        cebra.data.helper.OrthogonalProcrustesAlignment().fit_transform(
            reference[o], data, label[o], label
        )
        for o in (np.arange(400), order)
    ]
    assert np.abs(turned[0] - turned[1]).max() > 1e-3
