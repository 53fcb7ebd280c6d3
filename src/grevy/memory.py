"""What training will take, told before it is taken, and what there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .config import TrainConfig
from .drawing import Segments
from .encoders import EncoderSpec, layer_shapes
from .room import free_bytes

__all__ = ["Memory", "available", "layers_need", "least_need"]


@dataclass(frozen=True)
class Memory:
    """Bytes that a stack of runs takes beside the recording, by what they are for.

    Attributes
    ----------
    windows : int
        The samples of one step.
    layers : int
        What the layers keep for their gradients, and the largest of these.
    parameters : int
        Weights, gradients and the averages of Adam.
    draws : int
        Of the steps that are drawn at once.
    loss : int
        Similarities held at once.
    staged : int
        Samples brought to a device that has no room for the recording.
    """

    windows: int
    layers: int
    parameters: int
    draws: int
    loss: int
    staged: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return sum(vars(self).values())

    def __str__(self) -> str:
        parts = sorted(vars(self).items(), key=lambda item: -item[1])
        largest = ", ".join(f"{name} {size / 1e9:.2g}" for name, size in parts[:2])
        return f"{self.total / 1e9:.2g} GB ({largest})"


def layers_need(
    spec: EncoderSpec, groups: Sequence[Segments], channels: Sequence[int], width: int
) -> tuple[int, int]:
    """Bytes of the windows and of the layers of one run and step.

    Parameters
    ----------
    spec : EncoderSpec
    groups : sequence of Segments
        Of one step.
    channels : sequence of int
        Of each session.
    width : int
        Bytes of a number: 2 or 4.

    Returns
    -------
    windows, layers : int
    """
    windows = layers = 0
    for group in groups:
        n, time = group.start.shape[1], group.outputs + len(spec.field) - 1
        # Narrow windows are made of wide ones.
        windows += time * n * channels[group.session] * (width if width == 4 else width + 8)
        kept, largest, spread = 0, time * n * channels[group.session], 1
        for layer, (kernel, _, outputs) in zip(
            spec.layers, _all_shapes(spec, channels[group.session]), strict=True
        ):
            time -= (kernel - 1) * spread
            spread *= layer.stride
            kept += time * n * outputs * (2 if layer.gelu else 1)
            largest = max(largest, time * n * outputs)
        layers += width * (kept + 3 * largest)
    return windows, layers


def least_need(config: TrainConfig, channels: Sequence[int]) -> Memory | None:
    """What a run takes at least, told before anything of it is made; None for custom modules.

    Parameters
    ----------
    config : TrainConfig
    channels : sequence of int
        Of each session.
    """
    spec = config.encoder
    if not isinstance(spec, EncoderSpec):
        return None
    weights = sum(
        (kernel * inputs + 1) * outputs
        for n in channels
        for kernel, inputs, outputs in layer_shapes(spec, n)
    )
    batch = config.batch_size or 0
    places = 2 * batch + (config.n_negatives or batch)
    # Where they are drawn a weight takes as much as where it is trained.
    return Memory(windows=0, layers=0, parameters=24 * weights, draws=16 * places, loss=0)


def _all_shapes(spec: EncoderSpec, channels: int) -> list[tuple[int, int, int]]:
    """`layer_shapes` with those of layers that share their weights."""
    own = iter(layer_shapes(spec, channels))
    shapes: list[tuple[int, int, int]] = []
    for layer in spec.layers:
        shapes.append(next(own) if layer.shares is None else shapes[layer.shares])
    return shapes


def available(where: torch.device) -> int:
    """Bytes that may still be taken there: the least of what is free and what is allowed."""
    if where.type == "cuda":
        return int(torch.cuda.mem_get_info(where)[0])
    return free_bytes()
