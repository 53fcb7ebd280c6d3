"""What may be claimed of stimuli and labels: nulls, with p and q values, or a refusal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from .config import TrainConfig
from .evaluate import Features, Problem, frame_problem
from .model import Run
from .nulls import (
    Tested,
    band,
    blocks_forget,
    content,
    exchanged,
    families,
    identity,
    label_blocks,
    q_values,
    refit,
    renamed_samples,
    shifted_samples,
    time_locked,
)
from .recording import Recording, StimulusTrack
from .results import Claim
from .splits import Plan
from .stimulus import order_confounds
from .windows import Spans

__all__ = ["corrected", "label_claims", "refitted_claims", "stimulus_claims"]


_REFIT = (
    "The encoder learnt from '{}', so chance must be found with encoders that learn from shuffled "
    "labels: use --refit-nulls 100 (or more)."
)
_NO_REFIT = (
    "The encoder learnt from '{}', so chance must be found with encoders that learn from shuffled "
    "labels, and no such null is there for this claim: learn from time alone (--pairs time)."
)
_NO_TWO = "No two stimuli are of equal length."


def stimulus_claims(
    track: StimulusTrack,
    problem: Problem,
    plan: Plan,
    epochs: Spans,
    features: Sequence[Features],
    *,
    learnt: Sequence[str] = (),
    n: int = 999,
    seed: int = 0,
    device: str = "auto",
) -> list[Claim]:
    """Test three claims about the stimuli of a session, by decoders that are fitted anew.

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
    learnt : sequence of str
        Those of "frame" and "stimulus" that the encoders learnt from.
    n : int
        Nulls for each claim; 0 tests none.
    seed : int
    device : str

    Returns
    -------
    list of Claim
        Those that the order or the lengths of the stimuli, or what the encoders learnt, make
        meaningless say why.
    """
    several = len(problem.names) > 1
    if learnt or not n:

        def why(needs: str) -> str:
            if not learnt:
                return "No nulls were asked for (--nulls)."
            return (_REFIT if needs in learnt else _NO_REFIT).format(learnt[0])

        return [
            *(_refused("time-locked", name, why("frame")) for name in problem.names),
            *(_refused("content", name, why("")) for name in problem.names),
            *([_refused("identity", "", why("stimulus"))] if several else []),
        ]
    locked = time_locked(problem, plan, epochs, features, n=n, seed=seed, device=device)
    rows = _rows(locked)
    order = order_confounds(track)
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
        rows.append(_refused("identity", "", _NO_TWO))
    return rows


def label_claims(
    problems: Sequence[Problem],
    plan: Plan,
    epochs: Spans,
    features: Sequence[Features],
    learnt: Sequence[str],
    *,
    n: int = 999,
    seed: int = 0,
    device: str = "auto",
) -> list[Claim]:
    """Test whether each label is decoded, by blocks that exchange their labels.

    Parameters
    ----------
    problems : sequence of Problem
    plan : Plan
        Over blocks.
    epochs, features, n, seed, device
        As `stimulus_claims`.
    learnt : sequence of str
        Labels that the encoders learnt from.

    Returns
    -------
    list of Claim
        One a label, its name in the place of the stimulus; q values are taken over them.
    """
    tested, refused = [], []
    for problem in problems:
        reason = blocks_forget(problem, plan, n)
        if problem.name in learnt:
            reason = _REFIT.format(problem.name)
        if not n:
            reason = reason or "No nulls were asked for (--nulls)."
        if reason:
            refused.append(_refused("label", problem.name, reason))
        else:
            tested.append(
                label_blocks(problem, plan, epochs, features, n=n, seed=seed, device=device)
            )
    return [*_rows(tested), *refused]


def refitted_claims(
    recording: Recording,
    problem: Problem,
    plan: Plan,
    config: TrainConfig,
    features: Sequence[Features],
    trainer_on: Callable[[Recording], Callable[[Sequence[TrainConfig], str], list[Run]]],
    *,
    n: int,
    seed: int = 0,
    device: str = "auto",
) -> list[Claim]:
    """Test a label that the encoders learnt from: every null trains the encoders of all folds anew.

    Moments of a movie are shifted round their presentations ("time-locked"); presentations of equal
    length change names ("identity"), where their order was not fixed; the labels of blocks of time
    are exchanged ("label"), where blocks forget.

    Parameters
    ----------
    recording : Recording
    problem : Problem
    plan : Plan
    config : TrainConfig
    features : sequence of Features
        Of each fold, from encoders that learnt from the true labels.
    trainer_on : callable
        A recording to what trains on it.
    n : int
        Nulls.
    seed, device
        As `stimulus_claims`.

    Returns
    -------
    list of Claim
    """
    nulls = np.arange(1, n + 1)
    if problem.name == "frame":
        claim, taken = "time-locked", shifted_samples(problem, plan, nulls, seed)
    elif problem.name == "stimulus":
        moments, track = frame_problem(recording), recording.stimulus
        assert track is not None  # there are stimuli
        lengths = [track.duration_s[track.names.index(name)] for name in moments.names]
        reason = order_confounds(track) or ("" if families(moments, lengths) else _NO_TWO)
        if reason:
            return [_refused("identity", "", reason)]
        claim, taken = "identity", renamed_samples(moments, plan, lengths, n, seed)
    else:
        reason = blocks_forget(problem, plan, n)
        if reason:
            return [_refused("label", problem.name, reason)]
        claim, taken = "label", exchanged(plan, nulls, seed)

    def train_on(wider: Recording, configs: Sequence[TrainConfig]) -> list[Run]:
        return trainer_on(wider)(configs, f"{n} nulls of {problem.name}")

    tested = refit(
        recording, problem, plan, config, features, taken, claim, train_on, device=device
    )
    return _rows(tested, refitted=True)


def _rows(tested: Sequence[Tested], *, refitted: bool = False) -> list[Claim]:
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
            refit=refitted,
        )
        for t, each in zip(tested, q, strict=True)
        for mean, low, high in [band(t.null)]
    ]


def corrected(rows: Sequence[Claim]) -> list[Claim]:
    """The same rows, q values taken anew over all that test one kind of claim, however tested."""
    kinds = dict.fromkeys(c.claim for c in rows if not c.refused)
    q: dict[int, float] = {}
    for kind in kinds:
        family = [i for i, c in enumerate(rows) if c.claim == kind and not c.refused]
        q |= dict(zip(family, q_values([rows[i].p for i in family]).tolist(), strict=True))
    return [replace(c, q=q[i]) if i in q else c for i, c in enumerate(rows)]


def _refused(claim: str, stimulus: str, reason: str) -> Claim:
    nan = float("nan")
    return Claim(claim, stimulus, "", "", nan, nan, nan, nan, nan, nan, 0, reason)
