"""Units and epochs: conditions, bins against counting by hand, stretches of time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from grevy.errors import ConfigError, DataError, LimitError
from grevy.nwb import describe, read
from grevy.nwb.intervals import intersect, union, without
from grevy.nwb.units import bin_spikes, bins
from nwb_files import (
    found,
    new,
    noise,
    noted,
    table,
    traces,
    units,
    with_epochs,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "session.nwb"


# --- Units ----------------------------------------------------------------------------------------


def spiking(path: Path, **columns: Any) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    trains = [np.sort(rng.uniform(3, 43, rng.integers(5, 300))) for _ in range(5)]
    with new(path) as file:
        units(file, trains, **columns)
    return trains


def test_binning_is_counting(path: Path) -> None:
    rng = np.random.default_rng(1)
    for trial in range(20):
        width = float(rng.uniform(0.01, 0.7))
        time = union(np.sort(rng.uniform(0, 20, (4, 2)), axis=1))
        start, stop, epochs = bins(time, width)
        train = np.sort(rng.uniform(-1, 21, 400))
        if trial % 2 and len(start):
            train = np.sort(np.concatenate([train, start[:5], stop]))
        counts = bin_spikes(train, start, stop)
        expected, borders = [], []
        for a, b in time:
            first = len(expected)
            k = 0
            while a + (k + 1) * width <= b:
                lo, hi = a + k * width, a + (k + 1) * width
                expected.append(sum(1 for s in train if lo <= s < hi))
                k += 1
            if len(expected) > first:
                borders.append([first, len(expected)])
        assert counts.tolist() == expected
        assert epochs.tolist() == borders


def test_units_by_default(path: Path) -> None:
    trains = spiking(path)
    r = read(path)
    begin = min(t[0] for t in trains)
    assert r.times_s[0] == pytest.approx(begin + 0.025)
    assert r.rate_hz == pytest.approx(20)
    assert r.activity.sum() == sum((t < begin + 0.05 * r.n_samples).sum() for t in trains)
    assert noted(r, "5 of 5 units", "bins of 0.05 s (the default)")
    assert r.activity_unit == "spikes/bin"


CONDITIONS = [
    ("location == VISp", [0, 1]),
    ("location == 'CA1 left'", [2, 3]),
    ('location != "CA1 left"', [0, 1, 4]),
    ("snr > 2", [2, 3, 4]),
    ("snr>=2 and snr<4", [1, 2, 3]),
    ("snr <= 1 and good == true", [0]),
    ("good == False", [3]),
    ("cluster.npy == 12", [2]),
    ("location == VISp and snr != 1 and good==1", [1]),
    ("id < 2", [0, 1]),
]


@pytest.mark.parametrize(("condition", "rows"), CONDITIONS)
def test_conditions_on_units(path: Path, condition: str, rows: list[int]) -> None:
    spiking(
        path,
        location=["VISp", "VISp", "CA1 left", "CA1 left", "and"],
        snr=[1.0, 2.0, 3.0, 3.5, 4.0],
        good=[True, True, True, False, True],
        **{"cluster.npy": [10, 11, 12, 13, 14]},
    )
    assert read(path, units=condition).channels == tuple(f"unit {i}" for i in rows)


@pytest.mark.parametrize(
    "condition",
    ["", "location", "location ==", "== VISp", "location == CA1 left", "snr > 2 or snr < 1",
     "location == 'VISp", "snr = 2", "snr > 2 and", "__import__('os')", "snr == 1; id == 2"],
)  # fmt: skip
def test_conditions_that_are_none(path: Path, condition: str) -> None:
    spiking(path, location=list("abcde"), snr=[1.0] * 5)
    with pytest.raises(ConfigError, match="comparisons joined by 'and'"):
        read(path, units=condition)


def test_conditions_on_the_wrong_kind(path: Path) -> None:
    spiking(path, location=list("abcde"), snr=[1.0] * 5)
    with pytest.raises(DataError, match="holds text"):
        read(path, units="location > a")
    with pytest.raises(DataError, match="holds numbers; found 'high'"):
        read(path, units="snr == high")
    for width in (0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match="bin_s must be"):
            read(path, bin_s=width)


def test_location_by_electrode(path: Path) -> None:
    spiking(path, peak_channel_id=[70, 50, 90, 50, 11])
    with h5py.File(path, "r+") as file:
        table(file, "general/extracellular_ephys/electrodes",
              {"location": ["CA1", "VISp", "LGd"]}, kind="DynamicTable")  # fmt: skip
        file["general/extracellular_ephys/electrodes/id"][...] = [90, 70, 50]
    assert read(path, units="location == LGd").channels == ("unit 1", "unit 3")
    assert found(path, "LGd (2)", "VISp (1)", "unnamed (1)")


def test_observed_time_of_units(path: Path) -> None:
    spiking(path, obs_intervals=[[[5.0, 20.0], [30.0, 40.0]]] * 4 + [[[0.0, 35.0]]])
    r = read(path, bin_s=0.5)
    assert r.epochs.tolist() == [[0, 30], [30, 40]]
    assert r.times_s[[0, 30]].tolist() == [5.25, 30.25]
    assert noted(r, "observed for 20 of")
    r = read(path, units="id < 4", bin_s=0.5)
    assert r.n_samples == 50


def test_spikes_that_are_wrong(path: Path, tmp_path: Path) -> None:
    with new(path) as file:
        units(file, [[1.0, 2.0, 3.0], [1.0, np.nan], []])
    with pytest.raises(DataError, match=r"1 that are not, in unit 1"):
        read(path)
    assert read(path, units="id == 0").n_samples > 2
    assert found(path, "1 of 3 units have no spikes")
    other = tmp_path / "samples.nwb"
    with new(other) as file:
        units(file, [np.arange(1e9, 2e9, 1e7), np.arange(1e9, 2e9, 1e7)])
    assert found(other, "may be sample numbers")
    with pytest.raises(LimitError, match="at most 50000000 bins"):
        read(other, bin_s=0.001)
    bare = tmp_path / "bare.nwb"
    with new(bare) as file:
        units(file, [[], []])
    with pytest.raises(DataError, match="must have spikes; found none"):
        read(bare)
    assert describe(bare).suggestion == ""


# --- Epochs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epochs", "spans"),
    [
        ("sleep", [(0, 200)]),
        ("wake", [(200, 400), (500, 550)]),
        ("run", [(200, 400)]),
        ("trials", [(100, 120), (200, 250), (300, 310)]),
        ("trials:left", [(200, 250), (300, 310)]),
        ("trials:1", [(100, 120), (300, 310)]),
        ("intervals/trials:right", [(100, 120)]),
        ("epochs:run", [(200, 400)]),
        ("epochs", [(0, 400), (500, 550)]),
    ],
)
def test_epochs(path: Path, epochs: str, spans: list[tuple[int, int]]) -> None:
    x = with_epochs(path)
    r = read(path, epochs=epochs)
    rows = np.concatenate([np.arange(a, b) for a, b in spans])
    assert np.array_equal(r.activity, x[rows])
    ends = np.cumsum([b - a for a, b in spans])
    assert r.epochs[:, 1].tolist() == ends.tolist()
    assert noted(r, f"{len(spans)} stretches")


def test_epochs_that_hold_nothing(path: Path) -> None:
    with_epochs(path)
    for name in ("nap", "trials:up", "nap:x"):
        with pytest.raises(DataError, match="epochs"):
            read(path, epochs=name)


def test_epochs_of_units_start_bins(path: Path) -> None:
    trains = spiking(path)
    with h5py.File(path, "r+") as file:
        table(file, "intervals/runs", {"start_time": [10.03, 30.0], "stop_time": [12.0, 31.01]})
    r = read(path, bin_s=0.5, epochs="runs")
    assert r.times_s.tolist() == pytest.approx([10.28, 10.78, 11.28, 30.25, 30.75])
    assert r.epochs.tolist() == [[0, 3], [3, 5]]
    assert r.activity[3, 0] == ((trains[0] >= 30) & (trains[0] < 30.5)).sum()


def test_gaps_inside_epochs_stay_gaps(path: Path) -> None:
    t = np.arange(600) / 10
    t[300:] += 3
    with new(path) as file:
        traces(file, noise(600, 3), t, rois=3)
        table(file, "intervals/part", {"start_time": [20.0], "stop_time": [50.0]})
    assert read(path, epochs="part").epochs.tolist() == [[0, 100], [100, 270]]


def test_invalid_times_are_left_out(path: Path) -> None:
    x = with_epochs(path)
    with h5py.File(path, "r+") as file:
        table(
            file, "intervals/invalid_times", {"start_time": [5.0, 58.0], "stop_time": [6.0, 99.0]}
        )
    r = read(path)
    assert np.array_equal(r.activity, np.delete(x, np.r_[50:60, 580:600], axis=0))
    assert r.epochs.tolist() == [[0, 50], [50, 570]]
    assert noted(r, "invalid_times")


def test_algebra_of_intervals() -> None:
    rng = np.random.default_rng(2)
    grid = np.arange(0, 40) + 0.5
    for _ in range(100):
        a, b = (union(rng.integers(0, 40, (3, 2)).astype(float)) for _ in range(2))

        def held(spans: np.ndarray) -> np.ndarray:
            return np.array([any(s <= g < e for s, e in spans) for g in grid])

        assert np.array_equal(held(intersect(a, b)), held(a) & held(b))
        assert np.array_equal(held(without(a, b)), held(a) & ~held(b))
        assert (a[1:, 0] > a[:-1, 1]).all()


# --- Where units lie ------------------------------------------------------------------------------


def test_units_lie_where_their_column_or_their_electrodes_say(path: Path) -> None:
    spiking(path, location=["VISp", "VISp", "CA1", "", "CA1"])
    assert read(path).regions == ("VISp", "VISp", "CA1", "", "CA1")
    assert read(path, units="id > 1").regions == ("CA1", "", "CA1")
    spiking(path, peak_channel_id=[70, 50, 90, 50, 11])
    where = "general/extracellular_ephys/electrodes"
    with h5py.File(path, "r+") as file:
        table(file, where, {"location": ["CA1", "VISp", "LGd"]}, kind="DynamicTable")
        file[f"{where}/id"][...] = [90, 70, 50]
    assert read(path).regions == ("VISp", "LGd", "CA1", "LGd", "")


@pytest.mark.parametrize("location", [[1.0, 2.0, 3.0, 4.0, 5.0], ["", "", "", "", ""], None])
def test_units_lie_nowhere_where_no_word_says(path: Path, location: list[Any] | None) -> None:
    spiking(path, **({} if location is None else {"location": location}))
    assert read(path).regions == ()
