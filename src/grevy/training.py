"""The one trainer: any number of runs, those of one shape as one program; one fit is one run."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .config import TrainConfig, latent_slices
from .custom import ModuleSpec
from .encoders import EncoderSpec, initial_weights
from .errors import ConfigError, DivergedError, LimitError
from .kernels import load_ahead
from .masks import check_masks
from .memory import available, least_need
from .model import Run, activity_tensor, choose_device, fingerprint
from .optimiser import ALIGNED
from .padding import alike, cut, padded
from .pairs import prepare_sessions
from .playback import lane
from .prints import prints_of
from .processors import idle_processors
from .recording import Recording, mean_and_sd
from .room import free_bytes
from .signals import postponed
from .stack import Activity, Lost, Prepared, Progress, Watch, predict, shape, train_stack
from .unfinished import Checkpoint, joined, key_of, onwards
from .windows import Spans, within

__all__ = ["Checkpoint", "Progress", "adapt", "resume", "train"]

_TOGETHER = 2**16
"""References times hidden units that one worker holds at once."""
_LANES = 4
"""Stacks that share a GPU at a time."""
_LARGE = 1e3
"""Activity up to which nobody is asked to scale it when training diverges."""

_log = logging.getLogger("grevy")
OnStep = Callable[[Progress], None]


def train(
    recordings: Sequence[Recording],
    configs: Sequence[TrainConfig],
    *,
    device: str = "auto",
    on_step: OnStep | None = None,
    checkpoint: Checkpoint | None = None,
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
    checkpoint : Checkpoint, optional
        Where the state is kept by time; what is there already is not trained again.

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
        If a loss or a weight stops being finite; says of which run, at which step, and what to
        change. The others are trained to their end: `runs` of the error holds them, and `run` the
        first that diverged as it was before.
    LimitError
        If it needs more memory than there is.
    FormatError
        If a checkpoint cannot be written. The one before is whole.
    KeyboardInterrupt
        Where SIGINT came, once the checkpoint is written.
    """
    _refuse_impossible(recordings, configs)
    load_ahead(choose_device(device))
    first: dict[object, list[list[Tensor]]] = {}  # runs of a grid often start from the same weights
    prepared = []
    for config in configs:
        key = (config.encoder, config.seed)
        if key not in first:
            first[key] = [
                initial_weights(config.encoder, r.n_channels, config.seed, session=s)
                for s, r in enumerate(recordings)
            ]
        prepared.append(_prepare(recordings, config, first[key]))
    return _train(recordings, prepared, device, on_step, checkpoint)


def resume(
    run: Run,
    recordings: Sequence[Recording],
    n_steps: int,
    *,
    config: TrainConfig | None = None,
    device: str = "auto",
    on_step: OnStep | None = None,
    checkpoint: Checkpoint | None = None,
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
    device, on_step, checkpoint
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
    prepared = _prepare(
        recordings, config, weights, frozen=frozen, start=run, parent=run.digest, known=run.seen
    )
    both = replace(config, n_steps=len(run.losses) + n_steps)
    try:
        (more,) = _train(recordings, [prepared], device, on_step, checkpoint)
    except DivergedError as error:
        error.run = error.run and joined(run, error.run, error.run.config)
        raise
    return joined(run, more, both)


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
    checkpoint: Checkpoint | None = None,
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
    device, on_step, checkpoint
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
    _refuse_impossible(recordings, [config])
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
    prepared = _prepare(
        recordings, config, weights, frozen=frozen, parent=run.digest, known=run.seen
    )
    return _train(recordings, [prepared], device, on_step, checkpoint)[0]


@dataclass(frozen=True, eq=False)
class _Before:
    """Runs that are asked for, and how far they were trained before."""

    prepared: list[Prepared]
    kept: list[Run | None]
    keys: list[str]
    checkpoint: Checkpoint | None

    def whole(self, i: int, trained: Run | Lost) -> Run | Lost:
        """One with the steps before, and without the latents it was padded with."""
        if isinstance(trained, Lost):
            run = None if trained.run is None else self.whole(i, trained.run)
            return Lost(trained.step, run if isinstance(run, Run) else None)
        own = replace(self.prepared[i].config, precision=trained.config.precision)
        return joined(self.kept[i], cut(trained, self.prepared[i]), own)

    def watch(self, part: list[int], stop: threading.Event) -> Watch:
        """What a stack of these runs is to ask between its steps."""
        keys, checkpoint = [self.keys[i] for i in part], self.checkpoint

        def keep(runs: list[Run | Lost]) -> None:
            if checkpoint is not None:
                checkpoint.keep(keys, self._well(part, runs))

        return Watch(stop, lambda: checkpoint is not None and checkpoint.due(keys), keep)

    def finish(self, part: list[int], runs: list[Run | Lost]) -> None:
        """Remember a stack that reached its end."""
        if self.checkpoint is not None:
            self.checkpoint.finish([self.keys[i] for i in part], self._well(part, runs))

    def _well(self, part: list[int], runs: list[Run | Lost]) -> list[Run | None]:
        found = [self.whole(i, run) for i, run in zip(part, runs, strict=True)]
        return [run if isinstance(run, Run) else None for run in found]


def _train(
    recordings: Sequence[Recording],
    prepared: list[Prepared],
    device: str,
    on_step: OnStep | None,
    checkpoint: Checkpoint | None,
) -> list[Run]:
    where = choose_device(device)
    source = "+".join(fingerprint(r) for r in recordings)
    keys, kept = [""] * len(prepared), list[Run | None]([None] * len(prepared))
    if checkpoint is not None:
        keys = [key_of(run, source, where) for run in prepared]
        kept = checkpoint.find(keys, [run.config for run in prepared])
    before = _Before(prepared, kept, keys, checkpoint)
    left = {i: onwards(run, kept[i]) for i, run in enumerate(prepared)}
    rest = {i: run for i, run in left.items() if run is not None}
    with postponed() as stop:
        try:
            trained = _train_rest(recordings, rest, before, source, where, on_step, stop)
        except torch.OutOfMemoryError as error:
            raise LimitError(
                f"training must fit in the memory of {where}; it did not. Use a smaller "
                f"batch_size, fewer hidden units, train fewer runs at once, or device 'cpu'."
            ) from error
        finally:
            if stop.is_set() and checkpoint is not None:
                checkpoint.flush()
    if stop.is_set():  # and whoever heard the signal has let it pass
        raise KeyboardInterrupt
    ended: list[Run | Lost | None] = [trained.get(i, run) for i, run in enumerate(kept)]
    runs = [run if isinstance(run, Run) else None for run in ended]
    lost = {i: run for i, run in enumerate(ended) if isinstance(run, Lost)}
    if lost:
        raise _diverged(recordings, before, lost, runs)
    return [run for run in runs if run is not None]


def _train_rest(
    recordings: Sequence[Recording],
    rest: dict[int, Prepared],
    before: _Before,
    source: str,
    where: torch.device,
    on_step: OnStep | None,
    stop: threading.Event,
) -> dict[int, Run | Lost]:
    """Train runs in stacks, side by side; of those that were stopped nothing is returned."""
    on_cpu = where.type == "cpu"
    groups: dict[object, list[int]] = {}
    for i, run in rest.items():
        # A GPU is quicker with more runs at a time; on a CPU a run's bits are its own.
        groups.setdefault(shape(run if on_cpu else alike(run)), []).append(i)
    total = sum(run.config.n_steps for run in before.prepared)
    ready = total - sum(run.config.n_steps for run in rest.values())
    activity = [Activity(activity_tensor(r), where) for r in recordings]
    usual = torch.get_num_threads()
    # Stacks of different shapes share a GPU, each on a stream of its own.
    threads = min(usual, idle_processors() if usual > 1 else 1) if on_cpu else _LANES
    parts = [
        part
        for members in groups.values()
        for part in _parts(
            members, threads if on_cpu else 1, _most(activity, [rest[i] for i in members])
        )
    ]
    stacks = [padded([rest[i] for i in part]) for part in parts]
    _refuse_too_much(activity, stacks, threads, where)
    steps_done, lock = [0] * len(parts), threading.Lock()

    def work(place: int) -> list[Run | Lost]:
        part = parts[place]

        def report(steps: int, seen: Progress) -> None:
            with lock:
                steps_done[place] = steps
                if on_step is not None:
                    on_step(seen._replace(done=ready + sum(steps_done), of=total))

        if stop.is_set():
            return []
        try:
            with lane(where):
                watch = before.watch(part, stop)
                runs = train_stack(activity, stacks[place], source, report, watch)
                if runs is not None:
                    before.finish(part, runs)
        except BaseException:
            stop.set()  # the others keep how far they are, too
            raise
        return runs or []

    try:
        if threads == 1 or len(parts) == 1:
            # Two threads that wait for one another inside every product need two idle processors.
            torch.set_num_threads(threads if on_cpu else usual)
            trained = [work(place) for place in range(len(parts))]
        else:
            # Runs are independent: one thread each never waits.
            with ThreadPoolExecutor(
                threads, initializer=torch.set_num_threads, initargs=(1,)
            ) as pool:
                trained = list(pool.map(work, range(len(parts))))
    finally:
        torch.set_num_threads(usual)
    return {
        i: before.whole(i, run)
        for part, each in zip(parts, trained, strict=True)
        for i, run in zip(part, each, strict=False)
    }


def _diverged(
    recordings: Sequence[Recording],
    before: _Before,
    lost: dict[int, Lost],
    runs: list[Run | None],
) -> DivergedError:
    """Which run, at which step, and what to change; with what is left of it."""
    i, (step, run) = next(iter(lost.items()))
    config, n = before.prepared[i].config, len(before.prepared)
    which, more = ("it", "") if n == 1 else (f"that of run {i + 1} of {n}", "")
    if len(lost) > 1:
        more = f" ({len(lost)} runs did not)"
    said = (
        f"the loss must stay finite; {which} did not at step {step} with learning rate "
        f"{config.learning_rate} and temperature {config.temperature}{more}. Use a smaller "
        f"learning rate or a higher temperature"
    )
    ends = [e for r in recordings for e in (float(r.activity.max()), -float(r.activity.min()))]
    largest = max(ends)
    if largest > _LARGE and config.scale == "none":
        said += f", or scale the activity, which reaches {largest:.2g}"
    if run is not None and len(run.losses):
        said += f". Its weights after {len(run.losses)} steps are kept"
        if before.checkpoint is not None:
            said += f" in {before.checkpoint.last_good(before.keys[i], run)}"
        else:
            said += " in the error's `run`"
    return DivergedError(f"{said}.", run=run, runs=runs)


def _refuse_impossible(recordings: Sequence[Recording], configs: Sequence[TrainConfig]) -> None:
    """Refuse a run of which not even the weights, or what it draws, can be made."""
    channels = [r.n_channels for r in recordings]
    needs = [n for n in (least_need(config, channels) for config in configs) if n is not None]
    most = max(needs, key=lambda n: n.total, default=None)
    if most is not None and most.total > free_bytes():
        raise LimitError(
            f"training must fit in the {free_bytes() / 1e9:.2g} GB that are free; one run alone "
            f"would take {most} at least. Use fewer latents or hidden units, or a smaller "
            f"batch_size."
        )


def _refuse_too_much(
    activity: list[Activity], stacks: list[list[Prepared]], together: int, where: torch.device
) -> None:
    """Say what the largest stacks that train side by side will take; refuse what there is not."""
    predicted = [p for p in (predict(activity, stack) for stack in stacks) if p is not None]
    largest = sorted(predicted, key=lambda p: -p.total)[:together]
    if not largest:
        return
    needed, free = sum(p.total for p in largest), available(where)
    _log.info(
        "memory: about %s at most beside the recording, of %.3g GB free on %s",
        largest[0] if len(largest) == 1 else f"{needed / 1e9:.2g} GB",
        free / 1e9,
        where,
    )
    if needed > free:
        raise LimitError(
            f"training must fit in the {free / 1e9:.2g} GB that are free on {where}; it would "
            f"take about {largest[0]} for {len(stacks[0])} runs together. Use a smaller "
            f"batch_size, fewer hidden units, or train fewer runs at once."
        )


def _parts(members: list[int], workers: int, most: int) -> list[list[int]]:
    """The runs of one shape, dealt out to workers, at most so many together."""
    n = min(len(members), max(workers, -(-len(members) // most)))
    return [members[w::n] for w in range(n)]


def _most(activity: list[Activity], members: list[Prepared]) -> int:
    """How many runs to stack: on a CPU as long as what they compute stays in its caches, on a GPU
    as many as it has room for beside those of other shapes.
    """
    config, where = members[0].config, activity[0].where
    if where.type != "cpu":
        one = predict(activity, padded(members)[:1])
        return 24 if one is None else max(1, available(where) // (2 * _LANES * one.total))
    width = config.encoder.hidden if isinstance(config.encoder, EncoderSpec) else 64
    # Where a run's share of a batch or of a weight is no multiple, company would change its bits.
    sizes = [w.numel() for session in members[0].weights for w in session if w.dim() > 1]
    if any(size % ALIGNED for size in (*sizes, config.batch_size or 1)):
        return 1
    return max(1, _TOGETHER // ((config.batch_size or 2**16) * width))


def _prepare(
    recordings: Sequence[Recording],
    config: TrainConfig,
    weights: list[list[Tensor]],
    *,
    frozen: Sequence[int] = (),
    start: Run | None = None,
    parent: str = "",
    known: tuple[str, ...] = (),
) -> Prepared:
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
    seen = sum((prints_of(r.activity, s) for r, s in zip(recordings, spans, strict=True)), ())
    seen = (*seen, *known)
    return Prepared(config, tables, spans, scaling, weights, list(frozen), start, parent, seen)


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
    mean, spread = mean_and_sd(recording.activity, spans)
    # A channel that never changes carries nothing; it stays at zero after centring.
    return torch.from_numpy(mean).to(torch.float32), torch.from_numpy(
        np.where(spread > 0, spread, 1.0)
    ).to(torch.float32)
