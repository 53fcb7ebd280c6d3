"""Training steps a second on the reference work, for one run and for many at once.

    python benchmarks/step.py [--device auto] [--steps 500] [--runs 1 24]

126,758 samples x 41 channels of a simulated session, offset10-model, batch 512, time pairs 10
samples apart. Prints one line of JSON a row, with the mean loss of the last steps and the bits.
"""

from __future__ import annotations

import argparse
import json
import platform
import time

import torch

from grevy.encoders import EncoderSpec
from grevy.losses import bits_above_chance
from grevy.model import TrainConfig, choose_device
from grevy.pairs import TimePairs
from grevy.synthetic import as_recording, openscope
from grevy.training import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 24])
    parser.add_argument("--hidden", type=int, nargs="+", default=[32, 128])
    options = parser.parse_args()
    where = choose_device(options.device)
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else platform.machine()
    recording = as_recording(openscope(seed=0))
    for hidden in options.hidden:
        for runs in options.runs:
            configs = [
                TrainConfig(
                    TimePairs((10,)), EncoderSpec("offset10-model", hidden, 16),
                    learning_rate=1e-2, n_steps=options.steps, seed=seed,
                )
                for seed in range(runs)
            ]  # fmt: skip
            train([recording], [configs[0]] * runs, device=options.device)  # warm
            begin = time.perf_counter()
            trained = train([recording], configs, device=options.device)
            seconds = time.perf_counter() - begin
            loss = float(trained[0].history[-20:].sum(axis=1).mean())
            row = {
                "row": "step", "device": name, "hidden": hidden, "runs": runs,
                "steps_a_second_each": round(options.steps / seconds, 1),
                "run_steps_a_second": round(runs * options.steps / seconds, 1),
                "loss": round(loss, 4), "bits": round(bits_above_chance(loss, 512), 3),
            }  # fmt: skip
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
