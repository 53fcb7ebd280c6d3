"""From a neural recording to consistent latent embeddings, and to claims about them.

Names are resolved when they are first used, so that `import grevy` loads neither torch nor pynwb.

Examples
--------
>>> import grevy
>>> recording = grevy.make_recording([[0.0, 1.0]] * 200, rate_hz=30.0)
>>> config = grevy.TrainConfig(encoder=grevy.EncoderSpec("offset5-model"), n_steps=2)
>>> model = grevy.train([recording], [config])[0]
>>> grevy.embed(model, recording).values.shape
(200, 8)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import aliases as _aliases

if TYPE_CHECKING:
    from .config import TrainConfig
    from .decoders import KNNDecoder, L1LinearRegressor
    from .encoders import EncoderSpec
    from .errors import (
        ConfigError,
        DataError,
        DivergedError,
        FormatError,
        GrevyError,
        LimitError,
        LockedError,
        MissingExtraError,
        NetworkError,
        UnsafeFileError,
    )
    from .estimator import CEBRA
    from .loading import load_data, load_deeplabcut
    from .losses import InfoNCE, info_nce
    from .masks import Mask
    from .model import Embedding, Run, embed, held_out_bits
    from .nwb import describe, read
    from .pairs import ClassPairs, DeltaPairs, HybridPairs, MixedPairs, NearPairs, TimePairs
    from .pipeline import export, run
    from .plotting.interactive import plot_embedding_interactive
    from .plotting.models import (
        compare_models,
        plot,
        plot_consistency,
        plot_embedding,
        plot_loss,
        plot_overview,
        plot_temperature,
    )
    from .recording import Label, Recording, StimulusTrack, make_recording
    from .settings import RunConfig
    from .store import load, save
    from .training import adapt, resume, train
    from .unfinished import Checkpoint

__version__ = "0.1.0"

_SUBMODULES = ("metrics",)
"""Modules that notebooks reach as attributes, without importing them."""

_HOME = {
    "CEBRA": "estimator",
    "Checkpoint": "unfinished",
    "ClassPairs": "pairs",
    "ConfigError": "errors",
    "DataError": "errors",
    "DeltaPairs": "pairs",
    "DivergedError": "errors",
    "Embedding": "model",
    "EncoderSpec": "encoders",
    "FormatError": "errors",
    "GrevyError": "errors",
    "HybridPairs": "pairs",
    "InfoNCE": "losses",
    "KNNDecoder": "decoders",
    "L1LinearRegressor": "decoders",
    "Label": "recording",
    "LimitError": "errors",
    "LockedError": "errors",
    "Mask": "masks",
    "MissingExtraError": "errors",
    "MixedPairs": "pairs",
    "NearPairs": "pairs",
    "NetworkError": "errors",
    "Recording": "recording",
    "Run": "model",
    "RunConfig": "settings",
    "StimulusTrack": "recording",
    "TimePairs": "pairs",
    "TrainConfig": "config",
    "UnsafeFileError": "errors",
    "adapt": "training",
    "compare_models": "plotting.models",
    "describe": "nwb",
    "embed": "model",
    "export": "pipeline",
    "held_out_bits": "model",
    "info_nce": "losses",
    "load": "store",
    "load_data": "loading",
    "load_deeplabcut": "loading",
    "make_recording": "recording",
    "plot": "plotting.models",
    "plot_consistency": "plotting.models",
    "plot_embedding": "plotting.models",
    "plot_embedding_interactive": "plotting.interactive",
    "plot_loss": "plotting.models",
    "plot_overview": "plotting.models",
    "plot_temperature": "plotting.models",
    "read": "nwb",
    "resume": "training",
    "run": "pipeline",
    "save": "store",
    "train": "training",
}

__all__ = [
    "CEBRA",
    "Checkpoint",
    "ClassPairs",
    "ConfigError",
    "DataError",
    "DeltaPairs",
    "DivergedError",
    "Embedding",
    "EncoderSpec",
    "FormatError",
    "GrevyError",
    "HybridPairs",
    "InfoNCE",
    "KNNDecoder",
    "L1LinearRegressor",
    "Label",
    "LimitError",
    "LockedError",
    "Mask",
    "MissingExtraError",
    "MixedPairs",
    "NearPairs",
    "NetworkError",
    "Recording",
    "Run",
    "RunConfig",
    "StimulusTrack",
    "TimePairs",
    "TrainConfig",
    "UnsafeFileError",
    "adapt",
    "compare_models",
    "describe",
    "embed",
    "export",
    "held_out_bits",
    "info_nce",
    "load",
    "load_data",
    "load_deeplabcut",
    "make_recording",
    "plot",
    "plot_consistency",
    "plot_embedding",
    "plot_embedding_interactive",
    "plot_loss",
    "plot_overview",
    "plot_temperature",
    "read",
    "resume",
    "run",
    "save",
    "train",
]


_aliases.install()


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES or name in _aliases.MODULES:
        return import_module(f".{name}", __name__)
    if name not in _HOME:
        raise AttributeError(f"module 'grevy' has no attribute '{name}'")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
