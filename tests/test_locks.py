"""A lock is one process's, says whose, and never outlives it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from grevy.atomic import short_name
from grevy.errors import ConfigError, LockedError
from grevy.locks import hold, hold_folder, left_by_killed, refuse_foreign

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
    real, calls = os.lstat, []

    def gone_once(where: object, *args: object, **how: object) -> os.stat_result:
        if where == path and not calls:
            calls.append(1)
            path.unlink()
        return real(where, *args, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "lstat", gone_once)
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


@pytest.mark.parametrize("kind", ["link", "dangling", "second name", "pipe"])
def test_what_else_bears_the_name_of_a_lock_is_refused_untouched(tmp_path: Path, kind: str) -> None:
    lock, thesis = tmp_path / "f" / ".lock", tmp_path / "thesis.tex"
    lock.parent.mkdir()
    thesis.write_text("years")
    if kind == "pipe":
        os.mkfifo(lock)
    elif kind == "second name":
        lock.hardlink_to(thesis)
    else:
        lock.symlink_to(thesis if kind == "link" else tmp_path / "absent")
    with pytest.raises(ConfigError, match=r"\.lock must be a file of its own; found .*Remove it"):
        hold_folder(lock.parent).__enter__()
    assert thesis.read_text() == "years"
    assert {p.name for p in tmp_path.iterdir()} == {"f", "thesis.tex"}


def test_the_lock_of_another_user_says_whose_it_is_and_falls_with_its_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = tmp_path / ".lock", os.open

    def refuse(where: object, flags: int, *more: int) -> int:
        if where == path and flags & os.O_RDWR and path.exists():
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(where))
        return real(where, flags, *more)  # type: ignore[arg-type]

    with hold(path, "it", advice="wait."):
        monkeypatch.setattr(os, "open", refuse)
        with pytest.raises(LockedError, match=rf"it is in use by .*:{os.getpid()}; wait\."):
            hold(path, "it", advice="wait.").__enter__()
    path.write_text("zebra:42")
    with hold(path, "it", advice="wait."):
        assert path.read_text().endswith(f":{os.getpid()}")


def test_whether_a_holder_was_killed_shows(tmp_path: Path) -> None:
    assert not left_by_killed(tmp_path)
    with hold_folder(tmp_path):
        assert left_by_killed(tmp_path)
    assert not left_by_killed(tmp_path)


def test_a_folder_is_ours_if_it_is_new_or_empty_or_marked(tmp_path: Path) -> None:
    begun = f"{short_name(Path('run.toml'))}.abcd_123.tmp"
    for names in ([], [".lock"], [".lock", begun], ["mine", "run.toml"]):
        folder = tmp_path / str(len(names)) / "-".join(names)
        refuse_foreign(folder, "run.toml", advice="")
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).touch()
        refuse_foreign(folder, "run.toml", advice="")
    (tmp_path / "run.toml").mkdir()
    with pytest.raises(ConfigError, match=r"found '0' and no run\.toml\. Name another\."):
        refuse_foreign(tmp_path, "run.toml", advice="Name another.")


def test_no_folder_is_no_lock(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), hold(tmp_path / "no" / ".lock", "it", advice=""):
        pass
