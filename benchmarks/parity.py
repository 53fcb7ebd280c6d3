"""grevy against cebra 0.6.1: embeddings, losses, and what training leads to.

    python benchmarks/parity.py [--data DIR] [--device cpu] [--workers 2] [--resume]
    python benchmarks/parity.py --rerun-reference --reference-only --device cuda --workers 12

1. Same weights, same embeddings: all architectures.   } where cebra is installed
2. Same embeddings, same loss.                         }
3. Same data, settings and five seeds: held-out bits, decoding, consistency.

CEBRA's part of 3 is computed by the second command and kept in benchmarks/results; the first
command computes grevy's, compares, and writes docs/parity.md. DIR is the folder of recordings,
GREVY_DATA where it is not given; without one, only the synthetic sets are run. Finished runs are
kept in RUNS and not computed again with --resume. --quick: one seed, 30 steps, nothing but RUNS
is written.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import parity_exact
import parity_runs
import parity_table
from parity_data import Task, tasks
from parity_runs import Library

HOME = Path(__file__).parents[1]
FILES: dict[Library, str] = {"cebra": "parity-reference.json", "grevy": "parity-grevy.json"}


def main() -> None:
    options = _options()
    todo = _todo(options)
    libraries: list[Library] = ["cebra"] if options.rerun_reference else []
    libraries += [] if options.reference_only or options.table else ["grevy"]
    for library in libraries:
        _fit(library, todo, options)
    if "grevy" in libraries and _asked("exact", options.only):
        _compare_exactly(options)
    reference, ours = (_read(options.results / FILES[library]) for library in FILES)
    if options.reference_only or not (reference["tasks"] and ours["tasks"]):
        return
    text = parity_table.page(reference, ours)
    page = options.results / "parity.md" if options.quick else HOME / "docs" / "parity.md"
    page.write_text(text.rstrip("\n") + "\n")
    for v in parity_table.verdicts(reference, ours):
        print(f"{v.word:14s} p {v.p:.3f}  {v.task}: {v.measure}")
    print(page)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rerun-reference", action="store_true", help="fit CEBRA too")
    add("--reference-only", action="store_true", help="leave grevy out")
    add("--table", action="store_true", help="only write the page, from what is kept")
    add("--data", type=Path, default=os.environ.get("GREVY_DATA") or None)
    add("--quick", action="store_true")
    add("--device", default="cpu")
    add("--only", nargs="+", default=[], help="parts of names of tasks, or 'exact'")
    add("--seeds", type=int, nargs="+", default=None)
    add("--workers", type=int, default=1)
    add("--resume", action="store_true")
    add("--limit-s", type=float, default=1e9, help="begin no run after so many seconds")
    add("--runs", type=Path, default=HOME / "build" / "parity")
    add("--results", type=Path, default=None)
    options = parser.parse_args()
    kept = options.runs if options.quick else HOME / "benchmarks" / "results"
    options.results = options.results or kept
    options.seeds = options.seeds or ([0] if options.quick else [0, 1, 2, 3, 4])
    return options


def _asked(name: str, only: Sequence[str]) -> bool:
    return not only or any(part in name for part in only)


def _todo(options: argparse.Namespace) -> list[Task]:
    """The tasks that were asked for and whose data are there."""
    todo = [t for t in tasks() if _asked(t.name, options.only)]
    if options.data is None:
        print("no folder of recordings (--data, GREVY_DATA): synthetic sets only")
        todo = [t for t in todo if t.dataset in ("flow", "ring")]
    if options.quick:
        fewer = {"max_iterations": 30}
        todo = [replace(t, settings=tuple(sorted({**t.parameters, **fewer}.items()))) for t in todo]
    return todo


def _fit(library: Library, todo: Sequence[Task], options: argparse.Namespace) -> None:
    """Run what is missing, then write down the scores of all that was run."""
    path = options.runs / f"runs-{library}.jsonl"
    if not options.resume:
        path.unlink(missing_ok=True)
    rows = parity_runs.run_all(
        library,
        todo,
        options.seeds,
        device=options.device,
        folder=options.data or Path(),
        path=path,
        workers=options.workers,
        limit_s=options.limit_s,
    )
    kept = options.results / FILES[library]
    results = _read(kept)
    results["library"] = library
    results["tasks"] |= parity_runs.summary(rows, todo)
    _write(kept, results)


def _compare_exactly(options: argparse.Namespace) -> None:
    if not parity_exact.available():
        print("cebra is not installed (pip install -e '.[oracle]'): what was kept stands")
        return
    kept = options.results / FILES["grevy"]
    results = _read(kept)
    results["exact"] = {
        "weights": parity_exact.same_weights(),
        "loss": parity_exact.same_embeddings(),
        "made": ", ".join(parity_runs.made(name, "cpu") for name in ("grevy", "cebra")),
    }
    _write(kept, results)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {"tasks": {}}


def _write(path: Path, results: dict[str, Any]) -> None:
    """In the order of the tasks; a task's scores by seed on one line."""
    order = {t.name: i for i, t in enumerate(tasks())}
    named = sorted(results["tasks"].items(), key=lambda item: order.get(item[0], len(order)))
    results["tasks"] = dict(named)
    path.parent.mkdir(parents=True, exist_ok=True)
    short = re.sub(r"\[\s+([^][{}]*?)\s+\]", _on_one_line, json.dumps(results, indent=1))
    path.write_text(short + "\n")


def _on_one_line(found: re.Match[str]) -> str:
    return "[" + re.sub(r"\n\s+", " ", found[1]) + "]"


if __name__ == "__main__":
    main()
