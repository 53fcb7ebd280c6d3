"""What a careful reader asks of a decoding study, answered from the facts of the run.

The questions are in our own words. They follow NERVE-ML: Carlson et al. 2025, Journal of Neural
Engineering, doi:10.1088/1741-2552/adbfbd.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..results import Results, Score
from .evidence import above_chance, compared

__all__ = ["Item", "checklist"]

Answer = Literal["yes", "partly", "no", "not applicable"]


@dataclass(frozen=True)
class Item:
    """One question, its answer, and the fact that the answer comes from."""

    question: str
    answer: Answer
    because: str


def checklist(r: Results) -> tuple[Item, ...]:
    """Every question with its answer; "not applicable" where the run gave no occasion.

    Parameters
    ----------
    r : Results

    Returns
    -------
    tuple of Item
    """
    return (
        _unit(r),
        _apart(r),
        _choice(r),
        _fitted(r),
        _chance(r),
        _baselines(r),
        _intervals(r),
        _comparisons(r),
        _nulls(r),
        _behaviour(r),
        _clock(r),
        _seeds(r),
        _versions(r),
        _beyond(r),
    )


def _ours(r: Results) -> list[Score]:
    return [s for s in r.scores if s.method == "embedding"]


def _none(question: str) -> Item:
    return Item(question, "not applicable", "Nothing was decoded.")


def _unit(r: Results) -> Item:
    question = "Is the unit that intervals are taken over stated, and are there enough of it?"
    rows = _ours(r)
    if not rows:
        return _none(question)
    fewest, most = min(s.n_repeats for s in rows), max(s.n_repeats for s in rows)
    units = " and ".join(dict.fromkeys(f.what for f in r.folds)) or "repeats"
    said = f"The unit is {units}, never samples: {fewest}"
    said += f" to {most}" if most > fewest else ""
    worth = [s for s in r.controls.sizes if s.series != "embedding"]
    if worth:
        least = min(worth, key=lambda s: s.n_effective)
        said += f"; {least.n_samples} samples of {least.series} are worth {least.n_effective:.0f}"
    return Item(question, "yes" if fewest >= 5 else "partly" if fewest >= 3 else "no", f"{said}.")


def _apart(r: Results) -> Item:
    question = "Was every test sample kept, with a gap, from what was trained on?"
    if not r.folds:
        return _none(question)
    shared = sum(f.shared_samples for f in r.folds)
    if shared:
        return Item(
            question, "no", f"{shared} test samples were trained on: samples were shuffled."
        )
    gaps = [f.guard_samples for f in r.folds]
    parts = " and ".join(f"{f.n_folds} folds over {f.what}" for f in r.folds)
    said = f"{parts}, with {' and '.join(f'{g / r.session.rate_hz:.3g} s' for g in gaps)} between."
    return Item(question, "yes" if min(gaps) > 0 else "partly", said)


def _choice(r: Results) -> Item:
    question = "Was the configuration chosen on data that no score comes from?"
    if not r.candidates:
        return Item(question, "not applicable", "Nothing was chosen by data.")
    how = "inside each fold" if r.settings.get("choice") == "nested" else ""
    if not how and any(f.set_aside for f in r.folds):
        how = "on a part that was set aside"
    n = sum(c.over == r.candidates[0].over for c in r.candidates)
    if not how:
        return Item(question, "no", f"{n} candidates, and nothing was set aside for them.")
    return Item(question, "yes", f"{n} candidates were compared {how}.")


def _fitted(r: Results) -> Item:
    question = "Was preprocessing fitted inside the folds?"
    if not r.folds:
        return _none(question)
    if any(f.shared_samples for f in r.folds):
        return Item(question, "no", "Scaling, PCA and encoder saw test samples.")
    unit = f" ({r.session.activity_unit})" if r.session.activity_unit else ""
    if r.settings.get("nan") == "interpolate":
        return Item(question, "partly", "Missing values were interpolated over the whole session.")
    return Item(
        question,
        "yes",
        f"Scaling, PCA, encoder, k and metric were. What was done to the activity{unit} before the "
        "file was written is not known here.",
    )


def _chance(r: Results) -> Item:
    question = "Does the chance level stand beside every score?"
    rows = _ours(r)
    if not rows:
        return _none(question)
    without = sum(not math.isfinite(s.chance) for s in rows)
    if without:
        return Item(question, "partly", f"{without} of {len(rows)} scores have none.")
    return Item(question, "yes", "It is the best constant answer, not one over the classes.")


def _baselines(r: Results) -> Item:
    question = "Are there simple baselines on the same folds?"
    if not _ours(r):
        return _none(question)
    methods = [m for m in dict.fromkeys(s.method for s in r.scores) if m != "embedding"]
    real = [m for m in methods if m != "constant"]
    if not real:
        return Item(question, "no", "None was decoded beside the embedding.")
    lost = sum(d.better == "baseline" for d in r.differences if d.baseline in real)
    return Item(
        question, "yes", f"{', '.join(real)}; the embedding is worse in {lost} of the comparisons."
    )


def _intervals(r: Results) -> Item:
    question = "Do scores have intervals, and of what?"
    rows = _ours(r)
    if not rows:
        return _none(question)
    known = sum(math.isfinite(s.low) and math.isfinite(s.high) for s in rows)
    said = f"{known} of {len(rows)} scores have 95 % intervals, by the jackknife over repeats."
    return Item(question, "yes" if known == len(rows) else "partly" if known else "no", said)


def _comparisons(r: Results) -> Item:
    question = "Are claims corrected for how many were tested?"
    tested = [c for c in r.claims if not c.refused]
    if not tested:
        return Item(question, "not applicable", "No claim was tested against nulls.")
    known = sum(math.isfinite(c.q) for c in tested)
    said = f"{known} of {len(tested)} claims have q values; intervals are not corrected."
    return Item(question, "yes" if known == len(tested) else "no", said)


def _nulls(r: Results) -> Item:
    question = "Was it tested what data without the effect would give?"
    tested = [c for c in r.claims if not c.refused]
    kinds = [f"{max(c.n_nulls for c in tested)} nulls of the labels"] if tested else []
    bits = r.quality.bits
    if bits is not None:
        n = len(bits.surrogates)
        kinds.append(f"{n} surrogate{'s' if n != 1 else ''} of the activity")
    refused = sum(bool(c.refused) for c in r.claims)
    said = " and ".join(kinds) or "None was asked for"
    said += f"; {refused} claims could not be tested" if refused else ""
    answer: Answer = "no" if not kinds else "partly" if refused or not tested else "yes"
    return Item(question, answer, f"{said[0].upper()}{said[1:]}.")


def _behaviour(r: Results) -> Item:
    question = "Is it ruled out that behaviour explains the scores?"
    if not _ours(r):
        return _none(question)
    if not r.controls.behaviour:
        return Item(question, "no", "No behaviour was read, so it was not looked at.")
    gaps = [d for row in r.controls.behaviour for d in compared(row, r.differences)]
    better = sum(d.better == "embedding" for d in gaps)
    labels = sorted({n for row in r.controls.behaviour for n in row.labels})
    if not gaps:
        return Item(question, "not applicable", "No score is better than chance.")
    said = f"The embedding tells more than {', '.join(labels)} in {better} of {len(gaps)} cases."
    return Item(question, "yes" if better == len(gaps) else "partly" if better else "no", said)


def _clock(r: Results) -> Item:
    question = "Is it ruled out that a clock since the onset explains the scores?"
    rows = r.controls.clocks
    if not rows:
        return Item(question, "not applicable", "There are no stimuli of equal length to ask.")
    found = above_chance(r.differences)
    rows = tuple(c for c in rows if ("frame", c.stimulus, "median error") in found)
    if not rows:
        return Item(question, "not applicable", "No score is better than chance.")
    more = sum(c.content_low > 0 for c in rows)
    ticking = sum(c.clock_low > 0 for c in rows)
    said = (
        f"A clock is found in {ticking} of {len(rows)} stimuli; their own presentations decode "
        f"{more} of them better than others do."
    )
    return Item(question, "yes" if more == len(rows) else "partly" if more else "no", said)


def _seeds(r: Results) -> Item:
    question = "Was the variation between seeds looked at?"
    c = r.quality.consistency
    if c is None:
        return Item(question, "no", "One seed was trained, or consistency could not be judged.")
    n = len(c.units)
    said = (
        f"{n} seeds, consistent with an R² of {c.value:.3g} on held-out samples; scores are of one."
    )
    return Item(question, "yes" if n >= 3 else "partly", said)


def _versions(r: Results) -> Item:
    question = "Can the same data, code and settings be found again?"
    lacking = [
        what
        for what, there in (
            ("the version of the code", "grevy" in r.versions),
            ("a fingerprint of the data", "data" in r.versions),
            ("the settings", bool(r.settings)),
        )
        if not there
    ]
    if lacking:
        return Item(question, "partly" if len(lacking) < 3 else "no", f"Not {', '.join(lacking)}.")
    said = f"grevy {r.versions['grevy']}, data {r.versions['data']}, and every setting below."
    return Item(question, "yes", said)


def _beyond(r: Results) -> Item:
    question = "Does it say anything of other sessions or animals?"
    left = [*r.controls.unchecked, *r.quality.unchecked]
    said = f"One session is read ({r.session.n_channels} channels): no interval is over animals."
    if left:
        said += f" Not looked at: {len(left)} of the controls, named above."
    return Item(question, "no", said)
