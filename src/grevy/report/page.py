"""The page of a run: one HTML file that needs no network and obeys a strict content policy."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib import colormaps
from matplotlib.colors import to_hex
from numpy.typing import NDArray

from ..results import Claim, Difference, EmbeddingArrays, Results, Score
from .checklist import checklist
from .evidence import controls_said, quality_said, tables
from .figures import Picture, Shown, draw, main_metric, ranked, show
from .numbers import NOTHING, Scale, amount, duration, metric_words
from .plots import NO_STIMULUS, stimulus_colours
from .saved import write_whole
from .verdicts import verdict

__all__ = ["write_report"]

_TEMPLATES = Path(__file__).parent / "templates"
_MOST_POINTS = 8000
_METHODS = ("embedding", "raw kNN", "PCA kNN", "UMAP kNN", "linear")


def write_report(
    out: Path, results: Results, embedding: EmbeddingArrays | None, *, dpi: int = 200
) -> Path:
    """Write figures/*.png and report.html into a run's folder.

    Parameters
    ----------
    out : Path
        Folder, made where it is missing.
    results : Results
    embedding : EmbeddingArrays or None
    dpi : int
        Resolution of the figures.

    Returns
    -------
    Path
        report.html: one file, all images and scripts inside.
    """
    out = Path(out)
    (out / "figures").mkdir(parents=True, exist_ok=True)
    pictures = draw(results, embedding, dpi=dpi)
    for picture in pictures:
        write_whole(out / "figures" / f"{picture.name}.png", picture.png)
    page = _page(results, embedding, pictures)
    return write_whole(out / "report.html", page.encode("utf-8", "replace"))


# The page and its policy


def _page(results: Results, embedding: EmbeddingArrays | None, pictures: Sequence[Picture]) -> str:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "amount": amount,
        "name": _name,
        "duration": duration,
        "image": _image,
    }
    shown = None if embedding is None else show(embedding)
    view = None if embedding is None or shown is None else _view(results, embedding, shown)
    style = (_TEMPLATES / "report.css").read_text(encoding="utf-8")
    scripts = [_plotly(), (_TEMPLATES / "report.js").read_text(encoding="utf-8")] if view else []
    return environment.get_template("report.html.j2").render(
        r=results,
        title=results.title or results.session.name or results.session.file or "A recording",
        minutes=(results.session.stop_s - results.session.start_s) / 60,
        pictures={picture.name: picture for picture in pictures},
        several=lambda prefix: [p for p in pictures if p.name.startswith(prefix)],
        controls=controls_said(results.controls, results.differences),
        quality=quality_said(results.quality),
        checked=tables(results.controls, results.quality),
        checklist=checklist(results),
        **_sections(results),  # style, scripts and view hold no text from a file unescaped
        shown=shown,
        view=Markup(_json(view)) if view else "",
        style=Markup(style),
        scripts=[Markup(s) for s in scripts],
        maps_style=re.findall(r'getElementById\("([0-9a-f]{64})"\)', scripts[0]) if view else [],
        policy=_policy(style, scripts),
    )


def _policy(style: str, scripts: Iterable[str]) -> str:
    """Nothing runs, loads or styles but what this page brings, known by its hash.

    The hash of the empty text is for plotly, which adds an empty style element and fills it by
    script, and sets empty style attributes ('unsafe-hashes' lets these be known by hash too).
    """

    def known(text: str) -> str:
        digest = hashlib.sha256(text.encode("utf-8")).digest()
        return f"'sha256-{base64.b64encode(digest).decode()}'"

    allowed = " ".join(known(s) for s in scripts) or "'none'"
    return (
        f"default-src 'none'; img-src data:; style-src {known(style)} 'unsafe-hashes' {known('')}; "
        f"script-src {allowed}; base-uri 'none'; form-action 'none'"
    )


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    text: str = get_plotlyjs()
    return text.replace("</script", "<\\/script").replace("\r\n", "\n")


def _json(value: object) -> str:
    """JSON that can stand inside a script element."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _visible(value: Any) -> Any:
    """Text without control characters, turned writing directions, or halves of characters."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return "".join(
            "\ufffd" if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c not in "\n\t" else c
            for c in value
        )
    return value


def _name(text: str) -> Markup:
    """A name that a narrow column may break after an underscore or a slash, not within a word."""
    return Markup("<wbr>").join(re.split(r"(?<=[_/])", str(_visible(text))))


def _image(picture: Picture) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.png).decode()


# Tables


def _score_tables(rows: Sequence[Score]) -> list[dict[str, Any]]:
    """One table a metric, the main one first: a line a stimulus (or target), a column a method."""
    order, main = ranked(rows), main_metric(rows)
    tables = []
    for metric in sorted(dict.fromkeys(r.metric for r in rows), key=lambda m: m != main):
        own = [r for r in rows if r.metric == metric]
        unit = own[0].unit if len({r.unit for r in own}) == 1 else ""
        scale = Scale(metric, unit, [r.value for r in own])
        methods = [m for m in _METHODS if any(r.method == m for r in own)]
        methods += [m for m in dict.fromkeys(r.method for r in own) if m not in methods]
        methods = [m for m in methods if m != "constant"]
        lines = []
        for name in order:
            mine = {r.method: r for r in own if (r.stimulus or r.target) == name}
            if mine:
                first = next(iter(mine.values()))
                cells = [
                    (scale.number(mine[m].value), scale.interval(mine[m].low, mine[m].high))
                    if m in mine
                    else (NOTHING, NOTHING)
                    for m in methods
                ]
                chance = scale.number(first.chance)
                lines.append({"name": name, "n": first.n_repeats, "cells": cells, "chance": chance})
        better = "higher" if own[0].higher_is_better else "lower"
        tables.append(
            {
                "metric": metric_words(metric),
                "unit": scale.unit,
                "better": better,
                "methods": methods,
                "lines": lines,
            }
        )
    return tables


def _difference_tables(rows: Sequence[Difference], scores: Sequence[Score]) -> list[dict[str, Any]]:
    """One table a metric and baseline, each line with the verdict in words."""
    order, main = ranked(scores), main_metric(scores)
    tables = []
    keys = dict.fromkeys((d.baseline, d.metric) for d in rows)
    for baseline, metric in sorted(keys, key=lambda k: (k[1] != main, k[0] != "raw kNN")):
        own = [d for d in rows if (d.baseline, d.metric) == (baseline, metric)]
        own.sort(
            key=lambda d: (
                order.index(d.stimulus or d.target)
                if (d.stimulus or d.target) in order
                else len(order)
            )
        )
        unit = own[0].unit if len({d.unit for d in own}) == 1 else ""
        scale = Scale(metric, unit, [d.value for d in own])
        size = "% points" if scale.percent else scale.unit
        lines = []
        for d in own:
            by = f"by {scale.number(abs(d.value))} {size}".rstrip()
            verdict = {
                "embedding": f"embedding better {by}",
                "baseline": f"embedding worse {by}",
            }.get(d.better, "undecided")
            lines.append(
                {
                    "name": d.stimulus or d.target,
                    "value": scale.number(d.value, sign=True),
                    "interval": scale.interval(d.low, d.high, sign=True),
                    "n": d.n_repeats,
                    "verdict": verdict,
                    "better": d.better if d.better in ("embedding", "baseline") else "undecided",
                }
            )
        tables.append(
            {
                "metric": metric_words(metric),
                "unit": size,
                "baseline": baseline,
                "lines": lines,
                "wins": sum(d.better == "embedding" for d in own),
                "losses": sum(d.better == "baseline" for d in own),
            }
        )
    return tables


def _claim_lines(claims: Sequence[Claim], order: Sequence[str]) -> list[dict[str, Any]]:
    """A line a stimulus: p and q of each claim, and in words what may be claimed."""
    names = [n for n in dict.fromkeys(c.stimulus for c in claims) if n]
    names.sort(key=lambda n: order.index(n) if n in order else len(order))
    lines = []
    for name in names:
        own = {c.claim: c for c in claims if c.stimulus == name}
        cells: list[str] = []
        for claim in ("time-locked", "content"):
            c = own.get(claim)
            if c is None or c.refused:
                cells += [NOTHING] * 4
                continue
            scale = Scale("", c.unit, [c.observed, c.null_low, c.null_high])
            cells += [
                scale.number(c.observed),
                f"{scale.number(c.null_mean)} ({scale.interval(c.null_low, c.null_high)})",
                amount(c.p, 2),
                amount(c.q, 2),
            ]
        lines.append({"name": name, "cells": cells, "verdict": verdict(list(own.values()))})
    return lines


def _verdicts(lines: Sequence[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """What may be claimed, and of which stimuli."""
    said: dict[str, list[str]] = {}
    for line in lines:
        said.setdefault(line["verdict"], []).append(line["name"])
    return sorted(said.items(), key=lambda item: item[0].startswith("No claim"))


def _sections(results: Results) -> dict[str, Any]:
    """Scores and differences by the question they answer."""

    def question(targets: Iterable[str]) -> dict[str, Any]:
        chosen = set(targets)
        scores = [r for r in results.scores if r.target in chosen]
        gaps = [d for d in results.differences if d.target in chosen]
        return {"tables": _score_tables(scores), "gaps": _difference_tables(gaps, scores)}

    targets = dict.fromkeys(
        [r.target for r in results.scores] + [d.target for d in results.differences]
    )
    by_stimulus = [t for t in targets if any(r.target == t and r.stimulus for r in results.scores)]
    named = [c for c in results.claims if c.claim == "identity"]
    others = [t for t in targets if t not in by_stimulus and t != "stimulus"]
    about = {c.stimulus: c for c in results.claims if c.claim == "label"}
    claims = _claim_lines(
        [c for c in results.claims if c.stimulus and c.claim != "label"],
        ranked([r for r in results.scores if r.target in by_stimulus]),
    )
    return {
        "frames": question(by_stimulus),
        "claims": claims,
        "verdicts": _verdicts(claims),
        "contents": any(c.claim == "content" and not c.refused for c in results.claims),
        "refused": sorted({c.refused for c in results.claims if c.refused and c.claim != "label"}),
        "named": named[0] if named else None,
        "identity": question(["stimulus"] if "stimulus" not in by_stimulus else []),
        "labels": [(name, question([name]), about.get(name)) for name in others],
    }


# The live view


def _view(results: Results, embedding: EmbeddingArrays, shown: Shown) -> dict[str, Any] | None:
    """Data and layout for plotly: at most 8000 points in three dimensions, else None."""
    if shown.points.shape[1] != 3:
        return None  # a flat picture needs no turning
    every = slice(None, None, max(1, -(-len(shown.rows) // _MOST_POINTS)))
    points, rows = shown.points[every].round(4), shown.rows[every]
    minutes = (embedding.times_s[rows] - embedding.times_s[0]) / 60
    index = embedding.index[rows]
    if embedding.names and (index >= 0).any():
        data = _stimulus_traces(embedding, points, rows, index, minutes)
    else:
        data = [_value_trace(results, embedding, points, rows, minutes)]
    axis = {
        "showticklabels": False,
        "showspikes": False,
        "zeroline": False,
        "showbackground": True,
        "backgroundcolor": "#f6f7f9",
        "gridcolor": "#ffffff",
    }
    scene = {
        f"{letter}axis": {**axis, "title": {"text": name}}
        for letter, name in zip("xyz", shown.axes, strict=True)
    }
    layout = {
        "scene": {**scene, "aspectmode": "data", "camera": {"eye": {"x": 1.2, "y": 1.2, "z": 0.7}}},
        "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
        "legend": {"itemsizing": "constant", "font": {"size": 12}, "y": 0.9},
        "paper_bgcolor": "#ffffff",
        "font": {"color": "#262b33"},
        "hoverlabel": {"align": "left"},
    }
    return {"data": data, "layout": layout}


def _harmless(text: str) -> str:
    """Text that plotly, which knows some HTML, shows as it is."""
    shown = str(_visible(text))
    return html.escape(shown if len(shown) <= 44 else shown[:43] + "…", quote=False)


def _trace(points: NDArray[np.float64], words: list[str], marker: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "scatter3d",
        "mode": "markers",
        **dict(zip("xyz", points.T.tolist(), strict=True)),
        "marker": {"size": 2.2, "opacity": 0.8, **marker},
        "text": words,
        "hovertemplate": "%{text}<extra></extra>",
    }


def _stimulus_traces(
    embedding: EmbeddingArrays,
    points: NDArray[np.float64],
    rows: NDArray[np.int64],
    index: NDArray[np.int32],
    minutes: NDArray[np.float64],
) -> list[dict[str, Any]]:
    """One trace a stimulus, which the legend can switch on and off."""
    colours = stimulus_colours(embedding.names)
    traces = []
    for i in [*range(len(embedding.names)), -1]:
        at = np.flatnonzero(index == i) if i >= 0 else np.flatnonzero(index < 0)
        if not len(at):
            continue
        name = _harmless(embedding.names[i]) if i >= 0 else "no stimulus"
        words = [
            f"{name}<br>minute {m:.2f}" + (f"<br>repeat {r + 1}, frame {f}" if i >= 0 else "")
            for m, r, f in zip(
                minutes[at].tolist(),
                embedding.repeat[rows[at]].tolist(),
                embedding.frame[rows[at]].tolist(),
                strict=True,
            )
        ]
        colour = colours[embedding.names[i]] if i >= 0 else NO_STIMULUS
        traces.append({**_trace(points[at], words, {"color": colour}), "name": name})
    return traces


def _value_trace(
    results: Results,
    embedding: EmbeddingArrays,
    points: NDArray[np.float64],
    rows: NDArray[np.int64],
    minutes: NDArray[np.float64],
) -> dict[str, Any]:
    """One trace coloured by the first label that is known anywhere, or by time."""
    name, values = "minutes", minutes
    period = {row.name: row.period for row in results.traces}
    for key in [*(k for k in period if k in embedding.labels), *embedding.labels]:
        found = np.asarray(embedding.labels[key], dtype=np.float64)[rows]
        found = found if found.ndim == 1 else found[:, 0]
        if np.isfinite(found).any():
            name, values = key, found
            break
    around = period.get(name)
    known = np.isfinite(values)
    points, values, minutes = points[known], values[known], minutes[known]
    words = [
        f"minute {m:.2f}<br>{_harmless(name)} {v:.3g}"
        for m, v in zip(minutes.tolist(), values.tolist(), strict=True)
    ]
    scale = colormaps["twilight_shifted" if around else "viridis"]
    shades = [[i / 16, to_hex(scale(i / 16))] for i in range(17)]
    marker = {
        "color": [float(f"{v:.5g}") for v in (np.mod(values, around) if around else values)],
        "colorscale": shades,
        "colorbar": {"title": {"text": _harmless(name)}, "thickness": 14, "len": 0.7},
        **({"cmin": 0, "cmax": around} if around else {}),
    }
    return _trace(points, words, marker)
