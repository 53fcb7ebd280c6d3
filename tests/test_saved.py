"""Files of every format version are read as what they were; newer ones are refused with a hint."""

from __future__ import annotations

import json
import logging
import shutil
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

import saved_files
from grevy.errors import FormatError
from grevy.grid import index
from grevy.model import Run
from grevy.report import saved
from grevy.store import header_of, load, read_notes, tensors_of
from grevy.unfinished import Checkpoint
from saved_files import CONFIGS, FILES, HERE, KEY, NOTES, RICH

VERSIONS = [
    (name, v, HERE / f"{name}-{v}{suffix}")
    for name, (newest, suffix, _) in FILES.items()
    for v in range(1, newest + 1)
]


def of(kind: str) -> Any:
    """A case for each version of a format."""
    cases = [pytest.param(v, path, id=path.name) for name, v, path in VERSIONS if name == kind]
    return pytest.mark.parametrize(("version", "path"), cases)


def same_tensors(run: Run, kept: Path) -> bool:
    """Whether a run holds the tensors of an npz file, to the last bit and no others."""
    found = {name: t.numpy() for name, t in tensors_of(run).items()}
    with np.load(kept, allow_pickle=False) as arrays:
        return set(arrays) == set(found) and all(
            arrays[k].dtype == found[k].dtype and arrays[k].tobytes() == found[k].tobytes()
            for k in arrays
        )


def holds(new: Any, old: Any) -> bool:
    """Whether JSON has all that an earlier one has."""
    match new, old:
        case dict(), dict():
            return all(k in new and holds(new[k], old[k]) for k in old)
        case list(), list():
            return len(new) == len(old) and all(map(holds, new, old))
    return bool(new == old)


def test_every_version_is_kept_and_small() -> None:
    assert all(path.exists() for *_, path in VERSIONS), "run tests/saved_files.py"
    sizes = [p.stat().st_size for p in HERE.rglob("*") if p.is_file()]
    assert max(sizes) < 100_000
    assert sum(sizes) < 300_000


@of("model")
def test_models(version: int, path: Path) -> None:
    run = load(path)
    if version == 1:  # kept the sum of the terms alone
        with np.load(path.with_suffix(".npz")) as arrays:
            assert run.history.tobytes() == arrays["losses"].sum(axis=1).tobytes()
            for name, t in tensors_of(run).items():
                if name not in ("losses", "temperatures"):
                    assert t.numpy().tobytes() == arrays[name].tobytes()
    else:
        assert same_tensors(run, path.with_suffix(".npz"))
        assert read_notes(path) == NOTES
    assert run.config == CONFIGS[version]
    assert run.n_negatives == run.config.n_negatives
    assert (run.temperature == run.config.temperature) == (version == 1)


@of("unfinished")
def test_checkpoints(version: int, path: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(path, tmp_path / "kept"))
    (run,) = Checkpoint(folder).find([KEY], [RICH])
    assert run is not None
    assert same_tensors(run, path / "run.npz")


@of("grid")
def test_grids(version: int, path: Path, tmp_path: Path) -> None:
    grid = index.read(path)
    text = (path / index.INDEX).read_text()
    assert holds(json.loads(json.dumps(asdict(grid))), json.loads(text))
    assert len(grid.trained) == 2
    for name, point in grid.trained.items():
        assert load(path / index.file_of(name)).digest == point.digest
    if version == index.FORMAT_VERSION:
        index.write(grid, tmp_path)
        assert (tmp_path / index.INDEX).read_text() == text


@of("results")
def test_results(version: int, path: Path, tmp_path: Path) -> None:
    results, arrays = saved.load_results(path)
    saved.save_results(tmp_path, results, arrays)
    assert arrays is not None
    assert {p.name for p in tmp_path.iterdir()} >= {p.name for p in path.iterdir()}
    old, new = (json.loads((p / "results.json").read_text())["results"] for p in (path, tmp_path))
    assert holds(new, old)
    with np.load(path / "embedding.npz") as a, np.load(tmp_path / "embedding.npz") as b:
        assert set(a) == set(b)
        assert all(a[k].dtype == b[k].dtype and a[k].tobytes() == b[k].tobytes() for k in a)
    if version == saved.FORMAT_VERSION:
        for file in path.iterdir():
            assert members(tmp_path / file.name) == members(file)


def members(file: Path) -> dict[str, bytes]:
    """What a file holds, by name; how an archive is laid out differs between versions of Python."""
    if file.suffix != ".npz":
        return {"": file.read_bytes()}
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def next_version(path: Path) -> None:
    """Make a file say that it is of the version after the newest."""
    if path.suffix == ".json":
        whole = json.loads(path.read_text())
        whole["format_version"] += 1
        path.write_text(json.dumps(whole))
    else:
        blob = path.read_bytes()
        header = header_of(path, blob)
        header["format_version"] += 1
        path.write_bytes(save_tensors(load_tensors(blob), metadata={"grevy": json.dumps(header)}))


@pytest.mark.parametrize("kind", FILES)
def test_the_next_version_is_refused_with_a_hint(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    newest, suffix, _ = FILES[kind]
    name = f"{kind}-{newest}{suffix}"
    copied = shutil.copyfile if suffix else shutil.copytree
    copied(HERE / name, tmp_path / name)
    for pattern in (f"{kind}*.safetensors", f"{kind}*/{kind}*.json", f"{kind}*/unfinished*.*"):
        for path in tmp_path.glob(pattern):
            next_version(path)
    hint = rf"{newest + 1}.*Upgrade grevy"
    if kind == "unfinished":  # trained anew, and said
        with caplog.at_level(logging.WARNING, "grevy"):
            assert Checkpoint(tmp_path / name).find([KEY], [RICH]) == [None]
        caplog.text.index("Upgrade grevy")
        return
    read = {"model": load, "grid": index.read, "results": saved.load_results}[kind]
    with pytest.raises(FormatError, match=hint):
        read(tmp_path / name)


def test_the_script_writes_the_tensors_that_are_kept() -> None:
    """But for rounding, which depends on the processor."""
    run = saved_files.run_of_version(2)
    with np.load(HERE / "model-2.npz") as arrays:
        for name, t in tensors_of(run).items():
            assert t.shape == torch.Size(arrays[name].shape)
            assert np.allclose(t.numpy(), arrays[name], atol=1e-4)
