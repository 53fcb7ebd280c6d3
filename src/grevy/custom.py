"""Encoders that are somebody's own torch module, run with weights that are not the module's."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .errors import ConfigError
from .windows import ReceptiveField

__all__ = ["ModuleSpec", "encode_windows", "module_spec", "module_weights", "with_weights"]

# `functional_call` puts other weights into the module for as long as its forward pass lasts, and
# runs that train in several threads share one module: nobody may read it meanwhile.
_SWAPPING = threading.Lock()


@dataclass(frozen=True)
class ModuleSpec:
    """A torch module as encoder. Equal to another that holds the same module object.

    Attributes
    ----------
    module : nn.Module
        Maps (B, C, W) to (B, D) or (B, D, 1). Its own weights are where training starts, and
        never change.
    field : ReceptiveField
        W samples.
    latents : int
        D.

    Raises
    ------
    ConfigError
        If the module keeps running statistics.
    """

    module: nn.Module
    field: ReceptiveField
    latents: int

    def __post_init__(self) -> None:
        for name, part in self.module.named_modules():
            if getattr(part, "running_mean", None) is not None:
                raise ConfigError(
                    f"an encoder must depend on its weights alone; '{name or 'the module'}' "
                    f"({type(part).__name__}) of {self.architecture} keeps running statistics "
                    f"that training would change. Use LayerNorm or GroupNorm."
                )

    @property
    def architecture(self) -> str:
        """The qualified name of the module's class."""
        return f"{type(self.module).__module__}.{type(self.module).__qualname__}"

    @property
    def factor(self) -> int:
        """Samples from one output to the next: always 1."""
        return 1

    @property
    def folds(self) -> bool:
        """Whether scaling of the channels can be folded into the first weights: never known."""
        return False


def module_spec(module: nn.Module) -> ModuleSpec:
    """Ask a module for its receptive field and its number of latents.

    Parameters
    ----------
    module : nn.Module
        With a method `get_offset()` or an attribute `offset`, whose `left` and `right` count
        samples as `ReceptiveField` does, and an attribute `num_output` or `latents`.

    Returns
    -------
    ModuleSpec

    Raises
    ------
    ConfigError
        If it has none, or they are not whole numbers in range.
    """
    kind = type(module).__name__
    if not isinstance(module, nn.Module):
        raise ConfigError(f"an encoder must be a name or a torch.nn.Module; found a {kind}.")
    ask = getattr(module, "get_offset", None)
    offset = ask() if callable(ask) else getattr(module, "offset", None)
    left, right = getattr(offset, "left", None), getattr(offset, "right", None)
    if not isinstance(left, int) or not isinstance(right, int) or left < 0 or right < 1:
        raise ConfigError(
            f"a module must say which samples it sees: get_offset() or `offset` with whole numbers "
            f"left >= 0 and right >= 1; {kind} has {offset!r}. Use grevy's ReceptiveField."
        )
    latents = getattr(module, "num_output", getattr(module, "latents", None))
    if not isinstance(latents, int) or latents < 1:
        raise ConfigError(
            f"a module must say how many latents it gives, as `num_output` or `latents`; "
            f"{kind} has {latents!r}."
        )
    return ModuleSpec(module, ReceptiveField(left, right), latents)


def module_weights(spec: ModuleSpec, n_channels: int) -> list[Tensor]:
    """Copies of the module's own trainable parameters, after one trial of the module.

    Raises
    ------
    ConfigError
        If it does not take windows of `n_channels`, gives something other than latents, draws
        random numbers (no seed of grevy's governs them), changes its buffers, or mixes windows.
    """
    with _SWAPPING:
        trial = copy.deepcopy(spec.module).float().cpu().train()
        weights = [p.detach().to("cpu", torch.float32).clone() for _, p in _trainable(spec)]
    if not weights:
        raise ConfigError(f"an encoder must have weights to train; {spec.architecture} has none.")
    before = copy.deepcopy(dict(trial.named_buffers()))
    windows = torch.linspace(-1, 1, 3 * n_channels * len(spec.field)).mul(99).sin()
    windows = windows.reshape(3, n_channels, len(spec.field))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            first, again, fewer = trial(windows), trial(windows), trial(windows[:2])
        except Exception as error:  # it is somebody's own code
            raise ConfigError(
                f"a module must take windows of shape (windows, {n_channels}, {len(spec.field)}); "
                f"{spec.architecture} says: {error}."
            ) from error
    _check_output(spec, first, 3)
    changed = [name for name, b in trial.named_buffers() if not torch.equal(b, before[name])]
    if changed:
        raise ConfigError(
            f"an encoder must depend on its weights alone; {spec.architecture} changes its buffer "
            f"'{changed[0]}' as it runs. Leave it out."
        )
    if not torch.equal(first, again):
        raise ConfigError(
            f"an encoder must give the same output for the same window; {spec.architecture} draws "
            f"random numbers, which `random_state` cannot repeat. Leave its dropout out."
        )
    if not torch.allclose(first[:2], fewer, rtol=1e-3, atol=1e-4):
        raise ConfigError(
            f"an encoder must see each window alone; in {spec.architecture} it matters which "
            f"others are in the batch. Use LayerNorm or GroupNorm for batch normalisation."
        )
    return weights


def encode_windows(spec: ModuleSpec, weights: Sequence[Tensor], x: Tensor) -> Tensor:
    """Run the module on every window, once for each of G runs; shapes are those of `encode`."""
    runs, time, n, channels = x.shape
    outputs = time - len(spec.field) + 1
    parts = []
    for g in range(runs):
        windows = x[g].unfold(0, len(spec.field), 1).reshape(-1, channels, len(spec.field))
        with _SWAPPING:
            values: dict[str, Tensor] = {
                name: value.to(x.device)
                for name, value in (*spec.module.named_parameters(), *spec.module.named_buffers())
            }
            names = [name for name, _ in _trainable(spec)]
            values |= zip(names, (w[g] for w in weights), strict=True)
            z = functional_call(spec.module, values, (windows,))
        parts.append(_check_output(spec, z, outputs * n).reshape(outputs, n, spec.latents))
    return torch.stack(parts)


def _trainable(spec: ModuleSpec) -> list[tuple[str, nn.Parameter]]:
    return [(name, p) for name, p in spec.module.named_parameters() if p.requires_grad]


def _check_output(spec: ModuleSpec, z: Any, n: int) -> Tensor:
    shape = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
    if not isinstance(z, Tensor) or shape not in ((n, spec.latents), (n, spec.latents, 1)):
        raise ConfigError(
            f"a module must map {n} windows to a tensor of shape {(n, spec.latents)}; "
            f"{spec.architecture} gave {shape}."
        )
    return z


def with_weights(spec: ModuleSpec, weights: Sequence[Tensor]) -> nn.Module:
    """A copy of the module that holds these weights, as from `module_weights`."""
    with _SWAPPING:
        module = copy.deepcopy(spec.module).float().cpu().eval()
        names = [name for name, _ in _trainable(spec)]
    own = dict(module.named_parameters())
    with torch.no_grad():
        for name, weight in zip(names, weights, strict=True):
            own[name].copy_(weight)
    return module
