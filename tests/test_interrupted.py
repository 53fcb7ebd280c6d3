"""Commands that are killed at random instants end as if they had not been (more: `make faults`)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here: not run")
def test_killed_at_random_instants_they_end_with_the_same_bytes() -> None:
    words = ["--kills", "3", "--commands", "fit", "search"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "faults.py"), *words],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("each equal to the last byte") == 2
