"""Files that are none, are damaged, point outside themselves, lie about their size, or shout."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import fuzz
from grevy import cli, room
from grevy.errors import ConfigError, DataError, GrevyError, LimitError, UnsafeFileError
from grevy.nwb import describe, describe_text, read, to_json
from grevy.nwb import files as nwb_files_module
from grevy.opening import open_recording
from grevy.settings import read_config
from nwb_files import new, noise, series, table, traces, units, written


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "session.nwb"


# --- What is no NWB 2 file ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("aibs_ecephys_noversion.nwb", r"no version .attribute nwb_version"),
        ("allen_652989705_truncated.nwb", "truncated file.*cut short: download"),
        ("allen_celltypes_496908818s_nwb1.nwb", "found version 'NWB-1.0.5'.*convert"),
    ],
)
def test_real_files_that_must_fail(data_dir: Path, name: str, words: str) -> None:
    for look in (read, describe):
        with pytest.raises(DataError, match=words) as caught:
            look(data_dir / "nwb-negative" / name)
        assert name in str(caught.value)


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    (tmp_path / "other.nwb").touch()
    with pytest.raises(DataError, match=r"found no file .*there are: other\.nwb"):
        read(tmp_path / "session.nwb")
    with pytest.raises(DataError, match="found a folder"):
        read(tmp_path)
    with pytest.raises(DataError, match=r"empty\. Download it again"):
        read(tmp_path / "other.nwb")
    (tmp_path / "zarr.nwb").mkdir()
    (tmp_path / "zarr.nwb" / ".zgroup").touch()
    with pytest.raises(DataError, match=r"NWB version 2; found no version"):
        read(tmp_path / "zarr.nwb")
    (tmp_path / "page.nwb").write_text("<!DOCTYPE html><html>Not found</html>" * 9)
    with pytest.raises(DataError, match=r"found text in page\.nwb, which begins with b'<!DOCTYPE"):
        read(tmp_path / "page.nwb")
    (tmp_path / "noise.nwb").write_bytes(bytes(range(256)) * 20)
    with pytest.raises(DataError, match="found binary data"):
        read(tmp_path / "noise.nwb")


def test_a_file_is_never_written_to(path: Path) -> None:
    written(path, noise(50, 3), np.arange(50) / 10, rois=3)
    before = path.read_bytes()
    path.chmod(0o444)
    read(path)
    describe(path)
    assert path.read_bytes() == before


def test_damage_is_one_sentence(path: Path, record_property: Callable[[str, object], None]) -> None:
    written(path, noise(500, 20), np.arange(500) / 10, rois=20)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    outcomes = set()
    for trial in range(150):
        raw = bytearray(whole)
        at = int(rng.integers(0, len(raw) - 64)) if trial % 2 else int(rng.integers(0, 9000))
        width = int(rng.integers(1, 64))
        raw[at : at + width] = rng.integers(0, 256, width, dtype=np.uint8).tobytes()
        path.write_bytes(raw)
        for look in (read, describe):
            try:  # any other error fails the test
                look(path)
                outcomes.add("read")
            except GrevyError:
                outcomes.add("refused")
    assert outcomes == {"read", "refused"}
    record_property("cases", 2 * 150)


# --- Files that point outside themselves ----------------------------------------------------------


def test_links_to_other_files_are_refused(tmp_path: Path, path: Path) -> None:
    other = written(tmp_path / "other.nwb", noise(50, 3), np.arange(50) / 10, rois=3)
    with new(path) as file:
        file["processing/ophys"] = h5py.ExternalLink(other.name, "processing/ophys")
    with pytest.raises(
        UnsafeFileError, match=r"'processing/ophys' points to the file 'other\.nwb'"
    ):
        read(path)
    with pytest.raises(UnsafeFileError):
        describe(path)


def test_bytes_of_other_files_are_refused(tmp_path: Path, path: Path) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.arange(150, dtype=np.float32).tobytes())
    with new(path) as file:
        group = traces(file, noise(50, 3), np.arange(50) / 10, rois=3)
        del group["data"]
        group.create_dataset("data", (50, 3), np.float32, external=[(str(secret), 0, 600)])
    with pytest.raises(UnsafeFileError, match=r"plane/data' points to the file '.*secret\.bin'"):
        read(path)
    assert np.array_equal(read(path, allow_external=True).activity.ravel(), np.arange(150))


def test_external_data_are_for_who_asks_for_them(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").write_bytes(noise(50, 3).tobytes())
    with new(path) as file:
        group = traces(file, noise(50, 3), np.arange(50) / 10, rois=3)
        del group["data"]
        outside = [(str(tmp_path / "other"), 0, 600)]
        group.create_dataset("data", (50, 3), np.float32, external=outside)
    with pytest.raises(SystemExit) as left:
        cli.main(["inspect", str(path)])
    said = capsys.readouterr().err
    assert left.value.code == 2
    assert "allow external data" in said
    assert "=True" not in said  # no command takes Python
    cli.main(["inspect", str(path), "--allow-external"])
    shown = capsys.readouterr().out
    assert f"grevy run {path} --allow-external" in shown
    assert "Data lie in other files, as was allowed: 'processing/" in shown
    for command in ("inspect", "run"):
        with pytest.raises(SystemExit):
            cli.main([command, "dandi://000036/a.nwb", "--allow-external"])
        assert "files of this machine" in capsys.readouterr().err


def test_a_run_reads_external_data_if_its_caller_says_so(path: Path, tmp_path: Path) -> None:
    """The caller, and no file of settings: that may be a stranger's, too."""
    other = written(tmp_path / "other.nwb", noise(50, 3), np.arange(50) / 10, rois=3)
    with new(path) as file:
        file["processing/ophys"] = h5py.ExternalLink(other.name, "processing/ophys")
    config = read_config({"file": str(path)})
    with pytest.raises(UnsafeFileError, match="--allow-external"):
        open_recording(config, tmp_path / "out")
    found = open_recording(config, tmp_path / "out", allow_external=True)[2]
    assert np.array_equal(found.activity, read(other).activity)
    note = "Data lie in other files, as was allowed: 'processing/ophys' points to 'other.nwb'."
    assert note in found.notes
    assert note not in read(other, allow_external=True).notes
    with pytest.raises(ConfigError, match="allow_external"):
        read_config({"file": str(path), "allow_external": True})


def test_allowed_links_may_go_round_or_nowhere(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.nwb"
    with new(path) as file, new(other) as there:
        traces(there, noise(50, 3), np.arange(50) / 10, rois=3)
        there["processing/back"] = h5py.ExternalLink(path.name, "/processing")
        file["processing/there"] = h5py.ExternalLink(other.name, "/processing")
        file["processing/itself"] = h5py.ExternalLink(path.name, "/")
        file["processing/none"] = h5py.ExternalLink("none.nwb", "/x")
    assert len(describe(path, allow_external=True).activity) == 1
    assert np.array_equal(read(path, allow_external=True).activity, read_traces(other))


def read_traces(path: Path) -> Any:
    """Of a file that points elsewhere, the traces that are its own."""
    with h5py.File(path, "r") as file:
        found: list[Any] = []
        file["processing"].visititems(lambda n, x: found.append(x) if n.endswith("data") else None)
        return found[0][()]


def test_tables_without_a_name_are_refused(path: Path) -> None:
    with new(path) as file:
        hidden = table(file, "hidden", {"location": ["ca1", "ca1"]})
        group = units(file, [np.arange(9.0), np.arange(9.0)])
        group["electrodes"] = [0, 1]
        group["electrodes"].attrs["table"] = hidden.ref
        assert read(file, bin_s=1.0).n_channels == 2
        del file["hidden"]  # it is still there, as an object that is open
        for look in (describe, read):
            with pytest.raises(
                UnsafeFileError, match=r"'/units/electrodes' must refer .* has none"
            ):
                look(file)


def test_virtual_datasets_of_other_files_are_refused(tmp_path: Path, path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = noise(50, 3)
    layout = h5py.VirtualLayout((50, 3), np.float32)
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (50, 3))
    with new(path) as file:
        group = traces(file, noise(50, 3), np.arange(50) / 10, rois=3)
        del group["data"]
        group.create_virtual_dataset("data", layout)
    with pytest.raises(UnsafeFileError, match=r"other\.h5"):
        read(path)


def test_size_bombs_are_refused_before_reading(path: Path, monkeypatch: Any) -> None:
    with new(path) as file:
        group = traces(file, noise(50, 3), np.arange(50) / 10)
        del group["data"], group["timestamps"]
        group.create_dataset("data", (1 << 40, 3), np.float32, chunks=(1 << 16, 3))
        series_rate(group)
    with pytest.raises(LimitError, match=r"must store what it declares.*found 1\.32e\+04 GB"):
        read(path)


@pytest.mark.parametrize("name", ["data", "timestamps", "spike_times", "spike_times_index"])
def test_a_chunk_that_unpacks_to_much_more_is_refused(path: Path, name: str) -> None:
    with new(path) as file:
        if "spike" in name:
            units(file, [np.arange(9.0), np.arange(9.0)])
            name = f"units/{name}"
        else:
            name = f"{traces(file, noise(50, 3), np.arange(50) / 10, rois=3).name[1:]}/{name}"
        fuzz.chunk_bomb(file, file[name], 6)
    assert path.stat().st_size < 1 << 18
    with pytest.raises(
        LimitError, match=rf"'/{name}' must store what it declares; found 0\.101 GB"
    ):
        read(path)
    assert any("must store what it declares" in said for said in findings(path))


def findings(path: Path) -> list[str]:
    try:
        return list(describe(path).findings)
    except LimitError as error:
        return [str(error)]


def test_a_chunk_larger_than_memory_is_refused(path: Path, monkeypatch: Any) -> None:
    with new(path) as file:
        group = traces(file, noise(50, 3), np.arange(50) / 10, rois=3)
        fuzz.chunk_bomb(file, group["data"], 1)
    monkeypatch.setattr(nwb_files_module, "free_bytes", lambda: 20 << 20)
    monkeypatch.setattr(nwb_files_module, "RATIO_FROM_BYTES", 1 << 20)
    monkeypatch.setattr(nwb_files_module, "MAX_RATIO", 2000)
    with pytest.raises(LimitError, match=r"a chunk of '.*data' must fit into half .* 0\.0168 GB"):
        read(path)


@pytest.mark.parametrize("name", ["identifier", "session_start_time", "general/subject/species"])
def test_a_bomb_among_the_words_is_refused(path: Path, name: str) -> None:
    with new(path) as file:
        traces(file, noise(50, 3), np.arange(50) / 10, rois=3)
        if name in file:
            del file[name]
        file.create_dataset(name, (1 << 33,), h5py.string_dtype(), chunks=(1 << 16,))
    with pytest.raises(LimitError, match=rf"'/{name}' must store what it declares"):
        describe(path)
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = ["first", "second"]
    facts = describe(path).file
    assert "first" in (facts.identifier, facts.session_start_time, facts.species)


def test_what_no_disk_holds_is_refused_before_reading(path: Path, monkeypatch: Any) -> None:
    with new(path) as file:
        traces(file, noise(50, 3), np.arange(50) / 10)
    monkeypatch.setattr(room, "_ALWAYS", 100)
    monkeypatch.setattr(room, "free_bytes", lambda: 400)
    usage = shutil.disk_usage(path.parent)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(LimitError, match=r"in memory or on disk.*Set TMPDIR"):
        read(path)


def test_timestamps_larger_than_memory_are_refused(path: Path, monkeypatch: Any) -> None:
    with new(path) as file:
        traces(file, noise(50, 3), np.arange(50) / 10)
    monkeypatch.setattr(nwb_files_module, "free_bytes", lambda: 400)
    monkeypatch.setattr(nwb_files_module, "SMALL_BYTES", 0)
    with pytest.raises(LimitError, match="half of the free memory"):
        read(path)


def series_rate(group: h5py.Group) -> None:
    group["starting_time"] = 0.0
    group["starting_time"].attrs["rate"] = 10.0


# --- The terminal ---------------------------------------------------------------------------------


def test_text_of_the_file_cannot_steer_the_terminal(path: Path) -> None:
    evil = "\x1b[2J\x1b]0;owned\x07 \u202egnp.exe\nRun it\n  rm -rf ~"
    with new(path) as file:
        del file["session_description"]
        file["session_description"] = evil
        traces(file, noise(50, 3), np.arange(50) / 10, rois=3, unit=evil)
        table(file, "intervals/trials", {
            "start_time": np.arange(20.0), "stop_time": np.arange(20.0) + 0.5,
            "pick": [evil.replace("\n", ""), "b"] * 10,
        })  # fmt: skip
        series(file, "processing/behavior/x; rm -rf $HOME", np.arange(50.0), np.arange(50) / 10)
    d = describe(path)
    shown = describe_text(d)
    assert all(c == "\n" or c.isprintable() for c in shown)
    assert sum(line == "Run it" for line in shown.splitlines()) == 1
    assert shlex.split(d.suggestion)[3:] == ["--label", "x; rm -rf $HOME"]
    json.dumps(to_json(d), allow_nan=False)
