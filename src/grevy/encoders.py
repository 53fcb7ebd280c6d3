"""Encoders: the forward pass of G of them at once, first weights, and CEBRA's names for them.

The layers are data (`architectures`). Activity is laid out time first, (runs, time, segments,
channels): every tap of a convolution is then one matrix product on a contiguous slice, for all
segments and runs together.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, hardtanh

from .architectures import ARCHITECTURES, Architecture, Layer
from .custom import ModuleSpec, encode_windows, module_spec, module_weights
from .draws import Purpose, uniforms
from .errors import ConfigError, DataError, FormatError
from .layers import crop, unit
from .layers import layer as apply
from .windows import ReceptiveField

__all__ = [
    "ARCHITECTURES",
    "AnyEncoder",
    "Architecture",
    "Encoder",
    "EncoderSpec",
    "Layer",
    "ModuleSpec",
    "cebra_names",
    "dropouts",
    "encode",
    "from_cebra",
    "initial_weights",
    "layer_shapes",
    "module_spec",
    "to_cebra",
]


@dataclass(frozen=True)
class EncoderSpec:
    """An encoder's shape, without the number of input channels.

    Attributes
    ----------
    architecture : str
        A name in `ARCHITECTURES`.
    hidden : int
        Hidden units, at least 1, and 2 where a layer has half of them. The `offset1-model-mse`
        family has 30 and 10 units a latent instead and ignores this number.
    latents : int
        Dimensions of the embedding, at least 1.

    Raises
    ------
    ConfigError
        If the name is unknown (the message has the nearest ones) or a number too small.

    Examples
    --------
    >>> len(EncoderSpec("offset36-model", hidden=64, latents=3).field)
    36
    """

    architecture: str = "offset10-model"
    hidden: int = 32
    latents: int = 8

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            near = difflib.get_close_matches(str(self.architecture), ARCHITECTURES, 3, cutoff=0)
            raise ConfigError(
                f"architecture must be one of the {len(ARCHITECTURES)} in grevy.encoders."
                f"ARCHITECTURES; found '{self.architecture}'. The nearest are {', '.join(near)}."
            )
        for name in ("hidden", "latents"):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer):
                raise ConfigError(f"{name} must be a whole number; found {value!r}.")
            object.__setattr__(self, name, int(value))
        least = 2 if any(layer.width == "half" for layer in self.layers) else 1
        if self.hidden < least or self.latents < 1:
            raise ConfigError(
                f"{self.architecture} needs hidden >= {least} and latents >= 1; "
                f"found {self.hidden} and {self.latents}."
            )

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers in order."""
        return ARCHITECTURES[self.architecture].layers

    @property
    def field(self) -> ReceptiveField:
        """The samples that one output depends on."""
        return ARCHITECTURES[self.architecture].field

    @property
    def factor(self) -> int:
        """Samples from one output to the next when a stretch is encoded in one pass."""
        return ARCHITECTURES[self.architecture].factor

    @property
    def folds(self) -> bool:
        """Whether scaling of the channels can be folded into the first weights.

        Not where the first layer hands its input on, beside what the weights make of it.
        """
        return not (self.layers[0].skip or self.layers[0].mean)


AnyEncoder: TypeAlias = EncoderSpec | ModuleSpec
"""One of the table, or somebody's own module."""


def _widths(spec: EncoderSpec, n_channels: int) -> Iterator[tuple[Layer, int, int]]:
    """Every layer with its inputs and outputs; appended samples are inputs of the next layer."""
    sizes = {
        "hidden": spec.hidden,
        "half": spec.hidden // 2,
        "latents": spec.latents,
        "10 latents": 10 * spec.latents,
        "30 latents": 30 * spec.latents,
    }
    inputs = n_channels
    for layer in spec.layers:
        outputs = sizes[layer.width]
        yield layer, inputs, outputs
        inputs = outputs + inputs if layer.mean else outputs


def layer_shapes(spec: EncoderSpec, n_channels: int) -> list[tuple[int, int, int]]:
    """(kernel, inputs, outputs) of every layer that owns weights, in order."""
    return [
        (layer.kernel, inputs, outputs)
        for layer, inputs, outputs in _widths(spec, n_channels)
        if layer.shares is None
    ]


def dropouts(spec: AnyEncoder) -> tuple[tuple[float, int], ...]:
    """(rate, channels) of each place where training drops channels, in order; mostly none.

    Examples
    --------
    >>> dropouts(EncoderSpec("offset36-model-dropout", hidden=64))
    ((0.1, 64),)
    """
    if isinstance(spec, ModuleSpec):
        return ()
    places = []
    for layer, inputs, outputs in _widths(spec, 0):  # no architecture drops its own channels
        places += [(layer.drop_input, inputs)] if layer.drop_input else []
        places += [(layer.drop_output, outputs)] if layer.drop_output else []
    return tuple(places)


def initial_weights(
    spec: AnyEncoder, n_channels: int, seed: int, *, session: int = 0
) -> list[Tensor]:
    """First weights and biases: uniform within one over the root of the fan-in, as torch's layers.

    Parameters
    ----------
    spec : EncoderSpec or ModuleSpec
        A module starts from the parameters it has.
    n_channels : int
        C, channels of the recording.
    seed : int
        Weights are a pure function of it, and of
    session : int
        which of several encoders trained together this is.

    Returns
    -------
    list of float32 tensors
        For each layer that owns weights, a weight of shape (kernel, inputs, outputs) and a bias
        of shape (outputs,); for a module its trainable parameters.

    Raises
    ------
    ConfigError
        If a module does not fit the channels, or is no function of its weights.
    """
    if isinstance(spec, ModuleSpec):
        return module_weights(spec, n_channels)
    weights = []
    for i, (kernel, inputs, outputs) in enumerate(layer_shapes(spec, n_channels)):
        bound = 1 / math.sqrt(kernel * inputs)
        n = kernel * inputs * outputs
        u = uniforms(seed, Purpose.WEIGHTS + 256 * session, torch.tensor([i]), n + outputs)[0]
        values = ((2 * u - 1) * bound).to(torch.float32)
        weights += [values[:n].reshape(kernel, inputs, outputs), values[n:]]
    return weights


def encode(
    spec: AnyEncoder,
    weights: Sequence[Tensor],
    x: Tensor,
    *,
    kept: Sequence[Tensor] | None = None,
    dense: bool = True,
) -> Tensor:
    """Embed every window of some segments, for G encoders of one shape.

    Parameters
    ----------
    spec : EncoderSpec or ModuleSpec
    weights : sequence of tensors
        As from `initial_weights`, each with a leading axis of G runs.
    x : float tensor, shape (G, S, n, C)
        n segments of S samples for each run.
    kept : sequence of tensors, each of shape (G, n, channels), optional
        For each place in `dropouts(spec)` what the channels of a segment are multiplied with: 0,
        or 1 / (1 - rate). None drops nothing.
    dense : bool
        Whether every window has an output. False gives one every `spec.factor` samples, the
        first at the first window, as one pass over the stretch has it.

    Returns
    -------
    float tensor, shape (G, S - W + 1, n, D), or (G, (S - W) // factor + 1, n, D)
        Of unit length along the last axis where the architecture normalises. W is the length of
        the receptive field.

    Raises
    ------
    DataError
        If a segment is shorter than a window.
    ConfigError
        If `weights` or `kept` do not fit the encoder.
    """
    if x.shape[1] < len(spec.field):
        raise DataError(
            f"a segment must hold a window of {len(spec.field)} samples ({spec.architecture}); "
            f"found {x.shape[1]}."
        )
    if kept is not None and len(kept) != (n := len(dropouts(spec))):
        raise ConfigError(f"{spec.architecture} drops at {n} places; found {len(kept)} masks.")
    if isinstance(spec, ModuleSpec):
        return encode_windows(spec, weights, x)
    masks = iter(kept or ())
    h, spread = x, 1
    for layer, (weight, bias) in zip(spec.layers, _pairs(spec.layers, weights), strict=True):
        # Without strides every window has an output; later taps then lie further apart instead.
        stride, gap = (1, spread) if dense else (layer.stride, 1)
        fed = h
        if kept is not None and layer.drop_input:
            fed = h * next(masks)[:, None].to(h.dtype)
        if fed is h and (kept is None or not layer.drop_output):
            y = apply(h, weight, bias, stride=stride, gap=gap, skip=layer.skip, bend=layer.gelu)
        else:
            y = apply(fed, weight, bias, stride=stride, gap=gap)
            if layer.drop_output:
                y = y * next(masks)[:, None].to(y.dtype)
            if layer.skip == "inner":
                y = y + crop(h, y, layer.kernel, gap)
            if layer.gelu:
                y = gelu(y)
            if layer.skip == "outer":
                y = y + crop(h, y, layer.kernel, gap)
        if layer.mean:
            y = torch.cat([y, h[:, ::stride][:, : y.shape[1]]], dim=-1)
        h, spread = y, spread * layer.stride
    return _finish(ARCHITECTURES[spec.architecture], h)


def _finish(architecture: Architecture, h: Tensor) -> Tensor:
    squash = architecture.squash
    if squash is not None or not architecture.normalise:
        h = h.float() if h.dtype == torch.bfloat16 else h
    if squash == "tanh":
        h = torch.tanh(h)
    elif squash == "relu":
        h = torch.relu(h)
    elif squash is not None:
        h = hardtanh(h, squash[0], squash[1])
    return unit(h) if architecture.normalise else h


def _pairs(layers: Sequence[Layer], weights: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of every layer; layers that share have the same ones."""
    wanted = 2 * sum(layer.shares is None for layer in layers)
    if len(weights) != wanted:
        raise ConfigError(f"the encoder has {wanted} weights and biases; found {len(weights)}.")
    own = zip(weights[0::2], weights[1::2], strict=True)
    pairs: list[tuple[Tensor, Tensor]] = []
    for layer in layers:
        pairs.append(next(own) if layer.shares is None else pairs[layer.shares])
    return pairs


# --- CEBRA's names and layouts -------------------------------------------------------------------
def cebra_names(spec: EncoderSpec) -> list[str]:
    """The state-dict keys of CEBRA's module, in the order of grevy's weights.

    Examples
    --------
    >>> cebra_names(EncoderSpec("offset5-model"))[:3]
    ['net.0.weight', 'net.0.bias', 'net.2.module.0.weight']
    """
    own = [layer for layer in spec.layers if layer.shares is None]
    return [f"{layer.name}.{part}" for layer in own for part in ("weight", "bias")]


def to_cebra(spec: EncoderSpec, weights: Sequence[Tensor]) -> dict[str, Tensor]:
    """Weights of one run as CEBRA's module has them: (out, in, kernel), or (out, in) if linear.

    Layers that share weights have the same tensor under each of their names.
    """
    copies = []
    for w in weights:
        turned = w.detach().permute(2, 1, 0) if w.ndim == 3 else w.detach()
        turned = turned[..., 0] if turned.ndim == 3 and turned.shape[2] == 1 else turned
        copies.append(turned.clone(memory_format=torch.contiguous_format))
    return {
        f"{layer.name}.{part}": value
        for layer, pair in zip(spec.layers, _pairs(spec.layers, copies), strict=True)
        for part, value in zip(("weight", "bias"), pair, strict=True)
    }


def from_cebra(spec: EncoderSpec, state_dict: Mapping[str, Tensor]) -> list[Tensor]:
    """The weights in a state dict of CEBRA's module, laid out as `initial_weights` does.

    Raises
    ------
    FormatError
        If a key is missing or unknown, a shape does not fit the encoder, or layers that share
        their weights have different ones; the message names the key.
    """
    keys = {f"{layer.name}.{part}" for layer in spec.layers for part in ("weight", "bias")}
    for word, wrong in (("lack", keys - set(state_dict)), ("have", set(state_dict) - keys)):
        if wrong:
            raise FormatError(
                f"the weights of {spec.architecture} must have its keys alone; these {word} "
                f"'{min(wrong)}' ({len(wrong)} such). Check the architecture."
            )
    first = state_dict[f"{spec.layers[0].name}.weight"]
    n_channels = int(first.shape[1]) if first.ndim > 1 else 0
    found: dict[int, tuple[Tensor, Tensor]] = {}
    for i, (layer, inputs, outputs) in enumerate(_widths(spec, n_channels)):
        shape = (outputs, inputs) if layer.kernel == 1 else (outputs, inputs, layer.kernel)
        pair = (state_dict[f"{layer.name}.weight"], state_dict[f"{layer.name}.bias"])
        for part, value, wanted in zip(("weight", "bias"), pair, (shape, (outputs,)), strict=True):
            if tuple(value.shape) != wanted:
                raise FormatError(
                    f"'{layer.name}.{part}' of {spec.architecture} with {spec.hidden} hidden units "
                    f"and {spec.latents} latents must have shape {wanted}; "
                    f"found {tuple(value.shape)}."
                )
        if layer.shares is None:
            found[i] = pair
        elif not all(map(torch.equal, pair, found[layer.shares])):
            raise FormatError(
                f"'{layer.name}' and '{spec.layers[layer.shares].name}' of {spec.architecture} "
                f"are one layer and must have the same weights; theirs differ."
            )
    ours = [_turned(value.detach().to(torch.float32)) for pair in found.values() for value in pair]
    return [value.clone(memory_format=torch.contiguous_format) for value in ours]


def _turned(value: Tensor) -> Tensor:
    """A view of one of CEBRA's tensors: (out, in[, kernel]) as (kernel, in, out), a bias as is."""
    return (
        value.permute(2, 1, 0) if value.ndim == 3 else value.T[None] if value.ndim == 2 else value
    )


class Encoder(nn.Module):
    """One trained encoder as a torch module, with the state dict of CEBRA's own.

    Its parameters are a copy of `weights` in torch's layout. It starts in evaluation mode; in
    training mode it drops channels where the architecture does, by torch's random numbers.

    Parameters
    ----------
    spec : EncoderSpec
    weights : sequence of tensors
        Of one run, as from `initial_weights`.

    Attributes
    ----------
    num_input, num_output : int
        Channels and latents.

    Examples
    --------
    >>> spec = EncoderSpec("offset10-model", latents=3)
    >>> encoder = Encoder(spec, initial_weights(spec, 5, seed=0))
    >>> encoder(torch.zeros(2, 5, 10)).shape, encoder(torch.zeros(2, 5, 30)).shape
    (torch.Size([2, 3]), torch.Size([2, 3, 21]))
    """

    def __init__(self, spec: EncoderSpec, weights: Sequence[Tensor]) -> None:
        super().__init__()
        self.spec = spec
        self.num_input, self.num_output = int(weights[0].shape[1]), spec.latents
        tensors = to_cebra(spec, weights)
        for layer in spec.layers:
            *path, last = layer.name.split(".")
            node: nn.Module = self
            for part in path:
                if part not in dict(node.named_children()):
                    node.add_module(part, nn.Module())
                node = node.get_submodule(part)
            if layer.shares is None:
                node.add_module(last, nn.Module())
                for part in ("weight", "bias"):
                    parameter = nn.Parameter(tensors[f"{layer.name}.{part}"])
                    node.get_submodule(last).register_parameter(part, parameter)
            else:
                node.add_module(last, self.get_submodule(spec.layers[layer.shares].name))
        self.eval()

    def get_offset(self) -> ReceptiveField:
        """The samples that one output depends on."""
        return self.spec.field

    def forward(self, x: Tensor) -> Tensor:
        """Embed windows (B, C, W) to (B, D), or stretches (B, C, T) to (B, D, T').

        Encoders that see one sample take (B, C) too. Those that resample give an output every
        `factor` samples.
        """
        if x.ndim == 2 and len(self.spec.field) == 1:
            x = x[..., None]
        if x.ndim != 3 or x.shape[1] != self.num_input:
            raise DataError(
                f"input must have shape (windows, {self.num_input} channels, samples); "
                f"found {tuple(x.shape)}."
            )
        weights = [self.get_parameter(name) for name in cebra_names(self.spec)]
        runs = [_turned(w)[None] for w in weights]
        kept = [
            (torch.rand(1, len(x), width, device=x.device) >= rate).to(x.dtype) / (1 - rate)
            for rate, width in (dropouts(self.spec) if self.training else ())
        ]
        time_first = x.permute(2, 0, 1)[None].contiguous()
        z = encode(self.spec, runs, time_first, kept=kept or None, dense=False)
        z = z[0].permute(1, 2, 0)
        return z[..., 0] if z.shape[-1] == 1 else z
