"""Real recordings, read and described, against facts taken from them by hand."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from grevy import nwb
from grevy.errors import DataError
from grevy.nwb import describe, describe_text, read, to_json
from nwb_files import noted

PARK = "park-openscope/park_openscope_layout.nwb"
HEAD = "nwb/A2929-200711_neurosuite.nwb"
SUITE2P = "nwb/2022_08_08.nwb"
HUMAN = "nwb/sub-4_ses-4_ecephys+image.nwb"


def test_park_is_transposed_and_has_one_timestamp_too_many(data_dir: Path) -> None:
    r = read(data_dir / PARK)
    assert r.activity.shape == (8704, 26)
    assert r.activity[:3, 0] == pytest.approx([1.42681923, 0.20751758, 0.89468852])
    assert r.activity[:3, 1] == pytest.approx([0.77968223, 0.83580302, 0.54027715])
    assert r.times_s[[0, 1, -1]].tolist() == [0.0, 0.0625, 543.9375]
    assert r.epochs.tolist() == [[0, 8704]]
    assert r.source == "processing/ophys/DfOverF/imaging_plane_1"
    assert noted(r, "(roi, time)")
    assert noted(r, "one timestamp too many")
    track = r.stimulus
    assert track is not None
    assert track.names == (*(f"movie_{i}" for i in range(1, 8)), "spontaneous")
    assert track.n_frames == (60,) * 7 + (1,)
    assert track.decodable == tuple(f"movie_{i}" for i in range(1, 8))
    assert np.bincount(track.blocks["stimulus"]).tolist() == [32] * 8
    first = np.searchsorted(r.times_s, 3.0)
    assert (track.index[first], track.frame[first], track.repeat[first]) == (0, 0, 0)


def test_park_describes_itself(data_dir: Path) -> None:
    d = describe(data_dir / PARK)
    (a,) = d.activity
    assert (a.kind, a.shape, a.orientation) == ("dff", (26, 8704), "roi first")
    assert (a.n_samples, a.n_channels, a.rate_hz) == (8704, 26, 16.0)
    assert [(s.name, s.n_rows, s.n_frames, s.n_repeats) for s in d.stimuli][::7] == [
        ("movie_1", 3840, 60, 32),
        ("spontaneous", 5760, 1, 32),
    ]
    assert (d.stimuli[0].start_s, d.stimuli[0].kind) == (3.0, "IndexSeries")
    assert any("8 stimulus templates have empty timestamps" in f for f in d.findings)
    assert any("order of the 7 stimuli is the same" in f for f in d.findings)
    assert d.suggestion == f"grevy run {data_dir / PARK}"


def test_suite2p_takes_accepted_cells_only(data_dir: Path) -> None:
    path = data_dir / SUITE2P
    r = read(path)
    assert (r.source, r.activity.shape) == ("processing/ophys/Deconvolved/Deconvolved", (2000, 20))
    with h5py.File(path) as file:
        keep = file["processing/ophys/ImageSegmentation/PlaneSegmentation/iscell"][:, 0] == 1
        stored = file["processing/ophys/Deconvolved/Deconvolved/data"][:]
    assert keep.sum() == 20
    assert np.array_equal(r.activity, stored[keep].T)
    assert r.channels == tuple(f"roi {i}" for i in np.flatnonzero(keep))
    assert r.rate_hz == pytest.approx(10.0)
    assert noted(r, "20 of 219 ROIs are accepted by PlaneSegmentation.iscell")
    assert noted(r, "not read", "Fluorescence/Fluorescence", "Neuropil/Neuropil")
    raw = read(path, series="/processing/ophys/Fluorescence/Fluorescence")
    assert raw.activity.shape == (2000, 20)
    assert noted(raw, "raw fluorescence")
    d = describe(path)
    assert [a.kind for a in d.activity] == ["deconvolved", "fluorescence", "neuropil"]
    assert {a.n_accepted for a in d.activity} == {20}
    assert d.behavior == d.stimuli == ()


def test_cnmfe_is_time_first(data_dir: Path) -> None:
    r = read(data_dir / "nwb/A0634-210127.nwb")
    assert r.activity.shape == (35743, 10)
    assert r.activity.min() == pytest.approx(-11.15689)
    assert r.activity.max() == pytest.approx(114.2713)
    assert r.times_s[[1, -1]].tolist() == [0.033333, 1191.4]
    assert describe(data_dir / "nwb/A0634-210127.nwb").activity[0].orientation == "time first"


def test_head_direction_of_thalamic_units(data_dir: Path) -> None:
    r = read(data_dir / HEAD, units="location == adn", bin_s=0.1, epochs="wake", labels=("ry",))
    assert r.activity.shape == (6000, 7)
    assert r.activity.dtype == np.float32
    assert r.times_s[[0, -1]] == pytest.approx([600.05, 1199.95])
    with h5py.File(data_dir / HEAD) as file:
        ends = np.append(0, file["units/spike_times_index"][:7])
        spikes = file["units/spike_times"][:]
        when, angle = (
            file[f"acquisition/CompassDirection/ry/{k}"][:] for k in ("timestamps", "data")
        )
    for unit in range(7):
        train = spikes[ends[unit] : ends[unit + 1]]
        assert r.activity[:, unit].sum() == ((train >= 600) & (train < 1200)).sum()
    ry = r.labels["ry"]
    assert (ry.kind, ry.unit, ry.period) == ("continuous", "radian", 2 * np.pi)
    assert np.array_equal(ry.mask, (r.times_s >= when[0]) & (r.times_s <= when[-1]))
    for i in np.flatnonzero(ry.mask)[10:5000:501]:
        inside = (when >= r.times_s[i] - 0.05) & (when < r.times_s[i] + 0.05)
        mean = np.angle(np.exp(1j * angle[inside]).mean()) % (2 * np.pi)
        assert ry.values[i] == pytest.approx(mean)
    assert noted(r, "7 of 15 units", "location == adn", "0.1 s")
    assert noted(r, "tagged 'wake'", "600 s")


def test_head_direction_file_describes_itself(data_dir: Path) -> None:
    d = describe(data_dir / HEAD)
    assert d.activity == ()
    assert d.units is not None
    assert (d.units.n_units, d.units.n_spikes, d.units.n_silent) == (15, 98794, 0)
    assert (d.units.start_s, d.units.stop_s) == (0.00845, 1199.96795)
    counts = {c.name: c.counts for c in d.units.columns}
    assert counts["location"] == (("ca1", 8), ("adn", 7))
    ry = next(b for b in d.behavior if b.path == "acquisition/CompassDirection/ry")
    assert (ry.shape, ry.unit, ry.circular) == ((63527,), "radian", True)
    assert ry.share == pytest.approx(0.441, abs=0.001)
    assert len(d.behavior) == 7
    tables = {t.path: t.n_rows for t in d.intervals}
    assert tables == {
        "intervals/epochs": 2,
        "intervals/position_time_support": 1,
        "intervals/sleep_ripples": 594,
        "intervals/sleep_ripples_timesupport": 1,
    }
    assert d.suggestion.endswith("--epochs wake --label ry")


def test_names_that_fit_nothing_or_too_much(data_dir: Path) -> None:
    with pytest.raises(DataError, match=r"Did you mean 'ry'\?.*acquisition/CompassDirection/rx"):
        read(data_dir / HEAD, labels=("ryy",))
    with pytest.raises(DataError, match=r"found 'region'. Columns: location, group, id"):
        read(data_dir / HEAD, units="region == adn")
    with pytest.raises(
        DataError, match=r"none of 15. In the file location is ca1 \(8\), adn \(7\)"
    ):
        read(data_dir / HEAD, units="location == VISp")
    with pytest.raises(DataError, match=r"Tags of the file: sleep, wake; tables: epochs"):
        read(data_dir / HEAD, epochs="awake")
    with pytest.raises(DataError, match=r"Traces: 'processing/ophys/Deconvolved/Deconvolved'"):
        read(data_dir / SUITE2P, series="processing/ophys/dff")


def test_cut_tables_are_refused_not_clipped(data_dir: Path) -> None:
    path = data_dir / "nwb/aibs.nwb"
    with pytest.raises(DataError, match=r"within the 10 values of 'spike_times'.*ends at 987786"):
        read(path)
    d = describe(path)
    assert d.suggestion == ""
    assert any(f.startswith("Nothing can be run") for f in d.findings)
    shown = {s.name: s for s in d.stimuli}
    assert len(shown) == 8
    assert (shown["natural_movie_one"].n_rows, shown["natural_movie_one"].n_frames) == (10, 10)
    assert shown["natural_scenes"].n_frames == 115
    assert shown["natural_movie_three"].start_s == pytest.approx(2210.60059414)
    assert shown["spontaneous"].n_frames == 0
    assert d.units is not None
    counts = {c.name: dict(c.counts) for c in d.units.columns}
    assert counts["quality"] == {"good": 9, "noise": 1}
    assert counts["location"] == {"": 7, "grey": 3}  # by peak_channel_id, which is no row number


def test_human_clips_of_three_tables(data_dir: Path) -> None:
    r = read(
        data_dir / HUMAN,
        units="location == hippocampus_right",
        labels=("encoding_table.stimCategory",),
    )
    assert r.n_channels == 25
    assert r.stimulus is not None
    assert len(r.stimulus.names) == 90 + 134 + 179
    assert r.stimulus.names[0] == "NB_24.mp4"
    assert "NB_24.mp4" in r.stimulus.reasons
    label = r.labels["encoding_table.stimCategory"]
    assert label.kind == "discrete"
    with h5py.File(data_dir / HUMAN) as file:
        rows = file["intervals/encoding_table"]
        begin, end, what = (rows[k][:] for k in ("start_time", "stop_time", "stimCategory"))
    inside = np.zeros(r.n_samples, bool)
    for a, b, c in zip(begin, end, what, strict=True):
        here = (r.times_s >= a) & (r.times_s < b)
        assert (label.values[here] == c).all()
        inside |= here
    assert np.array_equal(label.mask, inside)
    with pytest.raises(
        DataError, match=r"acquisition/events' must increase; found 6 repeated .*12 falling"
    ):
        read(data_dir / HUMAN, labels=("events",))


def test_old_file_with_one_unit(data_dir: Path) -> None:
    path = data_dir / "nwb/sub-anm369963_ses-20170228.nwb"
    r = read(path, labels=("trials.type",))
    assert r.n_channels == 1
    assert r.activity.sum() == pytest.approx(1679, abs=1)
    assert r.labels["trials.type"].names == ("lick left", "lick right")
    assert noted(r, "178 of 178 rows of 'intervals/trials' have no stop_time")
    d = describe(path)
    assert d.suggestion == ""
    assert d.file.nwb_version == "2.0.2"
    values = dict(d.intervals[0].values)
    assert values["type"] == (("lick left", 93), ("lick right", 85))


def test_worm_with_one_series_a_neuron(data_dir: Path) -> None:
    path = data_dir / "nwb/scholz-celegans.nwb"
    r = read(path, labels=("Tracked 2D position/ss_2D",))
    assert r.activity.shape == (2244, 62)
    assert len(r.epochs) == 8
    assert r.labels["Tracked 2D position/ss_2D"].values.shape == (2244, 2)
    with h5py.File(path) as file:
        assert np.array_equal(
            r.activity[:, 61], file["acquisition/Activity_0061/data"][:].astype(np.float32)
        )
        assert np.array_equal(
            r.labels["Tracked 2D position/ss_2D"].values,
            file["acquisition/Tracked 2D position/ss_2D/data"][:],
        )
    assert r.channels[61] == "Activity_0061"
    assert [b.path for b in describe(path).behavior] == ["acquisition/Tracked 2D position/ss_2D"]


REAL = [PARK, SUITE2P, "nwb/A0634-210127.nwb", HEAD, HUMAN, "nwb/scholz-celegans.nwb"]


@pytest.mark.parametrize("name", REAL)
def test_what_is_suggested_can_be_read(data_dir: Path, name: str) -> None:
    d = describe(data_dir / name)
    words = shlex.split(d.suggestion)
    assert words[:3] == ["grevy", "run", str(data_dir / name)]
    options = dict(zip(words[3::2], words[4::2], strict=True))
    labels = [options["--label"]] if "--label" in options else []
    r = read(
        words[2], epochs=options.get("--epochs"), series=options.get("--series"), labels=labels
    )
    assert r.n_channels >= 2
    assert all(label.mask.mean() > 0.05 for label in r.labels.values())
    assert json.loads(json.dumps(to_json(d), allow_nan=False))["suggestion"] == d.suggestion
    shown = describe_text(d)
    assert d.suggestion in shown
    assert max(len(line) for line in shown.splitlines() if "/" not in line) <= 100


def test_pynwb_reads_the_same(data_dir: Path) -> None:
    import warnings

    from pynwb import NWBHDF5IO

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with NWBHDF5IO(str(data_dir / HEAD), "r") as io:
            file = io.read()
            trains = [file.units["spike_times"][i] for i in range(len(file.units.id))]
            where = list(file.units["location"][:])
    r = read(data_dir / HEAD, units="location == ca1 and id != 9", bin_s=1.0)
    chosen = [
        t for i, (t, w) in enumerate(zip(trains, where, strict=True)) if w == "ca1" and i != 9
    ]
    begin = min(t.min() for t in chosen)
    for c, train in enumerate(chosen):
        expected = np.histogram(train, begin + np.arange(r.n_samples + 1))[0]
        assert np.array_equal(r.activity[:, c], expected)


def test_importing_is_light() -> None:
    heavy = ("h5py", "pynwb", "hdmf", "torch")
    code = f"import sys, grevy.nwb; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert set(nwb.__all__) >= {"describe", "read", "describe_text", "to_json", "Description"}


def test_simulated_session_reads_back(tmp_path: Path) -> None:
    from grevy.synthetic import openscope

    session = openscope(movies=3, n_repeats=3, n_frames=60, n_cells=5)
    file = nwb.write_openscope(tmp_path / "one.nwb", session)
    r = read(file, labels=("running_velocity",))
    assert np.array_equal(r.activity, session.activity.astype(np.float32))
    assert np.array_equal(r.times_s, session.times_s)
    assert noted(r, "(roi, time)")
    assert noted(r, "too many")
    assert r.stimulus is not None
    assert set(r.stimulus.names) == set(session.series)
    assert r.labels["running_velocity"].unit == "cm/s"
    assert describe(file).suggestion == f"grevy run {file} --behaviour running_velocity"
