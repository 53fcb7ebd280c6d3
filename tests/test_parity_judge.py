"""The judge of the comparison with CEBRA: known answers, slow twins, nothing leaks."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import parity_data
import parity_judge as judge
import parity_runs
import parity_table

RNG = np.random.default_rng


def on_sphere(n: int, d: int, seed: int) -> np.ndarray:
    z = RNG(seed).standard_normal((n, d))
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def parts(z: np.ndarray) -> tuple[judge.Part, judge.Part]:
    train, test = (judge.Part(s.start, s.stop, z[s]) for s in judge.cut(len(z)))
    return train, test


# --- the cut -------------------------------------------------------------------------------------
def test_the_scored_part_lies_apart_from_the_training_part() -> None:
    train, test = judge.cut(1000)
    assert (train.start, train.stop, test.start, test.stop) == (0, 800, 840, 1000)
    widest = 10  # samples of the encoder's window, and as many between the samples of a pair
    assert test.start + judge.EDGE - (train.stop - judge.EDGE) >= 2 * widest
    part = judge.Part(840, 1000, np.zeros((160, 2)))
    assert (part.used.start, part.used.stop, len(part.inner)) == (850, 990, 140)


# --- bits ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_the_loss_is_that_of_loops(distance: Any, temperature: float) -> None:
    r, p, n = (RNG(i).standard_normal((m, 3)) for i, m in enumerate((130, 130, 17)))

    def similar(a: np.ndarray, b: np.ndarray) -> float:
        dot, far = sum(a * b), sum((a - b) ** 2)
        return float((dot if distance == "cosine" else -far) / temperature)

    slow = [
        math.log(sum(math.exp(similar(a, c)) for c in n)) - similar(a, b)
        for a, b in zip(r, p, strict=True)
    ]
    found = judge.info_nce(r, p, n, distance=distance, temperature=temperature)
    assert found == pytest.approx(np.mean(slow), rel=1e-12)


def test_bits_of_four_equal_classes_told_perfectly_are_two() -> None:
    label = np.arange(2000) % 4
    z = np.eye(4)[label]
    assert judge.bits(z, label, temperature=0.02) == pytest.approx(2, abs=0.02)
    assert judge.bits(np.ones((2000, 2)), label) == pytest.approx(0, abs=1e-12)
    assert judge.bits(on_sphere(2000, 4, 0), label) < 0


def test_bits_of_time_know_which_sample_is_later() -> None:
    angle = np.arange(3000) * 0.01
    ahead = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    assert judge.bits(ahead, None, lag=10, temperature=0.05) > 2
    shuffled = RNG(0).permutation(ahead)
    assert judge.bits(shuffled, None, lag=10, temperature=0.05) < 0
    assert judge.bits(ahead, None, lag=10) == judge.bits(ahead, None, lag=10)


def test_positives_are_what_the_task_calls_alike() -> None:
    rng = RNG(1)
    references = rng.integers(0, 290, 5000)
    assert (judge.positives(references, None, 300, rng, lag=10) == references + 10).all()
    label = rng.integers(0, 3, 300)
    alike = judge.positives(references, label, 300, rng)
    assert (label[alike] == label[references]).all()
    zeros = np.flatnonzero(label == 0)
    drawn = np.bincount(alike[label[references] == 0], minlength=300)[zeros]
    assert drawn.min() > 0.3 * drawn.mean()
    assert drawn.max() < 2 * drawn.mean()


@pytest.mark.parametrize("how", [{"lag": 7}, {"delta": 0.3}])
def test_positives_by_label_are_the_nearest_of_all(how: dict[str, Any]) -> None:
    label = RNG(2).standard_normal((200, 2))
    references = RNG(3).integers(0, 200, 50)
    found = judge.positives(references, label, 200, RNG(4), **how)
    again = RNG(4)
    if "lag" in how:
        ends = again.integers(7, 200, 50)
        change = label[ends] - label[ends - 7]
    else:
        change = 0.3 * again.standard_normal((50, 2))
    for i, reference in enumerate(references):
        aim = label[reference] + change[i]
        assert found[i] == np.argmin([sum((row - aim) ** 2) for row in label])


# --- decoding ------------------------------------------------------------------------------------
def smooth(n: int, seed: int) -> np.ndarray:
    """A place on a track, seen many times."""
    phase = np.cumsum(0.05 + 0.02 * RNG(seed).standard_normal(n))
    return 0.8 + 0.8 * np.sin(phase)


def test_a_perfect_embedding_decodes_perfectly() -> None:
    place = smooth(4000, 0)[:, None]
    z = np.concatenate([np.cos(place), np.sin(place)], axis=1)
    error, k = judge.decode(*parts(z), place, "error, cm")
    assert error < 0.5
    assert k in judge.NEIGHBOURS
    assert judge.decode(*parts(z), place, "R2 of position")[0] > 0.999
    turn = np.stack([np.cos(place[:, 0] * 4), np.sin(place[:, 0] * 4)], axis=1)
    assert judge.decode(*parts(turn), turn, "error, deg")[0] < 0.5
    state = np.int64(place[:, 0] * 5)
    assert judge.decode(*parts(np.eye(9)[state]), state, "accuracy")[0] == 1
    latent = RNG(1).standard_normal((4000, 2))
    mixed = latent @ np.array([[2.0, 1.0], [-1.0, 0.5]]) + 3
    assert judge.decode(*parts(mixed), latent, "R2 of z") == (pytest.approx(1), 0)


def test_an_embedding_of_nothing_decodes_at_chance() -> None:
    place, z = smooth(6000, 0)[:, None], on_sphere(6000, 3, 1)
    train, test = parts(z)
    error, _ = judge.decode(train, test, place, "error, cm")
    constant = 100 * np.median(np.abs(place[test.used] - place[train.used].mean()))
    assert error > 0.85 * constant
    state = RNG(2).choice(3, 6000, p=[0.6, 0.2, 0.2])
    assert judge.decode(train, test, state, "accuracy")[0] == pytest.approx(0.6, abs=0.06)
    assert judge.decode(train, test, z[::-1], "R2 of z")[0] < 0.02


def test_scores_are_those_of_a_calculator() -> None:
    truth, said = np.array([[0.0], [1.0], [2.0]]), np.array([[0.1], [1.0], [1.5]])
    assert judge.score("error, cm", truth, said) == pytest.approx(10)
    assert judge.score("R2 of z", truth, said) == pytest.approx(1 - 0.26 / 2)
    assert judge.score("accuracy", np.array([1, 2, 3]), np.array([1, 2, 2])) == pytest.approx(2 / 3)
    turns = np.radians([[350.0], [10.0], [180.0]])
    at = np.concatenate([np.cos(turns), np.sin(turns)], axis=1)
    assert judge.score("error, deg", at, np.roll(at, 1, axis=0)) == pytest.approx(170)
    assert judge.better_small("error, cm")
    assert not judge.better_small("accuracy")
    with pytest.raises(ValueError, match="measure must be"):
        judge.score("luck", truth, said)


def test_the_vote_of_classes_is_a_count() -> None:
    target = RNG(0).integers(0, 4, 50)
    near = RNG(1).integers(0, 50, (30, 9))
    slow = [np.bincount(target[row], minlength=4).argmax() for row in near]
    assert judge._vote(target, near, 9).tolist() == slow


# --- nothing leaks -------------------------------------------------------------------------------
def test_what_is_decoded_of_the_scored_part_is_not_looked_at() -> None:
    place = smooth(4000, 0)[:, None]
    z = np.concatenate([np.cos(place), np.sin(place)], axis=1)
    train, test = parts(z + 0.1 * RNG(1).standard_normal(z.shape))
    _, k = judge.decode(train, test, place, "error, cm")
    other = place.copy()
    other[test.used] = RNG(2).uniform(0, 1.6, other[test.used].shape)
    error, still = judge.decode(train, test, other, "error, cm")
    assert still == k
    assert error > 20
    other = place.copy()
    other[train.used] = RNG(3).permutation(other[train.used])
    assert judge.decode(train, test, other, "error, cm")[0] > 20


def test_gap_and_edges_are_not_looked_at() -> None:
    place = smooth(3000, 0)[:, None]
    z = np.concatenate([np.cos(place), np.sin(place)], axis=1)
    train, test = parts(z)
    expected = judge.decode(train, test, place, "error, cm")
    unused = np.ones(3000, dtype=bool)
    unused[train.used] = unused[test.used] = False
    assert unused.sum() == judge.GAP + 4 * judge.EDGE
    z[unused] = place[unused] = np.nan
    train, test = parts(z)
    assert judge.decode(train, test, place, "error, cm") == expected
    assert np.isfinite(judge.bits(test.inner, place[test.used], lag=10))


class Recorder:
    """Stands in for both libraries: embeds each sample by itself, keeps what it was given."""

    given: list[tuple[Any, ...]] = []  # noqa: RUF012

    def fit(self, *data: np.ndarray) -> None:
        self.given.append(data)

    def transform(self, x: np.ndarray) -> np.ndarray:
        mix = RNG(0).standard_normal((x.shape[1], 3))
        z = x @ mix + 1e-3
        return np.float32(z / np.linalg.norm(z, axis=1, keepdims=True))


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    monkeypatch.setattr(Recorder, "given", [])
    monkeypatch.setattr(parity_runs, "estimator", lambda *_: Recorder())
    return Recorder


def ring_task(mode: str) -> parity_data.Task:
    return next(t for t in parity_data.tasks() if t.name == f"ring, {mode}")


def test_only_the_training_part_is_fitted(recorder: type[Recorder]) -> None:
    data = parity_data.ring()
    for mode in ("time", "behavior"):
        parity_runs.run_one("grevy", ring_task(mode), 0, "cpu", Path())
    (x,), (again, label) = recorder.given
    assert np.array_equal(x, data.x[:6400])
    assert np.array_equal(again, data.x[:6400])
    assert np.array_equal(label, data.label[:6400])


# --- consistency ---------------------------------------------------------------------------------
def test_consistency_does_not_see_rotations_and_sees_everything_else() -> None:
    z = on_sphere(900, 4, 0)
    turn, _ = np.linalg.qr(RNG(1).standard_normal((4, 4)))
    a, b = z[:600], z[600:]
    assert judge.likeness(a, a @ turn + 5, b, b @ turn + 5) == pytest.approx(1)
    other = on_sphere(900, 4, 2)
    assert judge.likeness(a, other[:600], b, other[600:]) < 0.02
    noisy = z + 0.3 * RNG(3).standard_normal(z.shape)
    straight = judge.likeness(a, noisy[:600], b, noisy[600:])
    turned = judge.likeness(a, noisy[:600] @ turn, b, noisy[600:] @ turn)
    assert 0.5 < straight < 0.9
    assert straight == pytest.approx(turned)


def test_the_map_is_fitted_on_training_samples_alone() -> None:
    a, b = on_sphere(30, 20, 0), on_sphere(30, 20, 1)
    assert judge.likeness(a, b, a, b) > 0.5  # in sample, noise looks alike
    assert judge.likeness(a, b, on_sphere(300, 20, 2), on_sphere(300, 20, 3)) < 0


def test_values_of_seeds_have_the_mean_of_the_pairs_and_its_spread() -> None:
    z = on_sphere(500, 3, 0)
    seeds = [z + s * 0.1 * RNG(s).standard_normal(z.shape) for s in range(5)]
    halves = [(s[:300], s[300:]) for s in seeds]
    values = judge.between_seeds(halves)
    pairs = [
        judge.likeness(a[0], b[0], a[1], b[1])
        for i, a in enumerate(halves)
        for j, b in enumerate(halves)
        if i != j
    ]
    assert np.mean(values) == pytest.approx(np.mean(pairs))
    assert values[4] < min(values[:4])  # the noisiest seed pulls the mean down
    assert judge.between_seeds([halves[0]] * 3) == pytest.approx([1, 1, 1])


def test_bins_are_means_of_their_samples() -> None:
    z, bins = on_sphere(200, 3, 0), RNG(1).integers(-1, 60, 200)
    found = judge.binned(z, bins)
    for place in range(80):
        inside = z[bins == place]
        if len(inside) < 3:
            assert np.isnan(found[place]).all()
        else:
            np.testing.assert_allclose(found[place], inside.mean(axis=0))


def test_animals_are_alike_in_the_bins_that_both_have() -> None:
    train, test = on_sphere(80, 3, 0), on_sphere(80, 3, 1)
    turn, _ = np.linalg.qr(RNG(2).standard_normal((3, 3)))
    one, two = (train.copy(), test.copy()), (train @ turn, test @ turn)
    one[0][:9], two[1][70:] = np.nan, np.nan
    assert judge.between_animals([one, two]) == pytest.approx(1)
    other = (on_sphere(80, 3, 3), on_sphere(80, 3, 4))
    assert judge.between_animals([one, other]) < 0.3


def test_no_more_samples_are_kept_than_said() -> None:
    z = np.arange(5000.0)[:, None]
    kept = judge.thinned(z)
    assert len(kept) == judge.KEPT
    assert (kept[0, 0], kept[-1, 0]) == (0, 4999)
    assert np.array_equal(judge.thinned(z[:7]), z[:7])
    assert np.allclose(parity_runs.unpack(parity_runs.pack(z / 7)), z / 7, rtol=1e-6)


# --- verdicts ------------------------------------------------------------------------------------
def test_verdicts_follow_the_direction_of_the_measure() -> None:
    low, high = (1.0, 1.1, 0.9, 1.05, 0.95), (2.0, 2.1, 1.9, 2.05, 1.95)
    assert parity_table.verdict("", "accuracy", low, high).word == "better"
    assert parity_table.verdict("", "accuracy", high, low).word == "worse"
    assert parity_table.verdict("", "decoding: error, cm", low, high).word == "worse"
    assert parity_table.verdict("", "decoding: error, cm", high, low).word == "better"
    assert parity_table.verdict("", "bits, time", low, low).word == "within spread"
    assert parity_table.verdict("", "accuracy", (1.0, 1.0), (1.0, 1.0)).word == "within spread"
    assert parity_table.verdict("", "accuracy", (1.0, 1.0), (0.9, 0.9)).word == "worse"


def test_a_library_compared_with_itself_is_called_different_five_times_in_a_hundred() -> None:
    rng = RNG(0)
    words = [
        parity_table.verdict("", "accuracy", *rng.standard_normal((2, 5)).tolist()).word
        for _ in range(4000)
    ]
    assert words.count("worse") / 4000 == pytest.approx(0.025, abs=0.01)
    assert words.count("better") / 4000 == pytest.approx(0.025, abs=0.01)


def test_holm_by_hand() -> None:
    assert parity_table.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert parity_table.holm([0.5, 0.9]) == [1.0, 1.0]


# --- from runs to the page -----------------------------------------------------------------------
def test_runs_are_kept_resumed_and_written_down(
    recorder: type[Recorder], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = ring_task("behavior")
    rows = [parity_runs.run_one("cebra", task, seed, "cpu", Path()) for seed in range(3)]
    path = tmp_path / "runs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + '\n{"task": "ring, beh')
    again = parity_runs.run_all(
        "cebra", [task], [0, 1, 2, 3], device="cpu", folder=Path(), path=path, workers=1, limit_s=0
    )  # fmt: skip
    assert [r["seed"] for r in again] == [0, 1, 2]
    assert path.read_text().endswith("\n")
    assert "cut off" in capsys.readouterr().out
    results = {"tasks": parity_runs.summary(again, [task])}
    scores = results["tasks"]["ring, behavior"]["scores"]
    assert set(scores) == {
        "bits, label", "decoding: error, deg", "k", "consistency between seeds: R2"
    }  # fmt: skip
    assert scores["consistency between seeds: R2"] == [1.0, 1.0, 1.0]
    page = parity_table.page(results, results)
    assert "Of 3 rows: 0 better, 3 within spread, 0 worse." in page
    other = json.loads(json.dumps(results))
    other["tasks"]["ring, behavior"]["data"] = "else"
    with pytest.raises(SystemExit, match="different data"):
        parity_table.page(results, other)


def test_rows_of_other_settings_are_not_taken(tmp_path: Path, recorder: type[Recorder]) -> None:
    task = ring_task("time")
    row = parity_runs.run_one("grevy", task, 0, "cpu", Path())
    row["settings"] = {**row["settings"], "max_iterations": 3}
    path = tmp_path / "runs.jsonl"
    path.write_text(json.dumps(row) + "\n")
    found = parity_runs.run_all(
        "grevy", [task], [0], device="cpu", folder=Path(), path=path, workers=1, limit_s=0
    )  # fmt: skip
    assert found == []


# --- data ----------------------------------------------------------------------------------------
def test_the_synthetic_sets_are_what_they_say() -> None:
    data = parity_data.flow()
    assert data.x.shape == (15_000, 100)
    assert data.digest == parity_data.flow().digest != parity_data.flow(seed=1).digest
    u, z = data.label[:, 0], np.asarray(data.target)
    assert 0 <= u.min() < u.max() <= 2 * np.pi
    rest = z - np.stack([u, 2 * np.sin(u)], axis=1)
    spread = np.stack([0.6 - 0.3 * np.abs(np.sin(u)), 0.3 * np.abs(np.sin(u))], axis=1)
    assert (np.square(rest) / spread).mean() == pytest.approx(1, abs=0.03)
    assert (data.x == np.round(data.x)).all()
    assert data.x.mean(axis=0).max() < np.exp(2.2) + 0.2
    ring = parity_data.ring()
    assert np.allclose(np.square(ring.label).sum(axis=1), 1)


def test_a_coupling_keeps_volume_and_half_of_the_dimensions() -> None:
    h = RNG(0).standard_normal((1, 6))
    out = parity_data._couple(h, RNG(1))
    assert np.array_equal(out[:, 3:], h[:, :3])
    steps = [
        (parity_data._couple(h + 1e-6 * np.eye(6)[[i]], RNG(1)) - out)[0] / 1e-6 for i in range(6)
    ]
    assert abs(np.linalg.det(np.array(steps))) == pytest.approx(1, abs=1e-4)


def test_every_task_has_its_settings_once() -> None:
    found = parity_data.tasks()
    assert len({t.name for t in found}) == len(found) == 19
    hybrid = next(t for t in found if t.name == "cicero, hybrid")
    assert hybrid.parameters["hybrid"] is True
    flow = next(t for t in found if t.dataset == "flow").parameters
    assert (flow["delta"], flow["distance"], "time_offsets" in flow) == (0.1, "euclidean", False)
