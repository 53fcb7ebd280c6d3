"""Which samples are alike: kinds of pairs, their preparation once a fit, and drawing many steps.

Sources: Schneider, Lee & Mathis 2023, Methods, "Sampling". A step needs references, a positive for
each of them, and negatives that all references share.

References and negatives are drawn in blocks: a block is `block` neighbours in the list of valid
centres, beginning anywhere in it with equal chance. So every centre is as likely as any other,
while one dense convolution serves the whole block and, for time pairs, its positives. With
`block=1` every draw is independent. Where a block runs over the border of an epoch it is split;
the places for split pieces are counted beforehand, so the shape of a step depends on the table
alone and a run gives the same numbers whatever runs beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from .draws import Purpose, integers, normals, uniforms
from .errors import ConfigError, DataError
from .recording import Label, Recording
from .windows import ReceptiveField, Spans, keep, valid_centres, within

__all__ = [
    "ClassPairs",
    "DeltaPairs",
    "Draw",
    "HybridPairs",
    "LabelPairs",
    "NearPairs",
    "PairTable",
    "Pairs",
    "Segments",
    "TimePairs",
    "centres_of",
    "draw",
    "prepare",
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
    negatives are then drawn one by one.
    """

    label: str
    balanced: bool = False
    kind: Literal["class"] = "class"
    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT


LabelPairs = DeltaPairs | NearPairs | ClassPairs


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


Pairs = TimePairs | DeltaPairs | NearPairs | ClassPairs | HybridPairs


@dataclass(frozen=True, eq=False)
class _Nearest:
    """Labels of the anchors, ready for nearest-neighbour questions; ties are all kept.

    `members[first[u]:first[u + 1]]` are the anchors that carry the u-th distinct label.
    """

    labels: NDArray[np.float64]  # (n, d), one row an anchor
    distinct: NDArray[np.float64]  # (u, d)
    members: NDArray[np.int64]
    first: NDArray[np.int64]
    periods: NDArray[np.float64]  # (d,), 0 where a column is not circular
    changes: NDArray[np.float64]  # (m, d), empirical label changes; empty for near pairs
    tree: cKDTree | None  # None for one column: sorted search


@dataclass(frozen=True, eq=False)
class _Classes:
    """Anchors by class: `members[first[c]:first[c + 1]]` are those of class c."""

    code: NDArray[np.int64]  # (n,), class of each anchor
    members: NDArray[np.int64]
    first: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PairTable:
    """All that drawing needs, prepared once a fit.

    Attributes
    ----------
    pairs : Pairs
    field : ReceptiveField
    anchors : array of int64, shape (n,)
        Centres that may be a reference or a negative: whole window, known label, reach.
    breaks : array of int64
        Places in the (circular) list of anchors where neighbours are not neighbours in time.
    index : nearest-label index, classes, or None
    """

    pairs: Pairs
    field: ReceptiveField
    anchors: NDArray[np.int64]
    breaks: NDArray[np.int64]
    index: _Nearest | _Classes | None


@dataclass(frozen=True, eq=False)
class Segments:
    """Segments that one dense pass embeds: `outputs` neighbouring windows from each `start`.

    Attributes
    ----------
    start : int64 tensor, shape (steps, n)
        Centre of the first window.
    outputs : int
    """

    start: Tensor
    outputs: int


@dataclass(frozen=True, eq=False)
class Draw:
    """Triplets for some steps, as places in the flat list of embedded windows.

    The flat list holds the groups in order, each time first: window `o` of segment `s` of a group
    of n segments is entry `base + o * n + s`.

    Attributes
    ----------
    groups : tuple of Segments
    reference, negative : int64 tensors, shape (steps, B) and (steps, N)
    positives : tuple of int64 tensors, shape (steps, B)
        One entry, or (behaviour, time) for hybrid pairs.
    """

    groups: tuple[Segments, ...]
    reference: Tensor
    positives: tuple[Tensor, ...]
    negative: Tensor


def prepare(recording: Recording, pairs: Pairs, field: ReceptiveField, spans: Spans) -> PairTable:
    """Build the table that pairs are drawn from.

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
    reach = 0
    index: _Nearest | _Classes | None = None
    behavior: LabelPairs | None = None
    match pairs:
        case TimePairs():
            reach = max(pairs.offsets)
        case DeltaPairs() | NearPairs() | ClassPairs():
            behavior = pairs
        case HybridPairs():
            behavior, reach = pairs.behavior, max(pairs.time.offsets)
        case _:
            assert_never(pairs)
    spans = within(spans, recording.epochs)
    if behavior is not None:
        known = np.ones(recording.n_samples, dtype=bool)
        for name in _label_names(behavior):
            known &= _label(recording, name).mask
    anchors = valid_centres(spans, field, reach=reach)
    if behavior is not None:
        anchors = anchors[known[anchors]]
        spans = keep(spans, known)
    if len(anchors) < 2:
        lengths = [int(b - a) for a, b in spans]
        raise DataError(
            f"training needs stretches of at least {len(field) + reach} samples (window "
            f"{len(field)}, offset {reach}) where every label is known; found {len(lengths)} "
            f"stretches, the longest of {max(lengths, default=0)}. Use a shorter window or offset."
        )
    if behavior is not None:
        index = _index(recording, behavior, anchors, spans)
    breaks = np.flatnonzero(np.diff(anchors, append=anchors[0]) != 1)
    return PairTable(pairs, field, anchors, breaks, index)


def _label_names(pairs: LabelPairs) -> tuple[str, ...]:
    return (pairs.label,) if isinstance(pairs, ClassPairs) else pairs.labels


def _label(recording: Recording, name: str) -> Label:
    if name not in recording.labels:
        have = ", ".join(recording.labels) or "none"
        raise DataError(f"pairs need the label '{name}'; the recording has: {have}.")
    return recording.labels[name]


def _index(
    recording: Recording, pairs: LabelPairs, anchors: NDArray[np.int64], spans: Spans
) -> _Nearest | _Classes:
    if isinstance(pairs, ClassPairs):
        label = _label(recording, pairs.label)
        if label.kind != "discrete" or label.values.ndim != 1:
            raise DataError(f"class pairs need one discrete label; '{pairs.label}' is not one.")
        code = np.unique(label.values[anchors], return_inverse=True)[1].astype(np.int64)
        members, first = _buckets(code)
        return _Classes(code, members, first)
    columns, periods = [], []
    for name in pairs.labels:
        label = _label(recording, name)
        if label.kind != "continuous":
            raise DataError(f"'{name}' is discrete: delta and near pairs need continuous labels.")
        values = np.asarray(label.values, dtype=np.float64).reshape(recording.n_samples, -1)
        # Where a label is unknown its value means nothing and is never looked at, NaN or not.
        values = np.where(label.mask[:, None], values, 0.0)
        # Centred, so that timestamps and absolute coordinates keep their last digits.
        shift = 0.0 if label.period else values[anchors].mean(axis=0)
        columns.append(values - shift)
        periods += [label.period or 0.0] * values.shape[1]
    values, period = np.concatenate(columns, axis=1), np.array(periods)
    values = _wrap(values, period)
    changes = np.empty((0, values.shape[1]))
    if isinstance(pairs, DeltaPairs):
        early = valid_centres(spans, ReceptiveField(0, 1), reach=pairs.lag)
        if not len(early):
            raise DataError(f"no stretch with known labels is longer than the lag {pairs.lag}.")
        changes = values[early + pairs.lag] - values[early]
    distinct, code = np.unique(values[anchors], axis=0, return_inverse=True)
    members, first = _buckets(code.reshape(-1).astype(np.int64))
    tree = cKDTree(distinct, boxsize=period) if values.shape[1] > 1 else None
    return _Nearest(values[anchors], distinct, members, first, period, changes, tree)


def _buckets(code: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    members = np.argsort(code, kind="stable")
    return members, np.concatenate(([0], np.cumsum(np.bincount(code)))).astype(np.int64)


def _wrap(values: NDArray[np.float64], periods: NDArray[np.float64]) -> NDArray[np.float64]:
    """Circular columns brought into [0, period)."""
    if not periods.any():
        return values
    safe = np.where(periods > 0, periods, 1.0)
    inside = np.mod(values, safe)
    inside = np.where(inside >= safe, 0.0, inside)  # np.mod may round a tiny negative up
    return np.where(periods > 0, inside, values)


def draw(
    table: PairTable, seed: int, steps: Tensor, *, batch: int, n_negatives: int, block: int
) -> Draw:
    """Draw the triplets of some steps; a pure function of its arguments.

    Parameters
    ----------
    table : PairTable
    seed : int
    steps : int64 tensor, shape (S,)
        Step numbers, in any order.
    batch, n_negatives : int
        B references (each with its positive) and N negatives a step.
    block : int
        Neighbouring centres drawn together; 1 draws each on its own.

    Returns
    -------
    Draw
    """
    pairs = table.pairs
    time = pairs if isinstance(pairs, TimePairs) else None
    behavior: LabelPairs | None = None
    match pairs:
        case TimePairs():
            pass
        case DeltaPairs() | NearPairs() | ClassPairs():
            behavior = pairs
        case HybridPairs():
            behavior, time = pairs.behavior, pairs.time
        case _:
            assert_never(pairs)
    single = isinstance(behavior, ClassPairs) and behavior.balanced
    block = 1 if single else min(block, batch, len(table.anchors))
    reference = _anchors(table, seed, Purpose.REFERENCE, steps, batch, block, single)
    negative = _anchors(table, seed, Purpose.NEGATIVE, steps, n_negatives, block, single)

    reach = max(time.offsets) if time else 0
    together = reach <= block + len(table.field) - 1  # else the samples between are not worth it
    groups, places = [], []
    reference, start, flat = _segments(table, reference, block)
    width = start.shape[1]
    base = 0
    groups.append(Segments(start, block + (reach if together else 0)))
    base += width * groups[-1].outputs
    places_time: Tensor | None = None
    if time is not None:
        offset = _offsets(time, seed, steps, batch)
        if together:
            places_time = flat + offset * width
        elif len(time.offsets) == 1:
            groups.append(Segments(start + reach, block))
            places_time = base + flat
            base += width * block
        else:
            groups.append(Segments(torch.from_numpy(table.anchors)[reference] + offset, 1))
            places_time = base + torch.arange(batch).expand(len(steps), -1)
            base += batch
    if behavior is not None:
        positive = _label_positives(table, behavior, seed, steps, reference)
        groups.append(Segments(positive, 1))
        places.append(base + torch.arange(batch).expand(len(steps), -1))
        base += batch
    if places_time is not None:
        places.append(places_time)
    _, start, apart = _segments(table, negative, block)
    groups.append(Segments(start, block))
    return Draw(tuple(groups), flat, tuple(places), base + apart)


def _anchors(
    table: PairTable, seed: int, purpose: Purpose, steps: Tensor, n: int, block: int, even: bool
) -> Tensor:
    """Places in the list of anchors, shape (steps, n)."""
    if even:
        assert isinstance(table.index, _Classes)
        return _balanced(table.index, seed, purpose, steps, n)
    count = len(table.anchors)
    first = integers(seed, purpose, steps, -(-n // block), count)
    return ((first[:, :, None] + torch.arange(block)) % count).reshape(len(steps), -1)[:, :n]


def _balanced(classes: _Classes, seed: int, purpose: Purpose, steps: Tensor, n: int) -> Tensor:
    u = uniforms(seed, purpose, steps, 2 * n).numpy()
    group = (u[:, :n] * (len(classes.first) - 1)).astype(np.int64)
    return torch.from_numpy(_pick(classes.members, classes.first, group, u[:, n:]))


def _pick(
    members: NDArray[np.int64],
    first: NDArray[np.int64],
    group: NDArray[np.int64],
    u: NDArray[np.float64],
) -> NDArray[np.int64]:
    """A member of each group, evenly, by uniform numbers u of the same shape."""
    size = first[group + 1] - first[group]
    return np.asarray(members[first[group] + (u * size).astype(np.int64)])


def _splits(breaks: NDArray[np.int64], count: int, block: int) -> tuple[float, float, int]:
    """Borders inside a block: their mean, variance and largest number over all its beginnings."""
    # A border after place b splits the blocks that begin at b - block + 2 ... b, round the list.
    edges = np.concatenate([breaks - block + 2, breaks + 1]) % count
    order = np.argsort(edges)
    length = np.diff(edges[order], append=edges[order[0]] + count)
    level = np.cumsum(np.repeat([1, -1], len(breaks))[order])
    level += round((len(breaks) * (block - 1) - int(level @ length)) / count)
    mean = len(breaks) * (block - 1) / count
    return mean, float(level**2 @ length) / count - mean**2, int(level[length > 0].max())


def _capacity(table: PairTable, n: int, block: int) -> int:
    """Segments to lay out for n centres: one a block, and room for pieces split at borders."""
    blocks = -(-n // block)
    if block == 1:
        return blocks
    mean, variance, most = _splits(table.breaks, len(table.anchors), block)
    room = blocks * mean + 4 * math.sqrt(blocks * max(variance, 0.0)) + most
    step = 1 if room < 4 else 1 << (int(math.log2(room)) - 1)  # rounded, so that folds agree
    return min(n, blocks + math.ceil(room / step) * step)


def _segments(table: PairTable, places: Tensor, block: int) -> tuple[Tensor, Tensor, Tensor]:
    """Lay centres out as segments of neighbours.

    Returns the places in the list of anchors that are laid out, (S, n), which are those asked for
    wherever there is room; the first centre of each segment, (S, capacity); and each centre's
    place in the flat list of a group (time first), (S, n).
    """
    anchors = torch.from_numpy(table.anchors)
    centres = anchors[places]
    n_steps, n = centres.shape
    if block == 1:
        return places, centres, torch.arange(n).expand(n_steps, -1)
    capacity = _capacity(table, n, block)
    new = torch.ones_like(centres, dtype=torch.bool)
    new[:, 1:] = centres[:, 1:] != centres[:, :-1] + 1
    new[:, ::block] = True
    segment = torch.cumsum(new, dim=1) - 1
    # More splits than there is room for (a few steps in ten thousand): those centres give way to
    # the first centre of the step, before anything else is drawn for them.
    fits = segment < capacity
    places = torch.where(fits, places, places[:, :1])
    segment = torch.where(fits, segment, 0)
    start = centres[:, :1].repeat(1, capacity)
    rows, columns = torch.nonzero(new & fits, as_tuple=True)
    start[rows, segment[rows, columns]] = centres[rows, columns]
    position = torch.where(fits, centres - start.gather(1, segment), 0)
    return places, start, position * capacity + segment


def _offsets(pairs: TimePairs, seed: int, steps: Tensor, batch: int) -> Tensor:
    choices = torch.tensor(pairs.offsets, dtype=torch.int64)
    if len(choices) == 1:
        return choices.expand(len(steps), batch)
    return choices[integers(seed, Purpose.OFFSET, steps, batch, len(choices))]


def _label_positives(
    table: PairTable, pairs: LabelPairs, seed: int, steps: Tensor, reference: Tensor
) -> Tensor:
    """Centres of the positives of references (places in the list of anchors), shape (S, B)."""
    index, places = table.index, reference.numpy()
    batch = places.shape[1]
    tie = uniforms(seed, Purpose.TIE, steps, batch).numpy()
    if isinstance(pairs, ClassPairs):
        assert isinstance(index, _Classes)
        chosen = _pick(index.members, index.first, index.code[places], tie)
    else:
        assert isinstance(index, _Nearest)
        width = index.labels.shape[1]
        if isinstance(pairs, DeltaPairs):
            row = integers(seed, Purpose.POSITIVE, steps, batch, len(index.changes)).numpy()
            change = index.changes[row]
        else:
            noise = normals(seed, Purpose.POSITIVE, steps, batch * width).numpy()
            change = pairs.sd * noise.reshape(len(steps), batch, width)
        query = _wrap(index.labels[places] + change, index.periods)
        nearest = _nearest(index, query.reshape(-1, width), tie.reshape(-1))
        chosen = nearest.reshape(places.shape)
    return torch.from_numpy(table.anchors[chosen])


def _nearest(
    index: _Nearest, query: NDArray[np.float64], tie: NDArray[np.float64]
) -> NDArray[np.int64]:
    """An anchor of nearest label for each query row, evenly among those that share it."""
    if index.tree is not None:
        group = np.asarray(index.tree.query(query, workers=-1)[1], dtype=np.int64)
        return _pick(index.members, index.first, group, tie)
    values, q, period = index.distinct[:, 0], query[:, 0], float(index.periods[0])
    n = len(values)
    right: NDArray[np.int64] = np.asarray(np.searchsorted(values, q), dtype=np.int64)
    if period:
        left, right = (right - 1) % n, right % n
        below = np.mod(q - values[left], period)
        above = np.mod(values[right] - q, period)
    else:
        left, right = np.maximum(right - 1, 0), np.minimum(right, n - 1)
        below, above = np.abs(q - values[left]), np.abs(values[right] - q)
    # Two labels equally far are one tie: their samples are equally likely.
    size = np.diff(index.first)
    both = size[left] + np.where(left == right, 0, size[right])
    even = np.isclose(below, above, rtol=1e-9, atol=1e-12)
    take_left = np.where(even, tie * both < size[left], below < above)
    rest = np.where(take_left, tie * both, tie * both - size[left]) / np.where(
        take_left, size[left], size[right]
    )
    u = np.where(even & (left != right), np.clip(rest, 0, np.nextafter(1, 0)), tie)
    return _pick(index.members, index.first, np.asarray(np.where(take_left, left, right)), u)


def centres_of(groups: Sequence[Segments], places: Tensor) -> Tensor:
    """The centre behind each place in the flat list: the slow way back, for tests and judging.

    Parameters
    ----------
    groups : sequence of Segments
    places : int64 tensor, shape (S, n)

    Returns
    -------
    int64 tensor, shape (S, n)
    """
    flat = torch.cat(
        [
            (g.start[:, None, :] + torch.arange(g.outputs)[:, None]).reshape(len(g.start), -1)
            for g in groups
        ],
        dim=1,
    )
    return flat.gather(1, places)
