"""Connections on which an answer must keep a least pace.

A silent server is left after a time, but one that sends a byte within each such time is never
silent, and would hold a command for ever. So what is counted is bytes for the time that was waited
for them, headers and all.
"""

from __future__ import annotations

import http.client
import io
import time
from typing import Any, cast

import requests
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

__all__ = ["Paced"]

WINDOW_S = 120.0
"""So long an answer may be too slow, or unfinished however small it is."""
LEAST_BYTES_PER_S = 1000.0


class _Read(io.RawIOBase):
    """What a socket receives, while it comes in time."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw, self._waited_s, self._n_bytes = raw, 0.0, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._waited_s > WINDOW_S:
            if self._n_bytes < LEAST_BYTES_PER_S * self._waited_s:
                raise TimeoutError("Read timed out: too slow")
            self._waited_s, self._n_bytes = 0.0, 0
        begin = time.monotonic()
        got = self._raw.readinto(buffer)
        self._waited_s += time.monotonic() - begin
        self._n_bytes += got or 0
        return cast("int | None", got)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.fp = io.BufferedReader(_Read(self.fp.detach()))


class _Http(HTTPConnection):
    response_class = _Response


class _Https(HTTPSConnection):
    response_class = _Response


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Https


class Paced(requests.adapters.HTTPAdapter):
    """For sessions of requests: what comes too slowly is `requests.Timeout`, or a broken answer."""

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        """As requests does it, with paced connections."""
        super().init_poolmanager(*args, **more)
        _pace(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **more: Any) -> Any:
        """As requests does it, with paced connections."""
        return _pace(super().proxy_manager_for(*args, **more))


def _pace(manager: Any) -> Any:
    manager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
    return manager
