"""Recordings to mutate: one of each layout, small, and what to ask of each."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from grevy.nwb import write_openscope
from grevy.synthetic import openscope
from nwb_files import new, noise, series, table, traces, units

SMALL_BYTES = 1 << 20
"""Real recordings up to this size are mutated too."""


def movies(path: Path) -> None:
    """Written by grevy in the layout of DANDI 000036."""
    write_openscope(path, openscope(movies=2, n_repeats=2, n_frames=20, n_cells=4))


def imaging(path: Path) -> None:
    """Traces of accepted ROIs, behaviour, epochs with tags, trials, invalid times."""
    rng = np.random.default_rng(0)
    when = np.arange(300) / 10
    with new(path) as file:
        accepted = {"iscell": np.array([[1, 0.9], [1, 0.8], [0, 0.1], [1, 0.7]])}
        x = noise(300, 4)
        x[5, 1] = np.nan
        traces(file, x, when, rois=4, columns=accepted, unit="dF/F")
        angle = rng.uniform(0, 6, 600)
        series(file, "processing/behavior/Compass/angle", angle, np.arange(600) / 20, unit="rad")
        series(file, "processing/behavior/Position/xy", noise(300, 2), rate=10.0, conversion=0.01)
        series(file, "acquisition/licks", rng.integers(0, 3, 300), when, kind="TimeSeries")
        series(file, "acquisition/states", ["rest", "run"] * 150, when)
        table(file, "intervals/trials", {
            "start_time": np.arange(12.0) * 2, "stop_time": np.arange(12.0) * 2 + 1,
            "choice": ["left", "right"] * 6, "score": rng.normal(size=12),
        })  # fmt: skip
        tags = [["sleep"], ["wake", "run"]]
        times = {"start_time": [0.0, 10.0], "stop_time": [10.0, 30.0]}
        table(file, "intervals/epochs", times, ragged={"tags": tags})
        table(file, "intervals/invalid_times", {"start_time": [29.0], "stop_time": [29.5]})
        file["general/subject/subject_id"] = "mouse 1"


def spikes(path: Path) -> None:
    """Sorted units with electrodes and observed time, a table of movie frames."""
    rng = np.random.default_rng(1)
    trains = [np.sort(rng.uniform(0, 30, 20 * (i + 1))) for i in range(4)]
    with new(path) as file:
        places = {"location": ["ca1", "ca1", "adn", "adn"], "x": np.arange(4.0)}
        electrodes = table(file, "general/extracellular_ephys/electrodes", places)
        group = units(
            file, trains, snr=np.array([1.0, 3.0, 4.0, 5.0]), quality=["good"] * 3 + ["noise"],
            obs_intervals=[[[0.0, 30.0]]] * 4,
        )  # fmt: skip
        group["electrodes"] = np.arange(4)
        group["electrodes"].attrs["table"] = electrodes.ref
        group["electrodes"].attrs["neurodata_type"] = "DynamicTableRegion"
        group["electrodes_index"] = np.arange(1, 5)
        table(file, "intervals/movie_presentations", {
            "start_time": np.arange(60) / 4, "stop_time": np.arange(60) / 4 + 0.25,
            "frame": np.tile(np.arange(20), 3), "stimulus_block": np.repeat(np.arange(3.0), 20),
            "stimulus_name": ["movie"] * 60,
        })  # fmt: skip


def neurons(path: Path) -> None:
    """One series a neuron, on a rate."""
    with new(path) as file:
        for i in range(6):
            series(file, f"acquisition/Activity_{i:04}", noise(200, 1)[:, 0] + i, rate=6.0)


def pictures(path: Path) -> None:
    """Traces and an IndexSeries that points to its template."""
    with new(path) as file:
        traces(file, noise(200, 3), rate=10.0, rois=3)
        template = series(file, "stimulus/templates/clip", np.zeros((10, 2, 2), np.uint8))
        shown = series(
            file, "stimulus/presentation/clip", np.tile(np.arange(10), 3), np.arange(30) / 5,
            kind="IndexSeries",
        )  # fmt: skip
        shown["indexed_timeseries"] = h5py.SoftLink(template.name)


SEEDS: Mapping[str, tuple[Callable[[Path], None], dict[str, Any]]] = {
    "movies": (movies, {"labels": ["running_velocity"]}),
    "imaging": (imaging, {"labels": ["angle", "trials.choice", "licks"], "epochs": "wake",
                          "nan": "interpolate", "times": "drop"}),
    "spikes": (spikes, {"units": "location == ca1 and snr > 2", "bin_s": 0.1}),
    "neurons": (neurons, {"nan": "drop-roi", "times": "drop"}),
    "pictures": (pictures, {"stimuli": ["clip"], "series": "processing/ophys/DfOverF/plane",
                            "nan": "mask"}),
}  # fmt: skip
"""What writes a recording, and options of `read` that reach further into it than the default."""


def seeds(folder: Path, *, real: bool = True) -> list[tuple[Path, dict[str, Any]]]:
    """The recordings written into a folder, and the small real ones of GREVY_DATA."""
    made = []
    for name, (write, options) in SEEDS.items():
        path = folder / f"{name}.nwb"
        write(path)
        made.append((path, options))
    there = os.environ.get("GREVY_DATA", "") if real else ""
    found = sorted((Path(there) / "nwb").glob("*.nwb")) if there else []
    return made + [(p, {}) for p in found if p.stat().st_size <= SMALL_BYTES]
