"""Embedding a whole session: grevy and cebra 0.6.1 in turn, in one run.

    python benchmarks/transform.py [--rounds 5] [--threads 2]

126,758 samples of 41 channels, offset10-model, 128 hidden units, 16 latents. Prints the median
seconds of each, their ratio, and the largest difference between the two embeddings for the same
weights.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time

import numpy as np
import torch

from grevy.encoders import EncoderSpec, initial_weights
from grevy.model import Run, TrainConfig, embed
from grevy.recording import make_recording


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    x = np.random.default_rng(0).standard_normal((126_758, 41)).astype(np.float32)
    spec = EncoderSpec("offset10-model", hidden=128, latents=16)
    weights = initial_weights(spec, 41, seed=0)
    run = Run(
        TrainConfig(encoder=spec),
        tuple(weights),
        torch.zeros(41),
        torch.ones(41),
        np.zeros((1, 2), np.float32),
    )
    recording = make_recording(x, rate_hz=30.0)
    model = _cebra(x, weights)
    ours, theirs, gap = [], [], float("nan")
    for _ in range(options.rounds + 1):
        begin = time.perf_counter()
        z = embed(run, recording, device="cpu").values
        ours.append(time.perf_counter() - begin)
        if model is not None:
            begin = time.perf_counter()
            reference = model.transform(x)
            theirs.append(time.perf_counter() - begin)
            gap = float(np.abs(z - reference).max())
    row = {"row": "transform_cpu", "grevy_s": statistics.median(ours[1:])}
    if model is not None:
        row |= {
            "cebra_s": statistics.median(theirs[1:]),
            "ratio": statistics.median(theirs[1:]) / statistics.median(ours[1:]),
            "largest_difference": gap,
        }
    row |= {"threads": options.threads, "machine": platform.processor() or platform.machine()}
    print(json.dumps(row))


def _cebra(x: np.ndarray, weights: list[torch.Tensor]):
    """A fitted cebra model that carries our weights, or None where cebra is not installed."""
    try:
        from cebra import CEBRA
    except ImportError:
        print("cebra is not installed (pip install -e '.[oracle]'): its column is not run")
        return None
    model = CEBRA(
        model_architecture="offset10-model", num_hidden_units=128, output_dimension=16,
        batch_size=64, max_iterations=1, device="cpu", conditional="time",
    )  # fmt: skip
    model.fit(x[:2000])
    convolutions = [m for m in model.model_.modules() if isinstance(m, torch.nn.Conv1d)]
    with torch.no_grad():
        for layer, w, b in zip(convolutions, weights[0::2], weights[1::2], strict=True):
            layer.weight.copy_(w.permute(2, 1, 0))
            layer.bias.copy_(b)
    return model


if __name__ == "__main__":
    main()
