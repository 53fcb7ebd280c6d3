"""Choosing a configuration: a grid, trained as one program, ranked on data that is never scored."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from .config import TrainConfig
from .encoders import EncoderSpec
from .errors import ConfigError
from .evaluate import Problem, features_of, relative_error
from .model import Run, held_out_bits
from .pairs import DeltaPairs, HybridPairs, Pairs, TimePairs
from .recording import Recording
from .results import Candidate
from .splits import Plan, choosing_spans
from .windows import keep

__all__ = ["SETTINGS", "choose", "expand", "with_spans"]

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
    candidates: Sequence[tuple[dict[str, float | int | str], TrainConfig]],
    trainer: Callable[[Sequence[TrainConfig]], list[Run]],
    *,
    device: str = "auto",
) -> tuple[TrainConfig, list[Candidate]]:
    """Rank candidates on the part set aside for choosing.

    Every candidate is trained once a choosing fold, on everything but the scored samples and those
    it is judged on, and judged by its decoding error there. Bits are reported beside it; they
    compare only candidates of one task.

    Parameters
    ----------
    recording : Recording
    problem : Problem
    plan : Plan
        With choosing folds.
    candidates : sequence of (settings, TrainConfig)
        From `expand`.
    trainer : callable
        Configurations to runs, such as a cached `train`.
    device : str

    Returns
    -------
    chosen : TrainConfig
        With the smallest mean relative error; the earlier among equals.
    table : list of Candidate
        In the order given.
    """
    spans = [choosing_spans(plan, recording.epochs, c) for c in range(plan.n_choosing)]
    runs = trainer([with_spans(config, s) for _, config in candidates for s in spans])
    table, means = [], []
    for i, (settings, config) in enumerate(candidates):
        errors, bits, losses = [], [], []
        for c, train_on in enumerate(spans):
            run = runs[i * len(spans) + c]
            f = features_of(recording, plan.spans, train_on, run, baselines=False, device=device)
            errors.append(relative_error(problem, plan, c, f, train_on, device=device))
            judged = keep(recording.epochs, plan.choosing == c)
            bits.append(held_out_bits(run, recording, judged, device=device))
            losses.append(float(run.history[-50:].sum(axis=1).mean()))
        means.append(float(np.mean(errors)))
        table.append(
            Candidate(
                settings=settings,
                score=means[-1],
                score_sd=float(np.std(errors, ddof=1)) if len(errors) > 1 else float("nan"),
                bits=float(np.mean(bits)),
                task=_task(config),
                chosen=False,
                final_loss=float(np.mean(losses)),
            )
        )
    best = int(np.argmin(means))
    table[best] = replace(table[best], chosen=True)
    return candidates[best][1], table


def _task(config: TrainConfig) -> str:
    """Two candidates of one task may be compared in bits."""
    return f"{config.pairs} | {config.encoder.field} | temperature {config.temperature:g}"
