from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grevy.decode import Target
from grevy.errors import ConfigError
from grevy.recording import BLOCK_DTYPE, StimulusTrack
from grevy.splits import (
    block_plan,
    choosing_splits,
    mask_of,
    memory,
    nested_splits,
    repeat_plan,
    shuffled_plan,
    trained_samples,
    training_spans,
)


def session(n_repeats: int, n_movies: int, length: int, gap: int, seed: int) -> StimulusTrack:
    """Presentations of equal length in random order, with gaps."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(np.tile(np.arange(n_movies), n_repeats))
    total = len(order) * (length + gap)
    index, frame, repeat = (np.full(total, -1, dtype=np.int32) for _ in range(3))
    seen = np.zeros(n_movies, dtype=int)
    for i, s in enumerate(order):
        at = slice(i * (length + gap), i * (length + gap) + length)
        index[at], frame[at], repeat[at] = s, np.arange(length), seen[s]
        seen[s] += 1
    names = tuple(f"movie {i}" for i in range(n_movies))
    blocks = np.zeros(0, dtype=BLOCK_DTYPE)
    return StimulusTrack(
        names, index, frame, repeat, (length,) * n_movies, (1.0,) * n_movies, blocks
    )


@settings(max_examples=40, deadline=None)
@given(
    n_repeats=st.integers(2, 14),
    n_movies=st.integers(1, 4),
    n_folds=st.integers(2, 12),
    guard=st.integers(0, 6),
    seed=st.integers(0, 100),
)
def test_no_fold_trains_on_what_it_tests(
    n_repeats: int, n_movies: int, n_folds: int, guard: int, seed: int
) -> None:
    track = session(n_repeats, n_movies, 12, 8, seed)
    total = len(track.index)
    epochs = np.array([[0, total]])
    plan = repeat_plan(track, epochs, n_folds=n_folds, seed=seed, guard=guard)
    shown = track.index >= 0
    scored, aside = plan.scored, plan.choosing >= 0
    assert not (scored & aside).any()
    assert ((scored | aside) == shown).all()
    for fold in range(plan.n_folds):
        test = np.flatnonzero(plan.tested[fold])
        assert len(test)
        train = np.flatnonzero(mask_of(training_spans(plan, epochs, fold), total))
        if len(train):
            nearest = np.abs(test[:, None] - train[None]).min()
            assert nearest > guard
    splits = choosing_splits(plan, epochs)
    assert len(splits) == plan.n_choosing
    for c, split in enumerate(splits):
        train_mask = mask_of(split.train_on, total)
        assert not (train_mask & (scored | (plan.choosing == c))).any()
        assert not (split.learnt & (scored | (plan.choosing == c))).any()
        assert (split.judged == (plan.choosing == c)).all()


def test_a_fifth_is_set_aside_and_every_stimulus_is_in_every_fold() -> None:
    track = session(10, 3, 12, 8, 0)
    plan = repeat_plan(track, np.array([[0, len(track.index)]]), n_folds=8, seed=1, guard=3)
    for s in range(3):
        here = track.index == s
        assert len(np.unique(track.repeat[here & (plan.choosing >= 0)])) == 2
        for fold in range(8):
            assert len(np.unique(track.repeat[here & plan.tested[fold]])) == 1
    assert len(plan.spans) == 30
    other = repeat_plan(track, np.array([[0, len(track.index)]]), n_folds=8, seed=2, guard=3)
    assert (other.choosing != plan.choosing).any()


def test_too_few_repeats_leave_nothing_for_choosing() -> None:
    track = session(4, 2, 12, 8, 0)
    plan = repeat_plan(track, np.array([[0, len(track.index)]]), n_folds=10, seed=0, guard=0)
    assert plan.n_choosing == 0
    assert plan.n_folds == 4


def test_blocks_cover_what_is_known_in_order_of_time() -> None:
    known = np.ones(1000, dtype=bool)
    known[300:400] = False
    epochs = np.array([[0, 500], [500, 1000]])
    plan = block_plan(known, epochs, n_folds=8, seed=0, guard=10)
    assert (plan.scored | (plan.choosing >= 0))[known].all()
    assert (plan.group[~known] == -1).all()
    assert (np.diff(plan.group[known]) >= 0).all()
    assert plan.n_folds == 8
    assert (plan.tested.sum(axis=0) <= 1).all()
    assert plan.n_choosing == 2
    for a, b in plan.spans:
        assert not (a < 500 < b)


def test_one_fold_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 2 folds"):
        block_plan(np.ones(10, bool), np.array([[0, 10]]), n_folds=1, seed=0, guard=0)


def test_a_label_remembers_for_as_long_as_it_does() -> None:
    rng = np.random.default_rng(0)
    tau, n = 40, 40_000
    x = np.zeros(n)
    for i in range(1, n):
        x[i] = np.exp(-1 / tau) * x[i - 1] + rng.standard_normal()
    known = np.ones(n, dtype=bool)
    assert 30 <= memory(Target(x[:, None], np.zeros(1)), known) <= 50
    white = rng.uniform(0, 360, (n, 1))
    assert memory(Target(white, np.array([360.0])), known) == 1
    drifting = np.mod(np.cumsum(rng.normal(0, 5, n)), 360)[:, None]
    wrapped = memory(Target(drifting, np.array([360.0])), known)
    assert 150 <= wrapped <= 500  # the phase diffuses a radian in (57.3 / 5)^2 * 2 samples
    sides = np.repeat(rng.integers(0, 2, n // 100), 100)[:, None]
    assert 50 <= memory(Target(sides, np.zeros(1), 2), known) <= 70
    assert memory(Target(np.zeros((n, 1)), np.zeros(1)), known) == 0


def test_long_guards_have_fewer_blocks_and_what_is_cut_off_is_said() -> None:
    known, epochs = np.ones(1200, bool), np.array([[0, 1200]])
    plan = block_plan(known, epochs, n_folds=8, seed=0, guard=30)
    assert (plan.n_folds, plan.guard, plan.guard_short) == (8, 30, 0)
    plan = block_plan(known, epochs, n_folds=8, seed=0, guard=50)
    assert (plan.n_folds, plan.guard, plan.guard_short) == (6, 50, 0)  # eight blocks of 150
    assert np.ptp(np.flatnonzero(plan.tested[0])) == 149
    plan = block_plan(known, epochs, n_folds=8, seed=0, guard=900)
    assert (plan.n_folds, plan.guard, plan.guard_short) == (5, 85, 815)  # seven of 171
    plan = block_plan(known, epochs, n_folds=3, seed=0, guard=900)
    assert (plan.n_folds, plan.guard, plan.guard_short) == (3, 120, 780)  # five of 240


@pytest.mark.parametrize("n_folds", [2, 3, 4, 10])
def test_blocks_always_leave_some_for_choosing(n_folds: int) -> None:
    plan = block_plan(np.ones(500, bool), np.array([[0, 500]]), n_folds=n_folds, seed=0, guard=1)
    assert plan.n_folds == n_folds
    assert plan.n_choosing == 2
    assert len(np.unique(plan.group[plan.choosing >= 0])) >= 2


@pytest.mark.parametrize("kind", ["repeats", "blocks"])
def test_pairs_are_left_out_together(kind: str) -> None:
    track = session(8, 2, 12, 8, 0)
    n = len(track.index)
    epochs = np.array([[0, n]])
    known = track.index >= 0

    def plan_of(n_folds: int, seed: int):  # type: ignore[no-untyped-def]
        if kind == "repeats":
            return repeat_plan(
                track, epochs, n_folds=n_folds, seed=seed, guard=3, leave_out=2, set_aside=False
            )
        return block_plan(
            known, epochs, n_folds=n_folds, seed=seed, guard=3, leave_out=2, set_aside=False
        )

    plan = plan_of(8, 0)
    pairs = [tuple(np.unique(plan.group[t])) for t in plan.tested]
    assert all(len(p) == 2 for p in pairs)
    assert len(set(pairs)) == plan.n_folds == 8
    assert plan.n_choosing == 0
    if kind == "repeats":
        assert plan_of(100, 0).n_folds == 28  # all of them
    assert {tuple(np.unique(plan.group[t])) for t in plan_of(8, 1).tested} != set(pairs)
    for fold in range(plan.n_folds):
        train = np.flatnonzero(mask_of(training_spans(plan, epochs, fold), n))
        test = np.flatnonzero(plan.tested[fold])
        assert np.abs(test[:, None] - train[None]).min() > plan.guard


def test_nothing_is_left_to_learn_from() -> None:
    track = session(4, 1, 12, 8, 0)
    with pytest.raises(ConfigError, match="found 4 to leave out of the 4 of movie 0"):
        repeat_plan(
            track, np.array([[0, len(track.index)]]), n_folds=4, seed=0, guard=0, leave_out=4
        )


@pytest.mark.parametrize("leave_out", [1, 2])
def test_a_nested_choice_sees_nothing_of_its_fold(leave_out: int) -> None:
    track = session(8, 3, 12, 8, 2)
    n = len(track.index)
    epochs = np.array([[0, n]])
    plan = repeat_plan(
        track, epochs, n_folds=6, seed=0, guard=4, leave_out=leave_out, set_aside=False
    )
    for fold in range(plan.n_folds):
        splits = nested_splits(plan, epochs, fold, seed=0)
        assert len(splits) == 2
        judged = np.zeros(n, dtype=bool)
        for split in splits:
            train = mask_of(split.train_on, n)
            for left in (plan.tested[fold], split.judged):
                near = np.flatnonzero(train)[:, None] - np.flatnonzero(left)[None]
                assert np.abs(near).min() > plan.guard
            assert not (split.learnt & (split.judged | plan.tested[fold])).any()
            assert not (judged & split.judged).any()
            judged |= split.judged
        assert (judged == ((plan.group >= 0) & trained_samples(plan, epochs, fold))).all()


def test_shuffled_samples_are_each_tested_once_and_known_to_leak() -> None:
    known = np.arange(100) >= 10
    epochs = np.array([[0, 60], [60, 100]])
    plan = shuffled_plan(known, epochs, n_folds=5, seed=0)
    assert plan.shuffled
    assert (plan.tested.sum(axis=0) == known).all()
    assert (training_spans(plan, epochs, 0) == epochs).all()
    trained = trained_samples(plan, epochs, 2)
    assert (trained == ~plan.tested[2]).all()
    neighbours = plan.tested[2][1:] & trained[:-1]
    assert neighbours.sum() > 10
