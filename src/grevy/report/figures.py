"""Which figures a report has, composed of `plots`, each with its alternative text and caption."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import matplotlib as mpl
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..results import Claim, Confusion, EmbeddingArrays, LabelTrace, Results, Score
from . import control_plots, plots
from .verdicts import LEAK

__all__ = ["Picture", "Shown", "draw", "main_metric", "ranked", "show"]

_WIDTH = 9.6  # inches; the page is 960 px wide, so a point on paper is about a point on the page
_MOST_CANDIDATES = 24
_MOST_POINTS = 20_000
_PANELS = 4  # single repeats in a row of the small multiples


@dataclass(frozen=True)
class Picture:
    """One figure: its file name without suffix, the words with it, and its width on the page."""

    name: str
    alt: str
    caption: str
    png: bytes
    width: int


@dataclass(frozen=True, eq=False)
class Shown:
    """The embedding in the dimensions that can be drawn.

    Attributes
    ----------
    points : array, shape (n, k)
    axes : tuple of str, length k
    rows : array of int64, shape (n,)
        Rows of the embedding that are drawn: those that are finite.
    words : str
        How it was brought to these dimensions.
    """

    points: NDArray[np.float64]
    axes: tuple[str, ...]
    rows: NDArray[np.int64]
    words: str


def show(embedding: EmbeddingArrays) -> Shown | None:
    """The embedding as it is drawn, None where nothing of it is finite."""
    rows = np.flatnonzero(np.isfinite(embedding.values).all(axis=1))
    if not len(rows) or not embedding.values.shape[1]:
        return None
    values = embedding.values[rows]
    points, axes, share = plots.displayed(values, embedding.times_s[rows])
    n = values.shape[1]
    words = f"The embedding has {n} dimension{'s' if n > 1 else ''}"
    if bool(np.allclose(np.linalg.norm(values, axis=1), 1, atol=1e-3)) and n > 1:
        words += " and lies on a sphere of radius 1, because similarity is the cosine of an angle"
    if n > 3:
        words += (
            f"; for display it is projected on its first three principal components, taken over "
            f"the whole session, which hold {share:.0%} of its variance"
        )
    return Shown(points, axes, rows, words + ".")


def _picture(name: str, alt: str, caption: str, figure: Figure, dpi: int) -> Picture:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A name may hold letters that the font has not: an empty box stands for them.
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return Picture(name, alt, caption, buffer.getvalue(), round(100 * figure.get_figwidth()))


def draw(results: Results, embedding: EmbeddingArrays | None, *, dpi: int = 200) -> list[Picture]:
    """Every figure for which there is something to show.

    Parameters
    ----------
    results : Results
    embedding : EmbeddingArrays or None
    dpi : int

    Returns
    -------
    list of Picture
        Named "decoding-TARGET-N", "difference-TARGET-N", "confusion-N", "label-N",
        "embedding-session", "embedding-label-N", "repeats-N", "loss", "choice", "timeline",
        "drift" and "consistency".
    """
    with mpl.rc_context(plots.STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        drawn = [
            *_decoding(results, dpi),
            *(_confusion(table, i, dpi) for i, table in enumerate(results.confusions)),
            *(_trace(row, i, dpi) for i, row in enumerate(results.traces) if row.times_s),
            *_training(results, dpi),
            *_timeline(results, dpi),
            *_checked(results, dpi),
        ]
        shown = None if embedding is None else show(embedding)
        if embedding is not None and shown is not None:
            drawn += _embedding(results, embedding, shown, dpi)
            drawn += _repeats(results, embedding, shown, dpi)
    if results.flags:
        judged = ("decoding-", "difference-", "confusion-", "label-")
        drawn = [_stamped(p) if p.name.startswith(judged) else p for p in drawn]
    return drawn


def _stamped(picture: Picture) -> Picture:
    """The picture under a line that says, wherever it goes, that its scores are not held out."""
    image = Image.open(io.BytesIO(picture.png)).convert("RGB")
    high = max(24, image.width // 40)
    whole = Image.new("RGB", (image.width, image.height + high), "#b42318")
    whole.paste(image, (0, high))
    font = ImageFont.load_default(0.6 * high)
    ImageDraw.Draw(whole).text((high // 2, 0.15 * high), f"NOT HELD OUT: {LEAK}", "white", font)
    buffer = io.BytesIO()
    whole.save(buffer, format="png")
    return replace(picture, png=buffer.getvalue(), alt=f"Not held out: {LEAK}. {picture.alt}")


# Decoding


def main_metric(rows: Sequence[Score]) -> str:
    """The metric that is told first: median error in its own unit, else the first one."""
    metrics = list(dict.fromkeys(row.metric for row in rows))
    return "median error" if "median error" in metrics else (metrics[0] if metrics else "")


def ranked(rows: Sequence[Score]) -> list[str]:
    """Stimuli (or the target) of one target's rows, the embedding's best first, against chance."""
    metric = main_metric(rows)
    own = {
        r.stimulus or r.target: r for r in rows if r.method == "embedding" and r.metric == metric
    }

    def rank(name: str) -> float:
        row = own.get(name)
        if row is None or not np.isfinite(row.value):
            return float("inf")
        if row.higher_is_better:
            return -(row.value - row.chance) if np.isfinite(row.chance) else -row.value
        return row.value / row.chance if row.chance > 0 else row.value

    return sorted(dict.fromkeys(r.stimulus or r.target for r in rows), key=rank)


def _decoding(results: Results, dpi: int) -> list[Picture]:
    drawn = []
    for t, target in enumerate(dict.fromkeys(row.target for row in results.scores)):
        rows = [row for row in results.scores if row.target == target]
        if not any(row.stimulus for row in rows):
            continue  # one line a method: the table says it better
        order = ranked(rows)
        nulls = [c for c in results.claims if c.claim == "time-locked"] if target == "frame" else []
        drawn.append(_bars(rows, order, nulls, target, t, dpi))
        drawn += _forest(results, rows, order, target, t, dpi)
    return drawn


def _panels(n_rows: int, n_panels: int) -> tuple[Figure, list[mpl.axes.Axes]]:
    figure = Figure((_WIDTH, 1.15 + 0.36 * max(n_rows, 2)), layout="constrained")
    axes = figure.subplots(1, n_panels, squeeze=False)[0]
    return figure, list(axes)


def _bars(
    rows: Sequence[Score],
    order: Sequence[str],
    nulls: Sequence[Claim],
    target: str,
    t: int,
    dpi: int,
) -> Picture:
    metrics = sorted(dict.fromkeys(r.metric for r in rows), key=lambda m: m != main_metric(rows))
    figure, axes = _panels(len(order), len(metrics))
    for i, (metric, ax) in enumerate(zip(metrics, axes, strict=True)):
        band = [c for c in nulls if c.statistic == metric]
        some = [r for r in rows if r.metric == metric]
        plots.decoding(some, order, ax, nulls=band, labels=i == 0)
    methods = [m for m in plots.METHOD_COLOURS if any(r.method == m for r in rows)]
    handles = [
        Patch(color=plots.METHOD_COLOURS[m], label=m) for m in methods if m != "constant"
    ] + [
        Line2D([], [], color=plots.CHANCE, lw=1.6, label="chance"),
        Line2D([], [], color="#262b33", lw=0.9, label="95 % interval over repeats"),
    ]
    if nulls:
        handles.append(Patch(color=plots.NULL, label="null of the embedding, middle 95 %"))
    figure.legend(handles=handles, loc="outside upper left", ncols=5)
    best, last = order[0], order[-1]
    return _picture(
        f"decoding-{t}",
        f"Bar plot of decoding {target} for {len(order)} stimuli by {len(methods)} methods and "
        f"{len(metrics)} metrics, ordered from {best} (best) to {last}. The numbers are in the "
        f"tables below.",
        "Best stimulus first, by the embedding's score against chance. The red mark is chance: the "
        "best that a constant answer can do. Thin black lines are 95 % intervals over repeats."
        + (" The grey band is what the embedding would do by chance." if nulls else ""),
        figure,
        dpi,
    )


def _forest(
    results: Results, scores: Sequence[Score], order: Sequence[str], target: str, t: int, dpi: int
) -> list[Picture]:
    drawn = []
    gaps = [d for d in results.differences if d.target == target]
    better = {row.metric: row.higher_is_better for row in scores}
    metrics = sorted(dict.fromkeys(d.metric for d in gaps), key=lambda m: m != main_metric(scores))
    for b, baseline in enumerate(
        dict.fromkeys(d.baseline for d in gaps if d.baseline != "constant")
    ):
        figure, axes = _panels(len(order), len(metrics))
        for i, (metric, ax) in enumerate(zip(metrics, axes, strict=True)):
            rows = [d for d in gaps if d.metric == metric and d.baseline == baseline]
            higher = better.get(metric, True)
            plots.differences(rows, order, ax, higher_is_better=higher, labels=i == 0)
        handles = [
            Line2D([], [], color=plots.METHOD_COLOURS["embedding"], marker="o", label="embedding"),
            Line2D([], [], color=plots.METHOD_COLOURS["raw kNN"], marker="s", label="baseline"),
            Line2D([], [], color="#8b929c", marker="D", label="undecided (holds zero)"),
        ]
        figure.legend(handles=handles, loc="outside upper left", ncols=3, title=None)
        drawn.append(
            _picture(
                f"difference-{t}-{b}",
                f"Embedding minus {baseline} with 95 % intervals for {len(order)} stimuli and "
                f"{len(metrics)} metrics. The same numbers are in the table.",
                f"Embedding minus {baseline}, paired repeat by repeat on the same folds. Colour "
                f"says which of the two the interval favours; an interval that holds zero decides "
                f"nothing.",
                figure,
                dpi,
            )
        )
    return drawn


def _confusion(table: Confusion, i: int, dpi: int) -> Picture:
    n = len(table.names)
    size = min(_WIDTH, 3.4 + 0.4 * n)
    figure = Figure((size, 0.78 * size), layout="constrained")
    plots.confusion(table, figure.subplots())
    return _picture(
        f"confusion-{i}",
        f"Confusion matrix of {n} stimuli decoded by the {table.method}: shown stimuli as rows, "
        f"decoded ones as columns, per cent of each row.",
        "Each row adds up to 100 %: of the samples during which a stimulus was on the screen, how "
        "many were said to be which. A perfect decoder fills the diagonal only.",
        figure,
        dpi,
    )


def _trace(row: LabelTrace, i: int, dpi: int) -> Picture:
    n = len(row.times_s)
    zoom = min(n, 240)
    figure = Figure((_WIDTH, 4.4), layout="constrained")
    top, bottom = figure.subplots(2, 1)
    plots.trace(row, top)
    start = (n - zoom) // 2
    plots.trace(row, bottom, start=start, stop=start + zoom, legend=False)
    top.set_title("Whole recording")
    bottom.set_title("A stretch in the middle")
    if zoom > 1:
        top.axvspan(row.times_s[start], row.times_s[start + zoom - 1], color="#f3ead7", zorder=0)
    return _picture(
        f"label-{i}",
        f"{row.name} over time, true and decoded, for the whole recording and a stretch of it.",
        "Line: measured. Dots: decoded from the embedding by a decoder that never saw this stretch "
        "of time. The shaded stretch is enlarged below."
        + (
            f" The label is circular: {row.period:.4g} {row.unit} is the same as 0."
            if row.period
            else ""
        ),
        figure,
        dpi,
    )


# Training, choice, session


def _training(results: Results, dpi: int) -> list[Picture]:
    drawn = []
    if results.history.step:
        figure = Figure((_WIDTH, 2.9), layout="constrained")
        left, right = figure.subplots(1, 2)
        plots.loss(results.history, left)
        plots.bits(results.history, right)
        drawn.append(
            _picture(
                "loss",
                f"Training loss and bits above chance over {results.history.step[-1]} steps.",
                "Training of the model that is shown. Chance is the loss of a model that knows "
                "nothing. Bits above chance tell the same loss on a scale where knowing nothing "
                "is 0; they are taken on training data, so they show progress, not a result.",
                figure,
                dpi,
            )
        )
    if results.candidates:
        own = [c for c in results.candidates if c.over == results.candidates[0].over]
        rows = sorted(own, key=lambda c: (not np.isfinite(c.score), c.score))
        kept = rows[:_MOST_CANDIDATES] + [c for c in rows[_MOST_CANDIDATES:] if c.chosen]
        figure, axes = _panels(len(kept), 2)
        plots.candidates(kept, axes[0])
        plots.candidates(kept, axes[1], value="bits", labels=False)
        some = f"The best {len(kept)} of {len(rows)} are shown. " if len(kept) < len(rows) else ""
        drawn.append(
            _picture(
                "choice",
                f"{len(kept)} candidates of the grid with their decoding error and held-out bits; "
                f"the chosen one is marked.",
                f"{some}Best first; the chosen one is filled and bold. Left, what decided: decoding"
                f" error on data set aside for choosing, as a share of chance (dashed line: no "
                f"better than knowing nothing). Right, bits above chance, which compare only "
                f"between candidates of one task (same offset and temperature).",
                figure,
                dpi,
            )
        )
    return drawn


def _timeline(results: Results, dpi: int) -> list[Picture]:
    if not results.presentations:
        return []
    names = list(dict.fromkeys([s.name for s in results.stimuli]))
    names += [p.stimulus for p in results.presentations if p.stimulus not in names]
    names = list(dict.fromkeys(names))
    figure = Figure((_WIDTH, 0.9 + 0.25 * max(len(names), 2)), layout="constrained")
    ax = figure.subplots()
    plots.timeline(results.presentations, names, ax, start_s=results.session.start_s)
    return [
        _picture(
            "timeline",
            f"Timeline of {len(results.presentations)} presentations of {len(names)} stimuli.",
            "When each stimulus was on the screen. Colours are the same in the figures of the "
            "embedding.",
            figure,
            dpi,
        )
    ]


# Controls and quality


def _checked(results: Results, dpi: int) -> list[Picture]:
    drawn = []
    rows = [r for r in results.controls.drifts if r.by_distance]
    if rows:
        figure = Figure((_WIDTH, 3.4), layout="constrained")
        ax = figure.subplots()
        control_plots.drift(rows, [s.name for s in results.stimuli], ax)
        handles, names = ax.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside right upper")
        drawn.append(
            _picture(
                "drift",
                f"Error of {len(rows)} stimuli decoded from one other presentation, by the number "
                f"of repeats between the two. The ends of the lines are in the table.",
                "Each held-out presentation decoded from one other. A line that rises says that "
                "the code changes in the course of the session; bands are 95 % intervals over "
                "presentations, drawn for up to four stimuli.",
                figure,
                dpi,
            )
        )
    found = results.quality.consistency
    if found is not None:
        size = min(_WIDTH, 4.0 + 0.35 * len(found.units))
        figure = Figure((size, 0.72 * size), layout="constrained")
        control_plots.agreement(found, figure.subplots())
        drawn.append(
            _picture(
                "consistency",
                f"Matrix of R² between the embeddings of {len(found.units)} seeds on held-out "
                f"samples; their mean is in the table.",
                "How well the embedding of one seed (row) predicts that of another (column), by a "
                "linear map that was fitted on training samples and judged on held-out ones.",
                figure,
                dpi,
            )
        )
    return drawn


# The embedding


def _axes(figure: Figure, place: tuple[int, int, int], k: int) -> mpl.axes.Axes:
    return figure.add_subplot(*place, projection="3d" if k == 3 else None)


def _thin(n: int) -> slice:
    return slice(None, None, max(1, -(-n // _MOST_POINTS)))


def _embedding(
    results: Results, embedding: EmbeddingArrays, shown: Shown, dpi: int
) -> list[Picture]:
    drawn, k = [], shown.points.shape[1]
    every = _thin(len(shown.rows))
    points, rows = shown.points[every], shown.rows[every]
    index = embedding.index[rows]
    if embedding.names and (index >= 0).any():
        colours = plots.stimulus_colours(embedding.names)
        palette = np.array([*colours.values(), plots.NO_STIMULUS], dtype=object)
        figure = Figure((_WIDTH, 5.6), layout="constrained")
        place = list(dict.fromkeys(embedding.names))
        which = np.array([*(place.index(n) for n in embedding.names), len(place)])[index]
        order = np.argsort(which != len(place), kind="stable")  # those without stimulus behind
        ax = _axes(figure, (1, 1, 1), k)
        plots.cloud(points[order], palette[which[order]].tolist(), ax, names=shown.axes)
        seen = [(n, c) for i, (n, c) in enumerate(colours.items()) if (which == i).any()]
        seen += [("no stimulus", plots.NO_STIMULUS)] if (which == len(place)).any() else []
        handles = [
            Line2D([], [], marker="o", ls="", color=c, label=plots.plain(n)) for n, c in seen
        ]
        figure.legend(handles=handles, loc="outside right center")
        what = "coloured by the stimulus on the screen"
        drawn.append(_session_picture(figure, what, shown, dpi))
    period = {row.name: row.period for row in results.traces}
    unit = {row.name: row.unit for row in results.traces}
    names = [n for n in period if n in embedding.labels]
    if not drawn:
        names = [*names, *(n for n in embedding.labels if n not in names)]
    for i, name in enumerate(names):
        values = np.asarray(embedding.labels[name], dtype=np.float64)[rows]
        values = values if values.ndim == 1 else values[:, 0]
        if np.isfinite(values).any():
            figure = _coloured(points, values, name, unit.get(name, ""), period.get(name), shown)
            caption = f"The whole session, coloured by {name}. {shown.words}"
            drawn.append(
                _picture(
                    f"embedding-label-{i}",
                    f"Embedding of the whole session coloured by {name}.",
                    caption
                    + (" The colours go around with the label." if period.get(name) else ""),
                    figure,
                    dpi,
                )
            )
    if not drawn:
        minutes = (embedding.times_s[rows] - embedding.times_s[0]) / 60
        figure = _coloured(points, minutes, "time", "min", None, shown)
        drawn.append(_session_picture(figure, "coloured by time", shown, dpi))
    return drawn


def _session_picture(figure: Figure, what: str, shown: Shown, dpi: int) -> Picture:
    return _picture(
        "embedding-session",
        f"Embedding of the whole session {what}.",
        f"The whole session, {what}. {shown.words}",
        figure,
        dpi,
    )


def _coloured(
    points: NDArray[np.float64],
    values: NDArray[np.float64],
    name: str,
    unit: str,
    period: float | None,
    shown: Shown,
) -> Figure:
    figure = Figure((7.2, 5.2), layout="constrained")
    ax = _axes(figure, (1, 1, 1), points.shape[1])
    known = np.isfinite(values)
    limits = plots.bounds(points)
    if not known.all():
        plots.cloud(points[~known], [plots.NO_STIMULUS] * int((~known).sum()), ax, limits=limits)
    if period:
        norm, cmap, coloured = Normalize(0, period), "twilight_shifted", np.mod(values, period)
    else:
        low, high = np.percentile(values[known], [1, 99])
        norm, cmap, coloured = Normalize(low, high if high > low else low + 1), "viridis", values
    plots.cloud(
        points[known],
        coloured[known],
        ax,
        names=shown.axes,
        limits=limits,
        cmap=cmap,
        norm=norm,
    )
    bar = figure.colorbar(ScalarMappable(norm, cmap), ax=ax, shrink=0.6, pad=0.06)
    bar.set_label(plots.plain(name, 30) + (f" ({plots.plain(unit, 16)})" if unit else ""))
    return figure


def _repeats(results: Results, embedding: EmbeddingArrays, shown: Shown, dpi: int) -> list[Picture]:
    """A row a stimulus: single repeats and their mean, all with the same limits."""
    drawn = []
    limits = plots.bounds(shown.points)
    place = {row: i for i, row in enumerate(embedding.names)}
    for number, stimulus in enumerate(s for s in results.stimuli if not s.reason):
        if stimulus.name not in place or stimulus.n_frames < 2:
            continue
        at = np.flatnonzero(embedding.index[shown.rows] == place[stimulus.name])
        frame = embedding.frame[shown.rows[at]]
        repeat = embedding.repeat[shown.rows[at]]
        found = np.unique(repeat[repeat >= 0])
        if not len(found):
            continue
        picked = found[np.unique(np.linspace(0, len(found) - 1, _PANELS).round().astype(int))]
        seconds = np.asarray(frame * (stimulus.duration_s / stimulus.n_frames), np.float64)
        norm = Normalize(0, stimulus.duration_s)
        points, box = shown.points[at], limits
        if len(shown.axes) == 2 and shown.axes[0] == "minutes":  # a single dimension
            points = np.column_stack([seconds, points[:, 1]])
            box = np.array([[0, stimulus.duration_s], limits[1]])
        figure = Figure((_WIDTH, 2.1), layout=ConstrainedLayoutEngine(w_pad=0, wspace=0))
        k, n = shown.points.shape[1], len(picked) + 1
        axes = [_axes(figure, (1, n, i + 1), k) for i in range(n)]
        for ax, r in zip(axes, picked, strict=False):
            here = repeat == r
            plots.path(points[here], seconds[here], ax, limits=box, norm=norm)
            ax.set_title(f"repeat {r + 1}")
        mean_seconds, mean = _mean(points, seconds)
        plots.path(mean, mean_seconds, axes[-1], limits=box, norm=norm)
        axes[-1].set_title(f"mean of {len(found)}")
        bar = figure.colorbar(ScalarMappable(norm, "viridis"), ax=axes, shrink=0.75, pad=0.01)
        bar.set_label("s since start")
        drawn.append(
            _picture(
                f"repeats-{number}",
                f"{stimulus.name}: {len(picked)} single repeats in the embedding and the mean over "
                f"{len(found)} repeats, coloured by the time since the stimulus began.",
                stimulus.name,
                figure,
                dpi,
            )
        )
    return drawn


def _mean(
    points: NDArray[np.float64], seconds: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mean over repeats at each moment that was seen."""
    moments, which = np.unique(seconds, return_inverse=True)
    total = np.zeros((len(moments), points.shape[1]))
    np.add.at(total, which, points)
    return moments, total / np.bincount(which)[:, None]
