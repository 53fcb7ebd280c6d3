"""Restricted reading: plain data come back exactly, and nothing that a file names is ever run."""

from __future__ import annotations

import copyreg
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from grevy.errors import FormatError, GrevyError, LimitError, UnsafeFileError
from grevy.restricted import Offset, read_pickle, read_torch

RNG = np.random.default_rng()


def same(a: object, b: object) -> None:
    """Equal in value, type and dtype, by walking both."""
    if isinstance(a, torch.Tensor):
        assert isinstance(b, torch.Tensor)
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert torch.equal(a.detach(), b.detach().cpu())
    elif isinstance(a, np.ndarray | np.generic):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == np.asarray(b).dtype
    elif isinstance(a, dict):
        assert isinstance(b, dict)
        assert list(a) == list(b)
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)  # type: ignore[arg-type]
        for x, y in zip(a, b, strict=True):  # type: ignore[call-overload]
            same(x, y)
    else:
        assert a == b
        assert type(a) is type(b)


def plain() -> dict[str, object]:
    shared = RNG.normal(size=4)
    return {
        "c": RNG.normal(size=(3, 2)),
        "f": np.asfortranarray(RNG.normal(size=(3, 2)).astype("f4")),
        "big": RNG.integers(0, 99, 5).astype(">i4"),
        "small": RNG.integers(0, 99, 5).astype("u1"),
        "half": RNG.normal(size=3).astype("f2"),
        "none": np.empty((0, 3)),
        "true": RNG.random(4) < 0.5,
        "words": np.array(["ab", "c"]),
        "letters": np.array([b"ab", b"c"]),
        "scalar": np.float32(RNG.normal()),
        "dtypes": [np.dtype("u2"), np.dtype("f8")],
        "plain": (1, [2.5, None, True, b"", b"\xffa", "ä"], 1 + 2j, 2**80, -3),
        "set": {1, "a"},
        "shared": [shared, shared],
        3: {(1, "x"): 0},
    }


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_come_back_whole(protocol: int) -> None:
    data = plain()
    same(read_pickle(pickle.dumps(data, protocol)), data)
    same(read_pickle(pickle.dumps(OrderedDict(a=1), protocol)), {"a": 1})


def test_sharing_is_kept_and_cycles_of_lists_are_read() -> None:
    loop: list[object] = [1]
    loop.append(loop)
    found = read_pickle(pickle.dumps(loop))
    assert isinstance(found, list)
    assert found[1] is found


def test_joblib(tmp_path: Path) -> None:
    joblib = pytest.importorskip("joblib")
    data = plain()
    joblib.dump(data, tmp_path / "x")
    same(read_pickle((tmp_path / "x").read_bytes()), data)


def test_torch_archives(tmp_path: Path) -> None:
    base = torch.randn(4, 6)
    data = {
        "turned": base.T,
        "part": base[1:3, ::2],
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "size": torch.Size([2, 3]),
        "dtype": torch.float16,
        "array": RNG.normal(size=3),
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(2.5),
        "state": torch.nn.Linear(2, 3).state_dict(),
        "version": torch.__version__,
    }
    for dtype in (torch.uint8, torch.int16, torch.uint16, torch.bool, torch.bfloat16):
        data[str(dtype)] = torch.ones(3).to(dtype)
    torch.save(data, tmp_path / "x")
    found = read_torch(tmp_path / "x")
    assert isinstance(found, dict)
    assert type(found["version"]) is str
    data["version"] = str(data["version"])
    same({**data, "size": (2, 3), "state": dict(data["state"])}, found)  # type: ignore[call-overload]


def rewritten(source: Path, target: Path, old: bytes, new: bytes, entry: str = "data.pkl") -> Path:
    with zipfile.ZipFile(source) as a, zipfile.ZipFile(target, "w") as b:
        for name in a.namelist():
            content = a.read(name)
            if name.endswith(entry):
                assert old in content
                content = content.replace(old, new)
            b.writestr(name, content)
    return target


def test_tensors_of_a_gpu_come_to_the_cpu(tmp_path: Path) -> None:
    tensor = torch.randn(5)
    torch.save({"x": tensor}, tmp_path / "x")
    old, new = (b"X" + struct.pack("<I", len(n)) + n for n in (b"cpu", b"cuda:0"))
    path = rewritten(tmp_path / "x", tmp_path / "y", old, new)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError):
            torch.load(path)
    same(read_torch(path), {"x": tensor})


class Runs:
    """A pickle that calls `function` with `arguments`."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> tuple[object, ...]:
        return self.reduced


def hostile(marker: Path) -> dict[str, bytes]:
    touch = f"touch {marker}"
    python = f"open({str(marker)!r}, 'w').close()"
    system = Runs(os.system, touch)
    text = touch.encode()
    short = b"\x8c" + bytes([len(text)]) + text
    made = {
        f"{name} {protocol}": pickle.dumps(thing, protocol)
        for protocol in range(6)
        for name, thing in {
            "system": system,
            "eval": Runs(eval, python),
            "exec": Runs(exec, python),
            "getattr": Runs(getattr, "a", "join"),
            "nested": {"a": [1, ({"b": system},)]},
            "key": {"a": np.arange(3), "b": system},
            "pickle": Runs(pickle.loads, pickle.dumps(system)),
            "torch": Runs(torch.load, str(marker)),
            "numpy": Runs(np.load, str(marker), None, True),
            "bare": eval,
        }.items()
    }
    return made | {
        "stack global": b"\x80\x04\x8c\x05posix\x8c\x06system\x93" + short + b"\x85R.",
        "attribute": b"\x80\x04\x8c\x05numpy\x8c\x0fdtype.__class__\x93.",
        "inst": b"(S'" + text + b"'\niposix\nsystem\n.",
        "obj": b"(cposix\nsystem\n" + short + b"o.",
        "newobj": b"\x80\x04cposix\nsystem\n" + short + b"\x85\x81.",
        "newobj ex": b"\x80\x04cposix\nsystem\n" + short + b"\x85}\x92.",
        "build": b"\x80\x04ccollections\nOrderedDict\n)R}(\x8c\x0c__setstate__cposix\nsystem\nub"
        + short
        + b"b.",
        "persistent": b"Pposix.system\n.",
        "binary persistent": b"\x80\x04(" + short + b"tQ.",
        "call of a dtype": b"\x80\x04cnumpy\ndtype\n\x8c\x02f8\x85R)R.",
    }


def test_nothing_is_executed(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    for name, blob in hostile(marker).items():
        with pytest.raises((UnsafeFileError, FormatError)) as caught:
            read_pickle(blob)
        assert not marker.exists(), name
        if "system" in name or name in ("stack global", "inst", "obj", "newobj", "build"):
            assert "posix.system" in str(caught.value), name
            assert isinstance(caught.value, UnsafeFileError), name


def test_names_in_a_message_are_printable() -> None:
    with pytest.raises(UnsafeFileError) as caught:
        read_pickle(b"\x80\x04\x8c\x08\x1b[2Jpo\nx\x8c\x06system\x93.")
    assert str(caught.value).isprintable()
    assert "po?x.system" in str(caught.value)


def test_the_hostile_pickles_do_work(tmp_path: Path) -> None:
    # Else the test above shows nothing.
    marker = tmp_path / "ran"
    ran = 0
    for name, blob in hostile(marker).items():
        if name.startswith(("system", "eval", "nested", "stack global", "inst", "pickle")):
            pickle.loads(blob)
            assert marker.exists(), name
            marker.unlink()
            ran += 1
    assert ran > 20


def test_registered_numbers_are_refused(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    text = f"touch {marker}".encode()
    call = b"\x8c" + bytes([len(text)]) + text + b"\x85R."
    copyreg.add_extension("posix", "system", 240)
    try:
        blob = b"\x80\x04\x82\xf0" + call
        pickle.loads(blob)  # and now it lies in the cache, past find_class
        marker.unlink()
        for code in (b"\x82\xf0", b"\x83\xf0\x00", b"\x84\xf0\x00\x00\x00"):
            with pytest.raises(UnsafeFileError):
                read_pickle(b"\x80\x04" + code + call)
            assert not marker.exists()
    finally:
        copyreg.remove_extension("posix", "system", 240)
        copyreg.clear_extension_cache()


def test_hostile_torch_archives(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    torch.save({"x": torch.ones(2), "y": Runs(os.system, f"touch {marker}")}, tmp_path / "x")
    with pytest.raises(UnsafeFileError, match=r"posix\.system"):
        read_torch(tmp_path / "x")
    assert not marker.exists()
    torch.save({"x": torch.ones(2)}, tmp_path / "y")
    bad = rewritten(tmp_path / "y", tmp_path / "z", b"storage", b"garbage")
    with pytest.raises(UnsafeFileError):
        read_torch(bad)


def test_arrays_of_objects_are_refused() -> None:
    for array in (np.array([{}], dtype=object), np.zeros(2, dtype=[("a", "f8"), ("b", "O")])):
        with pytest.raises(UnsafeFileError):
            read_pickle(pickle.dumps(array))


def test_declared_sizes_are_checked(tmp_path: Path) -> None:
    huge = struct.pack("<Q", 2**60)
    blobs = {
        "bytes": b"\x80\x04\x8e" + huge + b".",
        "bytearray": b"\x80\x05\x96" + huge + b".",
        "text": b"\x80\x04\x8d" + huge + b".",
        "memo": b"\x80\x04K\x01r\xff\xff\xff\xffj\xff\xff\xff\x7f.",
        "bytes()": b"\x80\x04cbuiltins\nbytes\n\x8a\x06\x00\x00\x00\x00\x00\x40\x85R.",
        "array": pickle.dumps(np.ones(7)).replace(b"K\x07", b"K\x63"),
        "flat": b"\x80\x05cnumpy._core.numeric\n_frombuffer\n(\x8a\x06\x00\x00\x00\x00\x00\x40"
        b"cnumpy\ndtype\n\x8c\x02f8\x85R)\x8c\x01CtR.",
    }
    for blob in blobs.values():
        with pytest.raises(GrevyError):
            read_pickle(blob)
    torch.save(torch.ones(7), tmp_path / "x")
    bad = rewritten(tmp_path / "x", tmp_path / "y", b"K\x07\x85", b"J\xff\xff\xff\x7f\x85")
    with pytest.raises(FormatError, match="storage"):
        read_torch(bad)
    torch.save(torch.ones(1).expand(1000), tmp_path / "z")
    with pytest.raises(FormatError, match="contiguous"):
        read_torch(tmp_path / "z")


def test_items_of_no_size_take_no_memory() -> None:
    # numpy makes letters of one byte of letters of none: 2**40 of them from a hundred bytes.
    for letter in (b"S", b"U"):
        blob = (
            b"\x80\x05cnumpy._core.numeric\n_frombuffer\n(C\x00cnumpy\ndtype\n\x8c\x02"
            + letter
            + b"0\x85R\x8a\x06\x00\x00\x00\x00\x00\x01\x85\x8c\x01CtR."
        )
        with pytest.raises(FormatError, match="some size"):
            read_pickle(blob)
    same(read_pickle(pickle.dumps(np.array(["", ""]))), np.array(["", ""]))


def test_copies_of_one_part_are_bounded() -> None:
    text = b"x" * 300_000
    stored = b"X" + struct.pack("<I", len(text)) + text
    encode = b"c_codecs\nencode\n\x940" + stored + b"\x8c\x06latin1\x86\x940"
    numbers = (
        b"cnumpy._core.numeric\n_frombuffer\n\x940(B"
        + struct.pack("<I", len(text))
        + text
        + b"cnumpy\ndtype\n\x8c\x02u1\x85RJ"
        + struct.pack("<I", len(text))
        + b"\x85\x8c\x01Ct\x940"
    )
    for parts in (encode, numbers):
        for copies in (2, 2000):
            blob = b"\x80\x05" + parts + b"](" + b"h\x00h\x01R" * copies + b"e."
            if copies == 2:
                found = read_pickle(blob)
                assert isinstance(found, list)
                assert [len(part) for part in found] == [len(text)] * 2
            else:
                with pytest.raises(LimitError, match="copies"):
                    read_pickle(blob)
    honest = [np.float64(i) for i in range(30_000)]
    same(read_pickle(pickle.dumps(honest)), honest)


def test_a_dtype_is_not_any_name_of_torch(tmp_path: Path) -> None:
    tensor = torch.arange(2.0)
    torch.save(tensor, tmp_path / "x")
    path = rewritten(tmp_path / "x", tmp_path / "y", b"tensor_v2", b"tensor_v3")
    end = b")Rq\ttq\n"  # the last argument, and the tuple of them
    for name in ("float32", "load", "_inductor", "Tensor", "qint8"):
        dtype = b"X" + struct.pack("<I", len(name)) + name.encode()
        bad = rewritten(path, tmp_path / "z", end, end[:-3] + dtype + end[-3:])
        if name == "float32":
            same(read_torch(bad), tensor)
        else:
            with pytest.raises(UnsafeFileError, match=f"dtype '{name}'"):
                read_torch(bad)


def test_an_open_file_is_read(tmp_path: Path) -> None:
    data = plain()
    (tmp_path / "x").write_bytes(pickle.dumps(data))
    with (tmp_path / "x").open("rb") as file:
        same(read_pickle(file), data)


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    torch.save(torch.zeros(1000), tmp_path / "x")
    with (
        zipfile.ZipFile(tmp_path / "x") as a,
        zipfile.ZipFile(tmp_path / "y", "w", zipfile.ZIP_DEFLATED) as b,
    ):
        for name in a.namelist():
            b.writestr(name, a.read(name))
    with pytest.raises(FormatError, match="uncompressed"):
        read_torch(tmp_path / "y")


def test_the_old_torch_format_is_refused_in_words(tmp_path: Path) -> None:
    torch.save(torch.ones(2), tmp_path / "x", _use_new_zipfile_serialization=False)
    with pytest.raises(FormatError, match=r"before torch 1\.6"):
        read_torch(tmp_path / "x")
    with pytest.raises(FormatError, match="No such file"):
        read_torch(tmp_path / "none")


def test_damage_gives_a_sentence(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    blob = pickle.dumps(plain())
    torch.save({"a": torch.randn(3, 2), "n": np.arange(3)}, tmp_path / "x")
    archive = (tmp_path / "x").read_bytes()
    record_property("cases", 2 * 300)
    for _ in range(300):
        for whole, read in ((blob, read_pickle), (archive, None)):
            bad = bytearray(whole)
            for at in RNG.integers(0, len(bad), RNG.integers(1, 4)):
                bad[at] = RNG.integers(0, 256)
            if RNG.random() < 0.3:
                bad = bad[: RNG.integers(0, len(bad))]
            try:
                if read:
                    read(bytes(bad))
                else:
                    (tmp_path / "y").write_bytes(bad)
                    read_torch(tmp_path / "y")
            except GrevyError as error:
                assert str(error).endswith(".")  # noqa: PT017


def test_an_offset_needs_no_class(tmp_path: Path) -> None:
    blob = (
        b"\x80\x02ccebra.data.datatypes\nOffset\n)\x81N}(X\x04\x00\x00\x00leftK\x05"
        b"X\x05\x00\x00\x00rightK\x04u\x86b."
    )
    assert read_pickle(blob) == Offset(5, 4)
