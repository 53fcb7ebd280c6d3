"""Which claims are tested and which refused, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from grevy.claims import refitted_claims, stimulus_claims
from grevy.config import TrainConfig
from grevy.encoders import EncoderSpec
from grevy.evaluate import features_of, identity_problem
from grevy.model import Run
from grevy.pairs import ClassPairs
from grevy.recording import Label, Recording, make_recording
from grevy.report.verdicts import verdict
from grevy.report.wording import cautions, headline
from grevy.results import Claim
from grevy.search import with_spans
from grevy.splits import training_spans
from grevy.stimulus import align, table_from_intervals
from grevy.training import train
from test_nulls import prepared, session


def of(recording: Recording, n: int = 39) -> list[Claim]:
    problem, plan, features = prepared(recording)
    assert recording.stimulus is not None
    return stimulus_claims(recording.stimulus, problem, plan, recording.epochs, features, n=n)


def in_fixed_order() -> Recording:
    names = [f"m{m}" for _ in range(6) for m in range(3) for _ in range(20)]
    times = np.arange(len(names)) / 30
    table = table_from_intervals(
        times - 1 / 60, times + 1 / 60, names, [i % 20 for i in range(len(names))]
    )
    x = np.random.default_rng(0).standard_normal((len(names), 5)).astype(np.float32)
    return replace(make_recording(x, rate_hz=30), stimulus=align(times, table))


def test_three_claims_about_movies_in_random_order() -> None:
    rows = of(session(1, movies=3, signal=2.0))
    assert [c.claim for c in rows] == ["time-locked"] * 3 + ["content"] * 3 + ["identity"]
    assert not any(c.refused for c in rows)
    for c in rows:
        assert 1 / 40 <= c.p <= c.q <= 1
        assert c.null_low <= c.null_mean <= c.null_high
        assert c.n_nulls == 39


def test_a_fixed_order_leaves_time_alone_to_be_claimed() -> None:
    rows = of(in_fixed_order())
    by = {k: [c for c in rows if c.claim == k] for k in ("time-locked", "content", "identity")}
    assert not any(c.refused for c in by["time-locked"])
    assert len(by["content"]) == 3
    assert all("confounded with time" in c.refused for c in by["content"] + by["identity"])
    assert all(np.isnan(c.p) for c in by["content"] + by["identity"])


def test_movies_without_their_like_are_refused_content() -> None:
    rows = of(session(2, movies=3, lengths=(30, 30, 18)))
    refused = [c for c in rows if c.refused]
    assert [(c.claim, c.stimulus) for c in refused] == [("content", "m2")]
    assert "no other stimulus of its length" in refused[0].refused
    alone = of(session(3, movies=2, lengths=(30, 18)))
    assert [c.claim for c in alone if c.refused] == ["content", "content", "identity"]


@pytest.mark.parametrize("signal", [0.0, 2.0])
def test_names_that_encoders_learnt_have_nulls_of_encoders_that_learn_other_names(
    signal: float,
) -> None:
    recording = session(107, movies=3, signal=signal)
    which = identity_problem(recording)
    known = which.subset >= 0
    stimulus = Label(which.target.values[:, 0].astype(np.int64), "discrete", known=known)
    recording = replace(recording, labels={"stimulus": stimulus})
    _, plan, _ = prepared(recording, folds=2)
    config = TrainConfig(
        ClassPairs("stimulus"), EncoderSpec("offset1-model", 16, 4), learning_rate=1e-2,
        batch_size=64, n_steps=30, scale="zscore",
    )  # fmt: skip
    spans = [training_spans(plan, recording.epochs, fold) for fold in range(plan.n_folds)]
    runs = train([recording], [with_spans(config, s) for s in spans], device="cpu")
    observed = [
        features_of(recording, plan.spans, s, run, baselines=False)
        for s, run in zip(spans, runs, strict=True)
    ]

    def trainer_on(other: Recording) -> Callable[[Sequence[TrainConfig], str], list[Run]]:
        return lambda configs, what: train([other], configs, device="cpu")

    (found,) = refitted_claims(
        recording, which, plan, config, observed, trainer_on, n=19, device="cpu"
    )
    assert (found.claim, found.stimulus, found.statistic) == ("identity", "", "accuracy")
    assert found.refit
    assert found.n_nulls == 19
    assert (found.p == 0.05) == (signal > 0)
    assert found.null_mean == pytest.approx(1 / 3, abs=0.1)
    fixed = replace(in_fixed_order(), labels={"stimulus": stimulus})
    (refused,) = refitted_claims(fixed, which, plan, config, observed, trainer_on, n=19)
    assert "confounded with time" in refused.refused


def claim(kind: str, stimulus: str, q: float, refused: str = "", n: int = 999) -> Claim:
    return Claim(kind, stimulus, "median error", "s", 1.0, 2.0, 1.8, 2.2, q, q, n, refused)


@pytest.mark.parametrize(
    ("locked", "content", "words"),
    [
        (0.2, claim("content", "a", 0.001), "No claim"),
        (0.001, claim("content", "a", 0.001), "follows this stimulus"),
        (0.001, claim("content", "a", 0.3), "is not shown"),
        (0.001, claim("content", "a", float("nan"), "fixed."), "cannot be told"),
        (0.001, None, "cannot be told"),
        (float("nan"), None, "No claim"),
    ],
)
def test_verdicts(locked: float, content: Claim | None, words: str) -> None:
    rows = [claim("time-locked", "a", locked), *([content] if content else [])]
    assert words in verdict(rows)


def test_the_headline_counts_corrected_claims_and_says_what_is_not_tested() -> None:
    rows = [claim("time-locked", "a", 0.01), claim("time-locked", "b", 0.2)]
    said = " ".join(headline([], [], [*rows, claim("identity", "", float("nan"), "Fixed order.")]))
    assert "For 1 of 2 stimuli the population follows their time" in said
    assert "cannot be tested. Fixed order." in said
    told = " ".join(headline([], [], [claim("identity", "", 0.4)]))
    assert "cannot be shown to tell stimuli" in told


def test_too_few_nulls_for_the_number_of_stimuli_are_a_caution() -> None:
    rows = [claim("time-locked", str(i), 0.1, n=99) for i in range(12)]
    assert any("only with 239 or more" in c for c in cautions([], [], [], rows))
    enough = [replace(c, n_nulls=239) for c in rows]
    assert not cautions([], [], [], enough)
