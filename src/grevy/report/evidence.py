"""Controls and quality as sentences and tables: what else could explain a score, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

from ..results import (
    BehaviourAlone,
    Controls,
    Difference,
    Drift,
    HeldOutBits,
    OnsetClock,
    Quality,
    SubsetScore,
)
from .numbers import NOTHING, Scale, amount
from .verdicts import ALPHA

__all__ = [
    "Table",
    "above_chance",
    "cautions",
    "compared",
    "controls_said",
    "methods",
    "quality_said",
    "tables",
]

_LEAST = math.ceil(1 / ALPHA) - 1
"""Surrogates below which no p value is worth saying."""


@dataclass(frozen=True)
class Table:
    """A table as it stands on the page: a name and cells a line."""

    caption: str
    head: tuple[str, ...]
    lines: tuple[tuple[str, tuple[str, ...]], ...]


def _of(n: int, total: int, what: str = "stimuli") -> str:
    return f"all {total} {what}" if n == total else f"{n} of {total} {what}"


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"'{n}'" for n in names)


def _target(name: str) -> str:
    return {"frame": "frames", "stimulus": "the stimulus"}.get(name, f"'{name}'")


# Behaviour


def _main(metrics: Sequence[str]) -> str:
    """The metric that sentences are about."""
    return "median error" if "median error" in metrics else "accuracy"


def above_chance(gaps: Sequence[Difference]) -> set[tuple[str, str, str]]:
    """Target, stimulus and metric of every score that is better than the best constant guess."""
    return {
        (d.target, d.stimulus, d.metric)
        for d in gaps
        if d.baseline == "constant" and d.better == "embedding"
    }


def compared(row: BehaviourAlone, gaps: Sequence[Difference]) -> list[Difference]:
    """Embedding minus behaviour in the metric of sentences, where the embedding beats chance.

    Parameters
    ----------
    row : BehaviourAlone
    gaps : sequence of Difference
        Of the run: those to the best constant say where there is a score to be explained.
    """
    main = _main([d.metric for d in row.differences])
    found = above_chance(gaps)
    return [
        d for d in row.differences if d.metric == main and (d.target, d.stimulus, d.metric) in found
    ]


def _behaviour_said(row: BehaviourAlone, gaps: Sequence[Difference]) -> str:
    rows = compared(row, gaps)
    if not rows:
        return ""
    what, labels = _target(rows[0].target), " and ".join(row.labels)
    part = "" if row.share > 0.999 else f", on the {row.share:.0%} of samples where it is known"
    left = [d.stimulus for d in rows if d.better != "embedding"]
    several = len(rows) > 1
    found = " that are decoded better than chance" if several else ""
    if left:
        many = f" for {_of(len(left), len(rows))}{found} ({_names(left)})" if several else ""
        return (
            f"The embedding is not shown to tell more of {what} than {labels} alone{many}{part}: "
            "there the score may be of what the animal did."
        )
    every = f" for {_of(len(rows), len(rows))}{found}" if several else ""
    return (
        f"The embedding tells more of {what} than {labels} alone{every}{part}: what the animal "
        "did, as far as it was read, does not explain all of the score."
    )


def _behaviour_table(rows: Sequence[BehaviourAlone]) -> Table | None:
    lines: list[tuple[str, tuple[str, ...]]] = []
    for row in rows:
        found = {(s.method, s.metric, s.stimulus): s for s in row.scores}
        main = _main([d.metric for d in row.differences])
        for d in row.differences:
            if d.metric != main:
                continue
            key = (d.metric, d.stimulus)
            if ("embedding", *key) not in found or ("behaviour", *key) not in found:
                continue
            ours, theirs = found["embedding", *key], found["behaviour", *key]
            scale = Scale(d.metric, d.unit, [ours.value, theirs.value, ours.chance])
            verdict = {"embedding": "cells better", "baseline": "behaviour better"}
            lines.append(
                (
                    f"{d.target}: {d.stimulus}" if d.stimulus else d.target,
                    (
                        f"{d.metric}{f' ({scale.unit})' if scale.unit else ''}",
                        scale.number(ours.value),
                        scale.number(theirs.value),
                        scale.number(ours.chance),
                        f"{scale.number(d.value, sign=True)} "
                        f"({scale.interval(d.low, d.high, sign=True)})",
                        verdict.get(d.better, "undecided"),
                    ),
                )
            )
    if not lines:
        return None
    head = ("decoded", "metric", "embedding", "behaviour", "chance", "difference (95 %)", "verdict")
    return Table("Decoded from the cells, and from behaviour alone", head, tuple(lines))


# Clock


def _clock_of(row: OnsetClock) -> str:
    """What the clock means for one stimulus."""
    if not row.clock_low > 0:
        return "no clock"
    return "clock and more" if row.content_low > 0 else "clock alone?"


def _clocks_said(rows: Sequence[OnsetClock]) -> list[str]:
    if not rows:
        return []
    ticking = [r for r in rows if r.clock_low > 0]
    alone = [r for r in ticking if not r.content_low > 0]
    if not ticking:
        return [
            f"Decoders of other stimuli of equal length do no better than chance for "
            f"{_of(len(rows), len(rows))}: no clock since the onset was found in the population."
        ]
    said = [
        f"A decoder of other stimuli of equal length does better than chance for "
        f"{_of(len(ticking), len(rows))}: part of their score is a clock since the onset, or the "
        "stimuli are alike."
    ]
    if alone:
        said.append(
            f"For {_names([r.stimulus for r in alone])} nothing is shown beyond that clock: their "
            "own presentations do not decode them better than others do."
        )
    return said


def _clock_table(rows: Sequence[OnsetClock]) -> Table | None:
    if not rows:
        return None
    scale = Scale("", rows[0].unit, [v for r in rows for v in (r.own, r.others, r.chance)])
    head = (
        "stimulus",
        "itself",
        "others",
        "chance",
        "clock (95 %)",
        "content (95 %)",
        "verdict",
    )
    lines = [
        (
            r.stimulus,
            (
                scale.number(r.own),
                scale.number(r.others),
                scale.number(r.chance),
                f"{scale.number(r.clock, sign=True)} "
                f"({scale.interval(r.clock_low, r.clock_high, sign=True)})",
                f"{scale.number(r.content, sign=True)} "
                f"({scale.interval(r.content_low, r.content_high, sign=True)})",
                _clock_of(r),
            ),
        )
        for r in rows
    ]
    unit = f" ({scale.unit})" if scale.unit else ""
    return Table(
        f"Median error at the moment of each stimulus, decoded from itself and from others{unit}",
        head, tuple(lines),
    )  # fmt: skip


# Drift


def _drifting(rows: Sequence[Drift]) -> tuple[list[Drift], list[Drift]]:
    """Those with a p value, and of them those that drift, corrected for their number."""
    tested = [r for r in rows if math.isfinite(r.p)]
    q = stats.false_discovery_control([r.p for r in tested]).tolist() if tested else []
    return tested, [r for r, each in zip(tested, q, strict=True) if each < ALPHA]


def _drifts_said(rows: Sequence[Drift]) -> list[str]:
    tested, found = _drifting(rows)
    if not tested:
        return []
    if not found:
        return [
            f"Errors are not shown to grow with the number of repeats between what is decoded and "
            f"what is learnt from ({_of(len(tested), len(tested))}, q >= {ALPHA:g})."
        ]
    return [
        f"For {_of(len(found), len(tested))} errors grow with the number of repeats between what "
        f"is decoded and what is learnt from (q < {ALPHA:g}): the code drifts within the session."
    ]


def _drift_table(rows: Sequence[Drift]) -> Table | None:
    if not rows:
        return None
    lines = []
    for r in rows:
        scale = Scale("", r.unit, [p.value for p in r.by_distance])
        first, last = r.by_distance[0], r.by_distance[-1]
        lines.append(
            (
                r.stimulus or r.target,
                (
                    f"{scale.number(first.value)} ({scale.interval(first.low, first.high)})",
                    f"{scale.number(last.value)} ({scale.interval(last.low, last.high)})",
                    str(last.distance),
                    amount(r.slope, 2),
                    amount(r.p, 2),
                ),
            )
        )
    unit = f" ({rows[0].unit})" if rows[0].unit else ""
    head = ("stimulus", "next repeat (95 %)", "farthest (95 %)", "repeats away", "a repeat", "p")
    return Table(
        f"{rows[0].statistic.capitalize()} from one other presentation, near and far{unit}",
        head, tuple(lines),
    )  # fmt: skip


# Regions


def _told(row: SubsetScore) -> str:
    """Whether a region tells more or less: beyond the interval over repeats, and beyond draws."""
    sign = 1 if row.higher_is_better else -1
    ours, low, high = (
        sign * v for v in (row.value - row.random, row.difference_low, row.difference_high)
    )
    draws = [sign * (v - row.random) for v in (row.random_low, row.random_high)]
    if min(low, high) > 0 and ours > max(draws):
        return "more"
    return "less" if max(low, high) < 0 and ours < min(draws) else "undecided"


def _by_target(rows: Sequence[SubsetScore]) -> dict[str, list[SubsetScore]]:
    """Rows of each target, in the metric of sentences."""
    found: dict[str, list[SubsetScore]] = {}
    for target in dict.fromkeys(r.target for r in rows):
        own = [r for r in rows if r.target == target]
        main = _main([r.metric for r in own])
        found[target] = [r for r in own if r.metric == main]
    return {target: own for target, own in found.items() if own}


def _regions_said(rows: Sequence[SubsetScore]) -> list[str]:
    said = []
    for target, own in _by_target(rows).items():
        parts = []
        for word in ("more", "less"):
            named = []
            for name in dict.fromkeys(r.subset for r in own):
                told = [_told(r) == word for r in own if r.subset == name]
                many = f" (for {_of(sum(told), len(told))})" if len(told) > 1 else ""
                named += [f"'{name}'{many}"] if any(told) else []
            tell = "tells" if len(named) == 1 else "tell"
            parts += [f"{', '.join(named)} {tell} {word}"] if named else []
        found = f"Of {_target(target)}, {' and '.join(parts)}" if parts else (
            f"No region is shown to tell more or less of {_target(target)}"
        )  # fmt: skip
        said.append(
            f"{found} than as many channels drawn from all regions ({own[0].n_channels} each)."
        )
    return said


def _regions_table(rows: Sequence[SubsetScore]) -> Table | None:
    if not rows:
        return None
    lines = []
    for r in (r for own in _by_target(rows).values() for r in own):
        scale = Scale(r.metric, r.unit, [r.value, r.random, r.chance])
        lines.append(
            (
                r.subset,
                (
                    f"{r.target}: {r.stimulus}" if r.stimulus else r.target,
                    f"{r.metric}{f' ({scale.unit})' if scale.unit else ''}",
                    f"{scale.number(r.value)} ({scale.interval(r.low, r.high)})",
                    scale.number(r.random),
                    scale.number(r.chance),
                    f"{scale.number(r.difference, sign=True)} "
                    f"({scale.interval(r.difference_low, r.difference_high, sign=True)})",
                    _told(r),
                ),
            )
        )
    n, draws = rows[0].n_channels, rows[0].n_random
    head = (
        "region",
        "decoded",
        "metric",
        "region (95 %)",
        "drawn",
        "chance",
        "difference (95 %)",
        "verdict",
    )
    return Table(
        f"Decoded from raw windows of {n} channels of each region, and of {n} drawn from all "
        f"({draws} draw{'s' if draws != 1 else ''})",
        head, tuple(lines),
    )  # fmt: skip


# All controls


def controls_said(controls: Controls, gaps: Sequence[Difference]) -> list[str]:
    """One plain sentence a finding, and what was left out; `gaps` as in `compared`."""
    said = [line for row in controls.behaviour if (line := _behaviour_said(row, gaps))]
    said += _clocks_said(controls.clocks)
    said += _drifts_said(controls.drifts)
    said += _regions_said(controls.regions)
    for row in controls.sizes:
        said.append(
            f"{row.n_samples} samples of {_series(row.series)} are worth about "
            f"{row.n_effective:.0f} independent ones (each remembers itself for "
            f"{row.memory_s:.2g} s); scores are means over {row.n_repeats} repeats or blocks."
        )
    return [*said, *controls.unchecked]


def _series(name: str) -> str:
    known = {"embedding": "the embedding", "frame": "the moment", "stimulus": "the stimulus"}
    return known.get(name, f"'{name}'")


# Quality


def _chance_runs(quality: Quality, n: int) -> str:
    """What the nulls of consistency and shape are."""
    if quality.null == "labels":
        return f"{n} shuffle{'s' if n != 1 else ''} of the labels that the encoder learnt"
    return _surrogates(n)


def _surrogates(n: int) -> str:
    return f"{n} surrogate{'s' if n != 1 else ''} with unrelated channels"


def _p(p: float, n: int) -> str:
    return f"p = {p:.2g}" if n >= _LEAST else f"no p value below {_LEAST} of them"


def quality_said(quality: Quality) -> list[str]:
    """One plain sentence a finding, and what was left out."""
    said = []
    b, c, d, ring = quality.bits, quality.consistency, quality.dimension, quality.ring
    if b is not None:
        n = len(b.surrogates)
        gain = (
            f"95 % interval of the difference {amount(b.gain_low)} to {amount(b.gain_high)}, "
            if math.isfinite(b.gain_low)
            else ""
        )
        said.append(
            f"On held-out samples the encoder reaches {amount(b.value)} bits above chance, beside "
            f"{amount(b.null_mean)} for {_surrogates(n)} ({gain}{_p(b.p, n)})" + _bits_mean(b)
        )
    if c is not None:
        spread = f" (95 % interval {amount(c.low)} to {amount(c.high)})" if c.low == c.low else ""
        beside = (
            f", beside {amount(c.null_mean)} for {_chance_runs(quality, c.n_nulls)} "
            f"({_p(c.p, c.n_nulls)})"
            if c.n_nulls
            else "; no null stands beside it"
        )
        said.append(
            f"Embeddings of {len(c.units)} seeds predict one another on held-out samples with an "
            f"R² of {amount(c.value)}{spread}{beside}. In sample it would be {amount(c.in_sample)}."
        )
    if d is not None:
        said.append(
            f"Held out, the embedding spreads over {amount(d.embedding)} of its {d.n_latents} "
            f"dimensions, the activity over {amount(d.activity)} of {d.n_channels} "
            f"({amount(d.scaled_activity)} with channels at equal variance)."
        )
    if ring is not None:
        found = {
            "ring": "The embedding is one loop",
            "no ring": "The embedding is not shown to be one loop",
        }.get(ring.verdict, "Whether the embedding is one loop cannot be told from so few nulls")
        beside = (
            f", beside {amount(ring.null_median)} for {_chance_runs(quality, ring.n_nulls)} "
            f"({_p(ring.p, ring.n_nulls)})"
            if ring.n_nulls
            else "; no null stands beside it"
        )
        said.append(
            f"{found}: its longest loop lives {amount(ring.ratio)} times as long as its second"
            f"{beside}."
        )
    return [*said, *quality.unchecked]


def _exceeds(b: HeldOutBits) -> bool:
    """Whether bits exceed those of surrogates; one surrogate has no interval, and cannot tell."""
    return b.gain_low > 0


def _bits_mean(b: HeldOutBits) -> str:
    """What follows from the bits of runs and surrogates, at the end of a sentence."""
    if _exceeds(b):
        return ": what it has more is what channels have in common."
    if b.surrogates and not math.isfinite(b.gain_low):
        return ". So few do not tell whether that is more than chance (--seeds, --surrogates)."
    return "."


def _quality_table(quality: Quality) -> Table | None:
    rows: list[tuple[str, tuple[str, ...]]] = []
    b, c, d, ring = quality.bits, quality.consistency, quality.dimension, quality.ring

    def line(name: str, value: float, low: float, high: float, null: str, p: float) -> None:
        known = math.isfinite(low) and math.isfinite(high)
        interval = f"{amount(low)} to {amount(high)}" if known else NOTHING
        rows.append((name, (amount(value), interval, null, amount(p, 2))))

    nan = math.nan
    if b is not None:
        enough = b.p if len(b.surrogates) >= _LEAST else nan
        line("held-out bits", b.value, b.low, b.high, amount(b.null_mean), enough)
    if c is not None:
        enough = c.p if c.n_nulls >= _LEAST else nan
        line("consistency (R²)", c.value, c.low, c.high, amount(c.null_mean), enough)
    if d is not None:
        line("effective dimension", d.embedding, nan, nan, NOTHING, nan)
    if ring is not None:
        enough = ring.p if ring.n_nulls >= _LEAST else nan
        line("longest loop / second", ring.ratio, nan, nan, amount(ring.null_median), enough)
    if not rows:
        return None
    head = ("", "value", "95 % over seeds", "by chance", "p")
    return Table("The embedding on samples that no run trained on", head, tuple(rows))


def tables(controls: Controls, quality: Quality) -> dict[str, list[Table]]:
    """The tables of both sections."""
    first = [
        _behaviour_table(controls.behaviour),
        _clock_table(controls.clocks),
        _drift_table(controls.drifts),
        _regions_table(controls.regions),
    ]
    return {
        "controls": [t for t in first if t is not None],
        "quality": [t for t in [_quality_table(quality)] if t is not None],
    }


def cautions(controls: Controls, quality: Quality, gaps: Sequence[Difference]) -> list[str]:
    """What controls and quality take away from the scores; `gaps` as in `compared`."""
    said = [
        _behaviour_said(row, gaps)
        for row in controls.behaviour
        if any(d.better != "embedding" for d in compared(row, gaps))
    ]
    alone = [r for r in controls.clocks if r.clock_low > 0 and not r.content_low > 0]
    if alone:
        said.append(
            f"A clock since the onset may explain the score of "
            f"{_names([r.stimulus for r in alone])}: decoders of other stimuli do as well."
        )
    few = [r for r in controls.sizes if r.n_effective < 20]
    said += [
        f"The samples of {_series(r.series)} are worth {r.n_effective:.0f} independent ones only."
        for r in few
    ]
    b, c = quality.bits, quality.consistency
    untold = b is not None and b.gain > 0 and not math.isfinite(b.gain_low)
    if b is not None and not _exceeds(b) and not untold:
        said.append(
            "Held-out bits are not shown to exceed those of unrelated channels: the encoder may "
            "have learnt how each channel remembers itself, and nothing of the population."
        )
    if c is not None and c.n_nulls and c.value <= c.null_mean:
        said.append(
            "Seeds agree no better than they do by chance: a picture of the embedding shows one "
            "run."
        )
    return said


def methods(controls: Controls, quality: Quality) -> list[str]:
    """What was done, for the methods text; nothing where nothing was."""
    said = []
    if controls.behaviour:
        every = sorted({n for row in controls.behaviour for n in row.labels})
        said.append(
            f"The same was decoded from behaviour alone ({', '.join(every)}) in the encoder's "
            "window, on the same folds and samples, with k and metric chosen likewise."
        )
    if controls.clocks:
        said.append(
            "A clock since the onset was sought by decoding each stimulus from every other of its "
            "length, with k and metric chosen by how well training presentations of the others are "
            "decoded."
        )
    if controls.drifts:
        n = controls.drifts[0].n_nulls
        said.append(
            "For drift each held-out presentation was decoded from one other at a time; errors "
            "were regressed on the number of repeats between them, with a level for each "
            f"presentation, beside {n} other orders of the repeats (Mantel 1967)."
        )
    if controls.regions:
        n, draws = controls.regions[0].n_channels, controls.regions[0].n_random
        said.append(
            f"Raw windows of {n} channels of each region were decoded on the same folds, the mean "
            f"over {draws} draws where a region has more, beside {draws} draws of {n} from all "
            "channels; a region tells more or less where the 95 % interval of the difference over "
            "repeats leaves out zero and its score lies outside the middle 95 % of the draws."
        )
    if controls.sizes:
        said.append(
            "Effective sample sizes are n over the integrated autocorrelation time (Geyer 1992)."
        )
    b, c = quality.bits, quality.consistency
    if b is not None:
        said.append(
            f"Held-out bits are the mean of {len(b.runs)} seeds on the samples that the first fold "
            f"tests, beside runs of the same seeds on {len(b.surrogates)} surrogate"
            f"{'s' if len(b.surrogates) != 1 else ''}, in which each channel was shifted round its "
            "epochs by a lag of its own."
        )
    if c is not None:
        beside = f", beside {_chance_runs(quality, c.n_nulls)}" if c.n_nulls else ""
        said.append(
            f"Consistency is the R² of linear maps between embeddings of {len(c.units)} seeds, "
            f"fitted on the training samples of the first fold and judged on what it "
            f"tests{beside}; its interval is a jackknife over seeds."
        )
    if quality.dimension is not None:
        said.append("The effective dimension is the participation ratio of the covariance.")
    if quality.ring is not None:
        said.append(
            "Loops were found by persistent homology of 200 held-out points (ripser; Bauer 2021)."
        )
    return [" ".join(said)] if said else []
