"""The samples of an embedding as points, under the name that CEBRA users know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, is_color_like, to_rgba_array
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from ..errors import ConfigError, DataError
from .canvas import array, canvas, colormap

__all__ = ["UNLABELLED", "colours", "latents", "plot_embedding", "vector"]

UNLABELLED = "#c9cdd3"
"""Colour of samples whose label is not a finite number."""


# What is given


def vector(labels: ArrayLike, n: int) -> NDArray[Any]:
    """Labels of `n` samples: numbers, or strings.

    Raises
    ------
    DataError
        Not one-dimensional, not of length n, or neither numbers nor strings.
    """
    values = array(labels, "embedding_labels")
    if values.ndim != 1:
        raise DataError(
            f"embedding_labels must have one dimension; found shape {values.shape}; "
            "plot one label at a time"
        )
    if len(values) != n:
        raise DataError(
            "embedding_labels must have one entry for each sample of the embedding; "
            f"found {len(values)} labels for {n} samples; cut both to the same samples"
        )
    if values.dtype.kind == "O" and all(isinstance(value, str) for value in values):
        values = values.astype(str)
    if values.dtype.kind not in "biufU":
        raise DataError(
            "embedding_labels must be numbers or strings; "
            f"found dtype {values.dtype}; convert them first"
        )
    return values


def colours(labels: ArrayLike | str | None, n: int) -> str | NDArray[np.float64]:
    """What colours `n` samples: one colour, numbers of shape (n,), or RGBA of shape (n, 4).

    Parameters
    ----------
    labels : array_like, shape (n,), or str, optional
        Numbers, colours, "time" (the number of the sample), or one colour; None is grey.
    n : int

    Raises
    ------
    DataError, ConfigError
        As `vector`; or strings that are no colours.
    """
    if labels is None:
        return "grey"
    if isinstance(labels, str):
        if labels == "time":
            return np.arange(n, dtype=np.float64)
        if is_color_like(labels):
            return labels
        raise ConfigError(
            f"embedding_labels must be an array, 'time' or a colour; found {labels!r}; "
            "see matplotlib's list of named colours"
        )
    values = vector(labels, n)
    if values.dtype.kind != "U":
        return values.astype(np.float64)
    wrong = [i for i, value in enumerate(values) if not is_color_like(value)]
    if wrong:
        raise DataError(
            "embedding_labels that are strings must be colours; "
            f"found {str(values[wrong[0]])!r} at sample {wrong[0]}; number the classes, "
            "or use plot_embedding_interactive with discrete=True"
        )
    return np.asarray(to_rgba_array(values.tolist()), dtype=np.float64)


def latents(
    embedding: ArrayLike, idx_order: Sequence[int] | None
) -> tuple[NDArray[Any], tuple[int, ...]]:
    """The two or three latents that are drawn.

    Parameters
    ----------
    embedding : array_like, shape (n, D)
    idx_order : sequence of 2 or 3 ints, optional
        Which latents, counted from 0; without it the first three, or both of two.

    Returns
    -------
    points : array, shape (n, k)
    order : tuple of int, length k
        k is 2 or 3.

    Raises
    ------
    DataError
        Not two-dimensional, fewer than two latents, or values that are not finite.
    ConfigError
        `idx_order` names latents that do not exist, or not 2 or 3 of them.

    Examples
    --------
    >>> latents([[1.0, 2.0, 3.0, 4.0]], None)
    (array([[1., 2., 3.]]), (0, 1, 2))
    >>> latents([[1.0, 2.0, 3.0, 4.0]], (3, 0))[0]
    array([[4., 1.]])
    """
    values = array(embedding, "embedding")
    if values.ndim != 2 or values.dtype.kind not in "biuf":
        raise DataError(
            "embedding must be an array of numbers, samples by latents; "
            f"found shape {values.shape} of dtype {values.dtype}; pass what transform returned"
        )
    width = values.shape[1]
    if idx_order is None:
        if width < 2:
            raise DataError(
                f"embedding must have at least 2 latents; found shape {values.shape}; "
                "plot a single latent as a line over time"
            )
        order: tuple[int, ...] = tuple(range(min(width, 3)))
    else:
        order = tuple(idx_order)
        whole = all(isinstance(i, (int, np.integer)) for i in order)
        if len(order) not in (2, 3) or not whole or not all(0 <= i < width for i in order):
            raise ConfigError(
                f"idx_order must hold 2 or 3 latents between 0 and {width - 1}; "
                f"found {order}; choose among the {width} latents of the embedding"
            )
    points = values[:, list(order)]
    bad = np.argwhere(~np.isfinite(points))
    if len(bad):
        row, column = bad[0]
        raise DataError(
            f"embedding must be finite; found {points[row, column]} at sample {row}, "
            f"latent {order[column]}, and {len(bad)} such values in all; leave these samples out"
        )
    return points, tuple(int(i) for i in order)


# What is drawn


def plot_embedding(
    embedding: ArrayLike,
    embedding_labels: ArrayLike | str | None = "grey",
    ax: Axes | None = None,
    idx_order: Sequence[int] | None = None,
    markersize: float = 0.05,
    alpha: float = 0.4,
    cmap: str | Colormap = "cool",
    title: str = "Embedding",
    figsize: tuple[float, float] = (5, 5),
    dpi: float = 100,
    **kwargs: Any,
) -> Axes:
    """The samples of an embedding as points in two or three dimensions.

    Parameters
    ----------
    embedding : array_like, shape (n, D)
        With D = 2 both latents are drawn; with more, the first three.
    embedding_labels : array_like of shape (n,), or str
        Numbers for `cmap` (samples with a label that is not finite are pale grey), colours,
        "time" (order of the samples), or one colour for all.
    ax : Axes, optional
        With projection "3d" where three latents are drawn. Without it a new figure of `figsize`
        inches and `dpi`, in which all latents have one scale.
    idx_order : sequence of 2 or 3 ints, optional
        Which latents to draw on x, y (and z), counted from 0.
    markersize, alpha, cmap
        Of the points.
    title : str
    **kwargs
        For `Axes.scatter`; and `grey_fig=True` for a title and frame that can be read on black
        and on white.

    Returns
    -------
    Axes

    Raises
    ------
    DataError
        An embedding that is not finite or has one latent; labels of another length.
    ConfigError
        An impossible `idx_order`, an unknown colour, or `ax` of another dimension.
    """
    points, order = latents(embedding, idx_order)
    shade = colours(embedding_labels, len(points))
    grey = kwargs.pop("grey_fig", False)
    for short, name in (("c", "embedding_labels"), ("s", "markersize")):
        if short in kwargs:
            raise ConfigError(
                f"scatter's {short} must be given as {name}; found {short}; rename it"
            )
    scale = colormap(cmap)
    with canvas(ax, figsize, dpi, dimensions=len(order), layout="tight") as axes:
        _points(axes, points, shade, scale, {"s": markersize, "alpha": alpha, **kwargs})
        if ax is None:
            axes.set_aspect("equal")
        axes.set_title(title)
        _name_latents(axes, order)
        if grey:
            _in_grey(axes)
    return axes


def _points(
    ax: Any,
    points: NDArray[Any],
    shade: str | NDArray[np.float64],
    cmap: Colormap,
    marks: dict[str, Any],
) -> None:
    if points.shape[1] == 3:
        marks = {"depthshade": False, **marks}  # a colour says the label and nothing else
    if isinstance(shade, str) or shade.ndim == 2:
        ax.scatter(*points.T, c=shade, **marks)
        return
    known = np.isfinite(shade)
    ax.scatter(*points[known].T, c=shade[known], cmap=cmap, **marks)
    if not known.all():
        pale = {k: v for k, v in marks.items() if k not in ("norm", "vmin", "vmax", "label")}
        ax.scatter(*points[~known].T, c=UNLABELLED, zorder=0, **pale)


def _name_latents(ax: Any, order: Sequence[int]) -> None:
    """Names of the axes, few ticks, and in three dimensions no panes."""
    for letter, i in zip("xyz", order, strict=False):
        getattr(ax, f"set_{letter}label")(f"latent {i}")
        getattr(ax, f"{letter}axis").set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    if ax.name != "3d":
        return
    ax.grid(False)
    ax.tick_params(labelsize="x-small", pad=0)
    for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
        axis.label.set_size("small")
        axis.labelpad = 0
        axis.pane.fill = False
        axis.pane.set_edgecolor("white")


def _in_grey(ax: Any) -> None:
    ax.title.set_color("grey")
    axes = [ax.xaxis, ax.yaxis]
    if ax.name == "3d":
        axes.append(ax.zaxis)
        for axis in axes:
            axis.pane.set_edgecolor("grey")
            axis.line.set_color("grey")
    ax.tick_params(colors="grey")
    for axis in axes:
        axis.label.set_color("grey")
    for spine in ax.spines.values():
        spine.set_color("grey")
