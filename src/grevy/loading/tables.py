"""Tables that people write: csv, of DeepLabCut too, and Excel."""

from __future__ import annotations

import csv
import math
import warnings
import zipfile
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import DataError, LimitError, MissingExtraError
from .content import Key, Table, known, listed, no_key, refuse_forged, refuse_large

__all__ = ["deeplabcut_csv", "from_csv", "from_excel"]

_CELLS = 2**26
_MISSING = frozenset({"", "na", "n/a", "nan", "-nan", "null", "none", "#n/a"})


def from_csv(path: Path, key: Key) -> Table:
    """The columns of a csv; one of DeepLabCut is told by its first line."""
    import pandas as pd

    no_key(key, "a csv file")
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = next(csv.reader(file), [])
    if first[:1] == ["scorer"]:
        return deeplabcut_csv(path)
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


def deeplabcut_csv(path: Path) -> Table:
    """A csv of DeepLabCut: lines of scorer, bodyparts and coords above the numbers."""
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
            f"lines begin with {listed(levels)}."
        )
    # The first columns name the frame: one of them, or folder, video and image.
    use = [i for i, what in enumerate(rows[-1]) if what in ("x", "y", "likelihood")]
    frame = pd.read_csv(path, skiprows=len(rows), header=None, low_memory=False)
    table = _from_frame(frame.iloc[:, use], ())
    columns = tuple(zip(*([row[i] for i in use] for row in rows), strict=True))
    return Table(table.values, columns, levels)


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


def _from_frame(frame: Any, names: tuple[Any, ...]) -> Table:
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
    return Table(frame.to_numpy(), names)


def from_excel(path: Path, key: Key) -> Table:
    """A sheet of Excel."""
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
        for entry in archive.infolist():
            refuse_forged(f"'{entry.filename}'", entry.file_size, entry.compress_size)
        refuse_large(max(e.file_size for e in archive.infolist()), "each part of a sheet")
    with path.open("rb") as file:  # of a path it would look at the suffix
        book = openpyxl.load_workbook(file, read_only=True, data_only=True)
        sheets = {sheet.title: sheet for sheet in book.worksheets}
        sheet = sheets[known(key, list(sheets)) if key is not None else next(iter(sheets))]
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
    sheet = book.sheet_by_name(known(key, names) if key is not None else names[0])
    kept = {xlrd.XL_CELL_TEXT, xlrd.XL_CELL_NUMBER, xlrd.XL_CELL_BOOLEAN}
    return [
        [cell.value if cell.ctype in kept and not _is_gap(cell.value) else None for cell in row]
        for row in sheet.get_rows()
    ]
