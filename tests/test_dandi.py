"""DANDI: nothing wrong is kept, nothing fetched twice, no secret leaves; with a server of ours."""

from __future__ import annotations

import errno
import gc
import hashlib
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import h5py
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dandi_server import DANDISET, VERSION, Archive, Stored, serve
from grevy import Recording, RunConfig, dandi, nwb, pipeline, synthetic
from grevy.cli import main
from grevy.dandi import Address, Asset, Retry, digests, http, open_remote, pace, parse, resolve
from grevy.dandi.address import file_name
from grevy.dandi.download import _verified
from grevy.dandi.http import Trouble, patiently
from grevy.dandi.ranges import open_partial
from grevy.errors import (
    ConfigError,
    DataError,
    GrevyError,
    LimitError,
    LockedError,
    NetworkError,
)
from grevy.locks import hold
from grevy.nwb.files import open_nwb
from nwb_files import hanging, new, noise, traces

KEY = "key-that-nobody-may-see"
PATH = "sub-1/sub-1_behavior+ophys.nwb"
ID = "0123abcd-0000-4000-8000-0123456789ab"
SECRETS = (KEY, "signed-secret", "X-Amz")


class Bench(NamedTuple):
    archive: Archive
    stored: Stored
    folder: Path
    waits: list[float]
    retry: Retry

    @property
    def url(self) -> str:
        return self.archive.url(self.stored)

    @property
    def content(self) -> bytes:
        return self.stored.content

    def resolve(self) -> Asset:
        return resolve(self.url, retry=self.retry)

    def download(self) -> Path:
        return dandi.download(self.url, self.folder, retry=self.retry)

    def left(self) -> list[str]:
        return sorted(p.name for p in self.folder.iterdir()) if self.folder.exists() else []


@pytest.fixture(scope="module")
def server() -> Iterator[Archive]:
    """The server of all tests.

    No garbage is collected meanwhile: in a thread of the server that could wait for h5py's lock,
    which whoever reads the answer holds.
    """
    gc.collect()
    gc.disable()
    try:
        with serve() as archive:
            yield archive
    finally:
        gc.enable()


@pytest.fixture
def bench(server: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A server with one file of 400 kB, and a folder to download it into."""
    server.reset()
    monkeypatch.setenv("GREVY_DANDI_API", server.api)
    monkeypatch.setenv("DANDI_API_KEY", KEY)
    stored = server.add(PATH, np.random.default_rng(1).bytes(400_000))
    waits: list[float] = []
    retry = Retry(sleep=waits.append, timeout_s=0.3)
    return Bench(server, stored, tmp_path / "down", waits, retry)


# Addresses


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"dandi://000036/{PATH}", Address("000036", "", PATH)),
        (f"dandi://000036@{VERSION}/{PATH}", Address("000036", VERSION, PATH)),
        (f"DANDI://dandi/000036@draft/{PATH}", Address("000036", "draft", PATH)),
        ("dandi:/000036/a%20b.nwb", Address("000036", "", "a b.nwb")),
        (
            f"https://dandiarchive.org/dandiset/000036/draft/files?location={PATH}&page=1",
            Address("000036", "draft", PATH),
        ),
        (
            "https://dandiarchive.org/dandiset/000036/files?location=sub-1%2Fa%2Bb.nwb",
            Address("000036", "", "sub-1/a+b.nwb"),
        ),
        (
            f"https://gui.dandiarchive.org/#/dandiset/000036/{VERSION}/files?location=/a.nwb",
            Address("000036", VERSION, "a.nwb"),
        ),
        (f"https://api.dandiarchive.org/api/assets/{ID}/download/", Address(asset_id=ID)),
        (f"https://api.dandiarchive.org/api/assets/{ID}/", Address(asset_id=ID)),
        (
            f"https://api.dandiarchive.org/api/dandisets/000036/versions/draft/assets/{ID}/info/",
            Address("000036", "draft", "", ID),
        ),
        (
            f"https://api.dandiarchive.org/api/dandisets/000036/versions/draft/assets/?path={PATH}",
            Address("000036", "draft", PATH),
        ),
    ],
)
def test_addresses(text: str, found: Address) -> None:
    assert dandi.is_address(text)
    assert parse(text) == found


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("dandi://36/a.nwb", "six digits; found '36'"),
        ("dandi://000036", "must name a file of dandiset 000036"),
        ("dandi://000036/", "must name a file"),
        ("dandi://000036@latest/a.nwb", "a version is 'draft' or a number"),
        ("dandi://000036/a%00b", "none of them NUL"),
        ("dandi://000036/" + "a" * 5000, "1 to 4096 characters"),
        ("s3://dandiarchive/blobs/a", "the storage"),
        ("ftp://me:secret@host/a.nwb", "found 'ftp:'"),
        ("https://example.org/dandiset/000036", "its host is 'example.org'"),
        ("https://dandiarchive.s3.amazonaws.com/blobs/a?X-Amz-Signature=secret", "the storage"),
        ("https://dandiarchive.org/dandiset/000036/draft", "names only dandiset 000036"),
        ("https://dandiarchive.org/about", "names neither"),
        ("https://[/a", "well formed"),
    ],
)
def test_wrong_addresses_are_told_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as told:
        parse(text)
    assert says in str(told.value)
    assert "dandi://000036/PATH" in str(told.value)  # what to write instead
    assert "secret" not in str(told.value)


@pytest.mark.parametrize("path", ["a.nwb", "./dandi/a.nwb", "C:/a.nwb", "/data/a:b/c.nwb"])
def test_paths_are_no_addresses(path: str) -> None:
    assert not dandi.is_address(path)
    assert not dandi.is_address(Path(path))


@given(st.text(min_size=1, max_size=40), st.sampled_from(["", "draft", VERSION]))
def test_an_address_reads_as_what_it_was_written_from(path: str, version: str) -> None:
    address = Address("000036", version, path)
    assume("\0" not in path and path == path.strip().strip("/"))
    assert parse(str(address)) == address


HOSTILE = [
    *("../x", "/etc/y", "..", ".", "", "/", "a/..", "..\\..\\x", "C:\\x", "x/" + "." * 300),
    *(
        "CON",
        "con.nwb",
        "nul",
        "a\0b",
        "a\nb",
        "a\u202ebwn.exe",
        "ｎｗｂ",
        ".hidden",
        "-rf",
        "$(x)",
    ),
    *("a. .", "x:y", "*?", "a" * 5000, "a" * 5000 + ".nwb"),
]


@pytest.mark.parametrize("path", HOSTILE)
def test_names_stay_in_their_folder(path: str, tmp_path: Path) -> None:
    _check_name(path, tmp_path)
    target = tmp_path / file_name(path)
    target.with_name(f".{target.name}.{'0' * 64}.part").touch()  # short enough for its companions


@given(st.text(max_size=300))
def test_names_of_any_text_stay_in_their_folder(path: str) -> None:
    _check_name(path, Path("/folder"))


def _check_name(path: str, folder: Path) -> None:
    name = file_name(path)
    assert (folder / name).resolve().parent == folder.resolve()
    assert name.isascii()
    assert name.isprintable()
    assert 0 < len(name) <= 100
    assert not set(name) & set('/\\:*?"<>|')
    assert not name.startswith(".")
    assert name.split(".")[0].lower() not in ("con", "nul")
    if name != path.rsplit("/", 1)[-1]:
        assert name != file_name(path + "x")


def test_different_hostile_names_do_not_meet() -> None:
    names = [file_name(p) for p in HOSTILE]
    assert len(set(names)) == len(names)


# What the API says


def test_resolve(bench: Bench) -> None:
    bench.archive.add(f"{PATH}.txt", b"longer")
    bench.archive.add(PATH.upper(), b"other case")
    asset = bench.resolve()
    assert asset.asset_id == bench.stored.asset_id
    assert (asset.path, asset.name, asset.size) == (PATH, "sub-1_behavior+ophys.nwb", 400_000)
    assert asset.sha256 == hashlib.sha256(bench.content).hexdigest()
    assert asset.url == f"dandi://{DANDISET}@{VERSION}/{PATH}"
    assert asset.urls[1].startswith(bench.archive.storage)
    assert not asset.is_zarr
    assert not asset.is_embargoed
    assert resolve(asset.url) == asset
    by_id = resolve(f"{bench.archive.api}/assets/{asset.asset_id}/download/")
    assert (by_id.sha256, by_id.path) == (asset.sha256, asset.path)
    assert resolve(by_id.url) == by_id
    assert all(r.headers["Authorization"] == f"token {KEY}" for r in bench.archive.requests)
    bench.archive.published = None
    assert bench.resolve().address.version == "draft"


def test_resolve_says_what_else_there_is(bench: Bench) -> None:
    with pytest.raises(DataError, match=r"is a folder of version .* with 'sub-1/sub-1_beh"):
        resolve(f"dandi://{DANDISET}/sub-1")
    with pytest.raises(DataError, match=r"found none. Near it are: sub-1/sub-1_behavior\+ophys"):
        resolve(f"dandi://{DANDISET}/{PATH.replace('+', '_')}")
    with pytest.raises(NetworkError, match=r"status 404 \(Not Found\)\. Check dandiset"):
        resolve("dandi://999999/a.nwb")


def test_zarr_is_not_streamed(bench: Bench) -> None:
    bench.stored.listed |= {"zarr": ID, "blob": None}
    asset = bench.resolve()
    assert asset.is_zarr
    with pytest.raises(DataError, match=r"Zarr-backed: a folder of many files\. Get it with"):
        open_remote(asset).__enter__()
    assert not bench.archive.data


def test_embargoed(bench: Bench) -> None:
    bench.stored.listed["metadata"] = {"access": [{"status": "dandi:EmbargoedAccess"}]}
    assert bench.resolve().is_embargoed


def test_no_access_asks_for_a_key(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.archive.api_faults[:] = ["401", "403"]
    with pytest.raises(NetworkError, match="The key in DANDI_API_KEY does not allow it"):
        bench.resolve()
    monkeypatch.delenv("DANDI_API_KEY")
    with pytest.raises(NetworkError, match="It is not public: set DANDI_API_KEY"):
        bench.resolve()
    assert "Authorization" not in bench.archive.requests[-1].headers
    assert not bench.waits


@pytest.mark.parametrize("fault", ["500", "429", "503", "short", "gzip", "reset", "stall 0.5"])
def test_the_api_may_stumble(bench: Bench, fault: str) -> None:
    bench.archive.api_faults[:] = [fault, "", fault]
    assert bench.resolve().size == 400_000
    assert len(bench.waits) == (0 if fault == "gzip" else 2)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("not-json", "no JSON"),
        ("loop", "10 redirects"),
        ("redirect http://example.org/a?secret=1", "'http', which is not https"),
        ("redirect file:///etc/passwd", "'file', which is not https"),
        ("redirect http://[", "not well formed"),
        ("429 9999", "asks to wait 9999 s"),
        ("418", "status 418"),
        ("299", "status 299"),
    ],
)
def test_an_api_that_is_none_is_told_at_once(bench: Bench, fault: str, says: str) -> None:
    bench.archive.api_faults[:] = [fault]
    with pytest.raises(NetworkError) as told:
        bench.resolve()
    assert says in str(told.value)
    assert "secret" not in str(told.value)
    assert told.value.exit_code == 4
    assert not bench.waits


@pytest.mark.parametrize(
    "listed",
    [
        {"size": -1},
        {"size": "5"},
        {"size": 2**70},
        {"path": 7},
        {"path": "../other"},
        {"size": True},
        {"metadata": {"access": 7}},
    ],
)
def test_odd_facts_are_refused(bench: Bench, listed: dict[str, Any]) -> None:
    bench.stored.listed |= listed
    with pytest.raises(NetworkError, match="must answer as DANDI's does"):
        bench.resolve()


def test_odd_lists_are_refused(bench: Bench) -> None:
    bench.archive.api_faults[:] = ["", "", "json 5"]
    bench.archive.files.clear()  # the second list is of names that are near
    with pytest.raises(NetworkError, match="must answer as DANDI's does; found no list of assets"):
        bench.resolve()
    assert len(bench.archive.requests) == 3


def test_names_of_the_archive_stay_in_their_line(bench: Bench) -> None:
    bench.archive.add(f"{PATH}\ngrevy: fine", b"")
    bench.archive.add(f"{PATH}/in\x1b[2Jside", b"")
    for path, says in (
        (PATH[:-1], r"Near it are: .*nwb\?grevy: fine"),
        (PATH[:5], r"in\?\[2Jside'"),
    ):
        with pytest.raises(DataError, match=says) as told:
            resolve(f"dandi://{DANDISET}/{path}")
        assert str(told.value).isprintable()


@pytest.mark.parametrize(
    ("api", "begin"),
    [
        (True, "drip HTTP/1.1 200 OK\\r\\nX-Long: "),
        (True, "drip HTTP/1.1 200 OK\\r\\nContent-Length: 999\\r\\n\\r\\n"),
        (False, "drip"),
    ],
)
def test_a_server_that_drips_is_left(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, api: bool, begin: str
) -> None:
    monkeypatch.setattr(pace, "WINDOW_S", 0.1)
    asset = bench.resolve()
    (bench.archive.api_faults if api else bench.archive.faults)[:] = [begin] * 2
    retry = replace(bench.retry, attempts=2)
    start = time.monotonic()
    with pytest.raises(NetworkError, match="found no answer in time, 2 times in a row"):
        resolve(bench.url, retry=retry) if api else dandi.download(asset, bench.folder, retry=retry)
    assert time.monotonic() - start < 1
    assert bench.download().read_bytes() == bench.content


def test_answers_of_the_api_end_in_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_JSON_S", 0)
    with pytest.raises(NetworkError, match="takes more than 0 s"):
        bench.resolve()


def test_paths_and_digests_of_the_server_stay_inside(bench: Bench) -> None:
    wrong = {"dandi:sha2-256": "../../" + "a" * 58, "dandi:dandi-etag": "/etc-1"}
    bench.stored.listed |= {"path": "../../../x\0y", "metadata": {"digest": wrong}}
    asset = resolve(f"{bench.archive.api}/assets/{bench.stored.asset_id}/")
    assert (asset.sha256, asset.etag) == ("", "")
    with pytest.raises(DataError, match=f"must list a digest of '{asset.name}'"):
        dandi.download(asset, bench.folder)
    digest = {"dandi:sha2-256": hashlib.sha256(bench.content).hexdigest()}
    bench.stored.listed["metadata"] = {"digest": digest}
    asset = resolve(f"{bench.archive.api}/assets/{bench.stored.asset_id}/")
    path = dandi.download(asset, bench.folder / "in")
    assert path.resolve().is_relative_to((bench.folder / "in").resolve())
    assert [p for p in bench.folder.rglob("*") if p.is_file()] == [path]


# Download


def test_download_and_a_second_run_that_fetches_nothing(bench: Bench) -> None:
    told: list[tuple[int, int]] = []
    path = dandi.download(bench.url, bench.folder, on_progress=lambda n, of: told.append((n, of)))
    assert path == bench.folder / "sub-1_behavior+ophys.nwb"
    assert path.read_bytes() == bench.content
    assert bench.left() == [path.name]
    assert told == sorted(told)
    assert told[-1] == (400_000, 400_000)
    assert (len(bench.archive.data), bench.archive.sent) == (1, 400_000)
    bench.archive.requests.clear()
    assert bench.download() == path
    assert bench.archive.data == []
    assert all("download" not in r.path for r in bench.archive.requests)


@pytest.mark.parametrize(
    "faults",
    [
        ["500"],
        ["503", "502", "500"],
        ["429 2"],
        ["403"],  # an expired link
        ["400"],
        ["reset"],
        ["stall 0.6"],
        ["short"],
        ["unannounced"],
        ["cut 100000"],
        ["hold 100000"],  # silence in the middle
        ["short", "short", "short"],
        ["short", "ignore-range"],
        ["short", "ignore-range-short 1000"],
        ["short", "other"],  # changed on its way, and told so by If-Range
        ["short", "mixed"],  # changed, and only the ETag tells
        ["other-short 90000"],  # begins with other content
        ["short", "403", "500", "cut 5000", "reset"],
        ["damaged"],
        ["short", "damaged"],
    ],
)
def test_trouble_that_passes(bench: Bench, faults: list[str]) -> None:
    bench.archive.faults[:] = list(faults)
    path = bench.download()
    assert path.read_bytes() == bench.content
    assert bench.left() == [path.name]
    assert not bench.archive.faults
    assert all(0 < w <= 30 for w in bench.waits)


def test_every_byte_is_fetched_once(bench: Bench) -> None:
    bench.archive.faults[:] = ["short 100000", "cut 100000", "503", "short 100000"]
    bench.download()
    begins = [r.headers["Range"] for r in bench.archive.data if r.sent]
    assert begins[0] == "bytes=0-399999"
    assert begins[-1].startswith("bytes=")
    # What a connection brought before it broke may be lost in a buffer, no more.
    assert 400_000 <= bench.archive.sent <= 400_000 + 3 * (1 << 16)
    assert [r.headers.get("If-Range") for r in bench.archive.data][1:] == ['"one"'] * 4


def test_content_that_changed_is_seen_before_all_of_it_is_there(bench: Bench) -> None:
    bench.archive.faults[:] = ["short", "mixed"]
    assert bench.download().read_bytes() == bench.content
    assert len(bench.waits) == 2  # the second answer was refused
    assert bench.archive.data[-1].headers["Range"] == "bytes=0-399999"


def test_a_server_that_asks_to_wait_is_waited_for(bench: Bench) -> None:
    bench.archive.faults[:] = ["429 17", "503", "500"]
    bench.download()
    assert bench.waits[0] == 17
    assert 0.5 <= bench.waits[1] <= 1  # the second wait, less up to a half
    assert 1 <= bench.waits[2] <= 2
    date = http.email.utils.formatdate(time.time() + 50, usegmt=True)
    assert 45 < http._asked(date) <= 50
    assert http._asked("soon") == http._asked("") == http._asked("Mon, 99 Nov") == 0


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("gzip", "compressed on its way"),
        ("wrong-range", "another part"),
        ("endless-size", "another part"),
        ("wrong-size", "a file of 400001 bytes where DANDI lists 400000"),
        ("loop", "10 redirects"),
        ("redirect http://example.org/a?X-Amz-Signature=1", "not https"),
        ("404", "status 404"),
        ("416", "ends before byte"),
    ],
)
def test_trouble_that_does_not_pass(bench: Bench, fault: str, says: str) -> None:
    bench.archive.faults[:] = ["short 100000", fault]
    with pytest.raises(NetworkError) as told:
        bench.download()
    assert says in str(told.value)
    assert "?" not in str(told.value)
    assert len(bench.waits) == 1
    (left,) = bench.left()  # the part that is there is kept
    assert left.endswith(".part")
    bench.archive.faults.clear()
    assert bench.download().read_bytes() == bench.content


def test_a_server_that_stays_down_is_left_after_some_tries(bench: Bench) -> None:
    bench.archive.faults[:] = ["short 100000", *["503"] * 20]
    with pytest.raises(NetworkError, match=r"status 503 .*, 7 times in a row\. Check the network"):
        bench.download()
    assert len(bench.archive.data) == 7
    assert bench.waits[-1] > bench.waits[0]
    with pytest.raises(NetworkError) as told:
        resolve("dandi://000036/a", api="http://127.0.0.1:9/api", retry=bench.retry)
    assert "no connection, 7 times in a row" in str(told.value)


def test_no_library_hangs_on_the_error(bench: Bench) -> None:
    bench.archive.faults[:] = ["reset"] * 20
    with pytest.raises(NetworkError) as told:
        bench.download()
    assert told.value.__cause__ is None
    assert told.value.__context__ is None


def test_progress_begins_the_count_anew() -> None:
    waits: list[float] = []
    have = [0]

    def attempt() -> int:
        if have[0] > 20_000_000:
            return have[0]
        have[0] += 2_000_000
        raise Trouble("https://host/path", "nothing", passes=True)

    retry = Retry(attempts=2, sleep=waits.append)
    assert patiently(retry, attempt, done=lambda: have[0]) > 20_000_000
    assert len(waits) == 11
    assert max(waits) <= 0.5
    have[0] = 0
    with pytest.raises(NetworkError):
        patiently(retry, attempt)


@pytest.mark.parametrize("n", [2, 3])
def test_wrong_bytes_are_never_kept(bench: Bench, n: int) -> None:
    bench.archive.faults[:] = ["damaged", "damaged", "damaged"][:n]
    with pytest.raises(NetworkError, match="must have the sha256 that DANDI lists"):
        bench.download()
    assert bench.left() == []


def test_content_replaced_half_way_is_never_mixed(bench: Bench) -> None:
    new = np.random.default_rng(2).bytes(400_000)
    old_asset = bench.resolve()
    bench.archive.faults[:] = ["short 200000", *["503"] * 6]
    with pytest.raises(NetworkError):
        bench.download()
    bench.stored.content, bench.stored.etag = new, '"two"'
    with pytest.raises(NetworkError, match="sha256"):  # the old digest, the new content
        dandi.download(old_asset, bench.folder, retry=bench.retry)
    assert bench.left() == []
    assert bench.download().read_bytes() == new


def test_the_part_of_another_digest_is_discarded(bench: Bench) -> None:
    bench.folder.mkdir()
    name = "sub-1_behavior+ophys.nwb"
    right = hashlib.sha256(bench.content).hexdigest()
    (bench.folder / f".{name}.{'0' * 64}.part").write_bytes(b"old")
    (bench.folder / f".{name}.{right}.part").write_bytes(bytes(500_000))  # too long
    assert bench.download().read_bytes() == bench.content
    assert bench.left() == [name]


@pytest.mark.parametrize("kind", ["link", "hard link", "dangling", "pipe"])
def test_nothing_is_written_through_what_lies_in_the_place_of_a_part(
    bench: Bench, tmp_path: Path, kind: str
) -> None:
    bench.folder.mkdir()
    diary, gone = tmp_path / "diary", tmp_path / "gone"
    diary.write_bytes(b"dear diary")
    name = "sub-1_behavior+ophys.nwb"
    part = bench.folder / f".{name}.{hashlib.sha256(bench.content).hexdigest()}.part"
    if kind == "hard link":
        part.hardlink_to(diary)
    elif kind == "pipe":
        os.mkfifo(part)
    else:
        part.symlink_to(diary if kind == "link" else gone)
    assert bench.download().read_bytes() == bench.content
    assert not (bench.folder / name).is_symlink()
    assert diary.read_bytes() == b"dear diary"
    assert not gone.exists()
    part.symlink_to(diary)  # between the look and the write
    with pytest.raises(OSError, match="symbolic links"):
        open_partial(part)


@pytest.mark.parametrize("there", [b"", b"half", None])
def test_a_file_that_is_there_is_not_trusted_and_not_lost(
    bench: Bench, there: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    there = bytes(b ^ 1 for b in bench.content) if there is None else there
    bench.folder.mkdir()
    (bench.folder / "sub-1_behavior+ophys.nwb").write_bytes(there)
    path = bench.download()
    assert path.read_bytes() == bench.content
    other = bench.folder / "sub-1_behavior+ophys.other1.nwb"
    assert other.read_bytes() == there
    assert other.name in caplog.text
    assert len(bench.left()) == 2


KILLED = """
import sys
from grevy import dandi
dandi.download(sys.argv[1], sys.argv[2])
"""


def test_a_killed_download_goes_on(bench: Bench) -> None:
    bench.archive.faults[:] = ["hold 390000"]
    child = subprocess.Popen([sys.executable, "-c", KILLED, bench.url, str(bench.folder)])
    deadline = time.monotonic() + 30
    part: list[Path] = []
    while not part or part[0].stat().st_size < 1 << 18:
        part = list(bench.folder.glob(".*.part"))
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    assert child.wait(10) == -signal.SIGKILL
    assert not list(bench.folder.glob("*.nwb"))
    had = part[0].stat().st_size
    assert had >= 1 << 18
    bench.archive.requests.clear()
    assert bench.download().read_bytes() == bench.content
    (request,) = bench.archive.data
    assert request.headers["Range"] == f"bytes={had}-399999"
    assert request.sent == 400_000 - had
    assert len(bench.left()) == 1


def test_two_processes_do_not_meet(bench: Bench) -> None:
    bench.folder.mkdir()
    name = "sub-1_behavior+ophys.nwb"
    with (
        hold(bench.folder / f".{name}.lock", "x", advice="y"),
        pytest.raises(
            LockedError, match=rf"{re.escape(name)} is in use by .*:{os.getpid()}; wait until"
        ),
    ):
        bench.download()
    assert not bench.archive.data
    assert bench.download().exists()


def test_etags_of_parts(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    md5 = hashlib.md5(bench.content).digest()
    etag = f"{hashlib.md5(md5).hexdigest()}-1"
    bench.stored.listed["metadata"] = {"digest": {"dandi:dandi-etag": etag}}
    assert bench.download().read_bytes() == bench.content
    bench.archive.requests.clear()
    assert bench.download()
    assert not bench.archive.data
    rng = np.random.default_rng(0)
    monkeypatch.setattr(digests, "_PART", 1000)
    monkeypatch.setattr(digests, "_MOST_PARTS", 8)
    monkeypatch.setattr(digests, "_PIECE", 64)
    for size in (0, 1, 999, 1000, 1001, 6999, 7000, 7001, 8000, 8001, 20_000):
        content = rng.bytes(size)
        (tmp_path / "file").write_bytes(content)
        part = 1000 if size <= 7000 else -(-size // 8)
        pieces = [content[i : i + part] for i in range(0, size, part)]
        whole = b"".join(hashlib.md5(piece).digest() for piece in pieces)
        expected = f"{hashlib.md5(whole).hexdigest()}-{len(pieces)}"
        assert digests.etag_of(tmp_path / "file") == expected, size


def test_an_empty_file(bench: Bench) -> None:
    stored = bench.archive.add("empty.nwb", b"")
    path = dandi.download(bench.archive.url(stored), bench.folder)
    assert path.read_bytes() == b""
    assert not bench.archive.data


# The disk


def test_a_disk_that_is_too_small_is_told_before(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(bench.folder.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(LimitError, match=r"room for 0\.4 MB more of .*; found 0\.001 MB"):
        bench.download()
    assert not bench.archive.data


@pytest.mark.parametrize(
    ("number", "kind", "says"),
    [
        (errno.ENOSPC, LimitError, "Make room and run the same command again"),
        (errno.EROFS, ConfigError, "Read-only file system. Choose another"),
        (errno.EACCES, ConfigError, "Permission denied"),
    ],
)
def test_a_disk_that_fails_half_way(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[GrevyError], says: str
) -> None:
    def fails(done: int, _: int) -> None:
        if done > 200_000:
            raise OSError(number, os.strerror(number))

    with pytest.raises(kind, match=says):
        dandi.download(bench.url, bench.folder, on_progress=fails)
    assert [name[-5:] for name in bench.left()] == [".part"]
    assert bench.download().read_bytes() == bench.content
    assert len(bench.left()) == 1


def test_a_folder_that_cannot_be_one(bench: Bench) -> None:
    bench.folder.write_text("a file")
    with pytest.raises(
        ConfigError, match=r"must be one that can be written; found: (Not a|File ex)"
    ):
        bench.download()
    if os.geteuid():
        bench.folder.unlink()
        bench.folder.mkdir(mode=0o500)
        with pytest.raises(ConfigError, match="Permission denied"):
            bench.download()


# Secrets


def test_the_key_goes_to_the_api_alone_and_into_no_text(
    bench: Bench, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    said = []
    bench.archive.api_faults[:] = ["500", "", "", "", f"redirect {bench.archive.storage}/elsewhere"]
    bench.archive.faults[:] = ["404", "short", *["reset", "403", "stall 0.4"] * 4]
    for _ in range(4):
        try:
            bench.download()
        except NetworkError as error:
            said.append(f"{error!r} {error.__dict__}")
    assert len(said) >= 2
    with open_remote(bench.resolve(), retry=bench.retry) as remote:
        said.append(repr(remote))
    assert bench.download().exists()
    assert caplog.text  # the log of urllib3 is part of it
    assert "/blobs/" in caplog.text
    assert any("signed" in r.path for r in bench.archive.data)
    files = "".join(p.name + p.read_bytes().decode("latin-1") for p in bench.folder.rglob("*"))
    everything = "".join([caplog.text, *capfd.readouterr(), *said, files])
    assert [secret for secret in SECRETS if secret in everything] == []
    hosts = {r.host for r in bench.archive.requests if KEY in str(r.headers)}
    assert hosts == {"api"}
    assert "/elsewhere" in [r.path for r in bench.archive.data]


@pytest.mark.parametrize("key", ["one two", "a\nb", "schlüssel"])
def test_a_key_that_is_none(bench: Bench, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("DANDI_API_KEY", key)
    with pytest.raises(ConfigError, match="DANDI_API_KEY must be a key") as told:
        bench.resolve()
    assert key not in str(told.value)
    assert not bench.archive.requests


def test_netrc_and_proxies_are_not_for_this(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password other-secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("DANDI_API_KEY")
    bench.download()
    assert not any("Authorization" in r.headers for r in bench.archive.requests)


@pytest.mark.parametrize(
    "api", ["http://example.org/api", "ftp://x", "https://me:pw@host/api", "x"]
)
def test_the_api_must_be_https(api: str) -> None:
    with pytest.raises(ConfigError, match="must begin with https") as told:
        resolve("dandi://000036/a.nwb", api=api)
    assert "pw" not in str(told.value)


# Streaming


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout of DANDI 000036 at a tenth of its size, most of it pictures."""
    session = synthetic.openscope(
        movies=11, n_repeats=2, n_frames=150, n_cells=41, frame_shape=(60, 96)
    )
    return nwb.write_openscope(tmp_path_factory.mktemp("small") / "small.nwb", session)


@pytest.fixture(scope="module")
def local(small: Path) -> Recording:
    """What it holds."""
    return nwb.read(small)


@pytest.fixture
def streamed(bench: Bench, small: Path) -> Asset:
    """The same in the archive."""
    return resolve(bench.archive.url(bench.archive.add("sub-2/small.nwb", small.read_bytes())))


def test_streaming_reads_what_is_needed(
    bench: Bench, small: Path, local: Recording, streamed: Asset
) -> None:
    bench.archive.requests.clear()
    with open_remote(streamed) as remote:
        far = nwb.read(remote)
    assert np.array_equal(far.activity, local.activity)
    assert np.array_equal(far.times_s, local.times_s)
    assert far.stimulus is not None
    assert local.stimulus is not None
    assert np.array_equal(far.stimulus.frame, local.stimulus.frame)
    assert far.name == "small.nwb"
    assert far.notes == local.notes
    assert len(bench.archive.data) == remote.n_requests <= 40
    assert remote.n_bytes == bench.archive.sent < 0.4 * small.stat().st_size
    assert bench.archive.links == 1
    with open_remote(streamed) as remote:
        facts = nwb.describe(remote)
    assert facts.activity == nwb.describe(small).activity
    assert facts.file.path == streamed.url
    assert facts.file.size_bytes == small.stat().st_size
    assert facts.suggestion.startswith(f"grevy run {streamed.url}")


def test_open_files_stay_open(small: Path, local: Recording) -> None:
    with h5py.File(small) as file:
        assert np.array_equal(nwb.read(file).activity, local.activity)
        assert nwb.describe(file).file.path == str(small)
        assert file.id.valid
    with small.open("rb") as raw:
        assert nwb.read(raw).name == "small.nwb"
        assert not raw.closed
    with Path(__file__).open("rb") as raw, pytest.raises(DataError, match="whole HDF5 file"):
        nwb.read(raw)


@pytest.mark.parametrize("after", [0, 5, 100, 300])
def test_a_failure_that_an_open_file_tells_is_no_damage(small: Path, after: int) -> None:
    class Failing:
        """A file that fails at some read, and lets HDF5 know no more than that."""

        def __init__(self, raw: BinaryIO) -> None:
            self.raw, self.failure, self.left = raw, "", after
            self.seek, self.tell, self.read = raw.seek, raw.tell, raw.read

        def readinto(self, buffer: Any) -> int:
            self.left -= 1
            if self.left < 0:
                self.failure = "the line is cut."
                raise OSError("no")
            return self.raw.readinto(buffer)

        def flush(self) -> None: ...

    with small.open("rb") as raw, pytest.raises(NetworkError, match="the line is cut"):
        nwb.read(Failing(raw))
    with small.open("rb") as raw:
        whole = Failing(raw)
        whole.left = 10_000
        with pytest.raises(NetworkError, match="late"), open_nwb(whole):
            whole.failure = "late"


def test_blocks_read_as_the_file_does(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    monkeypatch.setattr("grevy.dandi.remote.BLOCK_BYTES", 1000)
    monkeypatch.setattr("grevy.dandi.remote.AHEAD_BYTES", 7000)
    with open_remote(bench.resolve(), memory_bytes=20_000) as remote:
        most = 0
        for _ in range(40):
            start = int(rng.integers(0, 400_100))
            n = int(rng.choice([1, 10, 999, 1000, 1001, 5000, 30_000]))
            assert remote.seek(start) == start
            assert remote.read(n) == bench.content[start : start + n]
            assert remote.tell() == max(start, min(start + n, 400_000))
            most = max(most, len(remote._blocks))
        assert most <= 20
        assert remote.seek(-7, os.SEEK_END) == 399_993
        assert remote.read() == bench.content[-7:]
        assert remote.read() == b""
        assert remote.seek(-3, os.SEEK_CUR) == 399_997
        buffer = bytearray(10)
        assert remote.readinto(buffer) == 3
        assert buffer == bench.content[-3:] + bytes(7)
        remote.seek(0)
    with pytest.raises(NetworkError, match="found it closed"):
        remote.read(1)


def test_reading_on_asks_for_more_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grevy.dandi.remote.BLOCK_BYTES", 1000)
    monkeypatch.setattr("grevy.dandi.remote.AHEAD_BYTES", 64_000)
    with open_remote(bench.resolve()) as remote:
        for _ in range(400):
            remote.read(1000)
        assert remote.n_requests == 12  # 1, 2, 4, ... 64 blocks, then 64 each
        assert remote.n_bytes == 400_000
        remote.seek(0)
        assert remote.read() == bench.content
        assert remote.n_requests == 12


@pytest.mark.parametrize(
    "faults",
    [
        ["500"],
        ["429 3"],
        ["reset"],
        ["stall 0.5"],
        ["short"],
        ["cut 1000"],
        ["unannounced 1000"],
        ["", "", "403"],
    ],
)
def test_streaming_through_trouble(
    bench: Bench, local: Recording, streamed: Asset, faults: list[str]
) -> None:
    bench.archive.faults[:] = list(faults)
    with open_remote(streamed, retry=bench.retry) as remote:
        assert np.array_equal(nwb.read(remote).activity, local.activity)
    assert len(bench.waits) == 1
    assert bench.archive.links == 2  # whatever happened, the link was asked for anew


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("ignore-range", "another part of the file than the one asked for"),
        ("mixed", "content that changed while it was read"),
        ("wrong-range", "another part"),
        ("wrong-size", "bytes where DANDI lists"),
        ("gzip", "compressed"),
        ("404", "status 404"),
    ],
)
@pytest.mark.parametrize("after", [1, 8])
def test_streaming_fails_as_a_matter_of_the_network(
    bench: Bench, streamed: Asset, fault: str, says: str, after: int
) -> None:
    bench.archive.faults[:] = [""] * after + [fault]
    with open_remote(streamed, retry=bench.retry) as remote:
        for act in (nwb.describe, nwb.read):
            with pytest.raises(NetworkError) as told:
                act(remote)
            assert says in str(told.value)
    assert len(bench.archive.data) == after + 1
    assert "?" not in str(told.value)


# The command line


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
    streamed: Asset,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    url = f"dandi://{DANDISET}/{streamed.path}"
    code, out, err = run(capsys, "inspect", url)
    assert code == 0
    assert f"grevy run {streamed.url}" in out
    assert bench.archive.sent < 0.4 * streamed.size
    code, out, _ = run(capsys, "download", url, "--out", "here")
    assert (code, out) == (0, f"{Path('here/small.nwb')}\n")
    assert Path("here/small.nwb").stat().st_size == streamed.size
    assert run(capsys, "download", "dandi://000036", "--out", "here")[0] == 2
    bench.archive.api_faults[:] = ["404"]
    assert run(capsys, "inspect", url)[0] == 4
    assert KEY not in err + out


def test_run_keeps_the_recording_and_its_version(
    bench: Bench,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    session = synthetic.openscope(movies=2, n_repeats=3, n_frames=90, n_cells=8)
    content = nwb.write_openscope(tmp_path / "x.nwb", session).read_bytes()
    asset = resolve(bench.archive.url(bench.archive.add("sub-3/tiny.nwb", content)))
    url = f"dandi://{DANDISET}/sub-3/tiny.nwb"
    few = ["--steps", "5", "--latents", "3", "--temperature", "1", "--folds", "2", "--nulls", "0"]
    code, out, _ = run(capsys, "run", url, "--stimuli", "mousecam", *few, "--quiet")
    assert code == 0
    assert out.strip() == str(Path("tiny-grevy/report.html"))
    kept = tmp_path / "caches/grevy/dandi" / asset.sha256[:16] / "tiny.nwb"
    assert kept.read_bytes() == content
    assert f'file = "{asset.url}"' in Path("tiny-grevy/run.toml").read_text()
    assert asset.url in Path("tiny-grevy/report.html").read_text()
    files = [p for p in (tmp_path / "tiny-grevy").rglob("*") if p.is_file()]
    assert not [p for p in files if any(s.encode() in p.read_bytes() for s in SECRETS)]
    code, _, err = run(capsys, "run", url, "--quiet")
    assert code == 2
    assert "holds a finished run" in err
    bench.archive.requests.clear()

    def stub(
        recording: Recording, config: RunConfig, out: Path, *, quiet: bool, checkpoint_s: float
    ) -> Path:
        assert (recording.name, config.file, out) == ("tiny.nwb", asset.url, Path("b"))
        return out / "report.html"

    monkeypatch.setattr(pipeline, "run_recording", stub)
    again = ["run", "--config", "tiny-grevy/run.toml", "--out", "b", "--quiet"]
    assert run(capsys, *again)[0] == 0
    assert not bench.archive.data
    assert run(capsys, *again, "--cache", "other")[0] == 0
    assert bench.archive.sent == len(content)


def test_a_failure_ends_the_process_with_its_code(bench: Bench, streamed: Asset) -> None:
    bench.archive.faults[:] = ["404"]
    words = [sys.executable, "-m", "grevy", "inspect", streamed.url]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 4  # and not by a fault in HDF5, at its end
    assert done.stderr.count("\n") == 1
    assert "status 404" in done.stderr


def test_what_hdf5_dies_on_afar_is_one_sentence(
    bench: Bench, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "round.nwb"
    with new(path) as file:
        group = traces(file, noise(50, 3), np.arange(50) / 10, rois=3)
        del group["timestamps"]
        name = f"{group.name}/timestamps"
        for one, other in ((name, "other"), ("other", name)):
            layout = h5py.VirtualLayout((50,), "f8")
            layout[:] = h5py.VirtualSource(".", other, (50,))
            file.create_virtual_dataset(one, layout)
    url = bench.archive.url(bench.archive.add("sub-1/round.nwb", path.read_bytes()))
    code, _, err = run(capsys, "inspect", url)
    assert code == 2
    assert re.search(r"round\.nwb must be a whole file; .* crashed .SIGSEGV. on it", err)


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_command_that_waits_for_hdf5_ends_when_it_is_told_to(
    bench: Bench, tmp_path: Path
) -> None:
    content = hanging(tmp_path / "zeros.nwb").read_bytes()
    url = bench.archive.url(bench.archive.add("sub-1/zeros.nwb", content))
    words = [sys.executable, "-m", "grevy", "inspect", url]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as command:
        try:
            until(lambda: bench.archive.data, "the file was opened")
            children = Path(f"/proc/{command.pid}/task/{command.pid}/children").read_text().split()
            time.sleep(0.3)  # now HDF5 holds Python's lock, and no signal is heard in there
            begin = time.monotonic()
            command.send_signal(signal.SIGINT)
            assert "interrupted" in command.communicate(timeout=20)[1]
        finally:
            command.kill()
    assert command.returncode == 130
    assert time.monotonic() - begin < 5
    until(lambda: not any(map(runs, children)), "the child ended, too")


def runs(process: str) -> bool:
    """Whether a process is there that is no zombie."""
    with suppress(FileNotFoundError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def until(holds: Callable[[], object], what: str) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def test_without_etags_the_digest_alone_tells(bench: Bench) -> None:
    bench.stored.etag = ""
    bench.archive.faults[:] = ["short", "", "short"]
    assert bench.download().read_bytes() == bench.content
    with open_remote(bench.resolve(), retry=bench.retry) as remote:
        assert remote.read() == bench.content


def test_the_cache_is_where_it_is_asked_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asset = bench.resolve()
    assert dandi.cache_folder(asset, "x") == Path("x/dandi") / asset.sha256[:16]
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    assert dandi.cache_folder(asset).is_relative_to("/home/me/.cache/grevy/dandi")
    assert _verified(Path("/no/such/file"), asset) is False
