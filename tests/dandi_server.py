"""A small DANDI on this machine: an API and a storage, which misbehave on demand.

Each is a server of its own, so that their origins differ as those of DANDI's do. What they shall do
wrong is a list of words, taken one a request; when it is empty they behave.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import socket
import struct
import threading
import time
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

DANDISET, VERSION = "000036", "0.230515.1917"
_FLIPPED = bytes(b ^ 1 for b in range(256))


@functools.lru_cache
def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class Stored:
    """A file of the archive; `listed` says what the API says of it, where that is not so."""

    path: str
    content: bytes
    asset_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    etag: str = '"one"'
    listed: dict[str, Any] = field(default_factory=dict)

    def info(self, api: str, storage: str) -> dict[str, Any]:
        """What /assets/ID/info/ answers."""
        plain = {
            "asset_id": self.asset_id,
            "blob": str(uuid.UUID(int=1)),
            "zarr": None,
            "path": self.path,
            "size": len(self.content),
        }
        metadata = {
            "digest": {"dandi:sha2-256": _sha256(self.content)},
            "contentUrl": [f"{api}/assets/{self.asset_id}/download/", f"{storage}/blobs/x"],
            "access": [{"status": "dandi:OpenAccess", "schemaKey": "AccessRequirements"}],
            "encodingFormat": "application/x-nwb",
        }
        plain["metadata"] = metadata | self.listed.get("metadata", {})
        return plain | {k: v for k, v in self.listed.items() if k != "metadata"}


@dataclass
class StoredFolder(Stored):
    """A folder of Zarr: `files` are what the storage has, `listing` what the API says of them.

    The checksum is what `tree` says: it is computed by whoever tests it.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    tree: str = ""
    zarr_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    listing: list[dict[str, Any]] = field(default_factory=list)
    page: int = 3

    def info(self, api: str, storage: str) -> dict[str, Any]:
        """What /assets/ID/info/ answers."""
        plain = super().info(api, storage)
        plain |= {"blob": None, "zarr": self.zarr_id, "size": int(self.tree.rpartition("-")[2])}
        places = [f"{api}/assets/{self.asset_id}/download/", f"{storage}/zarr/{self.zarr_id}/"]
        plain["metadata"] |= {
            "digest": {"dandi:dandi-zarr-checksum": self.tree},
            "contentUrl": places,
            "encodingFormat": "application/x-zarr",
        }
        plain["metadata"] |= self.listed.get("metadata", {})
        return plain | {k: v for k, v in self.listed.items() if k != "metadata"}

    def lines(self, after: str) -> dict[str, Any]:
        """What /zarr/ID/files/ answers: a page of the list."""
        rest = [one for one in self.listing if one["Key"].encode() > after.encode()]
        following = "https://example.org/elsewhere" if len(rest) > self.page else None
        return {"next": following, "results": rest[: self.page]}


@dataclass
class Request:
    """A request as it came, and the bytes of content sent for it."""

    host: str
    path: str
    headers: dict[str, str]
    sent: int = 0


class Archive:
    """The files, what is to go wrong, and what was asked for."""

    def __init__(self) -> None:
        self.api = self.storage = ""
        self.lock = threading.Lock()
        self.go_on = threading.Event()
        self.reset()

    def reset(self) -> None:
        """Begin anew, empty."""
        self.go_on.set()  # whoever still waits
        self.go_on = threading.Event()
        self.files: dict[str, Stored] = {}
        self.published: str | None = VERSION
        self.api_faults: list[str] = []
        self.faults: list[str] = []
        self.requests: list[Request] = []
        self.links = 0

    def add(self, path: str, content: bytes, **how: Any) -> Stored:
        """Put a file into the archive."""
        stored = Stored(path, content, **how)
        self.files[stored.asset_id] = stored
        return stored

    def add_folder(self, path: str, files: dict[str, bytes], tree: str) -> StoredFolder:
        """Put a folder of Zarr into the archive."""
        stored = StoredFolder(path, b"", files=files, tree=tree)
        for key in sorted(files, key=str.encode):
            etag = hashlib.md5(files[key]).hexdigest()
            stored.listing.append({"Key": key, "Size": len(files[key]), "ETag": etag})
        self.files[stored.asset_id] = stored
        return stored

    def folder(self, zarr_id: str) -> StoredFolder | None:
        """The folder with an id of the storage."""
        folders = (f for f in self.files.values() if isinstance(f, StoredFolder))
        return next((f for f in folders if f.zarr_id == zarr_id), None)

    def url(self, stored: Stored) -> str:
        """Its address."""
        return f"dandi://{DANDISET}/{stored.path}"

    @property
    def data(self) -> list[Request]:
        """Requests to the storage."""
        return [r for r in self.requests if r.host == "storage"]

    @property
    def sent(self) -> int:
        """Bytes of content that the storage sent."""
        return sum(r.sent for r in self.data)


@contextmanager
def serve() -> Iterator[Archive]:
    """An archive while the block runs."""
    archive = Archive()
    servers = []
    for name, kind in (("api", _Api), ("storage", _Storage)):
        handler = type("Handler", (kind,), {"archive": archive})
        server = _Server(("127.0.0.1", 0), handler)
        servers.append(server)
        base = f"http://127.0.0.1:{server.server_address[1]}"
        setattr(archive, name, f"{base}/api" if name == "api" else base)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield archive
    finally:
        archive.go_on.set()
        for server in servers:
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Say nothing: connections break here all the time."""


class _Handler(BaseHTTPRequestHandler):
    archive: Archive
    host: str
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits 40 ms for its body

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Note the request, go wrong if that is due, answer otherwise."""
        self.request_ = Request(self.host, self.path, dict(self.headers))
        with self.archive.lock:
            self.archive.requests.append(self.request_)
            faults = self.archive.api_faults if self.host == "api" else self.archive.faults
            self.fault = faults.pop(0) if faults else ""
        try:
            self.respond()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def respond(self) -> None:
        """Answer."""
        word, _, more = self.fault.partition(" ")
        if word.isdigit():
            self.plain(int(word), b"no", {"Retry-After": more} if more else {})
        elif word == "loop" or "round=" in self.path:
            self.plain(302, b"", {"Location": "/and-again?round=1"})
        elif word == "redirect":
            self.plain(302, b"", {"Location": more})
        elif word == "stall":
            time.sleep(float(more))
            self.close_connection = True
        elif word == "reset":
            self.reset()
        elif word == "drip" and more:
            self.drip(more.encode().decode("unicode_escape").encode())
        else:
            self.answer()

    def drip(self, begin: bytes) -> None:
        """A beginning, then a byte now and then, for a while."""
        self.wfile.write(begin)
        for _ in range(60):
            self.wfile.write(b"x")
            time.sleep(0.02)
        self.close_connection = True

    def reset(self) -> None:
        """End the connection as a host does that died."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def plain(self, code: int, body: bytes, headers: dict[str, str]) -> None:
        """A whole answer."""
        self.send_response(code)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def answer(self) -> None:
        """What a server that behaves answers."""
        raise NotImplementedError


class _Api(_Handler):
    host = "api"

    def answer(self) -> None:
        """The pages that are needed."""
        split = urlsplit(self.path)
        path, query = split.path.removeprefix("/api"), parse_qs(split.query)
        archive = self.archive
        asset = re.fullmatch(r"/assets/([0-9a-f-]{36})/(info|download)/", path)
        stored = archive.files.get(asset[1]) if asset else None
        inside = re.fullmatch(r"/zarr/([0-9a-f-]{36})/files/", path)
        folder = archive.folder(inside[1]) if inside else None
        if self.fault == "json 5":
            self.json({"results": 5})
        elif self.fault == "not-json":
            self.plain(200, b"<html>Please sign in</html>", {})
        elif folder and query.get("download") == ["true"]:
            archive.links += 1
            place = f"{archive.storage}/zarr/{folder.zarr_id}/{quote(query['prefix'][0])}"
            signed = f"{place}?X-Amz-Signature=signed-secret-{archive.links}"
            self.plain(302, b"", {"Location": signed})
        elif folder and re.search(r"(after|prefix)=(&|$)", split.query):
            self.json({"detail": "This field may not be blank."}, 400)
        elif folder:
            self.json(folder.lines(query.get("after", [""])[0]))
        elif stored and asset and asset[2] == "info":
            self.json(stored.info(archive.api, archive.storage))
        elif stored:
            archive.links += 1
            signed = f"X-Amz-Signature=signed-secret-{archive.links}&id={archive.links}"
            link = f"{archive.storage}/blobs/{stored.asset_id}?{signed}"
            self.plain(302, b"", {"Location": link})
        elif path == f"/dandisets/{DANDISET}/":
            published = archive.published and {"version": archive.published}
            self.json({"identifier": DANDISET, "most_recent_published_version": published})
        elif re.fullmatch(rf"/dandisets/{DANDISET}/versions/({VERSION}|draft)/assets/", path):
            begin = query["path"][0].lower()
            found = [f for f in archive.files.values() if f.path.lower().startswith(begin)]
            found.sort(key=lambda f: f.path)
            self.json({"results": [{"path": f.path, "asset_id": f.asset_id} for f in found[:100]]})
        else:
            self.json({"detail": "Not found."}, 404)

    def json(self, what: Any, code: int = 200) -> None:
        """An answer as JSON; "gzip" packs it, "short" breaks it off."""
        body, headers = json.dumps(what).encode(), {"Content-Type": "application/json"}
        if self.fault == "gzip":
            packer = zlib.compressobj(wbits=31)
            body = packer.compress(body) + packer.flush()
            headers["Content-Encoding"] = "gzip"
        if self.fault == "short":
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
            return
        self.plain(code, body, headers)


class _Storage(_Handler):
    host = "storage"

    def answer(self) -> None:
        """The content, or the part of it that is asked for."""
        word, _, more = self.fault.partition(" ")
        place = unquote(urlsplit(self.path).path)
        if place.startswith("/zarr/"):
            _, _, zarr_id, key = place.split("/", 3)
            folder = self.archive.folder(zarr_id)
            assert folder
            if folder.listed.get("closed") and "?" not in self.path:
                self.plain(403, b"AccessDenied", {})
                return
            content = folder.files[key]
            etag = f'"{hashlib.md5(content).hexdigest()}"'
        else:
            stored = self.archive.files[place.rsplit("/", 1)[-1]]
            content, etag = stored.content, stored.etag
        if word.startswith(("other", "mixed")):  # other content under the same address
            content, etag = content.translate(_FLIPPED), '"other"'
        first, last = 0, len(content) - 1
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        same = self.headers.get("If-Range", etag) == etag or word == "mixed"
        part = bool(asked) and same and not word.startswith("ignore-range")
        if part and asked:
            first, last = int(asked[1]), min(int(asked[2]), last)
        if part and first > last:
            self.plain(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            return
        body = content[first : last + 1]
        self.send_response(206 if part else 200)
        if part:
            shift = 1 if word == "wrong-range" else 0
            whole = len(content) + (1 if word == "wrong-size" else 0)
            size = "9" * 5000 if word == "endless-size" else str(whole)
            self.send_header("Content-Range", f"bytes {first + shift}-{last + shift}/{size}")
        if etag:
            self.send_header("ETag", etag)
        if word == "gzip":
            self.send_header("Content-Encoding", "gzip")
        if word == "unannounced":
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        stop = len(body)
        if word in ("short", "cut", "hold", "other-short", "ignore-range-short", "unannounced"):
            stop = int(more) if more else len(body) // 2
        if word == "drip":
            self.drip(b"")
            return
        if word == "damaged":
            body = body.translate(_FLIPPED)
        for i in range(0, stop, 1 << 16):
            piece = body[i : min(i + (1 << 16), stop)]
            self.wfile.write(piece)
            self.request_.sent += len(piece)
        if word == "hold":
            self.wfile.flush()
            self.archive.go_on.wait(20)
        if word == "cut":
            time.sleep(0.05)  # what was written shall arrive
            self.reset()
        if stop < len(body):
            self.close_connection = True
