"""Encoders as data: a table of layers, the forward pass of G of them at once, first weights.

Source: Schneider, Lee & Mathis 2023 (doi:10.1038/s41586-023-06031-6), "offset" architectures. A
linear layer is a convolution with a kernel of one sample, so one kind of layer serves all of them.
Activity is laid out time first, (runs, time, segments, channels): every tap of a convolution is
then one matrix product on a contiguous slice, for all segments and runs together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import gelu, normalize

from .draws import Purpose, uniforms
from .errors import ConfigError
from .windows import ReceptiveField

__all__ = ["ARCHITECTURES", "EncoderSpec", "Layer", "encode", "initial_weights", "layer_shapes"]

Width = Literal["hidden", "half", "latents"]


@dataclass(frozen=True)
class Layer:
    """One convolution: `kernel` samples wide, to `width` channels, then GELU, maybe a skip.

    With a skip the layer's input, cropped to the samples that remain, is added to its output.
    """

    kernel: int
    width: Width
    gelu: bool = True
    skip: bool = False


def _stack(first: int, skips: int, last: int) -> tuple[Layer, ...]:
    return (
        Layer(first, "hidden"),
        *[Layer(3, "hidden", skip=True)] * skips,
        Layer(last, "latents", gelu=False),
    )


ARCHITECTURES: dict[str, tuple[tuple[Layer, ...], ReceptiveField]] = {
    "offset1-model": (
        (
            Layer(1, "hidden"),
            Layer(1, "hidden"),
            Layer(1, "half"),
            Layer(1, "latents", gelu=False),
        ),
        ReceptiveField(0, 1),
    ),
    "offset5-model": (_stack(2, 1, 2), ReceptiveField(2, 3)),
    "offset10-model": (_stack(2, 3, 3), ReceptiveField(5, 5)),
}
"""Layers and receptive field of each architecture, by the name CEBRA gives it."""


@dataclass(frozen=True)
class EncoderSpec:
    """An encoder's shape, without the number of input channels.

    Attributes
    ----------
    architecture : str
        A name in `ARCHITECTURES`.
    hidden : int
        Hidden units, at least 2.
    latents : int
        Dimensions of the embedding, at least 1.

    Raises
    ------
    ConfigError
        If the name is unknown or a number too small.
    """

    architecture: str = "offset10-model"
    hidden: int = 32
    latents: int = 8

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise ConfigError(f"architecture must be one of {known}; found '{self.architecture}'.")
        if self.hidden < 2 or self.latents < 1:
            raise ConfigError(
                f"an encoder needs at least 2 hidden units and 1 latent; "
                f"found {self.hidden} and {self.latents}."
            )

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers in order."""
        return ARCHITECTURES[self.architecture][0]

    @property
    def field(self) -> ReceptiveField:
        """The samples that one output depends on."""
        return ARCHITECTURES[self.architecture][1]


def layer_shapes(spec: EncoderSpec, n_channels: int) -> list[tuple[int, int, int]]:
    """(kernel, inputs, outputs) of every layer."""
    widths = {"hidden": spec.hidden, "half": spec.hidden // 2, "latents": spec.latents}
    shapes, inputs = [], n_channels
    for layer in spec.layers:
        shapes.append((layer.kernel, inputs, widths[layer.width]))
        inputs = widths[layer.width]
    return shapes


def initial_weights(spec: EncoderSpec, n_channels: int, seed: int) -> list[Tensor]:
    """First weights and biases: uniform within one over the root of the fan-in, as torch's layers.

    Parameters
    ----------
    spec : EncoderSpec
    n_channels : int
        C, channels of the recording.
    seed : int
        Weights are a pure function of it.

    Returns
    -------
    list of float32 tensors
        For each layer a weight of shape (kernel, inputs, outputs) and a bias of shape (outputs,).
    """
    weights = []
    for i, (kernel, inputs, outputs) in enumerate(layer_shapes(spec, n_channels)):
        bound = 1 / math.sqrt(kernel * inputs)
        n = kernel * inputs * outputs
        u = uniforms(seed, Purpose.WEIGHTS, torch.tensor([i]), n + outputs)[0]
        values = ((2 * u - 1) * bound).to(torch.float32)
        weights += [values[:n].reshape(kernel, inputs, outputs), values[n:]]
    return weights


class _Convolve(torch.autograd.Function):
    """Convolution along time as one matrix product a tap, with gradients that are products too.

    x (G, S, n, C), weight (G, k, C, H), bias (G, H) -> (G, S - k + 1, n, H).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        runs, time, n, channels = x.shape
        kernel, left = weight.shape[1], time - weight.shape[1] + 1
        out = bias[:, None].expand(-1, left * n, -1)
        for tap in range(kernel):
            out = torch.baddbmm(
                out, x[:, tap : tap + left].reshape(runs, left * n, channels), weight[:, tap]
            )
        ctx.save_for_backward(x, weight)
        return out.view(runs, left, n, -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        runs, time, n, channels = x.shape
        kernel, left = weight.shape[1], time - weight.shape[1] + 1
        grad = gradients[0].reshape(runs, left * n, -1)
        taps = [
            x[:, tap : tap + left].reshape(runs, left * n, channels).transpose(1, 2)
            for tap in range(kernel)
        ]
        grad_weight = torch.stack([torch.bmm(tap, grad) for tap in taps], dim=1)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.zeros_like(x)
            for tap in range(kernel):
                part = grad_x[:, tap : tap + left]
                part += torch.bmm(grad, weight[:, tap].transpose(1, 2)).view_as(part)
        return grad_x, grad_weight, grad.sum(dim=1)


def encode(spec: EncoderSpec, weights: Sequence[Tensor], x: Tensor) -> Tensor:
    """Embed every window of some segments, for G encoders of one shape.

    Parameters
    ----------
    spec : EncoderSpec
    weights : sequence of tensors
        As from `initial_weights`, each with a leading axis of G runs.
    x : float tensor, shape (G, S, n, C)
        n segments of S samples for each run.

    Returns
    -------
    float tensor, shape (G, S - W + 1, n, D)
        Unit length along the last axis. W is the length of the receptive field.
    """
    h = x
    for layer, weight, bias in zip(spec.layers, weights[0::2], weights[1::2], strict=True):
        y = _convolve(h, weight, bias)
        if layer.gelu:
            y = gelu(y)
        if layer.skip:
            crop = (layer.kernel - 1) // 2
            y = y + h[:, crop : crop + y.shape[1]]
        h = y
    return normalize(h, dim=-1, eps=1e-12)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return _Convolve.apply(x, weight, bias)  # type: ignore[no-any-return, no-untyped-call]
