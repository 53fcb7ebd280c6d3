"""CEBRA's embeddings smoothed over time by the very Gaussian of grevy's preset "robust".

    python benchmarks/smoothed_reference.py [--rerun-reference] [--seeds 0 1 2] [--only achilles]

Without it a smoothed grevy would stand beside an unsmoothed CEBRA, and what smoothing gives would
pass for what the encoder gives. Settings, data, cut and judge are those of parity.py; of every fit
both scores are kept in results/smoothed-cebra.json, with its seed and versions, of a rat also the
mean embedding at each place (not smoothed), for consistency pair by pair. A fit that is kept is not
made again, unless --rerun-reference says so; GREVY_DATA names the recordings.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import parity_judge as judge
from grevy.config import PRESETS
from grevy.model import smoothed
from parity_data import RATS, Task, load, tasks
from parity_runs import estimator, made, pack, unpack

Row = dict[str, Any]
KEPT = Path(__file__).parent / "results" / "smoothed-cebra.json"
WIDTH = float(PRESETS["robust"]["smoothing"])
ASKED = (
    *(f"{rat}, behavior" for rat in RATS),
    "m1, behavior", "worm 0, discrete", "worm 1, discrete", "worm 2, discrete",
    *(f"{rat}, time" for rat in RATS),
)  # fmt: skip


def read() -> dict[str, Row]:
    """What is kept, by task: settings and fits, each with its seed."""
    found: dict[str, Row] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    return found


def smooth(z: NDArray[Any]) -> NDArray[np.float64]:
    """One stretch of an embedding as the preset smooths it."""
    rows = np.ascontiguousarray(z, dtype=np.float32)
    return smoothed(rows, [len(rows)], WIDTH).astype(np.float64)


def one(task: Task, seed: int, folder: Path) -> Row:
    """One fit of CEBRA, decoded as it is and smoothed."""
    import torch

    torch.set_num_threads(1)
    data = load(task.dataset, folder)
    cut = judge.cut(len(data.x))
    model = estimator("cebra", seed, "cpu", task.parameters)
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        label = () if task.mode == "time" else (data.label[cut[0]],)
        model.fit(data.x[cut[0]], *label)
        seconds = time.perf_counter() - begin
        z = [np.asarray(model.transform(data.x[p]), dtype=np.float64) for p in cut]
    found: Row = {"seed": seed}
    for name, parts in (("plain", z), ("smoothed", [smooth(part) for part in z])):
        train, test = (judge.Part(p.start, p.stop, e) for p, e in zip(cut, parts, strict=True))
        found[name], found[f"k, {name}"] = judge.decode(train, test, data.target, data.measure)
    if data.bins is not None:
        whole = (judge.Part(p.start, p.stop, e) for p, e in zip(cut, z, strict=True))
        found["bins"] = [pack(judge.binned(p.inner, data.bins[p.used])) for p in whole]
    return {**found, "data": data.digest, "fit_s": round(seconds, 2), "made": made("cebra", "cpu")}


def left(
    kept: dict[str, Row], names: Sequence[str], seeds: Sequence[int]
) -> list[tuple[Task, int]]:
    """Fits that are not kept with the settings, data width and seed that are asked for."""
    known = {task.name: task for task in tasks()}
    have = {
        (name, fit["seed"])
        for name, row in kept.items()
        for fit in row["fits"]
        if row["settings"] == known[name].parameters and row["width"] == WIDTH
    }
    return [(known[n], s) for s in seeds for n in names if (n, s) not in have]


def keep(task: Task, fit: Row) -> None:
    """Written after every fit, in the order of ASKED, so that nothing is lost."""
    kept = read()
    row = kept.get(task.name, {})
    if (row.get("settings"), row.get("width")) != (task.parameters, WIDTH):
        row = {"settings": task.parameters, "width": WIDTH, "fits": []}
    others = [f for f in row["fits"] if f["seed"] != fit["seed"]]
    row["fits"] = sorted([*others, fit], key=lambda f: int(f["seed"]))
    kept[task.name] = row
    ordered = {name: kept[name] for name in ASKED if name in kept}
    KEPT.write_text(json.dumps(ordered, indent=1) + "\n")


def places() -> list[list[tuple[NDArray[np.float64], NDArray[np.float64]]]]:
    """Mean embeddings at each place (training, held out) of the four rats, a list a seed.

    Of seeds that all four have.
    """
    kept = read()
    rats = [kept.get(f"{rat}, behavior", {"fits": []})["fits"] for rat in RATS]
    each = [{f["seed"]: f["bins"] for f in fits if "bins" in f} for fits in rats]
    seeds = sorted(set.intersection(*(set(e) for e in each)))
    return [[(unpack(e[s][0]), unpack(e[s][1])) for e in each] for s in seeds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rerun-reference", action="store_true", help="make kept fits again, too")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", default=[""], help="parts of names of tasks")
    parser.add_argument("--limit-s", type=float, default=1e9, help="begin no fit after so long")
    options = parser.parse_args()
    if "GREVY_DATA" not in os.environ:
        raise SystemExit("the recordings lie in the folder that GREVY_DATA names; it is not set")
    names = [n for n in ASKED if any(part in n for part in options.only)]
    todo = left({} if options.rerun_reference else read(), names, options.seeds)
    begin = time.perf_counter()
    for i, (task, seed) in enumerate(todo):
        if time.perf_counter() - begin > options.limit_s:
            print(f"{len(todo) - i} fits were not begun", flush=True)
            break
        fit = one(task, seed, Path(os.environ["GREVY_DATA"]))
        keep(task, fit)
        print(
            f"{time.perf_counter() - begin:6.0f} s  {task.name}, seed {seed}: fit {fit['fit_s']} s"
            f", {fit['plain']:.3f}, smoothed {fit['smoothed']:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
