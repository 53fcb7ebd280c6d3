"""Stimulus alignment at full size: the notebook's loops against `stimulus.align`, in one run.

    python benchmarks/align.py        # or the row "align" of benchmarks/speed.py

241,186 table rows onto 127,177 samples. The loops run twice: over columns of a pandas table, as the
notebook has them, and over plain lists, as fast as they get.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

from grevy import stimulus, synthetic

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import oracles


class Column:
    """A column that is looked up in its table at every access, as the notebook does it."""

    def __init__(self, values: list[Any]) -> None:
        self.table = pd.DataFrame({"values": values})

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, row: int) -> Any:
        return self.table["values"][row]


def loops(times: Any, rows: Any, as_column: Callable[[list[Any]], Any]) -> Any:
    start, frame, name = (as_column([row[i] for row in rows]) for i in (0, 2, 3))
    intervals = oracles.notebook_intervals(start, frame, name)
    return len(intervals[0]), oracles.notebook_samples(times, *intervals)


def timed(what: Callable[[], Any], times: int) -> tuple[float, Any]:
    lasted = []
    for _ in range(times):
        begin = time.perf_counter()
        result = what()
        lasted.append(time.perf_counter() - begin)
    return median(lasted), result


def measure() -> dict[str, float]:
    """Median seconds of each way; stops where they do not agree."""
    session = synthetic.openscope()
    table = synthetic.stimulus_table(session)
    rows = oracles.notebook_table(session.series)
    at = session.times_s
    found = {"align": timed(lambda: stimulus.align(at, table), 9)[0]}
    _, equal = timed(lambda: stimulus.align(at, table, gap_s=np.inf), 1)
    ways = {"loops over lists": list, "loops over a pandas table": Column}
    for way, column in ways.items():
        found[way], (_, (frames, names, before)) = timed(lambda c=column: loops(at, rows, c), 1)
        told = slice(before, before + len(frames))
        same = equal.frame[told].tolist() == frames
        same &= [equal.names[i] for i in equal.index[told]] == names
        if not same:
            raise SystemExit(f"{way} and stimulus.align disagree")
    return found


if __name__ == "__main__":
    print(json.dumps(measure()))
