"""Every kernel beside its twin of plain operations, on random inputs; interpreted without a GPU."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, normalize

from grevy import fused, layers, losses, optimiser, stack, training
from grevy.config import TrainConfig
from grevy.drawing import draw
from grevy.encoders import EncoderSpec
from grevy.losses import info_nce
from grevy.model import Run
from grevy.pairs import DeltaPairs, HybridPairs, Pairs, TimePairs, prepare
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

from grevy.kernels import KernelsFailed  # noqa: E402
from grevy.kernels import gpu as kernels  # noqa: E402
from grevy.kernels.launch import Launch, _variant, compile_all, planned  # noqa: E402

# The last is wider than a tile in all ways; interpreted it is slow, and has fewer taps.
SHAPES = [(1, 1, 3, 4), (2, 1, 41, 24), (3, 1, 40, 40), (3, 2, 16, 16)]
SHAPES += [(5 if WHERE == "cuda" else 2, 1, 70, 130)]
# Interpreted, products of bfloat16 are not to be had; float16 takes the same road.
NARROW = torch.bfloat16 if WHERE == "cuda" else torch.float16
KINDS = [torch.float32, NARROW]


def _half(*options: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Every combination on a GPU; interpreted, which is slow, every second one."""
    combinations = product(*map(enumerate, options))
    return [
        tuple(value for _, value in combination)
        for combination in combinations
        if WHERE == "cuda" or sum(i for i, _ in combination) % 2 == 0
    ]


def _random(*shape: int, kind: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, device=WHERE).to(kind)


def _near(
    found: Tensor,
    expected: Tensor,
    kind: torch.dtype,
    *,
    sums: int = 1,
    made_of: torch.dtype = torch.float32,
) -> None:
    """Within rounding: of the type, over the largest number, times the root of how many add up.

    `made_of`: where narrow numbers went in, a GPU's products keep the digits of tf32.
    """
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert torch.isfinite(found).all()
    unit = 2e-6 if kind == torch.float32 else 1.6e-2
    if kind == torch.float32 and made_of != kind and WHERE == "cuda":
        unit = 1e-3
    far = (found.double() - expected.double()).abs().max() / expected.double().abs().max()
    assert float(far) < unit * sums**0.5


def _plain(x: Tensor, w: Tensor, b: Tensor, *, gap: int, skip: str) -> Tensor:
    """What goes into GELU, in float64."""
    y = layers._products(x.double(), w.double(), b.double(), 1, gap)
    return y + layers.crop(x.double(), y, w.shape[1], gap) if skip == "inner" else y


@pytest.mark.parametrize(("taps", "gap", "channels", "width"), SHAPES)
@pytest.mark.parametrize(
    ("skip", "bend", "kind"), _half(["", "inner", "outer"], [False, True], KINDS)
)
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
@pytest.mark.parametrize(("skip", "kind"), _half([False, True], KINDS))
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
    found, none = kernels.spread(grad, w, beside, time=9, gap=gap)
    assert found is not None
    assert none is None
    _near(found, to_x.to(kind), kind)
    bent = _random(*x.shape, kind=kind)
    both = kernels.spread(grad, w, beside, time=9, gap=gap, bent=bent)
    assert both[0] is not None
    assert both[1] is not None
    assert torch.equal(both[0], found)
    _near(both[1], torch.ops.aten.gelu_backward(to_x, bent.double()).to(kind), kind)
    only = torch.empty_like(bent)
    kernels.spread(grad, w, beside, time=9, gap=gap, bent=bent, out=(None, only))
    assert torch.equal(only, both[1])
    by_weight, by_bias = kernels.weigh(x, grad, taps=taps, gap=gap)
    _near(by_weight, to_w.float(), torch.float32, sums=63)
    _near(by_bias, to_b.float(), torch.float32, sums=63)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_taken_from_the_input_is_added_where_sums_are_wide(kind: torch.dtype) -> None:
    centre, w, b = 5 * _random(2, 7), _random(2, 2, 7, 20), _random(2, 20)
    x, grad = _random(2, 6, 9, 7, kind=kind), _random(2, 5, 9, 20, kind=kind)
    wider = torch.zeros(2, 6, 9, 16, dtype=kind, device=WHERE)
    wider[..., :7] = x
    whole = x.double() + centre[:, None, None].double()
    y, _ = kernels.convolve(
        wider, w, b, gap=1, skip="", bend=False, keep=False, centre=centre
    )  # fmt: skip
    apart = (w.to(kind).double() - w.double()) * centre[:, None, :, None]  # x alone meets narrow w
    expected = layers._products(whole, w.to(kind).double(), b.double(), 1, 1)
    expected = expected - apart.sum(dim=(1, 2))[:, None, None]
    _near(y, expected.to(kind), kind)
    room = _random(3, 2, 500)
    parts = room[:2, :, 20:300], room[:2, :, 300:320]
    kernels.weigh(wider, grad, taps=2, gap=1, channels=7, centre=centre, out=parts)
    taps = [whole[:, t : t + 5].flatten(1, 2).mT @ grad.double().flatten(1, 2) for t in range(2)]
    found = parts[0].sum(dim=0).view(2, 2, 7, 20)
    _near(found, torch.stack(taps, dim=1).float(), torch.float32, sums=45)
    _near(parts[1].sum(dim=0), grad.double().sum(dim=(1, 2)).float(), torch.float32, sums=45)
    assert float(room[2].abs().min()) > 0  # what lies beside is left alone


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


def test_gathering_by_the_step_with_a_factor_and_room_behind() -> None:
    samples, field = _random(50, 5), ReceptiveField(3, 4)
    start = torch.randint(-5, 55, (4, 2, 9), device=WHERE)
    offset, factor = _random(2, 5), _random(2, 5)
    out = torch.full((2, 7, 9, 16), 3.0, device=WHERE)
    for i in (2, 0):
        place = torch.tensor([i], device=WHERE)
        kernels.gather(
            samples, start, offset, factor=factor, place=place, out=out, before=3, time=7,
            kind=out.dtype,
        )  # fmt: skip
        expected = samples[dense_rows(start[i], 1, field, 50)] - offset[:, None, None]
        torch.testing.assert_close(out[..., :5], expected * factor[:, None, None])
        assert not out[..., 5:].any()


@pytest.mark.parametrize("depth", [3, 16, 33])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [16, 45])
@pytest.mark.parametrize("own", [None, 37])
def test_the_whole_loss_and_its_gradient(
    depth: int, kind: torch.dtype, batch: int, own: int | None
) -> None:
    h = _random(2, 2 * batch + 3 + (own or 0), depth, kind=kind)
    sharp = torch.tensor([1.0, 4.0], device=WHERE)
    wide, slope = h.double().requires_grad_(), sharp.double().log().requires_grad_()
    z = normalize(wide, dim=-1)
    positive, negative = batch + 2, 0 if own is None else 2 * batch + 3
    loss = info_nce(
        z[:, :batch], z[:, positive : positive + batch],
        z[:, :batch] if own is None else z[:, negative : negative + own],
        temperature=1 / slope.exp(), others=1 if own is None else 0,
    )  # fmt: skip
    by_h, by_slope = torch.autograd.grad(loss.total.sum(), (wide, slope))
    to_h, told = torch.zeros_like(h), torch.empty(2, 3, batch, device=WHERE)
    kernels.contrast(
        h, to_h, torch.empty(2, batch, depth, device=WHERE), told, sharp,
        positive=positive, negative=negative, n_negatives=own or batch,
    )  # fmt: skip
    _near(to_h, by_h.to(kind), kind, sums=batch)
    seen, slopes = torch.zeros(3, 2, 3, device=WHERE), torch.zeros(2, 9, device=WHERE)
    kernels.tell(told, sharp, seen, torch.tensor([1], device=WHERE), slopes[:, 4])
    expected = torch.stack([loss.positive, loss.negative, 1 / slope.exp()], dim=1).detach()
    _near(seen[1], expected.float(), torch.float32, sums=batch, made_of=kind)
    _near(slopes[:, 4], by_slope.float(), torch.float32, sums=batch, made_of=kind)
    assert not seen[[0, 2]].any()


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
    narrow = flat.to(NARROW)
    for i in range(5):
        parts = _random(3, 2, 1500)
        grad = parts.sum(dim=0)
        for g in range(2):
            theirs[g].grad = grad[g].clone()
            optimisers[g].step()
        kernels.adam(
            flat, parts if i % 2 else grad, momentum, square, largest,
            torch.tensor(rates, device=WHERE), table, torch.tensor([i], device=WHERE),
            beta1=0.9, beta2=0.999, eps=1e-8, decay=decay, narrow=narrow,
        )  # fmt: skip
    assert torch.equal(narrow, flat.to(NARROW))
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
    "next": TimePairs((2,)),
    "near": TimePairs((1, 2)),
    "behavior": DeltaPairs(("angle",), 3),
    "hybrid": HybridPairs(DeltaPairs(("angle",), 3), TimePairs((2,))),
}
PIECES = ("near", "hybrid")
"""Steps that are not one of the usual ones, and are made of pieces."""
QUICK = TrainConfig(
    PAIRS["time"], EncoderSpec("offset5-model", 6, 4), batch_size=16, n_steps=4, scale="zscore",
    precision="float32",
)  # fmt: skip


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two runs with kernels, or without; and how many steps were done as a whole."""

    def runs(config: TrainConfig, *, fast: bool) -> tuple[list[Run], int]:
        whole: list[int] = []
        step = fused.Fused.step

        def counted(*args: Any) -> None:
            whole.append(1)
            step(*args)

        with monkeypatch.context() as patch:
            for module in (layers, losses, optimiser, stack):
                patch.setattr(module, "kernels_for", lambda x, **_: kernels if fast else None)
            patch.setattr(fused.Fused, "step", counted)
            # Runs of any width in one stack, without room between their rows, as on a GPU.
            patch.setattr(training, "ALIGNED", 1)
            patch.setattr(optimiser, "ALIGNED", 1)
            configs = [replace(config, learning_rate=rate) for rate in (1e-2, 1e-3)]
            found = train([_session()], configs, device=WHERE)
        # On a GPU one more is planned, and not done, so that all kernels are compiled together.
        return found, len(whole) - (1 if whole and WHERE == "cuda" else 0)

    return runs


def _alike(ours: list[Run], plain: list[Run]) -> None:
    for one, other in zip(ours, plain, strict=True):
        np.testing.assert_allclose(one.losses, other.losses, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(one.temperatures, other.temperatures, rtol=1e-4)
        for a, b in zip(one.sessions[0].weights, other.sessions[0].weights, strict=True):
            # Adam's first steps are a rate long whatever the gradient: rounding decides signs.
            assert float((a - b).norm() / b.norm()) < 1e-3


MORE: list[dict[str, Any]] = [
    {},
    {"distance": "euclidean", "learn_temperature": True},
    {"learn_temperature": True, "n_negatives": 9, "scale": "none"},
    {"batch_size": 24, "min_temperature": 0.995, "learn_temperature": True},
]
EVERY = list(product(enumerate(PAIRS), enumerate(MORE)))


@pytest.mark.parametrize(
    ("kind", "more"),
    # Interpreted they are slow: there each kind of pairs meets one of the four settings.
    [(kind, more) for (i, kind), (j, more) in EVERY if WHERE == "cuda" or (i + j) % 4 == 0],
)
def test_training_with_kernels_is_training_without(
    kind: str, more: dict[str, Any], trained: Any
) -> None:
    config = replace(QUICK, pairs=PAIRS[kind], **more)
    ours, whole = trained(config, fast=True)
    _alike(ours, trained(config, fast=False)[0])
    pieces = kind in PIECES or "distance" in more
    pieces |= kind == "next" and "n_negatives" in more  # segments of two lengths
    assert whole == (0 if pieces else 4)


ENCODERS = [
    ("offset10-model", False),
    ("offset1-model-v2", False),
    ("offset1-model-mse", True),
    ("offset4-model-2x-subsample", True),
]
if WHERE == "cuda":
    ENCODERS += [
        ("offset1-model-v4", False),
        ("offset1-model", False),
        ("offset10-model-mse", True),
    ]


@pytest.mark.parametrize(("architecture", "pieces"), ENCODERS)
def test_encoders_as_a_whole(architecture: str, pieces: bool, trained: Any) -> None:
    config = replace(QUICK, encoder=EncoderSpec(architecture, 6, 4), n_steps=3)
    ours, whole = trained(config, fast=True)
    _alike(ours, trained(config, fast=False)[0])
    assert whole == (0 if pieces else 3)


def test_kernels_are_compiled_side_by_side_and_loaded_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two stacks at once: while one loads its kernels, nobody compiles or loads others."""
    import triton.runtime

    busy: dict[str, int] = {"compile": 0, "load": 0}
    seen: list[dict[str, int]] = []

    def during(what: str) -> None:
        busy[what] += 1
        time.sleep(0.02)
        seen.append(dict(busy))
        busy[what] -= 1

    class Program:
        src = metadata = None

        @property
        def run(self) -> None:
            during("load")

    class Kernel:
        def warmup(self, *args: Any, **options: Any) -> Program:
            during("compile")
            return Program()

    active = SimpleNamespace(launcher_cls=lambda src, metadata: during("compile"))
    monkeypatch.setattr(triton.runtime, "driver", SimpleNamespace(active=active))
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    stacks = [[Launch(Kernel(), (1,), (), {}) for _ in range(4)] for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda some: compile_all(some, torch.device("cuda", 0)), stacks))
    loads = [now for now in seen if now["load"]]
    assert len(seen) == 24
    assert len(loads) == 8
    assert all(now == {"compile": 0, "load": 1} for now in loads)
    assert max(now["compile"] for now in seen) > 1


def test_where_kernels_cannot_be_compiled_torch_does_the_work(
    monkeypatch: pytest.MonkeyPatch, trained: Any
) -> None:
    plain, _ = trained(QUICK, fast=False)
    broken: list[bool] = []

    def compiled(work: Any, where: torch.device) -> None:
        broken.append(True)
        raise KernelsFailed

    monkeypatch.setattr(stack, "compiled", compiled)
    for module in (layers, losses, optimiser, stack):
        monkeypatch.setattr(module, "kernels_for", lambda x, **_: None if broken else kernels)
    configs = [replace(QUICK, learning_rate=rate) for rate in (1e-2, 1e-3)]
    found = train([_session()], configs, device=WHERE)
    assert broken == [True]
    for one, other in zip(found, plain, strict=True):
        np.testing.assert_array_equal(one.losses, other.losses)


def test_layers_too_large_to_count_in_32_bits_are_left_to_torch(
    monkeypatch: pytest.MonkeyPatch, trained: Any
) -> None:
    rows = 2 * QUICK.batch_size * 5  # type: ignore[operator]
    config = replace(QUICK, n_steps=1)
    monkeypatch.setattr(fused, "_MOST", rows * 120)
    assert trained(config, fast=True)[1] == 1
    monkeypatch.setattr(fused, "_MOST", rows * 120 - 1)
    assert trained(config, fast=True)[1] == 0


def test_narrow_numbers_train_as_wide_ones_do(
    monkeypatch: pytest.MonkeyPatch, trained: Any
) -> None:
    config = replace(QUICK, scale="none", n_steps=4)
    wide, _ = trained(config, fast=True)
    monkeypatch.setattr(stack, "product_type", lambda config, where: NARROW)
    narrow, whole = trained(config, fast=True)
    assert whole == 4
    for a, b in zip(narrow, wide, strict=True):
        np.testing.assert_allclose(a.losses, b.losses, rtol=0.02, atol=0.02)
        assert not np.array_equal(a.losses, b.losses)


@pytest.mark.parametrize("offset", [2, 10])
@pytest.mark.parametrize("n_negatives", [None, 13])
def test_centres_are_those_that_the_host_draws(offset: int, n_negatives: int | None) -> None:
    """Two runs of different spans and seeds, one seed of 64 bits, steps past 32 bits."""
    field = ReceptiveField(5, 5)
    recording = make_recording(np.zeros((500, 2)), rate_hz=20, epochs=[[0, 200], [210, 500]])
    spans = (np.array([[0, 500]]), np.array([[30, 190], [250, 400]]))
    tables = [prepare(recording, TimePairs((offset,)), field, own) for own in spans]
    seeds, first = (7, 2**63 + 12345), 2**32 - 2
    drawn = [
        draw(t, s, torch.arange(first, first + 4), batch=37, n_negatives=n_negatives, block=1)
        for t, s in zip(tables, seeds, strict=True)
    ]
    probe = drawn[0]
    config = replace(
        QUICK, pairs=TimePairs((offset,)), encoder=EncoderSpec("offset10-model", 6, 4),
        batch_size=37, n_negatives=n_negatives,
    )  # fmt: skip
    places = fused.places_of(config, probe, 2)
    if places is None:  # segments of two lengths: not a step that is done as a whole
        assert offset == 2
        assert n_negatives
        return
    fill = fused.drawn_on(
        kernels, list(zip(tables, seeds, strict=True)), places, probe.groups[0].outputs,
        torch.device(WHERE),
    )  # fmt: skip
    assert fill is not None
    expected = torch.stack([d.groups[0].start for d in drawn], dim=1)
    table = torch.full(expected.shape, -1, device=WHERE)
    fill(table, first)
    assert torch.equal(table.cpu(), expected)


def test_pairs_that_are_looked_for_are_drawn_on_the_host() -> None:
    recording = _session()
    table = prepare(recording, PAIRS["behavior"], ReceptiveField(2, 3), np.array([[0, 300]]))
    places = fused.Places(16, 16, 0, 16)
    assert fused.drawn_on(kernels, [(table, 0)], places, 1, torch.device(WHERE)) is None


def test_what_is_planned_is_not_done() -> None:
    x = torch.ones(3, 4, device=WHERE)
    with planned() as launches:
        z, _ = kernels.unit(x)
        kernels.unit(x)
    assert len(launches) == 2
    assert torch.equal(kernels.unit(x)[0], torch.full_like(x, 0.5))
    assert {_variant(each) for each in launches} == {_variant(launches[0])}
    assert z.shape == x.shape
