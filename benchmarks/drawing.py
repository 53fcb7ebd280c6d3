"""What block drawing, shared negatives and narrow numbers do to quality: the evidence for defaults.

    python benchmarks/drawing.py [--device cuda --jobs 8] [--seeds 0 1 2] [--only park] [--table]

Every recording of the comparison with CEBRA (`parity_data`) and some more, each variant of drawing
and precision, five seeds: held-out bits, judged on independent draws, and decoding. Rows are
appended to a file in benchmarks/results as they come and are not computed again; the table is
printed at the end: the mean over seeds, and the paired difference to independent draws in units of
its standard error.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import parity_judge as judge
import parity_runs
from parity_data import Dataset, Task, load, tasks

HOME = Path(__file__).parents[1]
ROWS = HOME / "benchmarks" / "results" / "drawing-h100-2026-11-25.jsonl"
VARIANTS: dict[str, dict[str, Any]] = {
    "independent, bfloat16": {"precision": "bfloat16"},
    "independent, float32": {"precision": "float32"},
    # num_negatives draws negatives for themselves; without it they are the other references
    "independent, own negatives, float32": {"num_negatives": 512, "precision": "float32"},
    "independent, own negatives, bfloat16": {"num_negatives": 512, "precision": "bfloat16"},
    "blocks of 4, bfloat16": {"sampling": 4, "precision": "bfloat16"},
    "blocks of 8, bfloat16": {"sampling": 8, "precision": "bfloat16"},
    "blocks of 32, bfloat16": {"sampling": 32, "precision": "bfloat16"},
}
FIRST = next(iter(VARIANTS))


def more_tasks() -> list[Task]:
    """Recordings that the comparison with CEBRA does not use."""
    time = dict(next(t for t in tasks() if t.mode == "time").settings)
    short = {"model_architecture": "offset5-model", "max_iterations": 600}
    some = {
        "park": {"time_offsets": 5, "max_iterations": 1000, "temperature": 0.3},
        "head direction": {"time_offsets": 5, "max_iterations": 1000},
        "scholz": {"time_offsets": 5, "max_iterations": 600},
        "movie one": {**short, "time_offsets": 1, "batch_size": 256},
    }
    return [
        Task(name, "time", tuple(sorted({**time, **changed}.items())))
        for name, changed in some.items()
    ]


def dataset(name: str, folder: Path) -> Dataset:
    """One of `more_tasks` by name, or of `parity_data`."""
    if name == "park":
        return _park(folder / "park-openscope" / "park_openscope_layout.nwb")
    if name == "head direction":
        return _head_direction(folder / "nwb" / "A2929-200711_neurosuite.nwb")
    if name == "scholz":
        return _scholz(folder / "nwb" / "scholz-celegans.nwb")
    if name == "movie one":
        return _movie_one(folder / "allen-npx-movie" / "prep_data_791319847.mat")
    return load(name, folder)


def _park(path: Path) -> Dataset:
    """V1, seven movies of 32 samples in one order, 32 trials; decoded is which 2 s of the trial."""
    import h5py

    with h5py.File(path) as file:
        traces = next(
            v for v in _datasets(file) if v.ndim == 2 and 8704 in v.shape and v.dtype.kind == "f"
        )
        x = np.asarray(traces[:], np.float32)
    x = x if len(x) == 8704 else x.T
    movie = np.arange(len(x)) % (8704 // 32) // 32
    return Dataset("park", x, movie, movie, "accuracy")


def _datasets(group: Any) -> list[Any]:
    found = []
    for value in group.values():
        found += _datasets(value) if hasattr(value, "values") else [value]
    return found


def _head_direction(path: Path) -> Dataset:
    """Seven thalamic units while awake, counts in 0.1 s; decoded is where the head points."""
    import grevy

    r = grevy.read(path, units="location == adn", bin_s=0.1, labels=["ry"])
    label = r.labels["ry"]
    known = np.flatnonzero(label.mask)
    x = r.activity[known[0] : known[-1] + 1].astype(np.float32)
    angle = label.values[known[0] : known[-1] + 1]
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return Dataset("head direction", x, circle, np.nan_to_num(circle), "error, deg")


def _scholz(path: Path) -> Dataset:
    """A worm that moves, 62 neurons at 6 Hz; decoded is where it is."""
    import h5py

    import grevy

    r = grevy.read(path)
    with h5py.File(path) as file:
        place = next(v for v in _datasets(file) if v.ndim == 2 and 2 in v.shape and len(v) > 1000)
        y = np.asarray(place[:], float)
    n = min(len(y), len(r.activity))
    return Dataset("scholz", r.activity[:n].astype(np.float32), y[:n], y[:n], "R2 of position")


def _movie_one(path: Path) -> Dataset:
    """555 units, a movie of 30 one-second bins, 20 times; decoded is the third of the movie."""
    import scipy.io

    act = scipy.io.loadmat(path)["act"]  # (units, repeats, 30)
    x = act.transpose(1, 2, 0).reshape(-1, len(act)).astype(np.float32)
    part = np.arange(len(x)) % 30 // 10
    return Dataset("movie one", x, part, part, "accuracy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("GREVY_DATA") or None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--only", nargs="+", default=[""])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--variants", nargs="+", default=[""], help="parts of their names")
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--table", action="store_true", help="only print what is kept")
    options = parser.parse_args()
    if not options.table:
        _run(options)
    print(table(parity_runs.read_rows(options.rows)))


def _run(options: argparse.Namespace) -> None:
    if options.data is None:
        raise SystemExit("give the folder of recordings: --data, or GREVY_DATA")
    have = {(r["task"], r["variant"], r["seed"]) for r in parity_runs.read_rows(options.rows)}
    jobs = [
        (task, variant, seed)
        for seed in options.seeds
        for task in [*more_tasks(), *tasks()]
        for variant in VARIANTS
        if any(o in task.name for o in options.only)
        and any(o in variant for o in options.variants)
        and (task.name, variant, seed) not in have
    ]
    options.rows.parent.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"  # seen by the workers, which start anew
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=spawn) as pool:
        for row in pool.map(partial(_one, device=options.device, folder=options.data), jobs):
            with options.rows.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(row["task"], row["variant"], row["seed"], row["fit_s"], row["scores"], flush=True)


def _one(job: tuple[Task, str, int], device: str, folder: Path) -> dict[str, Any]:
    """Fit and judge one variant of one task with one seed."""
    task, variant, seed = job
    parity_runs.load = dataset  # more recordings than its own
    settings = {**task.parameters, **VARIANTS[variant]}
    if "num_negatives" in settings:
        settings["num_negatives"] = settings["batch_size"]
    changed = Task(task.dataset, task.mode, tuple(sorted(settings.items())))
    row = parity_runs.run_one("grevy", changed, seed, device, folder)
    del row["kept"]
    return row | {"task": task.name, "variant": variant}


def table(rows: list[dict[str, Any]]) -> str:
    """Means over seeds, and t of the paired differences to the first variant; + is better."""
    found: dict[tuple[str, str], dict[str, dict[int, float]]] = defaultdict(dict)
    for row in rows:
        for measure, value in row["scores"].items():
            if measure != "k":
                found[row["task"], measure].setdefault(row["variant"], {})[row["seed"]] = value
    lines = [
        "| task | measure | " + " | ".join(VARIANTS) + " |",
        "|---" * (2 + len(VARIANTS)) + "|",
    ]
    for (task, measure), variants in found.items():
        sign = -1 if judge.better_small(measure) else 1
        first = variants.get(FIRST, {})
        cells = []
        for variant in VARIANTS:
            own = variants.get(variant, {})
            text = f"{np.mean(list(own.values())):.3f}" if own else ""
            both = sorted(set(own) & set(first))
            if variant != FIRST and len(both) > 2:
                gap = sign * np.array([own[s] - first[s] for s in both])
                error = gap.std(ddof=1) / np.sqrt(len(both)) or np.inf
                text += f" ({gap.mean() / error:+.1f})"
            cells.append(text)
        lines.append(f"| {task} | {measure} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
