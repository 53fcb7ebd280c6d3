"""Grids of CEBRA models: trained together, judged on data they did not see, kept in one folder.

Source: Schneider, Lee & Mathis 2023 (doi:10.1038/s41586-023-06031-6); methods and names of models
are those of `cebra.grid_search` 0.6.1, where docs/differences.md does not say otherwise.

A folder holds one file a model, `NAME.pt`, as `CEBRA.save` writes it (safetensors, whatever the
suffix: the one notebooks expect), and `grid.json`, which says what belongs to the last grid. Other
files in it are never read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydantic import TypeAdapter, ValidationError
from sklearn.model_selection import ParameterGrid
from torch import nn
from tqdm import tqdm

from .atomic import write_atomic
from .config import TrainConfig, run_hash
from .embedding_plots import latents, plot_embedding
from .errors import ConfigError, DataError, DivergedError, FormatError
from .estimator import CEBRA
from .inputs import Sessions, is_sessions
from .model import Run, choose_device, fingerprint, held_out_bits
from .model_plots import compare_models
from .pairs import (
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
from .parameters import encoder_of, seed_of, train_config
from .training import Progress, train
from .windows import Spans, keep, without

__all__ = ["N_FOLDS", "GridSearch"]

N_FOLDS = 3
"""Stretches of time of which each is left out once, to be judged on."""
INDEX = "grid.json"
_FORMAT_VERSION = 1
_LONGEST_NAME = 180


@dataclass(frozen=True)
class _Point:
    """What is known of one trained model beside its file."""

    dataset_name: str
    parameters: dict[str, Any]
    task: str  # what its bits may be compared within
    data: str  # fingerprint of the recordings
    key: str  # what the weights depend on
    digest: str  # of the weights
    negatives: int
    loss: float
    bits: list[float]  # of the folds that could be judged


@dataclass(frozen=True)
class _Grid:
    """The index of a folder: the last grid, and every model ever made there."""

    seed: int
    swept: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)  # of the last grid, trained or not
    points: dict[str, _Point] = field(default_factory=dict)
    format: str = "grevy-grid"
    format_version: int = _FORMAT_VERSION

    @property
    def trained(self) -> dict[str, _Point]:
        """The models of the last grid that are there, in its order."""
        return {name: self.points[name] for name in self.names if name in self.points}


_GRID = TypeAdapter(_Grid)


@dataclass(frozen=True, eq=False)
class _Job:
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
        return digest + ("" if isinstance(architecture, str) else _module_digest(architecture))

    def point(self, run: Run, bits: list[float]) -> _Point:
        """What the index keeps of the trained model."""
        return _Point(
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


class GridSearch:
    """Train a model for every combination of parameters and every dataset, and compare them.

    All models of one shape train as one program, each exactly as `CEBRA(**parameters).fit` would.
    Beside it every combination is trained three times more without one third of each session
    (and a guard of window and time offset around it), only to be judged on that third.

    Attributes
    ----------
    models : dict of name to CEBRA
        Fitted or loaded so far.
    parameter_grid : list of dict
        The swept parameters of each model.
    models_names : list of str
    models_dir : Path or None
        The folder used last.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(300, 5))
    >>> params = dict(output_dimension=[2, 3], max_iterations=2, batch_size=32, random_state=0)
    >>> search = GridSearch().fit_models({"noise": X}, params, models_dir=None)
    >>> search.models_names
    ['output_dimension_2_noise', 'output_dimension_3_noise']
    """

    def __init__(self) -> None:
        self.models: dict[str, CEBRA] = {}
        self.models_dir: Path | None = None
        self._grid: _Grid | None = None
        self._datasets: dict[str, Any] = {}

    @property
    def parameter_grid(self) -> list[dict[str, Any]]:
        """The swept parameters of each trained model."""
        return [] if self._grid is None else _swept(self._grid)

    @property
    def models_names(self) -> list[str]:
        """Names of the trained models."""
        return [] if self._grid is None else list(self._grid.trained)

    # -- making models

    def generate_models(self, params: Mapping[str, Any]) -> tuple[dict[str, CEBRA], list[Any]]:
        """The unfitted models of a grid.

        Parameters
        ----------
        params : dict
            Parameters of `CEBRA`. A list of two or more values is swept; a list of one, a tuple
            or any other value is fixed.

        Returns
        -------
        models : dict of name to CEBRA
            Names are `PARAMETER_VALUE` of the swept parameters in alphabetical order, joined by
            "_"; "" where nothing is swept.
        parameter_grid : list of dict
            The swept parameters of each.

        Raises
        ------
        ConfigError
            If a parameter is unknown or has no values, or two models have the same name.
        """
        fixed, swept = _split(params)
        grid = list(ParameterGrid(swept))
        names = [_name(point) for point in grid]
        _refuse_twins(names)
        return {
            name: CEBRA(**fixed, **point) for name, point in zip(names, grid, strict=True)
        }, grid

    def fit_models(
        self,
        datasets: Mapping[str, Any],
        params: Mapping[str, Any],
        models_dir: str | Path | None = "saved_models",
    ) -> Self:
        """Train every model on every dataset, or load it where it is there already.

        A second call with the same data, parameters and folder trains only what is missing.

        Parameters
        ----------
        datasets : dict of name to data
            An array (time, channels), a list of such arrays (sessions), or a tuple of one of these
            and its labels: (X, y, ...).
        params : dict
            As in `generate_models`. Without `random_state` one seed is drawn for all models and
            kept in the folder.
        models_dir : path, optional
            Made if absent. None keeps the models in memory only.

        Returns
        -------
        self

        Raises
        ------
        DataError
            If a dataset is not what is promised above.
        ConfigError
            If parameters are outside their allowed values; nothing is trained then.
        DivergedError
            If every model that was still to be trained diverged. Of several, those that do are
            left out with a warning.
        """
        folder = None if models_dir is None else Path(models_dir)
        before = None
        if folder is not None and (folder / INDEX).exists():
            before = _read(folder)
        seed = seed_of(None) if before is None else before.seed
        jobs = _jobs(self, datasets, params, seed)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        new = {job.name: job for job in jobs}
        old = {} if before is None else before.points
        models = _still_there(jobs, old, folder)
        points = {n: p for n, p in old.items() if n not in new or n in models}
        points |= {n: replace(points[n], parameters=new[n].parameters) for n in models}
        grid = _Grid(seed, sorted(_split(params)[1]), list(new), points)
        self._grid, self.models_dir = _write(grid, folder), folder
        self.models, self._datasets = models, dict(datasets)
        missing = [job for job in jobs if job.name not in models]
        with _progress(missing) as on_step:
            for job, run, bits in _train(missing, on_step):
                model = job.model._keep(run, job.sessions, int(job.config.seed))
                if folder is not None:
                    model.save(folder / _file(job.name))
                self.models[job.name] = model
                points = {**self._grid.points, job.name: job.point(run, bits)}
                self._grid = _write(replace(self._grid, points=points), folder)
        self.models = {n: self.models[n] for n in self._grid.trained}
        if missing and not any(job.name in self.models for job in missing):
            raise DivergedError(
                f"every model that was to be trained diverged ({len(missing)}). Use smaller "
                f"learning rates or higher temperatures."
            )
        return self

    @classmethod
    def load(cls, dir: str | Path) -> tuple[dict[str, CEBRA], list[dict[str, Any]]]:
        """The models of the last grid in a folder.

        Returns
        -------
        models : dict of name to CEBRA
        parameter_grid : list of dict
            The swept parameters of each.

        Raises
        ------
        FormatError
            If the folder holds no grid, or a model that is not the one it was.
        """
        search = cls()
        grid = search._opened(dir)
        return {name: search._model(name) for name in grid.trained}, _swept(grid)

    # -- comparing models

    def get_df_results(self, models_dir: str | Path | None = None) -> pd.DataFrame:
        """What is known of every model.

        Parameters
        ----------
        models_dir : path, optional
            The folder used last where absent.

        Returns
        -------
        DataFrame
            A row a model: its parameters, swept ones first; `loss`, the last one of its training
            in nats; `bits`, the mean over folds of the goodness of fit on the third left out, in
            bits above chance, and `bits_sd`, its standard deviation (NaN where no fold could be
            judged); `dataset_name`; `task`. Bits compare only rows of one dataset and one task.

        Raises
        ------
        ConfigError
            If no folder is known.
        FormatError
            If the folder holds no grid.
        """
        grid = self._opened(models_dir)
        rows = []
        for point in grid.trained.values():
            first = {name: point.parameters[name] for name in grid.swept}
            rows.append(
                {
                    **{k: _from_json(v) for k, v in {**first, **point.parameters}.items()},
                    "loss": point.loss,
                    "bits": _bits(point),
                    "bits_sd": float(np.std(point.bits, ddof=1)) if len(point.bits) > 1 else np.nan,
                    "dataset_name": point.dataset_name,
                    "task": point.task,
                }
            )
        return pd.DataFrame(rows)

    def get_best_model(
        self,
        scoring: str = "bits",
        dataset_name: str | None = None,
        models_dir: str | Path | None = None,
    ) -> tuple[CEBRA, str]:
        """The best model and its name.

        Bits compare only models of one dataset and one task (pairs, time offsets, window,
        temperature, distance). Where there are several tasks, the best one of the first model's
        task is returned, that is with the first value of whatever sets the task, and a warning
        says what was not compared.

        Parameters
        ----------
        scoring : {"bits", "infonce_loss"}
            Most bits on held-out data, or lowest last loss of the training. The loss falls with
            fewer negatives, with smaller offsets and lower temperatures, and with overfitting.
        dataset_name : str, optional
            The exact name of a dataset; all where absent.
        models_dir : path, optional
            The folder used last where absent.

        Raises
        ------
        ConfigError
            If the scoring or the dataset is unknown, or no model could be judged.
        FormatError
            If the folder or the model in it cannot be read.
        """
        if scoring not in ("bits", "infonce_loss"):
            raise ConfigError(f"scoring must be 'bits' or 'infonce_loss'; found {scoring!r}.")
        points = self._opened(models_dir).trained
        if dataset_name is not None:
            known = list(dict.fromkeys(p.dataset_name for p in points.values()))
            points = {n: p for n, p in points.items() if p.dataset_name == dataset_name}
            if not points:
                raise ConfigError(
                    f"dataset_name must be one of those with models, {known}; found "
                    f"{dataset_name!r}."
                )
        if not points:
            raise ConfigError("there is no trained model to choose from; call fit_models first.")
        name = _lowest_loss(points) if scoring == "infonce_loss" else _most_bits(points)
        return self._model(name), name

    # -- drawing models

    def plot_loss_comparison(self, models_dir: str | Path | None = None, **kwargs: Any) -> Axes:
        """Training losses of all models in one Axes.

        Parameters
        ----------
        models_dir : path, optional
            The folder used last where absent.
        **kwargs
            For `compare_models`.
        """
        names = list(self._opened(models_dir).trained)
        settings = {"labels": names, **kwargs}
        return compare_models([self._model(name) for name in names], **settings)

    def plot_transform(
        self,
        datasets: Mapping[str, Any] | None = None,
        models_dir: str | Path | None = None,
        *,
        columns: int = 4,
        size: float = 3.0,
        **kwargs: Any,
    ) -> Figure:
        """Embeddings of all models, one panel each (and a session).

        Parameters
        ----------
        datasets : dict of name to data, optional
            As in `fit_models`; those it was called with where absent.
        models_dir : path, optional
            The folder used last where absent.
        columns : int
            Panels side by side.
        size : float
            Of a panel, in inches.
        **kwargs
            For `plot_embedding`.

        Raises
        ------
        ConfigError
            If the data of a model are not given.
        """
        data = self._datasets if datasets is None else datasets
        panels: list[tuple[str, Any]] = []
        for name, point in self._opened(models_dir).trained.items():
            if point.dataset_name not in data:
                raise ConfigError(
                    f"model {name} is drawn with the data of '{point.dataset_name}'; found "
                    f"{list(data)}. Give datasets."
                )
            X = _unpacked(point.dataset_name, data[point.dataset_name])[0]
            model = self._model(name)
            if is_sessions(X):
                panels += [
                    (f"{name}, session {s}", model.transform(x, session_id=s))
                    for s, x in enumerate(X)
                ]
            else:
                panels.append((name, model.transform(X)))
        return _panels(panels, columns, size, kwargs)

    # -- what is kept

    def _opened(self, models_dir: str | Path | None) -> _Grid:
        """The grid in a folder, or the last one; models that are not of it are forgotten."""
        if models_dir is not None:
            self._grid, self.models_dir = _read(Path(models_dir)), Path(models_dir)
            known = self._grid.trained
            self.models = {
                n: m
                for n, m in self.models.items()
                if n in known and m.run_.digest == known[n].digest
            }
        if self._grid is None:
            raise ConfigError(
                "models_dir must name a folder before fit_models is called; found none."
            )
        absent = [name for name in self._grid.names if name not in self._grid.points]
        if absent:
            warnings.warn(
                f"{len(absent)} of {len(self._grid.names)} models of this grid are not there "
                f"(interrupted or diverged), the first is {absent[0]}: call fit_models again.",
                UserWarning,
                stacklevel=3,
            )
        return self._grid

    def _model(self, name: str) -> CEBRA:
        if name not in self.models:
            grid, folder = self._grid, self.models_dir
            if grid is None or folder is None:
                raise ConfigError(f"model {name} is neither in memory nor in a folder.")
            path = folder / _file(name)
            model = CEBRA.load(path)
            if model.run_.digest != grid.points[name].digest:
                raise FormatError(
                    f"{path} must hold the model that the grid was made with; found other weights. "
                    f"Call fit_models again."
                )
            self.models[name] = model
        return self.models[name]


# Parameters and names


def _split(params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, list[Any]]]:
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
    return "_".join(f"{name}_{_word(value)}" for name, value in point.items())


def _word(value: Any) -> str:
    """A value as part of the name of a file."""
    if isinstance(value, nn.Module):
        return f"{type(value).__name__}-{_module_digest(value)}"
    text = str(value)
    safe = re.sub(r"[^\w.+\-(), ]", "-", text)
    return safe if safe == text else f"{safe}-{_digest(text)}"


def _file(name: str) -> str:
    if len(name.encode()) > _LONGEST_NAME:
        name = f"{name.encode()[:_LONGEST_NAME].decode(errors='ignore')}-{_digest(name)}"
    return f"{_word(name)}.pt"


def _refuse_twins(names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name.lower() in seen:  # some file systems do not tell a from A
            raise ConfigError(
                f"every model needs a name of its own; found '{name}' twice. Leave out values that "
                f"are equal, or rename a dataset."
            )
        seen.add(name.lower())


def _module_digest(module: nn.Module) -> str:
    state = b"".join(t.detach().cpu().numpy().tobytes() for t in module.state_dict().values())
    return hashlib.sha256(repr(module).encode() + state).hexdigest()[:8]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


# Jobs


def _unpacked(name: str, data: Any) -> tuple[Any, tuple[Any, ...]]:
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


def _jobs(
    search: GridSearch, datasets: Mapping[str, Any], params: Mapping[str, Any], seed: int
) -> list[_Job]:
    """Everything there is to train, checked before anything is."""
    if not isinstance(datasets, Mapping) or not all(isinstance(n, str) for n in datasets):
        raise DataError("datasets must be a dict of name to data; found something else.")
    fixed, _ = _split(params)
    # A generator would give every model another seed, and another one at the next call.
    given = fixed.get("random_state")
    one = seed if given is None else seed_of(given)
    jobs: list[_Job] = []
    for dataset_name, data in datasets.items():
        X, labels = _unpacked(dataset_name, data)
        models, grid = search.generate_models(params)
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
                _Job(
                    name=f"{name}_{_word(dataset_name)}",
                    dataset_name=dataset_name,
                    model=model,
                    parameters=_to_json({**point, **fixed}),
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
def _progress(jobs: Sequence[_Job]) -> Iterator[Callable[[int, Progress], None] | None]:
    """One bar for all models, if any of them is verbose."""
    if not any(job.model.verbose for job in jobs):
        yield None
        return
    with tqdm(total=sum(c.n_steps for job in jobs for c in job.configs)) as bar:

        def show(before: int, p: Progress) -> None:
            bar.update(before + p.done - bar.n)
            bar.set_description(f"{len(jobs)} models, bits: {p.bits: .3f}")

        yield show


def _train(
    jobs: Sequence[_Job], on_step: Callable[[int, Progress], None] | None
) -> Iterator[tuple[_Job, Run, list[float]]]:
    """Train models together where their shapes allow; what is done is handed out at once."""
    groups: dict[Any, list[_Job]] = {}
    for job in jobs:
        together = (id(job.sessions), job.model._where(), job.config.encoder)
        groups.setdefault(together, []).append(job)
    done = 0
    for group in groups.values():
        yield from _together(group, None if on_step is None else _after(done, on_step))
        done += sum(c.n_steps for job in group for c in job.configs)


def _after(done: int, on_step: Callable[[int, Progress], None]) -> Callable[[Progress], None]:
    return lambda p: on_step(done, p)


def _together(
    group: Sequence[_Job], on_step: Callable[[Progress], None] | None
) -> Iterator[tuple[_Job, Run, list[float]]]:
    """One call of the trainer; where a model diverges, one for each, to find and leave out it."""
    recordings, where = group[0].sessions.recordings, group[0].model._where()
    configs = [config for job in group for config in job.configs]
    try:
        runs = iter(train(recordings, configs, device=where, on_step=on_step))
    except DivergedError as error:
        if len(group) > 1:
            for job in group:
                yield from _together([job], None)
            return
        warnings.warn(f"{group[0].name} is left out: {error}", UserWarning, stacklevel=5)
        return
    for job in group:
        run = next(runs)
        bits = [
            held_out_bits(next(runs), recordings, judge, device=where) for _, judge in job.folds
        ]
        yield job, run, bits


def _still_there(
    jobs: Sequence[_Job], points: Mapping[str, _Point], folder: Path | None
) -> dict[str, CEBRA]:
    """Models that an earlier call left in the folder, with the parameters of this one."""
    found: dict[str, CEBRA] = {}
    for job in jobs:
        point = points.get(job.name)
        if folder is None or point is None or point.key != job.key:
            continue
        architecture = job.model.model_architecture
        module = None if isinstance(architecture, str) else architecture
        path = folder / _file(job.name)
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


# Choosing


def _bits(point: _Point) -> float:
    return float(np.mean(point.bits)) if point.bits else math.nan


def _most_bits(points: Mapping[str, _Point]) -> str:
    tasks = list(dict.fromkeys((p.dataset_name, p.data, p.task) for p in points.values()))
    if len(tasks) > 1:
        said = [f"'{dataset}': {task}" for dataset, _, task in tasks]
        more = f" and {len(said) - 4} more" if len(said) > 4 else ""
        warnings.warn(
            f"bits compare models of one dataset and task only; found {len(tasks)} "
            f"({'; '.join(said[:4])}{more}), and the best of the first is returned. Choose between "
            f"the others by decoding, or give them in a grid of their own.",
            UserWarning,
            stacklevel=3,
        )
    alike = {n: p for n, p in points.items() if (p.dataset_name, p.data, p.task) == tasks[0]}
    judged = {n: _bits(p) for n, p in alike.items() if p.bits}
    if not judged:
        raise ConfigError(
            "no model could be judged on held-out data, the recording is too short for it; choose "
            "by scoring='infonce_loss'."
        )
    return max(judged, key=lambda n: judged[n])


def _lowest_loss(points: Mapping[str, _Point]) -> str:
    kinds = {(p.dataset_name, p.data, p.task, p.negatives) for p in points.values()}
    if len(kinds) > 1:
        warnings.warn(
            "the InfoNCE loss depends on the number of negatives and on the task, and these models "
            "differ in them: the lowest loss need not be the best model.",
            UserWarning,
            stacklevel=3,
        )
    return min(points, key=lambda n: points[n].loss)


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


# Drawing


def _panels(
    panels: Sequence[tuple[str, Any]], columns: int, size: float, kwargs: Mapping[str, Any]
) -> Figure:
    if columns < 1 or not panels:
        raise ConfigError(f"drawing takes models and at least 1 column; found {columns} columns.")
    orders = [latents(values, kwargs.get("idx_order"))[1] for _, values in panels]
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure = plt.figure(figsize=(size * columns, size * rows), layout="constrained")
    try:
        for i, (name, values) in enumerate(panels):
            flat = len(orders[i]) == 2
            ax = figure.add_subplot(rows, columns, i + 1, projection=None if flat else "3d")
            plot_embedding(values, ax=ax, **{"title": name.replace("_", " "), **kwargs})
    except BaseException:
        plt.close(figure)
        raise
    return figure


# The index


def _swept(grid: _Grid) -> list[dict[str, Any]]:
    return [
        {name: _from_json(point.parameters[name]) for name in grid.swept}
        for point in grid.trained.values()
    ]


def _to_json(value: Any) -> Any:
    """A parameter as JSON: tuples as lists, modules by name, generators by their kind."""
    if isinstance(value, Mapping):
        return {str(k): _to_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, str | int | float):
        return value
    return _word(value) if isinstance(value, nn.Module) else type(value).__name__


def _from_json(value: Any) -> Any:
    return tuple(_from_json(v) for v in value) if isinstance(value, list) else value


def _write(grid: _Grid, folder: Path | None) -> _Grid:
    """The index as the folder holds it."""
    if folder is not None:
        text = json.dumps(asdict(grid), indent=1)
        with write_atomic(folder / INDEX) as file:
            file.write(text.encode())
    return grid


def _read(folder: Path) -> _Grid:
    path = folder / INDEX
    try:
        grid = _GRID.validate_json(path.read_bytes())
    except OSError as error:
        raise FormatError(
            f"a folder of models must hold {INDEX}, which fit_models writes; {path}: "
            f"{error.strerror}."
        ) from error
    except ValidationError as error:
        raise FormatError(
            f"{path} is not the index of a grid: {str(error).splitlines()[0]}. Remove it to begin "
            f"anew."
        ) from error
    if grid.format != "grevy-grid" or not 1 <= grid.format_version <= _FORMAT_VERSION:
        raise FormatError(
            f"{path} must be an index of format 1 to {_FORMAT_VERSION}; found '{grid.format}' "
            f"{grid.format_version}. Upgrade grevy."
        )
    missing = [n for p in grid.trained.values() for n in grid.swept if n not in p.parameters]
    if missing:
        raise FormatError(f"{path} does not hold together: '{missing[0]}' has no value.")
    return grid
