"""How commands end where something is wrong: one line, and a number that says what kind it is."""

from __future__ import annotations

import io
import logging
import re
import sys
from typing import Any

import pytest

from grevy import model_cli
from grevy.cli import app, main
from grevy.errors import DataError


def _raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """A command line on which every command ends with an error."""

    def broken(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(type(app), "__call__", broken)


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (TypeError("'int' has\nno len"), 70, r"a fault in grevy.*TypeError: 'int' has\\nno len\)"),
        (KeyError(), 70, r"a fault in grevy.*\(KeyError\)\. GREVY_TRACEBACK=1"),
        (RecursionError("x" * 10**6), 70, "RecursionError: xxx"),
        (MemoryError(), 2, r"must fit in memory; it did not \(MemoryError\)"),
        (RuntimeError("can't allocate memory: 9 bytes"), 2, "must fit in memory"),
    ],
)
def test_what_nobody_foresaw_is_one_line_and_seen_whole_where_it_is_asked_for(
    error: Exception, code: int, says: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    _raising(monkeypatch, error)
    with pytest.raises(SystemExit) as left:
        main([])
    said = capsys.readouterr().err
    assert left.value.code == code
    assert re.search(says, said), said
    assert (said.count("\n"), said[:7]) == (1, "grevy: ")
    assert len(said) < 1000
    monkeypatch.setenv("GREVY_TRACEBACK", "1")
    with pytest.raises(type(error)):
        main([])


@pytest.mark.parametrize(
    "error", [DataError("no label 'a\ngrevy: all is well'"), OSError(2, "absent", "a\ngrevy: b")]
)
def test_a_name_of_two_lines_makes_no_line_that_looks_like_ours(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _raising(monkeypatch, error)
    with pytest.raises(SystemExit):
        main([])
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "a\\ngrevy: " in said
    monkeypatch.undo()
    model_cli.narrate()
    logging.getLogger("grevy").info("label 'a\ngrevy: all is well'")
    assert capsys.readouterr().err == "label 'a\\ngrevy: all is well'\n"


def test_a_terminal_that_lacks_letters_is_shown_their_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    monkeypatch.setattr(type(app), "__call__", lambda *_, **__: sys.stdout.write("ünï ☃ \udcff"))
    main([])
    sys.stdout.flush()
    assert sys.stdout.buffer.getvalue() == b"\\xfcn\\xef \\u2603 \\udcff"  # type: ignore[attr-defined]
