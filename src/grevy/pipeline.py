"""A run: from a file to a folder with models, scores and a report. Unfinished runs go on."""

from __future__ import annotations

import fcntl
import itertools
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from . import __version__, nwb, report, store, wording
from .errors import ConfigError, FormatError, LockedError
from .evaluate import (
    EMBEDDING,
    Features,
    Predicted,
    Problem,
    confusion,
    decode_folds,
    differences,
    features_of,
    frame_problem,
    identity_problem,
    label_problem,
    scores,
)
from .losses import bits_above_chance
from .model import Run, TrainConfig, choose_device, embed, fingerprint, run_hash
from .recording import Label, Recording, findings
from .results import (
    Candidate,
    EmbeddingArrays,
    History,
    LabelTrace,
    Presentation,
    Results,
    SessionSummary,
    StimulusSummary,
)
from .search import choose, expand, with_spans
from .settings import RunConfig, changed, grid, guard, load_toml, read_config, resolve, to_toml
from .splits import Plan, block_plan, repeat_plan, training_spans
from .stimulus import fixed_order
from .synthetic import openscope
from .train import Progress, train

__all__ = ["demo", "run", "run_config", "run_recording", "versions"]

DEMO_SESSION: Mapping[str, Any] = {"movies": 5, "n_repeats": 10, "n_frames": 150}
DEMO_SETTINGS: Mapping[str, Any] = {"steps": 1000, "folds": 5}
_log = logging.getLogger("grevy")
_Trainer = Callable[[Sequence[TrainConfig], str], list[Run]]


@dataclass(frozen=True, eq=False)
class _Question:
    """Problems that share their folds: what repeats (or is cut in blocks), and how."""

    what: str
    plan: Plan
    problems: tuple[Problem, ...]


def run(
    file: str | Path, out: str | Path | None = None, *, quiet: bool = False, **settings: Any
) -> Path:
    """Do everything: read, choose, train, decode, and write the report.

    Parameters
    ----------
    file : str or Path
        The NWB recording.
    out : str or Path, optional
        Folder of the run; by default the file's name with "-grevy".
    quiet : bool
        No progress on the terminal.
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
    LockedError
        If another process works in the folder.
    """
    config = read_config({"file": str(file), **settings})
    return run_config(config, out or f"{Path(file).stem}-grevy", quiet=quiet)


def run_config(config: RunConfig, out: str | Path, *, quiet: bool = False) -> Path:
    """`run` with settings that were checked before."""
    out = Path(out)
    _refuse_finished(out)
    recording = nwb.read(
        config.file,
        series=config.series,
        units=config.units,
        bin_s=config.bin_s,
        epochs=config.epochs,
        stimuli=config.stimuli or None,
        labels=tuple(n for n in config.labels if n not in ("frame", "stimulus")),
        nan=config.nan,
        times=config.times,
    )
    return run_recording(recording, config, out, quiet=quiet)


def _refuse_finished(out: Path) -> None:
    if (out / "report.html").exists():
        raise ConfigError(f"{out} holds a finished run; name another folder with --out.")


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
    try:
        (out / "models").mkdir(parents=True, exist_ok=True)
        lock = os.open(out / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ConfigError(f"the folder {out} cannot be written: {error.strerror}.") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(lock, 200).decode(errors="replace") or "another process"
            raise LockedError(f"{out} is in use by {holder}; wait for it or use --out.") from error
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{platform.node()}:{os.getpid()}".encode(), 0)
        target = out / "run.toml"
        if target.exists():
            other = changed(read_config(load_toml(target)), config)
            if other:
                raise ConfigError(
                    f"{out} holds an unfinished run with other settings ({', '.join(other)}); "
                    f"use those settings to go on, or another folder."
                )
        with store.write_atomic(target) as file:
            file.write(to_toml(config, resolved).encode())
        yield
        (out / ".lock").unlink(missing_ok=True)
    finally:
        os.close(lock)


def run_recording(
    recording: Recording, config: RunConfig, out: str | Path, *, quiet: bool = False
) -> Path:
    """`run` on a recording that is already in memory; `config.file` only names its source."""
    out = Path(out)
    _refuse_finished(out)
    recording = _add_stimulus_labels(recording)
    base, resolved = resolve(recording, config)
    questions, unasked = _questions(recording, config, base)
    where = config.device
    with _folder(out, config, resolved):
        clock = _Clock(out, quiet)
        clock.say("settings", resolved | {"device": str(choose_device(where))})
        trainer = _trainer(recording, out, where, clock)
        chosen, table = _choose(recording, questions, base, config, trainer, where, clock)
        clock.stage("train")
        final = trainer([chosen], "final model")[0]
        judged = [_judge(recording, q, chosen, trainer, where, clock) for q in questions]
        clock.stage("report")
        embedding = _embedding_arrays(recording, final, where)
        results = _results(recording, config, resolved, questions, judged, table, final, clock)
        results = replace(results, warnings=(*unasked, *results.warnings))
        store.save(final, out / "model.safetensors")
        report.save_results(out, results, embedding)
        path = report.write_report(out, results, embedding)
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
        with open(self.out / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        _log.info("%s %s", event, dict(facts))


def _trainer(recording: Recording, out: Path, device: str, clock: _Clock) -> _Trainer:
    """`train` that keeps every finished run in the folder and never trains one twice."""
    source, kind = fingerprint(recording), choose_device(device).type

    def trainer(configs: Sequence[TrainConfig], what: str) -> list[Run]:
        paths = [out / "models" / f"{run_hash(c, source, kind)}.safetensors" for c in configs]
        runs: dict[Path, Run] = {}
        for path in paths:
            if path.exists():
                try:
                    runs[path] = store.load(path)
                except FormatError as error:  # only a whole file has this name: it was damaged
                    clock.say("model file damaged, trained again", {"reason": str(error)})
        todo = [(c, p) for c, p in dict(zip(paths, configs, strict=True)).items() if c not in runs]
        clock.say("train", {"what": what, "runs": str(len(todo)), "kept": str(len(runs))})
        if todo:
            with _bar(what, clock.quiet) as on_step:
                trained = train([recording], [c for _, c in todo], device=device, on_step=on_step)
            for (path, _), run in zip(todo, trained, strict=True):
                runs[path] = store.load(store.save(run, path))
        return [runs[path] for path in paths]

    return trainer


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


def _questions(
    recording: Recording, config: RunConfig, base: TrainConfig
) -> tuple[list[_Question], list[str]]:
    """What can be decoded, and in words what cannot."""
    asked, unasked = [], []
    margin = guard(recording, config, base)
    track = recording.stimulus
    if track is not None and track.decodable:
        problems = [frame_problem(recording)]
        if len(track.decodable) > 1:
            problems.append(identity_problem(recording))
        plan = repeat_plan(
            track, recording.epochs, n_folds=config.folds, seed=config.seed, guard=margin
        )
        asked.append(_Question("repeats", plan, tuple(problems)))
    elif track is not None:
        unasked.append(
            "No stimulus repeats in a way that can be decoded: see the table of stimuli."
        )
    names = [n for n in config.labels if n not in ("frame", "stimulus")]
    if names:
        known = np.all([recording.labels[n].mask for n in names], axis=0)
        plan = block_plan(
            known, recording.epochs, n_folds=config.folds, seed=config.seed, guard=margin
        )
        problems = [label_problem(n, recording.labels[n]) for n in names]
        asked.append(_Question("blocks", plan, tuple(problems)))
    if not asked:
        unasked.append(
            "Nothing was decoded: the recording has no stimulus that repeats and no label was "
            "named. The embedding is shown without a claim."
        )
    return asked, unasked


def _choose(
    recording: Recording,
    questions: Sequence[_Question],
    base: TrainConfig,
    config: RunConfig,
    trainer: _Trainer,
    device: str,
    clock: _Clock,
) -> tuple[TrainConfig, list[Candidate]]:
    """The chosen configuration with its full number of steps, and the table it was chosen from."""
    candidates = expand(replace(base, n_steps=config.search_steps), grid(config))
    usable = [q for q in questions if q.plan.n_choosing > 1]
    if len(candidates) == 1 or not usable:
        return base, []
    clock.stage("choose")
    question = usable[0]
    chosen, table = choose(
        recording,
        question.problems[0],
        question.plan,
        candidates,
        lambda configs: trainer(configs, "choosing"),
        device=device,
    )
    return replace(chosen, n_steps=config.steps), table


def _judge(
    recording: Recording,
    question: _Question,
    chosen: TrainConfig,
    trainer: _Trainer,
    device: str,
    clock: _Clock,
) -> list[Predicted]:
    """Train one run a fold, then decode every problem of the question."""
    clock.stage(f"folds over {question.what}")
    plan, epochs = question.plan, recording.epochs
    spans = [training_spans(plan, epochs, fold) for fold in range(plan.n_folds)]
    runs = trainer([with_spans(chosen, s) for s in spans], f"folds over {question.what}")
    clock.stage("decode")
    with tqdm(total=plan.n_folds, disable=clock.quiet, unit="fold", desc="decoding") as bar:

        def features(fold: int) -> Features:
            bar.update(1)
            return features_of(recording, plan.spans, spans[fold], runs[fold], device=device)

        return decode_folds(question.problems, plan, epochs, features, device=device)


def _embedding_arrays(recording: Recording, final: Run, device: str) -> EmbeddingArrays:
    e = embed(final, recording, device=device)
    track = recording.stimulus
    none = np.full(len(e.samples), -1, dtype=np.int32)
    labels: dict[str, NDArray[np.float64]] = {}
    for name, label in recording.labels.items():
        values = np.asarray(label.values, dtype=np.float64).copy()
        values[~label.mask] = np.nan
        labels[name] = values[e.samples]
    return EmbeddingArrays(
        values=e.values,
        samples=e.samples,
        times_s=recording.times_s[e.samples],
        padded=e.padded,
        index=none if track is None else track.index[e.samples],
        frame=none if track is None else track.frame[e.samples],
        repeat=none if track is None else track.repeat[e.samples],
        names=() if track is None else track.names,
        labels=labels,
    )


def _results(
    recording: Recording,
    config: RunConfig,
    resolved: Mapping[str, str],
    questions: Sequence[_Question],
    judged: Sequence[Sequence[Predicted]],
    table: Sequence[Candidate],
    final: Run,
    clock: _Clock,
) -> Results:
    pairs = [
        (q, p, y)
        for q, ys in zip(questions, judged, strict=True)
        for p, y in zip(q.problems, ys, strict=True)
    ]
    rows = [row for _, problem, y in pairs for row in scores(problem, y)]
    gaps = [row for _, problem, y in pairs for row in differences(problem, y)]
    session = _session(recording, config)
    names = recording.stimulus.decodable if recording.stimulus is not None else ()
    warnings = [w for w in (wording.bits_warning(table),) if w]
    order = fixed_order(recording.stimulus) if recording.stimulus is not None else None
    if order:
        warnings.append(order)
    warnings += wording.cautions(rows, questions=[(q.what, q.plan) for q in questions])
    return Results(
        title=recording.name or Path(config.file).name,
        session=session,
        stimuli=_stimuli(recording),
        presentations=_presentations(recording),
        candidates=tuple(table),
        history=_history(final),
        scores=tuple(rows),
        differences=tuple(gaps),
        confusions=tuple(
            confusion(problem, y, names) for _, problem, y in pairs if problem.name == "stimulus"
        ),
        traces=tuple(
            _trace(recording, problem, y) for q, problem, y in pairs if q.what == "blocks"
        ),
        headline=wording.headline(rows, gaps),
        methods=wording.methods(
            session,
            final.config,
            table,
            [(q.what, q.plan) for q in questions],
            search_steps=config.search_steps,
        ),
        warnings=tuple(warnings),
        settings=_settings(config, resolved, final),
        versions=versions(config.device),
        command="grevy run --config run.toml --out NEW_FOLDER",
        seconds=dict(clock.seconds),
    )


def _session(recording: Recording, config: RunConfig) -> SessionSummary:
    return SessionSummary(
        name=recording.name,
        file=Path(config.file).name,
        source=recording.source,
        n_samples=recording.n_samples,
        n_channels=recording.n_channels,
        n_epochs=len(recording.epochs),
        rate_hz=recording.rate_hz,
        start_s=float(recording.times_s[0]),
        stop_s=float(recording.times_s[-1]),
        activity_unit=recording.activity_unit,
        notes=recording.notes,
        findings=findings(recording),
    )


def _stimuli(recording: Recording) -> tuple[StimulusSummary, ...]:
    track = recording.stimulus
    if track is None:
        return ()
    rows = []
    for s, name in enumerate(track.names):
        here = track.index == s
        rows.append(
            StimulusSummary(
                name=name,
                n_frames=track.n_frames[s],
                n_repeats=int((track.blocks["stimulus"] == s).sum()),
                n_samples=int(here.sum()),
                duration_s=track.duration_s[s],
                reason=track.reasons.get(name, ""),
            )
        )
    return tuple(rows)


def _presentations(recording: Recording) -> tuple[Presentation, ...]:
    track = recording.stimulus
    if track is None:
        return ()
    return tuple(
        Presentation(
            track.names[int(b["stimulus"])],
            int(b["repeat"]),
            float(b["start_s"]),
            float(b["stop_s"]),
        )
        for b in track.blocks
    )


def _history(run: Run, most: int = 500) -> History:
    """The training curve as means over equal stretches of steps, at most `most` of them."""
    n = len(run.history)
    edges = np.unique(np.linspace(0, n, min(most, n) + 1).astype(int))
    means = np.array([run.history[a:b].mean(axis=0) for a, b in itertools.pairwise(edges)])
    total = means.sum(axis=1)
    terms = 2 if run.config.pairs.kind == "hybrid" else 1
    count = run.config.n_negatives
    return History(
        step=tuple(int(b) for b in edges[1:]),
        total=tuple(float(v) for v in total),
        positive=tuple(float(v) for v in means[:, 0]),
        negative=tuple(float(v) for v in means[:, 1]),
        bits=tuple(bits_above_chance(float(v) / terms, count) for v in total),
        temperature=(run.config.temperature,) * len(total),
        chance=float(terms * np.log(count)),
    )


def _trace(
    recording: Recording, problem: Problem, predicted: Predicted, most: int = 3000
) -> LabelTrace:
    order = np.argsort(predicted.samples)
    order = order[:: -(-len(order) // most)]
    rows = predicted.samples[order]
    period = float(problem.target.periods[0])
    return LabelTrace(
        name=problem.name,
        unit=problem.unit,
        period=period or None,
        times_s=tuple(float(t) for t in recording.times_s[rows]),
        true=tuple(float(v) for v in problem.target.values[rows, 0]),
        decoded=tuple(float(v) for v in predicted.values[EMBEDDING][order, 0]),
    )


def _settings(config: RunConfig, resolved: Mapping[str, str], final: Run) -> dict[str, str]:
    c = final.config
    chosen = {
        "chosen: latents": str(c.encoder.latents),
        "chosen: hidden units": str(c.encoder.hidden),
        "chosen: learning rate": f"{c.learning_rate:g}",
        "chosen: temperature": f"{c.temperature:g}",
    }
    given = {k: str(v) for k, v in vars(config).items() if not k.startswith("__")}
    return {**resolved, **chosen, **given, "file": Path(config.file).name}


def versions(device: str) -> dict[str, str]:
    """Versions of what a run's numbers depend on, and the device."""
    where = choose_device(device)
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else platform.machine()
    packages = ("numpy", "scipy", "scikit-learn", "torch", "pynwb", "h5py")
    return {
        "grevy": __version__,
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
        "system": f"{platform.system()} {platform.release()}",
        "device": f"{where} ({name})",
    }
