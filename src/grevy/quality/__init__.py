"""How good an embedding is on data that no run trained on, each number beside what chance gives.

::

    parts.py       what a run trained on, and what it did not see
    bits.py        goodness of fit, beside that of surrogates whose channels are unrelated
    agreement.py   runs, sessions and animals predicted from one another, beside shuffled labels
    dimension.py   directions that an embedding spreads over, beside the activity's
    topology.py    parts, loops and voids, beside those of nulls (extra `topology`)

Nothing is trained here: runs are given, those of the nulls too.
"""

from __future__ import annotations

from .agreement import consistency, over_bins
from .bits import bits_with_surrogate, surrogate
from .dimension import effective_dimension, participation_ratio
from .parts import Split, split
from .topology import persistence, ring_test, some_points

__all__ = [
    "Split",
    "bits_with_surrogate",
    "consistency",
    "effective_dimension",
    "over_bins",
    "participation_ratio",
    "persistence",
    "ring_test",
    "some_points",
    "split",
    "surrogate",
]
