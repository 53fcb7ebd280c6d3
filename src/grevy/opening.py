"""What comes before the work of a run: where the recording is, what the settings make of it.

A module of its own because it needs little: a command says what is wrong with a file before it
imports what trains, decodes and draws, which takes seconds.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from . import dandi, nwb
from .errors import ConfigError
from .locks import refuse_foreign
from .recording import Recording
from .settings import RunConfig

__all__ = ["open_recording", "read_as", "refuse_finished"]


def open_recording(
    config: RunConfig,
    out: str | Path | None = None,
    *,
    quiet: bool = False,
    cache: str | Path | None = None,
    allow_external: bool = False,
) -> tuple[RunConfig, Path, Recording]:
    """The recording that settings name, read as they say; one of DANDI is downloaded first.

    Returns
    -------
    RunConfig
        With the version that was found, if the file is an address in DANDI.
    Path
        The folder of the run.
    Recording

    Raises
    ------
    ConfigError
        If the folder holds a finished run or what is not of a run, or the settings do not fit the
        file.
    DataError, LimitError, UnsafeFileError
        If the recording cannot be read.
    NetworkError
        If DANDI cannot be reached.
    """
    if allow_external:
        dandi.refuse_address(config.file)
    file = Path(config.file)
    asset = dandi.resolve(config.file) if dandi.is_address(config.file) else None
    if asset is not None:
        # The version that was found is part of the settings, or the run could not be repeated.
        config, file = replace(config, file=asset.url), Path(asset.name)
    out = Path(out or f"{file.stem}-grevy")
    refuse_finished(out)
    if asset is not None:
        with dandi.progress_bar(quiet=quiet) as bar:
            file = dandi.download(asset, dandi.cache_folder(asset, cache), on_progress=bar)
    return config, out, read_as(file, config, allow_external=allow_external)


def read_as(file: Path, config: RunConfig, *, allow_external: bool = False) -> Recording:
    """A file as settings say that it is to be read.

    Data of other files are no setting: a file of settings may come from a stranger, too.
    """
    nwb.refuse_hanging(file, allow_external=allow_external)
    return nwb.read(
        file,
        series=config.series,
        units=config.units,
        bin_s=config.bin_s,
        epochs=config.epochs,
        stimuli=config.stimuli or None,
        labels=tuple(
            n for n in (*config.labels, *config.behaviour) if n not in ("frame", "stimulus")
        ),
        nan=config.nan,
        times=config.times,
        allow_external=allow_external,
    )


def refuse_finished(out: Path) -> None:
    """Refuse a folder that holds the report of a run, or what is not of a run."""
    if (out / "report.html").exists():
        raise ConfigError(f"{out} holds a finished run; name another folder with --out.")
    refuse_foreign(out, "run.toml", advice="Name another folder with --out.")
