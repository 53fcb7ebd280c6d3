"""A whole step on a GPU as few kernels, in buffers made once.

The usual step (one session, windows drawn one by one, unit vectors, cosine similarity) needs none
of what autograd is for: every gradient is known, and so is its place. Here a step is a gather, a
product a layer forwards, InfoNCE with its gradient in two passes, two products a layer backwards,
and one update. It computes what `stack` does with torch's operations, by which it is tested.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .config import TrainConfig, latent_slices
from .drawing import Draw
from .draws import Purpose
from .encoders import ARCHITECTURES, EncoderSpec, dropouts
from .optimiser import Optimiser, Parameters
from .pairs import PairTable, TimePairs

__all__ = ["Fused", "Places", "Scaled", "drawn_on", "places_of"]

_BESIDE = 2
"""Streams for the gradients by weights, which nothing waits for until the update."""
_MOST = 2**31 - 1
"""Numbers of one run in a layer: places are counted in 32 bits."""
_ALIGNED = 16
"""Channels of the first layer's input are filled up to a multiple of this."""


class Places(NamedTuple):
    """Where the roles begin in the flat list of embedded windows; the references come first."""

    batch: int
    positive: int
    negative: int
    n_negatives: int


class Scaled(NamedTuple):
    """What the first layer sees of x: (x - offset) * factor + centre, (G, C) each or None.

    The centre is added where sums are wide, so that narrow numbers lie about zero.
    """

    offset: Tensor | None
    factor: Tensor | None
    centre: Tensor | None


def places_of(config: TrainConfig, probe: Draw, channels: int) -> Places | None:
    """The places of every step, if they are always the same and the step is a usual one.

    Parameters
    ----------
    config : TrainConfig
    probe : Draw
        Of any step.
    channels : int
        Of the recording.

    Returns
    -------
    Places, or None for steps that `Fused` does not know.
    """
    spec = config.encoder
    if not isinstance(spec, EncoderSpec) or dropouts(spec) or config.masks:
        return None
    architecture = ARCHITECTURES[spec.architecture]
    if not architecture.normalise or architecture.squash or any(x.mean for x in spec.layers):
        return None
    if config.distance != "cosine" or config.block != 1 or config.batch_size is None:
        return None
    if len(probe.groups) != 1 or len(latent_slices(config)) != 1:
        return None
    pairs = config.pairs
    if isinstance(pairs, TimePairs) and len(pairs.offsets) > 1 and probe.groups[0].outputs > 1:
        return None  # a positive's place depends on the offset that was drawn
    group = probe.groups[0]
    rows = group.start.shape[1] * (group.outputs + len(spec.field) - 1)
    if rows * max(channels + _ALIGNED, spec.hidden, 30 * spec.latents) > _MOST:
        return None
    roles = (probe.reference[0], probe.positives[0][0], probe.negative[0])
    begins = [int(role[0]) for role in roles]
    for role, begin in zip(roles, begins, strict=True):
        if not torch.equal(role, begin + torch.arange(len(role))):
            return None
    if begins[0] != 0 or (begins[2] == 0) != (probe.others == 1):
        return None
    return Places(len(roles[0]), begins[1], begins[2], len(roles[2]))


def drawn_on(
    gpu: ModuleType,
    runs: Sequence[tuple[PairTable, int]],
    places: Places,
    outputs: int,
    where: torch.device,
) -> Callable[[Tensor, int], None] | None:
    """What draws the centres of steps on the device, where that is a look-up by a random number.

    Parameters
    ----------
    gpu : module
        The kernels.
    runs : sequence of (PairTable, int)
        Table and seed of each of G runs.
    places : Places
    outputs : int
        Windows of each segment.
    where : torch.device

    Returns
    -------
    callable or None
        Fills a table (steps, G, n) from a step number on, as `drawing.draw` would. None for pairs
        whose positives are looked for.
    """
    pairs = [table.pairs for table, _ in runs]
    if not all(isinstance(p, TimePairs) and len(p.offsets) == 1 for p in pairs):
        return None
    tables: list[NDArray[np.int64]] = []
    base, which = [0], []
    for table, _ in runs:
        same = (i for i, t in enumerate(tables) if np.array_equal(t, table.anchors))
        which.append(next(same, len(tables)))
        if which[-1] == len(tables):
            tables.append(table.anchors)
            base.append(base[-1] + len(table.anchors))

    def whole(numbers: Sequence[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.int64, device=where)

    anchors = torch.from_numpy(np.concatenate(tables)).to(where)
    seed = torch.from_numpy(np.array([s % 2**64 for _, s in runs], np.uint64).view(np.int64))
    seed, begin = seed.to(where), whole([base[i] for i in which])
    count = whole([len(tables[i]) for i in which])
    reach = whole([max(p.offsets) for p in pairs if isinstance(p, TimePairs)])
    apart = outputs == 1  # a positive is a window of its own, else it lies in its segment

    def fill(table: Tensor, first: int) -> None:
        gpu.draw_centres(
            table, anchors, seed, begin, count, first=first, purpose=int(Purpose.REFERENCE),
            n=places.batch, at=0, later=reach if apart else None, beside=places.positive,
        )  # fmt: skip
        if places.negative:
            gpu.draw_centres(
                table, anchors, seed, begin, count, first=first, purpose=int(Purpose.NEGATIVE),
                n=places.n_negatives, at=places.negative,
            )  # fmt: skip

    return fill


@dataclass(frozen=True, eq=False)
class _Stage:
    """One layer: what it computes, its weights, and room for all that it makes."""

    taps: int
    channels: int
    gap: int
    skip: str
    bend: bool
    weight: Tensor  # (G, k, C, H), narrow where products are
    bias: Tensor  # (G, H)
    to_weight: Tensor  # (splits, G, k C H), its gradient in parts
    to_bias: Tensor
    y: Tensor  # (G, S', n, H)
    bent: Tensor | None  # what went into GELU
    grad: Tensor  # by that, or by y without GELU
    outer: Tensor  # by y; the same tensor without GELU


class Fused:
    """A step of G runs, ready to be done again and again.

    Parameters
    ----------
    gpu : module
        The kernels.
    config : TrainConfig
        Of any of the runs.
    parameters, optimiser : Parameters, Optimiser
        Of all of them; changed by a step.
    places : Places
    scaled : Scaled
    segments, outputs : int
        Segments a run draws, and windows of each.
    sharp : float32 tensor, shape (G,)
        One over the temperature.
    ceiling : float
        The largest logarithm of it, where it is learned.
    seen : float32 tensor, shape (steps, G, 3)
        Takes both parts of the loss, and the temperature.
    kind : torch.dtype
        Of activity and products.
    """

    def __init__(
        self,
        gpu: ModuleType,
        config: TrainConfig,
        parameters: Parameters,
        optimiser: Optimiser,
        places: Places,
        scaled: Scaled,
        *,
        segments: int,
        outputs: int,
        sharp: Tensor,
        ceiling: float,
        seen: Tensor,
        kind: torch.dtype,
    ) -> None:
        assert isinstance(config.encoder, EncoderSpec)
        self.gpu, self.spec, self.parameters = gpu, config.encoder, parameters
        self.optimiser, self.places, self.scaled = optimiser, places, scaled
        self.sharp, self.ceiling, self.seen = sharp, ceiling, seen
        flat = parameters.flat
        runs, where = len(flat), flat.device
        time = outputs + len(self.spec.field) - 1
        channels = int(parameters.sessions[0][0].shape[2])
        wide = -(-channels // _ALIGNED) * _ALIGNED
        self.x = torch.zeros(runs, time, segments, wide, dtype=kind, device=where)
        self.narrow = None if kind == torch.float32 else flat.to(kind)
        self.stages, self.parts = _stages(self, time, segments, kind)
        h = self.stages[-1].y.flatten(1, 2)
        self.own = torch.empty(runs, places.batch, h.shape[2], device=where)
        self.told = torch.empty(runs, 3, places.batch, device=where)
        self.beside = [torch.cuda.Stream(where) for _ in range(_BESIDE)] if flat.is_cuda else []  # type: ignore[no-untyped-call]

    def step(self, samples: Tensor, start: Tensor, place: Tensor, number: Tensor) -> None:
        """One step: samples (T, C), first centres (steps, G, n), which row of them, its number."""
        gpu, scaled, learned = self.gpu, self.scaled, self.parameters.sharpness
        gpu.gather(
            samples, start, scaled.offset, factor=scaled.factor, place=place, out=self.x,
            before=self.spec.field.left, time=self.x.shape[1], kind=self.x.dtype,
        )  # fmt: skip
        h = self.x
        for i, s in enumerate(self.stages):
            gpu.convolve(
                h, s.weight, s.bias, gap=s.gap, skip=s.skip, bend=s.bend, keep=True,
                centre=scaled.centre if i == 0 else None, out=(s.y, s.bent),
            )  # fmt: skip
            h = s.y
        if learned is not None:
            torch.exp(learned.detach(), out=self.sharp)
        last, p = self.stages[-1], self.places
        gpu.contrast(
            last.y.flatten(1, 2), last.grad.flatten(1, 2), self.own, self.told, self.sharp,
            positive=p.positive, negative=p.negative, n_negatives=p.n_negatives,
        )  # fmt: skip
        with self._beside(0):
            slope = None if learned is None else self.parts[0, :, -1]
            gpu.tell(self.told, self.sharp, self.seen, number, slope)
        self._back()
        flat = self.parameters.flat
        self.optimiser.step(flat, self.parts, number, self.narrow)
        if learned is not None:
            flat[:, -1].clamp_(max=self.ceiling)

    def _back(self) -> None:
        """Every gradient by weights, from that by the latents."""
        for i in reversed(range(len(self.stages))):
            s = self.stages[i]
            below = self.stages[i - 1] if i else None
            with self._beside(i):
                self.gpu.weigh(
                    self.x if below is None else below.y, s.grad, taps=s.taps, gap=s.gap,
                    channels=s.channels, centre=None if i else self.scaled.centre,
                    out=(s.to_weight, s.to_bias),
                )  # fmt: skip
            if below is not None:
                bends, wanted = below.bend, not below.bend or below.skip == "outer"
                self.gpu.spread(
                    s.grad, s.weight, {"": None, "inner": s.grad, "outer": s.outer}[s.skip],
                    time=below.y.shape[1], gap=s.gap, bent=below.bent,
                    out=(below.outer if wanted else None, below.grad if bends else None),
                )  # fmt: skip
        for stream in self.beside:
            torch.cuda.current_stream().wait_stream(stream)

    @contextmanager
    def _beside(self, i: int) -> Iterator[None]:
        """On a stream that goes on from here while this one goes on too."""
        if not self.beside:
            yield
            return
        stream = self.beside[i % len(self.beside)]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            yield


def _stages(
    fused: Fused, time: int, segments: int, kind: torch.dtype
) -> tuple[list[_Stage], Tensor]:
    """The layers with their buffers, and the parts of the gradient, (parts, G, P)."""
    spec, flat, gpu = fused.spec, fused.parameters.flat, fused.gpu
    runs, where, leaves = len(flat), flat.device, fused.parameters.sessions[0]
    owners: list[int] = []
    owned = 0
    for layer in spec.layers:
        owners.append(owned if layer.shares is None else owners[layer.shares])
        owned += layer.shares is None
    shapes, gap = [], 1
    for layer, owner in zip(spec.layers, owners, strict=True):
        taps, channels, width = leaves[2 * owner].shape[1:]
        time -= (taps - 1) * gap
        shapes.append((time, gap, gpu.n_splits(time * segments, taps, channels, width, runs)))
        gap *= layer.stride
    taken = [0] * owned
    for owner, (_, _, splits) in zip(owners, shapes, strict=True):
        taken[owner] += splits  # layers that share weights add to one gradient
    parts = torch.zeros(max(taken), *flat.shape, device=where)
    taken, stages = [0] * owned, []
    for i, (layer, owner) in enumerate(zip(spec.layers, owners, strict=True)):
        time, gap, splits = shapes[i]
        weight, bias = leaves[2 * owner], leaves[2 * owner + 1]
        _, taps, channels, width = weight.shape
        own = parts[taken[owner] : taken[owner] + splits]
        taken[owner] += splits
        at_weight, at_bias = weight.storage_offset(), bias.storage_offset()
        y = torch.empty(runs, time, segments, width, dtype=kind, device=where)
        grad = torch.zeros_like(y)
        fed = weight.detach()
        # Those that meet a centre are made narrow where they are used.
        if fused.narrow is not None and (i or fused.scaled.centre is None):
            fed = fused.narrow[:, at_weight : at_weight + fed[0].numel()].view(fed.shape)
        stages.append(
            _Stage(
                taps=taps, channels=channels, gap=gap, skip=layer.skip, bend=layer.gelu,
                weight=fed, bias=bias.detach(),
                to_weight=own[..., at_weight : at_weight + weight[0].numel()],
                to_bias=own[..., at_bias : at_bias + width],
                y=y, bent=torch.empty_like(y) if layer.gelu else None, grad=grad,
                outer=torch.empty_like(y) if layer.gelu and layer.skip == "outer" else grad,
            )
        )  # fmt: skip
    return stages, parts
