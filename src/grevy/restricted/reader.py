"""The unpickler: the instructions that call, fill or look up go through the table of makers."""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable, Mapping
from typing import IO, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError, GrevyError, LimitError
from .makers import (
    ATOMS,
    DTYPES,
    MAKERS,
    TABLE,
    Class,
    Held,
    Offset,
    Ordered,
    Storage,
    StorageType,
    array_of,
    checked,
    checked_count,
    checked_key,
    dtype_of,
    item_size,
    ordered_dtype,
    refuse,
    torch_dtype,
)

__all__ = ["read_pickle", "unpickled"]

# Honest pickles do not grow when read; a hostile one may copy one text a million times.
_GROWTH = 8
_SLACK = 2**20


def read_pickle(blob: bytes | IO[bytes]) -> object:
    """Read a pickle, or an uncompressed joblib file, of plain data.

    Parameters
    ----------
    blob : bytes or binary file
        The whole file; an open one is read to its end.

    Returns
    -------
    object
        Dicts, lists, tuples, sets, strings, bytes, numbers, numpy arrays and dtypes, `Offset`.
        Subclasses of str and dict that are known come back as str and dict.

    Raises
    ------
    UnsafeFileError
        If the pickle names anything outside the table, or holds arrays of Python objects.
    FormatError
        If it is cut short or damaged.
    LimitError
        If what it makes is more than eight times as large as itself.

    Examples
    --------
    >>> import pickle
    >>> read_pickle(pickle.dumps({"a": (1, 2.5)}))
    {'a': (1, 2.5)}
    """
    return unpickled(blob if isinstance(blob, bytes) else blob.read(), storages=None)


def unpickled(blob: bytes, *, storages: Callable[[str], bytearray] | None) -> object:
    """The plain data of a pickle; its storages come from a function, or are refused."""
    try:
        return _plain(_Reader(blob, storages).load(), {}, set())
    except (GrevyError, MemoryError):
        raise
    except Exception as error:  # damaged instructions fail in every way that Python has
        raise FormatError(
            f"a pickle must be whole; this one is cut short or damaged ({type(error).__name__}). "
            f"Save it again."
        ) from error


class _Reader(pickle._Unpickler):
    """The unpickler of Python, with every instruction that calls or fills replaced."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)

    _unframer: Any
    pop_mark: Callable[[], list[Any]]
    read: Callable[[int], bytes]
    readline: Callable[[], bytes]

    def __init__(self, blob: bytes, storages: Callable[[str], bytearray] | None) -> None:
        self.source = io.BytesIO(blob)
        self.size = len(blob)
        self.made = 0
        self.storages = storages
        self.stack: list[Any] = []
        super().__init__(self.source, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in DTYPES:
            return torch_dtype(name)  # not in the table: reading text needs no torch
        found = TABLE.get((module, name))
        if found is None:
            refuse(f"{module[:80]}.{name[:80]}")
        return found

    def persistent_load(self, pid: Any) -> Any:
        if self.storages is None:
            refuse("an object kept outside of it")
        label, kind, key, _, count = pid
        if label != "storage" or not isinstance(kind, StorageType) or type(key) is not str:
            refuse("an object kept outside of it that is no storage")
        content = self.storages(key)
        if len(content) != count * item_size(kind.dtype):
            raise FormatError(
                f"storage {key[:20]!r} must hold {count} {kind.dtype} numbers; it has "
                f"{len(content)} bytes. The file is damaged."
            )
        return Storage(content, kind.dtype)

    def call(self) -> None:
        arguments = self.stack.pop()
        maker = self.stack.pop()
        if maker not in MAKERS:
            refuse(f"a call of {type(maker).__name__}")
        self.stack.append(maker(*arguments))
        self.spend(self.stack[-1])

    def fill(self) -> None:
        state = self.stack.pop()
        held = self.stack[-1]
        if isinstance(held, Ordered):
            return
        if not isinstance(held, Held):
            refuse(f"attributes set on {type(held).__name__}")
        if held.value is not None and held.kind != "dtype":
            refuse(f"a second filling of one {held.kind}")
        match held.kind:
            case "dtype":
                held.value = ordered_dtype(held.value, state)
            case "array":
                _, shape, dtype, fortran, raw = state
                raw = raw.encode("latin1") if isinstance(raw, str) else raw
                held.value = array_of(raw, dtype, shape, "F" if fortran else "C")
                self.spend(held.value)
            case "wrapper":
                held.value = self.follow(state)
            case "offset":
                slots = state[1] if isinstance(state, tuple) else state
                held.value = Offset(checked_count(slots["left"]), checked_count(slots["right"]))

    def spend(self, value: Any) -> None:
        if isinstance(value, (np.ndarray, np.generic)):
            self.made += value.nbytes
        elif isinstance(value, (bytes, dict, set)):
            self.made += len(value)
        if self.made > _GROWTH * self.size + _SLACK:
            raise LimitError(
                f"a pickle must not hold much more than its own {self.size} bytes; this one makes "
                f"copies of its parts, {self.made} bytes so far. Save plain arrays instead."
            )

    def follow(self, state: Mapping[str, Any]) -> NDArray[Any]:
        """An array whose bytes lie in the file behind the instruction (joblib)."""
        frame = self._unframer.current_frame
        if frame is not None and frame.read(1):
            raise FormatError("the bytes of an array must follow it; this file is damaged.")
        if state.get("numpy_array_alignment_bytes") is not None:
            self.source.read(self.source.read(1)[0])
        shape = tuple(checked_count(n) for n in state["shape"])
        size = math.prod(shape) * dtype_of(state["dtype"]).itemsize
        if size > self.size - self.source.tell():
            raise FormatError(f"an array of {size} bytes is declared; the file ends before that.")
        return array_of(self.source.read(size), state["dtype"], shape, state["order"])

    def append_one(self) -> None:
        value = self.stack.pop()
        checked(list, self.stack[-1]).append(value)

    def append_many(self) -> None:
        items = self.pop_mark()
        checked(list, self.stack[-1]).extend(items)

    def add_many(self) -> None:
        items = self.pop_mark()
        checked(set, self.stack[-1]).update(checked_key(item) for item in items)

    def set_one(self) -> None:
        value = self.stack.pop()
        key = self.stack.pop()
        checked(dict, self.stack[-1])[checked_key(key)] = value

    def set_many(self) -> None:
        items = self.pop_mark()
        target = checked(dict, self.stack[-1])
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[checked_key(key)] = value

    def new_dict(self) -> None:
        items = self.pop_mark()
        pairs = zip(items[::2], items[1::2], strict=True)
        self.stack.append({checked_key(key): value for key, value in pairs})

    def new_frozenset(self) -> None:
        self.stack.append(frozenset(checked_key(item) for item in self.pop_mark()))

    def new_bytearray(self) -> None:
        size = int.from_bytes(self.read(8), "little")
        if size > self.size:
            raise FormatError(f"{size} bytes are declared; the file ends before that.")
        self.stack.append(bytes(self.read(size)))

    def instance(self) -> None:
        module, name = (self.readline()[:-1].decode("ascii") for _ in range(2))
        self.find_class(module, name)
        refuse(f"an instance of {module[:80]}.{name[:80]}")

    def forbidden(self) -> None:
        refuse("an instance of a class, or a function registered by number")


_Reader.dispatch |= {
    pickle.REDUCE[0]: _Reader.call,
    pickle.NEWOBJ[0]: _Reader.call,
    pickle.BUILD[0]: _Reader.fill,
    pickle.APPEND[0]: _Reader.append_one,
    pickle.APPENDS[0]: _Reader.append_many,
    pickle.ADDITEMS[0]: _Reader.add_many,
    pickle.SETITEM[0]: _Reader.set_one,
    pickle.SETITEMS[0]: _Reader.set_many,
    pickle.DICT[0]: _Reader.new_dict,
    pickle.FROZENSET[0]: _Reader.new_frozenset,
    pickle.BYTEARRAY8[0]: _Reader.new_bytearray,
    pickle.INST[0]: _Reader.instance,
    pickle.OBJ[0]: _Reader.forbidden,
    pickle.NEWOBJ_EX[0]: _Reader.forbidden,
    pickle.EXT1[0]: _Reader.forbidden,
    pickle.EXT2[0]: _Reader.forbidden,
    pickle.EXT4[0]: _Reader.forbidden,
}


def _plain(value: Any, done: dict[int, Any], within: set[int]) -> Any:
    """The same with every held thing in place, and nothing but data."""
    kind = type(value)
    if kind in ATOMS:
        return value
    if isinstance(value, Held):
        if value.value is None:
            raise FormatError(f"every {value.kind} must be filled; this file is damaged.")
        return value.value
    if id(value) in done:
        return done[id(value)]
    out: Any
    if kind is list:
        out = done[id(value)] = []
        out.extend(_plain(v, done, within) for v in value)
    elif kind in (dict, Ordered):
        out = done[id(value)] = {}
        out |= {k: _plain(v, done, within) for k, v in value.items()}
    elif kind in (tuple, Class, StorageType, Storage):
        if kind is not tuple or id(value) in within:
            refuse("a tuple within itself" if kind is tuple else f"a bare {kind.__name__}")
        within.add(id(value))
        out = done[id(value)] = tuple(_plain(v, done, within) for v in value)
    elif kind in (set, frozenset) or kind.__module__.partition(".")[0] in ("numpy", "torch"):
        out = value
    else:
        refuse("a function" if callable(value) else f"a {kind.__name__}")
    return out
