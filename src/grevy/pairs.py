"""Which samples are alike: the kinds of pairs, and their preparation once a fit.

Sources: Schneider, Lee & Mathis 2023, Methods, "Sampling". A step needs references, a positive for
each of them, and negatives that all references share; `drawing.draw` draws them.

With several sessions a positive may lie in another session than its reference: that is what aligns
their embeddings. It needs a label that means the same everywhere; time alone means nothing across
sessions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from dataclasses import field as _default
from typing import TYPE_CHECKING, ClassVar, Literal, assert_never

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigError, DataError
from .recording import Label, Recording
from .windows import ReceptiveField, Spans, keep, valid_centres, within

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

__all__ = [
    "ClassPairs",
    "DeltaPairs",
    "HybridPairs",
    "LabelPairs",
    "Lookup",
    "MixedPairs",
    "NearPairs",
    "PairTable",
    "Pairs",
    "TimePairs",
    "parts",
    "prepare",
    "prepare_sessions",
    "wrap",
]

_STRICT: dict[str, str] = {"extra": "forbid"}


@dataclass(frozen=True)
class TimePairs:
    """A sample and one `offset` samples later are alike; with several offsets, one at random."""

    offsets: tuple[int, ...] = (1,)
    kind: Literal["time"] = "time"
    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    def __post_init__(self) -> None:
        if not self.offsets or min(self.offsets) < 1:
            raise ConfigError(f"time offsets must be at least 1 sample; found {self.offsets}.")


@dataclass(frozen=True)
class DeltaPairs:
    """The positive's label is the reference's plus a change seen somewhere over `lag` samples.

    CEBRA's `time_delta`: the change is drawn from the empirical distribution of label changes.
    """

    labels: tuple[str, ...]
    lag: int = 1
    kind: Literal["delta"] = "delta"
    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    def __post_init__(self) -> None:
        if self.lag < 1 or not self.labels:
            raise ConfigError(
                f"delta pairs need labels and a lag of at least 1; found {self.labels}, {self.lag}."
            )


@dataclass(frozen=True)
class NearPairs:
    """The positive's label is the reference's plus Gaussian noise: CEBRA's `delta_normal`."""

    labels: tuple[str, ...]
    sd: float
    kind: Literal["near"] = "near"
    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    def __post_init__(self) -> None:
        if not 0 < self.sd < math.inf or not self.labels:
            raise ConfigError(
                f"near pairs need labels and a positive, finite sd; found {self.labels}, {self.sd}."
            )
        object.__setattr__(self, "sd", float(self.sd))


@dataclass(frozen=True)
class ClassPairs:
    """Samples of one class of a discrete label are alike.

    References follow the data; with `balanced` every class is equally likely, and references and
    negatives are then drawn one by one. Across sessions every class must exist in every session,
    or with `shared_only` those that do not are left out.
    """

    label: str
    balanced: bool = False
    shared_only: bool = False
    kind: Literal["class"] = "class"
    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT


@dataclass(frozen=True)
class MixedPairs:
    """Continuous labels as `behavior` says, among samples of the reference's class of `label`.

    As in CEBRA every class is equally likely (`balanced`), drawn one by one.
    """

    behavior: DeltaPairs | NearPairs
    label: str
    balanced: bool = True
    shared_only: bool = False
    kind: Literal["mixed"] = "mixed"
    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT


LabelPairs = DeltaPairs | NearPairs | ClassPairs | MixedPairs


@dataclass(frozen=True)
class HybridPairs:
    """Label pairs on the first latents and time pairs on all of them, the two losses added."""

    behavior: LabelPairs
    time: TimePairs
    behavior_latents: int = 3
    kind: Literal["hybrid"] = "hybrid"
    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    def __post_init__(self) -> None:
        if self.behavior_latents < 1:
            raise ConfigError(
                f"hybrid pairs need at least 1 behavior latent; found {self.behavior_latents}."
            )


Pairs = TimePairs | LabelPairs | HybridPairs


@dataclass(frozen=True, eq=False)
class Lookup:
    """Anchors ready for the question "which label is nearest?"; ties are all kept.

    `members[first[u]:first[u + 1]]` are the places (in the list of anchors) of those that carry
    the u-th distinct label.
    """

    distinct: NDArray[np.float64]  # (u, d)
    members: NDArray[np.int64]
    first: NDArray[np.int64]
    periods: NDArray[np.float64]  # (d,), 0 where a column is not circular
    tree: cKDTree | None  # None for one column: sorted search


@dataclass(frozen=True, eq=False)
class PairTable:
    """All that drawing needs of one session, prepared once a fit.

    Attributes
    ----------
    pairs : Pairs
    field : ReceptiveField
    anchors : array of int64, shape (n,)
        Centres that may be a reference or a negative: whole window, known label, reach.
    breaks : array of int64
        Places in the (circular) list of anchors where neighbours are not neighbours in time.
    labels : array of float64, shape (n, d), or None
        Continuous labels of the anchors, centred alike in all sessions.
    periods : array of float64, shape (d,)
        0 where a column is not circular.
    changes : array of float64, shape (m, d)
        Label changes seen over the lag of delta pairs, pooled over sessions; else empty.
    code : array of int64, shape (n,), or None
        Class of each anchor, numbered alike in all sessions.
    members, first : arrays of int64
        `members[first[c]:first[c + 1]]` are the places of the anchors of class c.
    lookups : tuple of Lookup
        One, or for mixed pairs one a class.
    """

    pairs: Pairs
    field: ReceptiveField
    anchors: NDArray[np.int64]
    breaks: NDArray[np.int64]
    labels: NDArray[np.float64] | None = None
    periods: NDArray[np.float64] = _default(default_factory=lambda: np.empty(0))
    changes: NDArray[np.float64] = _default(default_factory=lambda: np.empty((0, 0)))
    code: NDArray[np.int64] | None = None
    members: NDArray[np.int64] = _default(default_factory=lambda: np.empty(0, dtype=np.int64))
    first: NDArray[np.int64] = _default(default_factory=lambda: np.zeros(1, dtype=np.int64))
    lookups: tuple[Lookup, ...] = ()


def prepare(recording: Recording, pairs: Pairs, field: ReceptiveField, spans: Spans) -> PairTable:
    """Build the table that pairs of one recording are drawn from.

    Parameters
    ----------
    recording : Recording
    pairs : Pairs
    field : ReceptiveField
        Of the encoder that will look at the pairs.
    spans : array of int64, shape (E, 2)
        Where to train. Cut at the borders of the recording's epochs, which nothing crosses.

    Returns
    -------
    PairTable

    Raises
    ------
    DataError
        If no sample has a whole window (and positive), or a label is absent or of the wrong kind.
    """
    return prepare_sessions([recording], pairs, field, [spans])[0]


def prepare_sessions(
    recordings: Sequence[Recording], pairs: Pairs, field: ReceptiveField, spans: Sequence[Spans]
) -> list[PairTable]:
    """Build the tables of several sessions, with labels and classes that mean the same in each.

    Parameters
    ----------
    recordings : sequence of S Recording
    pairs, field
        As in `prepare`.
    spans : sequence of S arrays of int64, shape (E, 2)

    Returns
    -------
    list of S PairTable

    Raises
    ------
    DataError
        As `prepare`, and if a label differs in width or period between sessions, or a class is
        absent from one.
    ConfigError
        If several sessions are to be aligned by time alone.
    """
    behavior, _ = parts(pairs)
    if len(recordings) > 1 and behavior is None:
        raise ConfigError(
            f"several sessions need pairs with a label: time pairs hold within a session and "
            f"cannot align {len(recordings)} of them. Give each session a label that means the "
            f"same in all, or train one model a session."
        )
    places = [
        _anchors(r, pairs, field, s, lag=_lag(behavior))
        for r, s in zip(recordings, spans, strict=True)
    ]
    tables = [
        PairTable(pairs, field, anchors, np.empty(0, dtype=np.int64)) for anchors, _ in places
    ]
    match behavior:
        case None:
            pass
        case DeltaPairs() | NearPairs():
            tables = _with_labels(recordings, tables, behavior, [early for _, early in places])
        case ClassPairs():
            tables = _with_classes(recordings, tables, behavior)
        case MixedPairs():
            early = [early for _, early in places]
            tables = _with_classes(recordings, tables, behavior)
            tables = _with_labels(recordings, tables, behavior.behavior, early)
        case _:
            assert_never(behavior)
    return [
        replace(
            t,
            breaks=np.flatnonzero(np.diff(t.anchors, append=t.anchors[0]) != 1),
            lookups=_lookups(t),
        )
        for t in tables
    ]


def parts(pairs: Pairs) -> tuple[LabelPairs | None, TimePairs | None]:
    """The label part and the time part of any kind of pairs."""
    match pairs:
        case TimePairs():
            return None, pairs
        case DeltaPairs() | NearPairs() | ClassPairs() | MixedPairs():
            return pairs, None
        case HybridPairs():
            return pairs.behavior, pairs.time
        case _:
            assert_never(pairs)


def _lag(behavior: LabelPairs | None) -> int:
    if isinstance(behavior, MixedPairs):
        behavior = behavior.behavior
    return behavior.lag if isinstance(behavior, DeltaPairs) else 0


def _anchors(
    recording: Recording, pairs: Pairs, field: ReceptiveField, spans: Spans, *, lag: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Centres to train on, and samples whose label is also known `lag` samples later."""
    behavior, time = parts(pairs)
    reach = max(time.offsets) if time else 0
    spans = within(spans, recording.epochs)
    anchors = valid_centres(spans, field, reach=reach)
    if behavior is not None:
        known = np.ones(recording.n_samples, dtype=bool)
        for name in _label_names(behavior):
            known &= _label(recording, name).mask
        anchors = anchors[known[anchors]]
        spans = keep(spans, known)
    if len(anchors) < 2:
        lengths = [int(b - a) for a, b in spans]
        raise DataError(
            f"training needs stretches of at least {len(field) + reach} samples (window "
            f"{len(field)}, offset {reach}) where every label is known; found {len(lengths)} "
            f"stretches, the longest of {max(lengths, default=0)}. Use a shorter window or offset."
        )
    return anchors, valid_centres(spans, ReceptiveField(0, 1), reach=lag)


def _label_names(pairs: LabelPairs) -> tuple[str, ...]:
    if isinstance(pairs, MixedPairs):
        return (*pairs.behavior.labels, pairs.label)
    return (pairs.label,) if isinstance(pairs, ClassPairs) else pairs.labels


def _label(recording: Recording, name: str) -> Label:
    if name not in recording.labels:
        have = ", ".join(recording.labels) or "none"
        where = f" '{recording.name}'" if recording.name else ""
        raise DataError(f"pairs need the label '{name}'; the recording{where} has: {have}.")
    return recording.labels[name]


def _with_classes(
    recordings: Sequence[Recording], tables: Sequence[PairTable], pairs: ClassPairs | MixedPairs
) -> list[PairTable]:
    values = []
    for recording, table in zip(recordings, tables, strict=True):
        label = _label(recording, pairs.label)
        if label.kind != "discrete" or label.values.ndim != 1:
            raise DataError(f"class pairs need one discrete label; '{pairs.label}' is not one.")
        values.append(label.values[table.anchors])
    classes = np.unique(np.concatenate(values))
    there = np.array([np.isin(classes, v) for v in values])
    if pairs.shared_only:
        classes = classes[there.all(axis=0)]
        if not len(classes):
            raise DataError(f"no class of label '{pairs.label}' exists in every session.")
    elif not there.all():
        session, missing = np.argwhere(~there)[0]
        raise DataError(
            f"every class must exist in every session; class {classes[missing]} of label "
            f"'{pairs.label}' is absent from session {session}. Drop its samples, or leave such "
            f"classes out (shared_only=True)."
        )
    done = []
    for table, value in zip(tables, values, strict=True):
        use = np.isin(value, classes)
        code = np.searchsorted(classes, value[use]).astype(np.int64)
        members, first = _buckets(code, len(classes))
        done.append(
            replace(table, anchors=table.anchors[use], code=code, members=members, first=first)
        )
    return done


def _with_labels(
    recordings: Sequence[Recording],
    tables: Sequence[PairTable],
    pairs: DeltaPairs | NearPairs,
    early: Sequence[NDArray[np.int64]],
) -> list[PairTable]:
    columns = [_columns(recording, pairs.labels) for recording in recordings]
    period = columns[0][1]
    for s, (_, other) in enumerate(columns):
        if len(other) != len(period) or (other != period).any():
            raise DataError(
                f"labels must have the same columns and periods in every session; session 0 has "
                f"periods {period.tolist()} and session {s} {other.tolist()} (0: not circular)."
            )
    # Centred, so that timestamps and absolute coordinates keep their last digits; by one shift for
    # all sessions, so that labels still mean the same.
    used = np.concatenate([v[t.anchors] for (v, _), t in zip(columns, tables, strict=True)])
    shift = np.where(period > 0, 0.0, used.mean(axis=0))
    changes = np.empty((0, len(period)))
    values = [wrap(v - shift, period) for v, _ in columns]
    if isinstance(pairs, DeltaPairs):
        changes = np.concatenate(
            [v[e + pairs.lag] - v[e] for v, e in zip(values, early, strict=True)]
        )
        if not len(changes):
            raise DataError(f"no stretch with known labels is longer than the lag {pairs.lag}.")
    return [
        replace(t, labels=v[t.anchors], periods=period, changes=changes)
        for t, v in zip(tables, values, strict=True)
    ]


def _columns(
    recording: Recording, names: tuple[str, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Continuous labels side by side, (T, d), and their periods."""
    columns, periods = [], []
    for name in names:
        label = _label(recording, name)
        if label.kind != "continuous":
            raise DataError(f"'{name}' is discrete: delta and near pairs need continuous labels.")
        values = np.asarray(label.values, dtype=np.float64).reshape(recording.n_samples, -1)
        # Where a label is unknown its value means nothing and is never looked at, NaN or not.
        columns.append(np.where(label.mask[:, None], values, 0.0))
        periods += [label.period or 0.0] * values.shape[1]
    return np.concatenate(columns, axis=1), np.array(periods)


def _lookups(table: PairTable) -> tuple[Lookup, ...]:
    if table.labels is None:
        return ()
    everywhere = np.arange(len(table.anchors))
    groups = (
        [everywhere]
        if table.code is None
        else [table.members[a:b] for a, b in itertools.pairwise(table.first)]
    )
    found = []
    for group in groups:
        labels = table.labels[group]
        distinct, code = np.unique(labels, axis=0, return_inverse=True)
        members, first = _buckets(code.reshape(-1).astype(np.int64), len(distinct))
        tree = None
        if labels.shape[1] > 1:
            from scipy.spatial import cKDTree  # half a second, for those who need it

            tree = cKDTree(distinct, boxsize=table.periods)
        found.append(Lookup(distinct, group[members], first, table.periods, tree))
    return tuple(found)


def _buckets(code: NDArray[np.int64], n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    members = np.argsort(code, kind="stable")
    counts = np.bincount(code, minlength=n)
    return members, np.concatenate(([0], np.cumsum(counts))).astype(np.int64)


def wrap(values: NDArray[np.float64], periods: NDArray[np.float64]) -> NDArray[np.float64]:
    """Circular columns brought into [0, period); a period of 0 leaves a column alone."""
    if not periods.any():
        return values
    safe = np.where(periods > 0, periods, 1.0)
    inside = np.mod(values, safe)
    inside = np.where(inside >= safe, 0.0, inside)  # np.mod may round a tiny negative up
    return np.where(periods > 0, inside, values)
