"""Figures of a run: each function draws rows or arrays into an Axes and returns it.

One method and one stimulus have the same colour in every figure. Text that comes from a file is
passed through `plain`, so that matplotlib takes none of it for mathematics.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize, to_rgb
from mpl_toolkits.mplot3d.art3d import Line3DCollection
from numpy.typing import ArrayLike, NDArray

from ..results import (
    Candidate,
    Claim,
    Confusion,
    Difference,
    History,
    LabelTrace,
    Presentation,
    Score,
)

__all__ = [
    "CHANCE",
    "METHOD_COLOURS",
    "NO_STIMULUS",
    "NULL",
    "STYLE",
    "bits",
    "bounds",
    "candidates",
    "cloud",
    "confusion",
    "decoding",
    "differences",
    "displayed",
    "loss",
    "path",
    "plain",
    "settings_text",
    "stimulus_colours",
    "timeline",
    "trace",
]

METHOD_COLOURS: Mapping[str, str] = {
    "embedding": "#0072b2",
    "raw kNN": "#e69f00",
    "PCA kNN": "#7fb8a4",
    "UMAP kNN": "#c98aa8",
    "linear": "#a58ac0",
    "constant": "#8c8c8c",
}
_HUES = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255"),
    *("#332288", "#999933", "#44aa99", "#cc6677", "#117733", "#aa4499", "#b8a04c"),
)
_INK, _FAINT, _GRID = "#262b33", "#8b929c", "#eef0f2"
NO_STIMULUS = "#c9cdd3"
"""Colour of samples without a stimulus."""
CHANCE = "#b3261e"
"""Colour of the chance mark."""
NULL = "#dfe2e7"
"""Colour of the band of a null."""

STYLE: dict[Any, Any] = {
    "text.usetex": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.edgecolor": _FAINT,
    "axes.linewidth": 0.8,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
}
"""What `matplotlib.rc_context` should hold while these functions draw."""


def plain(text: str, most: int = 44) -> str:
    r"""Text from a file as matplotlib should show it: no mathematics, one line, not too long.

    Examples
    --------
    >>> plain(r"$\frac{1}{0}$")
    '\\$\\frac{1}{0}\\$'
    >>> plain("a" * 50, most=10)
    'aaaaaaaaa…'
    """
    shown = "".join("\ufffd" if unicodedata.category(c)[0] == "C" else c for c in text[:most])
    if len(text) > most:
        shown = shown[: most - 1] + "…"
    # A label that begins with an underscore would be left out of legends.
    return (" " + shown if shown.startswith("_") else shown).replace("$", r"\$")


def stimulus_colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each stimulus, by its place in the session; pale for the second time around."""
    n = len(_HUES)
    colours = {}
    for i, name in enumerate(dict.fromkeys(names)):
        r, g, b = to_rgb(_HUES[i % n])
        pale = 1 - 0.6 ** (i // n)
        colours[name] = "#" + "".join(f"{round(255 * (c + (1 - c) * pale)):02x}" for c in (r, g, b))
    return colours


def settings_text(rows: Sequence[Candidate]) -> list[str]:
    """Each candidate by the settings in which the candidates differ."""
    keys = list(dict.fromkeys(key for row in rows for key in row.settings))
    varied = [k for k in keys if len({str(row.settings.get(k)) for row in rows}) > 1] or keys
    return [
        ", ".join(f"{k.replace('_', ' ')} {row.settings.get(k, '–')}" for k in varied)
        for row in rows
    ]


# Training and choice


def loss(history: History, ax: Axes) -> Axes:
    """Training loss over steps, with the loss of a model that knows nothing."""
    ax.plot(history.step, history.total, color=METHOD_COLOURS["embedding"], lw=1.2)
    ax.axhline(history.chance, color=_FAINT, ls=(0, (4, 3)), lw=1)
    _note(ax, f"chance: {history.chance:.2f}", history.chance, _FAINT)
    ax.set(xlabel="training step", ylabel="InfoNCE loss (nats)", title="Loss (lower is better)")
    ax.margins(x=0.01, y=0.12)
    return ax


def bits(history: History, ax: Axes) -> Axes:
    """Bits above chance over steps: what the loss says on a scale where knowing nothing is 0."""
    ax.plot(history.step, history.bits, color="#009e73", lw=1.2)
    ax.axhline(0, color=_FAINT, ls=(0, (4, 3)), lw=1)
    last = f", {history.bits[-1]:.2f} at the end" if history.bits else ""
    ax.set(xlabel="training step", ylabel="bits above chance")
    ax.set_title(f"Bits (higher is better){last}")
    ax.margins(x=0.01, y=0.12)
    return ax


def _note(ax: Axes, text: str, y: float, colour: str) -> None:
    """A few words at the right end, just below a value."""
    place: Any = ("axes fraction", "data")
    where: Any = {"xycoords": place, "textcoords": "offset points", "ha": "right", "va": "top"}
    ax.annotate(text, (1, y), (-2, -4), color=colour, fontsize=8.5, **where)


def candidates(
    rows: Sequence[Candidate], ax: Axes, *, value: str = "score", labels: bool = True
) -> Axes:
    """Candidates of the grid from top to bottom in the order given; the chosen one is filled.

    Parameters
    ----------
    rows : sequence of Candidate
    ax : Axes
    value : {"score", "bits"}
    labels : bool
        Whether to name the settings on the left.
    """
    y = np.arange(len(rows))
    x = np.array([getattr(row, value) for row in rows], dtype=float)
    colours = [METHOD_COLOURS["embedding"] if row.chosen else _FAINT for row in rows]
    faces = [METHOD_COLOURS["embedding"] if row.chosen else "white" for row in rows]
    if value == "score":
        sd = np.nan_to_num(np.array([row.score_sd for row in rows], dtype=float))
        ax.hlines(y, x - sd, x + sd, colors=colours, lw=1.4)
        ax.axvline(1, color=_FAINT, ls=(0, (4, 3)), lw=1)
        ax.set(
            xlabel="decoding error / chance, mean ± sd of folds", title="Decoding error: decided"
        )
    else:
        ax.axvline(0, color=_FAINT, ls=(0, (4, 3)), lw=1)
        ax.set(xlabel="held-out bits above chance", title="Bits: for information")
    ax.scatter(x, y, c=faces, edgecolors=colours, s=34, linewidths=1.4, zorder=3)
    names = [plain(text, 60) for text in settings_text(rows)]
    ax.set_yticks(y, names if labels else [""] * len(rows))
    for tick, row in zip(ax.get_yticklabels(), rows, strict=True):
        tick.set_fontweight("bold" if row.chosen else "normal")
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.grid(axis="y", color=_GRID, lw=0.8)
    ax.set_axisbelow(True)
    return ax


# The session


def timeline(
    presentations: Sequence[Presentation], names: Sequence[str], ax: Axes, *, start_s: float = 0.0
) -> Axes:
    """When each stimulus was on the screen: one row a stimulus, minutes since `start_s`."""
    colours = stimulus_colours(names)
    for row, name in enumerate(names):
        spans = [
            ((p.start_s - start_s) / 60, (p.stop_s - p.start_s) / 60)
            for p in presentations
            if p.stimulus == name
        ]
        ax.broken_barh(spans, (row - 0.36, 0.72), facecolors=colours[name], lw=0)
    ax.set_yticks(range(len(names)), [plain(name) for name in names])
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlabel("minutes since the recording began")
    ax.grid(axis="x", color=_GRID, lw=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(axis="y", length=0)
    return ax


# The embedding


def displayed(
    values: NDArray[np.float32], times_s: NDArray[np.float64]
) -> tuple[NDArray[np.float64], tuple[str, ...], float]:
    """An embedding in at most three dimensions.

    Parameters
    ----------
    values : array, shape (n, D)
    times_s : array, shape (n,)
        The horizontal axis of an embedding with a single dimension, in seconds.

    Returns
    -------
    points : array of float64, shape (n, k)
        k is 3, or 2 for an embedding of one or two dimensions.
    axes : tuple of str, length k
    share : float
        Share of the embedding's variance that is shown.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.shape[1] == 1:
        return np.column_stack([np.asarray(times_s) / 60, x]), ("minutes", "latent 1"), 1.0
    if x.shape[1] <= 3:
        return x, tuple(f"latent {i + 1}" for i in range(x.shape[1])), 1.0
    centred = x - x.mean(axis=0)
    power, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1][:, :3]
    axes = axes * np.where(axes.sum(axis=0) < 0, -1, 1)  # one sign, whatever the solver gives
    total = power.sum()
    share = float(power[-3:].sum() / total) if total > 0 else 1.0
    return centred @ axes, ("PC 1", "PC 2", "PC 3"), share


def bounds(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Axes limits (k, 2) that hold all points, with a margin and never empty."""
    low, high = points.min(axis=0), points.max(axis=0)
    pad = np.maximum(0.03 * (high - low), 1e-6)
    return np.stack([low - pad, high + pad], axis=1)


def _frame(ax: Any, limits: NDArray[np.float64], names: Sequence[str]) -> None:
    """Limits and names of the axes; in three dimensions nearly empty panes without ticks."""
    ax.set(xlim=limits[0], ylim=limits[1])
    if len(limits) < 3:
        ax.set(xlabel=names[0] if names else "", ylabel=names[1] if names else "")
        if names and names[0] != "minutes":
            ax.set_aspect("equal", "box")
        return
    ax.set_zlim(limits[2])
    ax.set_box_aspect((1, 1, 1), zoom=1.1 if names else 1.2)
    ax.view_init(elev=22, azim=-58)
    for i, axis in enumerate((ax.xaxis, ax.yaxis, ax.zaxis)):
        axis.set_pane_color((0.965, 0.97, 0.976, 1.0))
        axis.line.set_color(NO_STIMULUS)
        axis.set_ticks([])
        if names:
            axis.set_label_text(names[i], fontsize=8.5, color=_FAINT)
            axis.labelpad = -12


def cloud(
    points: NDArray[np.float64],
    colour: ArrayLike,
    ax: Any,
    *,
    names: Sequence[str] = (),
    limits: NDArray[np.float64] | None = None,
    cmap: str = "viridis",
    norm: Normalize | None = None,
    size: float = 2.5,
) -> Any:
    """The points of an embedding, in the axes' two or three dimensions.

    Parameters
    ----------
    points : array, shape (n, k)
        As `displayed` returns them; `ax` must have projection "3d" where k is 3.
    colour : array_like, shape (n,)
        Numbers for `cmap`, or colours.
    ax : Axes
    names : sequence of str
        Of the axes.
    limits : array, shape (k, 2), optional
    cmap, norm, size
        As in `Axes.scatter`.
    """
    values = np.asarray(colour)
    numeric = values.dtype.kind in "fiu" and values.ndim == 1
    extra: dict[str, Any] = {"cmap": cmap, "norm": norm} if numeric else {}
    if points.shape[1] == 3:
        extra["depthshade"] = False
    ax.scatter(*points.T, c=values, s=size, linewidths=0, alpha=0.7, rasterized=True, **extra)
    _frame(ax, bounds(points) if limits is None else limits, names)
    return ax


def path(
    points: NDArray[np.float64],
    seconds: NDArray[np.float64],
    ax: Any,
    *,
    limits: NDArray[np.float64],
    norm: Normalize,
    cmap: str = "viridis",
) -> Any:
    """One presentation as a thin line through the embedding, coloured by the time in the stimulus.

    Parameters
    ----------
    points : array, shape (n, k)
        In order of time.
    seconds : array, shape (n,)
        Since the stimulus began.
    ax, limits, norm, cmap
        As in `cloud`.
    """
    if len(points) > 1:
        pieces: Any = np.stack([points[:-1], points[1:]], axis=1)
        kind = Line3DCollection if points.shape[1] == 3 else LineCollection
        lines = kind(pieces, cmap=cmap, norm=norm, linewidths=0.7, alpha=0.55)
        lines.set_array(seconds[:-1])
        ax.add_collection(lines)
    return cloud(points, seconds, ax, limits=limits, cmap=cmap, norm=norm, size=4)


# Decoding


def _metric_label(metric: str, unit: str, *, higher: bool) -> str:
    name = {"r2": "R²"}.get(metric, metric)
    suffix = f" ({plain(unit, 12)})" if unit else ""
    return f"{name}{suffix}\n{'higher' if higher else 'lower'} is better"


def decoding(
    rows: Sequence[Score],
    order: Sequence[str],
    ax: Axes,
    *,
    nulls: Sequence[Claim] = (),
    labels: bool = True,
) -> Axes:
    """One metric as bars: for each stimulus (or target) every method, its interval, and chance.

    Parameters
    ----------
    rows : sequence of Score
        Of one target and one metric.
    order : sequence of str
        Stimuli (or targets) from top to bottom.
    ax : Axes
    nulls : sequence of Claim
        Drawn as a band, the middle 95 % of each, behind the bars of its stimulus.
    labels : bool
        Whether to name them on the left.
    """
    for null in nulls:
        if null.stimulus in order and np.isfinite(null.null_low):
            y, wide = order.index(null.stimulus), null.null_high - null.null_low
            ax.barh(y, wide, 0.92, left=null.null_low, color=NULL, zorder=1)
    methods = [m for m in METHOD_COLOURS if m != "constant" and any(r.method == m for r in rows)]
    height = 0.78 / max(len(methods), 1)
    for i, method in enumerate(methods):
        for y, name in enumerate(order):
            row = next((r for r in rows if r.method == method and _key(r) == name), None)
            if row is None or not np.isfinite(row.value):
                continue
            at = y - 0.39 + (i + 0.5) * height
            ax.barh(at, row.value, 0.88 * height, color=METHOD_COLOURS[method], zorder=2)
            if np.isfinite(row.low) and np.isfinite(row.high):
                ax.plot([row.low, row.high], [at, at], color=_INK, lw=0.9, zorder=3)
    for y, name in enumerate(order):
        chance = next((r.chance for r in rows if _key(r) == name), float("nan"))
        if np.isfinite(chance):
            ax.plot([chance] * 2, [y - 0.43, y + 0.43], color=CHANCE, lw=1.6, zorder=4)
    ax.axvline(0, color=_FAINT, lw=0.8, zorder=1)
    ax.set_yticks(range(len(order)), [plain(n) if labels else "" for n in order])
    ax.set_ylim(len(order) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color=_GRID, lw=0.8)
    ax.set_axisbelow(True)
    if rows:
        first = rows[0]
        ax.set_xlabel(_metric_label(first.metric, first.unit, higher=first.higher_is_better))
    return ax


def _key(row: Score | Difference) -> str:
    return row.stimulus or row.target


def differences(
    rows: Sequence[Difference],
    order: Sequence[str],
    ax: Axes,
    *,
    higher_is_better: bool,
    labels: bool = True,
) -> Axes:
    """Embedding minus baseline with its interval: one metric and baseline, one row a stimulus."""
    colours = {"embedding": METHOD_COLOURS["embedding"], "baseline": METHOD_COLOURS["raw kNN"]}
    marks = {"embedding": "o", "baseline": "s"}
    for y, name in enumerate(order):
        row = next((r for r in rows if _key(r) == name), None)
        if row is None or not np.isfinite(row.value):
            continue
        colour = colours.get(row.better, _FAINT)
        if np.isfinite(row.low) and np.isfinite(row.high):
            ax.plot([row.low, row.high], [y, y], color=colour, lw=1.8, solid_capstyle="butt")
        ax.plot(row.value, y, marks.get(row.better, "D"), color=colour, ms=5.5, mec="white")
    ax.axvline(0, color=_INK, lw=1)
    ax.set_yticks(range(len(order)), [plain(n) if labels else "" for n in order])
    ax.set_ylim(len(order) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", color=_GRID, lw=0.8)
    ax.set_axisbelow(True)
    if rows:
        first = rows[0]
        side = "better →" if higher_is_better else "← better"
        unit = f" ({plain(first.unit, 12)})" if first.unit else ""
        name = {"r2": "R²"}.get(first.metric, first.metric)
        ax.set_xlabel(f"Δ {name}{unit}\n{side}")
    reach = max(map(abs, ax.get_xlim()))
    ax.set_xlim(-reach, reach)
    return ax


def confusion(table: Confusion, ax: Axes) -> Axes:
    """Which stimulus was shown (rows) and which was said (columns), in per cent of the row."""
    counts = np.array(table.counts, dtype=float).reshape(len(table.names), -1)
    total = counts.sum(axis=1, keepdims=True)
    share = 100 * np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)
    image = ax.imshow(share, cmap="Blues", vmin=0, vmax=100)
    names = [plain(name) for name in table.names]
    ticks = range(len(names))
    ax.set_xticks(ticks, names, rotation=40, ha="right", rotation_mode="anchor")
    ax.set_yticks(ticks, names)
    ax.set(xlabel="decoded", ylabel="on the screen")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    if len(names) <= 16:
        for i, j in np.argwhere(share >= 0.5):
            ink = "white" if share[i, j] > 55 else _INK
            ax.text(j, i, f"{share[i, j]:.0f}", ha="center", va="center", color=ink, fontsize=8)
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.7, pad=0.02)
    bar.set_label("% of the samples of a row")
    bar.outline.set_visible(False)
    return ax


def trace(
    row: LabelTrace, ax: Axes, *, start: int = 0, stop: int | None = None, legend: bool = True
) -> Axes:
    """True and decoded label over time; a circular label breaks where it goes around.

    Parameters
    ----------
    row : LabelTrace
    ax : Axes
    start, stop : int
        Which entries to show.
    legend : bool
    """
    times = np.asarray(row.times_s)[start:stop]
    true = np.asarray(row.true, dtype=float)[start:stop]
    decoded = np.asarray(row.decoded, dtype=float)[start:stop]
    if row.period:
        true, decoded = np.mod(true, row.period), np.mod(decoded, row.period)
    size = 3.0 if len(times) <= 600 else 1.2
    ax.plot(*_broken(times, true, row.period), color=_INK, lw=1.1, label="true")
    colour = METHOD_COLOURS["embedding"]
    ax.plot(times, decoded, ".", color=colour, ms=size, alpha=0.7, label="decoded")
    unit = f" ({plain(row.unit, 16)})" if row.unit else ""
    ax.set(xlabel="time (s)", ylabel=plain(row.name, 30) + unit)
    ax.margins(x=0.01)
    if legend:
        ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, markerscale=2.5)
    return ax


def _broken(
    times: NDArray[np.float64], values: NDArray[np.float64], period: float | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A line with a hole where time jumps, or where a circular value goes around."""
    if len(times) < 3:
        return times, values
    steps = np.diff(times)
    cut = steps > 5 * np.median(steps)
    if period:
        cut |= np.abs(np.diff(values)) > period / 2
    at = np.flatnonzero(cut) + 1
    return np.insert(times, at, np.nan), np.insert(values, at, np.nan)
