"""Whether narrow numbers cost anything: bfloat16 and float32 on the recordings of the comparison.

    GREVY_DATA=... python benchmarks/precision.py --device cuda [--json FILE]

The tasks of docs/parity.md with one kind of pairs, the same seeds with both precisions, fitted on
the training part and judged on the test part as there. A row says by how much bfloat16 differs,
pair by pair, and how far apart the seeds of float32 lie.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from parity_data import Task, tasks
from parity_runs import run_one

SEEDS = range(5)


def scores(job: tuple[Task, str, int], device: str, folder: Path) -> dict[str, float]:
    task, precision, seed = job
    task = replace(task, settings=(*task.settings, ("precision", precision)))
    found = run_one("grevy", task, seed, device, folder)["scores"]
    return {name: value for name, value in found.items() if name != "k"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    folder = Path(os.environ["GREVY_DATA"])
    todo = [t for t in tasks() if t.mode != "hybrid"]
    jobs = [(t, p, s) for t in todo for p in ("float32", "bfloat16") for s in SEEDS]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=spawn) as pool:
        found = dict(
            zip(
                [(t.name, p, s) for t, p, s in jobs],
                pool.map(partial(scores, device=options.device, folder=folder), jobs),
                strict=True,
            )
        )
    rows = []
    for task in todo:
        for name in found[task.name, "float32", 0]:
            wide, narrow = (
                np.array([found[task.name, p, s][name] for s in SEEDS])
                for p in ("float32", "bfloat16")
            )
            row: dict[str, Any] = {
                "task": task.name, "score": name, "float32": float(wide.mean()),
                "bfloat16": float(narrow.mean()), "difference": float((narrow - wide).mean()),
                "seeds_sd": float(wide.std(ddof=1)),
                "device": options.device, "date": datetime.now(UTC).date().isoformat(),
            }  # fmt: skip
            rows.append(row)
            print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{v}"
                            for k, v in list(row.items())[:6]), flush=True)  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
