"""Choosing a configuration: a grid, trained as one program, ranked on data that is never scored."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from .config import TrainConfig
from .encoders import EncoderSpec
from .errors import ConfigError, DataError, DivergedError
from .evaluate import Problem, features_of, relative_errors
from .model import Run, held_out_bits
from .pairs import DeltaPairs, HybridPairs, Pairs, TimePairs
from .recording import Recording
from .results import Candidate
from .splits import Judging, Plan
from .training import resume, train
from .unfinished import Checkpoint
from .windows import keep

__all__ = ["SETTINGS", "choose", "expand", "steps_of_most_bits", "with_spans"]

_NAN = float("nan")
_Judged = tuple[NDArray[np.float64], NDArray[np.int64]]
"""Errors of presentations, and of which repeat (or block) each is."""
_log = logging.getLogger("grevy")
SETTINGS = ("latents", "hidden", "learning_rate", "temperature", "time_offset")
"""What a grid may vary; all but the last two leave the task as it is."""


def expand(
    base: TrainConfig, grid: Mapping[str, Sequence[float | int]]
) -> list[tuple[dict[str, float | int | str], TrainConfig]]:
    """Every combination of a grid as a configuration, in the order of the grid's own keys.

    Parameters
    ----------
    base : TrainConfig
        Where the grid says nothing.
    grid : mapping of setting to values
        Settings are those of `SETTINGS`.

    Returns
    -------
    list of (settings, TrainConfig)

    Raises
    ------
    ConfigError
        If a setting is unknown or has no values.

    Examples
    --------
    >>> [c.learning_rate for _, c in expand(TrainConfig(), {"learning_rate": [0.1, 0.01]})]
    [0.1, 0.01]
    """
    for key, values in grid.items():
        if key not in SETTINGS or not len(values):
            known = ", ".join(SETTINGS)
            raise ConfigError(f"a grid varies {known}, each with values; found '{key}': {values}.")
    found = []
    for combination in itertools.product(*grid.values()):
        point: dict[str, float | int | str] = dict(zip(grid, combination, strict=True))
        config = base
        for key, value in point.items():
            config = _set(config, key, float(value))
        found.append((point, config))
    return found


def _set(config: TrainConfig, key: str, value: float) -> TrainConfig:
    spec = config.encoder
    assert isinstance(spec, EncoderSpec)  # a run of the pipeline names its architecture
    match key:
        case "latents":
            return replace(config, encoder=replace(spec, latents=int(value)))
        case "hidden":
            return replace(config, encoder=replace(spec, hidden=int(value)))
        case "learning_rate":
            return replace(config, learning_rate=value)
        case "temperature":
            return replace(config, temperature=value)
        case _:
            return replace(config, pairs=_with_offset(config.pairs, int(value)))


def _with_offset(pairs: Pairs, offset: int) -> Pairs:
    match pairs:
        case TimePairs():
            return replace(pairs, offsets=(offset,))
        case DeltaPairs():
            return replace(pairs, lag=offset)
        case HybridPairs():
            return replace(pairs, time=replace(pairs.time, offsets=(offset,)))
        case _:
            return pairs


def with_spans(
    config: TrainConfig, spans: np.ndarray[tuple[int, int], np.dtype[np.int64]]
) -> TrainConfig:
    """The configuration trained on some spans only."""
    return replace(config, train_on=tuple((int(a), int(b)) for a, b in spans))


def choose(
    recording: Recording,
    problem: Problem,
    plan: Plan,
    splits: Sequence[Sequence[Judging]],
    candidates: Sequence[tuple[dict[str, float | int | str], TrainConfig]],
    trainer: Callable[[Sequence[TrainConfig]], Sequence[Run | None]],
    *,
    device: str = "auto",
) -> tuple[list[TrainConfig], list[Candidate]]:
    """Rank candidates on data that no score is taken from.

    Every candidate is trained once a split, and judged by the decoding error of what was left out
    there. Bits are reported beside it; they compare only candidates of one task.

    Parameters
    ----------
    recording : Recording
    problem : Problem
    plan : Plan
    splits : sequence of sequences of Judging
        Each list makes a choice of its own: one for the whole run (`choosing_splits`), or one a
        fold (`nested_splits`).
    candidates : sequence of (settings, TrainConfig)
        From `expand`.
    trainer : callable
        Configurations to runs, such as a cached `train`, or to None for one that diverged. Called
        once, so that all train together.
    device : str

    Returns
    -------
    chosen : list of TrainConfig
        Of each list of splits the one with the smallest mean relative error; the earlier among
        equals.
    table : list of Candidate
        In the order given; one that diverged has no numbers, and is not chosen.

    Raises
    ------
    DivergedError
        If all of them diverged.
    DataError
        If none can be judged.
    """
    configs = [
        with_spans(config, split.train_on)
        for _, config in candidates
        for own in splits
        for split in own
    ]
    runs = iter(trainer(configs))
    means = np.zeros((len(candidates), len(splits)))
    table: list[Candidate] = []
    for i, (settings, config) in enumerate(candidates):
        own_runs = [[next(runs) for _ in own] for own in splits]
        judged = None
        if all(run is not None for own in own_runs for run in own):
            judged = _judged(recording, problem, plan, splits, own_runs, device)
        if judged is None:
            means[i] = np.inf
            table.append(Candidate(settings, *(_NAN, _NAN, _NAN), _task(config), False, _NAN))
            continue
        errors, bits, losses = judged
        means[i] = [np.mean([e.mean() for e, _ in own]) for own in errors]
        table.append(_candidate(settings, config, errors, bits, losses))
    if np.isinf(means).all():
        raise DivergedError(
            f"at least one candidate must train; all {len(candidates)} diverged. Use smaller "
            f"learning rates or higher temperatures."
        )
    means[~np.isfinite(means)] = np.inf
    if np.isinf(means).all(axis=0).any():
        raise DataError(
            f"candidates must be judged on what is set aside; found no score for any of the "
            f"{len(candidates)}. Give one value for each setting: then nothing is chosen."
        )
    best = means.argmin(axis=0)
    times = np.bincount(best, minlength=len(candidates))
    overall = int(np.lexsort((means.mean(axis=1), -times))[0])
    table = [replace(row, chosen=i == overall, times=int(times[i])) for i, row in enumerate(table)]
    return [candidates[i][1] for i in best], table


def _judged(
    recording: Recording,
    problem: Problem,
    plan: Plan,
    splits: Sequence[Sequence[Judging]],
    runs: Sequence[Sequence[Run | None]],
    device: str,
) -> tuple[list[list[_Judged]], list[float], list[float]] | None:
    """Errors of a candidate's decoders, bits, and last losses; None where its weights diverged."""
    errors: list[list[_Judged]] = []
    bits, losses = [], []
    for own, trained in zip(splits, runs, strict=True):
        errors.append([])
        for split, run in zip(own, trained, strict=True):
            assert run is not None
            try:
                f = features_of(
                    recording, plan.spans, split.train_on, run, baselines=False, device=device
                )
                errors[-1].append(relative_errors(problem, plan, split, f, device=device))
                judged = keep(recording.epochs, split.judged)
                bits.append(held_out_bits(run, recording, judged, device=device))
            except DivergedError as error:  # finite, but far too large
                _log.warning("a candidate that diverged is not chosen: %s", error)
                return None
            losses.append(float(run.history[-50:].sum(axis=1).mean()))
    return errors, bits, losses


def steps_of_most_bits(
    recording: Recording,
    splits: Sequence[Judging],
    config: TrainConfig,
    *,
    parts: int = 10,
    device: str = "auto",
    checkpoint: Checkpoint | None = None,
) -> tuple[int, NDArray[np.float64]]:
    """After how many steps, up to `config.n_steps`, a configuration has most held-out bits.

    One run a split is trained part by part, going on where it was, and judged after each.

    Parameters
    ----------
    recording : Recording
    splits : sequence of Judging
    config : TrainConfig
    parts : int
        How often to look.
    device : str
    checkpoint : Checkpoint, optional
        As in `train`.

    Returns
    -------
    n_steps : int
    bits : array of float64, shape (parts, 2)
        Steps, and the mean over splits of the bits after them.
    """
    ends = np.unique(np.linspace(0, config.n_steps, parts + 1).astype(int)[1:])
    bits = np.zeros((len(splits), len(ends)))
    for i, split in enumerate(splits):
        judged = keep(recording.epochs, split.judged)
        own = with_spans(config, split.train_on)
        run, done = None, 0
        for j, end in enumerate(ends.tolist()):
            if run is None:
                first = replace(own, n_steps=end)
                run = train([recording], [first], device=device, checkpoint=checkpoint)[0]
            else:
                run = resume(run, [recording], end - done, device=device, checkpoint=checkpoint)
            done = end
            bits[i, j] = held_out_bits(run, recording, judged, device=device)
    mean = bits.mean(axis=0)
    return int(ends[int(mean.argmax())]), np.stack([ends.astype(np.float64), mean], axis=1)


def _candidate(
    settings: dict[str, float | int | str],
    config: TrainConfig,
    errors: Sequence[Sequence[_Judged]],
    bits: Sequence[float],
    losses: Sequence[float],
) -> Candidate:
    """A row of the table; its interval is taken over the repeats (or blocks) that judged it.

    Presentations of one repeat share their time in the session, and a repeat may judge in several
    folds: it counts once.
    """
    each = np.array([e.mean() for own in errors for e, _ in own])
    every = np.concatenate([e for own in errors for e, _ in own])
    group = np.concatenate([g for own in errors for _, g in own])
    repeats = np.array([every[group == g].mean() for g in np.unique(group)])
    half = float("nan")
    if len(repeats) > 1:
        half = float(
            stats.t.ppf(0.975, len(repeats) - 1) * repeats.std(ddof=1) / np.sqrt(len(repeats))
        )
    score = float(np.mean([np.mean([e.mean() for e, _ in own]) for own in errors]))
    return Candidate(
        settings=settings,
        score=score,
        score_sd=float(each.std(ddof=1)) if len(each) > 1 else float("nan"),
        bits=float(np.mean(bits)),
        task=_task(config),
        chosen=False,
        final_loss=float(np.mean(losses)),
        low=score - half,
        high=score + half,
    )


def _task(config: TrainConfig) -> str:
    """Two candidates of one task may be compared in bits."""
    return f"{config.pairs} | {config.encoder.field} | temperature {config.temperature:g}"
