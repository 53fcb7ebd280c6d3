"""How a training step grows: with samples, channels, batch, units, and runs trained together.

    python benchmarks/growth.py --device cpu|cuda [--only batch ...] [--json FILE]

Each figure is the median of three stretches after a warm start, each long enough to be timed. The
floor is the larger of two times: what the products of a step take at the rate of the largest
product measured in the same run, and what must pass through memory (the windows once; weights and
both averages of Adam, read and written) at the rate of the largest copy. Nothing runs below it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from grevy import stack
from grevy.config import TrainConfig
from grevy.encoders import EncoderSpec, layer_shapes
from grevy.pairs import DeltaPairs, TimePairs
from grevy.recording import Label, Recording, make_recording
from grevy.training import train
from speed import _processor

PLAIN: dict[str, int] = {"samples": 100_000, "channels": 41, "batch": 512, "units": 128, "runs": 1}
VARIED: dict[str, tuple[int, ...]] = {
    "samples": (10_000, 100_000, 1_000_000, 10_000_000),
    "channels": (10, 41, 200, 1000, 2000),
    "batch": (128, 512, 2048, 8192, 32_768),
    "units": (32, 64, 128, 256),
    "runs": (1, 4, 16, 64, 256),
}
STRETCH_S = {"cpu": 3.0, "cuda": 0.5}


@cache
def recording_of(samples: int, channels: int, columns: int) -> Recording:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((samples, channels), dtype=np.float32)
    labels = {}
    if columns:
        y = np.cumsum(rng.standard_normal((samples, columns)), axis=0).astype(np.float32)
        labels = {"y": Label(y[:, 0] if columns == 1 else y, "continuous")}
    return make_recording(x, rate_hz=30.0, labels=labels)


def step_ms(where: dict[str, int], device: str, columns: int = 0) -> float:
    """Milliseconds a step of all runs together takes, once it is under way."""
    recording = recording_of(where["samples"], where["channels"], columns)
    seen: list[tuple[float, int]] = []

    def lasts(steps: int) -> float:
        """Seconds a step, the first report of progress left out."""
        seen.clear()
        configs = [
            TrainConfig(
                DeltaPairs(("y",), 10) if columns else TimePairs((10,)),
                EncoderSpec("offset10-model", where["units"], 16),
                learning_rate=1e-3, batch_size=where["batch"], n_steps=steps, seed=seed,
            )
            for seed in range(where["runs"])
        ]  # fmt: skip
        train(
            [recording], configs, device=device,
            on_step=lambda p: seen.append((time.perf_counter(), p.done)),
        )  # fmt: skip
        (begin, first), (end, last) = seen[0], seen[-1]
        return (end - begin) / ((last - first) / where["runs"])

    usual, stack._CHUNK = stack._CHUNK, 50 if device == "cuda" else 1
    try:
        about = lasts(110 if device == "cuda" else 4)
        # Progress is told once a chunk, and a stretch has several: draws do not depend on them.
        stack._CHUNK = 50 if device == "cuda" else int(min(50, max(1, 0.3 / about)))
        steps = int(min(2000, max(3, STRETCH_S[device] / about))) + 2 * stack._CHUNK
        return 1e3 * statistics.median(lasts(steps) for _ in range(3))
    finally:
        stack._CHUNK = usual


def gflop(where: dict[str, int]) -> float:
    """Of the products of a step: two windows a reference, forwards and twice that back."""
    spec, places, total = EncoderSpec("offset10-model", where["units"], 16), 10, 0
    for kernel, inputs, outputs in layer_shapes(spec, where["channels"]):
        places -= kernel - 1
        total += places * kernel * inputs * outputs
    return 3 * 2 * total * 2 * where["batch"] * where["runs"] / 1e9


def gbyte(where: dict[str, int]) -> float:
    """That a step must move: windows read, weights and Adam's averages read and written."""
    shapes = layer_shapes(EncoderSpec("offset10-model", where["units"], 16), where["channels"])
    weights = sum(kernel * inputs * outputs + outputs for kernel, inputs, outputs in shapes)
    windows = 2 * where["batch"] * 10 * where["channels"]
    return 4 * where["runs"] * (windows + 6 * weights) / 1e9


def rates(device: str) -> tuple[float, float]:
    """GFLOP/s of a large product of what training multiplies, GB/s of a large copy (both ways)."""
    n = 8192 if device == "cuda" else 2048
    kind = stack.product_type(TrainConfig(), torch.device(device))
    a, b = (torch.randn(n, n, device=device, dtype=kind) for _ in range(2))
    x = torch.randn(2**28 if device == "cuda" else 2**25, device=device)
    y = torch.empty_like(x)

    def median_s(work: Callable[[], object]) -> float:
        lasted = []
        for _ in range(6):
            begin = time.perf_counter()
            work()
            if device == "cuda":
                torch.cuda.synchronize()
            lasted.append(time.perf_counter() - begin)
        return statistics.median(lasted)

    product, copy = median_s(lambda: a @ b), median_s(lambda: y.copy_(x))
    return 2 * n**3 / product / 1e9, 2 * x.nbytes / copy / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--only", nargs="+", choices=VARIED, default=list(VARIED))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    peak, bandwidth = rates(options.device)
    card = torch.cuda.get_device_name() if options.device == "cuda" else _processor()
    rows: list[dict[str, Any]] = []
    for name in options.only:
        for value in VARIED[name]:
            where = {**PLAIN, name: value}
            if name == "samples" and value > 10**6:
                where["channels"] = 10  # 1.6 GB of activity would say nothing more
            for columns in (0, 1, 3) if name == "samples" else (0,):
                floors = (gflop(where) / peak, gbyte(where) / bandwidth)
                row: dict[str, Any] = {
                    "varied": name, "value": value, "label_columns": columns, **where,
                    "ms": step_ms(where, options.device, columns),
                    "floor_ms": 1e3 * max(floors),
                    "floor_of": "products" if floors[0] >= floors[1] else "bytes",
                    "gflop_s_peak": peak, "gb_s_peak": bandwidth, "device": card,
                    "torch": torch.__version__, "threads": torch.get_num_threads(),
                    "date": datetime.now(UTC).date().isoformat(),
                }  # fmt: skip
                rows.append(row)
                print(
                    f"{name:9s} {value:>10,} {columns} columns  {row['ms']:9.3f} ms  "
                    f"floor {row['floor_ms']:8.4f} ({row['floor_of']})",
                    flush=True,
                )
                if options.json:
                    options.json.write_text(json.dumps(rows, indent=1) + "\n")
            recording_of.cache_clear()


if __name__ == "__main__":
    main()
