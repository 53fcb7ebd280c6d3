"""What a run found: plain rows that report, tables and programs read. Computes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "AtDistance",
    "Barcode",
    "BehaviourAlone",
    "Candidate",
    "Claim",
    "Confusion",
    "Consistency",
    "Controls",
    "Difference",
    "Drift",
    "EffectiveDimension",
    "EmbeddingArrays",
    "FoldSummary",
    "HeldOutBits",
    "History",
    "LabelTrace",
    "OnsetClock",
    "Presentation",
    "Quality",
    "Results",
    "RingTest",
    "SampleSize",
    "Score",
    "SessionSummary",
    "StimulusSummary",
    "SubsetScore",
]


@dataclass(frozen=True)
class SessionSummary:
    """The recording as it was used."""

    name: str
    file: str
    source: str
    n_samples: int
    n_channels: int
    n_epochs: int
    rate_hz: float
    start_s: float
    stop_s: float
    activity_unit: str
    notes: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class StimulusSummary:
    """One stimulus of the session and whether its frames can be decoded."""

    name: str
    n_frames: int
    n_repeats: int
    n_samples: int
    duration_s: float
    reason: str = ""
    """Why frames are not decoded; empty where they are."""


@dataclass(frozen=True)
class Presentation:
    """One presentation of one stimulus, for the timeline."""

    stimulus: str
    repeat: int
    start_s: float
    stop_s: float


@dataclass(frozen=True)
class Candidate:
    """One configuration of the grid and how it did on the data set aside for choosing."""

    settings: dict[str, float | int | str]
    score: float
    """Mean decoding error on the choosing folds, in units of chance (lower is better)."""
    score_sd: float
    bits: float
    """Held-out bits above chance; comparable only between candidates of the same `task`."""
    task: str
    chosen: bool
    final_loss: float
    low: float = float("nan")
    high: float = float("nan")
    """The 95 % interval of `score` over the repeats (or blocks) that judged it."""
    times: int = 1
    """In how many choices it came first; more than one where every fold chooses for itself."""
    over: str = ""
    """The folds that it was tried for, "repeats" or "blocks"; "" in older results."""


@dataclass(frozen=True)
class History:
    """Training of the final model: one entry a recorded step."""

    step: tuple[int, ...]
    total: tuple[float, ...]
    positive: tuple[float, ...]
    negative: tuple[float, ...]
    bits: tuple[float, ...]
    temperature: tuple[float, ...]
    chance: float
    """The loss of a model that knows nothing: log of the number of negatives."""


@dataclass(frozen=True)
class Score:
    """One number of the decoding table.

    `target` is "frame", "stimulus" or a label's name; `stimulus` is empty where the row is not
    about one stimulus; `method` is "embedding", "raw kNN", "PCA kNN", "linear", "constant" or, in a
    control, "behaviour"; `low` and `high` bound the 95 % interval over repeats (or blocks), NaN
    where there are too few.
    """

    target: str
    stimulus: str
    method: str
    metric: str
    value: float
    chance: float
    n_repeats: int
    low: float = float("nan")
    high: float = float("nan")
    unit: str = ""
    higher_is_better: bool = True
    flag: str = ""
    """"leaks" where the score is not of held-out samples."""


@dataclass(frozen=True)
class Difference:
    """Embedding against a baseline on the same folds, repeat by repeat.

    `value` is embedding minus baseline in the metric's own unit; `better` says which way the
    interval points: "embedding", "baseline" or "undecided" (the interval holds zero).
    """

    target: str
    stimulus: str
    metric: str
    baseline: str
    value: float
    low: float
    high: float
    n_repeats: int
    better: str
    unit: str = ""
    flag: str = ""


@dataclass(frozen=True)
class Claim:
    """A claim about one stimulus, or about all ("" as its name), beside its null.

    `claim` is "time-locked", "content", "identity", or "label" (with a label's name for the
    stimulus). The null is given by its mean and the middle
    95 % of it; `p` is one-sided and never zero, `q` corrected for the number of stimuli of the same
    claim (Benjamini & Hochberg 1995). Where the claim cannot be tested `refused` says why, and the
    numbers are NaN.
    """

    claim: str
    stimulus: str
    statistic: str
    unit: str
    observed: float
    null_mean: float
    null_low: float
    null_high: float
    p: float
    q: float
    n_nulls: int
    refused: str = ""
    refit: bool = False
    """Whether encoders were trained anew for every null."""


@dataclass(frozen=True)
class BehaviourAlone:
    """Decoding from what the animal did instead of what its cells did, on the same samples.

    `share` is the part of the scored samples where the labels are known throughout the window;
    only these count, for the embedding too. The differences are embedding minus "behaviour".
    """

    labels: tuple[str, ...]
    share: float
    scores: tuple[Score, ...]
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class OnsetClock:
    """Error at decoding one stimulus from itself and from the others of its length.

    All are median errors, in `unit`. `clock` is chance minus the error from others: what is known
    of the moment without knowing the stimulus. `content` is the error from others minus its own.
    Their 95 % intervals are taken over repeats, of the paired differences.
    """

    stimulus: str
    unit: str
    own: float
    others: float
    chance: float
    clock: float
    clock_low: float
    clock_high: float
    content: float
    content_low: float
    content_high: float
    n_others: int
    n_repeats: int


@dataclass(frozen=True)
class AtDistance:
    """Mean error over presentations that are decoded from one so many repeats away."""

    distance: int
    value: float
    low: float
    high: float
    n_presentations: int


@dataclass(frozen=True)
class Drift:
    """Error at decoding one presentation from one other, by the repeats between them.

    `slope` is in `unit` a repeat, NaN where there are too few repeats to tell it from differences
    between presentations; `p` is one-sided, from `n_nulls` other orders of the repeats.
    """

    target: str
    stimulus: str
    statistic: str
    unit: str
    slope: float
    p: float
    n_nulls: int
    n_repeats: int
    by_distance: tuple[AtDistance, ...]


@dataclass(frozen=True)
class SubsetScore:
    """Decoding from some channels, beside as many channels drawn from all.

    `random` is the mean over draws, `random_low` and `random_high` their middle 95 %; `difference`
    is the score minus `random`, with its 95 % interval over repeats. Without draws these are NaN.
    """

    subset: str
    n_channels: int
    target: str
    stimulus: str
    method: str
    metric: str
    unit: str
    value: float
    low: float
    high: float
    chance: float
    random: float
    random_low: float
    random_high: float
    difference: float
    difference_low: float
    difference_high: float
    n_random: int
    n_repeats: int
    higher_is_better: bool = True


@dataclass(frozen=True)
class SampleSize:
    """How many samples of a series there are, and how many independent ones that is worth.

    `memory_s` is the integrated autocorrelation time; `n_repeats` the smallest number of repeats
    (or blocks) that a score of the series is a mean over.
    """

    series: str
    n_samples: int
    n_effective: float
    memory_s: float
    n_repeats: int


@dataclass(frozen=True)
class HeldOutBits:
    """Bits above chance on held-out samples, beside those of surrogates that trained alike.

    `runs` holds a value a run, `surrogates` one a surrogate, the mean over its runs; `low` and
    `high` bound the 95 % interval over runs, `null_low` and `null_high` the middle 95 % of the
    surrogates. `gain` is the mean of the runs minus that of the surrogates, with its 95 % interval.
    `p` is one-sided and never zero.
    """

    runs: tuple[float, ...]
    surrogates: tuple[float, ...]
    value: float
    low: float
    high: float
    null_mean: float
    null_low: float
    null_high: float
    gain: float
    gain_low: float
    gain_high: float
    p: float


@dataclass(frozen=True)
class Consistency:
    """How well embeddings predict one another on held-out rows, linearly, beside a null.

    `pairs` holds the R2 from the unit of the row to that of the column (a unit is a run, a session
    or an animal), NaN where both are one; `value` is their mean, with its 95 % interval over units.
    `in_sample` is what the rows that the maps were fitted on would give. The null is given by its
    mean and the middle 95 % of it, NaN where there is none; `p` is one-sided and never zero.
    """

    units: tuple[str, ...]
    pairs: tuple[tuple[float, ...], ...]
    value: float
    low: float
    high: float
    in_sample: float
    null_mean: float
    null_low: float
    null_high: float
    null_in_sample: float
    p: float
    n_nulls: int
    n_trained: int
    """Rows (samples or bins) that a map was fitted on, of the pair that shares fewest."""
    n_held_out: int
    """Rows that it was judged on, of the pair that shares fewest."""


@dataclass(frozen=True)
class EffectiveDimension:
    """Participation ratios: of an embedding, of the activity, of its channels at equal variance."""

    embedding: float
    activity: float
    scaled_activity: float
    n_latents: int
    n_channels: int
    n_samples: int


@dataclass(frozen=True)
class Barcode:
    """Persistent homology of some points of an embedding.

    `bars[d]` holds (birth, death) of every feature of dimension d that dies, the longest-lived
    first: parts, loops, voids. Distances are in units of the embedding's root-mean-square distance
    from its mean. The one part that never dies is not listed.
    """

    bars: tuple[tuple[tuple[float, float], ...], ...]
    n_points: int


@dataclass(frozen=True)
class RingTest:
    """Whether an embedding is one loop: its longest loop beside its second, and beside nulls.

    `ratio` is the lifetime of the longest loop in units of the second's. The null is given by its
    median and the middle 95 % of it. `betti` counts parts that are farther apart than any of a
    null, and loops and voids before the widest gap between lifetimes where no null has one so
    wide. `verdict` is "ring", "no ring", or "undecided" where there are too few nulls to tell.
    """

    ratio: float
    null_median: float
    null_low: float
    null_high: float
    p: float
    n_nulls: int
    betti: tuple[int, ...]
    verdict: str


@dataclass(frozen=True)
class FoldSummary:
    """How the folds of some targets lay.

    `what` is "repeats" or "blocks"; `n_left_out` how many a fold leaves out; `shared_samples` how
    many of its test samples an encoder was trained on, over all folds; `set_aside` whether some
    were kept for choosing and never scored.
    """

    what: str
    targets: tuple[str, ...]
    n_folds: int
    n_left_out: int
    guard_samples: int
    shared_samples: int
    set_aside: bool


@dataclass(frozen=True)
class Controls:
    """What else could explain the scores; `unchecked` says what was not asked, and why.

    `regions` are subsets of the channels, one a region.
    """

    behaviour: tuple[BehaviourAlone, ...] = ()
    clocks: tuple[OnsetClock, ...] = ()
    drifts: tuple[Drift, ...] = ()
    sizes: tuple[SampleSize, ...] = ()
    unchecked: tuple[str, ...] = ()
    regions: tuple[SubsetScore, ...] = ()


@dataclass(frozen=True)
class Quality:
    """The embedding on held-out samples of the first fold; `unchecked` as in `Controls`.

    `null` says what runs the nulls of `consistency` and `ring` are: "surrogates" (channels shifted
    apart), "labels" (labels moved away from the activity), or "" for none.
    """

    bits: HeldOutBits | None = None
    consistency: Consistency | None = None
    dimension: EffectiveDimension | None = None
    ring: RingTest | None = None
    null: str = ""
    unchecked: tuple[str, ...] = ()


@dataclass(frozen=True)
class Confusion:
    """Which stimulus was on the screen (rows) and which was said (columns), in samples."""

    names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    method: str


@dataclass(frozen=True)
class LabelTrace:
    """True and decoded label over time, at most a few thousand samples, for a figure."""

    name: str
    unit: str
    period: float | None
    times_s: tuple[float, ...]
    true: tuple[float, ...]
    decoded: tuple[float, ...]


@dataclass(frozen=True)
class Results:
    """Everything the report says; `arrays` of the embedding stand beside it in embedding.npz."""

    title: str
    session: SessionSummary
    stimuli: tuple[StimulusSummary, ...]
    presentations: tuple[Presentation, ...]
    candidates: tuple[Candidate, ...]
    history: History
    scores: tuple[Score, ...]
    differences: tuple[Difference, ...]
    confusions: tuple[Confusion, ...]
    traces: tuple[LabelTrace, ...]
    headline: tuple[str, ...]
    """The findings in words, most important first; one sentence each."""
    methods: tuple[str, ...]
    """The methods text, one paragraph each, with the run's own numbers."""
    warnings: tuple[str, ...]
    settings: dict[str, str]
    """Every resolved setting, as printed in the report."""
    versions: dict[str, str]
    command: str
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of each stage."""
    claims: tuple[Claim, ...] = ()
    flags: tuple[str, ...] = ()
    """Why the scores are no held-out scores; empty where they are."""
    folds: tuple[FoldSummary, ...] = ()
    controls: Controls = Controls()
    quality: Quality = Quality()


@dataclass(frozen=True, eq=False)
class EmbeddingArrays:
    """The final model's embedding of the whole session, row by row.

    Attributes
    ----------
    values : array of float32, shape (n, D)
    samples : array of int64, shape (n,)
        Sample number in the recording.
    times_s : array of float64, shape (n,)
    padded : array of bool, shape (n,)
        Rows whose window was completed by edge replication.
    index, frame, repeat : arrays of int32, shape (n,)
        As in `StimulusTrack`; all -1 where the recording has no stimulus.
    names : tuple of str
        Stimulus names, pointed to by `index`.
    labels : dict of str to array, shape (n,) or (n, d)
        Label values, NaN where unknown.
    """

    values: NDArray[np.float32]
    samples: NDArray[np.int64]
    times_s: NDArray[np.float64]
    padded: NDArray[np.bool_]
    index: NDArray[np.int32]
    frame: NDArray[np.int32]
    repeat: NDArray[np.int32]
    names: tuple[str, ...]
    labels: dict[str, NDArray[np.float64]]
