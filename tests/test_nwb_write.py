"""The simulated file has the layout of DANDI 000036, oddities included, and is written whole."""

from __future__ import annotations

import warnings
from pathlib import Path

import h5py
import numpy as np
import pynwb
import pytest

from grevy import synthetic
from grevy.errors import DataError
from grevy.nwb import write
from grevy.nwb.write import write_openscope
from grevy.stimulus import align, table_from_series
from grevy.synthetic import SimulatedSession, openscope

ROI = "processing/ophys/DfOverF/imaging_plane_1"


@pytest.fixture(scope="module")
def session() -> SimulatedSession:
    return openscope(movies=3, n_repeats=2, n_frames=60, n_cells=5)


@pytest.fixture(scope="module")
def path(session: SimulatedSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_openscope(tmp_path_factory.mktemp("nwb") / "one.nwb", session)


def test_layout(path: Path, session: SimulatedSession) -> None:
    n = len(session.times_s)
    with h5py.File(path) as file:
        assert file[f"{ROI}/data"].shape == (5, n)  # transposed
        assert np.array_equal(file[f"{ROI}/data"][:].T, session.activity)
        assert file[f"{ROI}/data"].attrs["unit"] == "NA"
        assert file[f"{ROI}/timestamps"].shape == (n + 1,)
        assert np.array_equal(file[f"{ROI}/timestamps"][:-1], session.times_s)
        assert file[f"{ROI}/timestamps"][-1] > session.times_s[-1]
        assert file[f"{ROI}/timestamps"].attrs["unit"] == "seconds"
        assert file[f"{ROI}/rois"].shape == (5,)
        running = file["processing/behavior/BehavioralTimeSeries/running_velocity"]
        assert len(running["data"]) == len(running["timestamps"]) - 1
        masks = file["processing/ophys/ImageSegmentation/PlaneSegmentation/image_mask"]
        assert masks.shape == (5, 512, 512)
        assert masks.dtype == np.uint8
        assert masks[:].any(axis=(1, 2)).all()
        assert "intervals" not in file
        assert "units" not in file
        assert list(file["stimulus/presentation"]) == list(session.series)
        for key, (times, frames) in session.series.items():
            shown = file[f"stimulus/presentation/{key}"]
            assert shown.attrs["neurodata_type"] == "IndexSeries"
            assert np.array_equal(shown["timestamps"][:], times)
            assert np.array_equal(shown["data"][:], frames)
            template = file[f"stimulus/templates/{key}"]
            assert shown["indexed_timeseries"] == template
            assert template.attrs["neurodata_type"] == "ImageSeries"
            assert template["timestamps"].shape == (0,)
            assert template["timestamps"].attrs["interval"] == 1
            assert np.array_equal(template["data"][:], session.templates[key])


def test_pynwb_reads_it_with_the_warnings_of_the_real_file(path: Path) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with pynwb.NWBHDF5IO(str(path), "r") as io:
            file = io.read()
            key = next(iter(file.stimulus))
            assert file.stimulus[key].indexed_timeseries is file.stimulus_template[key]
            n_templates = len(file.stimulus_template)
    # one for running, two for the traces, one for each template; 17 for the 14 of the real file
    assert len(said) == 3 + n_templates
    assert all("length" in str(one.message) for one in said)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert pynwb.validate(path=str(path)) == []


def test_it_reads_as_the_recording_it_was(path: Path, session: SimulatedSession) -> None:
    with h5py.File(path) as file:
        shown = file["stimulus/presentation"]
        series = {key: (one["timestamps"][:], one["data"][:]) for key, one in shown.items()}
        track = align(file[f"{ROI}/timestamps"][:-1], table_from_series(series))
    simulated = synthetic.as_recording(session).stimulus
    assert simulated is not None
    assert track.names == simulated.names
    assert np.array_equal(track.index, simulated.index)
    assert np.array_equal(track.frame, simulated.frame)
    assert np.array_equal(track.repeat, simulated.repeat)
    assert track.reasons == simulated.reasons


@pytest.mark.parametrize("dots", ["single", "none"])
def test_stimuli_without_timestamps_are_written(tmp_path: Path, dots: str) -> None:
    odd = openscope(movies=1, n_repeats=1, n_frames=30, n_cells=2, dots=dots)
    with h5py.File(write_openscope(tmp_path / "odd.nwb", odd)) as file:
        assert file["stimulus/presentation/dots/data"].shape == (int(dots == "single"),)


def contents(path: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}

    def take(name: str, node: h5py.Group | h5py.Dataset) -> None:
        if isinstance(node, h5py.Group) or name.startswith("specifications"):
            return
        value = node[()]
        plain = isinstance(value, np.ndarray) and value.dtype.kind != "O"
        found[name] = value.tobytes() if plain else repr(value).encode()

    with h5py.File(path) as file:
        file.visititems(take)
    return found


def test_equal_sessions_give_equal_files(
    path: Path, session: SimulatedSession, tmp_path: Path
) -> None:
    again = write_openscope(tmp_path / "two.nwb", session)
    assert contents(path) == contents(again)
    assert len(contents(path)) > 30


def test_a_file_is_written_over_only_when_asked(tmp_path: Path, session: SimulatedSession) -> None:
    target = tmp_path / "session.nwb"
    target.write_bytes(b"precious")
    with pytest.raises(DataError, match="overwrite=True"):
        write_openscope(target, session)
    assert target.read_bytes() == b"precious"
    assert write_openscope(target, session, overwrite=True) == target
    assert h5py.is_hdf5(target)
    assert list(tmp_path.iterdir()) == [target]
    with pytest.raises(DataError, match="folder of a new file must exist"):
        write_openscope(tmp_path / "none" / "session.nwb", session)
    with pytest.raises(DataError, match="not written over"):
        write_openscope(tmp_path, session, overwrite=True)


def test_a_failure_leaves_neither_a_part_nor_a_changed_file(
    tmp_path: Path, session: SimulatedSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "session.nwb"
    target.write_bytes(b"precious")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(write, "_bend", fail)
    with pytest.raises(OSError, match="disk full"):
        write_openscope(target, session, overwrite=True)
    assert target.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [target]
