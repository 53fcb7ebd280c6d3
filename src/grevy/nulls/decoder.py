"""k nearest neighbours for thousands of label sets: neighbours do not depend on labels.

They are found once; a null is then a sum of rows of a table, which a GPU or a CPU takes in the same
order. What is averaged over neighbours is a quantity itself, its sine and cosine where it lies on a
circle, or which class it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import embedding_bag

from ..decode import Metric, Target, judge, lone, neighbours
from ..model import choose_device

__all__ = ["Decoder", "Means", "columns_of", "distances", "medians"]

_AT_ONCE = {"cpu": 128, "cuda": 1024}
"""Numbers of a row that one pass serves: on a CPU they stay in its cache."""
_NUMBERS = 2**26
"""Of all rows together that one pass serves: 256 MB."""


def columns_of(target: Target) -> int:
    """How many numbers stand for one label."""
    if target.n_classes:
        return target.n_classes
    return int(len(target.periods) + (target.periods > 0).sum())


def _numbers(target: Target, y: Tensor) -> Tensor:
    """Labels (n, c, d) as the numbers that are averaged, (n, c * e), those of a label together."""
    if target.n_classes:
        one = y[..., :1] == torch.arange(target.n_classes, device=y.device)
        return one.reshape(len(y), -1).float()
    parts = []
    for j, period in enumerate(target.periods.tolist()):
        if period:
            angle = 2 * torch.pi * y[..., j] / period
            parts += [torch.cos(angle), torch.sin(angle)]
        else:
            parts.append(y[..., j])
    return torch.stack(parts, dim=-1).reshape(len(y), -1).float()


def distances(target: Target, mean: Tensor, truth: Tensor) -> Tensor:
    """Errors (q, c) of averaged numbers (q, c * e) against labels (q, c, d): as `decode.error`."""
    q, c, _ = truth.shape
    numbers = mean.reshape(q, c, -1)
    if numbers.shape[-1] == 1 and not target.n_classes:
        return (numbers[..., 0] - truth[..., 0].float()).abs()
    if target.n_classes:
        return (numbers.argmax(dim=-1) != truth[..., 0]).float()
    total, at = torch.zeros((q, c), device=mean.device), 0
    for j, period in enumerate(target.periods.tolist()):
        if period:
            angle = torch.atan2(numbers[..., at + 1], numbers[..., at])
            gap = torch.remainder(angle * period / (2 * torch.pi) - truth[..., j], period)
            gap = torch.minimum(gap, period - gap)
            at += 2
        else:
            gap = numbers[..., at] - truth[..., j]
            at += 1
        total += gap.square().float()
    return total.sqrt()


def medians(far: Tensor) -> NDArray[np.float32]:
    """Of every column of errors (q, c)."""
    if far.device.type == "cpu":
        return np.asarray(np.median(far.numpy(), axis=0))
    rising = far.sort(dim=0)[0]
    return ((rising[(len(far) - 1) // 2] + rising[len(far) // 2]) / 2).cpu().numpy()


class Decoder:
    """k nearest neighbours of one fold and subset, for any labels of its rows.

    Parameters
    ----------
    x : array of float32, shape (n, D)
    fit, ask : arrays of int64
        Rows that are learnt from and that are asked for.
    groups : array of int64, shape (len(fit),)
    target : Target
        Says of what kind the labels are; its values are not used.
    device : str

    Attributes
    ----------
    at_once : int
        Label sets that are best decoded together.
    """

    def __init__(
        self,
        x: NDArray[np.float32],
        fit: NDArray[np.int64],
        ask: NDArray[np.int64],
        groups: NDArray[np.int64],
        target: Target,
        device: str,
    ) -> None:
        self.fit, self.ask, self.target = fit, ask, target
        self.device = choose_device(device)
        most = min(_AT_ONCE[self.device.type], _NUMBERS // (len(fit) + len(ask)))
        self.at_once = max(1, most // columns_of(target))
        table = judge(x[fit], groups, device=device)
        self.judged = torch.empty(0, dtype=torch.int64)
        if table is None:
            only = lone(len(fit))
            self.ks: tuple[int, ...] = (only.k,)
            self.metrics: tuple[Metric, ...] = (only.metric,)
            self.inner: list[Means] = []
        else:
            self.judged = torch.from_numpy(table.judged).to(self.device)
            self.ks, self.metrics = table.ks, tuple(table.nearest)
            self.inner = [self._means(each) for each in table.nearest.values()]
        self.outer = [
            self._means(neighbours(x[fit], x[ask], self.ks[-1], metric=m, device=device))
            for m in self.metrics
        ]

    def _means(self, nearest: NDArray[np.int64]) -> Means:
        return Means(torch.from_numpy(nearest).to(self.device), self.ks)

    def errors(self, y: Tensor, truth: Tensor) -> Tensor:
        """Labels (n_fit, c, d) and what is true of the rows asked, (q, c, d) -> errors (q, c).

        For each of the c label sets k and metric with the smallest mean error inside are taken, the
        larger k among equals. All are on the decoder's device.
        """
        sets, numbers = y.shape[1], _numbers(self.target, y)
        choice = torch.zeros(sets, dtype=torch.int64, device=self.device)
        best = torch.full((sets,), torch.inf, dtype=torch.float64, device=self.device)
        size = torch.zeros_like(choice)
        known = y[self.judged] if self.inner else y
        for m, means in enumerate(self.inner):
            for i, mean in enumerate(means(numbers)):
                score = distances(self.target, mean, known).mean(dim=0, dtype=torch.float64)
                better = (score < best) | ((score == best) & (self.ks[i] > size))
                best, size = torch.where(better, score, best), size.where(~better, self.ks[i])
                choice = choice.where(~better, m * len(self.ks) + i)
        far = torch.empty(truth.shape[:2], device=self.device)
        wide = columns_of(self.target)
        chosen = choice.cpu().numpy()
        for m, means in enumerate(self.outer):
            for i, mean in enumerate(means(numbers)):
                mine = np.flatnonzero(chosen == m * len(self.ks) + i)
                if len(mine):
                    at = torch.from_numpy(mine).to(self.device)
                    some = mean.reshape(len(mean), sets, wide)[:, at].reshape(len(mean), -1)
                    far[:, at] = distances(self.target, some, truth[:, at])
        return far


class Means:
    """Means over the k nearest rows, for several k: sums in the order of neighbours.

    Parameters
    ----------
    nearest : array of int64, shape (q, K)
        -1 is left out.
    ks : sequence of int
        Rising, the last at most K.
    """

    def __init__(self, nearest: Tensor, ks: Sequence[int]) -> None:
        there = nearest >= 0
        self.whole = bool(there[:, : ks[-1]].all())
        self.parts = [nearest[:, a:b].contiguous() for a, b in pairwise((0, *ks))]
        self.counts = [there[:, :k].sum(dim=1, keepdim=True).clamp(min=1).float() for k in ks]

    def __call__(self, y: Tensor) -> Iterator[Tensor]:
        """Of numbers (n, c) the means (q, c), for each k."""
        nothing = len(y)
        if not self.whole:
            y = torch.cat([y, torch.zeros_like(y[:1])])
        total = torch.zeros((len(self.parts[0]), y.shape[1]), device=y.device)
        for part, count in zip(self.parts, self.counts, strict=True):
            rows = part if self.whole else part.where(part >= 0, nothing)
            total += embedding_bag(rows, y, mode="sum")
            yield total / count
