"""A disk that refuses leaves the last good file, no half one, and one sentence."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from grevy import CEBRA, atomic, store, train
from grevy.atomic import append_line, make_atomic, remove_parts, short_name, write_atomic
from grevy.cli import main
from grevy.config import TrainConfig
from grevy.encoders import EncoderSpec
from grevy.errors import FormatError
from grevy.recording import Recording, make_recording
from grevy.unfinished import Checkpoint

CONFIG = TrainConfig(encoder=EncoderSpec("offset1-model", 8, 2), batch_size=16, n_steps=5)
REFUSALS = (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO)


def recording() -> Recording:
    return make_recording(np.random.default_rng(0).normal(size=(120, 4)), rate_hz=20.0)


def _refusing(monkeypatch: pytest.MonkeyPatch, where: str, code: int) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    match where:
        case "open":
            monkeypatch.setattr(atomic.tempfile, "mkstemp", refuse)
        case "write":
            real = os.fdopen

            def full(*a: Any) -> Any:
                file = real(*a)
                return _Full(file, code)

            monkeypatch.setattr(atomic.os, "fdopen", full)
        case _:
            monkeypatch.setattr(atomic.os, where, refuse)


class _Full:
    """A file on which nothing can be written."""

    def __init__(self, file: Any, code: int) -> None:
        self.file, self.code = file, code

    def __enter__(self) -> _Full:
        return self

    def __exit__(self, *_: Any) -> None:
        self.file.close()

    def write(self, blob: bytes) -> int:
        raise OSError(self.code, os.strerror(self.code))


@pytest.mark.parametrize("code", REFUSALS, ids=errno.errorcode.get)
@pytest.mark.parametrize("where", ["open", "write", "fsync", "chmod", "replace"])
def test_whatever_the_disk_refuses_the_old_file_stays(
    where: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.safetensors"
    with write_atomic(path) as file:
        file.write(b"good")
    _refusing(monkeypatch, where, code)
    with (
        pytest.raises(FormatError, match=r"m\.safetensors cannot be written: .*as it was") as error,
        write_atomic(path) as file,
    ):
        file.write(b"half of it")
    monkeypatch.undo()
    assert error.value.errno == code
    assert os.strerror(code) in str(error.value)
    assert path.read_bytes() == b"good"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_of_ones_own_is_not_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), write_atomic(tmp_path / "x"):
        raise ZeroDivisionError
    with pytest.raises(FormatError, match="there is no folder"), write_atomic(tmp_path / "a" / "b"):
        pass
    assert not list(tmp_path.iterdir())


def test_only_what_was_left_here_is_removed(tmp_path: Path) -> None:
    theirs = [".notes.tmp", ".notes.abcdefgh.tmp", "a.tmp", ".a.0123456g.abcdefgh.tmp", "a"]
    one, two = (Path(40 * "a" + end) for end in ("1.nwb", "2.nwb"))
    parts = [f"{short_name(p)}.abcd_123.tmp.nwb" for p in (one, two)]
    for name in [*theirs, *parts]:
        (tmp_path / name).touch()
    remove_parts(tmp_path / "absent")
    remove_parts(tmp_path, of=one)
    assert {p.name for p in tmp_path.iterdir()} == {*theirs, parts[1]}
    names = ["x.nwb", "new\nline", 50 * "é"]
    x, y, z = (tmp_path / name for name in names)
    with make_atomic(x), write_atomic(y), write_atomic(z):
        ours = {p.name for p in tmp_path.iterdir()} - {*theirs, parts[1]}
    assert len(ours) == 3
    for name in ours:
        (tmp_path / name).touch()
    remove_parts(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {*theirs, *names}


def test_a_line_is_never_put_behind_half_of_one_nor_into_what_a_link_names(tmp_path: Path) -> None:
    log, victim = tmp_path / "log.jsonl", tmp_path / "victim"
    append_line(log, "one")
    append_line(log, "two")
    with log.open("a") as file:
        file.write('{"torn')
    append_line(log, "th\udcffree")
    assert log.read_text().splitlines() == ["one", "two", '{"torn', "th\\udcffree"]
    victim.write_text("mine")
    log.unlink()
    log.symlink_to(victim)
    with pytest.raises(FormatError, match=r"log\.jsonl must be a file of its own; found a link"):
        append_line(log, "four")
    assert victim.read_text() == "mine"


def test_a_new_file_takes_no_name_that_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.nwb"
    for code in (None, errno.EPERM):  # with links, and where the disk knows none
        if code is not None:
            _refusing(monkeypatch, "link", code)
        with make_atomic(path, new=True) as part:
            part.write_bytes(b"first")
        with (
            pytest.raises(FormatError, match=r"a\.nwb exists and is not written over"),
            make_atomic(path, new=True) as part,
        ):
            part.write_bytes(b"second")
        assert path.read_bytes() == b"first"
        assert list(tmp_path.iterdir()) == [path]
        path.unlink()


@pytest.mark.parametrize("where", ["write", "replace"])
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "u"
    (run,) = train([recording()], [CONFIG], device="cpu", checkpoint=Checkpoint(folder, every_s=0))
    other = TrainConfig(encoder=CONFIG.encoder, batch_size=16, n_steps=5, seed=1)
    _refusing(monkeypatch, where, errno.ENOSPC)
    with pytest.raises(FormatError, match="No space left on device"):
        train([recording()], [other], device="cpu", checkpoint=Checkpoint(folder, every_s=0))
    monkeypatch.undo()
    assert len(list(folder.iterdir())) == 1
    (kept,) = Checkpoint(folder)._read().values()
    assert torch.equal(kept[1]["losses"], torch.from_numpy(run.losses))


# --- Real disks, where this machine lets us make them ---------------------------------------------
@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "none", str(disk)], capture_output=True
    ) if sys.platform == "linux" else None  # fmt: skip
    if made is None or made.returncode:
        pytest.skip("file systems cannot be mounted here: not run")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def _says(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    assert left.value.code == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("grevy: ")
    assert "Traceback" not in said
    return said.splitlines()[-1]


def test_a_full_and_a_read_only_disk_are_one_sentence(
    small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "d.npy", small_disk / "m.safetensors"
    np.save(data, np.random.default_rng(0).normal(size=(200, 6)))
    fit = ["fit", data, "--steps", 5, "--batch-size", 32, "--quiet", "--out", out]
    main([str(word) for word in [*fit, "--hidden", 8, "--latents", 2]])
    good = CEBRA.load(out).run_.digest
    fit[-1] = small_disk / "n.safetensors"
    large = [*fit, "--hidden", 128, "--checkpoint-s", 0]
    assert "No space left on device" in _says(capsys, *large)
    assert CEBRA.load(out).run_.digest == good
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert "Read-only file system" in _says(capsys, *fit)
    grid = ["search", data, "--grid", "latents=2,3", "steps=3", "--quiet", "--out"]
    assert "Read-only file system" in _says(capsys, *grid, small_disk / "grid")
    assert "Read-only file system" in _says(
        capsys, "embed", out, data, "--out", small_disk / "z.npy"
    )
    assert store.load(out).digest == good
    assert {p.name for p in small_disk.iterdir()} <= {out.name, "n.safetensors.unfinished"}
