"""Saving and loading: safetensors with a JSON header, written whole or not at all. Runs no code."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as _load_tensors
from safetensors.torch import save as _save_tensors

from .atomic import write_atomic
from .encoders import layer_shapes
from .errors import FormatError
from .model import Run, TrainConfig, plain_number

__all__ = ["FORMAT_VERSION", "load", "save"]

FORMAT_VERSION = 1
_MAX_HEADER = 16 * 2**20
_CONFIG = TypeAdapter(TrainConfig)


def save(run: Run, path: str | Path) -> Path:
    """Write a run to one safetensors file, atomically.

    Parameters
    ----------
    run : Run
    path : str or Path
        Any name; the format does not depend on the suffix.

    Returns
    -------
    Path
    """
    from . import __version__

    header = {
        "format": "grevy-run",
        "format_version": FORMAT_VERSION,
        "config": asdict(run.config),
        "recording_hash": run.recording_hash,
        "versions": {"grevy": __version__, "torch": torch.__version__, "numpy": np.__version__},
    }
    tensors = {f"weights.{i:02d}": w.contiguous() for i, w in enumerate(run.weights)}
    tensors |= {"mean": run.mean, "sd": run.sd, "history": torch.from_numpy(run.history.copy())}
    text = json.dumps(header, sort_keys=True, default=plain_number)
    blob = _save_tensors(tensors, metadata={"grevy": text})
    with write_atomic(path) as file:
        file.write(blob)
    return Path(path)


def load(path: str | Path) -> Run:
    """Read a run that `save` wrote; executes nothing and believes nothing unchecked.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    Run

    Raises
    ------
    FormatError
        If the file is absent, not a run of grevy, of a later format, or does not hold together.
    """
    path = Path(path)
    try:
        blob = path.read_bytes()
    except OSError as error:
        raise FormatError(f"a model file must be readable; {path}: {error.strerror}.") from error
    header = _header(path, blob)
    version = header.get("format_version")
    if header.get("format") != "grevy-run" or not isinstance(version, int):
        raise FormatError(f"{path} is a safetensors file, but not a model saved by grevy.")
    if version < 1:
        raise FormatError(f"{path} has format version {version}, which never was.")
    if version > FORMAT_VERSION:
        raise FormatError(
            f"{path} has format version {version}; this grevy reads up to {FORMAT_VERSION}. "
            f"Upgrade grevy."
        )
    try:
        config = _CONFIG.validate_python(header["config"])
        tensors = _load_tensors(blob)
        if tensors["history"].dtype != torch.float32:
            raise ValueError(f"its history is of {tensors['history'].dtype}, not float32")
        run = Run(
            config=config,
            weights=tuple(tensors[k] for k in sorted(tensors) if k.startswith("weights.")),
            mean=tensors["mean"],
            sd=tensors["sd"],
            history=tensors["history"].numpy(),
            recording_hash=str(header.get("recording_hash", "")),
        )
    except (ValidationError, SafetensorError, KeyError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise FormatError(f"{path} does not hold a whole model: {first}") from error
    _check(path, run)
    return run


def _header(path: Path, blob: bytes) -> dict[str, Any]:
    size = int.from_bytes(blob[:8], "little") if len(blob) >= 8 else 0
    if not 2 <= size <= min(_MAX_HEADER, len(blob) - 8):
        raise FormatError(f"{path} is not a safetensors file, or it is cut short. Save it again.")
    try:
        outer = json.loads(blob[8 : 8 + size])
        header = json.loads(outer["__metadata__"]["grevy"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(f"{path} is not a model saved by grevy (no grevy header).") from error
    if not isinstance(header, dict):
        raise FormatError(f"{path}: the grevy header must be a JSON object.")
    return header


def _check(path: Path, run: Run) -> None:
    channels = int(run.mean.shape[0]) if run.mean.ndim == 1 else 0
    shapes: list[tuple[int, ...]] = []
    if channels:
        for kernel, inputs, outputs in layer_shapes(run.config.encoder, channels):
            shapes += [(kernel, inputs, outputs), (outputs,)]
    found = [tuple(w.shape) for w in run.weights]
    if found != shapes or run.sd.shape != run.mean.shape:
        raise FormatError(f"{path}: weights of shapes {found} do not fit its configuration.")
    if run.history.ndim != 2 or run.history.shape[1] != 2:
        raise FormatError(f"{path}: the history must have shape (steps, 2).")
    parts = [*run.weights, run.mean, run.sd]
    if run.sd.dtype == torch.float32 and not bool((run.sd > 0).all()):
        raise FormatError(f"{path}: the sd of every channel must be positive.")
    if any(w.dtype != torch.float32 or not bool(torch.isfinite(w).all()) for w in parts):
        raise FormatError(f"{path}: weights must be finite float32 numbers.")
