"""What grevy runs on, and whether it works there."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import numpy as np
import torch

from .config import TrainConfig
from .dandi import cache_root
from .decode import circular_distance, neighbours
from .encoders import EncoderSpec
from .kernels import kernels_for
from .model import embed, held_out_bits
from .pairs import TimePairs
from .processors import idle_processors
from .recording import make_recording
from .report.summary import versions
from .room import free_bytes
from .stack import product_type
from .training import train

__all__ = ["examine"]

MOST_ERROR = 0.3
"""Radians by which the angle of the self-test may be missed; by chance it is 1.57."""
FEWEST_BITS = 0.5


def examine() -> dict[str, str]:
    """Versions, devices, threads, extras, caches, and the outcome of a self-test of a few seconds.

    Returns
    -------
    dict of str to str
        The entry "self-test" is "passed" or says on which device what failed.
    """
    facts = versions("auto")
    facts["GPUs"] = (
        ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())) or "none"
    )
    facts["processors"] = (
        f"{os.cpu_count()}, {idle_processors()} idle now (training takes at most "
        f"{torch.get_num_threads()} of those)"
    )
    facts["memory"] = f"{free_bytes() / 1e9:.3g} GB may be taken"
    facts["products on the CPU"] = str(product_type(TrainConfig(), torch.device("cpu")))[6:]
    facts["kernels for GPUs"] = (
        "not used: there is no GPU"
        if not torch.cuda.is_available()
        else "used"
        if kernels_for(torch.ones(1, 1, device="cuda")) is not None
        else "not used: torch's operations do the work, more slowly"
    )
    facts |= _extras() | _folders()
    begin = time.perf_counter()
    facts["self-test"] = _self_tests()
    facts["self-test took"] = f"{time.perf_counter() - begin:.1f} s"
    return facts


def _extras() -> dict[str, str]:
    """The optional packages of each extra and what is there of them."""
    found: dict[str, list[str]] = {}
    try:
        for line in requires("grevy") or ():
            match = re.match(r"([\w.-]+).*extra == ['\"](\w+)['\"]", line)
            if match and match[2] != "dev":
                found.setdefault(match[2], []).append(_there(match[1]))
    except PackageNotFoundError:
        return {"extras": "not known: grevy was not installed as a package"}
    return {f"extra {name}": ", ".join(each) for name, each in found.items()}


def _there(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} not installed"


def _folders() -> dict[str, str]:
    """Where files are kept between runs or during one, and how large they are."""
    temporary = Path(tempfile.gettempdir())
    return {
        "cache of recordings": _size(cache_root),
        "cache of kernels": _size(_kernels),
        "temporary files": f"{temporary}, {shutil.disk_usage(temporary).free / 1e9:.3g} GB free",
    }


def _kernels() -> Path:
    return Path(os.environ.get("TRITON_CACHE_DIR") or Path.home() / ".triton" / "cache")


def _size(where: Callable[[], Path]) -> str:
    try:
        folder = where()
    except RuntimeError:
        return "nowhere: there is no home folder to keep it in"
    if not folder.is_dir():
        return f"{folder}, nothing there"
    try:
        sizes = [p.lstat().st_size for p in folder.rglob("*") if not p.is_dir()]
    except OSError as error:
        return f"{folder}, cannot be read: {error.strerror}"
    return f"{folder}, {sum(sizes) / 1e6:.3g} MB in {len(sizes)} files"


def _self_tests() -> str:
    """The self-test on every kind of device; the first that fails is told."""
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        try:
            wrong = _self_test(device)
        except Exception as error:  # whatever fails here is what the user must read
            wrong = f"{type(error).__name__}: {error}"
        if wrong:
            return f"failed on {device}: {wrong}"
    return "passed"


def _self_test(device: str) -> str:
    """What is wrong where a turning population is learnt twice and its hidden angle decoded."""
    angle = np.arange(4000) * 2 * np.pi / 100
    preferred = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    recording = make_recording(np.exp(np.cos(angle[:, None] - preferred)), rate_hz=20.0)
    config = TrainConfig(
        pairs=TimePairs((2,)),
        encoder=EncoderSpec("offset5-model", hidden=16, latents=3),
        learning_rate=1e-2,
        batch_size=128,
        n_steps=150,
        train_on=((0, 3000),),
    )
    first, second = (train([recording], [config], device=device)[0] for _ in range(2))
    if device == "cpu" and first.digest != second.digest:
        return "two equal runs differ"
    bits = held_out_bits(first, recording, np.array([[3000, 4000]]), n=512)
    if not bits > FEWEST_BITS:
        return f"{bits:.2f} bits on a signal worth more than {FEWEST_BITS}"
    values = embed(first, recording, device=device).values
    near = neighbours(values[:3000], values[3000:], 5, device=device)
    decoded = np.angle(np.exp(1j * angle[near]).mean(axis=1))
    error = float(np.median(circular_distance(decoded, angle[3000:], 2 * np.pi)))
    if not error < MOST_ERROR:
        return f"an angle is decoded with an error of {error:.2f} rad, not under {MOST_ERROR}"
    return ""
