from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from grevy.config import TrainConfig
from grevy.encoders import EncoderSpec
from grevy.pairs import ClassPairs, DeltaPairs, HybridPairs, NearPairs, Pairs, TimePairs
from grevy.questions import Choice
from grevy.report.wording import cautions, headline, methods, ranking
from grevy.results import Candidate, Claim, Difference, Score, SessionSummary
from grevy.splits import Plan


def score(
    stimulus: str, value: float, target: str = "frame", metric: str = "median error"
) -> Score:
    return Score(
        target, stimulus, "embedding", metric, value, 1.0, 8, value - 0.1, value + 0.1, "s"
    )


def gap(stimulus: str, baseline: str, better: str, target: str = "frame") -> Difference:
    metric = "median error" if target != "stimulus" else "accuracy"
    return Difference(target, stimulus, metric, baseline, 0.0, -1.0, 1.0, 8, better)


def locked(stimulus: str, q: float) -> Claim:
    return Claim("time-locked", stimulus, "median error", "s", 0.2, 1, 0.9, 1.1, q, q, 999)


@pytest.mark.parametrize(("claims", "why"), [([], "not tested"), ([locked("a", 0.6)], "q = 0.6")])
def test_the_best_is_not_said_to_be_followed_untested(claims: list[Claim], why: str) -> None:
    said = headline([score("a", 0.2)], [gap("a", "constant", "embedding")], claims)
    assert said[0].startswith("Moments of 'a' are decoded best")
    assert f"no claim yet that the population follows it ({why}" in said[0]


def test_the_best_stimulus_comes_first_and_losses_are_said() -> None:
    rows = [score("b", 0.8), score("a", 0.2), score("c", 1.1)]
    gaps = [
        gap("a", "constant", "embedding"), gap("b", "constant", "embedding"),
        gap("c", "constant", "undecided"), gap("a", "raw kNN", "embedding"),
        gap("b", "raw kNN", "baseline"), gap("c", "raw kNN", "undecided"),
        gap("a", "PCA kNN", "baseline"), gap("b", "PCA kNN", "baseline"),
    ]  # fmt: skip
    assert [r.stimulus for r in ranking(rows)] == ["a", "b", "c"]
    claims = [locked("a", 0.01), locked("b", 0.2), locked("c", 0.9)]
    said = list(headline(rows, gaps, claims))
    assert said[0].startswith("The population follows 'a' best")
    assert "For 1 of 3 stimuli the population follows their time" in said.pop(2)
    assert "2 of 3 stimuli" in said[1]
    assert "raw windows for 1 of 3 stimuli, loses for 1, and is undecided for 1" in said[2]
    assert "principal components for 0 of 2 stimuli, loses for 2" in said[3]
    assert "Not shown to be better than a constant guess: c." in cautions(rows, gaps, [])


def test_what_is_not_better_than_chance_does_not_sound_like_success() -> None:
    rows = [score("a", 0.9), score("", 3.0, "speed")]
    gaps = [gap("a", "constant", "undecided"), gap("", "constant", "baseline", "speed")]
    said = headline(rows, gaps)
    assert said[0].startswith("No stimulus is decoded with certainty better than chance")
    assert said[2].startswith("'speed' is not shown to be decoded better")
    assert any("constant guess: a, speed" in c for c in cautions(rows, gaps, []))


def test_few_repeats_are_a_caution() -> None:
    none = np.zeros((0, 2), dtype=np.int64)
    plan = Plan(none, none[:, 0], np.zeros((3, 0), dtype=bool), none[:, 0], 0, 5)
    few = [Score("frame", "a", "embedding", "median error", 0.1, 1.0, 3)]
    said = cautions(few, [gap("a", "constant", "embedding")], [("repeats", plan)])
    assert any("Fewer than five repeats" in s for s in said)
    assert any("Fewer than five scored repeats for a" in s for s in said)


def test_too_few_nulls_for_a_family_are_a_caution() -> None:
    rows = [replace(locked(name, 0.1), n_nulls=99) for name in "abcdefg"]
    assert any("too few for the claim 'time-locked' of 7 stimuli" in s and "139 or more" in s
               for s in cautions([], [], [], rows))  # fmt: skip
    labels = [replace(row, claim="label", n_nulls=19) for row in rows[:2]]
    assert any("claim 'label' of 2 labels" in s for s in cautions([], [], [], labels))
    assert not cautions([], [], [], [replace(row, n_nulls=999) for row in rows])


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        (TimePairs((10,)), "CEBRA-Time: positives lie 10 samples (0.333 s)"),
        (DeltaPairs(("x",), 3), "CEBRA-Behavior: the x of a positive"),
        (NearPairs(("x",), 0.5), "nearly the same x (sd 0.5)"),
        (ClassPairs("side"), "share the class of 'side'"),
        (HybridPairs(ClassPairs("side"), TimePairs((4,))), "CEBRA-Hybrid: positives share"),
    ],
)
def test_methods_name_the_pairs_and_the_numbers(pairs: Pairs, says: str) -> None:
    session = SessionSummary("n", "f", "s", 900, 7, 1, 30.0, 0.0, 30.0, "")
    config = TrainConfig(pairs=pairs, encoder=EncoderSpec("offset10-model", 32, 8), n_steps=123)
    text = " ".join(methods(session, config, {}, [], search_steps=5))
    for part in (says, "7 channels", "123 steps", "10 samples, 0.333 s", "No configuration was"):
        assert part in text


def test_methods_say_what_a_preset_does() -> None:
    session = SessionSummary("n", "f", "s", 900, 7, 1, 30.0, 0.0, 30.0, "")
    plain = TrainConfig(encoder=EncoderSpec("offset10-model", 32, 8), batch_size=99)
    each = [
        " ".join(methods(session, config, {}, [], search_steps=5))
        for config in (plain, plain.with_preset("robust"))
    ]
    for part, there in {
        "the others of its step as its negatives": (True, False),
        "99 references a step and 99 negatives, each drawn on its own, Adam": (False, True),
        "set to zero: each channel of a window with probability 0.1.": (False, True),
        "temperature 1,": (True, False),
        "temperature 0.5,": (False, True),
        "smoothed over time": (False, True),
    }.items():
        assert tuple(part in text for text in each) == there, part


def test_methods_say_where_the_choice_was_made_and_what_leaks() -> None:
    session = SessionSummary("n", "f", "s", 900, 7, 1, 30.0, 0.0, 30.0, "")
    config = TrainConfig(encoder=EncoderSpec("offset10-model", 32, 8))
    row = Candidate({"latents": 8}, 0.5, 0.1, 1.0, "t", True, 5.0)
    curve = np.array([[100, 0.5], [200, 0.75], [300, 0.7]])

    def said(choice: Choice, plan: Plan) -> str:
        return " ".join(
            methods(session, config, {"repeats": choice}, [("repeats", plan)], search_steps=5)
        )

    known = np.arange(40) < 30
    group = np.where(known, np.arange(40) // 5, -1)
    tested = np.array([(group == 0) | (group == 1), (group == 2) | (group == 3)])
    plan = Plan(np.array([[0, 40]]), group, tested, np.full(40, -1), 0, 5)
    aside = said(Choice(config, (), (row,)), plan)
    assert "data set aside" in aside
    assert "2 folds over repeats, 2 repeats left out in each" in aside
    assert "jackknife" in aside
    nested = said(Choice(config, (config, config), (row,), curve), plan)
    assert "inside each fold" in nested
    assert "200 steps, 0.75 bits" in nested
    leaks = said(Choice(config), replace(plan, shuffled=True))
    assert "not of held-out samples: samples were shuffled into folds" in leaks


def test_a_confounded_order_is_said_beside_the_identity() -> None:
    row = Score("stimulus", "", "embedding", "accuracy", 0.5, 0.2, 8, 0.4, 0.6)
    gaps = [gap("", "constant", "embedding", "stimulus")]
    assert "Their order does not tell them from time" in headline([row], gaps, confounded=True)[0]
    assert "fixed" not in headline([row], gaps)[0]
