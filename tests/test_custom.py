"""Somebody's own torch module as encoder: asked for its shape, run with weights, or refused."""

from __future__ import annotations

import copy
import warnings
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from grevy.encoders import ModuleSpec, dropouts, encode, initial_weights, module_spec
from grevy.errors import ConfigError
from grevy.windows import ReceptiveField


class Mine(nn.Module):
    """A convolution over the whole window, a constant, a frozen layer, a weight used twice."""

    def __init__(self, channels: int, latents: int, field: ReceptiveField, *, flat: bool) -> None:
        super().__init__()
        self.offset, self.latents, self.flat = field, latents, flat
        self.first = nn.Conv1d(channels, 5, len(field))
        self.norm = nn.GroupNorm(1, 5)
        self.frozen = nn.Linear(5, 5).requires_grad_(False)
        self.again = nn.Linear(5, 5)
        self.last = nn.Linear(5, latents)
        self.register_buffer("shift", torch.linspace(0, 1, 5))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.first(x))[..., 0] + self.shift
        z = self.last(self.again(torch.tanh(self.frozen(self.again(h)))))
        return z if self.flat else z[..., None]


class Asked(nn.Linear):
    """A linear layer that tells what CEBRA's modules tell."""

    num_output = 3

    def get_offset(self) -> Any:
        return SimpleNamespace(left=0, right=1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[..., 0])


def small(**changes: Any) -> Mine:
    torch.manual_seed(0)
    module = Mine(4, 2, ReceptiveField(1, 2), flat=True)
    for name, value in changes.items():
        setattr(module, name, value)
    return module


@given(
    runs=st.integers(1, 3),
    segments=st.integers(1, 3),
    outputs=st.integers(1, 5),
    channels=st.integers(1, 4),
    latents=st.integers(1, 3),
    left=st.integers(0, 3),
    right=st.integers(1, 3),
    flat=st.booleans(),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_every_run_is_the_module_with_its_weights_on_windows_one_by_one(
    runs: int, segments: int, outputs: int, channels: int, latents: int, left: int, right: int,
    flat: bool, seed: int,
) -> None:  # fmt: skip
    torch.manual_seed(seed)
    field = ReceptiveField(left, right)
    module = Mine(channels, latents, field, flat=flat)
    before = copy.deepcopy(module.state_dict())
    spec = module_spec(module)
    own = initial_weights(spec, channels, seed)
    trainable = [p for p in module.parameters() if p.requires_grad]
    assert all(torch.equal(w, p) for w, p in zip(own, trainable, strict=True))
    weights = [torch.stack([w + g * torch.randn_like(w) for g in range(runs)]) for w in own]
    weights = [w.requires_grad_() for w in weights]
    x = torch.randn(runs, outputs + len(field) - 1, segments, channels)
    z = encode(spec, weights, x, kept=())
    assert z.shape == (runs, outputs, segments, latents)
    weigh = torch.randn_like(z)
    grads = torch.autograd.grad((z * weigh).sum(), weights)
    for g in range(runs):
        twin = copy.deepcopy(module)
        parameters = [p for p in twin.parameters() if p.requires_grad]
        for p, w in zip(parameters, weights, strict=True):
            p.data = w[g].detach().clone()
        for o in range(outputs):
            for s in range(segments):
                expected = twin(x[g, o : o + len(field), s].T[None]).reshape(latents)
                torch.testing.assert_close(z[g, o, s], expected, rtol=1e-4, atol=1e-5)
                (expected * weigh[g, o, s]).sum().backward()
        for found, p in zip(grads, parameters, strict=True):
            torch.testing.assert_close(found[g], p.grad, rtol=1e-3, atol=1e-3)
    assert all(torch.equal(value, before[k]) for k, value in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())


def test_a_module_is_asked_for_its_shape() -> None:
    module = Asked(4, 3)
    spec = module_spec(module)
    assert spec == ModuleSpec(module, ReceptiveField(0, 1), 3)
    assert spec != module_spec(Asked(4, 3))
    assert hash(spec) == hash(module_spec(module))
    assert (spec.factor, spec.folds, dropouts(spec)) == (1, False, ())
    assert spec.architecture == f"{__name__}.Asked"
    assert [tuple(w.shape) for w in initial_weights(spec, 4, 0)] == [(3, 4), (3,)]


def test_threads_that_share_a_module_do_not_share_weights() -> None:
    spec = module_spec(small())
    own = initial_weights(spec, 4, 0)
    x = torch.randn(1, 40, 8, 4)
    runs = [[(w * (1 + g))[None] for w in own] for g in range(4)]
    alone = [encode(spec, run, x) for run in runs]
    assert not torch.allclose(alone[0], alone[1])
    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            together = list(pool.map(lambda run: encode(spec, run, x), runs))
            assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


class Counting(Mine):
    def forward(self, x: Tensor) -> Tensor:
        self.shift += 1
        return super().forward(x)


class Two(Mine):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x), None


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: nn.Linear(3, 2), "must say which samples it sees.*Linear has None"),
        (lambda: small(offset=SimpleNamespace(left=1, right=0)), "right >= 1"),
        (lambda: small(offset=SimpleNamespace(left=0.5, right=1)), "whole numbers"),
        (lambda: small(latents=None), "how many latents"),
        (lambda: small(num_output=0), "how many latents.*has 0"),
        (lambda: small(norm=nn.BatchNorm1d(5)), "'norm' .BatchNorm1d. .*running statistics"),
        (lambda: "offset10-models", "a name or a torch.nn.Module; found a str"),
    ],
)
def test_a_module_that_does_not_say_enough_is_refused(make: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        module_spec(make())


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: small(norm=nn.Dropout(0.5)), "draws random numbers"),
        (lambda: small(norm=nn.Dropout(0.5)).eval(), "draws random numbers"),
        (lambda: small(norm=nn.BatchNorm1d(5, track_running_stats=False)), "each window alone"),
        (lambda: Counting(4, 2, ReceptiveField(1, 2), flat=True), "changes its buffer 'shift'"),
        (lambda: small(latents=3), r"\(3, 3\); .*Mine gave \(3, 2\)"),
        (lambda: Two(4, 2, ReceptiveField(1, 2), flat=True), "Two gave tuple"),
        (lambda: Mine(5, 2, ReceptiveField(1, 2), flat=True), r"\(windows, 4, 3\).*says"),
        (lambda: small().requires_grad_(False), "has none"),
    ],
)
def test_a_module_that_is_no_function_of_its_weights_is_refused(make: Any, says: str) -> None:
    module = make()
    before, mode = copy.deepcopy(module.state_dict()), module.training
    with pytest.raises(ConfigError, match=says):
        initial_weights(module_spec(module), 4, 0)
    assert all(torch.equal(value, before[k]) for k, value in module.state_dict().items())
    assert module.training == mode


def test_a_trial_leaves_torch_random_numbers_where_they_were() -> None:
    module = small(norm=nn.Dropout(0.5))
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    with pytest.raises(ConfigError):
        initial_weights(module_spec(module), 4, 0)
    assert torch.equal(torch.rand(1), expected)


def test_modules_of_cebra_are_modules_too() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        models = pytest.importorskip("cebra.models", reason="cebra is not installed")
    module = models.init("offset10-model", num_neurons=4, num_units=8, num_output=3)
    spec = module_spec(module)
    weights = [w[None] for w in initial_weights(spec, 4, 0)]
    x = torch.randn(1, 10, 6, 4)
    expected = module(x[0].permute(1, 2, 0)).detach()
    torch.testing.assert_close(encode(spec, weights, x)[0, 0], expected)
    dropping = models.init("offset36-model-dropout", num_neurons=4, num_units=8, num_output=3)
    with pytest.raises(ConfigError, match="draws random numbers"):
        initial_weights(module_spec(dropping), 4, 0)
