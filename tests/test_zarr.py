"""NWB on Zarr reads as the same file in HDF5 does, and is trusted as little."""

from __future__ import annotations

import bz2
import gzip
import json
import os
import pickle
import shutil
import tarfile
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fake_results
from grevy.cli import main
from grevy.errors import DataError, GrevyError, LimitError, MissingExtraError, UnsafeFileError
from grevy.nwb import describe, describe_apart, export_results, read
from grevy.nwb.zarr import ZarrArray, open_zarr
from grevy.recording import Recording

numcodecs = pytest.importorskip("numcodecs", reason="needs the extra zarr: not run")


# --- Folders made by hand -------------------------------------------------------------------------
def put(
    root: Path,
    name: str,
    values: Any,
    *,
    chunks: tuple[int, ...] | None = None,
    pack: Callable[[bytes], bytes] = bytes,
    attrs: Mapping[str, Any] | None = None,
    order: str = "C",
    separator: str = ".",
    **about: Any,
) -> Path:
    """An array of a folder of Zarr, chunk by chunk; `about` overrides what it says of itself."""
    x = np.asarray(values)
    words = x.dtype.kind == "U"
    chunks = chunks or tuple(max(n, 1) for n in x.shape)
    folder = root / name
    folder.mkdir(parents=True)
    meta = {
        "zarr_format": 2, "shape": x.shape, "chunks": chunks, "order": order,
        "dtype": "|O" if words else x.dtype.str, "fill_value": "" if words else 0,
        "compressor": None, "filters": [{"id": "vlen-utf8"}] if words else None,
        "dimension_separator": separator,
    } | about  # fmt: skip
    (folder / ".zarray").write_text(json.dumps(meta))
    (folder / ".zattrs").write_text(json.dumps(dict(attrs or {})))
    for place in np.ndindex(*(-(-n // c) for n, c in zip(x.shape, chunks, strict=True))):
        chunk = np.zeros(chunks, "O" if words else x.dtype)
        chunk[...] = "" if words else 0
        part = x[tuple(slice(i * c, (i + 1) * c) for i, c in zip(place, chunks, strict=True))]
        chunk[tuple(slice(n) for n in part.shape)] = part
        raw = numcodecs.VLenUTF8().encode(chunk.ravel()) if words else chunk.tobytes(order)
        file = folder / (separator.join(map(str, place)) or "0")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(pack(bytes(raw)))
    return folder


def group(root: Path, name: str = "", attrs: Mapping[str, Any] | None = None) -> Path:
    folder = root / name
    for path in (folder, *folder.parents):
        if path == root.parent:
            break
        path.mkdir(parents=True, exist_ok=True)
        (path / ".zgroup").write_text('{"zarr_format": 2}')
    (folder / ".zattrs").write_text(json.dumps(dict(attrs or {})))
    return folder


def session(root: Path, x: Any, **how: Any) -> Path:
    """dF/F and nothing else."""
    group(root, "", {"nwb_version": "2.6.0", "neurodata_type": "NWBFile"})
    group(root, "processing/ophys/DfOverF", {"neurodata_type": "DfOverF"})
    group(root, "processing/ophys/DfOverF/plane", {"neurodata_type": "RoiResponseSeries"})
    put(root, "processing/ophys/DfOverF/plane/data", x, attrs={"unit": "a.u."}, **how)
    put(root, "processing/ophys/DfOverF/plane/timestamps", np.arange(len(x)) / 10)
    return root


DATA = Path("processing/ophys/DfOverF/plane/data")


def noise(n: int = 60, cells: int = 4) -> np.ndarray:
    return np.random.default_rng(n + cells).normal(size=(n, cells)).astype(np.float32)


PACKED: dict[str, tuple[Callable[[bytes], bytes], dict[str, Any] | None]] = {
    "none": (bytes, None),
    "zlib": (zlib.compress, {"id": "zlib", "level": 1}),
    "gzip": (gzip.compress, {"id": "gzip", "level": 1}),
    "bz2": (bz2.compress, {"id": "bz2", "level": 1}),
    "blosc": (lambda b: numcodecs.Blosc("zstd").encode(b), {"id": "blosc", "cname": "zstd"}),
    "zstd": (lambda b: numcodecs.Zstd().encode(b), {"id": "zstd", "level": 1}),
    "lz4": (lambda b: numcodecs.LZ4().encode(b), {"id": "lz4"}),
}


@pytest.mark.parametrize("codec", PACKED)
def test_slices_are_those_of_numpy(codec: str, tmp_path: Path) -> None:
    rng = np.random.default_rng()
    pack, about = PACKED[codec]
    group(tmp_path / "z")
    for i in range(12):
        shape = tuple(rng.integers(1, 12, rng.integers(0, 4)))
        kind = rng.choice(["<f4", ">f8", "<i2", "|u1", "|b1", "<U"])
        x = rng.integers(0, 2 if kind == "|b1" else 100, shape)
        x = x.astype(str) if kind == "<U" else x.astype(kind)
        chunks = tuple(int(rng.integers(1, n + 3)) for n in shape)
        put(
            tmp_path / "z", f"a{i}", x, chunks=chunks, pack=pack, compressor=about,
            order=str(rng.choice(["C", "F"])) if kind != "<U" else "C",
            separator=str(rng.choice([".", "/"])),
        )  # fmt: skip
        found = open_zarr(tmp_path / "z")[f"a{i}"]
        assert np.array_equal(found[()], x), (kind, shape, chunks)
        for _ in range(5):
            ends = [np.sort(rng.integers(0, n + 1, 2)) for n in shape]
            key = tuple(
                int(rng.integers(0, n)) if rng.random() < 0.3 else slice(*map(int, e))
                for n, e in zip(shape, ends, strict=True)
            )[: int(rng.integers(0, len(shape) + 1))]
            assert np.array_equal(found[key], x[key]), (kind, shape, chunks, key)


def test_shuffled_bytes_and_json(tmp_path: Path) -> None:
    root, x = group(tmp_path / "z"), np.arange(40, dtype="<i4")
    shuffle = numcodecs.Shuffle(4)
    put(root, "s", x, pack=lambda b: bytes(shuffle.encode(b)), filters=[shuffle.get_config()])
    words = np.array([["a", "\N{SNOWMAN}"], ["", "d"]], dtype=object)
    coded = put(root, "j", np.array([["", ""]] * 2), filters=[{"id": "json2"}])
    (coded / "0.0").write_bytes(bytes(numcodecs.JSON().encode(words)))
    found = open_zarr(root)
    assert np.array_equal(found["s"][()], x)
    assert np.array_equal(found["j"][()], words)


@pytest.mark.parametrize("chunks", [(60, 4), (7, 3)])
def test_a_session_is_read(chunks: tuple[int, int], tmp_path: Path) -> None:
    x = noise()
    found = read(session(tmp_path / "s.nwb.zarr", x, chunks=chunks))
    assert np.array_equal(found.activity, x)
    assert found.rate_hz == pytest.approx(10)


# --- Folders that hdmf-zarr makes -----------------------------------------------------------------
def same(a: Recording, b: Recording) -> None:
    assert np.array_equal(a.activity, b.activity)
    assert np.array_equal(a.times_s, b.times_s)
    assert np.array_equal(a.epochs, b.epochs)
    assert a.channels == b.channels
    assert a.labels.keys() == b.labels.keys()
    for name, label in a.labels.items():
        assert np.array_equal(label.values, b.labels[name].values, equal_nan=True)
    assert a.notes == b.notes


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Spikes with electrodes, a wheel, epochs: in HDF5, and as hdmf-zarr exports that."""
    hdmf_zarr = pytest.importorskip("hdmf_zarr", reason="needs hdmf-zarr: not run")
    from pynwb import NWBHDF5IO, NWBFile, TimeSeries

    folder, rng = tmp_path_factory.mktemp("both"), np.random.default_rng(0)
    file = NWBFile(
        session_description="s", identifier="i", session_start_time=datetime(2020, 1, 1, tzinfo=UTC)
    )
    probe = file.create_device(name="probe")
    shank = file.create_electrode_group(name="a", description="a", location="CA1", device=probe)
    for place in ("CA1", "CA3"):
        file.add_electrode(group=shank, location=place)
    for i in range(6):
        times = np.sort(rng.uniform(0, 30, 200))
        file.add_unit(spike_times=times, electrodes=[i % 2], electrode_group=shank)
    file.add_epoch(start_time=0.0, stop_time=20.0, tags=["wake"])
    file.add_epoch(start_time=20.0, stop_time=30.0, tags=["sleep", "dark"])
    wheel = TimeSeries(name="wheel", data=rng.normal(size=300), unit="cm/s", rate=10.0)
    file.add_acquisition(wheel)
    with NWBHDF5IO(str(folder / "a.nwb"), "w") as io:
        io.write(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with (
            NWBHDF5IO(str(folder / "a.nwb"), "r") as old,
            hdmf_zarr.NWBZarrIO(str(folder / "a.nwb.zarr"), mode="w") as new,
        ):
            new.export(src_io=old, write_args={"link_data": False})
    return folder / "a.nwb", folder / "a.nwb.zarr"


def test_what_hdmf_zarr_exports_reads_as_the_original(both: tuple[Path, Path]) -> None:
    hdf5, zarr = both
    how = {"units": "location == CA1", "bin_s": 0.1, "epochs": "wake", "labels": ["wheel"]}
    same(read(hdf5, **how), read(zarr, **how))
    a, b = describe(hdf5), describe_apart(zarr)
    assert replace(a, file=b.file, suggestion="") == replace(b, suggestion="")
    assert a.suggestion.replace(str(hdf5), str(zarr)) == b.suggestion


def test_a_real_one_reads_as_the_original(data_dir: Path, tmp_path: Path) -> None:
    with tarfile.open(data_dir / "nwb-zarr" / "A2929-200711.nwb.zarr.tar.gz") as archive:
        # Python 3.11 knows filters from 3.11.4 on.
        archive.extractall(
            tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {})
        )
    how = {"units": "location == adn", "bin_s": 0.1, "epochs": "wake", "labels": ["ry"]}
    original = data_dir / "nwb" / "A2929-200711_neurosuite.nwb"
    same(read(original, **how), read(tmp_path / "A2929-200711.nwb.zarr", **how))


def test_commands_take_a_folder(
    both: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, zarr = both
    main(["inspect", str(zarr)])
    assert f"grevy run {zarr}" in capsys.readouterr().out.replace("\n", " ")
    model = tmp_path / "m.safetensors"
    words = ["--bin-s", "0.1", "--steps", "3", "--batch-size", "16", "--quiet"]
    main(["fit", str(zarr), "--out", str(model), *words])
    assert model.stat().st_size
    found = fake_results.minimal(), fake_results.embedding(latents=2, per_repeat=1)
    with pytest.raises(DataError, match=r"must be one file \(HDF5\).*--only"):
        export_results(tmp_path / "new.nwb", zarr, *found)
    assert export_results(tmp_path / "new.nwb", zarr, *found, only=True).stat().st_size


# --- Hostile ones ---------------------------------------------------------------------------------
class Payload:
    """What runs code when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    marker, root = tmp_path / "marker", session(tmp_path / "s.nwb.zarr", noise())
    group(root, "units", {"neurodata_type": "Units", "colnames": ["spike_times", "bad"]})
    put(root, "units/id", np.arange(1))
    put(root, "units/spike_times", np.arange(90.0))
    put(root, "units/spike_times_index", np.array([90]))
    bad = put(root, "units/bad", np.array(["x"]), filters=[{"id": "pickle", "protocol": 5}])
    (bad / "0").write_bytes(pickle.dumps(np.array([Payload(marker)], object)))
    assert describe(root).units is not None  # that column is left out
    assert read(root, bin_s=1.0).activity.shape[1] == 1
    with pytest.raises(UnsafeFileError, match=r"'/units/bad' .*runs no code; found 'pickle'"):
        open_zarr(root)["units/bad"][()]
    data = put(root, "d", np.array(["x"]), filters=[{"id": "pickle"}])
    shutil.rmtree(root / DATA)
    data.rename(root / DATA)
    with pytest.raises(GrevyError):
        read(root, series=str(DATA.parent))
    assert not marker.exists()


def meta(**values: Any) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        path = root / DATA / ".zarray"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def chunk(content: bytes, **values: Any) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        meta(**values)(root)
        (root / DATA / "0.0").write_bytes(content)

    return change


def linked(where: str) -> Callable[[Path], None]:
    """Something of the folder moved out of it, with a link in its place."""

    def change(root: Path) -> None:
        (root / where).rename(root.parent / "outside")
        (root / where).symlink_to(root.parent / "outside")

    return change


def attributes(where: str, values: Any) -> Callable[[Path], None]:
    return lambda root: (root / where / ".zattrs").write_text(
        values if isinstance(values, str) else json.dumps(values)
    )


def elsewhere(root: Path) -> None:
    link = {"name": "x", "source": "/etc", "path": "passwd"}
    attributes("processing", {"zarr_link": [link]})(root)


def piped(root: Path) -> None:
    (root / DATA / "0.0").unlink()
    os.mkfifo(root / DATA / "0.0")


def lost(root: Path) -> None:
    (root / DATA / "0.0").unlink()


def third(root: Path) -> None:
    (root / "zarr.json").write_text("{}")


BOMB = zlib.compress(bytes(50_000_000))
HUGE = (1 << 40).to_bytes(8, "little")


@pytest.mark.parametrize(
    ("harm", "error", "says"),
    [
        (linked(str(DATA / "0.0")), UnsafeFileError, "is a link to"),
        (linked(str(DATA)), UnsafeFileError, "is a link to"),
        (linked("processing"), UnsafeFileError, "is a link to"),
        (linked(str(DATA / ".zarray")), UnsafeFileError, "is a link to"),
        (elsewhere, UnsafeFileError, "points to '/etc'"),
        (meta(shape=[10**9, 4], chunks=[10**9, 4]), LimitError, "declared"),
        (meta(shape=[10**9, 4]), LimitError, "must store what it declares"),
        (meta(shape=[-1, 4]), DataError, "the length -1"),
        (meta(shape=[60, 4.0]), DataError, "the length 4.0"),
        (meta(shape=[60]), DataError, "in chunks"),
        (meta(chunks=[0, 4]), DataError, "the length 0"),
        (meta(dtype="|O"), DataError, "bytes; found|no data at|neither"),
        (meta(dtype="nonsense"), DataError, "nonsense"),
        (meta(compressor={"id": "spell"}), DataError, "found 'spell'"),
        (meta(filters=[{"id": "delta", "dtype": "O"}]), DataError, "found 'delta'"),
        (meta(filters="abc"), DataError, "codecs without names"),
        (chunk(b"short"), DataError, "must hold 960 bytes; found 5"),
        (chunk(BOMB, compressor={"id": "zlib"}), LimitError, "960 bytes at most; found 961"),
        (chunk(bz2.compress(bytes(9**7)), compressor={"id": "bz2"}), LimitError, "found 961"),
        (chunk(b"\2\1\1\4\0\0\0\xf0" + bytes(8), compressor={"id": "blosc"}), LimitError, "most"),
        (chunk(b"\0\0\0\x70" + bytes(9), compressor={"id": "lz4"}), LimitError, "at most"),
        (chunk(b"\x28\xb5\x2f\xfd\xe0" + HUGE, compressor={"id": "zstd"}), LimitError, "most"),
        (chunk(b"rubbish, not packed", compressor={"id": "blosc"}), GrevyError, "data"),
        (chunk(b"rubbish, not packed", compressor={"id": "zstd"}), DataError, "no frame"),
        (chunk(b"rubbish, not packed", compressor={"id": "zlib"}), DataError, "must be whole"),
        (piped, UnsafeFileError, "must hold files"),
        (lost, DataError, r"all chunks .* must be there; found no '0.0'"),
        (third, DataError, "found version 3"),
        (attributes("processing", "[" * 10**5), DataError, "must be JSON"),
        (attributes("processing", "[1]"), DataError, "an object of JSON"),
        (attributes("", {}), DataError, "no version"),
    ],
)  # fmt: skip
def test_hostile_folders_are_refused_in_one_sentence(
    harm: Callable[[Path], None], error: type[GrevyError], says: str, tmp_path: Path
) -> None:
    root = session(tmp_path / "s.nwb.zarr", noise(), chunks=(60, 4))
    harm(root)
    with pytest.raises(error, match=says):
        read(root)


ODD = (
    None, 0, -1, 1e308, "", [], {}, True, 2**70, [[1]], "../../etc", "x" * 3000, "NaN",
    {"id": "pickle"}, "<f8", "|O", "O,O", ">U9", "M8[ns]",
)  # fmt: skip


def changed(value: Any, rng: np.random.Generator) -> Any:
    """What JSON says, with something in it that is another thing or not there."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = list(value)[rng.integers(len(value))]
        rest = {k: v for k, v in value.items() if k != key}
        return rest if rng.random() < 0.15 else rest | {key: changed(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.6:
        at = int(rng.integers(len(value)))
        return [*value[:at], changed(value[at], rng), *value[at + 1 :]]
    return ODD[rng.integers(len(ODD))]


def test_mutated_folders_are_read_or_refused(tmp_path: Path) -> None:
    pack, about = PACKED["blosc"]
    seed = session(tmp_path / "seed", noise(), chunks=(25, 3), pack=pack, compressor=about)
    group(seed, "units", {"neurodata_type": "Units", "colnames": ["spike_times", "place"]})
    put(seed, "units/id", np.arange(2))
    put(seed, "units/spike_times", np.arange(90.0))
    put(seed, "units/spike_times_index", np.array([40, 90]))
    put(seed, "units/place", np.array(["CA1", "CA3"]), pack=pack, compressor=about)
    fresh = int(np.random.default_rng().integers(2**32))
    ends = Counter[str]()
    for i in range(60):
        rng = np.random.default_rng([fresh, i])
        root = shutil.copytree(seed, tmp_path / f"{i}.nwb.zarr")
        files = sorted(p for p in root.rglob("*") if p.is_file())
        file = files[rng.integers(len(files))]
        if file.name.startswith(".z"):
            file.write_text(json.dumps(changed(json.loads(file.read_text()), rng)))
        else:
            raw = bytearray(file.read_bytes())
            raw[rng.integers(len(raw))] ^= 1 << int(rng.integers(8))
            file.write_bytes(raw[: rng.integers(len(raw))] if rng.random() < 0.3 else raw)
        for look in (describe, read, lambda path: read(path, bin_s=1.0)):
            try:
                look(root)
                ends["read"] += 1
            except GrevyError:
                ends["refused"] += 1
            except Exception as error:
                raise AssertionError(f"seed {fresh}, case {i}: {file}") from error
    assert min(ends["read"], ends["refused"]) > 5


def test_strings_that_say_that_they_are_many(tmp_path: Path) -> None:
    root = group(tmp_path / "z")
    many = put(root, "many", np.array(["a", "b"]))
    (many / "0").write_bytes((2**32 - 1).to_bytes(4, "little"))
    coded = put(root, "json", np.array(["a", "b"]), filters=[{"id": "json2"}])
    (coded / "0").write_bytes(b'["a", "|O", [1000000000000]]')
    for name in ("many", "json"):
        with pytest.raises(DataError, match="values for 2"):
            open_zarr(root)[name][()]


def test_links_inside_lead_where_they_say_and_loops_nowhere(tmp_path: Path) -> None:
    def link(name: str, path: str) -> dict[str, str]:
        return {"name": name, "path": path, "source": "."}

    root = group(tmp_path / "z", "", {"zarr_link": [
        link("to", "/a/x"), link("loop", "/loop"), link("up", "/../../etc/passwd"),
        *(link(f"l{i}", f"/l{i + 1}/l{i + 1}/l{i + 1}") for i in range(500)),
    ]})  # fmt: skip
    group(root, "a")
    put(root, "a/x", np.arange(3))
    found = open_zarr(root)
    assert isinstance(found["to"], ZarrArray)
    assert np.array_equal(found["to"][()], [0, 1, 2])
    assert found.get("loop") is None
    assert found.get("up") is None
    assert found.get("l0") is None


def test_without_the_extra_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack, about = PACKED["blosc"]
    root = session(tmp_path / "s.nwb.zarr", noise(), pack=pack, compressor=about)
    monkeypatch.setitem(__import__("sys").modules, "numcodecs", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'grevy\[zarr\]'"):
        read(root)
