"""Arrays that memory has no room for: the same numbers, from a file that leaves nothing behind."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from grevy import room
from grevy.errors import LimitError
from grevy.loading import load_data
from grevy.nwb import read
from grevy.recording import make_recording
from nwb_files import new, traces


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Memory for a thousand bytes; the folder that larger arrays go to."""
    monkeypatch.setattr(room, "_ALWAYS", 1000)
    monkeypatch.setattr(room, "free_bytes", lambda: 4000)
    monkeypatch.setattr(room, "_PIECE", 50)
    folder = tmp_path / "large"
    folder.mkdir()
    monkeypatch.setattr(room, "_folder", lambda: str(folder))
    return folder


def _lies_on_disk(x: Any) -> bool:
    while x is not None and not isinstance(x, np.memmap):
        x = x.base
    return x is not None


def test_large_arrays_lie_on_disk_and_leave_nothing(small: Path) -> None:
    few, many = room.room((10, 10), np.float32), room.room((20, 30), np.float32)
    assert not _lies_on_disk(few)
    assert _lies_on_disk(many)
    values = np.random.default_rng(0).standard_normal((20, 30)).astype(np.float32)
    many[:] = values
    np.testing.assert_array_equal(many, values)
    assert not list(small.iterdir())


@pytest.mark.parametrize("dtype", [np.float64, np.int16, np.float32])
@pytest.mark.parametrize("order", ["C", "F"])
def test_numbers_are_converted_in_pieces(small: Path, dtype: Any, order: Any) -> None:
    x = (100 * np.random.default_rng(1).standard_normal((70, 9))).astype(dtype, order=order)
    found = room.as_float32(x)
    np.testing.assert_array_equal(found, x.astype(np.float32))
    assert found.flags.c_contiguous
    same = dtype == np.float32 and order == "C"
    assert (found is x) == same
    assert _lies_on_disk(found) != same


def test_a_full_disk_is_said_before_anything_is_written(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(LimitError, match=r"No space left on device\. Set TMPDIR"):
        room.room((20, 30), np.float32)
    usage = shutil.disk_usage(small)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(LimitError, match="in memory or on disk"):
        room.room((20, 30), np.float32)
    assert not list(small.iterdir())


@pytest.mark.parametrize("roi_first", [False, True])
@pytest.mark.parametrize("stored", [np.float32, np.int16])
def test_nwb_files_larger_than_memory_are_read(
    small: Path, tmp_path: Path, roi_first: bool, stored: Any
) -> None:
    x = (50 * np.random.default_rng(2).standard_normal((200, 6))).astype(stored)
    path = tmp_path / "a.nwb"
    with new(path) as file:
        traces(file, x.T if roi_first else x, np.arange(200) / 10, rois=6)
    recording = read(path)
    assert _lies_on_disk(recording.activity)
    np.testing.assert_array_equal(recording.activity, x.astype(np.float32))
    assert not list(small.iterdir())


def test_hdf5_files_larger_than_memory_are_read(small: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(3).standard_normal((300, 7))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=x, chunks=(32, 7), compression="gzip")
    found = load_data(tmp_path / "a.h5")
    assert _lies_on_disk(found)
    np.testing.assert_array_equal(found, x)
    recording = make_recording(found, rate_hz=10.0)
    assert _lies_on_disk(recording.activity)
    np.testing.assert_array_equal(recording.activity, x.astype(np.float32))


def test_large_files_go_to_the_folder_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/somewhere")
    monkeypatch.setattr(room.tempfile, "gettempdir", lambda: "/usual")
    assert room._folder() == "/usual"
    monkeypatch.delenv("TMPDIR")
    assert room._folder() == ("/var/tmp" if os.access("/var/tmp", os.W_OK) else "/usual")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert room._folder() == "/usual"
