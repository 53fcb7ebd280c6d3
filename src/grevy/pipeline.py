"""A run: from a file to a folder with models, scores and a report. Unfinished runs go on."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from . import dandi, nwb, store
from .atomic import append_line, remove_parts, write_atomic
from .checks import controls_of, folds_of, quality_of
from .config import TrainConfig, run_hash
from .errors import ConfigError, DataError, DivergedError, FormatError
from .evaluate import Features, frame_problem, identity_problem
from .locks import hold_folder
from .model import Run, choose_device, fingerprint
from .opening import open_recording, read_as, refuse_finished
from .questions import (
    Choice,
    Question,
    Trainer,
    choose_for,
    claims_about,
    decode_question,
    fold_runs,
    questions_of,
)
from .recording import Label, Recording
from .report import saved
from .report.page import write_report
from .report.summary import Answer, embedding_arrays, gather
from .results import Claim
from .settings import (
    RunConfig,
    changed,
    load_toml,
    read_config,
    resolve,
    settle,
    to_toml,
)
from .synthetic import openscope
from .training import Progress, train
from .unfinished import Checkpoint

__all__ = ["demo", "export", "run", "run_config", "run_recording"]

DEMO_SESSION: Mapping[str, Any] = {
    "movies": 4,
    "n_repeats": 10,
    "n_frames": 300,
    "n_cells": 80,
}
DEMO_SETTINGS: Mapping[str, Any] = {"steps": 1000, "folds": 5, "behaviour": ["running_velocity"]}
_FOLDERS = ("", "models", "figures", "unfinished", "unfinished/early")
"""In which a run writes, below its own."""
_log = logging.getLogger("grevy")


def run(
    file: str | Path,
    out: str | Path | None = None,
    *,
    quiet: bool = False,
    cache: str | Path | None = None,
    checkpoint_s: float = 30.0,
    allow_external: bool = False,
    **settings: Any,
) -> Path:
    """Do everything: read, choose, train, decode, and write the report.

    Parameters
    ----------
    file : str or Path
        The NWB recording; it may be an address in DANDI (`dandi.parse`).
    out : str or Path, optional
        Folder of the run; by default the file's name with "-grevy".
    quiet : bool
        No progress on the terminal.
    cache : str or Path, optional
        Where recordings of DANDI are kept; as `dandi.cache_folder` says by default.
    checkpoint_s : float
        Seconds of training that are lost at most when the process is ended.
    allow_external : bool
        Whether the file may point to data in other files of this machine.
    **settings
        Fields of `RunConfig`.

    Returns
    -------
    Path
        The report.

    Raises
    ------
    ConfigError
        If a setting is unknown or wrong, or the folder holds a finished run, or an unfinished one
        of other settings.
    DataError, UnsafeFileError
        If the recording cannot be read.
    DivergedError
        If a run of the training diverged; the others are kept.
    FormatError
        If the disk does not take what is written; what was there before is whole.
    LockedError
        If another process works in the folder.
    NetworkError
        If DANDI cannot be reached.
    """
    config = read_config({"file": str(file), **settings})
    return run_config(
        config, out, quiet=quiet, cache=cache, checkpoint_s=checkpoint_s,
        allow_external=allow_external,
    )  # fmt: skip


def run_config(
    config: RunConfig,
    out: str | Path | None = None,
    *,
    quiet: bool = False,
    cache: str | Path | None = None,
    checkpoint_s: float = 30.0,
    allow_external: bool = False,
) -> Path:
    """`run` with settings that were checked before."""
    config, out, recording = open_recording(
        config, out, quiet=quiet, cache=cache, allow_external=allow_external
    )
    return run_recording(recording, config, out, quiet=quiet, checkpoint_s=checkpoint_s)


def export(
    folder: str | Path,
    out: str | Path | None = None,
    *,
    file: str | Path | None = None,
    only: bool = False,
    cache: str | Path | None = None,
    quiet: bool = False,
) -> Path:
    """Write a new NWB file with the recording of a finished run and what the run found.

    The embedding becomes the series ``processing/misc/grevy_embedding``, in seconds on the
    recording's clock; scores and claims the table ``processing/misc/grevy_scores``.

    Parameters
    ----------
    folder : str or Path
        Of the run.
    out : str or Path, optional
        The new file; by default the recording's name with "-grevy.nwb". One that is there is never
        written over.
    file : str or Path, optional
        The recording, if it is not where the run found it. It is opened for reading only.
    only : bool
        Leave the recording's own data out: a small file of the same session and subject.
    cache : str or Path, optional
        Where recordings of DANDI are kept, as in `run`.
    quiet : bool
        No progress on the terminal.

    Returns
    -------
    Path
        The new file, whole and valid.

    Raises
    ------
    DataError, UnsafeFileError
        If the recording cannot be read or extended, or is not the one that the run was made of.
    FormatError
        If the folder holds no finished run, the new file exists, or the disk does not take it.
    LimitError
        If there is no room for it.
    LockedError
        If another process writes it.
    NetworkError
        If DANDI cannot be reached.
    """
    folder = Path(folder)
    results, embedding = saved.load_results(folder)
    if embedding is None:
        raise FormatError(f"{folder} must hold an embedding.npz; it does not. Run again.")
    config = read_config(load_toml(folder / "run.toml"))
    if file is not None:
        config = replace(config, file=str(file))
    asset = dandi.resolve(config.file) if dandi.is_address(config.file) else None
    origin = Path(config.file if asset is None else asset.name)
    target = Path(out or f"{origin.stem}-grevy.nwb")
    nwb.refuse_existing(target)
    if asset is not None:
        with dandi.progress_bar(quiet=quiet) as bar:
            origin = dandi.download(asset, dandi.cache_folder(asset, cache), on_progress=bar)
    elif not os.path.lexists(origin):
        raise DataError(
            f"the recording of {folder} must be there; found no file {origin}. Say where it is "
            f"(--nwb)."
        )
    found = fingerprint(_add_stimulus_labels(read_as(origin, config)))
    known = results.versions.get("data", "").split(" ")[0]
    if found != known:
        raise DataError(
            f"{origin} must be the recording that {folder} is about; found that it reads as "
            f"{found}, the run's as {known}. Name that recording (--nwb), or run again."
        )
    digest = store.load(folder / "model.safetensors").digest
    return nwb.export_results(
        target, origin, results, embedding, model=f"weights {digest}", only=only
    )


def demo(out: str | Path, *, quiet: bool = False) -> Path:
    """Simulate a small movie session, write it as NWB, and run everything on it.

    Parameters
    ----------
    out : str or Path
        Folder; the recording becomes `session.nwb` in it, the results `session-grevy`.
    quiet : bool

    Returns
    -------
    Path
        The report.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    file = out / "session.nwb"
    if not file.exists():
        nwb.write_openscope(file, openscope(**DEMO_SESSION))
    config = read_config({"file": str(file), **DEMO_SETTINGS})
    return run_config(config, out / "session-grevy", quiet=quiet)


def _add_stimulus_labels(recording: Recording) -> Recording:
    """The movie's moment and the stimulus as labels, under the names "frame" and "stimulus"."""
    track = recording.stimulus
    if track is None or not track.decodable:
        return recording
    frames, which = frame_problem(recording), identity_problem(recording)
    known = frames.subset >= 0
    extra = {
        "frame": Label(frames.target.values[:, 0], "continuous", "s", known=known),
        "stimulus": Label(
            which.target.values[:, 0].astype(np.int64), "discrete", known=known, names=frames.names
        ),
    }
    return replace(recording, labels={**extra, **recording.labels})


@contextmanager
def _folder(out: Path, config: RunConfig, resolved: Mapping[str, str]) -> Iterator[None]:
    """The run's folder, held by this process, with its settings written or found unchanged."""
    with hold_folder(out):
        refuse_finished(out)  # by a process that held it until now
        target = out / "run.toml"
        if target.exists():
            other = changed(_settings_of(target), config)
            if other:
                raise ConfigError(
                    f"{out} holds an unfinished run with other settings ({', '.join(other)}); "
                    f"use those settings to go on, or another folder."
                )
        with write_atomic(target) as file:  # first of all: it makes the folder a run's
            file.write(to_toml(config, resolved).encode())
        for name in _FOLDERS:
            remove_parts(out / name)
        (out / "models").mkdir(exist_ok=True)
        yield


def _settings_of(path: Path) -> RunConfig:
    """The settings in a run.toml that may be somebody else's."""
    try:
        return read_config(load_toml(path))
    except ConfigError as error:
        raise ConfigError(f"{path} must be that of an unfinished run; found: {error}") from error


def run_recording(
    recording: Recording,
    config: RunConfig,
    out: str | Path,
    *,
    quiet: bool = False,
    checkpoint_s: float = 30.0,
) -> Path:
    """`run` on a recording that is already in memory; `config.file` only names its source."""
    out = Path(out)
    refuse_finished(out)
    recording = _add_stimulus_labels(recording)
    config = settle(recording, config)
    base, resolved = resolve(recording, config)
    questions, said = questions_of(recording, config, base)
    where = config.device
    with _folder(out, config, resolved):
        clock = _Clock(out, quiet)
        clock.say("settings", resolved | {"device": str(choose_device(where))})
        unfinished = Checkpoint(out / "unfinished", every_s=checkpoint_s)
        stopping = Checkpoint(out / "unfinished" / "early", every_s=checkpoint_s)
        trainer = _trainer(recording, out, where, clock, unfinished)
        clock.stage("choose")
        choices = [choose_for(recording, q, base, config, trainer, stopping) for q in questions]
        shown = choices[0] if choices else Choice(base)
        clock.stage("train")
        final = trainer([shown.overall], "final model")[0]
        answers: list[Answer] = []
        claims: list[Claim] = []
        embedded: list[tuple[Question, list[Features]]] = []

        def trainer_on(other: Recording) -> Trainer:
            return trainer if other is recording else _trainer(other, out, where, clock, unfinished)

        for q, choice in zip(questions, choices, strict=True):
            clock.stage(f"folds over {q.what}")
            runs = fold_runs(recording, q, choice, trainer)
            clock.stage("decode")
            found, kept = decode_question(
                recording, q, runs, where, manifold=config.umap, quiet=quiet
            )
            clock.stage("nulls")
            claims += claims_about(recording, q, choice, kept, config, trainer_on)
            embedded.append((q, kept))
            answers += [(q.what, q.plan, p, y) for p, y in zip(q.problems, found, strict=True)]
        clock.stage("controls")
        controls = controls_of(recording, embedded, shown, config)
        clock.stage("quality")
        first = questions[0] if questions else None
        quality = quality_of(recording, first, shown, base, config, trainer_on)
        clock.stage("report")
        embedding = embedding_arrays(recording, final, where)
        results = gather(
            recording,
            config,
            resolved,
            answers,
            {q.what: choice for q, choice in zip(questions, choices, strict=True)},
            final,
            claims=claims,
            folds=[folds_of(q, kept) for q, kept in embedded],
            controls=controls,
            quality=quality,
            said=said,
            seconds=clock.seconds,
        )
        store.save(final, out / "model.safetensors")
        saved.save_results(out, results, embedding)
        path = write_report(out, results, embedding)
        stopping.clear()
        unfinished.clear()
        clock.say("finished", {"report": str(path)})
    return path


class _Clock:
    """Wall time of each stage, and the log that a program can read."""

    def __init__(self, out: Path, quiet: bool) -> None:
        self.out, self.quiet = out, quiet
        self.seconds: dict[str, float] = {}
        self._name, self._since = "", time.monotonic()

    def stage(self, name: str) -> None:
        """Close the stage before and open this one."""
        now = time.monotonic()
        if self._name:
            self.seconds[self._name] = self.seconds.get(self._name, 0.0) + now - self._since
        self._name, self._since = name, now
        self.say("stage", {"name": name})

    def say(self, event: str, facts: Mapping[str, str]) -> None:
        """One line of log.jsonl."""
        line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "event": event, **facts}
        append_line(self.out / "log.jsonl", json.dumps(line))
        _log.info("%s: %s", event, "; ".join(f"{k} {v}" for k, v in facts.items()))


def _trainer(
    recording: Recording, out: Path, device: str, clock: _Clock, unfinished: Checkpoint
) -> Trainer:
    """`train` that keeps every finished run in the folder and never trains one twice."""
    source, kind = fingerprint(recording), choose_device(device).type

    def trainer(configs: Sequence[TrainConfig], what: str) -> list[Run]:
        paths = [out / "models" / f"{run_hash(c, source, kind)}.safetensors" for c in configs]
        runs: dict[Path, Run] = {}
        for path, config in zip(paths, configs, strict=True):
            if path.exists():
                try:
                    runs[path] = _kept(path, config, kind)
                except FormatError as error:  # only a whole file has this name: it was damaged
                    clock.say("model file damaged, trained again", {"reason": str(error)})
        todo = [(c, p) for c, p in dict(zip(paths, configs, strict=True)).items() if c not in runs]
        clock.say("train", {"what": what, "runs": str(len(todo)), "kept": str(len(runs))})
        if todo:
            diverged, asked = None, [c for _, c in todo]
            try:
                with _bar(what, clock.quiet) as on_step:
                    trained: Sequence[Run | None] = train(
                        [recording], asked, device=device, on_step=on_step, checkpoint=unfinished
                    )
            except DivergedError as error:
                diverged, trained = error, error.runs
            for (path, _), run in zip(todo, trained, strict=True):
                if run is not None:
                    runs[path] = store.load(store.save(run, path))
            unfinished.clear()
            if diverged is not None:
                every = [runs.get(path) for path in paths]
                raise DivergedError(str(diverged), run=diverged.run, runs=every)
        return [runs[path] for path in paths]

    return trainer


def _kept(path: Path, config: TrainConfig, kind: str) -> Run:
    """The run in a file, if it is the one that the file is named after."""
    run = store.load(path)
    known = replace(run.config, precision=config.precision)  # "auto" became one of the others
    if run_hash(known, run.recording_hash, kind) != path.stem:
        raise FormatError(
            f"{path} must hold the run that its name stands for; found one of other settings or "
            f"of another recording."
        )
    return run


@contextmanager
def _bar(what: str, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """A progress bar with the loss as users of CEBRA know it, bits above chance, and time left."""
    with tqdm(disable=quiet, unit="it", file=sys.stderr, dynamic_ncols=True) as bar:

        def on_step(p: Progress) -> None:
            bar.total = p.of
            bar.set_description_str(
                f"{what}: pos: {p.positive: .4f} neg: {p.negative: .4f} total: {p.total: .4f} "
                f"temperature: {p.temperature: .4f} bits: {p.bits:.3f}",
                refresh=False,
            )
            bar.update(p.done - bar.n)

        yield on_step
