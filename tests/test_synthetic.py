"""Simulated recordings: the counts of the real session, and the structure that was planted."""

from __future__ import annotations

import numpy as np
import pytest

import oracles
from grevy import synthetic
from grevy.errors import ConfigError
from grevy.recording import Recording
from grevy.stimulus import align, frame_intervals, order_confounds, short_presentations
from grevy.synthetic import SimulatedSession, openscope


def small(**options: object) -> SimulatedSession:
    return openscope(**{"n_repeats": 6, "n_frames": 150, "movies": 5, **options})


@pytest.fixture(scope="module")
def full() -> SimulatedSession:
    return openscope()


def test_full_size_counts(full: SimulatedSession) -> None:
    assert full.activity.shape == (127177, 41)
    assert full.activity.dtype == np.float32
    assert len(full.times_s) == 127177
    assert len(full.series) == 14
    assert list(full.series) == sorted(full.series)
    assert sum(len(times) for times, _ in full.series.values()) == 241_200
    table = synthetic.stimulus_table(full)
    assert table.n_rows == 241_186
    assert table.start_s[:5].tolist() == [27.475720, 27.492416, 27.509112, 27.525758, 27.542211]
    assert {table.names[i] for i in table.name[:5]} == {"spontaneous"}
    assert table.start_s[-5:].tolist() == [
        4231.635599,
        4231.652274,
        4231.668936,
        4231.685619,
        4231.702325,
    ]
    assert table.frame[-5:].tolist() == [897, 897, 898, 898, 899]
    assert table.stop_s[-1] == 4231.718994
    assert table.names[table.name[-1]] == "snake"
    assert len(frame_intervals(table, gap_s=np.inf).start_s) == 136_798 + 1  # theirs and the last
    assert full.times_s[133:136].tolist() == [27.47572, 27.50889, 27.54205]
    assert np.round(full.times_s[126888:126891], 5).tolist() == [
        4231.61079,
        4231.64396,
        4231.67713,
    ]


def test_full_size_through_the_notebooks_own_loops(full: SimulatedSession) -> None:
    rows = oracles.notebook_table(full.series)
    assert len(rows) == 241_186
    start, _, frame, name = (list(column) for column in zip(*rows, strict=True))
    intervals, frames, names = oracles.notebook_intervals(start, frame, name)
    assert len(intervals) == 136_798
    told, shown, before = oracles.notebook_samples(full.times_s.tolist(), intervals, frames, names)
    assert (len(told), len(shown), before) == (126_758, 126_758, 133)
    assert np.flatnonzero(full.times_s > np.max(intervals))[0] == 126_891
    assert len(full.times_s) - len(told) == 419
    track = align(full.times_s, synthetic.stimulus_table(full), gap_s=np.inf)
    assert track.frame[133:126_891].tolist() == told
    assert [track.names[i] for i in track.index[133:126_891]] == shown
    assert "dots" not in shown  # "not found"
    shown_np, told_np = np.array(shown), np.array(told)
    for key in sorted(set(shown) - {"snake", "spontaneous"}):
        repeats = oracles.notebook_repeats(told_np[shown_np == key].tolist())
        assert (len(repeats) == 1) if key == "noise" else (len(repeats) >= 10)


def test_full_size_track(full: SimulatedSession) -> None:
    track = synthetic.as_recording(full).stimulus
    assert track is not None
    assert set(track.decodable) == set(full.strength)
    assert set(track.reasons) == {"dots", "noise", "spontaneous"}
    assert "overlaps spontaneous" in track.reasons["dots"]
    assert "no samples" in track.reasons["dots"]
    assert "never repeats" in track.reasons["noise"]
    assert "single frame" in track.reasons["spontaneous"]
    for key in track.decodable:
        number = track.names.index(key)
        own = track.blocks[track.blocks["stimulus"] == number]
        assert len(own) == 10
        assert track.n_frames[number] == 900
        assert track.duration_s[number] == pytest.approx(30.0, abs=0.05)
        assert len(np.unique(track.frame[track.index == number])) == 900
    assert not short_presentations(track)[np.isin(track.blocks["stimulus"], [0, 1, 3])].any()
    assert order_confounds(track) is None


def test_the_same_arguments_give_the_same_session() -> None:
    one, two, other = small(), small(), small(seed=1)
    assert np.array_equal(one.activity, two.activity)
    assert not np.array_equal(one.activity[:500], other.activity[:500])
    loud = small(noise=9.0)
    assert np.array_equal(one.latents, loud.latents)
    assert all(np.array_equal(one.series[k][0], loud.series[k][0]) for k in one.series)
    assert loud.activity.std() > 1.5 * one.activity.std()


def template_correlation(session: SimulatedSession) -> dict[str, float]:
    """Mean correlation, over cells, of the average over even repeats with that over odd ones."""
    track = synthetic.as_recording(session).stimulus
    assert track is not None
    shared = {}
    for key in session.strength:
        number = track.names.index(key)
        halves = []
        for odd in (0, 1):
            mine = (track.index == number) & (track.repeat % 2 == odd)
            total = np.zeros((track.n_frames[number], session.activity.shape[1]))
            count = np.zeros(len(total))
            np.add.at(total, track.frame[mine], session.activity[mine])
            np.add.at(count, track.frame[mine], 1)
            mean = total[count > 0] / count[count > 0, None]
            halves.append((mean - mean.mean(axis=0)) / mean.std(axis=0))
        n = min(map(len, halves))
        shared[key] = float((halves[0][:n] * halves[1][:n]).mean())
    return shared


def test_repeats_share_what_was_planted_and_the_control_nothing(full: SimulatedSession) -> None:
    shared = template_correlation(full)
    strong = [key for key, strength in full.strength.items() if strength >= 0.5]
    weak = [key for key, strength in full.strength.items() if strength <= 0.1]
    assert min(shared[key] for key in strong) > max(shared[key] for key in weak) + 0.1
    order = np.argsort(list(full.strength.values()))
    rank = np.argsort(np.argsort([shared[key] for key in full.strength]))
    assert np.corrcoef(np.argsort(order), rank)[0, 1] > 0.8
    assert abs(shared["mouse_montage_1_temporal_phase_scramble"]) < 0.1


def test_onset_gives_even_the_control_a_clock() -> None:
    control = "mouse_montage_1_temporal_phase_scramble"
    plain, marked = (template_correlation(small(onset=o, state=0.0, noise=0.5)) for o in (0.0, 2.0))
    assert abs(plain[control]) < 0.1
    assert marked[control] > plain[control] + 0.1


def test_drift_moves_cells_over_the_session() -> None:
    def change(session: SimulatedSession) -> float:
        third = len(session.activity) // 3
        means = np.stack([session.activity[i * third : (i + 1) * third].mean(0) for i in range(3)])
        return float((means.std(0) / session.activity.std(0)).mean())

    assert change(small(drift=1.0, noise=0.5, state=0.0)) > 2 * change(small(noise=0.5, state=0.0))


def test_order_and_dots() -> None:
    assert "same in all 6 cycles" in str(order_confounds(track_of(small(order="fixed"))))
    assert order_confounds(track_of(small())) is None
    whole = track_of(small(order="whole"))
    assert order_confounds(whole) is None
    shown = whole.blocks[np.isin(whole.blocks["stimulus"], [0, 1, 2])]
    assert (np.diff(shown["repeat"]) < 0).any()  # no cycles
    for dots, n in (("single", 1), ("none", 0)):
        session = small(dots=dots)
        assert len(session.series["dots"][0]) == n
        assert "no rows" in track_of(session).reasons["dots"]
        assert "overlaps" not in track_of(session).reasons["spontaneous"]
    own = small(movies={"a": 1.0, "b": 0.0})
    assert track_of(own).decodable == ("a", "b")
    assert openscope(movies=1, n_repeats=1, n_frames=30).activity.shape[1] == 41


def track_of(session: SimulatedSession):
    track = synthetic.as_recording(session).stimulus
    assert track is not None
    return track


def test_templates_and_running() -> None:
    session = small(frame_shape=(5, 7))
    for key, (_, frames) in session.series.items():
        assert session.templates[key].shape == (frames.max() + 1, 5, 7)
        assert session.templates[key].dtype == np.uint8
    assert len(session.running_cm_s) == len(session.running_times_s)
    still = session.templates["mousecam"].astype(int)
    assert 0 < np.abs(np.diff(still, axis=0)).mean() < still.std()  # it moves, smoothly


@pytest.mark.parametrize(
    "options",
    [
        {"movies": 0},
        {"movies": 12},
        {"movies": {}},
        {"movies": {"noise": 1.0}},
        {"n_repeats": 0},
        {"n_frames": 2},
        {"n_cells": 0},
        {"order": "sorted"},
        {"dots": "many"},
    ],
)
def test_impossible_sessions_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="must"):
        openscope(**options)


def error_of_angle(recording: Recording, angle: np.ndarray) -> float:
    """Median error, in radians, of a linear read-out of cosine and sine, last fifth held out."""
    x = np.sqrt(recording.activity.astype(float))
    kernel = np.hanning(21) / np.hanning(21).sum()
    x = np.stack([np.convolve(column, kernel, "same") for column in x.T], axis=1)
    x = np.column_stack([x, np.ones(len(x))])
    target = np.column_stack([np.cos(angle), np.sin(angle)])
    cut = 4 * len(x) // 5
    weights = np.linalg.lstsq(x[:cut], target[:cut], rcond=None)[0]
    told = np.arctan2(*(x[cut:] @ weights).T[::-1])
    return float(np.median(np.abs((told - angle[cut:] + np.pi) % (2 * np.pi) - np.pi)))


def test_ring_and_torus_hold_their_angles() -> None:
    ring = synthetic.ring(seed=3)
    label = ring.labels["angle"]
    assert label.period == pytest.approx(2 * np.pi)
    assert ((label.values >= 0) & (label.values < 2 * np.pi)).all()
    assert error_of_angle(ring, label.values) < 0.25  # chance is pi / 2
    torus = synthetic.torus(seed=3)
    angles = torus.labels["angles"].values
    for i in range(2):
        assert error_of_angle(torus, angles[:, i]) < 0.5
        assert np.histogram(angles[:, i], 8)[0].min() > 0  # all around
    with pytest.raises(ConfigError):
        synthetic.ring(n_channels=0)
    with pytest.raises(ConfigError):
        synthetic.torus(rate_hz=0.0)


def test_poisson_2d_has_the_papers_moments() -> None:
    recording = synthetic.poisson_2d(seed=5)
    assert recording.activity.shape == (15000, 100)
    u, latent = recording.labels["u"].values, recording.labels["latent"].values
    bend = np.abs(np.sin(u))
    rest = latent - np.stack([u, 2 * np.sin(u)], axis=1)
    assert np.abs(rest.mean(axis=0)).max() < 0.02
    assert (rest[:, 0] ** 2).mean() == pytest.approx((0.6 - 0.3 * bend).mean(), rel=0.05)
    assert (rest[:, 1] ** 2).mean() == pytest.approx((0.3 * bend).mean(), rel=0.05)
    assert recording.activity.max() < 60  # rates lie between exp(-2.2) and exp(2.2)
    assert (recording.activity.mean(axis=0) > np.exp(-2.3)).all()
    assert (recording.activity.mean(axis=0) < np.exp(2.3)).all()


def test_the_flow_keeps_volume() -> None:
    x = np.random.default_rng(0).normal(size=(1, 6))

    def flow(points: np.ndarray) -> np.ndarray:
        return synthetic._flow(points, np.random.default_rng(7))

    step = 1e-6 * np.eye(6)
    jacobian = (flow(x + step) - flow(x - step)) / 2e-6
    assert abs(np.linalg.det(jacobian)) == pytest.approx(1.0, abs=1e-4)
