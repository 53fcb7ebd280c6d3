"""Every architecture against torch's own layers, against CEBRA where it is, and its laws."""

from __future__ import annotations

import copy
import hashlib
import pickle
import re
import warnings
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from torch import Tensor, nn

import twins
from grevy.draws import Purpose, uniforms
from grevy.encoders import (
    ARCHITECTURES,
    Encoder,
    EncoderSpec,
    cebra_names,
    dropouts,
    encode,
    from_cebra,
    initial_weights,
    layer_shapes,
    to_cebra,
)
from grevy.errors import ConfigError, DataError, FormatError

NAMES = list(ARCHITECTURES)
FAMILIES = [
    "offset1-model", "offset1-model-v2", "offset1-model-v3", "offset1-model-v4", "offset1-model-v5",
    "offset1-model-mse", "offset1-model-mse-tanh", "offset1-model-mse-clip-5-1",
    "offset1-model-mse-v2-3layers", "offset1-model-mse-resnet-2layers-tanh", "offset5-model",
    "offset15-model", "offset36-model-dropout", "offset36-model-more-dropout",
    "offset10-model-mse-tanh", "offset20-model-4x-subsample", "offset40-model-4x-subsample",
    "offset4-model-2x-subsample", "supervised1-model", "supervised10-model",
]  # fmt: skip
STACKS = {5: (1, 2), 10: (3, 3), 15: (6, 2), 20: (8, 3), 36: (16, 3), 40: (18, 3), 50: (23, 3)}
RESAMPLED = {
    "resample-model": "offset40-model-4x-subsample",
    "resample5-model": "offset20-model-4x-subsample",
    "resample1-model": "offset4-model-2x-subsample",
}
COUNTS = {
    "offset1-model": 1891, "supervised1-model": 1891, "offset1-model-mse": 11733,
    "offset1-model-mse-tanh": 11733, "offset1-model-v2": 2467, "offset1-model-v3": 2467,
    "offset1-model-v4": 4579, "offset1-model-v5": 4579, "offset5-model": 3779,
    "offset10-model": 10083, "offset10-model-mse": 10083, "offset10-model-mse-tanh": 10083,
    "supervised10-model": 10083, "offset15-model": 19299, "offset20-model": 25603,
    "offset36-model": 50435, "offset36-model-dropout": 50435, "offset36-model-more-dropout": 50435,
    "offset40-model": 56643, "offset50-model": 72163, "offset40-model-4x-subsample": 14307,
    "resample-model": 14307, "offset20-model-4x-subsample": 8003, "resample5-model": 8003,
    "offset4-model-2x-subsample": 3843, "resample1-model": 3843,
}  # fmt: skip


# --- The slow twin: torch's layers, put together from the name alone -----------------------------
class Around(nn.Module):
    """x, less some samples at either end, plus the layers' output."""

    def __init__(self, *layers: nn.Module, crop: int) -> None:
        super().__init__()
        self.module, self.crop = nn.Sequential(*layers), crop

    def forward(self, x: Tensor) -> Tensor:
        return x[..., self.crop : x.shape[-1] - self.crop] + self.module(x)


class Padded(nn.Module):
    """A linear layer, plus input channel c to output channel c for every c that both have."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        y = self.module(x)
        both = range(min(x.shape[1], y.shape[1]))
        columns = [y[:, c] + x[:, c] if c in both else y[:, c] for c in range(y.shape[1])]
        return torch.stack(columns, dim=1)


class Halving(nn.Module):
    """A convolution with stride 2, and every second sample beside it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layer = nn.Conv1d(inputs, outputs, 4, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return torch.cat([y, torch.stack([x[..., 2 * i] for i in range(y.shape[-1])], -1)], dim=1)


class Twin(nn.Module):
    """A chain of layers, then what the architecture does to their output."""

    def __init__(self, net: nn.Sequential, name: str) -> None:
        super().__init__()
        self.net, self.name = net, name

    def forward(self, x: Tensor) -> Tensor:
        z = self.net(x)
        if "mse" not in self.name and "supervised" not in self.name:
            z = z / z.pow(2).sum(dim=1, keepdim=True).sqrt()
        if self.name.endswith("tanh"):
            z = z.tanh()
        if "supervised" in self.name:
            z = torch.where(z > 0, z, 0.0)
        if clip := re.search(r"clip-(\d+)-(\d+)", self.name):
            z = z.clamp(-int(clip[1]), int(clip[2]))
        return z[..., 0] if z.ndim == 3 and z.shape[-1] == 1 else z


def linear(*widths: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for i, o in pairwise(widths):
        layers += [nn.Linear(i, o), nn.GELU()]
    return layers[:-1]


def torch_encoder(name: str, n: int, h: int, d: int) -> Twin:
    name = RESAMPLED.get(name, name)
    layers: list[nn.Module]
    if found := re.fullmatch(r"offset1-model-mse-(v2|resnet)-(\d+)layers(-tanh)?", name):
        wrap = Padded if found[1] == "resnet" else lambda layer: layer
        inner = [wrap(nn.Linear(h, h)), nn.GELU()] * int(found[2])
        layers = [
            nn.Flatten(), wrap(nn.Linear(n, h)), nn.GELU(), *inner, wrap(nn.Linear(h, h // 2)),
            nn.GELU(), nn.Linear(h // 2, d),
        ]  # fmt: skip
    elif name.startswith("offset1-model-mse"):
        layers = [nn.Flatten(), *linear(n, 30 * d, 30 * d, 10 * d, d)]
    elif name in ("offset1-model", "supervised1-model"):
        layers = [nn.Flatten(), *linear(n, h, h, h // 2, d)]
    elif name == "offset1-model-v2":
        layers = [nn.Flatten(), *linear(n, h, h, h, d)]
    elif name in ("offset1-model-v3", "offset1-model-v5"):
        layers = [nn.Flatten(), nn.Linear(n, h), nn.GELU()]
        for _ in range(2 if name.endswith("3") else 4):
            layers += [Around(nn.Linear(h, h), crop=0), nn.GELU()]
        layers += [nn.Linear(h, d)]
    elif name == "offset1-model-v4":
        layers = [nn.Flatten(), nn.Linear(n, h), nn.GELU()]
        layers += [Around(nn.Linear(h, h), nn.GELU(), crop=0) for _ in range(4)]
        layers += [nn.Linear(h, d)]
    elif name == "offset4-model-2x-subsample":
        layers = [Halving(n, h), nn.Flatten(), *linear(n + h, h, h, h // 2, d)]
    elif "4x-subsample" in name:
        layers = [Halving(n, h), nn.Conv1d(n + h, h, 3, stride=2), nn.GELU()]
        skips, last = (3, 3) if "40" in name else (1, 2)
        layers += [Around(nn.Conv1d(h, h, 3), nn.GELU(), crop=1) for _ in range(skips)]
        layers += [nn.Conv1d(h, d, last)]
    else:
        skips, last = STACKS[int(re.findall(r"\d+", name)[0])]
        layers = [nn.Conv1d(n, h, 2)]
        layers += [nn.Dropout1d(0.1)] if "dropout" in name else []
        layers += [nn.GELU()]
        for _ in range(skips):
            drop = [nn.Dropout1d(0.1)] if "more-dropout" in name else []
            layers += [Around(*drop, nn.Conv1d(h, h, 3), nn.GELU(), crop=1)]
        layers += [nn.Conv1d(h, d, last)]
    return Twin(nn.Sequential(*layers), name).eval()


def stacked(spec: EncoderSpec, channels: int, seeds: list[int]) -> list[Tensor]:
    runs = [initial_weights(spec, channels, seed) for seed in seeds]
    return [torch.stack(parts).double() for parts in zip(*runs, strict=True)]


def random(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def alone(spec: EncoderSpec, weights: list[Tensor], windows: Tensor) -> Tensor:
    """Ours on windows laid out as torch's layers take them, (B, C, W) -> (B, D)."""
    x = windows.permute(2, 0, 1)[None]
    return encode(spec, [w[None] for w in weights], x)[0, 0]


# --- The table -----------------------------------------------------------------------------------
def test_there_are_147_names_of_which_139_are_listed() -> None:
    assert len(NAMES) == 147
    assert sum(a.listed for a in ARCHITECTURES.values()) == 139
    assert not any(a.listed for n, a in ARCHITECTURES.items() if re.search("sample|supervised", n))


@pytest.mark.parametrize("name", NAMES)
def test_parameters_count_as_in_cebra(name: str) -> None:
    count = COUNTS.get(name, 11733 if "clip" in name else 1891)
    spec = EncoderSpec(name, hidden=32, latents=3)
    assert sum(k * i * o + o for k, i, o in layer_shapes(spec, 7)) == count
    assert sum(p.numel() for p in torch_encoder(name, 7, 32, 3).parameters()) == count


@pytest.mark.parametrize("name", NAMES)
def test_the_field_and_the_factor_are_those_of_the_layers(name: str) -> None:
    spec, spread, width = EncoderSpec(name), 1, 1
    for layer in spec.layers:
        width += (layer.kernel - 1) * spread
        spread *= layer.stride
    assert (len(spec.field), spec.factor) == (width, spread)
    assert spec.field.left == width // 2


@pytest.mark.parametrize("name", NAMES)
def test_weights_go_to_torch_layers_and_back(name: str) -> None:
    spec = EncoderSpec(name, 6, 2)
    weights = initial_weights(spec, 5, 1)
    twin = torch_encoder(name, 5, 6, 2)
    theirs = to_cebra(spec, weights)
    assert list(theirs) == list(twin.state_dict())
    twin.load_state_dict(theirs)
    again = from_cebra(spec, twin.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(weights, again, strict=True))
    assert cebra_names(spec) == [n for n, _ in twin.named_parameters()]
    windows = random(2, 9, 5, len(spec.field)).float()
    with torch.no_grad():
        expected = twin(windows)
    torch.testing.assert_close(alone(spec, weights, windows), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("offset1-model", "6d60ca926420aeb7"),
        ("offset5-model", "66d7d410efc37db0"),
        ("offset10-model", "d3b2e8ee4d0c41b7"),
    ],
)
def test_first_weights_never_change_and_sessions_have_their_own(name: str, digest: str) -> None:
    spec = EncoderSpec(name, 16, 3)
    weights = initial_weights(spec, 4, 12345)
    found = hashlib.sha256(b"".join(w.numpy().tobytes() for w in weights)).hexdigest()
    assert found[:16] == digest
    sessions = [initial_weights(spec, 4, 12345, session=s) for s in range(3)]
    kernel, inputs, outputs = layer_shapes(spec, 4)[0]
    u = uniforms(12345, Purpose.WEIGHTS + 512, torch.tensor([0]), kernel * inputs * outputs)
    expected = (2 * u - 1).reshape(kernel, inputs, outputs) / (kernel * inputs) ** 0.5
    assert torch.equal(sessions[2][0], expected.float())
    assert all(torch.equal(a, b) for a, b in zip(weights, sessions[0], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(sessions[1], sessions[2], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(weights, sessions[1], strict=True))


# --- Laws of every family ------------------------------------------------------------------------
families = given(
    name=st.sampled_from(FAMILIES),
    channels=st.integers(1, 7),
    hidden=st.integers(2, 9),
    latents=st.integers(1, 4),
    segments=st.integers(1, 3),
    outputs=st.integers(1, 7),
    seed=st.integers(0, 2**32),
)
few = settings(max_examples=60, deadline=None, derandomize=True)


def made(
    name: str, channels: int, hidden: int, latents: int, segments: int, outputs: int, seed: int
) -> tuple[EncoderSpec, list[Tensor], Tensor]:
    """An encoder, weights of two runs, and segments for them."""
    spec = EncoderSpec(name, hidden, latents)
    x = random(seed, 2, outputs + len(spec.field) - 1, segments, channels)
    return spec, stacked(spec, channels, [seed, seed + 1]), x


@families
@few
def test_dense_is_torch_layers_on_windows_one_by_one(name: str, **shape: int) -> None:
    spec, weights, x = made(name, **shape)
    weights = [w.requires_grad_() for w in weights]
    x.requires_grad_()
    z = encode(spec, weights, x)
    outputs, segments, latents = shape["outputs"], shape["segments"], shape["latents"]
    assert z.shape == (2, outputs, segments, latents)
    weigh = random(1, *z.shape)
    grads = torch.autograd.grad((z * weigh).sum(), [x, *weights])
    slow_x = torch.zeros_like(x)
    for g in range(2):
        twin = torch_encoder(name, shape["channels"], shape["hidden"], latents).double()
        twins.set_weights(twin, [w[g].detach() for w in weights])
        for o in range(outputs):
            for s in range(segments):
                window = x[g, o : o + len(spec.field), s].detach().T[None].requires_grad_()
                expected = twin(window)[0]
                torch.testing.assert_close(z[g, o, s], expected, rtol=1e-8, atol=1e-10)
                (expected * weigh[g, o, s]).sum().backward()
                slow_x[g, o : o + len(spec.field), s] += window.grad[0].T
        slow = twins.get_weights(_gradients(twin))
        for found, wanted in zip(grads[1:], slow, strict=True):
            torch.testing.assert_close(found[g], wanted, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(grads[0], slow_x.detach(), rtol=1e-6, atol=1e-9)


def _gradients(module: nn.Module) -> nn.Module:
    """A module whose parameters are the gradients of another's."""
    copied = copy.deepcopy(module)
    for p, original in zip(copied.parameters(), module.parameters(), strict=True):
        p.data = original.grad.clone()  # type: ignore[union-attr]
    return copied


@families
@few
def test_one_pass_is_every_factor_th_window(name: str, **shape: int) -> None:
    spec, weights, x = made(name, **shape)
    every, sparse = encode(spec, weights, x), encode(spec, weights, x, dense=False)
    torch.testing.assert_close(sparse, every[:, :: spec.factor], rtol=1e-9, atol=1e-11)
    if ARCHITECTURES[name].convolutional:
        twin = torch_encoder(name, shape["channels"], shape["hidden"], shape["latents"]).double()
        twins.set_weights(twin, [w[1] for w in weights])
        with torch.no_grad():
            long = twin(x[1].permute(1, 2, 0)).reshape(shape["segments"], shape["latents"], -1)
        torch.testing.assert_close(sparse[1], long.permute(2, 0, 1), rtol=1e-8, atol=1e-10)


@families
@few
def test_the_order_of_channels_is_a_matter_of_the_first_weights(name: str, **shape: int) -> None:
    spec, weights, x = made(name, **shape)
    order = torch.randperm(
        shape["channels"], generator=torch.Generator().manual_seed(shape["seed"])
    )
    turned = list(weights)
    turned[0] = weights[0][:, :, order]
    if spec.layers[0].mean:  # the input goes on, behind the hidden units
        own = torch.arange(shape["hidden"])
        turned[2] = weights[2][:, :, torch.cat([own, shape["hidden"] + order])]
    elif spec.layers[0].skip:  # the input goes on, added to the hidden units: their order matters
        assert not spec.folds
        return
    assert spec.folds == (not spec.layers[0].mean)
    z = encode(spec, weights, x)
    torch.testing.assert_close(encode(spec, turned, x[..., order]), z, rtol=1e-8, atol=1e-10)


@families
@few
def test_runs_side_by_side_are_runs_alone(name: str, **shape: int) -> None:
    spec, weights, x = made(name, **shape)
    both = encode(spec, weights, x)
    for g in range(2):
        one = encode(spec, [w[g : g + 1] for w in weights], x[g : g + 1])
        torch.testing.assert_close(one[0], both[g], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_matters_and_all_is_finite(name: str) -> None:
    spec = EncoderSpec(name, 8, 3)
    weights = [w.requires_grad_() for w in stacked(spec, 5, [0])]
    x = random(3, 1, 12 + len(spec.field), 4, 5)
    z = encode(spec, weights, x)
    grads = torch.autograd.grad((z * random(4, *z.shape)).sum(), weights)
    assert all(bool((g != 0).any()) and bool(torch.isfinite(g).all()) for g in grads)
    for strange in (x * 1e12, x * 0):
        z = encode(spec, weights, strange)
        assert bool(torch.isfinite(z).all())
    nothing = [torch.zeros_like(w).requires_grad_() for w in weights]
    z = encode(spec, nothing, x)
    assert all(bool(torch.isfinite(g).all()) for g in torch.autograd.grad(z.sum(), nothing))
    large = encode(spec, [w.detach() * 40 for w in weights], x)
    if clip := re.search(r"clip-(\d+)-(\d+)", name):
        assert (float(large.min()), float(large.max())) == (-int(clip[1]), int(clip[2]))
    elif name.endswith("tanh"):
        assert float(large.abs().max()) == pytest.approx(1)
    elif "supervised" in name:
        assert float(large.min()) == 0
    elif "mse" not in name:
        torch.testing.assert_close(large.norm(dim=-1), torch.ones(1).double().expand(1, 13, 4))


# --- Dropout -------------------------------------------------------------------------------------
class Times(nn.Module):
    """Multiplies with what it was given."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.mask = mask

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mask


def put_masks(module: nn.Module, masks: list[Tensor]) -> None:
    """Every Dropout1d, in order, replaced by a product with a mask (B, channels)."""
    places = iter(masks)
    for part in list(module.modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, nn.Dropout1d):
                setattr(part, name, Times(next(places)[..., None]))
    assert next(places, None) is None


@pytest.mark.parametrize("name", NAMES)
def test_places_of_dropout_are_those_of_torch_layers(name: str) -> None:
    found = [m.p for m in torch_encoder(name, 3, 6, 2).modules() if isinstance(m, nn.Dropout1d)]
    assert list(dropouts(EncoderSpec(name, 6, 2))) == [(p, 6) for p in found]


@pytest.mark.parametrize("name", ["offset36-model-dropout", "offset36-model-more-dropout"])
@pytest.mark.parametrize("outputs", [1, 5])
def test_dropped_channels_are_dropped_where_torch_layers_drop_them(name: str, outputs: int) -> None:
    spec = EncoderSpec(name, 6, 3)
    weights = stacked(spec, 4, [5, 6])
    x = random(7, 2, 35 + outputs, 3, 4)
    generator = torch.Generator().manual_seed(8)
    kept = [
        (torch.rand(2, 3, width, generator=generator) >= 0.4).double() / 0.6
        for _, width in dropouts(spec)
    ]
    z = encode(spec, weights, x, kept=kept)
    assert not torch.allclose(z, encode(spec, weights, x))
    for g in range(2):
        twin = torch_encoder(name, 4, 6, 3).double()
        twins.set_weights(twin, [w[g] for w in weights])
        put_masks(twin, [k[g] for k in kept])
        expected = twin(x[g].permute(1, 2, 0)).reshape(3, 3, -1).permute(2, 0, 1)
        torch.testing.assert_close(z[g], expected, rtol=1e-8, atol=1e-10)
    with pytest.raises(ConfigError, match=f"{len(kept)} places; found {len(kept) - 1}"):
        encode(spec, weights, x, kept=kept[1:])


# --- The torch module ----------------------------------------------------------------------------
@pytest.mark.parametrize("name", FAMILIES)
def test_the_module_is_cebra_shaped(name: str) -> None:
    spec = EncoderSpec(name, 6, 3)
    weights = initial_weights(spec, 4, 9)
    encoder, twin = Encoder(spec, weights), torch_encoder(name, 4, 6, 3)
    twin.load_state_dict(encoder.state_dict())
    assert list(encoder.state_dict()) == list(twin.state_dict())
    assert [n for n, _ in encoder.named_parameters()] == cebra_names(spec)
    assert (encoder.get_offset(), encoder.num_output, encoder.num_input) == (spec.field, 3, 4)
    assert not encoder.training
    longer = (0, 1, 21) if ARCHITECTURES[name].convolutional else (0,)
    for more in longer:
        x = random(more, 5, 4, len(spec.field) + more).float()
        expected = twin(x)
        assert encoder(x).shape == expected.shape
        torch.testing.assert_close(encoder(x), expected, rtol=1e-5, atol=1e-6)
        encoder(x).sum().backward()
    if len(spec.field) == 1:
        torch.testing.assert_close(encoder(x[..., 0]), expected, rtol=1e-5, atol=1e-6)
    assert all(p.grad is not None for p in encoder.parameters())
    for copied in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert sum(p.numel() for p in copied.parameters()) == sum(w.numel() for w in weights)
        other = initial_weights(spec, 4, 10)
        copied.load_state_dict(to_cebra(spec, other))
        torch.testing.assert_close(copied(x)[:5], Encoder(spec, other)(x))
    torch.testing.assert_close(encoder(x), expected, rtol=1e-5, atol=1e-6)  # was only copied
    for wrong in (x[:, 1:], x[0, 0]):
        with pytest.raises(DataError, match="input must have shape"):
            encoder(wrong)


def test_the_module_drops_channels_in_training_only() -> None:
    spec = EncoderSpec("offset36-model-dropout", 16, 3)
    encoder = Encoder(spec, initial_weights(spec, 4, 9))
    x = random(1, 6, 4, 36).float()
    assert torch.equal(encoder(x), encoder(x))
    encoder.train()
    torch.manual_seed(0)
    first, second = encoder(x), encoder(x)
    assert not torch.allclose(first, second)
    torch.manual_seed(0)
    assert torch.equal(encoder(x), first)


# --- What is refused -----------------------------------------------------------------------------
def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'offset11-model'\. The nearest are .*offset1.-model"):
        EncoderSpec("offset11-model")
    with pytest.raises(ConfigError, match="offset1-model-mse-clip-10-1"):
        EncoderSpec("offset1-model-mse-clip-10-11")
    with pytest.raises(ConfigError, match="found 'None'"):
        EncoderSpec(None)  # type: ignore[arg-type]


def test_the_least_number_of_hidden_units_is_what_the_layers_need() -> None:
    assert EncoderSpec("offset10-model", hidden=1).hidden == 1
    for name in ("offset1-model", "resample1-model", "offset1-model-mse-resnet-2layers"):
        with pytest.raises(ConfigError, match="hidden >= 2"):
            EncoderSpec(name, hidden=1)


def test_a_spec_is_plain_values() -> None:
    spec = EncoderSpec("offset36-model", np.int64(5), np.int32(2))  # type: ignore[arg-type]
    assert asdict(spec) == {"architecture": "offset36-model", "hidden": 5, "latents": 2}
    assert type(spec.hidden) is type(spec.latents) is int
    assert TypeAdapter(EncoderSpec).validate_python(asdict(spec)) == spec
    assert hash(spec) == hash(EncoderSpec("offset36-model", 5, 2))


def test_a_segment_shorter_than_a_window_is_refused() -> None:
    spec = EncoderSpec("offset40-model-4x-subsample", 4, 2)
    with pytest.raises(DataError, match=r"40 samples .*; found 39"):
        encode(spec, stacked(spec, 3, [0]), random(0, 1, 39, 2, 3))
    with pytest.raises(ConfigError, match="12 weights and biases; found 10"):
        encode(spec, stacked(spec, 3, [0])[2:], random(0, 1, 40, 2, 3))


def test_a_state_dict_that_does_not_fit_is_refused_by_key() -> None:
    spec = EncoderSpec("offset1-model-mse-resnet-3layers", 6, 2)
    good = to_cebra(spec, initial_weights(spec, 5, 0))

    def refused(changes: dict[str, Any], says: str) -> None:
        state = {k: v for k, v in {**good, **changes}.items() if v is not None}
        with pytest.raises(FormatError, match=says):
            from_cebra(spec, state)

    refused({"net.3.module.bias": None}, r"lack 'net\.3\.module\.bias' \(1 such\)")
    refused({"net.4.weight": torch.zeros(2)}, r"have 'net\.4\.weight'")
    refused({"net.9.module.weight": torch.zeros(2, 6)}, r"\(3, 6\); found \(2, 6\)")
    refused({"net.1.module.weight": torch.zeros(6)}, r"'net\.1\.module\.weight'")
    refused({"net.5.module.bias": torch.zeros(6)}, r"'net\.5\.module' and 'net\.3\.module'")
    refused({"net.11.bias": torch.zeros(3)}, r"6 hidden units and 2 latents")


# --- CEBRA itself --------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def cebra() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("cebra.models", reason="cebra (the `oracle` extra) is not installed")
        import cebra

        cebra.CEBRA  # noqa: B018  (its lazy import warns)
    return cebra


def theirs(cebra: Any, name: str, n: int, h: int, d: int) -> Any:
    return cebra.models.init(name, num_neurons=n, num_units=h, num_output=d).eval()


def output(module: Any, name: str, x: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.relu(module.net(x)) if "supervised" in name else module(x)


def test_the_names_are_cebras(cebra: Any) -> None:
    assert sorted(NAMES) == sorted(cebra.models.get_options())
    listed = cebra.CEBRA.supported_model_architectures(pattern="*")
    assert sorted(listed) == sorted(n for n in NAMES if ARCHITECTURES[n].listed)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_weights_give_what_cebra_gives(cebra: Any, name: str) -> None:
    spec, architecture = EncoderSpec(name, 16, 4), ARCHITECTURES[name]
    module = theirs(cebra, name, 6, 16, 4)
    assert sum(p.numel() for p in theirs(cebra, name, 7, 32, 3).parameters()) == sum(
        k * i * o + o for k, i, o in layer_shapes(EncoderSpec(name, 32, 3), 7)
    )
    offset = module.get_offset()
    assert (offset.left, offset.right) == (spec.field.left, spec.field.right)
    assert getattr(module, "resample_factor", 1) == spec.factor
    if name != "supervised10-model":  # a convolution that lacks CEBRA's flag
        flag = isinstance(module, cebra.models.ConvolutionalModelMixin)
        assert flag == architecture.convolutional
    weights = from_cebra(spec, module.state_dict())
    x = random(0, 20, 6, len(spec.field)).float()
    expected = output(module, name, x)
    torch.testing.assert_close(alone(spec, weights, x), expected, rtol=1e-5, atol=1e-5)
    encoder = Encoder(spec, initial_weights(spec, 6, 3))
    assert list(encoder.state_dict()) == list(module.state_dict())
    module.load_state_dict(encoder.state_dict())
    stretches = [x, random(1, 2, 6, len(spec.field) + 57).float()]
    for x in stretches if architecture.convolutional else stretches[:1]:
        torch.testing.assert_close(encoder(x), output(module, name, x), rtol=1e-5, atol=1e-5)
    # Large outputs, so that whatever bounds them is met.
    steep = [w * 4 for w in encoder.parameters()]
    module, encoder = module.double(), encoder.double()
    for mine, other in zip(encoder.parameters(), module.parameters(), strict=True):
        mine.data = other.data = steep.pop(0).detach().double()
    x = stretches[0].double()
    torch.testing.assert_close(encoder(x), output(module, name, x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["offset36-model-dropout", "offset36-model-more-dropout"])
def test_dropped_channels_are_cebras(cebra: Any, name: str) -> None:
    spec = EncoderSpec(name, 6, 3)
    module = theirs(cebra, name, 4, 6, 3)
    weights = from_cebra(spec, module.state_dict())
    generator = torch.Generator().manual_seed(1)
    kept = [(torch.rand(5, 6, generator=generator) >= 0.4) / 0.6 for _ in dropouts(spec)]
    put_masks(module, kept)
    x = random(2, 5, 4, 36).float()
    z = encode(
        spec, [w[None] for w in weights], x.permute(2, 0, 1)[None], kept=[k[None] for k in kept]
    )
    torch.testing.assert_close(z[0, 0], module(x).detach(), rtol=1e-5, atol=1e-5)


def test_an_embedding_at_the_origin_is_nan_in_cebra_and_zero_here(cebra: Any) -> None:
    spec = EncoderSpec("offset5-model", 4, 2)
    module = theirs(cebra, "offset5-model", 3, 4, 2)
    encoder = Encoder(spec, [torch.zeros_like(w) for w in initial_weights(spec, 3, 0)])
    module.load_state_dict(encoder.state_dict())
    assert bool(torch.isnan(module(torch.zeros(1, 3, 5))).all())
    assert bool((encoder(torch.zeros(1, 3, 5)) == 0).all())
