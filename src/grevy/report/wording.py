"""What a run may say of itself: headline, methods and warnings, in words, from its rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ..config import TrainConfig
from ..encoders import EncoderSpec
from ..nulls import least_nulls
from ..pairs import (
    ClassPairs,
    DeltaPairs,
    HybridPairs,
    LabelPairs,
    MixedPairs,
    NearPairs,
    Pairs,
    TimePairs,
)
from ..questions import Choice
from ..results import Candidate, Claim, Difference, Score, SessionSummary
from ..splits import Plan
from .verdicts import ALPHA, LEAK

__all__ = ["bits_warning", "cautions", "divergence_warning", "headline", "methods", "ranking"]

_EMBEDDING = "embedding"


def _number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "unknown"


def _share(row: Score) -> str:
    """A score with its interval and chance, in the words of a sentence."""
    if row.metric == "accuracy":
        text = f"{row.value:.1%}"
        low, high, chance = f"{row.low:.1%}", f"{row.high:.1%}", f"{row.chance:.1%}"
    else:
        unit = f" {row.unit}" if row.unit else ""
        text = f"{_number(row.value)}{unit}"
        low, high, chance = _number(row.low), _number(row.high), f"{_number(row.chance)}{unit}"
    interval = f" (95 % interval {low} to {high})" if math.isfinite(row.low) else ""
    return f"{text}{interval}, chance {chance}"


def ranking(rows: Sequence[Score]) -> list[Score]:
    """Frame rows of the embedding, best represented stimulus first: median error over chance."""
    frames = [
        r
        for r in rows
        if r.target == "frame" and r.method == _EMBEDDING and r.metric == "median error"
    ]
    return sorted(frames, key=lambda r: r.value / r.chance if r.chance > 0 else math.inf)


def _main_metric(target: str, rows: Sequence[Score] | Sequence[Difference]) -> str:
    """The metric that sentences are about: median error, accuracy for classes."""
    return (
        "median error"
        if any(r.target == target and r.metric == "median error" for r in rows)
        else "accuracy"
    )


def _above_chance(row: Score, differences: Sequence[Difference]) -> bool:
    """Whether the paired interval of embedding minus best constant guess excludes zero."""
    return any(
        d.better == _EMBEDDING and d.baseline == "constant"
        for d in differences
        if (d.target, d.stimulus, d.metric) == (row.target, row.stimulus, row.metric)
    )


def headline(
    scores: Sequence[Score],
    differences: Sequence[Difference],
    claims: Sequence[Claim] = (),
    *,
    confounded: bool = False,
) -> tuple[str, ...]:
    """The findings, most important first, one sentence each.

    Parameters
    ----------
    scores : sequence of Score
    differences : sequence of Difference
    claims : sequence of Claim
    confounded : bool
        Whether the order of stimuli does not tell them from time (`stimulus.order_confounds`).

    Returns
    -------
    tuple of str
    """
    said = []
    ranked = ranking(scores)
    if ranked:
        best = ranked[0]
        above = [r for r in ranked if _above_chance(r, differences)]
        tested = {c.stimulus: c for c in claims if c.claim == "time-locked" and not c.refused}
        claim = tested.get(best.stimulus)
        if best in above and claim is not None and claim.q < ALPHA:
            said.append(
                f"The population follows '{best.stimulus}' best: its moment is decoded with a "
                f"median error of {_share(best)}; q = {claim.q:.3g}."
            )
        elif best in above:
            untested = "not tested against nulls" if claim is None else f"q = {claim.q:.3g}"
            said.append(
                f"Moments of '{best.stimulus}' are decoded best, with a median error of "
                f"{_share(best)}, which is no claim yet that the population follows it "
                f"({untested})."
            )
        else:
            said.append(
                f"No stimulus is decoded with certainty better than chance; '{best.stimulus}' "
                f"comes first with a median error of {_share(best)}."
            )
        said.append(
            f"The frames of {len(above)} of {len(ranked)} stimuli are decoded better than by the "
            f"best constant guess (the 95 % interval of the paired difference excludes zero; not "
            f"corrected for the number of stimuli)."
        )
    said += _supported(claims)
    for row in scores:
        if row.method != _EMBEDDING or row.target == "frame":
            continue
        if row.metric != _main_metric(row.target, scores):
            continue
        what = "Which stimulus is on the screen" if row.target == "stimulus" else f"'{row.target}'"
        with_score = f"{'an' if row.metric == 'accuracy' else 'a'} {row.metric} of {_share(row)}"
        if _above_chance(row, differences):
            said.append(
                f"{what} is decoded better than by the best constant guess, with {with_score}."
            )
        else:
            said.append(
                f"{what} is not shown to be decoded better than by the best constant guess: "
                f"{with_score}."
            )
        if row.target == "stimulus" and confounded:
            said[-1] += (
                " Their order does not tell them from time: this may be the time, not the stimulus."
            )
    said += _against_baselines(differences)
    return tuple(said)


def _supported(claims: Sequence[Claim]) -> list[str]:
    """How many stimuli each claim holds for, corrected for their number."""
    said = []
    for claim, what in (
        ("time-locked", "the population follows their time"),
        ("content", "it follows what they show and not the clock since their onset alone"),
    ):
        rows = [c for c in claims if c.claim == claim and not c.refused]
        if rows:
            held = sum(c.q < ALPHA for c in rows)
            said.append(
                f"For {held} of {len(rows)} stimuli {what} (q < {ALPHA:g} against "
                f"{rows[0].n_nulls} nulls, corrected for {len(rows)} stimuli)."
            )
    for c in claims:
        if c.claim == "identity" and not c.refused:
            tells = "can" if c.p < ALPHA else "cannot be shown to"
            said.append(
                f"The population {tells} tell stimuli of equal length from one another "
                f"(p = {c.p:.3g} against {c.n_nulls} nulls)."
            )
        if c.claim == "label" and not c.refused:
            tells = "is" if c.q < ALPHA else "is not shown to be"
            said.append(
                f"'{c.stimulus}' {tells} decoded better than when blocks of time exchange their "
                f"labels (p = {c.p:.3g}, q = {c.q:.3g}, {c.n_nulls} nulls)."
            )
        if c.claim == "label" and c.refused:
            said.append(f"Whether '{c.stimulus}' is decoded cannot be tested. {c.refused}")
    refused = [c for c in claims if c.refused and c.claim == "identity"]
    if refused:
        said.append(
            f"Whether it follows what the stimuli show, or can tell them apart, cannot be tested. "
            f"{refused[0].refused}"
        )
    return said


_BASELINES = {
    "raw kNN": "nearest neighbours on the raw windows",
    "PCA kNN": "nearest neighbours on their principal components",
    "UMAP kNN": "nearest neighbours in a UMAP of the windows",
    "linear": "a linear decoder of the windows",
}


def _against_baselines(differences: Sequence[Difference]) -> list[str]:
    said = []
    for target in dict.fromkeys(d.target for d in differences):
        metric = _main_metric(target, differences)
        what = {"frame": "frames", "stimulus": "the stimulus"}.get(target, f"'{target}'")
        for baseline, name in _BASELINES.items():
            rows = [
                d
                for d in differences
                if (d.target, d.baseline, d.metric) == (target, baseline, metric)
            ]
            if rows:
                verdict = _verdict(rows, name)
                said.append(f"For {what} the embedding {verdict} ({metric}, paired over repeats).")
    return said


def _verdict(rows: Sequence[Difference], baseline: str) -> str:
    wins = sum(d.better == "embedding" for d in rows)
    losses = sum(d.better == "baseline" for d in rows)
    if len(rows) > 1:
        return (
            f"beats {baseline} for {wins} of {len(rows)} stimuli, loses for {losses}, and is "
            f"undecided for {len(rows) - wins - losses}"
        )
    if wins:
        return f"decodes better than {baseline}"
    return f"{'decodes worse than' if losses else 'cannot be told apart from'} {baseline}"


def _drawn(config: TrainConfig) -> str:
    """References and negatives of a step, and how they were drawn."""
    references = f"{config.batch_size} references a step"
    if config.apart:  # no window serves twice, each is masked on its own
        n = config.n_negatives or config.batch_size
        return f"{references} and {n} negatives, each drawn on its own"
    if config.block > 1:
        drawn = f"{references}, drawn in blocks of {config.block}"
        n = config.n_negatives
        return (
            f"{drawn}, and {n} negatives" if n else f"{drawn}, those of other blocks as negatives"
        )
    if config.n_negatives:
        return f"{references} and {config.n_negatives} negatives, each drawn on its own"
    return f"{references}, each drawn on its own, the others of its step as its negatives"


_MASKED = {
    "neurons": "each channel of a window with probability {share}",
    "timesteps": "each sample of a window with probability {share}",
    "neuron_block": "{share} of the channels of a window, neighbours",
    "time_block": "stretches of {span} samples from {share} of a window's samples on",
}


def _masked(config: TrainConfig) -> str:
    """What of a window was set to zero in training, a sentence."""
    each = [
        _MASKED[m.kind].format(share=" or ".join(f"{s:g}" for s in m.shares), span=m.span)
        for m in config.masks
    ]
    return f" In training there was set to zero: {'; or '.join(each)}." if each else ""


def _pair_words(pairs: Pairs, rate_hz: float) -> str:
    match pairs:
        case TimePairs():
            offsets = ", ".join(f"{o} samples ({o / rate_hz:.3g} s)" for o in pairs.offsets)
            return f"CEBRA-Time: positives lie {offsets} after their reference"
        case HybridPairs():
            return (
                f"CEBRA-Hybrid: {_label_words(pairs.behavior, rate_hz)} on the first "
                f"{pairs.behavior_latents} latents, and time pairs "
                f"({', '.join(map(str, pairs.time.offsets))} samples) on all"
            )
        case _:
            return f"CEBRA-Behavior: {_label_words(pairs, rate_hz)}"


def _label_words(pairs: LabelPairs, rate_hz: float) -> str:
    match pairs:
        case ClassPairs():
            return f"positives share the class of '{pairs.label}'"
        case NearPairs():
            return f"positives have nearly the same {', '.join(pairs.labels)} (sd {pairs.sd:g})"
        case DeltaPairs():
            return (
                f"the {', '.join(pairs.labels)} of a positive differs from its reference's by a "
                f"change seen over {pairs.lag} samples ({pairs.lag / rate_hz:.3g} s)"
            )
        case MixedPairs():
            same = f"positives share the class of '{pairs.label}', and of those"
            return f"{same} {_label_words(pairs.behavior, rate_hz)}"


def methods(
    session: SessionSummary,
    config: TrainConfig,
    choices: Mapping[str, Choice],
    plans: Sequence[tuple[str, Plan]],
    *,
    search_steps: int,
    claims: Sequence[Claim] = (),
) -> tuple[str, ...]:
    """The methods text, one paragraph an entry, with the run's own numbers.

    Parameters
    ----------
    session : SessionSummary
    config : TrainConfig
        The chosen configuration.
    choices : mapping of str to Choice
        By what the folds leave out; the first is that of the model that is shown.
    plans : sequence of (what repeats, Plan)
        "repeats" or "blocks", for each kind of fold used.
    search_steps : int
    claims : sequence of Claim

    Returns
    -------
    tuple of str
    """
    spec, rate = config.encoder, session.rate_hz
    assert isinstance(spec, EncoderSpec)  # a run of the pipeline names its architecture
    window = len(spec.field)
    said = [
        f"Activity of {session.n_channels} channels ({session.source}) was taken at "
        f"{rate:.4g} samples a second: {session.n_samples} samples in {session.n_epochs} unbroken "
        f"stretch{'es' if session.n_epochs != 1 else ''}. "
        f"No window crosses the border of a stretch.",
        f"The encoder was {spec.architecture} ({window} samples, {window / rate:.3g} s; "
        f"{spec.hidden} hidden units; {spec.latents} latents of unit length), trained by "
        f"contrastive learning (Schneider, Lee & Mathis 2023; {_pair_words(config.pairs, rate)}) "
        f"with the InfoNCE loss, cosine similarity, temperature {config.temperature:g}, "
        f"{_drawn(config)}, Adam at learning rate {config.learning_rate:g}, {config.n_steps} "
        f"steps, seed {config.seed}. "
        + (
            "Channels were z-scored by their mean and sd over the training samples."
            if config.scale == "zscore"
            else "Channels were not scaled."
        )
        + _masked(config)
        + (
            f" Embeddings, and what the baselines see, were smoothed over time within each "
            f"presentation or block (Gaussian, sd {config.smoothing:g} samples)."
            if config.smoothing
            else ""
        ),
    ]
    said.append(_choices_in_words(choices, search_steps))
    for what, plan in plans:
        if plan.shuffled:
            said.append(f"The scores are not of held-out samples: {LEAK}. This was asked for.")
            continue
        together = f", {_left_out(plan)} {what} left out in each" if _left_out(plan) > 1 else ""
        said.append(
            f"Scores come from {plan.n_folds} folds over {what}{together}: for each, encoder, "
            f"scaling, PCA and decoder were fitted without the fold's test samples and a guard of "
            f"{plan.guard} samples ({plan.guard / rate:.3g} s; window, offset and indicator decay"
            + ("" if what == "repeats" else ", or the time over which the label remembers itself")
            + (
                f": shorter by {plan.guard_short} than that time, which is all that fits"
                if plan.guard_short
                else ""
            )
            + ") on both sides of them. "
            f"Every presentation or "
            f"block was embedded alone, its edges completed by replication. Decoding is by k "
            f"nearest neighbours; k and the metric were chosen inside the training data, each "
            f"sample judged by neighbours from other {what} only. Baselines see the same windows, "
            f"z-scored (raw kNN) or reduced by PCA to as many dimensions as the embedding "
            f"(PCA kNN), and the same choice of k and metric; the linear decoder is a ridge "
            f"regression, its penalty chosen likewise, or for classes linear discriminants with a "
            f"shrunk covariance, on at most 100 principal components of the windows."
        )
    if plans:
        said.append(
            "Scores are means over repeats (or blocks). Intervals are 95 % intervals by the "
            "jackknife over them (Efron & Stein 1981): the score is computed again without each, "
            "neither tested nor learnt from by the decoder, so that repeats may share training "
            "data; encoders were not trained anew for it. Differences are paired on the same "
            "folds. Chance is the best constant predictor. Intervals are not corrected for the "
            "number of stimuli."
        )
    if claims:
        said.append(_nulls_in_words(claims))
    return tuple(said)


def _left_out(plan: Plan) -> int:
    """Repeats (or blocks) that a fold leaves out."""
    return max((len(np.unique(plan.group[t])) for t in plan.tested), default=0)


_UNCHOSEN = "No configuration was chosen by data: the first value of every setting was used."


def _choices_in_words(choices: Mapping[str, Choice], search_steps: int) -> str:
    """How the shown model's configuration was chosen, and those of folds of other kinds."""
    if not choices:
        return _UNCHOSEN
    first, *others = choices
    said = _choice_in_words(choices[first], search_steps)
    for what in others:
        row = next((c for c in choices[what].table if c.chosen), None)
        if row is None:
            said += f" Nothing was chosen by data for the folds over {what}."
            continue
        own = "in each fold" if choices[what].of_fold else "on what those set aside"
        found = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in row.settings.items())
        said += (
            f" The folds over {what} take their scores elsewhere, so that the choice was made "
            f"again for them, {own}: {found}."
        )
    return said


def _choice_in_words(choice: Choice, search_steps: int) -> str:
    if not choice.table:
        said = _UNCHOSEN
    else:
        said = (
            f"The configuration was chosen among {len(choice.table)} candidates, trained for "
            f"{search_steps} steps each, by their decoding error "
        )
        said += (
            "inside each fold: its training repeats (or blocks) were left out in two parts in "
            "turn, and the fold's test samples took no part. "
            if choice.of_fold
            else "on data set aside for this purpose (a fifth, drawn by the seed), never scored, "
            "and trained without any scored sample. "
        )
        said += (
            "The model that is shown was then trained on the whole recording; no score comes from "
            "it."
        )
    if choice.bits_by_step is not None:
        best = choice.bits_by_step[int(choice.bits_by_step[:, 1].argmax())]
        said += (
            f" The number of steps was chosen too, where held-out bits were highest: "
            f"{int(best[0])} steps, {best[1]:.3g} bits."
        )
    return said


def _nulls_in_words(claims: Sequence[Claim]) -> str:
    kinds = {c.claim for c in claims if not c.refused}
    if not kinds:
        return "No claim was tested against nulls; the tables say why."
    again = [c for c in claims if c.refit and not c.refused]
    n = max((c.n_nulls for c in claims if not c.refit), default=0)
    said = ""
    if n:
        said += (
            f"Claims were tested against {n} nulls each; decoders were fitted and their settings "
            f"chosen anew in every one, encoders, which had not learnt from these labels, were "
            f"not. "
        )
    if again:
        said += (
            f"The encoders learnt from {', '.join(sorted({c.stimulus or c.claim for c in again}))}"
            f": for each of {again[0].n_nulls} nulls those of all folds were trained anew on its "
            f"labels. "
        )
    if "time-locked" in kinds:
        said += (
            "Time-locked: the moments of each presentation were shifted round by an amount of its "
            "own. "
        )
    if "label" in kinds:
        said += "Label: blocks of time exchanged their labels at random. "
    if "content" in kinds:
        said += (
            "Content: the median error of a stimulus decoded from the others of its length, less "
            "that from its own presentations (a kernel-weighted mean over training samples); for "
            "the null, presentations of the same repeat were dealt out anew among them (after an "
            "order that was drawn as a whole, by Markov chains that keep repeats in order; Besag & "
            "Clifford 1989). "
        )
    if "identity" in kinds:
        said += "Identity: the same presentations exchanged their names. "
    return said + (
        "p is (b + 1) / (m + 1), with b of m nulls at least as good as what was observed (Phipson "
        "& Smyth 2010); q corrects it for the number of stimuli (Benjamini & Hochberg 1995). "
        "Behaviour that goes with a stimulus is not told from its content by any of these."
    )


def bits_warning(candidates: Sequence[Candidate]) -> str:
    """A warning where the grid holds several tasks, whose bits do not compare; else ""."""
    if len({c.task for c in candidates}) > 1:
        return (
            "The grid varies the task itself (offset or temperature): bits compare only within a "
            "task, and the choice was made by decoding error."
        )
    return ""


def divergence_warning(candidates: Sequence[Candidate]) -> str:
    """A warning where some candidates have no score because their training diverged; else ""."""
    lost = sum(not math.isfinite(c.score) for c in candidates)
    if not lost:
        return ""
    return (
        f"{lost} of {len(candidates)} candidates diverged and could not be chosen: give smaller "
        f"learning rates or higher temperatures."
    )


def cautions(
    scores: Sequence[Score],
    differences: Sequence[Difference],
    questions: Sequence[tuple[str, Plan]],
    claims: Sequence[Claim] = (),
) -> list[str]:
    """What a careful reader must be told: too few repeats, or a claim that is not supported.

    Parameters
    ----------
    scores : sequence of Score
    differences : sequence of Difference
    questions : sequence of (what repeats, Plan)
    claims : sequence of Claim

    Returns
    -------
    list of str
    """
    said = []
    for what, plan in questions:
        if plan.n_choosing == 0:
            said.append(
                f"Fewer than five {what}: none could be set aside, so nothing was chosen by data."
            )
    few = sorted({r.stimulus or r.target for r in scores if r.n_repeats < 5})
    if few:
        said.append(
            f"Fewer than five scored repeats for {', '.join(few)}: the intervals say little."
        )
    for kind in dict.fromkeys(c.claim for c in claims if not c.refused):
        family = [c for c in claims if c.claim == kind and not c.refused]
        fewest, least = min(c.n_nulls for c in family), least_nulls(len(family), ALPHA)
        if fewest < least:
            what = "labels" if kind == "label" else "stimuli"
            said.append(
                f"{fewest} nulls are too few for the claim '{kind}' of {len(family)} {what}: a "
                f"single one can reach q < {ALPHA:g} only with {least} or more."
            )
    return [*said, *_unsure(scores, differences)]


def _unsure(scores: Sequence[Score], differences: Sequence[Difference]) -> list[str]:
    unsure = [
        r.stimulus or r.target
        for r in scores
        if r.method == _EMBEDDING
        and r.metric == _main_metric(r.target, scores)
        and not _above_chance(r, differences)
    ]
    if not unsure:
        return []
    return [f"Not shown to be better than a constant guess: {', '.join(unsure)}."]
