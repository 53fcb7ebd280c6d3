"""What a fitted estimator shows and keeps: modules, logs, and what stands beside it in a file."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from .checkpoints import Checkpoint, read_checkpoint
from .config import TrainConfig, latent_slices
from .custom import ModuleSpec, module_spec, with_weights
from .encoders import Encoder, EncoderSpec, from_cebra
from .errors import FormatError
from .inputs import Sessions
from .model import Run, SessionEncoder
from .pairs import HybridPairs, Pairs
from .parameters import pairs_of
from .regular import size_of
from .room import refuse_large
from .store import MORE_MEMORY, load, read_notes

__all__ = ["log_of", "modules_of", "notes_of", "open_model", "pieces", "solver_of"]

_PARAMETERS = "parameters"


def modules_of(run: Run, *, several: bool) -> nn.Module:
    """The encoders as torch modules: one, or a list of them for several sessions."""
    spec = run.config.encoder
    modules: list[nn.Module] = []
    for session in run.sessions:
        if isinstance(spec, ModuleSpec):
            modules.append(with_weights(spec, session.weights))
        else:
            modules.append(Encoder(spec, session.weights))
    return nn.ModuleList(modules) if several else modules[0]


def log_of(run: Run) -> dict[str, list[float]]:
    """Loss of every step in nats: the sums, and for hybrid pairs each of the two parts."""
    log = {
        "pos": run.losses[:, :, 0].sum(axis=1).tolist(),
        "neg": run.losses[:, :, 1].sum(axis=1).tolist(),
        "total": run.losses.sum(axis=(1, 2)).tolist(),
        "temperature": run.temperatures.tolist(),
    }
    if isinstance(run.config.pairs, HybridPairs):
        for k, name in enumerate(("behavior", "time")):
            log[f"{name}_pos"] = run.losses[:, k, 0].tolist()
            log[f"{name}_neg"] = run.losses[:, k, 1].tolist()
            log[f"{name}_total"] = run.losses[:, k].sum(axis=1).tolist()
    return log


def solver_of(run: Run, *, several: bool) -> Any:
    """What callbacks are handed: model, history and log so far."""
    log = log_of(run)
    return SimpleNamespace(model=modules_of(run, several=several), history=log["total"], log=log)


def pieces(n_steps: int, frequency: int | None) -> list[int]:
    """Lengths of the stretches of training between callbacks, after steps 0, f, 2 f, ...

    Examples
    --------
    >>> pieces(10, 4)
    [1, 4, 4, 1]
    >>> pieces(10, None)
    [10]
    """
    if frequency is None:
        return [n_steps]
    edges = [0, *range(1, n_steps, frequency), n_steps]
    return [b - a for a, b in itertools.pairwise(edges)]


def notes_of(model: Any) -> dict[str, Any]:
    """What the file of an estimator holds beside the run, as JSON."""
    parameters = model.get_params(deep=False)
    if isinstance(parameters["model_architecture"], nn.Module):
        parameters["model_architecture"] = model.run_.config.encoder.architecture
    if not isinstance(parameters["random_state"], int | None):
        parameters["random_state"] = model.random_state_
    return {
        _PARAMETERS: {name: _written(value) for name, value in parameters.items()},
        "label_types": _plain_types(model.label_types_),
        "num_sessions": model.num_sessions_,
        "n_features": model.n_features_,
        "random_state": model.random_state_,
        "feature_names": [str(n) for n in getattr(model, "feature_names_in_", [])],
    }


def _plain_types(types: Sequence[Any]) -> list[Any]:
    if types and isinstance(types[0], list):
        return [_plain_types(each) for each in types]
    return [[str(np.dtype(dtype)), list(shape)] for dtype, shape in types]


def _real_types(types: Sequence[Any]) -> list[Any]:
    if types and types[0] and isinstance(types[0][0], list):
        return [_real_types(each) for each in types]
    return [(np.dtype(dtype), tuple(shape)) for dtype, shape in types]


def open_model(path: Path, module: nn.Module | None) -> tuple[Run, dict[str, Any], dict[str, Any]]:
    """Read a file of grevy, or a checkpoint of CEBRA, by what it is.

    Returns
    -------
    run : Run
    parameters : dict
        Of the constructor.
    learned : dict
        Attributes that end in an underscore.
    """
    size = size_of(path, "a model file")
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise FormatError(f"a model file must be readable; {path}: {error.strerror}.") from error
    if start == b"PK\x03\x04":
        refuse_large(size, f"the model in {path}", MORE_MEMORY)
        return _from_checkpoint(path, read_checkpoint(path))
    run = load(path, encoder=None if module is None else module_spec(module))
    notes = read_notes(path)
    if _PARAMETERS not in notes:
        raise FormatError(
            f"{path} holds a run of grevy.train, not an estimator. Read it by grevy.load."
        )
    try:
        parameters = {name: _read(value) for name, value in notes[_PARAMETERS].items()}
        if module is not None:
            parameters["model_architecture"] = module
        learned = {
            "label_types_": _real_types(notes["label_types"]),
            "num_sessions_": notes["num_sessions"],
            "n_features_": notes["n_features"],
            "random_state_": notes["random_state"],
        }
        names = notes["feature_names"]
        _check_notes(run, learned, names)
        if names:
            learned["feature_names_in_"] = np.array(names, dtype=object)
    except (
        KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError
    ) as error:  # fmt: skip
        raise FormatError(f"{path}: its notes do not describe an estimator: {error}.") from error
    return run, parameters, learned


def _check_notes(run: Run, learned: Mapping[str, Any], names: Any) -> None:
    """Raise ValueError where notes say another thing than the run that they stand beside."""
    counts = [len(session.mean) for session in run.sessions]
    several = learned["num_sessions_"] is not None
    told = {
        "num_sessions": (learned["num_sessions_"], len(counts) if several else None),
        "n_features": (learned["n_features_"], counts if several else counts[0]),
    }
    for name, (found, must) in told.items():
        if found != must or isinstance(found, bool) or (not several and len(counts) > 1):
            raise ValueError(f"{name} must be {must}, as its encoders are; it is {str(found)[:60]}")
    if type(learned["random_state_"]) is not int or abs(learned["random_state_"]) >= 2**64:
        raise ValueError("random_state must be a whole number of 64 bits")
    whole = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not whole or (names and (several or len(names) != counts[0])):
        raise ValueError("feature_names must be one text a channel")


def _written(value: Any) -> Any:
    """A parameter as JSON that keeps lists (of shares) apart from tuples (of bounds)."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list):
        return {"list": [_written(v) for v in value]}
    if isinstance(value, Mapping):
        return {"items": [[_written(k), _written(v)] for k, v in value.items()]}
    if isinstance(value, tuple):
        return [_written(v) for v in value]
    return str(value) if isinstance(value, torch.device) else value


def _read(value: Any) -> Any:
    """What `_written` was given."""
    if isinstance(value, list):
        return tuple(_read(v) for v in value)
    if isinstance(value, dict) and "list" in value:
        return [_read(v) for v in value["list"]]
    if isinstance(value, dict):
        return {_read(k): _read(v) for k, v in value["items"]}
    return value


def _from_checkpoint(path: Path, found: Checkpoint) -> tuple[Run, dict[str, Any], dict[str, Any]]:
    """A run of CEBRA as one of grevy: its weights, losses and settings."""
    args = dict(found.args)
    try:
        spec = EncoderSpec(
            str(args["model_architecture"]),
            int(args["num_hidden_units"]),
            int(args["output_dimension"]),
        )
        batch, learned = args["batch_size"], args["temperature_mode"] == "auto"
        config = TrainConfig(
            _pairs_of(args, found, spec.latents),
            spec,
            temperature=float(args["temperature"]),
            learning_rate=float(args["learning_rate"]),
            batch_size=batch,
            n_steps=max(1, len(found.loss)),
            distance=args["distance"],
            learn_temperature=learned,
            min_temperature=args["min_temperature"] if learned else None,
        )
        final = _final_temperature(args, found)
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise FormatError(f"{path}: its settings do not describe a model: {error}") from error
    counts = found.n_features if isinstance(found.n_features, list) else [found.n_features]
    sessions = []
    for state, channels in zip(found.weights, counts, strict=True):
        weights = tuple(from_cebra(spec, state))
        if weights[0].shape[1] != channels:
            raise FormatError(
                f"{path}: weights must take the {channels} channels that it names; found "
                f"{weights[0].shape[1]}."
            )
        sessions.append(SessionEncoder(weights, torch.zeros(channels), torch.ones(channels)))
    log = {name: np.asarray(values, dtype=np.float32) for name, values in found.log.items()}
    total = np.asarray(found.loss, dtype=np.float32).reshape(-1)
    losses = np.zeros((len(total), len(latent_slices(config)), 2), dtype=np.float32)
    both = [log.get("pos", np.empty(0)), log.get("neg", np.empty(0))]
    if all(len(part) == len(total) for part in both):
        losses[:, 0] = np.stack(both, axis=-1)
    else:
        losses[:, 0, 1] = total  # hybrid training kept nothing but the sum of all parts
    warmth = log.get("temperature", np.empty(0))
    if len(warmth) != len(total):
        warmth = np.full(len(total), final)
    run = Run(
        config=config,
        sessions=tuple(sessions),
        losses=losses,
        temperatures=warmth.astype(np.float32),
        temperature=final,
        n_negatives=int(batch or 0) * len(sessions),
        recording_hash="",
        parent="",
    )
    attributes = {
        "label_types_": found.label_types,
        "num_sessions_": found.num_sessions,
        "n_features_": found.n_features,
        "random_state_": 0,
    }
    return run, args, attributes


def _pairs_of(args: Mapping[str, Any], found: Checkpoint, latents: int) -> Pairs:
    """The pairs that CEBRA trained with, which did not heed all that it was told."""
    types = [each[0] if found.num_sessions is not None else each for each in found.label_types]
    kinds = [np.dtype(dtype).kind for dtype, _ in types]
    widths = [int(shape[1]) if len(shape) > 1 else 1 for _, shape in types]
    names = tuple(
        f"label {i}.{k}" for i, kind in enumerate(kinds) if kind == "f" for k in range(widths[i])
    )
    discrete = any(kind in "iu" for kind in kinds)
    told = {name: args[name] for name in ("conditional", "time_offsets", "delta", "hybrid")}
    if discrete or found.num_sessions is not None:
        told["conditional"] = None
    elif told["hybrid"] and told["conditional"] == "time":
        told["conditional"] = "time_delta"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of settings without effect
        return pairs_of(
            SimpleNamespace(**told),
            Sessions((), names, discrete, found.label_types, False),
            latents,
        )


def _final_temperature(args: Mapping[str, Any], found: Checkpoint) -> float:
    """At the end of the training, which may have learned it."""
    learned = found.criterion.get("log_inverse_temperature")
    if args["temperature_mode"] != "auto" or learned is None:
        return float(args["temperature"])
    floor = args["min_temperature"]
    return max(float(torch.exp(-learned.double())), 0.0 if floor is None else float(floor))
