"""What stands beside the scores of a run: controls of each question, quality of the embedding.

Nothing here fails a run: what cannot be computed is left out, and said with its reason.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from .config import TrainConfig
from .controls import behaviour_alone, drift, onset_clock, sample_sizes, subsets
from .errors import DataError
from .evaluate import EMBEDDING, Features, Problem, frame_problem
from .model import Run
from .nulls import blocks_forget, exchanged, families, label_names, shifted_samples
from .quality import (
    Split,
    bits_with_surrogate,
    consistency,
    effective_dimension,
    persistence,
    ring_test,
    split,
    surrogate,
)
from .questions import Choice, Question, Trainer
from .recording import Recording
from .results import (
    BehaviourAlone,
    Consistency,
    Controls,
    Drift,
    FoldSummary,
    HeldOutBits,
    OnsetClock,
    Quality,
    RingTest,
    SampleSize,
    SubsetScore,
)
from .search import with_spans
from .settings import RunConfig, guard
from .splits import Plan, mask_of, training_spans
from .windows import Spans, keep

__all__ = ["controls_of", "folds_of", "quality_of"]

_LEAST_REPEATS = 5
"""Of a movie that is looked at for drift: with fewer no order of them is rare."""
_LEAST_CHANNELS, _MOST_CHANNELS = 5, 50
"""Of a region that is decoded from, and that are taken of each."""
_UNKNOWN = ("", "unknown")
"""What files say of a place that nobody knows."""
_DRAWS = (3, 5)
"""The fewest and the most draws of channels that regions stand beside."""
_OURS = ("frame", "stimulus")
_Null = tuple[Recording, Sequence[Run]]


def folds_of(question: Question, features: Sequence[Features]) -> FoldSummary:
    """How the folds of a question lay, and whether any encoder saw what it was tested on."""
    plan = question.plan
    seen = [mask_of(f.seen, len(plan.group)) for f in features]
    return FoldSummary(
        what=question.what,
        targets=tuple(p.name for p in question.problems),
        n_folds=plan.n_folds,
        n_left_out=max((len(np.unique(plan.group[t])) for t in plan.tested), default=0),
        guard_samples=plan.guard,
        shared_samples=sum(int((s & t).sum()) for s, t in zip(seen, plan.tested, strict=True)),
        set_aside=plan.n_choosing > 0,
    )


# Controls


def controls_of(
    recording: Recording,
    questions: Sequence[tuple[Question, Sequence[Features]]],
    choice: Choice,
    config: RunConfig,
) -> Controls:
    """Could behaviour, a clock or a drift explain the scores, of which region and samples are they?

    Parameters
    ----------
    recording : Recording
    questions : sequence of (Question, sequence of Features)
        The embeddings are those of each fold.
    choice : Choice
    config : RunConfig
        `nulls` orders of the repeats stand beside a drift; without nulls it has no p value.

    Returns
    -------
    Controls
    """
    found: list[BehaviourAlone] = []
    clocks: list[OnsetClock] = []
    drifts: list[Drift] = []
    sizes: list[SampleSize] = []
    said: list[str] = []
    masks = _regions(recording, said)
    regions: list[SubsetScore] = []
    for question, features in questions:
        if question.plan.shuffled:
            said.append("Shuffled folds leak: no control means anything beside their scores.")
            continue
        rows = sample_sizes(recording, question.problems, question.plan, features[0])
        sizes += [r for r in rows if r.series != EMBEDDING or not sizes]
        for problem in question.problems:
            row = _behaviour(recording, question, problem, features, choice, config, said)
            found += [] if row is None else [row]
            regions += _of_regions(recording, problem, question.plan, masks, choice, config)
        if question.what == "repeats":
            clocks += _clocks(recording, question, features, config, said)
            drifts += _drifts(recording, question, features, config, said)
    return Controls(
        tuple(found), tuple(clocks), tuple(drifts), tuple(sizes), tuple(dict.fromkeys(said)),
        tuple(regions),
    )  # fmt: skip


def _behaviour(
    recording: Recording,
    question: Question,
    problem: Problem,
    features: Sequence[Features],
    choice: Choice,
    config: RunConfig,
    said: list[str],
) -> BehaviourAlone | None:
    names = [
        name
        for name, label in recording.labels.items()
        if label.kind == "continuous" and name not in (*_OURS, problem.name)
    ]
    if not names:
        said.append(
            "No behaviour was read that could be decoded from in place of the cells; name what was "
            "recorded, such as running or pupil, with --behaviour."
        )
        return None
    field = choice.overall.encoder.field
    try:
        return behaviour_alone(
            recording, problem, question.plan, features, names, field, device=config.device
        )
    except DataError as error:
        said.append(f"{problem.name} was not decoded from behaviour alone: {error}")
        return None


def _clocks(
    recording: Recording,
    question: Question,
    features: Sequence[Features],
    config: RunConfig,
    said: list[str],
) -> list[OnsetClock]:
    track, problem = recording.stimulus, question.problems[0]
    assert track is not None  # there are repeats
    lengths = [track.duration_s[track.names.index(name)] for name in problem.names]
    if not families(problem, lengths):
        said.append("No two stimuli are of equal length: a clock since their onset was not sought.")
        return []
    return onset_clock(
        problem, question.plan, recording.epochs, features, lengths, device=config.device
    )


def _drifts(
    recording: Recording,
    question: Question,
    features: Sequence[Features],
    config: RunConfig,
    said: list[str],
) -> list[Drift]:
    problem, plan = question.problems[0], question.plan
    subset = problem.subset.copy()
    for s in range(len(problem.names)):
        here = (subset == s) & (plan.group >= 0)
        if len(np.unique(plan.group[here])) < _LEAST_REPEATS:
            subset[subset == s] = -1
    if (subset < 0).all():
        said.append(f"No stimulus has {_LEAST_REPEATS} repeats: drift was not sought.")
        return []
    return drift(
        replace(problem, subset=subset), plan, recording.epochs, features,
        n=config.nulls, seed=config.seed, device=config.device,
    )  # fmt: skip


def _regions(recording: Recording, said: list[str]) -> dict[str, NDArray[np.bool_]]:
    """Channels of every region that has enough of them; nothing for fewer than two regions."""
    where = np.array(recording.regions, dtype=object)
    names = [
        name for name in dict.fromkeys(recording.regions) if name.strip().lower() not in _UNKNOWN
    ]
    masks = {name: where == name for name in names}
    large = {name: mask for name, mask in masks.items() if mask.sum() >= _LEAST_CHANNELS}
    if len(large) < 2 and names:
        one = len(names) == 1 and masks[names[0]].all()
        said.append(
            f"All channels are of one region ('{names[0]}'): regions were not compared."
            if one
            else f"Fewer than two regions have {_LEAST_CHANNELS} channels: they were not compared."
        )
        return {}
    left = recording.n_channels - sum(int(mask.sum()) for mask in large.values())
    if large and left:
        said.append(
            f"{left} channels are of no known region with at least {_LEAST_CHANNELS}: they were "
            "drawn with all others, and not decoded from by themselves."
        )
    return large


def _of_regions(
    recording: Recording,
    problem: Problem,
    plan: Plan,
    masks: dict[str, NDArray[np.bool_]],
    choice: Choice,
    config: RunConfig,
) -> list[SubsetScore]:
    """Raw windows of each region, at one number of channels."""
    if not masks:
        return []
    counts = [int(mask.sum()) for mask in masks.values()]
    size, field = min(_MOST_CHANNELS, *counts), choice.overall.encoder.field
    return subsets(
        recording, problem, plan, masks, field, size=size,
        n_random=_draws(recording.n_channels, size, counts, len(field)), seed=config.seed,
        device=config.device,
    )  # fmt: skip


def _draws(n_channels: int, size: int, counts: Sequence[int], window: int) -> int:
    """How many draws take no longer than decoding did, from numbers alone: runs are repeatable.

    To decode raw windows of `size` channels takes about `share` of what all decoders take, as was
    measured for 20 to 320 channels and windows of 10 samples (docs/log.md).
    """
    some, every = size * window, n_channels * window
    share = (some + 200) / (600 + every + every**2 / 3000)
    thinned = sum(count > size for count in counts)
    fit = (1 / share - (len(counts) - thinned)) / (1 + thinned)
    return int(np.clip(fit, *_DRAWS))


# Quality


def quality_of(
    recording: Recording,
    question: Question | None,
    choice: Choice,
    base: TrainConfig,
    config: RunConfig,
    trainer_on: Callable[[Recording], Trainer],
) -> Quality:
    """Bits beside surrogates, consistency across seeds, dimension, and if asked the shape.

    All of it on what the first fold tests. Its run is one of the seeds, so `seeds - 1` more are
    trained, and `seeds` for each surrogate; as many again for each, where the encoder learnt from
    labels, on labels that were moved away from the activity.

    Parameters
    ----------
    recording : Recording
    question : Question or None
        Whose first fold is held out.
    choice : Choice
    base : TrainConfig
        Its window, offset and indicator decay keep the lags of a surrogate's channels apart.
    config : RunConfig
    trainer_on : callable
        A recording to what trains on it, and keeps what it trained.

    Returns
    -------
    Quality
    """
    if question is None or question.plan.shuffled:
        why = "No sample was held out" if question is None else "Shuffled folds hold nothing out"
        return Quality(unchecked=(f"{why}: the quality of the embedding was not judged.",))
    plan, device, said = question.plan, config.device, list[str]()
    held = keep(recording.epochs, plan.tested[0])
    chosen = with_spans(
        choice.of_fold[0] if choice.of_fold else choice.overall,
        training_spans(plan, recording.epochs, 0),
    )
    configs = [replace(chosen, seed=config.seed + i) for i in range(config.seeds)]
    runs = trainer_on(recording)(configs, f"{config.seeds} seeds")
    surrogates: list[_Null] = []
    for j in range(config.surrogates):
        apart = guard(recording, config, base)
        shifted = surrogate(recording, seed=config.seed + j, apart=apart)
        surrogates.append((shifted, trainer_on(shifted)(configs, f"surrogate {j + 1}")))
    nulls, null = surrogates, "surrogates" if surrogates else ""
    learnt = label_names(chosen.pairs)
    if learnt and surrogates:
        moved, why = _relabelled(recording, question, learnt, config)
        if why:
            said.append(why)
        else:
            null = "labels"
            nulls = [(m, trainer_on(m)(configs, f"labels moved {j + 1}")) for j, m in moved]
    try:
        parts = [split(run, recording, held, device=device) for run in runs]
        of_nulls = [[split(run, r, held, device=device) for run in theirs] for r, theirs in nulls]
        return Quality(
            bits=_bits(runs, surrogates, recording, held, device, said),
            consistency=_consistency(parts, of_nulls, said),
            dimension=effective_dimension(runs[0], recording, held, device=device),
            ring=_ring(parts, of_nulls, config) if config.topology else None,
            null=null,
            unchecked=tuple(said),
        )
    except DataError as error:
        return Quality(unchecked=(*said, f"Quality on held-out samples was not judged: {error}"))


def _bits(
    runs: Sequence[Run],
    surrogates: Sequence[_Null],
    recording: Recording,
    held: Spans,
    device: str,
    said: list[str],
) -> HeldOutBits | None:
    if not surrogates:
        said.append(
            "Held-out bits mean nothing without those of a surrogate, and none was asked for "
            "(--surrogates)."
        )
        return None
    return bits_with_surrogate(runs, surrogates, recording, held, device=device)


def _consistency(
    parts: Sequence[Split], nulls: Sequence[Sequence[Split]], said: list[str]
) -> Consistency | None:
    if len(parts) < 2:
        said.append("Consistency takes at least two seeds (--seeds).")
        return None
    return consistency(parts, nulls, units=[f"seed {i}" for i in range(len(parts))])


def _ring(parts: Sequence[Split], nulls: Sequence[Sequence[Split]], config: RunConfig) -> RingTest:
    """The first run's loops beside those of the first run of every null."""
    observed, *theirs = [
        persistence(each[0].held_out, max_dimension=1, seed=config.seed) for each in (parts, *nulls)
    ]
    return ring_test(observed, theirs)


def _every_block_moved(plan: Plan, n: int, seed: int) -> NDArray[np.int64]:
    """Orders of blocks in which none stays, (T, n): one that stays is no null of the encoder."""
    inside = np.flatnonzero(plan.group >= 0)
    found: list[NDArray[np.int64]] = []
    for number in itertools.count(1):
        if len(found) == n:
            break
        taken = exchanged(plan, np.array([number]), seed)[:, 0]
        if (taken[inside] != inside).all():
            found.append(taken)
    return np.stack(found, axis=1)


def _relabelled(
    recording: Recording, question: Question, learnt: Sequence[str], config: RunConfig
) -> tuple[list[tuple[int, Recording]], str]:
    """The recording with its learnt labels moved, once for each surrogate, or why not."""
    numbers, plan = np.arange(1, config.surrogates + 1), question.plan
    if question.what == "blocks":
        asked = {p.name: p for p in question.problems}
        why = [blocks_forget(asked[n], plan, config.surrogates) for n in learnt if n in asked]
        if all(n in asked for n in learnt) and not any(why):
            taken = _every_block_moved(plan, config.surrogates, config.seed)
        else:
            why = [w for w in why if w] or ["They are not decoded in the blocks."]
            return [], f"Labels were not moved for a null of consistency. {why[0]}"
    elif set(learnt) == {"frame"}:
        taken = shifted_samples(frame_problem(recording), plan, numbers, config.seed)
    else:
        return [], (
            f"There is no way yet to move {', '.join(learnt)} away from the activity of repeats: "
            "consistency stands beside surrogates."
        )
    moved = []
    for j in range(config.surrogates):
        others = {
            name: replace(label, values=label.values[taken[:, j]], known=label.mask[taken[:, j]])
            for name, label in recording.labels.items()
            if name in learnt
        }
        note = f"Labels moved away from the activity: {', '.join(learnt)} (number {j + 1})."
        moved.append(
            (
                j,
                replace(
                    recording,
                    labels=MappingProxyType({**recording.labels, **others}),
                    notes=(*recording.notes, note),
                ),
            )
        )
    return moved, ""
