"""What a step on a GPU is made of: each kernel beside torch's operations, and ways to run stacks.

    python benchmarks/gpu.py [--json FILE]

Times are medians by device events (`triton.testing.do_bench`); rates are those of the reference fit
(docs/performance.md) with every way of running it, three stretches each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from triton.testing import do_bench

from grevy import kernels, stack, training
from grevy.config import TrainConfig
from grevy.layers import layer
from grevy.losses import info_nce
from speed_work import config, grid, reference

Row = dict[str, Any]


def pieces() -> Iterator[Row]:
    """The kernels of the reference step, alone."""
    for kind in (torch.bfloat16, torch.float32):
        for runs, width in ((1, 128), (6, 128), (6, 32), (24, 128)):
            for time_in, channels, skip in ((10, 41, ""), (9, width, "outer"), (5, width, "outer")):
                taps = 2 if channels == 41 else 3
                x = torch.randn(runs, time_in, 1024, channels, device="cuda").to(kind)
                x.requires_grad_(channels != 41)
                w = torch.randn(runs, taps, channels, width, device="cuda", requires_grad=True)
                b = torch.randn(runs, width, device="cuda", requires_grad=True)
                flop = 2 * (time_in - taps + 1) * 1024 * taps * channels * width * runs

                def forwards() -> torch.Tensor:
                    return layer(x, w, b, skip=skip, bend=True)  # type: ignore[arg-type]  # noqa: B023

                y = forwards()
                g = torch.randn_like(y)
                wanted = [t for t in (x, w, b) if t.requires_grad]

                def backwards() -> None:
                    torch.autograd.grad(y, wanted, g, retain_graph=True)  # noqa: B023

                for name, work, share in (("forward", forwards, 1), ("backward", backwards, 2)):
                    ours, torchs = both_ways(work)
                    yield {
                        "piece": f"layer {name}", "kind": str(kind), "runs": runs, "width": width,
                        "rows": (time_in - taps + 1) * 1024, "channels": channels,
                        "us": 1e3 * ours, "us_torch": 1e3 * torchs,
                        "tflop_s": share * flop / ours / 1e9,
                    }  # fmt: skip
    for runs, batch in ((1, 512), (24, 512), (1, 8192), (1, 65_536)):
        z = torch.nn.functional.normalize(torch.randn(runs, batch, 16, device="cuda"), dim=-1)
        z.requires_grad_()

        def loss() -> None:
            total = info_nce(z, z.roll(1, 1), z, others=1).total.sum()  # noqa: B023
            torch.autograd.grad(total, z)  # noqa: B023

        ours, torchs = both_ways(loss)
        yield {
            "piece": "InfoNCE and gradient", "runs": runs, "rows": batch,
            "us": 1e3 * ours, "us_torch": 1e3 * torchs,
        }  # fmt: skip


def both_ways(work: Callable[[], Any]) -> tuple[float, float]:
    """Milliseconds with the kernels and with torch's operations."""
    ours = do_bench(work, return_mode="median")
    with without_kernels():
        return ours, do_bench(work, return_mode="median")


@contextmanager
def without_kernels() -> Iterator[None]:
    os.environ["GREVY_KERNELS"] = "0"
    try:
        yield
    finally:
        del os.environ["GREVY_KERNELS"]


def rates() -> Iterator[Row]:
    """Steps a second of the reference fit."""
    recording, _ = reference()
    for precision in ("bfloat16", "float32"):
        for played in (True, False):
            for fast in (True, False):
                for runs in (1, 24) if played else (1,):
                    steps = 2000 if played else 300
                    configs = [config(steps, seed=s, precision=precision) for s in range(runs)]
                    found = [steady(configs, recording, played, fast) for _ in range(3)]
                    yield {
                        "rate": "steps of each run a second", "precision": precision, "runs": runs,
                        "graph": played, "kernels": fast,
                        "it_s": statistics.median(found) / runs, "all": found,
                    }  # fmt: skip


def steady(configs: list[TrainConfig], recording: Any, played: bool, fast: bool) -> float:
    seen: list[tuple[float, int]] = []
    before = stack._recordable
    if not played:
        stack._recordable = lambda config, where: False
    try:
        with (without_kernels if not fast else _as_it_is)():
            training.train(
                [recording], configs, device="cuda",
                on_step=lambda p: seen.append((time.perf_counter(), p.done)),
            )  # fmt: skip
    finally:
        stack._recordable = before
    (begin, first), (end, last) = seen[len(seen) // 4], seen[-1]
    return (last - first) / (end - begin)


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


def lanes() -> Iterator[Row]:
    """The reference grid with so many stacks at a time."""
    recording, _ = reference()
    before = training._LANES
    for n in (1, 2, 4, 8):
        training._LANES = n
        lasted = []
        for _ in range(2):
            begin = time.perf_counter()
            training.train([recording], grid(1000), device="cuda")
            lasted.append(time.perf_counter() - begin)
        yield {"grid": "72 x 1,000 steps", "lanes": n, "first_s": lasted[0], "again_s": lasted[1]}
    training._LANES = before


def agreement() -> Iterator[Row]:
    """One step's loss and gradient with kernels and without: by how much they differ."""
    recording, _ = reference()
    for precision in ("bfloat16", "float32"):
        ours = training.train([recording], [config(50, precision=precision)], device="cuda")[0]
        with without_kernels():
            plain = training.train([recording], [config(50, precision=precision)], device="cuda")[0]
        gap = np.abs(ours.losses - plain.losses).max(axis=(1, 2))
        yield {
            "agreement": "loss by step", "precision": precision,
            "first": float(gap[0]), "fifth": float(gap[4]), "fiftieth": float(gap[49]),
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if kernels.kernels_for(torch.ones(1, 4, device="cuda")) is None:
        raise SystemExit("the kernels cannot be used here")
    about = {
        "device": torch.cuda.get_device_name(), "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
    }  # fmt: skip
    rows: list[Row] = []
    for part in (agreement, rates, lanes, pieces):
        for row in part():
            rows.append(row | about)
            print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}"
                            for k, v in row.items() if k != "all"), flush=True)  # fmt: skip
            if options.json:
                options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
