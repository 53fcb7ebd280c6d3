"""How well a fitted estimator explains data: InfoNCE and goodness of fit, by CEBRA's names.

Source: Schneider, Lee & Mathis 2023; the goodness of fit is the gain over an encoder that knows
nothing, whose loss is the logarithm of the number of negatives.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .config import latent_slices
from .errors import ConfigError
from .model import held_out_loss

__all__ = [
    "goodness_of_fit_history",
    "goodness_of_fit_score",
    "infonce_loss",
    "infonce_to_goodness_of_fit",
]

_SEVERAL = 4096
"""Negatives a draw for a model that was trained on all samples at once."""


def infonce_loss(
    cebra_model: Any,
    X: Any,
    *y: Any,
    session_id: int | None = None,
    num_batches: int = 500,
    correct_by_batchsize: bool = False,
) -> float:
    """InfoNCE of data under a fitted model, drawn as in its training, in nats.

    Parameters
    ----------
    cebra_model : CEBRA
        Fitted; it is not changed.
    X : array, shape (T, C), or list of one array a session
    *y : arrays, or lists of them
        Labels of the number, kind and width that the model was fitted with.
    session_id : int, optional
        Whose encoder, where X is one recording and the model has several sessions.
    num_batches : int
        Batches drawn, with a fixed seed.
    correct_by_batchsize : bool
        Subtract the logarithm of the number of negatives, the loss of a model that knows nothing.

    Returns
    -------
    float
        Mean over batches; of a hybrid model the sum of its two losses, as in training.

    Raises
    ------
    DataError
        If data or labels do not fit the model.
    ConfigError
        If `num_batches` is below 1.
    """
    loss, n_negatives, n_terms = _loss(cebra_model, X, y, session_id, num_batches)
    return loss - n_terms * math.log(n_negatives) if correct_by_batchsize else loss


def goodness_of_fit_score(
    cebra_model: Any, X: Any, *y: Any, session_id: int | None = None, num_batches: int = 500
) -> float:
    """Bits by which a fitted model beats one that knows nothing, on these data.

    Parameters as in `infonce_loss`; of a hybrid model the mean over its two losses.
    """
    loss, n_negatives, n_terms = _loss(cebra_model, X, y, session_id, num_batches)
    return (math.log(n_negatives) - loss / n_terms) / math.log(2)


def goodness_of_fit_history(model: Any) -> NDArray[np.float64]:
    """Bits above chance at every step of the training, shape (n_steps,).

    Parameters
    ----------
    model : CEBRA
        Fitted.

    Raises
    ------
    NotFittedError
        If it is not.
    """
    run = model._fitted()
    total = run.losses.sum(axis=2, dtype=np.float64).mean(axis=1)
    return np.asarray((math.log(_negatives(run)) - total) / math.log(2))


def infonce_to_goodness_of_fit(
    infonce: float | NDArray[np.float64],
    model: Any = None,
    batch_size: int | None = None,
    num_sessions: int | None = None,
) -> Any:
    """Turn InfoNCE in nats into bits above chance.

    Parameters
    ----------
    infonce : float or array
    model : CEBRA, optional
        Fitted: it knows how many negatives its loss was taken over.
    batch_size, num_sessions : int, optional
        Or the numbers themselves: negatives a session, and sessions (1 where absent).

    Returns
    -------
    float or array
        (log N - infonce) / log 2 with N = batch_size * num_sessions.

    Raises
    ------
    ConfigError
        If neither or both are given.
    """
    if (model is None) == (batch_size is None):
        raise ConfigError(
            "give a fitted model or a batch_size, and not both: either says how many negatives "
            "the loss was taken over."
        )
    if model is not None:
        if num_sessions is not None:
            raise ConfigError(
                "a fitted model knows its sessions: give num_sessions with batch_size."
            )
        n = _negatives(model._fitted())
    else:
        n = int(batch_size or 0) * (num_sessions or 1)
    if n < 1:
        raise ConfigError(f"batch_size and num_sessions must be at least 1; found {n} negatives.")
    bits = (math.log(n) - np.asarray(infonce, dtype=np.float64)) / math.log(2)
    return float(bits) if bits.ndim == 0 else bits


def _negatives(run: Any) -> int:
    if run.n_negatives < 1:
        raise ConfigError(
            "the number of negatives of this model's training is not known (it was trained on all "
            "samples at once by another program)."
        )
    return int(run.n_negatives)


def _loss(
    model: Any, X: Any, y: tuple[Any, ...], session_id: int | None, num_batches: int
) -> tuple[float, int, int]:
    """Mean loss summed over its terms, negatives a reference, terms."""
    if num_batches < 1:
        raise ConfigError(f"num_batches must be at least 1; found {num_batches}.")
    run = model._fitted()
    recordings, which = model.judged(X, *y, session_id=session_id)
    config = run.config
    references = config.batch_size or _SEVERAL
    negatives = config.n_negatives or references
    losses = held_out_loss(
        run,
        recordings,
        [r.epochs for r in recordings],
        sessions=which,
        n=negatives,
        n_references=references,
        rounds=num_batches,
        device=model._where(),
    )
    total = float(losses.sum(axis=1).mean())
    return total, negatives * len(recordings), len(latent_slices(config))
