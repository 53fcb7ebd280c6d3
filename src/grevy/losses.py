"""InfoNCE as one pure, numerically stable function.

Source: van den Oord, Li & Vinyals 2018 (arXiv:1807.03748) in the form of Schneider, Lee & Mathis
2023, equation 2 of the Methods: the positive is not among the negatives.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from .kernels import kernels_for

__all__ = ["Distance", "InfoNCE", "bits_above_chance", "info_nce"]


Distance = Literal["cosine", "euclidean"]


class InfoNCE(NamedTuple):
    """Parts of the loss in nats: `total = positive + negative`; each of shape (...)."""

    positive: Tensor
    negative: Tensor
    total: Tensor


def info_nce(
    reference: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    distance: Distance = "cosine",
    others: int = 0,
) -> InfoNCE:
    """Contrastive loss of embedded references, their positives, and shared negatives.

    With similarities s(a, b) = a . b / temperature ("cosine", for latents of unit length) or
    s(a, b) = - |a - b|^2 / temperature ("euclidean"), averaged over references r with positive p::

        positive = - s(r, p)        negative = log sum_n exp s(r, n)

    A model that knows nothing has total = log(N); the loss of N negatives compares only with the
    loss of N negatives. The sum of exponentials is taken relative to its largest term, over some
    references at a time: the B x N similarities are never held as a whole.

    Parameters
    ----------
    reference, positive : tensors, shape (..., B, D)
    negative : tensor, shape (..., N, D)
    temperature : float or tensor, shape (...)
    distance : {"cosine", "euclidean"}
    others : int
        Above 0: the negatives are the references, in blocks of so many, and those of a reference's
        own block are left out.

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
    given = torch.as_tensor(temperature, dtype=reference.dtype, device=reference.device)
    sharpness = (1 / given).expand(reference.shape[:-2])[..., None]
    if distance == "cosine":
        pos = -(sharpness * (reference * positive).sum(-1)).mean(-1)
        neg = _mean_log_sum_exp(sharpness[..., None] * reference, negative, None, others)
    else:
        # -|r - n|^2 = 2 r.n - |n|^2 - |r|^2 about a common centre, so that little cancels.
        centre = negative.mean(dim=-2, keepdim=True).detach()
        r, n = reference - centre, negative - centre
        pos = (sharpness * (reference - positive).square().sum(-1)).mean(-1)
        far = -sharpness * n.square().sum(-1)
        near = (sharpness * r.square().sum(-1)).mean(-1)
        neg = _mean_log_sum_exp(2 * sharpness[..., None] * r, n, far, others) - near
    return InfoNCE(pos, neg, pos + neg)


_ROOM = 2**22
"""Similarities held at once."""


class _MeanLogSumExp(torch.autograd.Function):
    """Mean over i of log sum_n exp(a_i . b_n + c_n), with its gradient found in the same pass.

    a (G, B, D), b (G, N, D), c (G, N) or None -> (G,). With `others` the sum of row i leaves the b
    of its own block of so many rows out. The softmax weights that the gradient needs are at hand
    while the sum is taken, and are then forgotten.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, c: Tensor | None, others: int) -> Tensor:
        runs, n_rows, _ = a.shape
        rows = max(1, _ROOM // max(1, runs * b.shape[1]))
        rows = max(others, rows // others * others) if others else rows
        needed = any(ctx.needs_input_grad)
        gpu = kernels_for(a) if a.dtype == torch.float32 else None
        if gpu is not None:
            each, *gradients = gpu.log_sum_exp(
                a.contiguous(), b.contiguous(), None if c is None else c.contiguous(), others,
                needed=needed,
            )  # fmt: skip
            ctx.save_for_backward(*gradients)
            return each.mean(dim=-1)  # type: ignore[no-any-return]
        values = a.new_empty(runs, n_rows)
        to_a, to_b = torch.empty_like(a), torch.zeros_like(b)
        to_c = None if c is None else torch.zeros_like(c)
        for i in range(0, n_rows, rows):
            some = a[:, i : i + rows]
            if c is None:
                x = torch.bmm(some, b.transpose(1, 2))
            else:
                x = torch.baddbmm(c[:, None], some, b.transpose(1, 2))
            if others:
                blocks = x.view(runs, -1, others, b.shape[1] // others, others)
                blocks.diagonal(offset=i // others, dim1=1, dim2=3).fill_(-torch.inf)
            top = x.amax(dim=-1, keepdim=True)
            x = x.sub_(top).exp_()
            total = x.sum(dim=-1, keepdim=True)
            values[:, i : i + rows] = (total.log() + top)[..., 0]
            if needed:
                # The weights are x / total / n_rows; the narrow tensors are divided, not x.
                share = 1 / (total * n_rows)
                to_a[:, i : i + rows] = torch.bmm(x, b) * share
                to_b.baddbmm_(x.transpose(1, 2), some * share)
                if to_c is not None:
                    to_c += torch.bmm(share.transpose(1, 2), x)[:, 0]
        ctx.save_for_backward(to_a, to_b, to_c)
        return values.mean(dim=-1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        to_a, to_b, to_c = ctx.saved_tensors
        run = gradients[0]
        return (
            to_a * run[:, None, None],
            to_b * run[:, None, None],
            None if to_c is None else to_c * run[:, None],
            None,
        )


def _mean_log_sum_exp(a: Tensor, b: Tensor, c: Tensor | None, others: int) -> Tensor:
    """`_MeanLogSumExp` for any leading axes."""
    lead = a.shape[:-2]
    flat = _MeanLogSumExp.apply(  # type: ignore[no-untyped-call]
        a.reshape(-1, *a.shape[-2:]),
        b.expand(*lead, *b.shape[-2:]).reshape(-1, *b.shape[-2:]),
        None if c is None else c.reshape(-1, c.shape[-1]),
        others,
    )
    return flat.reshape(lead)  # type: ignore[no-any-return]


def bits_above_chance(total: float, n_negatives: int) -> float:
    """Goodness of fit: (log N - loss) / log 2; zero for a model that knows nothing.

    Examples
    --------
    >>> round(bits_above_chance(5.3351, 512), 2)
    1.3
    """
    return (math.log(n_negatives) - total) / math.log(2)
