"""Gathering what a run found into the rows of `results`. Decides and computes nothing new."""

from __future__ import annotations

import itertools
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from .. import __version__
from ..encoders import EncoderSpec
from ..evaluate import EMBEDDING, Predicted, Problem
from ..losses import bits_above_chance
from ..model import Run, choose_device, embed, fingerprint
from ..pairs import HybridPairs
from ..questions import Choice
from ..recording import Recording, findings
from ..results import (
    Claim,
    Controls,
    EmbeddingArrays,
    FoldSummary,
    History,
    LabelTrace,
    Presentation,
    Quality,
    Results,
    SessionSummary,
    StimulusSummary,
)
from ..scoring import confusion, differences, scores
from ..settings import RunConfig
from ..splits import Plan
from ..stimulus import order_confounds, remarks
from . import evidence, wording
from .verdicts import LEAK

__all__ = ["Answer", "embedding_arrays", "gather", "versions"]

Answer = tuple[str, Plan, Problem, Predicted]
"""What repeats ("repeats" or "blocks"), its folds, the question, and what was decoded."""


def embedding_arrays(recording: Recording, final: Run, device: str) -> EmbeddingArrays:
    """The final model's embedding of every sample, with what is known of each."""
    e = embed(final, recording, device=device)
    track = recording.stimulus
    none = np.full(len(e.samples), -1, dtype=np.int32)
    labels: dict[str, NDArray[np.float64]] = {}
    for name, label in recording.labels.items():
        values = np.asarray(label.values, dtype=np.float64).copy()
        values[~label.mask] = np.nan
        labels[name] = values[e.samples]
    return EmbeddingArrays(
        values=e.values,
        samples=e.samples,
        times_s=recording.times_s[e.samples],
        padded=e.padded,
        index=none if track is None else track.index[e.samples],
        frame=none if track is None else track.frame[e.samples],
        repeat=none if track is None else track.repeat[e.samples],
        names=() if track is None else track.names,
        labels=labels,
    )


def gather(
    recording: Recording,
    config: RunConfig,
    resolved: Mapping[str, str],
    answers: Sequence[Answer],
    choices: Mapping[str, Choice],
    final: Run,
    *,
    claims: Sequence[Claim] = (),
    folds: Sequence[FoldSummary],
    controls: Controls,
    quality: Quality,
    said: Sequence[str] = (),
    seconds: Mapping[str, float],
) -> Results:
    """Everything the report says.

    Parameters
    ----------
    recording : Recording
    config : RunConfig
    resolved : mapping
        Settings in samples, for people.
    answers : sequence of Answer
    choices : mapping of str to Choice
        By what the folds leave out; the first is that of the model that is shown.
    final : Run
        The model that is shown.
    claims : sequence of Claim
    folds : sequence of FoldSummary
    controls : Controls
    quality : Quality
    said : sequence of str
        Warnings that come first.
    seconds : mapping
        Wall time of each stage.

    Returns
    -------
    Results
    """
    leaks = any(plan.shuffled for _, plan, _, _ in answers)
    flag = "leaks" if leaks else ""
    table = [row for choice in choices.values() for row in choice.table]
    rows = [replace(row, flag=flag) for _, _, problem, y in answers for row in scores(problem, y)]
    gaps = [
        replace(row, flag=flag) for _, _, problem, y in answers for row in differences(problem, y)
    ]
    plans = list({id(plan): (what, plan) for what, plan, _, _ in answers}.values())
    session, track = _session(recording, config), recording.stimulus
    warnings = [*said, *(choice.why_not for choice in choices.values())]
    warnings += [wording.bits_warning(table), wording.divergence_warning(table)]
    warnings += remarks(track) if track else ()
    warnings += wording.cautions(rows, gaps, plans, claims)
    warnings += evidence.cautions(controls, quality, gaps)
    return Results(
        title=recording.name or _file(config),
        session=session,
        stimuli=_stimuli(recording),
        presentations=_presentations(recording),
        candidates=tuple(table),
        history=_history(final),
        scores=tuple(rows),
        differences=tuple(gaps),
        confusions=tuple(
            confusion(problem, y, track.decodable)
            for _, _, problem, y in answers
            if problem.name == "stimulus" and track is not None
        ),
        traces=tuple(
            _trace(recording, problem, y) for what, _, problem, y in answers if what == "blocks"
        ),
        headline=wording.headline(
            rows, gaps, claims, confounded=track is not None and order_confounds(track) is not None
        ),
        flags=(f"Not held out: {LEAK}. Pure noise scores well this way.",) if leaks else (),
        methods=(
            *wording.methods(
                session,
                final.config,
                choices,
                plans,
                search_steps=config.search_steps,
                claims=claims,
            ),
            *evidence.methods(controls, quality),
        ),
        warnings=tuple(w for w in warnings if w),
        settings=_settings(config, resolved, final),
        versions=versions(config.device)
        | {"data": f"{fingerprint(recording)} (activity, times, epochs, labels)"},
        command="grevy run --config run.toml --out NEW_FOLDER",
        seconds=dict(seconds),
        claims=tuple(claims),
        folds=tuple(folds),
        controls=controls,
        quality=quality,
    )


def _session(recording: Recording, config: RunConfig) -> SessionSummary:
    own = {k: v for k, v in recording.labels.items() if k not in ("frame", "stimulus")}
    return SessionSummary(
        name=recording.name,
        file=_file(config),
        source=recording.source,
        n_samples=recording.n_samples,
        n_channels=recording.n_channels,
        n_epochs=len(recording.epochs),
        rate_hz=recording.rate_hz,
        start_s=float(recording.times_s[0]),
        stop_s=float(recording.times_s[-1]),
        activity_unit=recording.activity_unit,
        notes=recording.notes,
        findings=findings(replace(recording, labels=own)),
    )


def _stimuli(recording: Recording) -> tuple[StimulusSummary, ...]:
    track = recording.stimulus
    if track is None:
        return ()
    rows = []
    for s, name in enumerate(track.names):
        here = track.index == s
        rows.append(
            StimulusSummary(
                name=name,
                n_frames=track.n_frames[s],
                n_repeats=int((track.blocks["stimulus"] == s).sum()),
                n_samples=int(here.sum()),
                duration_s=track.duration_s[s],
                reason=track.reasons.get(name, ""),
            )
        )
    return tuple(rows)


def _presentations(recording: Recording) -> tuple[Presentation, ...]:
    track = recording.stimulus
    if track is None:
        return ()
    return tuple(
        Presentation(
            track.names[int(b["stimulus"])],
            int(b["repeat"]),
            float(b["start_s"]),
            float(b["stop_s"]),
        )
        for b in track.blocks
    )


def _history(run: Run, most: int = 500) -> History:
    """The training curve as means over equal stretches of steps, at most `most` of them."""
    n = len(run.history)
    edges = np.unique(np.linspace(0, n, min(most, n) + 1).astype(int))
    pieces = list(itertools.pairwise(edges))
    means = np.array([run.history[a:b].mean(axis=0) for a, b in pieces])
    total = means.sum(axis=1)
    terms = 2 if isinstance(run.config.pairs, HybridPairs) else 1
    count = run.n_negatives
    return History(
        step=tuple(int(b) for b in edges[1:]),
        total=tuple(float(v) for v in total),
        positive=tuple(float(v) for v in means[:, 0]),
        negative=tuple(float(v) for v in means[:, 1]),
        bits=tuple(bits_above_chance(float(v) / terms, count) for v in total),
        temperature=tuple(
            float(run.temperatures[a:b].mean()) for a, b in itertools.pairwise(edges)
        ),
        chance=float(terms * np.log(count)),
    )


def _trace(
    recording: Recording, problem: Problem, predicted: Predicted, most: int = 3000
) -> LabelTrace:
    order = np.argsort(predicted.samples)
    order = order[:: -(-len(order) // most)]
    rows = predicted.samples[order]
    period = float(problem.target.periods[0])
    return LabelTrace(
        name=problem.name,
        unit=problem.unit,
        period=period or None,
        times_s=tuple(float(t) for t in recording.times_s[rows]),
        true=tuple(float(v) for v in problem.target.values[rows, 0]),
        decoded=tuple(float(v) for v in predicted.values[EMBEDDING][order, 0]),
    )


def _settings(config: RunConfig, resolved: Mapping[str, str], final: Run) -> dict[str, str]:
    c = final.config
    assert isinstance(c.encoder, EncoderSpec)  # a run of the pipeline names its architecture
    chosen = {
        "chosen: latents": str(c.encoder.latents),
        "chosen: hidden units": str(c.encoder.hidden),
        "chosen: learning rate": f"{c.learning_rate:g}",
        "chosen: temperature": f"{c.temperature:g}",
    }
    given = {k: str(v) for k, v in vars(config).items() if not k.startswith("__")}
    return {**resolved, **chosen, **given, "file": _file(config)}


def _file(config: RunConfig) -> str:
    """The recording's address in an archive, or its file's name: the folder stays private."""
    return config.file if "://" in config.file else Path(config.file).name


def versions(device: str) -> dict[str, str]:
    """Versions of what a run's numbers depend on, and the device."""
    where = choose_device(device)
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else platform.machine()
    packages = ("numpy", "scipy", "scikit-learn", "torch", "pynwb", "h5py")
    return {
        "grevy": __version__,
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
        "system": f"{platform.system()} {platform.release()}",
        "device": f"{where} ({name})",
    }
