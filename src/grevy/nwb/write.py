"""Write NWB files: a simulated session in the layout of DANDI 000036, its oddities included."""

from __future__ import annotations

import os
import warnings
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..atomic import make_atomic
from ..errors import DataError

if TYPE_CHECKING:
    from ..movie_session import SimulatedSession

__all__ = ["write_openscope"]

_PLANE = "processing/ophys/DfOverF/imaging_plane_1"
_RUNNING = "processing/behavior/BehavioralTimeSeries/running_velocity"
_STARTED = datetime(2018, 7, 5, 15, 29, 8, 784000, tzinfo=timezone(timedelta(hours=-7)))
_WRITTEN = datetime(2020, 8, 18, 19, 12, 14, 330018, tzinfo=UTC)


def write_openscope(
    path: str | os.PathLike[str], session: SimulatedSession, *, overwrite: bool = False
) -> Path:
    """Write a simulated session as an NWB file laid out as those of DANDI 000036.

    Parameters
    ----------
    path : path
        Where to; its folder must exist.
    session : SimulatedSession
        As `synthetic.openscope` makes it.
    overwrite : bool
        Whether to replace a file that is already there.

    Returns
    -------
    Path
        Of the file written.

    Raises
    ------
    DataError
        If the file exists and `overwrite` is not set, or the folder does not exist.

    Notes
    -----
    The oddities of the real files are kept, for readers to prove themselves on: dF/F lies
    (cell, time), with one timestamp more than samples; running speed has one sample fewer than
    timestamps; templates have no timestamps; frames are IndexSeries that point to an ImageSeries.
    pynwb writes a valid file first, h5py then bends it. The file appears under its name only when
    it is complete and on disk. Equal sessions give equal files but for pynwb's object ids.
    """
    target = Path(path)
    _check(target, overwrite)
    with make_atomic(target) as part:
        _write_valid(part, session)
        _bend(part, session)
        _check(target, overwrite)
    return target


def _check(target: Path, overwrite: bool) -> None:
    if not target.parent.is_dir():
        raise DataError(
            f"the folder of a new file must exist; found none at {target.parent}. Make it first."
        )
    if target.is_dir() or (target.exists() and not overwrite):
        raise DataError(
            f"a file is not written over unasked; found {target}. Choose another name, or set "
            f"overwrite=True."
        )


def _write_valid(path: Path, session: SimulatedSession) -> None:
    from pynwb import NWBHDF5IO, NWBFile
    from pynwb.file import Subject

    file = NWBFile(
        session_description="Simulated session in the layout of DANDI 000036 (Allen OpenScope)",
        identifier=f"grevy-openscope-{session.seed}",
        session_start_time=_STARTED,
        file_create_date=_WRITTEN,
        source_script=f"grevy.synthetic.openscope(seed={session.seed})",
        source_script_file_name="grevy",
    )
    file.subject = Subject(
        subject_id="simulated", species="Mus musculus", sex="M", age="P109D", description="none"
    )
    _add_activity(file, session)
    _add_running(file, session)
    for key in session.series:
        _add_stimulus(file, session, key)
    with NWBHDF5IO(str(path), "w") as io:
        io.write(file)


def _add_activity(file: Any, session: SimulatedSession) -> None:
    from hdmf.backends.hdf5 import H5DataIO
    from hdmf.common import DynamicTableRegion, VectorData
    from pynwb.ophys import (
        DfOverF,
        ImageSegmentation,
        OpticalChannel,
        PlaneSegmentation,
        RoiResponseSeries,
    )

    n_cells = session.activity.shape[1]
    plane = file.create_imaging_plane(
        name="imaging_plane_1",
        description="simulated plane",
        optical_channel=OpticalChannel(
            name="optical_channel", description="GCaMP emission", emission_lambda=520.0
        ),
        device=file.create_device(
            name="2p_microscope", description="Allen Institute two-photon pipeline: CAM2P.1"
        ),
        excitation_lambda=910.0,
        imaging_rate=30.0,
        indicator="GCaMP6f",
        location="VISl",
    )
    module = file.create_processing_module(
        name="ophys", description="OpenScope processing pipeline"
    )
    masks = H5DataIO(_masks(n_cells), compression="gzip", chunks=(1, 512, 512))
    cells = PlaneSegmentation(
        name="PlaneSegmentation",
        description="segmented cells",
        imaging_plane=plane,
        id=np.arange(n_cells, dtype=np.int32),
        columns=[VectorData(name="image_mask", description="pixels of each cell", data=masks)],
    )
    module.add(ImageSegmentation(plane_segmentations=cells))
    rois = DynamicTableRegion(
        name="rois",
        data=np.arange(n_cells, dtype=np.int32),
        description="segmented cells with cell_specimen_ids",
        table=cells,
    )
    traces = RoiResponseSeries(
        name="imaging_plane_1",
        data=session.activity,
        unit="NA",
        rois=rois,
        timestamps=session.times_s,
    )
    fluorescence = DfOverF()
    module.add(fluorescence)
    fluorescence.add_roi_response_series(traces)  # last, so that its cells are already in the file


def _masks(n_cells: int, size: int = 512) -> NDArray[np.uint8]:
    """Discs on a grid, one a cell, shape (n_cells, size, size)."""
    side = int(np.ceil(np.sqrt(n_cells)))
    rows, columns = np.ogrid[:size, :size]
    reach = min(6.0, 0.4 * size / side) ** 2
    masks = np.zeros((n_cells, size, size), np.uint8)
    for i in range(n_cells):
        row, column = (i // side + 0.5) * size / side, (i % side + 0.5) * size / side
        masks[i] = (rows - row) ** 2 + (columns - column) ** 2 <= reach
    return masks


def _add_running(file: Any, session: SimulatedSession) -> None:
    from pynwb import TimeSeries
    from pynwb.behavior import BehavioralTimeSeries

    running = TimeSeries(
        name="running_velocity",
        data=session.running_cm_s,
        unit="cm/s",
        timestamps=session.running_times_s,
        description="Velocity of the mouse on a rotating wheel",
    )
    module = file.create_processing_module(
        name="behavior", description="preprocessed behavioral data"
    )
    module.add(BehavioralTimeSeries(time_series=running))


def _add_stimulus(file: Any, session: SimulatedSession, key: str) -> None:
    from pynwb.image import ImageSeries, IndexSeries

    pictures = session.templates[key]
    template = ImageSeries(
        name=key,
        data=pictures,
        unit="NA",
        format="raw",
        timestamps=np.arange(len(pictures), dtype=np.float64),
    )
    file.add_stimulus_template(template)
    times, frames = session.series[key]
    # pynwb no longer makes this kind of IndexSeries, but writes one that looks as if it was read.
    shown = IndexSeries.__new__(IndexSeries, in_construct_mode=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*indexed_timeseries")
        shown.__init__(
            name=key,
            data=frames.astype(np.uint32),
            unit="N/A",
            timestamps=times,
            indexed_timeseries=template,
        )
    shown._in_construct_mode = False
    file.add_stimulus(shown)


def _bend(path: Path, session: SimulatedSession) -> None:
    """Give the valid file the shapes that the real ones have."""
    import h5py

    times = session.times_s
    one_more = np.append(times, round(float(2 * times[-1] - times[-2]), 5))
    with h5py.File(path, "r+") as file:
        _replace(file, f"{_PLANE}/data", session.activity.T)
        _replace(file, f"{_PLANE}/timestamps", one_more)
        _replace(file, f"{_RUNNING}/data", session.running_cm_s[:-1])
        for key in session.templates:
            _replace(file, f"stimulus/templates/{key}/timestamps", np.empty(0))


def _replace(file: Any, name: str, values: NDArray[np.generic]) -> None:
    """Put other values in the place of a dataset, with its attributes."""
    attributes = dict(file[name].attrs)
    del file[name]
    dataset = file.create_dataset(name, data=values)
    for key, value in attributes.items():
        dataset.attrs[key] = value
