"""Labels decoded from an embedding that is there already."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from grevy.decode import tune
from grevy.embedded import Decoded, decode_embedded, problem_of
from grevy.errors import ConfigError, DataError
from grevy.evaluate import EMBEDDING, Problem
from grevy.splits import training_spans
from grevy.windows import ReceptiveField

FIELD = ReceptiveField(2, 3)


def angle(n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An angle that goes round, cells that follow it, and its embedding."""
    rng = np.random.default_rng(seed)
    a = np.cumsum(rng.normal(0.3, 0.2, n))
    x = np.cos(a[:, None] - np.linspace(0, 6, 7)) + 0.3 * rng.standard_normal((n, 7))
    z = np.stack([np.cos(a), np.sin(a)], axis=1) + 0.1 * rng.standard_normal((n, 2))
    return np.sin(a), x.astype(np.float32), z.astype(np.float32)


def of(z: np.ndarray, x: np.ndarray, problems: list[Problem], **more: object) -> Decoded:
    settings: dict[str, object] = {"reach": 3, "n_nulls": 0}
    return decode_embedded(
        z,
        x,
        problems,
        np.array([[0, len(z)]]),
        FIELD,
        **(settings | more),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("discrete", [False, True])
def test_scores_are_those_of_scikit_learn_on_the_same_folds(discrete: bool) -> None:
    y, x, z = angle(seed=int(np.random.default_rng().integers(1 << 30)))
    label = (y > 0).astype(np.int64) if discrete else y
    problem = problem_of("y", label)
    found = of(z, x, [problem], n_folds=4)
    plan, each = found.plan, []
    for fold in range(4):
        spans = training_spans(plan, np.array([[0, len(z)]]), fold)
        rows = np.concatenate([np.arange(a, b) for a, b in spans])
        asked = np.flatnonzero(plan.tested[fold])
        assert min(abs(rows[:, None] - asked).min(axis=0)) > plan.guard >= len(FIELD) + 3
        best = tune(z[rows], problem.target, rows, plan.group[rows])
        kind = KNeighborsClassifier if discrete else KNeighborsRegressor
        twin = kind(best.k, metric=best.metric, algorithm="brute").fit(z[rows], label[rows])
        said = twin.predict(z[asked])
        each.append(
            (said == label[asked]).mean() if discrete else np.median(abs(said - label[asked]))
        )
    metric = "accuracy" if discrete else "median error"
    rows = {s.method: s for s in found.scores if s.metric == metric}
    assert rows[EMBEDDING].value == pytest.approx(np.mean(each), abs=1e-6)
    assert set(rows) == {EMBEDDING, "raw kNN", "PCA kNN", "linear", "constant"}
    assert rows[EMBEDDING].chance == rows["constant"].value


def test_claims_tell_a_label_from_noise() -> None:
    y, x, z = angle(1200)
    noise = np.random.default_rng(1).standard_normal(len(y))
    found = of(z, x, [problem_of("y", y), problem_of("noise", noise)], n_folds=8, n_nulls=99)
    by = {c.stimulus: c for c in found.claims}
    assert by["y"].p == 0.01
    assert by["noise"].p > 0.05
    assert by["y"].q == pytest.approx(0.02)
    learnt = of(z, x, [problem_of("y", y)], n_nulls=99, learnt=["y"]).claims[0]
    assert "learnt from 'y'" in learnt.refused


def test_unknown_samples_are_neither_decoded_nor_learnt_from() -> None:
    y, x, z = angle()
    y[100:180] = np.nan
    found = of(z, x, [problem_of("y", y)])
    assert (found.plan.group[100:180] == -1).all()
    assert not found.plan.tested[:, 100:180].any()
    assert all(np.isfinite(s.value) for s in found.scores)
    with pytest.raises(DataError, match="no finite row"):
        problem_of("y", np.full(5, np.nan))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"guard": -100}, "must not be negative; found -100"),
        ({"guard": 60}, "Use a smaller guard or fewer folds"),
        ({"n_folds": 1}, "between 2 and 100"),
        ({"n_folds": 101}, "between 2 and 100"),
    ],
)
def test_folds_and_guards_that_cannot_be(more: dict[str, int], says: str) -> None:
    y, x, z = angle()
    with pytest.raises(ConfigError, match=says):
        of(z, x, [problem_of("y", y)], **more)


def test_a_label_that_remembers_itself_asks_for_a_longer_guard() -> None:
    _, x, z = angle(2000)
    slow = np.repeat(np.random.default_rng(0).standard_normal(50), 40)
    assert of(z, x, [problem_of("y", slow)]).plan.guard > 3 * (len(FIELD) + 3)
    assert of(z, x, [problem_of("y", slow)], guard=5).plan.guard == 5


def test_circles_are_closed() -> None:
    rng = np.random.default_rng(0)
    degrees = np.mod(np.cumsum(rng.normal(20, 10, 800)), 360)
    z = np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=1)
    x = rng.standard_normal((800, 3)).astype(np.float32)
    found = of(z.astype(np.float32), x, [problem_of("hd", degrees, [360.0])])
    row = next(s for s in found.scores if (s.method, s.metric) == (EMBEDDING, "median error"))
    assert row.value < 5
    assert 60 < row.chance < 120
