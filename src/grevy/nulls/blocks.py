"""Label: the population tells what the animal does; blocks of time exchange their labels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ..draws import Purpose, uniforms
from ..evaluate import EMBEDDING, Features, Problem, learnt_and_asked
from ..processors import side_by_side
from ..splits import Plan, memory, trained_samples
from ..windows import Spans
from .decoder import Decoder, medians
from .values import Tested

__all__ = ["blocks_forget", "exchanged", "label_blocks"]

_AT_ONCE = 128
"""Nulls whose labels are dealt out at once: a row of the whole session each."""


def blocks_forget(problem: Problem, plan: Plan, n: int) -> str:
    """Why blocks may not exchange their labels; "" where they may.

    A label that remembers itself for longer than half a block makes neighbouring blocks alike, and
    so does a slow state of the population: the true order would then be better than others without
    any relation between the two (Harris 2020, doi:10.1101/2020.11.29.402719).

    Parameters
    ----------
    problem : Problem
    plan : Plan
        Over blocks.
    n : int
        Nulls that are wanted.
    """
    known = problem.subset >= 0
    sizes = np.bincount(plan.group[plan.group >= 0])
    shortest = min(sizes.tolist(), default=0)
    remembers = memory(problem.target, known)
    if 2 * remembers > shortest:
        return (
            f"'{problem.name}' remembers itself for {remembers} samples, more than half of a block "
            f"of {shortest}: blocks cannot exchange their labels. Use fewer "
            f"folds, or a longer recording."
        )
    if math.factorial(min(len(sizes), 20)) <= n:
        return (
            f"{len(sizes)} blocks can be ordered in fewer ways than the {n} nulls asked for. Use "
            f"more folds, or fewer nulls."
        )
    return ""


def exchanged(plan: Plan, nulls: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """For each sample the sample whose label it takes, (T, c); null 0 is the truth.

    A block takes the labels of another in order, stretched by a sample where that is shorter.
    """
    rows = [np.flatnonzero(plan.group == b) for b in range(int(plan.group.max()) + 1)]
    keys = uniforms(seed, Purpose.NULL, torch.from_numpy(nulls), len(rows)).numpy()
    order = np.where(nulls[:, None] == 0, np.arange(len(rows)), np.argsort(keys, axis=1))
    taken = np.tile(np.arange(len(plan.group))[:, None], (1, len(nulls)))
    for b, own in enumerate(rows):
        for i, other in enumerate(order[:, b]):
            from_rows = rows[other]
            taken[own, i] = from_rows[np.arange(len(own)) * len(from_rows) // max(len(own), 1)]
    return taken


def label_blocks(
    problem: Problem,
    plan: Plan,
    epochs: Spans,
    features: Sequence[Features],
    *,
    n: int = 999,
    seed: int = 0,
    device: str = "auto",
) -> Tested:
    """Test whether a label is decoded, by dealing the labels of whole blocks out anew.

    The statistic is the score's own: the median error (for classes the accuracy) in a block,
    averaged over scored blocks, by k nearest neighbours with k and metric chosen inside the
    training data. Valid where encoders never saw the label, and blocks forget (`blocks_forget`).

    Parameters
    ----------
    problem : Problem
        Of one subset.
    plan : Plan
        Over blocks.
    epochs : array of int64, shape (E, 2)
    features : sequence of Features
        Of each fold.
    n : int
        Nulls.
    seed : int
    device : str

    Returns
    -------
    Tested
    """
    values = np.asarray(problem.target.values, dtype=np.float64)

    def of(fold: int) -> list[NDArray[np.float64]]:  # of each scored block, (n + 1,)
        f = features[fold]
        groups = plan.group[f.samples]
        trained = trained_samples(plan, epochs, fold)[f.samples]
        tested = plan.tested[fold][f.samples]
        fit, ask = learnt_and_asked(problem.subset[f.samples] >= 0, groups, trained, tested)
        decoder = Decoder(f.values[EMBEDDING], fit, ask, groups[fit], problem.target, device)
        asked, parts, step = groups[ask], [], min(_AT_ONCE, decoder.at_once)
        scored = [np.flatnonzero(asked == g) for g in np.unique(asked)]
        for begin in range(0, n + 1, step):
            taken = exchanged(plan, np.arange(begin, min(begin + step, n + 1)), seed)
            y, truth = (
                torch.from_numpy(values[taken[f.samples[rows]]]).to(decoder.device)
                for rows in (fit, ask)
            )
            far = decoder.errors(y, truth)
            each = [far[rows] for rows in scored]
            if problem.target.n_classes:
                parts.append(np.stack([1 - e.mean(dim=0).cpu().numpy() for e in each]))
            else:
                parts.append(np.stack([medians(e) for e in each]))
        return list(np.concatenate(parts, axis=1).astype(np.float64))

    found = [row for rows in side_by_side(of, range(len(features))) for row in rows]
    mean = np.mean(found, axis=0)
    classes = bool(problem.target.n_classes)
    statistic = "accuracy" if classes else "median error"
    return Tested("label", problem.name, statistic, problem.unit, mean[0], mean[1:], classes)
