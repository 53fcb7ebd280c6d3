"""What a file holds, what may be asked of it, and what is said where the two do not meet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import room
from ..errors import DataError, FormatError

__all__ = [
    "Key",
    "Table",
    "is_series",
    "known",
    "listed",
    "no_key",
    "no_numbers",
    "none_found",
    "refuse_forged",
    "refuse_large",
]

RATIO = 1000
"""So many bytes may be declared for one that is stored. Deflate can make 1,032 of one, and does of
nothing but zeros: who packs so many has no recording."""
FREE_BYTES = 64 << 20
"""So many may always be declared: constants are small, and honest."""
Key = str | int | None


class Table(NamedTuple):
    """Values (n, columns) and what the columns are called; no names for a bare array."""

    values: NDArray[Any]
    columns: tuple[Any, ...] = ()
    levels: tuple[Any, ...] = ()


def is_series(dtype: np.dtype[Any], size: int) -> bool:
    """Numbers, and more than one: a sampling rate beside the data is not the data."""
    return dtype.kind in "biufc" and size > 1


def none_found(names: Any) -> DataError:
    """For a file without an array that could be meant."""
    return DataError(
        f"a file must hold an array of more than one number, or a key must say what is meant; "
        f"there are {listed(names)}."
    )


def no_numbers(name: Any, what: str) -> DataError:
    """For a name of something that is no array of numbers."""
    advice = " Save it by full()." if "sparse" in what else ""
    return DataError(f"data must be an array of numbers; '{name}' is {what}.{advice}")


def no_key(key: Key, what: str) -> None:
    """Refuse a key where there is nothing to choose."""
    if key is not None:
        raise DataError(f"{what} holds one array and has no keys; the key {key!r} was asked for.")


def known(name: Any, names: Sequence[Any], *, what: str = "key") -> Any:
    """The name, which must be among those of the file."""
    if name not in names:
        raise DataError(f"a {what} must be in the file; {name!r} is not: it has {listed(names)}.")
    return name


def listed(names: Any) -> str:
    """Names for a message, the first twenty."""
    words = [str(name)[:60] for name in list(names)[:20]]
    return ", ".join(words) + (", ..." if len(names) > 20 else "") or "none"


def refuse_forged(name: str, declared: int, stored: int) -> None:
    """Refuse what declares many more bytes than its content can give.

    Raises
    ------
    FormatError
        If so.
    """
    if declared > max(FREE_BYTES, RATIO * stored):
        raise FormatError(
            f"{name} declares {declared} bytes, more than its content can give: it stores {stored}."
        )


def refuse_large(n_bytes: int, what: str) -> None:
    """`room.refuse_large`, with what to do about data."""
    room.refuse_large(
        n_bytes,
        what,
        "Save it as .npy or HDF5, which are read in pieces, or use a machine with more memory.",
    )
