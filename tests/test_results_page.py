"""What the page of results says: words, intervals over rats, units of intervals, disclosures."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import parity
import parity_judge as judge
import results_page
import science
import science_recordings as recorded
import smoothed_reference
from parity_data import Dataset, tasks

RNG = np.random.default_rng


# --- words and intervals -------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("ci", "said"),
    [
        ((0.1, 0.3), "better"),
        ((-0.3, -0.1), "worse"),
        ((-0.1, 0.3), "undecided"),
        ((0, 1), "undecided"),
    ],
)
def test_a_word_says_what_an_interval_can_bear(ci: tuple[float, float], said: str) -> None:
    assert recorded.word(ci) == said


def test_a_mean_over_rats_has_the_interval_of_scipy() -> None:
    each = RNG(0).normal(-1, 2, 4)
    value, ci = recorded.mean_ci(each.tolist())
    known = stats.ttest_1samp(each, 0).confidence_interval(0.95)
    np.testing.assert_allclose([value, *ci], [each.mean(), known.low, known.high])


def test_grevy_minus_cebra_is_paired_rat_by_rat() -> None:
    row = recorded.over_rats()
    known = stats.ttest_1samp(list(row["each"].values()), 0).confidence_interval(0.95)
    assert len(row["each"]) == 4
    np.testing.assert_allclose(row["ci"], [known.low, known.high])
    assert row["verdict"] == recorded.word([-row["ci"][1], -row["ci"][0]])


def test_an_interval_over_animals_leaves_animals_out() -> None:
    """For a matrix that is a sum of what each animal adds, it is the t interval of these."""
    own = RNG(1).standard_normal(5)
    r2 = own[:, None] + own
    np.fill_diagonal(r2, np.nan)
    value, ci = recorded.over_animals(r2)
    known = stats.ttest_1samp(2 * own, 0).confidence_interval(0.95)
    np.testing.assert_allclose([value, *ci], [2 * own.mean(), known.low, known.high])


def test_pairs_of_animals_have_the_mean_that_is_reported() -> None:
    parts = [
        (RNG(i).standard_normal((40, 3)), RNG(9 + i).standard_normal((40, 3))) for i in range(3)
    ]
    r2 = recorded.pair_by_pair(parts)
    assert np.isnan(np.diag(r2)).all()
    assert np.nanmean(r2) == pytest.approx(judge.between_animals(parts))


# --- orders of labels ----------------------------------------------------------------------------
def test_moved_labels_keep_their_neighbours_and_go_a_quarter_at_least() -> None:
    for seed in range(200):
        order = recorded.moved(103, RNG(seed))
        offset = int(order[0])
        np.testing.assert_array_equal(order, (np.arange(103) + offset) % 103)
        assert min(offset, 103 - offset) >= 103 // 4


def test_shuffled_labels_are_all_there() -> None:
    np.testing.assert_array_equal(np.sort(recorded.shuffled(50, RNG(0))), np.arange(50))


# --- baselines -----------------------------------------------------------------------------------
def made_up(measure: Any, target: np.ndarray, x: np.ndarray) -> Dataset:
    return Dataset("made up", x.astype(np.float32), target, target, measure)


def test_the_best_constant() -> None:
    y = RNG(2).exponential(size=(1000, 1))
    first, last = judge.cut(1000)
    test = y[last.start + judge.EDGE : last.stop - judge.EDGE]
    found = recorded.constant(made_up("error, cm", y, y))
    middle = np.median(y[judge.EDGE : first.stop - judge.EDGE])
    assert found == pytest.approx(100 * np.median(np.abs(test - middle)))
    classes = np.repeat([0, 1, 2], [200, 500, 300])[RNG(3).permutation(1000)]
    share = np.mean(classes[last.start + judge.EDGE : last.stop - judge.EDGE] == 1)
    assert recorded.constant(made_up("accuracy", classes, y)) == pytest.approx(share)


def test_ridge_finds_what_is_linear_and_nothing_in_noise() -> None:
    like = next(t for t in tasks() if t.dataset == "achilles")
    x = RNG(4).standard_normal((1200, 6))
    y = x @ RNG(5).standard_normal((6, 2))
    assert recorded._ridge(made_up("R2 of position", y, x), like)["value"] > 0.99
    assert recorded._ridge(made_up("R2 of position", y[::-1].copy(), x), like)["value"] < 0.1
    classes = (x[:, 0] > 0).astype(np.int64)
    assert recorded._ridge(made_up("accuracy", classes, x), like)["value"] > 0.9


# --- kept rows -----------------------------------------------------------------------------------
def test_every_kept_interval_says_what_it_is_over() -> None:
    for name, row in results_page.newest().items():
        assert recorded.over(name, row), name
        assert "?" not in recorded.over(name, row), name


def test_a_row_may_say_itself_what_its_interval_is_over() -> None:
    assert recorded.over("decoding, achilles", {"seeds": 5}) == "t over 5 encoder seeds, one split"
    assert recorded.over("decoding, achilles", {"seeds": 5, "ci_over": "weeks"}) == "weeks"


def test_a_session_that_was_not_the_asked_one_is_not_held() -> None:
    row = {"passed": True, "folds": 8, "stimuli": 11}
    assert "not run as asked" in results_page.verdict(row)
    asked = {"passed": True, "folds": recorded.FOLDS, "stimuli": recorded.STIMULI}
    assert results_page.verdict(asked) == "held"
    assert results_page.verdict({"passed": False}) == "**missed**"
    assert results_page.verdict({"passed": None, "verdict": "undecided"}) == "undecided"


def test_rows_are_merged_by_name(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    for row in ({"row": "a", "value": 1}, {"row": "b", "value": 2}, {"row": "a", "value": 3}):
        science.merge(file, row)
    assert json.loads(file.read_text()) == [{"row": "b", "value": 2}, {"row": "a", "value": 3}]


# --- CEBRA's fits --------------------------------------------------------------------------------
def test_a_kept_fit_is_not_made_again() -> None:
    name = "achilles, behavior"
    task = next(t for t in tasks() if t.name == name)
    kept = {
        name: {
            "settings": task.parameters,
            "width": smoothed_reference.WIDTH,
            "fits": [{"seed": 0}],
        }
    }
    asked = ([name], [0, 1])
    assert [(t.name, s) for t, s in smoothed_reference.left(kept, *asked)] == [(name, 1)]
    assert len(smoothed_reference.left({}, *asked)) == 2  # --rerun-reference
    other = {name: {**kept[name], "width": 2.0}}
    assert len(smoothed_reference.left(other, *asked)) == 2


def test_the_reference_is_fitted_anew_by_commands_that_exist(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = science.rerun_reference(jobs=2)
    assert all(Path(command[0]).exists() for command in (first, second))
    monkeypatch.setattr(sys, "argv", first)
    options = parity._options()
    found = (options.rerun_reference, options.reference_only, options.workers)
    assert found == (True, True, 2)
    assert "--rerun-reference" in second


def test_smoothing_is_the_presets() -> None:
    z = RNG(6).standard_normal((300, 3))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    np.testing.assert_allclose(np.linalg.norm(smoothed_reference.smooth(z), axis=1), 1, atol=1e-5)
    assert smoothed_reference.WIDTH == 4
