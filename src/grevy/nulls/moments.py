"""Time-locked: the population follows the clip's time; its moments are shifted round."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..draws import Purpose, uniforms
from ..errors import DataError
from ..evaluate import EMBEDDING, Features, Problem, learnt_and_asked
from ..processors import side_by_side
from ..splits import Plan, trained_samples
from ..windows import Spans
from .decoder import Decoder, medians
from .values import Tested

__all__ = ["shifted", "shifted_samples", "time_locked"]


def time_locked(
    problem: Problem,
    plan: Plan,
    epochs: Spans,
    features: Sequence[Features],
    *,
    n: int = 999,
    seed: int = 0,
    device: str = "auto",
) -> list[Tested]:
    """Test each stimulus by shifting the moments of each of its presentations round.

    The statistic is the score's own: the median error of a presentation, averaged over them, by
    k nearest neighbours with k and metric chosen inside the training data.

    Parameters
    ----------
    problem : Problem
        Of a quantity that lies on no circle, one column.
    plan : Plan
    epochs : array of int64, shape (E, 2)
    features : sequence of Features
        Of each fold.
    n : int
        Nulls.
    seed : int
    device : str

    Returns
    -------
    list of Tested
    """
    if problem.target.n_classes or problem.target.periods.any():
        raise DataError("labels are shifted where they are moments of a presentation; found others")

    def of(s: int) -> Tested | None:
        shown = plan.group[problem.subset == s]
        turns = _turns(shown[shown >= 0], np.arange(n + 1), seed, s)
        found: list[NDArray[np.float64]] = []  # of each scored presentation, (n + 1,)
        for fold, f in enumerate(features):
            subset, groups = problem.subset[f.samples], plan.group[f.samples]
            trained = trained_samples(plan, epochs, fold)[f.samples]
            fit, ask = learnt_and_asked(subset == s, groups, trained, plan.tested[fold][f.samples])
            if not len(fit) or not len(ask):
                continue
            here = np.flatnonzero((subset == s) & (groups >= 0))
            moments = np.asarray(problem.target.values[f.samples[here], 0], dtype=np.float64)
            own = groups[here]
            decoder = Decoder(f.values[EMBEDDING], fit, ask, groups[fit], problem.target, device)
            found += _medians(decoder, here, moments, own, groups[ask], turns)
        if not found:
            return None
        values = np.mean(found, axis=0)
        return Tested(
            "time-locked", problem.names[s], "median error", problem.unit, float(values[0]),
            values[1:], False,
        )  # fmt: skip

    return [t for t in side_by_side(of, range(len(problem.names))) if t is not None]


_Turns = Mapping[int, NDArray[np.float64]]
"""By which share of its length each presentation is shifted under each null."""


def _turns(shown: NDArray[np.int64], nulls: NDArray[np.int64], seed: int, stimulus: int) -> _Turns:
    def of(g: int) -> NDArray[np.float64]:
        purpose = Purpose.NULL + 256 * (1 + stimulus * 4096 + g)
        u = uniforms(seed, purpose, torch.from_numpy(nulls), 1).numpy()[:, 0]
        return np.where(nulls == 0, 0.0, u)

    return {g: of(g) for g in np.unique(shown).tolist()}


def _medians(
    decoder: Decoder,
    here: NDArray[np.int64],
    moments: NDArray[np.float64],
    own: NDArray[np.int64],
    asked: NDArray[np.int64],
    turns: _Turns,
) -> list[NDArray[np.float64]]:
    """Median error of every presentation that is asked for, under the truth and every null."""
    place = np.empty(int(here.max()) + 1, dtype=np.int64)
    place[here] = np.arange(len(here))
    fit, ask = (torch.from_numpy(place[r]).to(decoder.device) for r in (decoder.fit, decoder.ask))
    scored = [torch.from_numpy(np.flatnonzero(asked == g)) for g in np.unique(asked)]
    scored = [rows.to(decoder.device) for rows in scored]
    parts = []
    for begin in range(0, len(next(iter(turns.values()))), decoder.at_once):
        some = {g: turn[begin : begin + decoder.at_once] for g, turn in turns.items()}
        y = _moved(moments, own, some, decoder.device)[..., None]
        far = decoder.errors(y[fit], y[ask])
        parts.append(np.stack([medians(far[rows]) for rows in scored]))
    return list(np.concatenate(parts, axis=1).astype(np.float64))


def _moved(
    moments: NDArray[np.float64], own: NDArray[np.int64], turns: _Turns, device: torch.device
) -> Tensor:
    """`moments` of the rows that are taken instead (`shifted`), where they are needed, (n, c)."""
    out = torch.empty((len(own), len(next(iter(turns.values())))), device=device)
    for rows, shift in _shifts(own, turns):
        twice = torch.from_numpy(np.tile(moments[rows], 2).astype(np.float32)).to(device)
        at = torch.arange(len(rows), device=device)[:, None] + torch.from_numpy(shift).to(device)
        out[torch.from_numpy(rows).to(device)] = twice[at]
    return out


def shifted(
    own: NDArray[np.int64], nulls: NDArray[np.int64], seed: int, stimulus: int
) -> NDArray[np.int64]:
    """For each row the row whose moment it takes, (n, c), round its presentation `own`.

    Null 0 is the truth.
    """
    out = np.empty((len(own), len(nulls)), dtype=np.int64)
    for rows, shift in _shifts(own, _turns(own, nulls, seed, stimulus)):
        out[rows] = rows[(np.arange(len(rows))[:, None] + shift) % len(rows)]
    return out


def _shifts(
    own: NDArray[np.int64], turns: _Turns
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows of each presentation, and by how many of them its moments go round."""
    for g in np.unique(own).tolist():
        rows = np.flatnonzero(own == g)
        yield rows, (turns[g] * len(rows)).astype(np.int64)


def shifted_samples(
    problem: Problem, plan: Plan, nulls: NDArray[np.int64], seed: int
) -> NDArray[np.int64]:
    """For each sample the sample whose moment it takes, (T, c); those of no subset keep theirs."""
    taken = np.tile(np.arange(len(plan.group))[:, None], (1, len(nulls)))
    for s in range(len(problem.names)):
        here = np.flatnonzero((problem.subset == s) & (plan.group >= 0))
        taken[here] = here[shifted(plan.group[here], nulls, seed, s)]
    return taken
