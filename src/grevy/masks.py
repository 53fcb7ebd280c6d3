"""Parts of a window set to zero in training, so that an encoder does not lean on a few channels.

Sources: the masking of MtM (Zhang et al. 2024, arXiv:2407.14668) and of wav2vec 2.0 (Baevski et
al. 2020, arXiv:2006.11477), as CEBRA 0.6 offers them. Values that remain are not rescaled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from .draws import Purpose, integers, uniforms
from .errors import ConfigError

__all__ = ["Mask", "MaskKind", "check_masks", "mask_factors"]

MaskKind = Literal["neurons", "timesteps", "neuron_block", "time_block"]


@dataclass(frozen=True)
class Mask:
    """One way of masking windows.

    Attributes
    ----------
    kind : {"neurons", "timesteps", "neuron_block", "time_block"}
        Single channels or samples of a window, each with probability `share`; a block of
        neighbouring channels, `share` of them; or stretches of `span` samples from
        `share` of the window's samples on, which may overlap.
    shares : tuple of float
        In (0, 1); one is drawn for every step.
    span : int
        Length of the stretches of "time_block", in samples.
    """

    kind: MaskKind
    shares: tuple[float, ...]
    span: int = 1
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if self.kind not in get_args(MaskKind):
            raise ConfigError(f"a mask must be one of {get_args(MaskKind)}; found '{self.kind}'.")
        if (
            not isinstance(self.shares, Sequence)
            or not self.shares
            or not all(0 < share < 1 for share in self.shares)
        ):
            raise ConfigError(f"masks need shares between 0 and 1; found {self.shares}.")
        if self.span < 1:
            raise ConfigError(f"masked stretches are at least 1 sample long; found {self.span}.")
        object.__setattr__(self, "shares", tuple(float(share) for share in self.shares))


def check_masks(masks: Sequence[Mask], *, window: int, channels: int) -> None:
    """Refuse blocks whose length rounds down to nothing: they would mask nothing, in silence.

    Raises
    ------
    ConfigError
        Says which share of how many channels or samples is less than one.
    """
    for mask in masks:
        size, what = {
            "neuron_block": (channels, "channels"),
            "time_block": (window, "samples"),
        }.get(mask.kind, (0, ""))
        small = [share for share in mask.shares if size and int(size * share) == 0]
        if small:
            raise ConfigError(
                f"a mask must cover something; {small[0]} of {size} {what} is less than one. Use a "
                f"share of at least {1 / size:.3g}, or another kind of mask."
            )


def mask_factors(
    masks: Sequence[Mask],
    seed: int | Tensor,
    group: int,
    step: int | Tensor,
    *,
    window: int,
    n: int,
    channels: int,
) -> Tensor:
    """Zeros and ones to multiply n windows with; a pure function of its arguments.

    One of the masks is drawn for all windows of a run, then each window is masked on its own. No
    drawn number is looked at on the host, so that a step can be recorded on a GPU: every mask is
    made and one of them taken.

    Parameters
    ----------
    masks : sequence of Mask
    seed : int, or int64 tensor, shape (G, 2)
        Or the keys of G runs (`draws.keys_of`).
    group : int
        Which group of windows of the step: references, positives and negatives differ.
    step : int, or int64 tensor, shape (1,)
        Masks are drawn where the tensor is; they are the same on every device.
    window, n, channels : int
        W, n, C.

    Returns
    -------
    float32 tensor, shape (W, n, C), or (G, W, n, C) for keys
    """
    at = torch.tensor([step]) if isinstance(step, int) else step
    drawn = uniforms(seed, _purpose(group, 0), at, 2)[..., 0, :, None, None, None]
    which, place = drawn.unbind(-4)  # (G or none, 1, 1, 1) each
    shape = (window, n, channels)
    made = [_kept(mask, seed, _purpose(group, 1), at, place, shape) for mask in masks]
    kept = _pick(made, which)
    return kept.to(torch.float32).expand(*kept.shape[:-3], *shape)


def _kept(
    mask: Mask,
    seed: int | Tensor,
    purpose: int,
    at: Tensor,
    place: Tensor,
    shape: tuple[int, int, int],
) -> Tensor:
    """What one mask leaves of the windows, (W or 1, n, C or 1), or so of every run."""
    window, n, channels = shape
    runs = place.shape[:-3]
    share = _pick(mask.shares, place)
    match mask.kind:
        case "neurons":
            u = uniforms(seed, purpose, at, n * channels)
            return u.reshape(*runs, 1, n, channels) >= share
        case "timesteps":
            u = uniforms(seed, purpose, at, n * window)
            return u.reshape(*runs, window, n, 1) >= share
        case "neuron_block":
            length = _pick([int(channels * share) for share in mask.shares], place)
            most = (channels - length + 1)[..., 0, 0]
            start = integers(seed, purpose, at, n, most[..., None]).reshape(*runs, 1, n, 1)
            channel = torch.arange(channels, device=at.device)
            return (channel < start) | (channel >= start + length)
        case "time_block":
            count = _pick([int(window * share) for share in mask.shares], place)[..., 0]
            u = uniforms(seed, purpose, at, n * window).reshape(*runs, window, n)
            begins = u.argsort(dim=-2).argsort(dim=-2) < count
            hit = begins.clone()
            for later in range(1, min(mask.span, window)):
                hit[..., later:, :] |= begins[..., :-later, :]
            return ~hit[..., None]


def _pick(options: Sequence[Any], u: Tensor) -> Tensor:
    """One of some numbers or tensors, as likely as the others, by uniform numbers u of the runs."""
    first = options[0]
    kind = torch.int64 if isinstance(first, int) else torch.float64
    made = first if isinstance(first, Tensor) else torch.full_like(u, first, dtype=kind)
    index = (u * len(options)).to(torch.int64)
    for i, option in enumerate(options[1:], 1):
        made = torch.where(index == i, option, made)
    return made


def _purpose(group: int, part: int) -> int:
    return Purpose.MASK + 256 * (2 * group + part)
