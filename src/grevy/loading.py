"""Arrays from the files that people have; the format is found in the content, not in the name.

No file runs code: numpy reads without pickle, pickles, joblib and torch files go through
`grevy.restricted`, HDF5 through h5py alone. Declared sizes are compared with the size of the file
before memory is taken.
"""

from __future__ import annotations

import csv
import io
import math
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import (
    ConfigError,
    DataError,
    FormatError,
    GrevyError,
    LimitError,
    MissingExtraError,
    UnsafeFileError,
)
from .restricted import LEGACY_TORCH, read_pickle, read_torch

if TYPE_CHECKING:
    import h5py

__all__ = ["load_data", "load_deeplabcut"]

_HDF5 = b"\x89HDF\r\n\x1a\n"
# Deflate makes at most 1,032 bytes of one; a file that promises more is damaged or hostile.
_RATIO = 1100
_SLACK = 2**20
_LIMIT = 2**34
_CELLS = 2**26
_MATLAB_NUMBERS = frozenset(
    {"double", "single", "logical"}
    | {f"{u}int{bits}" for u in ("", "u") for bits in (8, 16, 32, 64)}
)
_MISSING = frozenset({"", "na", "n/a", "nan", "-nan", "null", "none", "#n/a"})


class _Table(NamedTuple):
    """Values (n, columns) and what the columns are called; no names for a bare array."""

    values: NDArray[Any]
    columns: tuple[Any, ...] = ()
    levels: tuple[Any, ...] = ()


Key = str | int | None


def load_data(
    file: str | Path, key: Key = None, columns: Sequence[str | int] | None = None
) -> NDArray[Any]:
    r"""Read one array from a file of any of the formats that CEBRA reads.

    These are .npy, .npz, HDF5 (plain, or a table of pandas), torch, csv, Excel, pickle, joblib
    (uncompressed, zlib or gzip) and Matlab (version 5 and 7.3), told apart by content.

    Parameters
    ----------
    file : str or Path
    key : str or int, optional
        Which array, in files that hold several: a name, a path within HDF5, a sheet, a position in
        a list. By default the first array of more than one number. A table of pandas in HDF5 must
        be named where there are other arrays.
    columns : sequence of str or int, optional
        Columns to keep, in this order: names where the file has them, otherwise positions. For a
        file of DeepLabCut read without `key`, the keypoints.

    Returns
    -------
    array
        Numbers in the file's own dtype (unsigned included) and native byte order, in the file's own
        shape; a file of DeepLabCut comes as from `load_deeplabcut`.

    Raises
    ------
    FormatError
        If the file is absent, damaged, or of no known format.
    DataError
        If `key` or a column is not in the file, or the data are no numbers.
    UnsafeFileError
        If the file asks for code, or points outside itself.
    MissingExtraError
        If an Excel file needs a package that is not installed.
    LimitError
        If a compressed file unpacks to more than 16 GiB, or a pickle multiplies its own content.

    Notes
    -----
    Matlab 7.3 arrays come in Matlab's shape. A first line of csv that is not all numbers is a
    header, and so is the line ",0,1,2" of pandas; rows must have one length.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> file = Path(tempfile.mkdtemp()) / "position.txt"
    >>> _ = file.write_text("x,y\n1,2\n3,4\n")
    >>> load_data(file, columns=["y"])
    array([[2],
           [4]])
    """
    path = Path(file)
    with _said(path):
        kind = _kind(path)
        table = _READERS[kind](path, key)
        if table.levels and "coords" in table.levels and key is None:
            return _positions(table, columns, 0.6)
        return _chosen(table, columns)


def load_deeplabcut(
    filepath: str | Path, keypoints: Sequence[str] | None = None, pcutoff: float = 0.6
) -> NDArray[np.float64]:
    """Positions of keypoints that DeepLabCut found or people marked, gaps interpolated.

    Parameters
    ----------
    filepath : str or Path
        An .h5 or .csv file of DeepLabCut, of a single animal.
    keypoints : sequence of str, optional
        Which, and in which order; all by default.
    pcutoff : float
        Positions of a lower likelihood, in [0, 1], count as missing.

    Returns
    -------
    array, shape (n_frames, 2 * n_keypoints), in pixels
        x and y of each keypoint. A row for every frame: missing positions lie on the line between
        the nearest frames that have one; before the first and after the last they repeat it.

    Raises
    ------
    DataError
        If a keypoint is not in the file or has no frame above the cutoff, or the file is of several
        animals.
    ConfigError
        If `pcutoff` is outside [0, 1] or `keypoints` is one string.
    FormatError, UnsafeFileError
        As `load_data`.

    References
    ----------
    Mathis et al. 2018, DeepLabCut, doi:10.1038/s41593-018-0209-y.
    """
    path = Path(filepath)
    with _said(path):
        kind = _kind(path)
        if kind == "hdf5":
            table = _read_hdf5(path, None, prefer="df_with_missing")
        elif kind == "csv":
            table = _deeplabcut_csv(path)
        else:
            raise FormatError(f"a file of DeepLabCut must be HDF5 or csv; this one is {kind}.")
        return _positions(table, keypoints, pcutoff)


@contextmanager
def _said(path: Path) -> Iterator[None]:
    """Every failure as one sentence that names the file."""
    try:
        yield
    except ConfigError:
        raise
    except GrevyError as error:
        text = str(error)
        raise type(error)(_line(text if str(path) in text else f"{path}: {text}")) from error
    except OSError as error:
        why = error.strerror or str(error).split("\n")[0] or "it cannot be read"
        raise FormatError(_line(f"a data file must be readable; {path}: {why}.")) from error
    except Exception as error:  # the readers answer damage with every kind of error
        first = (str(error) or type(error).__name__).split("\n")[0]
        raise FormatError(
            _line(f"a data file must be whole; {path} is damaged: {first.removesuffix('.')}.")
        ) from error


def _line(text: str) -> str:
    """Without what a name in a file may hold to move a terminal's cursor."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _kind(path: Path) -> str:
    """The format of a file by its first bytes."""
    with path.open("rb") as file:
        head = file.read(2048)
    if not head:
        raise DataError(f"a data file must hold data; {path} is empty.")
    starts = {b"\x93NUMPY": "npy", b"PK\x03\x04": "zip", b"\xd0\xcf\x11\xe0": "excel"}
    for start, kind in starts.items():
        if head.startswith(start):
            return _kind_of_zip(path) if kind == "zip" else kind
    if any(head.startswith(_HDF5, at) for at in (0, 512, 1024)):
        return "hdf5"
    if head.startswith(b"MATLAB 5.0"):
        return "matlab"
    if head.startswith(LEGACY_TORCH):
        return "torch"
    packed = head[0] == 0x78 and int.from_bytes(head[:2], "big") % 31 == 0
    if packed or head.startswith(b"\x1f\x8b"):
        return "packed"
    if head[0] == 0x80 or _ends_as_pickle(path, head):
        return "pickle"
    if b"\0" not in head and not head.startswith((b"BZh", b"\xfd7zXZ")):
        return "csv"
    raise FormatError(
        f"a data file must be npy, npz, HDF5, torch, csv, Excel, pickle, joblib or Matlab; the "
        f"content of {path} is none of these."
    )


def _ends_as_pickle(path: Path, head: bytes) -> bool:
    """Pickles of protocols 0 and 1 have no mark of their own but their first and last letters."""
    if head[:1] not in (b"(", b"c", b"]", b"}") or (head[:1] == b"c" and b"\n" not in head[:200]):
        return False
    with path.open("rb") as file:
        file.seek(-1, io.SEEK_END)
        return file.read() == b"."


def _kind_of_zip(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if "[Content_Types].xml" in names:
        return "excel"
    if any(name.endswith("data.pkl") for name in names):
        return "torch"
    if any(name.endswith(".npy") for name in names):
        return "npz"
    raise FormatError(
        f"a zip archive must be of numpy, torch or Excel; {path} holds {', '.join(names[:5])}."
    )


def _read_npy(path: Path, key: Key) -> _Table:
    _no_key(key, "a .npy file")
    return _Table(_npy(path.read_bytes()))


def _npy(blob: bytes) -> NDArray[Any]:
    file = io.BytesIO(blob)
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise FormatError(f"a .npy file must have version 1 or 2; this one has {version}.")
    shape, fortran, dtype = readers[version](file)
    if dtype.hasobject:
        raise UnsafeFileError(
            "arrays must hold numbers; this one holds Python objects, which may run code. Save it "
            "as numbers."
        )
    size = math.prod(shape) * dtype.itemsize
    if size != len(blob) - file.tell():
        raise FormatError(
            f"an array of shape {shape} must have {size} bytes; the file has "
            f"{len(blob) - file.tell()}."
        )
    flat = np.frombuffer(blob, dtype=dtype, offset=file.tell(), count=math.prod(shape))
    return flat.reshape(shape, order="F" if fortran else "C").copy(order="K")


def _read_npz(path: Path, key: Key) -> _Table:
    with zipfile.ZipFile(path) as archive:
        entries = {e.filename.removesuffix(".npy"): e for e in archive.infolist()}

        def read(name: str) -> NDArray[Any]:
            entry = entries[name]
            if entry.file_size > _RATIO * entry.compress_size + _SLACK:
                raise FormatError(f"'{name}' declares more bytes than its content can give.")
            return _npy(archive.read(entry))

        if key is not None:
            return _Table(read(str(_known(key, list(entries)))))
        refused: UnsafeFileError | None = None
        for name in entries:
            try:
                array = read(name)
            except UnsafeFileError as error:
                refused = error
                continue
            if _is_series(array):
                return _Table(array)
    raise refused or _none_found(entries)


def _read_pickle(path: Path, key: Key) -> _Table:
    return _from_object(read_pickle(path.read_bytes()), key)


def _read_packed(path: Path, key: Key) -> _Table:
    unpack = zlib.decompressobj(wbits=47)  # zlib or gzip
    blob = unpack.decompress(path.read_bytes(), _LIMIT)
    if not unpack.eof:
        if len(blob) >= _LIMIT:
            raise LimitError("a compressed file must unpack to 16 GiB at most.")
        raise FormatError("a compressed file must be whole; this one is cut short.")
    return _from_object(read_pickle(blob), key)


def _read_torch(path: Path, key: Key) -> _Table:
    return _from_object(read_torch(path), key)


def _from_object(value: object, key: Key) -> _Table:
    """The array that a pickled object is, or holds under a key or position."""
    if isinstance(value, dict):
        if key is not None:
            return _Table(_array(value[_known(key, list(value))], f"'{key}'"))
        for name, item in value.items():
            if isinstance(item, np.ndarray) or hasattr(item, "numel"):
                array = _array(item, f"'{name}'")
                if _is_series(array):
                    return _Table(array)
        raise _none_found(value)
    if isinstance(value, (list, tuple)) and key is not None:
        return _Table(_array(value[int(_known(key, list(range(len(value)))))], f"item {key}"))
    _no_key(key, "a file of one array")
    return _Table(_array(value, "the content"))


def _array(value: Any, name: str) -> NDArray[Any]:
    if type(value).__module__ == "torch" and hasattr(value, "numpy"):
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
        return np.array(value.numpy())
    if isinstance(value, (list, tuple)):
        # Rows of rows at most: a list may hold itself many times over and unfold without end.
        rows = [v for v in value if isinstance(v, (list, tuple))]
        if 8 * sum(len(row) for row in rows) > _LIMIT:
            raise LimitError(f"{name} must make an array of 16 GiB at most.")
        if any(
            isinstance(v, (list, tuple)) for row in {id(r): r for r in rows}.values() for v in row
        ):
            raise DataError(f"{name} must be a list of numbers or of rows; it is nested deeper.")
        try:
            value = np.array(value)
        except ValueError as error:
            raise DataError(f"{name} must have rows of one length; they differ.") from error
    if not isinstance(value, np.ndarray):
        raise DataError(f"{name} must be an array; it is {type(value).__name__}.")
    return value


def _read_csv(path: Path, key: Key) -> _Table:
    import pandas as pd

    _no_key(key, "a csv file")
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = next(csv.reader(file), [])
    if first[:1] == ["scorer"]:
        return _deeplabcut_csv(path)
    # pandas names unnamed columns by their numbers, and the index not at all.
    numbered = len(first) > 1 and first == ["", *map(str, range(len(first) - 1))]
    header = numbered or not all(_is_number(cell) for cell in first)
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # else values are left out
        try:
            frame = pd.read_csv(
                path,
                header=0 if header else None,
                encoding="utf-8-sig",
                index_col=False,
                low_memory=False,
            )
        except pd.errors.ParserWarning as error:
            raise DataError(
                f"rows must have as many values as the header has names, {len(first)}; some have "
                f"more."
            ) from error
    if len(frame) and frame.iloc[:, -1].isna().any():
        _no_short_row(path, len(first))
    return _from_frame(frame, tuple(cell.strip() for cell in first) if header else ())


def _no_short_row(path: Path, width: int) -> None:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        for row in reader:
            if row and len(row) < width:
                raise DataError(
                    f"every row must have {width} values; line {reader.line_num} has {len(row)}. "
                    f"The file may be cut short."
                )


def _is_number(cell: str) -> bool:
    if cell.strip().lower() in _MISSING:
        return True
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _from_frame(frame: Any, names: tuple[Any, ...]) -> _Table:
    if frame.shape[0] == 0:
        raise DataError("a table must have rows below its header; this one has none.")
    for number, column in enumerate(frame):
        values = frame.iloc[:, number]
        if values.dtype.kind not in "biufc":
            wrong = [i for i, v in enumerate(values) if not _is_number(str(v))][:1]
            row = wrong[0] if wrong else 0
            raise DataError(
                f"a table must hold numbers below its header; column "
                f"'{names[number] if names else column}', data row {row} "
                f"(from 0) holds {str(values.iloc[row])[:40]!r}. Leave the column out of the file."
            )
    return _Table(frame.to_numpy(), names)


def _read_excel(path: Path, key: Key) -> _Table:
    import pandas as pd

    engine = "openpyxl" if zipfile.is_zipfile(path) else "xlrd"
    try:
        library = import_module(engine)
    except ImportError as error:
        raise MissingExtraError(
            f"Excel files are read with {engine}, which is not installed; {path} is one. "
            f"Run: pip install {engine}"
        ) from error
    rows = _sheet(path, key, library) if engine == "openpyxl" else _old_sheet(path, key, library)
    if not rows:
        raise DataError("a sheet must hold data; this one is empty.")
    width = max(map(len, rows))
    rows = [row + [None] * (width - len(row)) for row in rows]
    header = any(isinstance(cell, str) for cell in rows[0])
    names = tuple("" if cell is None else str(cell).strip() for cell in rows[0]) if header else ()
    cells = [[math.nan if cell is None else cell for cell in row] for row in rows[len(names) > 0 :]]
    return _from_frame(pd.DataFrame(cells), names)


def _sheet(path: Path, key: Key, openpyxl: Any) -> list[list[Any]]:
    """Rows of a sheet, without the empty cells at their ends."""
    with zipfile.ZipFile(path) as archive:
        if any(e.file_size > _RATIO * e.compress_size + _SLACK for e in archive.infolist()):
            raise FormatError("a sheet declares more bytes than its content can give.")
    with path.open("rb") as file:  # of a path it would look at the suffix
        book = openpyxl.load_workbook(file, read_only=True, data_only=True)
        sheets = {sheet.title: sheet for sheet in book.worksheets}
        sheet = sheets[_known(key, list(sheets)) if key is not None else next(iter(sheets))]
        sheet.reset_dimensions()  # as declared, they may be anything
        return _rows(sheet.iter_rows(values_only=True))


def _rows(sheet: Iterable[Sequence[Any]]) -> list[list[Any]]:
    rows: list[list[Any]] = []
    last, width = 0, 0
    for number, cells in enumerate(sheet, 1):
        row = [None if _is_gap(cell) else cell for cell in cells]
        while row and row[-1] is None:
            row.pop()
        rows.append(row)
        if row:
            last, width = number, max(width, len(row))
        # One cell in a far corner makes a table of 17 thousand million.
        if last * width > _CELLS:
            raise LimitError(
                f"a sheet must have {_CELLS} cells at most; this one has {last} rows and {width} "
                f"columns."
            )
    return rows[:last]


def _is_gap(cell: Any) -> bool:
    return isinstance(cell, str) and cell.strip().lower() in _MISSING


def _old_sheet(path: Path, key: Key, xlrd: Any) -> list[list[Any]]:
    """Rows of a sheet of Excel before 2007, which has 65,536 rows of 256 cells at most."""
    book = xlrd.open_workbook(path, on_demand=True)
    names = book.sheet_names()
    sheet = book.sheet_by_name(_known(key, names) if key is not None else names[0])
    kept = {xlrd.XL_CELL_TEXT, xlrd.XL_CELL_NUMBER, xlrd.XL_CELL_BOOLEAN}
    return [
        [cell.value if cell.ctype in kept and not _is_gap(cell.value) else None for cell in row]
        for row in sheet.get_rows()
    ]


def _read_matlab(path: Path, key: Key) -> _Table:
    from scipy.io import loadmat, whosmat

    # Names and kinds first: a cell array of nothing can declare any size.
    kinds = {name: (shape, kind) for name, shape, kind in whosmat(path) if name[:2] != "__"}
    numbers = [name for name, (_, kind) in kinds.items() if kind in _MATLAB_NUMBERS]
    if key is None:
        name = next((name for name in numbers if math.prod(kinds[name][0]) > 1), None)
        if name is None:
            raise _none_found(kinds)
    else:
        name = _known(key, list(kinds))
        if name not in numbers:
            raise _no_numbers(name, f"a Matlab {kinds[name][1]} array")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _Table(loadmat(path, variable_names=[name])[name])


# HDF5: plain arrays, Matlab 7.3, and the tables that pandas writes.


def _read_hdf5(path: Path, key: Key, *, prefer: str = "") -> _Table:
    import h5py

    with h5py.File(path, "r") as file:
        kinds = _contents(file)
        tables = [name for name, kind in kinds.items() if kind == "table"]
        arrays = [name for name, kind in kinds.items() if kind == "array"]
        series = [name for name in arrays if _is_long(file[name])]
        names = [*arrays, *tables]
        if key is not None:
            key = str(_known(key, list(kinds)))
            if key not in names:
                raise _no_numbers(key, kinds[key])
        elif prefer in tables:
            key = prefer
        elif (prefer or not arrays) and len(tables) == 1:
            key = tables[0]
        elif series and not tables and not prefer:
            key = series[0]
        elif not tables:
            raise _none_found(kinds)
        else:
            raise DataError(
                f"a key must say which of several tables and arrays is meant; there are "
                f"{_listed(names)}."
            )
        return _pandas_table(file[key]) if key in tables else _Table(_dataset(file[key]))


def _contents(file: h5py.File) -> dict[str, str]:
    """What a file holds under which name: "array", "table", or what else it is."""
    import h5py

    kinds: dict[str, str] = {}
    waiting = [("", file)]
    seen = set()  # a group may lie within itself
    while waiting:
        prefix, group = waiting.pop(0)
        where = h5py.h5o.get_info(group.id).addr
        if where in seen:
            continue
        seen.add(where)
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise UnsafeFileError(
                    f"an HDF5 file must not point outside itself; '{prefix}{name}' does."
                )
            if isinstance(link, h5py.SoftLink):
                continue  # what it points to has a name of its own
            item = group[name]
            kind = _what(item)
            if kind != "group":
                kinds[prefix + name] = kind
            elif not name.startswith("#"):
                waiting.append((f"{prefix}{name}/", item))
    return kinds


def _what(item: Any) -> str:
    """What an object of HDF5 is to a reader of numbers."""
    import h5py

    if isinstance(item, h5py.Group):
        # Matlab keeps a sparse matrix as three arrays, none of which is the matrix.
        if "MATLAB_sparse" in item.attrs:
            return "a Matlab sparse array"
        return "table" if "pandas_type" in item.attrs else "group"
    if not isinstance(item, h5py.Dataset) or item.shape is None:
        return "no array"
    if "MATLAB_class" in item.attrs and _attribute(item, "MATLAB_class") == "char":
        return "text"
    whole = item.dtype.kind in "biufc" or item.dtype.names == ("real", "imag")
    return "array" if whole else f"of dtype {str(item.dtype)[:60]}"


def _is_long(dataset: Any) -> bool:
    return dataset.size > 1 and not dataset.attrs.get("MATLAB_empty", 0)


def _child(group: Any, name: str) -> Any:
    """A part of a table, which must lie in the table and not behind a link."""
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise UnsafeFileError(f"a table must not point outside itself; '{group.name}/{name}' does.")
    return group[name]


def _dataset(dataset: Any) -> NDArray[Any]:
    if dataset.external or dataset.is_virtual:
        raise UnsafeFileError(
            f"an HDF5 file must not point outside itself; the content of '{dataset.name}' does."
        )
    # Memory is taken by whole chunks.
    room = math.prod(dataset.chunks or ()) * dataset.dtype.itemsize
    if max(room, dataset.nbytes) > _RATIO * dataset.id.get_storage_size() + _SLACK:
        raise FormatError(
            f"'{dataset.name}' declares {max(room, dataset.nbytes)} bytes, more than its content "
            f"can give."
        )
    if dataset.attrs.get("MATLAB_empty", 0):
        shape = tuple(int(n) for n in dataset[()])
        if math.prod(shape):
            raise FormatError(f"'{dataset.name}' must be empty, as it says; its shape is {shape}.")
        return np.empty(shape)
    array = np.asarray(dataset[()])
    if array.dtype.names == ("real", "imag"):
        array = array["real"] + 1j * array["imag"]
    # Matlab writes its arrays column by column, and so they lie the other way round here.
    return array.T if "MATLAB_class" in dataset.attrs else array


def _pandas_table(group: Any) -> _Table:
    kind = _attribute(group, "pandas_type")
    if kind == "frame_table":
        return _written_as_table(group)
    if kind != "frame":
        raise DataError(f"a table must be a DataFrame; '{group.name}' is a pandas {kind}.")
    columns, levels = _axis(group, "axis0")
    blocks: dict[Any, NDArray[Any]] = {}
    for number in range(int(group.attrs["nblocks"])):
        names, _ = _axis(group, f"block{number}_items")
        stored = _child(group, f"block{number}_values")
        block = _numbers(stored)
        if not stored.attrs.get("transposed", 0):
            block = block.T
        blocks |= dict(zip(names, block.T, strict=True))
    return _joined(blocks, columns, levels)


def _joined(
    blocks: Mapping[Any, NDArray[Any]], columns: tuple[Any, ...], levels: tuple[Any, ...]
) -> _Table:
    if not columns:
        raise DataError("a table must have columns of numbers; this one has none.")
    if len(set(columns)) < len(columns):
        twice = next(c for c in columns if columns.count(c) > 1)
        raise DataError(f"columns of a table must have names of their own; {twice!r} repeats.")
    return _Table(np.stack([blocks[c] for c in columns], axis=1), columns, levels)


def _written_as_table(group: Any) -> _Table:
    (_, columns), *_ = _pickled(group, "non_index_axes")
    columns = tuple(columns)
    table = _child(group, "table")
    rows = _dataset(table)
    blocks: dict[Any, NDArray[Any]] = {}
    for field in _pickled(group, "values_cols"):
        if rows[field].dtype.kind not in "biufc":
            raise DataError(f"a table must hold numbers; block '{field}' does not.")
        names = _pickled(table, f"{field}_kind")
        blocks |= dict(zip(names, rows[field].reshape(len(rows), -1).T, strict=True))
    levels = _pickled(group, "info").get(1, {}).get("names") or ()
    return _joined(blocks, columns, tuple(levels))


def _axis(group: Any, name: str) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The entries of an axis, tuples where it has levels, and the names of its levels."""
    if _attribute(group, f"{name}_variety") != "multi":
        return tuple(_words(_child(group, name))), ()
    parts, levels = [], []
    for number in range(int(group.attrs[f"{name}_nlevels"])):
        level = _child(group, f"{name}_level{number}")
        words, codes = _words(level), _numbers(_child(group, f"{name}_label{number}"))
        if codes.size and codes.min() < 0:
            raise DataError(
                f"columns of a table must have whole names; in '{group.name}' some lack."
            )
        parts.append([words[code] for code in codes])
        levels.append(_attribute(level, "name"))
    return tuple(zip(*parts, strict=True)), tuple(levels)


def _numbers(dataset: Any) -> NDArray[Any]:
    array = _dataset(dataset)
    if array.dtype.kind not in "biufc":
        raise DataError(f"a table must hold numbers; '{dataset.name}' does not.")
    return array


def _words(dataset: Any) -> list[Any]:
    return [v.decode() if isinstance(v, bytes) else v for v in _dataset(dataset).tolist()]


def _attribute(item: Any, name: str) -> str:
    value = item.attrs[name]
    return value.decode() if isinstance(value, bytes) else str(value)


def _pickled(item: Any, name: str) -> Any:
    value = item.attrs[name]
    return read_pickle(value.encode("latin1") if isinstance(value, str) else bytes(value))


# DeepLabCut.


def _deeplabcut_csv(path: Path) -> _Table:
    import pandas as pd

    rows: list[list[str]] = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.reader(file):
            rows.append(row)
            if row[:1] == ["coords"] or len(rows) > 4:
                break
    levels = tuple(row[0] if row else "" for row in rows)
    if levels[-1:] != ("coords",):
        raise DataError(
            f"a csv file of DeepLabCut must begin with lines of scorer, bodyparts and coords; its "
            f"lines begin with {_listed(levels)}."
        )
    # The first columns name the frame: one of them, or folder, video and image.
    use = [i for i, what in enumerate(rows[-1]) if what in ("x", "y", "likelihood")]
    frame = pd.read_csv(path, skiprows=len(rows), header=None, low_memory=False)
    table = _from_frame(frame.iloc[:, use], ())
    columns = tuple(zip(*([row[i] for i in use] for row in rows), strict=True))
    return _Table(table.values, columns, levels)


def _positions(
    table: _Table, keypoints: Sequence[Any] | None, pcutoff: float
) -> NDArray[np.float64]:
    if isinstance(keypoints, str):
        raise ConfigError(f"keypoints must be a list of names; it is the string {keypoints!r}.")
    if not 0 <= pcutoff <= 1:
        raise ConfigError(f"pcutoff must be a likelihood in [0, 1]; it is {pcutoff}.")
    if "individuals" in table.levels:
        raise DataError("a file of DeepLabCut must be of one animal; this one has individuals.")
    if not {"bodyparts", "coords"} <= set(table.levels):
        raise DataError(
            f"a file of DeepLabCut must have columns of scorer, bodyparts and coords; this one has "
            f"{_listed(table.levels)}."
        )
    part, coord = table.levels.index("bodyparts"), table.levels.index("coords")
    where = {(c[part], c[coord]): i for i, c in enumerate(table.columns)}
    if len(where) < len(table.columns):
        raise DataError("a file of DeepLabCut must have one scorer; this one repeats its columns.")
    found = list(dict.fromkeys(name for name, _ in where))
    done = []
    for name in found if keypoints is None else keypoints:
        _known(name, found, what="keypoint")
        xy = table.values[:, [where[name, "x"], where[name, "y"]]].astype(np.float64)
        there = np.isfinite(xy).all(axis=1)
        if (name, "likelihood") in where:
            there &= table.values[:, where[name, "likelihood"]] >= pcutoff
        if not there.any():
            raise DataError(
                f"every keypoint must be seen at least once; '{name}' has no position of "
                f"likelihood {pcutoff} or more. Lower pcutoff or leave it out."
            )
        frames = np.arange(len(xy))
        done += [np.interp(frames, frames[there], values[there]) for values in xy.T]
    if not done:
        raise ConfigError("keypoints must name at least one keypoint; it is empty.")
    return np.stack(done, axis=1)


# What is asked for, in what is there.


def _is_series(array: NDArray[Any]) -> bool:
    """Numbers, and more than one: a sampling rate beside the data is not the data."""
    return array.dtype.kind in "biufc" and array.size > 1


def _none_found(names: Any) -> DataError:
    return DataError(
        f"a file must hold an array of more than one number, or a key must say what is meant; "
        f"there are {_listed(names)}."
    )


def _no_numbers(name: Any, what: str) -> DataError:
    advice = " Save it by full()." if "sparse" in what else ""
    return DataError(f"data must be an array of numbers; '{name}' is {what}.{advice}")


def _no_key(key: Key, what: str) -> None:
    if key is not None:
        raise DataError(f"{what} holds one array and has no keys; the key {key!r} was asked for.")


def _known(name: Any, names: Sequence[Any], *, what: str = "key") -> Any:
    if name not in names:
        raise DataError(f"a {what} must be in the file; {name!r} is not: it has {_listed(names)}.")
    return name


def _listed(names: Any) -> str:
    words = [str(name)[:60] for name in list(names)[:20]]
    return ", ".join(words) + (", ..." if len(names) > 20 else "") or "none"


def _chosen(table: _Table, columns: Sequence[str | int] | None) -> NDArray[Any]:
    values = table.values
    if values.dtype.kind not in "biufc":
        raise DataError(f"data must be numbers; this array is of dtype {str(values.dtype)[:60]}.")
    if columns is not None:
        if isinstance(columns, str):
            raise ConfigError(f"columns must be a list; it is the string {columns!r}.")
        if values.ndim != 2:
            raise DataError(f"columns are chosen of a 2-D array; this has shape {values.shape}.")
        there: Sequence[Any] = table.columns or range(values.shape[1])
        twice = [column for column in columns if there.count(column) > 1]
        if twice:
            raise DataError(
                f"a column must be named once; {twice[0]!r} repeats among {_listed(there)}."
            )
        at = [there.index(_known(column, there, what="column")) for column in columns]
        values = values[:, at]
    return values.astype(values.dtype.newbyteorder("="), copy=False)


_READERS: Mapping[str, Callable[[Path, Key], _Table]] = {
    "npy": _read_npy,
    "npz": _read_npz,
    "hdf5": _read_hdf5,
    "torch": _read_torch,
    "csv": _read_csv,
    "excel": _read_excel,
    "pickle": _read_pickle,
    "packed": _read_packed,
    "matlab": _read_matlab,
}
