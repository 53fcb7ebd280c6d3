"""Small NWB files with every trap in them, written with h5py alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from grevy import Recording
from grevy.nwb import describe

TRACES = "processing/ophys/DfOverF/plane"
SEGMENTATION = "processing/ophys/ImageSegmentation/PlaneSegmentation"


@contextmanager
def new(path: Path, version: str | None = "2.6.0") -> Iterator[h5py.File]:
    """An NWB file with nothing in it."""
    with h5py.File(path, "w") as file:
        if version is not None:
            file.attrs["nwb_version"] = version
        file.attrs["neurodata_type"] = "NWBFile"
        file["identifier"] = "made for a test"
        file["session_description"] = "nothing happened"
        file["session_start_time"] = "2020-01-01T00:00:00+00:00"
        for name in ("acquisition", "processing", "general", "stimulus/presentation"):
            file.create_group(name)
        yield file


def series(
    file: h5py.File,
    path: str,
    data: Any,
    times: Any = None,
    *,
    rate: float | None = None,
    start: float = 0.0,
    kind: str = "TimeSeries",
    unit: str = "a.u.",
    conversion: float = 1.0,
    offset: float = 0.0,
) -> h5py.Group:
    """A TimeSeries of some kind, with timestamps or a rate or neither."""
    group = file.create_group(path)
    group.attrs["neurodata_type"] = kind
    data = [s.encode() for s in data] if len(data) and isinstance(data[0], str) else data
    group["data"] = data
    group["data"].attrs.update({"unit": unit, "conversion": conversion, "offset": offset})
    if times is not None:
        group["timestamps"] = np.asarray(times, np.float64)
        group["timestamps"].attrs["unit"] = "seconds"
    if rate is not None:
        group["starting_time"] = start
        group["starting_time"].attrs["rate"] = rate
    return group


def traces(
    file: h5py.File,
    data: Any,
    times: Any = None,
    *,
    rois: int | None = None,
    columns: Mapping[str, Any] | None = None,
    path: str = TRACES,
    **how: Any,
) -> h5py.Group:
    """dF/F with a table of ROIs behind it."""
    group = series(file, path, data, times, kind="RoiResponseSeries", **how)
    group.parent.attrs["neurodata_type"] = path.split("/")[-2]
    if rois is not None:
        if SEGMENTATION not in file:
            table(file, SEGMENTATION, columns or {}, n=rois, kind="PlaneSegmentation")
        region = group.create_dataset("rois", data=np.arange(rois))
        region.attrs["neurodata_type"] = "DynamicTableRegion"
        region.attrs["table"] = file[SEGMENTATION].ref
    return group


def table(
    file: h5py.File,
    path: str,
    columns: Mapping[str, Any],
    *,
    ragged: Mapping[str, Sequence[Any]] | None = None,
    n: int | None = None,
    kind: str = "TimeIntervals",
) -> h5py.Group:
    """A DynamicTable; `ragged` columns have a list a row."""
    group = file.create_group(path)
    lists = dict(ragged or {})
    rows = n if n is not None else len(next(iter((columns or lists).values())))
    group.attrs["neurodata_type"] = kind
    group.attrs["colnames"] = np.array([*columns, *lists], dtype=h5py.string_dtype())
    group["id"] = np.arange(rows)
    for name, values in columns.items():
        group[name] = np.array(values, h5py.string_dtype()) if _words(values) else np.array(values)
    for name, each in lists.items():
        flat = [v for row in each for v in row]
        group[name] = np.array(flat, h5py.string_dtype()) if _words(flat) else np.array(flat)
        group[f"{name}_index"] = np.cumsum([len(row) for row in each])
    return group


def _words(values: Any) -> bool:
    return len(values) > 0 and isinstance(values[0], str)


def units(file: h5py.File, trains: Sequence[Any], **columns: Any) -> h5py.Group:
    """A units table; columns given as lists of arrays are ragged."""
    ragged: dict[str, Any] = {"spike_times": [np.asarray(t, np.float64) for t in trains]}
    if "obs_intervals" in columns:
        ragged["obs_intervals"] = columns.pop("obs_intervals")
    return table(file, "units", columns, ragged=ragged, n=len(trains), kind="Units")


def written(path: Path, data: Any, times: Any = None, **how: Any) -> Path:
    """A file with these traces and nothing else."""
    with new(path) as file:
        traces(file, data, times, **how)
    return path


def noise(n: int, cells: int) -> np.ndarray:
    """Traces that are the same for the same shape."""
    return np.random.default_rng(n * 1000 + cells).normal(size=(n, cells)).astype(np.float32)


def noted(recording: Recording, *words: str) -> bool:
    """Whether a note of the recording has all these words."""
    return any(all(w in note for w in words) for note in recording.notes)


def found(path: Path, *words: str) -> bool:
    """Whether a finding about the file has all these words."""
    return any(all(w in f for w in words) for f in describe(path).findings)


def with_epochs(path: Path) -> np.ndarray:
    """Sixty seconds of traces with a table of epochs and one of trials; the traces."""
    x = noise(600, 3)
    with new(path) as file:
        traces(file, x, np.arange(600) / 10, rois=3)
        times = {"start_time": [0.0, 20.0, 50.0], "stop_time": [20.0, 40.0, 55.0]}
        tags = [["sleep"], ["wake", "run"], ["wake"]]
        table(file, "intervals/epochs", times, ragged={"tags": tags})
        table(file, "intervals/trials", {
            "start_time": [30.0, 10.0, 20.0], "stop_time": [31.0, 12.0, 25.0],
            "choice": ["left", "right", "left"], "block": [1.0, 1.0, 2.0],
        })  # fmt: skip
    return x


def hanging(path: Path) -> Path:
    """A recording whose heap of strings lost its end to zeros: HDF5 2.0 walks it for ever."""
    written(path, noise(50, 3), np.arange(50) / 10, rois=3)
    raw = bytearray(path.read_bytes())
    at = raw.index(b"GCOL")
    size = int.from_bytes(raw[at + 8 : at + 16], "little")
    raw[at + 16 : at + size] = bytes(size - 16)
    path.write_bytes(raw)
    return path
