"""What could beat the plain settings at equal cost: candidates for the preset "robust".

    GREVY_DATA=... python benchmarks/candidates.py [--device cuda] [--jobs 2] [--json FILE]

All real recordings of parity.py and two modes. Round "choose" sees the first 80 % of a recording
only: it trains on the first 80 % of that and scores the rest. Round "confirm" trains on the whole
first 80 %, with other seeds, and scores the last 20 %: what is said of a candidate that was picked
in the first round is not optimistic in the second. (Those below "joined" were thought of when both
rounds of the others had been seen.) Every candidate is decoded as it is and smoothed as the preset
does (the same fits). The gain of a candidate is relative to the plain settings of the
same seed and task, positive where it is better: of an error its relative decrease, of an accuracy
or R2 the decrease of what is missing to 1.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from numpy.typing import NDArray

import parity_judge as judge
from grevy.config import PRESETS, Adam, TrainConfig
from grevy.encoders import EncoderSpec
from grevy.masks import Mask
from grevy.model import Run, SessionEncoder, embed
from grevy.pairs import ClassPairs, DeltaPairs, Pairs, TimePairs
from grevy.recording import Label, Recording, make_recording
from grevy.training import resume, train
from parity_data import RATS, Dataset, Task, load, tasks
from science_recordings import folder, mean_ci

ROUNDS = {"choose": (40, 41, 42), "confirm": (50, 51, 52)}
"""Seeds of each."""
TASKS = [t for t in tasks() if t.dataset not in ("flow", "ring") and t.mode != "hybrid"]
TAIL = 0.2
"""Share of the steps that averaging or a smaller learning rate takes."""
SNAPSHOTS = 8
LOOKS = {"plain": 0.0, "smoothed": float(PRESETS["robust"]["smoothing"])}
"""How embeddings are decoded: by the width of the Gaussian that smooths them."""


@dataclass(frozen=True)
class Candidate:
    """What differs from the plain settings.

    `settings` are fields of `TrainConfig`; `lag` is that of label pairs, `offsets` of time pairs;
    `noise` is added to the label that guides (a share of its range, or of samples whose class is
    drawn anew); `tail` is what happens in the last steps; `members` are fits of other seeds whose
    latents stand side by side.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    architecture: str = ""
    lag: int = 10
    offsets: tuple[int, ...] = (10,)
    noise: float = 0.0
    tail: str = ""
    members: int = 1


CANDIDATES = {
    "plain": Candidate(),
    "channels dropped, 10 %": Candidate({"masks": (Mask("neurons", (0.1,)),)}),
    "channels dropped, 30 %": Candidate({"masks": (Mask("neurons", (0.3,)),)}),
    "samples dropped, 20 %": Candidate({"masks": (Mask("timesteps", (0.2,)),)}),
    "label noise, 2 %": Candidate(noise=0.02),
    "label noise, 5 %": Candidate(noise=0.05),
    "offset or lag 5": Candidate(lag=5, offsets=(5,)),
    "offset or lag 20": Candidate(lag=20, offsets=(20,)),
    "offsets 5, 10, 20": Candidate(offsets=(5, 10, 20)),
    "learned temperature": Candidate({"learn_temperature": True}),
    "2,048 negatives": Candidate({"n_negatives": 2048}),
    "weight decay 1e-3": Candidate({"adam": Adam(weight_decay=1e-3)}),
    "learning rate 1e-3": Candidate({"learning_rate": 1e-3}),
    "learning rate / 10 at the end": Candidate(tail="decay"),
    "weights averaged at the end": Candidate(tail="average"),
    "two seeds side by side": Candidate(members=2),
    "window of 20 samples": Candidate(architecture="offset20-model"),
    "window of 36 samples": Candidate(architecture="offset36-model"),
    "temperature 0.7": Candidate({"temperature": 0.7}),
    "temperature 0.5": Candidate({"temperature": 0.5}),
    "temperature 0.35": Candidate({"temperature": 0.35}),
    "temperature 0.25": Candidate({"temperature": 0.25}),
    "temperature 0.15": Candidate({"temperature": 0.15}),
    "9,000 steps": Candidate({"n_steps": 9000}),
    "9,000 steps, learned temperature": Candidate({"n_steps": 9000, "learn_temperature": True}),
    "9,000 steps, temperature 0.5": Candidate({"n_steps": 9000, "temperature": 0.5}),
    # joined
    "temperature 0.5, two seeds": Candidate({"temperature": 0.5}, members=2),
    "temperature 0.35, two seeds": Candidate({"temperature": 0.35}, members=2),
    "temperature 0.5, learning rate 1e-3": Candidate({"temperature": 0.5, "learning_rate": 1e-3}),
    "temperature 0.5, channels dropped, 10 %": Candidate(
        {"temperature": 0.5, "masks": (Mask("neurons", (0.1,)),)}
    ),
    "temperature 0.5, window of 20 samples": Candidate(
        {"temperature": 0.5}, architecture="offset20-model"
    ),
}


def recording_of(data: Dataset, until: int, seeds: Sequence[int]) -> Recording:
    """The samples that a round trains on, with their label and noisy ones for every seed."""
    x, label = data.x[:until], data.label[:until]
    labels = {"label": _label(label)}
    for noise in sorted({c.noise for c in CANDIDATES.values()} - {0.0}):
        for seed in seeds:
            labels[f"label {noise} {seed}"] = _label(_noisy(label, noise, seed))
    return make_recording(x, rate_hz=1.0, labels=labels)


def _label(values: NDArray[Any]) -> Label:
    return Label(values, "discrete" if values.dtype.kind in "iu" else "continuous")


def _noisy(label: NDArray[Any], noise: float, seed: int) -> NDArray[Any]:
    rng = np.random.default_rng([seed, 7])
    if label.dtype.kind in "iu":
        anew = rng.random(len(label)) < noise
        return np.where(anew, rng.choice(np.unique(label), len(label)), label)
    moving = [i for i in range(label.shape[1]) if len(np.unique(label[:, i])) > 2]
    noisy = label.copy()
    for i in moving:  # the direction of a run, which is 0 or 1, is left as it is
        noisy[:, i] += noise * np.ptp(label[:, i]) * rng.standard_normal(len(label))
    return noisy


def config_of(task: Task, candidate: Candidate, seed: int) -> TrainConfig:
    """The task's settings as a configuration, with what the candidate changes."""
    p = task.parameters
    name = f"label {candidate.noise} {seed}" if candidate.noise else "label"
    pairs: Pairs
    match task.mode:
        case "time":
            pairs = TimePairs(candidate.offsets)
        case "discrete":
            pairs = ClassPairs(name)
        case _:
            pairs = DeltaPairs((name,), candidate.lag)
    encoder = EncoderSpec(
        candidate.architecture or p["model_architecture"],
        p["num_hidden_units"],
        p["output_dimension"],
    )
    plain = {
        "n_steps": p["max_iterations"], "learning_rate": p["learning_rate"],
        "batch_size": p["batch_size"], "temperature": p["temperature"], "seed": seed,
    }  # fmt: skip
    if candidate.tail:
        plain["n_steps"] -= int(TAIL * plain["n_steps"])
    return TrainConfig(pairs, encoder, **{**plain, **candidate.settings})


def finished(run: Run, recording: Recording, task: Task, tail: str, device: str) -> Run:
    """The run after its last steps, where those differ from the others."""
    left = int(TAIL * task.parameters["max_iterations"])
    if tail == "decay":
        slow = replace(run.config, learning_rate=run.config.learning_rate / 10)
        return resume(run, [recording], left, config=slow, device=device)
    if tail == "average":
        seen = [run]
        for _ in range(SNAPSHOTS):
            seen.append(resume(seen[-1], [recording], left // SNAPSHOTS, device=device))
        weights = zip(*(r.sessions[0].weights for r in seen), strict=True)
        mean = tuple(torch.stack(w).mean(dim=0) for w in weights)
        first = seen[-1].sessions[0]
        return replace(seen[-1], sessions=(SessionEncoder(mean, first.mean, first.sd),))
    return run


@dataclass(frozen=True, eq=False)
class Fitted:
    """Embeddings of both parts of one candidate, task, round and seed, by look."""

    task: Task
    candidate: str
    stage: str
    seed: int
    parts: Mapping[str, tuple[judge.Part, judge.Part]]


def fitted(tasks_of_one: Sequence[Task], stage: str, device: str) -> list[Fitted]:
    """Every candidate and seed for the tasks of one recording, trained together."""
    data, seeds = load(tasks_of_one[0].dataset, folder()), ROUNDS[stage]
    train_part, test_part = cut_of(data, stage)
    recording = recording_of(data, train_part.stop, seeds)
    # A second member of an ensemble is a plain run of another seed.
    asked = [
        (task, name, seed, member)
        for task in tasks_of_one
        for name, c in CANDIDATES.items()
        for seed in seeds
        for member in range(c.members)
    ]
    configs = [config_of(t, CANDIDATES[n], s + 1000 * member) for t, n, s, member in asked]
    runs = train([recording], configs, device=device)
    looked = [make_recording(data.x[p], rate_hz=1.0) for p in (train_part, test_part)]
    found: dict[tuple[str, str, int], list[Run]] = {}
    for (task, name, seed, _), run in zip(asked, runs, strict=True):
        done = finished(run, recording, task, CANDIDATES[name].tail, device)
        found.setdefault((task.name, name, seed), []).append(done)
    by_name = {t.name: t for t in tasks_of_one}
    return [
        Fitted(by_name[t], name, stage, seed, {
            look: _parts(members, (train_part, test_part), looked, width, device)
            for look, width in LOOKS.items()
        })
        for (t, name, seed), members in found.items()
    ]  # fmt: skip


def _parts(
    members: Sequence[Run],
    cut: tuple[slice, slice],
    looked: Sequence[Recording],
    width: float,
    device: str,
) -> tuple[judge.Part, judge.Part]:
    def latents(recording: Recording) -> NDArray[np.float64]:
        runs = [replace(run, config=replace(run.config, smoothing=width)) for run in members]
        z = [embed(run, recording, device=device).values for run in runs]
        return np.concatenate(z, axis=1).astype(np.float64)

    first, last = (
        judge.Part(p.start, p.stop, latents(r)) for p, r in zip(cut, looked, strict=True)
    )
    return first, last


def cut_of(data: Dataset, stage: str) -> tuple[slice, slice]:
    """Samples that are trained on, and those that are scored."""
    whole = judge.cut(len(data.x))
    return judge.cut(whole[0].stop) if stage == "choose" else whole


def scored(f: Fitted, data: Dataset) -> dict[str, Any]:
    """Decoding of one fit, smoothed and not; for a rat also its mean embedding in every place."""
    values, places = {}, {}
    for look, (first, last) in f.parts.items():
        values[look] = judge.decode(first, last, data.target, data.measure)[0]
        if data.bins is not None:
            places[look] = tuple(judge.binned(p.inner, data.bins[p.used]) for p in (first, last))
    return {
        "task": f.task.name, "candidate": f.candidate, "round": f.stage, "seed": f.seed,
        "measure": data.measure, "scores": values, "places": places,
    }  # fmt: skip


def fitted_and_scored(name: str, stage: str, device: str) -> list[dict[str, Any]]:
    """All candidates and seeds of one recording in one round."""
    torch.set_num_threads(1)
    begin, data = time.perf_counter(), load(name, folder())
    mine = [t for t in TASKS if t.dataset == name]
    rows = [scored(f, data) for f in fitted(mine, stage, device)]
    print(f"{stage}, {name}: {time.perf_counter() - begin:.0f} s", flush=True)
    return rows


def consistencies(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Between the four rats on held-out laps, label-guided."""
    places = {
        (r["candidate"], r["round"], r["seed"], r["task"]): r["places"] for r in rows if r["places"]
    }
    found = []
    for stage, seeds in ROUNDS.items():
        for name in CANDIDATES:
            for look in LOOKS:
                each = [
                    judge.between_animals(
                        [places[name, stage, seed, f"{rat}, behavior"][look] for rat in RATS]
                    )
                    for seed in seeds
                ]
                found.append({"round": stage, "look": look, "candidate": name, "R2": each})
    return found


def gain(measure: str, plain: float, other: float) -> float:
    """How much better, relative to what plain leaves to be desired."""
    if judge.better_small(measure):
        return (plain - other) / plain
    return (other - plain) / (1 - plain)


def changes(candidate: Candidate, task: Task) -> bool:
    """Whether a candidate differs from the plain settings in a task: offsets are those of time."""
    own, plain = (config_of(task, c, 0) for c in (candidate, CANDIDATES["plain"]))
    return own != plain or candidate.members > 1


def gains(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of every candidate, round and look: the mean gain over the tasks that it changes."""
    by_name = {t.name: t for t in TASKS}
    base = {(r["task"], r["round"], r["seed"]): r for r in rows if r["candidate"] == "plain"}
    found = []
    for stage in ROUNDS:
        for look in LOOKS:
            for name in [n for n in CANDIDATES if n != "plain"]:
                by_task: dict[str, list[float]] = {}
                for r in rows:
                    if (r["candidate"], r["round"]) == (name, stage) and changes(
                        CANDIDATES[name], by_name[r["task"]]
                    ):
                        plain = base[r["task"], stage, r["seed"]]["scores"][look]
                        value = gain(r["measure"], plain, r["scores"][look])
                        by_task.setdefault(r["task"], []).append(value)
                means = {task: float(np.mean(v)) for task, v in by_task.items()}
                mean, ci = mean_ci(list(means.values()))
                found.append({
                    "round": stage, "look": look, "candidate": name, "gain": mean, "ci": ci,
                    "tasks_better": sum(v > 0 for v in means.values()), "tasks": means,
                })  # fmt: skip
    return found


def main() -> None:
    """Fit, score, print the table, keep everything."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="*", help="recordings; all by default")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    names = args.only or list(dict.fromkeys(t.dataset for t in TASKS))
    found = Parallel(args.jobs, return_as="generator_unordered")(
        delayed(fitted_and_scored)(name, stage, args.device) for stage in ROUNDS for name in names
    )
    rows: list[dict[str, Any]] = []
    for some in found:  # kept as they come, for whoever runs out of time
        rows += some
        if args.json:
            with args.json.with_suffix(".jsonl").open("a") as file:
                for row in some:
                    kept = {k: v for k, v in row.items() if k != "places"}
                    file.write(json.dumps(kept) + "\n")
    agreements = consistencies(rows) if set(RATS) <= set(names) else []
    for row in rows:
        del row["places"]
    table = gains(rows)
    for row in table:
        print(
            f"{row['round']:8} {row['look']:7} {row['candidate']:30} {100 * row['gain']:6.1f} % "
            f"({100 * row['ci'][0]:.1f} to {100 * row['ci'][1]:.1f}), better in "
            f"{row['tasks_better']} of {len(row['tasks'])}"
        )
    for row in agreements:
        name = f"{row['round']:8} {row['look']:7} {row['candidate']:30}"
        print(f"{name} consistency of rats {np.mean(row['R2']):.3f}")
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    if args.json:
        kept = {
            "date": f"{datetime.now(UTC):%Y-%m-%d}", "device": where, "rounds": ROUNDS,
            "gains": table, "consistency": agreements, "runs": rows,
        }  # fmt: skip
        args.json.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
