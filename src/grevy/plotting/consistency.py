"""Consistency scores as a matrix, under the name that CEBRA users know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, to_rgb
from numpy.typing import ArrayLike, NDArray

from ..errors import ConfigError, DataError
from .canvas import array, canvas, colormap

__all__ = ["plot_consistency"]


def plot_consistency(
    scores: ArrayLike,
    pairs: ArrayLike | None = None,
    datasets: ArrayLike | None = None,
    ax: Axes | None = None,
    cmap: str | Colormap = "binary",
    text_color: str | None = "white",
    colorbar_label: str | None = "Consistency score (%)",
    title: str | None = None,
    figsize: tuple[float, float] = (5, 5),
    dpi: float = 100,
    **kwargs: Any,
) -> Axes:
    """Consistency between runs or datasets as a matrix of percentages.

    The row is the first of a pair and the column the second; what was not compared stays empty.

    Parameters
    ----------
    scores : array_like, shape (P,)
    pairs : array_like, shape (P, 2)
        What each score compares. Scores of a pair that comes again are averaged; where the scores
        are averages already, the pairs may still be repeated.
    datasets : array_like of names, optional
        The order of rows and columns; names may be repeated, as when a dataset has several
        embeddings. Runs, whose pairs hold none of these names, are ordered by their first pair.
    ax : Axes, optional
    cmap : str or Colormap
    text_color : str, optional
        Of the numbers, turned to black or white in cells where it could not be read; None leaves
        the numbers out.
    colorbar_label : str, optional
        None leaves the colour bar out.
    title : str, optional
    figsize, dpi
        Of the figure, where `ax` is not given.
    **kwargs
        For `Axes.imshow`; colours span 0 to 100 unless `vmin` and `vmax` say otherwise.

    Returns
    -------
    Axes

    Raises
    ------
    ConfigError
        Without pairs.
    DataError
        Scores, pairs and datasets that do not fit each other.
    """
    cells = _compared(scores, pairs)
    names = _rows(cells, datasets)
    matrix = np.full((len(names), len(names)), np.nan)
    for (first, second), score in cells.items():
        matrix[names.index(first), names.index(second)] = 100 * score
    scale = colormap(cmap)
    with canvas(ax, figsize, dpi, layout="tight") as axes:
        # A scale fitted to the scores would paint 96.8 white and 97.0 black.
        span = {} if "norm" in kwargs else {"vmin": 0, "vmax": 100}
        image = axes.imshow(matrix, cmap=scale, **{**span, **kwargs})
        if text_color is not None:
            _numbers(axes, image, matrix, text_color)
        if colorbar_label is not None:
            bar = axes.figure.colorbar(image, ax=axes, fraction=0.046, pad=0.04)
            bar.outline.set_visible(False)
            bar.set_label(colorbar_label)
        leaning: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
        short = max(map(len, names)) * len(names) <= 24
        axes.set_xticks(range(len(names)), names, **({} if short else leaning))
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        if title is not None:
            axes.set_title(title)
    return axes


def _compared(scores: ArrayLike, pairs: ArrayLike | None) -> dict[tuple[str, str], float]:
    """The score of each pair, once."""
    if pairs is None:
        raise ConfigError(
            "pairs must say what each score compares; found None; "
            "pass all that consistency_score returned"
        )
    values = np.atleast_1d(array(scores, "scores"))
    named = np.atleast_2d(array(pairs, "pairs"))
    if values.ndim != 1 or not len(values) or values.dtype.kind not in "biuf":
        raise DataError(
            "scores must be numbers, one for each pair; "
            f"found shape {values.shape} of dtype {values.dtype}; pass a list of scores"
        )
    if named.ndim != 2 or named.shape[1] != 2:
        raise DataError(
            "pairs must be two names for each score; "
            f"found shape {named.shape}; pass a list of pairs"
        )
    keys = [(str(first), str(second)) for first, second in named.tolist()]
    if len(keys) != len(values):
        keys = list(dict.fromkeys(keys))
    if len(keys) != len(values):
        raise DataError(
            f"pairs must be as many as scores; found {len(values)} scores for {len(named)} pairs, "
            f"{len(keys)} of them different; pass all that consistency_score returned"
        )
    found: dict[tuple[str, str], list[float]] = {}
    for key, value in zip(keys, values.tolist(), strict=True):
        found.setdefault(key, []).append(float(value))
    return {key: float(np.mean(same)) for key, same in found.items()}


def _rows(cells: Mapping[tuple[str, str], float], datasets: ArrayLike | None) -> list[str]:
    """Names of the rows: the datasets in their order, or the runs that were compared."""
    compared = list(dict.fromkeys(name for pair in cells for name in pair))
    if datasets is None:
        return compared
    given = [str(name) for name in np.atleast_1d(array(datasets, "datasets")).tolist()]
    missing = [name for name in compared if name not in given]
    if not missing:
        return list(dict.fromkeys(given))
    if len(missing) == len(compared):
        return compared
    raise DataError(
        f"datasets must hold every name of pairs, or, for runs, none; found {missing[0]!r} in "
        f"pairs but not among {', '.join(given)}; pass all that consistency_score returned"
    )


def _numbers(ax: Any, image: Any, matrix: NDArray[Any], colour: str) -> None:
    """A number in each cell, in a colour that can be read there; a dash in an empty one."""
    for (i, j), value in np.ndenumerate(matrix):
        text, ink = "–", "grey"
        if np.isfinite(value):
            light = _lightness(image.cmap(image.norm(value))[:3])
            readable = abs(light - _lightness(to_rgb(colour))) > 0.35
            text, ink = f"{value:.1f}", colour if readable else "black" if light > 0.5 else "white"
        ax.text(j, i, text, ha="center", va="center", color=ink)


def _lightness(rgb: Sequence[float]) -> float:
    return float(np.dot(rgb, (0.2126, 0.7152, 0.0722)))
