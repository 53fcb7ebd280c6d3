from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from grevy.config import TrainConfig
from grevy.encoders import EncoderSpec
from grevy.errors import ConfigError, DataError
from grevy.evaluate import frame_problem
from grevy.model import held_out_bits
from grevy.pairs import DeltaPairs, HybridPairs, TimePairs
from grevy.questions import choose_for, questions_of
from grevy.recording import Label, Recording, StimulusTrack
from grevy.search import choose, expand, steps_of_most_bits
from grevy.settings import read_config
from grevy.splits import choosing_splits, mask_of, nested_splits, repeat_plan
from grevy.training import train
from grevy.windows import keep
from test_evaluate import recording_of
from test_splits import session


def test_a_grid_is_every_combination_in_order() -> None:
    found = expand(TrainConfig(), {"latents": [2, 3], "learning_rate": [0.1, 0.2], "hidden": [16]})
    assert [(c.encoder.latents, c.learning_rate) for _, c in found] == [
        (2, 0.1), (2, 0.2), (3, 0.1), (3, 0.2)
    ]  # fmt: skip
    assert all(c.encoder.hidden == 16 for _, c in found)
    assert found[0][0] == {"latents": 2, "learning_rate": 0.1, "hidden": 16}


def test_offsets_reach_every_kind_of_pair() -> None:
    hybrid = HybridPairs(DeltaPairs(("x",)), TimePairs((1,)))
    ((_, config),) = expand(TrainConfig(pairs=hybrid), {"time_offset": [7]})
    assert config.pairs == HybridPairs(DeltaPairs(("x",)), TimePairs((7,)))
    ((_, config),) = expand(TrainConfig(pairs=DeltaPairs(("x",))), {"time_offset": [7]})
    assert config.pairs == DeltaPairs(("x",), 7)


@pytest.mark.parametrize("grid", [{"latent": [1]}, {"latents": []}])
def test_a_wrong_grid_is_refused(grid: dict[str, list[float]]) -> None:
    with pytest.raises(ConfigError, match="a grid varies latents"):
        expand(TrainConfig(), grid)


def tuned(track: StimulusTrack) -> Recording:
    """Cells tuned to the moment of the movie."""
    t = len(track.index)
    rng = np.random.default_rng(0)
    angle = np.where(track.frame >= 0, track.frame / 40 * 2 * np.pi, 0)
    cells = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    x = np.exp(np.cos(angle[:, None] - cells)) * (track.index >= 0)[:, None]
    return recording_of(x + 0.3 * rng.standard_normal((t, 12)), stimulus=track)


BASE = TrainConfig(
    TimePairs((2,)), EncoderSpec("offset5-model", 16, 4), n_steps=150, batch_size=64,
    n_negatives=64, block=8,
)  # fmt: skip


def test_the_better_candidate_is_chosen_without_seeing_scored_samples() -> None:
    track = session(10, 1, 40, 10, 0)
    recording = tuned(track)
    plan = repeat_plan(track, recording.epochs, n_folds=8, seed=0, guard=5)
    asked = []

    def trainer(configs):  # type: ignore[no-untyped-def]
        asked.extend(configs)
        return train([recording], configs)

    candidates = expand(BASE, {"learning_rate": [1e-9, 3e-3]})
    splits = [choosing_splits(plan, recording.epochs)]
    (chosen,), table = choose(
        recording, frame_problem(recording), plan, splits, candidates, trainer
    )
    assert chosen.learning_rate == 3e-3
    assert [c.chosen for c in table] == [False, True]
    assert all(c.low < c.score < c.high for c in table) or all(np.isnan(c.low) for c in table)
    assert table[1].bits > table[0].bits
    assert len({c.task for c in table}) == 1
    scored = np.flatnonzero(plan.scored)
    for config in asked:
        assert config.train_on is not None
        for a, b in config.train_on:
            assert not ((scored >= a) & (scored < b)).any()


def test_every_fold_chooses_for_itself_and_all_train_at_once() -> None:
    track = session(6, 1, 40, 10, 0)
    recording = tuned(track)
    plan = repeat_plan(track, recording.epochs, n_folds=3, seed=0, guard=5, set_aside=False)
    splits = [nested_splits(plan, recording.epochs, f, seed=0) for f in range(plan.n_folds)]
    calls = []

    def trainer(configs):  # type: ignore[no-untyped-def]
        calls.append(len(configs))
        return train([recording], configs)

    candidates = expand(BASE, {"learning_rate": [1e-9, 3e-3, 2e-3]})
    chosen, table = choose(recording, frame_problem(recording), plan, splits, candidates, trainer)
    assert calls == [3 * 3 * 2]
    assert len(chosen) == 3
    assert all(c.learning_rate > 1e-3 for c in chosen)
    assert table[0].times == 0
    assert sum(c.times for c in table) == 3
    assert sum(c.chosen for c in table) == 1


def test_training_stops_where_held_out_bits_are_highest() -> None:
    track = session(10, 1, 40, 10, 0)
    recording = tuned(track)
    plan = repeat_plan(track, recording.epochs, n_folds=8, seed=0, guard=5)
    splits = choosing_splits(plan, recording.epochs)
    steps, bits = steps_of_most_bits(recording, splits, BASE, parts=5)
    assert bits[:, 0].tolist() == [30, 60, 90, 120, 150]
    assert steps == bits[bits[:, 1].argmax(), 0]
    assert bits[-1, 1] > bits[0, 1]
    # Training part by part is training in one go.
    spans = tuple((int(a), int(b)) for a, b in splits[0].train_on)
    whole = train([recording], [replace(BASE, train_on=spans)])[0]
    judged = keep(recording.epochs, splits[0].judged)
    alone, _ = steps_of_most_bits(recording, splits[:1], BASE, parts=1)
    assert alone == 150
    found = steps_of_most_bits(recording, splits[:1], BASE, parts=5)[1]
    assert found[-1, 1] == pytest.approx(held_out_bits(whole, recording, judged), abs=1e-4)


# --- Several questions ---------------------------------------------------------------------------


def with_speed() -> Recording:
    """A movie's repeats, and a label that is known all along."""
    track = session(10, 1, 40, 10, 0)
    recording = tuned(track)
    speed = np.random.default_rng(1).standard_normal(recording.n_samples)
    return replace(recording, labels={"speed": Label(speed, "continuous")})


@pytest.mark.parametrize("choice", ["aside", "nested"])
def test_every_question_chooses_on_what_it_does_not_score(choice: str) -> None:
    """Repeats set aside for the movie are scored as parts of blocks, and the other way round."""
    recording = with_speed()
    config = read_config({
        "file": "x", "labels": ["speed"], "folds": 5, "choice": choice, "temperature": [1.0, 0.3],
        "search_steps": 2,
    })  # fmt: skip
    questions, said = questions_of(recording, config, BASE)
    assert [q.what for q in questions] == ["repeats", "blocks"]
    assert said == []
    for q in questions:
        seen: list[TrainConfig] = []

        def trainer(configs, what):  # type: ignore[no-untyped-def]
            seen.extend(configs)  # noqa: B023
            return train([recording], configs)

        found = choose_for(recording, q, BASE, config, trainer)
        assert {row.over for row in found.table} == {q.what}
        n = recording.n_samples
        assert len(found.of_fold) == (q.plan.n_folds if choice == "nested" else 0)
        trained = [mask_of(np.array(c.train_on), n) for c in seen]
        if choice == "aside":
            assert not any((m & q.plan.scored).any() for m in trained)
            continue
        for fold in range(q.plan.n_folds):  # two parts a fold, candidate by candidate
            own = [trained[i] for i in range(len(seen)) if i // 2 % q.plan.n_folds == fold]
            assert not any((m & q.plan.tested[fold]).any() for m in own)


def test_what_cannot_be_judged_is_not_chosen_and_said() -> None:
    recording = with_speed()
    config = read_config({"file": "x", "labels": ["speed"], "folds": 5, "temperature": [1.0, 0.3]})
    blocks = questions_of(recording, config, BASE)[0][1]
    q = replace(blocks, plan=replace(blocks.plan, guard=10_000))

    def trainer(configs, what):  # type: ignore[no-untyped-def]
        raise AssertionError("nothing is to be trained")

    found = choose_for(recording, q, BASE, config, trainer)
    assert found.overall == BASE
    assert found.table == ()
    assert "folds over blocks" in found.why_not


def test_candidates_without_a_score_are_never_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    track = session(10, 1, 40, 10, 0)
    recording = tuned(track)
    plan = repeat_plan(track, recording.epochs, n_folds=8, seed=0, guard=5)
    splits = [choosing_splits(plan, recording.epochs)]
    candidates = expand(replace(BASE, n_steps=2), {"temperature": [1.0, 0.3]})
    values = iter([np.nan, np.nan, 0.5, 0.5])
    monkeypatch.setattr(
        "grevy.search.relative_errors",
        lambda *_, **__: (np.array([next(values)]), np.array([0])),
    )

    def judged():  # type: ignore[no-untyped-def]
        return choose(
            recording, frame_problem(recording), plan, splits, candidates,
            lambda configs: train([recording], configs),
        )  # fmt: skip

    (chosen,), table = judged()
    assert chosen.temperature == 0.3
    assert [row.chosen for row in table] == [False, True]
    values = iter([np.nan] * 4)
    with pytest.raises(DataError, match="no score for any of the 2"):
        judged()


def test_the_interval_of_a_candidate_counts_every_repeat_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two presentations of each of three repeats, judged in two folds: three numbers."""
    track = session(10, 1, 40, 10, 0)
    recording = tuned(track)
    plan = repeat_plan(track, recording.epochs, n_folds=8, seed=0, guard=5)
    each = np.array([0.2, 0.4, 0.5, 0.7, 0.1, 0.5])
    monkeypatch.setattr(
        "grevy.search.relative_errors", lambda *_, **__: (each, np.array([0, 0, 1, 1, 2, 2]))
    )
    splits = [nested_splits(plan, recording.epochs, f, seed=0) for f in (0, 1)]
    _, (row,) = choose(
        recording, frame_problem(recording), plan, splits, [({}, replace(BASE, n_steps=2))],
        lambda configs: train([recording], configs),
    )  # fmt: skip
    half = 4.302652730 * np.std([0.3, 0.6, 0.3], ddof=1) / np.sqrt(3)  # t, two degrees of freedom
    assert (row.score, row.low, row.high) == pytest.approx((0.4, 0.4 - half, 0.4 + half))
