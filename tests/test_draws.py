"""The generator: known answers, addresses, and that its numbers look like what they claim to be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from grevy.draws import Purpose, integers, normals, permutation, philox, uniforms, words

_FF = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((_FF, _FF, _FF, _FF), (_FF, _FF), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers(
    counter: tuple[int, ...], key: tuple[int, int], answer: tuple[int, ...]
) -> None:
    found = philox(tuple(torch.tensor(w) for w in counter), key)  # type: ignore[arg-type]
    assert tuple(found.tolist()) == answer


@given(
    seed=st.integers(0, 2**64 - 1),
    steps=st.lists(st.integers(0, 2**40), min_size=1, max_size=6),
    n=st.integers(1, 9),
    more=st.integers(0, 9),
)
@settings(max_examples=50, deadline=None, derandomize=True)
def test_a_draw_is_a_function_of_its_address(
    seed: int, steps: list[int], n: int, more: int
) -> None:
    together = words(seed, Purpose.TIE, torch.tensor(steps), n + more)
    for i, step in enumerate(steps):
        alone = words(seed, Purpose.TIE, torch.tensor([step]), n)
        assert torch.equal(together[i, :n], alone[0])
    assert together.min() >= 0
    assert together.max() <= _FF


def test_every_part_of_the_address_counts() -> None:
    steps = torch.tensor([3])
    first = words(1, Purpose.REFERENCE, steps, 8)
    others = [
        words(2, Purpose.REFERENCE, steps, 8),
        words(1 + 2**32, Purpose.REFERENCE, steps, 8),
        words(1, Purpose.NEGATIVE, steps, 8),
        words(1, Purpose.REFERENCE + 256, steps, 8),
        words(1, Purpose.REFERENCE, steps + 1, 8),
        words(1, Purpose.REFERENCE, steps + 2**32, 8),
    ]
    seen = {tuple(w[0].tolist()) for w in [first, *others]}
    assert len(seen) == 7
    assert len(set(first[0].tolist())) == 8


@pytest.mark.parametrize("high", [2, 7, 100])
def test_integers_are_uniform(high: int) -> None:
    found = integers(5, Purpose.REFERENCE, torch.arange(400), 100, high).reshape(-1)
    counts = np.bincount(found.numpy(), minlength=high)
    assert len(counts) == high
    assert stats.chisquare(counts).pvalue > 1e-3


def test_integers_reach_both_ends_of_a_large_range() -> None:
    high = 2**31 - 1
    found = integers(0, Purpose.REFERENCE, torch.arange(100), 1000, high)
    assert 0 <= int(found.min()) < high // 10_000
    assert high - high // 10_000 < int(found.max()) < high


def test_uniforms_are_uniform_and_never_0_or_1() -> None:
    u = uniforms(5, Purpose.TIE, torch.arange(100), 500).reshape(-1).numpy()
    assert u.dtype == np.float64
    assert u.min() > 0
    assert u.max() < 1
    assert stats.kstest(u, "uniform").pvalue > 1e-3


def test_the_smallest_and_largest_words_stay_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    from grevy import draws

    ends = torch.tensor([[0, _FF, 0, _FF]])
    monkeypatch.setattr(draws, "words", lambda seed, purpose, steps, n: ends[:, :n])
    u = draws.uniforms(0, Purpose.TIE, torch.tensor([0]), 4)
    assert 0 < u.min() < u.max() < 1
    assert bool(torch.isfinite(draws.normals(0, Purpose.TIE, torch.tensor([0]), 2)).all())
    assert draws.integers(0, Purpose.TIE, torch.tensor([0]), 2, 10).tolist() == [[0, 9]]


def test_purposes_steps_lanes_and_seeds_are_independent() -> None:
    steps, n = torch.arange(5000), 4
    base = uniforms(9, Purpose.REFERENCE, steps, n).numpy()
    for other in (
        uniforms(9, Purpose.NEGATIVE, steps, n).numpy(),
        uniforms(10, Purpose.REFERENCE, steps, n).numpy(),
        uniforms(9, Purpose.REFERENCE, steps + 1, n).numpy(),
        np.roll(base, 1, axis=1),
    ):
        table = np.histogram2d(base.ravel(), other.ravel(), bins=8, range=[[0, 1], [0, 1]])[0]
        assert stats.chisquare(table.ravel()).pvalue > 1e-3


def test_normals_have_the_moments_and_the_shape() -> None:
    x = normals(3, Purpose.POSITIVE, torch.arange(200), 251).reshape(-1).numpy()
    assert stats.kstest(x, "norm").pvalue > 1e-3
    n = len(x)
    assert abs(x.mean()) < 4 / np.sqrt(n)
    assert abs(x.var() - 1) < 4 * np.sqrt(2 / n)
    assert abs(stats.skew(x)) < 4 * np.sqrt(6 / n)
    assert abs(stats.kurtosis(x)) < 4 * np.sqrt(24 / n)


def test_normals_within_a_step_are_uncorrelated() -> None:
    x = normals(3, Purpose.POSITIVE, torch.arange(5000), 4).numpy()
    off = np.corrcoef(x.T)[~np.eye(4, dtype=bool)]
    assert np.abs(off).max() < 4 / np.sqrt(5000)


def test_permutation_holds_everything_once_in_every_order() -> None:
    assert sorted(permutation(0, Purpose.NULL, 1000).tolist()) == list(range(1000))
    orders = [tuple(permutation(s, Purpose.NULL, 3).tolist()) for s in range(1200)]
    counts = [orders.count(o) for o in set(orders)]
    assert len(counts) == 6
    assert stats.chisquare(counts).pvalue > 1e-3
    a, b = permutation(0, Purpose.NULL, 50, step=1), permutation(0, Purpose.NULL, 50, step=2)
    assert not torch.equal(a, b)
