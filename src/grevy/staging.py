"""Recordings that a device has no room for: it gets the samples of the next steps alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .drawing import Segments
from .windows import ReceptiveField

__all__ = ["fits", "needed"]

_SHARE = 0.5
"""Of the memory that is free on a device, for recordings that stay there."""


def fits(n_bytes: int, where: torch.device) -> bool:
    """Whether so much activity may lie on a device; on the host it lies already."""
    if where.type != "cuda":
        return True
    return n_bytes <= _SHARE * torch.cuda.mem_get_info(where)[0]


def needed(
    groups: Sequence[Segments], field: ReceptiveField, n_samples: int
) -> tuple[Tensor, list[Tensor]]:
    """The samples behind some segments, and the segments in the numbers of those alone.

    Parameters
    ----------
    groups : sequence of Segments
    field : ReceptiveField
    n_samples : int
        T.

    Returns
    -------
    rows : int64 tensor, shape (R,), increasing
    starts : list of int64 tensors
        Of each group. Neighbouring samples stay neighbours, so a window is what it was. Rows
        past either end of the recording belong to no window that is used, and are left out.
    """
    used = torch.zeros(n_samples + 1, dtype=torch.int32)
    for group in groups:
        start = group.start.flatten()
        first = (start - field.left).clamp_(0, n_samples)
        last = (start + group.outputs + field.right - 1).clamp_(0, n_samples)
        used.index_add_(0, first, torch.ones_like(first, dtype=torch.int32))
        used.index_add_(0, last, torch.full_like(last, -1, dtype=torch.int32))
    here = used[:-1].cumsum(0) > 0
    place = here.cumsum(0) - 1
    return here.nonzero()[:, 0], [place[g.start] for g in groups]
