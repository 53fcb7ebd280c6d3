"""What grevy runs on, and whether it works there."""

from __future__ import annotations

import os
import time

import numpy as np
import torch

from .config import TrainConfig
from .encoders import EncoderSpec
from .kernels import kernels_for
from .model import held_out_bits
from .pairs import TimePairs
from .recording import make_recording
from .report.summary import versions
from .stack import product_type
from .training import idle_processors, train

__all__ = ["examine"]


def examine() -> dict[str, str]:
    """Versions, devices, threads, and the outcome of a self-test of a second or two.

    Returns
    -------
    dict of str to str
        The entry "self-test" is "passed" or says what failed.
    """
    facts = versions("auto")
    facts["GPUs"] = (
        ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())) or "none"
    )
    facts["processors"] = (
        f"{os.cpu_count()}, {idle_processors()} idle now (training takes at most "
        f"{torch.get_num_threads()} of those)"
    )
    facts["products on the CPU"] = str(product_type(TrainConfig(), torch.device("cpu")))[6:]
    facts["kernels for GPUs"] = (
        "not used: there is no GPU"
        if not torch.cuda.is_available()
        else "used"
        if kernels_for(torch.ones(1, 1, device="cuda")) is not None
        else "not used: torch's operations do the work, more slowly"
    )
    begin = time.perf_counter()
    try:
        facts["self-test"] = _self_test()
    except Exception as error:  # whatever fails here is what the user must read
        facts["self-test"] = f"failed: {type(error).__name__}: {error}"
    facts["self-test took"] = f"{time.perf_counter() - begin:.1f} s"
    return facts


def _self_test() -> str:
    """Train on a rotating population twice: it must be learnt, and twice alike."""
    angle = np.arange(4000) * 2 * np.pi / 100
    preferred = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    recording = make_recording(np.exp(np.cos(angle[:, None] - preferred)), rate_hz=20.0)
    config = TrainConfig(
        pairs=TimePairs((2,)),
        encoder=EncoderSpec("offset5-model", hidden=16, latents=3),
        learning_rate=1e-2,
        batch_size=128,
        n_steps=150,
    )
    first, second = train([recording], [config])[0], train([recording], [config])[0]
    if first.digest != second.digest:
        return "failed: two equal runs differ"
    bits = held_out_bits(first, recording, np.array([[3000, 4000]]), n=512)
    return "passed" if bits > 0.5 else f"failed: {bits:.2f} bits on a signal worth more than 0.5"
