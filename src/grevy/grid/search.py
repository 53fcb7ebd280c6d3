"""Grids of CEBRA models: trained together, judged on data they did not see, kept in one folder.

Source: Schneider, Lee & Mathis 2023 (doi:10.1038/s41586-023-06031-6); methods and names of models
are those of `cebra.grid_search` 0.6.1, where docs/differences.md does not say otherwise.

A folder holds one file a model, `NAME.pt`, as `CEBRA.save` writes it (safetensors, whatever the
suffix: the one notebooks expect), and `grid.json`, which says what belongs to the last grid. Other
files in it are never read.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from ..atomic import remove_parts
from ..errors import ConfigError, DivergedError, FormatError
from ..estimator import CEBRA
from ..inputs import is_sessions
from ..locks import hold_folder, refuse_foreign
from ..parameters import seed_of
from ..plotting.embeddings import latents, plot_embedding
from ..plotting.models import compare_models
from ..unfinished import Checkpoint
from .index import INDEX, Grid, Point, file_of, from_json, read, swept_of, write
from .jobs import Job, jobs_of, models_of, progress, split, still_there, train_jobs, unpacked

__all__ = ["GridSearch"]


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
        self._grid: Grid | None = None
        self._datasets: dict[str, Any] = {}

    @property
    def parameter_grid(self) -> list[dict[str, Any]]:
        """The swept parameters of each trained model."""
        return [] if self._grid is None else swept_of(self._grid)

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
        return models_of(params)

    def fit_models(
        self,
        datasets: Mapping[str, Any],
        params: Mapping[str, Any],
        models_dir: str | Path | None = "saved_models",
        *,
        checkpoint_s: float = 30.0,
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
        checkpoint_s : float
            Seconds of training that are lost at most when the process is ended: the same call
            goes on in the folder.

        Returns
        -------
        self

        Raises
        ------
        DataError
            If a dataset is not what is promised above.
        ConfigError
            If parameters are outside their allowed values, or the folder holds something and no
            grid; nothing is trained then.
        DivergedError
            If every model that was still to be trained diverged. Of several, those that do are
            left out with a warning.
        LockedError
            If another process works in the folder.
        """
        if models_dir is None:
            grid = Grid(seed_of(None))
            return self._fit(jobs_of(datasets, params, grid.seed), grid, datasets, params)
        folder = Path(models_dir)
        refuse_foreign(folder, INDEX, advice="Name another folder.")
        before = read(folder) if (folder / INDEX).exists() else None
        seed = seed_of(None) if before is None else before.seed
        jobs = jobs_of(datasets, params, seed)  # before a folder is made
        with hold_folder(folder, advice="wait for it, or name another folder."):
            before = read(folder) if (folder / INDEX).exists() else None
            if before is not None and before.seed != seed:  # another process has just made it
                jobs = jobs_of(datasets, params, before.seed)
            for place in (folder, folder / "unfinished"):
                remove_parts(place)
            if before is None:  # a seed that was given is kept: equal calls leave equal files
                given = jobs and split(params)[0].get("random_state") is not None
                before = Grid(int(jobs[0].config.seed) if given else seed)
            checkpoint = Checkpoint(folder / "unfinished", every_s=checkpoint_s)
            return self._fit(jobs, before, datasets, params, folder, checkpoint)

    def _fit(
        self,
        jobs: list[Job],
        before: Grid,
        datasets: Mapping[str, Any],
        params: Mapping[str, Any],
        folder: Path | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> Self:
        """Train what is missing; a folder is held meanwhile."""
        new = {job.name: job for job in jobs}
        old = before.points
        models = still_there(jobs, old, folder)
        points = {n: p for n, p in old.items() if n not in new or n in models}
        points |= {n: replace(points[n], parameters=new[n].parameters) for n in models}
        grid = Grid(before.seed, sorted(split(params)[1]), list(new), points)
        self._grid, self.models_dir = write(grid, folder), folder
        self.models, self._datasets = models, dict(datasets)
        missing = [job for job in jobs if job.name not in models]
        with progress(missing) as on_step:
            for job, run, bits in train_jobs(missing, on_step, checkpoint):
                model = job.model._keep(run, job.sessions, int(job.config.seed))
                if folder is not None:
                    model.save(folder / file_of(job.name))
                self.models[job.name] = model
                points = {**self._grid.points, job.name: job.point(run, bits)}
                self._grid = write(replace(self._grid, points=points), folder)
        if checkpoint is not None:
            checkpoint.clear()  # of a process that was killed with nothing left to train, too
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
        return {name: search._model(name) for name in grid.trained}, swept_of(grid)

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
            bits above chance; `bits_sd`, its standard deviation, and `bits_low` and `bits_high`,
            the 95 % t interval over folds, which share training data (NaN where fewer than two
            could be judged); `dataset_name`; `task`. Bits compare only rows of one dataset and one
            task.

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
                    **{k: from_json(v) for k, v in {**first, **point.parameters}.items()},
                    "loss": point.loss,
                    "bits": _bits(point),
                    **_spread(point.bits),
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
            X = unpacked(point.dataset_name, data[point.dataset_name])[0]
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

    def _opened(self, models_dir: str | Path | None) -> Grid:
        """The grid in a folder, or the last one; models that are not of it are forgotten."""
        if models_dir is not None:
            self._grid, self.models_dir = read(Path(models_dir)), Path(models_dir)
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
            path = folder / file_of(name)
            model = CEBRA.load(path)
            if model.run_.digest != grid.points[name].digest:
                raise FormatError(
                    f"{path} must hold the model that the grid was made with; found other weights. "
                    f"Call fit_models again."
                )
            self.models[name] = model
        return self.models[name]


def _bits(point: Point) -> float:
    return float(np.mean(point.bits)) if point.bits else math.nan


def _spread(bits: Sequence[float]) -> dict[str, float]:
    """Standard deviation over folds, and the 95 % t interval of the mean."""
    if len(bits) < 2:
        return dict.fromkeys(("bits_sd", "bits_low", "bits_high"), np.nan)
    mean, sd = float(np.mean(bits)), float(np.std(bits, ddof=1))
    half = float(stats.t.ppf(0.975, len(bits) - 1)) * sd / math.sqrt(len(bits))
    return {"bits_sd": sd, "bits_low": mean - half, "bits_high": mean + half}


def _most_bits(points: Mapping[str, Point]) -> str:
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


def _lowest_loss(points: Mapping[str, Point]) -> str:
    kinds = {(p.dataset_name, p.data, p.task, p.negatives) for p in points.values()}
    if len(kinds) > 1:
        warnings.warn(
            "the InfoNCE loss depends on the number of negatives and on the task, and these models "
            "differ in them: the lowest loss need not be the best model.",
            UserWarning,
            stacklevel=3,
        )
    return min(points, key=lambda n: points[n].loss)


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
