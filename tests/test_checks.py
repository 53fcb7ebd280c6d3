"""What stands beside the scores of a run: what is trained for it, what is left out, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import lfilter

from grevy.checks import _draws, _of_regions, _regions, controls_of, folds_of, quality_of
from grevy.config import TrainConfig
from grevy.controls import behaviour_alone, drift, onset_clock, sample_sizes, subsets
from grevy.encoders import EncoderSpec
from grevy.evaluate import Features, frame_problem, identity_problem, label_problem
from grevy.model import Run, fingerprint
from grevy.pairs import ClassPairs, DeltaPairs, Pairs, TimePairs
from grevy.quality import bits_with_surrogate, consistency, effective_dimension, split, surrogate
from grevy.questions import Choice, Question, Trainer
from grevy.recording import Label, Recording, make_recording
from grevy.report.evidence import _told, controls_said, tables
from grevy.results import Quality
from grevy.settings import RunConfig, read_config
from grevy.splits import block_plan, shuffled_plan, training_spans
from grevy.training import train
from grevy.windows import keep
from test_nulls import lengths_of, prepared, session

Asked = tuple[Recording, Question, list[Features]]
Trained = dict[tuple[str, str], tuple[Recording, list[TrainConfig]]]


def settings(**more: object) -> RunConfig:
    return read_config({"file": "x", "decay_s": 0.1, "device": "cpu", "nulls": 19, **more})


def choice(pairs: Pairs | None = None, steps: int = 15) -> Choice:
    encoder = EncoderSpec("offset5-model", 8, 3)
    return Choice(
        TrainConfig(
            pairs=pairs or TimePairs((2,)), encoder=encoder, n_steps=steps, batch_size=64,
            learning_rate=1e-2,
        )
    )  # fmt: skip


def noting(trained: Trained, known: dict[str, list[Run]] | None = None):  # type: ignore[no-untyped-def]
    """A trainer for every recording that keeps what it was asked for."""

    def trainer_on(recording: Recording) -> Trainer:
        def trainer(configs: Sequence[TrainConfig], what: str) -> list[Run]:
            trained[fingerprint(recording), what] = (recording, list(configs))
            runs = train([recording], list(configs), device="cpu")
            if known is not None:
                known[what] = runs
            return runs

        return trainer

    return trainer_on


def labelled(n: int = 1200) -> tuple[Recording, Question]:
    """Cells on a ring, and a label that forgets."""
    rng = np.random.default_rng(0)
    angle = np.cumsum(rng.normal(0, 0.5, n))
    cells = np.exp(2 * np.cos(angle[:, None] - np.linspace(0, 2 * np.pi, 8, endpoint=False)))
    labels = {
        "angle": Label(np.mod(angle, 2 * np.pi), "continuous", "rad", 2 * np.pi),
        "side": Label((np.sin(angle) > 0).astype(np.int64), "discrete"),
    }
    recording = make_recording(
        (cells + 0.3 * rng.standard_normal((n, 8))).astype(np.float32), rate_hz=20.0, labels=labels
    )
    plan = block_plan(np.ones(n, bool), recording.epochs, n_folds=4, seed=0, guard=20)
    return recording, Question("blocks", plan, (label_problem("angle", labels["angle"]),))


# --- controls ------------------------------------------------------------------------------------
def watched(seed: int = 1) -> tuple[Recording, Question, list]:  # type: ignore[type-arg]
    recording = session(seed, movies=3, repeats=6, frames=20, signal=2.0)
    rng = np.random.default_rng(seed)
    running = Label(rng.standard_normal(recording.n_samples), "continuous", "cm/s")
    recording = replace(recording, labels={"running": running})
    problem, plan, features = prepared(recording, folds=4)
    return recording, Question("repeats", plan, (problem, identity_problem(recording))), features


def test_controls_are_those_of_the_question_and_its_features() -> None:
    recording, question, features = watched()
    problem, which = question.problems
    found = controls_of(recording, [(question, features)], choice(), settings())
    field, plan, epochs = choice().overall.encoder.field, question.plan, recording.epochs
    assert list(found.behaviour) == [
        behaviour_alone(recording, p, plan, features, ["running"], field) for p in (problem, which)
    ]
    lengths = lengths_of(recording, problem)
    assert list(found.clocks) == onset_clock(problem, plan, epochs, features, lengths)
    expected = drift(problem, plan, epochs, features, n=19)
    assert repr(list(found.drifts)) == repr(expected)  # in which NaN is equal to NaN
    assert list(found.sizes) == sample_sizes(recording, question.problems, plan, features[0])
    assert found.unchecked == ()


def test_what_cannot_be_asked_is_said_with_its_reason() -> None:
    recording = session(2, movies=2, repeats=4, lengths=(20, 30))
    problem, plan, features = prepared(recording, folds=2)
    question = Question("repeats", plan, (problem,))
    found = controls_of(recording, [(question, features)], choice(), settings())
    assert (found.behaviour, found.clocks, found.drifts) == ((), (), ())
    said = " ".join(found.unchecked)
    for words in ("No behaviour was read", "--behaviour", "equal length", "No stimulus has 5"):
        assert words in said
    unknown = Label(
        np.zeros(recording.n_samples), "continuous", known=np.zeros(recording.n_samples, bool)
    )
    blind = replace(recording, labels={"pupil": unknown})
    found = controls_of(blind, [(question, features)], choice(), settings())
    assert found.behaviour == ()
    assert "frame was not decoded from behaviour alone: behaviour must be known" in " ".join(
        found.unchecked
    )


def test_drift_is_sought_in_stimuli_with_enough_repeats_and_tested_only_beside_nulls() -> None:
    recording, question, features = watched(3)
    group = question.plan.group.copy()
    group[(question.problems[0].subset == 1) & (group >= 4)] = -1
    few = replace(question, plan=replace(question.plan, group=group))
    found = controls_of(recording, [(few, features)], choice(), settings(nulls=0))
    names = question.problems[0].names
    assert [d.stimulus for d in found.drifts] == [names[0], names[2]]
    assert all(np.isnan(d.p) and np.isfinite(d.slope) for d in found.drifts)


def test_the_label_that_is_decoded_is_not_its_own_control() -> None:
    recording, question = labelled()
    extra = {"speed": Label(np.random.default_rng(0).standard_normal(1200), "continuous")}
    recording = replace(recording, labels={**recording.labels, **extra})
    rows = np.concatenate([np.arange(a, b) for a, b in question.plan.spans])
    x = recording.activity[rows]
    features = [_features(x, rows)] * question.plan.n_folds
    found = controls_of(recording, [(question, features)], choice(), settings())
    assert [b.labels for b in found.behaviour] == [("speed",)]  # neither angle nor side
    assert (found.clocks, found.drifts) == ((), ())
    assert {d.better for d in found.behaviour[0].differences} == {"embedding"}


# --- regions -------------------------------------------------------------------------------------
REGIONS = ("V1",) * 6 + ("CA1",) * 6


def of_regions(seed: int, regions: Sequence[str] = REGIONS, **how: Any) -> Asked:
    """Six cells that may follow movies, and six that never do."""
    recording = session(seed, frames=20, **how)
    rng = np.random.default_rng(seed)
    deaf = lfilter([1], [1, -0.9], rng.standard_normal((recording.n_samples, 6)), axis=0)
    x = np.hstack([recording.activity, deaf])
    whole = make_recording(x, recording.times_s, stimulus=recording.stimulus, regions=regions)
    problem, plan, features = prepared(whole, folds=5)
    return whole, Question("repeats", plan, (problem, identity_problem(whole))), features


def test_one_region_carries_the_signal_and_the_table_says_which() -> None:
    recording, question, features = of_regions(2, movies=2, repeats=10, signal=3.0)
    found = controls_of(recording, [(question, features)], choice(), settings())
    field, cells = choice().overall.encoder.field, np.arange(12)
    masks = {"V1": cells < 6, "CA1": cells >= 6}
    expected = [
        row
        for p in question.problems
        for row in subsets(recording, p, question.plan, masks, field, size=6, n_random=3)
    ]
    assert list(found.regions) == expected
    (table,) = [t for t in tables(found, Quality())["controls"] if t.head[0] == "region"]
    verdicts = {name: {cells[-1] for n, cells in table.lines if n == name} for name in masks}
    assert verdicts == {"V1": {"more", "undecided"}, "CA1": {"less"}}
    assert len(table.lines) == 2 * (2 + 1)
    said = " ".join(controls_said(found, []))
    assert "Of frames, 'CA1' (for all 2 stimuli) tells less than as many channels" in said
    assert "Of the stimulus, 'V1' tells more and 'CA1' tells less than as many channels" in said
    for r in found.regions:
        if r.metric == "accuracy":
            assert (r.low > r.chance) == (r.subset == "V1")


def test_where_no_region_carries_a_signal_none_differs_from_draws() -> None:
    told = []
    for seed in range(4):
        recording, question, _ = of_regions(seed, movies=2)
        masks = _regions(recording, [])
        for p in question.problems:
            rows = _of_regions(recording, p, question.plan, masks, choice(), settings())
            told += [_told(r) for r in rows]
    assert len(told) == 4 * 2 * (2 * 4 + 1)
    assert told.count("undecided") >= 0.95 * len(told)


@pytest.mark.parametrize(
    ("regions", "compared", "says"),
    [
        ((), [], ""),
        (("unknown",) * 6 + ("",) * 6, [], ""),
        (("V1",) * 12, [], "All channels are of one region ('V1'): regions were not compared."),
        (("V1",) * 8 + ("CA1",) * 4, [], "Fewer than two regions have 5 channels"),
        (("V1",) * 6 + ("Unknown",) * 6, [], "Fewer than two regions have 5 channels"),
        (REGIONS, ["V1", "CA1"], ""),
        (
            ("CA1",) * 5 + ("V1",) * 5 + ("LGd", ""), ["CA1", "V1"],
            "2 channels are of no known region with at least 5",
        ),
    ],
)  # fmt: skip
def test_regions_are_compared_where_two_have_enough_channels(
    regions: Sequence[str], compared: list[str], says: str
) -> None:
    recording, _, _ = of_regions(2, regions, movies=2)
    said: list[str] = []
    masks = _regions(recording, said)
    assert list(masks) == compared
    assert {len(m) for m in masks.values()} <= {12}
    assert [recording.regions[i] for m in masks.values() for i in np.flatnonzero(m)] == [
        r for name in compared for r in regions if r == name
    ]
    assert len(said) == bool(says)
    assert says in " ".join(said)


def test_draws_are_as_many_as_decoding_leaves_time_for() -> None:
    assert _draws(12, 6, [6, 6], 5) == 3
    many = [_draws(n, 10, [10, n - 10], 10) for n in range(20, 400, 20)]
    assert many == sorted(many)
    assert set(many) == {3, 4, 5}
    assert _draws(300, 20, [20, 280], 10) == 5
    assert _draws(300, 20, [20] * 2 + [26] * 10, 10) == 3  # every region is decoded as often
    assert _draws(300, 20, [20, 280], 1) == 3  # decoding itself is short


def _features(x: NDArray[np.float32], rows: NDArray[np.int64], seen: object = None):  # type: ignore[no-untyped-def]
    from grevy.evaluate import EMBEDDING, Features

    spans = np.empty((0, 2), np.int64) if seen is None else np.asarray(seen)
    return Features({EMBEDDING: x}, rows, spans)


def test_samples_that_encoder_and_test_share_are_counted() -> None:
    recording, question = labelled()
    plan = question.plan
    rows = np.arange(1200)
    apart = [
        _features(recording.activity, rows, training_spans(plan, recording.epochs, fold))
        for fold in range(plan.n_folds)
    ]
    found = folds_of(question, apart)
    assert (found.shared_samples, found.n_left_out, found.set_aside) == (0, 1, True)
    assert found.targets == ("angle",)
    every = [_features(recording.activity, rows, recording.epochs)] * plan.n_folds
    assert folds_of(question, every).shared_samples == int(plan.tested.sum())


# --- quality -------------------------------------------------------------------------------------
def test_quality_is_that_of_seeds_and_surrogates_without_the_first_fold() -> None:
    recording, question = labelled()
    trained: Trained = {}
    known: dict[str, list[Run]] = {}
    config, chosen = settings(seeds=2, surrogates=2, seed=5), choice()
    found = quality_of(recording, question, chosen, chosen.overall, config, noting(trained, known))
    assert [what for _, what in trained] == ["2 seeds", "surrogate 1", "surrogate 2"]
    spans = training_spans(question.plan, recording.epochs, 0)
    for _, configs in trained.values():
        assert [c.seed for c in configs] == [5, 6]
        assert {c.train_on for c in configs} == {tuple((int(a), int(b)) for a, b in spans)}
    held = keep(recording.epochs, question.plan.tested[0])
    apart = 5 + 7 + 2  # window, offset (1/3 s) and decay, in samples
    shifted = [surrogate(recording, seed=5 + j, apart=apart) for j in range(2)]
    pairs = [(r, known[f"surrogate {j + 1}"]) for j, r in enumerate(shifted)]
    for own, (other, _) in zip(shifted, list(trained.values())[1:], strict=True):
        np.testing.assert_array_equal(own.activity, other.activity)
    assert found.bits == bits_with_surrogate(known["2 seeds"], pairs, recording, held)
    parts = [split(run, recording, held) for run in known["2 seeds"]]
    nulls = [[split(run, r, held) for run in runs] for r, runs in pairs]
    assert repr(found.consistency) == repr(consistency(parts, nulls, units=["seed 0", "seed 1"]))
    assert found.dimension == effective_dimension(known["2 seeds"][0], recording, held)
    assert (found.null, found.ring, found.unchecked) == ("surrogates", None, ())


def test_labels_that_were_learnt_are_moved_for_the_null() -> None:
    recording, question = labelled()
    trained: Trained = {}
    chosen = choice(DeltaPairs(("angle",), 2))
    config = settings(seeds=2, surrogates=1)
    found = quality_of(recording, question, chosen, chosen.overall, config, noting(trained))
    assert found.null == "labels"
    assert [what for _, what in trained] == ["2 seeds", "surrogate 1", "labels moved 1"]
    moved = list(trained.values())[2][0]
    np.testing.assert_array_equal(moved.activity, recording.activity)
    assert (
        moved.labels["angle"].values != recording.labels["angle"].values
    ).all()  # no block stays
    np.testing.assert_array_equal(moved.labels["side"].values, recording.labels["side"].values)


def test_moments_that_were_learnt_are_moved_inside_their_presentations() -> None:
    recording, question, _ = watched()
    frames = frame_problem(recording)
    values = frames.target.values[:, 0]
    label = Label(values, "continuous", "s", known=frames.subset >= 0)
    recording = replace(recording, labels={"frame": label})
    trained: Trained = {}
    chosen = choice(DeltaPairs(("frame",), 2))
    config = settings(seeds=1, surrogates=1)
    quality_of(recording, question, chosen, chosen.overall, config, noting(trained))
    moved = trained[next(k for k in trained if k[1] == "labels moved 1")][0].labels["frame"].values
    for a, b in question.plan.spans:
        np.testing.assert_array_equal(np.sort(moved[a:b]), np.sort(values[a:b]))
    assert (moved != values).mean() > 0.3


def test_what_cannot_be_moved_stands_beside_surrogates() -> None:
    recording, question, _ = watched()
    which = np.maximum(frame_problem(recording).subset, 0)
    recording = replace(recording, labels={"stimulus": Label(which, "discrete")})
    chosen = choice(ClassPairs("stimulus"))
    config = settings(seeds=2, surrogates=1)
    found = quality_of(recording, question, chosen, chosen.overall, config, noting({}))
    assert found.null == "surrogates"
    assert "no way yet to move stimulus" in found.unchecked[0]


def test_one_seed_and_no_surrogate_train_nothing_more_and_say_what_is_missing() -> None:
    recording, question = labelled()
    trained: Trained = {}
    config, chosen = settings(seeds=1, surrogates=0), choice()
    found = quality_of(recording, question, chosen, chosen.overall, config, noting(trained))
    assert len(trained) == 1  # the first fold's own run
    assert (found.bits, found.consistency, found.null) == (None, None, "")
    assert found.dimension is not None
    said = " ".join(found.unchecked)
    assert "--surrogates" in said
    assert "--seeds" in said


def test_a_ring_is_looked_for_only_when_asked() -> None:
    pytest.importorskip("ripser")
    recording, question = labelled()
    config, chosen = settings(seeds=1, surrogates=1, topology=True), choice(steps=60)
    found = quality_of(recording, question, chosen, chosen.overall, config, noting({}))
    assert found.ring is not None
    assert (found.ring.n_nulls, found.ring.verdict != "ring") == (1, True)


def test_without_held_out_samples_there_is_a_sentence_and_no_training() -> None:
    recording, question = labelled()
    trained: Trained = {}
    config, chosen = settings(), choice()
    leaky = replace(
        question, plan=shuffled_plan(np.ones(1200, bool), recording.epochs, n_folds=3, seed=0)
    )
    for q, words in ((None, "No sample was held out"), (leaky, "Shuffled folds hold nothing out")):
        found = quality_of(recording, q, chosen, chosen.overall, config, noting(trained))
        assert words in found.unchecked[0]
        assert not trained
    assert "leak" in controls_of(recording, [(leaky, [])], chosen, config).unchecked[0]
    # Windows that fit into no held-out stretch.
    tested = question.plan.tested.copy()
    tested[0] &= np.arange(1200) % 4 == 0
    short = replace(question, plan=replace(question.plan, tested=tested, guard=0))
    found = quality_of(recording, short, chosen, chosen.overall, settings(seeds=1), noting(trained))
    assert found.dimension is None
    assert "was not judged" in found.unchecked[-1]
