"""Made-up results that look like those of a run, for the tests of figures and report."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from grevy.results import (
    AtDistance,
    BehaviourAlone,
    Candidate,
    Claim,
    Confusion,
    Consistency,
    Controls,
    Difference,
    Drift,
    EffectiveDimension,
    EmbeddingArrays,
    FoldSummary,
    HeldOutBits,
    History,
    LabelTrace,
    OnsetClock,
    Presentation,
    Quality,
    Results,
    RingTest,
    SampleSize,
    Score,
    SessionSummary,
    StimulusSummary,
    SubsetScore,
)

MOVIES = (
    "mouse_montage_1",
    "mouse_montage_1_spatial_phase_scramble",
    "mouse_montage_1_temporal_phase_scramble",
    "mouse_montage_2",
    "conspecifics",
    "crickets",
    "mousecam",
    "mousecam_spatial_phase_scramble",
    "human_montage",
    "man_writing",
    "dots",
    "noise",
)
ALONE = ("snake", "spontaneous")
UNDRIVEN = "noise"
METHODS = ("embedding", "raw kNN", "PCA kNN", "linear", "constant")
BASELINES = ("raw kNN", "PCA kNN", "linear")
NAN = float("nan")


def _history(rng: np.random.Generator, steps: int = 400) -> History:
    step = np.arange(5, 5 * steps + 1, 5)
    chance = float(np.log(512))
    total = chance - 1.1 * (1 - np.exp(-step / 300)) + rng.normal(0, 0.03, steps)
    return History(
        step=tuple(int(s) for s in step),
        total=tuple(float(t) for t in total),
        positive=tuple(float(t) - 6.2 for t in total),
        negative=(6.2,) * steps,
        bits=tuple(float((chance - t) / np.log(2)) for t in total),
        temperature=(1.0,) * steps,
        chance=chance,
    )


def _candidates(rng: np.random.Generator) -> tuple[Candidate, ...]:
    rows = [
        Candidate(
            settings={"latents": d, "hidden": h, "learning_rate": lr},
            score=float(0.8 - 0.02 * np.log2(d) + rng.normal(0, 0.02)),
            score_sd=0.03,
            bits=float(1.2 + 0.05 * np.log2(d) + rng.normal(0, 0.03)),
            task="time 10 samples, temperature 1",
            chosen=False,
            final_loss=5.2,
        )
        for d in (8, 16)
        for h in (32, 64)
        for lr in (1e-3, 3e-3)
    ]
    best = min(range(len(rows)), key=lambda i: rows[i].score)
    rows[best] = replace(rows[best], chosen=True)
    return tuple(rows)


def _rows(
    target: str, stimulus: str, metric: str, unit: str, values: dict[str, float], chance: float
) -> list[Score]:
    half = 0.12 * abs(chance or 1)
    return [
        Score(
            target=target,
            stimulus=stimulus,
            method=method,
            metric=metric,
            value=value,
            chance=chance,
            n_repeats=8,
            low=value - half,
            high=value + half,
            unit=unit,
            higher_is_better=metric != "median error",
        )
        for method, value in values.items()
    ]


def _difference(
    target: str, stimulus: str, metric: str, baseline: str, value: float, half: float, unit: str
) -> Difference:
    low, high = value - half, value + half
    sign = -1 if metric == "median error" else 1
    better = "undecided"
    if low > 0 or high < 0:
        better = "embedding" if sign * value > 0 else "baseline"
    return Difference(target, stimulus, metric, baseline, value, low, high, 8, better, unit)


def _decoding(
    rng: np.random.Generator, target: str, stimuli: tuple[str, ...], chance: float, unit: str
) -> tuple[list[Score], list[Difference]]:
    scores: list[Score] = []
    gaps: list[Difference] = []
    for name in stimuli:
        skill = 0.0 if name == UNDRIVEN else float(rng.uniform(0.15, 0.7))
        by_metric = {
            "r2": ("", 0.0, lambda k: 1.2 * k - 0.2),
            "median error": (unit, chance, lambda k: chance * (1 - k)),
            "accuracy": ("", 0.07, lambda k: 0.07 + 0.6 * k**2),
        }
        for metric, (of, guess, value_of) in by_metric.items():
            values = {m: float(value_of(skill + rng.normal(0, 0.06))) for m in METHODS[:4]}
            scores += _rows(target, name, metric, of, {**values, "constant": guess}, guess)
            for baseline in BASELINES:
                gap = values["embedding"] - values[baseline]
                half = 0.06 * (chance if of else 1)
                gaps.append(_difference(target, name, metric, baseline, gap, half, of))
    return scores, gaps


def _identity(rng: np.random.Generator) -> tuple[list[Score], list[Difference], Confusion]:
    values = {
        "embedding": 0.71,
        "raw kNN": 0.78,
        "PCA kNN": 0.69,
        "linear": 0.74,
        "constant": 1 / 12,
    }
    scores = _rows("stimulus", "", "accuracy", "", values, 1 / 12)
    gaps = [
        _difference("stimulus", "", "accuracy", b, 0.71 - values[b], 0.03, "") for b in BASELINES
    ]
    counts = rng.poisson(60, (12, 12)) + np.diag(np.linspace(900, 3200, 12).astype(int))
    table = Confusion(MOVIES, tuple(tuple(int(c) for c in row) for row in counts), "embedding")
    return scores, gaps, table


def _claims(rng: np.random.Generator) -> list[Claim]:
    """Time-locked for all but the undriven one; content for two thirds; three of another length."""
    rows = []
    for i, name in enumerate(MOVIES):
        p = 0.4 if name == UNDRIVEN else 0.001
        rows.append(
            Claim("time-locked", name, "median error", "s", 3.1, 7.4, 7.1, 7.7, p, p * 1.1, 999)
        )
        if i < 3:
            reason = "There is no other stimulus of its length to exchange presentations with."
            rows.append(Claim("content", name, "", "", *(NAN,) * 6, 0, reason))
        else:
            p = 0.001 if i < 9 else float(rng.uniform(0.2, 0.9))
            gain = "gain over other stimuli"
            rows.append(Claim("content", name, gain, "s", 0.4, -0.03, -0.1, 0.05, p, p, 999))
    rows.append(Claim("identity", "", "accuracy", "", 0.71, 0.083, 0.06, 0.11, 0.001, 0.001, 999))
    return rows


def above_chance() -> list[Difference]:
    """Every movie is decoded better than by a constant guess."""
    return [
        Difference("frame", m, "median error", "constant", -4.0, -5.0, -3.0, 8, "embedding", "s")
        for m in MOVIES
    ]


def _controls() -> Controls:
    """Running tells three movies as well as the cells do; one movie is a clock, one drifts."""
    scores, gaps, clocks, drifts = [], [], [], []
    for i, name in enumerate(MOVIES):
        better = "undecided" if i < 3 else "embedding"
        values = {"embedding": 2.0, "behaviour": 2.1 if i < 3 else 6.0, "constant": 7.5}
        scores += _rows("frame", name, "median error", "s", values, 7.5)
        gap = values["embedding"] - values["behaviour"]
        gaps.append(
            Difference(
                "frame", name, "median error", "behaviour", gap, gap - 1, gap + 1, 8, better, "s"
            )
        )
        ticks, more = i < 2, i != 1
        clocks.append(
            OnsetClock(
                name, "s", 2.0, 5.0 if ticks else 7.4, 7.5, 2.5, 1.0 if ticks else -0.5, 4.0, 3.0,
                1.0 if more else -1.0, 5.0, 11, 8,
            )
        )  # fmt: skip
        table = tuple(
            AtDistance(d, 2.0 + 0.3 * d * (i == 0), 1.5, 3.5, 8 - d // 2) for d in range(1, 8)
        )
        p = 0.001 if i == 0 else 0.6
        drifts.append(Drift("frame", name, "median error", "s", 0.3 * (i == 0), p, 999, 8, table))
    sizes = (
        SampleSize("embedding", 108_000, 2400.0, 1.5, 8),
        SampleSize("frame", 108_000, 900.0, 4.0, 8),
        SampleSize("stimulus", 108_000, 15.0, 240.0, 8),
    )
    behaviour = BehaviourAlone(("running", "pupil"), 0.9, tuple(scores), tuple(gaps))
    unchecked = ("stimulus was not decoded from behaviour alone: it was not known.",)
    return Controls((behaviour,), tuple(clocks), tuple(drifts), sizes, unchecked, tuple(_regions()))


def _regions() -> list[SubsetScore]:
    """Of two movies and the stimulus; VISp tells more of the first, CA1 less of all."""
    rows = []
    for target, name, metric, unit, chance in (
        ("frame", MOVIES[0], "median error", "s", 7.5),
        ("frame", MOVIES[0], "accuracy", "", 0.07),
        ("frame", MOVIES[1], "median error", "s", 7.5),
        ("frame", MOVIES[1], "accuracy", "", 0.07),
        ("stimulus", "", "accuracy", "", 1 / 12),
    ):
        higher = metric == "accuracy"
        unsigned = 0.2 if higher else 2.0
        drawn = 0.4 if higher else 4.0
        for region in ("VISp", "CA1"):
            gap = unsigned if region == "VISp" and name == MOVIES[0] else 0.0
            gap = -unsigned if region == "CA1" else gap
            gap *= 1 if higher else -1
            half, wide = unsigned / 2, unsigned / 4
            value = drawn + gap
            rows.append(
                SubsetScore(
                    region, 12, target, name, "raw kNN", metric, unit, value, value - half,
                    value + half, chance, drawn, drawn - wide, drawn + wide, gap, gap - half,
                    gap + half, 5, 8, higher,
                )
            )  # fmt: skip
    return rows


def _quality() -> Quality:
    units = ("seed 0", "seed 1", "seed 2")
    pairs = ((NAN, 0.9, 0.85), (0.88, NAN, 0.91), (0.86, 0.9, NAN))
    return Quality(
        bits=HeldOutBits(
            (2.0, 2.1, 2.2), tuple(0.9 + 0.01 * i for i in range(19)), 2.1, 1.9, 2.3, 1.0, 0.9,
            1.1, 1.1, 1.0, 1.2, 0.05,
        ),
        consistency=Consistency(
            units, pairs, 0.883, 0.8, 0.96, 0.95, 0.2, 0.1, 0.3, 0.6, 0.05, 19, 90_000, 10_000
        ),
        dimension=EffectiveDimension(4.1, 6.2, 15.3, 8, 41, 10_000),
        ring=RingTest(1.4, 1.3, 1.0, 1.9, 0.4, 19, (1, 0), "no ring"),
        null="surrogates",
    )  # fmt: skip


def embedding(seed: int = 0, *, latents: int = 8, per_repeat: int = 60) -> EmbeddingArrays:
    """Twelve movies, ten repeats: a loop of its own for each but the undriven one."""
    rng = np.random.default_rng(seed)
    order = [m for _ in range(10) for m in rng.permutation(len(MOVIES))]
    loops = rng.normal(size=(len(MOVIES), 4, latents))
    values, index, frame, repeat = [], [], [], []
    seen = np.zeros(len(MOVIES), dtype=int)
    phase = np.linspace(0, 2 * np.pi, per_repeat, endpoint=False)
    basis = np.stack([np.ones_like(phase), np.sin(phase), np.cos(phase), np.sin(2 * phase)], 1)
    for m in order:
        driven = 0.15 if MOVIES[m] == UNDRIVEN else 1.0
        noise = np.cumsum(rng.normal(0, 0.12, (per_repeat, latents)), axis=0)
        values.append(driven * basis @ loops[m] + noise)
        index.append(np.full(per_repeat, m))
        frame.append(np.arange(per_repeat) * 900 // per_repeat)
        repeat.append(np.full(per_repeat, seen[m]))
        seen[m] += 1
    gap = np.cumsum(rng.normal(0, 0.3, (2 * per_repeat, latents)), axis=0)
    x = np.concatenate([*values, gap]).astype(np.float32)
    if latents > 1:
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    none = np.full(2 * per_repeat, -1)
    n = len(x)
    return EmbeddingArrays(
        values=x,
        samples=np.arange(n, dtype=np.int64),
        times_s=27.5 + np.arange(n) * 30.0 / per_repeat,
        padded=np.zeros(n, dtype=bool),
        index=np.concatenate([*index, none]).astype(np.int32),
        frame=np.concatenate([*frame, none]).astype(np.int32),
        repeat=np.concatenate([*repeat, none]).astype(np.int32),
        names=MOVIES,
        labels={},
    )


def _session(n_samples: int = 126_758) -> SessionSummary:
    return SessionSummary(
        name="sub-389014_ses-20180705T152908",
        file="sub-389014_ses-20180705T152908_behavior+image+ophys.nwb",
        source="processing/ophys/DfOverF/imaging_plane_1",
        n_samples=n_samples,
        n_channels=41,
        n_epochs=1,
        rate_hz=30.15,
        start_s=27.5,
        stop_s=4231.7,
        activity_unit="dF/F",
        notes=("One timestamp more than there are samples: the last was dropped.",),
        findings=("2 of 41 channels never change (ROI 7, ROI 19).",),
    )


def movies(seed: int = 0) -> tuple[Results, EmbeddingArrays]:
    """A movie session with everything: twelve movies, ten repeats, one not represented."""
    rng = np.random.default_rng(seed)
    arrays = embedding(seed)
    scores, gaps = _decoding(rng, "frame", MOVIES, 7.5, "s")
    of_stimulus, gaps_of_stimulus, table = _identity(rng)
    presentations, seen = [], dict.fromkeys(MOVIES, 0)
    for i, block in enumerate(range(0, 60 * 120, 60)):
        name = MOVIES[arrays.index[block]]
        start = 27.5 + 34.0 * i
        presentations.append(Presentation(name, seen[name], start, start + 30.0))
        seen[name] += 1
    presentations.append(Presentation("snake", 0, 4130.0, 4160.0))
    presentations.append(Presentation("spontaneous", 0, 4160.0, 4231.0))
    stimuli = [StimulusSummary(name, 900, 10, 9045, 30.0) for name in MOVIES]
    stimuli += [StimulusSummary(name, 900, 1, 905, 30.0, "never repeats") for name in ALONE]
    results = Results(
        title="sub-389014_ses-20180705T152908",
        session=_session(),
        stimuli=tuple(stimuli),
        presentations=tuple(presentations),
        candidates=_candidates(rng),
        history=_history(rng),
        scores=(*scores, *of_stimulus),
        differences=(*gaps, *gaps_of_stimulus),
        confusions=(table,),
        traces=(),
        headline=(
            "The population follows 'mousecam' best: its moment is decoded with a median error of "
            "2.1 s (95 % interval 1.6 to 2.7), chance 7.5 s.",
            "The frames of 11 of 12 stimuli are decoded better than by the best constant guess.",
            "Which stimulus is on the screen is told with accuracy 71.0%, chance 8.3%.",
            "For frames the embedding beats nearest neighbours on the raw windows for 4 of 12 "
            "stimuli, loses for 3, and is undecided for 5.",
        ),
        methods=(
            "Activity of 41 channels was taken at 30.15 samples a second: 126758 samples in 1 "
            "unbroken stretch. No window crosses the border of a stretch.",
            "The encoder was offset10-model (10 samples, 0.332 s; 32 hidden units; 8 latents of "
            "unit length), trained by contrastive learning with the InfoNCE loss.",
            "Scores come from 10 folds over repeats: for each, encoder, scaling, PCA and decoder "
            "were fitted without the fold's test samples and a guard of 50 samples around them.",
        ),
        warnings=(
            "Not shown to be better than a constant guess (median error): noise.",
            "Stimuli were shown in a fixed order: identity cannot be told from time.",
        ),
        settings={
            "sampling rate": "30.15 Hz",
            "window": "10 samples = 0.332 s (offset10-model)",
            "offset": "10 samples = 0.332 s",
            "chosen: latents": "16",
            "seed": "0",
            "stimuli": "()",
        },
        versions={"grevy": "0.1.0", "python": "3.11.9", "torch": "2.10.0", "device": "cpu"},
        command="grevy run --config run.toml --out NEW_FOLDER",
        seconds={"choose": 31.2, "train": 44.0, "folds over repeats": 412.7, "decode": 55.1},
        claims=tuple(_claims(rng)),
        folds=(FoldSummary("repeats", ("frame", "stimulus"), 8, 1, 50, 0, set_aside=True),),
        controls=_controls(),
        quality=_quality(),
    )
    return results, arrays


def labels(seed: int = 1) -> tuple[Results, EmbeddingArrays]:
    """A session without stimuli: a heading (circular) and a speed are decoded."""
    rng = np.random.default_rng(seed)
    n = 3000
    times = np.arange(n) / 10.0
    heading = np.mod(np.cumsum(rng.normal(0.02, 0.12, n)), 2 * np.pi)
    speed = np.abs(np.convolve(rng.normal(size=n), np.ones(40) / 6, "same"))
    x = np.stack([np.cos(heading), np.sin(heading), 0.6 * speed], 1) + rng.normal(0, 0.15, (n, 3))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    scores: list[Score] = []
    gaps: list[Difference] = []
    for name, unit, chance in (("heading", "rad", 1.6), ("speed", "cm/s", 0.5)):
        values = {"embedding": 0.3, "raw kNN": 0.26, "PCA kNN": 0.4, "constant": chance}
        scores += _rows(name, "", "median error", unit, values, chance)
        gaps.append(_difference(name, "", "median error", "raw kNN", 0.04, 0.02, unit))
        gaps.append(_difference(name, "", "median error", "PCA kNN", -0.1, 0.05, unit))
    full, _ = movies(seed)
    none = np.full(n, -1, dtype=np.int32)

    def trace(name: str, unit: str, period: float | None, values: np.ndarray) -> LabelTrace:
        said = values + rng.normal(0, 0.2, n)
        said = np.mod(said, period) if period else said
        return LabelTrace(
            name, unit, period, tuple(map(float, times)), tuple(map(float, values)),
            tuple(map(float, said)),
        )  # fmt: skip

    results = replace(
        full,
        title="free run in an open field",
        session=replace(_session(n), rate_hz=10.0, start_s=0.0, stop_s=300.0),
        stimuli=(),
        presentations=(),
        scores=tuple(scores),
        differences=tuple(gaps),
        claims=(),
        folds=(FoldSummary("blocks", ("heading", "speed"), 8, 1, 40, 0, set_aside=True),),
        controls=Controls(unchecked=("No behaviour was read.",)),
        confusions=(),
        traces=(
            trace("heading", "rad", 2 * np.pi, heading),
            trace("speed", "cm/s", None, speed),
        ),
        headline=("'heading' is decoded with a median error of 0.3 rad, chance 1.6 rad.",),
        warnings=(),
    )
    speed[100:140] = np.nan
    arrays = EmbeddingArrays(
        values=x,
        samples=np.arange(n, dtype=np.int64),
        times_s=times,
        padded=np.zeros(n, dtype=bool),
        index=none,
        frame=none.copy(),
        repeat=none.copy(),
        names=(),
        labels={"heading": heading, "speed": speed},
    )
    return results, arrays


def minimal() -> Results:
    """A run in which nothing could be decoded or chosen, and no embedding was kept."""
    return Results(
        title="",
        session=replace(_session(), notes=(), findings=()),
        stimuli=(),
        presentations=(),
        candidates=(),
        history=History((), (), (), (), (), (), float(np.log(512))),
        scores=(),
        differences=(),
        confusions=(),
        traces=(),
        headline=(),
        methods=(),
        warnings=(),
        settings={},
        versions={},
        command="",
    )
