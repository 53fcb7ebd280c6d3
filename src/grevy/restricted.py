"""Reading pickles and torch archives without running anything that they name.

A pickle is a program whose instructions may call any function it can name. Here the names are a
closed table of makers of plain data (arrays, tensors, dicts, numbers), and the instructions that
call, fill or look up anything else are replaced. What comes out holds only dicts, lists, tuples,
sets, strings, bytes, numbers, numpy arrays, dtypes, torch tensors and `Offset`.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from .errors import FormatError, GrevyError, LimitError, UnsafeFileError

if TYPE_CHECKING:
    import torch

__all__ = ["LEGACY_TORCH", "Offset", "read_pickle", "read_torch"]

# How the files of torch before 1.6 begin: a pickled magic number.
LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

_DTYPES = frozenset(
    f"{kind}{bits}"
    for kind, sizes in (
        ("int", (8, 16, 32, 64)),
        ("uint", (8, 16, 32, 64)),
        ("float", (16, 32, 64)),
        ("bfloat", (16,)),
        ("complex", (64, 128)),
        ("bool", ("",)),
    )
    for bits in sizes
)
_STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "ShortStorage": "int16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}
_NUMERIC = sorted(_DTYPES - {"bfloat16"})
# Honest pickles do not grow when read; a hostile one may copy one text a million times.
_GROWTH = 8
_SLACK = 2**20
_ATOMS = (str, int, float, bool, bytes, complex, type(None))


class Offset(NamedTuple):
    """Samples a window takes to the left of its centre, and to the right with the centre."""

    left: int
    right: int


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
    return _read(blob if isinstance(blob, bytes) else blob.read(), storages=None)


def read_torch(path: str | Path) -> object:
    """Read a file of `torch.save`; tensors come to the CPU wherever they were saved.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    object
        As of `read_pickle`, with CPU tensors; parameters come back as tensors, and devices as
        strings.

    Raises
    ------
    UnsafeFileError
        If its pickle names anything outside the table.
    FormatError
        If the file is absent, cut short, damaged, of the format before torch 1.6, or declares
        other sizes than it has.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(len(LEGACY_TORCH))
        if head == LEGACY_TORCH:
            raise FormatError(
                f"a torch file must be a zip archive; {path} is of the format before torch 1.6. "
                f"Load it with torch and save it again."
            )
        with zipfile.ZipFile(path) as archive:
            return _read_archive(archive, path.stat().st_size)
    except GrevyError as error:
        raise type(error)(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    except OSError as error:
        raise FormatError(f"a file must be readable; {path}: {error.strerror or error}.") from error
    except Exception as error:  # zipfile answers damage with many kinds of error
        raise FormatError(f"a torch file must be a whole zip archive; {path}: {error}.") from error


def _read_archive(archive: zipfile.ZipFile, size: int) -> object:
    names = [n for n in archive.namelist() if re.fullmatch(r"[^/]+/data\.pkl", n)]
    if len(names) != 1:
        raise FormatError(
            f"a torch file must hold one data.pkl; this zip archive holds {len(names)}."
        )
    entries = archive.infolist()
    # torch stores without compression: nothing in the archive can be larger than the archive.
    if sum(e.file_size for e in entries) > size or any(e.compress_type for e in entries):
        raise FormatError("a torch file must hold its records uncompressed; this one does not.")
    folder = names[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.namelist():
        order = archive.read(f"{folder}byteorder")
        if order != b"little":
            raise FormatError(f"a torch file must be little-endian; this one says {order[:9]!r}.")
    read: dict[str, bytearray] = {}

    def storage(key: str) -> bytearray:
        if key not in read:
            read[key] = bytearray(archive.read(f"{folder}data/{key}"))
        return read[key]

    return _read(archive.read(names[0]), storages=storage)


def _read(blob: bytes, *, storages: Callable[[str], bytearray] | None) -> object:
    try:
        return _plain(_Reader(blob, storages).load(), {}, set())
    except GrevyError:
        raise
    except Exception as error:  # damaged instructions fail in every way that Python has
        raise FormatError(
            f"a pickle must be whole; this one is cut short or damaged ({type(error).__name__}). "
            f"Save it again."
        ) from error


def _refuse(what: str) -> NoReturn:
    # A name out of a file may hold what moves a terminal's cursor.
    what = "".join(c if c.isprintable() else "?" for c in what)
    raise UnsafeFileError(
        f"a file may hold plain data only; this one asks for {what}. Save plain arrays instead."
    )


@dataclass(eq=False)
class _Held:
    """A thing that a pickle makes empty and fills later."""

    kind: Literal["dtype", "array", "wrapper", "offset"]
    value: Any = None


class _StorageType(NamedTuple):
    dtype: str


class _Storage(NamedTuple):
    content: bytearray
    dtype: str


class _Class(NamedTuple):
    """A class that is only ever an argument, such as the kind of array to make."""

    name: str


class _Ordered(dict[Any, Any]):
    """An OrderedDict: torch fills its attributes too, with versions that nothing here needs."""


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
        if module == "torch" and name in _DTYPES:
            return _torch_dtype(name)  # not in the table: reading text needs no torch
        found = _TABLE.get((module, name))
        if found is None:
            _refuse(f"{module[:80]}.{name[:80]}")
        return found

    def persistent_load(self, pid: Any) -> Any:
        if self.storages is None:
            _refuse("an object kept outside of it")
        label, kind, key, _, count = pid
        if label != "storage" or not isinstance(kind, _StorageType) or type(key) is not str:
            _refuse("an object kept outside of it that is no storage")
        content = self.storages(key)
        if len(content) != count * _item_size(kind.dtype):
            raise FormatError(
                f"storage {key[:20]!r} must hold {count} {kind.dtype} numbers; it has "
                f"{len(content)} bytes. The file is damaged."
            )
        return _Storage(content, kind.dtype)

    def call(self) -> None:
        arguments = self.stack.pop()
        maker = self.stack.pop()
        if maker not in _MAKERS:
            _refuse(f"a call of {type(maker).__name__}")
        self.stack.append(maker(*arguments))
        self.spend(self.stack[-1])

    def fill(self) -> None:
        state = self.stack.pop()
        held = self.stack[-1]
        if isinstance(held, _Ordered):
            return
        if not isinstance(held, _Held):
            _refuse(f"attributes set on {type(held).__name__}")
        if held.value is not None and held.kind != "dtype":
            _refuse(f"a second filling of one {held.kind}")
        match held.kind:
            case "dtype":
                held.value = _ordered_dtype(held.value, state)
            case "array":
                _, shape, dtype, fortran, raw = state
                raw = raw.encode("latin1") if isinstance(raw, str) else raw
                held.value = _array(raw, dtype, shape, "F" if fortran else "C")
                self.spend(held.value)
            case "wrapper":
                held.value = self.follow(state)
            case "offset":
                slots = state[1] if isinstance(state, tuple) else state
                held.value = Offset(_count(slots["left"]), _count(slots["right"]))

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
        shape = tuple(_count(n) for n in state["shape"])
        size = math.prod(shape) * _dtype(state["dtype"]).itemsize
        if size > self.size - self.source.tell():
            raise FormatError(f"an array of {size} bytes is declared; the file ends before that.")
        return _array(self.source.read(size), state["dtype"], shape, state["order"])

    def append_one(self) -> None:
        value = self.stack.pop()
        _the(list, self.stack[-1]).append(value)

    def append_many(self) -> None:
        items = self.pop_mark()
        _the(list, self.stack[-1]).extend(items)

    def add_many(self) -> None:
        items = self.pop_mark()
        _the(set, self.stack[-1]).update(_key(item) for item in items)

    def set_one(self) -> None:
        value = self.stack.pop()
        key = self.stack.pop()
        _the(dict, self.stack[-1])[_key(key)] = value

    def set_many(self) -> None:
        items = self.pop_mark()
        target = _the(dict, self.stack[-1])
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_key(key)] = value

    def new_dict(self) -> None:
        items = self.pop_mark()
        pairs = zip(items[::2], items[1::2], strict=True)
        self.stack.append({_key(key): value for key, value in pairs})

    def new_frozenset(self) -> None:
        self.stack.append(frozenset(_key(item) for item in self.pop_mark()))

    def new_bytearray(self) -> None:
        size = int.from_bytes(self.read(8), "little")
        if size > self.size:
            raise FormatError(f"{size} bytes are declared; the file ends before that.")
        self.stack.append(bytes(self.read(size)))

    def instance(self) -> None:
        module, name = (self.readline()[:-1].decode("ascii") for _ in range(2))
        self.find_class(module, name)
        _refuse(f"an instance of {module[:80]}.{name[:80]}")

    def forbidden(self) -> None:
        _refuse("an instance of a class, or a function registered by number")


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


def _the(kind: type[Any], value: Any) -> Any:
    if not isinstance(value, kind):
        _refuse(f"items put into {type(value).__name__}")
    return value


def _key(key: Any) -> Any:
    # Tuples in tuples as keys can take for ever to hash, and no file of data has them.
    if type(key) in _ATOMS or (type(key) is tuple and all(type(k) in _ATOMS for k in key)):
        return key
    raise FormatError(
        f"keys must be strings or numbers; this file has one of type {type(key).__name__}."
    )


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise FormatError("sizes must be whole numbers of 0 or more; this file is damaged.")
    return value


def _dtype(held: Any) -> np.dtype[Any]:
    if not isinstance(held, _Held) or held.kind != "dtype":
        raise FormatError("an array must have a dtype; this file is damaged.")
    dtype: np.dtype[Any] = held.value
    return dtype


def _array(raw: Any, dtype: Any, shape: Sequence[Any], order: Any) -> NDArray[Any]:
    kind = _dtype(dtype)
    shape = tuple(_count(n) for n in shape)
    if not kind.itemsize:  # numpy would make room for letters that the file does not have
        raise FormatError(f"an array must have items of some size; this one has dtype {kind.str}.")
    if type(raw) is not bytes or len(raw) != math.prod(shape) * kind.itemsize:
        raise FormatError(f"an array must be as long as its shape {shape} and dtype {kind} say.")
    flat = np.frombuffer(raw, dtype=kind) if raw else np.empty(math.prod(shape), dtype=kind)
    return flat.reshape(shape, order="F" if order == "F" else "C").copy(order="K")


def _ordered_dtype(dtype: np.dtype[Any], state: Any) -> np.dtype[Any]:
    _, order, subarray, names, fields, size, *_ = state
    if subarray is not None or names is not None or fields is not None or order not in "<>|=":
        _refuse("an array of records")
    if dtype.kind in "SU" and size > 0:
        dtype = np.dtype(f"{dtype.kind}{size // (4 if dtype.kind == 'U' else 1)}")
    ordered: np.dtype[Any] = dtype.newbyteorder(order)
    return ordered


# The makers: all that a pickle can call.


def _new_dtype(text: Any, *_: Any) -> _Held:
    if not isinstance(text, str) or not re.fullmatch(r"[<>|=]?([biufcSU]\d{1,6}|\?)", text):
        _refuse(f"an array of dtype {str(text)[:20]!r}")
    return _Held("dtype", np.dtype(text))


def _named_dtype(name: str) -> Callable[..., _Held]:
    return lambda *_: _Held("dtype", np.dtype(name))


def _new_array(kind: Any, *_: Any) -> _Held:
    if kind != _Class("ndarray"):
        _refuse("an array of an unknown kind")
    return _Held("array")


def _buffer_array(raw: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> NDArray[Any]:
    return _array(raw, dtype, shape, order)


def _scalar(dtype: Any, raw: Any) -> Any:
    raw = raw.encode("latin1") if isinstance(raw, str) else raw
    return _array(raw, dtype, (), "C")[()]


def _new_wrapper() -> _Held:
    return _Held("wrapper")


def _new_offset(*bounds: Any) -> _Held:
    left = _count(bounds[0]) if bounds else None
    return _Held("offset", None if left is None else Offset(left, _count(bounds[-1])))


def _ordered(items: Any = ()) -> _Ordered:
    return _Ordered((_key(key), value) for key, value in _the(list, list(items)))


def _set(items: Any = ()) -> set[Any]:
    return {_key(item) for item in items}


def _complex(real: Any, imaginary: Any) -> complex:
    return complex(float(real), float(imaginary))


def _text(text: Any = "") -> str:
    return str(_the(str, text))


def _bytes(*content: Any) -> bytes:
    return bytes(_the(bytes, content[0])) if content else b""


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    # How pickles of protocol 2 spell bytes.
    return str(_the(str, text)).encode("latin1")


def _size(numbers: Any) -> tuple[int, ...]:
    return tuple(_count(n) for n in numbers)


def _device(name: Any, index: Any = None) -> str:
    return str(_the(str, name)) + ("" if index is None else f":{_count(index)}")


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> torch.Tensor:
    _the(_Storage, storage)
    return _typed_tensor(storage, offset, size, stride, None, None, storage.dtype)


def _typed_tensor(
    storage: Any, offset: Any, size: Any, stride: Any, _grad: Any, _hooks: Any, dtype: Any, *_: Any
) -> torch.Tensor:
    import torch

    offset, size, stride = _count(offset), _size(size), _size(stride)
    if not isinstance(dtype, torch.dtype):
        if dtype not in _DTYPES:
            _refuse(f"a tensor of dtype {str(dtype)[:20]!r}")
        dtype = getattr(torch, dtype)
    kind: torch.dtype = dtype
    held = len(_the(_Storage, storage).content) // kind.itemsize
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) and (last >= held or math.prod(size) > held):
        raise FormatError(
            f"a tensor of shape {size} must lie within its storage; that holds {held} numbers. "
            f"The file is damaged, or the tensor was saved expanded: save a contiguous copy."
        )
    if not math.prod(size):
        return torch.empty(size, dtype=kind)
    if kind == torch.bool:  # a bool of another byte than 0 or 1 is no bool
        letters = torch.frombuffer(storage.content, dtype=torch.uint8)
        return letters.as_strided(size, stride, offset) != 0
    whole = torch.frombuffer(storage.content, dtype=kind, count=held)
    return whole.as_strided(size, stride, offset)


def _parameter(data: Any, *_: Any) -> Any:
    import torch

    return _the(torch.Tensor, data)


def _item_size(dtype: str) -> int:
    import torch

    return int(getattr(torch, dtype).itemsize)


def _torch_dtype(name: str) -> Any:
    import torch

    return getattr(torch, name)


_TABLE: dict[tuple[str, str], Any] = (
    {
        ("_codecs", "encode"): _encode,
        ("collections", "OrderedDict"): _ordered,
        ("joblib.numpy_pickle", "NumpyArrayWrapper"): _new_wrapper,
        ("numpy", "dtype"): _new_dtype,
        ("numpy", "ndarray"): _Class("ndarray"),
        ("torch", "Size"): _size,
        ("torch", "device"): _device,
        ("torch._utils", "_rebuild_parameter"): _parameter,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch._utils", "_rebuild_tensor_v3"): _typed_tensor,
        ("torch.storage", "UntypedStorage"): _StorageType("uint8"),
        ("torch.torch_version", "TorchVersion"): _text,
    }
    | {("cebra.data" + tail, "Offset"): _new_offset for tail in ("", ".datatypes")}
    | {
        (core, name): maker
        for module in ("numpy.core", "numpy._core")
        for core, name, maker in (
            (f"{module}.multiarray", "_reconstruct", _new_array),
            (f"{module}.multiarray", "scalar", _scalar),
            (f"{module}.numeric", "_frombuffer", _buffer_array),
        )
    }
    | {
        (module, name): maker
        for module in ("builtins", "__builtin__")
        for name, maker in (
            ("set", _set),
            ("frozenset", _set),
            ("complex", _complex),
            ("bytes", _bytes),
            ("bytearray", _bytes),
        )
    }
    | {("numpy.dtypes", f"{np.dtype(n).__class__.__name__}"): _named_dtype(n) for n in _NUMERIC}
    | {("torch", name): _StorageType(dtype) for name, dtype in _STORAGES.items()}
)
_MAKERS = frozenset(maker for maker in _TABLE.values() if not isinstance(maker, tuple))


def _plain(value: Any, done: dict[int, Any], within: set[int]) -> Any:
    """The same with every held thing in place, and nothing but data."""
    kind = type(value)
    if kind in _ATOMS:
        return value
    if isinstance(value, _Held):
        if value.value is None:
            raise FormatError(f"every {value.kind} must be filled; this file is damaged.")
        return value.value
    if id(value) in done:
        return done[id(value)]
    out: Any
    if kind is list:
        out = done[id(value)] = []
        out.extend(_plain(v, done, within) for v in value)
    elif kind in (dict, _Ordered):
        out = done[id(value)] = {}
        out |= {k: _plain(v, done, within) for k, v in value.items()}
    elif kind in (tuple, _Class, _StorageType, _Storage):
        if kind is not tuple or id(value) in within:
            _refuse("a tuple within itself" if kind is tuple else f"a bare {kind.__name__[1:]}")
        within.add(id(value))
        out = done[id(value)] = tuple(_plain(v, done, within) for v in value)
    elif kind in (set, frozenset) or kind.__module__.partition(".")[0] in ("numpy", "torch"):
        out = value
    else:
        _refuse("a function" if callable(value) else f"a {kind.__name__}")
    return out
