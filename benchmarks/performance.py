"""Write docs/performance.md and the table in README.md from the kept results of speed.py.

    python benchmarks/performance.py

The newest row of each name under benchmarks/results/speed-*.json counts.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

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
BEGIN, END = "<!-- speed: made by benchmarks/performance.py -->", "<!-- end of speed -->"


def newest() -> dict[str, dict[str, Any]]:
    """The last measured row of each name."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((HOME / "benchmarks" / "results").glob("speed-*.json")):
        for row in json.loads(path.read_text()):
            before = found.get(row["row"])
            if before is None or row["date"] >= before["date"]:
                found[row["row"]] = row
    return found


def table(rows: dict[str, dict[str, Any]], *, short: bool) -> str:
    head = "| work | CEBRA 0.6.1 | grevy | times |"
    head += "" if short else " asked | device | date |"
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
            cells += [asked, f"{row['device']}, torch {row['torch']}", row["date"]]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    rows = newest()
    page = HOME / "docs" / "performance.md"
    text = page.read_text()
    for path, short in ((page, False), (HOME / "README.md", True)):
        text = path.read_text()
        begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
        path.write_text(text[:begin] + "\n" + table(rows, short=short) + "\n" + text[end:])
        print(path)


if __name__ == "__main__":
    main()
