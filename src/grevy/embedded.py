"""Labels decoded from an embedding that is there already, by blocks of time, beside baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .claims import corrected, label_claims
from .decode import Target
from .errors import ConfigError, DataError
from .evaluate import (
    EMBEDDING,
    Features,
    Problem,
    decode_folds,
    plain_features,
)
from .results import Claim, Difference, Score
from .scoring import differences, scores
from .splits import Plan, block_plan, memory, training_spans
from .windows import ReceptiveField, Spans

__all__ = ["Decoded", "decode_embedded", "problem_of"]


@dataclass(frozen=True, eq=False)
class Decoded:
    """What was found, and on which folds."""

    plan: Plan
    scores: tuple[Score, ...]
    differences: tuple[Difference, ...]
    claims: tuple[Claim, ...]


def problem_of(name: str, values: NDArray[np.generic], periods: Sequence[float] = ()) -> Problem:
    """A label as it is decoded: integers are classes, floats quantities, unknown where not finite.

    Parameters
    ----------
    name : str
    values : array, shape (T,) or (T, d)
    periods : sequence of float
        Of every column, 0 for one that is not circular; none are by default.

    Returns
    -------
    Problem
        An error counts as right within 5 % of the label's range (or period).
    """
    if values.dtype.kind != "f":
        classes, code = np.unique(values, return_inverse=True)
        target = Target(code.reshape(-1, 1).astype(np.int64), np.zeros(1), len(classes))
        return Problem(name, target, np.zeros(len(values), dtype=np.int64), ("",), "", (0.0,))
    y = values.reshape(len(values), -1).astype(np.float64)
    known = np.asarray(np.isfinite(y).all(axis=1))
    if not known.any():
        raise DataError(f"label '{name}' must be known somewhere; found no finite row.")
    y = np.where(known[:, None], y, 0.0)
    round_by = np.array(periods or [0.0] * y.shape[1])
    spans = [p or float(np.ptp(y[known, j])) for j, p in enumerate(round_by)]
    subset = np.where(known, 0, -1).astype(np.int64)
    return Problem(
        name, Target(y, round_by), subset, ("",), "", (0.05 * float(np.linalg.norm(spans)),)
    )


def decode_embedded(
    z: NDArray[np.float32],
    activity: NDArray[np.float32],
    problems: Sequence[Problem],
    epochs: Spans,
    field: ReceptiveField,
    *,
    reach: int,
    n_folds: int = 10,
    guard: int | None = None,
    n_nulls: int = 999,
    learnt: Sequence[str] = (),
    seed: int = 0,
    device: str = "auto",
) -> Decoded:
    """Decode labels by blocks that are left out in turn, from an embedding and from plain windows.

    Decoders, scaling, PCA, k and penalty see the training blocks alone. The encoder is given: where
    it saw the samples that are decoded, these are no scores of held-out data, which the caller must
    say.

    Parameters
    ----------
    z : array of float32, shape (T, D)
    activity : array of float32, shape (T, C)
    problems : sequence of Problem
        From `problem_of`.
    epochs : array of int64, shape (E, 2)
    field : ReceptiveField
        The encoder's window, which the baselines see too.
    reach : int
        Samples over which the encoder's pairs reach.
    n_folds : int
    guard : int, optional
        Samples beside a block that are not learnt from; by default the window and the reach, or the
        window and the time over which a label remembers itself, whichever is longer.
    n_nulls : int
        Orders of the blocks that each score stands beside; 0 for none.
    learnt : sequence of str
        Labels of these samples that the encoder learnt from: no claim about them can be tested.
    seed, device
        As in `run`.

    Returns
    -------
    Decoded

    Raises
    ------
    ConfigError
        If the guard is negative or does not fit, or there are too few samples for the folds.
    """
    known = np.all([p.subset >= 0 for p in problems], axis=0)
    if n_folds < 2 or n_folds * 4 > known.sum():
        raise ConfigError(
            f"folds must lie between 2 and {int(known.sum()) // 4}, a quarter of the samples where "
            f"all labels are known; found {n_folds}."
        )
    if guard is not None and guard < 0:
        raise ConfigError(f"a guard must not be negative; found {guard}.")
    longest = max(memory(p.target, known) for p in problems)
    margin = len(field) + max(reach, longest) if guard is None else guard
    plan = block_plan(known, epochs, n_folds=n_folds, seed=seed, guard=margin, set_aside=False)
    if guard is not None and (plan.guard_short or plan.n_folds < n_folds):
        raise ConfigError(
            f"a guard must fit between blocks; {guard} samples are more than a third of one of "
            f"{n_folds} blocks in {int(known.sum())} samples. Use a smaller guard or fewer folds."
        )

    def features(fold: int) -> Features:
        spans = training_spans(plan, epochs, fold)
        plain, samples = plain_features(activity, plan.spans, spans, field, z.shape[1])
        return Features({EMBEDDING: z[samples], **plain}, samples)

    found = decode_folds(problems, plan, epochs, features, device=device)
    rows = np.flatnonzero(plan.group >= 0)
    alone = [Features({EMBEDDING: z[rows]}, rows)] * plan.n_folds
    claims = label_claims(
        problems, plan, epochs, alone, learnt, n=n_nulls, seed=seed, device=device
    )
    every = list(zip(problems, found, strict=True))
    return Decoded(
        plan,
        tuple(row for p, y in every for row in scores(p, y)),
        tuple(row for p, y in every for row in differences(p, y)),
        tuple(corrected(claims)),
    )
