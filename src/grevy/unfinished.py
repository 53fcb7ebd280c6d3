"""Runs that are not finished: their state is kept by time, and the same call goes on from it.

Draws are functions of the step, so a run at some step is its weights, the averages of its
optimiser, and the losses so far: a `Run` of fewer steps. A file holds those of a stack; each is
known by all that it depends on, so it is found again in whatever company it trains next time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as _load_tensors
from safetensors.torch import save as _save_tensors
from torch import Tensor

from .atomic import is_part, write_atomic
from .config import TrainConfig, run_hash
from .custom import ModuleSpec
from .errors import ConfigError, FormatError
from .model import Run
from .stack import Prepared, product_type
from .store import check, header_of, run_of, save, tensors_of

__all__ = ["FORMAT_VERSION", "Checkpoint", "joined", "key_of", "onwards"]

FORMAT_VERSION = 1
_FACTS = ("temperature", "n_negatives", "recording_hash", "parent", "seen")
_log = logging.getLogger("grevy")
_Kept = tuple[dict[str, Any], dict[str, Tensor]]


def key_of(run: Prepared, source: str, where: torch.device) -> str:
    """A hash of all that a run's state depends on but the step, 16 hex digits."""
    done = 0 if run.start is None else len(run.start.losses)
    told = [run_hash(run.config, source, where.type), run.frozen, run.parent, done]
    told.append(str(product_type(run.config, where)))
    if isinstance(run.config.encoder, ModuleSpec):
        told.append(repr(run.config.encoder.module))
    digest = hashlib.sha256(json.dumps(told).encode())
    tensors = [w for session in run.weights for w in session]
    tensors += [each for pair in run.scaling for each in pair]
    if run.start is not None and run.start.state is not None:
        tensors += vars(run.start.state).values()
    for tensor in tensors:
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def onwards(run: Prepared, kept: Run | None) -> Prepared | None:
    """What is left to train of a run; None where nothing is."""
    if kept is None:
        return run
    left = run.config.n_steps - len(kept.losses)
    if left <= 0:
        return None
    start = kept if run.start is None else joined(run.start, kept, kept.config)
    weights = [list(session.weights) for session in kept.sessions]
    return replace(run, config=replace(run.config, n_steps=left), weights=weights, start=start)


def joined(first: Run | None, more: Run, config: TrainConfig) -> Run:
    """A run and what it became by more steps as one run of a configuration."""
    if first is None:
        return more
    return replace(
        more,
        config=config,
        losses=np.concatenate([first.losses, more.losses]),
        temperatures=np.concatenate([first.temperatures, more.temperatures]),
    )


class Checkpoint:
    """A folder where training keeps its state by time, and from which the same call goes on.

    Give it to `train`, `resume` or `adapt`, save what they return, then `clear` it. A process that
    was ended meanwhile, in whatever way, loses at most the last `every_s` seconds: the same call
    with the same folder goes on, and on a CPU ends with the very numbers it would have had.

    Parameters
    ----------
    folder : path
        For one process at a time. Made when there is something to keep.
    every_s : float
        Seconds between two states of one run; 0 keeps every one that is whole.

    Raises
    ------
    ConfigError
        If `every_s` is negative or no number.

    Examples
    --------
    >>> import tempfile, grevy
    >>> x = np.random.default_rng(0).normal(size=(300, 4))
    >>> recording = grevy.make_recording(x, rate_hz=20.0)
    >>> config = TrainConfig(n_steps=60, batch_size=32)
    >>> checkpoint = Checkpoint(Path(tempfile.mkdtemp()) / "unfinished", every_s=0)
    >>> run = grevy.train([recording], [config], checkpoint=checkpoint, device="cpu")[0]
    >>> len(list(checkpoint.folder.iterdir()))
    1
    >>> checkpoint.clear()
    >>> checkpoint.folder.exists()
    False
    """

    def __init__(self, folder: str | Path, *, every_s: float = 30.0) -> None:
        if not (every_s >= 0 and math.isfinite(every_s)):
            raise ConfigError(
                f"checkpoints are seconds apart, a number that is not negative; found {every_s}."
            )
        self.folder, self.every_s = Path(folder), every_s
        self._lock = threading.Lock()
        self._known: dict[str, _Kept] | None = None  # as read, or finished in this process
        self._finished: dict[str, Run] = {}  # and not on disk yet
        self._asked = False
        self._written: dict[str, float] = {}
        self._begun = time.monotonic()

    def find(self, keys: Sequence[str], configs: Sequence[TrainConfig]) -> list[Run | None]:
        """How far some runs were, None for those of which nothing is kept."""
        known = self._read()
        runs: list[Run | None] = []
        for key, config in zip(keys, configs, strict=True):
            run = None
            if key in known:
                facts, tensors = known[key]
                try:
                    told = replace(config, precision=facts["precision"])
                    run = run_of(told, facts, tensors)
                    check(self.folder, run)
                except (FormatError, KeyError, TypeError, ValueError) as error:
                    _log.warning("a checkpoint is damaged, trained anew: %s", error)
                    run = None
            runs.append(run)
        steps = [len(run.losses) for run in runs if run is not None]
        if steps:
            _log.info(
                "going on with %d of %d runs, from step %d at least", len(steps), len(keys),
                min(steps),
            )  # fmt: skip
        elif known and not self._asked:
            _log.warning(
                "what is kept in %s is of other settings or another recording: trained anew",
                self.folder,
            )
        self._asked = True
        return runs

    def due(self, keys: Sequence[str]) -> bool:
        """Whether it is time to keep the state of a stack of runs."""
        since = self._written.get(_name(keys), self._begun)
        return time.monotonic() - since >= self.every_s

    def keep(self, keys: Sequence[str], runs: Sequence[Run | None]) -> None:
        """Write how far the runs of a stack are, and what was finished since the last time.

        None stands for a run that diverged, of which there is nothing to go on from.
        """
        pairs = zip(keys, runs, strict=True)
        self._write(_name(keys), {key: run for key, run in pairs if run is not None})
        self.flush()

    def finish(self, keys: Sequence[str], runs: Sequence[Run | None]) -> None:
        """Remember runs that reached their end; they are written when it is time."""
        with self._lock:
            own = {key: run for key, run in zip(keys, runs, strict=True) if run is not None}
            self._finished |= own
            self._known = {**(self._known or {}), **{k: _packed(r) for k, r in own.items()}}
        if self.due(()):
            self.flush()

    def flush(self) -> None:
        """Write what was finished and is not on disk yet."""
        with self._lock:
            some, self._finished = self._finished, {}
        if some:
            self._write(_name(list(some)), some)
            self._written[_name(())] = time.monotonic()

    def last_good(self, key: str, run: Run) -> Path:
        """Write a run as it was before it diverged, where `clear` leaves it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return save(run, self.folder / f"diverged-{key}.safetensors")

    def clear(self) -> None:
        """Forget all runs: they are saved elsewhere."""
        parts = [p for p in self.folder.glob(".unfinished-*.tmp") if is_part(p.name)]
        for path in [*self._files(), *parts]:
            path.unlink(missing_ok=True)
        self._known, self._finished = {}, {}
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("unfinished-*.safetensors"))

    def _read(self) -> dict[str, _Kept]:
        """All runs in the folder, each as far as it came."""
        if self._known is not None:
            return self._known
        known: dict[str, _Kept] = {}
        for path in self._files():
            try:
                found = _read_file(path)
            except FormatError as error:
                _log.warning("a checkpoint is damaged, trained anew: %s", error)
                continue
            for key, kept in found.items():
                if key not in known or _steps(kept) > _steps(known[key]):
                    known[key] = kept
        self._known = known
        return known

    def _write(self, name: str, runs: Mapping[str, Run]) -> None:
        facts: list[dict[str, Any]] = []
        tensors: dict[str, Tensor] = {}
        for i, (key, run) in enumerate(runs.items()):
            told, own = _packed(run)
            facts.append({"key": key, **told})
            # A run that went on shares its scaling with the one before; a file holds each itself.
            tensors |= {f"run.{i:04d}.{n}": t.clone() for n, t in own.items()}
        header = {
            "format": "grevy-unfinished",
            "format_version": FORMAT_VERSION,
            "runs": facts,
            "digest": _digest(tensors),
        }
        self._written[name] = time.monotonic()
        if not runs:
            return
        blob = _save_tensors(tensors, metadata={"grevy": json.dumps(header)})
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FormatError(
                f"the folder {self.folder} must be there to keep checkpoints in; it cannot be "
                f"made: {error.strerror}."
            ) from error
        with write_atomic(self.folder / name) as file:
            file.write(blob)


def _name(keys: Sequence[str]) -> str:
    return f"unfinished-{hashlib.sha256(' '.join(keys).encode()).hexdigest()[:16]}.safetensors"


def _packed(run: Run) -> _Kept:
    facts = {name: getattr(run, name) for name in _FACTS}
    return {**facts, "seen": list(run.seen), "precision": run.config.precision}, tensors_of(run)


def _steps(kept: _Kept) -> int:
    return len(kept[1].get("losses", ()))


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].numpy().tobytes())
    return digest.hexdigest()


def _read_file(path: Path) -> dict[str, _Kept]:
    try:
        blob = path.read_bytes()
        header = header_of(path, blob)
        if header["format"] != "grevy-unfinished":
            raise FormatError(f"{path} is no checkpoint of grevy.")
        if header["format_version"] != FORMAT_VERSION:
            raise FormatError(
                f"{path} has format version {header['format_version']}; this grevy reads "
                f"{FORMAT_VERSION}. Upgrade grevy to go on from it."
            )
        tensors = _load_tensors(blob)
        if _digest(tensors) != header["digest"]:
            raise FormatError(f"{path} does not hold what was written.")
        found = {}
        for i, facts in enumerate(header["runs"]):
            own = f"run.{i:04d}."
            found[str(facts["key"])] = (
                facts,
                {n.removeprefix(own): t for n, t in tensors.items() if n.startswith(own)},
            )
    except OSError as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{path} cannot be read: {error.strerror}.") from error
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{path} does not hold together: {error}.") from error
    return found
