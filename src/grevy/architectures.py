"""Encoders as data: which layers each architecture has, by the name CEBRA gives it.

Sources: Schneider, Lee & Mathis 2023 (doi:10.1038/s41586-023-06031-6), the "offset" architectures,
and the other families of CEBRA 0.6.1. A linear layer is a convolution with a kernel of one sample,
so one kind of layer serves all of them.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from itertools import product
from typing import Literal

from .windows import ReceptiveField

__all__ = ["ARCHITECTURES", "Architecture", "Layer", "Width", "get_options"]

Width = Literal["hidden", "half", "latents", "10 latents", "30 latents"]


@dataclass(frozen=True)
class Layer:
    """One convolution f, `kernel` samples wide, to `width` channels, and what surrounds it.

    Attributes
    ----------
    name : str
        Of the layer in CEBRA's modules: the part of its state-dict keys before ".weight".
    kernel : int
        Samples; 1 is a linear layer.
    width : str
        Channels out: "hidden" units, "half" of them rounded down, or a multiple of the latents.
    gelu : bool
        Whether the exact GELU follows.
    skip : {"", "outer", "inner"}
        "outer": y = x + gelu(f(x)). "inner": y = gelu(x + f(x)). Here x is cropped to the samples
        that remain, and padded with zero channels or cropped to the width of f(x).
    stride : int
        Samples from one output to the next.
    mean : bool
        Whether every stride-th sample of the input is appended to the output as more channels.
    drop_input, drop_output : float
        Chance that a channel is dropped before f (the skip sees it still), or between f and GELU.
    shares : int or None
        Place of the earlier layer whose weights this one uses; None owns its weights.
    """

    name: str
    kernel: int
    width: Width
    gelu: bool = True
    skip: Literal["", "outer", "inner"] = ""
    stride: int = 1
    mean: bool = False
    drop_input: float = 0.0
    drop_output: float = 0.0
    shares: int | None = None


@dataclass(frozen=True)
class Architecture:
    """Layers, and what becomes of their output.

    Attributes
    ----------
    layers : tuple of Layer
    field : ReceptiveField
        The samples that one output depends on.
    normalise : bool
        Whether the embedding is scaled to unit length.
    squash : None, "tanh", "relu" or (low, high)
        Function applied to each latent; a pair of numbers clips to them.
    factor : int
        Samples from one output to the next when a stretch is encoded in one pass.
    convolutional : bool
        Whether its layers slide along time; False where CEBRA flattens one window.
    listed : bool
        Whether CEBRA's estimator names it among its supported architectures.
    """

    layers: tuple[Layer, ...]
    field: ReceptiveField
    normalise: bool = True
    squash: Literal["tanh", "relu"] | tuple[float, float] | None = None
    factor: int = 1
    convolutional: bool = True
    listed: bool = True


def _stack(
    first: int, skips: int, last: int, *, drop: float = 0.0, drop_each: float = 0.0
) -> tuple[Layer, ...]:
    """A convolution, some with a skip round them, and one to the latents."""
    begin, inner = (3 if drop else 2), (1 if drop_each else 0)
    return (
        Layer("net.0", first, "hidden", drop_output=drop),
        *[
            Layer(f"net.{i}.module.{inner}", 3, "hidden", skip="outer", drop_input=drop_each)
            for i in range(begin, begin + skips)
        ],
        Layer(f"net.{begin + skips}", last, "latents", gelu=False),
    )


def _resampling(skips: int, last: int) -> tuple[Layer, ...]:
    """Two strided convolutions, the first with the input appended, then as `_stack`."""
    return (
        Layer("net.0.layer", 4, "hidden", gelu=False, stride=2, mean=True),
        Layer("net.1", 3, "hidden", stride=2),
        *[Layer(f"net.{i}.module.0", 3, "hidden", skip="outer") for i in range(3, 3 + skips)],
        Layer(f"net.{3 + skips}", last, "latents", gelu=False),
    )


def _dense(*widths: Width, first: int = 1) -> tuple[Layer, ...]:
    """Linear layers with GELU between them; every second module of CEBRA's chain is a GELU."""
    end = len(widths) - 1
    return tuple(
        Layer(f"net.{first + 2 * i}", 1, width, gelu=i < end) for i, width in enumerate(widths)
    )


def _dense_skips(n: int) -> tuple[Layer, ...]:
    """Linear layers, the inner ones with the skip inside the GELU."""
    return (
        Layer("net.1", 1, "hidden"),
        *[Layer(f"net.{3 + 2 * i}.module.0", 1, "hidden", skip="inner") for i in range(n)],
        Layer(f"net.{3 + 2 * n}", 1, "latents", gelu=False),
    )


def _repeated(n: int, *, skip: bool) -> tuple[Layer, ...]:
    """One linear layer applied n times between others.

    CEBRA repeats the module, not its description, so all n have the same weights: kept, because
    the weights of its models mean nothing otherwise.
    """
    end: str = ".module" if skip else ""
    kind: Literal["", "inner"] = "inner" if skip else ""
    return (
        Layer(f"net.1{end}", 1, "hidden", skip=kind),
        *[
            Layer(f"net.{3 + 2 * i}{end}", 1, "hidden", skip=kind, shares=1 if i else None)
            for i in range(n)
        ],
        Layer(f"net.{3 + 2 * n}{end}", 1, "half", skip=kind),
        Layer(f"net.{5 + 2 * n}", 1, "latents", gelu=False),
    )


_POINT = _dense("hidden", "hidden", "half", "latents")
_WIDE = _dense("30 latents", "30 latents", "10 latents", "latents")
_OUTER = (
    Layer("net.1", 1, "hidden"),
    *[Layer(f"net.{i}.module.0", 1, "hidden", skip="outer") for i in range(3, 7)],
    Layer("net.7", 1, "latents", gelu=False),
)
_HALVING = (
    Layer("net.0.layer", 4, "hidden", gelu=False, stride=2, mean=True),
    *_dense("hidden", "hidden", "half", "latents", first=2),
)
_BOUNDS = (1000, 100, 50, 25, 20, 15, 10, 5, 1)


def _point(
    layers: tuple[Layer, ...],
    *,
    normalise: bool = True,
    squash: Literal["tanh", "relu"] | tuple[float, float] | None = None,
    listed: bool = True,
) -> Architecture:
    """An architecture that sees one sample."""
    field = ReceptiveField(0, 1)
    return Architecture(layers, field, normalise, squash, convolutional=False, listed=listed)


def _resample(skips: int, last: int, half: int) -> Architecture:
    field = ReceptiveField(half, half)
    return Architecture(_resampling(skips, last), field, factor=4, listed=False)


_TEN = ReceptiveField(5, 5)
_HALF = Architecture(_HALVING, ReceptiveField(2, 2), factor=2, convolutional=False, listed=False)

ARCHITECTURES: dict[str, Architecture] = {
    "offset1-model": _point(_POINT),
    "offset5-model": Architecture(_stack(2, 1, 2), ReceptiveField(2, 3)),
    "offset10-model": Architecture(_stack(2, 3, 3), _TEN),
    "offset15-model": Architecture(_stack(2, 6, 2), ReceptiveField(7, 8)),
    "offset20-model": Architecture(_stack(2, 8, 3), ReceptiveField(10, 10)),
    "offset36-model": Architecture(_stack(2, 16, 3), ReceptiveField(18, 18)),
    "offset40-model": Architecture(_stack(2, 18, 3), ReceptiveField(20, 20)),
    "offset50-model": Architecture(_stack(2, 23, 3), ReceptiveField(25, 25)),
    "offset36-model-dropout": Architecture(_stack(2, 16, 3, drop=0.1), ReceptiveField(18, 18)),
    "offset36-model-more-dropout": Architecture(
        _stack(2, 16, 3, drop=0.1, drop_each=0.1), ReceptiveField(18, 18)
    ),
    "offset10-model-mse": Architecture(_stack(2, 3, 3), _TEN, normalise=False),
    "offset10-model-mse-tanh": Architecture(_stack(2, 3, 3), _TEN, normalise=False, squash="tanh"),
    "offset1-model-v2": _point(_dense("hidden", "hidden", "hidden", "latents")),
    "offset1-model-v3": _point(_dense_skips(2)),
    "offset1-model-v4": _point(_OUTER),
    "offset1-model-v5": _point(_dense_skips(4)),
    "offset1-model-mse": _point(_WIDE, normalise=False),
    "offset1-model-mse-tanh": _point(_WIDE, normalise=False, squash="tanh"),
    **{
        f"offset1-model-mse-clip-{low}-{high}": _point(_WIDE, normalise=False, squash=(-low, high))
        for low, high in product(_BOUNDS, _BOUNDS)
    },
    **{
        f"offset1-model-mse-{kind}-{n}layers{end}": _point(
            _repeated(n, skip=kind == "resnet"),
            normalise=False,
            squash="tanh" if end else None,
        )
        for kind, n, end in product(("v2", "resnet"), range(1, 11), ("", "-tanh"))
    },
    "offset40-model-4x-subsample": _resample(3, 3, 20),
    "resample-model": _resample(3, 3, 20),
    "offset20-model-4x-subsample": _resample(1, 2, 10),
    "resample5-model": _resample(1, 2, 10),
    "offset4-model-2x-subsample": _HALF,
    "resample1-model": _HALF,
    "supervised1-model": _point(_POINT, normalise=False, squash="relu", listed=False),
    "supervised10-model": Architecture(
        _stack(2, 3, 3), _TEN, normalise=False, squash="relu", listed=False
    ),
}
"""Every architecture by the name CEBRA gives it; the plain ones come first."""


def get_options(pattern: str = "*") -> list[str]:
    """Names of all architectures that match a shell pattern.

    Examples
    --------
    >>> get_options("offset5*")
    ['offset5-model', 'offset50-model']
    """
    return fnmatch.filter(ARCHITECTURES, pattern)
