"""The one trainer: G runs of one shape as one program. A single fit is the case G = 1.

Runs are stacked on a leading axis: one gather, one batched product a tap, one Adam step on a flat
vector (G, P) serve them all. Each run draws from its own table with its own seed, so what it
computes does not depend on its neighbours.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .drawing import Draw, draw
from .encoders import encode, initial_weights
from .errors import ConfigError, DivergedError
from .losses import bits_above_chance, info_nce
from .model import (
    Run,
    TrainConfig,
    activity_tensor,
    choose_device,
    effective_weights,
    fingerprint,
    latent_slices,
)
from .pairs import PairTable, prepare
from .recording import Recording
from .windows import dense_rows, within

__all__ = ["Progress", "train"]

_CHUNK = 50
"""Steps drawn at once; a run's draws do not depend on it."""
_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8


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
    table: PairTable
    mean: Tensor
    sd: Tensor


def train(
    recordings: Sequence[Recording],
    configs: Sequence[TrainConfig],
    *,
    device: str = "auto",
    on_step: Callable[[Progress], None] | None = None,
) -> list[Run]:
    """Train one run a configuration; runs of one shape train together.

    Parameters
    ----------
    recordings : sequence of Recording
        One recording. (Time pairs cannot align several; see docs/roadmap.md for label pairs.)
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
        If there is not exactly one recording, or a setting does not fit it.
    DataError
        If a label is missing or no sample can be trained on.
    DivergedError
        If a loss or a weight stops being finite; says at which step.
    """
    if len(recordings) != 1:
        raise ConfigError(f"training takes exactly one recording; found {len(recordings)}.")
    recording, where = recordings[0], choose_device(device)
    prepared = [_prepare(recording, config) for config in configs]
    groups: dict[object, list[int]] = {}
    for i, run in enumerate(prepared):
        groups.setdefault(_shape(run), []).append(i)
    total = sum(c.n_steps for c in configs)
    source = fingerprint(recording)
    activity = activity_tensor(recording).to(where)
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
    return [runs[i] for i in range(len(configs))]


def _parts(members: list[int], workers: int) -> list[list[int]]:
    """The runs of one shape, dealt out to workers."""
    return [members[w::workers] for w in range(min(workers, len(members)))]


def _prepare(recording: Recording, config: TrainConfig) -> _Prepared:
    spans = recording.epochs
    if config.train_on is not None:
        wanted = np.array(config.train_on, dtype=np.int64).reshape(-1, 2)
        if len(wanted) and wanted.max() > recording.n_samples:
            raise ConfigError(
                f"train_on must lie inside the {recording.n_samples} samples of the recording; "
                f"found one up to {wanted.max()}."
            )
        spans = within(wanted, recording.epochs)
    table = prepare(recording, config.pairs, config.encoder.field, spans)
    mean, sd = torch.zeros(recording.n_channels), torch.ones(recording.n_channels)
    if config.scale == "zscore":
        rows = np.concatenate([recording.activity[a:b] for a, b in spans]).astype(np.float64)
        spread = rows.std(axis=0)
        mean = torch.from_numpy(rows.mean(axis=0)).to(torch.float32)
        # A channel that never changes carries nothing; it stays at zero after centring.
        sd = torch.from_numpy(np.where(spread > 0, spread, 1.0)).to(torch.float32)
    return _Prepared(config, table, mean, sd)


def _shape(run: _Prepared) -> object:
    """Runs of equal shape train as one program."""
    probe = _draw(run, torch.tensor([0]))
    layout = tuple((g.start.shape[1], g.outputs) for g in probe.groups)
    c = run.config
    slices = tuple(str(s) for s in latent_slices(c))
    return (c.encoder, c.batch_size, c.n_negatives, c.n_steps, layout, slices)


def _draw(run: _Prepared, steps: Tensor) -> Draw:
    c = run.config
    return draw(
        run.table, c.seed, steps, batch=c.batch_size, n_negatives=c.n_negatives, block=c.block
    )


def _stack_draws(draws: list[Draw], where: torch.device) -> Draw:
    """Draws of G runs as one, every tensor with the runs on its second axis (steps, G, ...)."""

    def stack(parts: list[Tensor]) -> Tensor:
        return torch.stack(parts, dim=1).to(where)

    first = draws[0]
    return Draw(
        groups=tuple(
            type(g)(stack([d.groups[i].start for d in draws]), g.outputs)
            for i, g in enumerate(first.groups)
        ),
        reference=stack([d.reference for d in draws]),
        positives=tuple(
            stack([d.positives[i] for d in draws]) for i in range(len(first.positives))
        ),
        negative=stack([d.negative for d in draws]),
    )


def _train_stack(
    activity: Tensor,
    stack: list[_Prepared],
    source: str,
    report: Callable[[int, Progress], None],
) -> list[Run]:
    where, first = activity.device, stack[0].config
    runs, n_steps = len(stack), first.n_steps
    start = [initial_weights(c.encoder, activity.shape[1], c.seed) for c in _configs(stack)]
    weights, flat = _flat([torch.stack(parts) for parts in zip(*start, strict=True)], where)
    momentum, square = torch.zeros_like(flat), torch.zeros_like(flat)
    rate = torch.tensor([[c.learning_rate] for c in _configs(stack)], device=where)
    temperature = torch.tensor([c.temperature for c in _configs(stack)], device=where)
    mean = torch.stack([run.mean for run in stack]).to(where)
    sd = torch.stack([run.sd for run in stack]).to(where)
    history = torch.zeros(n_steps, runs, 2, device=where)
    for begin in range(0, n_steps, _CHUNK):
        steps = torch.arange(begin, min(begin + _CHUNK, n_steps))
        triplets = _stack_draws([_draw(run, steps) for run in stack], where)
        for i, step in enumerate(steps.tolist()):
            folded = effective_weights(weights, mean, sd)
            pos, neg = _loss(activity, first, folded, triplets, i, temperature)
            grads = torch.autograd.grad((pos + neg).sum(), weights)
            with torch.no_grad():
                grad = torch.cat([g.reshape(runs, -1) for g in grads], dim=1)
                _adam(flat, grad, momentum, square, rate, step + 1)
                history[step, :, 0], history[step, :, 1] = pos.detach(), neg.detach()
        seen = history[begin : int(steps[-1]) + 1].cpu().numpy()
        _refuse_divergence(seen, begin, stack)
        last = seen[-10:].mean(axis=(0, 1))
        n_terms = len(triplets.positives)
        bits = bits_above_chance(float(last.sum()) / n_terms, first.n_negatives)
        report(
            (int(steps[-1]) + 1) * runs,
            Progress(0, 0, float(last[0]), float(last[1]), first.temperature, bits),
        )
    lost = (~torch.isfinite(flat).all(dim=1)).nonzero()
    if len(lost):  # by the very last update, whose loss nobody computed
        raise _diverged(stack[int(lost[0, 0])].config, n_steps - 1)
    trained = [w.detach().cpu() for w in weights]
    losses: NDArray[np.float32] = history.cpu().numpy()
    return [
        Run(
            config=run.config,
            weights=tuple(w[g].clone() for w in trained),
            mean=run.mean,
            sd=run.sd,
            history=losses[:, g].copy(),
            recording_hash=source,
        )
        for g, run in enumerate(stack)
    ]


def _configs(stack: list[_Prepared]) -> list[TrainConfig]:
    return [run.config for run in stack]


def _flat(parts: list[Tensor], where: torch.device) -> tuple[list[Tensor], Tensor]:
    """Weights (G, ...) as leaf views of one tensor (G, P), so that Adam is a few large steps."""
    runs = parts[0].shape[0]
    flat = torch.cat([p.reshape(runs, -1) for p in parts], dim=1).to(where)
    views, position = [], 0
    for part in parts:
        size = part[0].numel()
        view = flat[:, position : position + size].view(part.shape)
        views.append(view.detach().requires_grad_())
        position += size
    return views, flat


def _loss(
    activity: Tensor,
    config: TrainConfig,
    weights: list[Tensor],
    triplets: Draw,
    step: int,
    temperature: Tensor,
) -> tuple[Tensor, Tensor]:
    """Positive and negative part of the loss of every run, each of shape (G,)."""
    spec = config.encoder
    runs = weights[0].shape[0]
    parts = []
    for group in triplets.groups:
        rows = dense_rows(group.start[step], group.outputs, spec.field, activity.shape[0])
        z = encode(spec, weights, activity[rows])
        parts.append(z.reshape(runs, -1, spec.latents))
    z = torch.cat(parts, dim=1)

    def pick(places: Tensor) -> Tensor:
        return z.gather(1, places[..., None].expand(-1, -1, spec.latents))

    reference, negative = pick(triplets.reference[step]), pick(triplets.negative[step])
    pos = torch.zeros(runs, device=activity.device)
    neg = torch.zeros(runs, device=activity.device)
    for places, part in zip(triplets.positives, latent_slices(config), strict=True):
        loss = info_nce(
            reference[..., part],
            pick(places[step])[..., part],
            negative[..., part],
            temperature=temperature,
        )
        pos, neg = pos + loss.positive, neg + loss.negative
    return pos, neg


def _adam(
    flat: Tensor, grad: Tensor, momentum: Tensor, square: Tensor, rate: Tensor, step: int
) -> None:
    """One step of Adam (Kingma & Ba 2015, algorithm 1), in place, a learning rate per run."""
    momentum.lerp_(grad, 1 - _BETA1)
    square.mul_(_BETA2).addcmul_(grad, grad, value=1 - _BETA2)
    size = rate / (1 - _BETA1**step)
    root = (square.sqrt() / math.sqrt(1 - _BETA2**step)).add_(_EPS)
    flat.sub_(size * momentum / root)


def _refuse_divergence(seen: NDArray[np.float32], begin: int, stack: list[_Prepared]) -> None:
    bad = np.argwhere(~np.isfinite(seen).all(axis=2))
    if len(bad):
        raise _diverged(stack[int(bad[0, 1])].config, int(bad[0, 0]) + begin)


def _diverged(config: TrainConfig, step: int) -> DivergedError:
    return DivergedError(
        f"the loss must stay finite; it did not at step {step} with learning rate "
        f"{config.learning_rate} and temperature {config.temperature}. Use a smaller learning "
        f"rate or a higher temperature."
    )
