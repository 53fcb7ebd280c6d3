"""Drawing the triplets of many steps at once, as segments that a dense pass embeds.

References and negatives are drawn in blocks: a block is `block` neighbours in the list of valid
centres, beginning anywhere in it with equal chance. So every centre is as likely as any other,
while one dense convolution serves the whole block and, for time pairs, its positives. With
`block=1` every draw is independent. Where a block runs over the border of an epoch it is split;
the places for split pieces are counted beforehand, so the shape of a step depends on the table
alone and a run gives the same numbers whatever runs beside it.

With several sessions every session draws its own references and negatives; the queries for
positives of all sessions are dealt out to the sessions at random.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .draws import Purpose, integers, normals, uniforms, words
from .errors import ConfigError
from .pairs import (
    ClassPairs,
    DeltaPairs,
    LabelPairs,
    Lookup,
    MixedPairs,
    NearPairs,
    PairTable,
    TimePairs,
    wrap,
)
from .pairs import parts as parts_of

__all__ = ["Draw", "Segments", "centres_of", "draw", "rows_of"]

SESSION = 256
"""A session's own streams are those of its purposes plus this times its number."""


@dataclass(frozen=True, eq=False)
class Segments:
    """Segments that one dense pass embeds: `outputs` neighbouring windows from each `start`.

    Attributes
    ----------
    start : int64 tensor, shape (steps, n)
        Centre of the first window.
    outputs : int
    session : int
        Whose samples, and whose encoder.
    """

    start: Tensor
    outputs: int
    session: int = 0


@dataclass(frozen=True, eq=False)
class Draw:
    """Triplets for some steps, as places in the flat list of embedded windows.

    The flat list holds the groups in order, each time first: window `o` of segment `s` of a group
    of n segments is entry `base + o * n + s`. References, positives and negatives of all sessions
    are one list each.

    Attributes
    ----------
    groups : tuple of Segments
    reference, negative : int64 tensors, shape (steps, B) and (steps, N)
    positives : tuple of int64 tensors, shape (steps, B)
        One entry, or (behaviour, time) for hybrid pairs.
    others : int
        Above 0 the negatives are the references themselves, but for those of the same block, of
        that many neighbours in the list.
    """

    groups: tuple[Segments, ...]
    reference: Tensor
    positives: tuple[Tensor, ...]
    negative: Tensor
    others: int = 0

    @property
    def n_negatives(self) -> int:
        """How many negatives a reference has."""
        return int(self.negative.shape[1]) - self.others


class _Layout:
    """The flat list as it grows: groups in order, and how many entries they hold."""

    def __init__(self, *, apart: bool) -> None:
        self.groups: list[Segments] = []
        self.apart = apart
        self.size = 0

    def add(self, start: Tensor, outputs: int, session: int) -> int:
        """Append a group; returns the place of its first entry."""
        base = self.size
        self.size += start.shape[1] * outputs
        last = self.groups[-1] if self.groups and not self.apart else None
        if last is not None and (last.outputs, outputs, last.session) == (1, 1, session):
            # Single windows lie in the order of their segments: two groups are one long one.
            start = torch.cat([self.groups.pop().start, start], dim=1)
        self.groups.append(Segments(start, outputs, session))
        return base

    def add_single(self, centres: Tensor, session: int) -> Tensor:
        """Append windows one by one; returns their places, (steps, n)."""
        base = self.add(centres, 1, session)
        return base + torch.arange(centres.shape[1]).expand(len(centres), -1)


def draw(
    tables: PairTable | Sequence[PairTable],
    seed: int,
    steps: Tensor,
    *,
    batch: int | None,
    n_negatives: int | None = None,
    block: int,
    apart: bool = False,
) -> Draw:
    """Draw the triplets of some steps; a pure function of its arguments.

    Parameters
    ----------
    tables : PairTable, or a sequence with one a session
    seed : int
    steps : int64 tensor, shape (S,)
        Step numbers, in any order.
    batch : int or None
        References a step and session, each with its positive. None: every anchor, in order
        (gradient descent on all samples), which then are the negatives too.
    n_negatives : int or None
        Negatives a step and session, drawn for themselves. None: the references of other blocks,
        which are as independent of a reference, of the same distribution, and cost nothing; where
        that cannot be (windows apart, a batch of less than two blocks), as many as references.
    block : int
        Neighbouring centres drawn together; 1 draws each on its own.
    apart : bool
        No window serves two roles: references, positives and negatives are each embedded by
        themselves, so that each can be masked on its own. Needs `block=1` and a `batch`.

    Returns
    -------
    Draw
    """
    tables = [tables] if isinstance(tables, PairTable) else list(tables)
    behavior, time = parts_of(tables[0].pairs)
    single = isinstance(behavior, ClassPairs | MixedPairs) and behavior.balanced
    if batch is None and (single or apart):
        raise ConfigError(
            "training on all samples at once draws no classes evenly and masks nothing; give a "
            "batch_size, or leave balanced classes, masks and dropout away."
        )
    layout = _Layout(apart=apart)
    chosen, references, timely, negatives = [], [], [], []
    everyone = batch is None and n_negatives is None
    widths = [1 if single or apart else min(block, batch or block, len(t.anchors)) for t in tables]
    shares = n_negatives is None and batch is not None and not apart
    shares = shares and len(set(widths)) == 1 and not (batch or 0) % widths[0]
    others = widths[0] if shares and (batch or 0) >= 2 * widths[0] else 0
    for s, (table, width) in enumerate(zip(tables, widths, strict=True)):
        places, at = _lay_references(layout, table, time, seed, steps, batch, width, s, apart)
        chosen.append(places)
        references.append(at[0])
        timely.append(at[1])
    positives = []
    if behavior is not None:
        positives.append(_add_label_positives(layout, tables, behavior, seed, steps, chosen))
    if time is not None:
        positives.append(torch.cat(timely, dim=1))
    for s, table in enumerate(tables):
        if everyone or others:
            negatives.append(references[s])
            continue
        n = n_negatives or batch or len(table.anchors)
        width = widths[s]
        places = _choose(table, seed, Purpose.NEGATIVE + SESSION * s, steps, n, width)
        _, start, flat = _segments(table, places, width)
        negatives.append(layout.add(start, width, s) + flat)
    return Draw(
        tuple(layout.groups),
        torch.cat(references, dim=1),
        tuple(positives),
        torch.cat(negatives, dim=1),
        others,
    )


def _lay_references(
    layout: _Layout,
    table: PairTable,
    time: TimePairs | None,
    seed: int,
    steps: Tensor,
    batch: int | None,
    block: int,
    session: int,
    apart: bool,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """References of one session, and its time positives beside them where there are any.

    Returns the references' places in the list of anchors, and in the flat list their places and
    those of the time positives (of no meaning without time pairs).
    """
    if batch is None:
        places = torch.arange(len(table.anchors)).expand(len(steps), -1)
        block = min(len(table.anchors), 256)  # nothing is drawn: long segments are cheaper
    else:
        places = _choose(table, seed, Purpose.REFERENCE + SESSION * session, steps, batch, block)
    reach = max(time.offsets) if time else 0
    # One long segment has o + reach outputs, two have 2 o; each costs about half a window more.
    together = not apart and reach <= block + (len(table.field) - 1) // 2
    places, start, flat = _segments(table, places, block, ordered=batch is None)
    width = start.shape[1]
    reference = flat + layout.add(start, block + (reach if together else 0), session)
    if time is None:
        return places, (reference, reference)
    offset = _offsets(time, seed, Purpose.OFFSET + SESSION * session, steps, places.shape[1])
    if together:
        return places, (reference, reference + offset * width)
    if len(time.offsets) == 1:
        return places, (reference, flat + layout.add(start + reach, block, session))
    later = torch.from_numpy(table.anchors)[places] + offset
    return places, (reference, layout.add_single(later, session))


def _choose(table: PairTable, seed: int, purpose: int, steps: Tensor, n: int, block: int) -> Tensor:
    """Places in the list of anchors, shape (steps, n)."""
    behavior, _ = parts_of(table.pairs)
    if isinstance(behavior, ClassPairs | MixedPairs) and behavior.balanced:
        u = uniforms(seed, purpose, steps, 2 * n).numpy()
        group = (u[:, :n] * (len(table.first) - 1)).astype(np.int64)
        return torch.from_numpy(_pick(table.members, table.first, group, u[:, n:]))
    count = len(table.anchors)
    first = integers(seed, purpose, steps, -(-n // block), count)
    return ((first[:, :, None] + torch.arange(block)) % count).reshape(len(steps), -1)[:, :n]


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


def _segments(
    table: PairTable, places: Tensor, block: int, *, ordered: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Lay centres out as segments of neighbours; `ordered`: the places are all anchors in order.

    Returns the places in the list of anchors that are laid out, (S, n), which are those asked for
    wherever there is room; the first centre of each segment, (S, capacity); and each centre's
    place in the flat list of a group (time first), (S, n).
    """
    anchors = torch.from_numpy(table.anchors)
    centres = anchors[places]
    n_steps, n = centres.shape
    if block == 1:
        return places, centres, torch.arange(n).expand(n_steps, -1)
    capacity = min(n, -(-n // block) + len(table.breaks)) if ordered else _capacity(table, n, block)
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


def _offsets(pairs: TimePairs, seed: int, purpose: int, steps: Tensor, n: int) -> Tensor:
    choices = torch.tensor(pairs.offsets, dtype=torch.int64)
    if len(choices) == 1:
        return choices.expand(len(steps), n)
    return choices[integers(seed, purpose, steps, n, len(choices))]


def _add_label_positives(
    layout: _Layout,
    tables: Sequence[PairTable],
    pairs: LabelPairs,
    seed: int,
    steps: Tensor,
    references: Sequence[Tensor],
) -> Tensor:
    """Lay out a positive for every reference of every session; their places, (steps, sum of B).

    What a positive's label should be is found for all references together; then each is looked
    for in one session, which for several sessions is the one a random permutation says, so that
    every session answers for as many as it asked.
    """
    counts = [r.shape[1] for r in references]
    total, n_steps = sum(counts), len(steps)
    tie = uniforms(seed, Purpose.TIE, steps, total).numpy()
    continuous = pairs.behavior if isinstance(pairs, MixedPairs) else pairs
    query = code = None
    if not isinstance(continuous, ClassPairs):
        labels = [
            t.labels[r.numpy()]
            for t, r in zip(tables, references, strict=True)
            if t.labels is not None
        ]
        query = np.concatenate(labels, axis=1)
        query = wrap(
            query + _change(continuous, tables[0], seed, steps, query.shape), tables[0].periods
        )
    if isinstance(pairs, ClassPairs | MixedPairs):
        codes = [
            t.code[r.numpy()] for t, r in zip(tables, references, strict=True) if t.code is not None
        ]
        code = np.concatenate(codes, axis=1)
    order = torch.arange(total).expand(n_steps, -1)
    if len(tables) > 1:
        order = torch.argsort(words(seed, Purpose.SESSION, steps, total), dim=1, stable=True)
    rows = np.arange(n_steps)[:, None]
    places = torch.empty((n_steps, total), dtype=torch.int64)
    begin = 0
    for s, (table, count) in enumerate(zip(tables, counts, strict=True)):
        asked = order[:, begin : begin + count]
        begin += count
        who = asked.numpy()
        found = _look_up(
            table,
            None if query is None else query[rows, who],
            None if code is None else code[rows, who],
            tie[rows, who],
        )
        places.scatter_(1, asked, layout.add_single(torch.from_numpy(table.anchors[found]), s))
    return places


def _change(
    pairs: DeltaPairs | NearPairs,
    table: PairTable,
    seed: int,
    steps: Tensor,
    shape: tuple[int, ...],
) -> NDArray[np.float64]:
    """How far the label of each positive should lie from its reference's, (steps, B, d)."""
    n_steps, n, width = shape
    if isinstance(pairs, DeltaPairs):
        row = integers(seed, Purpose.POSITIVE, steps, n, len(table.changes)).numpy()
        return np.asarray(table.changes[row])
    noise = normals(seed, Purpose.POSITIVE, steps, n * width).numpy()
    return np.asarray(pairs.sd * noise.reshape(n_steps, n, width))


def _look_up(
    table: PairTable,
    query: NDArray[np.float64] | None,
    code: NDArray[np.int64] | None,
    tie: NDArray[np.float64],
) -> NDArray[np.int64]:
    """A place in the list of anchors for each query (..., d), class code (...), or both."""
    if query is None:
        assert code is not None
        return _pick(table.members, table.first, code, tie)
    if code is None:
        flat = _nearest(table.lookups[0], query.reshape(-1, query.shape[-1]), tie.reshape(-1))
        return flat.reshape(tie.shape)
    found = np.empty(tie.shape, dtype=np.int64)
    for c, lookup in enumerate(table.lookups):
        own = code == c
        if own.any():
            found[own] = _nearest(lookup, query[own], tie[own])
    return found


def _nearest(
    index: Lookup, query: NDArray[np.float64], tie: NDArray[np.float64]
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


def rows_of(groups: Sequence[Segments], lookup: Sequence[NDArray[np.int64]]) -> Tensor:
    """What stands in a list for each entry of the flat list, (S, entries): for judging.

    Parameters
    ----------
    groups : sequence of Segments
    lookup : sequence of arrays of int64, shape (T,)
        For each session the place of every sample in that list.
    """
    found = []
    for g in groups:
        centres = g.start[:, None, :] + torch.arange(g.outputs)[:, None]
        # Windows behind the last sample are laid out and never asked for.
        inside = centres.reshape(len(g.start), -1).clamp(max=len(lookup[g.session]) - 1)
        found.append(torch.from_numpy(lookup[g.session])[inside])
    return torch.cat(found, dim=1)
