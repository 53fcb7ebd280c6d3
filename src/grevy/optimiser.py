"""What training changes, in one flat tensor for all runs of a stack, and Adam on it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .config import Adam
from .kernels import kernels_for
from .model import OptimiserState

__all__ = ["ALIGNED", "Optimiser", "Parameters"]


ALIGNED = 16
"""Numbers of float32 at whose multiples tensors begin, and that a processor takes at once."""


class Parameters:
    """All that training changes, in one tensor (G, P), so that Adam is a few large steps.

    Parameters
    ----------
    weights : list
        For each session and tensor of an encoder those of the G runs, in this order.
    frozen : set of int
        Of every session's tensors these are not trained.
    sharpness : float32 tensor, shape (G, 1), or None
        Logarithm of the inverse temperature where that is learned.
    where : torch.device

    Attributes
    ----------
    flat : float32 tensor, shape (G, P)
    leaves : list of tensors
        Views of it that gradients are taken by, in its order.
    sessions : list of lists of tensors, shapes (G, ...)
        Every session's tensors in order: leaves, or the frozen ones as they are.
    sharpness : tensor, shape (G,), or None
        The last leaf.
    """

    def __init__(
        self,
        weights: Sequence[Sequence[Sequence[Tensor]]],
        frozen: set[int],
        sharpness: Tensor | None,
        where: torch.device,
    ) -> None:
        stacked = [[torch.stack(list(of_runs)) for of_runs in session] for session in weights]
        parts = [w for session in stacked for i, w in enumerate(session) if i not in frozen]
        if sharpness is not None:
            parts.append(sharpness)
        runs = len(stacked[0][0])
        flat = torch.cat([p.reshape(runs, -1) for p in parts], dim=1)
        if where.type == "cpu":  # every run's row begins as it would alone, or bits would differ
            room = torch.zeros(runs, -(-flat.shape[1] // ALIGNED) * ALIGNED)
            room[:, : flat.shape[1]] = flat
            flat = room[:, : flat.shape[1]]
        self.flat = flat.to(where)
        self.leaves: list[Tensor] = []
        position = 0
        for part in parts:
            size = part[0].numel()
            view = self.flat[:, position : position + size].view(part.shape)
            self.leaves.append(view.detach().requires_grad_())
            position += size
        trained = iter(self.leaves)
        self.sessions = [
            [w.to(where) if i in frozen else next(trained) for i, w in enumerate(session)]
            for session in stacked
        ]
        self.sharpness = None if sharpness is None else next(trained)[:, 0]

    def weights(self, flat: Tensor) -> list[list[Tensor]]:
        """Every session's tensors, (G, ...) each, as another flat tensor of these runs has them."""
        parts = torch.split(flat, [leaf[0].numel() for leaf in self.leaves], dim=1)
        other = {
            id(leaf): part.view(leaf.shape) for leaf, part in zip(self.leaves, parts, strict=True)
        }
        return [[other.get(id(w), w) for w in session] for session in self.sessions]

    def gradient(self, of: Tensor) -> Tensor:
        """The gradient of a number by all of them, (G, P)."""
        grads = torch.autograd.grad(of, self.leaves)
        return torch.cat([g.reshape(len(self.flat), -1) for g in grads], dim=1)


class Optimiser:
    """Adam (Kingma & Ba 2015, algorithm 1) for G runs, a learning rate each, in place.

    How far the averages are from their ends is a table by step on the device, so that a step is
    the same program each time.

    Parameters
    ----------
    adam : Adam
    rates : sequence of float
        Of the G runs.
    states : sequence of OptimiserState
        Where they left off; empty to begin.
    n_steps : int
        Steps to come.
    flat : tensor, shape (G, P)
        What will be trained.
    """

    def __init__(
        self,
        adam: Adam,
        rates: Sequence[float],
        states: Sequence[OptimiserState],
        n_steps: int,
        flat: Tensor,
    ) -> None:
        self.adam, where = adam, flat.device
        self.momentum, self.square = torch.zeros_like(flat), torch.zeros_like(flat)
        self.largest = torch.zeros_like(flat) if adam.amsgrad else None
        self.rate = torch.tensor([[rate] for rate in rates], device=where)
        self.before = 0  # not the run's steps: averages that begin anew are corrected anew
        if states:
            self.before = int(states[0].steps)
            self.momentum[:] = torch.stack([s.momentum for s in states])
            self.square[:] = torch.stack([s.square for s in states])
            if self.largest is not None:
                self.largest[:] = torch.stack([s.largest for s in states])
        taken = torch.arange(1, n_steps + 1, dtype=torch.float64) + self.before
        corrections = [1 / (1 - adam.beta1**taken), 1 / (1 - adam.beta2**taken).sqrt()]
        self.corrections = torch.stack(corrections, dim=1).to(torch.float32).to(where)

    def step(
        self, flat: Tensor, grad: Tensor, number: Tensor, narrow: Tensor | None = None
    ) -> None:
        """The update with this number, (1,), among the steps to come.

        The gradient, (G, P), may come in parts (parts, G, P) that add up; `narrow` takes a copy
        of what is trained.
        """
        a, gpu = self.adam, kernels_for(flat)
        if gpu is not None:
            gpu.adam(
                flat, grad, self.momentum, self.square, self.largest,
                self.rate, self.corrections, number,
                beta1=a.beta1, beta2=a.beta2, eps=a.eps, decay=a.weight_decay, narrow=narrow,
            )  # fmt: skip
            return
        grad = grad.sum(dim=0) if grad.ndim == 3 else grad
        if a.weight_decay:
            grad = grad.add(flat, alpha=a.weight_decay)
        self.momentum.lerp_(grad, 1 - a.beta1)
        self.square.mul_(a.beta2).addcmul_(grad, grad, value=1 - a.beta2)
        square = self.square
        if self.largest is not None:
            square = torch.maximum(self.largest, self.square, out=self.largest)
        first, second = self.corrections.index_select(0, number)[0]
        root = (square.sqrt() * second).add_(a.eps)
        flat.sub_(self.rate * first * self.momentum / root)
        if narrow is not None:
            narrow.copy_(flat)

    def state(self, g: int, taken: int, sharpness: Tensor | None) -> OptimiserState:
        """Of one run after so many of the steps to come, on the CPU."""
        none = torch.empty(0)
        return OptimiserState(
            momentum=self.momentum[g].cpu().clone(),
            square=self.square[g].cpu().clone(),
            largest=none if self.largest is None else self.largest[g].cpu().clone(),
            sharpness=none if sharpness is None else sharpness.detach()[g : g + 1].cpu().clone(),
            steps=torch.tensor([self.before + taken]),
        )
