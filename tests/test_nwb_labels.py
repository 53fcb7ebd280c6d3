"""Stimuli and labels at the samples, against interpolation and counting by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from grevy.errors import ConfigError, DataError
from grevy.nwb import describe, read
from grevy.nwb.behavior import Series, at_samples
from grevy.recording import Label
from nwb_files import (
    found,
    new,
    noise,
    noted,
    series,
    table,
    traces,
    with_epochs,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "session.nwb"


# --- Stimuli --------------------------------------------------------------------------------------


def test_frames_of_interval_tables(path: Path) -> None:
    begin = np.concatenate([10 + np.arange(20) / 5, 20 + np.arange(20) / 5])
    with new(path) as file:
        traces(file, noise(600, 3), np.arange(600) / 10, rois=3)
        frames = np.tile(np.arange(10.0), 4)
        frames[[3, 5]] = [np.nan, -1]
        table(file, "intervals/flower_presentations",
              {"start_time": begin, "stop_time": begin + 0.2, "frame": frames})  # fmt: skip
        table(file, "intervals/spontaneous_presentations",
              {"start_time": [30.0], "stop_time": [40.0], "stimulus_name": ["grey"]})  # fmt: skip
        table(file, "intervals/trials",
              {"start_time": [1.0], "stop_time": [2.0], "clip_name": ["ignored"]})  # fmt: skip
    track = read(path).stimulus
    assert track is not None
    assert track.names == ("flower", "grey")
    assert track.n_frames[0] == 10
    # Samples right at 10.0, 10.1 (frame 0), 10.2 (frame 1); 10.6 shows the blank.
    assert track.frame[[100, 101, 103, 107]].tolist() == [0, 0, 1, -1]
    assert track.index[[99, 350]].tolist() == [-1, 1]
    only = read(path, stimuli=["grey"]).stimulus
    assert only is not None
    assert only.names == ("grey",)
    with pytest.raises(DataError, match="found 'tulip', which is none of flower, grey"):
        read(path, stimuli=["tulip"])


def test_index_series(path: Path) -> None:
    t = 5 + np.arange(120) / 60
    with new(path) as file:
        traces(file, noise(600, 3), np.arange(600) / 10, rois=3)
        for name, when in (("movie", np.concatenate([t, t + 10, t + 20])), ("late", t + 100)):
            group = series(file, f"stimulus/presentation/{name}",
                           np.tile(np.arange(120) // 2, len(when) // 120).astype(np.uint32),
                           when, kind="IndexSeries")  # fmt: skip
            template = series(file, f"stimulus/templates/{name}", np.zeros((50, 2, 2), np.uint8),
                              np.empty(0), kind="ImageSeries")  # fmt: skip
            group["indexed_timeseries"] = h5py.SoftLink(template.name)
        series(file, "stimulus/presentation/one", [0], [50.0], kind="IndexSeries")
        series(file, "stimulus/presentation/none", [0, 1], rate=float("nan"), kind="IndexSeries")
    r = read(path)
    track = r.stimulus
    assert track is not None
    assert track.names == ("late", "movie", "none", "one")
    assert track.decodable == ("movie",)
    expected = np.full(600, -1)
    for k in (0, 10, 20):
        i = np.arange(50, 70) + 10 * k
        expected[i] = np.minimum(((r.times_s[i] - 5 - k) * 60 + 1e-6) // 2, 59)
    inside = (track.index == 1) & (expected >= 0)
    assert (track.frame[inside] == expected[inside]).all()
    assert inside.sum() >= 58
    assert noted(r, "'stimulus/presentation/none'", "no clock")
    assert found(path, "shows frame 59 of a template with 50 frames")
    assert found(path, "'late'", "outside the recording")
    assert describe(path).suggestion == f"grevy run {path}"


def test_clips_of_a_trial_table(path: Path) -> None:
    with new(path) as file:
        traces(file, noise(600, 3), np.arange(600) / 10, rois=3)
        table(file, "intervals/trials", {
            "start_time": [10.0, 5.0, 20.0, np.nan], "stop_time": [12.0, 7.0, np.nan, 30.0],
            "Clip_name": ["b.mp4", "a.mp4", "b.mp4", "a.mp4"],
        })  # fmt: skip
    r = read(path)
    track = r.stimulus
    assert track is not None
    assert dict(zip(track.names, np.bincount(track.blocks["stimulus"]), strict=True)) == {
        "b.mp4": 2, "a.mp4": 1,
    }  # fmt: skip
    assert track.index[55] == track.names.index("a.mp4")
    assert noted(r, "1 of 4 rows", "no usable times")


# --- Labels ---------------------------------------------------------------------------------------


def resampled(
    values: np.ndarray, ts: np.ndarray, t: np.ndarray, period: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate sample by sample, as one would by hand."""
    step = np.median(np.diff(ts))
    out, known = np.zeros(len(t)), np.zeros(len(t), bool)
    for i, when in enumerate(t):
        if when < ts[0] or when > ts[-1]:
            continue
        same = np.flatnonzero(ts == when)
        if len(same):
            out[i], known[i] = values[same[0]], np.isfinite(values[same[0]])
            continue
        b = int(np.argmax(ts > when))
        a = b - 1
        if ts[b] - ts[a] > 5 * step * (1 + 1e-9) or not np.isfinite(values[[a, b]]).all():
            continue
        share = (when - ts[a]) / (ts[b] - ts[a])
        d = values[b] - values[a]
        if period is not None:
            d = (d + period / 2) % period - period / 2
        out[i], known[i] = values[a] + share * d, True
    return out, known


def made(values: np.ndarray, ts: np.ndarray, **how: Any) -> Series:
    known = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    how = {"unit": "", "period": None, "discrete": False} | how
    return Series("x", values, ts, known, **how)


def circular_distance(a: Any, b: Any, period: float) -> Any:
    return np.abs((a - b + period / 2) % period - period / 2)


@pytest.mark.parametrize("period", [None, 2 * np.pi, 360.0])
def test_interpolation(period: float | None) -> None:
    rng = np.random.default_rng(4)
    for _ in range(30):
        ts = np.cumsum(rng.uniform(0.5, 1.5, 60)) + (np.arange(60) > 30) * 9.0
        values = rng.uniform(0, period or 5, 60)
        values[rng.random(60) < 0.1] = np.nan
        t = np.unique(np.concatenate([rng.uniform(-5, ts[-1] + 5, 80), ts[:10]]))
        label = at_samples(made(values, ts, period=period), t)
        expected, known = resampled(values, ts, t, period)
        assert np.array_equal(label.mask, known)
        if period is None:
            assert label.values[known] == pytest.approx(expected[known])
        else:
            assert circular_distance(label.values, expected, period)[known].max() < 1e-9
            assert (label.values >= 0).all()
            assert (label.values < period).all()


@pytest.mark.parametrize("period", [None, 360.0])
def test_slow_samples_average_behaviour(period: float | None) -> None:
    rng = np.random.default_rng(6)
    ts = np.cumsum(rng.uniform(0.008, 0.012, 2000))
    values = np.cumsum(rng.normal(0, 5, 2000))
    values = values if period is None else values % period - 180
    values[300:420] = np.nan
    t = np.arange(-2, 24, 0.1)
    label = at_samples(made(values, ts, period=period), t)
    for i, when in enumerate(t):
        own = values[(ts >= when - 0.05) & (ts < when + 0.05)]
        own = own[np.isfinite(own)]
        assert label.mask[i] == (len(own) > 0 and ts[0] <= when <= ts[-1])
        if label.mask[i] and period is None:
            assert label.values[i] == pytest.approx(own.mean())
        elif label.mask[i]:
            mean = np.degrees(np.angle(np.exp(1j * np.radians(own)).mean()))
            assert circular_distance(label.values[i], mean, 360.0) < 1e-6


def test_a_circle_is_interpolated_over_its_seam(path: Path) -> None:
    with new(path) as file:
        traces(file, noise(60, 3), np.arange(60) / 10, rois=3)
        angle = np.radians([350.0, 10.0] * 5)
        series(file, "processing/behavior/heading", angle, np.arange(10) / 2, unit="radians")
        series(file, "processing/behavior/yaw", [-170.0, 170.0] * 5, np.arange(10) / 2, unit="deg")
        series(
            file, "processing/behavior/turns", np.arange(10.0) * 5, np.arange(10) / 2, unit="rad"
        )
    r = read(path, labels=("heading", "behavior/yaw", "turns"))
    heading, yaw, turns = r.labels.values()
    assert heading.period == 2 * np.pi
    assert np.degrees(heading.values[2]) == pytest.approx(358.0)
    assert np.degrees(heading.values[3]) == pytest.approx(2.0)
    assert yaw.period == 360.0
    assert circular_distance(yaw.values[2], 180.0 + 2, 360.0) == pytest.approx(0, abs=1e-9)
    assert (yaw.values >= -180).all()
    assert turns.period is None
    assert noted(r, "turns", "more than one turn")
    assert np.array_equal(heading.mask, r.times_s <= 4.5)
    assert {b.path.rsplit("/", 1)[1]: b.circular for b in describe(path).behavior} == {
        "heading": True, "turns": False, "yaw": True,
    }  # fmt: skip


def test_discrete_labels_take_the_nearest() -> None:
    ts = np.array([0.0, 1, 2, 3, 20, 21])
    label = at_samples(made(np.array([5, 6, 7, 8, 9, 10]), ts, discrete=True),
                       np.array([-0.1, 0.0, 0.4, 0.6, 3.0, 10.0, 20.4, 21.0, 21.1]))  # fmt: skip
    assert label.kind == "discrete"
    assert label.mask.tolist() == [False, True, True, True, True, False, True, True, False]
    assert label.values[label.mask].tolist() == [5, 5, 6, 8, 9, 10]


def test_labels_of_every_kind(path: Path) -> None:
    with new(path) as file:
        traces(file, noise(100, 3), np.arange(100) / 10, rois=3)
        t = np.arange(200) / 20
        series(file, "processing/behavior/Position/place", np.stack([t, -t], 1), t)
        series(file, "processing/behavior/Position/sideways", np.stack([t, -t]), t)
        series(file, "processing/behavior/state", np.repeat([2, 7], 100), t)
        series(file, "processing/behavior/word", ["up", "down"] * 100, t)
        series(file, "processing/behavior/scaled", np.arange(200, dtype=np.int16), rate=20.0,
               conversion=0.1, unit="cm")  # fmt: skip
        series(file, "processing/other/state", np.ones(200), t)
    names = ("place", "sideways", "behavior/state", "word", "scaled")
    r = read(path, labels=names)
    assert tuple(r.labels) == names
    assert np.allclose(r.labels["place"].values, np.stack([r.times_s, -r.times_s], 1), atol=0.026)
    assert np.array_equal(r.labels["place"].values, r.labels["sideways"].values)
    assert r.labels["behavior/state"].kind == "discrete"
    assert set(r.labels["behavior/state"].values) == {2, 7}
    assert r.labels["word"].names == ("down", "up")
    assert (r.labels["scaled"].kind, r.labels["scaled"].unit) == ("continuous", "cm")
    assert r.labels["scaled"].values.max() < 20
    with pytest.raises(
        DataError,
        match=r"must name one series; found processing/behavior/state, processing/other/state",
    ):
        read(path, labels=("state",))
    with pytest.raises(ConfigError, match="sequence of names"):
        read(path, labels="place")


def test_columns_of_trials(path: Path) -> None:
    with_epochs(path)
    r = read(path, labels=("trials.choice", "intervals/trials/block"))
    choice, block = r.labels.values()
    assert isinstance(choice, Label)
    assert choice.names == ("left", "right")
    expected = np.full(600, -1)
    for a, b, c in ((300, 310, 0), (100, 120, 1), (200, 250, 0)):
        expected[a:b] = c
    assert np.array_equal(choice.mask, expected >= 0)
    assert np.array_equal(choice.values[choice.mask], expected[expected >= 0])
    assert block.kind == "continuous"
    with pytest.raises(DataError, match=r"found none.*trials\.choice"):
        read(path, labels=("trials.side",))


def test_wrong_clock_of_a_label(path: Path) -> None:
    t = np.arange(100) / 10
    with new(path) as file:
        traces(file, noise(100, 3), t, rois=3)
        series(file, "processing/behavior/speed", t, np.where(np.arange(100) == 50, 2.0, t))
        series(file, "processing/behavior/long", t, np.arange(101) / 10)
        series(file, "processing/behavior/short", t, np.arange(70) / 10)
    with pytest.raises(
        DataError, match="'processing/behavior/speed' must increase; found 1 falling"
    ):
        read(path, labels=("speed",))
    r = read(path, labels=("speed",), times="drop")
    assert r.labels["speed"].values == pytest.approx(t)
    assert noted(r, "1 samples of 'processing/behavior/speed'")
    assert noted(read(path, labels=("long",)), "one timestamp too many")
    with pytest.raises(DataError, match="70 timestamps"):
        read(path, labels=("short",))
    d = describe(path)
    assert [bool(b.problem) for b in d.behavior] == [False, True, True]
