"""Figures of fitted estimators, under the names and with the parameters that CEBRA users know.

Each function draws into the Axes given as `ax`, or into a figure of its own, which stays with
pyplot so that notebooks and `plt.show()` show it. Everything is checked before anything is drawn,
and a figure of its own is closed again if drawing fails.

A `model` is anything with `state_dict_["loss"]` (one number a step),
`state_dict_["log"]["temperature"]`, `temperature_mode`, `temperature` and `transform`; arrays may
be numpy arrays, tensors, or lists.

References
----------
Names, parameters and defaults: CEBRA 0.6.1 (Schneider, Lee & Mathis 2023, Nature 617:360-368).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from types import MappingProxyType
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import NotFittedError

from ..errors import ConfigError, DataError
from .canvas import array, canvas, colormap
from .consistency import plot_consistency
from .embeddings import latents, plot_embedding

__all__ = [
    "compare_models",
    "plot",
    "plot_consistency",
    "plot_embedding",
    "plot_loss",
    "plot_overview",
    "plot_temperature",
]

_NOTHING: Mapping[str, Any] = MappingProxyType({})


# What is given


def _fitted(model: Any) -> Mapping[str, Any]:
    """What training left in the model."""
    state: Mapping[str, Any] | None = getattr(model, "state_dict_", None)
    if state is None:
        raise NotFittedError(
            f"the model must be fitted before it is plotted; this {type(model).__name__} "
            "is not; call fit first"
        )
    return state


def _loss(model: Any) -> NDArray[Any]:
    values = array(_fitted(model).get("loss", ()), "the loss")
    if values.ndim != 1 or len(values) == 0:
        raise DataError(
            "the loss must hold one number for each training step; "
            f"found shape {values.shape} in state_dict_['loss']; fit the model again"
        )
    return values


def _temperature(model: Any) -> NDArray[Any]:
    """Temperature at each step; a constant one is known even where no log was kept."""
    log = _fitted(model).get("log", _NOTHING)
    values = array(log.get("temperature", ()), "the temperature")
    if len(values):
        return values
    constant = getattr(model, "temperature", None)
    if getattr(model, "temperature_mode", None) != "constant" or constant is None:
        raise DataError(
            "the temperature must have been logged during training; "
            "found an empty state_dict_['log']['temperature']; fit the model again"
        )
    return np.full(len(_loss(model)), float(constant))


def _curve(
    ax: Any, values: NDArray[Any], y_name: str, x_label: bool, y_label: bool, **kw: Any
) -> None:
    ax.plot(values, **kw)
    if x_label:
        ax.set_xlabel("Steps")
    if y_label:
        ax.set_ylabel(y_name)


# What is drawn


def plot_loss(
    model: Any,
    label: str | float | None = None,
    ax: Axes | None = None,
    color: str = "magenta",
    linewidth: float = 1,
    x_label: bool = True,
    y_label: bool = True,
    figsize: tuple[float, float] = (7, 4),
    dpi: float = 100,
    **kwargs: Any,
) -> Axes:
    """Training loss over steps.

    Parameters
    ----------
    model : fitted estimator
    label : str or number, optional
        Name of the line in a legend.
    ax : Axes, optional
        Where to draw; without it a new figure of `figsize` inches and `dpi`.
    color, linewidth
        Of the line.
    x_label, y_label : bool
        Whether to name the axes.
    **kwargs
        For `Axes.plot`.

    Returns
    -------
    Axes

    Raises
    ------
    sklearn.exceptions.NotFittedError
    """
    loss = _loss(model)
    criterion = getattr(model, "criterion", "infonce")
    name = "InfoNCE" if criterion == "infonce" else criterion
    with canvas(ax, figsize, dpi) as axes:
        line = {"color": color, "linewidth": linewidth, "label": label, **kwargs}
        _curve(axes, loss, f"{name} Loss", x_label, y_label, **line)
        if label is not None:
            axes.legend()
    return axes


def plot_temperature(
    model: Any,
    ax: Axes | None = None,
    color: str = "dodgerblue",
    linewidth: float = 1,
    x_label: bool = True,
    y_label: bool = True,
    figsize: tuple[float, float] = (7, 4),
    dpi: float = 100,
    **kwargs: Any,
) -> Axes:
    """Temperature of the loss over training steps; it changes with `temperature_mode="auto"`.

    Parameters
    ----------
    model : fitted estimator
    ax, color, linewidth, x_label, y_label, figsize, dpi, **kwargs
        As in `plot_loss`.

    Returns
    -------
    Axes

    Raises
    ------
    sklearn.exceptions.NotFittedError
    DataError
        A learned temperature was not logged.
    """
    temperature = _temperature(model)
    with canvas(ax, figsize, dpi) as axes:
        line = {"color": color, "linewidth": linewidth, **kwargs}
        _curve(axes, temperature, "Temperature", x_label, y_label, **line)
    return axes


def compare_models(
    models: Sequence[Any],
    labels: Sequence[str | float] | None = None,
    ax: Axes | None = None,
    color: str | None = None,
    cmap: str | Colormap = "cebra",
    linewidth: float = 1,
    x_label: bool = True,
    y_label: bool = True,
    figsize: tuple[float, float] = (7, 4),
    dpi: float = 100,
    **kwargs: Any,
) -> Axes:
    """Training losses of several models in one Axes.

    Losses compare only between models with the same number of negatives and the same temperature.

    Parameters
    ----------
    models : sequence of fitted estimators
    labels : sequence of str or number, optional
        One for each model, for the legend.
    ax : Axes, optional
    color : str, optional
        One colour for all models; without it as many colours as models, evenly from `cmap`.
    cmap : str or Colormap
        "cebra" is a gradient of this package's own.
    linewidth, x_label, y_label, figsize, dpi, **kwargs
        As in `plot_loss`.

    Returns
    -------
    Axes

    Raises
    ------
    ConfigError
        No list of models, or labels that are not one for each.
    sklearn.exceptions.NotFittedError
        One of the models is not fitted.
    """
    if not isinstance(models, (list, tuple)) or not models:
        found = "an empty one" if isinstance(models, (list, tuple)) else type(models).__name__
        raise ConfigError(
            f"models must be a list of fitted models; found {found}; put the models into a list"
        )
    for model in models:
        _loss(model)
    names = _model_names(labels, len(models))
    shades = colormap(cmap)(np.linspace(0, 1, len(models)))
    line = {"linewidth": linewidth, "x_label": x_label, "y_label": y_label, **kwargs}
    with canvas(ax, figsize, dpi) as axes:
        for model, name, shade in zip(models, names, shades, strict=True):
            plot_loss(model, label=name, ax=axes, color=shade if color is None else color, **line)
    return axes


def _model_names(labels: Any, n: int) -> list[Any]:
    if labels is None:
        return [None] * n
    if isinstance(labels, str) or not isinstance(labels, Sequence | np.ndarray):
        raise ConfigError(
            "labels must be a list with one name for each model; "
            f"found {type(labels).__name__}; put the names into a list"
        )
    if len(labels) != n:
        raise ConfigError(
            "labels must be one name for each model; "
            f"found {len(labels)} labels for {n} models; give as many of both"
        )
    for i, label in enumerate(labels):
        if not isinstance(label, (str, Real)):
            raise ConfigError(
                "labels must be strings or numbers; "
                f"found {type(label).__name__} at position {i}; name that model by a string"
            )
    return list(labels)


def plot_overview(
    model: Any,
    X: ArrayLike,
    loss_kwargs: Mapping[str, Any] = _NOTHING,
    temperature_kwargs: Mapping[str, Any] = _NOTHING,
    embedding_kwargs: Mapping[str, Any] = _NOTHING,
    figsize: tuple[float, float] = (15, 4),
    dpi: float = 100,
    *,
    session_id: int | None = None,
    **kwargs: Any,
) -> tuple[Figure, tuple[Axes, Axes, Axes]]:
    """Loss, temperature and embedding of a model in one figure.

    Parameters
    ----------
    model : fitted estimator
    X : array_like, shape (n, n_features)
        What to embed.
    loss_kwargs, temperature_kwargs, embedding_kwargs : mapping
        For `plot_loss`, `plot_temperature` and `plot_embedding`; they win over `kwargs`.
    figsize, dpi
        Of the figure.
    session_id : int, optional
        Whose encoder embeds `X`, in a model of several sessions.
    **kwargs
        For all three.

    Returns
    -------
    figure : Figure
    axes : tuple of three Axes
        Of the loss, the temperature and the embedding.

    Raises
    ------
    sklearn.exceptions.NotFittedError
    DataError, ConfigError
        As the three functions.
    """
    embedding = _transformed(model, X, session_id)
    drawn: dict[str, Any] = {"markersize": 0.01, **kwargs, **embedding_kwargs}
    _, order = latents(embedding, drawn.get("idx_order"))
    figure = plt.figure(figsize=figsize, dpi=dpi)
    try:
        grid = figure.add_gridspec(2, 2, wspace=0.08, hspace=0.15)
        above = figure.add_subplot(grid[0, 0])
        below = figure.add_subplot(grid[1, 0], sharex=above)
        right = figure.add_subplot(grid[:, 1], projection="3d" if len(order) == 3 else None)
        plot_loss(model, ax=above, **{"x_label": False, **kwargs, **loss_kwargs})
        plot_temperature(model, ax=below, **{**kwargs, **temperature_kwargs})
        plot_embedding(embedding, ax=right, **drawn)
    except BaseException:
        plt.close(figure)
        raise
    above.tick_params(labelbottom=False)
    for panel in (above, below):
        panel.spines[["top", "right"]].set_visible(False)
    figure.align_ylabels((above, below))
    right.set_aspect("equal")
    return figure, (above, below, right)


def _transformed(model: Any, X: ArrayLike, session_id: int | None) -> NDArray[Any]:
    _fitted(model)
    where = {} if session_id is None else {"session_id": session_id}
    return array(model.transform(X, **where), "embedding")


def plot(
    model: Any,
    which: str = "loss",
    X: ArrayLike | None = None,
    ax: Axes | None = None,
    *,
    session_id: int | None = None,
    **kwargs: Any,
) -> Axes:
    """One of a model's figures, by name.

    Parameters
    ----------
    model : fitted estimator
    which : {"loss", "temperature", "embedding"}
    X : array_like, shape (n, n_features), optional
        What to embed; needed for "embedding" alone.
    ax : Axes, optional
    session_id : int, optional
        Whose encoder embeds `X`, in a model of several sessions.
    **kwargs
        For `plot_loss`, `plot_temperature` or `plot_embedding`.

    Returns
    -------
    Axes

    Raises
    ------
    ConfigError
        Another name, or no `X` for the embedding.
    sklearn.exceptions.NotFittedError
    """
    if which == "loss":
        return plot_loss(model, ax=ax, **kwargs)
    if which == "temperature":
        return plot_temperature(model, ax=ax, **kwargs)
    if which != "embedding":
        raise ConfigError(
            f"which must be loss, temperature or embedding; found {which!r}; choose one of these"
        )
    if X is None:
        raise ConfigError(
            "which='embedding' needs the data to embed; found X=None; pass X, samples by features"
        )
    return plot_embedding(_transformed(model, X, session_id), ax=ax, **kwargs)
