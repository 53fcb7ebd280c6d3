"""What a pickle may name: a closed table of makers of plain data, which check what they get."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError, UnsafeFileError

if TYPE_CHECKING:
    import torch

__all__ = [
    "ATOMS",
    "DTYPES",
    "MAKERS",
    "TABLE",
    "Class",
    "Held",
    "Offset",
    "Ordered",
    "Storage",
    "StorageType",
    "array_of",
    "checked",
    "checked_count",
    "checked_key",
    "dtype_of",
    "item_size",
    "ordered_dtype",
    "refuse",
    "torch_dtype",
]

DTYPES = frozenset(
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
_NUMERIC = sorted(DTYPES - {"bfloat16"})
ATOMS = (str, int, float, bool, bytes, complex, type(None))


class Offset(NamedTuple):
    """Samples a window takes to the left of its centre, and to the right with the centre."""

    left: int
    right: int


@dataclass(eq=False)
class Held:
    """A thing that a pickle makes empty and fills later."""

    kind: Literal["dtype", "array", "wrapper", "offset"]
    value: Any = None


class StorageType(NamedTuple):
    """The kind of numbers that a storage of torch holds."""

    dtype: str


class Storage(NamedTuple):
    """The bytes of a tensor, and of which numbers."""

    content: bytearray
    dtype: str


class Class(NamedTuple):
    """A class that is only ever an argument, such as the kind of array to make."""

    name: str


class Ordered(dict[Any, Any]):
    """An OrderedDict: torch fills its attributes too, with versions that nothing here needs."""


def refuse(what: str) -> NoReturn:
    """Say that a file asks for what is no plain data."""
    # A name out of a file may hold what moves a terminal's cursor.
    what = "".join(c if c.isprintable() else "?" for c in what)
    raise UnsafeFileError(
        f"a file may hold plain data only; this one asks for {what}. Save plain arrays instead."
    )


def checked(kind: type[Any], value: Any) -> Any:
    """The value, which must be of this kind."""
    if not isinstance(value, kind):
        refuse(f"items put into {type(value).__name__}")
    return value


def checked_key(key: Any) -> Any:
    """The key of a dict or member of a set, which must be an atom or a tuple of atoms."""
    # Tuples in tuples as keys can take for ever to hash, and no file of data has them.
    if type(key) in ATOMS or (type(key) is tuple and all(type(k) in ATOMS for k in key)):
        return key
    raise FormatError(
        f"keys must be strings or numbers; this file has one of type {type(key).__name__}."
    )


def checked_count(value: Any) -> int:
    """The value, which must be a whole number of 0 or more."""
    if type(value) is not int or value < 0:
        raise FormatError("sizes must be whole numbers of 0 or more; this file is damaged.")
    return value


def dtype_of(held: Any) -> np.dtype[Any]:
    """What a filled dtype is."""
    if not isinstance(held, Held) or held.kind != "dtype":
        raise FormatError("an array must have a dtype; this file is damaged.")
    dtype: np.dtype[Any] = held.value
    return dtype


def array_of(raw: Any, dtype: Any, shape: Sequence[Any], order: Any) -> NDArray[Any]:
    """An array of its own, of bytes that are exactly as long as its shape says."""
    kind = dtype_of(dtype)
    shape = tuple(checked_count(n) for n in shape)
    if not kind.itemsize:  # numpy would make room for letters that the file does not have
        raise FormatError(f"an array must have items of some size; this one has dtype {kind.str}.")
    if type(raw) is not bytes or len(raw) != math.prod(shape) * kind.itemsize:
        raise FormatError(f"an array must be as long as its shape {shape} and dtype {kind} say.")
    flat = np.frombuffer(raw, dtype=kind) if raw else np.empty(math.prod(shape), dtype=kind)
    return flat.reshape(shape, order="F" if order == "F" else "C").copy(order="K")


def ordered_dtype(dtype: np.dtype[Any], state: Any) -> np.dtype[Any]:
    """The dtype with the byte order and length of text that its pickled state says."""
    _, order, subarray, names, fields, size, *_ = state
    if subarray is not None or names is not None or fields is not None or order not in "<>|=":
        refuse("an array of records")
    if dtype.kind in "SU" and size > 0:
        dtype = np.dtype(f"{dtype.kind}{size // (4 if dtype.kind == 'U' else 1)}")
    ordered: np.dtype[Any] = dtype.newbyteorder(order)
    return ordered


def item_size(dtype: str) -> int:
    """Bytes of one number."""
    import torch

    return int(getattr(torch, dtype).itemsize)


def torch_dtype(name: str) -> Any:
    """The dtype of torch, which is imported here alone."""
    import torch

    return getattr(torch, name)


def _new_dtype(text: Any, *_: Any) -> Held:
    if not isinstance(text, str) or not re.fullmatch(r"[<>|=]?([biufcSU]\d{1,6}|\?)", text):
        refuse(f"an array of dtype {str(text)[:20]!r}")
    return Held("dtype", np.dtype(text))


def _named_dtype(name: str) -> Callable[..., Held]:
    return lambda *_: Held("dtype", np.dtype(name))


def _new_array(kind: Any, *_: Any) -> Held:
    if kind != Class("ndarray"):
        refuse("an array of an unknown kind")
    return Held("array")


def _buffer_array(raw: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> NDArray[Any]:
    return array_of(raw, dtype, shape, order)


def _scalar(dtype: Any, raw: Any) -> Any:
    raw = raw.encode("latin1") if isinstance(raw, str) else raw
    return array_of(raw, dtype, (), "C")[()]


def _new_wrapper() -> Held:
    return Held("wrapper")


def _new_offset(*bounds: Any) -> Held:
    left = checked_count(bounds[0]) if bounds else None
    return Held("offset", None if left is None else Offset(left, checked_count(bounds[-1])))


def _ordered(items: Any = ()) -> Ordered:
    return Ordered((checked_key(key), value) for key, value in checked(list, list(items)))


def _set(items: Any = ()) -> set[Any]:
    return {checked_key(item) for item in items}


def _complex(real: Any, imaginary: Any) -> complex:
    return complex(float(real), float(imaginary))


def _text(text: Any = "") -> str:
    return str(checked(str, text))


def _bytes(*content: Any) -> bytes:
    return bytes(checked(bytes, content[0])) if content else b""


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    # How pickles of protocol 2 spell bytes.
    return str(checked(str, text)).encode("latin1")


def _size(numbers: Any) -> tuple[int, ...]:
    return tuple(checked_count(n) for n in numbers)


def _device(name: Any, index: Any = None) -> str:
    return str(checked(str, name)) + ("" if index is None else f":{checked_count(index)}")


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> torch.Tensor:
    checked(Storage, storage)
    return _typed_tensor(storage, offset, size, stride, None, None, storage.dtype)


def _typed_tensor(
    storage: Any, offset: Any, size: Any, stride: Any, _grad: Any, _hooks: Any, dtype: Any, *_: Any
) -> torch.Tensor:
    import torch

    offset, size, stride = checked_count(offset), _size(size), _size(stride)
    if not isinstance(dtype, torch.dtype):
        if dtype not in DTYPES:
            refuse(f"a tensor of dtype {str(dtype)[:20]!r}")
        dtype = getattr(torch, dtype)
    kind: torch.dtype = dtype
    held = len(checked(Storage, storage).content) // kind.itemsize
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

    return checked(torch.Tensor, data)


TABLE: dict[tuple[str, str], Any] = (
    {
        ("_codecs", "encode"): _encode,
        ("collections", "OrderedDict"): _ordered,
        ("joblib.numpy_pickle", "NumpyArrayWrapper"): _new_wrapper,
        ("numpy", "dtype"): _new_dtype,
        ("numpy", "ndarray"): Class("ndarray"),
        ("torch", "Size"): _size,
        ("torch", "device"): _device,
        ("torch._utils", "_rebuild_parameter"): _parameter,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch._utils", "_rebuild_tensor_v3"): _typed_tensor,
        ("torch.storage", "UntypedStorage"): StorageType("uint8"),
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
    | {("torch", name): StorageType(dtype) for name, dtype in _STORAGES.items()}
)
MAKERS = frozenset(maker for maker in TABLE.values() if not isinstance(maker, tuple))
