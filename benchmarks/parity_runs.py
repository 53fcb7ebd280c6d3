"""Fitting one library to every task and seed, in worker processes that may share a GPU.

Both libraries go through `run_one`: the same calls, the same data, the same judge. Finished runs
are appended to a file of JSON lines as they come, so that nothing is lost when time runs out.
"""

from __future__ import annotations

import base64
import json
import multiprocessing
import os
import platform
import time
import traceback
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import parity_judge as judge
from parity_data import RATS, Dataset, Task, load

Library = Literal["cebra", "grevy"]
Row = dict[str, Any]
N_BEHAVIOR_LATENTS = 3


def estimator(library: Library, seed: int, device: str, settings: dict[str, Any]) -> Any:
    """An unfitted model; CEBRA has no seed of its own, so the global ones are set for it."""
    if library == "grevy":
        from grevy import CEBRA

        return CEBRA(**settings, device=device, random_state=seed)
    import torch
    from cebra import CEBRA

    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    return CEBRA(**settings, device=device, verbose=False)


@cache
def _dataset(name: str, folder: Path) -> Dataset:
    return load(name, folder)


def run_one(library: Library, task: Task, seed: int, device: str, folder: Path) -> Row:
    """Fit on the training part, embed each part by itself, judge."""
    import torch

    torch.set_num_threads(1)
    data = _dataset(task.dataset, folder)
    train, test = judge.cut(len(data.x))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = estimator(library, seed, device, task.parameters)
        begin = time.perf_counter()
        if task.mode == "time":
            model.fit(data.x[train])
        else:
            model.fit(data.x[train], data.label[train])
        seconds = time.perf_counter() - begin
        parts = [
            judge.Part(p.start, p.stop, np.asarray(model.transform(data.x[p]), dtype=np.float64))
            for p in (train, test)
        ]
    return {
        "library": library,
        "task": task.name,
        "seed": seed,
        "settings": task.parameters,
        "data": data.digest,
        "scores": scores(task, data, *parts),
        "fit_s": round(seconds, 2),
        "made": made(library, device),
        "kept": kept(data, *parts),
    }


def scores(task: Task, data: Dataset, train: judge.Part, test: judge.Part) -> dict[str, float]:
    """What can be said of one run alone."""
    p = task.parameters
    how = {"distance": p["distance"], "temperature": p["temperature"]}
    label, z = data.label[test.used], test.inner
    found = {}
    if task.mode in ("time", "hybrid"):
        found["bits, time"] = judge.bits(z, None, lag=p["time_offsets"], **how)
    if task.mode != "time":
        some = z[:, :N_BEHAVIOR_LATENTS] if task.mode == "hybrid" else z
        lag, delta = p.get("time_offsets"), p.get("delta")
        found["bits, label"] = judge.bits(some, label, lag=lag, delta=delta, **how)
    value, k = judge.decode(train, test, data.target, data.measure)
    return {**found, f"decoding: {data.measure}": value, "k": k}


def kept(data: Dataset, train: judge.Part, test: judge.Part) -> dict[str, Any]:
    """What the comparison of several runs needs of one."""
    arrays = {"train": judge.thinned(train.inner), "test": judge.thinned(test.inner)}
    if data.bins is not None:
        arrays["train bins"] = judge.binned(train.inner, data.bins[train.used])
        arrays["test bins"] = judge.binned(test.inner, data.bins[test.used])
    return {name: pack(a) for name, a in arrays.items()}


def pack(a: NDArray[np.float64]) -> list[Any]:
    """An array as text: its shape, and float32 in base64."""
    return [list(a.shape), base64.b64encode(a.astype("<f4").tobytes()).decode()]


def unpack(packed: list[Any]) -> NDArray[np.float64]:
    shape, text = packed
    return np.frombuffer(base64.b64decode(text), "<f4").reshape(shape).astype(np.float64)


# --- many runs -----------------------------------------------------------------------------------
def read_rows(path: Path) -> list[Row]:
    """Finished runs; a last line that was cut off is passed over."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            print(f"{path}: a line that was cut off is not used", flush=True)
    return rows


def _done(rows: Iterable[Row]) -> set[tuple[str, int, str]]:
    return {(r["task"], r["seed"], json.dumps(r["settings"], sort_keys=True)) for r in rows}


def _key(task: Task, seed: int) -> tuple[str, int, str]:
    return task.name, seed, json.dumps(task.parameters, sort_keys=True)


def run_all(
    library: Library,
    todo: Sequence[Task],
    seeds: Sequence[int],
    *,
    device: str,
    folder: Path,
    path: Path,
    workers: int,
    limit_s: float,
) -> list[Row]:
    """Run what `path` does not hold yet and append to it; none is begun after `limit_s`.

    Returns all rows of these tasks and seeds.
    """
    wanted = {_key(task, seed) for task in todo for seed in seeds}
    have = _done(read_rows(path))
    left = [(t, s) for s in seeds for t in todo if _key(t, s) not in have]
    left.sort(key=lambda pair: -pair[0].cost)
    path.parent.mkdir(parents=True, exist_ok=True)
    _end_the_last_line(path)
    begin, n = time.perf_counter(), len(left)
    for row in _finished(library, left, device, folder, workers, limit_s):
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        n -= 1
        shown = {k: round(v, 3) for k, v in row["scores"].items()}
        at = time.perf_counter() - begin
        print(
            f"{at:6.0f} s  {n:3d} left  {library} {row['task']}, seed {row['seed']}: "
            f"fit {row['fit_s']} s, {shown}",
            flush=True,
        )
    rows = read_rows(path)
    return [r for r in rows if _done([r]) <= wanted and r["library"] == library]


def _end_the_last_line(path: Path) -> None:
    """A run that was killed while it wrote leaves half a line: what follows begins a new one."""
    if path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size:
        with path.open("a") as file:
            file.write("\n")


def _finished(
    library: Library,
    left: list[tuple[Task, int]],
    device: str,
    folder: Path,
    workers: int,
    limit_s: float,
) -> Iterator[Row]:
    """Rows in the order in which they are ready; a run that fails is told and passed over."""
    if not left or limit_s <= 0:
        return
    os.environ["OMP_NUM_THREADS"] = "1"  # seen by the workers, which start anew
    begin, at, running = time.perf_counter(), 0, {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(left)), mp_context=context) as pool:
        while True:
            while (
                at < len(left) and len(running) < workers and time.perf_counter() - begin < limit_s
            ):
                task, seed = left[at]
                future: Future[Row] = pool.submit(run_one, library, task, seed, device, folder)
                running[future] = (task, seed)
                at += 1
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task, seed = running.pop(future)
                error = future.exception()
                if error is None:
                    yield future.result()
                else:
                    print(f"{task.name}, seed {seed} failed:", flush=True)
                    traceback.print_exception(error)
    if at < len(left):
        print(f"{len(left) - at} runs were not begun within {limit_s:.0f} s", flush=True)


# --- what is kept of them ------------------------------------------------------------------------
def summary(rows: Sequence[Row], todo: Sequence[Task]) -> dict[str, Row]:
    """Scores of every task by seed, with how and on what they were computed."""
    tasks: dict[str, Row] = {}
    for task in todo:
        mine = sorted((r for r in rows if r["task"] == task.name), key=lambda r: r["seed"])
        if not mine:
            continue
        if len({r["seed"] for r in mine}) < len(mine):
            raise SystemExit(f"{task.name}: a seed was run twice; tidy the file of runs.")
        columns = {name: [r["scores"][name] for r in mine] for name in mine[0]["scores"]}
        if len(mine) >= 3:
            parts = [(unpack(r["kept"]["train"]), unpack(r["kept"]["test"])) for r in mine]
            columns["consistency between seeds: R2"] = judge.between_seeds(parts)
        tasks[task.name] = {
            "settings": task.parameters,
            "data": mine[0]["data"],
            "seeds": [r["seed"] for r in mine],
            "scores": {k: [round(v, 6) for v in vs] for k, vs in columns.items()},
            "fit_s": [r["fit_s"] for r in mine],
            "made": sorted({r["made"] for r in mine}),
        }
    for mode in ("time", "behavior", "hybrid"):
        found = animals(rows, mode)
        if found:
            tasks[f"four rats, {mode}"] = found
    return tasks


def animals(rows: Sequence[Row], mode: str) -> Row:
    """Consistency between the four rats, for every seed that all four were fitted with."""
    seeds, held_out, in_sample = [], [], []
    for seed in sorted({r["seed"] for r in rows}):
        mine = {r["task"]: r for r in rows if r["seed"] == seed}
        names = [f"{rat}, {mode}" for rat in RATS]
        if all(name in mine for name in names):
            packed = [mine[name]["kept"] for name in names]
            parts = [(unpack(k["train bins"]), unpack(k["test bins"])) for k in packed]
            seeds.append(seed)
            held_out.append(round(judge.between_animals(parts), 6))
            in_sample.append(round(judge.between_animals([(a, a) for a, _ in parts]), 6))
    columns = {"held out": held_out, "in sample": in_sample}
    scores = {f"consistency between animals, {k}: R2": v for k, v in columns.items()}
    return {"seeds": seeds, "scores": scores} if seeds else {}


def made(library: Library, device: str) -> str:
    """Versions, device and date, in words."""
    import torch

    name = torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine()
    packages = []
    for package in (library, "torch", "numpy", "scikit-learn"):
        try:
            packages.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            packages.append(f"{package} as it stands")
    return f"{', '.join(packages)}, {name}, {datetime.now(UTC).date().isoformat()}"
