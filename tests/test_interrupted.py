"""Commands that are killed at random instants end as if they had not been (more: `make faults`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here: not run")
def test_killed_at_random_instants_they_end_with_the_same_bytes(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    words = ["--kills", "3", "--commands", "fit", "search", "--json", str(tmp_path / "told")]
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "faults.py"), *words],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "told").read_text())["rows"]
    assert [(row["kills"] >= 3, row["lost_bytes"]) for row in rows] == [(True, 0)] * 2
    assert all(row["ends"] and row["compared_bytes"] for row in rows)
    record_property("cases", sum(row["kills"] for row in rows))
