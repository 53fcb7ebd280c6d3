"""Reading pickles and torch archives without running anything that they name.

A pickle is a program whose instructions may call any function it can name. Here the names are a
closed table of makers of plain data (arrays, tensors, dicts, numbers), and the instructions that
call, fill or look up anything else are replaced. What comes out holds only dicts, lists, tuples,
sets, strings, bytes, numbers, numpy arrays, dtypes, torch tensors and `Offset`.

::

    makers.py    what may be named       reader.py    the instructions
    archive.py   files of torch.save
"""

from __future__ import annotations

from .archive import LEGACY_TORCH, read_torch
from .makers import Offset
from .reader import read_pickle

__all__ = ["LEGACY_TORCH", "Offset", "read_pickle", "read_torch"]
