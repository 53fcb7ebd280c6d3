"""Mutated recordings and arbitrary arrays give a value or a GrevyError, never anything else."""

from __future__ import annotations

import io
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fuzz
import fuzz_files
from grevy import apart, cli, loading
from grevy.errors import DataError, GrevyError, LimitError
from grevy.nwb import describe, describe_apart, read, refuse_hanging
from grevy.recording import make_recording
from nwb_files import hanging, new, noise, series, table, traces, units, written

CASES = 500
"""In a run of CI; `make fuzz` runs thousands."""


def test_mutated_recordings_are_values_or_one_sentence(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    counts: Counter[str] = Counter()
    with fuzz.Worker(limit_s=2, patience_s=15) as worker:
        for number, path, options, what in fuzz.cases(tmp_path, seed=0, n=CASES, real=False):
            outcome = worker.look(path, options)
            assert not outcome.bad, f"case {number}, {what}: {outcome}"
            counts[outcome.kind] += 1
    assert min(counts["value"], counts["refused"]) > CASES / 10, counts
    ended = counts["apart"] + worker.patient  # by HDF5, or by the clock of a busy machine
    assert worker.starts <= 1 + ended < CASES / 20, "a process serves many cases"
    record_property("cases", CASES)


def test_a_case_is_made_again_from_its_number(tmp_path: Path) -> None:
    made: dict[int, list[Any]] = {}
    for first, n in ((0, 6), (4, 2)):
        (folder := tmp_path / str(first)).mkdir()
        for number, _, options, what in fuzz.cases(folder, seed=3, first=first, n=n, real=False):
            made.setdefault(number, []).append((what, options))
    assert made[4][0] == made[4][1] != made[5][0] == made[5][1]


def test_the_harness_notices(tmp_path: Path) -> None:
    """A worker whose reader does what it is told."""
    path = written(tmp_path / "fine.nwb", noise(20, 3), np.arange(20) / 10)
    with fuzz.Worker(limit_s=1, patience_s=4, target=disobey) as worker:
        for does, kind in (
            ("pass", "value"),
            ("raise ValueError('no sentence')", "traceback"),
            ("warnings.warn('shown', stacklevel=1)", "traceback"),
            ("bytearray(3 << 30)", "traceback"),
            ("os.kill(os.getpid(), signal.SIGSEGV)", "signal"),
            ("time.sleep(60)", "hang"),
        ):
            outcome = worker.look(path, {"does": does})
            assert (outcome.kind, outcome.bad) == (kind, kind != "value"), outcome
    assert worker.starts == 3  # the last time with more patience


def disobey(asked: Any) -> None:
    """`fuzz.serve` with another reader."""
    tools = {name: __import__(name) for name in ("os", "signal", "time", "warnings")}
    fuzz.look = lambda path, options: exec(options["does"], tools) or fuzz.Outcome("value")
    fuzz.serve(asked)


# --- Files that HDF5 loops or dies on -------------------------------------------------------------


def test_a_file_that_hdf5_hangs_on_is_one_sentence(tmp_path: Path) -> None:
    path = hanging(tmp_path / "zeros.nwb")
    for look in (describe_apart, refuse_hanging):
        begin = time.monotonic()
        with pytest.raises(DataError, match=r"zeros\.nwb must .* not come to an end in 1 s.*copy"):
            look(path, limit_s=1)
        assert time.monotonic() - begin < 30


@pytest.mark.parametrize("command", ["inspect", "run"])
def test_commands_do_not_hang(
    command: str, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(apart, "LIMIT_S", 1)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        cli.main([command, str(hanging(tmp_path / "zeros.nwb"))])
    assert left.value.code == 2
    assert "did not come to an end" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["zeros.nwb"]


def test_apart_is_the_same_description_or_the_same_error(tmp_path: Path) -> None:
    path = tmp_path / "imaging.nwb"
    fuzz_files.imaging(path)
    assert describe_apart(path) == describe(path)
    refuse_hanging(path)
    for bad in (tmp_path / "none.nwb", tmp_path):
        with pytest.raises(DataError) as here:
            describe(bad)
        with pytest.raises(DataError) as there:
            describe_apart(bad)
        assert str(here.value) == str(there.value)
    with new(tmp_path / "link.nwb") as file:
        file["x"] = h5py.ExternalLink("/etc/passwd", "x")
    with pytest.raises(GrevyError, match="points to the file '/etc/passwd'"):
        describe_apart(tmp_path / "link.nwb")


def test_the_child_imports_nothing_from_the_folder_it_is_in(tmp_path: Path) -> None:
    written(tmp_path / "x.nwb", noise(50, 3), np.arange(50) / 10)
    (tmp_path / "json.py").write_text("open('marker', 'w')")
    code = "from grevy.nwb import describe_apart; describe_apart('x.nwb')"
    subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, check=True)
    assert not (tmp_path / "marker").exists()


def test_other_files_that_hdf5_hangs_on_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = hanging(tmp_path / "zeros.nwb").rename(tmp_path / "zeros.h5")
    begin = time.monotonic()
    with pytest.raises(DataError, match=r"zeros\.h5 must .* not come to an end in 1 s.*copy"):
        loading.refuse_hanging(path, limit_s=1)
    monkeypatch.setattr(apart, "LIMIT_S", 1)
    with pytest.raises(SystemExit) as left:
        cli.main(["fit", str(path), "--out", str(tmp_path / "m")])
    assert left.value.code == 2
    assert "did not come to an end" in capsys.readouterr().err
    assert time.monotonic() - begin < 30
    assert [p.name for p in tmp_path.iterdir()] == ["zeros.h5"]


def test_whole_files_and_other_damage_are_left_to_their_reader(tmp_path: Path) -> None:
    written(tmp_path / "whole.h5", noise(50, 3), np.arange(50) / 10)
    (tmp_path / "cut.h5").write_bytes((tmp_path / "whole.h5").read_bytes()[:900])
    (tmp_path / "empty.csv").touch()
    with h5py.File(tmp_path / "bomb.h5", "w") as file:
        file.create_dataset("x", (1 << 40,), "f4", chunks=(1 << 16,))
    for name in ("whole.h5", "cut.h5", "empty.csv", "bomb.h5", "none.h5"):
        loading.refuse_hanging(tmp_path / name)


@pytest.mark.parametrize(
    ("does", "error", "says"),
    [
        ("os.kill(os.getpid(), 11)", DataError, "crashed .SIGSEGV. on it"),
        ("len(bytearray(1 << 40))", LimitError, "must be read within .* GB of memory"),
        ("sum(1 for _ in iter(int, 1))", DataError, "did not come to an end in 1 s"),
    ],
)
def test_limits_of_the_process_apart(
    does: str, error: type[Exception], says: str, tmp_path: Path
) -> None:
    (tmp_path / "x.h5").touch()
    child = f"import os; from grevy.apart import answer; answer(lambda path: {{'got': {does}}})"
    with pytest.raises(error, match=rf"x\.h5 .*{says}.*copy it again"):
        apart.ask(child, tmp_path / "x.h5", limit_s=1)
    fine = child.replace(does, "path")
    assert apart.ask(fine, tmp_path / "x.h5") == {"got": str(tmp_path / "x.h5")}


def test_what_a_process_apart_imports_is_no_part_of_its_limit(tmp_path: Path) -> None:
    (tmp_path / "x.h5").touch()
    child = (
        "import time\nwhile time.process_time() < 2.2: pass\n"
        "from grevy.apart import answer; answer(lambda path: {'got': 1})"
    )
    assert apart.ask(child, tmp_path / "x.h5", limit_s=1) == {"got": 1}


# --- What broke a reader once ---------------------------------------------------------------------


def complex_stops(file: h5py.File) -> None:
    table(file, "intervals/trials", {"start_time": np.arange(9.0), "stop_time": np.arange(9) + 1j})


def complex_clock(file: h5py.File) -> None:
    group = traces(file, noise(20, 3), np.arange(20.0), rois=3)
    del group["timestamps"]
    group["timestamps"] = np.arange(20) + 1j


def regions_that_are_none(file: h5py.File) -> None:
    group = traces(file, noise(20, 3), np.arange(20.0), rois=3)
    del group["rois"]
    group["rois"] = [0.0, float("nan"), 1e308]


def index_that_is_none(file: h5py.File) -> None:
    group = units(file, [np.arange(9.0), np.arange(9.0)])
    del group["spike_times_index"]
    group["spike_times_index"] = [float("nan"), float("inf")]


def hardly_a_rate(file: h5py.File) -> None:
    for i in range(6):
        series(file, f"acquisition/x{i:02}", noise(20, 1)[:, 0], rate=1e-308 if i else 1.0)


def huge_stamps(file: h5py.File) -> None:
    traces(file, noise(20, 3), np.arange(20.0), rois=3)
    series(file, "processing/behavior/x", noise(20, 1)[:, 0], np.tile([1e308, -1e308], 10))


def huge_angle(file: h5py.File) -> None:
    traces(file, noise(20, 3), np.arange(20.0), rois=3)
    angle = np.tile([1e308, -1e308], 10)
    series(file, "processing/behavior/x", angle, np.arange(20.0), unit="rad")


def huge_blocks(file: h5py.File) -> None:
    traces(file, noise(20, 3), np.arange(20.0), rois=3)
    table(file, "intervals/movie", {
        "start_time": np.arange(6.0), "stop_time": np.arange(6.0) + 1, "frame": np.arange(6),
        "stimulus_block": np.tile([1e308, -1e308], 3),
    })  # fmt: skip


def huge_starts(file: h5py.File) -> None:
    traces(file, noise(20, 3), np.arange(20.0), rois=3)
    times = {"start_time": [1e308, -1e308, 0.0], "stop_time": [1e308, 1e308, 1.0]}
    table(file, "intervals/movie", {**times, "frame": [0, 1, 2]})


def huge_spikes(file: h5py.File) -> None:
    units(file, [np.array([-1e308, 1e308]), np.arange(9.0)])


def complex_spikes(file: h5py.File) -> None:
    group = units(file, [np.arange(9.0), np.arange(9.0)])
    del group["spike_times"]
    group["spike_times"] = np.arange(18) + 1j


BROKE = (
    complex_stops, complex_clock, complex_spikes, regions_that_are_none, index_that_is_none,
    hardly_a_rate, huge_stamps, huge_angle, huge_blocks, huge_starts, huge_spikes,
)  # fmt: skip


@pytest.mark.parametrize("make", BROKE, ids=lambda make: make.__name__)
def test_what_broke_once(make: Any, tmp_path: Path) -> None:
    path = tmp_path / "session.nwb"
    with new(path) as file:
        make(file)
    options = {"labels": ["x"]} if "huge" in make.__name__ else {}
    for asked in ({}, options):  # warnings are errors here
        assert fuzz.look(str(path), asked).kind in fuzz.GOOD


# --- Arbitrary arrays -----------------------------------------------------------------------------


NUMBERS = st.one_of(
    hnp.floating_dtypes(), hnp.integer_dtypes(), hnp.unsigned_integer_dtypes(),
    hnp.complex_number_dtypes(), hnp.boolean_dtypes(), hnp.byte_string_dtypes(max_len=4),
)  # fmt: skip
ARRAYS = hnp.arrays(NUMBERS, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=6))
COLUMNS = hnp.arrays(NUMBERS, hnp.array_shapes(max_dims=1, min_side=0, max_side=6))
EXAMPLES = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


def read_in_memory(fill: Any) -> None:
    """Describe and read a file that never was on disk."""
    image = io.BytesIO()
    with new(image) as file:
        fill(file)
    for look in (describe, read):
        try:
            with h5py.File(image, "r") as file:
                look(file)
        except GrevyError:
            pass


@EXAMPLES
@given(data=ARRAYS, times=COLUMNS, rois=st.none() | st.integers(0, 6))
def test_any_arrays_may_be_traces(data: Any, times: Any, rois: int | None) -> None:
    def fill(file: h5py.File) -> None:
        group = traces(file, noise(2, 2), rois=rois)
        del group["data"]
        group["data"], group["timestamps"] = data, times

    read_in_memory(fill)


@EXAMPLES
@given(start=COLUMNS, stop=COLUMNS, spikes=COLUMNS, index=COLUMNS, values=ARRAYS)
def test_any_arrays_may_be_tables(
    start: Any, stop: Any, spikes: Any, index: Any, values: Any
) -> None:
    def fill(file: h5py.File) -> None:
        group = table(file, "units", {"quality": np.arange(len(index))}, kind="Units")
        group["spike_times"], group["spike_times_index"] = spikes, index
        rows = table(file, "intervals/trials", {"x": np.arange(len(start))})
        rows["start_time"], rows["stop_time"], rows["frame"] = start, stop, values
        series(file, "processing/behavior/x", [0.0, 1.0], rate=1.0)["timestamps"] = start

    read_in_memory(fill)


@EXAMPLES
@given(x=ARRAYS, times=st.none() | COLUMNS, rate=st.none() | st.floats())
def test_any_arrays_may_be_asked_to_be_a_recording(x: Any, times: Any, rate: float | None) -> None:
    clock = {} if times is None else {"times_s": times}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            recording = make_recording(x, **clock, **({} if rate is None else {"rate_hz": rate}))
        except GrevyError:
            return
    assert np.isfinite(recording.activity).all()
    assert (np.diff(recording.times_s) > 0).all()
