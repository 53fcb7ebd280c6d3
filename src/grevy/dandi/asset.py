"""What the archive says about one file."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any
from urllib.parse import quote

from ..errors import DataError, NetworkError
from .address import UUID, VERSION, Address, file_name, parse
from .http import Retry, Web, fetch_json, open_web

__all__ = ["Asset", "as_dict", "odd", "require_file", "resolve"]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_ETAG = re.compile(r"[0-9a-f]{32}-\d{1,5}")
_TREE = re.compile(r"[0-9a-f]{32}-\d{1,12}--(\d{1,19})")


@dataclass(frozen=True)
class Asset:
    """A file of the archive, or a folder of Zarr.

    Attributes
    ----------
    address : Address
        With the version that was found; without dandiset where only an id was given.
    asset_id : str
        A UUID; an asset of a published version never changes.
    path : str
        Inside the dandiset, as the archive has it: no path of this machine.
    size : int
        In bytes.
    sha256, etag : str
        Digests in hexadecimal, "" where the archive lists none. `etag` is DANDI's, made of the MD5s
        of parts.
    urls : tuple of str
        Where the archive says that the content lies.
    is_zarr : bool
        Whether it is a folder of Zarr and no file.
    zarr_id, tree : str
        Of a folder: its UUID, and the checksum of all its files (`digests.tree_digest`); else "".
    is_embargoed : bool
        Whether only its owners may read it.
    api : str
        Base of the API that said so.
    """

    address: Address
    asset_id: str
    path: str
    size: int
    sha256: str = ""
    etag: str = ""
    urls: tuple[str, ...] = ()
    is_zarr: bool = False
    zarr_id: str = ""
    tree: str = ""
    is_embargoed: bool = False
    api: str = ""

    @property
    def digest(self) -> str:
        """What the content is verified by, "" where the archive lists nothing."""
        return self.tree if self.is_zarr else self.sha256 or self.etag

    @property
    def name(self) -> str:
        """A name for the file on this machine."""
        return file_name(self.path)

    @property
    def url(self) -> str:
        """Address that finds this very asset again."""
        return str(self.address) if self.address.path else f"{self.api}/assets/{self.asset_id}/"

    @property
    def content_url(self) -> str:
        """Where the API hands out a link to the content."""
        return f"{self.api}/assets/{self.asset_id}/download/"


def resolve(address: str | Address, *, api: str | None = None, retry: Retry | None = None) -> Asset:
    """Ask the archive about a file.

    Parameters
    ----------
    address : str or Address
        As `parse` reads it. Without a version the most recent published one is taken, or the draft
        where none is published.
    api : str, optional
        Base of the REST API; `GREVY_DANDI_API` or dandiarchive.org by default.
    retry : Retry, optional

    Returns
    -------
    Asset

    Raises
    ------
    ConfigError
        If the address is none.
    DataError
        If the dandiset has no such file, or a folder of that name.
    NetworkError
        If the archive cannot be reached, or answers wrongly.
    """
    with open_web(api, retry) as web:
        where = address if isinstance(address, Address) else parse(address, api=web.api)
        if where.path:
            version = where.version or _latest(web, where.dandiset)
            where = replace(where, version=version)
            where = replace(where, asset_id=_find(web, where))
        return _asset(web, where, fetch_json(web, f"/assets/{where.asset_id}/info/"))


def require_file(asset: Asset) -> None:
    """Say what to do about an asset that is a folder of Zarr, of which no part is streamed.

    Raises
    ------
    DataError
        If it is.
    """
    if asset.is_zarr:
        raise DataError(
            f"what is streamed must be one file (HDF5); found that '{asset.path}' is Zarr-backed: "
            f"a folder of many files. Get it with `grevy download {asset.url}` and name the folder."
        )


def _latest(web: Web, dandiset: str) -> str:
    """The most recent published version, else the draft."""
    said = as_dict(fetch_json(web, f"/dandisets/{dandiset}/"), web)
    published = said.get("most_recent_published_version")
    version = as_dict(published, web).get("version") if published else "draft"
    if not isinstance(version, str) or not re.fullmatch(VERSION, version):
        raise odd(web, "a version that is no number")
    return version


def _find(web: Web, where: Address) -> str:
    """The id of the asset with this very path; the API looks for beginnings of paths."""
    page = f"/dandisets/{where.dandiset}/versions/{quote(where.version)}/assets/"
    said = as_dict(fetch_json(web, page, path=where.path, order="path", page_size="100"), web)
    results = said.get("results")
    if not isinstance(results, list):
        raise odd(web, "no list of assets")
    found = {str(r.get("path")): str(r.get("asset_id")) for r in results if isinstance(r, dict)}
    if where.path in found:
        return _id(web, found[where.path])
    place = f"version {where.version} of dandiset {where.dandiset}"
    inside = [p for p in found if p.startswith(f"{where.path}/")]
    if inside:
        listed = ", ".join(f"'{_line(p)}'" for p in inside[:5])
        raise DataError(
            f"the address must name a file; found that '{where.path}' is a folder of {place}, with "
            f"{listed}{' and others' if len(inside) > 5 else ''}. Name one of them."
        )
    near = get_close_matches(where.path, found or _names(web, page, where), n=3, cutoff=0.6)
    hint = f" Near it are: {', '.join(map(_line, near))}." if near else ""
    raise DataError(f"{place} must have the file '{where.path}'; found none.{hint} Check the path.")


def _line(path: str) -> str:
    """A path of the archive as part of a line, whatever it holds."""
    return "".join(c if c.isprintable() else "?" for c in path)


def _names(web: Web, page: str, where: Address) -> list[str]:
    """Some of the paths beside one that is not there."""
    folder = where.path.rpartition("/")[0]
    said = as_dict(fetch_json(web, page, path=folder, order="path", page_size="100"), web)
    results = said.get("results")
    if not isinstance(results, list):
        raise odd(web, "no list of assets")
    return [str(r.get("path")) for r in results if isinstance(r, dict)]


def _asset(web: Web, where: Address, said: Any) -> Asset:
    """The archive's answer, checked: its texts become names of files and addresses."""
    about = as_dict(said, web)
    more = about.get("metadata")
    more = more if isinstance(more, dict) else {}
    path, size = about.get("path"), about.get("size")
    if not isinstance(path, str) or not path:
        raise odd(web, "an asset without path")
    if type(size) is not int or not 0 <= size < 2**62:
        raise odd(web, "an asset without size")
    if where.path and where.path != path:
        raise odd(web, "another asset than the one asked for")
    digests = more.get("digest")
    digests = digests if isinstance(digests, dict) else {}
    kinds = ("sha2-256", "dandi-etag", "dandi-zarr-checksum")
    sha256, etag, tree = (str(digests.get(f"dandi:{k}", "")).lower() for k in kinds)
    zarr_id = about.get("zarr") or ""
    if zarr_id and not (isinstance(zarr_id, str) and re.fullmatch(UUID, zarr_id)):
        raise odd(web, "a folder of Zarr whose id is no UUID")
    whole = _TREE.fullmatch(tree)
    if whole and int(whole[1]) != size:
        raise odd(web, "a size other than the one in the checksum")
    access, urls = more.get("access"), more.get("contentUrl")
    if not isinstance(access, list | None):
        raise odd(web, "rights of access that are no list")
    statuses = [a.get("status") for a in access or () if isinstance(a, dict)]
    return Asset(
        address=where,
        asset_id=_id(web, where.asset_id),
        path=path,
        size=size,
        sha256=sha256 if _SHA256.fullmatch(sha256) else "",
        etag=etag if _ETAG.fullmatch(etag) else "",
        urls=tuple(u for u in urls if isinstance(u, str)) if isinstance(urls, list) else (),
        is_zarr=bool(zarr_id) or more.get("encodingFormat") == "application/x-zarr",
        zarr_id=zarr_id,
        tree=tree if whole and zarr_id else "",
        is_embargoed="dandi:EmbargoedAccess" in statuses,
        api=web.api,
    )


def as_dict(said: Any, web: Web) -> dict[str, Any]:
    """Facts by name, as an answer of the API must be."""
    if not isinstance(said, dict):
        raise odd(web, "a list or value where facts by name were expected")
    return said


def _id(web: Web, text: str) -> str:
    if not re.fullmatch(UUID, text):
        raise odd(web, "an id that is no UUID")
    return text


def odd(web: Web, found: str) -> NetworkError:
    """An answer that no DANDI gives."""
    return NetworkError(
        f"the API at {web.api} must answer as DANDI's does; found {found}. Check GREVY_DANDI_API."
    )
