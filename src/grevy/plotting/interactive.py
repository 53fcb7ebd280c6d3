"""An embedding that can be turned and zoomed, drawn by plotly under the name CEBRA users know."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.colors import Colormap, to_hex
from numpy.typing import ArrayLike, NDArray

from ..errors import ConfigError
from .canvas import colormap
from .embeddings import UNLABELLED, colours, latents, vector

__all__ = ["plot_embedding_interactive"]

_MOST_CLASSES = 256
_STEPS = 32


def plot_embedding_interactive(
    embedding: ArrayLike,
    embedding_labels: ArrayLike | str | None = "grey",
    axis: go.Figure | None = None,
    markersize: float = 1,
    idx_order: Sequence[int] | None = None,
    alpha: float = 0.4,
    cmap: str | Colormap = "cool",
    title: str = "Embedding",
    figsize: tuple[float, float] = (5, 5),
    dpi: float = 100,
    *,
    discrete: bool = False,
    showlegend: bool | None = None,
    row: int | None = None,
    col: int | None = None,
    template: str = "plotly_white",
    **kwargs: Any,
) -> go.Figure:
    """The samples of an embedding as points in two or three dimensions, in plotly.

    Parameters
    ----------
    embedding : array_like, shape (n, D)
        With D = 2 both latents are drawn in a plane; with more, the first three in space.
    embedding_labels : array_like of shape (n,), or str
        Numbers for `cmap` (samples with a label that is not finite are pale grey), colours,
        "time" (order of the samples), or one colour for all. With `discrete` any names.
    axis : plotly Figure, optional
        Where to draw.
    markersize, alpha, cmap
        Of the points.
    idx_order : sequence of 2 or 3 ints, optional
        Which latents to draw on x, y (and z), counted from 0.
    title : str
    figsize, dpi
        Width and height of a new figure in inches, and pixels per inch.
    discrete : bool
        Each label is a class, with a colour of its own and a place in the legend.
    showlegend : bool, optional
        Whether there is a legend; without it, where `discrete` is.
    row, col : int, optional
        The subplot of `axis`, counted from 1; both or none.
    template : str
        Of plotly.
    **kwargs
        For `Scatter3d`, or `Scattergl` for two latents.

    Returns
    -------
    plotly Figure

    Raises
    ------
    DataError
        An embedding that is not finite or has one latent; labels of another length.
    ConfigError
        An impossible `idx_order`, an unknown colour, a legend without classes, half a subplot.
    """
    points, order = latents(embedding, idx_order)
    scale = colormap(cmap)
    if discrete:
        groups = _classes(embedding_labels, len(points), scale)
    elif showlegend:
        raise ConfigError(
            "a legend needs classes; found showlegend=True with discrete=False; set discrete=True"
        )
    else:
        groups = _shades(colours(embedding_labels, len(points)), len(points), scale)
    if (row is None) != (col is None):
        raise ConfigError(
            "row and col must be given together; "
            f"found row={row} and col={col}; name both, or neither"
        )
    kind = go.Scatter3d if len(order) == 3 else go.Scattergl
    traces = []
    for name, chosen, look in groups:
        place = dict(zip("xyz", points[chosen].T, strict=False))
        marker = {"size": markersize, "opacity": alpha, **look}
        traces.append(
            kind(**{**place, "mode": "markers", "marker": marker, "name": name, **kwargs})
        )
    if axis is None:
        axis = _new_figure(dpi * figsize[0], dpi * figsize[1])
    for trace in traces:
        axis.add_trace(trace, row=row, col=col)
    axis.update_layout(
        template=template,
        title=title,
        showlegend=discrete if showlegend is None else showlegend,
        legend={"itemsizing": "constant"},  # the points themselves are too small for a legend
    )
    _name_latents(axis, order)
    return axis


def _new_figure(width: float, height: float) -> go.Figure:
    """An empty figure with narrow margins, seen from far enough for the names of the axes."""
    camera = {"eye": {"x": 1.6, "y": 1.6, "z": 1.1}}
    margin = {"l": 10, "r": 10, "b": 10, "t": 50}
    scene = {"camera": camera}
    return go.Figure(layout={"width": width, "height": height, "margin": margin, "scene": scene})


_Group = tuple[str, NDArray[Any], dict[str, Any]]


def _classes(labels: Any, n: int, scale: Colormap) -> list[_Group]:
    """Name, members and colour of each class."""
    if labels is None or isinstance(labels, str):
        raise ConfigError(
            f"discrete=True needs one label for each sample; found {labels!r}; "
            "pass an array of classes"
        )
    values, member = np.unique(vector(labels, n), return_inverse=True)
    if len(values) > _MOST_CLASSES:
        raise ConfigError(
            f"discrete=True draws at most {_MOST_CLASSES} classes; found {len(values)} different "
            "labels; set discrete=False for numbers"
        )
    shades = scale(np.linspace(0, 1, len(values)))
    return [
        (
            html.escape(str(value), quote=False),
            np.flatnonzero(member == i),
            {"color": to_hex(shades[i])},
        )
        for i, value in enumerate(values)
    ]


def _shades(shade: str | NDArray[np.float64], n: int, scale: Colormap) -> list[_Group]:
    """One group with its colours; a second one for samples without a label."""
    if isinstance(shade, str):
        return [("", np.arange(n), {"color": to_hex(shade)})]
    if shade.ndim == 2:
        return [("", np.arange(n), {"color": [to_hex(rgba) for rgba in shade]})]
    known = np.isfinite(shade)
    at = np.linspace(0, 1, _STEPS)
    steps = [[float(x), to_hex(rgba)] for x, rgba in zip(at, scale(at), strict=True)]
    groups: list[_Group] = [("", known, {"color": shade[known], "colorscale": steps})]
    if not known.all():
        groups.append(("no label", ~known, {"color": UNLABELLED}))
    return groups


def _name_latents(figure: go.Figure, order: Sequence[int]) -> None:
    """Titles of the axes of the subplot that was drawn last."""
    last = figure.data[-1]
    titles = [{"title": {"text": f"latent {i}"}} for i in order]
    if len(order) == 3:
        place = last.scene or "scene"
        axes = dict(zip(("xaxis", "yaxis", "zaxis"), titles, strict=True))
        figure.update_layout({place: {**axes, "aspectmode": "data"}})
        return
    x, y = (last.xaxis or "x")[1:], (last.yaxis or "y")[1:]
    figure.update_layout({f"xaxis{x}": titles[0], f"yaxis{y}": titles[1]})
    figure.update_layout({f"yaxis{y}": {"scaleanchor": f"x{x}"}})
