"""Decoding from some of the channels: more cells decode better wherever they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import compress

import numpy as np
import torch
from numpy.typing import NDArray

from ..draws import Purpose, uniforms
from ..errors import DataError
from ..evaluate import (
    CONSTANT,
    EMBEDDING,
    RAW,
    Features,
    Predicted,
    Problem,
    decode_folds,
    features_of,
    scaled_windows,
)
from ..model import Run
from ..recording import Recording
from ..results import SubsetScore
from ..scoring import Jackknife, Scored, average, every_score
from ..splits import Plan, training_spans
from ..windows import ReceptiveField, Spans

__all__ = ["subsets"]

_Trainer = Callable[[Recording, Sequence[Spans]], Sequence[Run]]


def subsets(
    recording: Recording,
    problem: Problem,
    plan: Plan,
    masks: Mapping[str, NDArray[np.bool_]],
    field: ReceptiveField,
    *,
    size: int | None = None,
    n_random: int = 20,
    seed: int = 0,
    trainer: _Trainer | None = None,
    device: str = "auto",
) -> list[SubsetScore]:
    """Decode from some of the channels, such as those of one region, on the same folds.

    Every subset stands beside as many channels drawn at random from all, because more channels
    decode better whatever they are. To compare subsets with each other, give a `size` they all
    have: each is then decoded from that many of its channels, averaged over draws.

    Parameters
    ----------
    recording : Recording
    problem : Problem
    plan : Plan
    masks : mapping of str to array of bool, shape (C,)
        Channels of each subset, for regions `{r: regions == r for r in np.unique(regions)}`.
    field : ReceptiveField
        Of the raw windows that are decoded.
    size : int, optional
        Channels that each subset is thinned to.
    n_random : int
        Draws; 0 for none.
    seed : int
    trainer : callable, optional
        Recording and training spans of each fold to runs. Given it, embeddings are decoded too: of
        every subset and of every draw, so it trains (1 + `n_random`) runs a fold and subset.
    device : str

    Returns
    -------
    list of SubsetScore
        For each subset, stimulus, metric and method ("raw kNN", "embedding").

    Raises
    ------
    DataError
        If a mask is not one of the channels, or has fewer of them than `size`, or none.
    """
    channels = recording.n_channels
    for name, mask in masks.items():
        if mask.shape != (channels,) or mask.dtype != bool or mask.sum() < max(size or 1, 1):
            raise DataError(
                f"subset '{name}' must be a mask over the {channels} channels with at least "
                f"{max(size or 1, 1)} of them; found {int(np.sum(mask))} in shape {mask.shape}."
            )
    if size is not None and not n_random:
        raise DataError("subsets are thinned at random; found n_random=0. Use 1 or more draws.")
    keys = uniforms(seed, Purpose.CONTROL, torch.arange(n_random), channels).numpy()
    drawn: dict[int, list[list[Scored]]] = {}  # by size: subsets of one size share draws

    def judge(mask: NDArray[np.bool_], n: int) -> list[list[Scored]]:
        some = [
            _decoded_from(recording, problem, plan, each, field, trainer, device)
            for each in _thinned(mask, n, keys)
        ]
        return [every_score(problem, found) for found in some]

    rows = []
    for name, mask in masks.items():
        count = int(mask.sum()) if size is None else size
        own = judge(mask, count)
        if count not in drawn:
            drawn[count] = judge(np.ones(channels, dtype=bool), count) if n_random else []
        for i, scored in enumerate(own[0]):
            for method in [m for m in scored.each if m != CONSTANT]:
                mine = average([found[i].each[method] for found in own])
                others = [found[i].each[method] for found in drawn[count]]
                rows.append(_subset_row(name, count, problem, scored, method, mine, others))
    return rows


def _thinned(mask: NDArray[np.bool_], n: int, keys: NDArray[np.float64]) -> list[NDArray[np.bool_]]:
    """Draws of n channels of a mask, one for each row of keys; the mask where it has no more."""
    if mask.sum() == n:
        return [mask]
    first = np.argsort(np.where(mask, keys, 2.0), axis=1)[:, :n]
    draws = np.zeros(keys.shape, dtype=bool)
    np.put_along_axis(draws, first, True, axis=1)
    return list(draws)


def _decoded_from(
    recording: Recording,
    problem: Problem,
    plan: Plan,
    mask: NDArray[np.bool_],
    field: ReceptiveField,
    trainer: _Trainer | None,
    device: str,
) -> Predicted:
    """Predictions from raw windows of some channels, and from an embedding of them."""
    part = replace(
        recording,
        activity=np.ascontiguousarray(recording.activity[:, mask]),
        channels=tuple(compress(recording.channels, mask)),
        regions=tuple(compress(recording.regions, mask)),
    )
    epochs = recording.epochs
    spans = [training_spans(plan, epochs, fold) for fold in range(plan.n_folds)]
    runs = trainer(part, spans) if trainer else None

    def features(fold: int) -> Features:
        seen = spans[fold]
        windows, samples = scaled_windows(part.activity, plan.spans, spans[fold], field)
        values = {RAW: windows}
        if runs is not None:
            f = features_of(
                part, plan.spans, spans[fold], runs[fold], baselines=False, device=device
            )
            values[EMBEDDING], seen = f.values[EMBEDDING], f.seen
        return Features(values, samples, seen)

    return decode_folds([problem], plan, epochs, features, device=device)[0]


def _subset_row(
    name: str,
    n_channels: int,
    problem: Problem,
    s: Scored,
    method: str,
    mine: Jackknife,
    others: Sequence[Jackknife],
) -> SubsetScore:
    """A subset beside random channels."""
    nan = float("nan")
    values = [each.value for each in others] or [nan]
    return SubsetScore(
        name,
        n_channels,
        problem.name,
        s.stimulus,
        method,
        s.metric,
        s.unit,
        *mine.interval(),
        s.each[CONSTANT].value,
        float(np.mean(values)),
        float(np.quantile(values, 0.025)),
        float(np.quantile(values, 0.975)),
        *((mine - average(others)).interval() if others else (nan, nan, nan)),
        len(others),
        s.n_repeats,
        s.higher,
    )
