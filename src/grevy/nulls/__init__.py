"""What decoding scores would be if the population knew nothing: four claims, four nulls.

Time-locked: the population follows the clip's time. Labels are shifted round each presentation by
an amount of its own. An onset response is locked to time, and rightly counts here.

Content: it follows this movie and not the clock since its onset. Presentations of equally long
movies are dealt out anew to as many pseudo-movies, so that all clocks stay and movies mix.

Identity: it tells which stimulus is on the screen. The same presentations change their names.

Label: it tells a quantity or a class that does not repeat. Blocks of time change their labels.

For content and identity a presentation changes places with those of the same repeat alone, as an
order that was drawn cycle by cycle, or as a whole, allows (`exchange`); where the order was fixed
they say nothing and are refused.

The embeddings of the folds stay; decoders are fitted, and their settings chosen, anew for each
null. That is enough where encoders never saw the labels; those that learnt from them are trained
anew for every null too (`refit`). p values count the observed one among the nulls (Phipson & Smyth
2010, doi:10.2202/1544-6115.1585).
"""

from __future__ import annotations

from .blocks import blocks_forget, exchanged, label_blocks
from .moments import shifted_samples, time_locked
from .names import content, families, identity, renamed_samples
from .refit import label_names, refit
from .values import Tested, band, interval, least_nulls, p_value, q_values

__all__ = [
    "Tested",
    "band",
    "blocks_forget",
    "content",
    "exchanged",
    "families",
    "identity",
    "interval",
    "label_blocks",
    "label_names",
    "least_nulls",
    "p_value",
    "q_values",
    "refit",
    "renamed_samples",
    "shifted_samples",
    "time_locked",
]
