"""Addresses of recordings in DANDI, and names of files made of names of the archive."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import SplitResult, unquote, urlsplit

from ..errors import ConfigError

__all__ = [
    "UUID",
    "VERSION",
    "Address",
    "api_base",
    "file_name",
    "is_address",
    "is_local",
    "parse",
    "refuse_address",
]

API = "https://api.dandiarchive.org/api"
_HOSTS = ("dandiarchive.org", "www.dandiarchive.org", "gui.dandiarchive.org",
          "api.dandiarchive.org")  # fmt: skip
_LOCAL = ("127.0.0.1", "localhost", "::1")
UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
VERSION = r"draft|\d+\.\d+\.\d+"
_NAME = re.compile(rf"(?P<set>\d{{6}})(?:@(?P<version>{VERSION}))?/(?P<path>.+)", re.DOTALL)
_PAGE = re.compile(rf"/?dandiset/(?P<set>\d{{6}})(?:/(?P<version>{VERSION}))?(?:/files)?/?")
_API_PAGE = re.compile(
    rf"(?:/dandisets/(?P<set>\d{{6}})/versions/(?P<version>{VERSION}))?"
    rf"/assets(?:/(?P<asset>{UUID})(?:/download|/info)?)?/?"
)
_FORMS = (
    "Write dandi://000036/PATH (or dandi://000036@VERSION/PATH), or copy the address of the file "
    "from dandiarchive.org."
)
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\.|$)")
_MOST = 100


@dataclass(frozen=True)
class Address:
    """What an address names: a path of a dandiset, or an asset by its id.

    Attributes
    ----------
    dandiset : str
        Six digits; "" where only the asset is named.
    version : str
        "draft", or the number of a published one; "" stands for the most recent.
    path : str
        Of the file inside the dandiset.
    asset_id : str
        A UUID, "" where the path names the asset.
    """

    dandiset: str = ""
    version: str = ""
    path: str = ""
    asset_id: str = ""

    def __str__(self) -> str:
        version = f"@{self.version}" if self.version else ""
        path = self.path.replace("%", "%25")
        return f"dandi://{self.dandiset}{version}/{path}" if path else self.asset_id


def is_address(text: str | os.PathLike[str]) -> bool:
    """Whether a text is meant as an address of the network, rather than as the path of a file."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", os.fspath(text)) is not None


def refuse_address(file: str) -> None:
    """Refuse an address where data of other files are allowed: they are files of this machine."""
    if is_address(file):
        raise ConfigError(
            "external data are for files of this machine; found an address. Download the file and "
            "name it."
        )


def api_base(api: str | None = None) -> str:
    """Address of the REST API: as given, else `GREVY_DANDI_API`, else that of dandiarchive.org.

    Raises
    ------
    ConfigError
        If it is neither https nor on this machine.
    """
    base = (api or os.environ.get("GREVY_DANDI_API") or API).strip().rstrip("/")
    try:
        split = urlsplit(base)
        fine = split.scheme == "https" or (split.scheme == "http" and is_local(split))
    except ValueError:
        fine = False
    if not fine or not split.hostname or split.username is not None or split.query:
        raise ConfigError(
            "the address of the DANDI API must begin with https:// (http:// only for this machine) "
            "and have no user and no query; found another. Set GREVY_DANDI_API anew."
        )
    return base


def is_local(split: SplitResult) -> bool:
    """Whether an address is of this machine, where http is no risk."""
    return split.hostname in _LOCAL


def parse(text: str | os.PathLike[str], *, api: str | None = None) -> Address:
    """Read an address of a recording in DANDI.

    Parameters
    ----------
    text : str
        ``dandi://000036/PATH``, ``dandi://000036@0.230515.1917/PATH``, or the address of a file on
        dandiarchive.org or of an asset of its API.
    api : str, optional
        Address of the API, whose host is then known too.

    Returns
    -------
    Address

    Raises
    ------
    ConfigError
        If it is no such address; the message says what is wrong with it.

    Examples
    --------
    >>> parse("dandi://000036@0.230515.1917/sub-1/sub-1_ophys.nwb")
    Address(dandiset='000036', version='0.230515.1917', path='sub-1/sub-1_ophys.nwb', asset_id='')
    """
    text = os.fspath(text).strip()
    scheme, _, rest = text.partition(":")
    match scheme.lower():
        case "dandi":
            return _named(rest.lstrip("/").removeprefix("dandi/"))
        case "http" | "https":
            return _page(text, api_base(api))
        case "s3":
            found = "an address of the storage, which says neither the file's name nor its digest"
        case _:
            found = f"'{_short(scheme)}:'"
    raise ConfigError(f"an address in DANDI must begin with dandi:// or https://; found {found}. "
                      f"{_FORMS}")  # fmt: skip


def _named(rest: str) -> Address:
    found = _NAME.fullmatch(unquote(rest))
    if found:
        return Address(found["set"], found["version"] or "", _path(found["path"]))
    name, slash, _ = rest.partition("/")
    number, at, version = name.partition("@")
    if not re.fullmatch(r"\d{6}", number):
        wrong = f"a dandiset is named by six digits; found '{_short(number)}'"
    elif at and not re.fullmatch(VERSION, version):
        wrong = f"a version is 'draft' or a number like 0.230515.1917; found '{_short(version)}'"
    else:
        wrong = (
            f"the address must name a file of dandiset {number}; found none{slash and ' behind /'}"
        )
    raise ConfigError(f"{wrong}. {_FORMS}")


def _page(text: str, api: str) -> Address:
    """An address of the archive's pages, or of its API."""
    try:
        split, own = urlsplit(text), urlsplit(api)
        ours = split.netloc == own.netloc
        known = ours or split.hostname in _HOSTS
    except ValueError:
        raise ConfigError(
            f"an address must be well formed; found that it is not. {_FORMS}"
        ) from None
    if not known:
        host = split.hostname or ""
        kind = "the storage" if host.endswith("amazonaws.com") else f"'{_short(host)}'"
        raise ConfigError(f"an address on the web must be of dandiarchive.org; found that its host "
                          f"is {kind}. {_FORMS}")  # fmt: skip
    where, query = unquote(split.path), split.query
    if split.fragment.startswith("/"):  # of the old pages: #/dandiset/...
        where, _, query = split.fragment.partition("?")
    root = own.path if ours else "/api"
    inside = where.removeprefix(root) if where.startswith(root) else None
    page = _PAGE.fullmatch(where) if inside is None else _API_PAGE.fullmatch(inside)
    asked = dict(part.partition("=")[::2] for part in query.split("&"))
    # A plus stays one: names in DANDI have it ("behavior+ophys"), and no spaces.
    path = unquote(asked.get("location", "") or asked.get("path", ""))
    parts = page.groupdict() if page else {}
    if parts.get("asset"):
        return Address(parts["set"] or "", parts["version"] or "", "", parts["asset"])
    if parts.get("set") and path.strip("/"):
        return Address(parts["set"], parts["version"] or "", _path(path))
    what = f"only dandiset {parts['set']}" if parts.get("set") else "neither"
    raise ConfigError(
        f"an address of dandiarchive.org must name a file or an asset; found that it names {what}. "
        f"{_FORMS}"
    )


def _path(path: str) -> str:
    path = path.strip("/")
    if not path or "\0" in path or len(path) > 4096:
        raise ConfigError(f"the path of a file must have 1 to 4096 characters, none of them NUL; "
                          f"found {len(path)}. {_FORMS}")  # fmt: skip
    return path


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}..."


def file_name(path: str) -> str:
    """A name for a file of the archive on this machine: one that stays inside its folder.

    A name that had to be changed ends in a hash of the path, so that no two become one by that.

    Examples
    --------
    >>> file_name("sub-1/sub-1_behavior+ophys.nwb"), file_name("../../etc/passwd")
    ('sub-1_behavior+ophys.nwb', 'passwd')
    >>> file_name("sub-1/..")
    'asset-ccde5789'
    """
    last = path.rstrip("/").rsplit("/", 1)[-1]
    plain = re.sub(r"[^A-Za-z0-9._+=@,() -]", "-", last)
    plain = plain.lstrip(". -").rstrip(". ")
    if plain == last and len(plain) <= _MOST and plain and not _RESERVED.match(plain):
        return plain
    mark = hashlib.sha256(path.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    suffix = PurePosixPath(plain).suffix
    suffix = suffix if len(suffix) <= 12 else ""
    stem = plain.removesuffix(suffix)[: _MOST - 30].rstrip(". ")
    stem = f"_{stem}" if _RESERVED.match(stem) else stem
    return f"{stem or 'asset'}-{mark}{suffix}"
