"""A lock is one process's, says whose, and never outlives it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from grevy.errors import ConfigError, LockedError
from grevy.locks import hold, hold_folder

CHILD = """
import sys, time
from pathlib import Path
from grevy.locks import hold
with hold(Path(sys.argv[1]), "it", advice="wait."):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_holder_is_named_and_its_death_frees_the_lock(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE)
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        with (
            pytest.raises(LockedError, match=rf"it is in use by .*:{child.pid}; wait\."),
            hold(path, "it", advice="wait."),
        ):
            pass
        child.send_signal(signal.SIGKILL)
    with hold(path, "it", advice="wait."):
        assert path.read_text().endswith(f":{os.getpid()}")
    assert not path.exists()


def test_an_error_frees_it_too(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with pytest.raises(KeyError), hold(path, "it", advice="wait."):
        raise KeyError
    with hold(path, "it", advice="wait."), pytest.raises(LockedError):
        hold(path, "it", advice="wait.").__enter__()


def test_a_lock_that_was_removed_meanwhile_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ".lock"
    real, calls = os.stat, []

    def gone_once(where: object, *args: object, **how: object) -> os.stat_result:
        if where == path and not calls:
            calls.append(1)
            path.unlink()
        return real(where, *args, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", gone_once)
    with hold(path, "it", advice="wait."):
        assert real(path).st_size > 0
    assert calls


def test_a_folder_is_made_and_held(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with hold_folder(folder):
        with pytest.raises(LockedError, match=rf"b is in use by .*:{os.getpid()}; wait for it"):
            hold_folder(folder).__enter__()
        (folder / "x").touch()
    with hold_folder(folder):
        assert {p.name for p in folder.iterdir()} == {".lock", "x"}


def test_a_folder_that_cannot_be_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file/b cannot be written: Not a directory"):
        hold_folder(tmp_path / "file" / "b").__enter__()

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(ConfigError, match="No space left on device"):
        hold_folder(tmp_path / "c").__enter__()
    monkeypatch.undo()
    assert not list((tmp_path / "c").iterdir())


def test_no_folder_is_no_lock(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), hold(tmp_path / "no" / ".lock", "it", advice=""):
        pass
