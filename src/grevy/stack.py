"""A stack of runs of one shape, trained as one program.

Runs are stacked on a leading axis: one gather, one batched product a tap, one Adam step on a flat
vector (G, P) serve them all. Each run draws from its own table with its own seed, so what it
computes does not depend on its neighbours. With several sessions every run has one encoder a
session, and one loss over the windows of all. On a GPU a step is recorded once and then played.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .config import Precision, TrainConfig, latent_slices
from .drawing import SESSION, Draw, Segments, draw
from .draws import Purpose, keys_of, uniforms
from .encoders import EncoderSpec, dropouts, encode
from .fused import Fused, Scaled, drawn_on, places_of
from .kernels import KernelsFailed, compiled, kernels_for
from .losses import bits_above_chance, info_nce
from .masks import mask_factors
from .memory import Memory, layers_need
from .model import Run, SessionEncoder, effective_weights
from .optimiser import Optimiser, Parameters
from .pairs import PairTable
from .playback import at, later, pack, record, stacked, unpack
from .staging import fits, needed
from .windows import ReceptiveField, Spans, dense_rows

__all__ = [
    "Activity",
    "Lost",
    "Prepared",
    "Progress",
    "Watch",
    "predict",
    "product_type",
    "shape",
    "train_stack",
]

_ROOM = 2**22
"""Draws kept at once, in numbers: long batches are drawn for fewer steps ahead."""
_CHUNK = 50
"""Steps drawn at once; a run's draws do not depend on it."""
_SIMILARITIES = 2**22
"""Held at once by the loss."""
_ROWS = 2**16
"""Samples summed at once."""
_STAGE = 2**30
"""Bytes of samples that are staged at once."""
_FAR = 2.0
"""Standard deviations from zero that narrow numbers bear: they then cost 1 % of one."""
_DRAWERS = 3
"""Threads that draw for a GPU."""
_WARM = 3
"""Steps done one by one before some are recorded."""
_PLAYED = 10
"""Steps recorded at once: between two recordings a GPU waits for some microseconds."""
_GOOD = 3
"""Chunks whose first weights are remembered: a GPU's losses are looked at one chunk later."""


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


class Lost(NamedTuple):
    """A run that diverged."""

    step: int  # whose loss, or whose update, is not finite
    run: Run | None  # as it was at the last look before, without the optimiser's state


class Watch(NamedTuple):
    """What a stack asks, and what it hands over, between its steps."""

    stop: threading.Event  # set where it shall end at once, after handing over
    due: Callable[[], bool]  # whether to hand over how far it is
    keep: Callable[[list[Run | Lost]], None]


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
    seen: tuple[str, ...]


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
    return (c.encoder, c.n_steps, layout, slices, sizes, kind, tuple(run.frozen), done)


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


class Activity:
    """One session's samples where they are trained on, and the means of channels over stretches.

    Parameters
    ----------
    samples : float32 tensor, shape (T, C)
        On the CPU; it may be a map of a file larger than memory.
    where : torch.device
    """

    def __init__(self, samples: Tensor, where: torch.device) -> None:
        self.where = where
        # Samples that a GPU has no room for stay on the host; it gets those of the next steps.
        self.staged = not fits(samples.nbytes, where)
        self.samples = samples if self.staged else samples.to(where)
        self._means: dict[bytes, tuple[Tensor, Tensor]] = {}
        self._lock = threading.Lock()

    def mean_and_sd(self, spans: Spans) -> tuple[Tensor, Tensor]:
        """Of each channel over the samples of some spans alone, (C,) twice."""
        with self._lock:
            key = spans.tobytes()
            if key not in self._means:
                n = int((spans[:, 1] - spans[:, 0]).sum())
                total = self.samples[:1].sum(0, dtype=torch.float64) * 0
                squares = total.clone()
                for a, b in spans.tolist():
                    for i in range(a, b, _ROWS):
                        some = self.samples[i : min(i + _ROWS, b)].to(torch.float64)
                        total += some.sum(0)
                        squares += some.square().sum(0)
                mean = total / n
                sd = (squares / n - mean.square()).clamp_(min=0).sqrt_()
                # On the host, so that stacks on other streams find it done.
                self._means[key] = mean.to(torch.float32).cpu(), sd.to(torch.float32).cpu()
            mean, sd = self._means[key]
            return mean.to(self.where), sd.to(self.where)


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
    native = _cpu_has_bfloat16() if where.type == "cpu" else _gpu_has_bfloat16(where)
    return torch.bfloat16 if native else torch.float32


def _gpu_has_bfloat16(where: torch.device) -> bool:
    return where.type == "cuda" and torch.cuda.get_device_capability(where) >= (8, 0)


def _cpu_has_bfloat16() -> bool:
    tests = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in tests)


def train_stack(
    activity: list[Activity],
    stack: list[Prepared],
    source: str,
    report: Callable[[int, Progress], None],
    watch: Watch | None = None,
) -> list[Run | Lost] | None:
    """Train runs of one shape for their `n_steps`; `report` hears of every chunk of steps.

    One that diverges does not end the others. None where it was stopped before the end.
    """
    config, runs = stack[0].config, len(stack)
    watch = watch or Watch(threading.Event(), lambda: False, lambda runs: None)
    done = 0 if stack[0].start is None else len(stack[0].start.losses)
    probe = _draw(stack[0], torch.tensor([done]))
    chunk = _steps_at_once(activity, probe, config, runs)
    program = _Program(activity, stack, probe)
    waiting: deque[tuple[int, Callable[[], NDArray[np.float32]]]] = deque()
    lost: dict[int, Lost] = {}
    good: deque[tuple[int, Tensor]] = deque(maxlen=_GOOD)

    def lose(g: int, step: int) -> None:
        if g not in lost:  # the loss at a step is that of the weights before its update
            last = next(((n, flat) for n, flat in reversed(good) if n < step), None)
            run = program.runs(source, probe.n_negatives, *last)[g] if last else None
            lost[g] = Lost(done + min(step, config.n_steps - 1), run)

    def look() -> None:
        begin, wait = waiting.popleft()
        losses, warmth = _apart(wait())
        bad: NDArray[np.bool_] = np.asarray(~np.isfinite(losses).all(axis=(2, 3)))
        for g in np.flatnonzero(bad.any(axis=0)).tolist():
            lose(g, begin + int(bad[:, g].argmax()))
        well = [g for g in range(runs) if g not in lost]
        if not well:
            return
        last = losses[-10:, well].mean(axis=(0, 1))
        positive, negative = map(float, last.sum(axis=0))
        bits = bits_above_chance((positive + negative) / len(last), probe.n_negatives)
        steps = (begin + len(losses)) * runs
        report(steps, Progress(0, 0, positive, negative, float(warmth[-1, well].mean()), bits))

    def state(taken: int) -> list[Run | Lost]:
        while waiting:
            look()
        finite = torch.isfinite(program.parameters.flat).all(dim=1)
        for g in (~finite).nonzero()[:, 0].tolist():  # by the last update, whose loss none has seen
            lose(g, taken)
        found = program.runs(source, probe.n_negatives, taken)
        return [lost.get(g, run) for g, run in enumerate(found)]

    begins = range(0, config.n_steps, chunk)
    spans = [(done + begin, min(chunk, config.n_steps - begin)) for begin in begins]
    draws = program.draws(spans)
    for begin, span in zip(begins, spans, strict=True):
        good.append((begin, program.parameters.flat.clone()))
        try:
            steps = program.run(*span, next(draws), watch.stop)
        except KernelsFailed:  # before anything was done: from here on torch's operations do it
            program = _Program(activity, stack, probe)
            draws = program.draws(spans)
            steps = program.run(*span, next(draws), watch.stop)
        if steps:
            waiting.append((begin, later(program.seen[begin : begin + steps])))
        if waiting and (program.where.type == "cpu" or len(waiting) > 1):
            look()  # at the chunk before this one on a GPU, which is thus never out of work
        stopped = watch.stop.is_set() and begin + steps < config.n_steps
        if stopped or watch.due():
            watch.keep(state(begin + steps))
        if stopped:
            return None
        if len(lost) == runs:
            break
    return state(config.n_steps)


def _draws(stack: list[Prepared], first: int, steps: int) -> Draw:
    """Of all runs for some steps, (steps, G, ...)."""
    numbers = torch.arange(first, first + steps)
    return stacked([_draw(run, numbers) for run in stack])


def _drawn_ahead(
    stack: list[Prepared], spans: Sequence[tuple[int, int]], workers: int
) -> Iterator[Draw]:
    """Draws of chunks of steps in order, made in threads of their own while earlier ones are used.

    A chunk's draws depend on its steps alone, so it does not matter who makes them, or when.
    """
    waiting: deque[Future[Draw]] = deque()
    with ThreadPoolExecutor(
        workers, initializer=torch.set_num_threads, initargs=(1,), thread_name_prefix="draws"
    ) as pool:
        for span in spans:
            waiting.append(pool.submit(_draws, stack, *span))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _steps_at_once(activity: list[Activity], probe: Draw, config: TrainConfig, runs: int) -> int:
    """Steps whose draws, and whose samples where they are staged, fit in a little memory."""
    size = probe.reference.shape[1] * (1 + len(probe.positives)) + probe.n_negatives
    most = [_CHUNK, _ROOM // (size * runs)]
    for s, a in enumerate(activity):
        own = [g for g in probe.groups if g.session == s]
        rows = sum(g.start.shape[1] * (g.outputs + len(config.encoder.field) - 1) for g in own)
        if a.staged and rows:
            most.append(_STAGE // (4 * rows * runs * a.samples.shape[1]))
    return max(1, min(most))


def predict(activity: list[Activity], stack: list[Prepared]) -> Memory | None:
    """What training a stack will take; None for custom modules, of which nothing is known."""
    config, runs = stack[0].config, len(stack)
    if not isinstance(config.encoder, EncoderSpec):
        return None
    probe = _draw(stack[0], torch.tensor([0]))
    width = 2 if product_type(config, activity[0].where) == torch.bfloat16 else 4
    channels = [a.samples.shape[1] for a in activity]
    windows, layers = layers_need(config.encoder, probe.groups, channels, width)
    weights = sum(w.numel() for session in stack[0].weights for w in session)
    # On a GPU every layer keeps its gradients too, and gradients by weights come in parts.
    on_gpu = activity[0].where.type == "cuda"
    places = probe.reference.shape[1] * (1 + len(probe.positives)) + probe.n_negatives
    similarities = min(_SIMILARITIES, runs * probe.reference.shape[1] * probe.negative.shape[1])
    return Memory(
        windows=runs * windows,
        layers=(2 if on_gpu else 1) * runs * layers,
        parameters=(4 * _GOOD + (96 if on_gpu else 24)) * runs * weights,
        draws=16 * runs * places * _steps_at_once(activity, probe, config, runs),
        loss=8 * similarities,
        staged=_STAGE if any(a.staged for a in activity) else 0,
    )


class _Program:
    """The state of a stack on its device, and the step that changes it.

    Attributes
    ----------
    seen : float32 tensor, shape (n_steps, G, 2 n_terms + 1)
        Of every step both parts of every term of the loss, and the temperature.
    """

    def __init__(self, activity: list[Activity], stack: list[Prepared], probe: Draw) -> None:
        self.activity, self.stack, self.config = activity, stack, stack[0].config
        self.where, config = activity[0].where, self.config
        self.samples = [a.samples for a in activity]  # or the part that is staged
        self.kind = product_type(config, self.where)
        of_runs = [
            [[run.weights[s][i] for run in stack] for i in range(len(stack[0].weights[s]))]
            for s in range(len(activity))
        ]
        learned = [_first_sharpness(run) for run in stack] if config.learn_temperature else None
        self.parameters = Parameters(
            of_runs,
            set(stack[0].frozen),
            None if learned is None else torch.stack(learned),
            self.where,
        )
        left = [run.start.state for run in stack if run.start is not None]
        known = [state for state in left if state is not None]
        self.optimiser = Optimiser(
            config.adam,
            [run.config.learning_rate for run in stack],
            known if len(known) == len(stack) else [],
            config.n_steps,
            self.parameters.flat,
        )
        self.keys = keys_of([run.config.seed for run in stack]).to(self.where)
        self.fixed = torch.tensor([run.config.temperature for run in stack]).to(self.where)
        self.ceiling = -math.log(config.min_temperature) if config.min_temperature else math.inf
        self.scaling = [_scaling(a, stack, s, self.kind) for s, a in enumerate(activity)]
        width = 2 * len(latent_slices(config)) + 1
        self.seen = torch.zeros(config.n_steps, len(stack), width, device=self.where)
        # Of the step from 0, and of its row in the table of draws.
        self.counters = torch.zeros(2, dtype=torch.int64, device=self.where)
        self.number, self.place = self.counters[:1], self.counters[1:]
        self.done = 0 if stack[0].start is None else len(stack[0].start.losses)  # before step 0
        self.table: Tensor | None = None
        self.play: Callable[[], None] | None = None
        self.warmed = 0
        self.fused = self._fused(probe)
        self.drawn = self._drawn(probe)

    def _drawn(self, probe: Draw) -> Callable[[Tensor, int], None] | None:
        """What draws on the device, where the step is known and the samples are there."""
        if self.fused is None or self.activity[0].staged:
            return None
        group, runs = probe.groups[0], [(run.tables[0], run.config.seed) for run in self.stack]
        drawn = drawn_on(self.fused.gpu, runs, self.fused.places, group.outputs, self.where)
        if drawn is not None:
            shape = (_CHUNK, len(self.stack), group.start.shape[1])
            self.table = torch.empty(shape, dtype=torch.int64, device=self.where)
        return drawn

    def _fused(self, probe: Draw) -> Fused | None:
        """The step as few kernels, where it is one that they know."""
        gpu = kernels_for(self.parameters.flat, untried=True)
        places = places_of(self.config, probe, self.samples[0].shape[1])
        if gpu is None or places is None or len(self.activity) > 1 or self.stack[0].frozen:
            return None
        scale, sharpness = self.scaling[0], self.parameters.sharpness
        offset = scale.mean if scale.centre is None else scale.centre
        moved, same = bool(offset.any()), bool((scale.sd == 1).all())
        return Fused(
            gpu, self.config, self.parameters, self.optimiser, places,
            Scaled(
                offset if moved else None,
                None if same else 1 / scale.sd,
                None if scale.centre is None else (scale.centre - scale.mean) / scale.sd,
            ),
            segments=probe.groups[0].start.shape[1], outputs=probe.groups[0].outputs,
            sharp=(1 / self.fixed if sharpness is None else sharpness.detach().exp()),
            ceiling=self.ceiling, seen=self.seen, kind=self.kind,
        )  # fmt: skip

    def temperature(self) -> Tensor:
        """Of every run, (G,)."""
        sharpness = self.parameters.sharpness
        return self.fixed if sharpness is None else torch.exp(-sharpness)

    def draws(self, spans: Sequence[tuple[int, int]]) -> Iterator[Draw | None]:
        """What `run` takes for each chunk (first step, steps): None where the device draws."""
        if self.drawn is not None:
            return iter([None] * len(spans))
        if self.where.type == "cpu":  # which has no time to spare
            return (_draws(self.stack, *span) for span in spans)
        return _drawn_ahead(self.stack, spans, _DRAWERS)

    def run(self, first: int, steps: int, draws: Draw | None, stop: threading.Event) -> int:
        """Do so many steps, from step number `first` on, with what was drawn for them.

        Returns how many were done: less where it was stopped.
        """
        plays = _recordable(self.config, self.where)
        if draws is not None:
            draws = self._stage(draws)
            if self.fused is None and not plays:
                for i in range(steps):
                    if stop.is_set():
                        return i
                    self.step(at(draws, i, self.where))
                    self.counters.add_(1)
                return steps
            self._lay_down(pack(draws) if self.fused is None else draws.groups[0].start)
        table = self.table

        def lay() -> None:
            if self.drawn is not None and table is not None:
                self.drawn(table[:steps], first)

        def step() -> None:
            assert table is not None
            if self.fused is not None:
                self.fused.step(self.samples[0], table, self.place, self.number)
            elif draws is not None:
                self.step(unpack(table.index_select(0, self.place)[0], draws))
            self.counters.add_(1)

        def several() -> None:
            for _ in range(_PLAYED):
                step()

        if not self.warmed and kernels_for(self.parameters.flat, untried=True) is not None:

            def everything() -> None:
                lay()
                step()  # nothing is updated, for the update is a kernel too

            compiled(everything, self.where)
            self.counters.zero_()
        lay()
        self.place.zero_()
        left = steps
        while left and not stop.is_set():
            if plays and self.warmed >= _WARM and left >= _PLAYED:
                if self.play is None:
                    self.play = record(several)
                self.play()
                left -= _PLAYED
            else:
                step()
                self.warmed += 1
                left -= 1
        return steps - left

    def _lay_down(self, rows: Tensor) -> None:
        """Copy draws to the table on the device."""
        rows = rows.pin_memory() if self.where.type == "cuda" else rows
        if self.table is None:
            self.table = torch.empty(rows.shape, dtype=rows.dtype, device=self.where)
        self.table[: len(rows)].copy_(rows, non_blocking=True)

    def _stage(self, draws: Draw) -> Draw:
        """Bring the samples that these steps need to the device, and point the draws to them."""
        groups = list(draws.groups)
        for s, activity in enumerate(self.activity):
            if not activity.staged:
                continue
            mine = [k for k, g in enumerate(groups) if g.session == s]
            rows, starts = needed(
                [groups[k] for k in mine], self.config.encoder.field, len(activity.samples)
            )
            for k, start in zip(mine, starts, strict=True):
                groups[k] = replace(groups[k], start=start)
            if self.samples[s] is activity.samples:  # a place of its own, for the longest chunk
                window = len(self.config.encoder.field) - 1
                most = sum(groups[k].start.numel() * (groups[k].outputs + window) for k in mine)
                most = min(most, len(activity.samples))
                self.samples[s] = torch.zeros(most, activity.samples.shape[1], device=self.where)
            self.samples[s][: len(rows)].copy_(activity.samples[rows])
        return replace(draws, groups=tuple(groups))

    def step(self, now: Draw) -> None:
        """One step by torch's operations."""
        temperature = self.temperature()
        terms = _loss(self, now, self.number + self.done, temperature)
        grad = self.parameters.gradient(terms.sum())
        with torch.no_grad():
            flat = self.parameters.flat
            self.optimiser.step(flat, grad, self.number)
            if self.config.learn_temperature:
                # Projected, not clamped in the loss: at the border the gradient stays alive.
                flat[:, -1].clamp_(max=self.ceiling)
            seen = torch.cat([terms.detach().flatten(1), temperature.detach()[:, None]], dim=1)
            self.seen.index_copy_(0, self.number, seen[None])

    def runs(
        self, source: str, n_negatives: int, taken: int, flat: Tensor | None = None
    ) -> list[Run]:
        """The runs as they stand after so many steps, or with weights they had earlier."""
        own = self.parameters.flat if flat is None else flat
        final = self.fixed.cpu()
        if self.parameters.sharpness is not None:
            final = torch.exp(-own[:, -1]).cpu()
        precision: Precision = "bfloat16" if self.kind == torch.bfloat16 else "float32"
        trained = [[w.cpu() for w in session] for session in self.parameters.weights(own)]
        losses, temperatures = _apart(self.seen[:taken].cpu().numpy())
        return [
            Run(
                # What "auto" was on this device: the run goes on alike elsewhere.
                config=replace(run.config, precision=precision),
                sessions=tuple(
                    SessionEncoder(tuple(w[g].clone() for w in session), *run.scaling[s])
                    for s, session in enumerate(trained)
                ),
                losses=losses[:, g].copy(),
                temperatures=temperatures[:, g].copy(),
                temperature=(
                    float(final[g]) if run.config.learn_temperature else run.config.temperature
                ),
                state=(
                    self.optimiser.state(g, taken, self.parameters.sharpness)
                    if flat is None
                    else None
                ),
                n_negatives=n_negatives,
                recording_hash=source,
                parent=run.parent,
                seen=run.seen,
            )
            for g, run in enumerate(self.stack)
        ]


def _apart(seen: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What a program saw, as losses (steps, G, n_terms, 2) and temperatures (steps, G)."""
    steps, runs, width = seen.shape
    return seen[..., :-1].reshape(steps, runs, width // 2, 2), seen[..., -1]


def _first_sharpness(run: Prepared) -> Tensor:
    """The logarithm of the inverse temperature, (1,), exactly as a run left it.

    A learned temperature starts at its floor if it was set below: there it can still rise.
    """
    floor = run.config.min_temperature
    if run.start is not None and run.start.state is not None and len(run.start.state.sharpness):
        exact = run.start.state.sharpness
        return exact if floor is None else exact.clamp(max=-math.log(floor))
    before = run.start is not None and run.start.config.learn_temperature
    first = run.start.temperature if run.start is not None and before else run.config.temperature
    return -torch.tensor([first if floor is None else max(first, floor)]).log()


def _recordable(config: TrainConfig, where: torch.device) -> bool:
    """Whether a step is the same program each time, which of a custom module nobody knows."""
    return where.type == "cuda" and isinstance(config.encoder, EncoderSpec)


class _Scaling(NamedTuple):
    """What is taken from every channel of a session and what it is divided by, (G, C) each."""

    mean: Tensor
    sd: Tensor
    centre: Tensor | None  # this much of the mean before numbers become narrow
    plain: bool  # nothing is left to be folded into the weights


def _scaling(
    activity: Activity, stack: list[Prepared], session: int, kind: torch.dtype
) -> _Scaling:
    mean = torch.stack([run.scaling[session][0] for run in stack])
    sd = torch.stack([run.scaling[session][1] for run in stack])
    centre = None
    if kind != torch.float32:
        # Narrow numbers keep few digits: a channel that lies far from zero, for how much it
        # varies, is taken about its own mean.
        own = [activity.mean_and_sd(run.spans[session]) for run in stack]
        far = torch.stack([torch.where(m.abs() > _FAR * s, m, 0) for m, s in own])
        centre = far if bool(far.any()) else None
    plain = centre is None and not bool(mean.any()) and bool((sd == 1).all())
    where = activity.where
    return _Scaling(mean.to(where), sd.to(where), centre, plain)


def _loss(program: _Program, now: Draw, step: Tensor, temperature: Tensor) -> Tensor:
    """Positive and negative part of every term of the loss of every run, (G, n_terms, 2)."""
    config, runs = program.config, len(program.stack)
    spec = config.encoder
    # What is masked is zero after scaling, so that it says "mean" and not some far value.
    folds = spec.folds and not config.masks
    weights = []
    for own, scale in zip(program.parameters.sessions, program.scaling, strict=True):
        less = scale.mean if scale.centre is None else scale.mean - scale.centre
        fold = folds and not scale.plain
        weights.append(effective_weights(own, less, scale.sd) if fold else own)
    parts = []
    for k, group in enumerate(now.groups):
        scale = program.scaling[group.session]
        x = _windows(program.samples[group.session], group, spec.field, scale.centre, program.kind)
        if config.scale != "none" and not folds:
            x = (x - scale.mean[:, None, None]) / scale.sd[:, None, None]
        if config.masks:
            x = x * _mask(config, program.keys, k, step, x)
        kept = _kept(config, program.keys, k, step, x)
        parts.append(
            encode(spec, weights[group.session], x, kept=kept).reshape(runs, -1, spec.latents)
        )
    z = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]

    def pick(places: Tensor) -> Tensor:
        return z.gather(1, places[..., None].expand(-1, -1, spec.latents))

    reference = pick(now.reference)
    negative = reference if now.others else pick(now.negative)
    terms = []
    for places, part in zip(now.positives, latent_slices(config), strict=True):
        loss = info_nce(
            reference[..., part],
            pick(places)[..., part],
            negative[..., part],
            temperature=temperature,
            distance=config.distance,
            others=now.others,
        )
        terms.append(torch.stack([loss.positive, loss.negative], dim=-1))
    return torch.stack(terms, dim=1)


def _windows(
    samples: Tensor,
    group: Segments,
    field: ReceptiveField,
    centre: Tensor | None,
    kind: torch.dtype,
) -> Tensor:
    """The samples behind some segments, less each channel's centre, (G, S, n, C)."""
    gpu = kernels_for(samples)
    if gpu is not None:
        time = group.outputs + len(field) - 1
        return gpu.gather(  # type: ignore[no-any-return]
            samples, group.start, centre, before=field.left, time=time, kind=kind
        )
    rows = dense_rows(group.start, group.outputs, field, len(samples))
    x = samples.index_select(0, rows.flatten()).view(*rows.shape, -1)
    return (x if centre is None else x - centre[:, None, None]).to(kind)


def _mask(config: TrainConfig, keys: Tensor, group: int, step: Tensor, x: Tensor) -> Tensor:
    _, window, n, channels = x.shape
    return mask_factors(config.masks, keys, group, step, window=window, n=n, channels=channels)


def _kept(
    config: TrainConfig, keys: Tensor, group: int, step: Tensor, x: Tensor
) -> list[Tensor] | None:
    """What dropout leaves of every window's channels, or None without dropout."""
    places = dropouts(config.encoder)
    if not places:
        return None
    kept = []
    for i, (rate, width) in enumerate(places):
        purpose = Purpose.DROPOUT + SESSION * (group * len(places) + i)
        u = uniforms(keys, purpose, step, x.shape[2] * width)
        factor = (u >= rate).to(torch.float32) / (1 - rate)
        kept.append(factor.reshape(len(keys), x.shape[2], width))
    return kept
