"""Work done in chunks, smaller ones where a device has no memory for those that were tried."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from .errors import LimitError

__all__ = ["in_chunks"]

_log = logging.getLogger("grevy")


def in_chunks(n: int, size: int, work: Callable[[int, int], None], *, what: str) -> None:
    """Do `work(start, stop)` for n things, some at once; half as many where memory runs out.

    Parameters
    ----------
    n, size : int
    work : callable
        Its result may not depend on the size of chunks; it is called again for one that failed.
    what : str
        The things, for messages.

    Raises
    ------
    LimitError
        If there is no memory for one of them.

    Examples
    --------
    >>> in_chunks(5, 2, lambda a, b: print(a, b), what="rows")
    0 2
    2 4
    4 5
    """
    start = 0
    while start < n:
        try:
            work(start, min(start + size, n))
        except torch.OutOfMemoryError as error:
            if size == 1:
                raise LimitError(
                    f"{what} must fit in the memory of the device one by one; not even one did. "
                    f"Free some of it, or use device 'cpu'."
                ) from error
            size = -(-size // 2)
            _log.info("out of memory on the device: %d %s at once from here on", size, what)
        else:
            start += size
            continue
        # Behind the handler, whose traceback holds on to what was taken.
        torch.cuda.empty_cache()
