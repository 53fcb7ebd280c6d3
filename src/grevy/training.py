"""The one trainer: G runs of one shape as one program. A single fit is the case G = 1.

Runs are stacked on a leading axis: one gather, one batched product a tap, one Adam step on a flat
vector (G, P) serve them all. Each run draws from its own table with its own seed, so what it
computes does not depend on its neighbours. With several sessions every run has one encoder a
session, and one loss over the windows of all.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .config import Adam, TrainConfig, latent_slices
from .custom import ModuleSpec
from .drawing import SESSION, Draw, draw
from .draws import Purpose, uniforms
from .encoders import dropouts, encode, initial_weights
from .errors import ConfigError, DivergedError
from .losses import bits_above_chance, info_nce
from .masks import check_masks, mask_factors
from .model import (
    OptimiserState,
    Run,
    SessionEncoder,
    activity_tensor,
    choose_device,
    effective_weights,
    fingerprint,
)
from .pairs import PairTable, prepare_sessions
from .recording import Recording
from .windows import Spans, dense_rows, within

__all__ = ["Progress", "adapt", "resume", "train"]

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
class _Prepared:
    """One run, ready to be stacked with others of its shape."""

    config: TrainConfig
    tables: list[PairTable]
    scaling: list[tuple[Tensor, Tensor]]
    weights: list[list[Tensor]]  # where it starts, one list a session
    frozen: list[int]  # of every session's tensors these are not trained
    start: Run | None  # the run it continues
    parent: str


OnStep = Callable[[Progress], None]


def train(
    recordings: Sequence[Recording],
    configs: Sequence[TrainConfig],
    *,
    device: str = "auto",
    on_step: OnStep | None = None,
) -> list[Run]:
    """Train one run a configuration; runs of one shape train together.

    Parameters
    ----------
    recordings : sequence of Recording
        One a session. Several need pairs with a label, which aligns them; every run then has an
        encoder for each.
    configs : sequence of TrainConfig
        Grids, seeds, folds and nulls are longer lists.
    device : str
        "auto", "cpu", "cuda" or "cuda:N".
    on_step : callable, optional
        Called every few dozen steps with a `Progress`.

    Returns
    -------
    list of Run
        In the order of `configs`.

    Raises
    ------
    ConfigError
        If there is no recording, or a setting does not fit them.
    DataError
        If a label is missing or no sample can be trained on.
    DivergedError
        If a loss or a weight stops being finite; says at which step.
    """
    prepared = []
    for config in configs:
        weights = [
            initial_weights(config.encoder, r.n_channels, config.seed, session=s)
            for s, r in enumerate(recordings)
        ]
        prepared.append(_prepare(recordings, config, weights))
    return _train(recordings, prepared, device, on_step)


def resume(
    run: Run,
    recordings: Sequence[Recording],
    n_steps: int,
    *,
    config: TrainConfig | None = None,
    device: str = "auto",
    on_step: OnStep | None = None,
) -> Run:
    """Train a run for more steps on (new) recordings of the same sessions.

    The optimiser and the count of steps go on, so that training twice for n steps on one
    recording gives what training for 2 n steps gives. A run without the optimiser's state begins
    with a fresh one; one that was adapted goes on with its first layer alone.

    Parameters
    ----------
    run : Run
    recordings : sequence of Recording
        As many, and with as many channels, as the run was trained on.
    n_steps : int
    config : TrainConfig, optional
        Other settings from here on, for the same encoder.
    device, on_step
        As in `train`.

    Returns
    -------
    Run
        With the history of both.

    Raises
    ------
    ConfigError
        If sessions or channels differ from the run's, or so much of the settings that its losses
        or its optimiser cannot go on.
    DataError, DivergedError
        As in `train`.
    """
    theirs = [r.n_channels for r in recordings]
    ours = [s.n_channels for s in run.sessions]
    if theirs != ours:
        raise ConfigError(
            f"training goes on with as many channels in every session as before, {ours}; found "
            f"{theirs}. Adapt the model to other neurons instead."
        )
    config = replace(run.config if config is None else config, n_steps=n_steps)
    if config.encoder != run.config.encoder:
        raise ConfigError("training goes on with the encoder it began with.")
    if len(latent_slices(config)) != len(latent_slices(run.config)):
        raise ConfigError(
            f"training goes on with as many terms of the loss as before; found "
            f"{config.pairs.kind} pairs after {run.config.pairs.kind} pairs. Train anew, or adapt."
        )
    frozen = _kept_before(run, config)
    weights = [list(s.weights) for s in run.sessions]
    prepared = _prepare(recordings, config, weights, frozen=frozen, start=run, parent=run.digest)
    (more,) = _train(recordings, [prepared], device, on_step)
    return replace(
        more,
        config=replace(config, n_steps=len(run.losses) + n_steps),
        losses=np.concatenate([run.losses, more.losses]),
        temperatures=np.concatenate([run.temperatures, more.temperatures]),
    )


def _kept_before(run: Run, config: TrainConfig) -> list[int]:
    """Tensors of every session that a run did not train, as the state of its optimiser shows."""
    if run.state is None:
        return []
    learned = int(config.learn_temperature)
    found = len(run.state.momentum)
    everything = sum(w.numel() for session in run.sessions for w in session.weights)
    first = sum(w.numel() for session in run.sessions for w in session.weights[:2])
    if found not in (everything + learned, first + learned):
        raise ConfigError(
            f"training goes on with the {found} numbers it trained before, a learned temperature "
            f"among them or not; found {everything + learned}. Keep `learn_temperature` as it was."
        )
    if config.adam.amsgrad and not len(run.state.largest):
        raise ConfigError("training goes on with amsgrad only where it began with it.")
    return [] if found == everything + learned else list(range(2, len(run.sessions[0].weights)))


def adapt(
    run: Run,
    recordings: Sequence[Recording],
    config: TrainConfig,
    *,
    device: str = "auto",
    on_step: OnStep | None = None,
) -> Run:
    """Fit the first layer anew to other neurons, with the rest of a trained encoder kept.

    Source: Schneider, Lee & Mathis 2023, "unseen animals". The first layer is all that depends on
    which neurons were recorded.

    Parameters
    ----------
    run : Run
        Not changed.
    recordings : sequence of Recording
        New sessions. If they are as many as the run's, each keeps the rest of the encoder with
        its number; else all keep that of the run's first.
    config : TrainConfig
        With the run's encoder; `n_steps` and pairs may differ.
    device, on_step
        As in `train`.

    Returns
    -------
    Run

    Raises
    ------
    ConfigError
        If the encoders differ, or the encoder is a custom module (whose first layer is unknown).
    DataError, DivergedError
        As in `train`.
    """
    if config.encoder != run.config.encoder:
        raise ConfigError("a model is adapted with the encoder it was trained with.")
    if isinstance(config.encoder, ModuleSpec):
        raise ConfigError("a custom module cannot be adapted: its first layer is not known.")
    if not recordings:
        raise ConfigError("a model is adapted to at least one recording; found none.")
    weights = []
    for s, recording in enumerate(recordings):
        kept = run.sessions[s if len(recordings) == len(run.sessions) else 0].weights
        new = initial_weights(config.encoder, recording.n_channels, config.seed, session=s)
        wrong = [i for i in range(2, len(new)) if new[i].shape != kept[i].shape]
        if wrong:
            raise ConfigError(
                f"in {config.encoder.architecture} layers after the first depend on the number of "
                f"channels too, so it adapts only to {run.sessions[0].n_channels} channels; "
                f"found {recording.n_channels}."
            )
        weights.append([*new[:2], *kept[2:]])
    frozen = list(range(2, len(weights[0])))
    prepared = _prepare(recordings, config, weights, frozen=frozen, parent=run.digest)
    return _train(recordings, [prepared], device, on_step)[0]


def _train(
    recordings: Sequence[Recording],
    prepared: list[_Prepared],
    device: str,
    on_step: OnStep | None,
) -> list[Run]:
    where = choose_device(device)
    groups: dict[object, list[int]] = {}
    for i, run in enumerate(prepared):
        groups.setdefault(_shape(run), []).append(i)
    total = sum(run.config.n_steps for run in prepared)
    source = "+".join(fingerprint(r) for r in recordings)
    activity = [activity_tensor(r).to(where) for r in recordings]
    threads = torch.get_num_threads() if where.type == "cpu" else 1
    parts = [part for members in groups.values() for part in _parts(members, threads)]
    steps_done, lock = [0] * len(parts), threading.Lock()

    def work(place: int) -> list[Run]:
        def report(steps: int, part: Progress) -> None:
            with lock:
                steps_done[place] = steps
                if on_step is not None:
                    on_step(part._replace(done=sum(steps_done), of=total))

        return _train_stack(activity, [prepared[i] for i in parts[place]], source, report)

    if threads == 1 or len(parts) == 1:
        trained = [work(place) for place in range(len(parts))]
    else:
        # Runs are independent, so one thread each beats threads that wait for one another inside
        # every small product; and it does not crawl on a busy machine.
        try:
            with ThreadPoolExecutor(
                threads, initializer=torch.set_num_threads, initargs=(1,)
            ) as pool:
                trained = list(pool.map(work, range(len(parts))))
        finally:
            torch.set_num_threads(threads)
    runs = {
        i: run
        for part, each in zip(parts, trained, strict=True)
        for i, run in zip(part, each, strict=True)
    }
    return [runs[i] for i in range(len(prepared))]


def _parts(members: list[int], workers: int) -> list[list[int]]:
    """The runs of one shape, dealt out to workers."""
    return [members[w::workers] for w in range(min(workers, len(members)))]


def _prepare(
    recordings: Sequence[Recording],
    config: TrainConfig,
    weights: list[list[Tensor]],
    *,
    frozen: Sequence[int] = (),
    start: Run | None = None,
    parent: str = "",
) -> _Prepared:
    if not recordings:
        raise ConfigError("training takes at least one recording; found none.")
    if config.n_sessions not in (None, len(recordings)):
        raise ConfigError(
            f"train_on must hold one list of stretches a session, or one for all; found "
            f"{config.n_sessions} for {len(recordings)} sessions."
        )
    for recording in recordings:
        check_masks(config.masks, window=len(config.encoder.field), channels=recording.n_channels)
    spans = [_spans(recording, config, s) for s, recording in enumerate(recordings)]
    tables = prepare_sessions(recordings, config.pairs, config.encoder.field, spans)
    scaling = (
        [_scaling(recording, config, own) for recording, own in zip(recordings, spans, strict=True)]
        if start is None
        else [(session.mean, session.sd) for session in start.sessions]
    )
    return _Prepared(config, tables, scaling, weights, list(frozen), start, parent)


def _spans(recording: Recording, config: TrainConfig, session: int) -> Spans:
    wanted = config.spans(session)
    if wanted is None:
        return recording.epochs
    if len(wanted) and wanted.max() > recording.n_samples:
        raise ConfigError(
            f"train_on must lie inside the {recording.n_samples} samples of the recording; "
            f"found one up to {wanted.max()}."
        )
    return within(wanted, recording.epochs)


def _scaling(recording: Recording, config: TrainConfig, spans: Spans) -> tuple[Tensor, Tensor]:
    if config.scale == "none":
        return torch.zeros(recording.n_channels), torch.ones(recording.n_channels)
    rows = np.concatenate([recording.activity[a:b] for a, b in spans]).astype(np.float64)
    spread = rows.std(axis=0)
    mean = torch.from_numpy(rows.mean(axis=0)).to(torch.float32)
    # A channel that never changes carries nothing; it stays at zero after centring.
    return mean, torch.from_numpy(np.where(spread > 0, spread, 1.0)).to(torch.float32)


def _shape(run: _Prepared) -> object:
    """Runs of equal shape train as one program."""
    probe = _draw(run, torch.tensor([0]))
    layout = tuple((g.start.shape[1], g.outputs) for g in probe.groups)
    c = run.config
    slices = tuple(str(s) for s in latent_slices(c))
    done = 0 if run.start is None else len(run.start.losses)
    sizes = tuple(probe.reference.shape), tuple(probe.negative.shape)
    kind = (c.distance, c.learn_temperature, c.min_temperature, c.adam, c.masks, c.scale)
    # Masks and dropout are drawn with the seed of the stack, so such runs go alone.
    alone = id(run) if c.apart else 0
    return (c.encoder, c.n_steps, layout, slices, sizes, kind, tuple(run.frozen), done, alone)


def _draw(run: _Prepared, steps: Tensor) -> Draw:
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
    )


class _Parameters:
    """All that training changes, in one tensor (G, P), so that Adam is a few large steps.

    `sessions` holds every session's tensors (G, ...) in order, trained ones as leaf views of the
    flat one, frozen ones as they are; a learned temperature is the last column, as the logarithm
    of its inverse.
    """

    def __init__(self, stack: list[_Prepared], where: torch.device) -> None:
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


def _first_temperature(run: _Prepared) -> float:
    """A learned temperature starts at its floor if it was set below: there it can still rise."""
    if not run.config.learn_temperature:
        return run.config.temperature
    before = run.start is not None and run.start.config.learn_temperature
    first = run.start.temperature if run.start is not None and before else run.config.temperature
    floor = run.config.min_temperature
    return first if floor is None else max(first, floor)


def _first_sharpness(run: _Prepared) -> Tensor:
    """The logarithm of the inverse temperature, (1,), exactly as a run left it."""
    if run.start is not None and run.start.state is not None and len(run.start.state.sharpness):
        floor = run.config.min_temperature
        exact = run.start.state.sharpness
        return exact if floor is None else exact.clamp(max=-math.log(floor))
    return -torch.tensor([_first_temperature(run)]).log()


class _Optimiser:
    """Adam (Kingma & Ba 2015, algorithm 1) for G runs, a learning rate each, in place."""

    def __init__(self, stack: list[_Prepared], flat: Tensor) -> None:
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


def _train_stack(
    activity: list[Tensor],
    stack: list[_Prepared],
    source: str,
    report: Callable[[int, Progress], None],
) -> list[Run]:
    where, first = activity[0].device, stack[0].config
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
    ceiling = -math.log(first.min_temperature) if first.min_temperature else math.inf
    losses = torch.zeros(n_steps, runs, n_terms, 2, device=where)
    temperatures = torch.zeros(n_steps, runs, device=where)
    probe = _draw(stack[0], torch.tensor([done]))
    n_negatives = int(probe.negative.shape[1])
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
    trained = [[w.detach().cpu() for w in session] for session in parameters.sessions]
    return [
        Run(
            config=run.config,
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
    activity: list[Tensor],
    stack: list[_Prepared],
    sessions: list[list[Tensor]],
    scaling: list[tuple[Tensor, Tensor]],
    triplets: Draw,
    i: int,
    step: int,
    temperature: Tensor,
) -> Tensor:
    """Positive and negative part of every term of the loss of every run, (G, n_terms, 2)."""
    config, runs = stack[0].config, len(stack)
    spec = config.encoder
    weights = sessions
    # What is masked is zero after scaling, so that it says "mean" and not some far value.
    folds = spec.folds and not config.masks
    if folds:
        weights = [effective_weights(w, *scaling[s]) for s, w in enumerate(sessions)]
    parts = []
    for k, group in enumerate(triplets.groups):
        s = group.session
        rows = dense_rows(group.start[i], group.outputs, spec.field, activity[s].shape[0])
        x = activity[s][rows]
        if config.scale != "none" and not folds:
            x = (x - scaling[s][0][:, None, None]) / scaling[s][1][:, None, None]
        if config.masks:
            x = x * _mask(config, k, step, x)
        kept = _kept(config, k, step, x)
        parts.append(encode(spec, weights[s], x, kept=kept).reshape(runs, -1, spec.latents))
    z = torch.cat(parts, dim=1)

    def pick(places: Tensor) -> Tensor:
        return z.gather(1, places[..., None].expand(-1, -1, spec.latents))

    reference, negative = pick(triplets.reference[i]), pick(triplets.negative[i])
    terms = []
    for places, part in zip(triplets.positives, latent_slices(config), strict=True):
        loss = info_nce(
            reference[..., part],
            pick(places[i])[..., part],
            negative[..., part],
            temperature=temperature,
            distance=config.distance,
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


def _refuse_divergence(seen: NDArray[np.float32], begin: int, stack: list[_Prepared]) -> None:
    bad = np.argwhere(~np.isfinite(seen).all(axis=(2, 3)))
    if len(bad):
        raise _diverged(stack[int(bad[0, 1])].config, int(bad[0, 0]) + begin)


def _diverged(config: TrainConfig, step: int) -> DivergedError:
    return DivergedError(
        f"the loss must stay finite; it did not at step {step} with learning rate "
        f"{config.learning_rate} and temperature {config.temperature}. Use a smaller learning "
        f"rate or a higher temperature."
    )
