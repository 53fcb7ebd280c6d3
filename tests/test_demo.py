"""What `make demo` shows must be true: a planted order of movies is found, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from grevy import pipeline
from grevy.movie_session import openscope
from grevy.report.saved import load_results
from grevy.report.wording import ranking


@pytest.mark.slow
def test_the_planted_order_is_recovered_and_the_embedding_beats_raw_windows(tmp_path: Path) -> None:
    path = pipeline.demo(tmp_path, quiet=True)
    results, _ = load_results(path.parent)
    strength = openscope(**pipeline.DEMO_SESSION).strength
    planted = sorted(strength, key=lambda name: -strength[name])
    assert [row.stimulus for row in ranking(results.scores)] == planted
    control = planted[-1]
    assert strength[control] == 0
    verdict = {
        (d.stimulus, d.baseline): d.better
        for d in results.differences
        if d.target == "frame" and d.metric == "median error"
    }
    for name in planted:
        assert verdict[name, "constant"] == ("undecided" if name == control else "embedding")
    assert [verdict[name, "raw kNN"] for name in planted[:-1]] == ["embedding"] * 3
    assert verdict[control, "raw kNN"] != "embedding"
