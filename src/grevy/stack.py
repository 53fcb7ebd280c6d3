"""A stack of runs of one shape, trained as one program.

Runs are stacked on a leading axis: one gather, one batched product a tap, one Adam step on a flat
vector (G, P) serve them all. Each run draws from its own table with its own seed, so what it
computes does not depend on its neighbours. With several sessions every run has one encoder a
session, and one loss over the windows of all.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .config import Adam, Precision, TrainConfig, latent_slices
from .drawing import SESSION, Draw, draw
from .draws import Purpose, uniforms
from .encoders import EncoderSpec, dropouts, encode
from .errors import DivergedError
from .losses import bits_above_chance, info_nce
from .masks import mask_factors
from .model import OptimiserState, Run, SessionEncoder, effective_weights
from .pairs import PairTable
from .windows import Spans, dense_rows

__all__ = ["Activity", "Prepared", "Progress", "product_type", "shape", "train_stack"]

_ROOM = 2**22
"""Draws kept at once, in numbers: long batches are drawn for fewer steps ahead."""
_CHUNK = 50
"""Steps drawn at once; a run's draws do not depend on it."""


class Progress(NamedTuple):
    """How far training is; losses in nats are means over the runs of the last chunk."""

    done: int
    of: int
    positive: float
    negative: float
    temperature: float
    bits: float

    @property
    def total(self) -> float:
        """The loss."""
        return self.positive + self.negative


@dataclass(frozen=True, eq=False)
class Prepared:
    """One run, ready to be stacked with others of its shape."""

    config: TrainConfig
    tables: list[PairTable]
    spans: list[Spans]  # where it trains, for each session
    scaling: list[tuple[Tensor, Tensor]]
    weights: list[list[Tensor]]  # where it starts, one list a session
    frozen: list[int]  # of every session's tensors these are not trained
    start: Run | None  # the run it continues
    parent: str


def shape(run: Prepared) -> object:
    """Runs of equal shape train as one program."""
    probe = _draw(run, torch.tensor([0]))
    layout = tuple((g.start.shape[1], g.outputs) for g in probe.groups)
    c = run.config
    slices = tuple(str(s) for s in latent_slices(c))
    done = 0 if run.start is None else len(run.start.losses)
    sizes = tuple(probe.reference.shape), tuple(probe.negative.shape), probe.others
    kind = (
        c.distance, c.learn_temperature, c.min_temperature, c.adam, c.masks, c.scale, c.precision
    )  # fmt: skip
    # Masks and dropout are drawn with the seed of the stack, so such runs go alone.
    alone = id(run) if c.apart else 0
    return (c.encoder, c.n_steps, layout, slices, sizes, kind, tuple(run.frozen), done, alone)


def _draw(run: Prepared, steps: Tensor) -> Draw:
    c = run.config
    return draw(
        run.tables,
        c.seed,
        steps,
        batch=c.batch_size,
        n_negatives=c.n_negatives,
        block=c.block,
        apart=c.apart,
    )


def _stack_draws(draws: list[Draw], where: torch.device) -> Draw:
    """Draws of G runs as one, every tensor with the runs on its second axis (steps, G, ...)."""

    def stack(parts: list[Tensor]) -> Tensor:
        return torch.stack(parts, dim=1).to(where)

    first = draws[0]
    return Draw(
        groups=tuple(
            replace(g, start=stack([d.groups[i].start for d in draws]))
            for i, g in enumerate(first.groups)
        ),
        reference=stack([d.reference for d in draws]),
        positives=tuple(
            stack([d.positives[i] for d in draws]) for i in range(len(first.positives))
        ),
        negative=stack([d.negative for d in draws]),
        others=first.others,
    )


class _Parameters:
    """All that training changes, in one tensor (G, P), so that Adam is a few large steps.

    `sessions` holds every session's tensors (G, ...) in order, trained ones as leaf views of the
    flat one, frozen ones as they are; a learned temperature is the last column, as the logarithm
    of its inverse.
    """

    def __init__(self, stack: list[Prepared], where: torch.device) -> None:
        runs, config = len(stack), stack[0].config
        frozen = set(stack[0].frozen)
        parts: list[Tensor] = []
        for s in range(len(stack[0].weights)):
            for i in range(len(stack[0].weights[s])):
                if i not in frozen:
                    parts.append(torch.stack([run.weights[s][i] for run in stack]))
        warm = torch.tensor([_first_temperature(run) for run in stack])
        if config.learn_temperature:
            parts.append(torch.stack([_first_sharpness(run) for run in stack]))
        self.flat = torch.cat([p.reshape(runs, -1) for p in parts], dim=1).to(where)
        self.leaves: list[Tensor] = []
        position = 0
        for part in parts:
            size = part[0].numel()
            view = self.flat[:, position : position + size].view(part.shape)
            self.leaves.append(view.detach().requires_grad_())
            position += size
        trained = iter(self.leaves)
        self.sessions = [
            [
                torch.stack([run.weights[s][i] for run in stack]).to(where)
                if i in frozen
                else next(trained)
                for i in range(len(stack[0].weights[s]))
            ]
            for s in range(len(stack[0].weights))
        ]
        self.sharpness = next(trained)[:, 0] if config.learn_temperature else None
        self.fixed = warm.to(where)

    def temperature(self) -> Tensor:
        """Of every run, (G,)."""
        return self.fixed if self.sharpness is None else torch.exp(-self.sharpness)


def _first_temperature(run: Prepared) -> float:
    """A learned temperature starts at its floor if it was set below: there it can still rise."""
    if not run.config.learn_temperature:
        return run.config.temperature
    before = run.start is not None and run.start.config.learn_temperature
    first = run.start.temperature if run.start is not None and before else run.config.temperature
    floor = run.config.min_temperature
    return first if floor is None else max(first, floor)


def _first_sharpness(run: Prepared) -> Tensor:
    """The logarithm of the inverse temperature, (1,), exactly as a run left it."""
    if run.start is not None and run.start.state is not None and len(run.start.state.sharpness):
        floor = run.config.min_temperature
        exact = run.start.state.sharpness
        return exact if floor is None else exact.clamp(max=-math.log(floor))
    return -torch.tensor([_first_temperature(run)]).log()


class _Optimiser:
    """Adam (Kingma & Ba 2015, algorithm 1) for G runs, a learning rate each, in place."""

    def __init__(self, stack: list[Prepared], flat: Tensor) -> None:
        self.adam: Adam = stack[0].config.adam
        self.momentum, self.square = torch.zeros_like(flat), torch.zeros_like(flat)
        self.largest = torch.zeros_like(flat) if self.adam.amsgrad else None
        self.rate = torch.tensor([[run.config.learning_rate] for run in stack], device=flat.device)
        states = [run.start.state for run in stack if run.start is not None]
        known = [s for s in states if s is not None]
        self.taken = 0  # not the run's steps: averages that begin anew are corrected anew
        if len(known) == len(stack):
            self.taken = int(known[0].steps)
            self.momentum[:] = torch.stack([s.momentum for s in known])
            self.square[:] = torch.stack([s.square for s in known])
            if self.largest is not None:
                self.largest[:] = torch.stack([s.largest for s in known])

    def step(self, flat: Tensor, grad: Tensor) -> None:
        """The next update."""
        a = self.adam
        self.taken += 1
        if a.weight_decay:
            grad = grad.add(flat, alpha=a.weight_decay)
        self.momentum.lerp_(grad, 1 - a.beta1)
        self.square.mul_(a.beta2).addcmul_(grad, grad, value=1 - a.beta2)
        square = self.square
        if self.largest is not None:
            square = torch.maximum(self.largest, self.square, out=self.largest)
        size = self.rate / (1 - a.beta1**self.taken)
        root = (square.sqrt() / math.sqrt(1 - a.beta2**self.taken)).add_(a.eps)
        flat.sub_(size * self.momentum / root)

    def state(self, g: int, sharpness: Tensor | None) -> OptimiserState:
        """Of one run, on the CPU."""
        none = torch.empty(0)
        return OptimiserState(
            momentum=self.momentum[g].cpu().clone(),
            square=self.square[g].cpu().clone(),
            largest=none if self.largest is None else self.largest[g].cpu().clone(),
            sharpness=none if sharpness is None else sharpness.detach()[g : g + 1].cpu().clone(),
            steps=torch.tensor([self.taken]),
        )


class Activity:
    """One session's samples on the device, and the means of channels over stretches of them."""

    def __init__(self, samples: Tensor) -> None:
        self.samples = samples
        self._means: dict[bytes, Tensor] = {}
        self._lock = threading.Lock()

    def mean(self, spans: Spans) -> Tensor:
        """Of each channel over the samples of some spans alone, (C,)."""
        with self._lock:
            key = spans.tobytes()
            if key not in self._means:
                some = torch.cat([self.samples[a:b] for a, b in spans.tolist()])
                self._means[key] = some.mean(dim=0, dtype=torch.float64).to(torch.float32)
            return self._means[key]


def product_type(config: TrainConfig, where: torch.device) -> torch.dtype:
    """What products take: bfloat16 where asked for and possible, else float32.

    An encoder that hands its input on, or whose input is masked, takes float32: an offset of the
    channels could not be taken out of it.
    """
    plain = isinstance(config.encoder, EncoderSpec) and config.encoder.folds and not config.masks
    if config.precision == "float32" or not plain:
        return torch.float32
    if config.precision == "bfloat16":
        return torch.bfloat16
    native = where.type == "cpu" and _cpu_has_bfloat16()
    return torch.bfloat16 if native else torch.float32  # on GPUs not before it is measured there


def _cpu_has_bfloat16() -> bool:
    tests = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in tests)


def train_stack(
    activity: list[Activity],
    stack: list[Prepared],
    source: str,
    report: Callable[[int, Progress], None],
) -> list[Run]:
    """Train runs of one shape for their `n_steps`; `report` hears of every chunk of steps."""
    where, first = activity[0].samples.device, stack[0].config
    kind = product_type(first, where)
    runs, n_steps = len(stack), first.n_steps
    n_terms = len(latent_slices(first))
    done = 0 if stack[0].start is None else len(stack[0].start.losses)
    parameters = _Parameters(stack, where)
    optimiser = _Optimiser(stack, parameters.flat)
    scaling = [
        (
            torch.stack([run.scaling[s][0] for run in stack]).to(where),
            torch.stack([run.scaling[s][1] for run in stack]).to(where),
        )
        for s in range(len(activity))
    ]
    # Narrow numbers keep few digits: each channel is taken about its own mean.
    centres = [
        torch.stack([a.mean(run.spans[s]) for run in stack]) if kind == torch.bfloat16 else None
        for s, a in enumerate(activity)
    ]
    ceiling = -math.log(first.min_temperature) if first.min_temperature else math.inf
    losses = torch.zeros(n_steps, runs, n_terms, 2, device=where)
    temperatures = torch.zeros(n_steps, runs, device=where)
    probe = _draw(stack[0], torch.tensor([done]))
    n_negatives = probe.n_negatives
    size = probe.reference.shape[1] * (1 + len(probe.positives)) + n_negatives
    chunk = max(1, min(_CHUNK, _ROOM // (size * runs)))
    for begin in range(0, n_steps, chunk):
        end = min(begin + chunk, n_steps)
        steps = torch.arange(done + begin, done + end)
        triplets = _stack_draws([_draw(run, steps) for run in stack], where)
        for i in range(end - begin):
            temperature = parameters.temperature()
            terms = _loss(
                activity,
                stack,
                parameters.sessions,
                scaling,
                triplets,
                i,
                int(steps[i]),
                temperature,
                centres,
            )
            grads = torch.autograd.grad(terms.sum(), parameters.leaves)
            with torch.no_grad():
                grad = torch.cat([g.reshape(runs, -1) for g in grads], dim=1)
                optimiser.step(parameters.flat, grad)
                if first.learn_temperature:
                    # Projected, not clamped in the loss: at the border the gradient stays alive.
                    parameters.flat[:, -1].clamp_(max=ceiling)
                losses[begin + i], temperatures[begin + i] = terms.detach(), temperature.detach()
        seen = losses[begin:end].cpu().numpy()
        _refuse_divergence(seen, done + begin, stack)
        last = seen[-10:].mean(axis=(0, 1)).sum(axis=0)
        bits = bits_above_chance(float(last.sum()) / n_terms, n_negatives)
        warmth = float(temperatures[end - 1].mean())
        report(end * runs, Progress(0, 0, float(last[0]), float(last[1]), warmth, bits))
    lost = (~torch.isfinite(parameters.flat).all(dim=1)).nonzero()
    if len(lost):  # by the very last update, whose loss nobody computed
        raise _diverged(stack[int(lost[0, 0])].config, done + n_steps - 1)
    final = parameters.temperature().detach().cpu()
    precision: Precision = "bfloat16" if kind == torch.bfloat16 else "float32"
    trained = [[w.detach().cpu() for w in session] for session in parameters.sessions]
    return [
        Run(
            # What "auto" was on this device: the run goes on alike elsewhere.
            config=replace(run.config, precision=precision),
            sessions=tuple(
                SessionEncoder(tuple(w[g].clone() for w in own), *run.scaling[s])
                for s, own in enumerate(trained)
            ),
            losses=losses[:, g].cpu().numpy().copy(),
            temperatures=temperatures[:, g].cpu().numpy().copy(),
            temperature=float(final[g]) if first.learn_temperature else run.config.temperature,
            state=optimiser.state(g, parameters.sharpness),
            n_negatives=n_negatives,
            recording_hash=source,
            parent=run.parent,
        )
        for g, run in enumerate(stack)
    ]


def _loss(
    activity: list[Activity],
    stack: list[Prepared],
    sessions: list[list[Tensor]],
    scaling: list[tuple[Tensor, Tensor]],
    triplets: Draw,
    i: int,
    step: int,
    temperature: Tensor,
    centres: list[Tensor | None],
) -> Tensor:
    """Positive and negative part of every term of the loss of every run, (G, n_terms, 2)."""
    config, runs = stack[0].config, len(stack)
    spec = config.encoder
    # What is masked is zero after scaling, so that it says "mean" and not some far value.
    folds = spec.folds and not config.masks
    weights = []
    for own, (mean, sd), centre in zip(sessions, scaling, centres, strict=True):
        less = mean if centre is None else mean - centre
        weights.append(effective_weights(own, less, sd) if folds else own)
    parts = []
    for k, group in enumerate(triplets.groups):
        s = group.session
        samples, centre = activity[s].samples, centres[s]
        rows = dense_rows(group.start[i], group.outputs, spec.field, len(samples))
        x = samples.index_select(0, rows.flatten()).view(*rows.shape, -1)
        if centre is not None:
            x = (x - centre[:, None, None]).to(torch.bfloat16)
        if config.scale != "none" and not folds:
            x = (x - scaling[s][0][:, None, None]) / scaling[s][1][:, None, None]
        if config.masks:
            x = x * _mask(config, k, step, x)
        kept = _kept(config, k, step, x)
        parts.append(encode(spec, weights[s], x, kept=kept).reshape(runs, -1, spec.latents))
    z = torch.cat(parts, dim=1)

    def pick(places: Tensor) -> Tensor:
        return z.gather(1, places[..., None].expand(-1, -1, spec.latents))

    reference = pick(triplets.reference[i])
    negative = reference if triplets.others else pick(triplets.negative[i])
    terms = []
    for places, part in zip(triplets.positives, latent_slices(config), strict=True):
        loss = info_nce(
            reference[..., part],
            pick(places[i])[..., part],
            negative[..., part],
            temperature=temperature,
            distance=config.distance,
            others=triplets.others,
        )
        terms.append(torch.stack([loss.positive, loss.negative], dim=-1))
    return torch.stack(terms, dim=1)


def _mask(config: TrainConfig, group: int, step: int, x: Tensor) -> Tensor:
    _, window, n, channels = x.shape
    return mask_factors(
        config.masks, config.seed, group, step, window=window, n=n, channels=channels
    ).to(x.device)


def _kept(config: TrainConfig, group: int, step: int, x: Tensor) -> list[Tensor] | None:
    """What dropout leaves of every window's channels, or None without dropout."""
    places = dropouts(config.encoder)
    if not places:
        return None
    kept = []
    for i, (rate, width) in enumerate(places):
        purpose = Purpose.DROPOUT + SESSION * (group * len(places) + i)
        u = uniforms(config.seed, purpose, torch.tensor([step]), x.shape[2] * width)
        factor = (u >= rate).to(torch.float32) / (1 - rate)
        kept.append(factor.reshape(1, x.shape[2], width).to(x.device))
    return kept


def _refuse_divergence(seen: NDArray[np.float32], begin: int, stack: list[Prepared]) -> None:
    bad = np.argwhere(~np.isfinite(seen).all(axis=(2, 3)))
    if len(bad):
        raise _diverged(stack[int(bad[0, 1])].config, int(bad[0, 0]) + begin)


def _diverged(config: TrainConfig, step: int) -> DivergedError:
    return DivergedError(
        f"the loss must stay finite; it did not at step {step} with learning rate "
        f"{config.learning_rate} and temperature {config.temperature}. Use a smaller learning "
        f"rate or a higher temperature."
    )
