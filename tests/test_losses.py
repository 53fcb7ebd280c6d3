"""InfoNCE against loops, against its own limits, and against CEBRA's where it is installed."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import twins
from grevy.losses import bits_above_chance, info_nce


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
