"""Commands that make and use models: fit, embed, decode, search, convert."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from .atomic import make_atomic, remove_parts
from .errors import ConfigError, DataError, FormatError, GrevyError
from .locks import hold_folder, left_by_killed

__all__ = ["add", "narrate", "one_line", "plain"]

_Many = Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative=())]
_Flag = Annotated[bool, Parameter(negative=())]
_GRID = {
    "architecture": "model_architecture",
    "latents": "output_dimension",
    "hidden": "num_hidden_units",
    "steps": "max_iterations",
    "offset": "time_offsets",
    "seed": "random_state",
}
"""Short names of the command line, and CEBRA's; all others are CEBRA's own."""


def add(app: App) -> None:
    """Add the commands to an application."""
    for command in (fit, embed, decode, search, convert):
        app.command(command)


def narrate() -> None:
    """Show what the library logs: resolved settings, stages, memory, files trained anew."""
    log = logging.getLogger("grevy")
    log.handlers = [h for h in log.handlers if isinstance(h, logging.NullHandler)]
    log.addHandler(_AboveBars())
    log.setLevel(logging.INFO)


def plain(text: str) -> str:
    """Text without control characters, which names from files may hold."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def one_line(text: str) -> str:
    """`plain` text in which a name from a file cannot begin a line that looks like ours."""
    return plain(text.replace("\n", "\\n"))


class _AboveBars(logging.Handler):
    """Lines on the terminal that no progress bar is written into."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        from tqdm import tqdm

        tqdm.write(one_line(self.format(record)), file=sys.stderr)


def fit(
    file: Path,
    /,
    *,
    labels: _Many = (),
    out: Path | None = None,
    activity: str | None = None,
    label_file: Path | None = None,
    units: str | None = None,
    bin_s: float | None = None,
    architecture: str = "offset10-model",
    latents: int = 8,
    hidden: int = 32,
    steps: int = 2000,
    learning_rate: float = 3e-4,
    temperature: float = 1.0,
    learn_temperature: _Flag = False,
    distance: Literal["cosine", "euclidean"] = "cosine",
    conditional: Literal["time", "time_delta", "delta_normal"] | None = None,
    delta: float | None = None,
    offset: int = 10,
    hybrid: _Flag = False,
    batch_size: int = 512,
    preset: Literal["plain", "robust"] = "plain",
    seed: int = 0,
    device: str = "cuda_if_available",
    checkpoint_s: float = 30.0,
    quiet: _Flag = False,
) -> None:
    """Fit one CEBRA model to a file and save it.

    Parameters
    ----------
    file
        .nwb, .npz, .npy, .h5, .csv or .mat.
    labels
        Labels to learn from, by name; without them time makes the pairs.
    out
        Model file to write; by default the file's name with ".safetensors". One that is there is
        never overwritten.
    activity
        Which array of the file is the activity.
    label_file
        A file with the label, for formats that hold a single array.
    units
        Which units of an NWB file to take.
    bin_s
        Width of a spike-count bin in seconds.
    architecture
        Encoder, by CEBRA's name.
    latents
        Dimensions of the embedding.
    hidden
        Hidden units.
    steps
        Training steps.
    learning_rate
        Adam's.
    temperature
        Of the loss.
    learn_temperature
        Learn the temperature too.
    distance
        Similarity of the loss.
    conditional
        How labels make positives.
    delta
        Standard deviation of the labels of positives, for delta_normal.
    offset
        Samples between a reference and its positive.
    hybrid
        Use labels and time together.
    batch_size
        References a step.
    preset
        "robust" sets temperature 0.5, unless another is given, drops a tenth of the channels of
        every window in training, and smooths embeddings over time, by a Gaussian of 4 samples.
    seed
        Every random number follows from it.
    device
        cuda_if_available, cpu, cuda or cuda:N.
    checkpoint_s
        Seconds of training that are lost at most when the command is ended: the same command goes
        on from the folder OUT.unfinished.
    quiet
        Show no progress.
    """
    from .estimator import CEBRA

    path = out or Path(f"{file.stem}.safetensors")
    _refuse_overwriting(path, unless=left_by_killed(_beside(path)))
    source = _source(file, activity, labels, label_file, units, bin_s)
    used = offset if not labels or hybrid or conditional != "delta_normal" else 1
    model = CEBRA(
        model_architecture=architecture,
        output_dimension=latents,
        num_hidden_units=hidden,
        max_iterations=steps,
        learning_rate=learning_rate,
        temperature=temperature,
        temperature_mode="auto" if learn_temperature else "constant",
        distance=distance,
        conditional=conditional,
        delta=delta,
        time_offsets=used,
        hybrid=hybrid,
        batch_size=batch_size,
        preset=preset,
        random_state=seed,
        device=device,
        verbose=not quiet,
        label_periods=source.periods or None,
    )
    if not quiet:
        narrate()
    with _unfinished(path, checkpoint_s) as checkpoint:
        model.fit(source.activity, *source.labels, epochs=source.epochs, checkpoint=checkpoint)
        # Ended after its last step, the same command has written this very model before.
        _refuse_overwriting(path, unless=_is_model(path, model.run_.digest))
        model.save(path)
        checkpoint.clear()
    if not quiet:
        bits = model.score(source.activity, *source.labels, epochs=source.epochs)
        print(f"goodness of fit {bits:.3f} bits above chance, on the samples it was trained on")
    print(path)


def _refuse_overwriting(path: Path, *, unless: bool = False) -> None:
    """Refuse to write where something is: the data themselves, an earlier result, or any other."""
    if os.path.lexists(path) and not unless:
        raise ConfigError(f"{path} exists and is never overwritten. Choose another name.")


def _is_model(path: Path, digest: str) -> bool:
    """Whether a file is a model of certain weights."""
    from . import store

    try:
        return store.load(path).digest == digest
    except GrevyError:
        return False


def _beside(path: Path) -> Path:
    """Where the state of a fit is kept by time: beside the file that it will become."""
    return path.with_name(f"{path.name}.unfinished")


@contextmanager
def _unfinished(path: Path, every_s: float) -> Iterator[Any]:
    """What keeps the state of a fit; its folder is held."""
    from .unfinished import Checkpoint

    folder = _beside(path)
    if not path.parent.is_dir():
        raise FormatError(f"{path} cannot be written: there is no folder {path.parent}. Make it.")
    checkpoint = Checkpoint(folder, every_s=every_s)
    try:
        with hold_folder(folder):
            remove_parts(path.parent, of=path)
            yield checkpoint
    finally:
        with suppress(OSError):  # it holds what is not finished, or the last good weights
            folder.rmdir()


def embed(
    model: Path,
    file: Path,
    /,
    *,
    labels: _Many = (),
    out: Path | None = None,
    activity: str | None = None,
    units: str | None = None,
    bin_s: float | None = None,
    session: int | None = None,
) -> None:
    """Embed a file with a saved model.

    Parameters
    ----------
    model
        Written by `grevy fit`, `CEBRA.save`, or the CEBRA library.
    file
        As in `grevy fit`.
    labels
        Columns of a csv that are labels, no activity.
    out
        .npy, .npz or .csv to write; by default the file's name with "-embedding.npy". One that is
        there is never overwritten.
    activity
        Which array of the file is the activity.
    units
        Which units of an NWB file to take.
    bin_s
        Width of a spike-count bin in seconds.
    session
        Whose encoder, for a model of several sessions.
    """
    import io

    import numpy as np

    from .estimator import CEBRA

    path = out or Path(f"{file.stem}-embedding.npy")
    if path.suffix not in (".npy", ".npz", ".csv"):
        raise ConfigError(f"an embedding is written as .npy, .npz or .csv; found '{path.suffix}'.")
    _refuse_overwriting(path)
    fitted = CEBRA.load(model)
    n_channels = _channels(fitted, session)
    source = _source(file, activity, labels, None, units, bin_s, n_channels)
    values = fitted.transform(source.activity, session_id=session)
    blob = io.BytesIO()
    if path.suffix == ".npz":
        np.savez_compressed(blob, embedding=values)
    elif path.suffix == ".npy":
        np.save(blob, values, allow_pickle=False)
    else:
        header = ",".join(f"latent_{i}" for i in range(values.shape[1]))
        np.savetxt(blob, values, delimiter=",", header=header, comments="", fmt="%.9g")
    with make_atomic(path, new=True) as part:
        part.write_bytes(blob.getvalue())
    print(path)


def decode(
    model: Path,
    file: Path,
    /,
    *,
    labels: _Many,
    folds: int = 10,
    guard: int | None = None,
    nulls: int = 999,
    seed: int = 0,
    activity: str | None = None,
    label_file: Path | None = None,
    units: str | None = None,
    bin_s: float | None = None,
    session: int | None = None,
    force: _Flag = False,
) -> None:
    """Decode labels from the embedding of a saved model, contiguous stretches left out in turn.

    The encoder stays as it is, and decoders are fitted to the other stretches: scores stand beside
    those of the plain windows on the same folds, chance and nulls. `grevy run` trains the encoder
    anew for every fold, leaves repeats of stimuli out, and chooses settings inside the folds.

    Parameters
    ----------
    model
        As in `grevy embed`.
    file
        As in `grevy fit`.
    labels
        What to decode.
    folds
        Stretches.
    guard
        Samples beside a left-out stretch that the decoder does not learn from; by default the
        window and the longest time offset of the model, or the window and the time over which a
        label remembers itself, whichever is longer.
    nulls
        Orders of the stretches that each score is tested against; 0 for none.
    seed
        Every random number follows from it.
    activity
        Which array of the file is the activity.
    label_file
        A file with the label, for formats that hold a single array.
    units
        Which units of an NWB file to take.
    bin_s
        Width of a spike-count bin in seconds.
    session
        Whose encoder, for a model of several sessions.
    force
        Decode although the encoder learnt labels of these very samples, and say so.
    """
    import numpy as np

    from .embedded import decode_embedded, problem_of
    from .estimator import CEBRA
    from .report.printed import printed
    from .report.wording import headline
    from .room import as_float32

    fitted = CEBRA.load(model)
    n_channels = _channels(fitted, session)
    source = _source(file, activity, labels, label_file, units, bin_s, n_channels)
    spec = fitted.run_.config.encoder
    if spec.factor > 1:
        raise ConfigError("a model that resamples time has no row for every sample to decode from.")
    leak = _leak(fitted, source.activity)
    if leak and _learnt_labels(fitted) and not force:
        raise ConfigError(
            f"{leak} It learnt labels of them too, and would give them back: pure noise decodes "
            f"well that way. Use grevy run, which leaves stretches out of both, or --force."
        )
    z = fitted.set_params(pad_before_transform=True).transform(source.activity, session_id=session)
    problems, column = [], 0
    for name, values in zip(source.names, source.labels, strict=True):
        if len(values) != len(z):
            raise DataError(f"label '{name}' has {len(values)} rows and the activity {len(z)}.")
        width = values[:1].size if values.dtype.kind == "f" else 0
        periods = [source.periods.get(column + i, 0.0) for i in range(width)]
        column += width
        problems.append(problem_of(name, values, periods))
    found = decode_embedded(
        z, as_float32(source.activity), problems,
        np.array([[0, len(z)]]) if source.epochs is None else source.epochs, spec.field,
        reach=_reach(fitted), n_folds=folds, guard=guard, n_nulls=nulls,
        learnt=source.names if leak and _learnt_labels(fitted) else (), seed=seed,
    )  # fmt: skip
    plan, unknown = found.plan, int((found.plan.group < 0).sum())
    lines = [f"!! Not held out: {leak}"] if leak else []
    lines += [f"- {said}" for said in headline(found.scores, found.differences, found.claims)]
    if unknown:
        lines.append(f"! {unknown} of {len(z)} samples are not decoded: a label is unknown there.")
    if plan.n_folds < folds:
        lines.append(
            f"! {plan.n_folds} stretches instead of {folds}, so that the guard fits between them."
        )
    if plan.guard_short:
        lines.append(
            f"! The guard should be {plan.guard + plan.guard_short} samples, as long as a label "
            f"remembers itself; {plan.guard} fit, and scores may be too high."
        )
    lines += [*printed(found.scores, found.claims), ""]
    lines.append(
        f"The decoders never saw the stretch they are judged on (nor {plan.guard} samples beside "
        f"it). {leak or _unseen(fitted)}"
    )
    print("\n".join(one_line(line) for line in lines))


def search(
    file: Path,
    /,
    *,
    grid: _Many,
    labels: _Many = (),
    out: Path = Path("saved_models"),
    activity: str | None = None,
    label_file: Path | None = None,
    units: str | None = None,
    bin_s: float | None = None,
    seed: int = 0,
    checkpoint_s: float = 30.0,
    quiet: _Flag = False,
) -> None:
    """Fit a grid of models and rank them by goodness of fit on stretches left out.

    Parameters
    ----------
    file
        As in `grevy fit`.
    grid
        NAME=VALUE,VALUE for every setting, such as latents=3,8 learning_rate=1e-3,1e-2; CEBRA's
        names are understood too.
    labels
        Labels to learn from.
    out
        Folder of the models; what is there already is not trained again.
    activity
        Which array of the file is the activity.
    label_file
        A file with the label, for formats that hold a single array.
    units
        Which units of an NWB file to take.
    bin_s
        Width of a spike-count bin in seconds.
    seed
        Every random number follows from it.
    checkpoint_s
        Seconds of training that are lost at most when the command is ended: the same command goes
        on.
    quiet
        Show no progress.
    """
    import warnings

    from .grid.search import GridSearch

    source = _source(file, activity, labels, label_file, units, bin_s)
    params: dict[str, Any] = {
        "model_architecture": "offset10-model",
        "batch_size": 512,
        "time_offsets": 10,
        "max_iterations": 1000,
        "random_state": seed,
        "verbose": not quiet,
    }
    params |= dict(_points(text) for text in grid)
    name = file.stem
    data = (source.activity, *source.labels) if source.labels else source.activity
    if not quiet:
        narrate()
    searched = GridSearch().fit_models(
        {name: data}, params, models_dir=str(out), checkpoint_s=checkpoint_s
    )
    table = searched.get_df_results(models_dir=str(out))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        _, best = searched.get_best_model(dataset_name=name, models_dir=str(out))
    print(plain(table.to_string(index=False)))
    for warning in said:
        print(one_line(f"! {warning.message}"))
    print(f"best: {best}")
    print(out)


def convert(old: Path, new: Path, /) -> None:
    """Turn a model file of the CEBRA library into one of grevy, which runs no code.

    Parameters
    ----------
    old
        A checkpoint of CEBRA (.pt).
    new
        File to write.
    """
    from .estimator import CEBRA

    _refuse_overwriting(new)
    model = CEBRA.load(old)
    model.save(new)
    spec = model.run_.config.encoder
    steps = len(model.run_.losses)
    print(
        f"{spec.architecture}, {spec.latents} latents, {steps} steps, {model.n_features_} channels"
    )
    print(new)


def _source(
    file: Path,
    activity: str | None,
    labels: tuple[str, ...],
    label_file: Path | None,
    units: str | None,
    bin_s: float | None,
    n_channels: int | None = None,
) -> Any:
    from .sources import read_source

    return read_source(
        file,
        activity=activity,
        labels=labels,
        label_file=label_file,
        units=units,
        bin_s=bin_s,
        n_channels=n_channels,
    )


def _channels(model: Any, session: int | None) -> int:
    """Columns of the activity that a model takes."""
    sessions, which = model.run_.sessions, session or 0
    if not 0 <= which < len(sessions):
        raise ConfigError(f"the model has sessions 0 to {len(sessions) - 1}; found {which}.")
    return int(sessions[which].n_channels)


def _reach(model: Any) -> int:
    """The longest time offset of a model's pairs."""
    from .pairs import DeltaPairs, parts

    behavior, time = parts(model.run_.config.pairs)
    lag = behavior.lag if isinstance(behavior, DeltaPairs) else 0
    return max(lag, max(time.offsets) if time else 0)


def _learnt_labels(model: Any) -> bool:
    from .pairs import parts

    return parts(model.run_.config.pairs)[0] is not None


def _leak(model: Any, activity: Any) -> str:
    """In words that the encoder was trained on some of these samples; "" if it is not known to."""
    from .prints import share_seen
    from .room import as_float32

    share = share_seen(model.run_.seen, as_float32(activity))
    if not share > 0:
        return ""
    return (
        f"The encoder was trained on samples that are decoded here ({share:.0%} of those it kept "
        f"prints of)."
    )


def _unseen(model: Any) -> str:
    if model.run_.seen:
        return "The encoder was trained on none of the samples it kept prints of."
    said = "Whether the encoder was trained on these samples this file cannot tell."
    if _learnt_labels(model):
        said += " It learnt from labels: if it was, the scores mean nothing."
    return said


def _points(text: str) -> tuple[str, Any]:
    """One setting of a grid: NAME=VALUE,VALUE."""
    name, equals, values = text.partition("=")
    if not equals or not values:
        raise ConfigError(f"a grid is given as NAME=VALUE,VALUE; found '{text}'.")
    read = [_value(v) for v in values.split(",")]
    name = _GRID.get(name, name)
    return name, read if len(read) > 1 else read[0]


def _value(text: str) -> Any:
    """A word of the command line as a number, None, truth value, or itself."""
    known = {"none": None, "true": True, "false": False}
    if text.lower() in known:
        return known[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
