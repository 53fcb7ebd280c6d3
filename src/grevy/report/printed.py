"""The findings of a run as lines for a terminal: every score with what stands beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..results import Claim, Score
from .numbers import NOTHING, Scale, amount
from .verdicts import ALPHA, verdict

__all__ = ["printed"]

_BASELINES = {"raw kNN": "raw", "PCA kNN": "PCA", "UMAP kNN": "UMAP", "linear": "linear"}
_CLAIM = {"frame": "time-locked", "stimulus": "identity"}
"""Whose p and q stand in a row; those of a label are its own."""


def printed(scores: Sequence[Score], claims: Sequence[Claim]) -> list[str]:
    """A table a target, and under each row what may be claimed.

    Parameters
    ----------
    scores : sequence of Score
    claims : sequence of Claim

    Returns
    -------
    list of str
        Lines without control characters.
    """
    lines: list[str] = []
    for target in dict.fromkeys(s.target for s in scores):
        rows = [s for s in scores if s.target == target]
        metric = "median error" if any(s.metric == "median error" for s in rows) else "accuracy"
        rows = [s for s in rows if s.metric == metric]
        ours = [s for s in rows if s.method == "embedding"]
        if ours:
            lines += ["", *_table(target, metric, ours, rows, claims)]
    return [
        "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in x) for x in lines
    ]


def _table(
    target: str, metric: str, ours: Sequence[Score], rows: Sequence[Score], claims: Sequence[Claim]
) -> list[str]:
    scale = Scale(metric, ours[0].unit, [v for s in rows for v in (s.value, s.chance)])
    methods = [m for m in _BASELINES if any(s.method == m for s in rows)]
    what = {"frame": "moment of", "stimulus": "which stimulus"}.get(target, target)
    unit = f", {scale.unit}" if scale.unit else ""
    head = [what, f"{metric}{unit}", "95 %", "chance", "p", "q", *map(_BASELINES.get, methods)]
    cells, said = [[str(h) for h in head]], [""]
    for s in ours:
        own = [c for c in claims if _is_about(c, target, s.stimulus)]
        main = next((c for c in own if c.claim == _CLAIM.get(target, "label")), None)
        p, q = (math.nan, math.nan) if main is None else (main.p, main.q)
        beside = {r.method: r.value for r in rows if r.stimulus == s.stimulus}
        cells.append([
            s.stimulus or "all", scale.number(s.value), scale.interval(s.low, s.high),
            scale.number(s.chance), amount(p, 2), amount(q, 2),
            *(scale.number(beside[m]) if m in beside else NOTHING for m in methods),
        ])  # fmt: skip
        said.append(_may_claim(target, own, main))
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = []
    for row, sentence in zip(cells, said, strict=True):
        first, *others = row
        numbers = (c.rjust(w) for c, w in zip(others, widths[1:], strict=True))
        lines.append("  ".join([first.ljust(widths[0]), *numbers]).rstrip())
        lines += [f"    {sentence}"] if sentence else []
    return lines


def _is_about(claim: Claim, target: str, stimulus: str) -> bool:
    """Whether a claim belongs to a row: movies by name, labels by target, identity to all."""
    if target == "frame":
        return claim.claim in ("time-locked", "content") and claim.stimulus == stimulus
    if target == "stimulus":
        return claim.claim == "identity"
    return claim.claim == "label" and claim.stimulus == target


def _may_claim(target: str, own: Sequence[Claim], main: Claim | None) -> str:
    """One plain sentence."""
    if target == "frame":
        return verdict(own) if own else "Not tested against nulls."
    if main is None:
        return "Not tested against nulls."
    if main.refused:
        return f"Not tested. {main.refused}"
    if target == "stimulus":
        if main.p < ALPHA:
            return "The population tells stimuli of equal length from one another."
        return "No claim: it is not shown to tell stimuli of equal length from one another."
    if main.q < ALPHA:
        return "It is decoded better than when blocks of time exchange their labels."
    return "No claim: it is not shown to be decoded better than when blocks exchange their labels."
