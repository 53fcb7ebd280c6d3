"""The command line: translates words into calls, and errors into one sentence and an exit code.

Nothing heavy is imported before a command needs it, so that help is there at once.
"""

from __future__ import annotations

import io
import json
import logging
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

from . import __version__, model_cli
from .errors import ConfigError, GrevyError
from .model_cli import narrate, one_line
from .signals import ending_within

__all__ = ["app", "main"]

_FAULT = 70
"""Exit code of what grevy did not foresee."""
_PATIENCE_S = 4.5
"""Between a signal to end and the end, whatever is being done."""

app = App(
    name="grevy",
    help="From a neural recording to consistent latent embeddings, and to claims about them.",
    version=__version__,
    version_flags=["--version"],
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
model_cli.add(app)
_Many = Annotated[tuple[str, ...] | None, Parameter(consume_multiple=True, negative=())]
_Flag = Annotated[bool | None, Parameter(negative=())]
_Quiet = Annotated[bool, Parameter(name=["--quiet", "-q"], negative=())]
_Json = Annotated[bool, Parameter(name="--json", negative=())]


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command and leave with its exit code; errors become one line.

    GREVY_TRACEBACK=1 in the environment lets those through that grevy did not foresee.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names may be more than a terminal can show
            stream.reconfigure(errors="backslashreplace")
    logging.getLogger("grevy").addHandler(logging.NullHandler())
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        with ending_within(_PATIENCE_S, say="grevy: ended; the same command goes on from before."):
            app(words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        print(f"grevy: {one_line(str(error))} Try --help.", file=sys.stderr)
        raise SystemExit(2) from None
    except GrevyError as error:
        print(f"grevy: {one_line(str(error))}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt as error:
        number = int(error.args[0]) if error.args else signal.SIGINT
        print("grevy: interrupted; the same command goes on from here.", file=sys.stderr)
        raise SystemExit(128 + number) from None
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(141) from None
    except OSError as error:
        where = f" ({one_line(str(error.filename))})" if error.filename else ""
        print(f"grevy: {one_line(error.strerror or str(error))}{where}.", file=sys.stderr)
        raise SystemExit(2) from None
    except Exception as error:
        if os.environ.get("GREVY_TRACEBACK"):
            raise
        print(f"grevy: {_unforeseen(error)}", file=sys.stderr)
        raise SystemExit(2 if _is_of_memory(error) else _FAULT) from None


def _is_of_memory(error: Exception) -> bool:
    """Whether there was not enough; torch on a CPU says so in words alone."""
    return isinstance(error, MemoryError) or "allocate memory" in str(error)


def _unforeseen(error: Exception) -> str:
    """A sentence about an error that nothing was made for."""
    said = one_line(f"{type(error).__name__}: {str(error)[:500]}".rstrip(": "))
    if _is_of_memory(error):
        return (
            f"the work must fit in memory; it did not ({said}). Use a part of the recording, a "
            f"smaller model or batch, or a machine with more."
        )
    return (
        f"this is a fault in grevy, please report it ({said}). GREVY_TRACEBACK=1 before the "
        f"command shows where it is."
    )


@app.command
def inspect(
    file: str,
    /,
    *,
    as_json: _Json = False,
    allow_external: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Say what is in an NWB file, what is remarkable about it, and which command fits it.

    Parameters
    ----------
    file
        The NWB file, or its address in DANDI (dandi://000036/PATH, or the address of its page);
        then only what is needed of it is fetched. A folder of Zarr is downloaded as a whole, to
        where `run` looks for it.
    as_json
        Print JSON for programs.
    allow_external
        Let a file of this machine hold data of other files: of any that you may read.
    """
    from . import dandi, nwb
    from .afar import describe_afar

    if allow_external:
        dandi.refuse_address(file)
    asset = dandi.resolve(file) if dandi.is_address(file) else None
    if asset is None:
        description = nwb.describe_apart(file, allow_external=allow_external)
    elif asset.is_zarr:
        narrate()
        with dandi.progress_bar() as bar:
            folder = dandi.download(asset, dandi.cache_folder(asset), on_progress=bar)
        found = nwb.describe_apart(folder)
        here, there = shlex.quote(str(folder)), shlex.quote(asset.url)
        description = replace(
            found,
            file=replace(found.file, path=asset.url),
            suggestion=found.suggestion.replace(here, there, 1),
        )
    else:
        description = describe_afar(asset)
    if as_json:
        print(json.dumps(nwb.to_json(description), indent=2))
    else:
        print(nwb.describe_text(description))


@app.command
def download(address: str, /, *, out: Path = Path(), quiet: _Quiet = False) -> None:
    """Download a recording from DANDI, verified; one that broke off goes on where it was.

    Parameters
    ----------
    address
        dandi://000036/PATH, dandi://000036@VERSION/PATH, or the address of its page on
        dandiarchive.org. DANDI_API_KEY lets in to what is not public.
    out
        Folder for the file, or for the folder where the recording is one of Zarr.
    quiet
        Show no progress.
    """
    from . import dandi

    if not quiet:
        narrate()
    with dandi.progress_bar(quiet=quiet) as bar:
        path = dandi.download(address, out, on_progress=bar)
    print(path)


@app.command
def run(
    file: str | None = None,
    /,
    *,
    out: Path | None = None,
    cache: Path | None = None,
    config: Path | None = None,
    pairs: Literal["time", "behavior", "hybrid"] | None = None,
    label: _Many = None,
    behaviour: _Many = None,
    units: str | None = None,
    bin_s: float | None = None,
    epochs: str | None = None,
    stimuli: _Many = None,
    series: str | None = None,
    nan: Literal["refuse", "drop-roi", "interpolate", "mask"] | None = None,
    times: Literal["refuse", "drop"] | None = None,
    window_s: float | None = None,
    offset_s: float | None = None,
    decay_s: float | None = None,
    latents: Annotated[tuple[int, ...] | None, Parameter(consume_multiple=True)] = None,
    hidden: Annotated[tuple[int, ...] | None, Parameter(consume_multiple=True)] = None,
    learning_rate: Annotated[tuple[float, ...] | None, Parameter(consume_multiple=True)] = None,
    temperature: Annotated[tuple[float, ...] | None, Parameter(consume_multiple=True)] = None,
    preset: Literal["plain", "robust"] | None = None,
    steps: int | None = None,
    search_steps: int | None = None,
    early_stop: _Flag = None,
    folds: int | None = None,
    leave_out: int | None = None,
    choice: Literal["aside", "nested"] | None = None,
    split: Literal["held out", "shuffled"] | None = None,
    force: _Flag = None,
    umap: _Flag = None,
    nulls: int | None = None,
    refit_nulls: int | None = None,
    seeds: int | None = None,
    surrogates: int | None = None,
    topology: _Flag = None,
    seed: int | None = None,
    device: str | None = None,
    checkpoint_s: float = 30.0,
    allow_external: Annotated[bool, Parameter(negative=())] = False,
    quiet: _Quiet = False,
) -> None:
    """Do everything: read a recording, choose and train an encoder, decode, write a report.

    The folder OUT then holds report.html, run.toml (every setting), scores.csv, claims.csv,
    tables of controls, results.json, embedding.npz, model.safetensors, figures and a log. A
    finished OUT is never overwritten; the same call on an unfinished one goes on.

    Parameters
    ----------
    file
        The NWB recording (a file, or a folder of Zarr), or its address in DANDI. May be left out
        with --config.
    out
        Folder for the results; by default the file's name with "-grevy".
    cache
        Folder where recordings of DANDI are kept; by default that of the user's caches.
    config
        A run.toml of an earlier run; other options change its settings.
    pairs
        What makes two samples alike: nearness in time (default), behaviour, or both.
    label
        Behaviour to decode (and to learn from, for behavior and hybrid pairs): a series of the
        file, or "frame" or "stimulus".
    behaviour
        What the animal did, such as running or pupil: read and not decoded; scores are held
        against what it tells without the cells.
    units
        Which units to take, such as 'location == adn'.
    bin_s
        Width of a spike-count bin in seconds.
    epochs
        The part of the session to use, by the tag of its epoch or the name of an interval table.
    stimuli
        The stimuli to use; all of them by default.
    series
        Object path of the activity inside the file.
    nan
        What to do about values that are not numbers: refuse (default), drop-roi, interpolate, or
        mask, which leaves out the samples.
    times
        What to do about timestamps out of order: refuse (default) or drop.
    window_s
        Time that the encoder sees at once.
    offset_s
        Time between a sample and its positive.
    decay_s
        How long the indicator remembers; keeps training away from test stretches.
    latents
        Dimensions of the embedding to choose from.
    hidden
        Hidden units to choose from.
    learning_rate
        Learning rates to choose from.
    temperature
        Temperatures of the loss to choose from.
    preset
        "robust" drops a tenth of the channels of every window in training and smooths embeddings
        over time, by a Gaussian of 4 samples within each presentation or block (plain, the
        default: neither).
    steps
        Training steps.
    search_steps
        Training steps of each candidate.
    early_stop
        Choose the number of steps too, up to --steps, by held-out bits.
    folds
        At most this many folds.
    leave_out
        Repeats (or blocks) that a fold leaves out together (1).
    choice
        Where the configuration is chosen: on a fifth that is never scored (aside, the default), or
        inside each fold (nested; as many times the work).
    split
        "shuffled" deals samples out to folds one by one. It leaks, and is refused without --force.
    force
        Do what is refused for leaking, and say so in every output.
    umap
        Decode from a UMAP too, as one of the baselines (pip install 'grevy[umap]').
    nulls
        Null decodings behind each p value (999); 0 tests no claim.
    refit_nulls
        Nulls for which encoders are trained anew, where they learn from what is decoded (0).
    seeds
        Seeds that consistency and held-out bits are taken over (3).
    surrogates
        Recordings of unrelated channels that runs of every seed are trained on, for what bits and
        consistency are by chance (1; p values take 19).
    topology
        Test whether the embedding is one loop (pip install 'grevy[topology]').
    seed
        Every random number follows from it.
    device
        auto, cpu, cuda or cuda:N.
    checkpoint_s
        Seconds of training that are lost at most when the command is ended.
    allow_external
        Let a file of this machine hold data of other files: of any that you may read.
    quiet
        Show no progress.
    """
    from .opening import open_recording
    from .settings import load_toml, read_config

    given: dict[str, Any] = {
        "file": file, "pairs": pairs, "labels": label, "behaviour": behaviour,
        "units": units, "bin_s": bin_s,
        "epochs": epochs, "stimuli": stimuli, "series": series, "nan": nan, "times": times,
        "window_s": window_s, "offset_s": offset_s, "decay_s": decay_s, "latents": latents,
        "hidden": hidden, "learning_rate": learning_rate, "temperature": temperature,
        "preset": preset,
        "steps": steps, "search_steps": search_steps, "early_stop": early_stop, "folds": folds,
        "leave_out": leave_out, "choice": choice, "split": split, "force": force, "umap": umap,
        "nulls": nulls, "refit_nulls": refit_nulls, "seeds": seeds,
        "surrogates": surrogates, "topology": topology, "seed": seed, "device": device,
    }  # fmt: skip
    values = load_toml(config) if config else {}
    values |= {k: v for k, v in given.items() if v is not None}
    if "file" not in values:
        raise ConfigError("name the recording to run: grevy run FILE, or --config RUN.toml.")
    settings = read_config(values)
    if not quiet:
        narrate()
    # What is wrong with a file is said before the rest is imported, which takes seconds.
    settings, out, recording = open_recording(
        settings, out, quiet=quiet, cache=cache, allow_external=allow_external
    )
    from .pipeline import run_recording

    path = run_recording(recording, settings, out, quiet=quiet, checkpoint_s=checkpoint_s)
    if not quiet:
        print(_summary(path.parent))
    print(path)


def _summary(folder: Path) -> str:
    from .report.printed import printed
    from .report.saved import load_results

    results, _ = load_results(folder)
    lines = [f"!! {line}" for line in results.flags]
    lines += [f"- {line}" for line in results.headline]
    lines += [f"! {line}" for line in results.warnings]
    lines += [*printed(results.scores, results.claims), ""]
    return "\n".join(one_line(line) for line in lines)


@app.command
def simulate(
    out: Path,
    /,
    *,
    movies: int = 11,
    repeats: int = 10,
    frames: int = 900,
    cells: int = 41,
    noise: float = 4.0,
    onset: float = 0.0,
    drift: float = 0.0,
    order: Literal["random", "whole", "fixed"] = "random",
    seed: int = 0,
) -> None:
    """Write a simulated two-photon session in the layout of DANDI 000036.

    Parameters
    ----------
    out
        NWB file to write; an existing one is never overwritten.
    movies
        Repeated movies, spread over a range of strengths; the last drives no cell.
    repeats
        Presentations of each movie.
    frames
        Frames a movie, 30 a second.
    cells
        Cells.
    noise
        White measurement noise, as a share of a cell's own calcium.
    onset
        Strength of a transient at every onset.
    drift
        Strength of slow changes over the session.
    order
        Whether movies are shuffled anew in every cycle (random), all presentations at once (whole),
        or movies come always in one order (fixed).
    seed
        Every random number follows from it.
    """
    from . import nwb, synthetic

    session = synthetic.openscope(
        seed, movies=movies, n_repeats=repeats, n_frames=frames, n_cells=cells, noise=noise,
        onset=onset, drift=drift, order=order,
    )  # fmt: skip
    print(nwb.write_openscope(out, session))


@app.command
def demo(*, out: Path = Path("demo"), quiet: _Quiet = False) -> None:
    """Simulate a small session and run everything on it.

    Parameters
    ----------
    out
        Folder for the recording and the results.
    quiet
        Show no progress.
    """
    from . import pipeline

    if not quiet:
        narrate()
    path = pipeline.demo(out, quiet=quiet)
    if not quiet:
        print(_summary(path.parent))
    print(path)


@app.command
def report(folder: Path, /) -> None:
    """Write the report of a finished run anew from its saved results.

    Parameters
    ----------
    folder
        Folder of the run.
    """
    from .report.page import write_report
    from .report.saved import load_results

    results, embedding = load_results(folder)
    print(write_report(folder, results, embedding))


@app.command
def export(
    folder: Path,
    /,
    *,
    out: Path | None = None,
    nwb: Path | None = None,
    only: Annotated[bool, Parameter(negative=())] = False,
    cache: Path | None = None,
    quiet: _Quiet = False,
) -> None:
    """Write a new NWB file with the recording of a finished run, its embedding and its scores.

    The recording is copied and never written to. The new file has its name once it is whole and
    pynwb finds it valid; an existing one is never overwritten.

    Parameters
    ----------
    folder
        Folder of the run.
    out
        The new file; by default the recording's name with "-grevy.nwb".
    nwb
        The recording, if it is not where the run found it.
    only
        Leave the recording's own data out: a small file of the same session and subject.
    cache
        Folder where recordings of DANDI are kept; by default that of the user's caches.
    quiet
        Show no progress.
    """
    from . import pipeline

    if not quiet:
        narrate()
    print(pipeline.export(folder, out, file=nwb, only=only, cache=cache, quiet=quiet))


@app.command
def doctor(*, as_json: _Json = False) -> None:
    """Say what grevy runs on: versions, devices, extras, caches; ends with a short self-test.

    Parameters
    ----------
    as_json
        Print JSON for programs.
    """
    from .doctor import examine

    facts = examine()
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        width = max(len(k) for k in facts)
        print("\n".join(f"{k:<{width}}  {v}" for k, v in facts.items()))
    if facts["self-test"] != "passed":
        raise SystemExit(3)
