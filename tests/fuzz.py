"""Mutated recordings, described and read in a process apart: a value or a GrevyError, in time.

    python tests/fuzz.py [--cases 5000] [--seed 0] [--minutes 30] [--keep build/fuzz]

Every case is a pure function of the seed and its number: `--first N --cases 1` makes case N again.
Files that broke something are kept.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fuzz_files import SEEDS, seeds
from grevy.errors import GrevyError
from grevy.nwb import describe, describe_apart, describe_text, read, to_json

GOOD = ("value", "refused", "apart")
LIMIT_S = 30.0
LIMIT_BYTES = 2 << 30
MOST_VALUES = 100_000
"""Larger datasets are not rewritten: they are bombs."""
TEXTS = (
    "", "\x1b[2J", "../../etc/passwd", "$\\frac{", "=cmd|' /C calc'!A0", "{0.__class__}", "%s%n",
    "x" * 5000, "\u202egnp.exe", "nan", "-1", "a\nb", "<script>", b"\xff\xfe\x00", b"a\x00b",
)  # fmt: skip
NUMBERS = (0, 1, -1, 2, 7, 2**31 - 1, -(2**31), 2**53, 2**62, 1e308, -1e308, 1e-308, 0.5,
           float("nan"), float("inf"), float("-inf"))  # fmt: skip
TYPES = (
    "i1", "u1", "i2", "u8", "i8", "f2", "f4", "f8", ">f8", "c8", "?", "S3", "V5",
    h5py.string_dtype(), h5py.string_dtype("ascii", 4), h5py.vlen_dtype(np.int32), h5py.ref_dtype,
    np.dtype([("a", "i4"), ("b", "f8")]), h5py.enum_dtype({"A": 0, "B": 1}), np.dtype(("f4", (2,))),
)  # fmt: skip
KINDS = ("TimeSeries", "RoiResponseSeries", "IndexSeries", "TimeIntervals", "SpatialSeries",
         "DfOverF", "Units", "DynamicTable", "ImageSeries", "")  # fmt: skip
WORDS = np.array([0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**40, 2**63, 2**64 - 1], "<u8")


@dataclass(frozen=True)
class Outcome:
    """What came of one file.

    "value" or "refused"; "apart" where HDF5 itself looped or crashed and `describe_apart`, which is
    what commands open files with, said so in a sentence; or what must not be: "traceback",
    "signal", "hang".
    """

    kind: str
    said: str = ""
    seconds: float = 0.0
    peak_bytes: int = 0

    @property
    def bad(self) -> bool:
        """Whether a promise was broken."""
        return self.kind not in GOOD or self.peak_bytes > LIMIT_BYTES


# --- The process apart ----------------------------------------------------------------------------


def look(path: str, options: dict[str, Any]) -> Outcome:
    """Describe a file, as text and as JSON, and read it."""
    refused = ""
    try:
        described = describe(path)
        json.dumps(to_json(described), allow_nan=False)
        describe_text(described)
    except GrevyError as error:
        refused = str(error)
    try:
        read(path, **options)
    except GrevyError as error:
        refused = str(error)
    return Outcome("refused" if refused else "value", refused)


def serve(asked: Connection) -> None:
    """Look at one file after another, within the limit of memory; warnings are errors."""
    warnings.simplefilter("error")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asked.send("ready")
    while True:
        task = asked.recv()
        try:
            outcome = look(*task)
        except Exception:
            outcome = Outcome("traceback", traceback.format_exc())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        asked.send((outcome.kind, outcome.said, peak))


class Worker:
    """A process that looks at files, used again until one kills it or takes too long."""

    def __init__(
        self,
        limit_s: float = LIMIT_S,
        *,
        patience_s: float = LIMIT_S,
        target: Callable[[Connection], None] = serve,
    ) -> None:
        self.limit_s, self.patience_s, self._target = limit_s, patience_s, target
        self.starts = self.patient = 0
        self._process: Any = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def look(self, path: Path, options: dict[str, Any] | None = None) -> Outcome:
        """What comes of a file."""
        found = self._look(path, options or {}, self.limit_s)
        if found.kind not in ("hang", "signal"):
            return found
        try:  # as a command would, which is patient
            describe_apart(path, limit_s=self.patience_s)
        except GrevyError as error:
            return replace(found, kind="apart", said=f"{found.said}; {error}")
        if found.kind == "hang" and self.limit_s < self.patience_s:  # the machine may be busy
            self.patient += 1
            return self._look(path, options or {}, self.patience_s)
        return found

    def _look(self, path: Path, options: dict[str, Any], limit_s: float) -> Outcome:
        if self._process is None:
            self._start()
        begin = time.monotonic()
        self._pipe.send((str(path), options))
        if not self._pipe.poll(limit_s):
            self._end()
            return Outcome("hang", f"over {limit_s:g} s", limit_s)
        try:
            kind, said, peak = self._pipe.recv()
        except EOFError:
            self._process.join(5)
            code = self._process.exitcode
            self._end()
            name = signal.Signals(-code).name if code and code < 0 else f"exit code {code}"
            return Outcome("signal", name, time.monotonic() - begin)
        return Outcome(kind, said, time.monotonic() - begin, peak)

    def _start(self) -> None:
        apart = multiprocessing.get_context("spawn")
        self._pipe, theirs = apart.Pipe()
        self._process = apart.Process(target=self._target, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe.recv()  # its start is no part of the limit
        self.starts += 1

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
        self._process = None


# --- Mutations of the tree ------------------------------------------------------------------------


def _pick(rng: np.random.Generator, among: Any) -> Any:
    return among[int(rng.integers(len(among)))]


def _paths(file: h5py.File, kind: type) -> list[str]:
    found: list[str] = []
    file.visititems(lambda name, thing: found.append(name) if isinstance(thing, kind) else None)
    return [name for name in found if not name.startswith("specifications")]


def _dataset(file: h5py.File, rng: np.random.Generator) -> h5py.Dataset:
    small = [p for p in _paths(file, h5py.Dataset) if (file[p].size or 0) <= MOST_VALUES]
    return file[_pick(rng, small)]


def _again(file: h5py.File, old: h5py.Dataset, **how: Any) -> h5py.Dataset:
    """Another dataset in the place of one, with its attributes."""
    name, attributes = old.name, dict(old.attrs)
    del file[name]
    made = file.create_dataset(name, **how)
    for key, value in attributes.items():
        made.attrs[key] = value
    return made


def drop(file: h5py.File, rng: np.random.Generator) -> str:
    """Something is missing."""
    path = _pick(rng, _paths(file, h5py.Group) + 3 * _paths(file, h5py.Dataset))
    del file[path]
    return f"no {path}"


def rename(file: h5py.File, rng: np.random.Generator) -> str:
    """Something has another name."""
    path = _pick(rng, _paths(file, h5py.Group) + _paths(file, h5py.Dataset))
    names = [
        "data",
        "id",
        "x_index",
        "\u202ex",
        "x" * 3000,
        "a b$(c)",
        "\x1b[31m",
        "frame",
        "é\ud7ff",
    ]
    new = f"{path.rpartition('/')[0]}/{_pick(rng, names)}".lstrip("/")
    if new not in file:
        file.move(path, new)
    return f"{path} is now {new[:80]!r}"


def retype(file: h5py.File, rng: np.random.Generator) -> str:
    """A dataset of another type."""
    old, dtype = _dataset(file, rng), _pick(rng, TYPES)
    name = old.name
    _again(file, old, shape=old.shape or (), dtype=dtype)
    return f"{name} of type {dtype}"


def reshape(file: h5py.File, rng: np.random.Generator) -> str:
    """A dataset of another shape."""
    old = _dataset(file, rng)
    n = len(old) if old.shape else 1
    shape = _pick(rng, [(), (0,), (1,), (n + 1,), (max(n - 1, 0),), (n, 0), (n, 1), (1, n), (n, 3),
                        (n, 2, 2), (0, n), (2 * n,), (n, 40), (1,) * 9, None])  # fmt: skip
    name = old.name
    if shape is None:
        attributes = dict(old.attrs)
        del file[name]
        file[name] = h5py.Empty("f8")
        file[name].attrs.update(attributes)
    else:
        kind = old.dtype
        fill = np.resize(old[()], shape) if kind.kind in "iuf" and old.size else np.zeros(shape)
        text = kind.kind not in "iufb"
        _again(file, old, shape=shape, dtype=kind, **({} if text else {"data": fill.astype(kind)}))
    return f"{name} of shape {shape}"


def swap(file: h5py.File, rng: np.random.Generator) -> str:
    """A group where a dataset was, or a dataset where a group was."""
    if rng.random() < 0.6:
        path = _pick(rng, _paths(file, h5py.Dataset))
        del file[path]
        file.create_group(path)
    else:
        path = _pick(rng, _paths(file, h5py.Group))
        del file[path]
        file[path] = _pick(rng, [3.0, np.arange(5), "text", np.zeros((4, 3))])
    return f"{path} swapped"


def link(file: h5py.File, rng: np.random.Generator) -> str:
    """A link to nothing, to itself, round in a circle, to another object or another file."""
    path = _pick(rng, _paths(file, h5py.Group) + _paths(file, h5py.Dataset))
    target = _pick(rng, ["/nowhere", f"/{path}", "/", "..", "", *_paths(file, h5py.Group)])
    how = _pick(rng, ["soft", "soft", "hard", "external"])
    del file[path]
    if how == "soft":
        file[path] = h5py.SoftLink(target or "x")
    elif how == "hard":
        file[path] = file[target] if target and target in file else file["/"]
    else:
        file[path] = h5py.ExternalLink("/etc/passwd", "/x")
    return f"{path} is a {how} link to '{target}'"


def bomb(file: h5py.File, rng: np.random.Generator) -> str:
    """A dataset that declares far more than it stores."""
    old = _dataset(file, rng)
    name = old.name
    n = int(_pick(rng, [0, 1 << 24, 1 << 31, 1 << 40, 1 << 62]))
    if n == 0:
        return chunk_bomb(file, old, int(_pick(rng, [1, 5, 200])))
    dtype = old.dtype if old.dtype.kind in "iufOS" else np.dtype("f4")
    wide = old.ndim > 1 and n < 1 << 60
    how = {"shape": (n, *old.shape[1:]) if wide else (n,), "dtype": dtype}
    if rng.random() < 0.5:
        how |= {"chunks": (1 << 10, *how["shape"][1:]), "compression": "gzip"}
    _again(file, old, **how)
    return f"{name} declares {n} rows"


def chunk_bomb(file: h5py.File, old: h5py.Dataset, n_pieces: int) -> str:
    """A dataset of the old shape in one chunk, which unpacks to so many times 16 MiB of zeros."""
    if not old.size or old.dtype.kind not in "iuf":
        return values(file, np.random.default_rng(0))
    name, shape = old.name, old.shape or (1,)
    rows = (n_pieces << 24) // old.dtype.itemsize
    made = _again(
        file, old, shape=shape, maxshape=(None, *shape[1:]), dtype=old.dtype,
        chunks=(rows, *[1] * len(shape[1:])), compression="gzip",
    )  # fmt: skip
    made.id.write_direct_chunk((0,) * len(shape), packed_zeros(n_pieces))
    return f"{name} in a chunk of {rows} rows"


@functools.cache
def packed_zeros(n_pieces: int) -> bytes:
    """What zlib makes of so many times 16 MiB of zeros; only the first are packed."""
    packer = zlib.compressobj(9)
    packed = packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = ((n_pieces << 24) % 65521) << 16 | 1
    return packed[:2] + packed[2:] * n_pieces + b"\x03\0" + checksum.to_bytes(4, "big")


def values(file: h5py.File, rng: np.random.Generator) -> str:
    """Numbers that are none, negative, huge, out of order."""
    old = _dataset(file, rng)
    if old.dtype.kind not in "iuf" or not old.size:
        return strings(file, rng)
    x = old[()]
    x = np.atleast_1d(x)
    flat = x.reshape(-1)
    how = _pick(rng, ["one", "some", "all", "shuffle", "reverse", "negative", "repeat"])
    odd = _pick(rng, NUMBERS)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        put = np.array(odd, np.float64).astype(x.dtype)
        if how == "one":
            flat[rng.integers(len(flat))] = put
        elif how == "some":
            flat[rng.random(len(flat)) < 0.3] = put
        elif how == "all":
            flat[:] = put
        elif how == "shuffle":
            rng.shuffle(flat)
        elif how == "reverse":
            flat[:] = flat[::-1].copy()
        elif how == "negative":
            flat[:] = -flat
        else:
            flat[1:] = flat[:-1].copy()
    old[()] = x.reshape(old.shape)
    return f"{old.name}: {how} {odd}"


def strings(file: h5py.File, rng: np.random.Generator) -> str:
    """Strings that shout, steer, or are none."""
    old, odd = _dataset(file, rng), _pick(rng, TEXTS)
    if old.dtype.kind not in "OS" or h5py.check_dtype(ref=old.dtype):
        return attribute(file, rng)
    raw = odd if isinstance(odd, bytes) else odd.encode("utf-8", "replace")
    if b"\x00" in raw and h5py.check_string_dtype(old.dtype).length is None:
        raw = raw.replace(b"\x00", b"\xfe")  # HDF5 keeps no zero in such a string
    if old.shape == ():
        old[()] = raw
    elif old.size:
        at = int(rng.integers(len(old)))
        old[at] = raw
    return f"{old.name} says {raw[:30]!r}"


def attribute(file: h5py.File, rng: np.random.Generator) -> str:
    """An attribute that is missing or of another type."""
    path = _pick(rng, ["/", *_paths(file, h5py.Group), *_paths(file, h5py.Dataset)])
    thing = file[path]
    usual = ("neurodata_type", "conversion", "offset", "unit", "colnames", "rate", "table")
    key = _pick(rng, [*thing.attrs, *thing.attrs, *usual])
    odd: Any = _pick(rng, [
        None, *KINDS, *TEXTS, *NUMBERS, np.arange(3), np.zeros((2, 0)), np.array(["a", "b"], "O"),
        h5py.Empty("f8"), h5py.Empty("S1"), file["/"].ref,
        np.array([file["/"].ref], h5py.ref_dtype), np.void(b"xyz"), 1j, True,
    ])  # fmt: skip
    thing.attrs.pop(key, None)
    if odd is None:
        return f"{path} has no {key}"
    if isinstance(odd, bytes):
        odd = np.bytes_(odd)
    if isinstance(odd, np.ndarray) and odd.dtype == "O" and not h5py.check_dtype(ref=odd.dtype):
        odd = odd.astype(h5py.string_dtype())
    thing.attrs[key] = odd
    return f"{path} has {key} {str(odd)[:40]!r}"


TREE: tuple[Callable[[h5py.File, np.random.Generator], str], ...] = (
    drop, rename, retype, reshape, swap, link, bomb, values, values, strings, attribute, attribute,
)  # fmt: skip


def mutate_tree(path: Path, rng: np.random.Generator) -> str:
    """Change one to three things of a file by HDF5's own means; says what."""
    done = []
    with h5py.File(path, "r+") as file:
        for _ in range(int(rng.integers(1, 4))):
            if not _paths(file, h5py.Dataset):
                break
            how = _pick(rng, TREE)
            try:
                done.append(how(file, rng))
            except (OSError, ValueError, TypeError, KeyError, RuntimeError, OverflowError) as error:
                done.append(f"({how.__name__} was not possible: {error})")
    return "; ".join(done)


# --- Mutations of the bytes -----------------------------------------------------------------------


def mutate_bytes(path: Path, rng: np.random.Generator) -> str:
    """Flip, cut, zero, overwrite or move bytes, mostly where HDF5 keeps its own; says what."""
    raw = bytearray(path.read_bytes())
    done = []
    for _ in range(int(rng.integers(1, 5))):
        whole = rng.random() < 0.5
        at = int(rng.integers(0, len(raw) if whole else min(len(raw), 1 << 15)))
        width = min(int(rng.integers(1, 64)), len(raw) - at)
        how = _pick(rng, ["flip", "flip", "word", "word", "noise", "zero", "block", "move", "cut"])
        if how == "flip":
            raw[at] ^= 1 << int(rng.integers(8))
        elif how == "word":
            at -= at % 8
            raw[at : at + 8] = _pick(rng, WORDS).tobytes()
        elif how == "noise":
            raw[at : at + width] = rng.bytes(width)
        elif how == "zero":
            raw[at : at + width] = bytes(width)
        elif how == "block":
            at -= at % 4096
            raw[at : at + 4096] = bytes(len(raw[at : at + 4096]))
        elif how == "move":
            start = int(rng.integers(0, len(raw) - width + 1))
            raw[at : at + width] = raw[start : start + width]
        else:
            at = int(rng.integers(1, len(raw)))
            del raw[at:]
        done.append(f"{how} at {at}")
    path.write_bytes(raw)
    return ", ".join(done)


# --- Cases ----------------------------------------------------------------------------------------


def cases(
    folder: Path, *, seed: int, first: int = 0, n: int, real: bool = True
) -> Iterator[tuple[int, Path, dict[str, Any], str]]:
    """Mutated files, one after another in one place, each with the options to read it with."""
    made = seeds(folder, real=real)
    for number in range(first, first + n):
        rng = np.random.default_rng([seed, number])
        source, options = _pick(rng, made[: len(SEEDS)] if rng.random() < 0.9 else made)
        path = folder / "case.nwb"
        path.unlink(missing_ok=True)
        shutil.copyfile(source, path)
        how = _pick(rng, [mutate_tree, mutate_tree, mutate_bytes])
        what = f"{source.stem}: {how(path, rng)}"
        yield number, path, options if rng.random() < 0.5 else {}, what


def main() -> None:
    """Look at many cases and count what came of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--limit-s", type=float, default=LIMIT_S)
    parser.add_argument("--keep", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    slowest = peak = 0.0
    end = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as folder, Worker(options.limit_s) as worker:
        for number, path, asked, what in cases(
            Path(folder), seed=options.seed, first=options.first, n=options.cases
        ):
            outcome = worker.look(path, asked)
            counts[outcome.kind] += 1
            slowest, peak = max(slowest, outcome.seconds), max(peak, outcome.peak_bytes)
            if outcome.bad or outcome.kind == "apart":
                options.keep.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, options.keep / f"{options.seed}-{number}.nwb")
                print(f"{number} {outcome.kind}: {what}\n{outcome.said}", flush=True)
            if time.monotonic() > end:
                break
        print(f"{dict(counts)}; slowest {slowest:.2f} s, most memory {peak / 1e6:.0f} MB, "
              f"{worker.starts} processes")  # fmt: skip
    if options.json:
        facts = {
            "date": datetime.now(UTC).date().isoformat(), "seed": options.seed,
            "outcomes": dict(counts), "slowest_s": round(slowest, 2),
            "most_memory_mb": round(peak / 1e6), "processes": worker.starts,
        }  # fmt: skip
        options.json.write_text(json.dumps(facts, indent=1) + "\n")
    sys.exit(any(counts[k] for k in counts if k not in GOOD))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
