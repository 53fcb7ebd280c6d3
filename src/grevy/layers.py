"""One layer of G encoders, forwards and backwards, as matrix products.

Activity lies time first, (runs, time, segments, channels), so that all segments share one product
a tap, or one convolution of an image whose height is time, or on a GPU a kernel of our own. Which
is quickest depends on the device; all give the same numbers but for rounding.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import conv2d, gelu, normalize, pad

from .kernels import kernels_for

__all__ = ["convolve", "crop", "layer", "unit"]

_ONE_DNN: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
Skip = Literal["", "inner", "outer"]


def layer(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    stride: int = 1,
    gap: int = 1,
    skip: Skip = "",
    bend: bool = False,
) -> Tensor:
    """A convolution along time, the middle of its input added, and GELU.

    Parameters
    ----------
    x : tensor, shape (G, S, n, C)
        float32, or bfloat16: products then take bfloat16 numbers and add in float32.
    weight, bias : float32 tensors, shapes (G, k, C, H) and (G, H)
    stride, gap : int
        Samples between outputs and between taps.
    skip : {"", "inner", "outer"}
        Whether the input at the middle tap is added, and whether before GELU or after it.
    bend : bool
        Whether there is a GELU.

    Returns
    -------
    tensor, shape (G, S', n, H), of the type of x
        S' = (S - (k - 1) gap - 1) // stride + 1.
    """
    return _Layer.apply(x, weight, bias, stride, gap, skip, bend)  # type: ignore[no-any-return, no-untyped-call]


class _Layer(torch.autograd.Function):
    """`layer` with gradients that are products too."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        stride: int,
        gap: int,
        skip: Skip,
        bend: bool,
    ) -> Tensor:
        kind, needed = weight.dtype, any(ctx.needs_input_grad)
        gpu = kernels_for(x) if stride == 1 else None
        y: Tensor
        if gpu is not None:
            x = x.contiguous()
            y, bent = gpu.convolve(x, weight, bias, gap=gap, skip=skip, bend=bend, keep=needed)
            ctx.save_for_backward(x, weight, bent)
            ctx.how = (stride, gap, skip, kind)
            return y
        weight = weight.to(x.dtype)
        y = convolve(x, weight, bias.to(x.dtype), stride=stride, gap=gap)
        if skip == "inner":
            y += crop(x, y, weight.shape[1], gap)
        if needed:
            ctx.save_for_backward(x, weight, y if bend else None)
            ctx.how = (stride, gap, skip, kind)
        if bend:
            y = gelu(y) if needed else torch.ops.aten.gelu_(y)
        if skip == "outer":
            y += crop(x, y, weight.shape[1], gap)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bent = ctx.saved_tensors
        stride, gap, skip, kind = ctx.how
        outer = gradients[0].contiguous()
        gpu = kernels_for(x) if stride == 1 else None
        if gpu is not None:
            grad = outer if bent is None else gpu.bend_back(outer, bent)
            to_weight, to_bias = gpu.weigh(x, grad, taps=weight.shape[1], gap=gap)
            to_x = None
            if ctx.needs_input_grad[0]:
                beside = {"": None, "inner": grad, "outer": outer}[skip]
                to_x, _ = gpu.spread(grad, weight, beside, time=x.shape[1], gap=gap)
            return to_x, to_weight, to_bias, None, None, None, None
        grad = outer if bent is None else torch.ops.aten.gelu_backward(outer, bent)
        taps = [x[:, rows] for rows in _taps(x.shape[1], weight.shape[1], stride, gap)]
        flat = grad.flatten(1, 2)
        # (H, C) and not (C, H): the layout in which products of narrow types are quickest.
        each = [torch.bmm(flat.transpose(1, 2), t.flatten(1, 2)).transpose(1, 2) for t in taps]
        to_weight = torch.stack(each, dim=1).to(kind)
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = _spread(grad, weight, x, stride, gap)
            if skip:
                both = min(x.shape[-1], grad.shape[-1])
                part = _middle(to_x, grad, weight.shape[1], gap)[..., :both]
                part += (grad if skip == "inner" else outer)[..., :both]
        to_bias = grad.sum(dim=2).to(kind).sum(dim=1)
        return to_x, to_weight, to_bias, None, None, None, None


def unit(h: Tensor) -> Tensor:
    """Latents over their length along the last axis; bfloat16 becomes float32.

    An embedding at the origin stays there: no direction is invented, and nothing is NaN.
    """
    if kernels_for(h) is not None:
        return _Unit.apply(h)  # type: ignore[no-any-return, no-untyped-call]
    return normalize(h.float() if h.dtype == torch.bfloat16 else h, dim=-1, eps=1e-12)


class _Unit(torch.autograd.Function):
    """`unit` as one kernel forwards and one back."""

    @staticmethod
    def forward(ctx: Any, h: Tensor) -> Tensor:
        z, length = kernels_for(h).unit(h.contiguous())  # type: ignore[union-attr]
        ctx.save_for_backward(z, length)
        ctx.kind = h.dtype
        return z  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        z, length = ctx.saved_tensors
        gpu = kernels_for(z)
        return gpu.unit_back(gradients[0].contiguous(), z, length, ctx.kind)  # type: ignore[union-attr, no-any-return]


def crop(x: Tensor, like: Tensor, kernel: int, gap: int) -> Tensor:
    """What a skip adds: x at the middle taps, with as many channels as the output has."""
    more = like.shape[-1] - x.shape[-1]
    middle = _middle(x, like, kernel, gap)
    return pad(middle, (0, more)) if more else middle


def _middle(x: Tensor, like: Tensor, kernel: int, gap: int) -> Tensor:
    begin = (kernel - 1) // 2 * gap
    return x[:, begin : begin + like.shape[1]]


def convolve(x: Tensor, weight: Tensor, bias: Tensor, *, stride: int = 1, gap: int = 1) -> Tensor:
    """(G, S, n, C), (G, k, C, H), (G, H) -> (G, S', n, H), all of one type."""
    if not _images(x):
        return _products(x, weight, bias, stride, gap)
    return _each(
        [
            conv2d(_image(x[g]), _kernel(weight[g]), bias[g], (stride, 1), 0, (gap, 1))
            for g in range(len(x))
        ]
    )


def _products(x: Tensor, weight: Tensor, bias: Tensor, stride: int, gap: int) -> Tensor:
    """`convolve` as a product a tap."""
    runs, time, n, channels = x.shape
    slices = _taps(time, weight.shape[1], stride, gap)
    left = len(range(*slices[0].indices(time)))
    out = bias[:, None].expand(-1, left * n, -1)
    for tap, rows in enumerate(slices):
        out = torch.baddbmm(out, x[:, rows].reshape(runs, left * n, channels), weight[:, tap])
    return out.view(runs, left, n, -1)


def _spread(grad: Tensor, weight: Tensor, x: Tensor, stride: int, gap: int) -> Tensor:
    """The gradient by x of a convolution, from that by its output."""
    if stride == 1 and _images(x):
        reach = (weight.shape[1] - 1) * gap
        turned = weight.flip(1).transpose(2, 3)
        return _each(
            [
                conv2d(_image(grad[g]), _kernel(turned[g]), None, 1, (reach, 0), (gap, 1))
                for g in range(len(x))
            ]
        )
    to_x = torch.zeros_like(x)
    for tap, rows in enumerate(_taps(x.shape[1], weight.shape[1], stride, gap)):
        part = to_x[:, rows]
        part += torch.bmm(grad.flatten(1, 2), weight[:, tap].transpose(1, 2)).view_as(part)
    return to_x


def _taps(time: int, kernel: int, stride: int, gap: int) -> list[slice]:
    """The samples that each tap of a kernel meets."""
    last = time - (kernel - 1) * gap - 1
    reach = last - last % stride + 1
    return [slice(tap * gap, tap * gap + reach, stride) for tap in range(kernel)]


def _images(x: Tensor) -> bool:
    """Whether convolutions of images are the quicker way: on CPUs with oneDNN, 2.4 times."""
    return x.device.type == "cpu" and _ONE_DNN


def _image(x: Tensor) -> Tensor:
    """(S, n, C) as an image (1, C, S, n), channels last: no number moves."""
    return x.permute(2, 0, 1)[None]


def _kernel(weight: Tensor) -> Tensor:
    """(k, C, H) as the kernel of an image, (H, C, k, 1)."""
    return weight.permute(2, 1, 0)[..., None].contiguous(memory_format=torch.channels_last)


def _each(images: list[Tensor]) -> Tensor:
    """Images (1, H, S, n) of G runs as (G, S, n, H)."""
    runs = [image[0].permute(1, 2, 0) for image in images]
    return torch.stack(runs) if len(runs) > 1 else runs[0][None]
