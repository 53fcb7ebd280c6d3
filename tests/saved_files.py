"""Write tests/saved: small files of every format version, which every later grevy must read.

    python tests/saved_files.py

What is there stays as it is: a file of an earlier version is what that version wrote. A new version
adds its own beside them. The `.npz` beside a model holds its tensors as they were in memory.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from grevy.grid_search import GridSearch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

import fake_results
import twins
from grevy.config import Adam, TrainConfig
from grevy.encoders import EncoderSpec
from grevy.grid import index
from grevy.masks import Mask
from grevy.model import Run
from grevy.pairs import TimePairs
from grevy.report import saved
from grevy.results import EmbeddingArrays, Results
from grevy.store import FORMAT_VERSION, header_of, save, tensors_of
from grevy.training import train
from grevy.unfinished import FORMAT_VERSION as UNFINISHED_VERSION
from grevy.unfinished import Checkpoint

HERE = Path(__file__).parent / "saved"
KEY = "0123456789abcdef"
NOTES = {"labels": ["angle"], "rate_hz": 30.0}
CONFIG = TrainConfig(
    pairs=TimePairs((5,)),
    encoder=EncoderSpec("offset5-model", 6, 2),
    batch_size=8,
    n_negatives=8,
    n_steps=3,
    temperature=1,
    scale="zscore",
    precision="float32",
    train_on=((0, 40), (40, 90)),
)
RICH = replace(
    CONFIG,
    learn_temperature=True,
    min_temperature=0.25,
    distance="euclidean",
    adam=Adam(beta1=0.8, weight_decay=0.01, amsgrad=True),
    masks=(Mask("neurons", (0.2, 0.5)), Mask("time_block", (0.5,), span=2)),
)
CONFIGS = {1: CONFIG, 2: RICH}
"""Of the model of each version; version 1 knew less."""


def run_of_version(version: int) -> Run:
    """The run that the file of a version holds."""
    run = train([twins.noise(100, 4)], [CONFIGS[version]], device="cpu")[0]
    return replace(run, state=None) if version == 1 else run


def version_1(path: Path) -> None:
    """Make a file what version 1 wrote: one session, the loss summed over its terms, no state."""
    blob = path.read_bytes()
    tensors, header = load_tensors(blob), header_of(path, blob)
    tensors["history"] = tensors.pop("losses").sum(dim=1)
    tensors.pop("temperatures")
    for name in [n for n in tensors if n.startswith("session.000.")]:
        tensors[name.removeprefix("session.000.")] = tensors.pop(name)
    header["format_version"] = 1
    for name in ("notes", "parent", "n_negatives", "temperature", "seen"):
        header.pop(name)
    for name in ("distance", "learn_temperature", "min_temperature", "adam", "masks", "precision"):
        header["config"].pop(name)
    path.write_bytes(save_tensors(tensors, metadata={"grevy": json.dumps(header)}))


def model(path: Path, version: int) -> None:
    """A model, and its tensors beside it."""
    run = run_of_version(version)
    save(run, path, notes=NOTES)
    if version == 1:
        version_1(path)
    np.savez(path.with_suffix(".npz"), **{k: t.numpy() for k, t in tensors_of(run).items()})


def unfinished(folder: Path, version: int) -> None:
    """What training keeps of a run, and its tensors beside it."""
    run = run_of_version(2)
    Checkpoint(folder, every_s=0).keep([KEY], [run])
    np.savez(folder / "run.npz", **{k: t.numpy() for k, t in tensors_of(run).items()})


def grid(folder: Path, version: int) -> None:
    """The folder of a grid of two models."""
    folder.mkdir()
    tiny: dict[str, Any] = {"max_iterations": 3, "batch_size": 32, "device": "cpu",
                            "num_hidden_units": 4, "output_dimension": [2, 3]}  # fmt: skip
    x = np.random.default_rng(0).normal(size=(240, 6))
    GridSearch().fit_models({"d": x}, tiny, folder)
    for path in folder.glob(".*"):
        path.unlink()


def short_results() -> tuple[Results, EmbeddingArrays]:
    """Results of which every table has a few rows."""
    results, arrays = fake_results.movies()
    history = replace(results.history, **_first(results.history, 5))
    results = replace(results, **_first(results, 4), history=history)
    few = {f.name: getattr(arrays, f.name)[:40] for f in fields(arrays) if f.name not in _WHOLE}
    labels = {name: values[:40] for name, values in arrays.labels.items()}
    return results, replace(arrays, **few, labels=labels)


_WHOLE = ("names", "labels")


def _first(of: Any, n: int) -> dict[str, Any]:
    values = {f.name: getattr(of, f.name) for f in fields(of)}
    return {name: v[:n] for name, v in values.items() if isinstance(v, tuple)}


def results(folder: Path, version: int) -> None:
    """The tables of a run."""
    saved.save_results(folder, *short_results())


FILES: dict[str, tuple[int, str, Callable[[Path, int], None]]] = {
    "model": (FORMAT_VERSION, ".safetensors", model),
    "unfinished": (UNFINISHED_VERSION, "", unfinished),
    "grid": (index.FORMAT_VERSION, "", grid),
    "results": (saved.FORMAT_VERSION, "", results),
}
"""The newest version of each format; the suffix of its file, none for a folder; what writes it."""


def main() -> None:
    """Write what is not there."""
    torch.set_num_threads(1)
    HERE.mkdir(exist_ok=True)
    for name, (newest, suffix, write) in FILES.items():
        for version in range(1, newest + 1):
            path = HERE / f"{name}-{version}{suffix}"
            if path.exists():
                continue
            if version < newest and name != "model":
                raise SystemExit(f"{path} is missing, and only an earlier grevy can write it")
            with tempfile.TemporaryDirectory() as folder:
                write(Path(folder) / path.name, version)
                for made in Path(folder).iterdir():
                    shutil.move(made, HERE / made.name)
            print(path)


if __name__ == "__main__":
    main()
