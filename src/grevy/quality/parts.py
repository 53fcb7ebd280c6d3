"""What a run trained on, and what it did not see: the two parts that everything here is made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError
from ..model import Run, embed
from ..recording import Recording
from ..splits import mask_of
from ..windows import Spans, within

__all__ = ["Split", "split", "two_parts"]

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of an embedding that maps are fitted on, and rows that they are judged on.

    Attributes
    ----------
    trained : array of float64, shape (n, D)
        Of samples that the run trained on.
    held_out : array of float64, shape (m, D)
        Of samples that it did not see.
    trained_keys, held_out_keys : arrays of int64, shapes (n,) and (m,)
        What each row is of: a sample, or a bin of a label. Rows of one key are compared.
    """

    trained: Matrix
    held_out: Matrix
    trained_keys: NDArray[np.int64]
    held_out_keys: NDArray[np.int64]


def split(
    run: Run, recording: Recording, held_out: Spans, *, session: int = 0, device: str = "auto"
) -> Split:
    """The embedding of the samples that a run trained on, and of samples that it did not see.

    Every span is embedded alone, and samples without a whole window are left out, so that no
    window holds samples of both.

    Parameters
    ----------
    run : Run
        What it trained on is read from its configuration.
    recording : Recording
    held_out : array of int64, shape (E, 2)
        Laps, repeats or blocks, away from what was trained on by as much as the label and the
        population remember (`splits.training_spans` with the plan's guard).
    session : int
        Whose encoder, for a run of several sessions.
    device : str

    Returns
    -------
    Split
        Its keys are sample numbers.

    Raises
    ------
    DataError
        If the run trained on a held-out sample, or no sample of a part has a whole window.
    ConfigError
        If the run has no such session.
    """
    if not 0 <= session < len(run.sessions):
        raise ConfigError(f"the model has sessions 0 to {len(run.sessions) - 1}; found {session}.")
    both = [
        embed(run, recording, spans=part, session=session, pad=False, dense=True, device=device)
        for part in two_parts(run, recording, held_out, session)
    ]
    for part, what in zip(both, ("training", "held-out"), strict=True):
        if not len(part.samples):
            raise DataError(
                f"the {what} spans must hold samples with a whole window of "
                f"{len(run.config.encoder.field)}; found none. Give longer spans."
            )
    trained, held = (e.values.astype(np.float64) for e in both)
    return Split(trained, held, both[0].samples, both[1].samples)


def two_parts(run: Run, recording: Recording, held_out: Spans, session: int) -> tuple[Spans, Spans]:
    """Where a run trained, and what it is judged on, inside epochs; they must lie apart."""
    wanted = run.config.spans(session)
    trained = recording.epochs if wanted is None else within(wanted, recording.epochs)
    held = within(np.asarray(held_out), recording.epochs)
    n = recording.n_samples
    both = np.flatnonzero(mask_of(trained, n) & mask_of(held, n))
    if len(both):
        raise DataError(
            f"held-out spans must hold no sample that the run trained on; found {len(both)}, the "
            f"first sample {both[0]}. Train with train_on set to the rest of the recording."
        )
    return trained, held
