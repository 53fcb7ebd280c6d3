"""The page docs/parity.md, from two files of results; every verdict is computed here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any, Literal

from scipy.stats import t as student

import parity_judge as judge

Word = Literal["better", "within spread", "worse"]
LEVEL = 0.05

PUBLISHED: Mapping[tuple[str, str], str] = {
    **{
        (f"{rat}, {mode}", "decoding: error, cm"): value
        for mode, values in (
            ("behavior", ("5.5", "13.5", "22.7", "12.5")),
            ("time", ("4.7", "12.8", "20.4", "8.9")),
        )
        for rat, value in zip(("achilles", "buddy", "cicero", "gatsby"), values, strict=True)
    },
    ("four rats, behavior", "consistency between animals, in sample: R2"): "0.943",
    ("four rats, time", "consistency between animals, in sample: R2"): "0.771",
    ("flow, behavior", "decoding: R2 of z"): "0.920",
}
"""CEBRA's own figures (Schneider, Lee & Mathis 2023), by their own protocol."""


@dataclass(frozen=True)
class Verdict:
    """One score of both libraries.

    `p` is the chance of a difference as large between CEBRA and five more seeds of CEBRA.
    """

    task: str
    measure: str
    cebra: tuple[float, ...]
    grevy: tuple[float, ...]
    p: float
    word: Word


def verdict(task: str, measure: str, cebra: Sequence[float], grevy: Sequence[float]) -> Verdict:
    """Compare the means of two sets of seeds against the spread of CEBRA's seeds alone.

    "within spread": grevy's mean lies where the mean of as many further seeds of CEBRA would lie
    95 times in 100, |difference| <= t(.975, n - 1) s sqrt(1/n + 1/m), s the standard deviation
    over CEBRA's n seeds. grevy's own spread does not widen it.
    """
    n, m = len(cebra), len(grevy)
    gain = mean(grevy) - mean(cebra)
    gain = -gain if judge.better_small(measure.removeprefix("decoding: ")) else gain
    error = stdev(cebra) * (1 / n + 1 / m) ** 0.5
    p = float(gain == 0) if error == 0 else float(2 * student.sf(abs(gain) / error, n - 1))
    word: Word = "within spread" if p > LEVEL else "better" if gain > 0 else "worse"
    return Verdict(task, measure, tuple(cebra), tuple(grevy), p, word)


def holm(p: Sequence[float]) -> list[float]:
    """p adjusted for all of them being looked at (Holm 1979)."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    found, largest = [1.0] * len(p), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        found[i] = largest
    return found


def verdicts(reference: Mapping[str, Any], ours: Mapping[str, Any]) -> list[Verdict]:
    """Every score that both files hold; settings and data must be the same."""
    found = []
    for name, theirs in reference["tasks"].items():
        mine = ours["tasks"].get(name)
        if mine is None:
            continue
        for key in ("settings", "data"):
            if theirs.get(key) != mine.get(key):
                raise SystemExit(f"{name}: the two libraries were run with different {key}")
        for measure, values in theirs["scores"].items():
            if measure != "k" and len(values) > 1 and measure in mine["scores"]:
                found.append(verdict(name, measure, values, mine["scores"][measure]))
    return found


# --- the page ------------------------------------------------------------------------------------
def page(reference: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """All of docs/parity.md."""
    found = verdicts(reference, ours)
    return "\n".join(
        [
            "# Parity with CEBRA 0.6.1",
            "",
            "Made by `python benchmarks/parity.py`; nothing on this page is typed by hand.",
            "",
            *_exact(ours.get("exact")),
            "## Same data, settings and seeds: the same quality",
            "",
            *_conditions(reference, ours),
            "",
            *_counts(found),
            "",
            *_table(found),
            "",
            *_missing(reference, ours),
            "## Parameters",
            "",
            *_parameters(reference),
        ]
    )


def _exact(exact: Mapping[str, Any] | None) -> Iterator[str]:
    if exact is None:
        return
    rows = exact["weights"]
    worst = max(r["difference"] for r in rows)
    yield "## Same weights: the same embeddings"
    yield ""
    yield (
        f"{sum(r['names'] for r in rows)} architectures, CEBRA's weights in both, random windows "
        "and stretches, through the torch module and through the function that training calls. "
        f"Largest difference, relative to the larger of one and the value: {worst:.1e}. "
        f"({exact['made']})"
    )
    yield ""
    yield "| family | architectures | numbers compared | largest difference |"
    yield "|---|---|---|---|"
    for r in rows:
        yield f"| {r['family']} | {r['names']} | {r['numbers']} | {r['difference']:.1e} |"
    yield ""
    yield "## Same embeddings: the same loss"
    yield ""
    yield (
        "InfoNCE, its two parts, and its gradient by every embedding, over temperatures 0.1 to 4 "
        "and several sizes; differences relative to the larger of one and the value."
    )
    yield ""
    yield "| distance | cases | largest difference, loss | largest difference, gradient |"
    yield "|---|---|---|---|"
    for r in exact["loss"]:
        yield f"| {r['distance']} | {r['cases']} | {r['difference']:.1e} | {r['gradient']:.1e} |"
    yield ""


def _conditions(reference: Mapping[str, Any], ours: Mapping[str, Any]) -> Iterator[str]:
    yield (
        "Both libraries are called by the same code with the same parameters and judged by the "
        f"same code. The first 80 % of a recording train encoder and decoder, {judge.GAP} samples "
        "are left out, the rest is scored; each part is embedded by itself. CEBRA has no seed: its "
        "runs differ in their weights (torch's seed) and in pairs that cannot be repeated."
    )
    yield ""
    yield (
        f"- **bits**: held-out goodness of fit above chance, {judge.N_NEGATIVES} negatives drawn "
        "independently of as many references, at a fixed seed, for the pairs of the task (time: "
        "ten samples later; label: as the mode draws them; hybrid: on its first three latents)."
    )
    yield (
        "- **decoding**: nearest neighbours, their number chosen inside the training part; the "
        "median error, the share of right classes, or R2. Flow: a linear map to the true latent."
    )
    yield (
        "- **consistency**: R2 of a linear map from one embedding to another, fitted on training "
        'samples and scored on held-out ones ("in sample": on the training samples again, as the '
        "literature has it); variance is pooled over the latents, so that rotations do not "
        "matter. Between seeds the values are jackknife pseudo-values. Between animals, "
        "embeddings are averaged in 40 places x 2 directions. It compares libraries; it is no "
        "claim that the embeddings mean something, which would need a null."
    )
    yield (
        "- **within spread**: the mean over grevy's seeds lies where the mean of as many further "
        "seeds of CEBRA would lie 95 times in 100, by CEBRA's own standard deviation over seeds. "
        "**p** is the chance of a difference as large between CEBRA and itself; **p, all** is "
        "adjusted for the number of rows (Holm)."
    )
    yield (
        "- **published**: the CEBRA paper's figures (10 seeds x 3 folds, 10,000 steps; in-sample "
        "consistency; 100 seeds for flow). Another protocol, so only the size compares."
    )
    yield ""
    for which, results in (("CEBRA", reference), ("grevy", ours)):
        made = sorted({m for task in results["tasks"].values() for m in task.get("made", ())})
        yield f"{which}: {'; '.join(made)}."
        yield ""


def _counts(found: Sequence[Verdict]) -> Iterator[str]:
    words = [v.word for v in found]
    adjusted = holm([v.p for v in found])
    worse = sum(p <= LEVEL and v.word == "worse" for v, p in zip(found, adjusted, strict=True))
    better = sum(p <= LEVEL and v.word == "better" for v, p in zip(found, adjusted, strict=True))
    yield (
        f"**Of {len(found)} rows: {words.count('better')} better, "
        f"{words.count('within spread')} within spread, {words.count('worse')} worse.** Were both "
        f"libraries alike, {LEVEL / 2 * len(found):.1f} rows would be called worse by chance, and "
        f"as many better. After adjusting for the number of rows: {better} better, {worse} worse."
    )


def _table(found: Sequence[Verdict]) -> Iterator[str]:
    yield "| data, mode | measure | CEBRA | grevy | verdict | p | p, all | published |"
    yield "|---|---|---|---|---|---|---|---|"
    adjusted = holm([v.p for v in found])
    for v, p in zip(found, adjusted, strict=True):
        yield (
            f"| {v.task} | {v.measure} | {_spread(v.cebra)} | {_spread(v.grevy)} | {v.word} | "
            f"{v.p:.3f} | {p:.2f} | {PUBLISHED.get((v.task, v.measure), '')} |"
        )


def _spread(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds."""
    digits = 2 if abs(mean(values)) >= 2 else 3
    return f"{mean(values):.{digits}f} ± {stdev(values):.{digits}f}"


def _missing(reference: Mapping[str, Any], ours: Mapping[str, Any]) -> Iterator[str]:
    for which, results, other in (("grevy", ours, reference), ("CEBRA", reference, ours)):
        names = [name for name in other["tasks"] if name not in results["tasks"]]
        if names:
            yield f"Not run with {which}: {', '.join(names)}."
            yield ""


def _parameters(reference: Mapping[str, Any]) -> Iterator[str]:
    """One line for all tasks that share them."""
    shared: dict[str, list[str]] = {}
    for name, task in reference["tasks"].items():
        if "settings" in task:
            text = ", ".join(f"{k}={v!r}" for k, v in sorted(task["settings"].items()))
            shared.setdefault(text, []).append(name)
    for text, names in shared.items():
        yield f"- {'; '.join(names)}: `{text}`"
