"""Figures of controls and quality: rows in, Axes out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ..results import Consistency, Drift
from .plots import plain, stimulus_colours

__all__ = ["agreement", "drift"]


def drift(rows: Sequence[Drift], names: Sequence[str], ax: Axes) -> Axes:
    """Error of each stimulus by the repeats between what is decoded and what is learnt from."""
    colours = stimulus_colours(names)
    for row in rows:
        at = [p.distance for p in row.by_distance]
        values = np.array([p.value for p in row.by_distance])
        colour = colours.get(row.stimulus, "#262b33")
        ax.plot(at, values, "o-", ms=3.5, lw=1.3, color=colour, label=plain(row.stimulus))
        low = np.array([p.low for p in row.by_distance])
        high = np.array([p.high for p in row.by_distance])
        known = np.isfinite(low) & np.isfinite(high)
        if len(rows) <= 4 and known.any():
            ax.fill_between(at, low, high, where=known.tolist(), color=colour, alpha=0.12, lw=0)
    ax.set_xlabel("repeats between them")
    unit = f" ({rows[0].unit})" if rows[0].unit else ""
    ax.set_ylabel(f"{rows[0].statistic}{unit}")
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return ax


def agreement(found: Consistency, ax: Axes) -> Axes:
    """R2 from the run of a row to that of a column."""
    table = np.array(found.pairs)
    shown = ax.imshow(table, vmin=0, vmax=1, cmap="Blues")
    for (i, j), value in np.ndenumerate(table):
        if np.isfinite(value):
            colour = "white" if value > 0.6 else "#262b33"
            ax.text(j, i, f"{value:.2f}", ha="center", va="center", color=colour)
    ticks = range(len(found.units))
    ax.set_xticks(ticks, [plain(u, 10) for u in found.units])
    ax.set_yticks(ticks, [plain(u, 10) for u in found.units])
    ax.set_xlabel("predicted")
    ax.set_ylabel("predicted from")
    ax.grid(visible=False)
    ax.figure.colorbar(shown, ax=ax, label="R²", shrink=0.8)
    return ax
