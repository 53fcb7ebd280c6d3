"""Results on disk: results.json, embedding.npz and tables, written whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import math
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from ..atomic import write_atomic
from ..errors import FormatError
from ..results import (
    Claim,
    EmbeddingArrays,
    OnsetClock,
    Results,
    SampleSize,
    Score,
    SubsetScore,
)

__all__ = ["FORMAT_VERSION", "load_results", "save_results", "write_whole"]

FORMAT_VERSION = 3
"""Version 1 had no regions, 2 did not say which folds a candidate was tried for."""
_FORMAT = "grevy-results"
_RESULTS: TypeAdapter[Results] = TypeAdapter(Results)
_KINDS = {
    "values": ("f4", 2),
    "samples": ("i8", 1),
    "times_s": ("f8", 1),
    "padded": ("b1", 1),
    "index": ("i4", 1),
    "frame": ("i4", 1),
    "repeat": ("i4", 1),
}


def write_whole(path: Path, content: bytes) -> Path:
    """Write bytes to a file, atomically."""
    with write_atomic(path) as file:
        file.write(content)
    return path


def save_results(out: Path, results: Results, embedding: EmbeddingArrays | None) -> None:
    """Write a run's numbers into a folder.

    Parameters
    ----------
    out : Path
        Folder, made where it is missing.
    results : Results
        Goes to results.json, its scores and claims to scores.csv and claims.csv too; what there is
        of controls to behaviour.csv, clocks.csv, drift.csv, samples.csv and regions.csv.
    embedding : EmbeddingArrays or None
        Goes to embedding.npz; None removes that file.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    if embedding is None:
        (out / "embedding.npz").unlink(missing_ok=True)
    else:
        write_whole(out / "embedding.npz", _npz(embedding))
    write_whole(out / "scores.csv", _csv(Score, results.scores))
    write_whole(out / "claims.csv", _csv(Claim, results.claims))
    for name, kind, rows in _controls(results):
        if rows:
            write_whole(out / name, _csv(kind, rows))
        else:
            (out / name).unlink(missing_ok=True)
    whole = {
        "format": _FORMAT,
        "format_version": FORMAT_VERSION,
        "results": _encoded(asdict(results)),
    }
    write_whole(out / "results.json", json.dumps(whole, indent=1, allow_nan=False).encode())


def load_results(out: Path) -> tuple[Results, EmbeddingArrays | None]:
    """Read what `save_results` wrote, believing nothing unchecked.

    Parameters
    ----------
    out : Path
        Folder of the run.

    Returns
    -------
    results : Results
    embedding : EmbeddingArrays or None
        None where the folder holds no embedding.npz.

    Raises
    ------
    FormatError
        If a file is missing, damaged, or not what this version writes; the message names the file
        and the place in it.
    """
    out = Path(out)
    results = _read_results(out / "results.json")
    path = out / "embedding.npz"
    return results, _read_embedding(path) if path.exists() else None


# JSON


def _encoded(value: Any) -> Any:
    """Values that JSON has: NaN and infinities as words, half characters as question marks."""
    match value:
        case dict():
            return {_encoded(k): _encoded(v) for k, v in value.items()}
        case list() | tuple():
            return [_encoded(v) for v in value]
        case float() if not math.isfinite(value):
            return str(value).replace("nan", "NaN").replace("inf", "Infinity")
        case str():
            return value.encode("utf-8", "replace").decode()
    return value


def _read_results(path: Path) -> Results:
    try:
        whole = json.loads(path.read_bytes())
    except OSError as error:
        raise FormatError(f"the results {path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"{path} must be JSON; found: {error}. The file is damaged: run again."
        ) from error
    if not isinstance(whole, dict) or whole.get("format") != _FORMAT:
        raise FormatError(f"{path} must have the format '{_FORMAT}'; it has not.")
    if whole.get("format_version") not in range(1, FORMAT_VERSION + 1):
        raise FormatError(
            f"{path} must have a format version from 1 to {FORMAT_VERSION}; found "
            f"{str(whole.get('format_version'))[:20]}. Upgrade grevy, or use the one that wrote it."
        )
    try:
        results = _RESULTS.validate_python(whole.get("results"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, ("results", *first["loc"])))
        raise FormatError(f"{path}, {where}: {first['msg']}.") from error
    other = _strange(whole["results"], _encoded(asdict(results)), "results")
    if other:
        raise FormatError(f"{path}, {other}: not something that this version writes.")
    return results


def _strange(read: Any, known: Any, where: str) -> str:
    """The first place where a file says what its validated results do not; "" where there is none.

    Validation is lenient (it drops unknown keys, and takes "5" for 5); this is not.
    """
    if isinstance(read, dict) and isinstance(known, dict):
        for key in read:
            if key not in known:
                return f"{where}.{key}"
            found = _strange(read[key], known[key], f"{where}.{key}")
            if found:
                return found
        return ""
    if isinstance(read, list) and isinstance(known, list):
        steps = (
            _strange(a, b, f"{where}.{i}") for i, (a, b) in enumerate(zip(read, known, strict=True))
        )
        return next((found for found in steps if found), "")
    same = read == known and isinstance(read, bool) == isinstance(known, bool)
    return "" if same else where


# CSV


def _cell(value: object) -> object:
    """A cell that no spreadsheet takes for a formula; nothing for numbers that are none."""
    if isinstance(value, float):
        return value if math.isfinite(value) else ""
    if isinstance(value, str):
        text = "".join(c if c.isprintable() else " " for c in value)
        return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@", "|", "%")) else text
    return value


@dataclass(frozen=True)
class _DriftAt:
    """A line of drift.csv."""

    target: str
    stimulus: str
    statistic: str
    unit: str
    slope: float
    p: float
    n_nulls: int
    distance: int
    value: float
    low: float
    high: float
    n_presentations: int


def _controls(results: Results) -> list[tuple[str, type[Any], list[Any]]]:
    """The tables of controls: file, kind of row, rows."""
    c = results.controls
    drifts = [
        _DriftAt(
            d.target, d.stimulus, d.statistic, d.unit, d.slope, d.p, d.n_nulls, a.distance,
            a.value, a.low, a.high, a.n_presentations,
        )
        for d in c.drifts
        for a in d.by_distance
    ]  # fmt: skip
    return [
        ("behaviour.csv", Score, [s for b in c.behaviour for s in b.scores]),
        ("clocks.csv", OnsetClock, list(c.clocks)),
        ("drift.csv", _DriftAt, drifts),
        ("samples.csv", SampleSize, list(c.sizes)),
        ("regions.csv", SubsetScore, list(c.regions)),
    ]


def _csv(kind: type[Any], rows: Sequence[Any]) -> bytes:
    """Rows of one kind, one a line, under the names of its fields."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in fields(kind)]
    writer.writerow(names)
    for row in rows:
        writer.writerow([_cell(getattr(row, name)) for name in names])
    return text.getvalue().encode("utf-8", "replace")


# Arrays


def _npz(embedding: EmbeddingArrays) -> bytes:
    arrays: dict[str, NDArray[Any]] = {
        name: np.asarray(getattr(embedding, name), dtype=kind) for name, (kind, _) in _KINDS.items()
    }
    arrays["names"] = np.array(embedding.names, dtype=np.str_)
    arrays["label_names"] = np.array(list(embedding.labels), dtype=np.str_)
    for i, values in enumerate(embedding.labels.values()):
        arrays[f"label_{i}"] = np.asarray(values, dtype=np.float64)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an npz file; each must fill its place in it, so no false size is allocated."""
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                raise ValueError(f"'{info.filename[:40]}' is compressed")
            if info.flag_bits & 1:
                raise ValueError(f"'{info.filename[:40]}' is encrypted")
            content = archive.read(info)
            file = io.BytesIO(content)
            shape, dtype = _header(file)
            if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(content) - file.tell():
                raise ValueError(f"'{info.filename[:40]}' does not hold what its header says")
            file.seek(0)
            arrays[info.filename.removesuffix(".npy")] = np.lib.format.read_array(
                file, allow_pickle=False
            )
    return arrays


def _header(file: io.BytesIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype that an array says it has."""
    version = np.lib.format.read_magic(file)
    try:
        shape, _, dtype = (
            np.lib.format.read_array_header_1_0(file)
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0(file)
        )
    except (TokenError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(f"a header is no header: {error}") from error  # of Python's own parser
    return shape, dtype


def _read_embedding(path: Path) -> EmbeddingArrays:
    try:
        arrays = _arrays(path)
        n = arrays["values"].shape[0] if arrays["values"].ndim else 0
        for name, (kind, ndim) in _KINDS.items():
            a = arrays[name]
            if a.dtype != np.dtype(kind) or a.ndim != ndim or len(a) != n:
                raise ValueError(f"'{name}' has dtype {a.dtype} and shape {a.shape}")
        names = [arrays["names"], arrays["label_names"]]
        if any(a.ndim != 1 or (a.dtype.kind != "U" and len(a)) for a in names):
            raise ValueError("the names are not text")
        labels = {str(k): arrays[f"label_{i}"] for i, k in enumerate(arrays["label_names"])}
        for key, a in labels.items():
            if a.dtype != np.float64 or a.ndim not in (1, 2) or len(a) != n:
                raise ValueError(f"label '{key[:40]}' has dtype {a.dtype} and shape {a.shape}")
        if n and not -1 <= arrays["index"].min() <= arrays["index"].max() < len(arrays["names"]):
            raise ValueError("'index' points to stimuli without a name")
    except KeyError as error:
        raise FormatError(f"{path} must hold the array {error}; it does not.") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise FormatError(f"{path} cannot be read as arrays: {error}.") from error
    return EmbeddingArrays(
        **{name: arrays[name] for name in _KINDS},
        names=tuple(str(name) for name in arrays["names"]),
        labels=labels,
    )
