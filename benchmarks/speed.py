"""How fast: grevy and cebra 0.6.1 in one run, in turn, on the work of docs/performance.md.

    python benchmarks/speed.py --device cpu|cuda [--only fit_cpu ...] [--json FILE]

Needs the `oracle` extra. CEBRA's rate is measured in three stretches per width between our runs
and extrapolated over its steps; ours is never extrapolated. Fits and grids are judged too:
held-out bits beside those of one fit of CEBRA on the same data for as many steps. The label rows
train on noise, where there is nothing to judge; a stretch at a million samples is 4 steps, of some
seconds each.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

import align as alignment
from grevy.config import TrainConfig
from grevy.decode import neighbours
from grevy.encoders import EncoderSpec, from_cebra
from grevy.model import Run, SessionEncoder, embed, held_out_bits
from grevy.pairs import DeltaPairs, TimePairs
from grevy.recording import Label, Recording, make_recording
from grevy.synthetic import as_recording, openscope
from grevy.training import train

Row = dict[str, Any]
RATE_HZ = 30.0
LEAST_BITS = 0.5
"""What CEBRA must reach in 300 steps of the reference work, or the work means nothing."""


# --- the work ------------------------------------------------------------------------------------
@cache
def reference() -> tuple[Recording, int]:
    """The simulated session of 127,177 samples x 41 cells, and where its held-out fifth begins."""
    recording = as_recording(openscope(seed=0))
    return recording, int(0.8 * recording.n_samples)


def config(steps: int, *, hidden: int = 128, seed: int = 0, **more: Any) -> TrainConfig:
    """The reference fit."""
    latents, offset = more.pop("latents", 16), more.pop("offset", 10)
    return TrainConfig(
        TimePairs((offset,)),
        EncoderSpec("offset10-model", hidden, latents),
        learning_rate=more.pop("rate", 1e-2),
        n_steps=steps,
        seed=seed,
        train_on=((0, reference()[1]),),
        **more,
    )


def grid(steps: int, *, small: bool = False) -> list[TrainConfig]:
    """The reference grid of 72, or 12 of its points."""
    points = product(
        (16, 32) if small else (16, 32, 64, 128),
        (1e-3,) if small else (1e-3, 1e-2, 3e-4),
        (10, 20),
        (32, 64, 128),
    )
    return [config(steps, hidden=h, latents=d, rate=r, offset=o) for d, r, o, h in points]


class Cebra:
    """CEBRA on the same samples; `rates` are steps a second of each stretch."""

    def __init__(self, x: Any, y: Any, device: str, *, hidden: int = 128, stretch: int) -> None:
        from cebra import CEBRA

        torch.manual_seed(0)
        mode: dict[str, Any] = {"conditional": "time" if y is None else "time_delta"}
        self.model = CEBRA(
            model_architecture="offset10-model", num_hidden_units=hidden, output_dimension=16,
            batch_size=512, learning_rate=1e-2, temperature=1.0, distance="cosine",
            time_offsets=10, max_iterations=1, device=device, **mode,
        )  # fmt: skip
        self.data = (x,) if y is None else (x, y)
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

    def bits(self, like: TrainConfig) -> float:
        """Held-out bits of the model as it stands, by our judge."""
        weights = from_cebra(like.encoder, self.model.model_.state_dict())
        recording, cut = reference()
        c = recording.n_channels
        session = SessionEncoder(tuple(weights), torch.zeros(c), torch.ones(c))
        run = Run(
            like, (session,), np.zeros((1, 1, 2), np.float32), np.ones(1, np.float32), 1.0,
            None, 512, "", "",
        )  # fmt: skip
        return held_out_bits(run, recording, np.array([[cut + 40, recording.n_samples]]))


def bits_of(run: Run) -> float:
    recording, cut = reference()
    return held_out_bits(run, recording, np.array([[cut + 40, recording.n_samples]]))


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


def steady(configs: list[TrainConfig], recording: Recording, device: str) -> float:
    """Steps a second between the first report of progress and the last, all runs together."""
    seen: list[tuple[float, int]] = []
    train(
        [recording],
        configs,
        device=device,
        on_step=lambda p: seen.append((time.perf_counter(), p.done)),
    )
    return (seen[-1][1] - seen[0][1]) / (seen[-1][0] - seen[0][0])


# --- CPU rows ------------------------------------------------------------------------------------
def fit_cpu() -> Row:
    """The reference fit, 300 steps, arrays in memory."""
    recording, cut = reference()
    theirs = Cebra(recording.activity[:cut], None, "cpu", stretch=50)
    runs: list[Run] = []
    ours = in_turn(lambda: runs.extend(train([recording], [config(300)], device="cpu")), [theirs])
    rates = list(theirs.rates)
    theirs.fit(300)
    bits = theirs.bits(config(300))
    if bits < LEAST_BITS:
        raise SystemExit(
            f"fit_cpu is void: CEBRA reaches {bits:.2f} bits, {LEAST_BITS} are asked for"
        )
    return _row(
        "s", ours, 300 / statistics.median(rates), rates=rates, bits=bits_of(runs[-1]),
        bits_cebra=bits,
    )  # fmt: skip


def grid_cpu() -> Row:
    """12 models of the reference grid, 100 steps each."""
    recording, cut = reference()
    x = recording.activity[:cut]
    theirs = [Cebra(x, None, "cpu", hidden=h, stretch=50) for h in (32, 64, 128)]
    runs: list[Run] = []
    ours = in_turn(
        lambda: runs.extend(train([recording], grid(100, small=True), device="cpu")), theirs
    )
    rates = {t.model.num_hidden_units: t.rate for t in theirs}
    bits, bits_cebra = {}, {}
    for like, run, model in zip(grid(100, small=True)[:3], runs[-12:-9], theirs, strict=True):
        model.model.set_params(learning_rate=like.learning_rate)
        model.fit(100)
        bits[like.encoder.hidden], bits_cebra[like.encoder.hidden] = bits_of(run), model.bits(like)
    return _row(
        "s", ours, sum(4 * 100 / rate for rate in rates.values()), rates=rates, bits=bits,
        bits_cebra=bits_cebra,
    )  # fmt: skip


def behavior_cpu(n: int, steps: int, stretch: int) -> Row:
    """Continuous 3-D label, a step."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, 41), dtype=np.float32)
    y = np.cumsum(rng.standard_normal((n, 3)), axis=0).astype(np.float32) / 30
    recording = make_recording(x, rate_hz=RATE_HZ, labels={"y": Label(y, "continuous")})
    like = TrainConfig(
        DeltaPairs(("y",), 10), EncoderSpec("offset10-model", 128, 16), learning_rate=1e-2,
        n_steps=steps,
    )  # fmt: skip
    theirs = Cebra(x, y, "cpu", stretch=stretch)
    rates = []
    for _ in range(3):
        theirs.run()
        rates.append(steady([like], recording, "cpu"))
    ours = statistics.median(rates)
    return _row("s a step", 1 / ours, 1 / theirs.rate, rates=theirs.rates)


def transform_cpu() -> Row:
    """Embedding 126,758 samples of 41 channels, 128 hidden units; the same weights in both."""
    x = np.random.default_rng(0).standard_normal((126_758, 41)).astype(np.float32)
    theirs = Cebra(x[:2000], None, "cpu", stretch=1)
    spec = EncoderSpec("offset10-model", 128, 16)
    weights = from_cebra(spec, theirs.model.model_.state_dict())
    session = SessionEncoder(tuple(weights), torch.zeros(41), torch.ones(41))
    run = Run(
        TrainConfig(encoder=spec), (session,), np.zeros((1, 1, 2), np.float32),
        np.ones(1, np.float32), 1.0, None, 512, "", "",
    )  # fmt: skip
    recording = make_recording(x, rate_hz=RATE_HZ)
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
_WHOLE_OURS = """
import numpy as np, grevy
x = np.load({x!r})
grevy.CEBRA(
    model_architecture="offset10-model", num_hidden_units=128, output_dimension=16, batch_size=512,
    learning_rate=1e-2, conditional="time", time_offsets=10, max_iterations={steps}, device="cuda",
    random_state=0,
).fit(x).save({out!r})
"""


def fit_cuda() -> Row:
    """The reference fit of 20,000 steps as a process of its own, no kernel cached."""
    recording, cut = reference()
    theirs = Cebra(recording.activity[:cut], None, "cuda", stretch=500)
    lasted = []
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/x.npy", recording.activity[:cut])
        for i in range(3):
            theirs.run()
            code = _WHOLE_OURS.format(
                x=f"{folder}/x.npy", steps=20_000, out=f"{folder}/{i}.safetensors"
            )
            lasted.append(_process(code, f"{folder}/cache{i}"))
        from grevy.store import load

        trained = load(f"{folder}/0.safetensors")
    start = _process("import cebra", tempfile.mkdtemp())
    ours = statistics.median(lasted)
    return _row(
        "s", ours, start + 20_000 / theirs.rate, bits=bits_of(trained), rates=theirs.rates
    )  # fmt: skip


def _process(code: str, cache_folder: str) -> float:
    """Seconds of a python process with an empty kernel cache."""
    import os

    env = {**os.environ, "TRITON_CACHE_DIR": cache_folder, "TORCHINDUCTOR_CACHE_DIR": cache_folder}
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env=env)
    return time.perf_counter() - begin


def step_cuda() -> Row:
    """The reference fit, steady."""
    recording, cut = reference()
    theirs = Cebra(recording.activity[:cut], None, "cuda", stretch=500)
    rates = []
    steady([config(1000)], recording, "cuda")
    for _ in range(3):
        theirs.run()
        rates.append(steady([config(4000)], recording, "cuda"))
    return _row(
        "s a step", 1 / statistics.median(rates), 1 / theirs.rate, rates=theirs.rates,
        rates_ours=rates,
    )  # fmt: skip


def grid_cuda(*, warm: bool = False) -> Row:
    """The reference grid, 72 x 1,000 steps, from arrays in memory to 72 models."""
    recording, cut = reference()
    x = recording.activity[:cut]
    theirs = [Cebra(x, None, "cuda", hidden=h, stretch=500) for h in (32, 64, 128)]
    train([recording], [config(20, hidden=16)], device="cuda")  # the process is warm
    for model in theirs:
        model.run()
    lasted, runs = [], []
    for _ in range(2 if warm else 1):
        begin = time.perf_counter()
        runs = train([recording], grid(1000), device="cuda")
        lasted.append(time.perf_counter() - begin)
        for model in theirs:
            model.run()
    total = sum(24 * 1000 / t.rate for t in theirs)
    bits = [bits_of(r) for r in runs[::24]]
    return _row("s", lasted[-1], total, bits=bits, rates=[t.rate for t in theirs])


def behavior_cuda() -> Row:
    """Continuous 1-D label, T = 126,758, steady."""
    rng = np.random.default_rng(0)
    recording, _ = reference()
    x = recording.activity[:126_758]
    y = np.cumsum(rng.standard_normal(len(x))).astype(np.float32)
    labelled = make_recording(x, rate_hz=RATE_HZ, labels={"y": Label(y, "continuous")})
    like = TrainConfig(
        DeltaPairs(("y",), 10), EncoderSpec("offset10-model", 128, 16), learning_rate=1e-2,
        n_steps=2000,
    )  # fmt: skip
    theirs = Cebra(x, y[:, None], "cuda", stretch=500)
    rates = []
    for _ in range(3):
        theirs.run()
        rates.append(steady([like], labelled, "cuda"))
    return _row("s a step", 1 / statistics.median(rates), 1 / theirs.rate, rates=theirs.rates)


ROWS: dict[str, tuple[str, float | None, Callable[[], Row]]] = {
    # name: device, the least ratio, the work
    "fit_cuda": ("cuda", 20, fit_cuda),
    "step_cuda": ("cuda", 40, step_cuda),
    "grid_cuda": ("cuda", 60, grid_cuda),
    "grid_cuda_warm": ("cuda", 150, lambda: grid_cuda(warm=True)),
    "behavior_cuda": ("cuda", None, behavior_cuda),
    "fit_cpu": ("cpu", 6, fit_cpu),
    "grid_cpu": ("cpu", 6, grid_cpu),
    "behavior_cpu_1e5": ("cpu", 30, lambda: behavior_cpu(10**5, 300, 50)),
    "behavior_cpu_1e6": ("cpu", 300, lambda: behavior_cpu(10**6, 300, 4)),
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
