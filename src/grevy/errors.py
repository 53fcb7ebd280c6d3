"""The error tree: what can go wrong, and with which exit code the command line ends.

::

    GrevyError
      DataError(ValueError)            recording, label or file is not what was promised     2
      ConfigError(ValueError)          a setting is outside its allowed values               2
      FormatError(OSError)             a saved model cannot be read                          2
      UnsafeFileError(OSError)         a file points outside itself or asks to run code      2
      LimitError(MemoryError)          more memory needed than there is or was allowed       2
      MissingExtraError(ImportError)   an optional dependency is absent; names the extra     2
      DivergedError(ArithmeticError)   training produced a non-finite loss                   3
      LockedError(OSError)             another process holds the output folder               3
      NetworkError(OSError)            DANDI cannot be reached or answered wrongly           4

Any other error of a command is a fault in grevy: 70. One that a signal ended: 128 and its number.

Every message is one sentence of the same form: what must hold, what was found (where: file, object
path, sample), and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class GrevyError(Exception):
    """The parent of every error that grevy raises on purpose."""

    exit_code: int = 2


class DataError(GrevyError, ValueError):
    """A recording, label or file is not what was promised."""


class ConfigError(GrevyError, ValueError):
    """A setting is outside its allowed values."""


class FormatError(GrevyError, OSError):
    """A saved model or run cannot be read."""


class UnsafeFileError(GrevyError, OSError):
    """A file points outside itself or asks to run code."""


class LimitError(GrevyError, MemoryError):
    """More memory is needed than there is, or than was allowed."""


class MissingExtraError(GrevyError, ImportError):
    """An optional dependency is absent; the message names the extra to install."""


class DivergedError(GrevyError, ArithmeticError):
    """Training produced a loss that is not finite.

    Attributes
    ----------
    run : Run or None
        The first run that diverged, with the last weights whose loss is known to be finite; None
        where there are none. `grevy.resume` goes on from it with other settings.
    runs : tuple of Run or None
        All runs that were asked for, in order, trained to their end; None where one diverged.
    """

    exit_code = 3

    def __init__(self, message: str, *, run: Any = None, runs: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.run, self.runs = run, tuple(runs)


class LockedError(GrevyError, OSError):
    """Another process holds the output folder."""

    exit_code = 3


class NetworkError(GrevyError, OSError):
    """DANDI cannot be reached, or answered wrongly."""

    exit_code = 4
