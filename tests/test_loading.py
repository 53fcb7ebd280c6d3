"""Loading: every format by content, nothing run or followed outside, keypoints by slow twins."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse
import torch

from grevy import room
from grevy.errors import (
    ConfigError,
    DataError,
    FormatError,
    GrevyError,
    LimitError,
    MissingExtraError,
    UnsafeFileError,
)
from grevy.loading import array_shapes, load_data, load_deeplabcut, refuse_hanging
from grevy.loading import content as contents
from grevy.sources import read_source

RNG = np.random.default_rng()


def write(path: Path, kind: str, first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> None:
    """The same two arrays, or the first alone, in any format."""
    both = {"neural": first, "trial": second}
    match kind:
        case "npy":
            with path.open("wb") as open_file:
                np.save(open_file, first)
        case "npz":
            with path.open("wb") as open_file:
                np.savez(open_file, **both)
        case "npz packed":
            with path.open("wb") as open_file:
                np.savez_compressed(open_file, **both)
        case "hdf5":
            with h5py.File(path, "w") as file:
                for name, array in both.items():
                    file[name] = array
        case "torch":
            torch.save({k: torch.from_numpy(v) for k, v in both.items()}, path)
        case "pickle":
            path.write_bytes(pickle.dumps(both))
        case "old pickle":
            path.write_bytes(pickle.dumps(both, 0))
        case "zlib":
            path.write_bytes(zlib.compress(pickle.dumps(both)))
        case "gzip":
            path.write_bytes(gzip.compress(pickle.dumps(both)))
        case "matlab":
            with path.open("wb") as open_file:
                scipy.io.savemat(open_file, both, do_compression=True)
        case "matlab 7.3":
            with h5py.File(path, "w", userblock_size=512) as file:
                for name, array in both.items():
                    file[name] = array.T
                    file[name].attrs["MATLAB_class"] = np.bytes_("double")
            with path.open("r+b") as open_file:
                open_file.write(b"MATLAB 7.3 MAT-file".ljust(128))
        case "csv":
            path.write_text("\n".join(",".join(map(repr, row)) for row in first.tolist()) + "\n")


SEVERAL = [
    "npz", "npz packed", "hdf5", "torch", "pickle", "old pickle", "zlib", "gzip", "matlab",
    "matlab 7.3",
]  # fmt: skip


@pytest.mark.parametrize("kind", [*SEVERAL, "npy", "csv"])
@pytest.mark.parametrize("name", ["data.txt", "data", "data.npy", "data.h5"])
def test_every_format_by_content(tmp_path: Path, kind: str, name: str) -> None:
    first, second = RNG.normal(size=(5, 3)), RNG.normal(size=(4, 2))
    write(tmp_path / name, kind, first, second)
    np.testing.assert_array_equal(load_data(tmp_path / name), first)
    if kind in SEVERAL:
        np.testing.assert_array_equal(load_data(tmp_path / name, key="trial"), second)
        with pytest.raises(DataError, match="neural, trial"):
            load_data(tmp_path / name, "absent")
    else:
        with pytest.raises(DataError, match="no keys"):
            load_data(tmp_path / name, key="trial")
    np.testing.assert_array_equal(load_data(tmp_path / name, columns=[2, 0]), first[:, [2, 0]])
    with pytest.raises(DataError, match="column"):
        load_data(tmp_path / name, columns=[3])


@pytest.mark.parametrize("kind", ["npy", "npz", "hdf5", "torch", "pickle", "gzip", "matlab"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "u8", "i2", "f4", "f8", "?"])
def test_dtypes_are_kept(tmp_path: Path, kind: str, dtype: str) -> None:
    first = RNG.integers(0, 2, (3, 2)).astype(dtype)
    write(tmp_path / "x", kind, first, first)
    found = load_data(tmp_path / "x")
    np.testing.assert_array_equal(found, first)
    assert found.dtype == first.dtype or (kind == "matlab" and dtype == "?")
    assert found.flags.writeable


@pytest.mark.parametrize("kind", [*SEVERAL, "npy"])
def test_damage_gives_a_sentence(tmp_path: Path, kind: str) -> None:
    write(tmp_path / "x", kind, RNG.normal(size=(5, 3)), RNG.normal(size=(4, 2)))
    good = (tmp_path / "x").read_bytes()
    for trial in range(40):
        bad = bytearray(good)
        if trial % 2:
            bad = bad[: RNG.integers(0, len(bad))]
        else:
            bad[RNG.integers(0, len(bad))] ^= 1 << int(RNG.integers(0, 8))
        (tmp_path / "y").write_bytes(bad)
        try:
            load_data(tmp_path / "y")
        except GrevyError as error:
            text = str(error)
            assert text.endswith(".")
            assert str(tmp_path / "y") in text
            assert "\n" not in text


def test_csv(tmp_path: Path) -> None:
    file = tmp_path / "x"
    values = RNG.normal(size=(20, 2))
    lines = [",".join(map(repr, row)) for row in values.tolist()]
    file.write_text("\ufeffspeed, angle\n" + "\n".join(lines))
    np.testing.assert_allclose(load_data(file), values, rtol=3e-16)
    np.testing.assert_allclose(load_data(file, columns=["angle"]), values[:, 1:], rtol=3e-16)
    with pytest.raises(DataError, match="speed, angle"):
        load_data(file, columns=["place"])
    with pytest.raises(ConfigError, match="list"):
        load_data(file, columns="angle")
    file.write_text("1,2\n3,\n")
    np.testing.assert_array_equal(load_data(file), [[1, 2], [3, np.nan]])
    file.write_text("a,b\n1,2\n3,x\n")
    with pytest.raises(DataError, match=r"'b', data row 1 .*'x'"):
        load_data(file)
    file.write_text("a,b\n")
    with pytest.raises(DataError, match="rows"):
        load_data(file)
    file.write_text("1,2\n3,4,5\n")
    with pytest.raises(FormatError):
        load_data(file)
    file.write_text("")
    with pytest.raises(DataError, match="empty"):
        load_data(file)


def test_no_value_of_a_csv_is_lost_or_made_up(tmp_path: Path) -> None:
    file = tmp_path / "table"
    file.write_text("# made by hand\n1,2\n3,4\n")
    with pytest.raises(DataError, match="as many values as the header has names, 1"):
        load_data(file)
    file.write_text("a,b\n1,2,3\n4,5,6\n")
    with pytest.raises(DataError, match="as many values"):
        load_data(file)
    for header in ("", "a,b,c\n"):
        file.write_text(f"{header}1,2,3\n4,5,6\n7,8\n")
        with pytest.raises(DataError, match=f"line {4 if header else 3} has 2"):
            load_data(file)
        file.write_text(f"{header}1,2,3\n4,5,\n")
        np.testing.assert_array_equal(load_data(file), [[1, 2, 3], [4, 5, np.nan]])
    file.write_text("a,a\n1,2\n")
    np.testing.assert_array_equal(load_data(file), [[1, 2]])
    with pytest.raises(DataError, match="'a' repeats"):
        load_data(file, columns=["a"])


def test_csv_of_pandas(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    values = RNG.normal(size=(4, 3))
    pd.DataFrame(values).to_csv(tmp_path / "table")  # the header is ",0,1,2"
    found = load_data(tmp_path / "table")
    np.testing.assert_allclose(found, np.c_[np.arange(4), values], rtol=3e-16)
    found = load_data(tmp_path / "table", columns=["2", "0"])
    np.testing.assert_allclose(found, values[:, [2, 0]], rtol=3e-16)


@pytest.mark.parametrize("kind", SEVERAL)
def test_a_lone_number_is_not_the_data(tmp_path: Path, kind: str) -> None:
    rate, data = np.array([[30.0]]), RNG.normal(size=(4, 2))
    write(tmp_path / "table", kind, rate, data)
    np.testing.assert_array_equal(load_data(tmp_path / "table"), data)
    np.testing.assert_array_equal(load_data(tmp_path / "table", "neural"), rate)
    write(tmp_path / "table", kind, rate, rate)
    with pytest.raises(DataError, match=r"more than one number.* neural, trial"):
        load_data(tmp_path / "table")


@pytest.mark.parametrize("compress", [0, 3, ("zlib", 9), ("gzip", 3)])
def test_joblib(tmp_path: Path, compress: Any) -> None:
    joblib = pytest.importorskip("joblib")
    for array in (RNG.normal(size=(40, 3)), np.asfortranarray(RNG.integers(0, 9, (5, 4)))):
        joblib.dump(array, tmp_path / "bare", compress=compress)
        np.testing.assert_array_equal(load_data(tmp_path / "bare"), array)
        joblib.dump({"a": array, "b": array + 1}, tmp_path / "dict", compress=compress)
        np.testing.assert_array_equal(load_data(tmp_path / "dict"), array)
        np.testing.assert_array_equal(load_data(tmp_path / "dict", "b"), array + 1)
    joblib.dump(np.array([{}], dtype=object), tmp_path / "objects", compress=compress)
    with pytest.raises(UnsafeFileError):
        load_data(tmp_path / "objects")


def test_matlab_holds_more_than_numbers(tmp_path: Path) -> None:
    file, data = tmp_path / "table", RNG.normal(size=(4, 3))
    cells = np.empty(2, dtype=object)
    cells[:] = [data, data[:2]]
    content = {
        "S": scipy.sparse.csc_matrix(np.eye(5)),
        "who": "mouse",
        "cells": cells,
        "info": {"a": data},
        "wave": data + 1j,
        "neural": data,
    }
    with file.open("wb") as open_file:
        scipy.io.savemat(open_file, content)
    np.testing.assert_array_equal(load_data(file), data + 1j)
    np.testing.assert_array_equal(load_data(file, "neural"), data)
    for key, what in {"S": "sparse", "who": "char", "cells": "cell", "info": "struct"}.items():
        with pytest.raises(DataError, match=f"'{key}' is a Matlab {what} array"):
            load_data(file, key)


def test_matlab_7_3_holds_more_than_numbers(tmp_path: Path) -> None:
    file, data = tmp_path / "table", RNG.normal(size=(4, 3))
    wave = np.zeros((3, 4), dtype=[("real", "f8"), ("imag", "f8")])
    wave["real"], wave["imag"] = data.T, 2 * data.T
    with h5py.File(file, "w") as handle:
        handle["animal"] = np.array([[109], [111]], dtype="u2")
        handle["animal"].attrs["MATLAB_class"] = np.bytes_("char")
        sparse = handle.create_group("S")
        sparse.attrs["MATLAB_sparse"] = np.uint64(4)
        sparse["data"], sparse["ir"], sparse["jc"] = np.ones(4), np.arange(4), np.arange(5)
        handle["kind"] = np.dtype("f4")
        handle["neural"], handle["wave"] = data.T, wave
        for name in ("neural", "wave"):
            handle[name].attrs["MATLAB_class"] = np.bytes_("double")
    np.testing.assert_array_equal(load_data(file), data)
    np.testing.assert_array_equal(load_data(file, "wave"), data + 2j * data)
    for key, what in {"S": "a Matlab sparse array", "animal": "text", "kind": "no array"}.items():
        with pytest.raises(DataError, match=f"'{key}' is {what}"):
            load_data(file, key)
    with pytest.raises(DataError, match="is not: it has S, animal, kind, neural, wave"):
        load_data(file, "S/data")


def test_a_cell_array_of_any_declared_size_costs_nothing(tmp_path: Path) -> None:
    def element(kind: int, content: bytes) -> bytes:
        return struct.pack("<II", kind, len(content)) + content.ljust(-(-len(content) // 8) * 8)

    head = b"MATLAB 5.0 MAT-file".ljust(116) + bytes(8) + struct.pack("<H", 0x0100) + b"IM"
    parts = ((6, struct.pack("<II", 1, 0)), (5, struct.pack("<ii", 2**15, 2**16)), (1, b"c"))
    cell = b"".join(element(kind, content) for kind, content in parts)
    (tmp_path / "table").write_bytes(head + element(14, cell))
    for key in (None, "c"):
        with pytest.raises(DataError):
            load_data(tmp_path / "table", key)


def test_unknown_and_absent_files(tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(bytes(range(256)))
    with pytest.raises(FormatError, match="none of these"):
        load_data(tmp_path / "x.npy")
    with pytest.raises(FormatError, match="No such file"):
        load_data(tmp_path / "absent.h5")
    with pytest.raises(FormatError):
        load_data(tmp_path)


def test_excel(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    file = tmp_path / "x"
    try:
        import openpyxl  # type: ignore[import-untyped]  # noqa: F401
    except ImportError:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("[Content_Types].xml", "<Types/>")
        with pytest.raises(MissingExtraError, match="pip install openpyxl"):
            load_data(file)
        return
    values = RNG.normal(size=(4, 2))
    with pd.ExcelWriter(tmp_path / "x.xlsx") as writer:
        pd.DataFrame(values).to_excel(writer, sheet_name="bare", index=False, header=False)
        pd.DataFrame(values, columns=["a", "b"]).to_excel(writer, sheet_name="named", index=False)
    (tmp_path / "x.xlsx").rename(file)
    np.testing.assert_allclose(load_data(file), values)
    np.testing.assert_allclose(load_data(file, "named", ["b"]), values[:, 1:])
    with pytest.raises(DataError, match="bare, named"):
        load_data(file, "absent")


def test_excel_by_cells(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    file = tmp_path / "table.xlsx"
    sheets: dict[str, list[list[Any]]] = {
        "named": [["a", "b", "empty"], [1, None], ["NA", 2.5], [3, 4], [], []],
        "wrong": [["a", "b"], [1, "x"]],
        "bare": [[1, 2], [3]],
        "header": [["a"]],
        "none": [],
    }
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(file)
    nan = np.nan
    np.testing.assert_array_equal(load_data(file), [[1, nan, nan], [nan, 2.5, nan], [3, 4, nan]])
    np.testing.assert_array_equal(load_data(file, columns=["b"]), [[nan], [2.5], [4]])
    np.testing.assert_array_equal(load_data(file, "bare"), [[1, 2], [3, nan]])
    for name, message in {
        "wrong": r"'b', data row 0 .*'x'",
        "header": "rows",
        "none": "empty",
    }.items():
        with pytest.raises(DataError, match=message):
            load_data(file, name)
    with zipfile.ZipFile(file) as a, zipfile.ZipFile(tmp_path / "far", "w") as b:
        for name in a.namelist():
            content = a.read(name)
            if name.endswith("sheet1.xml"):
                start, end = content.index(b"<sheetData>"), content.index(b"</sheetData>")
                corner = (
                    b'<sheetData><row r="1"><c r="XFD1"><v>1</v></c></row>'
                    b'<row r="9000"><c r="A9000"><v>1</v></c></row>'
                )
                content = content[:start] + corner + content[end:]
            b.writestr(name, content)
    with pytest.raises(LimitError, match="9000 rows and 16384"):
        load_data(tmp_path / "far")


def test_names_in_a_message_are_printable(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "table", "w") as file:
        file["a\x1b[2J\nb"] = np.ones(3)
    for key in ("x", "\x1b"):
        with pytest.raises(DataError) as caught:
            load_data(tmp_path / "table", key)
        assert str(caught.value).isprintable()


def test_code_is_never_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Runs:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {marker}",)

    evil = np.array([Runs()], dtype=object)
    blob = pickle.dumps(Runs())
    np.save(tmp_path / "a.npy", evil, allow_pickle=True)
    np.savez(tmp_path / "b.npz", x=evil)
    torch.save(Runs(), tmp_path / "c")
    for name, content in {"d": blob, "e": zlib.compress(blob), "f": gzip.compress(blob)}.items():
        (tmp_path / name).write_bytes(content)
    with h5py.File(tmp_path / "g", "w") as file:
        group = file.create_group("df_with_missing")
        group.attrs["pandas_type"] = np.bytes_("frame_table")
        group.attrs["non_index_axes"] = np.bytes_(pickle.dumps(Runs(), 0))
    (tmp_path / "h").write_bytes(pickle.dumps(Runs(), 0))
    files = [f for f in tmp_path.iterdir() if f.is_file()]
    assert len(files) == 8
    for path in files:
        with pytest.raises(UnsafeFileError):
            load_data(path)
        assert not marker.exists(), path
    pickle.loads(blob)
    assert marker.exists()


def test_sizes_are_checked_before_memory_is_taken(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones(7))
    raw = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(raw.replace(b"(7,), }" + b" " * 12, b"(7000000000000,), }"))
    with pytest.raises(FormatError, match="7000000000000"):
        load_data(tmp_path / "a.npy")
    with h5py.File(tmp_path / "b", "w") as file:
        file.create_dataset("x", shape=(2**20, 2**20), chunks=(64, 64), dtype="f8")
    with pytest.raises(FormatError, match="declares"):
        load_data(tmp_path / "b")


def test_hdf5_stays_within_its_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "secret", "w") as file:
        file["x"] = np.ones(3)
    np.arange(3.0).tofile(tmp_path / "raw")
    for name in ("link", "raw data", "virtual"):
        with h5py.File(tmp_path / name, "w") as file:
            if name == "link":
                file["x"] = h5py.ExternalLink(str(tmp_path / "secret"), "x")
            elif name == "raw data":
                file.create_dataset("x", (3,), "f8", external=[(str(tmp_path / "raw"), 0, 24)])
            else:
                layout = h5py.VirtualLayout((3,), "f8")
                layout[:] = h5py.VirtualSource(str(tmp_path / "secret"), "x", (3,))
                file.create_virtual_dataset("x", layout)
        for key in (None, "x"):
            with pytest.raises(UnsafeFileError, match="outside"):
                load_data(tmp_path / name, key)


@pytest.mark.parametrize("how", ["table", "fixed"])
def test_tables_of_hdf5_stay_within_their_file(tmp_path: Path, how: str) -> None:
    columns = [("net", "a", coord) for coord in ("x", "y")]
    for name, number in (("secret", 42.0), ("table", 1.0)):
        pandas_table(tmp_path / name, np.full((3, 2), number), columns, LEVELS, how)
    with h5py.File(tmp_path / "table") as file:
        parts = list(file["df_with_missing"])
    assert parts
    for part in parts:
        path = f"df_with_missing/{part}"
        for kind in ("external", "soft"):
            copy = tmp_path / f"{part} {kind}"
            copy.write_bytes((tmp_path / "table").read_bytes())
            with h5py.File(copy, "a") as file:
                del file[path]
                if kind == "external":
                    file[path] = h5py.ExternalLink(str(tmp_path / "secret"), path)
                else:
                    file["#refs#/hidden"] = h5py.ExternalLink(str(tmp_path / "secret"), path)
                    file[path] = h5py.SoftLink("/#refs#/hidden")
            for key in (None, "df_with_missing"):
                with pytest.raises(UnsafeFileError, match="outside"):
                    load_data(copy, key)
            with pytest.raises(UnsafeFileError, match="outside"):
                load_deeplabcut(copy)


def test_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "table", "w") as file:
        group = file.create_group("d")
        group.attrs["pandas_type"], group.attrs["nblocks"] = np.bytes_("frame"), 1
        for axis in ("axis0", "block0_items"):
            group.attrs[f"{axis}_variety"] = np.bytes_("regular")
            group[axis] = np.array([b"a", b"a"])
        group["block0_values"] = np.array([[1.0, 3.0], [2.0, 4.0]])
        group["block0_values"].attrs["transposed"] = 1
    with pytest.raises(DataError, match="'a' repeats"):
        load_data(tmp_path / "table")


def zeros_npy(path: Path, n: int, method: int, *, level: int = 9) -> Path:
    """An .npz of n zeros, written piece by piece, and a small array behind them."""
    head = io.BytesIO()
    about = {"descr": "<f8", "fortran_order": False, "shape": (n, 1)}
    np.lib.format.write_array_header_1_0(head, about)
    with zipfile.ZipFile(path, "w", method, compresslevel=level) as archive:
        with archive.open("x.npy", "w") as file:
            file.write(head.getvalue())
            for _ in range(0, 8 * n, 1 << 20):
                file.write(bytes(1 << 20))
        with archive.open("y.npy", "w") as file:
            np.save(file, np.ones((3, 2)))
    return path


def peak(function: Callable[[], object]) -> int:
    """Bytes that are taken at most meanwhile."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refused(path: Path, says: str, kind: type[Exception] = FormatError) -> None:
    with pytest.raises(kind, match=says):
        load_data(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_archives_that_unpack_without_end_are_refused_by_their_headers(
    tmp_path: Path, method: int
) -> None:
    deflated = method == zipfile.ZIP_DEFLATED
    path = zeros_npy(tmp_path / "x.npz", (9 << 20) if deflated else 1 << 20, method)
    says = "'x.npy' declares .* more than its content can give" if deflated else "deflated, as num"
    assert peak(lambda: refused(path, says)) < 4 << 20
    if deflated:
        np.testing.assert_array_equal(load_data(path, "y"), np.ones((3, 2)))


def test_honest_constants_are_read_and_once(tmp_path: Path) -> None:
    path = zeros_npy(tmp_path / "x.npz", 1 << 20, zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo("x.npy")
    assert entry.file_size > 1000 * entry.compress_size  # more is made of zeros, but of few
    assert 8 << 20 < peak(lambda: load_data(path)) < 13 << 20
    assert not load_data(path).any()


def test_shapes_are_read_from_headers_alone(tmp_path: Path) -> None:
    path = zeros_npy(tmp_path / "x.npz", 1 << 20, zipfile.ZIP_DEFLATED)
    assert array_shapes(path) == {"x": (1 << 20, 1), "y": (3, 2)}
    assert peak(lambda: array_shapes(path)) < 1 << 20


def test_what_does_not_fit_into_memory_is_put_on_disk_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = RNG.normal(size=(10**5, 3))
    np.savez(tmp_path / "x.npz", x=x)
    (tmp_path / "x.joblib").write_bytes(zlib.compress(pickle.dumps(x), 0))
    (tmp_path / "x.pickle").write_bytes(pickle.dumps(x))
    monkeypatch.setattr(room, "free_bytes", lambda: 4 * 10**6)
    monkeypatch.setattr(room, "_ALWAYS", 1000)
    monkeypatch.setattr(contents, "FREE_BYTES", 1000)
    found = load_data(tmp_path / "x.npz")
    assert isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, x)
    for name in ("x.joblib", "x.pickle"):
        refused(tmp_path / name, r"half of the free memory \(0\.002 GB\); found 0\.002", LimitError)


def test_a_packed_stream_without_end_is_refused_early(tmp_path: Path) -> None:
    packer = zlib.compressobj(9)
    parts = [packer.compress(bytes(1 << 20)) for _ in range(80)]
    (tmp_path / "x").write_bytes(b"".join(parts) + packer.flush())
    refused(tmp_path / "x", "its content declares 6[78].* more than its content can give")
    (tmp_path / "x").write_bytes(b"".join(parts)[:-10])
    for level in (0, 6):
        blob = zlib.compress(pickle.dumps(np.arange(1 << 19)), level)
        (tmp_path / "x").write_bytes(blob)
        np.testing.assert_array_equal(load_data(tmp_path / "x"), np.arange(1 << 19))
    (tmp_path / "x").write_bytes(blob[:-10])
    refused(tmp_path / "x", "cut short")


def test_too_little_memory_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    np.savez(tmp_path / "x.npz", x=np.ones(3))
    monkeypatch.setattr(np, "frombuffer", full)
    refused(tmp_path / "x.npz", "must fit into memory", LimitError)
    torch.save(torch.ones(3), tmp_path / "x.pt")
    monkeypatch.setattr(zipfile.ZipFile, "read", full)
    refused(tmp_path / "x.pt", "must fit into memory", LimitError)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
@pytest.mark.parametrize("name", ["x.npz", "x.csv", "x.h5"])
def test_pipes_are_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    os.close(os.open(tmp_path / name, os.O_RDONLY | os.O_NONBLOCK))  # it can be opened
    for look in (load_data, refuse_hanging, read_source):
        with pytest.raises(FormatError, match=r"must be a regular file; .* pipe"):
            look(tmp_path / name)
    assert array_shapes(tmp_path / name) == {}


def test_chunks_are_no_larger_than_their_content(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "table", "w") as file:
        file.create_dataset("x", shape=(4,), dtype="f4", maxshape=(None,), chunks=(2**26,))
    with pytest.raises(FormatError, match="declares 268435456 bytes"):
        load_data(tmp_path / "table")


def test_lists_and_groups_that_unfold_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "free_bytes", lambda: 10**10)
    row = [0.0] * 10**5
    (tmp_path / "x").write_bytes(pickle.dumps([row] * 10**5))
    with pytest.raises(LimitError, match=r"half of the free memory .5 GB.; found 80 GB"):
        load_data(tmp_path / "x")
    with h5py.File(tmp_path / "y", "w") as file:
        file["a/data"] = np.arange(3)
        for name in "bcdefg":
            file[f"a/{name}"] = file["a"]
        file["a/empty"] = np.array([10**6, 10**6], dtype="u8")
        file["a/empty"].attrs["MATLAB_empty"] = 1
    np.testing.assert_array_equal(load_data(tmp_path / "y"), np.arange(3))
    with pytest.raises(FormatError, match="must be empty"):
        load_data(tmp_path / "y", "a/empty")


def test_the_old_torch_format_is_refused_in_words(tmp_path: Path) -> None:
    torch.save(torch.ones(2), tmp_path / "x", _use_new_zipfile_serialization=False)
    with pytest.raises(FormatError, match=r"before torch 1\.6"):
        load_data(tmp_path / "x")


def test_groups_of_hdf5_and_lists(tmp_path: Path) -> None:
    data = RNG.normal(size=(3, 2))
    with h5py.File(tmp_path / "x", "w") as file:
        file["a/b/data"] = data
        file["a/words"] = "text"
    np.testing.assert_array_equal(load_data(tmp_path / "x", "a/b/data"), data)
    np.testing.assert_array_equal(load_data(tmp_path / "x"), data)
    (tmp_path / "y").write_bytes(pickle.dumps([data, data + 1]))
    np.testing.assert_array_equal(load_data(tmp_path / "y", 1), data + 1)
    (tmp_path / "z").write_bytes(pickle.dumps([[1, 2], [3, 4]]))
    np.testing.assert_array_equal(load_data(tmp_path / "z"), [[1, 2], [3, 4]])
    nested: Any = [0]
    for _ in range(60):
        nested = [nested, nested]
    (tmp_path / "w").write_bytes(pickle.dumps(nested))
    with pytest.raises(DataError, match="nested"):
        load_data(tmp_path / "w")


# Tables as pandas writes them, by hand: pytables need not be there.


def pandas_table(path: Path, values: Any, columns: list[Any], levels: list[str], how: str) -> None:
    with h5py.File(path, "w") as file:
        group = file.create_group("df_with_missing")
        if how == "table":
            group.attrs["pandas_type"] = np.bytes_("frame_table")
            group.attrs["non_index_axes"] = np.bytes_(pickle.dumps([(1, columns)], 0))
            group.attrs["values_cols"] = np.bytes_(pickle.dumps(["values_block_0"], 0))
            names = {1: {"names": levels, "type": "MultiIndex"}, "index": {}}
            group.attrs["info"] = np.bytes_(pickle.dumps(names, 0))
            kind = [("index", "<i8"), ("values_block_0", "<f8", (values.shape[1],))]
            rows = np.zeros(len(values), dtype=kind)
            rows["values_block_0"] = values
            group["table"] = rows
            group["table"].attrs["values_block_0_kind"] = np.bytes_(pickle.dumps(columns, 0))
            return
        group.attrs["pandas_type"] = np.bytes_("frame")
        group.attrs["nblocks"] = 1
        for axis in ("axis0", "block0_items"):
            group.attrs[f"{axis}_variety"] = np.bytes_("multi")
            group.attrs[f"{axis}_nlevels"] = len(levels)
            for number, level in enumerate(levels):
                words = sorted({c[number] for c in columns})
                group[f"{axis}_level{number}"] = np.array(words, dtype="S")
                group[f"{axis}_level{number}"].attrs["name"] = np.bytes_(level)
                codes = [words.index(c[number]) for c in columns]
                group[f"{axis}_label{number}"] = np.array(codes, dtype="i1")
        group["block0_values"] = values
        group["block0_values"].attrs["transposed"] = 1


def csv_table(path: Path, values: Any, columns: list[Any], levels: list[str]) -> None:
    lines = [[level, *(c[i] for c in columns)] for i, level in enumerate(levels)]
    lines += [[t, *map(repr, row)] for t, row in enumerate(values.tolist())]
    path.write_text("\n".join(",".join(map(str, line)) for line in lines).replace("nan", ""))


LEVELS = ["scorer", "bodyparts", "coords"]
HOW = ["table", "fixed", "csv"]


def tracked(path: Path, how: str, values: Any, parts: list[str], coords: tuple[str, ...]) -> None:
    columns = [("net", part, coord) for part in parts for coord in coords]
    if how == "csv":
        csv_table(path, values, columns, LEVELS)
    else:
        pandas_table(path, values, columns, LEVELS, how)


def interpolated(xyp: Any, pcutoff: float) -> list[list[float]]:
    """One keypoint, frame by frame."""
    good = [t for t, (x, y, p) in enumerate(xyp) if p >= pcutoff and x == x and y == y]
    out = []
    for t in range(len(xyp)):
        before = [g for g in good if g <= t]
        after = [g for g in good if g >= t]
        a = before[-1] if before else after[0]
        b = after[0] if after else before[-1]
        share = 0.0 if a == b else (t - a) / (b - a)
        out.append([xyp[a][i] + share * (xyp[b][i] - xyp[a][i]) for i in (0, 1)])
    return out


@pytest.mark.parametrize("how", HOW)
def test_keypoints(tmp_path: Path, how: str) -> None:
    parts = ["tail", "nose", "paw"]
    values = RNG.normal(size=(60, 9)) * 100
    values[:, 2::3] = RNG.random((60, 3))
    values[RNG.integers(0, 60, 5), 0] = np.nan
    tracked(tmp_path / "x", how, values, parts, ("x", "y", "likelihood"))
    found = load_deeplabcut(tmp_path / "x")
    slow = [interpolated(values[:, 3 * i : 3 * i + 3].tolist(), 0.6) for i in range(3)]
    assert found.shape == (60, 6)
    np.testing.assert_allclose(found, np.concatenate(slow, axis=1), rtol=1e-12, atol=1e-10)
    some = load_deeplabcut(tmp_path / "x", keypoints=["paw", "tail"], pcutoff=0.3)
    slow = [interpolated(values[:, 3 * i : 3 * i + 3].tolist(), 0.3) for i in (2, 0)]
    np.testing.assert_allclose(some, np.concatenate(slow, axis=1), rtol=1e-12, atol=1e-10)
    np.testing.assert_array_equal(load_data(tmp_path / "x", columns=["nose"]), found[:, 2:4])


@pytest.mark.parametrize("how", HOW)
def test_marked_frames_have_no_likelihood(tmp_path: Path, how: str) -> None:
    values = RNG.normal(size=(8, 4))
    values[3, 1] = np.nan
    tracked(tmp_path / "x", how, values, ["a", "b"], ("x", "y"))
    found = load_deeplabcut(tmp_path / "x")
    np.testing.assert_allclose(found[3, :2], (values[2, :2] + values[4, :2]) / 2)
    np.testing.assert_array_equal(found[:, 2:], values[:, 2:])


@pytest.mark.parametrize("how", HOW)
def test_the_ends_and_the_never_seen(tmp_path: Path, how: str) -> None:
    values = np.stack([np.arange(6.0), np.arange(6.0) * 2, [0, 0, 1, 0.6, 0, 0]], axis=1)
    tracked(tmp_path / "x", how, values, ["a"], ("x", "y", "likelihood"))
    expected = [[2, 4], [2, 4], [2, 4], [3, 6], [3, 6], [3, 6]]
    np.testing.assert_array_equal(load_deeplabcut(tmp_path / "x"), expected)
    values[:, 2] = 0.1
    tracked(tmp_path / "y", how, values, ["a"], ("x", "y", "likelihood"))
    with pytest.raises(DataError, match="'a' has no position"):
        load_deeplabcut(tmp_path / "y")


def test_what_keypoints_must_be(tmp_path: Path) -> None:
    file = tmp_path / "x"
    tracked(file, "table", np.ones((3, 6)), ["a", "b"], ("x", "y", "likelihood"))
    with pytest.raises(DataError, match=r"keypoint must be in the file; 'c' .* a, b"):
        load_deeplabcut(file, ["c"])
    with pytest.raises(ConfigError):
        load_deeplabcut(file, "a")
    with pytest.raises(ConfigError):
        load_deeplabcut(file, [])
    for cutoff in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError, match="pcutoff"):
            load_deeplabcut(file, pcutoff=cutoff)
    np.save(tmp_path / "y.npy", np.ones(3))
    with pytest.raises(FormatError, match="DeepLabCut"):
        load_deeplabcut(tmp_path / "y.npy")


@pytest.mark.parametrize("how", HOW)
def test_several_animals_are_refused(tmp_path: Path, how: str) -> None:
    levels = ["scorer", "individuals", "bodyparts", "coords"]
    columns = [("net", who, "a", c) for who in ("m1", "m2") for c in ("x", "y", "likelihood")]
    if how == "csv":
        csv_table(tmp_path / "x", np.ones((3, 6)), columns, levels)
    else:
        pandas_table(tmp_path / "x", np.ones((3, 6)), columns, levels, how)
    with pytest.raises(DataError, match="one animal"):
        load_deeplabcut(tmp_path / "x")


def test_against_pandas_itself(tmp_path: Path) -> None:
    pytest.importorskip("tables")
    pd = pytest.importorskip("pandas")
    columns = pd.MultiIndex.from_product(
        [["net"], ["b", "a"], ["x", "y", "likelihood"]], names=LEVELS
    )
    frame = pd.DataFrame(RNG.random((9, 6)), columns=columns)
    for how in ("table", "fixed"):
        frame.to_hdf(tmp_path / how, key="df_with_missing", format=how)
        found = load_data(tmp_path / how, "df_with_missing")
        np.testing.assert_array_equal(found, frame.to_numpy())
        assert (
            load_deeplabcut(tmp_path / how, ["a"], 0.0).tolist()
            == frame.iloc[:, 3:5].values.tolist()
        )
        plain = pd.DataFrame({"b": [1, 2], "a": [0.5, 1.5], "c": [3, 4]})
        plain.to_hdf(tmp_path / f"{how} plain", key="d", format=how)
        np.testing.assert_array_equal(
            load_data(tmp_path / f"{how} plain", columns=["a", "c"]), [[0.5, 3], [1.5, 4]]
        )
