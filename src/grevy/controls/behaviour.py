"""Decoding from what the animal did instead of what its cells did.

Running and pupil follow movies too, and drive cells everywhere (Stringer et al. 2019,
doi:10.1126/science.aav7893).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..evaluate import EMBEDDING, Features, Problem, decode_folds, scaled_windows
from ..recording import Recording
from ..results import BehaviourAlone
from ..scoring import differences, scores
from ..splits import Plan, training_spans
from ..windows import ReceptiveField, keep

__all__ = ["BEHAVIOUR", "behaviour_alone"]

BEHAVIOUR = "behaviour"


def behaviour_alone(
    recording: Recording,
    problem: Problem,
    plan: Plan,
    features: Sequence[Features],
    labels: Sequence[str],
    field: ReceptiveField,
    *,
    device: str = "auto",
) -> BehaviourAlone:
    """Decode from running, pupil or other labels what was decoded from the embedding.

    The decoder sees the labels in the encoder's own window, z-scored on the training spans (those
    on a circle as sine and cosine), and chooses k and metric as the embedding's does. Samples with
    an unknown value anywhere in their window are left out, of the embedding's score too.

    Parameters
    ----------
    recording : Recording
    problem : Problem
    plan : Plan
    features : sequence of Features
        Of each fold; the embedding is used.
    labels : sequence of str
        Continuous labels of the recording.
    field : ReceptiveField
        The encoder's.
    device : str

    Returns
    -------
    BehaviourAlone
        Scores of both (with chance), and embedding minus behaviour.

    Raises
    ------
    DataError
        If there is no such label, it is discrete or the one that is decoded, or no sample is left.
    """
    x, known = _behaviour(recording, problem, labels)

    def both(fold: int) -> Features:
        f = features[fold]
        train_on = keep(training_spans(plan, recording.epochs, fold), known)
        if not len(train_on):
            raise DataError(
                f"behaviour must be known somewhere in the training data; found {', '.join(labels)}"
                f" nowhere in that of fold {fold}. Leave a label out."
            )
        windows, samples = scaled_windows(x, plan.spans, train_on, field)
        row = np.full(recording.n_samples, -1, dtype=np.int64)
        row[samples] = np.arange(len(windows))
        at = row[f.samples]
        whole = (at >= 0) & np.isfinite(windows[at]).all(axis=1)
        values = {EMBEDDING: f.values[EMBEDDING][whole], BEHAVIOUR: windows[at[whole]]}
        return Features(values, f.samples[whole], f.seen)

    found = decode_folds([problem], plan, recording.epochs, both, device=device)[0]
    if not len(found.samples):
        raise DataError(
            f"behaviour must be known throughout some windows of {len(field)} samples that are "
            f"scored; found {', '.join(labels)} in none. Leave a label out."
        )
    n_asked = sum(
        int((plan.tested[k] & (problem.subset >= 0))[f.samples].sum())
        for k, f in enumerate(features)
    )
    return BehaviourAlone(
        tuple(labels),
        len(found.samples) / n_asked,
        tuple(scores(problem, found)),
        tuple(d for d in differences(problem, found) if d.baseline == BEHAVIOUR),
    )


def _behaviour(
    recording: Recording, problem: Problem, labels: Sequence[str]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Labels as columns, NaN where any is unknown, and where all are known."""
    if not labels:
        raise DataError("behaviour must be at least one label; found none. Name running or pupil.")
    columns: list[NDArray[np.float64]] = []
    known = np.ones(recording.n_samples, dtype=bool)
    for name in labels:
        if name not in recording.labels:
            there = ", ".join(recording.labels) or "none"
            raise DataError(f"behaviour must be labels of the recording ({there}); found '{name}'.")
        label = recording.labels[name]
        if label.kind != "continuous" or name == problem.name:
            what = "is what is decoded" if name == problem.name else "is discrete"
            raise DataError(
                f"behaviour must be continuous labels other than the one that is decoded; '{name}' "
                f"{what}. Leave it out."
            )
        values = label.values.reshape(recording.n_samples, -1).astype(np.float64)
        angle = 2 * np.pi * values / label.period if label.period else None
        columns += [values] if angle is None else [np.cos(angle), np.sin(angle)]
        known &= label.mask
    x = np.concatenate(columns, axis=1).astype(np.float32)
    x[~known] = np.nan
    return x, known
