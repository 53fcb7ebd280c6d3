"""What may be claimed of each stimulus: the nulls of `nulls`, with p and q values, or a refusal."""

from __future__ import annotations

from collections.abc import Sequence

from .evaluate import Features, Problem
from .nulls import Tested, band, content, identity, q_values, time_locked
from .recording import StimulusTrack
from .results import Claim
from .splits import Plan
from .stimulus import fixed_order
from .windows import Spans

__all__ = ["claims_of"]


def claims_of(
    track: StimulusTrack,
    problem: Problem,
    plan: Plan,
    epochs: Spans,
    features: Sequence[Features],
    *,
    n: int = 999,
    seed: int = 0,
    device: str = "auto",
) -> list[Claim]:
    """Test three claims about the stimuli of a session.

    Time-locked and content are tested for each stimulus, identity for all together. q values are
    taken over the stimuli of one claim.

    Parameters
    ----------
    track : StimulusTrack
    problem : Problem
        "frame".
    plan : Plan
        Over repeats.
    epochs : array of int64, shape (E, 2)
    features : sequence of Features
        Of each fold.
    n : int
        Nulls for each claim.
    seed : int
    device : str

    Returns
    -------
    list of Claim
        Those that the order or the lengths of the stimuli make meaningless say why.
    """
    locked = time_locked(problem, plan, epochs, features, n=n, seed=seed, device=device)
    rows = _rows(locked)
    several = len(problem.names) > 1
    order = fixed_order(track)
    if order is not None:
        return [
            *rows,
            *(_refused("content", name, order) for name in problem.names),
            _refused("identity", "", order),
        ]
    lengths = [track.duration_s[track.names.index(name)] for name in problem.names]
    movies = content(problem, plan, epochs, features, lengths, n=n, seed=seed)
    named = identity(problem, plan, epochs, features, lengths, n=n, seed=seed, device=device)
    alone = "There is no other stimulus of its length to exchange presentations with."
    rows += _rows(movies)
    rows += [
        _refused("content", name, alone)
        for name in problem.names
        if name not in {m.stimulus for m in movies}
    ]
    if named is not None:
        rows += _rows([named])
    elif several:
        rows.append(_refused("identity", "", "No two stimuli are of equal length."))
    return rows


def _rows(tested: Sequence[Tested]) -> list[Claim]:
    if not tested:
        return []
    q = q_values([t.p for t in tested])
    return [
        Claim(
            claim=t.claim,
            stimulus=t.stimulus,
            statistic=t.statistic,
            unit=t.unit,
            observed=t.observed,
            null_mean=mean,
            null_low=low,
            null_high=high,
            p=t.p,
            q=float(each),
            n_nulls=len(t.null),
        )
        for t, each in zip(tested, q, strict=True)
        for mean, low, high in [band(t.null)]
    ]


def _refused(claim: str, stimulus: str, reason: str) -> Claim:
    nan = float("nan")
    return Claim(claim, stimulus, "", "", nan, nan, nan, nan, nan, nan, 0, reason)
