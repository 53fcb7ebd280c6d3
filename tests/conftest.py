"""Shared by all tests: one torch thread, and where the real recordings are."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import pytest

mpl.use("Agg")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a script began the tests in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the real recordings, from GREVY_DATA; the test is skipped where it is absent."""
    where = os.environ.get("GREVY_DATA", "")
    if not where or not Path(where).is_dir():
        pytest.skip("GREVY_DATA names no folder of real recordings: not run")
    return Path(where)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """A command that was run in this process may narrate; no other test shall hear it."""
    log = logging.getLogger("grevy")

    def hush() -> None:
        log.handlers = [h for h in log.handlers if isinstance(h, logging.NullHandler)]
        log.setLevel(logging.NOTSET)

    hush()  # what fixtures of a module did
    yield
    hush()


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)
