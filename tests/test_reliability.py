"""Promises stand on tests that exist, and what pytest wrote down is counted right."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import reliability
from reliability import PROMISES, Count, Promise

TOLD = """<testsuites><testsuite>
<testcase classname="tests.test_a" name="test_x[1]"/>
<testcase classname="tests.test_a" name="test_x[2]"><failure message="no"/></testcase>
<testcase classname="tests.test_a" name="test_many">
  <properties><property name="cases" value="500"/></properties></testcase>
<testcase classname="tests.test_a" name="test_gpu"><skipped message="none"/></testcase>
</testsuite></testsuites>"""


def test_every_promise_stands_on_tests_that_are_there() -> None:
    assert [p.key for p in PROMISES] == [f"T{i}" for i in range(1, 27)]
    assert all(p.tests() for p in PROMISES)
    assert reliability.absent() == []
    gone = replace(PROMISES[0], check="store::no_such_test no_such_file::x")
    assert reliability.absent([gone]) == [
        "tests/test_store.py::test_no_such_test",
        "tests/test_no_such_file.py::test_x",
    ]


def test_cases_are_counted(tmp_path: Path) -> None:
    (tmp_path / "told.xml").write_text(TOLD)
    cases = reliability.counted(tmp_path / "told.xml")
    name = "tests/test_a.py::test_"
    assert cases == {
        f"{name}x": Count(2, 1),
        f"{name}many": Count(500, 500),
        f"{name}gpu": Count(skipped=1),
    }
    good = Promise("T1", "all is well", input="a::many", check="a::gpu")
    bad = Promise("T2", "it is not", fault="a::x", payload="a::never_ran")
    rows, sums, broken = reliability.judged([good, bad], cases)
    assert rows[0] == "| T1 | all is well | 500 | 500 | 1 | held |  |"
    assert rows[1].startswith("| T2 | it is not | 3 | 1 |  | BROKEN |")
    assert broken == ["T2"]
    said = "\n".join(reliability.summary(sums))
    assert "| faults injected | 2 |\n| survived | 1 |" in said
    assert "| bad inputs tried | 500 |\n| a value, or one clear sentence | 500 |" in said
    assert "| of these that worked | 1 |" in said


def test_lost_bytes_break_a_promise() -> None:
    lossy = Promise("T5", "x", kept=(lambda: ("fault", "said", Count(150, 0, 0, 7)),))
    rows, sums, broken = reliability.judged([lossy], {})
    assert broken == ["T5"]
    assert rows[0].endswith("| BROKEN | said |")
    assert sums["fault"].lost_bytes == 7
