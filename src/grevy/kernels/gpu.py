"""Kernels for GPUs, in Triton: a layer, its gradients, InfoNCE, Adam, gathering, each in one pass.

Every function here has a twin made of torch's own operations, which says what it must compute:
`layers` for the layers, `losses` for InfoNCE, `drawing` for draws, `stack` for the rest. Products
take bfloat16 numbers with sums in float32 where the activity is bfloat16; float32 numbers are taken
apart into three of tf32, which keeps their digits. Sums over samples are taken in a fixed order, so
that the same step gives the same bits.
"""

from .adam import adam
from .contrast import contrast, log_sum_exp, tell, unit, unit_back
from .convolutions import bend_back, convolve, gather, n_splits, spread, weigh
from .draws import draw_centres

__all__ = [
    "adam",
    "bend_back",
    "contrast",
    "convolve",
    "draw_centres",
    "gather",
    "log_sum_exp",
    "n_splits",
    "spread",
    "tell",
    "unit",
    "unit_back",
    "weigh",
]
