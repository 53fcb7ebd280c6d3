"""A recording larger than what a process may take: fitted and embedded from a file on disk.

    python benchmarks/large.py [--samples 1000000 --channels 1000] [--limit-gb 4] [--json FILE]

Writes noise to a .npy file, and to an HDF5 file in chunks, then lets a child process with a limit
on its private memory (RLIMIT_DATA) fit 200 steps and embed everything.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np

CHILD = """
import resource, sys, threading, time
limit = int(sys.argv[2])
import torch, numpy as np
import grevy
from grevy.loading import load_data
torch.set_num_threads(2)
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
most = [0]
def watch():
    while True:
        lines = open("/proc/self/status").read().splitlines()
        most[0] = max(most[0], *(int(l.split()[1]) for l in lines if l.startswith("RssAnon")))
        time.sleep(0.05)
threading.Thread(target=watch, daemon=True).start()
begin = time.perf_counter()
x = load_data(sys.argv[1])
model = grevy.CEBRA(
    model_architecture="offset10-model", num_hidden_units=32, output_dimension=8, batch_size=512,
    time_offsets=10, max_iterations=200, device="cpu", random_state=0, verbose=False,
).fit(x)
fitted = time.perf_counter()
z = model.transform(x)
assert z.shape == (len(x), 8) and np.isfinite(z).all()
print(fitted - begin, time.perf_counter() - fitted, most[0] * 1024)
"""


def write(path: Path, samples: int, channels: int) -> None:
    """Noise, in the format that the name says."""
    rng = np.random.default_rng(0)
    shape = (samples, channels)
    with ExitStack() as stack:
        if path.suffix == ".npy":
            x: Any = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        else:
            file = stack.enter_context(h5py.File(path, "w"))
            x = file.create_dataset("x", shape, np.float32, chunks=(4096, channels))
        for i in range(0, samples, 10_000):
            x[i : i + 10_000] = rng.standard_normal((min(10_000, samples - i), channels), "f4")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--channels", type=int, default=1000)
    parser.add_argument("--limit-gb", type=float, default=4.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    for suffix in (".npy", ".h5"):
        with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
            path = Path(folder) / f"x{suffix}"
            write(path, options.samples, options.channels)
            begin = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", CHILD, str(path), str(int(options.limit_gb * 2**30))],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                raise SystemExit(done.stderr[-2000:])
            fit, embedding, private = map(float, done.stdout.split()[-3:])
            row = {
                "row": "large", "format": suffix, "file_gb": path.stat().st_size / 2**30,
                "limit_gb": options.limit_gb, "fit_s": fit, "embed_s": embedding,
                "whole_s": time.perf_counter() - begin, "private_gb": private / 2**30,
                "date": datetime.now(UTC).date().isoformat(),
            }  # fmt: skip
        rows.append(row)
        print("  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}"
                        for k, v in row.items()), flush=True)  # fmt: skip
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
