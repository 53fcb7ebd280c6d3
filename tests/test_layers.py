"""A layer beside torch's own on random inputs: both ways of computing it, and their gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv1d, gelu

from grevy import layers
from grevy.layers import layer

WAYS = ["images", "products"]
SHAPES = [(1, 1, 1), (2, 1, 1), (3, 1, 1), (3, 2, 1), (3, 1, 2), (2, 2, 2)]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(layers, "_images", lambda x: request.param == "images")
    return str(request.param)


def _random(*shape: int, kind: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=kind).requires_grad_()


def _slow(
    x: Tensor, weight: Tensor, bias: Tensor, stride: int, gap: int, skip: str, bend: bool
) -> Tensor:
    """One run after the other, with torch's layers."""
    runs = []
    for g in range(len(x)):
        image = x[g].permute(1, 2, 0)  # (n, C, S)
        y = conv1d(image, weight[g].permute(2, 1, 0), bias[g], stride, dilation=gap)
        begin = (weight.shape[1] - 1) // 2 * gap
        middle = image[..., begin : begin + y.shape[-1]]
        some = torch.zeros_like(y)
        width = min(middle.shape[1], y.shape[1])
        some[:, :width] = middle[:, :width]
        y = y + some if skip == "inner" else y
        y = gelu(y) if bend else y
        y = y + some if skip == "outer" else y
        runs.append(y.permute(2, 0, 1))
    return torch.stack(runs)


@pytest.mark.parametrize(("kernel", "stride", "gap"), SHAPES)
@pytest.mark.parametrize("skip", ["", "inner", "outer"])
@pytest.mark.parametrize("bend", [False, True])
@pytest.mark.parametrize("channels", [3, 4, 5])
def test_layers_and_their_gradients(
    way: str, kernel: int, stride: int, gap: int, skip: Any, bend: bool, channels: int
) -> None:
    if skip and stride > 1:
        pytest.skip("no architecture has a skip round a stride")
    x, weight, bias = _random(2, 7, 3, channels), _random(2, kernel, channels, 4), _random(2, 4)
    how: dict[str, Any] = {"stride": stride, "gap": gap, "skip": skip, "bend": bend}
    found = layer(x, weight, bias, **how)
    expected = _slow(x, weight, bias, **how)
    torch.testing.assert_close(found, expected)
    direction = torch.randn_like(found)
    ours = torch.autograd.grad((found * direction).sum(), (x, weight, bias))
    theirs = torch.autograd.grad((expected * direction).sum(), (x, weight, bias))
    torch.testing.assert_close(ours, theirs)
    with torch.no_grad():
        torch.testing.assert_close(layer(x, weight, bias, **how), expected)


def test_gradients_are_those_of_differences(way: str) -> None:
    tensors = _random(2, 6, 2, 3), _random(2, 3, 3, 3), _random(2, 3)
    for skip in ("inner", "outer"):
        assert torch.autograd.gradcheck(
            lambda x, w, b: layer(x, w, b, skip=skip, bend=True),  # type: ignore[arg-type]  # noqa: B023
            tensors,
        )


def test_narrow_numbers_are_near_and_gradients_are_wide(way: str) -> None:
    x = _random(2, 9, 64, 32, kind=torch.float32)
    weight, bias = _random(2, 3, 32, 32, kind=torch.float32), _random(2, 32, kind=torch.float32)
    wide = layer(x, weight, bias, skip="outer", bend=True)
    narrow = layer(x.to(torch.bfloat16), weight, bias, skip="outer", bend=True)
    assert narrow.dtype == torch.bfloat16
    far = (narrow.float() - wide).abs().max() / wide.abs().max()
    assert 0 < far < 0.02
    a = torch.autograd.grad(wide.square().sum(), (weight, bias))
    b = torch.autograd.grad(narrow.float().square().sum(), (weight, bias))
    for one, other in zip(a, b, strict=True):
        assert other.dtype == torch.float32
        assert float((one - other).norm() / one.norm()) < 0.02


def test_a_run_has_the_same_bits_alone_and_stacked(way: str) -> None:
    x = _random(3, 10, 50, 16, kind=torch.float32)
    weight, bias = _random(3, 3, 16, 24, kind=torch.float32), _random(3, 24, kind=torch.float32)
    together = layer(x, weight, bias, bend=True)
    grads = torch.autograd.grad(together.square().sum(), (x, weight, bias))
    for g in range(3):
        one = [t[g : g + 1].detach().requires_grad_() for t in (x, weight, bias)]
        alone = layer(*one, bend=True)
        assert torch.equal(alone[0], together[g])
        for mine, both in zip(torch.autograd.grad(alone.square().sum(), one), grads, strict=True):
            assert torch.equal(mine[0], both[g])
