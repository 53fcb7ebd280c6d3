"""The folder of a grid: what its models are called, and the index that says which belong to it.

The index, `grid.json`, is plain JSON, written whole or not at all; nothing that it says is run, and
no file is opened but those its names stand for.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError
from torch import nn

from ..atomic import write_atomic
from ..errors import FormatError

__all__ = [
    "FORMAT_VERSION",
    "INDEX",
    "Grid",
    "Point",
    "file_of",
    "from_json",
    "module_digest",
    "read",
    "swept_of",
    "to_json",
    "word",
    "write",
]

INDEX = "grid.json"
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\.|$)")
FORMAT_VERSION = 1
_LONGEST_NAME = 180


@dataclass(frozen=True)
class Point:
    """What is known of one trained model beside its file."""

    dataset_name: str
    parameters: dict[str, Any]
    task: str  # what its bits may be compared within
    data: str  # fingerprint of the recordings
    key: str  # what the weights depend on
    digest: str  # of the weights
    negatives: int
    loss: float
    bits: list[float]  # of the folds that could be judged


@dataclass(frozen=True)
class Grid:
    """The index of a folder: the last grid, and every model ever made there."""

    seed: int
    swept: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)  # of the last grid, trained or not
    points: dict[str, Point] = field(default_factory=dict)
    format: str = "grevy-grid"
    format_version: int = FORMAT_VERSION

    @property
    def trained(self) -> dict[str, Point]:
        """The models of the last grid that are there, in its order."""
        return {name: self.points[name] for name in self.names if name in self.points}


_GRID = TypeAdapter(Grid)


def word(value: Any) -> str:
    """A value as part of the name of a file."""
    if isinstance(value, nn.Module):
        return f"{type(value).__name__}-{module_digest(value)}"
    text = str(value)
    safe = re.sub(r"[^\w.+\-(), ]", "-", text)
    return safe if safe == text else f"{safe}-{_digest(text)}"


def file_of(name: str) -> str:
    """The name of a model's file; one that is too long or a device is changed, and hashed."""
    if _RESERVED.match(name):
        name = f"_{name}-{_digest(name)}"
    if len(name.encode()) > _LONGEST_NAME:
        name = f"{name.encode()[:_LONGEST_NAME].decode(errors='ignore')}-{_digest(name)}"
    return f"{word(name)}.pt"


def module_digest(module: nn.Module) -> str:
    """A hash of a module's layers and weights, 8 hex digits."""
    state = b"".join(t.detach().cpu().numpy().tobytes() for t in module.state_dict().values())
    return hashlib.sha256(repr(module).encode() + state).hexdigest()[:8]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def swept_of(grid: Grid) -> list[dict[str, Any]]:
    """The swept parameters of every trained model."""
    return [
        {name: from_json(point.parameters[name]) for name in grid.swept}
        for point in grid.trained.values()
    ]


def to_json(value: Any) -> Any:
    """A parameter as JSON: tuples as lists, modules by name, generators by their kind."""
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, str | int | float):
        return value
    return word(value) if isinstance(value, nn.Module) else type(value).__name__


def from_json(value: Any) -> Any:
    """Lists as the tuples they were."""
    return tuple(from_json(v) for v in value) if isinstance(value, list) else value


def write(grid: Grid, folder: Path | None) -> Grid:
    """The index as the folder holds it, in one order whatever was trained first."""
    grid = replace(grid, points=dict(sorted(grid.points.items())))
    if folder is not None:
        text = json.dumps(asdict(grid), indent=1)
        with write_atomic(folder / INDEX) as file:
            file.write(text.encode())
    return grid


def read(folder: Path) -> Grid:
    """The index in a folder.

    Raises
    ------
    FormatError
        If there is none, or it does not hold together.
    """
    path = folder / INDEX
    try:
        grid = _GRID.validate_json(path.read_bytes())
    except OSError as error:
        raise FormatError(
            f"a folder of models must hold {INDEX}, which fit_models writes; {path}: "
            f"{error.strerror}."
        ) from error
    except ValidationError as error:
        raise FormatError(
            f"{path} is not the index of a grid: {str(error).splitlines()[0]}. Remove it to begin "
            f"anew."
        ) from error
    if grid.format != "grevy-grid" or not 1 <= grid.format_version <= FORMAT_VERSION:
        raise FormatError(
            f"{path} must be an index of format 1 to {FORMAT_VERSION}; found '{grid.format}' "
            f"{grid.format_version}. Upgrade grevy."
        )
    missing = [n for p in grid.trained.values() for n in grid.swept if n not in p.parameters]
    if missing:
        raise FormatError(f"{path} does not hold together: '{missing[0]}' has no value.")
    return grid
