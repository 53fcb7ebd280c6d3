"""Every setting of a run: checked, written as TOML, resolved from seconds to samples."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from .config import TrainConfig
from .encoders import ARCHITECTURES, EncoderSpec
from .errors import ConfigError
from .pairs import ClassPairs, DeltaPairs, HybridPairs, LabelPairs, Pairs, TimePairs
from .recording import Recording

__all__ = [
    "RunConfig",
    "changed",
    "grid",
    "load_toml",
    "read_config",
    "resolve",
    "settle",
    "to_toml",
]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class RunConfig:
    """Every setting of a run. Times are in seconds and are resolved to samples of the recording.

    Attributes
    ----------
    file : str
        The NWB recording: a path, or an address in DANDI.
    series, units, bin_s, epochs, stimuli, nan, times
        What to read, as in `nwb.read`.
    pairs : {"time", "behavior", "hybrid"}
        Which samples are alike.
    labels : tuple of str
        Behaviour to decode, and to learn from for behavior and hybrid pairs. "frame" and
        "stimulus" stand for the movie's moment and the stimulus.
    behaviour : tuple of str
        What the animal did, read but not decoded: scores are held against what it tells alone.
    window_s : float
        Receptive field; the architecture whose window is nearest is taken.
    architecture : str
        "" lets `window_s` decide.
    offset_s : float
        How far a time positive lies after its reference, and the lag of label changes.
    decay_s : float
        How long the indicator remembers; widens the guard around test samples.
    latents, hidden, learning_rate, temperature : tuples
        The grid; the first values are used where nothing can be chosen.
    preset : {"plain", "robust"}
        "robust" drops a tenth of the channels of every window in training and smooths embeddings
        over time; see `config.PRESETS`. The temperature is chosen from the grid, as always.
    batch_size, block, scale
        As in `TrainConfig`.
    steps, search_steps : int
        Training steps of the models that are scored and shown, and of the candidates.
    early_stop : bool
        Take the number of steps, up to `steps`, that has the most held-out bits where the
        configuration is chosen.
    folds : int
        At most this many folds.
    leave_out : int
        Repeats (or blocks) that a fold leaves out together; above 1 the folds overlap.
    choice : {"aside", "nested"}
        Where the configuration is chosen: on a fifth that is never scored, or inside each fold.
    split : {"held out", "shuffled"}
        "shuffled" deals samples out one by one. That leaks, is refused without `force`, and is
        said in everything that comes of it.
    force : bool
        Do what is refused for leaking, and say so.
    umap : bool
        Whether UMAP is among the baselines (extra "umap").
    nulls : int
        Null decodings behind each p value; 0 tests no claim.
    refit_nulls : int
        Nulls for which the encoders of all folds are trained anew, where they learn from a label
        that is decoded; 0 leaves such claims untested.
    seeds : int
        Runs that consistency and held-out bits are taken over; 1 leaves consistency out.
    surrogates : int
        Recordings of unrelated channels that as many runs are trained on, for the bits and the
        consistency of chance; 0 for none, 19 or more for p values.
    topology : bool
        Whether to test if the embedding is one loop (extra "topology").
    seed : int
    device : str
    """

    file: str
    series: str | None = None
    units: str | None = None
    bin_s: float | None = None
    epochs: str | None = None
    stimuli: tuple[str, ...] = ()
    nan: Literal["refuse", "drop-roi", "interpolate", "mask"] = "refuse"
    times: Literal["refuse", "drop"] = "refuse"
    pairs: Literal["time", "behavior", "hybrid"] = "time"
    labels: tuple[str, ...] = ()
    behaviour: tuple[str, ...] = ()
    window_s: float = 1 / 3
    architecture: str = ""
    offset_s: float = 1 / 3
    decay_s: float = 1.0
    latents: tuple[int, ...] = (8, 16)
    hidden: tuple[int, ...] = (32,)
    learning_rate: tuple[float, ...] = (1e-3,)
    temperature: tuple[float, ...] = (1.0, 0.3, 0.1)
    preset: Literal["plain", "robust"] = "plain"
    batch_size: int = 512
    block: int = 1
    scale: Literal["none", "zscore"] = "zscore"
    steps: int = 2000
    search_steps: int = 500
    early_stop: bool = False
    folds: int = 10
    leave_out: int = 1
    choice: Literal["aside", "nested"] = "aside"
    split: Literal["held out", "shuffled"] = "held out"
    force: bool = False
    umap: bool = False
    nulls: int = 999
    refit_nulls: int = 0
    seeds: int = 3
    surrogates: int = 1
    topology: bool = False
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("window_s", "offset_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be positive; found {getattr(self, name)}.")
        if self.decay_s < 0:
            raise ConfigError(f"decay_s must not be negative; found {self.decay_s}.")
        if self.pairs != "time" and not self.labels:
            raise ConfigError(f"{self.pairs} pairs need a label to learn from. Name one: --label.")
        if self.architecture:
            EncoderSpec(self.architecture)  # refuses an unknown name, with the nearest ones
        for name in ("latents", "hidden", "learning_rate", "temperature"):
            if not getattr(self, name):
                raise ConfigError(f"{name} must name at least one value; found none.")
        for name in ("nulls", "refit_nulls"):
            if getattr(self, name) and getattr(self, name) < 19:
                raise ConfigError(
                    f"{name} must be 0 or at least 19, or no p value can reach .05; "
                    f"found {getattr(self, name)}."
                )
        if self.refit_nulls and self.choice == "nested":
            raise ConfigError(
                "nulls that train encoders anew need one configuration for all folds: where each "
                "fold chooses by the true labels, nulls are not made as the score was. Use "
                "--choice aside with --refit-nulls."
            )
        if self.split == "shuffled" and not self.force:
            raise ConfigError(
                "samples of a time series cannot be shuffled into folds: a test sample's "
                "neighbours in time would be trained on, and pure noise would seem decodable. "
                "Leave repeats or blocks out (the default), or use --force, which says so in "
                "every output."
            )
        if self.leave_out < 1:
            raise ConfigError(f"leave_out must be at least 1; found {self.leave_out}.")
        if self.seeds < 1 or self.surrogates < 0:
            raise ConfigError(
                f"seeds must be at least 1, surrogates at least 0; found {self.seeds} and "
                f"{self.surrogates}."
            )
        both = sorted(set(self.behaviour) & set(self.labels))
        if both:
            raise ConfigError(
                f"behaviour is read and not decoded, a label is decoded; found '{both[0]}' as both."
                " A label serves as behaviour for the others without being named again."
            )
        if self.folds < 2 or self.steps < 1 or self.search_steps < 1:
            raise ConfigError("folds must be at least 2, steps and search_steps at least 1.")


_ADAPTER = TypeAdapter(RunConfig)
_BY_WINDOW = ("offset1-model", "offset5-model", "offset10-model")
"""The architectures that `window_s` chooses from."""


def read_config(values: Mapping[str, Any]) -> RunConfig:
    """Check settings and make a `RunConfig` of them.

    Raises
    ------
    ConfigError
        If a setting is unknown or has a value it cannot have; the message names it.
    """
    for name, value in values.items():
        for text in value if isinstance(value, list | tuple) else [value]:
            if isinstance(text, str) and not _is_text(text):
                raise ConfigError(
                    f"setting '{name}' must be text that a file in UTF-8 can hold; found "
                    f"{text!a}. Rename what it names."
                )
    try:
        return _ADAPTER.validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        hint = _nearest(where) if first["type"] == "unexpected_keyword_argument" else ""
        raise ConfigError(f"setting '{where}': {first['msg']}.{hint}") from error


def _is_text(words: str) -> bool:
    """Whether this is text: names of files may hold bytes that are none."""
    try:
        words.encode()
    except UnicodeEncodeError:
        return False
    return True


def _nearest(unknown: str) -> str:
    """What a setting that does not exist may have been meant for."""
    known = [f.name for f in fields(RunConfig)]
    near = get_close_matches(unknown, known, n=1)
    mean = f" Did you mean '{near[0]}'?" if near else ""
    return f"{mean} Settings are: {', '.join(known)}."


def load_toml(path: str | Path) -> dict[str, Any]:
    """Settings of a run.toml, its table `resolved` (which only informs) left out."""
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"the settings file {path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:  # ValueError: of a number with 5,000 digits, too
        raise ConfigError(f"the settings file {path} is not TOML: {error}.") from error
    values.pop("resolved", None)
    return values


def to_toml(config: RunConfig, resolved: Mapping[str, str]) -> str:
    """The text of a run.toml: all settings, and what they came to on this recording."""

    def value(v: object) -> str:
        if isinstance(v, tuple):
            return "[" + ", ".join(value(x) for x in v) + "]"
        # JSON's strings are TOML's, but for DEL.
        return json.dumps(v, ensure_ascii=False).replace("\x7f", "\\u007f")

    lines = ["# Every setting of this run: `grevy run --config run.toml --out AGAIN` repeats it."]
    lines += [f"{k} = {value(v)}" for k, v in asdict(config).items() if v is not None]
    lines += ["", "[resolved]  # in samples of this recording; not read back"]
    lines += [f"{value(k)} = {value(v)}" for k, v in resolved.items()]
    return "\n".join(lines) + "\n"


def changed(a: RunConfig, b: RunConfig) -> list[str]:
    """Names of the settings in which two runs differ."""
    return [f.name for f in fields(RunConfig) if getattr(a, f.name) != getattr(b, f.name)]


def grid(config: RunConfig) -> dict[str, Sequence[float | int]]:
    """The settings that are chosen by data."""
    return {
        "latents": config.latents,
        "hidden": config.hidden,
        "learning_rate": config.learning_rate,
        "temperature": config.temperature,
    }


def settle(recording: Recording, config: RunConfig) -> RunConfig:
    """The settings with what the recording decides put in: the architecture and the bin width."""
    rate = recording.rate_hz
    fitting = min(
        _BY_WINDOW,
        key=lambda a: abs(math.log(len(ARCHITECTURES[a].field) / rate / config.window_s)),
    )
    binned = recording.activity_unit == "spikes/bin"
    return replace(
        config,
        architecture=config.architecture or fitting,
        bin_s=config.bin_s or (float(f"{1 / rate:.9g}") if binned else None),
    )


def resolve(recording: Recording, config: RunConfig) -> tuple[TrainConfig, dict[str, str]]:
    """Turn seconds into samples of this recording, and labels into pairs.

    Parameters
    ----------
    recording : Recording
    config : RunConfig

    Returns
    -------
    base : TrainConfig
        The configuration that the grid varies.
    resolved : dict
        What each time came to, for people.

    Raises
    ------
    ConfigError
        If labels of different kinds are to be learnt together.
    """
    rate = recording.rate_hz
    name = settle(recording, config).architecture
    window = len(ARCHITECTURES[name].field)
    offset = max(1, round(config.offset_s * rate))
    base = TrainConfig(
        pairs=_pairs(recording, config, offset),
        encoder=EncoderSpec(name, config.hidden[0], config.latents[0]),
        temperature=config.temperature[0],
        learning_rate=config.learning_rate[0],
        batch_size=config.batch_size,
        n_steps=config.steps,
        seed=config.seed,
        block=config.block,
        scale=config.scale,
    ).with_preset(config.preset)
    base = replace(base, temperature=config.temperature[0])  # of the grid, whatever the preset
    resolved = {
        "sampling rate": f"{rate:.5g} Hz",
        "window": f"{window} samples = {window / rate:.3g} s ({name})",
        "offset": f"{offset} samples = {offset / rate:.3g} s",
        "indicator decay": f"{round(config.decay_s * rate)} samples = {config.decay_s:.3g} s",
        "guard": f"{guard(recording, config, base)} samples",
        "bin width": f"{config.bin_s} s" if config.bin_s else "as recorded",
    }
    return base, resolved


def guard(recording: Recording, config: RunConfig, base: TrainConfig) -> int:
    """Samples beside a test stretch that are not trained on: window + offset + indicator decay."""
    rate = recording.rate_hz
    offset = max(1, round(config.offset_s * rate))
    return len(base.encoder.field) + offset + round(config.decay_s * rate)


def _pairs(recording: Recording, config: RunConfig, offset: int) -> Pairs:
    time = TimePairs((offset,))
    if config.pairs == "time":
        return time
    missing = [name for name in config.labels if name not in recording.labels]
    if missing:
        have = ", ".join(recording.labels) or "none"
        raise ConfigError(f"label '{missing[0]}' is not in the recording; it has: {have}.")
    kinds = {recording.labels[name].kind for name in config.labels}
    behavior: LabelPairs
    if kinds == {"continuous"}:
        behavior = DeltaPairs(config.labels, offset)
    elif kinds == {"discrete"} and len(config.labels) == 1:
        behavior = ClassPairs(config.labels[0])
    else:
        raise ConfigError(
            f"{config.pairs} pairs learn from one discrete label or from continuous ones; "
            f"found {', '.join(f'{n} ({recording.labels[n].kind})' for n in config.labels)}."
        )
    return behavior if config.pairs == "behavior" else HybridPairs(behavior, time)
