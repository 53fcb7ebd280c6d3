"""What may be claimed of a stimulus, from its rows alone."""

from __future__ import annotations

from collections.abc import Sequence

from ..results import Claim

__all__ = ["ALPHA", "LEAK", "verdict"]

LEAK = "samples were shuffled into folds, so encoder and decoder saw the neighbours of every test"
"""What is said of every score where the folds leak."""

ALPHA = 0.05
"""A claim is made where its q value is below this."""


def verdict(claims: Sequence[Claim]) -> str:
    """What may be claimed of one stimulus, in a sentence, from its rows."""
    by = {c.claim: c for c in claims}
    locked, content = by.get("time-locked"), by.get("content")
    if locked is not None and locked.refused:
        return f"Not tested. {locked.refused}"
    if locked is None or not locked.q < ALPHA:
        return "No claim: the population is not shown to follow it."
    if content is None or content.refused:
        return (
            "The population follows its time. Whether its content or the clock since its onset "
            "cannot be told."
        )
    if content.q < ALPHA:
        return "The population follows this stimulus, and not the clock since its onset alone."
    return (
        "The population follows its time. That this is more than the clock since its onset is not "
        "shown."
    )
