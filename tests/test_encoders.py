"""Encoders against torch's own layers: values, gradients, counts, windows, runs side by side."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import twins
from grevy.encoders import (
    ARCHITECTURES,
    EncoderSpec,
    encode,
    initial_weights,
    layer_shapes,
)
from grevy.errors import ConfigError

NAMES = ["offset1-model", "offset10-model", "offset5-model"]


def stacked(spec: EncoderSpec, channels: int, seeds: list[int]) -> list[torch.Tensor]:
    runs = [initial_weights(spec, channels, seed) for seed in seeds]
    return [torch.stack(parts) for parts in zip(*runs, strict=True)]


@pytest.mark.parametrize(
    ("name", "count"), [("offset1-model", 1891), ("offset5-model", 3779), ("offset10-model", 10083)]
)
def test_parameters_count_as_in_the_table(name: str, count: int) -> None:
    spec = EncoderSpec(name, hidden=32, latents=3)
    weights = initial_weights(spec, 7, 0)
    assert sum(w.numel() for w in weights) == count
    shapes = [s for k, i, o in layer_shapes(spec, 7) for s in ((k, i, o), (o,))]
    assert [tuple(w.shape) for w in weights] == shapes
    module = twins.encoder(name, 7, 32, 3)
    assert sum(p.numel() for p in module.parameters()) == count


@pytest.mark.parametrize("name", NAMES)
def test_the_field_is_as_wide_as_the_layers_are(name: str) -> None:
    layers, field = ARCHITECTURES[name].layers, ARCHITECTURES[name].field
    assert len(field) == 1 + sum(layer.kernel - 1 for layer in layers)
    expected = {"offset1-model": (0, 1), "offset5-model": (2, 3), "offset10-model": (5, 5)}
    assert (field.left, field.right) == expected[name]


@given(
    name=st.sampled_from(NAMES),
    runs=st.integers(1, 3),
    segments=st.integers(1, 4),
    outputs=st.integers(1, 6),
    channels=st.integers(1, 6),
    hidden=st.integers(2, 9),
    latents=st.integers(1, 4),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_values_and_gradients_are_those_of_torch_layers(
    name: str,
    runs: int,
    segments: int,
    outputs: int,
    channels: int,
    hidden: int,
    latents: int,
    seed: int,
) -> None:
    spec = EncoderSpec(name, hidden, latents)
    generator = torch.Generator().manual_seed(seed)
    shape = (runs, outputs + len(spec.field) - 1, segments, channels)
    x = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    weights = [
        w.double().requires_grad_()
        for w in stacked(spec, channels, [seed + g for g in range(runs)])
    ]
    z = encode(spec, weights, x)
    assert z.shape == (runs, outputs, segments, latents)
    weigh = torch.randn(z.shape, generator=generator, dtype=torch.float64)
    grads = torch.autograd.grad((z * weigh).sum(), [x, *weights])
    for g in range(runs):
        module = twins.encoder(name, channels, hidden, latents).double()
        twins.set_weights(module, [w[g] for w in weights])
        # Each window on its own: (outputs * segments, channels, W).
        windows = x[g].detach().unfold(0, len(spec.field), 1).reshape(-1, channels, len(spec.field))
        windows.requires_grad_()
        expected = module(windows)
        torch.testing.assert_close(z[g].reshape(-1, latents), expected, rtol=1e-9, atol=1e-10)
        (expected * weigh[g].reshape(-1, latents)).sum().backward()
        for found, parameter in zip(
            twins.to_torch([p[g] for p in grads[1:]]), module.parameters(), strict=True
        ):
            slow = parameter.grad
            assert slow is not None
            torch.testing.assert_close(found.reshape(slow.shape), slow, rtol=1e-7, atol=1e-9)
        # A sample's gradient is the sum over the windows that hold it.
        slow_x = torch.zeros_like(x[g])
        each = windows.grad.reshape(outputs, segments, channels, -1)  # type: ignore[union-attr]
        for o in range(outputs):
            for k in range(len(spec.field)):
                slow_x[o + k] += each[o, :, :, k]
        torch.testing.assert_close(grads[0][g], slow_x, rtol=1e-7, atol=1e-9)


def test_no_gradient_is_computed_for_activity() -> None:
    spec = EncoderSpec("offset5-model", 4, 2)
    weights = [w.requires_grad_() for w in stacked(spec, 3, [0])]
    x = torch.randn(1, 6, 2, 3)
    encode(spec, weights, x).sum().backward()
    assert x.grad is None
    assert all(w.grad is not None for w in weights)


@pytest.mark.parametrize("name", NAMES)
def test_latents_have_unit_length_and_every_parameter_matters(name: str) -> None:
    spec = EncoderSpec(name, 8, 3)
    weights = [w.requires_grad_() for w in stacked(spec, 5, [0, 1])]
    z = encode(spec, weights, torch.randn(2, 20, 3, 5))
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(z.shape[:-1]))
    z[..., 0].pow(2).sum().backward()
    for w in weights:
        assert w.grad is not None
        assert bool((w.grad != 0).any())


def test_a_zero_embedding_stays_finite() -> None:
    spec = EncoderSpec("offset1-model", 4, 2)
    weights = [torch.zeros_like(w).requires_grad_() for w in stacked(spec, 3, [0])]
    z = encode(spec, weights, torch.ones(1, 1, 1, 3))
    z.sum().backward()
    assert bool(torch.isfinite(z).all())
    assert all(bool(torch.isfinite(w.grad).all()) for w in weights if w.grad is not None)


@pytest.mark.parametrize("name", NAMES)
def test_first_weights_are_uniform_within_the_fan_in(name: str) -> None:
    from scipy import stats

    spec = EncoderSpec(name, hidden=32, latents=8)
    weights = initial_weights(spec, 41, 3)
    for w, b, (kernel, inputs, _) in zip(
        weights[0::2], weights[1::2], layer_shapes(spec, 41), strict=True
    ):
        assert w.dtype == b.dtype == torch.float32
        bound = 1 / math.sqrt(kernel * inputs)
        both = torch.cat([w.reshape(-1), b]).numpy() / bound
        assert np.abs(both).max() <= 1 + 1e-6
        assert stats.kstest(both, stats.uniform(-1, 2).cdf).pvalue > 1e-3
    again, other = initial_weights(spec, 41, 3), initial_weights(spec, 41, 4)
    assert all(torch.equal(a, b) for a, b in zip(weights, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(weights, other, strict=True))


@pytest.mark.parametrize(
    "make",
    [
        lambda: EncoderSpec("offset3-model"),
        lambda: EncoderSpec(hidden=0),
        lambda: EncoderSpec("offset1-model", hidden=1),
        lambda: EncoderSpec(hidden=8.5),  # type: ignore[arg-type]
        lambda: EncoderSpec(latents=0),
    ],
)
def test_senseless_encoders_are_refused(make: object) -> None:
    with pytest.raises(ConfigError, match="found"):
        make()  # type: ignore[operator]
