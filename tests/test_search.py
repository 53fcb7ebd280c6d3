from __future__ import annotations

import numpy as np
import pytest

from grevy.config import TrainConfig
from grevy.encoders import EncoderSpec
from grevy.errors import ConfigError
from grevy.evaluate import frame_problem
from grevy.pairs import DeltaPairs, HybridPairs, TimePairs
from grevy.search import choose, expand
from grevy.splits import repeat_plan
from grevy.training import train
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


def test_the_better_candidate_is_chosen_without_seeing_scored_samples() -> None:
    track = session(10, 1, 40, 10, 0)
    t = len(track.index)
    rng = np.random.default_rng(0)
    angle = np.where(track.frame >= 0, track.frame / 40 * 2 * np.pi, 0)
    cells = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    x = np.exp(np.cos(angle[:, None] - cells)) * (track.index >= 0)[:, None]
    recording = recording_of(x + 0.3 * rng.standard_normal((t, 12)), stimulus=track)
    plan = repeat_plan(track, recording.epochs, n_folds=8, seed=0, guard=5)
    base = TrainConfig(
        TimePairs((2,)), EncoderSpec("offset5-model", 16, 4), n_steps=150, batch_size=64,
        n_negatives=64, block=8,
    )  # fmt: skip
    asked = []

    def trainer(configs):  # type: ignore[no-untyped-def]
        asked.extend(configs)
        return train([recording], configs)

    candidates = expand(base, {"learning_rate": [1e-9, 3e-3]})
    chosen, table = choose(recording, frame_problem(recording), plan, candidates, trainer)
    assert chosen.learning_rate == 3e-3
    assert [c.chosen for c in table] == [False, True]
    assert table[1].bits > table[0].bits
    assert len({c.task for c in table}) == 1
    scored = np.flatnonzero(plan.fold >= 0)
    for config in asked:
        assert config.train_on is not None
        for a, b in config.train_on:
            assert not ((scored >= a) & (scored < b)).any()
