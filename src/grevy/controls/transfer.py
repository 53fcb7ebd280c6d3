"""Decoding the moment of a stimulus from other stimuli: what a clock since the onset can tell."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..decode import best_settings, candidates, evenly, metrics_of, neighbours, predict_without
from ..errors import DataError
from ..evaluate import (
    CONSTANT,
    EMBEDDING,
    Features,
    Predicted,
    Problem,
    decode_folds,
    learnt_and_asked,
)
from ..nulls import families
from ..processors import side_by_side
from ..results import OnsetClock
from ..scoring import Scored, average, every_score
from ..splits import Plan, trained_samples
from ..windows import Spans

__all__ = ["onset_clock"]

_JUDGED = 1500
"""Training rows of the other stimuli that settings are chosen by."""


def onset_clock(
    problem: Problem,
    plan: Plan,
    epochs: Spans,
    features: Sequence[Features],
    lengths: Sequence[float],
    *,
    device: str = "auto",
) -> list[OnsetClock]:
    """Decode the moment of each stimulus from every other one of equal length.

    A decoder learns from the training presentations of one stimulus and is asked for the held-out
    presentations of another. What it still knows does not depend on what was shown: adaptation,
    arousal and everything else that follows the onset. (Or the two stimuli are alike.) Its k and
    metric are chosen by how well it decodes training presentations of the others, each from other
    repeats, so that a clock is given its best chance and its absence ends at chance.

    Parameters
    ----------
    problem : Problem
        "frame".
    plan : Plan
    epochs : array of int64, shape (E, 2)
    features : sequence of Features
        Of each fold; the embedding is used.
    lengths : sequence of float
        Of the subsets of the problem, in seconds.
    device : str

    Returns
    -------
    list of OnsetClock
        A row a stimulus, its error from others averaged over these. Stimuli that have no other of
        their length are left out.

    Raises
    ------
    DataError
        If the problem is one of classes.
    """
    if problem.target.n_classes:
        raise DataError(f"a clock tells moments; found classes of '{problem.name}'.")
    only = [Features({EMBEDDING: f.values[EMBEDDING]}, f.samples, f.seen) for f in features]
    own = decode_folds([problem], plan, epochs, lambda fold: only[fold], device=device)[0]
    rows = []
    for members in families(problem, lengths):
        at = np.flatnonzero(np.isin(own.subset, members))
        if not len(at):
            continue
        values = {EMBEDDING: own.values[EMBEDDING][at]}
        without = {EMBEDDING: own.without[EMBEDDING]}
        from_one = partial(
            _from_one, problem, plan, epochs, only, members, len(own.samples), device
        )
        others = side_by_side(from_one, members)
        for s, (said, less) in zip(members, others, strict=True):
            name = f"from {problem.names[s]}"
            values[name], without[name] = said[at], less
        found = Predicted(
            own.samples[at],
            own.group[at],
            own.subset[at],
            values,
            tuple(c[at] for c in own.constants),
            {m: {g: said[at] for g, said in some.items()} for m, some in without.items()},
        )
        errors = [s for s in every_score(problem, found) if s.metric == "median error"]
        rows += [row for row in map(_clock, errors) if row.n_others]
    return rows


_Said = tuple[NDArray[np.float64], dict[int, NDArray[np.float64]]]


def _from_one(
    problem: Problem,
    plan: Plan,
    epochs: Spans,
    features: Sequence[Features],
    members: Sequence[int],
    n: int,
    device: str,
    s: int,
) -> _Said:
    """What a decoder of one stimulus says of held-out samples of others, and without each repeat.

    Rows are those of `decode_folds`, (n, d) of them; NaN where nothing is said.
    """
    nothing = np.full((n, problem.target.values.shape[1]), np.nan)
    out, without, begin = nothing.copy(), dict[int, NDArray[np.float64]](), 0
    for fold, f in enumerate(features):
        x, subset, groups = f.values[EMBEDDING], problem.subset[f.samples], plan.group[f.samples]
        trained = trained_samples(plan, epochs, fold)[f.samples]
        tested = plan.tested[fold][f.samples]
        rows, asked = [], []
        for m in range(len(problem.names)):
            learnt, ask = learnt_and_asked(subset == m, groups, trained, tested)
            if not len(learnt):
                continue
            if m in members and m != s:
                rows.append(begin + np.arange(len(ask)))
                asked.append(ask)
            begin += len(ask)
        fit, _ = learnt_and_asked(subset == s, groups, trained, tested)
        others = np.isin(subset, [m for m in members if m != s])
        judged, _ = learnt_and_asked(others, groups, trained, tested)
        if not len(fit) or not sum(map(len, asked)):
            continue
        judged = judged[evenly(len(judged), _JUDGED)]
        ks = candidates(len(fit))
        nearest = {
            metric: neighbours(
                x[fit],
                x[judged],
                ks[-1],
                metric=metric,
                train_group=groups[fit],
                query_group=groups[judged],
                device=device,
            )
            for metric in metrics_of(x[fit])
        }
        target, samples = problem.target, f.samples
        settings = best_settings(target, samples[fit], samples[judged], nearest, ks)
        at, query = np.concatenate(rows), x[np.concatenate(asked)]
        out[at], left = predict_without(
            x[fit], samples[fit], groups[fit], query, target, settings, device=device
        )
        for g, said in left.items():
            without.setdefault(g, nothing.copy())[at] = said
    return out, without


def _clock(s: Scored) -> OnsetClock:
    """One row; of the decoders of other stimuli those that said something of this one."""
    own, constant = s.each[EMBEDDING], s.each[CONSTANT]
    others = [e for m, e in s.each.items() if m not in (EMBEDDING, CONSTANT)]
    there = [e for e in others if np.isfinite(e.value)]
    cross = average(there) if there else own
    return OnsetClock(
        s.stimulus,
        s.unit,
        own.value,
        cross.value,
        constant.value,
        *(constant - cross).interval(),
        *(cross - own).interval(),
        len(there),
        s.n_repeats,
    )
