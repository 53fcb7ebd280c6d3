"""Names change as the experiment could have been run: nothing that folds are made of changes."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from grevy.decode import Target
from grevy.evaluate import Problem
from grevy.nulls import families, identity
from grevy.nulls.exchange import Names, exchange_names
from test_nulls import lengths_of, prepared, session


def numbered(order: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each presentation's stimulus was shown before."""
    seen: Counter[int] = Counter()
    out = []
    for s in order.tolist():
        out.append(seen[s])
        seen[s] += 1
    return np.array(out)


def in_time(names: Names, order: NDArray[np.int64], repeat: NDArray[np.int64]) -> NDArray[np.int64]:
    """What presentations are called, in order of time, (1 + n, P)."""
    return names.called[:, names.places(order, repeat)]


def test_within_cycles_every_naming_is_as_likely() -> None:
    order, repeat = np.tile([0, 1, 2, 3], 5), np.repeat(np.arange(5), 4)
    drawn = exchange_names(order, repeat, [[0, 1, 2]], 500, 0)
    np.testing.assert_array_equal(drawn.called[0], drawn.subset)
    for r in range(5):
        here = drawn.repeat == r
        assert (np.sort(drawn.called[:, here], axis=1) == np.arange(4)).all()
        assert (drawn.called[:, here & (drawn.subset == 3)] == 3).all()
        share = (drawn.called[1:, here & (drawn.subset == 0)] == 1).mean()
        assert share == pytest.approx(1 / 3, abs=0.08)


@pytest.mark.parametrize("order", [[0, 1, 0, 2, 1, 2, 0, 1], [2, 0, 0, 1, 1, 2, 0, 0, 1]])
def test_of_a_whole_order_every_naming_that_keeps_repeat_numbers_is_as_likely(
    order: list[int],
) -> None:
    shown = np.array(order)
    repeat = numbered(shown)
    namings = set(itertools.permutations(order))
    every = {p for p in namings if (numbered(np.array(p)) == repeat).all()}
    assert len(every) > 10
    drawn = in_time(exchange_names(shown, repeat, [[0, 1, 2]], 4000, 3), shown, repeat)
    assert drawn[0].tolist() == order
    found = Counter(tuple(row) for row in drawn[1:].tolist())
    assert found.keys() == every
    assert stats.chisquare(list(found.values())).pvalue > 1e-4


def test_repeat_numbers_are_kept_whatever_the_order() -> None:
    rng = np.random.default_rng()
    for n_stimuli, n_repeats in ((2, 9), (5, 6), (12, 10)):
        order = rng.permutation(np.repeat(np.arange(n_stimuli), n_repeats))
        order = order[rng.random(len(order)) > 0.1]  # some are shown less often
        repeat = numbered(order)
        kin = [list(range(0, n_stimuli, 2)), list(range(1, n_stimuli, 2))]
        drawn = in_time(exchange_names(order, repeat, kin, 40, 1), order, repeat)
        for called in drawn:
            assert np.array_equal(numbered(called), repeat)
            assert np.array_equal(called % 2, order % 2)  # of its own length
        # Of few stimuli some orders allow little change.
        assert n_stimuli < 12 or (drawn[1:] != order).mean() > 0.5


def test_presentations_that_are_missing_keep_their_neighbours() -> None:
    """Nothing is known of when a presentation without samples began: none is put beside it."""
    rng = np.random.default_rng(2)
    order = rng.permutation(np.repeat(np.arange(3), 8))
    repeat = numbered(order)
    there = ~((order == 1) & (repeat == 4))
    drawn = exchange_names(order[there], repeat[there], [[0, 1, 2]], 300, 0)
    called = in_time(drawn, order[there], repeat[there])
    for i in range(301):
        for s in range(3):
            mine = repeat[there][called[i] == s]
            assert (np.diff(mine) > 0).all()
            assert np.array_equal(mine, np.delete(np.arange(8), 4) if s == 1 else np.arange(8))
    kept = called[:, (order[there] == 1) & np.isin(repeat[there], (3, 5))]
    assert (kept == 1).all()


def test_nulls_do_not_depend_on_how_many_there_are() -> None:
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(4), 6))
    few, many = (exchange_names(order, numbered(order), [[0, 1, 2, 3]], n, 5) for n in (7, 30))
    assert np.array_equal(few.called, many.called[:8])


def test_stimuli_of_equal_length_are_kin() -> None:
    problem = Problem(
        "frame", Target(np.zeros((1, 1)), np.zeros(1)), np.zeros(1, int), ("a", "b", "c"), "s",
        (1.0,) * 3,
    )  # fmt: skip
    assert families(problem, [30.0, 10.0, 30.0]) == [[0, 2]]


@pytest.mark.parametrize("signal", [0.0, 2.0])
def test_identity_after_an_order_that_was_drawn_as_a_whole(signal: float) -> None:
    """Slow drift makes neighbours alike; the level of 1,000 sessions is in docs/results.md."""
    p = []
    for seed in range(20):
        recording = session(seed, movies=4, repeats=8, frames=12, signal=signal, whole=True)
        problem, plan, features = prepared(recording, folds=4)
        lengths = lengths_of(recording, problem)
        found = identity(problem, plan, recording.epochs, features, lengths, n=39, seed=seed)
        assert found is not None
        p.append(found.p)
    if signal:
        assert np.mean(np.array(p) <= 0.05) > 0.8
    else:
        assert np.mean(np.array(p) <= 0.05) <= 0.25  # more in 3 of 10,000 tries
