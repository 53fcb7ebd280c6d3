"""InfoNCE against loops, against its own limits, and against CEBRA's where it is installed."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import twins
from grevy import losses
from grevy.losses import Distance, bits_above_chance, info_nce


def unit(generator: torch.Generator, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    z = torch.randn(shape, generator=generator, dtype=dtype)
    return z / z.norm(dim=-1, keepdim=True)


@given(
    batch=st.integers(1, 6),
    negatives=st.integers(1, 7),
    latents=st.integers(1, 4),
    temperature=st.sampled_from([0.001, 0.05, 1.0, 3.0]),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_loss_is_the_one_by_loops(
    batch: int, negatives: int, latents: int, temperature: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    r, p, n = (unit(generator, k, latents) for k in (batch, batch, negatives))
    found = info_nce(r, p, n, temperature=temperature)
    expected = twins.info_nce(r.tolist(), p.tolist(), n.tolist(), temperature)
    assert [float(x) for x in found] == pytest.approx(expected, rel=1e-12, abs=1e-9)
    assert float(found.total) == float(found.positive + found.negative)


def test_gradients_by_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = [unit(generator, 2, k, 3).requires_grad_() for k in (4, 4, 5)]
    tau = torch.tensor([0.3, 1.7], dtype=torch.float64, requires_grad=True)

    def loss(r: Tensor, p: Tensor, n: Tensor, t: Tensor) -> Tensor:
        return info_nce(r, p, n, temperature=t).total

    assert torch.autograd.gradcheck(loss, (*inputs, tau))


def test_runs_side_by_side_each_with_its_temperature() -> None:
    generator = torch.Generator().manual_seed(1)
    r, p, n = (unit(generator, 3, k, 2) for k in (4, 4, 6))
    taus = torch.tensor([0.2, 1.0, 5.0], dtype=torch.float64)
    together = info_nce(r, p, n, temperature=taus)
    for g in range(3):
        alone = info_nce(r[g], p[g], n[g], temperature=float(taus[g]))
        torch.testing.assert_close(together.total[g], alone.total)
        torch.testing.assert_close(together.positive[g], alone.positive)


@pytest.mark.parametrize("temperature", [1e-3, 1e-4])
def test_cold_losses_stay_finite_in_float32(temperature: float) -> None:
    generator = torch.Generator().manual_seed(2)
    exact = [unit(generator, k, 3) for k in (64, 64, 128)]
    r, p, n = (z.float().requires_grad_() for z in exact)
    found = info_nce(r, p, n, temperature=temperature)
    expected = twins.info_nce(*[z.tolist() for z in (r, p, n)], temperature)
    assert found.negative.item() == pytest.approx(expected[1], rel=1e-5)
    found.total.backward()
    for z in (r, p, n):
        assert z.grad is not None
        assert bool(torch.isfinite(z.grad).all())


def test_a_collapsed_embedding_knows_nothing() -> None:
    z = torch.ones(5, 2) / math.sqrt(2)
    total = float(info_nce(z, z, z[:1].expand(512, 2), temperature=0.1).total)
    assert total == pytest.approx(math.log(512), abs=1e-5)
    assert bits_above_chance(total, 512) == pytest.approx(0, abs=1e-5)
    assert bits_above_chance(math.log(512) - math.log(2), 512) == pytest.approx(1)


def test_the_positive_is_not_among_the_negatives() -> None:
    r = torch.tensor([[1.0, 0.0]])
    far = torch.tensor([[-1.0, 0.0]])
    assert float(info_nce(r, r, far).total) == pytest.approx(-2.0)


def test_infonce_is_what_cebra_computes() -> None:
    criterions = pytest.importorskip(
        "cebra.models.criterions", reason="cebra (the `oracle` extra) is not installed"
    )
    generator = torch.Generator().manual_seed(3)
    r, p, n = (unit(generator, 32, 4, dtype=torch.float32) for _ in range(3))
    for temperature in (0.05, 1.0):
        total, pos, neg = criterions.FixedCosineInfoNCE(temperature=temperature)(r, p, n)
        found = info_nce(r, p, n, temperature=temperature)
        expected = [float(x) for x in (pos, neg, total)]
        assert [float(x) for x in found] == pytest.approx(expected, rel=1e-5, abs=1e-5)


# --- Euclidean, and sums taken piece by piece ----------------------------------------------------
def euclidean(r: Tensor, p: Tensor, n: Tensor, temperature: float) -> tuple[float, float]:
    """The loss of squared distances, term by term, in python's own numbers."""
    pos, neg = [], []
    for a, b in zip(r.tolist(), p.tolist(), strict=True):
        pos.append(math.dist(a, b) ** 2 / temperature)
        s = [-(math.dist(a, c) ** 2) / temperature for c in n.tolist()]
        neg.append(max(s) + math.log(math.fsum(math.exp(x - max(s)) for x in s)))
    return math.fsum(pos) / len(pos), math.fsum(neg) / len(neg)


@given(
    batch=st.integers(1, 6),
    negatives=st.integers(1, 7),
    latents=st.integers(1, 4),
    temperature=st.sampled_from([0.001, 0.05, 1.0, 3.0]),
    far=st.sampled_from([0.0, 100.0]),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_euclidean_loss_is_the_one_by_loops(
    batch: int, negatives: int, latents: int, temperature: float, far: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    r, p, n = (
        far + torch.randn(k, latents, generator=generator, dtype=torch.float64)
        for k in (batch, batch, negatives)
    )
    found = info_nce(r, p, n, temperature=temperature, distance="euclidean")
    expected = euclidean(r, p, n, temperature)
    assert [float(x) for x in found[:2]] == pytest.approx(expected, rel=1e-9, abs=1e-8)
    assert float(found.total) == float(found.positive + found.negative)


def test_little_cancels_far_from_the_origin() -> None:
    """In float32, where |r|^2 - 2 r.n + |n|^2 as it stands would keep no digit."""
    generator = torch.Generator().manual_seed(0)
    r, p, n = (1e4 + torch.randn(k, 3, generator=generator) for k in (20, 20, 30))
    found = info_nce(r, p, n, distance="euclidean")
    expected = euclidean(r, p, n, 1.0)
    assert [float(x) for x in found[:2]] == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("room", [1, 11, 2**22])
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_gradients_of_both_distances_by_finite_differences(
    distance: Distance, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients of the centre that the distances are taken from must vanish, too."""
    monkeypatch.setattr(losses, "_ROOM", room)
    generator = torch.Generator().manual_seed(0)
    inputs = [
        torch.randn(2, k, 3, generator=generator, dtype=torch.float64).requires_grad_()
        for k in (5, 5, 4)
    ]
    tau = torch.tensor([0.7, 1.7], dtype=torch.float64, requires_grad=True)

    def loss(r: Tensor, p: Tensor, n: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return info_nce(r, p, n, temperature=t, distance=distance)[:2]

    assert torch.autograd.gradcheck(loss, (*inputs, tau))


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)], ids=str)
@pytest.mark.parametrize("room", [1, 7, 60, 200])
def test_pieces_of_any_size_give_what_one_gives(
    room: int, shape: tuple[int, ...], distance: Distance, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(room)
    inputs = [unit(generator, *shape, k, 3).requires_grad_() for k in (13, 13, 9)]
    tau = (0.5 + torch.rand(shape, generator=generator, dtype=torch.float64)).requires_grad_()
    weigh = torch.randn(shape, generator=generator, dtype=torch.float64)

    def both() -> list[Tensor]:
        found = info_nce(*inputs, temperature=tau, distance=distance)
        grads = torch.autograd.grad((found.total * weigh).sum(), [*inputs, tau])
        return [*found, *grads]

    whole = both()
    monkeypatch.setattr(losses, "_ROOM", room)
    for a, b in zip(both(), whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_similarities_are_never_held_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tensor larger than the room is made, in either direction."""
    sizes: list[int] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            found = func(*args, **(kwargs or {}))
            sizes.extend(x.numel() for x in (found,) if isinstance(x, Tensor))
            return found

    monkeypatch.setattr(losses, "_ROOM", 1000)
    generator = torch.Generator().manual_seed(0)
    r, p, n = (unit(generator, 200, 2).requires_grad_() for _ in range(3))
    with Watch():
        info_nce(r, p, n).total.backward()
    assert max(sizes) <= 1000 < 200 * 200


@pytest.mark.parametrize("temperature", [0.05, 1.0, 2.0])
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_both_distances_and_their_gradients_are_those_of_cebra(
    distance: Distance, temperature: float
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        criterions = pytest.importorskip(
            "cebra.models.criterions", reason="cebra (the `oracle` extra) is not installed"
        )
        name = {"cosine": "FixedCosineInfoNCE", "euclidean": "FixedEuclideanInfoNCE"}[distance]
        criterion = getattr(criterions, name)(temperature=temperature)
    generator = torch.Generator().manual_seed(4)
    inputs = [unit(generator, 32, 4, dtype=torch.float32).requires_grad_() for _ in range(3)]
    total, pos, neg = criterion(*inputs)
    found = info_nce(*inputs, temperature=temperature, distance=distance)
    for a, b in zip(found, (pos, neg, total), strict=True):
        assert a.item() == pytest.approx(b.item(), rel=1e-5, abs=1e-5)
    ours, theirs = (torch.autograd.grad(x, inputs) for x in (found.total, total))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_learned_temperature_is_what_cebra_makes_of_it() -> None:
    """The loss and the gradient of the logarithm of its inverse, above the floor."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        criterions = pytest.importorskip(
            "cebra.models.criterions", reason="cebra (the `oracle` extra) is not installed"
        )
        criterion = criterions.LearnableCosineInfoNCE(temperature=0.4, min_temperature=0.1)
    generator = torch.Generator().manual_seed(5)
    inputs = [unit(generator, 16, 3, dtype=torch.float32) for _ in range(3)]
    total, _, _ = criterion(*inputs)
    (theirs,) = torch.autograd.grad(total, list(criterion.parameters()))
    sharpness = torch.tensor(-math.log(0.4), requires_grad=True)
    found = info_nce(*inputs, temperature=torch.exp(-sharpness)).total
    (ours,) = torch.autograd.grad(found, sharpness)
    assert found.item() == pytest.approx(total.item(), rel=1e-5)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-4)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("room", [30, 100, 2**22])
@pytest.mark.parametrize("block", [1, 2, 4])
def test_others_leave_the_references_of_the_same_block_out(
    distance: Any, room: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "_ROOM", room)
    r = torch.randn(2, 8, 3, dtype=torch.float64, requires_grad=True)
    p = torch.randn(2, 8, 3, dtype=torch.float64)
    found = info_nce(r, p, r, temperature=0.7, distance=distance, others=block)
    slow = []
    for g in range(2):
        rows = [
            info_nce(
                r[g, i : i + 1],
                p[g, i : i + 1],
                torch.stack([r[g, j] for j in range(8) if j // block != i // block]),
                temperature=0.7,
                distance=distance,
            ).total
            for i in range(8)
        ]
        slow.append(torch.stack(rows).mean())
    expected = torch.stack(slow)
    torch.testing.assert_close(found.total, expected)
    a, b = (torch.autograd.grad(x.sum(), r)[0] for x in (found.total, expected))
    torch.testing.assert_close(a, b)
