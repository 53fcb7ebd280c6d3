"""Arrays as scikit-learn users hand them over, made into recordings: one a session."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DataError
from .recording import Label, Recording, not_finite, pieces
from .room import as_float32

__all__ = [
    "DISCRETE",
    "Sessions",
    "check_labels",
    "checked",
    "finite",
    "is_sessions",
    "plain_array",
    "sessions_of",
]

DISCRETE = "discrete"


@dataclass(frozen=True, eq=False)
class Sessions:
    """Recordings, and what kind of labels they came with.

    Attributes
    ----------
    recordings : tuple of Recording
    continuous : tuple of str
        Names of the continuous labels.
    discrete : bool
        Whether there is a discrete one, by the name `DISCRETE`.
    label_types : list
        `(dtype, shape)` of every label as given; for several sessions a list of such lists.
    several : bool
        Whether sessions were given as a list, if of one.
    """

    recordings: tuple[Recording, ...]
    continuous: tuple[str, ...]
    discrete: bool
    label_types: list[Any]
    several: bool


def is_sessions(x: object) -> bool:
    """Whether this is a list of two-dimensional arrays rather than one array."""
    return isinstance(x, list | tuple) and len(x) > 0 and all(_ndim(part) == 2 for part in x)


def _ndim(part: object) -> int:
    """Axes of an array, or of nested lists."""
    if hasattr(part, "ndim"):
        return int(part.ndim)
    if hasattr(part, "shape"):
        return len(part.shape)
    try:
        return np.ndim(part)  # type: ignore[arg-type]
    except ValueError:  # rows of different length
        return 0


def plain_array(x: Any) -> NDArray[Any]:
    """A numpy array of a tensor, a data frame, a time series with `.values`, or nested lists.

    Raises
    ------
    DataError
        If lists are nested unevenly.
    """
    if hasattr(x, "detach"):
        x = x.detach().cpu()
    if hasattr(x, "time_support") and hasattr(x, "values"):
        x = x.values
    try:
        return np.asarray(x)
    except ValueError as error:
        raise DataError(
            f"an array must have rows of one length; found {type(x).__name__}s of several."
        ) from error


def checked(x: NDArray[Any], least: int, name: str) -> NDArray[Any]:
    """Finite activity of one session, (T, C), at least `least` samples long.

    Raises
    ------
    DataError
    """
    if x.ndim != 2 or x.dtype.kind not in "fiub" or x.shape[1] < 1:
        raise DataError(
            f"{name} must be an array of numbers of shape (time, channels); found {x.dtype} of "
            f"shape {x.shape}."
        )
    if len(x) < least:
        raise DataError(
            f"{name} must have at least {least} samples, as long as the window; found {len(x)}."
        )
    return finite(x, name)


def finite(x: NDArray[Any], name: str) -> NDArray[Any]:
    """The array itself, without NaN or infinity; a sentence where it looks transposed.

    Raises
    ------
    DataError
        With the row and column of the first value that is not finite.
    """
    n_bad, (row, column) = not_finite(x)
    if n_bad:
        what = "NaN" if np.isnan(x[row, column]) else "inf"
        raise DataError(
            f"{name} must be finite; found {n_bad} values that are not, the first ({what}) in "
            f"row {row}, column {column}. Interpolate, or drop the channel."
        )
    highest = max(max(float(p.max()), -float(p.min())) for p in pieces(x))
    if highest > float(np.finfo(np.float32).max):
        raise DataError(f"{name} must fit in float32 numbers; found {highest:.3g}. Rescale it.")
    if x.shape[1] > x.shape[0] and x.shape[0] > 1:
        warnings.warn(
            f"{name} has more channels than samples ({x.shape[1]} > {x.shape[0]}): time belongs on "
            f"the first axis. Transpose it if it is not.",
            UserWarning,
            stacklevel=4,
        )
    return x


def sessions_of(
    arrays: Sequence[NDArray[Any]],
    raw: Sequence[Any],
    labels: Sequence[Any],
    *,
    several: bool,
    epochs: Any = None,
    periods: Mapping[int, float] | None = None,
) -> Sessions:
    """Put labels and epochs to checked activity.

    Parameters
    ----------
    arrays : sequence of S arrays, shape (T, C)
        Finite activity of every session.
    raw : sequence of S objects
        As they were given: a time series brings its own epochs (`time_support`).
    labels : sequence
        Label arrays, or for several sessions a list with one array a session for each label.
        Floating numbers are continuous, integers and booleans discrete.
    several : bool
        Whether lists were given.
    epochs : array_like, shape (E, 2), or a list of them, optional
        [start, stop) rows of each session that windows and pairs may not leave.
    periods : mapping of column to period, optional
        Length of the circle for circular columns of the continuous labels.

    Returns
    -------
    Sessions

    Raises
    ------
    DataError
        If a label or an epoch does not fit.
    """
    n = len(arrays)
    given = [_split(label, n, i) if several else [label] for i, label in enumerate(labels)]
    borders = [None] * n if epochs is None else (list(epochs) if several else [epochs])
    if len(borders) != n:
        raise DataError(
            f"epochs must hold one array for each of {n} sessions; found {len(borders)}."
        )
    checked = [
        [_label(one, len(arrays[s]), i, s if several else None) for s, one in enumerate(each)]
        for i, each in enumerate(given)
    ]
    for i, each in enumerate(checked):
        kinds = {value.dtype.kind for value in each}
        widths = {value.shape[1:] for value in each}
        if len(kinds) > 1 or len(widths) > 1:
            raise DataError(
                f"label {i} must be of one kind and width in all sessions; found "
                f"{[(str(v.dtype), v.shape) for v in each]}."
            )
    discrete = [i for i, each in enumerate(checked) if each[0].dtype.kind == "i"]
    if len(discrete) > 1:
        raise DataError(
            f"at most one label may be discrete; found {len(discrete)} (integers or booleans). "
            f"Number their combinations, or give numbers that are not classes as floats."
        )
    recordings, column = [], 0
    if periods is not None and not isinstance(periods, Mapping):
        raise DataError(
            f"label_periods must be a dict of label columns to the lengths of their circles; found "
            f"{periods!r}."
        )
    circles = dict(periods or {})
    for c, length in circles.items():
        if not isinstance(length, Real) or not 0 < float(length) < np.inf:
            raise DataError(f"label_periods must be positive; found {length!r} for column {c}.")
    for s, x in enumerate(arrays):
        found: dict[str, Label] = {}
        column = 0
        for i, each in enumerate(checked):
            if i in discrete:
                found[DISCRETE] = Label(each[s], "discrete")
                continue
            own = each[s].reshape(len(x), -1)
            for k in range(own.shape[1]):
                period = circles.get(column)
                found[f"label {i}.{k}"] = Label(own[:, k], "continuous", period=period)
                column += 1
        recordings.append(_recording(x, raw[s], borders[s], found, s if several else None))
    if any(c not in range(column) for c in circles):
        raise DataError(
            f"label_periods names columns {sorted(circles)}; the continuous labels have {column}."
        )
    names = tuple(name for name in recordings[0].labels if name != DISCRETE)
    types: list[Any] = [
        [(v.dtype, v.shape) for v in map(plain_array, each)]
        if several
        else (plain_array(each[0]).dtype, plain_array(each[0]).shape)
        for each in given
    ]
    return Sessions(tuple(recordings), names, bool(discrete), types, several)


def _split(label: Any, n: int, i: int) -> list[Any]:
    """One label array a session."""
    if not isinstance(label, list | tuple) or len(label) != n:
        found = f"{len(label)}" if isinstance(label, list | tuple) else f"a {type(label).__name__}"
        raise DataError(
            f"label {i} of {n} sessions must be a list of {n} arrays, one a session; found {found}."
        )
    return list(label)


def _label(given: Any, n: int, i: int, session: int | None) -> NDArray[Any]:
    """Label values as float64 (T, d) or int64 (T,)."""
    where = f"label {i}" if session is None else f"label {i} of session {session}"
    value = plain_array(given)
    if value.dtype.kind not in "fiub":
        raise DataError(
            f"Unknown label type: {where} must hold floats (continuous) or integers (discrete); "
            f"found {value.dtype}. "
            f"Number the classes, or convert."
        )
    if value.ndim not in (1, 2) or len(value) != n or 0 in value.shape[1:]:
        raise DataError(
            f"{where} must have one row for each of the {n} samples; found shape {value.shape}, "
            f"that is {len(value) if value.ndim else 0} rows."
        )
    if value.dtype.kind in "iub":
        if value.ndim == 2 and value.shape[1] > 1:
            raise DataError(
                f"{where} holds integers, so classes, and must be one column; found "
                f"{value.shape[1]}. Give it as floats if its values are numbers."
            )
        return value.reshape(-1).astype(np.int64)
    bad = np.argwhere(~np.isfinite(value.reshape(n, -1)))
    if len(bad):
        raise DataError(
            f"{where} must be finite; found {len(bad)} values that are not, the first in row "
            f"{bad[0][0]}, column {bad[0][1]}. Drop these samples, or end an epoch before them."
        )
    return value.astype(np.float64)


def _recording(
    x: NDArray[Any], raw: Any, epochs: Any, labels: Mapping[str, Label], session: int | None
) -> Recording:
    n = len(x)
    times = np.arange(n, dtype=np.float64)
    if epochs is None and hasattr(raw, "time_support"):
        spans = _spans_of(raw, n)
    else:
        spans = np.array([[0, n]]) if epochs is None else plain_array(epochs)
    ok = (
        spans.ndim == 2
        and spans.shape[1:] == (2,)
        and len(spans) > 0
        and spans.dtype.kind in "iu"
        and spans.min() >= 0
        and spans.max() <= n
        and bool((spans[:, 0] < spans[:, 1]).all())
        and bool((spans[1:, 0] >= spans[:-1, 1]).all())
    )
    if not ok:
        raise DataError(
            f"epochs must be [start, stop) rows in order, without overlap, inside the {n} samples; "
            f"found {str(np.asarray(spans).tolist())[:80]}."
        )
    name = "" if session is None else f"session {session}"
    return Recording(
        activity=as_float32(x),
        times_s=times,
        epochs=spans.astype(np.int64),
        labels=labels,
        name=name,
    )


def _spans_of(raw: Any, n: int) -> NDArray[np.int64]:
    """Rows of a time series that lie in each interval of its `time_support`."""
    support = np.asarray(getattr(raw.time_support, "values", raw.time_support), dtype=np.float64)
    times = np.asarray(raw.t, dtype=np.float64)
    start = np.searchsorted(times, support[:, 0], side="left")
    stop = np.searchsorted(times, support[:, 1], side="right")
    stop[:-1] = np.minimum(stop[:-1], start[1:])
    spans = np.stack([start, stop], axis=1)
    return spans[spans[:, 0] < spans[:, 1]].astype(np.int64)


def check_labels(fitted: Sequence[Any], sessions: Sessions, *, fitted_several: bool) -> None:
    """Refuse labels that are not of the number, kind and width a model was fitted with.

    Raises
    ------
    DataError
    """

    def plain(types: Sequence[Any], several: bool) -> list[tuple[str, int]]:
        one = [each[0] if several else each for each in types]
        return [
            ("continuous" if np.dtype(d).kind == "f" else "discrete", _width(s)) for d, s in one
        ]

    asked, found = plain(fitted, fitted_several), plain(sessions.label_types, sessions.several)
    if asked != found:
        raise DataError(
            f"labels must be those the model was fitted with (kind, columns): {asked}; "
            f"found {found}."
        )


def _width(shape: Sequence[int]) -> int:
    return int(shape[1]) if len(shape) > 1 else 1
