"""What a run is: its configuration, its weights, and what it makes of a recording."""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .drawing import centres_of, draw
from .draws import Purpose
from .encoders import EncoderSpec, encode
from .errors import ConfigError, DataError
from .losses import bits_above_chance, info_nce
from .pairs import HybridPairs, Pairs, TimePairs, prepare
from .recording import Recording
from .windows import Spans, padded_rows

__all__ = [
    "Embedding",
    "Run",
    "TrainConfig",
    "activity_tensor",
    "choose_device",
    "effective_weights",
    "embed",
    "fingerprint",
    "held_out_bits",
    "latent_slices",
    "plain_number",
    "run_hash",
]

_CHUNK = 4096


@dataclass(frozen=True)
class TrainConfig:
    """Everything that a run's weights depend on, besides the recording and the device type.

    Attributes
    ----------
    pairs : Pairs
        Which samples are alike.
    encoder : EncoderSpec
    temperature : float
        Of the InfoNCE loss.
    learning_rate : float
        Adam's, with betas (0.9, 0.999) and eps 1e-8.
    batch_size : int
        References a step, each with one positive.
    n_negatives : int
        Negatives a step, shared by all references.
    n_steps : int
    seed : int
        Weights, references, positives and negatives are pure functions of it.
    block : int
        Neighbouring references drawn together; 1 draws independently.
    scale : {"none", "zscore"}
        "zscore" centres and scales each channel by its mean and sd over `train_on`.
    train_on : tuple of (start, stop), or None
        Stretches of samples to train on, in order; None means every epoch. Windows and pairs
        cross neither their borders nor those of the epochs.

    Raises
    ------
    ConfigError
        If a setting is outside its allowed values.
    """

    pairs: Pairs = field(default_factory=TimePairs)
    encoder: EncoderSpec = field(default_factory=EncoderSpec)
    temperature: float = 1.0
    learning_rate: float = 3e-4
    batch_size: int = 512
    n_negatives: int = 512
    n_steps: int = 1000
    seed: int = 0
    block: int = 32
    scale: Literal["none", "zscore"] = "none"
    train_on: tuple[tuple[int, int], ...] | None = None
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        # Numbers become python's own, so that equal configurations have equal hashes (1 is 1.0).
        for name in ("batch_size", "n_negatives", "block", "n_steps", "seed"):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer):
                raise ConfigError(f"{name} must be a whole number; found {value!r}.")
            if name != "seed" and value < 1:
                raise ConfigError(f"{name} must be at least 1; found {value}.")
            object.__setattr__(self, name, int(value))
        for name in ("temperature", "learning_rate"):
            value = getattr(self, name)
            if not value > 0 or not np.isfinite(value):
                raise ConfigError(f"{name} must be a positive number; found {value}.")
            object.__setattr__(self, name, float(value))
        if self.scale not in ("none", "zscore"):
            raise ConfigError(f"scale must be 'none' or 'zscore'; found '{self.scale}'.")
        if self.train_on is not None:
            object.__setattr__(self, "train_on", _stretches(self.train_on))
        if isinstance(self.pairs, HybridPairs):
            few, many = self.pairs.behavior_latents, self.encoder.latents
            if few > many:
                raise ConfigError(
                    f"hybrid pairs judge behavior on the first {few} latents; found {many} latents."
                )


def _stretches(train_on: Any) -> tuple[tuple[int, int], ...]:
    """Spans in order as tuples of python's integers, or an error."""
    spans = np.asarray(train_on)
    edges = spans.reshape(-1)
    if len(edges) and (
        spans.ndim != 2
        or spans.shape[1] != 2
        or spans.dtype.kind not in "iu"
        or edges[0] < 0
        or (spans[:, 0] >= spans[:, 1]).any()
        or (spans[1:, 0] < spans[:-1, 1]).any()
    ):
        raise ConfigError(
            f"train_on must hold [start, stop) pairs of sample numbers in order, without overlap; "
            f"found {str(train_on)[:80]}."
        )
    return tuple((int(a), int(b)) for a, b in spans.reshape(-1, 2))


@dataclass(frozen=True, eq=False)
class Run:
    """A trained model.

    Attributes
    ----------
    config : TrainConfig
    weights : tuple of float32 tensors on the CPU
        For each layer a weight (kernel, inputs, outputs) and a bias (outputs,).
    mean, sd : float32 tensors, shape (C,)
        Scaling of the channels that the weights expect (zeros and ones for `scale="none"`).
    history : array of float32, shape (n_steps, 2)
        Positive and negative part of the loss at every step, in nats.
    recording_hash : str
        Fingerprint of the recording it was trained on.
    """

    config: TrainConfig
    weights: tuple[Tensor, ...]
    mean: Tensor
    sd: Tensor
    history: NDArray[np.float32]
    recording_hash: str = ""

    @property
    def n_channels(self) -> int:
        """Channels that the encoder takes."""
        return int(self.weights[0].shape[1])


@dataclass(frozen=True, eq=False)
class Embedding:
    """Latents of some samples of a recording.

    Attributes
    ----------
    values : array of float32, shape (n, D)
    samples : array of int64, shape (n,)
    padded : array of bool, shape (n,)
        Rows whose window was completed by replicating the first or last sample of its span.
    """

    values: NDArray[np.float32]
    samples: NDArray[np.int64]
    padded: NDArray[np.bool_]


def choose_device(name: str = "auto") -> torch.device:
    """Resolve "auto", "cpu", "cuda" or "cuda:N" to a device that is there.

    Raises
    ------
    ConfigError
        If the name is unknown or the device absent.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:N; found '{name}'.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device '{name}' asks for a CUDA GPU and none was found. Use cpu.")
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:N; found '{name}'.")
    return device


def fingerprint(recording: Recording) -> str:
    """A hash of everything in a recording that training can see, 16 hex digits."""
    digest = hashlib.sha256()
    parts = [recording.activity, recording.times_s, recording.epochs]
    for name in sorted(recording.labels):
        label = recording.labels[name]
        digest.update(f"{name}|{label.kind}|{label.period}".encode())
        parts += [label.values, label.mask]
    for part in parts:
        array = np.ascontiguousarray(part)
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()[:16]


def run_hash(config: TrainConfig, recording_hash: str, device_type: str) -> str:
    """The name of a run: equal configuration, recording and device type give equal weights."""
    text = json.dumps(
        [asdict(config), recording_hash, device_type], sort_keys=True, default=plain_number
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def plain_number(value: object) -> object:
    """A numpy number as python's own, for `json.dumps(default=...)`."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no place in a configuration.")


def activity_tensor(recording: Recording) -> Tensor:
    """Activity as a tensor that shares its memory; nothing here ever writes to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(recording.activity)


def effective_weights(
    weights: tuple[Tensor, ...] | list[Tensor], mean: Tensor, sd: Tensor
) -> list[Tensor]:
    """Fold the scaling of the channels into the first layer, for one run or a stack of G.

    Parameters
    ----------
    weights : weight (..., kernel, C, H), bias (..., H), ...
    mean, sd : tensors, shape (..., C)
    """
    first = weights[0] / sd[..., None, :, None]
    shift = (mean[..., None, :, None] * first).sum(dim=(-3, -2))
    return [first, weights[1] - shift, *weights[2:]]


@torch.no_grad()
def embed(
    run: Run, recording: Recording, *, spans: Spans | None = None, device: str = "auto"
) -> Embedding:
    """Latents of every sample of some spans, each span seen alone.

    Parameters
    ----------
    run : Run
    recording : Recording
        With as many channels as the run was trained on.
    spans : array of int64, shape (E, 2), optional
        Stretches to embed; the epochs of the recording where absent. A window never leaves its
        span: at the edges the first or last sample is replicated and the row marked `padded`.
    device : str

    Returns
    -------
    Embedding

    Raises
    ------
    DataError
        If the number of channels differs, or a span reaches outside the recording.
    """
    if recording.n_channels != run.n_channels:
        raise DataError(
            f"the model takes {run.n_channels} channels; the recording "
            f"'{recording.name}' has {recording.n_channels}."
        )
    where = choose_device(device)
    spec = run.config.encoder
    spans = recording.epochs if spans is None else spans
    if len(spans) and (spans.min() < 0 or spans.max() > recording.n_samples):
        raise DataError(
            f"spans must lie inside the {recording.n_samples} samples of the recording "
            f"'{recording.name}'; found {spans.min()} to {spans.max()}."
        )
    rows, outputs, samples, padded = padded_rows(spans, spec.field)
    weights = [w[None].to(where) for w in effective_weights(list(run.weights), run.mean, run.sd)]
    n = len(rows) - len(spec.field) + 1
    values = torch.empty((max(n, 0), spec.latents))
    activity = activity_tensor(recording)
    index = torch.from_numpy(rows)
    for a in range(0, n, _CHUNK):
        b = min(a + _CHUNK, n)
        x = activity[index[a : b + len(spec.field) - 1]].to(where)
        values[a:b] = encode(spec, weights, x[None, :, None])[0, :, 0].cpu()
    return Embedding(values.numpy()[outputs], samples, padded)


@torch.no_grad()
def held_out_bits(
    run: Run,
    recording: Recording,
    spans: Spans,
    *,
    n: int = 4096,
    n_references: int = 1024,
    rounds: int = 2,
    device: str = "auto",
) -> float:
    """Goodness of fit on samples the run did not train on, in bits above chance.

    References, positives and `n` negatives are drawn independently (not in blocks) with a fixed
    seed, so that runs of one task are judged on the same draws. Values compare only between runs
    of one task: same samples, pairs, window and temperature.

    Parameters
    ----------
    run : Run
    recording : Recording
    spans : array of int64, shape (E, 2)
        Held-out stretches.
    n : int
        Negatives a round.
    n_references : int
        References a round.
    rounds : int
    device : str

    Returns
    -------
    float

    Raises
    ------
    DataError
        If the spans hold no sample with a whole window.
    """
    config = run.config
    table = prepare(recording, config.pairs, config.encoder.field, spans)
    embedding = embed(run, recording, spans=spans, device=device)
    lookup = np.full(recording.n_samples, -1, dtype=np.int64)
    lookup[embedding.samples] = np.arange(len(embedding.samples))
    z = torch.from_numpy(embedding.values)
    steps = torch.arange(rounds)
    triplets = draw(table, int(Purpose.JUDGE), steps, batch=n_references, n_negatives=n, block=1)

    def rows(places: Tensor, i: int) -> Tensor:
        centres = centres_of(triplets.groups, places)[i]
        return z[torch.from_numpy(lookup[centres.numpy()])]

    losses = []
    parts = latent_slices(config)
    for i in range(rounds):  # one at a time: its similarities fill n_references * n numbers
        reference, negative = rows(triplets.reference, i), rows(triplets.negative, i)
        for positive, part in zip(triplets.positives, parts, strict=True):
            loss = info_nce(
                reference[:, part],
                rows(positive, i)[:, part],
                negative[:, part],
                temperature=config.temperature,
            )
            losses.append(float(loss.total))
    return bits_above_chance(sum(losses) / len(losses), n)


def latent_slices(config: TrainConfig) -> list[slice]:
    """Which latents each kind of positive is judged on."""
    if isinstance(config.pairs, HybridPairs):
        return [slice(0, config.pairs.behavior_latents), slice(None)]
    return [slice(None)]
