"""Write the tables and the plot of docs/performance.md, and the table in README.md.

    python benchmarks/performance.py

They are made from the results that are kept under benchmarks/results: of speed-*.json the newest
row of each name, of growth-*.json the newest file of each kind of device. Held-out bits of the
timed runs are held against CEBRA's own fits in speed-reference.json (speed_work.py).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

HOME = Path(__file__).parents[1]
WORK = {
    "fit_cuda": "one fit, 20,000 steps, whole process from a cold start",
    "step_cuda": "one fit, steady",
    "grid_cuda": "grid of 72 models x 1,000 steps, nothing cached",
    "grid_cuda_warm": "the same, kernels cached",
    "behavior_cuda": "a label of one column, 126,758 samples, steady",
    "fit_cpu": "one fit, 300 steps",
    "grid_cpu": "12 models of the grid, 100 steps each",
    "behavior_cpu_1e5": "a label of three columns, 100,000 samples, a step",
    "behavior_cpu_1e6": "the same, 1,000,000 samples",
    "transform_cpu": "embedding 126,758 samples of 41 channels",
    "knn_cpu": "nearest neighbours, 20,000 x 20,000, k = 25",
    "align": "241,186 stimulus rows onto the traces",
}
JUDGED = {
    # row: the work whose bits it reached, with the widths that have bits of their own
    "fit_cuda": "fit_cuda", "step_cuda": "fit_cuda", "grid_cuda": "grid_cuda",
    "grid_cuda_warm": "grid_cuda", "behavior_cuda": "behavior_cuda", "fit_cpu": "fit_cpu",
    "grid_cpu": "grid_cpu", "behavior_cpu_1e5": "behavior_cpu_1e5",
    "behavior_cpu_1e6": "behavior_cpu_1e6",
}  # fmt: skip
GROWTH = "<!-- growth: made by benchmarks/performance.py -->", "<!-- end of growth -->"
BEGIN, END = "<!-- speed: made by benchmarks/performance.py -->", "<!-- end of speed -->"


def newest() -> dict[str, dict[str, Any]]:
    """The last measured row of each name."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((HOME / "benchmarks" / "results").glob("speed-*-20*.json")):
        for row in json.loads(path.read_text()):
            before = found.get(row["row"])
            if before is None or row["date"] >= before["date"]:
                found[row["row"]] = row
    return found


def quality(row: dict[str, Any], reference: list[dict[str, Any]]) -> str:
    """Bits of a timed run beside the mean of CEBRA's, and whether they lie in its spread or above.

    In: not below the mean of its seeds by more than two of their standard deviations.
    """
    if row["row"] not in JUDGED or "bits" not in row:
        return ""
    work, bits = JUDGED[row["row"]], row["bits"]
    each = bits if isinstance(bits, dict) else {"": bits}
    cells = []
    for width, mine in each.items():
        name = f"{work}, {width.removesuffix(' units')} units" if width else work
        theirs = [r["bits"] for r in reference if r["work"] == name]
        if len(theirs) < 2:
            return ""
        floor = float(np.mean(theirs) - 2 * np.std(theirs, ddof=1))
        held = "" if mine >= floor else " LOST"
        cells.append(f"{mine:.3f} ({np.mean(theirs):.3f}){held}")
    return "; ".join(cells)


def table(rows: dict[str, dict[str, Any]], *, short: bool) -> str:
    head = "| work | CEBRA 0.6.1 | grevy | times |"
    head += "" if short else " asked | held-out bits (CEBRA's) | device | date |"
    kept = (HOME / "benchmarks" / "results" / "speed-reference.json").read_text()
    reference = json.loads(kept)
    lines = [head, re.sub(r"[^|]+", "---", head)]
    for name, what in WORK.items():
        row = rows.get(name)
        if row is None:
            continue
        cells = [what, *(f"{row[k]:.3g} {row['unit']}" for k in ("cebra", "ours"))]
        cells.append(f"{row['ratio']:.1f}")
        if not short:
            verdict = (
                "" if row["must"] is None else "held" if row["ratio"] >= row["must"] else "missed"
            )
            asked = "-" if row["must"] is None else f"{row['must']}, {verdict}"
            device = f"{row['device']}, torch {row['torch']}"
            cells += [asked, quality(row, reference), device, row["date"]]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def growth() -> dict[str, list[dict[str, Any]]]:
    """The newest measurement of each kind of device."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((HOME / "benchmarks" / "results").glob("growth-*.json")):
        kind = path.name.split("-")[1]
        rows = json.loads(path.read_text())
        if kind not in found or rows[0]["date"] >= found[kind][0]["date"]:
            found[kind] = rows
    return found


def growth_table(found: dict[str, list[dict[str, Any]]]) -> str:
    """A row for what is varied, with the step, its floor and their ratio on each device."""
    kinds = list(found)
    head = "| varied | | " + " | ".join(f"{k}: ms a step | floor | ratio" for k in kinds) + " |"
    lines = [head, "|---" * (2 + 3 * len(kinds)) + "|"]
    keys = list(dict.fromkeys(_place(r) for k in kinds for r in found[k]))
    varied = list(dict.fromkeys(name for name, *_ in keys))
    keys.sort(key=lambda key: (varied.index(key[0]), *key[1:]))
    for name, value, columns in keys:
        cells = [name, f"{value:,}" + LABELS[columns]]
        for kind in kinds:
            row = next((r for r in found[kind] if _place(r) == (name, value, columns)), None)
            if row is None:
                cells += ["", "", ""]
            else:
                ratio = row["ms"] / row["floor_ms"]
                cells += [f"{row['ms']:.3g}", f"{row['floor_ms']:.2g}", f"{ratio:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


LABELS = {0: "", 1: ", a label of one column", 3: ", a label of three columns"}


def _place(row: dict[str, Any]) -> tuple[str, int, int]:
    return row["varied"], row["value"], row["label_columns"]


def growth_plot(found: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Milliseconds a step against what is varied, one panel each, with the floors."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    names = list(dict.fromkeys(r["varied"] for rows in found.values() for r in rows))
    figure, panels = plt.subplots(1, len(names), figsize=(3 * len(names), 3.2), sharey=True)
    for panel, name in zip(panels, names, strict=True):
        for colour, (kind, rows) in zip(("#31688e", "#c2410c"), found.items(), strict=False):
            own = [r for r in rows if r["varied"] == name]
            for columns, style in ((0, "-o"), (1, "--^"), (3, ":s")):
                some = [r for r in own if r["label_columns"] == columns]
                if some:
                    label = f"{kind}{LABELS[columns]}"
                    x = [r["value"] for r in some]
                    panel.plot(x, [r["ms"] for r in some], style, color=colour, label=label, ms=4)
            plain = [r for r in own if r["label_columns"] == 0]
            floors = [r["floor_ms"] for r in plain]
            panel.plot(
                [r["value"] for r in plain], floors, color=colour, alpha=0.35, lw=1,
                label=f"{kind}, floor",
            )  # fmt: skip
        panel.set(xscale="log", yscale="log", xlabel=name)
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("ms a step, all runs together")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=4, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.16, 1, 1))
    figure.savefig(path, dpi=130)


def _put(path: Path, text: str, begin: str, end: str) -> None:
    """Write text between two marks of a page."""
    page = path.read_text()
    at, until = page.index(begin) + len(begin), page.index(end)
    path.write_text(page[:at] + "\n" + text + "\n" + page[until:])
    print(path)


def main() -> None:
    rows, grown = newest(), growth()
    page = HOME / "docs" / "performance.md"
    _put(page, table(rows, short=False), BEGIN, END)
    _put(HOME / "README.md", table(rows, short=True), BEGIN, END)
    _put(page, growth_table(grown), *GROWTH)
    growth_plot(grown, HOME / "docs" / "images" / "growth.png")


if __name__ == "__main__":
    main()
