"""How fast: grevy and cebra 0.6.1 in one run, in turn, on the work of docs/performance.md.

    python benchmarks/speed.py --device cpu|cuda [--only fit_cpu ...] [--json FILE]

Needs the `oracle` extra. CEBRA's rate is measured in three stretches per width between our runs
and extrapolated over its steps; ours is never extrapolated. A timed run of ours is judged too: its
held-out bits must lie within the spread of CEBRA's own fits on the same samples (speed_work.py).
At a million samples with labels a stretch is 4 steps, of some seconds each.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

import align as alignment
from grevy.config import TrainConfig
from grevy.decode import neighbours
from grevy.encoders import EncoderSpec, from_cebra
from grevy.model import Run, SessionEncoder, embed
from grevy.recording import Recording, make_recording
from grevy.store import load
from grevy.training import train
from speed_work import WORKS, Work, cebra, config, grid, judged, reference

Row = dict[str, Any]
LEAST_BITS = 0.5
"""What CEBRA must reach in 300 steps of the reference work, or the work means nothing."""


class Cebra:
    """CEBRA on some work; `rates` are steps a second of each stretch."""

    def __init__(self, work: Work, device: str, *, stretch: int) -> None:
        torch.manual_seed(0)
        self.model = cebra(work, device)
        x = work.recording.activity[: work.cut]
        self.data = (x,) if work.y is None else (x, work.y)
        self.stretch, self.rates = stretch, list[float]()
        self.fit(min(10, stretch))

    def fit(self, steps: int) -> float:
        """Seconds of a fit of so many steps, data already in memory."""
        self.model.set_params(max_iterations=steps)
        begin = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.model.fit(*self.data)
        return time.perf_counter() - begin

    def run(self) -> None:
        """One stretch more; what a fit takes before its first step is measured and left out."""
        start = self.fit(1)
        more = self.fit(1 + self.stretch)
        self.rates.append(self.stretch / (more - start))

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)


def in_turn(ours: Callable[[], Any], theirs: Sequence[Cebra], rounds: int = 3) -> float:
    """Our median seconds, with a stretch of CEBRA before each of our runs."""
    lasted = []
    ours()  # warm
    for _ in range(rounds):
        for model in theirs:
            model.run()
        begin = time.perf_counter()
        ours()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        lasted.append(time.perf_counter() - begin)
    return statistics.median(lasted)


def steady(
    configs: list[TrainConfig], recording: Recording, device: str
) -> tuple[float, list[Run]]:
    """Steps a second between the first report of progress and the last, all runs together."""
    seen: list[tuple[float, int]] = []
    runs = train(
        [recording],
        configs,
        device=device,
        on_step=lambda p: seen.append((time.perf_counter(), p.done)),
    )
    return (seen[-1][1] - seen[0][1]) / (seen[-1][0] - seen[0][0]), runs


def _longer(like: TrainConfig, steps: int) -> TrainConfig:
    return replace(like, n_steps=steps)


# --- CPU rows ------------------------------------------------------------------------------------
def fit_cpu() -> Row:
    """The reference fit, 300 steps, arrays in memory."""
    work = WORKS["fit_cpu"][1]()
    theirs = Cebra(work, "cpu", stretch=50)
    runs: list[Run] = []
    ours = in_turn(
        lambda: runs.extend(train([work.recording], [work.config], device="cpu")), [theirs]
    )
    found = judged("fit_cpu", runs[-1])
    if found["bits_cebra"] and np.mean(found["bits_cebra"]) < LEAST_BITS:
        raise SystemExit(
            f"fit_cpu is void: CEBRA reaches {found['bits_cebra']}, {LEAST_BITS} asked"
        )
    return _row("s", ours, 300 / theirs.rate, rates=theirs.rates, **found)


def grid_cpu() -> Row:
    """12 models of the reference grid, 100 steps each."""
    names = [f"grid_cpu, {units} units" for units in (32, 64, 128)]
    theirs = [Cebra(WORKS[name][1](), "cpu", stretch=50) for name in names]
    recording, runs = reference()[0], list[Run]()
    ours = in_turn(
        lambda: runs.extend(train([recording], grid(100, small=True), device="cpu")), theirs
    )
    rates = [t.rate for t in theirs]
    return _row(
        "s", ours, sum(4 * 100 / rate for rate in rates), rates=rates,
        **_all_judged(names, runs[-12:]),
    )  # fmt: skip


def _all_judged(names: Sequence[str], runs: Sequence[Run]) -> Row:
    """Of each named work the run of ours that did it, judged."""
    found: Row = {}
    for name in names:
        like = WORKS[name][1]().config
        same = [
            r for r in runs
            if (r.config.encoder, r.config.learning_rate, r.config.pairs, r.config.n_steps)
            == (like.encoder, like.learning_rate, like.pairs, like.n_steps)
        ]  # fmt: skip
        for key, value in judged(name, same[0]).items():
            found.setdefault(key, {})[name.split(", ")[1]] = value
    lost = "LOST" in found.get("quality", {}).values()
    return found | ({"quality": "LOST" if lost else "held"} if "quality" in found else {})


def behavior_cpu(name: str, stretch: int) -> Row:
    """A label of three columns, a step."""
    work = WORKS[name][1]()
    theirs = Cebra(work, "cpu", stretch=stretch)
    rates = []
    for _ in range(3):
        theirs.run()
        rate, runs = steady([_longer(work.config, 300)], work.recording, "cpu")
        rates.append(rate)
    if work.config.n_steps != 300:
        runs = train([work.recording], [work.config], device="cpu")
    ours = statistics.median(rates)
    return _row("s a step", 1 / ours, 1 / theirs.rate, rates=theirs.rates, **judged(name, runs[0]))


def transform_cpu() -> Row:
    """Embedding 126,758 samples of 41 channels, 128 hidden units; the same weights in both."""
    x = np.random.default_rng(0).standard_normal((126_758, 41)).astype(np.float32)
    recording = make_recording(x, rate_hz=30.0)
    theirs = Cebra(Work(recording, 2000, config(1)), "cpu", stretch=1)
    spec = EncoderSpec("offset10-model", 128, 16)
    weights = from_cebra(spec, theirs.model.model_.state_dict())
    session = SessionEncoder(tuple(weights), torch.zeros(41), torch.ones(41))
    run = Run(
        TrainConfig(encoder=spec), (session,), np.zeros((1, 1, 2), np.float32),
        np.ones(1, np.float32), 1.0, None, 512, "", "",
    )  # fmt: skip
    ours, other, gap = [], [], 0.0
    for _ in range(8):
        begin = time.perf_counter()
        z = embed(run, recording, device="cpu").values
        middle = time.perf_counter()
        reference_z = theirs.model.transform(x)
        ours.append(middle - begin)
        other.append(time.perf_counter() - middle)
        gap = float(np.abs(z - reference_z).max())
    if gap > 1e-5:
        raise SystemExit(f"transform_cpu: embeddings differ by {gap}")
    return _row("s", statistics.median(ours[1:]), statistics.median(other[1:]), difference=gap)


def knn_cpu() -> Row:
    """20,000 queries against 20,000 points on a sphere in 16 dimensions, k = 25, cosine."""
    from cebra import KNNDecoder as Theirs

    from grevy import KNNDecoder as Ours

    rng = np.random.default_rng(0)
    x, q = (rng.standard_normal((20_000, 16)).astype(np.float32) for _ in range(2))
    y = np.arange(20_000) // 500
    ours, theirs, core, same = [], [], [], 0.0
    for _ in range(4):
        begin = time.perf_counter()
        a = Ours(n_neighbors=25, metric="cosine").fit(x, y).predict(q)
        middle = time.perf_counter()
        b = Theirs(n_neighbors=25, metric="cosine").fit(x, y).predict(q)
        ours.append(middle - begin)
        theirs.append(time.perf_counter() - middle)
        begin = time.perf_counter()
        neighbours(x, q, 25, device="cpu")
        core.append(time.perf_counter() - begin)
        same = float(np.mean(a == b))
    return _row(
        "s", statistics.median(ours[1:]), statistics.median(theirs[1:]),
        equal_predictions=same, neighbours_alone_s=statistics.median(core[1:]),
    )  # fmt: skip


def align() -> Row:
    """The notebook's loops over a pandas table against `stimulus.align`, arrays in memory."""
    found = alignment.measure()
    return _row("s", found["align"], found["loops over a pandas table"], **found)


# --- GPU rows ------------------------------------------------------------------------------------
_WHOLE_OURS = {
    "CEBRA": """
import numpy as np, grevy
x = np.load({x!r})
grevy.CEBRA(
    model_architecture="offset10-model", num_hidden_units=128, output_dimension=16, batch_size=512,
    learning_rate=1e-2, conditional="time", time_offsets=10, max_iterations={steps}, device="cuda",
    random_state=0,
).fit(x).save({out!r})
""",
    "train": """
import numpy as np, grevy
recording = grevy.make_recording(np.load({x!r}), rate_hz=30.0)
config = grevy.TrainConfig(
    grevy.TimePairs((10,)), grevy.EncoderSpec("offset10-model", 128, 16), learning_rate=1e-2,
    n_steps={steps},
)
grevy.save(grevy.train([recording], [config], device="cuda")[0], {out!r})
""",
}
"""The same fit by the estimator and without it: the estimator brings scikit-learn along."""


def fit_cuda() -> Row:
    """The reference fit of 20,000 steps as a process of its own, no kernel cached."""
    work = WORKS["fit_cuda"][1]()
    theirs = Cebra(work, "cuda", stretch=500)
    lasted: dict[str, list[float]] = {face: [] for face in _WHOLE_OURS}
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/x.npy", work.recording.activity[: work.cut])
        for i in range(3):
            theirs.run()
            for face, code in _WHOLE_OURS.items():
                out = f"{folder}/{face}{i}.safetensors"
                whole = code.format(x=f"{folder}/x.npy", steps=work.config.n_steps, out=out)
                lasted[face].append(_process(whole, f"{folder}/cache{face}{i}"))
        trained = load(f"{folder}/CEBRA0.safetensors")
        start = _process("import cebra", f"{folder}/cache")
    return _row(
        "s", statistics.median(lasted["CEBRA"]), start + work.config.n_steps / theirs.rate,
        rates=theirs.rates, all_ours=lasted["CEBRA"], all_ours_by_train=lasted["train"],
        **judged("fit_cuda", trained),
    )  # fmt: skip


def _process(code: str, cache_folder: str) -> float:
    """Seconds of a python process with an empty kernel cache."""
    env = {**os.environ, "TRITON_CACHE_DIR": cache_folder, "TORCHINDUCTOR_CACHE_DIR": cache_folder}
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env=env)
    return time.perf_counter() - begin


def step_cuda() -> Row:
    """The reference fit, steady."""
    work = WORKS["fit_cuda"][1]()
    theirs = Cebra(work, "cuda", stretch=500)
    rates, runs = [], list[Run]()
    steady([_longer(work.config, 1000)], work.recording, "cuda")
    for _ in range(3):
        theirs.run()
        rate, runs = steady([work.config], work.recording, "cuda")
        rates.append(rate)
    return _row(
        "s a step", 1 / statistics.median(rates), 1 / theirs.rate, rates=theirs.rates,
        rates_ours=rates, **judged("fit_cuda", runs[0]),
    )  # fmt: skip


def grid_cuda(*, warm: bool = False) -> Row:
    """The reference grid, 72 x 1,000 steps, from arrays in memory to 72 models."""
    recording, _ = reference()
    names = [f"grid_cuda, {units} units" for units in (32, 64, 128)]
    theirs = [Cebra(WORKS[name][1](), "cuda", stretch=500) for name in names]
    train([recording], [config(20, hidden=16)], device="cuda")  # the process is warm
    for model in theirs:
        model.run()
    lasted, runs = [], list[Run]()
    for _ in range(4 if warm else 1):
        begin = time.perf_counter()
        runs = train([recording], grid(1000), device="cuda")
        lasted.append(time.perf_counter() - begin)
        if len(lasted) < 4:
            for model in theirs:
                model.run()
    total = sum(24 * 1000 / t.rate for t in theirs)
    ours = statistics.median(lasted[1:]) if warm else lasted[0]
    return _row(
        "s", ours, total, rates=[t.rate for t in theirs], all_ours=lasted,
        **_all_judged(names, runs),
    )  # fmt: skip


def behavior_cuda() -> Row:
    """A label of one column, 126,758 samples, steady."""
    work = WORKS["behavior_cuda"][1]()
    theirs = Cebra(work, "cuda", stretch=500)
    rates, runs = [], list[Run]()
    for _ in range(3):
        theirs.run()
        rate, runs = steady([work.config], work.recording, "cuda")
        rates.append(rate)
    return _row(
        "s a step", 1 / statistics.median(rates), 1 / theirs.rate, rates=theirs.rates,
        rates_ours=rates, **judged("behavior_cuda", runs[0]),
    )  # fmt: skip


ROWS: dict[str, tuple[str, float | None, Callable[[], Row]]] = {
    # name: device, the least ratio, the work
    "fit_cuda": ("cuda", 20, fit_cuda),
    "step_cuda": ("cuda", 40, step_cuda),
    "grid_cuda": ("cuda", 60, grid_cuda),
    "grid_cuda_warm": ("cuda", 150, lambda: grid_cuda(warm=True)),
    "behavior_cuda": ("cuda", None, behavior_cuda),
    "fit_cpu": ("cpu", 6, fit_cpu),
    "grid_cpu": ("cpu", 6, grid_cpu),
    "behavior_cpu_1e5": ("cpu", 30, lambda: behavior_cpu("behavior_cpu_1e5", 50)),
    "behavior_cpu_1e6": ("cpu", 300, lambda: behavior_cpu("behavior_cpu_1e6", 4)),
    "transform_cpu": ("cpu", 4, transform_cpu),
    "knn_cpu": ("cpu", 5, knn_cpu),
    "align": ("cpu", 100, align),
}


def _row(unit: str, ours: float, theirs: float, **more: Any) -> Row:
    return {"ours": ours, "cebra": theirs, "unit": unit, "ratio": theirs / ours, **more}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=None)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="cebra")
    rows = []
    for name, (device, must, work) in ROWS.items():
        if device != options.device or name not in (options.only or ROWS):
            continue
        found = work()
        card = torch.cuda.get_device_name() if device == "cuda" else _processor()
        row = {
            "row": name, **found, "must": must, "device": card, "torch": torch.__version__,
            "threads": torch.get_num_threads(), "date": datetime.now(UTC).date().isoformat(),
        }  # fmt: skip
        rows.append(row)
        verdict = "" if must is None else "holds" if row["ratio"] >= must else "FAILS"
        print(
            f"{name:18s} {row['ours']:10.4g} {row['cebra']:10.4g} {row['unit']:9s} "
            f"{row['ratio']:8.1f}x  must {must}  {verdict}",
            flush=True,
        )
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1) + "\n")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
