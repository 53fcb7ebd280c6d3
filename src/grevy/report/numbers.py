"""How numbers are written on the page."""

from __future__ import annotations

import math
from collections.abc import Iterable

__all__ = ["NOTHING", "Scale", "amount", "duration", "metric_words"]

NOTHING = "–"
"""Where there is no number."""


def amount(value: float, digits: int = 3) -> str:
    """A number with so many significant digits; integers with their thousands apart."""
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f")
    if not math.isfinite(value):
        return NOTHING
    return f"{value:.{digits}g}".replace("-", "−")


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever is read best."""
    if not math.isfinite(seconds):
        return NOTHING
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes / 60:.1f} h"


class Scale:
    """How the numbers of one metric are written: per cent for accuracy, else even decimals."""

    def __init__(self, metric: str, unit: str, values: Iterable[float]) -> None:
        self.percent = metric == "accuracy"
        sizes = [abs(v) for v in values if math.isfinite(v)]
        largest = max(sizes, default=1.0)
        self.unit = "%" if self.percent else unit
        small = 1 - math.floor(math.log10(largest)) if 0 < largest < 1 else 2
        self.decimals = 1 if self.percent or 10 <= largest < 1000 else (small, 0)[largest >= 1000]

    def number(self, value: float, *, sign: bool = False) -> str:
        """One number without its unit."""
        if not math.isfinite(value):
            return NOTHING
        text = f"{100 * value if self.percent else value:{'+' if sign else ''}.{self.decimals}f}"
        return text.replace("-", "−")

    def interval(self, low: float, high: float, *, sign: bool = False) -> str:
        """Both ends, or a dash where there is no interval."""
        if not (math.isfinite(low) and math.isfinite(high)):
            return NOTHING
        return f"{self.number(low, sign=sign)} to {self.number(high, sign=sign)}"


def metric_words(metric: str) -> str:
    """A metric as it is called on the page."""
    return {"r2": "R²"}.get(metric, metric)
