"""One array from a file of any format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..errors import ConfigError, DataError
from .arrays import from_matlab, from_npy, from_npz, from_packed, from_pickle, from_torch
from .content import Key, Table, known, listed
from .deeplabcut import positions
from .hdf5 import from_hdf5
from .opening import kind_of, said
from .tables import from_csv, from_excel

__all__ = ["load_data"]


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
        If the file is absent, damaged, of no known format, no file (a pipe), or unpacks to a
        thousand times what it stores.
    DataError
        If `key` or a column is not in the file, or the data are no numbers.
    UnsafeFileError
        If the file asks for code, or points outside itself.
    MissingExtraError
        If an Excel file needs a package that is not installed.
    LimitError
        If it takes more than half of the free memory where it cannot be read in pieces, or a
        pickle multiplies its own content.

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
    with said(path):
        kind = kind_of(path)
        table = _READERS[kind](path, key)
        if table.levels and "coords" in table.levels and key is None:
            return positions(table, columns, 0.6)
        return _chosen(table, columns)


def _chosen(table: Table, columns: Sequence[str | int] | None) -> NDArray[Any]:
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
                f"a column must be named once; {twice[0]!r} repeats among {listed(there)}."
            )
        at = [there.index(known(column, there, what="column")) for column in columns]
        values = values[:, at]
    return values.astype(values.dtype.newbyteorder("="), copy=False)


_READERS: Mapping[str, Callable[[Path, Key], Table]] = {
    "npy": from_npy,
    "npz": from_npz,
    "hdf5": from_hdf5,
    "torch": from_torch,
    "csv": from_csv,
    "excel": from_excel,
    "pickle": from_pickle,
    "packed": from_packed,
    "matlab": from_matlab,
}
