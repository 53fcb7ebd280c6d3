"""HTTP for a public archive: patient with passing trouble, careful with the key and signed links.

One place makes requests (`answer`), one decides what is tried again (`patiently`). Redirects are
followed by hand, so that the key goes to the API's host alone and https never becomes http. No text
of a server or of the libraries below enters a message: they may hold the query of a signed link.
"""

from __future__ import annotations

import email.utils
import json
import logging
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode, urljoin, urlsplit

from ..errors import ConfigError, NetworkError
from .address import api_base, is_local

if TYPE_CHECKING:
    import requests

__all__ = ["Retry", "Trouble", "Web", "answer", "fetch_json", "open_web", "patiently", "shown"]

_log = logging.getLogger("grevy")
_T = TypeVar("_T")
_MOST_REDIRECTS = 10
_MOST_JSON = 16 << 20
_JSON_S = 300.0
"""So long all of an answer of the API may take."""
_PROGRESS = 1 << 20
"""So many bytes more than at the last failure, and the count of failures begins anew."""
_PASSING = (408, 425, 429)


@dataclass(frozen=True)
class Retry:
    """How long trouble that may pass is waited for.

    Attributes
    ----------
    attempts : int
        So often a request is tried without progress.
    first_s, most_s : float
        The first wait, and the longest; each is twice the one before, less up to a half by chance.
    asked_s : float
        A server that asks for a longer wait than this is not waited for.
    timeout_s : float
        How long a server may be silent.
    sleep : callable
        What waits.
    """

    attempts: int = 7
    first_s: float = 0.5
    most_s: float = 30.0
    asked_s: float = 120.0
    timeout_s: float = 30.0
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True, eq=False)
class Web:
    """A session with an archive: `open_web` makes it."""

    api: str
    retry: Retry
    key: str = field(repr=False)
    session: requests.Session = field(repr=False)


class Trouble(Exception):
    """An attempt that failed.

    `found` says how, `advice` what to do, `passes` whether another attempt may do better, `wait_s`
    how long the server asks to wait before.
    """

    def __init__(
        self, url: str, found: str, advice: str = "", *, passes: bool = False, wait_s: float = 0.0
    ) -> None:
        super().__init__(found)
        self.where, self.found, self.advice = shown(url), found, advice
        self.passes, self.wait_s = passes, wait_s


@contextmanager
def open_web(api: str | None = None, retry: Retry | None = None) -> Iterator[Web]:
    """A session with the archive; the key is taken from the environment.

    Raises
    ------
    ConfigError
        If the address of the API or the key cannot be used.
    """
    import requests

    from .pace import Paced

    base, key = api_base(api), os.environ.get("DANDI_API_KEY", "").strip()
    if not all("!" <= c <= "~" for c in key):
        raise ConfigError(
            "DANDI_API_KEY must be a key as dandiarchive.org shows it; found characters that no "
            "key has. Set it anew, or unset it for what is public."
        )
    logging.getLogger("urllib3.connectionpool").addFilter(_without_queries)
    with requests.Session() as session:
        for scheme in ("https://", "http://"):
            session.mount(scheme, Paced())
        session.auth = _as_it_is  # or requests would look for a password in ~/.netrc
        yield Web(base, retry or Retry(), key, session)


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _without_queries(record: logging.LogRecord) -> bool:
    """Cut the query off every path that urllib3 logs: signed links must not be in a log."""
    if isinstance(record.args, tuple):
        record.args = tuple(a.split("?")[0] if isinstance(a, str) else a for a in record.args)
    return True


def shown(url: str) -> str:
    """An address as it may be shown: without user, query and fragment."""
    try:
        split = urlsplit(url)
        host = split.hostname or ""
        port = f":{split.port}" if split.port else ""
    except ValueError:
        return "an address that is not well formed"
    return f"{split.scheme}://{host}{port}{split.path[:300]}"


def patiently(retry: Retry, attempt: Callable[[], _T], *, done: Callable[[], int] = int) -> _T:
    """The result of an attempt that is repeated while it fails for reasons that may pass.

    Parameters
    ----------
    retry : Retry
    attempt : callable
        Raises `Trouble` where it fails.
    done : callable, optional
        Bytes that earlier attempts have brought and that later ones build on.

    Raises
    ------
    NetworkError
        If the trouble does not pass.
    """
    n, most = 0, done()
    while True:
        try:
            return attempt()
        except Trouble as error:
            trouble = error
        # Outside of the except block: what the libraries said must not hang on the error raised.
        if done() >= most + _PROGRESS:
            n, most = 0, done()
        n += 1
        if not trouble.passes or n >= retry.attempts:
            often = f", {n} times in a row" if trouble.passes and n > 1 else ""
            advice = trouble.advice or "Check the network and try again; what is there is kept."
            raise NetworkError(
                f"{trouble.where} must answer as DANDI does; found {trouble.found}{often}. {advice}"
            )
        backoff = min(retry.most_s, retry.first_s * 2 ** (n - 1))
        wait_s = max(trouble.wait_s, backoff * random.SystemRandom().uniform(0.5, 1))
        _log.info("%s: %s; trying again in %.1f s", trouble.where, trouble.found, wait_s)
        retry.sleep(wait_s)


@contextmanager
def answer(web: Web, url: str, **headers: str) -> Iterator[requests.Response]:
    """The answer to one GET, with status 200, 206 or 416; its `url` is where it came from.

    Raises
    ------
    Trouble
        If there is none such, or it breaks off while it is read.
    """
    import requests

    got = _follow(web, url, headers)
    try:
        yield got
    except requests.RequestException as error:
        raise _broken(got.url, error) from None
    finally:
        got.close()


def _follow(web: Web, url: str, headers: dict[str, str]) -> requests.Response:
    import requests
    import urllib3

    from .. import __version__

    plain = {"User-Agent": f"grevy/{__version__}", "Accept-Encoding": "identity", **headers}
    here, got = url, None
    for _ in range(_MOST_REDIRECTS):
        try:
            split = urlsplit(here)
            own = (split.scheme, split.netloc) == urlsplit(web.api)[:2]
            if not (split.scheme == "https" or (split.scheme == "http" and is_local(split))):
                raise Trouble(here, f"that it was sent to '{split.scheme}', which is not https")
            got = web.session.get(
                here,
                headers=plain | ({"Authorization": f"token {web.key}"} if own and web.key else {}),
                stream=True,
                allow_redirects=False,
                timeout=(min(10.0, web.retry.timeout_s), web.retry.timeout_s),
                proxies={"http": ""},  # http is of this machine
            )
            target = web.session.get_redirect_target(got)
            if target is None:
                return _judged(web, got, own)
            got.close()
            here = urljoin(here, target)
            if split.scheme == "https" and not here.startswith("https:"):
                raise Trouble(here, "a redirect away from https")
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise _broken(here, error) from None
        except ValueError:
            if got is not None:
                got.close()
            raise Trouble(url, "a redirect to an address that is not well formed") from None
    raise Trouble(url, f"more than {_MOST_REDIRECTS} redirects, one after the other")


def _judged(web: Web, got: requests.Response, own: bool) -> requests.Response:
    """The answer itself if its status is one that the callers know, else trouble."""
    code = got.status_code
    if code in (200, 206, 416):
        return got
    got.close()
    known = code in HTTPStatus._value2member_map_
    found = f"status {code}" + (f" ({HTTPStatus(code).phrase})" if known else "")
    if code in (401, 403) and own:
        have = "The key in DANDI_API_KEY does not allow it" if web.key else "It is not public"
        raise Trouble(got.url, found, f"{have}: set DANDI_API_KEY to the key of an account that "
                      f"may read it.")  # fmt: skip
    if code in (400, 401, 403) and not own:  # the next attempt asks for another signed link
        raise Trouble(got.url, f"{found}, so the link to it has expired or is refused", passes=True)
    if code in (404, 410):
        raise Trouble(got.url, found, "Check dandiset, version and path.")
    wait_s = _asked(got.headers.get("Retry-After", ""))
    if wait_s > web.retry.asked_s:
        raise Trouble(got.url, f"{found} and that it asks to wait {wait_s:.0f} s", "Do that.")
    raise Trouble(got.url, found, passes=code >= 500 or code in _PASSING, wait_s=wait_s)


def _asked(value: str) -> float:
    """Seconds that a Retry-After asks for, as a number or a date; 0 where it says nothing."""
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _broken(url: str, error: Exception) -> Trouble:
    """What went wrong below HTTP, in words of our own."""
    import requests

    match error:
        case requests.exceptions.SSLError():
            found, passes = "that its certificate or encryption is not right", False
        case requests.exceptions.ProxyError():
            found, passes = "that the proxy does not let it through", True
        case requests.Timeout():
            found, passes = "no answer in time", True
        case requests.exceptions.ChunkedEncodingError():
            found, passes = "an answer that breaks off", True
        case requests.exceptions.ContentDecodingError():
            found, passes = "an answer that cannot be unpacked", False
        case requests.exceptions.ConnectionError():
            # A silent server in the middle of an answer is one of these, without a type of its own.
            silent = "Read timed out" in str(error)
            found, passes = ("no answer in time" if silent else "no connection"), True
        case _:
            found, passes = "an answer that is not HTTP", False
    return Trouble(url, found, passes=passes)


def fetch_json(web: Web, path: str, /, **query: str) -> Any:
    """What the API answers at a path below its base, as plain data.

    Raises
    ------
    NetworkError
        If it cannot be reached, or its answer is no JSON.
    """
    url = f"{web.api}{path}" + (f"?{urlencode(query)}" if query else "")

    def attempt() -> Any:
        end = time.monotonic() + _JSON_S
        with answer(web, url, Accept="application/json") as got:
            body = bytearray()
            for piece in got.iter_content(1 << 16):
                body += piece
                if len(body) > _MOST_JSON:
                    raise Trouble(url, f"more than {_MOST_JSON >> 20} MB of JSON")
                if time.monotonic() > end:
                    raise Trouble(url, f"an answer that takes more than {_JSON_S:.0f} s")
            if got.status_code != 200:
                raise Trouble(url, f"status {got.status_code}")
        with suppress(ValueError, RecursionError):
            return json.loads(body)
        raise Trouble(  # outside of the error above, whose text holds what the server said
            url,
            "an answer that is no JSON",
            "Check GREVY_DANDI_API, and whether a proxy or the sign-in page of a network answers "
            "in its place.",
        )

    return patiently(web.retry, attempt)
