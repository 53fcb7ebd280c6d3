"""What a run is told: everything that its weights depend on, besides recordings and device type."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from .encoders import AnyEncoder, EncoderSpec, dropouts
from .errors import ConfigError
from .losses import Distance
from .masks import Mask
from .pairs import ClassPairs, HybridPairs, MixedPairs, Pairs, TimePairs, parts

BLOCK = 32
"""Neighbouring references drawn together where blocks are asked for by that word alone."""
Precision = Literal["auto", "float32", "bfloat16"]

__all__ = [
    "PRESETS",
    "Adam",
    "Precision",
    "TrainConfig",
    "described",
    "latent_slices",
    "plain_number",
    "run_hash",
]


@dataclass(frozen=True)
class Adam:
    """The optimiser's constants (Kingma & Ba 2015; Reddi, Kale & Kumar 2018 for `amsgrad`)."""

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    amsgrad: bool = False
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise ConfigError(f"betas must lie in [0, 1); found {self.beta1} and {self.beta2}.")
        if not self.eps >= 0 or not self.weight_decay >= 0:
            raise ConfigError(
                f"eps and weight_decay must not be negative; "
                f"found {self.eps} and {self.weight_decay}."
            )
        for name in ("beta1", "beta2", "eps", "weight_decay"):
            object.__setattr__(self, name, float(getattr(self, name)))


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "robust": {"smoothing": 4.0, "temperature": 0.5, "masks": (Mask("neurons", (0.1,)),)},
}
"""Settings of `TrainConfig` by name (`with_preset`). Robust: what won, held out, on all recordings
that were tried (docs/results.md, docs/log.md)."""


@dataclass(frozen=True)
class TrainConfig:
    """All that a run depends on, besides the recordings and the device type.

    Attributes
    ----------
    pairs : Pairs
        Which samples are alike.
    encoder : EncoderSpec or ModuleSpec
    distance : {"cosine", "euclidean"}
        Similarity of the InfoNCE loss.
    temperature : float
        Of the loss; the first one where it is learned.
    learn_temperature : bool
        Train the logarithm of its inverse with the weights, as CEBRA's "auto".
    min_temperature : float or None
        A learned temperature is never smaller.
    learning_rate : float
    adam : Adam
    batch_size : int or None
        References a step and session, each with one positive. None: all samples, every step.
    n_negatives : int or None
        Negatives a step and session, drawn for themselves and shared by all references. None: the
        references of other blocks, or of all other references with `block=1`; as many as
        references, drawn, where windows are masked or a batch is less than two blocks.
    n_steps : int
    seed : int
        Weights, references, positives and negatives are pure functions of it.
    block : int
        Neighbouring references drawn together; 1 draws independently.
    masks : tuple of Mask
        Parts of the windows set to zero in training.
    scale : {"none", "zscore"}
        "zscore" centres and scales each channel by its mean and sd over `train_on`.
    precision : {"auto", "float32", "bfloat16"}
        Of the numbers that products take; sums, weights, latents and losses are float32 always.
        "auto": bfloat16 where the device multiplies it natively, else float32.
    train_on : tuple of (start, stop), or of such tuples for several sessions, or None
        Stretches of samples to train on, in order; None means every epoch. Windows and pairs
        cross neither their borders nor those of the epochs.
    smoothing : float
        Standard deviation, in samples, of the Gaussian by which embeddings of the run are smoothed
        over time, each span alone; 0 for none. Weights and held-out bits do not depend on it.

    Raises
    ------
    ConfigError
        If a setting is outside its allowed values.
    """

    pairs: Pairs = field(default_factory=TimePairs)
    encoder: AnyEncoder = field(default_factory=EncoderSpec)
    temperature: float = 1.0
    learning_rate: float = 3e-4
    batch_size: int | None = 512
    n_negatives: int | None = None
    n_steps: int = 1000
    seed: int = 0
    block: int = 1
    distance: Distance = "cosine"
    learn_temperature: bool = False
    min_temperature: float | None = None
    adam: Adam = field(default_factory=Adam)
    masks: tuple[Mask, ...] = ()
    scale: Literal["none", "zscore"] = "none"
    precision: Precision = "auto"
    train_on: tuple[tuple[int, int], ...] | tuple[tuple[tuple[int, int], ...], ...] | None = None
    smoothing: float = 0.0
    # A custom module cannot be described in words; pydantic takes it as the object it is.
    __pydantic_config__: ClassVar[dict[str, Any]] = {
        "extra": "forbid",
        "arbitrary_types_allowed": True,
    }

    def __post_init__(self) -> None:
        # Numbers become python's own, so that equal configurations have equal hashes (1 is 1.0).
        for name in ("batch_size", "n_negatives", "block", "n_steps", "seed"):
            value = getattr(self, name)
            if value is None and name in ("batch_size", "n_negatives"):
                continue
            if not isinstance(value, int | np.integer) or isinstance(value, bool):
                raise ConfigError(f"{name} must be a whole number; found {value!r}.")
            if name != "seed" and value < 1:
                raise ConfigError(f"{name} must be at least 1; found {value}.")
            object.__setattr__(self, name, int(value))
        for name in ("temperature", "learning_rate", "min_temperature"):
            value = getattr(self, name)
            if value is None and name == "min_temperature":
                continue
            if isinstance(value, str) or not value > 0 or not np.isfinite(value):
                raise ConfigError(f"{name} must be a positive number; found {value!r}.")
            object.__setattr__(self, name, float(value))
        if isinstance(self.smoothing, str) or not 0 <= self.smoothing < np.inf:
            raise ConfigError(
                f"smoothing must be a number of samples, 0 for none; found {self.smoothing!r}."
            )
        object.__setattr__(self, "smoothing", float(self.smoothing))
        for name, allowed in (
            ("scale", ("none", "zscore")),
            ("distance", get_args(Distance)),
            ("precision", get_args(Precision)),
        ):
            if getattr(self, name) not in allowed:
                known = " or ".join(f"'{a}'" for a in allowed)
                raise ConfigError(f"{name} must be {known}; found '{getattr(self, name)}'.")
        if not all(isinstance(mask, Mask) for mask in self.masks):
            raise ConfigError(f"masks must be a sequence of Mask; found {self.masks!r}.")
        object.__setattr__(self, "masks", tuple(self.masks))
        if self.train_on is not None:
            object.__setattr__(self, "train_on", _stretches(self.train_on))
        behavior, _ = parts(self.pairs)
        if self.batch_size is None and (
            self.apart or (isinstance(behavior, ClassPairs | MixedPairs) and behavior.balanced)
        ):
            raise ConfigError(
                "training on all samples at once draws no classes evenly and masks nothing; give "
                "a batch_size, or leave balanced classes, masks and dropout away."
            )
        if isinstance(self.pairs, HybridPairs):
            few, many = self.pairs.behavior_latents, self.encoder.latents
            if few > many:
                raise ConfigError(
                    f"hybrid pairs judge behavior on the first {few} latents; found {many} latents."
                )

    def with_preset(self, name: str) -> TrainConfig:
        """The same, with a preset's value for every setting that was left at its default.

        Raises
        ------
        ConfigError
            If the preset drops channels, which cannot be done to all samples at once.
        """
        defaults = {f.name: f.default for f in fields(self)}
        new = {k: v for k, v in PRESETS[name].items() if getattr(self, k) == defaults[k]}
        if self.batch_size is None and "masks" in new:
            raise ConfigError(
                f"preset '{name}' drops channels from single windows, which training on all "
                f"samples at once cannot; found no batch_size. Give one, or leave the preset away."
            )
        return replace(self, **new)

    @property
    def apart(self) -> bool:
        """Whether every window is embedded by itself, to be masked on its own."""
        return bool(self.masks) or bool(dropouts(self.encoder))

    def spans(self, session: int) -> NDArray[np.int64] | None:
        """Where to train in one session, shape (E, 2); None for everywhere."""
        if self.train_on is None:
            return None
        own = self.train_on if self.n_sessions is None else self.train_on[session]
        return np.array(own, np.int64).reshape(-1, 2)

    @property
    def n_sessions(self) -> int | None:
        """How many sessions `train_on` lists stretches for; None where one list serves any."""
        if not self.train_on or np.ndim(self.train_on[0]) != 2:
            return None
        return len(self.train_on)


def _stretches(train_on: Any) -> tuple[Any, ...]:
    """Spans in order as tuples of python's integers, for one session or several; or an error."""
    try:
        if len(train_on) and np.ndim(train_on[0][0]) > 0:
            return tuple(_stretches(session) for session in train_on)
        spans = np.asarray(train_on)
    except (ValueError, TypeError, IndexError):
        spans = np.empty(0)
        edges = None
    else:
        edges = spans.reshape(-1)
    if edges is None or (
        len(edges)
        and (
            spans.ndim != 2
            or spans.shape[1] != 2
            or spans.dtype.kind not in "iu"
            or edges[0] < 0
            or (spans[:, 0] >= spans[:, 1]).any()
            or (spans[1:, 0] < spans[:-1, 1]).any()
        )
    ):
        raise ConfigError(
            f"train_on must hold [start, stop) pairs of sample numbers in order, without overlap; "
            f"found {str(train_on)[:80]}."
        )
    return tuple((int(a), int(b)) for a, b in spans.reshape(-1, 2))


def latent_slices(config: TrainConfig) -> list[slice]:
    """Which latents each kind of positive is judged on."""
    if isinstance(config.pairs, HybridPairs):
        return [slice(0, config.pairs.behavior_latents), slice(None)]
    return [slice(None)]


def described(config: TrainConfig) -> dict[str, Any]:
    """A configuration as plain data; a custom module by the name of its class."""
    if isinstance(config.encoder, EncoderSpec):
        return asdict(config)
    spec = config.encoder
    plain = asdict(replace(config, encoder=EncoderSpec(latents=spec.latents)))
    plain["encoder"] = {"module": spec.architecture, "field": asdict(spec.field)}
    plain["encoder"]["latents"] = spec.latents
    return plain


def run_hash(config: TrainConfig, recording_hash: str, device_type: str) -> str:
    """The name of a run: equal configuration, recording and device type give equal weights."""
    text = json.dumps(
        [described(config), recording_hash, device_type], sort_keys=True, default=plain_number
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def plain_number(value: object) -> object:
    """A numpy number as python's own, for `json.dumps(default=...)`."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no place in a configuration.")
