"""Controls for a decoded score: could something else than the claimed content explain it?

::

    behaviour.py   the same decoded from running and pupil instead of cells
    transfer.py    the moment of a movie decoded from other movies: a clock since onset
    distance.py    one presentation decoded from one other, near or far in the session: drift
    channels.py    decoding from some channels, beside as many drawn at random
    sizes.py       how many independent samples a series is worth

Each uses the folds, the features and the choice of decoder of the score that it is held against.
"""

from __future__ import annotations

from .behaviour import BEHAVIOUR, behaviour_alone
from .channels import subsets
from .distance import drift
from .sizes import effective_samples, sample_sizes
from .transfer import onset_clock

__all__ = [
    "BEHAVIOUR",
    "behaviour_alone",
    "drift",
    "effective_samples",
    "onset_clock",
    "sample_sizes",
    "subsets",
]
