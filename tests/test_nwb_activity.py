"""Traces: which axis is time, what is wrong with values and clocks, which cells and series."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from grevy.errors import ConfigError, DataError
from grevy.nwb import describe, describe_text, read
from grevy.nwb import files as nwb_files_module
from grevy.nwb.clock import axes, increasing
from nwb_files import (
    SEGMENTATION,
    TRACES,
    found,
    new,
    noise,
    noted,
    series,
    table,
    traces,
    units,
    written,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "session.nwb"


# --- Which axis is time ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "stamps", "rois", "expected"),
    [
        ((100, 5), 100, 5, (False, 100, 5)),
        ((5, 100), 100, 5, (True, 100, 5)),
        ((5, 100), 101, 5, (True, 100, 5)),  # DANDI 000036
        ((5, 100), 99, 5, (True, 99, 5)),
        ((100, 5), 101, None, (False, 100, 5)),
        ((100, 300), 100, 300, (False, 100, 300)),  # more cells than samples
        ((300, 100), 100, 300, (True, 100, 300)),
        ((300, 100), 100, None, (True, 100, 300)),
        ((50, 51), 51, 50, (True, 51, 50)),
        ((50, 51), 51, 51, (False, 50, 51)),
        ((51, 50), 51, 51, (True, 50, 51)),
        ((50, 52), 52, None, (True, 52, 50)),
        ((100, 5), None, 5, (False, 100, 5)),
        ((5, 100), None, 5, (True, 100, 5)),
        ((5, 100), None, None, (False, 5, 100)),  # nothing but the order that NWB asks for
        ((100,), 100, None, (False, 100, 1)),
        ((100, 5), 100, 7, (False, 100, 5)),
    ],
)
def test_axes(shape: Any, stamps: Any, rois: Any, expected: Any) -> None:
    a = axes("x", shape, stamps, rois)
    assert (a.roi_first, a.n_samples, a.n_channels) == expected
    assert a.orientation == ("roi first" if expected[0] else "time first")


@pytest.mark.parametrize(
    ("shape", "stamps", "rois"),
    [
        ((50, 50), 50, 50),
        ((50, 50), 50, None),
        ((50, 51), 51, None),
        ((50, 50), None, 50),
        ((100, 5), None, 7),
        ((100, 5), 60, 5),
        ((100, 5), 102, 5),
        ((100,), 90, None),
        ((0, 5), 0, 5),
        ((10, 5, 5), 10, 5),
    ],
)
def test_axes_that_nothing_decides_are_refused(shape: Any, stamps: Any, rois: Any) -> None:
    with pytest.raises(DataError, match="'x'"):
        axes("x", shape, stamps, rois)


def test_square_traces(path: Path) -> None:
    x = noise(40, 40)
    written(path, x, np.arange(40) / 10, rois=40)
    with pytest.raises(DataError, match=r"which axis of .* is time; found shape \(40, 40\)"):
        read(path)
    d = describe(path)
    assert d.suggestion == ""
    assert "cannot be read" in describe_text(d)


@pytest.mark.parametrize("extra", [-1, 0, 1])
@pytest.mark.parametrize("roi_first", [False, True])
def test_orientation_and_one_timestamp_off(path: Path, extra: int, roi_first: bool) -> None:
    x = noise(60, 4)
    written(path, x.T if roi_first else x, 5 + np.arange(60 + extra) / 10, rois=4)
    r = read(path)
    n = min(60, 60 + extra)
    assert np.array_equal(r.activity, x[:n])
    assert np.array_equal(r.times_s, 5 + np.arange(n) / 10)
    assert noted(r, "(roi, time)") == roi_first
    assert noted(r, "one timestamp too many") == (extra == 1)
    assert noted(r, "one timestamp too few") == (extra == -1)
    assert len(r.notes) == roi_first + (extra != 0)


def test_rate_conversion_and_offset(path: Path) -> None:
    x = np.arange(120, dtype=np.int16).reshape(40, 3)
    written(path, x, rois=3, rate=4.0, start=2.0, conversion=0.5, offset=-3.0, unit="percent")
    r = read(path)
    assert np.array_equal(r.activity, x * np.float32(0.5) - 3)
    assert np.array_equal(r.times_s, 2 + np.arange(40) / 4)
    assert r.activity_unit == "percent"


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32, np.uint8])
def test_number_types(path: Path, dtype: Any) -> None:
    x = np.arange(80).reshape(40, 2).astype(dtype)
    r = read(written(path, x, np.arange(40) / 10, rois=2))
    assert r.activity.dtype == np.float32
    assert np.array_equal(r.activity, x.astype(np.float32))


def test_blocks_of_a_matrix_are_put_together(path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(nwb_files_module, "BLOCK_BYTES", 100)
    x = noise(61, 7)
    assert np.array_equal(read(written(path, x, np.arange(61) / 10, rois=7)).activity, x)


def test_linked_timestamps(path: Path) -> None:
    with new(path) as file:
        series(file, "processing/ophys/Fluorescence/corrected", noise(50, 3), np.arange(50) / 7)
        group = traces(file, noise(50, 3), rois=3)
        group["timestamps"] = h5py.SoftLink("/processing/ophys/Fluorescence/corrected/timestamps")
    r = read(path)
    assert r.source == TRACES
    assert np.array_equal(r.times_s, np.arange(50) / 7)


def test_dangling_links_do_no_harm(path: Path) -> None:
    with new(path) as file:
        traces(file, noise(50, 3), np.arange(50) / 10, rois=3)
        file["processing/gone"] = h5py.SoftLink("/nowhere")
        file["processing/round"] = h5py.SoftLink("/processing")
    assert read(path).n_channels == 3
    assert describe(path).suggestion


@pytest.mark.parametrize("rate", [float("nan"), 0.0, -1.0, None])
def test_no_usable_clock(path: Path, rate: float | None) -> None:
    written(path, noise(50, 3), rois=3, rate=rate)
    with pytest.raises(DataError, match="must have timestamps, or a starting_time"):
        read(path)
    assert describe(path).suggestion == ""


# --- Values and timestamps that are wrong ---------------------------------------------------------


def test_nan_policies(path: Path) -> None:
    x = noise(60, 4)
    x[[10, 11, 30], 2] = np.nan
    x[40, 1] = np.inf
    written(path, x.T, np.arange(60) / 10, rois=4)
    with pytest.raises(DataError, match=r"found 4 values .* in 2 of 4 .*sample 10, 1 s, roi 2"):
        read(path)
    r = read(path, nan="drop-roi")
    assert r.channels == ("roi 0", "roi 3")
    assert np.array_equal(r.activity, x[:, [0, 3]])
    assert noted(r, "2 channels were dropped")
    r = read(path, nan="interpolate")
    assert r.activity[10, 2] == pytest.approx((2 * x[9, 2] + x[12, 2]) / 3, rel=1e-5)
    assert r.activity[40, 1] == pytest.approx((x[39, 1] + x[41, 1]) / 2, rel=1e-5)
    assert np.array_equal(r.activity[:, 0], x[:, 0])
    assert noted(r, "Interpolated", "4 values")
    assert found(path, "1 in 1, 3 in 2")
    assert "--nan drop-roi" in describe(path).suggestion


def test_samples_are_masked(path: Path) -> None:
    rng = np.random.default_rng()
    t = np.arange(90) / 10
    t[50:] += 3
    x = noise(90, 4)
    wrong = rng.random(90) < 0.6  # most, so that the usual step is over one that is left out
    wrong[[0, 1, 60, 61]] = [False, False, True, False]
    x[wrong, rng.integers(0, 4, wrong.sum())] = np.nan
    written(path, x, t, rois=4)
    r = read(path, nan="mask")
    assert np.array_equal(r.activity, x[~wrong])
    assert np.array_equal(r.times_s, t[~wrong])
    assert noted(r, f"{wrong.sum()} samples were left out", "first at sample")
    whole = [i for a, b in r.epochs for i in range(a, b - 1)]  # steps inside epochs
    kept = np.flatnonzero(~wrong)
    unbroken = [i for i in range(len(kept) - 1) if kept[i + 1] == kept[i] + 1 and kept[i] != 49]
    assert whole == unbroken
    with h5py.File(path, "r+") as file:
        table(file, "intervals/part", {"start_time": [2.0], "stop_time": [8.0]})
    part = read(path, nan="mask", epochs="part")
    inside = (t[kept] >= 2) & (t[kept] < 8)
    assert np.array_equal(part.activity, x[kept[inside]])
    assert len(part.epochs) == 1 + np.sum([i not in unbroken for i in np.flatnonzero(inside)[:-1]])


def test_a_mask_changes_nothing_of_whole_traces_and_refuses_what_it_leaves_nothing_of(
    path: Path, tmp_path: Path
) -> None:
    plain = read(written(path, noise(60, 3), np.arange(60) / 10, rois=3), nan="mask")
    assert plain.notes == read(path).notes
    assert plain.epochs.tolist() == [[0, 60]]
    x = noise(60, 2)
    x[1:, 0] = np.nan
    with pytest.raises(DataError, match=r"two samples of .* must be finite in all .*found 1, and"):
        read(written(tmp_path / "b.nwb", x, np.arange(60) / 10, rois=2), nan="mask")
    with pytest.raises(ConfigError, match="nan must be one of refuse, drop-roi, interpolate, mask"):
        read(path, nan="zero")  # type: ignore[arg-type]


def test_long_and_outer_gaps_are_not_interpolated(path: Path, tmp_path: Path) -> None:
    x = noise(60, 2)
    x[20:40, 0] = np.nan
    written(path, x, np.arange(60) / 10, rois=2)
    with pytest.raises(DataError, match=r"up to 1.0 s .* over 2.1 s in roi 0"):
        read(path, nan="interpolate")
    y = noise(60, 2)
    y[0, 1] = np.nan
    with pytest.raises(DataError, match="at an end in roi 1"):
        read(written(tmp_path / "b.nwb", y, np.arange(60) / 10, rois=2), nan="interpolate")
    z = np.full((60, 2), np.nan)
    with pytest.raises(DataError, match=r"some channel .* must be finite"):
        read(written(tmp_path / "c.nwb", z, np.arange(60) / 10, rois=2), nan="drop-roi")


def test_timestamps_that_do_not_increase(path: Path) -> None:
    t = np.arange(60) / 10
    t[20], t[30], t[40] = t[19], 1.0, np.nan
    x = noise(60, 2)
    written(path, x, t, rois=2)
    words = r"1 that are not finite \(the first at sample 40\), 1 repeated .*sample 19.*1 falling"
    with pytest.raises(DataError, match=words):
        read(path)
    r = read(path, times="drop")
    keep = np.setdiff1d(np.arange(60), [30, 40, 20])
    assert r.n_samples == 57
    assert np.isin(r.times_s, t[keep]).all()
    assert noted(r, "3 samples with wrong timestamps were dropped")
    assert found(path, "do not increase", "1 repeated")
    assert "--times drop" in describe(path).suggestion


def test_fewest_samples_are_dropped() -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        t = rng.integers(0, 12, rng.integers(1, 12)).astype(float)
        t[rng.random(len(t)) < 0.1] = np.nan
        kept = increasing(t)
        assert (np.diff(t[kept]) > 0).all()
        assert np.isfinite(t[kept]).all()
        best = 0
        for mask in range(1 << len(t)):
            some = t[[i for i in range(len(t)) if mask >> i & 1]]
            if np.isfinite(some).all() and (np.diff(some) > 0).all():
                best = max(best, len(some))
        assert len(kept) == best
    late = np.array([0.0, 1, 99, 2, 3, 4])
    assert increasing(late).tolist() == [0, 1, 3, 4, 5]


def test_gaps_and_constant_cells_are_remarked(path: Path) -> None:
    t = np.arange(60) / 10
    t[30:] += 4
    x = noise(60, 3)
    x[:, 1] = 2
    r = read(written(path, x, t, rois=3))
    assert r.epochs.tolist() == [[0, 30], [30, 60]]
    assert found(path, "1 gaps", "4.1 s")
    assert found(path, "1 of 3 channels", "never change", "(1)")


# --- Which traces, which cells --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("iscell", [[1, 0.9], [0, 0.8], [1, 0.1]]),
        ("Accepted", [1, 0, 1]),
        ("valid_roi", [True, False, True]),
    ],
)
def test_accepted_cells(path: Path, column: str, values: Any) -> None:
    x = noise(50, 3)
    r = read(written(path, x, np.arange(50) / 10, rois=3, columns={column: values}))
    assert np.array_equal(r.activity, x[:, [0, 2]])
    assert r.channels == ("roi 0", "roi 2")
    assert noted(r, "2 of 3 ROIs are accepted", column)


def test_no_cell_accepted(path: Path) -> None:
    written(path, noise(50, 3), np.arange(50) / 10, rois=3, columns={"iscell": np.zeros((3, 2))})
    with pytest.raises(DataError, match=r"some ROIs .* must be accepted; found none"):
        read(path)
    assert describe(path).suggestion == ""


def test_order_of_detection(path: Path) -> None:
    t = np.arange(50) / 10
    with new(path) as file:
        for where in (
            "processing/ophys/Fluorescence/raw",
            "processing/ophys/Fluorescence/neuropil_traces",
            "processing/ophys/Deconvolved/spikes",
            "processing/ophys/DfOverF/DfOverFEvents",
            "processing/ophys/Fluorescence/DfOverF",
            "processing/zeta/dff_timeseries/dff_timeseries",
        ):
            traces(file, noise(50, 3), t, path=where)
        units(file, [[1.0, 2.0, 3.0]] * 2)
        series(file, "acquisition/LFP", noise(50, 3), t, kind="ElectricalSeries")
    d = describe(path)
    assert [a.path.split("/", 2)[2] for a in d.activity] == [
        "Fluorescence/DfOverF",
        "dff_timeseries/dff_timeseries",
        "Deconvolved/spikes",
        "DfOverF/DfOverFEvents",
        "Fluorescence/raw",
        "Fluorescence/neuropil_traces",
    ]
    r = read(path)
    assert r.source == "processing/ophys/Fluorescence/DfOverF"
    assert noted(r, "not read", "zeta/dff_timeseries", "'units'", "neuropil_traces")
    assert read(path, bin_s=0.5).source == "units"
    assert read(path, units="id == 1").channels == ("unit 1",)
    assert read(path, series="acquisition/LFP").n_channels == 3
    assert read(path, series="acquisition/LFP/data").n_channels == 3
    with pytest.raises(ConfigError, match="give only one"):
        read(path, series="acquisition/LFP", bin_s=0.1)


def test_nothing_to_read(path: Path) -> None:
    with new(path) as file:
        series(file, "acquisition/speed", np.ones(9), np.arange(9.0))
    with pytest.raises(DataError, match="found neither"):
        read(path)
    with pytest.raises(DataError, match="need a units table"):
        read(path, bin_s=0.1)
    d = describe(path)
    assert d.suggestion == ""
    assert any("holds neither traces of a population nor sorted units" in f for f in d.findings)


def test_series_of_neurons_on_different_clocks(path: Path) -> None:
    t = np.arange(50) / 10
    with new(path) as file:
        for i in range(6):
            series(file, f"acquisition/cell_{i}", noise(50, 1)[:, 0], t + (i == 4) * 1e-3)
    with pytest.raises(DataError, match="share one clock; found that '/acquisition/cell_4'"):
        read(path)


# --- Where channels lie ---------------------------------------------------------------------------


def plane(file: h5py.File, name: str, location: Any, segmentation: str = SEGMENTATION) -> None:
    """An imaging plane, and the table of ROIs that lies in it."""
    group = file.create_group(f"general/optophysiology/{name}")
    group.attrs["neurodata_type"] = "ImagingPlane"
    group["location"] = location
    file[f"{segmentation}/imaging_plane"] = h5py.SoftLink(group.name)


def test_rois_lie_in_the_imaging_plane_of_their_own_table(path: Path) -> None:
    with new(path) as file:
        traces(file, noise(50, 3), np.arange(50) / 10, rois=3)
        plane(file, "first", "VISp")
        other = f"{SEGMENTATION}2"
        table(file, other, {}, n=4, kind="PlaneSegmentation")
        plane(file, "second", b"VISl, 175 um", other)
        second = traces(file, noise(50, 4), np.arange(50) / 10, rois=4, path=f"{TRACES}2")
        second["rois"].attrs["table"] = file[other].ref
    assert read(path, series=TRACES).regions == ("VISp",) * 3
    assert read(path, series=f"{TRACES}2").regions == ("VISl, 175 um",) * 4


def test_regions_stay_with_their_channels(path: Path) -> None:
    """Through the rows of the table, what is accepted, dropped channels and chosen epochs."""
    x = noise(60, 5)
    x[3, 1] = np.nan
    columns = {"location": ["a", "b", "c", "d", "e", "f"], "accepted": [1, 1, 0, 1, 1, 1]}
    with new(path) as file:
        group = traces(file, x, np.arange(60) / 10, rois=6, columns=columns)
        plane(file, "first", "not asked: the rows say more")
        del group["rois"]
        group["rois"] = np.array([5, 0, 2, 1, 3])
        group["rois"].attrs["table"] = file[SEGMENTATION].ref
        table(file, "intervals/epochs", {"start_time": [1.0], "stop_time": [5.0]},
              ragged={"tags": [["wake"]]})  # fmt: skip
    r = read(path, nan="drop-roi", epochs="wake")
    assert r.regions == ("f", "b", "d")
    assert np.array_equal(r.activity, x[10:50][:, [0, 3, 4]])
    assert read(path, nan="interpolate").regions == ("f", "a", "b", "d")


@pytest.mark.parametrize("location", ["", 3.0, np.arange(3), ["VISp", "CA1"], h5py.Empty("f")])
def test_a_location_that_is_no_word_is_none(path: Path, location: Any) -> None:
    with new(path) as file:
        traces(file, noise(50, 3), np.arange(50) / 10, rois=3)
        plane(file, "first", location)
    assert read(path).regions == ()


def test_a_plane_that_is_gone_or_a_group_is_none(path: Path) -> None:
    with new(path) as file:
        traces(file, noise(50, 3), np.arange(50) / 10, rois=3)
        file[f"{SEGMENTATION}/imaging_plane"] = h5py.SoftLink("/nowhere")
    assert read(path).regions == ()
    with h5py.File(path, "r+") as file:
        file.create_group("nowhere/location")
    assert read(path).regions == ()
