"""Saving and loading: safetensors with a JSON header, written whole or not at all. Runs no code."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as _load_tensors
from safetensors.torch import save as _save_tensors
from torch import Tensor

from .atomic import write_atomic
from .config import TrainConfig, described, plain_number
from .custom import ModuleSpec, module_weights
from .encoders import EncoderSpec, layer_shapes
from .errors import FormatError
from .model import OptimiserState, Run, SessionEncoder
from .regular import size_of
from .room import refuse_large

__all__ = [
    "FORMAT_VERSION",
    "check",
    "header_of",
    "load",
    "read_notes",
    "run_of",
    "save",
    "tensors_of",
]

FORMAT_VERSION = 2
_STATE = ("momentum", "square", "largest", "sharpness", "steps")
_MAX_HEADER = 16 * 2**20
MORE_MEMORY = "Use a machine with more memory."
_MOST_COUNT = 2**53
_CONFIG = TypeAdapter(TrainConfig)


def save(run: Run, path: str | Path, *, notes: Mapping[str, Any] | None = None) -> Path:
    """Write a run to one safetensors file, atomically.

    Parameters
    ----------
    run : Run
    path : str or Path
        Any name; the format does not depend on the suffix.
    notes : mapping, optional
        What else belongs to the model, as JSON: `read_notes` finds it again.

    Returns
    -------
    Path
    """
    from . import __version__

    header = {
        "format": "grevy-run",
        "format_version": FORMAT_VERSION,
        "config": described(run.config),
        "recording_hash": run.recording_hash,
        "seen": list(run.seen),
        "parent": run.parent,
        "n_negatives": run.n_negatives,
        "temperature": run.temperature,
        "notes": dict(notes or {}),
        "versions": {"grevy": __version__, "torch": torch.__version__, "numpy": np.__version__},
    }
    text = json.dumps(header, sort_keys=True, default=plain_number)
    blob = _save_tensors(tensors_of(run), metadata={"grevy": text})
    with write_atomic(path) as file:
        file.write(blob)
    return Path(path)


def tensors_of(run: Run) -> dict[str, Tensor]:
    """All numbers of a run that are arrays, by name."""
    tensors = {
        "losses": torch.from_numpy(run.losses.copy()),
        "temperatures": torch.from_numpy(run.temperatures.copy()),
    }
    for s, session in enumerate(run.sessions):
        own = {f"weights.{i:02d}": w.contiguous() for i, w in enumerate(session.weights)}
        own |= {"mean": session.mean, "sd": session.sd}
        tensors |= {f"session.{s:03d}.{name}": value for name, value in own.items()}
    if run.state is not None:
        for name in _STATE:
            tensors[f"state.{name}"] = getattr(run.state, name)
    return tensors


def run_of(config: TrainConfig, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Run:
    """A run of its configuration, what a header says of it, and `tensors_of` it.

    Raises
    ------
    KeyError, TypeError, ValueError, OverflowError
        If something is absent, of another kind or beyond all numbers. `check` looks further.
    """
    return Run(
        config=config,
        sessions=_sessions(tensors),
        losses=tensors["losses"].numpy(),
        temperatures=tensors["temperatures"].numpy(),
        temperature=float(header.get("temperature", config.temperature)),
        state=OptimiserState(**{name: tensors[f"state.{name}"] for name in _STATE})
        if f"state.{_STATE[0]}" in tensors
        else None,
        n_negatives=_count(header.get("n_negatives", config.n_negatives or 0)),
        recording_hash=str(header.get("recording_hash", "")),
        parent=str(header.get("parent", "")),
        seen=_prints(header.get("seen", [])),
    )


def load(path: str | Path, *, encoder: ModuleSpec | None = None) -> Run:
    """Read a run that `save` wrote; executes nothing and believes nothing unchecked.

    Parameters
    ----------
    path : str or Path
    encoder : ModuleSpec, optional
        For a run of a custom module: the module, which a file cannot hold.

    Returns
    -------
    Run

    Raises
    ------
    FormatError
        If the file is absent, not a run of grevy, of a later format, or does not hold together.
    LimitError
        If it takes more than half of the free memory.
    """
    path = Path(path)
    blob, header = _opened(path, whole=True)
    try:
        if isinstance(header["config"], dict):  # before it was kept there was nothing else
            header["config"].setdefault("precision", "float32")
        config = _CONFIG.validate_python(_with_module(path, header["config"], encoder))
        tensors = _load_tensors(blob)
        if header["format_version"] == 1:
            tensors = _from_version_1(tensors, config)
        run = run_of(config, header, tensors)
    except (
        ValidationError, SafetensorError, KeyError, TypeError, ValueError, ArithmeticError,
        RecursionError,
    ) as error:  # fmt: skip
        first = str(error).splitlines()[0]
        raise FormatError(f"{path} does not hold a whole model: {first}") from error
    check(path, run)
    return run


def read_notes(path: str | Path) -> dict[str, Any]:
    """What `save` was given beside the run.

    Raises
    ------
    FormatError
        As `load`.
    """
    notes = _opened(Path(path), whole=False)[1].get("notes", {})
    if not isinstance(notes, dict):
        raise FormatError(f"{path}: the notes in its header must be a JSON object.")
    return notes


def _opened(path: Path, *, whole: bool) -> tuple[bytes, dict[str, Any]]:
    """The bytes of a file, if the whole is wanted, and its header, which is looked at first."""
    size = size_of(path, "a model file")
    try:
        with path.open("rb") as file:
            header = _grevy_header(path, _read_header(path, file, size))
            if not whole:
                return b"", header
            refuse_large(size, f"the model in {path}", MORE_MEMORY)
            file.seek(0)
            return file.read(size), header
    except FormatError:
        raise
    except OSError as error:
        raise FormatError(f"a model file must be readable; {path}: {error.strerror}.") from error


def _grevy_header(path: Path, header: dict[str, Any]) -> dict[str, Any]:
    version = header.get("format_version")
    if header.get("format") != "grevy-run" or type(version) is not int:
        raise FormatError(f"{path} is a safetensors file, but not a model saved by grevy.")
    if version < 1:
        raise FormatError(f"{path} has format version {version}, which never was.")
    if version > FORMAT_VERSION:
        raise FormatError(
            f"{path} has format version {version}; this grevy reads up to {FORMAT_VERSION}. "
            f"Upgrade grevy."
        )
    return header


def _count(n: Any) -> int:
    if type(n) is not int or not 0 <= n < _MOST_COUNT:
        raise ValueError(f"a count must be a whole number; it is {str(n)[:40]}.")
    return n


def _prints(seen: Any) -> tuple[str, ...]:
    if not isinstance(seen, list) or not all(re.fullmatch("[0-9a-f]{16}", str(p)) for p in seen):
        raise ValueError("the prints of what it was trained on are none.")
    return tuple(seen)


def _with_module(path: Path, config: dict[str, Any], encoder: ModuleSpec | None) -> dict[str, Any]:
    """The configuration of a run of a custom module, with the module put back."""
    named = config["encoder"].get("module") if isinstance(config["encoder"], dict) else None
    if named is None:
        return config
    if encoder is None or encoder.architecture != named:
        given = "none" if encoder is None else f"'{encoder.architecture}'"
        raise FormatError(
            f"{path} holds weights of the custom module '{named}', which a file cannot hold; found "
            f"{given}. Give such a module when loading."
        )
    return {**config, "encoder": encoder}


def _from_version_1(tensors: dict[str, Tensor], config: TrainConfig) -> dict[str, Tensor]:
    """Version 1 had one session and the loss summed over its terms."""
    history = tensors.pop("history")
    named = {f"session.000.{name}": value for name, value in tensors.items()}
    warmth = torch.full((len(history),), config.temperature)
    return {**named, "losses": history[:, None], "temperatures": warmth}


def _sessions(tensors: Mapping[str, Tensor]) -> tuple[SessionEncoder, ...]:
    """The encoders in a file, in order."""
    sessions: list[SessionEncoder] = []
    while f"session.{len(sessions):03d}.mean" in tensors:
        own = f"session.{len(sessions):03d}."
        names = sorted(k for k in tensors if k.startswith(own + "weights."))
        weights = tuple(tensors[k] for k in names)
        sessions.append(SessionEncoder(weights, tensors[own + "mean"], tensors[own + "sd"]))
    if not sessions:
        raise ValueError("it has no encoder")
    return tuple(sessions)


def header_of(path: Path, blob: bytes) -> dict[str, Any]:
    """What grevy wrote about the tensors of a safetensors file; FormatError where there is none."""
    return _read_header(path, io.BytesIO(blob), len(blob))


def _read_header(path: Path, file: IO[bytes], size: int) -> dict[str, Any]:
    """The header of a file of that many bytes: no more of it is read before it is known to fit."""
    cut_short = FormatError(f"{path} is not a safetensors file, or it is cut short. Save it again.")
    n_bytes = int.from_bytes(file.read(8), "little") if size >= 8 else 0
    if not 2 <= n_bytes <= min(_MAX_HEADER, size - 8):
        raise cut_short
    try:
        outer = json.loads(file.read(n_bytes))
        header = json.loads(outer.pop("__metadata__")["grevy"])
        stops = [about["data_offsets"][1] for about in outer.values()]
        fits = max(stops, default=0) == size - 8 - n_bytes
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise FormatError(f"{path} is not a model saved by grevy (no grevy header).") from error
    if not isinstance(header, dict):
        raise FormatError(f"{path}: the grevy header must be a JSON object.")
    if not fits:
        raise cut_short
    return header


def check(path: Path, run: Run) -> None:
    """Raise FormatError where what a file held does not hold together as a run."""
    spec = run.config.encoder
    for session in run.sessions:
        channels = int(session.mean.shape[0]) if session.mean.ndim == 1 else 0
        shapes: list[tuple[int, ...]] = []
        if isinstance(spec, EncoderSpec):
            for kernel, inputs, outputs in layer_shapes(spec, channels) if channels else []:
                shapes += [(kernel, inputs, outputs), (outputs,)]
        elif channels:
            shapes = [tuple(w.shape) for w in module_weights(spec, channels)]
        found = [tuple(w.shape) for w in session.weights]
        if not shapes or found != shapes or session.sd.shape != session.mean.shape:
            raise FormatError(f"{path}: weights of shapes {found} do not fit its configuration.")
        parts = [*session.weights, session.mean, session.sd]
        if session.sd.dtype == torch.float32 and not (session.sd.numpy() > 0).all():
            raise FormatError(f"{path}: the sd of every channel must be positive.")
        # By numpy: torch's threads take longer to wake than these sums last.
        if any(w.dtype != torch.float32 or not np.isfinite(w.numpy()).all() for w in parts):
            raise FormatError(f"{path}: weights must be finite float32 numbers.")
    if run.losses.ndim != 3 or run.losses.shape[2] != 2 or run.losses.dtype != np.float32:
        raise FormatError(f"{path}: the losses must be float32 of shape (steps, terms, 2).")
    if run.temperatures.shape != run.losses.shape[:1] or not 0 < run.temperature < math.inf:
        raise FormatError(f"{path}: there must be one temperature for each of its steps.")
    if run.state is not None:
        sizes = {t.shape for t in (run.state.momentum, run.state.square)}
        steps = run.state.steps
        counted = steps.shape == (1,) and steps.dtype == torch.int64 and bool(steps > 0)
        if len(sizes) != 1 or run.state.momentum.ndim != 1 or not counted:
            raise FormatError(f"{path}: the state of its optimiser does not hold together.")
