"""An observed score beside what chance gives: p values, and q values for several tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

__all__ = ["Tested", "band", "interval", "least_nulls", "p_value", "q_values"]


@dataclass(frozen=True, eq=False)
class Tested:
    """An observed score and what it would be by chance.

    Attributes
    ----------
    claim : str
        "time-locked", "content", "identity" or "label".
    stimulus : str
        "" where the claim is about all stimuli.
    statistic, unit : str
    observed : float
    null : array of float64, shape (m,)
    higher : bool
        Whether higher is better.
    """

    claim: str
    stimulus: str
    statistic: str
    unit: str
    observed: float
    null: NDArray[np.float64]
    higher: bool

    @property
    def p(self) -> float:
        """One-sided; see `p_value`."""
        return p_value(self.observed, self.null, higher=self.higher)


def p_value(observed: float, null: NDArray[np.float64], *, higher: bool) -> float:
    """(b + 1) / (m + 1), with b of m nulls at least as good as what was observed.

    Never zero: the observed value is one of the values that chance could have given.

    Examples
    --------
    >>> p_value(3.0, np.array([1.0, 2.0, 3.0, 0.0]), higher=True)
    0.4
    """
    better = null >= observed if higher else null <= observed
    return (int(better.sum()) + 1) / (len(null) + 1)


def band(null: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean of a null and the bounds of its middle 95 %; NaN where there is none."""
    if not len(null):
        return math.nan, math.nan, math.nan
    low, high = np.quantile(null, (0.025, 0.975)).tolist()
    return float(null.mean()), low, high


def interval(each: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean and 95 % t interval over runs, or units that share nothing; NaN bounds below three."""
    n, mean = len(each), float(each.mean())
    if n < 3:
        return mean, math.nan, math.nan
    half = float(stats.t.ppf(0.975, n - 1) * each.std(ddof=1) / np.sqrt(n))
    return mean, mean - half, mean + half


def q_values(p: Sequence[float]) -> NDArray[np.float64]:
    """P values corrected for their number (Benjamini & Hochberg 1995), by scipy."""
    return np.asarray(stats.false_discovery_control(np.asarray(p, dtype=np.float64)))


def least_nulls(n_tests: int, alpha: float = 0.05) -> int:
    """Nulls below which not even the best of so many tests can reach q < alpha alone.

    Examples
    --------
    >>> least_nulls(12)
    239
    """
    return math.ceil(n_tests / alpha) - 1
