"""Recordings with one thing wrong: a command ends in one sentence, or what was done is told.

The sentence names the file, the object in it, what was found and what to do. Other tests of nwb say
what is read; here nothing wrong may pass without a word.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

import grevy.pipeline  # noqa: F401  (loaded before the first command is timed)
from grevy import cli, nwb
from nwb_files import TRACES, new, noise, series, table, traces, units

N, RATE = 60, 10.0
TIMES = np.arange(N) / RATE


def with_stimulus(file: h5py.File, name: str, times: np.ndarray, frames: np.ndarray) -> h5py.Group:
    """An IndexSeries with a template of ten frames."""
    shown = series(file, f"stimulus/presentation/{name}", frames, times, kind="IndexSeries")
    template = series(file, f"stimulus/templates/{name}", np.zeros((10, 2, 2), np.uint8), rate=1.0)
    shown["indexed_timeseries"] = h5py.SoftLink(template.name)
    return shown


def movie(file: h5py.File, **wrong: np.ndarray) -> h5py.Group:
    """Traces, and three repeats of ten frames."""
    traces(file, noise(N, 3), TIMES, rois=3)
    times = wrong.get("times", np.concatenate([s + np.arange(10) / RATE for s in (0.0, 2.0, 4.0)]))
    return with_stimulus(file, "movie", times, wrong.get("frames", np.tile(np.arange(10), 3)))


# --- Refused --------------------------------------------------------------------------------------


def empty_timestamps(file: h5py.File) -> None:
    traces(file, noise(N, 3), np.empty(0), rois=3)


def rate_that_is_none(file: h5py.File) -> None:
    traces(file, noise(N, 3), rate=float("nan"), rois=3)


def far_too_few_timestamps(file: h5py.File) -> None:
    traces(file, noise(N, 3), TIMES[:40], rois=3)


def square(file: h5py.File) -> None:
    traces(file, noise(N, N), TIMES, rois=N)


def repeated_timestamps(file: h5py.File) -> None:
    times = TIMES.copy()
    times[20] = times[19]
    traces(file, noise(N, 3), times, rois=3)


def falling_timestamps(file: h5py.File) -> None:
    traces(file, noise(N, 3), np.r_[TIMES[:30], TIMES[:30]], rois=3)


def timestamps_that_are_none(file: h5py.File) -> None:
    times = TIMES.copy()
    times[7] = np.nan
    traces(file, noise(N, 3), times, rois=3)


def nan_in_a_roi(file: h5py.File) -> None:
    x = noise(N, 3)
    x[10:12, 1] = np.nan
    traces(file, x, TIMES, rois=3)


def infinity_in_a_roi(file: h5py.File) -> None:
    x = noise(N, 3)
    x[10, 1] = np.inf
    traces(file, x, TIMES, rois=3)


def no_roi(file: h5py.File) -> None:
    traces(file, np.empty((N, 0), np.float32), TIMES, rois=0)


def one_sample(file: h5py.File) -> None:
    traces(file, noise(1, 3), TIMES[:1], rois=3)


def no_sample(file: h5py.File) -> None:
    traces(file, np.empty((0, 3), np.float32), np.empty(0), rois=3)


def no_activity(file: h5py.File) -> None:
    series(file, "acquisition/speed", np.ones(9), np.arange(9.0))


def no_spikes_at_all(file: h5py.File) -> None:
    units(file, [[], []])


def spike_times_that_are_none(file: h5py.File) -> None:
    units(file, [[1.0, 2.0, 3.0], [1.0, np.nan]])


def dangling_timestamps(file: h5py.File) -> None:
    traces(file, noise(N, 3), rois=3)["timestamps"] = h5py.SoftLink("/nowhere/timestamps")


REFUSED: dict[Callable[[h5py.File], None], str] = {
    empty_timestamps: rf"'.*{TRACES}",
    rate_that_is_none: rf"'.*{TRACES}.*timestamps, or a starting_time",
    far_too_few_timestamps: rf"'.*{TRACES}.*40",
    square: r"which axis .* is time; found shape \(60, 60\)",
    repeated_timestamps: rf"{TRACES}' must increase; found 1 repeated.*sample.*--times drop",
    falling_timestamps: rf"{TRACES}' must increase; found 1 falling.*--times drop",
    timestamps_that_are_none: rf"{TRACES}' must increase.*sample 7.*--times drop",
    nan_in_a_roi: rf"{TRACES}' must be finite; found 2 values .*sample 10, 1 s, roi 1.*--nan",
    infinity_in_a_roi: rf"{TRACES}' must be finite; found 1 values .*sample 10, 1 s, roi 1.*--nan",
    no_roi: rf"'.*{TRACES}",
    one_sample: rf"'.*{TRACES}",
    no_sample: rf"'.*{TRACES}",
    no_activity: r"traces of a population or sorted units; found neither.*series=",
    no_spikes_at_all: r"units.* must have spikes; found none",
    spike_times_that_are_none: r"1 that are not.*in unit 1",
    dangling_timestamps: rf"{TRACES}.*must have timestamps",
}


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_a_command_ends_in_one_sentence(
    make: Callable[[h5py.File], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(nwb, "refuse_hanging", lambda path, **_: None)  # test_fuzz.py has it
    path = tmp_path / "session.nwb"
    with new(path) as file:
        make(file)
    begin = time.monotonic()
    with pytest.raises(SystemExit) as left:
        cli.main(["run", str(path), "--steps", "5", "--out", str(tmp_path / "out")])
    assert time.monotonic() - begin < 5
    said = capsys.readouterr().err.strip().splitlines()
    assert left.value.code == 2
    assert said[-1].startswith("grevy: ")
    assert "session.nwb" in said[-1]
    assert re.search(REFUSED[make], said[-1]), said[-1]
    assert not any("Traceback" in line for line in said)
    assert not (tmp_path / "out" / "report.html").exists()


# --- Told -----------------------------------------------------------------------------------------


def transposed(file: h5py.File) -> None:
    traces(file, noise(N, 3).T, TIMES, rois=3)


def one_timestamp_too_many(file: h5py.File) -> None:
    traces(file, noise(N, 3), np.arange(N + 1) / RATE, rois=3)


def a_gap(file: h5py.File) -> None:
    traces(file, noise(N, 3), TIMES + 4 * (np.arange(N) > 29), rois=3)


def dropped_frames(file: h5py.File) -> None:
    traces(file, noise(N - 2, 3), np.delete(TIMES, [20, 40]), rois=3)


def a_constant_roi(file: h5py.File) -> None:
    x = noise(N, 3)
    x[:, 2] = 1
    traces(file, x, TIMES, rois=3)


def two_planes(file: h5py.File) -> None:
    for plane in ("one", "two"):
        traces(file, noise(N, 3), TIMES, path=f"processing/ophys/DfOverF/{plane}")


def no_template(file: h5py.File) -> None:
    shown = movie(file)
    del shown["indexed_timeseries"], file["stimulus/templates"]


def one_row_of_frames(file: h5py.File) -> None:
    movie(file, times=np.array([1.0]), frames=np.array([0]))


def stimuli_at_one_time(file: h5py.File) -> None:
    movie(file)
    times = file["stimulus/presentation/movie/timestamps"][:]
    with_stimulus(file, "other", times, np.tile(np.arange(10), 3))


def frames_beyond_the_template(file: h5py.File) -> None:
    movie(file, frames=np.tile(np.arange(10) + 5, 3))


def a_stimulus_after_the_end(file: h5py.File) -> None:
    movie(file, times=100 + np.arange(30) / RATE)


def a_unit_without_spikes(file: h5py.File) -> None:
    units(file, [np.arange(9.0), np.arange(9.0) + 0.5, []])


def spike_times_in_samples(file: h5py.File) -> None:
    units(file, [np.arange(1e9, 2e9, 1e7), np.arange(1e9, 2e9, 1e7)])


def observed_in_parts(file: h5py.File) -> None:
    seen = [[[0.0, 20.0], [30.0, 40.0]]] * 2
    units(file, [np.arange(0, 40, 0.7), np.arange(0, 40, 0.9)], obs_intervals=seen)


def invalid_times(file: h5py.File) -> None:
    traces(file, noise(N, 3), TIMES, rois=3)
    table(file, "intervals/invalid_times", {"start_time": [1.0], "stop_time": [2.0]})


TOLD: dict[Callable[[h5py.File], None], tuple[str, ...]] = {
    transposed: ("(roi, time)",),
    one_timestamp_too_many: ("one timestamp too many",),
    a_gap: ("1 gaps", "4.1 s"),
    dropped_frames: ("2 gaps", "0.2 s"),
    a_constant_roi: ("1 of 3 channels", "never change", "(2)"),
    two_planes: ("not read", "DfOverF/two"),
    no_template: ("presentation/movie'", "no template that is in the file"),
    one_row_of_frames: ("movie",),
    stimuli_at_one_time: ("movie", "other"),
    frames_beyond_the_template: ("frame 14 of a template with 10 frames",),
    a_stimulus_after_the_end: ("'movie'", "outside the recording"),
    a_unit_without_spikes: ("1 of 3 units have no spikes",),
    spike_times_in_samples: ("may be sample numbers",),
    observed_in_parts: ("observed", "of"),
    invalid_times: ("invalid_times", "left out"),
}


@pytest.mark.parametrize("make", TOLD, ids=lambda make: make.__name__)
def test_what_is_read_with_something_wrong_is_told(
    make: Callable[[h5py.File], None], tmp_path: Path
) -> None:
    path = tmp_path / "session.nwb"
    with new(path) as file:
        make(file)
    recording = nwb.read(path, **({"bin_s": 1e6} if make is spike_times_in_samples else {}))
    told = [*recording.notes, *nwb.describe(path).findings]
    assert any(all(w in line for w in TOLD[make]) for line in told), told
