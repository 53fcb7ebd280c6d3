"""Write what a run found into a new NWB file: the embedding, and a table of scores and claims.

The recording is only ever copied. The copy is what pynwb opens for writing, so whatever the
recording holds, extensions and oddities too, is in the new file byte for byte, and a fault can
harm nothing but the copy. (`NWBHDF5IO.export` rebuilds every object instead: a hundred times slower
on a file of 10 MB with masks of cells, and it moves old files to a schema that they do not fit.)

HDF5 does not survive a disk that fills up while it writes: it keeps the file open and may crash
much later. So it writes only where there is room for certain: in a part of the copy that was filled
with zeros before, or in memory.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..atomic import make_atomic, refusals, remove_parts, short_name
from ..errors import DataError, FormatError, GrevyError, LimitError
from ..locks import hold
from ..results import EmbeddingArrays, Results
from .behavior import EMBEDDING
from .files import holds, load, open_nwb, texts

__all__ = ["MODULE", "SCORES", "export_results", "refuse_existing"]

MODULE = "misc"
"""Of the names that NWB's best practices have for processing modules, the one that fits."""

SCORES = "grevy_scores"

_SPARE_BYTES, _ROW_BYTES = 4 << 20, 4 << 10
"""What pynwb writes beside the arrays, and a row of the table, at most."""

_IN_GENERAL = {
    name: name
    for name in ("data_collection", "experiment_description", "institution", "lab", "notes",
                 "pharmacology", "protocol", "session_id", "slices", "surgery", "virus")
} | {"stimulus": "stimulus_notes"}  # fmt: skip
_OF_SUBJECT = (
    "age", "description", "genotype", "sex", "species", "strain", "subject_id", "weight",
)  # fmt: skip
_COLUMNS = {
    "row": "score, of held-out samples, or claim, tested against a null",
    "target": "what is decoded, or which claim is tested",
    "stimulus": "the stimulus that the row is about; all where empty",
    "method": "what it is decoded from or by",
    "metric": "metric of a score, statistic of a claim",
    "unit": "unit of value, low, high and chance",
    "value": "the score, or the statistic that was observed",
    "low": "lower end of the 95 % interval of a score over repeats or blocks",
    "high": "upper end of the 95 % interval of a score over repeats or blocks",
    "chance": "chance of a score, mean of the null of a claim",
    "chance_low": "lower end of the middle 95 % of the null",
    "chance_high": "upper end of the middle 95 % of the null",
    "p": "one-sided p value",
    "q": "p value corrected for the number of stimuli (Benjamini and Hochberg 1995)",
    "n": "repeats (or blocks) behind a score, nulls behind a claim",
    "remark": "leaks, where a score is not of held-out samples; why a claim cannot be tested",
}


def export_results(
    path: str | os.PathLike[str],
    source: str | os.PathLike[str],
    results: Results,
    embedding: EmbeddingArrays,
    *,
    model: str = "",
    only: bool = False,
) -> Path:
    """Write a new NWB file with a recording and what a run found in it.

    Parameters
    ----------
    path : path
        Where to; its folder must exist, the file must not.
    source : path
        The recording, an NWB 2 file in HDF5, or with `only` a folder of Zarr. It is opened for
        reading only.
    results : Results
        Scores and claims become the table ``processing/misc/grevy_scores``.
    embedding : EmbeddingArrays
        Becomes the series ``processing/misc/grevy_embedding``, (time, latents), in seconds on the
        clock of the recording; `control` marks rows whose window was completed by its edge.
    model : str
        What identifies the model, for the comments of the series.
    only : bool
        Leave the recording out: session, subject and results alone.

    Returns
    -------
    Path
        Of the file written. It has its name only once it is whole, valid, and on disk.

    Raises
    ------
    DataError
        If the recording cannot be read or extended, holds such results already, or the new file
        would be less valid than the recording.
    FormatError
        If the new file exists, or the disk does not take it.
    LimitError
        If the disk has no room for the copy.
    LockedError
        If another process writes it.
    UnsafeFileError
        If the recording points outside itself.
    """
    target, origin = Path(path), Path(source)
    refuse_existing(target)
    if not only and origin.is_dir():
        raise DataError(
            f"a recording must be one file (HDF5) to be copied into the new one; found the folder "
            f"{origin.name}. Write the results alone (--only)."
        )
    session = _session(origin, results) if only else None
    with _held(target), make_atomic(target, new=True) as part:
        if session is None:
            _copy(origin, part, _room_for(results, embedding))
        with _pynwb(origin):
            if session is None:
                _extend(part, results, embedding, model)
            else:
                part.write_bytes(_alone(session, results, embedding, model))
            new = _faults(part)
            if new and session is None:
                new -= _faults(origin)
        if new:
            raise DataError(
                f"the new file must be as valid as {origin.name}; found {len(new)} new faults, the "
                f"first: {min(new)}. Its schema may be too old to extend: write the results "
                f"alone (--only)."
            )
    return target


@contextmanager
def _held(target: Path) -> Iterator[None]:
    """The new file's name, for one process at a time; without what a killed one left."""
    lock = target.with_name(f"{short_name(target)}.lock")
    with refusals(target), hold(lock, str(target), advice="wait for it, or name another file."):
        remove_parts(target.parent, of=target)
        refuse_existing(target)  # which another process may have written until now
        yield


def refuse_existing(target: Path) -> None:
    """Refuse to write over a file.

    Raises
    ------
    FormatError
        If there is one.
    """
    if os.path.lexists(target):
        raise FormatError(f"{target} exists and is not written over. Name another file.")


def _room_for(results: Results, embedding: EmbeddingArrays) -> int:
    """Bytes that the results take at most."""
    rows = len(results.scores) + len(results.claims)
    arrays = embedding.values.nbytes + embedding.times_s.nbytes + embedding.padded.nbytes
    return _SPARE_BYTES + 2 * arrays + rows * _ROW_BYTES


def _copy(origin: Path, part: Path, more: int) -> None:
    """Copy the recording, with zeros behind it, and refuse it as a reader refuses a recording."""
    size, free = origin.stat().st_size + more, shutil.disk_usage(part.parent).free
    if size > free:
        raise LimitError(
            f"the disk of {part.parent} must have room for a copy of {origin.name} "
            f"({size / 1e9:.3g} GB); found {free / 1e9:.3g} GB free. Make room, name another place "
            f"or write the results alone (--only)."
        )
    shutil.copyfile(origin, part)
    with part.open("ab") as file:  # HDF5 cuts off what it does not use of it
        while more > 0:
            more -= file.write(bytes(min(more, 1 << 20)))
        file.flush()
        os.fsync(file.fileno())
    with open_nwb(part) as file:
        there = file.get(f"processing/{MODULE}")
        taken = [] if there is None else [n for n in (EMBEDDING, SCORES) if n in there]
    if taken:
        raise DataError(
            f"the recording must hold no results of grevy yet; found 'processing/{MODULE}/"
            f"{taken[0]}' in {origin.name}. Name the recording that it was made from."
        )


@contextmanager
def _pynwb(origin: Path) -> Iterator[None]:
    """What pynwb cannot do with a file, as one sentence; a disk that refuses is told as it is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd about a recording, `inspect` says
            yield
    except GrevyError:
        raise
    except MemoryError as error:
        raise LimitError(f"{origin.name} must fit into memory; found that it does not.") from error
    except Exception as error:
        refused = next((e for e in _causes(error) if isinstance(e, OSError) and e.errno), None)
        if refused is not None:
            raise OSError(refused.errno, os.strerror(refused.errno or 0)) from error
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"pynwb must be able to extend {origin.name}; found: {reason}. Write the results alone "
            f"(--only)."
        ) from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _faults(path: Path) -> set[str]:
    """What pynwb's validator finds wrong."""
    from pynwb import validate

    return {f"{e.location or e.name}: {e.reason}" for e in validate(path=str(path))}


def _extend(part: Path, results: Results, embedding: EmbeddingArrays, model: str) -> None:
    """Add the results to a copy of the recording."""
    from pynwb import NWBHDF5IO

    with NWBHDF5IO(str(part), "a", load_namespaces=True) as io:
        whole = io.read()
        _fill(whole, results, embedding, model)
        io.write(whole, cache_spec=False)  # it stays a file of its own schema


def _alone(session: Any, results: Results, embedding: EmbeddingArrays, model: str) -> bytes:
    """A file of a session with the results and nothing else."""
    import h5py
    from pynwb import NWBHDF5IO

    _fill(session, results, embedding, model)
    with (
        h5py.File("results.nwb", "w", driver="core", backing_store=False) as file,
        NWBHDF5IO(file=file, mode="w") as io,
    ):
        io.write(session)
        file.flush()
        image: bytes = file.id.get_file_image()
    return image


def _fill(file: Any, results: Results, embedding: EmbeddingArrays, model: str) -> None:
    module = file.processing.get(MODULE) or file.create_processing_module(
        name=MODULE, description="Latent embedding of the population and what it tells, by grevy"
    )
    module.add(_series(results, embedding, model))
    if results.scores or results.claims:
        module.add(_table(results))


def _series(results: Results, embedding: EmbeddingArrays, model: str) -> Any:
    from hdmf.backends.hdf5 import H5DataIO
    from pynwb import TimeSeries

    n, latents = embedding.values.shape
    about = {
        "model": model,
        "flags": results.flags,
        "settings": results.settings,
        "versions": results.versions,
    }
    completed = embedding.padded.any()
    return TimeSeries(
        name=EMBEDDING,
        data=H5DataIO(np.asarray(embedding.values, np.float32), compression="gzip"),
        unit="n.a.",
        description=_clean(
            f"Embedding of '{results.session.source}' in {latents} latents ({n} samples), by the "
            f"final model of a run of grevy {results.versions.get('grevy', '')}; the CEBRA method, "
            f"doi:10.1038/s41586-023-06031-6. Latents have no unit. That model saw the whole "
            f"session: what it decodes held out stands in {SCORES}."
        ),
        comments=_clean(json.dumps(about)),
        control=embedding.padded.astype(np.uint8) if completed else None,
        control_description=_CONTROL if completed else None,
        **_clock(embedding.times_s),
    )


_CONTROL = ["window within its epoch", "window completed by repeating the edge of its epoch"]


def _clock(times_s: NDArray[np.float64]) -> dict[str, Any]:
    """Timestamps, or where they are regular a start and a rate, as NWB's best practices want."""
    times_s = np.asarray(times_s, np.float64)
    if len(times_s) > 2 and len(np.unique(np.diff(times_s).round(9))) == 1:
        rate = (len(times_s) - 1) / (times_s[-1] - times_s[0])
        if np.abs(times_s[0] + np.arange(len(times_s)) / rate - times_s).max() < 1e-6:
            return {"starting_time": float(times_s[0]), "rate": float(rate)}
    return {"timestamps": times_s}


def _table(results: Results) -> Any:
    """Scores and claims, one a row; columns in which no row says anything are left out."""
    from hdmf.common import DynamicTable, VectorData

    nan = float("nan")
    rows = [
        ("score", s.target, s.stimulus, s.method, s.metric, s.unit, s.value, s.low, s.high,
         s.chance, nan, nan, nan, nan, s.n_repeats, s.flag)
        for s in results.scores
    ]  # fmt: skip
    rows += [
        ("claim", c.claim, c.stimulus, "embedding", c.statistic, c.unit, c.observed, nan, nan,
         c.null_mean, c.null_low, c.null_high, c.p, c.q, c.n_nulls, c.refused)
        for c in results.claims
    ]  # fmt: skip
    columns = []
    for (name, description), values in zip(_COLUMNS.items(), zip(*rows, strict=True), strict=True):
        words = isinstance(values[0], str)
        data = [_clean(v) for v in values] if words else list(values)
        if any(v != "" and v == v for v in data):
            columns.append(VectorData(name=name, description=description, data=data))
    return DynamicTable(
        name=SCORES,
        description="What the run decodes held out, beside baselines and chance, and the claims "
        "that it tests",
        columns=columns,
    )


def _clean(words: str) -> str:
    """Text that HDF5 takes and a terminal shows: without control or half characters."""
    return "".join(c if c.isprintable() else " " for c in words).encode("utf-8", "replace").decode()


def _session(origin: Path, results: Results) -> Any:
    """A file without data, with the session and the subject of a recording."""
    from pynwb import NWBFile
    from pynwb.file import Subject

    with open_nwb(origin) as file:

        def every(name: str) -> list[str]:
            found = file.get(name)
            return [_clean(w) for w in texts(load(found).ravel())] if holds(found, "OSU") else []

        def at(name: str) -> str:
            return next(iter(every(name)), "").strip()

        started = _when(at("session_start_time"))
        if started is None:
            raise DataError(
                f"{origin.name} must say when its session began; found no time at "
                f"'session_start_time'. Mend it in a copy of the file."
            )
        general = {name: at(f"general/{key}") for key, name in _IN_GENERAL.items()}
        subject = {name: at(f"general/subject/{name}") for name in _OF_SUBJECT}
        born = _when(at("general/subject/date_of_birth"))
        with _pynwb(origin):
            new = NWBFile(
                session_description=at("session_description") or "not described",
                identifier=f"{at('identifier')} grevy {results.versions.get('data', '')[:16]}",
                session_start_time=started,
                timestamps_reference_time=_when(at("timestamps_reference_time")),
                experimenter=every("general/experimenter") or None,
                keywords=every("general/keywords") or None,
                **{k: v for k, v in general.items() if v},
            )
            if "general/subject" in file:
                known = {k: v for k, v in subject.items() if v}
                new.subject = Subject(**known, date_of_birth=born)
    return new


def _when(words: str) -> datetime | None:
    try:
        return datetime.fromisoformat(words)
    except ValueError:
        return None
