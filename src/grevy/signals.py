"""Signals that end a process: put off until what must be kept is kept, and never for long."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["ending_within", "postponed"]

_ENDS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def postponed() -> Iterator[threading.Event]:
    """Put off SIGINT and SIGTERM to the end of the block; the event says that one has come.

    What would have happened happens then: KeyboardInterrupt, or what the process has set up. A
    second signal is not put off. Only the main thread hears signals; in others nothing is done.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    came: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        if came:
            signal.signal(number, before[number])
            signal.raise_signal(number)
        came.append(number)
        stop.set()

    found = {int(n): signal.getsignal(n) for n in _ENDS}
    before = {n: how for n, how in found.items() if how not in (None, signal.SIG_IGN)}
    for number in before:
        signal.signal(number, hear)
    try:
        yield stop
    finally:
        for number, how in before.items():
            signal.signal(number, how)
    if came:
        signal.raise_signal(came[0])


@contextmanager
def ending_within(seconds: float, *, say: str) -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt as SIGINT does, and leave for good if that takes longer.

    A thread of its own waits, so that one long operation of a library cannot put it off. For
    programs; in threads other than the main one nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard, tells = socket.socketpair()
    tells.setblocking(False)

    def wait() -> None:
        while number := heard.recv(1):
            if number[0] in _ENDS:
                heard.settimeout(seconds)
                try:
                    while heard.recv(1):
                        pass
                except TimeoutError:
                    os.write(2, f"{say}\n".encode())
                    os._exit(128 + number[0])

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(number)

    before = signal.signal(signal.SIGTERM, end)
    fd = signal.set_wakeup_fd(tells.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=wait, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(fd)
        signal.signal(signal.SIGTERM, before)
        tells.close()
        watcher.join()
        heard.close()
