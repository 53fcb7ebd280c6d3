"""Runs that differ in their latents alone as one stack: the narrower padded with zeros, then cut.

A latent whose weights are zero is zero for every window. It adds nothing to a length, a product or
a distance, so no gradient reaches it, and Adam leaves alone what never had one: the run is the run
without it, but for the order of sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from .config import latent_slices
from .encoders import EncoderSpec, dropouts
from .model import Run
from .stack import Prepared

__all__ = ["alike", "cut", "padded"]

_MOST = 128
"""Latents up to which runs are padded: a kernel takes as many in one tile."""


def alike(run: Prepared) -> Prepared:
    """The run as if it had as many latents as any that it may be stacked with, to group it by."""
    spec = run.config.encoder
    if not isinstance(spec, EncoderSpec) or run.start is not None or spec.latents > _MOST:
        return run
    inside = any("latents" in layer.width for layer in spec.layers[:-1])
    if inside or dropouts(spec) or len(latent_slices(run.config)) > 1:
        return run
    return _with_latents(run, _MOST)


def padded(stack: Sequence[Prepared]) -> list[Prepared]:
    """Runs that are alike, all with as many latents as the widest."""
    if len({run.config.encoder for run in stack}) == 1:
        return list(stack)
    most = max(_latents(run) for run in stack)
    return [
        replace(_with_latents(run, most), weights=_grown(run.weights, most - _latents(run)))
        for run in stack
    ]


def cut(trained: Run, before: Prepared) -> Run:
    """A trained run without the latents that were put beside those it had before."""
    more = 0
    if trained.config.encoder != before.config.encoder:
        more = _latents(trained) - _latents(before)
    if not more:
        return trained
    # Ones where the flat vector of what was trained holds numbers of the run's own.
    own = _grown([[torch.ones_like(w) for w in session] for session in before.weights], more)
    flat = [w.flatten() for session in own for i, w in enumerate(session) if i not in before.frozen]
    if trained.config.learn_temperature:
        flat.append(torch.ones(1))
    kept, state = torch.cat(flat) > 0, trained.state
    if state is not None:
        state = replace(
            state,
            momentum=state.momentum[kept],
            square=state.square[kept],
            largest=state.largest[kept] if len(state.largest) else state.largest,
        )
    return replace(
        trained,
        config=replace(trained.config, encoder=before.config.encoder),
        sessions=tuple(
            replace(s, weights=(*s.weights[:-2], *(w[..., :-more].clone() for w in s.weights[-2:])))
            for s in trained.sessions
        ),
        state=state,
    )


def _latents(run: Prepared | Run) -> int:
    assert isinstance(run.config.encoder, EncoderSpec)
    return run.config.encoder.latents


def _with_latents(run: Prepared, latents: int) -> Prepared:
    assert isinstance(run.config.encoder, EncoderSpec)
    encoder = replace(run.config.encoder, latents=latents)
    return replace(run, config=replace(run.config, encoder=encoder))


def _grown(weights: list[list[Tensor]], more: int) -> list[list[Tensor]]:
    """Every session's tensors with more latents, the last axis of the last weight and bias."""
    return [[*own[:-2], *(pad(w, (0, more)) for w in own[-2:])] for own in weights]
