"""Every kernel beside its twin of plain operations, on random inputs; interpreted without a GPU."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, normalize

from grevy import layers, losses, optimiser, stack
from grevy.config import TrainConfig
from grevy.encoders import EncoderSpec
from grevy.losses import info_nce
from grevy.model import Run
from grevy.pairs import DeltaPairs, HybridPairs, Pairs, TimePairs
from grevy.recording import Label, Recording, make_recording
from grevy.training import train
from grevy.windows import ReceptiveField, dense_rows

WHERE = "cuda" if torch.cuda.is_available() else "cpu"
if WHERE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"  # read when the kernels are imported
pytest.importorskip("triton", reason="triton (Linux alone) is not installed: not run")
if "grevy.kernels.gpu" in sys.modules and WHERE == "cpu":
    pytest.skip(
        "the kernels were compiled before they could be interpreted: not run",
        allow_module_level=True,
    )

from grevy.kernels import gpu as kernels  # noqa: E402

SHAPES = [(1, 1, 3, 4), (2, 1, 41, 24), (3, 1, 40, 40), (3, 2, 16, 16), (5, 1, 70, 130)]
# Interpreted, products of bfloat16 are not to be had; float16 takes the same road.
NARROW = torch.bfloat16 if WHERE == "cuda" else torch.float16
KINDS = [torch.float32, NARROW]


def _random(*shape: int, kind: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, device=WHERE).to(kind)


def _near(found: Tensor, expected: Tensor, kind: torch.dtype, *, sums: int = 1) -> None:
    """Within rounding: of the type, over the largest number, times the root of how many add up."""
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert torch.isfinite(found).all()
    unit = 2e-6 if kind == torch.float32 else 1.6e-2
    far = (found.double() - expected.double()).abs().max() / expected.double().abs().max()
    assert float(far) < unit * sums**0.5


def _plain(x: Tensor, w: Tensor, b: Tensor, *, gap: int, skip: str) -> Tensor:
    """What goes into GELU, in float64."""
    y = layers._products(x.double(), w.double(), b.double(), 1, gap)
    return y + layers.crop(x.double(), y, w.shape[1], gap) if skip == "inner" else y


@pytest.mark.parametrize(("taps", "gap", "channels", "width"), SHAPES)
@pytest.mark.parametrize("skip", ["", "inner", "outer"])
@pytest.mark.parametrize("bend", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_forwards(
    taps: int, gap: int, channels: int, width: int, skip: str, bend: bool, kind: torch.dtype
) -> None:
    x = _random(2, 9, 7, channels, kind=kind)
    # As in training: weights of a run lie together, in one tensor with all else that is trained.
    flat = _random(2, 5 + taps * channels * width + width) / channels**0.5
    w, b = flat[:, 5:-width].view(2, taps, channels, width), flat[:, -width:]
    found, bent = kernels.convolve(x, w, b, gap=gap, skip=skip, bend=bend, keep=True)
    narrow = w.to(kind)
    before = _plain(x, narrow, b, gap=gap, skip=skip)
    after = gelu(before) if bend else before
    if skip == "outer":
        after = after + layers.crop(x.double(), after, taps, gap)
    _near(found, after.to(kind), kind)
    if bend:
        assert bent is not None
        _near(bent, before.to(kind), kind)
    else:
        assert bent is None


@pytest.mark.parametrize(("taps", "gap", "channels", "width"), SHAPES)
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradients_of_a_layer(
    taps: int, gap: int, channels: int, width: int, skip: bool, kind: torch.dtype
) -> None:
    x = _random(2, 9, 7, channels, kind=kind)
    flat = _random(2, 5 + taps * channels * width) / channels**0.5
    w = flat[:, 5:].view(2, taps, channels, width)
    grad = _random(2, 9 - (taps - 1) * gap, 7, width, kind=kind)
    beside = _random(*grad.shape, kind=kind) if skip else None
    wide = x.double().requires_grad_()
    weight = w.to(kind).double().requires_grad_()
    bias = torch.zeros(2, width, dtype=torch.float64, device=WHERE, requires_grad=True)
    y = layers._products(wide, weight, bias, 1, gap)
    value = (y * grad.double()).sum()
    if beside is not None:
        value = value + (layers.crop(wide, y, taps, gap) * beside.double()).sum()
    to_x, to_w, to_b = torch.autograd.grad(value, (wide, weight, bias))
    found = kernels.spread(grad, w, beside, time=9, gap=gap)
    _near(found, to_x.to(kind), kind)
    by_weight, by_bias = kernels.weigh(x, grad, taps=taps, gap=gap)
    _near(by_weight, to_w.float(), torch.float32, sums=63)
    _near(by_bias, to_b.float(), torch.float32, sums=63)


def test_long_sums_over_samples_are_split_and_added_in_order() -> None:
    x, grad = _random(1, 12, 400, 16), _random(1, 10, 400, 16)
    by_weight, by_bias = kernels.weigh(x, grad, taps=3, gap=1)
    taps = [
        (x[:, t : t + 10].flatten(1, 2).double().mT @ grad.flatten(1, 2).double()) for t in range(3)
    ]
    _near(by_weight, torch.stack(taps, dim=1).float(), torch.float32, sums=4000)
    _near(by_bias, grad.double().sum(dim=(1, 2)).float(), torch.float32, sums=4000)
    again = kernels.weigh(x, grad, taps=3, gap=1)
    assert torch.equal(by_weight, again[0])
    assert torch.equal(by_bias, again[1])


@pytest.mark.parametrize("kind", KINDS)
def test_the_slope_of_gelu(kind: torch.dtype) -> None:
    grad, bent = _random(3, 5, 7, 11, kind=kind), 3 * _random(3, 5, 7, 11, kind=kind)
    expected = torch.ops.aten.gelu_backward(grad.double(), bent.double())
    _near(kernels.bend_back(grad, bent.to(kind)), expected.to(kind), kind)


@pytest.mark.parametrize("channels", [1, 5, 41])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("centred", [False, True])
def test_gathering(channels: int, kind: torch.dtype, centred: bool) -> None:
    samples, field = _random(50, channels), ReceptiveField(3, 4)
    start = torch.randint(-5, 55, (2, 9), device=WHERE)
    centre = _random(2, channels) if centred else None
    found = kernels.gather(samples, start, centre, before=3, time=9, kind=kind)
    rows = dense_rows(start, 3, field, 50)
    expected = samples[rows]
    if centre is not None:
        expected = expected - centre[:, None, None]
    assert torch.equal(found, expected.to(kind))


@pytest.mark.parametrize("depth", [2, 3, 16, 33])
@pytest.mark.parametrize("kind", KINDS)
def test_unit_length(depth: int, kind: torch.dtype) -> None:
    h = _random(2, 3, 50, depth, kind=kind)
    if kind != torch.float16:  # at the origin the slope is 1e12
        h[0, 0, :2] = 0
    z, length = kernels.unit(h)
    wide = h.float().requires_grad_()
    expected = normalize(wide, dim=-1, eps=1e-12)
    _near(z, expected.detach(), torch.float32)
    grad = _random(2, 3, 50, depth)
    back = torch.autograd.grad(expected, wide, grad)[0]
    found = kernels.unit_back(grad, z, length, kind)
    nonzero = h.float().abs().sum(dim=-1) > 0  # at the origin the slope is 1 / eps, and huge
    _near(found[nonzero], back[nonzero].to(kind), kind)
    assert torch.isfinite(found.float()).all()


@pytest.mark.parametrize(("rows", "columns", "depth"), [(5, 7, 3), (70, 130, 16), (40, 33, 70)])
@pytest.mark.parametrize("extra", [False, True])
def test_log_sum_exp(rows: int, columns: int, depth: int, extra: bool) -> None:
    a, b = 10 * _random(2, rows, depth) / depth, _random(2, columns, depth)
    c = 2 * _random(2, columns) if extra else None
    _compare_log_sum_exp(a, b, c, 0)


@pytest.mark.parametrize("others", [1, 4, 40])
def test_log_sum_exp_without_ones_own_block(others: int) -> None:
    a, b = _random(2, 80, 8), _random(2, 80, 8)
    _compare_log_sum_exp(a, b, None, others)


def _compare_log_sum_exp(a: Tensor, b: Tensor, c: Tensor | None, others: int) -> None:
    wide: list[Any] = [t.double().requires_grad_() for t in (a, b, c) if t is not None]
    s = wide[0] @ wide[1].mT
    if c is not None:
        s = s + wide[2][:, None]
    if others:
        block = torch.arange(a.shape[1], device=WHERE) // others
        s = s.masked_fill(block[:, None] == block[None, :], -torch.inf)
    values = s.logsumexp(dim=-1)
    expected = torch.autograd.grad(values.mean(dim=-1).sum(), wide)
    found, *to = kernels.log_sum_exp(a, b, c, others, needed=True)
    _near(found, values.detach().float(), torch.float32)
    for mine, theirs in zip([t for t in to if t is not None], expected, strict=True):
        _near(mine, theirs.float(), torch.float32, sums=a.shape[1])
    only = kernels.log_sum_exp(a, b, c, others, needed=False)
    assert torch.equal(only[0], found)
    assert only[1:] == (None, None, None)


def test_similarities_far_from_zero_overflow_nothing() -> None:
    a, b = 40 * torch.ones(1, 32, 16, device=WHERE), 40 * torch.ones(1, 48, 16, device=WHERE)
    values, *_ = kernels.log_sum_exp(a, b, None, 0, needed=True)
    expected = torch.full((1, 32), 25600.0, device=WHERE) + torch.tensor(48.0).log()
    torch.testing.assert_close(values, expected.to(WHERE))


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_updates_are_torchs_adam(amsgrad: bool, decay: float) -> None:
    start = _random(2, 1500)
    rates = [1e-2, 1e-3]
    theirs = [start[g].clone().requires_grad_() for g in range(2)]
    optimisers = [
        torch.optim.Adam([p], lr=r, amsgrad=amsgrad, weight_decay=decay, foreach=False)
        for p, r in zip(theirs, rates, strict=True)
    ]
    flat, momentum, square = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    largest = torch.zeros_like(start) if amsgrad else None
    t = torch.arange(1, 6, dtype=torch.float64)
    table = torch.stack([1 / (1 - 0.9**t), 1 / (1 - 0.999**t).sqrt()], dim=1).float().to(WHERE)
    for i in range(5):
        grad = _random(2, 1500)
        for g in range(2):
            theirs[g].grad = grad[g].clone()
            optimisers[g].step()
        kernels.adam(
            flat, grad, momentum, square, largest,
            torch.tensor(rates, device=WHERE), table, torch.tensor([i], device=WHERE),
            beta1=0.9, beta2=0.999, eps=1e-8, decay=decay,
        )  # fmt: skip
    torch.testing.assert_close(
        flat, torch.stack([p.detach() for p in theirs]), rtol=1e-5, atol=2e-6
    )


def test_the_loss_is_that_of_info_nce() -> None:
    z = torch.nn.functional.normalize(_random(1, 64, 5), dim=-1)
    expected = info_nce(z, z.roll(1, dims=1), z, temperature=0.5, others=8)
    values, *_ = kernels.log_sum_exp(2 * z, z, None, 8, needed=False)
    torch.testing.assert_close(values.mean(dim=-1), expected.negative)


def _session() -> Recording:
    rng = np.random.default_rng(3)
    angle = np.cumsum(rng.normal(0.05, 0.05, 300))
    x = np.cos(angle[:, None] - np.arange(5)) + 0.3 * rng.standard_normal((300, 5)) + 4
    return make_recording(x, rate_hz=20, labels={"angle": Label(angle, "continuous")})


PAIRS: dict[str, Pairs] = {
    "time": TimePairs((10,)),
    "near": TimePairs((1, 2)),
    "behavior": DeltaPairs(("angle",), 3),
    "hybrid": HybridPairs(DeltaPairs(("angle",), 3), TimePairs((2,))),
}


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize(
    "more", [{}, {"distance": "euclidean", "learn_temperature": True}, {"n_negatives": 9}]
)
def test_training_with_kernels_is_training_without(
    kind: str, more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = [
        TrainConfig(
            PAIRS[kind], EncoderSpec("offset5-model", 6, 4), learning_rate=rate, batch_size=16,
            n_steps=4, scale="zscore", precision="float32", **more,
        )
        for rate in (1e-2, 1e-3)
    ]  # fmt: skip
    recording = _session()
    used = [0]

    def these(x: Tensor) -> Any:
        used[0] += 1
        return kernels

    def runs(*, fast: bool) -> list[Run]:
        with monkeypatch.context() as patch:
            for module in (layers, losses, optimiser, stack):
                patch.setattr(module, "kernels_for", these if fast else lambda x: None)
            return train([recording], configs, device=WHERE)

    for ours, plain in zip(runs(fast=True), runs(fast=False), strict=True):
        np.testing.assert_allclose(ours.losses, plain.losses, rtol=1e-4, atol=1e-5)
        for a, b in zip(ours.sessions[0].weights, plain.sessions[0].weights, strict=True):
            # Adam's first steps are a rate long whatever the gradient: rounding decides signs.
            assert float((a - b).norm() / b.norm()) < 1e-3
    assert used[0] > 40
