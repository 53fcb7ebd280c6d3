"""Where the seconds of a fit from a cold start go: a process with no kernel cached, mark by mark.

    python benchmarks/coldstart.py [--runs 3] [--steps 2000] [--face CEBRA|train] [--json FILE]

Marks are seconds since the operating system started the process. Needs a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

CHILD = r"""
import os, sys, time

def age():
    with open("/proc/self/stat") as file:
        started = int(file.read().rsplit(")", 1)[1].split()[19]) / os.sysconf("SC_CLK_TCK")
    with open("/proc/uptime") as file:
        return float(file.read().split()[0]) - started

ZERO, BEGIN = age(), time.perf_counter()
MARKS, KERNELS = [], []

def mark(what):
    MARKS.append((what, ZERO + time.perf_counter() - BEGIN))

mark("python is up")
import numpy as np
mark("numpy")
import grevy
x = np.load(sys.argv[1])
steps, face = int(sys.argv[2]), sys.argv[3]
mark("grevy, and the recording read")
import torch
mark("torch")
if face == "CEBRA":
    grevy.CEBRA
    mark("grevy.CEBRA")
else:
    grevy.train
    mark("grevy.train")

from grevy import stack, training

def around(module, name, *, before=None, after=None):
    inner = getattr(module, name)
    def outer(*args, **options):
        if before:
            mark(before)
        out = inner(*args, **options)
        if after:
            mark(after)
        return out
    setattr(module, name, outer)

around(training, "_prepare", after="prepared")
around(training, "Activity", after="samples on the device")
around(stack, "_Program", after="program laid out")
around(stack, "compiled", before="first launches", after="kernels compiled")
around(stack, "record", before="first steps started", after="steps recorded")
around(training, "train_stack", after="steps done")

from grevy.kernels import launch as launching
def compile_all(launches, where, inner=launching.compile_all):
    mark("launches planned")
    from triton.runtime import JITFunction
    def warmup(self, *args, inner=JITFunction.warmup, **options):
        begin = time.perf_counter()
        out = inner(self, *args, **options)
        end = time.perf_counter()
        KERNELS.append((self.fn.__name__, ZERO + begin - BEGIN, ZERO + end - BEGIN))
        return out
    JITFunction.warmup = warmup
    inner(launches, where)
launching.compile_all = compile_all

if face == "CEBRA":
    model = grevy.CEBRA(
        model_architecture="offset10-model", num_hidden_units=128, output_dimension=16,
        batch_size=512, learning_rate=1e-2, conditional="time", time_offsets=10,
        max_iterations=steps, device="cuda", random_state=0,
    )
    mark("fit begins")
    model.fit(x)
    mark("fitted")
    model.save(sys.argv[4])
else:
    config = grevy.TrainConfig(
        grevy.TimePairs((10,)), grevy.EncoderSpec("offset10-model", 128, 16), learning_rate=1e-2,
        n_steps=steps,
    )
    mark("fit begins")
    run = grevy.train([grevy.make_recording(x, rate_hz=30.0)], [config], device="cuda")[0]
    mark("fitted")
    grevy.save(run, sys.argv[4])
mark("saved")
import json
print(json.dumps([MARKS, KERNELS]))
"""


def once(x: str, steps: int, face: str, folder: str) -> tuple[list[Any], list[Any]]:
    """The marks of one process, (what, when), and its kernels, (name, from when, till when)."""
    cache = tempfile.mkdtemp(dir=folder)
    env = {**os.environ, "TRITON_CACHE_DIR": cache, "TORCHINDUCTOR_CACHE_DIR": cache}
    command = [sys.executable, "-c", CHILD, x, str(steps), face, f"{cache}/model.safetensors"]
    done = subprocess.run(command, check=True, env=env, stdout=subprocess.PIPE, text=True)
    marks, kernels = json.loads(done.stdout.splitlines()[-1])
    return marks, kernels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--face", choices=("CEBRA", "train"), default="CEBRA")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        x = np.random.default_rng(0).standard_normal((126_758, 41), dtype=np.float32)
        np.save(f"{folder}/x.npy", x)
        for i in range(options.runs):
            marks, kernels = once(f"{folder}/x.npy", options.steps, options.face, folder)
            rows.append(
                {
                    "face": options.face, "run": i, "steps": options.steps, "marks": marks,
                    "kernels": kernels, "date": datetime.now(UTC).date().isoformat(),
                }
            )  # fmt: skip
            before = 0.0
            for what, at in marks:
                print(f"run {i}  {at:7.2f} s  +{at - before:5.2f}  {what}", flush=True)
                before = at
            for name, begin, end in sorted(kernels, key=lambda k: -k[2]):
                print(f"       {begin:7.2f} - {end:6.2f} s  {name}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
