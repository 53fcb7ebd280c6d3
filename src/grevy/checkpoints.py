"""Models saved by CEBRA, read without running anything: what they were, and what they learned."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .errors import FormatError
from .restricted import Offset, read_torch

__all__ = ["Checkpoint", "read_checkpoint"]

_ARGUMENTS = frozenset(
    "model_architecture device criterion distance conditional temperature temperature_mode "  # noqa: SIM905
    "min_temperature time_offsets delta max_iterations max_adapt_iterations batch_size "
    "learning_rate optimizer output_dimension verbose num_hidden_units pad_before_transform "
    "hybrid optimizer_kwargs".split()
)
# Parameters that came later, and what models saved before them were: CEBRA 0.6 brought masks.
_LATER: dict[str, Any] = {"masking_kwargs": None}


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A fitted estimator of CEBRA, as it was saved; all tensors on the CPU.

    Attributes
    ----------
    args : dict
        The constructor's 22 parameters by name; `masking_kwargs` is None in files of CEBRA before
        0.6, which had no masks.
    label_types : list
        (dtype, shape) of each label; several sessions: a list over sessions for each label.
    device : str
        Where it was trained, such as "cuda:0".
    n_features : int or list of int
        Channels, of each session where there are several.
    num_sessions : int or None
        None for one recording that was not given as a list.
    offset : Offset
        Samples left and right of the centre, as (left, right).
    solver_name : str
    weights : list of dict
        For each session, its encoder's tensors by CEBRA's names ("net.1.weight", ...).
    loss : array, shape (steps,)
        In nats.
    log : dict of arrays, shape (steps,)
        "pos", "neg", "total" in nats and "temperature"; empty arrays where CEBRA kept none.
    criterion : dict of tensors
        The learned temperature, if it was learned.
    optimizer : dict or None
    versions : dict of str
        Of CEBRA and of the libraries that it wrote with.
    """

    args: dict[str, Any]
    label_types: list[Any]
    device: str
    n_features: int | list[int]
    num_sessions: int | None
    offset: Offset
    solver_name: str
    weights: list[dict[str, Tensor]]
    loss: NDArray[np.float64]
    log: dict[str, NDArray[np.float64]]
    criterion: dict[str, Tensor]
    optimizer: dict[str, Any] | None
    versions: dict[str, str]


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a file that `cebra.CEBRA.save` wrote, with its default backend.

    Parameters
    ----------
    path : str or Path
        Any name. Models trained on a GPU are read too.

    Returns
    -------
    Checkpoint

    Raises
    ------
    UnsafeFileError
        If the file names anything but plain data, as files of the "torch" backend do.
    FormatError
        If it is absent, damaged, or lacks something; the message says what.

    References
    ----------
    Schneider, Lee & Mathis 2023, doi:10.1038/s41586-023-06031-6.
    """
    whole = read_torch(path)
    outer = _Part(path, "", whole)
    args = outer.part("args")
    state = outer.part("state")
    solver = outer.part("state_dict")
    missing = [
        *(f"args.{k}" for k in sorted(_ARGUMENTS - set(args.content))),
        *(f"state.{k}" for k in _STATE if k not in state.content),
        *(f"state_dict.{k}" for k in _SOLVER if k not in solver.content),
    ]
    if missing:
        raise FormatError(
            f"{path} must hold a whole model of CEBRA; it lacks {', '.join(missing)}. Save the "
            f"fitted model again."
        )
    sessions = state.get("num_sessions_", int, type(None))
    features = state.get("n_features_", int, list)
    _check_features(path, features, sessions)
    optimizer = solver.content.get("optimizer")
    if not isinstance(optimizer, (dict, type(None))):
        raise FormatError(f"{path}: state_dict.optimizer must be a dict.")
    return Checkpoint(
        args=_LATER | args.content,
        label_types=state.get("label_types_", list),
        device=str(state.get("device_", str)),
        n_features=features,
        num_sessions=sessions,
        offset=state.get("offset_", Offset),
        solver_name=state.get("solver_name_", str),
        weights=_weights(path, solver.part("model").tensors(), sessions),
        loss=_series(path, "loss", solver.content["loss"]),
        log=_log(path, solver),
        criterion=solver.part("criterion").tensors(),
        optimizer=optimizer,
        versions=_versions(outer, solver),
    )


_STATE = ("label_types_", "device_", "n_features_", "num_sessions_", "offset_", "solver_name_")
_SOLVER = ("model", "loss", "criterion")


class _Part:
    """One dict of the file, and where it lies in it, for the messages."""

    def __init__(self, path: str | Path, name: str, content: object) -> None:
        if not isinstance(content, dict):
            what = name or "the file"
            raise FormatError(
                f"{path} must be a model saved by CEBRA; {what} is of type "
                f"{type(content).__name__}, not dict."
            )
        self.path, self.name, self.content = path, name, content

    def part(self, key: str) -> _Part:
        if key not in self.content:
            raise FormatError(
                f"{self.path} must be a model saved by CEBRA; it lacks {self.within(key)}."
            )
        return _Part(self.path, self.within(key), self.content[key])

    def within(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else key

    def get(self, key: str, *kinds: type[Any]) -> Any:
        value = self.content[key]
        if not isinstance(value, kinds) or isinstance(value, bool):
            names = " or ".join(k.__name__ for k in kinds)
            raise FormatError(
                f"{self.path}: {self.within(key)} must be {names}; it is {type(value).__name__}."
            )
        return value

    def tensors(self) -> dict[str, Tensor]:
        for key, value in self.content.items():
            if not isinstance(key, str) or not isinstance(value, Tensor):
                raise FormatError(
                    f"{self.path}: {self.name} must hold tensors by name; {key!r} is "
                    f"{type(value).__name__}."
                )
        return self.content


def _check_features(path: str | Path, features: int | list[Any], sessions: int | None) -> None:
    counts = features if isinstance(features, list) else [features]
    if any(type(n) is not int or n < 1 for n in counts):
        raise FormatError(f"{path}: n_features_ must be counts of 1 or more; it is {counts}.")
    if len(counts) != (sessions or 1) or isinstance(features, list) != (sessions is not None):
        raise FormatError(
            f"{path}: n_features_ must have one count a session; it has {len(counts)} for "
            f"{sessions or 1} sessions."
        )


def _weights(
    path: str | Path, model: dict[str, Tensor], sessions: int | None
) -> list[dict[str, Tensor]]:
    """The encoder of each session, by the names that it has alone."""
    split: list[dict[str, Tensor]] = [{} for _ in range(sessions or 1)]
    for name, tensor in model.items():
        number, rest = 0, name
        if sessions is not None:
            head, _, rest = name.partition(".")
            number = int(head) if head.isdecimal() else -1
        rest = rest.removeprefix("module.")
        if not 0 <= number < len(split) or not rest:
            raise FormatError(
                f"{path}: weights must be of one of {len(split)} sessions; {name!r} is not."
            )
        split[number][rest] = tensor
    empty = [s for s, weights in enumerate(split) if not weights]
    if empty:
        raise FormatError(f"{path}: every session must have weights; session {empty[0]} has none.")
    for number, weights in enumerate(split):
        for name, tensor in weights.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise FormatError(f"{path}: weights must be finite; {name!r} ({number}) is not.")
    return split


def _series(path: str | Path, name: str, values: Any) -> NDArray[np.float64]:
    try:
        if isinstance(values, list):
            values = [float(v) for v in values]
        elif isinstance(values, Tensor):
            values = values.double().numpy()
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise FormatError(f"{path}: {name} must be a series of numbers; {error}.") from error
    if array.ndim != 1:
        raise FormatError(f"{path}: {name} must be one series; it has shape {array.shape}.")
    return array


def _log(path: str | Path, solver: _Part) -> dict[str, NDArray[np.float64]]:
    if "log" not in solver.content:
        return {}
    log = solver.part("log").content
    return {str(k): _series(path, f"state_dict.log.{k}", v) for k, v in log.items()}


def _versions(outer: _Part, solver: _Part) -> dict[str, str]:
    metadata = outer.part("metadata").content if "metadata" in outer.content else {}
    found = {k.removesuffix("_version"): str(v) for k, v in metadata.items() if k != "backend"}
    if "cebra" not in found and "version" in solver.content:
        found["cebra"] = str(solver.content["version"])
    return found
