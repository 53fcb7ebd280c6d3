"""Persistent homology: a slow twin, shapes of known Betti numbers, clouds that are no rings."""

from __future__ import annotations

import math
import sys
from itertools import combinations

import numpy as np
import pytest

from grevy.errors import ConfigError, DataError, MissingExtraError
from grevy.quality import persistence, ring_test, some_points
from grevy.results import Barcode

RNG = np.random.default_rng


def circle(n: int, seed: int, *, noise: float = 0.1) -> np.ndarray:
    turn = RNG(seed).uniform(0, 2 * np.pi, n)
    flat = np.stack([np.cos(turn), np.sin(turn), 0 * turn], axis=1)
    return flat + noise * RNG(seed + 1).standard_normal(flat.shape)


def torus(n: int, seed: int) -> np.ndarray:
    turns = RNG(seed).uniform(0, 2 * np.pi, (n, 2))
    flat = np.concatenate([np.cos(turns), np.sin(turns)], axis=1)
    return flat + 0.05 * RNG(seed + 1).standard_normal(flat.shape)


def blob(n: int, seed: int, d: int = 4) -> np.ndarray:
    return RNG(seed).standard_normal((n, d))


# --- choosing points -----------------------------------------------------------------------------
def test_points_are_the_farthest_of_those_that_are_not_sparse() -> None:
    x = np.concatenate([blob(300, 0, 2), [[50.0, 50.0]]])
    found = some_points(x, n_points=40, sparsest=0.1, seed=3)
    scaled = x - x.mean(axis=0)
    scaled /= np.sqrt((scaled**2).sum() / len(x))
    far = np.linalg.norm(scaled[:, None] - scaled, axis=2)
    kept = np.argsort(np.sort(far, axis=1)[:, 5], kind="stable")[: round(0.9 * len(x))]
    cloud = [scaled[i] for i in sorted(kept)]
    assert not np.isclose(found, scaled[-1]).all(axis=1).any()  # the outlier is gone
    taken = [found[0]]
    while len(taken) < 40:  # always the one whose nearest taken point is farthest
        taken.append(max(cloud, key=lambda p: min(float(((p - q) ** 2).sum()) for q in taken)))
    np.testing.assert_allclose(found, taken)


def test_points_are_seeded_and_thinned_and_free_of_scale() -> None:
    x = blob(7000, 1, 3)
    one = some_points(x, n_points=50, seed=1)
    assert (one == some_points(x, n_points=50, seed=1)).all()
    assert (one != some_points(x, n_points=50, seed=2)).any()
    np.testing.assert_allclose(one, some_points(1e3 * x + 7, n_points=50, seed=1), atol=1e-9)
    assert len(some_points(x[:30], n_points=50, sparsest=0)) == 30


@pytest.mark.parametrize(
    ("points", "says"),
    [
        (np.ones((3, 2)), "at least 4 samples"),
        (np.ones(9), "shape"),
        (np.ones((9, 0)), "shape"),
        (np.full((9, 2), np.nan), "NaN or infinity"),
        (np.full((9, 2), 0.1), "found 9 equal ones"),
    ],
)
def test_points_that_have_no_shape_are_refused(points: np.ndarray, says: str) -> None:
    with pytest.raises(DataError, match=says):
        some_points(points)


def test_settings_outside_their_values_are_refused() -> None:
    for wrong in ({"n_points": 601}, {"n_points": 3}, {"sparsest": 1.0}):
        with pytest.raises(ConfigError, match="must lie in 4"):
            some_points(blob(50, 0), **wrong)
    with pytest.raises(ConfigError, match="max_dimension must be 0, 1 or 2; found 3"):
        persistence(blob(50, 0), max_dimension=3)


def test_without_ripser_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ripser", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'grevy\[topology\]'"):
        persistence(blob(50, 0))


# --- barcodes ------------------------------------------------------------------------------------
def reduced(points: np.ndarray, top: int) -> list[list[tuple[float, float]]]:
    """Bars by the reduction of the whole boundary matrix modulo 2, as textbooks have it."""
    far = np.linalg.norm(points[:, None] - points, axis=2)
    simplices = [
        (max((far[i, j] for i, j in combinations(s, 2)), default=0.0), len(s), s)
        for k in range(1, top + 3)
        for s in combinations(range(len(points)), k)
    ]
    simplices.sort()
    place = {s: i for i, (_, _, s) in enumerate(simplices)}
    owner: dict[int, set[int]] = {}
    bars: list[list[tuple[float, float]]] = [[] for _ in range(top + 1)]
    for death, size, s in simplices:
        column = {place[f] for f in combinations(s, size - 1)} if size > 1 else set()
        while column and max(column) in owner:
            column ^= owner[max(column)]
        if column:
            low = max(column)
            owner[low] = column
            birth = simplices[low][0]
            if death > birth and size - 2 <= top:
                bars[size - 2].append((birth, death))
    return bars


@pytest.mark.parametrize("seed", range(3))
def test_bars_are_those_of_the_boundary_matrix(seed: int) -> None:
    pytest.importorskip("ripser")
    x = blob(13, seed, 3)
    if seed == 2:  # an octahedron: a void
        x = np.concatenate([np.eye(3), -np.eye(3)]) + 0.05 * blob(6, 2, 3)
    found = persistence(x, sparsest=0, max_dimension=2)
    slow = reduced(some_points(x, sparsest=0), 2)
    assert found.n_points == len(x)
    for mine, twin in zip(found.bars, slow, strict=True):
        lasting = sorted(b for b in mine if b[1] - b[0] > 1e-5)
        assert len(lasting) == sum(b[1] - b[0] > 1e-5 for b in twin)
        np.testing.assert_allclose(
            np.reshape(lasting, (-1, 2)),
            np.reshape(sorted(b for b in twin if b[1] - b[0] > 1e-5), (-1, 2)),
            atol=1e-5,
        )
        lives = [b[1] - b[0] for b in mine]
        assert lives == sorted(lives, reverse=True)
    assert slow[1]
    assert slow[2] or seed != 2


def test_known_betti_numbers_are_found_beyond_blobs() -> None:
    pytest.importorskip("ripser")
    fit = {"n_points": 100, "sparsest": 0.05}
    nulls = [persistence(blob(1500, 10 + s), **fit, seed=s) for s in range(3)]
    ball = blob(1500, 0, 3)
    shapes = {
        (1, 1, 0): circle(1500, 0),
        (1, 2, 1): torus(1500, 0),
        (1, 0, 1): ball / np.linalg.norm(ball, axis=1, keepdims=True),
        (2, 0, 0): np.concatenate([0.1 * ball, 0.1 * ball + 3]),
    }
    for betti, points in shapes.items():
        observed = persistence(points, **fit)
        assert ring_test(observed, nulls).betti == betti
        assert observed == persistence(points, **fit)


def test_a_circle_is_a_ring_and_a_torus_and_blobs_are_not() -> None:
    pytest.importorskip("ripser")
    fit = {"n_points": 80, "max_dimension": 1}
    nulls = [persistence(blob(800, 10 + s, 3), **fit, seed=s) for s in range(19)]
    ring = ring_test(persistence(circle(800, 0), **fit), nulls)
    assert (ring.verdict, ring.p, ring.n_nulls) == ("ring", 0.05, 19)
    assert ring.ratio > 5 > ring.null_high >= ring.null_median >= 1
    for other in (torus(800, 0), blob(800, 0, 3), blob(800, 1, 8)):
        assert ring_test(persistence(other, **fit), nulls).verdict == "no ring"
    undecided = ring_test(persistence(circle(800, 0), **fit), nulls[:5])
    assert undecided.verdict == "undecided"


def test_what_is_a_circle_whatever_the_data_are_is_no_ring() -> None:
    """Two latents of unit length: the nulls are circles too."""
    pytest.importorskip("ripser")
    fit = {"n_points": 60, "max_dimension": 1}

    def unit(seed: int) -> Barcode:
        z = blob(500, seed, 2)
        return persistence(z / np.linalg.norm(z, axis=1, keepdims=True), **fit, seed=seed)

    found = ring_test(unit(100), [unit(s) for s in range(19)])
    assert found.ratio > 5
    assert found.verdict == "no ring"


# --- the test ------------------------------------------------------------------------------------
def loops(*lives: float, n_points: int = 100) -> Barcode:
    return Barcode((((0.0, 0.5),), tuple((0.5, 0.5 + x) for x in lives)), n_points)


def test_a_ring_needs_a_long_loop_that_nulls_lack() -> None:
    few = [loops(0.2, 0.1)] * 19
    found = ring_test(loops(1.0, 0.2, 0.1), few)
    assert found.ratio == pytest.approx(5)
    assert (found.verdict, found.p, found.betti) == ("ring", 0.05, (1, 1))
    assert found.null_median == found.null_low == found.null_high == pytest.approx(2)
    assert ring_test(loops(1.0, 0.2), [*few[:18], loops(0.6, 0.1)]).verdict == "no ring"
    assert ring_test(loops(1.0, 0.2), few[:18]).verdict == "undecided"
    assert ring_test(loops(1.0, 0.2), [*few[:17], loops(0.6, 0.1)]).verdict == "no ring"
    assert ring_test(loops(1.0, 0.6), few).verdict == "no ring"
    assert ring_test(loops(1.0, 0.6), [loops(0.1, 0.1)] * 19).verdict == "no ring"
    assert ring_test(loops(1, 0.6), [loops(0.1, 0.1)] * 19, least_ratio=1.5).verdict == "ring"


def test_what_is_counted_lies_before_a_gap() -> None:
    fading = (0.28, 0.2, 0.15, 0.1, 0.08)
    small = ring_test(loops(0.3, 0.04), [loops(0.5, *fading)] * 19)  # noise can have longer ones
    assert small.betti == (1, 1)
    uneven = ring_test(loops(1.0, 0.95, 0.3, *fading), [loops(0.2, *fading[1:])] * 19)
    assert uneven.betti == (1, 2)
    for lives, null in (
        ((1.0, 0.95, 0.3), (0.9, *fading)),  # a null has a wider gap
        ((1.0, 0.95, 0.5), fading),  # a gap too narrow
        ((0.04,), fading),  # not resolved
    ):
        observed = loops(*lives, *fading) if len(lives) > 1 else loops(*lives)
        assert ring_test(observed, [loops(*null)] * 19).betti == (1, 0)


def test_edges_of_the_ratio() -> None:
    alone = ring_test(loops(1.0), [loops(0.3, 0.2)] * 19)
    assert (alone.ratio, alone.verdict) == (math.inf, "ring")
    nothing = ring_test(loops(), [loops(0.3)] * 19)
    assert (nothing.ratio, nothing.null_median, nothing.verdict) == (1, math.inf, "no ring")
    lonely = ring_test(loops(1.0, 0.1), [])
    assert math.isnan(lonely.p)
    assert (lonely.verdict, lonely.betti) == ("undecided", ())


def test_barcodes_that_do_not_compare_are_refused() -> None:
    with pytest.raises(DataError, match=r"of 100 points, as the observed one; .* 90 points"):
        ring_test(loops(1.0), [loops(1.0, n_points=90)])
    with pytest.raises(DataError, match="found 0 as their highest dimension"):
        ring_test(Barcode((((0.0, 0.5),),), 100), [])
    with pytest.raises(ConfigError, match="alpha"):
        ring_test(loops(1.0), [], alpha=0)
