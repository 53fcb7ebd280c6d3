"""The checklist: an answer changes when the fact behind it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

import fake_results as fake
from grevy.report.checklist import checklist
from grevy.results import Controls, Quality, Results

NAN = float("nan")


def answers(r: Results) -> dict[str, str]:
    return {item.question: item.answer for item in checklist(r)}


def session() -> Results:
    results, _ = fake.movies()
    return replace(results, differences=(*results.differences, *fake.above_chance()))


def _scores(r: Results, **change: object) -> Results:
    return replace(r, scores=tuple(replace(s, **change) for s in r.scores))  # type: ignore[arg-type]


def _folds(r: Results, **change: object) -> Results:
    return replace(r, folds=tuple(replace(f, **change) for f in r.folds))  # type: ignore[arg-type]


def _behaviour(r: Results, better: str) -> Results:
    rows = tuple(
        replace(b, differences=tuple(replace(d, better=better) for d in b.differences))
        for b in r.controls.behaviour
    )
    return replace(r, controls=replace(r.controls, behaviour=rows))


def _clocks(r: Results, low: float) -> Results:
    rows = tuple(replace(c, content_low=low) for c in r.controls.clocks)
    return replace(r, controls=replace(r.controls, clocks=rows))


def _claims(r: Results, **change: object) -> Results:
    return replace(r, claims=tuple(replace(c, refused="", **change) for c in r.claims))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "change", "before", "after"),
    [
        ("unit", lambda r: _scores(r, n_repeats=4), "yes", "partly"),
        ("unit", lambda r: _scores(r, n_repeats=2), "yes", "no"),
        ("gap", lambda r: _folds(r, shared_samples=7), "yes", "no"),
        ("gap", lambda r: _folds(r, guard_samples=0), "yes", "partly"),
        ("chosen", lambda r: _folds(r, set_aside=False), "yes", "no"),
        ("chosen", lambda r: replace(r, candidates=()), "yes", "not applicable"),
        (
            "chosen",
            lambda r: replace(_folds(r, set_aside=False), settings={"choice": "nested"}),
            "yes",
            "yes",
        ),
        ("preprocessing", lambda r: _folds(r, shared_samples=7), "yes", "no"),
        ("preprocessing", lambda r: replace(r, settings={"nan": "interpolate"}), "yes", "partly"),
        ("chance level", lambda r: _scores(r, chance=NAN), "yes", "partly"),
        (
            "baselines",
            lambda r: replace(r, scores=tuple(s for s in r.scores if s.method == "embedding")),
            "yes",
            "no",
        ),
        ("intervals, and", lambda r: _scores(r, low=NAN), "yes", "no"),
        ("how many were tested", lambda r: _claims(r, q=NAN), "yes", "no"),
        ("how many were tested", lambda r: replace(r, claims=()), "yes", "not applicable"),
        ("without the effect", _claims, "partly", "yes"),
        ("without the effect", lambda r: replace(r, claims=(), quality=Quality()), "partly", "no"),
        ("behaviour explains", lambda r: _behaviour(r, "embedding"), "partly", "yes"),
        ("behaviour explains", lambda r: _behaviour(r, "baseline"), "partly", "no"),
        ("behaviour explains", lambda r: replace(r, controls=Controls()), "partly", "no"),
        ("clock", lambda r: _clocks(r, 1.0), "partly", "yes"),
        ("clock", lambda r: _clocks(r, -1.0), "partly", "no"),
        ("clock", lambda r: replace(r, controls=Controls()), "partly", "not applicable"),
        ("clock", lambda r: replace(r, differences=()), "partly", "not applicable"),
        ("behaviour explains", lambda r: replace(r, differences=()), "partly", "not applicable"),
        ("seeds", lambda r: replace(r, quality=Quality()), "yes", "no"),
        ("found again", lambda r: replace(r, versions={}), "partly", "partly"),
        ("found again", lambda r: replace(r, versions={}, settings={}), "partly", "no"),
        (
            "found again",
            lambda r: replace(r, versions={"grevy": "1", "data": "0f"}),
            "partly",
            "yes",
        ),
    ],
)
def test_an_answer_follows_its_fact(
    words: str, change: Callable[[Results], Results], before: str, after: str
) -> None:
    results = session()
    (question,) = [q for q in answers(results) if words in q]
    assert answers(results)[question] == before
    assert answers(change(results))[question] == after


def test_facts_stand_in_the_reasons() -> None:
    said = {item.question: item.because for item in checklist(session())}
    text = " ".join(said.values())
    for words in (
        "The unit is repeats, never samples: 8; 108000 samples of stimulus are worth 15.",
        "8 folds over repeats, with 1.66 s between.",
        "8 candidates were compared on a part that was set aside.",
        "999 nulls of the labels and 19 surrogates of the activity; 3 claims could not be tested.",
        "The embedding tells more than pupil, running in 9 of 12 cases.",
        "A clock is found in 2 of 12 stimuli; their own presentations decode 11 of them better",
        "3 seeds, consistent with an R² of 0.883",
        "Not a fingerprint of the data.",
        "Not looked at: 1 of the controls",
    ):
        assert words in text, words


def test_where_nothing_was_decoded_nothing_is_claimed() -> None:
    found = answers(fake.minimal())
    assert "yes" not in found.values()
    assert len(found) == 14
