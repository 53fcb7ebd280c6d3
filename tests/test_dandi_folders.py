"""Folders of Zarr in DANDI: all of what is listed and nothing else, inside, verified, once."""

from __future__ import annotations

import errno
import gc
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dandi_server import DANDISET, VERSION, Archive, StoredFolder, serve
from grevy import RunConfig, dandi, pipeline
from grevy.cli import main
from grevy.dandi import Asset, Retry, folders, open_remote, resolve
from grevy.dandi.digests import tree_digest
from grevy.errors import (
    ConfigError,
    DataError,
    GrevyError,
    LimitError,
    LockedError,
    NetworkError,
    UnsafeFileError,
)
from grevy.locks import hold
from grevy.recording import Recording
from test_zarr import PACKED, noise, session

KEY = "key-that-nobody-may-see"
PATH = "sub-1/sub-1_ecephys.nwb.zarr"
NAME = "sub-1_ecephys.nwb.zarr"


def slow_digest(folder: Path) -> str:
    """`tree_digest` of what lies on disk, by recursion and with the JSON written by hand."""

    def look(at: Path) -> tuple[str, int, int]:
        dirs, files, count, size = [], [], 0, 0
        for name in sorted(os.listdir(at)):
            one = at / name
            if one.is_dir():
                digest, n, n_bytes = look(one)
            else:
                content = one.read_bytes()
                digest, n, n_bytes = hashlib.md5(content).hexdigest(), 1, len(content)
            line = f'{{"digest":"{digest}","name":"{name}","size":{n_bytes}}}'
            (dirs if one.is_dir() else files).append(line)
            count, size = count + n, size + n_bytes
        text = f'{{"directories":[{",".join(dirs)}],"files":[{",".join(files)}]}}'
        return f"{hashlib.md5(text.encode()).hexdigest()}-{count}--{size}", count, size

    return look(folder)[0]


def lay(folder: Path, files: dict[str, bytes]) -> Path:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def on_disk(folder: Path) -> dict[str, bytes]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


class Bench(NamedTuple):
    archive: Archive
    stored: StoredFolder
    folder: Path
    waits: list[float]
    retry: Retry

    @property
    def url(self) -> str:
        return self.archive.url(self.stored)

    def resolve(self) -> Asset:
        return resolve(self.url, retry=self.retry)

    def download(self) -> Path:
        return dandi.download(self.url, self.folder, retry=self.retry)

    def left(self) -> list[str]:
        return sorted(p.name for p in self.folder.iterdir()) if self.folder.exists() else []

    def put(self, files: dict[str, bytes]) -> StoredFolder:
        """Other files in the place of the folder's, with a checksum that is right."""
        tree = tree_digest((p, len(c), hashlib.md5(c).hexdigest()) for p, c in files.items())
        self.archive.files.pop(self.stored.asset_id, None)
        new = self.archive.add_folder(PATH, files, tree)
        return new


@pytest.fixture(scope="module")
def server() -> Iterator[Archive]:
    gc.collect()
    gc.disable()  # in a thread of the server it could wait for h5py's lock
    try:
        with serve() as archive:
            yield archive
    finally:
        gc.enable()


FILES = {
    ".zattrs": b"{}",
    ".zgroup": b'{"zarr_format": 2}',
    "a/.zarray": b"{}",
    "a/0.0": np.random.default_rng(1).bytes(300_000),
    "a/0.1": np.random.default_rng(2).bytes(70_000),
    "a.b": b"sorts between a and what is in it",
    "a/b/+ %2F#?&.": b"odd",
    "empty": b"",
    "same/0": bytes(5000),
    "same/1": bytes(5000),
}
SIZE = sum(map(len, FILES.values()))


@pytest.fixture
def bench(server: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    server.reset()
    monkeypatch.setenv("GREVY_DANDI_API", server.api)
    monkeypatch.setenv("DANDI_API_KEY", KEY)
    tree = slow_digest(lay(tmp_path / "twin", FILES))
    stored = server.add_folder(PATH, dict(FILES), tree)
    waits: list[float] = []
    return Bench(server, stored, tmp_path / "down", waits, Retry(sleep=waits.append, timeout_s=0.3))


# The checksum


def test_the_checksum_is_that_of_the_format(tmp_path: Path) -> None:
    # The first is in the tests of dandi/zarr_checksum, of a folder that is listed by hand.
    text = (
        '{"directories":[{"digest":"a7e86136543b019d72468ceebf71fb8e-1--1","name":"a/b","size":1}],'
        '"files":[{"digest":"92eb5ffee6ae2fec3ad71c777531578f-1--1","name":"b","size":1}]}'
    )
    assert hashlib.md5(text.encode()).hexdigest() == "2ed39fd5ae56fd4177c4eb503d163528"
    assert tree_digest([]) == "481a2f77ab786a0f45aafd5db0971caa-0--0"
    rng = np.random.default_rng(int(time.time()))
    for k in range(10):
        names = ["/".join(rng.choice(list("abc.-+0"), rng.integers(1, 5))) for _ in range(12)]
        names = [n for n in names if not any(m.startswith(f"{n}/") for m in names)]
        names = [n for n in names if not {".", ".."} & set(n.split("/"))]
        files = {n: rng.bytes(int(rng.integers(0, 50))) for n in names}
        said = [(p, len(c), hashlib.md5(c).hexdigest()) for p, c in files.items()]
        if said:
            assert tree_digest(said) == slow_digest(lay(tmp_path / str(k), files))
            assert folders.holds(tmp_path / str(k), tree_digest(reversed(said)))
    assert tree_digest([("ä", 1, "0" * 32)]) == (  # not ASCII, so escaped
        hashlib.md5(
            b'{"directories":[],"files":[{"digest":"%b","name":"\\u00e4","size":1}]}' % (b"0" * 32)
        ).hexdigest()
        + "-1--1"
    )


# Download


def test_download_and_a_second_run_that_fetches_nothing(bench: Bench) -> None:
    told: list[tuple[int, int]] = []
    asset = bench.resolve()
    assert (asset.is_zarr, asset.size, asset.tree) == (True, SIZE, bench.stored.tree)
    path = dandi.download(asset, bench.folder, on_progress=lambda n, of: told.append((n, of)))
    assert path == bench.folder / NAME
    assert on_disk(path) == FILES
    assert slow_digest(path) == asset.tree
    assert bench.left() == [NAME]
    assert told == sorted(told)
    assert told[-1] == (SIZE, SIZE)
    assert bench.archive.sent == SIZE
    assert bench.archive.links == 0  # of an open folder nothing but the list is asked of the API
    bench.archive.requests.clear()
    assert bench.download() == path
    assert bench.archive.sent == 0
    assert not any("/zarr/" in r.path for r in bench.archive.requests)
    assert dandi.cache_folder(asset, "x") == Path("x/dandi") / asset.tree


def test_what_is_not_open_comes_by_links_of_the_api(bench: Bench) -> None:
    bench.stored.listed["closed"] = True  # the storage refuses what is not signed
    assert on_disk(bench.download()) == FILES
    assert bench.archive.links > 0
    shutil.rmtree(bench.folder)
    bench.archive.requests.clear()
    bench.stored.listed["metadata"] = {"access": [{"status": "dandi:EmbargoedAccess"}]}
    assert on_disk(bench.download()) == FILES
    assert all("X-Amz" in r.path for r in bench.archive.data)
    assert {r.host for r in bench.archive.requests if KEY in str(r.headers)} == {"api"}


@pytest.mark.parametrize(
    "faults",
    [
        ["500"],
        ["503", "502", "500", "429 2"],
        ["reset"],
        ["stall 0.6"],
        ["short"],
        ["short 10", "cut 100", "ignore-range", "short"],
        ["damaged"],
        ["damaged", "short", "403"],
        ["other"],
    ],  # at most one in each list that spoils a file: a second may meet the same one
)
def test_trouble_that_passes(bench: Bench, faults: list[str]) -> None:
    bench.archive.faults[:] = list(faults)
    assert on_disk(bench.download()) == FILES
    assert bench.left() == [NAME]
    assert not bench.archive.faults


@pytest.mark.parametrize("fault", ["500", "429 1", "short", "reset", "gzip"])
def test_the_list_comes_through_trouble(bench: Bench, fault: str) -> None:
    asset = bench.resolve()
    bench.archive.api_faults[:] = ["", fault, "", fault]
    assert on_disk(dandi.download(asset, bench.folder, retry=bench.retry)) == FILES


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("404", "status 404"),
        ("loop", "10 redirects"),
        ("redirect http://example.org/a?X-Amz-Signature=1", "not https"),
        ("wrong-size", "where DANDI lists"),
    ],
)
def test_trouble_that_does_not_pass(bench: Bench, fault: str, says: str) -> None:
    bench.archive.faults[:] = [fault] * 100
    if fault == "wrong-size":
        bench.archive.faults[:] = ["short 1000", fault] * 100  # only a part says how large it is
    with pytest.raises(NetworkError) as told:
        bench.download()
    assert says in str(told.value)
    assert "?" not in str(told.value)
    assert NAME not in bench.left()
    bench.archive.faults.clear()
    assert on_disk(bench.download()) == FILES


def test_wrong_bytes_are_never_kept(bench: Bench) -> None:
    bench.stored.files["a/0.1"] = bytes(70_000)
    with pytest.raises(NetworkError, match=r"'a/0\.1' of .* must have the MD5 that DANDI lists"):
        bench.download()
    (left,) = bench.left()
    assert left.endswith(".part")
    assert not (bench.folder / left / "a/0.1").exists()
    bench.stored.files["a/0.1"] = FILES["a/0.1"]
    assert on_disk(bench.download()) == FILES


def test_what_is_there_is_not_fetched_again(bench: Bench) -> None:
    asset = bench.resolve()
    part = lay(bench.folder / f".{NAME}.{asset.tree}.part", dict(FILES))
    (part / "a/0.1").write_bytes(bytes(70_000))  # of the right size, and wrong
    (part / "a/0.0").unlink()
    (part / ".part-3").write_bytes(FILES["a/0.0"][:100_000])
    order = sorted(FILES, key=str.encode)
    (part / ".part-3").rename(part / f".part-{order.index('a/0.0')}")
    (part / "stray").write_bytes(b"x")
    assert on_disk(dandi.download(asset, bench.folder, retry=bench.retry)) == FILES
    assert bench.archive.sent == 70_000 + 200_000
    assert bench.left() == [NAME]


def test_links_in_what_is_there_are_not_followed(bench: Bench, tmp_path: Path) -> None:
    asset = bench.resolve()
    outside = lay(tmp_path / "outside", {"0": b"mine"})
    part = lay(bench.folder / f".{NAME}.{asset.tree}.part", {"a/0.1": FILES["a/0.1"]})
    (part / "same").symlink_to(outside)
    path = bench.download()
    assert on_disk(outside) == {"0": b"mine"}
    assert on_disk(path) == FILES
    (path / "empty").unlink()
    (path / "empty").symlink_to(tmp_path / "twin/empty")
    assert not folders.holds(path, asset.tree)
    (tmp_path / "link").symlink_to(path)
    assert not folders.holds(tmp_path / "link", asset.tree)


@pytest.mark.parametrize("how", ["changed", "lost", "more", "file"])
def test_a_folder_that_is_there_is_not_trusted_and_not_lost(
    bench: Bench, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = lay(bench.folder / NAME, dict(FILES))
    match how:
        case "changed":
            (path / "same/1").write_bytes(bytes(4999) + b"1")
        case "lost":
            (path / "empty").unlink()
        case "more":
            (path / "same/2").touch()
        case "file":
            shutil.rmtree(path)
            path.write_bytes(b"x")
    assert on_disk(bench.download()) == FILES
    assert f"{path} was not what the archive lists; it is now sub-1_ecephys" in caplog.text
    assert bench.left() == ["sub-1_ecephys.nwb.other1.zarr", NAME]


def test_the_part_of_another_state_is_discarded(bench: Bench) -> None:
    lay(bench.folder / f".{NAME}.{'0' * 32}-1--1.part", {"a": b"x"})
    (bench.folder / f".{NAME}.{bench.stored.tree}.part").write_bytes(b"a file")
    assert on_disk(bench.download()) == FILES
    assert bench.left() == [NAME]


KILLED = """
import sys
from grevy import dandi
dandi.download(sys.argv[1], sys.argv[2])
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_download_goes_on(bench: Bench, number: signal.Signals) -> None:
    files = {f"{i:02}": np.random.default_rng(i).bytes(100_000) for i in range(20)}
    stored = bench.put(files)
    bench.archive.faults[:] = [""] * 9 + ["hold 70000"] * 8
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, bench.url, str(bench.folder)], stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 30
    whole: list[Path] = []
    while len(whole) < 9:
        whole = list(bench.folder.glob(f".*.part/{'[0-9]' * 2}"))
        assert time.monotonic() < deadline
        time.sleep(0.02)
    begun = time.monotonic()
    child.send_signal(number)
    child.communicate(timeout=10)
    assert time.monotonic() - begun < 4  # though every thread waits for a silent server
    assert child.returncode == -number
    assert bench.left() != []
    assert not (bench.folder / NAME).exists()
    bench.archive.go_on.set()
    bench.archive.faults.clear()
    bench.archive.requests.clear()
    assert on_disk(dandi.download(bench.archive.url(stored), bench.folder)) == files
    assert bench.archive.sent <= 11 * 100_000  # of 20: nine were whole
    assert bench.left() == [NAME]


def test_a_failure_does_not_wait_for_the_others(bench: Bench) -> None:
    bench.archive.faults[:] = ["stall 20", "404", *["stall 20"] * 20]
    begun = time.monotonic()
    with pytest.raises(NetworkError, match="status 404"):
        dandi.download(bench.url, bench.folder, retry=Retry(timeout_s=20))
    assert time.monotonic() - begun < 4


def test_after_a_failure_nothing_more_is_asked_for(bench: Bench) -> None:
    bench.archive.faults[:] = ["404", *["stall 1"] * 30]
    with pytest.raises(NetworkError, match="status 404"):
        dandi.download(bench.url, bench.folder, retry=Retry(timeout_s=5, first_s=0.01))
    time.sleep(0.9)  # the others would try again now
    assert len(bench.archive.data) <= 8


def test_two_processes_do_not_meet(bench: Bench) -> None:
    bench.folder.mkdir()
    with (
        hold(bench.folder / f".{NAME}.lock", "x", advice="y"),
        pytest.raises(LockedError, match=rf"in use by .*:{os.getpid()}; wait until"),
    ):
        bench.download()
    assert not bench.archive.data


# The list


def listing(change: Callable[[list[dict[str, Any]]], Any]) -> Callable[[StoredFolder], None]:
    return lambda stored: change(stored.listing)


def renamed(name: str) -> Callable[[StoredFolder], None]:
    """A list with a name in it, whose checksum is right: of a stranger's own folder."""

    def change(stored: StoredFolder) -> None:
        stored.listing[0]["Key"] = name
        stored.listing.sort(key=lambda one: one["Key"].encode("utf-8", "surrogatepass"))
        said = ((one["Key"], one["Size"], one["ETag"]) for one in stored.listing)
        stored.tree = tree_digest(said)

    return change


OUTSIDE = [
    *("../x", "/etc/x", "a/../../x", "a//x", "a/", ".", "..", "a/./x", "", "/"),
    *("..\\x", "a\0b", "a\nb", "a\x1b[2J", "a\u202eb", "a\ud800b", "a" * 256, "a/" * 70 + "a"),
    *("b/" * 63 + "a" * 250 + "/" + "c" * 250, "\u00e4" * 128, ".part-0", "a/0.0/x", "empty/x"),
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_no_name_leads_out_of_the_folder(bench: Bench, name: str) -> None:
    if "\ud800" not in name:
        renamed(name)(bench.stored)
    else:
        bench.stored.listing[0]["Key"] = name
        bench.stored.page = 100
    before = on_disk(bench.folder.parent)
    with pytest.raises((UnsafeFileError, NetworkError)) as told:
        bench.download()
    assert str(told.value).isprintable()
    assert len(str(told.value)) < 600
    if name and "\ud800" not in name:
        assert isinstance(told.value, UnsafeFileError)
    assert not bench.archive.data
    assert on_disk(bench.folder.parent) == before


@given(st.text(max_size=40))
def test_any_name_stays_in_the_folder_or_is_refused(name: str) -> None:
    asset = Asset(dandi.Address("000036", "", "x"), "", "x", 10, zarr_id="z", tree="0-1--10")
    said = {"Key": name, "Size": 1, "ETag": "0" * 32}
    try:
        entry = folders._entry(None, asset, said)  # type: ignore[arg-type]
    except UnsafeFileError:
        return
    inside = Path("/folder") / entry.path
    assert Path(os.path.normpath(inside)) == inside
    assert inside.is_relative_to("/folder")
    assert inside != Path("/folder")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (listing(lambda s: s.pop()), "as while it is changed"),
        (listing(lambda s: s[3].update(Size=s[3]["Size"] - 1)), "as while it is changed"),
        (listing(lambda s: s[3].update(ETag="0" * 32)), "as while it is changed"),
        (listing(lambda s: s.append({"Key": "z", "Size": 0, "ETag": "0" * 32})), "changed"),
        (listing(lambda s: s.insert(1, s[0])), "not in order"),
        (listing(lambda s: s.reverse()), "not in order"),
        (listing(lambda s: s[0].update(Size=-1)), "larger than its folder, or without size"),
        (listing(lambda s: s[0].update(Size=10**15)), "larger than its folder"),
        (listing(lambda s: s[0].update(Size=True)), "without size"),
        (listing(lambda s: s[0].update(ETag=None)), "without name or digest"),
        (listing(lambda s: s[0].update(ETag=f"{'0' * 32}-2")), "listed with its MD5"),
        (listing(lambda s: s[0].update(ETag="../../x")), "listed with its MD5"),
        (lambda s: setattr(s, "page", 0), "no list of files"),
        (lambda s: setattr(s, "tree", f"{'0' * 32}-{len(FILES)}--{SIZE}"), "checksum that DANDI"),
        (lambda s: s.listed.update(size=5), "a size other than the one in the checksum"),
        (lambda s: s.listed.update(zarr="../x"), "whose id is no UUID"),
    ],
)
def test_a_list_that_is_wrong_costs_no_byte(
    bench: Bench, change: Callable[[StoredFolder], None], says: str
) -> None:
    change(bench.stored)
    with pytest.raises(NetworkError) as told:
        bench.download()
    assert says in str(told.value)
    assert told.value.exit_code == 4
    assert not bench.archive.data
    assert bench.left() == []


def test_a_list_without_end_ends(bench: Bench) -> None:
    bench.stored.listing[:] = [
        {"Key": f"{i:06}", "Size": 0, "ETag": "0" * 32} for i in range(100_000)
    ]
    with pytest.raises(NetworkError, match="as while it is changed"):
        bench.download()
    assert len(bench.archive.requests) < 10


def test_a_folder_that_changes_on_its_way(bench: Bench) -> None:
    asset = bench.resolve()
    new = bench.put(FILES | {"same/1": b"new"})
    new.zarr_id = bench.stored.zarr_id
    with pytest.raises(NetworkError, match="as while it is changed"):
        dandi.download(asset, bench.folder, retry=bench.retry)
    assert not bench.archive.data
    assert on_disk(bench.download())["same/1"] == b"new"


@pytest.mark.parametrize("tree", ["", "None", "../../x-1--1", f"{'0' * 32}-1"])
def test_without_a_checksum_nothing_is_fetched(bench: Bench, tree: str) -> None:
    digest = {"dandi:dandi-zarr-checksum": tree}
    bench.stored.listed["metadata"] = {"digest": digest}
    with pytest.raises(DataError, match="must list a digest"):
        bench.download()


def test_too_many_files(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_MOST_FILES", 5)
    with pytest.raises(LimitError, match=r"at most 5 files; found that .* holds 10"):
        bench.download()


def test_an_empty_folder(bench: Bench) -> None:
    stored = bench.put({})
    path = dandi.download(bench.archive.url(stored), bench.folder)
    assert path.is_dir()
    assert on_disk(path) == {}


# The disk


def test_a_disk_that_is_too_small_is_told_before(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(bench.folder.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(LimitError, match=r"room for 0\.3801 MB more of .*; found 0\.001 MB"):
        bench.download()
    assert not bench.archive.data


@pytest.mark.parametrize(
    ("number", "kind", "says"),
    [
        (errno.ENOSPC, LimitError, "Make room and run the same command again"),
        (errno.EROFS, ConfigError, "Read-only file system. Choose another"),
    ],
)
def test_a_disk_that_fails_half_way(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[GrevyError], says: str
) -> None:
    def fails(self: Path, target: Path) -> Path:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fails)  # in the threads
        with pytest.raises(kind, match=says):
            bench.download()
    assert [name[-5:] for name in bench.left()] == [".part"]
    assert on_disk(bench.download()) == FILES


# The commands


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    try:
        main(words)
        code = 0
    except SystemExit as left:
        code = int(left.code or 0)
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out, err


def test_commands(
    bench: Bench,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    values = noise()
    pack, about = PACKED["zlib"]
    files = on_disk(session(tmp_path / "made.nwb.zarr", values, pack=pack, compressor=about))
    stored = bench.put(files)
    url = bench.archive.url(stored)
    found = f"dandi://{DANDISET}@{VERSION}/{PATH}"
    code, out, err = run(capsys, "inspect", url)
    assert code == 0
    assert f"in {len(files)} files" in err  # it says that it downloads
    assert found in out
    assert str(tmp_path) not in out
    bench.archive.requests.clear()
    seen: list[Recording] = []

    def stub(recording: Recording, config: RunConfig, out: Path, **_: object) -> Path:
        assert (config.file, out) == (found, Path("sub-1_ecephys.nwb-grevy"))
        seen.append(recording)
        return out / "report.html"

    monkeypatch.setattr(pipeline, "run_recording", stub)
    assert run(capsys, "run", url, "--quiet")[0] == 0
    assert np.allclose(seen[0].activity, values)
    assert not bench.archive.data  # `inspect` had fetched it
    code, out, _ = run(capsys, "download", url, "--out", "here", "--quiet")
    assert (code, out) == (0, f"{Path('here') / NAME}\n")
    assert on_disk(tmp_path / "here" / NAME) == files
    with pytest.raises(DataError, match=r"Zarr-backed: a folder of many files\. Get it with"):
        open_remote(bench.resolve()).__enter__()
    stored.listing[0]["Key"] = "../x"
    code, _, err = run(capsys, "download", url, "--out", "there", "--quiet")
    assert code == 2
    assert err.count("\n") == 1
