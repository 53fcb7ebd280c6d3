"""Where the figures of fitted estimators are drawn, and with which colours."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Real
from typing import Any, Literal

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from numpy.typing import ArrayLike, NDArray

from ..errors import ConfigError, DataError

__all__ = ["array", "canvas", "colormap"]

# Dark to light to warm, so that neighbours differ in lightness as well as in hue.
_GRADIENT = LinearSegmentedColormap.from_list(
    "cebra", ["#332288", "#0072b2", "#1f9e89", "#e6a700", "#d55e00"]
)


def array(values: ArrayLike, name: str) -> NDArray[Any]:
    """Any array, tensor (on any device) or list as a numpy array."""
    given: Any = values
    if hasattr(given, "detach"):
        given = given.detach().cpu()
    try:
        found = np.asarray(given)
        # Lists of embeddings are often kept in arrays of objects; what they hold are numbers.
        if found.dtype == object and found.ndim and all(_is_number(v) for v in found.flat):
            found = found.astype(np.float64)
        return found
    except ValueError:
        raise DataError(
            f"{name} must be one array; found a sequence of unequal parts; "
            "plot the parts one by one"
        ) from None


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def colormap(cmap: str | Colormap | None) -> Colormap:
    """A colour map by name; "cebra" is a gradient of this package's own, registered nowhere.

    Raises
    ------
    ConfigError
        No colour map has that name.
    """
    if isinstance(cmap, str) and cmap == "cebra":
        return _GRADIENT
    if isinstance(cmap, str) and cmap not in mpl.colormaps:
        near = difflib.get_close_matches(cmap, ["cebra", *mpl.colormaps], n=3)
        raise ConfigError(
            f"cmap must name a colour map; found {cmap!r}; "
            + (f"did you mean {' or '.join(near)}?" if near else "see matplotlib.colormaps")
        )
    return plt.get_cmap(cmap)


@contextmanager
def canvas(
    ax: Axes | None,
    figsize: tuple[float, float],
    dpi: float,
    *,
    dimensions: int = 2,
    layout: Literal["tight"] | None = None,
) -> Iterator[Axes]:
    """The given axes, or new ones, whose figure is closed again if drawing in them fails.

    Parameters
    ----------
    ax : Axes, optional
    figsize, dpi, layout
        Of the new figure.
    dimensions : int
        2 or 3: of what will be drawn.

    Raises
    ------
    ConfigError
        `ax` is no Axes, or has other dimensions.
    """
    if ax is not None:
        _check_axes(ax, dimensions)
        yield ax
        return
    figure = plt.figure(figsize=figsize, dpi=dpi, layout=layout)
    try:
        new = figure.add_subplot(projection="3d" if dimensions == 3 else None)
        if dimensions == 2:
            new.spines[["top", "right"]].set_visible(False)
        yield new
    except BaseException:
        plt.close(figure)
        raise


def _check_axes(ax: Any, dimensions: int) -> None:
    if not isinstance(ax, Axes):
        raise ConfigError(
            f"ax must be one matplotlib Axes; found {type(ax).__name__}; "
            "take one out of what plt.subplots returned"
        )
    if (ax.name == "3d") != (dimensions == 3):
        raise ConfigError(
            f"ax must have {dimensions} dimensions for what is drawn; found projection "
            f"{ax.name!r}; make it with "
            + ("add_subplot(projection='3d')" if dimensions == 3 else "add_subplot()")
        )
