"""Over how many directions an embedding spreads, beside the activity that it was made of."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..model import Run
from ..recording import Recording, mean_and_sd, pieces
from ..results import EffectiveDimension
from ..windows import Spans, keep
from .parts import split

__all__ = ["effective_dimension", "participation_ratio"]

Matrix = NDArray[np.float64]


def participation_ratio(x: NDArray[Any], spans: Spans | None = None) -> float:
    """How many directions variance is spread over: (sum l)^2 / sum l^2 of its covariance.

    Parameters
    ----------
    x : array, shape (T, d)
        May lie on disk.
    spans : array of int64, shape (E, 2), optional
        Only these rows.

    Returns
    -------
    float
        Between 1 and d: n where n directions share the variance evenly.

    Raises
    ------
    DataError
        If no column varies.

    Notes
    -----
    With few independent rows it is too small: noise of d equal directions gives about
    d / (1 + d / n) for n of them. Compare numbers of the same samples.

    References
    ----------
    Gao et al. 2017, "A theory of multineuronal dimensionality, dynamics and measurement",
    doi:10.1101/214262.

    Examples
    --------
    >>> participation_ratio(np.array([[1.0, 1, 0], [-1, 1, 0], [1, -1, 0], [-1, -1, 0]]))
    2.0
    """
    return _ratio(_covariance(x, spans))


def effective_dimension(
    run: Run, recording: Recording, spans: Spans, *, session: int = 0, device: str = "auto"
) -> EffectiveDimension:
    """Participation ratio of an embedding and of the activity at the same held-out samples.

    Parameters
    ----------
    run : Run
    recording : Recording
    spans : array of int64, shape (E, 2)
        Held out.
    session : int
        Whose encoder, for a run of several sessions.
    device : str

    Returns
    -------
    EffectiveDimension
        Of the activity as it is, where a few strong channels count for most, and with all its
        channels at equal variance.

    Raises
    ------
    DataError
        If the run trained on a held-out sample, or the embedding or the activity never changes.
    """
    parts = split(run, recording, spans, session=session, device=device)
    mask = np.zeros(recording.n_samples, dtype=bool)
    mask[parts.held_out_keys] = True
    activity = _covariance(recording.activity, keep(recording.epochs, mask))
    sd = np.sqrt(np.diag(activity))
    sd[sd == 0] = math.inf
    return EffectiveDimension(
        embedding=participation_ratio(parts.held_out),
        activity=_ratio(activity),
        scaled_activity=_ratio(activity / sd[:, None] / sd),
        n_latents=parts.held_out.shape[1],
        n_channels=recording.n_channels,
        n_samples=int(mask.sum()),
    )


def _covariance(x: NDArray[Any], spans: Spans | None) -> Matrix:
    """Up to a factor."""
    spans = np.array([[0, len(x)]]) if spans is None else spans
    mean, sd = mean_and_sd(x, spans)
    if not sd.any():
        raise DataError(
            f"to have a dimension the {x.shape[1]} columns must vary; found all of them constant."
        )
    found = np.zeros((x.shape[1], x.shape[1]))
    for piece in pieces(x, spans):
        centred = np.where(sd > 0, piece - mean, 0.0)
        found += centred.T @ centred
    return found


def _ratio(covariance: Matrix) -> float:
    return float(np.trace(covariance) ** 2 / np.square(covariance).sum())
