"""Signals wait until what must be kept is kept, and no program waits for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from grevy.signals import ending_within, postponed


def test_a_signal_comes_at_the_end_of_the_block() -> None:
    done = []

    def work() -> None:
        with postponed() as stop:
            assert not stop.is_set()
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.wait(1)
            done.append("all of it")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_one_does_not_wait() -> None:
    done = []

    def work() -> None:
        with postponed():
            signal.raise_signal(signal.SIGINT)
            done.append("the first")
            signal.raise_signal(signal.SIGINT)
            done.append("the second")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["the first"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_who_ignores_signals_goes_on_ignoring_them() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with postponed() as stop:
            signal.raise_signal(signal.SIGINT)
            assert not stop.is_set()
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_hear_nothing() -> None:
    heard = []

    def work() -> None:
        with postponed() as stop, ending_within(1, say=""):
            heard.append(stop.is_set())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert heard == [False]


def test_a_program_ends_in_time_whatever_it_does() -> None:
    stubborn = (
        "import time\n"
        "from grevy.signals import ending_within\n"
        "with ending_within(0.3, say='gave up'):\n"
        "    while True:\n"
        "        try:\n"
        "            print('ready', flush=True)\n"
        "            time.sleep(60)\n"
        "        except KeyboardInterrupt:\n"
        "            pass\n"
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        with subprocess.Popen(
            [sys.executable, "-c", stubborn], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            begin = time.monotonic()
            child.send_signal(number)
            said = child.communicate(timeout=20)[1]
        assert time.monotonic() - begin < 5
        assert (child.returncode, said) == (128 + number, b"gave up\n")


def test_a_program_that_ends_by_itself_leaves_nothing_behind() -> None:
    before, threads = signal.getsignal(signal.SIGTERM), threading.active_count()
    with ending_within(0.01, say="never"):
        pass
    with pytest.raises(KeyboardInterrupt) as error, ending_within(5, say="never"):
        signal.raise_signal(signal.SIGTERM)
    assert error.value.args == (signal.SIGTERM,)
    assert signal.getsignal(signal.SIGTERM) == before
    assert threading.active_count() == threads
