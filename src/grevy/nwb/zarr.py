"""NWB files on Zarr: a folder with the face that h5py gives a file, as far as reading needs it.

hdmf-zarr writes version 2 of Zarr: `.zgroup`, `.zarray` and `.zattrs` beside the chunks. The folder
is walked once, and everything is looked up in what that found: no string of the file becomes a
path, and no symbolic link is followed. (The zarr library believes what a folder says, unpickles,
and lets a chunk unpack to whatever size; nothing of it is needed but the codecs.)
"""

from __future__ import annotations

import itertools
import json
import math
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, LimitError, UnsafeFileError
from ..room import free_bytes
from .codecs import objects, refuse_codec, shuffled, unpack

__all__ = ["ZarrArray", "ZarrGroup", "folder_bytes", "is_zarr", "open_zarr"]

_META_BYTES = 64 << 20
_MOST_DEPTH, _MOST_LINKS = 64, 16
_MARKS = (".zgroup", ".zarray", ".zattrs", "zarr.json")
_CHUNK_BYTES, _CHUNK_RATIO = 64 << 20, 1000


def is_zarr(path: Path) -> bool:
    """Whether a path is a folder of Zarr."""
    return path.is_dir() and any((path / name).exists() for name in _MARKS)


def open_zarr(folder: Path) -> ZarrGroup:
    """Look at a folder of Zarr.

    Raises
    ------
    DataError
        If it is of another version of Zarr, or damaged.
    UnsafeFileError
        If it links to anything outside.
    """
    if (folder / "zarr.json").exists():
        raise DataError(
            f"{folder.name} must be of version 2 of Zarr, which hdmf-zarr writes; found version 3. "
            f"Export it to version 2 or to HDF5."
        )
    if not (folder / ".zgroup").is_file():
        raise DataError(
            f"{folder.name} must be a whole folder of Zarr; found no .zgroup. Copy it again."
        )
    root = ZarrGroup("/", folder, None)
    _walk(root, 0)
    return root


@dataclass(eq=False)
class ZarrGroup:
    """A group, as h5py.Group: its members, attributes, name, parent and root."""

    name: str
    where: Path
    _parent: ZarrGroup | None
    attrs: dict[str, Any] = field(default_factory=dict)
    members: dict[str, ZarrGroup | ZarrArray] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    linked: dict[str, ZarrGroup | ZarrArray | None] = field(default_factory=dict)
    """Links that were followed, each once."""
    following: int = 0
    """How many links deep the root is being looked through."""

    @property
    def parent(self) -> ZarrGroup:
        """The group that this one is in; the root is in itself."""
        return self._parent or self

    @property
    def file(self) -> ZarrGroup:
        """The root."""
        return self if self._parent is None else self._parent.file

    @property
    def filename(self) -> str:
        """The folder."""
        return os.fspath(self.file.where)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self.members, *self.links, *self.linked}))

    def __contains__(self, name: object) -> bool:
        return self.get(name) is not None

    def __getitem__(self, name: object) -> Any:
        found = self.get(name)
        if found is None:
            raise KeyError(f"there is no '{name}' in '{self.name}'")
        return found

    def get(self, name: object, default: Any = None) -> Any:
        """What has a name, or what a reference of hdmf-zarr refers to."""
        found = self._find(name)
        return default if found is None else found

    def _find(self, name: object) -> ZarrGroup | ZarrArray | None:
        if isinstance(name, dict):  # a reference: {"value": {"path": ..., "source": "."}}
            name = name.get("value", name)
            name = name.get("path") if isinstance(name, dict) else None
        if not isinstance(name, str):
            return None
        here: ZarrGroup | ZarrArray | None = self.file if name.startswith("/") else self
        for part in filter(None, name.split("/")):
            if not isinstance(here, ZarrGroup):
                return None
            here = here._member(part)
        return here

    def _member(self, name: str) -> ZarrGroup | ZarrArray | None:
        if name in self.links:
            target = self.links.pop(name)
            self.linked[name] = None  # a link that comes back to itself leads nowhere
            root = self.file
            root.following += 1
            if root.following <= _MOST_LINKS:
                self.linked[name] = root._find(target)
            root.following -= 1
        return self.linked[name] if name in self.linked else self.members.get(name)

    def visititems(self, note: Callable[[str, Any], None]) -> None:
        """Hand over everything below, links not followed."""
        for name in sorted(self.members):
            member = self.members[name]
            note(name, member)
            if isinstance(member, ZarrGroup):
                member.visititems(partial(_below, note, name))


def _below(note: Callable[[str, Any], None], at: str, name: str, thing: Any) -> None:
    note(f"{at}/{name}", thing)


@dataclass(eq=False)
class ZarrArray:
    """An array, as h5py.Dataset: shape, type, attributes and slices."""

    name: str
    where: Path
    parent: ZarrGroup
    attrs: dict[str, Any]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    order: str
    compressor: dict[str, Any] | None
    filters: tuple[dict[str, Any], ...]
    separator: str
    _files: dict[str, int] | None = None
    _last: tuple[str, NDArray[Any]] | None = None

    @property
    def ndim(self) -> int:
        """Axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Values."""
        return math.prod(self.shape)

    @property
    def file(self) -> ZarrGroup:
        """The root."""
        return self.parent.file

    @property
    def refers(self) -> bool:
        """Whether the values are references to objects, which grevy has no use for."""
        kinds = [str(f.get("id")) for f in self.filters]
        return self.attrs.get("zarr_dtype") == "object" or "pickle" in kinds

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a scalar has no length")
        return self.shape[0]

    @property
    def stored_bytes(self) -> int:
        """What the chunks take on disk."""
        return sum(self._chunk_files().values())

    def _chunk_files(self) -> dict[str, int]:
        """Chunks that are there, by key, with their sizes."""
        if self._files is None:
            nested = self.separator == "/"
            self._files = dict(_files(self.where, self.where, self.ndim if nested else 0))
        return self._files

    def __getitem__(self, key: Any) -> Any:
        keys = key if isinstance(key, tuple) else (key,)
        if keys == (Ellipsis,):
            keys = ()
        if len(keys) > self.ndim:
            raise IndexError(f"'{self.name}' has {self.ndim} axes")
        spans: list[tuple[int, int]] = []
        dropped: list[slice | int] = []
        for axis, n in enumerate(self.shape):
            one = keys[axis] if axis < len(keys) else slice(None)
            if isinstance(one, slice):
                start, stop, step = one.indices(n)
                if step != 1:
                    raise IndexError("steps other than 1 are not read")
                spans.append((start, max(start, stop)))
                dropped.append(slice(None))
            else:
                at = int(one) + (n if one < 0 else 0)
                if not 0 <= at < n:
                    raise IndexError(f"'{self.name}' has {n} values on axis {axis}")
                spans.append((at, at + 1))
                dropped.append(0)
        return self._read(spans)[tuple(dropped)]

    def _read(self, spans: list[tuple[int, int]]) -> NDArray[Any]:
        for how in (*([self.compressor] if self.compressor else []), *self.filters):
            refuse_codec(str(how.get("id")), self.name)
        out = np.empty([stop - start for start, stop in spans], self.dtype)
        if out.size == 0:
            return out
        grid = [
            range(start // n, (stop - 1) // n + 1)
            for (start, stop), n in zip(spans, self.chunks, strict=True)
        ]
        for place in itertools.product(*grid):
            chunk = self._chunk(self.separator.join(map(str, place)) or "0")
            into, of = [], []
            for i, n, (start, stop) in zip(place, self.chunks, spans, strict=True):
                a, b = max(start, i * n), min(stop, (i + 1) * n)
                into.append(slice(a - start, b - start))
                of.append(slice(a - i * n, b - i * n))
            out[tuple(into)] = chunk[tuple(of)]
        return out

    def _chunk(self, key: str) -> NDArray[Any]:
        """One chunk, the last one remembered.

        Zarr takes a chunk that is not there for one of zeros; so would be what a broken copy lost.
        """
        if self._last is not None and self._last[0] == key:
            return self._last[1]
        size = self._chunk_files().get(key)
        if size is None:
            raise DataError(
                f"all chunks of '{self.name}' must be there; found no '{key}'. Copy the folder "
                f"again."
            )
        n = math.prod(self.chunks)
        n_bytes = n * self.dtype.itemsize
        if n_bytes > free_bytes() // 2 or (
            n_bytes > _CHUNK_BYTES and n_bytes > _CHUNK_RATIO * size
        ):
            raise LimitError(
                f"a chunk of '{self.name}' must fit into half of the free memory, and be stored; "
                f"found {n_bytes / 1e9:.3g} GB declared and {size / 1e6:.3g} MB stored."
            )
        raw = _content(self.where.joinpath(*key.split("/")), max(size, 1))
        is_text = self.dtype.kind == "O"
        most = max(_CHUNK_BYTES, _CHUNK_RATIO * size) if is_text else n_bytes
        content = unpack(raw, self.compressor, most, self.name)
        values: NDArray[Any] | None = None
        for how in reversed(self.filters):
            if how.get("id") == "shuffle":
                content = shuffled(content, how)
            else:
                values = objects(content, how, n, self.name)
        if values is None:
            if is_text or len(content) != n_bytes:
                raise DataError(
                    f"a chunk of '{self.name}' must hold {n_bytes} bytes; found {len(content)}. "
                    f"Copy the folder again."
                )
            values = np.frombuffer(content, self.dtype)
        chunk = values.reshape(self.chunks, order="F" if self.order == "F" else "C")
        self._last = key, chunk
        return chunk


def folder_bytes(folder: Path) -> int:
    """What a folder takes on disk."""
    return sum(size for _, size in _files(folder, folder, _MOST_DEPTH))


def _walk(group: ZarrGroup, depth: int) -> None:
    """Find out what is in a group, and below."""
    if depth > _MOST_DEPTH:
        raise DataError(f"'{group.name}' must not lie {depth} groups deep. The folder is forged.")
    group.attrs = _json(group.where / ".zattrs", group.name)
    links = group.attrs.pop("zarr_link", [])
    for link in links if isinstance(links, list) else []:
        name, target = str(link.get("name")), str(link.get("path"))
        if link.get("source") != ".":
            raise UnsafeFileError(
                f"{group.file.where.name} must hold its data itself; found that "
                f"'{group.name.rstrip('/')}/{name}' points to '{link.get('source')}'. Export it "
                f"with its links resolved."
            )
        group.links[name] = target
    for entry in _entries(group.where):
        if not entry.is_dir(follow_symlinks=False):
            continue
        name, path = f"{group.name.rstrip('/')}/{entry.name}", Path(entry.path)
        if (path / ".zarray").is_file():
            group.members[entry.name] = _array(name, path, group)
        elif (path / ".zgroup").is_file():
            below = ZarrGroup(name, path, group)
            group.members[entry.name] = below
            _walk(below, depth + 1)


def _array(name: str, path: Path, group: ZarrGroup) -> ZarrArray:
    about = _json(path / ".zarray", name)
    attrs = _json(path / ".zattrs", name)
    try:
        shape = tuple(_count(n, 0) for n in about["shape"])
        chunks = tuple(_count(n, 1) for n in about["chunks"])
        dtype = np.dtype(about["dtype"] if isinstance(about["dtype"], str) else "V1")
        if about["zarr_format"] != 2 or len(shape) != len(chunks) or len(shape) > 32:
            raise ValueError(f"shape {shape} in chunks {chunks}")
        separator = about.get("dimension_separator") or "."
        if separator not in (".", "/") or about["order"] not in ("C", "F"):
            raise ValueError(f"separator '{separator}', order '{about['order']}'")
        codecs = [about["compressor"]] if about["compressor"] else []
        filters = tuple(about["filters"] or ())
        if not all(isinstance(c, dict) for c in (*codecs, *filters)):
            raise ValueError("codecs without names")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"'{name}' must be an array as Zarr describes it; found {error}. The folder is damaged."
        ) from error
    return ZarrArray(
        name, path, group, attrs, shape, chunks, dtype, about["order"],
        codecs[0] if codecs else None, filters, separator,
    )  # fmt: skip


def _count(n: Any, least: int) -> int:
    if type(n) is not int or not least <= n < 2**63:
        raise ValueError(f"the length {str(n)[:20]}")
    return n


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        found = list(entries)
    for entry in found:
        if entry.is_symlink():
            raise _outside(Path(entry.path))
    return sorted(found, key=lambda entry: entry.name)


def _outside(link: Path) -> UnsafeFileError:
    return UnsafeFileError(
        f"a folder of Zarr must hold its data itself; found that {link} is a link to "
        f"'{os.readlink(link)}'. Copy the data into the folder, if you trust who made it."
    )


def _files(folder: Path, top: Path, depth: int) -> Iterator[tuple[str, int]]:
    for entry in _entries(folder):
        if entry.is_file(follow_symlinks=False):
            if entry.name not in _MARKS:
                key = Path(entry.path).relative_to(top).as_posix()
                yield key, entry.stat(follow_symlinks=False).st_size
        elif not entry.is_dir(follow_symlinks=False):
            raise UnsafeFileError(
                f"a folder of Zarr must hold files; found that {entry.path} is none. Remove it."
            )
        elif depth:
            yield from _files(Path(entry.path), top, depth - 1)


def _content(path: Path, most: int) -> bytes:
    """A regular file of a limited size; a link is not followed, a pipe not waited for."""
    if path.is_symlink():
        raise _outside(path)
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with open(handle, "rb") as file:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode) or about.st_size > most:
            raise LimitError(
                f"{path} must be a file of {most / 1e6:.3g} MB at most; found "
                f"{about.st_size / 1e6:.3g} MB, or no file. The folder is damaged or forged."
            )
        return file.read(most)


def _json(path: Path, name: str) -> dict[str, Any]:
    """What a file of metadata says, {} where there is none."""
    if not os.path.lexists(path):
        return {}
    try:
        values = json.loads(_content(path, _META_BYTES))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"the metadata of '{name}' must be JSON; found: {error}. The folder is damaged."
        ) from error
    if not isinstance(values, dict):
        raise DataError(f"the metadata of '{name}' must be an object of JSON; found another thing.")
    return values
