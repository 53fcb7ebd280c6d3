"""How a training step grows: with samples, channels, batch, units, and runs trained together.

    python benchmarks/growth.py --device cpu|cuda [--json FILE]

Each figure is the median of three stretches after a warm start. The floor is what the products of
a step take at the rate of the largest product measured in the same run; nothing runs below it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from grevy.config import TrainConfig
from grevy.encoders import EncoderSpec, layer_shapes
from grevy.pairs import DeltaPairs, TimePairs
from grevy.recording import Label, Recording, make_recording
from grevy.training import train
from speed import _processor

PLAIN: dict[str, int] = {"samples": 100_000, "channels": 41, "batch": 512, "units": 128, "runs": 1}
VARIED: dict[str, tuple[int, ...]] = {
    "samples": (10_000, 100_000, 1_000_000, 10_000_000),
    "channels": (10, 41, 200, 1000),
    "batch": (128, 512, 2048, 8192),
    "units": (32, 64, 128, 256),
    "runs": (1, 4, 12, 24),
}


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
    steps = 2000 if device == "cuda" else 100
    configs = [
        TrainConfig(
            DeltaPairs(("y",), 10) if columns else TimePairs((10,)),
            EncoderSpec("offset10-model", where["units"], 16),
            learning_rate=1e-3, batch_size=where["batch"], n_steps=steps, seed=seed,
        )
        for seed in range(where["runs"])
    ]  # fmt: skip
    seen: list[tuple[float, int]] = []
    rates = []
    for _ in range(3):
        seen.clear()
        train(
            [recording], configs, device=device,
            on_step=lambda p: seen.append((time.perf_counter(), p.done)),
        )  # fmt: skip
        (begin, first), (end, last) = seen[0], seen[-1]
        rates.append((end - begin) / ((last - first) / where["runs"]))
    return 1e3 * statistics.median(rates)


def gflop(where: dict[str, int]) -> float:
    """Of the products of a step: two windows a reference, forwards and twice that back."""
    spec, places, total = EncoderSpec("offset10-model", where["units"], 16), 10, 0
    for kernel, inputs, outputs in layer_shapes(spec, where["channels"]):
        places -= kernel - 1
        total += places * kernel * inputs * outputs
    return 3 * 2 * total * 2 * where["batch"] * where["runs"] / 1e9


def peak(device: str) -> float:
    """GFLOP/s of a large product of bfloat16 numbers."""
    n = 8192 if device == "cuda" else 2048
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    lasted = []
    for _ in range(6):
        begin = time.perf_counter()
        a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        lasted.append(time.perf_counter() - begin)
    return 2 * n**3 / statistics.median(lasted) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rate = peak(options.device)
    rows: list[dict[str, Any]] = []
    for name, values in VARIED.items():
        for value in values:
            where = {**PLAIN, name: value}
            if name == "samples" and value > 10**6:
                where["channels"] = 10  # 1.6 GB of activity would say nothing more
            kinds = (0, 1, 3) if name == "samples" else (0,)
            for columns in kinds:
                found = step_ms(where, options.device, columns)
                rows.append(
                    {
                        "varied": name, "value": value, "label_columns": columns, **where,
                        "ms": found, "floor_ms": 1e3 * gflop(where) / rate, "gflop_s_peak": rate,
                        "device": torch.cuda.get_device_name() if options.device == "cuda"
                        else _processor(),
                        "torch": torch.__version__, "threads": torch.get_num_threads(),
                        "date": datetime.now(UTC).date().isoformat(),
                    }
                )  # fmt: skip
                row = rows[-1]
                print(
                    f"{name:9s} {value:>9,} {columns} columns  {row['ms']:9.3f} ms  "
                    f"floor {row['floor_ms']:8.3f}",
                    flush=True,
                )
                if options.json:
                    options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
