"""What a grid has to train: every combination on every dataset, and each without a third of it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import ParameterGrid
from tqdm import tqdm

from ..config import TrainConfig, run_hash
from ..errors import ConfigError, DataError, DivergedError, FormatError
from ..estimator import CEBRA
from ..inputs import Sessions
from ..model import Run, choose_device, fingerprint, held_out_bits
from ..pairs import (
    ClassPairs,
    DeltaPairs,
    HybridPairs,
    MixedPairs,
    NearPairs,
    Pairs,
    TimePairs,
    parts,
    prepare_sessions,
)
from ..parameters import encoder_of, seed_of, train_config
from ..training import Progress, train
from ..unfinished import Checkpoint
from ..windows import Spans, keep, without
from .index import Point, file_of, module_digest, to_json, word

__all__ = [
    "N_FOLDS",
    "Job",
    "jobs_of",
    "models_of",
    "progress",
    "split",
    "still_there",
    "train_jobs",
    "unpacked",
]

N_FOLDS = 3
"""Stretches of time of which each is left out once, to be judged on."""
_AT_ONCE = 32
"""Models (each with its folds) a call of the trainer: bounds memory, and what an end loses."""


@dataclass(frozen=True, eq=False)
class Job:
    """One model to be: on everything, and once a fold to be judged."""

    name: str
    dataset_name: str
    model: CEBRA
    parameters: dict[str, Any]
    sessions: Sessions
    data: str
    config: TrainConfig
    folds: list[tuple[list[Spans], list[Spans]]]  # where to train and where to judge

    @property
    def configs(self) -> list[TrainConfig]:
        """The model's own configuration, then those of the folds."""
        return [self.config, *(_trained_on(self.config, some) for some, _ in self.folds)]

    @property
    def key(self) -> str:
        """A hash of all that the weights depend on."""
        device = choose_device(self.model._where()).type
        digest = run_hash(self.config, self.data, device)
        architecture = self.model.model_architecture
        return digest + ("" if isinstance(architecture, str) else module_digest(architecture))

    def point(self, run: Run, bits: list[float]) -> Point:
        """What the index keeps of the trained model."""
        return Point(
            dataset_name=self.dataset_name,
            parameters=self.parameters,
            task=_task(self.config),
            data=self.data,
            key=self.key,
            digest=run.digest,
            negatives=run.n_negatives,
            loss=float(run.losses[-1].sum()),
            bits=bits,
        )


def split(params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Fixed parameters and swept ones."""
    if not isinstance(params, Mapping):
        raise ConfigError(f"params must be a dict of parameters; found {type(params).__name__}.")
    unknown = sorted(set(params) - set(CEBRA().get_params(deep=False)))
    if unknown:
        raise ConfigError(f"params must be parameters of CEBRA; found {', '.join(unknown)}.")
    fixed, swept = {}, {}
    for name, value in params.items():
        if isinstance(value, np.ndarray | torch.Tensor | set | range):
            raise ConfigError(
                f"values of {name} must come as a list; found {type(value).__name__}. Use list()."
            )
        if not isinstance(value, list):
            fixed[name] = value
        elif not value:
            raise ConfigError(f"{name} must have at least one value; found an empty list.")
        elif len(value) == 1:
            fixed[name] = value[0]
        else:
            swept[name] = value
    return fixed, swept


def _name(point: Mapping[str, Any]) -> str:
    return "_".join(f"{name}_{word(value)}" for name, value in point.items())


def models_of(params: Mapping[str, Any]) -> tuple[dict[str, CEBRA], list[dict[str, Any]]]:
    """The unfitted models of a grid by name, and the swept parameters of each.

    Raises
    ------
    ConfigError
        If a parameter is unknown or has no values, or two models have the same name.
    """
    fixed, swept = split(params)
    grid = list(ParameterGrid(swept))
    names = [_name(point) for point in grid]
    _refuse_twins(names)
    models = {n: CEBRA(**fixed, **point) for n, point in zip(names, grid, strict=True)}
    return models, grid


def _refuse_twins(names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name.lower() in seen:  # some file systems do not tell a from A
            raise ConfigError(
                f"every model needs a name of its own; found '{name}' twice. Leave out values that "
                f"are equal, or rename a dataset."
            )
        seen.add(name.lower())


# Jobs


def unpacked(name: str, data: Any) -> tuple[Any, tuple[Any, ...]]:
    """Activity and labels of a dataset."""
    X, labels = (data[0], data[1:]) if isinstance(data, tuple) and data else (data, ())
    size = len(getattr(X, "shape", (0,)) and X) if isinstance(X, list) or hasattr(X, "shape") else 0
    if not size:
        found = "an empty " if isinstance(X, list | tuple) else "a "
        raise DataError(
            f"dataset '{name}' must be an array, a list of arrays, or a tuple of one of these and "
            f"its labels; found {found}{type(X).__name__}."
        )
    return X, labels


def jobs_of(datasets: Mapping[str, Any], params: Mapping[str, Any], seed: int) -> list[Job]:
    """Everything there is to train, checked before anything is."""
    if not isinstance(datasets, Mapping) or not all(isinstance(n, str) for n in datasets):
        raise DataError("datasets must be a dict of name to data; found something else.")
    fixed, _ = split(params)
    # A generator would give every model another seed, and another one at the next call.
    given = fixed.get("random_state")
    one = seed if given is None else seed_of(given)
    jobs: list[Job] = []
    for dataset_name, data in datasets.items():
        X, labels = unpacked(dataset_name, data)
        models, grid = models_of(params)
        checked = _checked(list(models.values()), X, labels)
        folds: dict[Any, list[tuple[list[Spans], list[Spans]]]] = {}
        for (name, model), point in zip(models.items(), grid, strict=True):
            sessions, print_ = checked[repr(model.label_periods)]
            own = point.get("random_state")
            config = train_config(
                model, sessions, one if own is None else seed_of(own), model.max_iterations
            )
            task = (print_, config.pairs, config.encoder.field)
            if task not in folds:
                folds[task] = _folds(sessions, config, dataset_name)
            jobs.append(
                Job(
                    name=f"{name}_{word(dataset_name)}",
                    dataset_name=dataset_name,
                    model=model,
                    parameters=to_json({**point, **fixed}),
                    sessions=sessions,
                    data=print_,
                    config=config,
                    folds=folds[task],
                )
            )
    _refuse_twins([job.name for job in jobs])
    return jobs


def _checked(
    models: list[CEBRA], X: Any, labels: tuple[Any, ...]
) -> dict[str, tuple[Sessions, str]]:
    """A dataset as recordings and their fingerprint, once for all models that see it alike."""
    found = {}
    for periods in dict.fromkeys(repr(m.label_periods) for m in models):
        alike = [m for m in models if repr(m.label_periods) == periods]
        widest = max(alike, key=lambda m: len(encoder_of(m).field))
        sessions = widest._sessions(X, labels[0] if labels else None, labels[1:], None, reset=True)
        for model in alike:
            if hasattr(widest, "feature_names_in_"):
                model.feature_names_in_ = widest.feature_names_in_
        found[periods] = sessions, "+".join(fingerprint(r) for r in sessions.recordings)
    return found


def _trained_on(config: TrainConfig, spans: Sequence[Spans]) -> TrainConfig:
    each = tuple(tuple((int(a), int(b)) for a, b in own) for own in spans)
    return replace(config, train_on=each)


def _folds(
    sessions: Sessions, config: TrainConfig, name: str
) -> list[tuple[list[Spans], list[Spans]]]:
    """Where to train and where to judge, in every session, once a fold that can be judged."""
    guard = len(config.encoder.field) + _reach(config.pairs)
    found, reason = [], ""
    for k in range(N_FOLDS):
        learn, judge = [], []
        for recording in sessions.recordings:
            rows = np.concatenate([np.arange(a, b) for a, b in recording.epochs])
            left_out = np.zeros(recording.n_samples, dtype=bool)
            left_out[rows[len(rows) * k // N_FOLDS : len(rows) * (k + 1) // N_FOLDS]] = True
            learn.append(without(recording.epochs, left_out, before=guard, after=guard))
            judge.append(keep(recording.epochs, left_out))
        try:
            for spans in (learn, judge):
                prepare_sessions(sessions.recordings, config.pairs, config.encoder.field, spans)
        except DataError as error:
            reason = str(error)
        else:
            found.append((learn, judge))
    if reason:
        warnings.warn(
            f"{N_FOLDS - len(found)} of {N_FOLDS} folds of dataset '{name}' cannot be judged, and "
            f"bits are without them: {reason}",
            UserWarning,
            stacklevel=4,
        )
    return found


def _reach(pairs: Pairs) -> int:
    """Samples between a reference and its positive, or between the labels of a change."""
    behavior, time = parts(pairs)
    if isinstance(behavior, MixedPairs):
        behavior = behavior.behavior
    lag = behavior.lag if isinstance(behavior, DeltaPairs) else 0
    return max(lag, *time.offsets) if time else lag


# Training


@contextlib.contextmanager
def progress(jobs: Sequence[Job]) -> Iterator[Callable[[int, Progress], None] | None]:
    """One bar for all models, if any of them is verbose."""
    if not any(job.model.verbose for job in jobs):
        yield None
        return
    with tqdm(total=sum(c.n_steps for job in jobs for c in job.configs)) as bar:

        def show(before: int, p: Progress) -> None:
            bar.update(before + p.done - bar.n)
            bar.set_description(f"{len(jobs)} models, bits: {p.bits: .3f}")

        yield show


def train_jobs(
    jobs: Sequence[Job],
    on_step: Callable[[int, Progress], None] | None,
    checkpoint: Checkpoint | None = None,
) -> Iterator[tuple[Job, Run, list[float]]]:
    """Train models together where their shapes allow; what is done is handed out at once."""
    groups: dict[Any, list[Job]] = {}
    for job in jobs:
        together = (id(job.sessions), job.model._where(), job.config.encoder)
        groups.setdefault(together, []).append(job)
    done = 0
    for group in groups.values():
        for first in range(0, len(group), _AT_ONCE):
            some = group[first : first + _AT_ONCE]
            report = None if on_step is None else _after(done, on_step)
            yield from _together(some, report, checkpoint)
            if checkpoint is not None:
                checkpoint.clear()  # whoever was handed the models has saved them
            done += sum(c.n_steps for job in some for c in job.configs)


def _after(done: int, on_step: Callable[[int, Progress], None]) -> Callable[[Progress], None]:
    return lambda p: on_step(done, p)


def _together(
    group: Sequence[Job],
    on_step: Callable[[Progress], None] | None,
    checkpoint: Checkpoint | None,
) -> Iterator[tuple[Job, Run, list[float]]]:
    """One call of the trainer; a model that diverges, or a fold of which does, is left out."""
    recordings, where = group[0].sessions.recordings, group[0].model._where()
    configs = [config for job in group for config in job.configs]
    said = ""
    try:
        trained: Sequence[Run | None] = train(
            recordings, configs, device=where, on_step=on_step, checkpoint=checkpoint
        )
    except DivergedError as error:
        trained, said = error.runs, str(error)
    runs = iter(trained)
    for job in group:
        own = [next(runs) for _ in job.configs]
        well = [run for run in own if run is not None]
        if len(well) < len(own):
            warnings.warn(f"{job.name} is left out: {said}", UserWarning, stacklevel=5)
            continue
        try:
            bits = [
                held_out_bits(run, recordings, judge, device=where)
                for run, (_, judge) in zip(well[1:], job.folds, strict=True)
            ]
        except DivergedError as error:  # with weights that are finite, but far too large
            warnings.warn(f"{job.name} is left out: {error}", UserWarning, stacklevel=5)
            continue
        yield job, well[0], bits


def still_there(
    jobs: Sequence[Job], points: Mapping[str, Point], folder: Path | None
) -> dict[str, CEBRA]:
    """Models that an earlier call left in the folder, with the parameters of this one."""
    found: dict[str, CEBRA] = {}
    for job in jobs:
        point = points.get(job.name)
        if folder is None or point is None or point.key != job.key:
            continue
        architecture = job.model.model_architecture
        module = None if isinstance(architecture, str) else architecture
        path = folder / file_of(job.name)
        try:
            kept = CEBRA.load(path, model_architecture=module)
        except FormatError:
            continue
        if kept.run_.digest != point.digest:
            continue
        found[job.name] = job.model._keep(kept.run_, job.sessions, int(job.config.seed))
        if repr(kept.get_params()) != repr(job.model.get_params()):
            job.model.save(path)  # what training does not depend on may have changed
    return found


def _task(config: TrainConfig) -> str:
    """What two models must have in common for their bits to compare, in words."""
    window = config.encoder.field
    if config.learn_temperature:
        warmth = "learned temperature"
    else:
        warmth = f"temperature {config.temperature}"
    return (
        f"{_words(config.pairs)}; window {window.left} before, {window.right} after; {warmth}; "
        f"{config.distance}"
    )


def _words(pairs: Pairs) -> str:
    match pairs:
        case TimePairs():
            return f"time + {', '.join(str(o) for o in pairs.offsets)}"
        case DeltaPairs():
            return f"label change over {pairs.lag}"
        case NearPairs():
            return f"labels within {pairs.sd}"
        case ClassPairs():
            return "same class"
        case MixedPairs():
            return f"{_words(pairs.behavior)}, same class"
        case HybridPairs():
            latents_ = f"first {pairs.behavior_latents} latents"
            return f"{_words(pairs.behavior)} on the {latents_} and {_words(pairs.time)}"
