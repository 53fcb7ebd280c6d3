"""What `grevy run` prints of its findings."""

from __future__ import annotations

from dataclasses import replace

import pytest

import fake_results as fake
from grevy.report.printed import printed


def test_every_row_has_its_numbers_and_one_sentence() -> None:
    results = fake.movies()[0]
    lines = printed(results.scores, results.claims)
    rows = [s for s in results.scores if (s.method, s.metric) == ("embedding", "median error")]
    ours = {s.stimulus: s for s in rows}
    for name, score in ((n, s) for n, s in ours.items() if n and s.target == "frame"):
        at = next(i for i, line in enumerate(lines) if line.startswith(f"{name} "))
        claim = next(c for c in results.claims if (c.claim, c.stimulus) == ("time-locked", name))
        raw = next(
            s for s in results.scores if s.method == "raw kNN" and s.stimulus == name
            and s.metric == "median error"
        )  # fmt: skip
        numbers = lines[at].removeprefix(name).split()
        assert numbers[0] == f"{score.value:.2f}"
        assert numbers[1:4] == [f"{score.low:.2f}", "to", f"{score.high:.2f}"]
        assert numbers[4] == f"{score.chance:.2f}"
        assert numbers[5:7] == [f"{claim.p:.2g}", f"{claim.q:.2g}"]
        assert numbers[7] == f"{raw.value:.2f}"
        assert lines[at + 1].startswith("    ")
        assert lines[at + 1].endswith(".")
    at = next(i for i, line in enumerate(lines) if line.startswith("which stimulus"))
    assert lines[at + 1].split()[:3] == ["all", "71.0", "70.0"]
    assert "tells stimuli of equal length" in lines[at + 2]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"q": 0.2, "p": 0.2}, "No claim: the population is not shown to follow it."),
        ({"refused": "Too short."}, "Not tested. Too short."),
    ],
)
def test_what_is_not_shown_is_no_claim(change: dict[str, object], says: str) -> None:
    results = fake.movies()[0]
    claims = [replace(c, **change) if c.claim == "time-locked" else c for c in results.claims]  # type: ignore[arg-type]
    lines = printed(results.scores, claims)
    assert sum(line.strip() == says for line in lines) == 12


def test_labels_and_names_that_forge_lines() -> None:
    results = fake.labels()[0]
    assert (
        sum("Not tested against nulls." in line for line in printed(results.scores, results.claims))
        == 2
    )
    rows = [replace(s, target="x\ny\x1b[2J") for s in results.scores]
    lines = printed(rows, results.claims)
    assert all(line.isprintable() for line in lines)
    assert printed(fake.minimal().scores, ()) == []
