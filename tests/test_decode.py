from __future__ import annotations

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from grevy import decode
from grevy.decode import (
    KNN,
    METRICS,
    Target,
    _top,
    circular_distance,
    error,
    metrics_of,
    neighbours,
    predict,
    predictions,
    tune,
)
from grevy.errors import DataError


def _points(rng: np.random.Generator, n: int, d: int = 4) -> np.ndarray:
    return rng.standard_normal((n, d)).astype(np.float32)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("k", [1, 3, 10])
def test_quantities_are_decoded_as_scikit_learn_does(metric: str, k: int) -> None:
    rng = np.random.default_rng(k)
    x, q = _points(rng, 300), _points(rng, 80)
    y = rng.standard_normal((300, 2))
    target = Target(y, np.zeros(2))
    ours = predict(x, np.arange(300), q, target, KNN(k, metric))  # type: ignore[arg-type]
    theirs = KNeighborsRegressor(k, metric=metric).fit(x, y).predict(q)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_classes_are_decoded_as_scikit_learn_does() -> None:
    rng = np.random.default_rng(0)
    x, q, y = _points(rng, 300), _points(rng, 80), rng.integers(0, 4, 300)
    target = Target(y[:, None], np.zeros(1), 4)
    for k in (1, 5, 12):
        ours = predict(x, np.arange(300), q, target, KNN(k, "euclidean"))[:, 0]
        theirs = KNeighborsClassifier(k).fit(x, y).predict(q)
        assert (ours == theirs).all()


def test_a_far_origin_does_not_blur_euclidean_neighbours() -> None:
    rng = np.random.default_rng(1)
    x = _points(rng, 200) + np.float32(1000)
    found = neighbours(x, x, 2, metric="euclidean")
    true = KNeighborsRegressor(2).fit(x.astype(np.float64), np.zeros(200)).kneighbors(x)[1]
    assert (found == true).mean() > 0.99


@pytest.mark.parametrize("mixed", [False, True])
def test_own_group_is_never_a_neighbour_and_missing_ones_are_left_out(mixed: bool) -> None:
    rng = np.random.default_rng(2)
    x, group = _points(rng, 40), np.repeat(np.arange(4), 10)
    group = rng.permutation(group) if mixed else group
    found = neighbours(x, x, 35, train_group=group, query_group=group)
    assert (found[:, 30:] == -1).all()
    assert (group[found[:, :30]] != group[:, None]).all()
    y = np.where(group == 0, 100.0, 0.0)[:, None]
    said = predictions(Target(y, np.zeros(1)), np.arange(40), found, [35])[0]
    assert (said[group == 0] == 0).all()
    np.testing.assert_allclose(said[group == 1], 100 / 3)


def test_circular_quantities_average_around_the_circle() -> None:
    target = Target(np.array([[350.0], [10.0]]), np.array([360.0]))
    said = predictions(target, np.arange(2), np.array([[0, 1]]), [2])[0]
    assert circular_distance(said, np.zeros((1, 1)), 360.0)[0, 0] < 1e-9
    assert error(target, np.array([0]), np.array([[20.0]]))[0] == pytest.approx(30.0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60))
def test_chunks_do_not_show(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    x, q = _points(rng, 60), _points(rng, 9)
    whole = neighbours(x, q, k)
    one_by_one = np.concatenate([neighbours(x, q[i : i + 1], k) for i in range(9)])
    assert (whole == one_by_one).all()


@pytest.mark.parametrize("n_classes", [0, 5])
def test_pieces_of_predictions_do_not_show(n_classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(n_classes)
    y = rng.integers(0, 5, (50, 1)) if n_classes else rng.normal(size=(50, 3))
    target = Target(y, np.array([0.0, 1.0, 0.0][: y.shape[1]]), n_classes)
    nearest = rng.integers(-1, 50, (40, 7))
    whole = predictions(target, np.arange(50), nearest, [7, 1, 3])
    monkeypatch.setattr(decode, "_NUMBERS_AT_ONCE", 50)
    parts = predictions(target, np.arange(50), nearest, [7, 1, 3])
    assert all(np.array_equal(a, b) for a, b in zip(whole, parts, strict=True))
    assert predictions(target, np.arange(50), nearest[:0], [2])[0].shape == (0, y.shape[1])


def test_predictions_hold_few_neighbours_at_once() -> None:
    rng = np.random.default_rng(0)
    nearest = rng.integers(0, 1000, (50_000, 50))
    tracemalloc.start()
    predictions(Target(rng.normal(size=(1000, 2)), np.zeros(2)), np.arange(1000), nearest, [50])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6  # whole, their values alone are 40 MB, and are held six times


WATCHED = """
import threading, time, torch, numpy as np
from grevy import KNNDecoder
from grevy.decode import KNN, Target, predict
torch.set_num_threads(1)
n, most = 100_000, [0]
rng = np.random.default_rng(0)
x, q = (rng.normal(size=(n, 8)).astype("f4") for _ in range(2))
y = rng.normal(size=(n, 2))
def private():
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * sum(int(l.split()[1]) for l in lines if l.startswith("RssAnon"))
def watch():
    while True:
        most[0] = max(most[0], private())
        time.sleep(0.02)
threading.Thread(target=watch, daemon=True).start()
for what in (
    lambda: predict(x, np.arange(n), q, Target(y, np.zeros(2)), KNN(100, "cosine"), device="cpu"),
    lambda: KNNDecoder(n_neighbors=25).fit(x, y).predict(q),
):
    begin, most[0] = private(), 0
    what()
    print(most[0] - begin)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="private memory is read from /proc")
def test_neighbours_of_100_000_queries_take_under_512_megabytes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WATCHED], capture_output=True, text=True, check=True
    )
    taken = [int(line) for line in done.stdout.split()]
    assert len(taken) == 2
    assert max(taken) < 512e6, taken


def test_tuning_prefers_the_number_of_neighbours_that_the_noise_asks_for() -> None:
    rng = np.random.default_rng(3)
    angle = rng.uniform(0, 2 * np.pi, 1200)
    x = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
    groups = np.repeat(np.arange(6), 200)
    clean = tune(x, Target(x.astype(np.float64), np.zeros(2)), np.arange(1200), groups)
    noisy_y = np.cos(angle)[:, None] + rng.standard_normal((1200, 1))
    noisy = tune(x, Target(noisy_y, np.zeros(1)), np.arange(1200), groups)
    assert clean.k <= 3
    assert noisy.k >= 25


@pytest.mark.parametrize("steps", [0, 0.25])
@pytest.mark.parametrize(
    ("n", "k"), [(400, 5), (1000, 25), (1003, 31), (997, 31), (64, 64), (300, 100), (5000, 20)]
)
def test_the_largest_are_found_among_the_best_groups(n: int, k: int, steps: float) -> None:
    generator = torch.Generator().manual_seed(torch.seed() % 2**32)
    similar = torch.randn(17, n, generator=generator)
    if steps:  # many are equal
        similar = (similar / steps).round() * steps
    similar[3, : n // 2] = -torch.inf
    similar[4, k - 1 :] = -torch.inf  # fewer than k are left
    similar[5, : k // 2 + 1] = -0.0
    values, place = _top(similar, k)
    for row in range(17):
        largest = sorted(similar[row].tolist(), reverse=True)[:k]
        assert values[row].tolist() == largest
        assert similar[row, place[row]].tolist() == largest
        assert len(set(place[row].tolist())) == k
    for row in range(17):  # whatever rows are beside it
        alone = _top(similar[row : row + 1].clone(), k)
        there = ~torch.isneginf(values[row])
        assert torch.equal(alone[1][0][there], place[row][there])


def test_values_that_are_no_numbers_take_no_place_of_others() -> None:
    similar = torch.randn(8, 200, generator=torch.Generator().manual_seed(0))
    similar[2, 7] = similar[5, :150] = torch.nan
    values, place = _top(similar, 40)
    for row in set(range(8)) - {2, 5}:
        assert torch.equal(values[row], torch.topk(similar[row], 40)[0])
        assert torch.equal(similar[row, place[row]], values[row])


def test_on_a_sphere_there_is_one_metric() -> None:
    rng = np.random.default_rng(torch.seed() % 2**32)
    x = rng.standard_normal((500, 6)).astype(np.float32)
    assert metrics_of(x) == METRICS
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    for scale in (1e-3, 1, 50):
        assert metrics_of(scale * x) == ("cosine",)
        near = [neighbours(scale * x[:400], scale * x[400:], 30, metric=m) for m in METRICS]
        assert (near[0] == near[1]).mean() > 0.995  # all but equals within rounding
    assert metrics_of(x + 0.01) == METRICS  # not round zero
    assert metrics_of(1.001 ** rng.integers(0, 2, (500, 1)) * x) == METRICS


def test_k_must_fit() -> None:
    with pytest.raises(DataError, match="k must be between 1 and the 3"):
        neighbours(np.zeros((3, 2), np.float32), np.zeros((1, 2), np.float32), 4)
