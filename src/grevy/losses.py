"""InfoNCE as one pure, numerically stable function.

Source: van den Oord, Li & Vinyals 2018 (arXiv:1807.03748) in the form of Schneider, Lee & Mathis
2023, equation 2 of the Methods: the positive is not among the negatives.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["InfoNCE", "bits_above_chance", "info_nce"]


class InfoNCE(NamedTuple):
    """Parts of the loss in nats: `total = positive + negative`; each of shape (...)."""

    positive: Tensor
    negative: Tensor
    total: Tensor


def info_nce(
    reference: Tensor, positive: Tensor, negative: Tensor, *, temperature: float | Tensor = 1.0
) -> InfoNCE:
    """Contrastive loss of embedded references, their positives, and shared negatives.

    With similarities s(a, b) = a . b / temperature, averaged over references r with positive p::

        positive = - s(r, p)        negative = log sum_n exp s(r, n)

    A model that knows nothing has total = log(N); the loss of N negatives compares only with the
    loss of N negatives. The sum of exponentials is taken relative to its largest term.

    Parameters
    ----------
    reference, positive : tensors, shape (..., B, D)
    negative : tensor, shape (..., N, D)
    temperature : float or tensor, shape (...)

    Returns
    -------
    InfoNCE
        Three tensors of shape (...), in nats.

    Examples
    --------
    >>> z = torch.ones(1, 2)
    >>> round(float(info_nce(z, z, torch.ones(8, 2)).total), 4) == round(math.log(8), 4)
    True
    """
    scale = torch.as_tensor(temperature, dtype=reference.dtype, device=reference.device)
    similar = (reference * positive).sum(-1) / scale[..., None]
    others = reference @ negative.transpose(-1, -2) / scale[..., None, None]
    pos = -similar.mean(-1)
    neg = torch.logsumexp(others, dim=-1).mean(-1)
    return InfoNCE(pos, neg, pos + neg)


def bits_above_chance(total: float, n_negatives: int) -> float:
    """Goodness of fit: (log N - loss) / log 2; zero for a model that knows nothing.

    Examples
    --------
    >>> round(bits_above_chance(5.3351, 512), 2)
    1.3
    """
    return (math.log(n_negatives) - total) / math.log(2)
