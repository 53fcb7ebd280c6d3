"""What a run is: its configuration, its weights, and what it makes of a recording."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .chunks import in_chunks
from .config import TrainConfig, latent_slices
from .drawing import draw, rows_of
from .draws import Purpose
from .encoders import encode
from .errors import ConfigError, DataError, DivergedError
from .losses import bits_above_chance, info_nce
from .pairs import prepare_sessions
from .recording import Recording
from .windows import Spans, padded_rows

__all__ = [
    "Embedding",
    "OptimiserState",
    "Run",
    "SessionEncoder",
    "activity_tensor",
    "choose_device",
    "effective_weights",
    "embed",
    "fingerprint",
    "held_out_bits",
    "held_out_loss",
    "smoothed",
]

_CHUNK = 8192
_FAR = 1e5
"""Activity or weights from which on latents that are zero are a sign of too large numbers."""


@dataclass(frozen=True, eq=False)
class SessionEncoder:
    """The encoder of one session.

    Attributes
    ----------
    weights : tuple of float32 tensors on the CPU
        For each layer a weight (kernel, inputs, outputs) and a bias (outputs,); for a custom
        module its trainable parameters.
    mean, sd : float32 tensors, shape (C,)
        Scaling of the channels that the weights expect (zeros and ones for `scale="none"`).
    """

    weights: tuple[Tensor, ...]
    mean: Tensor
    sd: Tensor

    @property
    def n_channels(self) -> int:
        """Channels that the encoder takes."""
        return int(self.mean.shape[0])


@dataclass(frozen=True, eq=False)
class OptimiserState:
    """Adam's moving averages over all P trained numbers, to go on from.

    Attributes
    ----------
    momentum, square, largest : float32 tensors, shape (P,)
        `largest` is empty without amsgrad.
    sharpness : float32 tensor, shape (1,)
        A learned temperature as the logarithm of its inverse, to the last digit; else empty.
    steps : int64 tensor, shape (1,)
        Updates that the averages are made of.
    """

    momentum: Tensor
    square: Tensor
    largest: Tensor
    sharpness: Tensor
    steps: Tensor


@dataclass(frozen=True, eq=False)
class Run:
    """A trained model.

    Attributes
    ----------
    config : TrainConfig
    sessions : tuple of SessionEncoder
    losses : array of float32, shape (n_steps, n_terms, 2)
        Positive and negative part of every term of the loss at every step, in nats. One term, or
        for hybrid pairs behaviour and time.
    temperatures : array of float32, shape (n_steps,)
        That the loss of each step was taken with.
    temperature : float
        At the end.
    state : OptimiserState or None
        To continue training.
    n_negatives : int
        That every reference was compared with, of all sessions.
    recording_hash : str
        Fingerprint of the recordings it was trained on.
    parent : str
        Fingerprint of the run that it continues or adapts, "" where there is none.
    seen : tuple of str
        Prints of a few stretches it was trained on (`prints`), by which they are known again.
    """

    config: TrainConfig
    sessions: tuple[SessionEncoder, ...]
    losses: NDArray[np.float32]
    temperatures: NDArray[np.float32]
    temperature: float
    state: OptimiserState | None = None
    n_negatives: int = 0
    recording_hash: str = ""
    parent: str = ""
    seen: tuple[str, ...] = ()

    @property
    def history(self) -> NDArray[np.float32]:
        """Positive and negative part of the loss at every step, in nats, shape (n_steps, 2)."""
        return np.asarray(self.losses.sum(axis=1))

    @property
    def n_channels(self) -> int:
        """Channels that the encoder of the first session takes."""
        return self.sessions[0].n_channels

    @property
    def digest(self) -> str:
        """A hash of all weights, 16 hex digits."""
        digest = hashlib.sha256()
        for session in self.sessions:
            for tensor in (*session.weights, session.mean, session.sd):
                digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()[:16]


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


def activity_tensor(recording: Recording) -> Tensor:
    """Activity as a tensor that shares its memory; nothing here ever writes to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(recording.activity)


def effective_weights(weights: Sequence[Tensor], mean: Tensor, sd: Tensor) -> list[Tensor]:
    """Fold the scaling of the channels into the first layer, for one run or a stack of G.

    Only for encoders that allow it (`spec.folds`).

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
    run: Run,
    recording: Recording,
    *,
    spans: Spans | None = None,
    session: int = 0,
    pad: bool = True,
    dense: bool = False,
    chunk: int | None = None,
    device: str = "auto",
) -> Embedding:
    """Latents of every sample of some spans, each span seen alone.

    They are smoothed over time as the run's configuration says; rows of unit length keep it.

    Parameters
    ----------
    run : Run
    recording : Recording
        With as many channels as the run was trained on.
    spans : array of int64, shape (E, 2), optional
        Stretches to embed; the epochs of the recording where absent. A window never leaves its
        span: at the edges the first or last sample is replicated and the row marked `padded`.
    session : int
        Whose encoder, for a run of several sessions.
    pad : bool
        False leaves out the samples without a whole window.
    dense : bool
        As in training: every sample, where an architecture resamples, and nothing smoothed.
    chunk : int, optional
        Windows encoded at once; the result does not depend on it.
    device : str

    Returns
    -------
    Embedding

    Raises
    ------
    DataError
        If the number of channels differs, a span reaches outside the recording, or its activity is
        so large that latents are beyond all numbers.
    DivergedError
        If they are because weights are that large.
    ConfigError
        If the run has no such session.
    """
    if not 0 <= session < len(run.sessions):
        raise ConfigError(f"the model has sessions 0 to {len(run.sessions) - 1}; found {session}.")
    encoder = run.sessions[session]
    if recording.n_channels != encoder.n_channels:
        raise DataError(
            f"the model takes {encoder.n_channels} channels; the recording "
            f"'{recording.name}' has {recording.n_channels}."
        )
    spans = recording.epochs if spans is None else spans
    if len(spans) and (spans.min() < 0 or spans.max() > recording.n_samples):
        raise DataError(
            f"spans must lie inside the {recording.n_samples} samples of the recording "
            f"'{recording.name}'; found {spans.min()} to {spans.max()}."
        )
    spec = run.config.encoder
    if spec.factor == 1 or dense:
        rows, outputs, samples, padded = padded_rows(spans, spec.field)
        values = _encode_rows(run, encoder, recording, rows, True, chunk, device)[outputs]
        if not dense:
            values = smoothed(values, [b - a for a, b in spans], run.config.smoothing)
        some = slice(None) if pad else ~padded
        return Embedding(values[some], samples[some], padded[some])
    parts = [_resampled(run, encoder, recording, a, b, pad, chunk, device) for a, b in spans]
    width = run.config.smoothing / spec.factor
    parts = [replace(e, values=smoothed(e.values, [len(e.values)], width)) for e in parts]
    none = Embedding(
        np.empty((0, spec.latents), np.float32), np.empty(0, np.int64), np.empty(0, bool)
    )
    return Embedding(
        np.concatenate([e.values for e in (none, *parts)]),
        np.concatenate([e.samples for e in (none, *parts)]),
        np.concatenate([e.padded for e in (none, *parts)]),
    )


def smoothed(
    values: NDArray[np.float32], lengths: Sequence[int], width: float
) -> NDArray[np.float32]:
    """Rows smoothed over time by a Gaussian, each stretch alone, its edge rows repeated.

    Parameters
    ----------
    values : array of float32, shape (n, D)
        If all rows have unit length they get it back.
    lengths : sequence of int
        Of the stretches, n in all.
    width : float
        Standard deviation in rows; 0 for none.

    Returns
    -------
    array of float32, shape (n, D)
    """
    if not width or not len(values):
        return values
    from scipy.ndimage import gaussian_filter1d  # slow to import

    out = np.empty_like(values)
    ends = np.cumsum(lengths)
    for a, b in zip(ends - lengths, ends, strict=True):
        out[a:b] = gaussian_filter1d(values[a:b], width, axis=0, mode="nearest")
    if np.allclose(np.linalg.norm(values, axis=1), 1, atol=1e-4):
        out /= np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)
    return out


def _resampled(
    run: Run,
    encoder: SessionEncoder,
    recording: Recording,
    start: int,
    stop: int,
    pad: bool,
    chunk: int | None,
    device: str,
) -> Embedding:
    """One span at every `factor`-th sample."""
    field, factor = run.config.encoder.field, run.config.encoder.factor
    rows, first = np.arange(start, stop), start + field.left
    if pad:
        rows, first = padded_rows([(start, stop)], field)[0], start
    values = _encode_rows(run, encoder, recording, rows, False, chunk, device)
    samples = first + factor * np.arange(len(values))
    padded = (samples - field.left < start) | (samples + field.right > stop)
    return Embedding(values, samples, padded)


def _encode_rows(
    run: Run,
    encoder: SessionEncoder,
    recording: Recording,
    rows: NDArray[np.int64],
    dense: bool,
    chunk: int | None,
    device: str,
) -> NDArray[np.float32]:
    """Encode the windows of samples laid end to end, some thousand at a time."""
    spec, where = run.config.encoder, choose_device(device)
    step = 1 if dense else spec.factor
    mean, sd = encoder.mean.to(where), encoder.sd.to(where)
    weights = [w.to(where) for w in encoder.weights]
    if spec.folds:
        weights = effective_weights(weights, mean, sd)
    stack = [w[None] for w in weights]
    n = max(0, (len(rows) - len(spec.field)) // step + 1)
    values = torch.empty((n, spec.latents))
    activity, index = activity_tensor(recording), torch.from_numpy(rows)

    def some(a: int, b: int) -> None:
        x = activity[index[a * step : (b - 1) * step + len(spec.field)]].to(where)
        if not spec.folds:
            x = (x - mean) / sd
        values[a:b] = encode(spec, stack, x[None, :, None], dense=dense)[0, :, 0].cpu()

    in_chunks(n, chunk or _CHUNK, some, what="windows")
    found = values.numpy()
    # The length of what is far beyond 1e19 is no number, and divided by it a latent is zero.
    lost = ~np.isfinite(found).all(axis=1)
    bad = lost | ~found.any(axis=1)
    if bad.any():
        first = int((lost if lost.any() else bad).argmax()) * step
        window = recording.activity[rows[first : first + len(spec.field)]]
        largest = float(np.abs(window).max())
        heaviest = max(float(w.abs().max()) for w in encoder.weights)
        if lost.any() or max(largest, heaviest) > _FAR:
            raise (DivergedError if heaviest > _FAR else DataError)(
                f"latents must be numbers that float32 holds; those of sample "
                f"{rows[first + spec.field.left]} of the recording '{recording.name}' are not, "
                f"with activity up to {largest:.2g} and weights up to {heaviest:.2g}. Scale the "
                f"activity, or train with a smaller learning rate."
            )
    return found


def held_out_bits(
    run: Run,
    recording: Recording | Sequence[Recording],
    spans: Spans | Sequence[Spans],
    *,
    sessions: Sequence[int] | None = None,
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
    recording : Recording, or a sequence with one a session
    spans : array of int64, shape (E, 2), or a sequence with one a session
        Held-out stretches.
    sessions : sequence of int, optional
        Which session of the run each recording is; in order where absent.
    n : int
        Negatives a round and session.
    n_references : int
        References a round and session.
    rounds : int
    device : str

    Returns
    -------
    float
        Mean over the terms of the loss.

    Raises
    ------
    DataError
        If the spans hold no sample with a whole window.
    """
    loss = held_out_loss(
        run,
        recording,
        spans,
        sessions=sessions,
        n=n,
        n_references=n_references,
        rounds=rounds,
        device=device,
    )
    count = 1 if isinstance(recording, Recording) else len(recording)
    return bits_above_chance(float(loss.mean()), n * count)


@torch.no_grad()
def held_out_loss(
    run: Run,
    recording: Recording | Sequence[Recording],
    spans: Spans | Sequence[Spans],
    *,
    sessions: Sequence[int] | None = None,
    n: int = 4096,
    n_references: int = 1024,
    rounds: int = 2,
    device: str = "auto",
) -> NDArray[np.float64]:
    """InfoNCE in nats as `held_out_bits` finds it, shape (rounds, n_terms)."""
    if isinstance(recording, Recording):
        recordings, stretches = [recording], [np.asarray(spans)]
    else:
        recordings, stretches = list(recording), [np.asarray(s) for s in spans]
    who = range(len(recordings)) if sessions is None else sessions
    config = run.config
    tables = prepare_sessions(recordings, config.pairs, config.encoder.field, stretches)
    z, lookup = [], []
    base = 0
    for r, some, session in zip(recordings, stretches, who, strict=True):
        found = embed(run, r, spans=some, session=session, dense=True, device=device)
        place = np.full(r.n_samples, -1, dtype=np.int64)
        place[found.samples] = base + np.arange(len(found.samples))
        base += len(found.samples)
        z.append(found.values)
        lookup.append(place)
    latents = torch.from_numpy(np.concatenate(z))
    triplets = draw(
        tables,
        int(Purpose.JUDGE),
        torch.arange(rounds),
        batch=n_references,
        n_negatives=n,
        block=1,
    )
    rows = rows_of(triplets.groups, lookup)

    def pick(places: Tensor, i: int) -> Tensor:
        return latents[rows[i][places[i]]]

    losses = np.empty((rounds, len(triplets.positives)))
    for i in range(rounds):
        reference, negative = pick(triplets.reference, i), pick(triplets.negative, i)
        for k, part in enumerate(latent_slices(config)):
            loss = info_nce(
                reference[:, part],
                pick(triplets.positives[k], i)[:, part],
                negative[:, part],
                temperature=run.temperature,
                distance=config.distance,
            )
            losses[i, k] = float(loss.total)
    return losses
