"""CEBRA's parameters, translated: what they mean for the labels given, or why they cannot."""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
from torch import nn

from .config import BLOCK, PRESETS, Adam, TrainConfig
from .custom import module_spec
from .encoders import AnyEncoder, EncoderSpec
from .errors import ConfigError
from .inputs import DISCRETE, Sessions
from .masks import Mask, MaskKind
from .pairs import (
    ClassPairs,
    DeltaPairs,
    HybridPairs,
    LabelPairs,
    MixedPairs,
    NearPairs,
    Pairs,
    TimePairs,
)

__all__ = ["encoder_of", "masks_of", "pairs_of", "seed_of", "train_config", "whole"]

_CONDITIONALS = (None, "time", "time_delta", "delta", "delta_normal")
_MASKS: dict[str, MaskKind] = {
    "RandomNeuronMask": "neurons",
    "RandomTimestepMask": "timesteps",
    "NeuronBlockMask": "neuron_block",
    "TimeBlockMask": "time_block",
}
_MIN_TEMPERATURE = 0.1  # CEBRA's default, which says nothing
BEHAVIOR_LATENTS = 3
"""Latents on which hybrid training judges labels."""


def seed_of(random_state: Any) -> int:
    """A seed: the number itself, one drawn from a RandomState or Generator, or a fresh one.

    Raises
    ------
    ConfigError
        If it is none of these.
    """
    if random_state is None:
        return secrets.randbits(31)
    if isinstance(random_state, Integral):
        return int(random_state)
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**31 - 1))
    raise ConfigError(
        f"random_state must be a whole number, a RandomState, a Generator or None; "
        f"found {random_state!r}."
    )


def encoder_of(model: Any) -> AnyEncoder:
    """The encoder that an estimator's parameters ask for."""
    architecture = model.model_architecture
    if isinstance(architecture, nn.Module):
        return module_spec(architecture)
    if not isinstance(architecture, str):
        raise ConfigError(
            f"model_architecture must be a name or a torch module; found {architecture!r}."
        )
    for name in ("num_hidden_units", "output_dimension"):
        whole(name, getattr(model, name))
    return EncoderSpec(architecture, int(model.num_hidden_units), int(model.output_dimension))


def train_config(model: Any, sessions: Sessions, seed: int, n_steps: int) -> TrainConfig:
    """The configuration that an estimator's parameters mean for these data.

    Parameters
    ----------
    model : CEBRA
    sessions : Sessions
    seed : int
    n_steps : int

    Returns
    -------
    TrainConfig

    Raises
    ------
    ConfigError
        If a parameter is outside its allowed values, or they contradict each other.
    """
    _one_of("criterion", str(model.criterion).lower(), ("infonce",))
    _one_of("optimizer", model.optimizer, ("adam",))
    _one_of("distance", model.distance, ("cosine", "euclidean"))
    _one_of("temperature_mode", model.temperature_mode, ("constant", "auto"))
    _one_of("precision", model.precision, ("auto", "float32", "bfloat16"))
    _one_of("preset", model.preset, (None, *PRESETS))
    for name in ("hybrid", "verbose", "pad_before_transform"):
        _one_of(name, getattr(model, name), (True, False))
    for name in ("max_iterations", "max_adapt_iterations"):
        whole(name, getattr(model, name))
    for name in ("batch_size", "num_negatives"):
        if getattr(model, name) is not None:
            whole(name, getattr(model, name))
    for name in ("temperature", "learning_rate"):
        _positive(name, getattr(model, name))
    learned = model.temperature_mode == "auto"
    if model.min_temperature is not None:
        _positive("min_temperature", model.min_temperature)
    if not learned and model.min_temperature not in (None, _MIN_TEMPERATURE):
        warnings.warn(
            f"min_temperature={model.min_temperature!r} has no effect on a constant temperature.",
            UserWarning,
            stacklevel=4,
        )
    spec = encoder_of(model)
    return TrainConfig(
        pairs=pairs_of(model, sessions, spec.latents),
        encoder=spec,
        temperature=float(model.temperature),
        learning_rate=float(model.learning_rate),
        batch_size=model.batch_size,
        n_negatives=model.num_negatives,
        n_steps=n_steps,
        seed=seed,
        block=_block(model.sampling),
        precision=model.precision,
        distance=model.distance,
        learn_temperature=learned,
        min_temperature=model.min_temperature if learned else None,
        adam=_adam(model.optimizer_kwargs),
        masks=masks_of(model.masking_kwargs),
    ).with_preset(model.preset or "plain")


def pairs_of(model: Any, sessions: Sessions, latents: int) -> Pairs:
    """The pairs that `conditional`, `delta`, `time_offsets` and `hybrid` mean for the labels."""
    _one_of("conditional", model.conditional, _CONDITIONALS)
    offsets = _offsets(model.time_offsets)
    labelled = bool(sessions.continuous) or sessions.discrete
    if not labelled:
        if model.hybrid:
            raise ConfigError("hybrid=True needs labels beside time; found none. Give y.")
        if model.conditional not in (None, "time"):
            raise ConfigError(
                f"conditional='{model.conditional}' needs labels; found none. Give y, or use time."
            )
        _said(model, used=("time_offsets",))
        return TimePairs(offsets)
    if model.conditional == "time" and not model.hybrid:
        _said(model, used=("time_offsets",))
        return TimePairs(offsets)
    if model.conditional == "time":
        raise ConfigError(
            "hybrid=True takes time by itself, and conditional says how labels are used: "
            "'time_delta' or 'delta_normal', not 'time'."
        )
    behavior = _behavior(model, sessions, offsets)
    if not model.hybrid:
        return behavior
    return HybridPairs(behavior, TimePairs(offsets), min(BEHAVIOR_LATENTS, latents))


def _behavior(model: Any, sessions: Sessions, offsets: tuple[int, ...]) -> LabelPairs:
    near = model.conditional in ("delta", "delta_normal")
    time = ("time_offsets",) if model.hybrid else ()
    if not sessions.continuous:
        _said(model, used=time)
        return ClassPairs(DISCRETE)
    continuous: DeltaPairs | NearPairs
    if near:
        if model.delta is None:
            raise ConfigError(
                f"conditional='{model.conditional}' needs delta, the standard deviation of the "
                f"labels of positives; found None."
            )
        _positive("delta", model.delta)
        continuous = NearPairs(sessions.continuous, float(model.delta))
        _said(model, used=("conditional", "delta", *time))
    else:
        if len(offsets) > 1:
            raise ConfigError(
                f"conditional='time_delta' takes label changes over one time offset; found "
                f"{offsets}. Give one."
            )
        continuous = DeltaPairs(sessions.continuous, offsets[0])
        _said(model, used=("conditional", "time_offsets"))
    return MixedPairs(continuous, DISCRETE) if sessions.discrete else continuous


def _said(model: Any, *, used: tuple[str, ...]) -> None:
    """Warn of settings that mean nothing for these labels: they are never ignored in silence."""
    given = {
        "conditional": model.conditional not in (None, "time"),
        "time_offsets": _offsets(model.time_offsets) != (1,),
        "delta": model.delta is not None,
    }
    for name, is_given in given.items():
        if is_given and name not in used:
            warnings.warn(
                f"{name}={getattr(model, name)!r} has no effect on training with these labels.",
                UserWarning,
                stacklevel=6,
            )


def _offsets(given: Any) -> tuple[int, ...]:
    several = given if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
    offsets = tuple(several)
    if not offsets or not all(isinstance(o, Integral) and int(o) >= 1 for o in offsets):
        raise ConfigError(
            f"time_offsets must be a whole number of samples of at least 1, or several; "
            f"found {given!r}."
        )
    return tuple(int(o) for o in offsets)


def _block(sampling: Any) -> int:
    if sampling == "blocks":
        return BLOCK
    if sampling == "independent":
        return 1
    if isinstance(sampling, Integral) and int(sampling) >= 1:
        return int(sampling)
    raise ConfigError(
        f"sampling must be 'blocks', 'independent' or a block length; found {sampling!r}."
    )


def _adam(given: Any) -> Adam:
    settings = dict(_named("optimizer_kwargs", given))
    unknown = set(settings) - {"betas", "eps", "weight_decay", "amsgrad"}
    if unknown:
        raise ConfigError(
            f"optimizer_kwargs takes betas, eps, weight_decay and amsgrad; found {sorted(unknown)}."
        )
    betas = settings.get("betas", (0.9, 0.999))
    if not isinstance(betas, list | tuple) or len(betas) != 2:
        raise ConfigError(f"betas must be two numbers; found {betas!r}.")
    beta1, beta2 = betas
    numbers = {"betas[0]": beta1, "betas[1]": beta2, **settings}
    for name in set(numbers) - {"betas", "amsgrad"}:
        if not isinstance(numbers[name], Real):
            raise ConfigError(
                f"{name} of optimizer_kwargs must be a number; found {numbers[name]!r}."
            )
    return Adam(
        beta1=beta1,
        beta2=beta2,
        eps=settings.get("eps", 1e-8),
        weight_decay=settings.get("weight_decay", 0.0),
        amsgrad=bool(settings.get("amsgrad", False)),
    )


def masks_of(given: Any) -> tuple[Mask, ...]:
    """Masks by the names that CEBRA gives them.

    Parameters
    ----------
    given : tuple of (name, value), mapping, or None
        A value is a share in (0, 1), a list of shares, or (smallest, largest, step); for
        TimeBlockMask it is (share, span in samples).

    Raises
    ------
    ConfigError
        If a name is unknown or a value no share.
    """
    masks = []
    for name, value in _named("masking_kwargs", given):
        if name not in _MASKS:
            raise ConfigError(f"a mask must be one of {', '.join(_MASKS)}; found '{name}'.")
        kind = _MASKS[name]
        if kind == "time_block":
            pair = isinstance(value, tuple) and len(value) == 2 and _are_numbers(value)
            if not pair or value[1] != int(value[1]):
                raise ConfigError(f"TimeBlockMask takes (share, span in samples); found {value!r}.")
            masks.append(Mask(kind, (value[0],), int(value[1])))
        elif isinstance(value, Real):
            masks.append(Mask(kind, (float(value),)))
        elif isinstance(value, tuple) and len(value) == 3 and _are_numbers(value) and value[2] > 0:
            low, high, step = value
            shares = np.arange(low, high + step / 2, step)
            masks.append(Mask(kind, tuple(float(s) for s in shares if 0 < s < 1)))
        elif isinstance(value, list) and _are_numbers(value):
            masks.append(Mask(kind, tuple(value)))
        else:
            raise ConfigError(
                f"{name} takes a share, a list of shares or (smallest, largest, step); "
                f"found {value!r}."
            )
    return tuple(masks)


def _named(name: str, given: Any) -> list[tuple[str, Any]]:
    """Pairs of name and value, from a tuple of pairs or a mapping."""
    pairs = list(given.items()) if isinstance(given, Mapping) else given
    if pairs is None:
        return []
    if not isinstance(pairs, list | tuple) or not all(
        isinstance(p, list | tuple) and len(p) == 2 and isinstance(p[0], str) for p in pairs
    ):
        raise ConfigError(f"{name} must be pairs of name and value; found {given!r}.")
    return [(pair[0], pair[1]) for pair in pairs]


def _are_numbers(values: Iterable[Any]) -> bool:
    return all(isinstance(value, Real) for value in values)


def _one_of(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if value not in allowed:
        known = ", ".join(repr(a) for a in allowed)
        raise ConfigError(f"{name} must be one of {known}; found {value!r}.")


def whole(name: str, value: Any) -> None:
    """Refuse what is not a whole number of at least 1."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name} must be a whole number of at least 1; found {value!r}.")


def _positive(name: str, value: Any) -> None:
    if not isinstance(value, Real) or not 0 < float(value) < float("inf"):
        raise ConfigError(f"{name} must be a positive number; found {value!r}.")
