"""What a run found, in a new NWB file: whole, valid, and the recording untouched."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import fake_results
import grevy
import nwb_files
from grevy import atomic, pipeline
from grevy.cli import main
from grevy.errors import (
    DataError,
    FormatError,
    GrevyError,
    LimitError,
    LockedError,
    UnsafeFileError,
)
from grevy.nwb import describe, export, export_results, write_openscope
from grevy.results import EmbeddingArrays, Results
from grevy.settings import read_config
from grevy.synthetic import openscope

QUICK = {
    "steps": 5, "search_steps": 5, "folds": 2, "latents": [3], "temperature": [1.0],
    "batch_size": 64, "seeds": 1, "surrogates": 0, "nulls": 19,
}  # fmt: skip
Found = tuple[Results, EmbeddingArrays]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small file with what a session says of itself, a series, and something to remark on."""
    from pynwb import NWBHDF5IO, NWBFile, TimeSeries
    from pynwb.file import Subject

    path = tmp_path_factory.mktemp("recording") / "r.nwb"
    file = NWBFile(
        session_description="a session", identifier="r-1", session_id="7", lab="ours",
        session_start_time=datetime(2020, 1, 2, 3, 4, tzinfo=UTC), institution="here",
        experimenter=["Doe, Jane", "Roe, R."], keywords=["a", "b"],
    )  # fmt: skip
    file.subject = Subject(subject_id="m1", species="Mus musculus", sex="F", age="P9D")
    times = np.arange(50) / 4
    wheel = TimeSeries(name="wheel", data=np.arange(50.0), unit="cm/s", timestamps=times)
    file.add_acquisition(wheel)
    with NWBHDF5IO(str(path), "w") as io:
        io.write(file)
    return path


@pytest.fixture(scope="module")
def movies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("movies") / "s.nwb"
    return write_openscope(path, openscope(movies=2, n_repeats=4, n_frames=30, n_cells=6))


@pytest.fixture(scope="module")
def found() -> Found:
    results, embedding = fake_results.movies()[0], fake_results.embedding(latents=3, per_repeat=2)
    jitter = np.random.default_rng(0).uniform(0, 1e-3, len(embedding.times_s))
    return results, replace(embedding, times_s=embedding.times_s + jitter)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pynwb's validator, which takes most of the time."""
    monkeypatch.setattr(export, "_faults", lambda _: set())


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A file as pynwb reads it."""
    from pynwb import NWBHDF5IO

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with NWBHDF5IO(str(path), "r") as io:
            yield io.read()


def faults(path: Path) -> list[str]:
    from pynwb import validate

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [str(e) for e in validate(path=str(path))]


def tree(path: Path) -> dict[str, Any]:
    """Every dataset and attribute of a file."""
    held: dict[str, Any] = {}

    def note(name: str, thing: Any) -> None:
        held.update({f"{name}@{k}": str(v) for k, v in thing.attrs.items() if k != "table"})
        if isinstance(thing, h5py.Dataset):
            held[name] = np.asarray(thing[()]).tobytes() if thing.dtype.kind != "O" else str(thing)

    with h5py.File(path) as file:
        file.visititems(note)
    return held


def test_what_is_written_is_read_back_by_pynwb(
    recording: Path, found: Found, tmp_path: Path
) -> None:
    results, embedding = found
    before = recording.read_bytes(), recording.stat().st_mtime_ns
    path = export_results(tmp_path / "new.nwb", recording, results, embedding, model="weights 00")
    assert (recording.read_bytes(), recording.stat().st_mtime_ns) == before
    assert list(tmp_path.iterdir()) == [path]
    assert not faults(path)
    with opened(path) as file:
        assert file.identifier == "r-1"
        series = file.processing["misc"]["grevy_embedding"]
        assert np.array_equal(series.data[:], embedding.values)
        assert np.array_equal(series.timestamps[:], embedding.times_s)
        assert '"weights 00"' in series.comments
        assert results.settings.items() <= json.loads(series.comments)["settings"].items()
        table = file.processing["misc"]["grevy_scores"].to_dataframe()
        scores, claims = table[table.row == "score"], table[table.row == "claim"]
        for kind, rows, ours in (
            ("target stimulus method metric unit value low high chance", scores, results.scores),
            ("stimulus unit p q", claims, results.claims),
        ):
            assert len(rows) == len(ours) > 0
            for name in kind.split():
                expected = [getattr(row, name) for row in ours]
                np.testing.assert_array_equal(rows[name].tolist(), expected, name)
        observed = [c.observed for c in results.claims]
        np.testing.assert_array_equal(claims.value.tolist(), observed)
        assert claims.remark.tolist() == [c.refused for c in results.claims]
    kept, new = tree(recording), tree(path)
    assert kept.items() <= new.items()
    assert all(k.startswith("processing/misc") for k in new.keys() - kept.keys())


def test_the_inspector_finds_nothing_new(recording: Path, found: Found, tmp_path: Path) -> None:
    inspector = pytest.importorskip("nwbinspector", reason="needs nwbinspector: not run")

    def said(path: Path) -> Counter[Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = list(inspector.inspect_nwbfile(nwbfile_path=str(path)))
        return Counter((m.check_function_name, m.message, str(m.location)) for m in found)

    results, embedding = found
    regular = replace(embedding, times_s=12.5 + np.arange(len(embedding.values)) / 30)
    path = export_results(tmp_path / "new.nwb", recording, results, regular)
    only = export_results(tmp_path / "only.nwb", recording, results, embedding, only=True)
    before = said(recording)
    assert before
    assert not said(path) - before
    assert not said(only) - before
    with opened(path) as file:
        series = file.processing["misc"]["grevy_embedding"]
        times = series.starting_time + np.arange(len(series.data)) / series.rate
        assert np.allclose(times, regular.times_s, rtol=0, atol=1e-9)


def test_results_alone_are_of_the_same_session(
    recording: Path, found: Found, tmp_path: Path
) -> None:
    path = export_results(tmp_path / "new.nwb", recording, *found, only=True)
    assert not faults(path)
    with opened(path) as new, opened(recording) as file:
        assert new.session_start_time == file.session_start_time
        assert new.subject.subject_id == file.subject.subject_id
        assert new.subject.age == file.subject.age
        assert (new.session_id, new.lab) == (file.session_id, file.lab) == ("7", "ours")
        assert tuple(new.experimenter) == tuple(file.experimenter)
        assert new.identifier.startswith(f"{file.identifier} grevy ")
        assert new.identifier != file.identifier
        assert np.array_equal(
            new.processing["misc"]["grevy_embedding"].data[:], found[1].values
        )  # fmt: skip
        assert list(new.processing) == ["misc"]
    assert path.stat().st_size < 1_000_000


@pytest.mark.usefixtures("unchecked")
def test_rows_completed_at_an_edge_are_marked(
    recording: Path, found: Found, tmp_path: Path
) -> None:
    results, embedding = found
    padded = np.arange(len(embedding.values)) % 5 == 0
    path = export_results(
        tmp_path / "new.nwb", recording, results, replace(embedding, padded=padded)
    )
    with opened(path) as file:
        series = file.processing["misc"]["grevy_embedding"]
        assert np.array_equal(series.control[:], padded)
        assert "completed" in series.control_description[1]


@pytest.mark.usefixtures("unchecked")
def test_strings_that_hdf5_or_a_terminal_dislike_are_harmless(
    recording: Path, found: Found, tmp_path: Path
) -> None:
    bad = "a\0b\x1b[31m\ud800\N{RIGHT-TO-LEFT OVERRIDE}../../x"
    results, embedding = found
    scores = tuple(replace(s, stimulus=bad, target=bad) for s in results.scores)
    session = replace(results.session, source=bad)
    path = export_results(
        tmp_path / "new.nwb", recording,
        replace(results, scores=scores, session=session, settings={bad: bad}), embedding,
    )  # fmt: skip
    with opened(path) as file:
        row = file.processing["misc"]["grevy_scores"].to_dataframe().stimulus.iloc[0]
    assert row == "a b [31m  ../../x"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("unchecked")
def test_an_embedding_in_a_file_is_no_behaviour(
    recording: Path, found: Found, tmp_path: Path
) -> None:
    path = export_results(tmp_path / "new.nwb", recording, *found)
    assert {b.path for b in describe(path).behavior} == {
        b.path for b in describe(recording).behavior
    }
    with pytest.raises(DataError, match=r"no results of grevy yet; found .*grevy_embedding"):
        export_results(tmp_path / "again.nwb", path, *found)
    assert list(tmp_path.iterdir()) == [path]


# --- Faults ---------------------------------------------------------------------------------------
def test_a_hostile_recording_is_refused_and_leaves_nothing(found: Found, tmp_path: Path) -> None:
    secret, bad, old = tmp_path / "secret", tmp_path / "bad.nwb", tmp_path / "old.nwb"
    secret.write_bytes(b"s" * 80)
    with nwb_files.new(bad) as file:
        file.create_dataset("acquisition/x", (10,), "f8", external=[(str(secret), 0, 80)])
    with nwb_files.new(old) as file:  # no pynwb makes anything of this
        file["acquisition/t/data"] = np.zeros(3)
        file["acquisition/t"].attrs.update({"neurodata_type": "Nothing", "namespace": "nowhere"})
    there = set(tmp_path.iterdir())
    for only in (False, True):
        with pytest.raises(UnsafeFileError, match="must hold its data itself"):
            export_results(tmp_path / "new.nwb", bad, *found, only=only)
    (tmp_path / "text.nwb").write_text("no recording")
    with pytest.raises(DataError, match=r"text\.nwb|HDF5"):
        export_results(tmp_path / "new.nwb", tmp_path / "text.nwb", *found)
    with pytest.raises(DataError, match=r"old\.nwb; found"):
        export_results(tmp_path / "new.nwb", old, *found)
    assert set(tmp_path.iterdir()) == there | {tmp_path / "text.nwb"}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS], ids=errno.errorcode.get)
@pytest.mark.parametrize(
    ("where", "name"),
    [(shutil, "copyfile"), (atomic.os, "fsync"), (atomic.os, "link"),
     (atomic.tempfile, "mkstemp")],
    ids=lambda v: v if isinstance(v, str) else "",
)  # fmt: skip
@pytest.mark.usefixtures("unchecked")
def test_a_disk_that_refuses_leaves_nothing(
    where: Any, name: str, code: int, recording: Path, found: Found, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(where, name, refuse)
    with pytest.raises(FormatError, match=f"cannot be written: {os.strerror(code)}"):
        export_results(tmp_path / "new.nwb", recording, *found)
    assert not list(tmp_path.iterdir())


def test_what_is_less_valid_than_the_recording_is_not_kept(
    recording: Path, found: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        export, "_faults", lambda p: {"old"} if p == recording else {"old", "new: is wrong"}
    )
    with pytest.raises(DataError, match=r"found 1 new faults, the first: new: is wrong.*--only"):
        export_results(tmp_path / "new.nwb", recording, *found)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("unchecked")
def test_two_exports_at_once_do_not_harm_one_another(
    recording: Path, found: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (tmp_path / f"{40 * 'a'}{end}.nwb" for end in "12")
    real = export._copy

    def while_we_write(origin: Path, part: Path, more: int) -> None:
        monkeypatch.setattr(export, "_copy", real)
        with pytest.raises(LockedError, match=rf"1\.nwb is in use by .*:{os.getpid()}; wait"):
            export_results(one, recording, *found)
        export_results(two, recording, *found)
        real(origin, part, more)

    monkeypatch.setattr(export, "_copy", while_we_write)
    export_results(one, recording, *found)
    assert set(tmp_path.iterdir()) == {one, two}
    assert len(tree(one)) == len(tree(two)) > 10


def test_what_takes_the_name_meanwhile_is_not_written_over(
    recording: Path, found: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new.nwb"
    monkeypatch.setattr(export, "_faults", lambda _: path.write_text("mine") and set())
    with pytest.raises(FormatError, match=r"new\.nwb exists and is not written over"):
        export_results(path, recording, *found)
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


class Free:
    """A disk that says that it has room."""

    free = 1 << 40


def test_a_full_disk(
    recording: Path, found: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    room = recording.stat().st_size // 2
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={room}", "none", str(disk)], capture_output=True
    ) if sys.platform == "linux" else None  # fmt: skip
    if made is None or made.returncode:
        pytest.skip("file systems cannot be mounted here: not run")
    try:
        with pytest.raises(LimitError, match="must have room for a copy"):
            export_results(disk / "new.nwb", recording, *found)
        (disk / "rest").write_bytes(bytes(room - (64 << 10)))
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Free())  # it fills up while we write
        with pytest.raises(FormatError, match="No space left on device"):
            export_results(disk / "new.nwb", recording, *found)
        with pytest.raises(FormatError, match="No space left on device"):
            export_results(disk / "new.nwb", recording, *found, only=True)
        assert [p.name for p in disk.iterdir()] == ["rest"]
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


KILLS = """
import os, random, signal, sys, time, warnings
warnings.simplefilter("ignore")
from pathlib import Path
import h5py, numpy, pynwb, hdmf.common
import fake_results
from grevy.nwb import export_results
source, target, kills = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
results, embedding = fake_results.minimal(), fake_results.embedding(latents=3, per_repeat=2)
def work():
    child = os.fork()
    if not child:
        try:
            export_results(target, source, results, embedding)
        finally:
            os._exit(0)
    return child
def whole():
    with h5py.File(target) as file:
        values = file["processing/misc/grevy_embedding/data"][()]
    assert numpy.array_equal(values, embedding.values), "not whole"
    target.unlink()
begin = time.monotonic()
os.waitpid(work(), 0)
took = time.monotonic() - begin
whole()
for i in range(kills):
    child = work()
    time.sleep(random.Random(i).uniform(0, took))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if target.exists():
        whole()
    left = [p for p in target.parent.iterdir() if p.suffix != ".lock"]
    assert len(left) <= 1, "parts pile up"
os.waitpid(work(), 0)
whole()
assert not list(target.parent.iterdir()), "a part is left behind"
print("whole every time")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here: not run")
def test_a_killed_export_leaves_no_half_file_under_its_name(
    recording: Path, tmp_path: Path
) -> None:
    tests = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", KILLS, str(recording), str(tmp_path / "new.nwb"), "3"],
        capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([tests, *sys.path])},
    )  # fmt: skip
    assert done.stdout.strip() == "whole every time", done.stdout + done.stderr


# --- The command ----------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def finished(movies: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    config = read_config({"file": str(movies), **QUICK})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "write_report", lambda out, *_: out / "report.html")
        pipeline.run_config(config, out, quiet=True)
    return out


def test_a_finished_run_becomes_a_file(
    finished: Path, movies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    main(["export", str(finished), "-q"])
    assert capsys.readouterr().out == "s-grevy.nwb\n"
    with np.load(finished / "embedding.npz") as arrays, opened(tmp_path / "s-grevy.nwb") as file:
        series = file.processing["misc"]["grevy_embedding"]
        assert np.array_equal(series.data[:], arrays["values"])
        assert grevy.load(finished / "model.safetensors").digest in series.comments
    whole = (tmp_path / "s-grevy.nwb").read_bytes()
    with pytest.raises(SystemExit) as left:
        main(["export", str(finished), "-q"])
    assert left.value.code == 2
    assert "s-grevy.nwb exists and is not written over" in capsys.readouterr().err
    assert (tmp_path / "s-grevy.nwb").read_bytes() == whole


def test_pynapple_reads_the_embedding(recording: Path, found: Found, tmp_path: Path) -> None:
    pynapple = pytest.importorskip("pynapple", reason="needs pynapple: not run")
    path = export_results(tmp_path / "new.nwb", recording, *found)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame = pynapple.load_file(str(path))["grevy_embedding"]
    assert np.array_equal(frame.values, found[1].values)
    assert np.allclose(frame.t, found[1].times_s, rtol=0, atol=1e-9)


def _without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (_without("results.json"), "results.json cannot be read"),
        (_without("embedding.npz"), "must hold an embedding.npz"),
        (_without("run.toml"), "run.toml cannot be read"),
        (_without("model.safetensors"), "model.safetensors"),
    ],
)
def test_a_folder_that_is_no_finished_run_is_refused(
    harm: Callable[[Path], None], says: str, finished: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(finished, tmp_path / "run")
    harm(folder)
    with pytest.raises(GrevyError, match=says):
        grevy.export(folder, tmp_path / "new.nwb")
    assert list(tmp_path.iterdir()) == [folder]


def test_only_the_recording_of_the_run_is_taken(
    finished: Path, movies: Path, tmp_path: Path
) -> None:
    other, gone = tmp_path / "other.nwb", tmp_path / "gone.nwb"
    write_openscope(other, openscope(1, movies=2, n_repeats=4, n_frames=30, n_cells=6))
    with pytest.raises(DataError, match=r"must be the recording that .* is about"):
        grevy.export(finished, tmp_path / "new.nwb", file=other)
    with pytest.raises(DataError, match=r"found no file .*gone\.nwb\. Say where it is \(--nwb\)"):
        grevy.export(finished, tmp_path / "new.nwb", file=gone)
    moved = shutil.copyfile(movies, tmp_path / "moved.nwb")
    path = grevy.export(finished, tmp_path / "new.nwb", file=moved, only=True)
    assert {p.name for p in tmp_path.iterdir()} == {"other.nwb", "moved.nwb", path.name}
