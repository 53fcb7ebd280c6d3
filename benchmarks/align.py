"""Stimulus alignment at full size: the notebook's loops against `stimulus.align`, in one run.

    python benchmarks/align.py [--skip-pandas]

241,186 table rows onto 127,177 samples. Prints one JSON object a line. The loops run twice: over
columns of a pandas table, as the notebook has them, and over plain lists, as fast as they get.
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


def main() -> None:
    session = synthetic.openscope()
    table = synthetic.stimulus_table(session)
    rows = oracles.notebook_table(session.series)
    at = session.times_s
    ours, track = timed(lambda: stimulus.align(at, table), 9)
    strict, equal = timed(lambda: stimulus.align(at, table, gap_s=np.inf), 9)
    ways: dict[str, Callable[[], Any]] = {"loops over lists": lambda: loops(at, rows, list)}
    if "--skip-pandas" not in sys.argv:
        ways["loops over a pandas table"] = lambda: loops(at, rows, Column)
    for way, run in ways.items():
        seconds, (n_intervals, (frames, names, before)) = timed(run, 1)
        told = slice(before, before + len(frames))
        same = equal.frame[told].tolist() == frames
        same &= [equal.names[i] for i in equal.index[told]] == names
        row = {
            "what": way,
            "rows": table.n_rows,
            "samples": len(at),
            "intervals": n_intervals,
            "aligned": len(frames),
            "seconds": round(seconds, 3),
            "ratio_to_align": round(seconds / ours, 1),
            "equal_without_gaps": same,
        }
        print(json.dumps(row))
    print(json.dumps({"what": "align", "seconds": round(ours, 4), "blocks": len(track.blocks)}))
    print(json.dumps({"what": "align, gap_s = inf", "seconds": round(strict, 4)}))


if __name__ == "__main__":
    main()
