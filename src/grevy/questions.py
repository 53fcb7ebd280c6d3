"""What is asked of a recording, and how it is answered: folds, choice, decoding, claims."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from .claims import corrected, label_claims, refitted_claims, stimulus_claims
from .config import TrainConfig
from .errors import DivergedError
from .evaluate import (
    EMBEDDING,
    Features,
    Predicted,
    Problem,
    decode_folds,
    features_of,
    frame_problem,
    identity_problem,
    label_problem,
)
from .model import Run
from .nulls import label_names
from .recording import Recording
from .results import Candidate, Claim
from .search import choose, expand, steps_of_most_bits, with_spans
from .settings import RunConfig, grid, guard
from .splits import (
    Judging,
    Plan,
    block_plan,
    choosing_splits,
    memory,
    nested_splits,
    repeat_plan,
    shuffled_plan,
    training_spans,
)
from .unfinished import Checkpoint

__all__ = [
    "Choice",
    "Question",
    "Trainer",
    "choose_for",
    "claims_about",
    "decode_question",
    "fold_runs",
    "questions_of",
]

_log = logging.getLogger("grevy")
Trainer = Callable[[Sequence[TrainConfig], str], list[Run]]
"""Configurations, and what they are for in words, to runs."""


@dataclass(frozen=True, eq=False)
class Question:
    """Problems that share their folds: what repeats ("repeats") or is cut in time ("blocks")."""

    what: str
    plan: Plan
    problems: tuple[Problem, ...]


@dataclass(frozen=True, eq=False)
class Choice:
    """What was chosen by data for one question.

    Every question chooses for itself: what one sets aside or leaves out, another scores.

    Attributes
    ----------
    overall : TrainConfig
        Of every fold, unless each chose for itself; of the first question, that of the model that
        is shown.
    of_fold : tuple of TrainConfig
        One a fold of the question, or none.
    table : tuple of Candidate
        Empty where nothing was chosen.
    bits_by_step : array of float64, shape (n, 2), or None
        Steps, and held-out bits after them, where the number of steps was chosen.
    """

    overall: TrainConfig
    of_fold: tuple[TrainConfig, ...] = ()
    table: tuple[Candidate, ...] = ()
    bits_by_step: NDArray[np.float64] | None = None
    why_not: str = ""
    """Why nothing was chosen by data, where that is worth a word."""


def questions_of(
    recording: Recording, config: RunConfig, base: TrainConfig
) -> tuple[list[Question], list[str]]:
    """What can be decoded; in words what cannot, and where folds are not what was asked for."""
    asked, said = [], []
    margin = guard(recording, config, base)
    track = recording.stimulus
    folds = {
        "n_folds": config.folds, "seed": config.seed, "leave_out": config.leave_out,
        "set_aside": config.choice == "aside",
    }  # fmt: skip
    if track is not None and track.decodable:
        problems = [frame_problem(recording)]
        if len(track.decodable) > 1:
            problems.append(identity_problem(recording))
        plan = repeat_plan(track, recording.epochs, guard=margin, **folds)  # type: ignore[arg-type]
        asked.append(Question("repeats", plan, tuple(problems)))
    elif track is not None:
        said.append("No stimulus repeats in a way that can be decoded: see the table of stimuli.")
    names = [n for n in config.labels if n not in ("frame", "stimulus")]
    if names:
        known = np.all([recording.labels[n].mask for n in names], axis=0)
        problems = [label_problem(n, recording.labels[n]) for n in names]
        longest = max(memory(p.target, known) for p in problems)
        margin = max(margin, len(base.encoder.field) + longest)
        plan = block_plan(known, recording.epochs, guard=margin, **folds)  # type: ignore[arg-type]
        asked.append(Question("blocks", plan, tuple(problems)))
        if config.split != "shuffled":
            said += _guarded(plan, margin, config.folds, recording.rate_hz)
    if config.split == "shuffled":
        asked = [_shuffled(q, recording, config) for q in asked]
    if not asked:
        said.append(
            "Nothing was decoded: the recording has no stimulus that repeats and no label was "
            "named. The embedding is shown without a claim."
        )
    return asked, said


def _guarded(plan: Plan, margin: int, n_folds: int, rate_hz: float) -> list[str]:
    """What a guard that a label asks for did to the folds over blocks."""
    said, wanted = [], f"{margin / rate_hz:.3g} s"
    if plan.n_folds < n_folds:
        said.append(
            f"{plan.n_folds} folds over blocks instead of {n_folds}: fewer, longer blocks, since "
            f"{wanted} between test and training samples must fit between them (the label "
            "remembers itself so long)."
        )
    if plan.guard_short:
        said.append(
            f"{wanted} should lie between test and training samples, since the label remembers "
            f"itself so long; {plan.guard / rate_hz:.3g} s are all that fits. Scores over blocks "
            "may be too high: what is tested resembles what was trained on."
        )
    return said


def _shuffled(q: Question, recording: Recording, config: RunConfig) -> Question:
    known = q.plan.group >= 0
    plan = shuffled_plan(known, recording.epochs, n_folds=config.folds, seed=config.seed)
    return replace(q, plan=replace(plan, spans=q.plan.spans))


def choose_for(
    recording: Recording,
    question: Question,
    base: TrainConfig,
    config: RunConfig,
    trainer: Trainer,
    checkpoint: Checkpoint | None = None,
) -> Choice:
    """Choose the configuration of a question, on data from which it takes no score."""
    candidates = expand(replace(base, n_steps=config.search_steps), grid(config))
    if question.plan.shuffled or (len(candidates) == 1 and not config.early_stop):
        return Choice(base)
    splits = _splits(recording, question, config)
    if not splits:
        if config.choice == "aside" and question.plan.n_choosing == 0:
            return Choice(base)  # too few repeats, which `cautions` says
        why = (
            f"Nothing was chosen by data for the folds over {question.what}: what could be judged "
            "leaves, within the guards, nothing to learn from."
        )
        return Choice(base, why_not=why)
    chosen, table = [base] * len(splits), list[Candidate]()
    if len(candidates) > 1:
        found, table = choose(
            recording,
            question.problems[0],
            question.plan,
            splits,
            candidates,
            lambda configs: _attempted(configs, trainer),
            device=config.device,
        )
        chosen = [replace(c, n_steps=config.steps) for c in found]
    overall = chosen[0]
    if config.choice == "nested":
        place = next((i for i, row in enumerate(table) if row.chosen), None)
        if place is not None:
            overall = replace(candidates[place][1], n_steps=config.steps)
    curve = None
    if config.early_stop:
        every = [split for own in splits for split in own]
        steps, curve = steps_of_most_bits(
            recording, every, overall, device=config.device, checkpoint=checkpoint
        )
        overall = replace(overall, n_steps=steps)
        if config.choice == "nested":
            own_steps = [
                steps_of_most_bits(recording, own, c, device=config.device, checkpoint=checkpoint)[
                    0
                ]
                for c, own in zip(chosen, splits, strict=True)
            ]
            chosen = [replace(c, n_steps=n) for c, n in zip(chosen, own_steps, strict=True)]
    of_fold = tuple(chosen) if config.choice == "nested" else ()
    rows = tuple(replace(row, over=question.what) for row in table)
    return Choice(overall, of_fold, rows, curve)


def _attempted(configs: Sequence[TrainConfig], trainer: Trainer) -> Sequence[Run | None]:
    """Candidates trained; None for those that diverged, which are not chosen and said."""
    try:
        return trainer(configs, "choosing")
    except DivergedError as error:
        if not any(error.runs):
            raise
        _log.warning("candidates that diverged are not chosen: %s", error)
        return list(error.runs)


def _splits(recording: Recording, question: Question, config: RunConfig) -> list[list[Judging]]:
    """One list of splits for the whole question, or one a fold; none where any is of no use."""
    plan, epochs = question.plan, recording.epochs
    if config.choice == "nested":
        each = [nested_splits(plan, epochs, fold, seed=config.seed) for fold in range(plan.n_folds)]
    else:
        each = [choosing_splits(plan, epochs)]
    useful = [[s for s in own if s.learnt.any() and s.judged.any()] for own in each]
    return useful if all(len(own) > 1 for own in useful) else []


def fold_runs(
    recording: Recording, question: Question, choice: Choice, trainer: Trainer
) -> list[Run]:
    """One run a fold, trained without what the fold tests; for shuffled samples on everything."""
    plan = question.plan
    spans = [training_spans(plan, recording.epochs, fold) for fold in range(plan.n_folds)]
    own = choice.of_fold or (choice.overall,) * plan.n_folds
    configs = [with_spans(c, s) for c, s in zip(own, spans, strict=True)]
    return trainer(configs, f"folds over {question.what}")


def decode_question(
    recording: Recording,
    question: Question,
    runs: Sequence[Run],
    device: str,
    *,
    manifold: bool = False,
    quiet: bool = False,
) -> tuple[list[Predicted], list[Features]]:
    """Decode every problem of a question fold by fold; the embeddings are kept."""
    plan = question.plan
    kept: list[Features] = []
    with tqdm(
        total=plan.n_folds, disable=quiet, unit="fold", desc="decoding", file=sys.stderr
    ) as bar:

        def features(fold: int) -> Features:
            bar.update(1)
            spans = training_spans(plan, recording.epochs, fold)
            found = features_of(
                recording, plan.spans, spans, runs[fold], manifold=manifold, device=device
            )
            kept.append(replace(found, values={EMBEDDING: found.values[EMBEDDING]}))
            return found

        found = decode_folds(question.problems, plan, recording.epochs, features, device=device)
    return found, kept


def claims_about(
    recording: Recording,
    question: Question,
    choice: Choice,
    features: Sequence[Features],
    config: RunConfig,
    trainer_on: Callable[[Recording], Trainer],
) -> list[Claim]:
    """What may be claimed, tested against nulls; those that would not be valid say why."""
    plan, track = question.plan, recording.stimulus
    if plan.shuffled or not (config.nulls or config.refit_nulls):
        return []
    learnt = label_names(choice.overall.pairs)
    n, seed, device = config.nulls, config.seed, config.device
    if question.what == "repeats" and track is not None:
        rows = stimulus_claims(
            track, question.problems[0], plan, recording.epochs, features,
            learnt=sorted({"frame", "stimulus"} & set(learnt)), n=n, seed=seed, device=device,
        )  # fmt: skip
    else:
        rows = label_claims(
            question.problems, plan, recording.epochs, features, learnt, n=n, seed=seed,
            device=device,
        )  # fmt: skip
    if config.refit_nulls:
        for problem in question.problems:
            if problem.name in learnt:
                again = refitted_claims(
                    recording, problem, plan, choice.overall, features, trainer_on,
                    n=config.refit_nulls, seed=seed, device=device,
                )  # fmt: skip
                tested = {(c.claim, c.stimulus) for c in again}
                rows = [c for c in rows if (c.claim, c.stimulus) not in tested] + again
    return corrected(rows)
