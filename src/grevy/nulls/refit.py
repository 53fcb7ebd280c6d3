"""Nulls for encoders that learnt from the label: they are trained anew for every null."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from ..config import TrainConfig
from ..decode import error
from ..evaluate import EMBEDDING, Features, Problem, by_subset, decode_folds, features_of
from ..model import Run
from ..pairs import (
    ClassPairs,
    DeltaPairs,
    HybridPairs,
    LabelPairs,
    MixedPairs,
    NearPairs,
    Pairs,
    TimePairs,
    parts,
)
from ..recording import Recording
from ..splits import Plan, training_spans
from .values import Tested

__all__ = ["label_names", "refit"]

Trainer = Callable[[Recording, Sequence[TrainConfig]], list[Run]]


def refit(
    recording: Recording,
    problem: Problem,
    plan: Plan,
    config: TrainConfig,
    observed: Sequence[Features],
    taken: NDArray[np.int64],
    claim: str,
    trainer: Trainer,
    *,
    device: str = "auto",
) -> list[Tested]:
    """Test each subset of a problem with encoders that are trained on every null's labels too.

    All runs of all nulls are configurations of one recording, which carries the labels of every
    null beside the true ones: they train as one program.

    Parameters
    ----------
    recording : Recording
        With the label `problem.name`, which the encoder learnt from.
    problem : Problem
    plan : Plan
    config : TrainConfig
        What was chosen.
    observed : sequence of Features
        Of each fold, from encoders trained on the true labels.
    taken : array of int64, shape (T, m)
        For every null the sample whose label each sample takes.
    claim : str
        What the claim is called.
    trainer : callable
        A recording and configurations to runs.
    device : str

    Returns
    -------
    list of Tested
        One a subset; the statistic is that of the nulls without refitting.
    """
    label = recording.labels[problem.name]
    names = [f"{problem.name}, null {j}" for j in range(taken.shape[1])]
    others = {
        name: replace(label, values=label.values[taken[:, j]], known=label.mask[taken[:, j]])
        for j, name in enumerate(names)
    }
    wider = replace(recording, labels=MappingProxyType({**recording.labels, **others}))
    spans = [training_spans(plan, recording.epochs, fold) for fold in range(plan.n_folds)]
    configs = [
        replace(
            config,
            pairs=_renamed(config.pairs, problem.name, name),
            train_on=tuple((int(a), int(b)) for a, b in own),
        )
        for name in names
        for own in spans
    ]
    runs = iter(trainer(wider, configs))
    values = [_statistics(problem, plan, recording, observed, device)]
    for j in range(len(names)):
        target = replace(problem.target, values=problem.target.values[taken[:, j]])
        features = [
            features_of(recording, plan.spans, own, next(runs), baselines=False, device=device)
            for own in spans
        ]
        values.append(
            _statistics(replace(problem, target=target), plan, recording, features, device)
        )
    table = np.array(values)
    classes = bool(problem.target.n_classes)
    statistic = "accuracy" if classes else "median error"
    return [
        Tested(
            claim, "" if claim == "identity" else name or problem.name, statistic, problem.unit,
            float(table[0, s]), table[1:, s], classes,
        )
        for s, name in enumerate(problem.names)
        if np.isfinite(table[:, s]).all()
    ]  # fmt: skip


def _statistics(
    problem: Problem,
    plan: Plan,
    recording: Recording,
    features: Sequence[Features],
    device: str,
) -> NDArray[np.float64]:
    """The median error (for classes the accuracy) of each subset, averaged over its repeats."""

    def only(fold: int) -> Features:
        f = features[fold]
        return replace(f, values={EMBEDDING: f.values[EMBEDDING]})

    p = decode_folds([problem], plan, recording.epochs, only, device=device, leave_out=False)[0]
    found = np.full(len(problem.names), np.nan)
    for s, _, at in by_subset(problem, p):
        far = error(problem.target, p.samples[at], p.values[EMBEDDING][at])
        each = [far[p.group[at] == g] for g in np.unique(p.group[at])]
        if problem.target.n_classes:
            found[s] = np.mean([1 - e.mean() for e in each])
        else:
            found[s] = np.mean([np.median(e) for e in each])
    return found


def label_names(pairs: Pairs) -> tuple[str, ...]:
    """The labels that pairs are made by, none for time pairs."""
    behavior, _ = parts(pairs)
    match behavior:
        case None:
            return ()
        case ClassPairs():
            return (behavior.label,)
        case DeltaPairs() | NearPairs():
            return behavior.labels
        case MixedPairs():
            return (*behavior.behavior.labels, behavior.label)


def _renamed(pairs: Pairs, old: str, new: str) -> Pairs:
    """The same pairs by another label."""
    match pairs:
        case TimePairs():
            return pairs
        case HybridPairs():
            return replace(pairs, behavior=_renamed_label(pairs.behavior, old, new))
        case _:
            return _renamed_label(pairs, old, new)


def _renamed_label(pairs: LabelPairs, old: str, new: str) -> LabelPairs:
    match pairs:
        case ClassPairs():
            return replace(pairs, label=new) if pairs.label == old else pairs
        case DeltaPairs() | NearPairs():
            return replace(pairs, labels=tuple(new if n == old else n for n in pairs.labels))
        case MixedPairs():
            inner = _renamed_label(pairs.behavior, old, new)
            assert isinstance(inner, DeltaPairs | NearPairs)
            return replace(pairs, behavior=inner, label=new if pairs.label == old else pairs.label)
