"""Work side by side is what it is one by one."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest
import torch

from grevy import processors
from grevy.processors import idle_processors, side_by_side


def test_threads_leave_busy_processors_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([1000, 1000, 5000, 5000 + 10**6])
    monkeypatch.setattr(processors, "_idle_ticks", lambda: next(ticks))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert idle_processors() == 1  # nothing was idle
    assert idle_processors() == 8  # more was than there is
    monkeypatch.setattr(processors, "_idle_ticks", lambda: None)
    assert idle_processors() == 8


@pytest.mark.parametrize("idle", [1, 3])
def test_results_come_in_order_and_do_not_depend_on_how_many_work(
    idle: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processors, "idle_processors", lambda: idle)
    x = np.random.default_rng().standard_normal((6, 150, 150)).astype(np.float32)
    seen: list[tuple[str, int]] = []

    def work(i: int) -> np.ndarray:
        seen.append((threading.current_thread().name, torch.get_num_threads()))
        return x[i] @ x[i].T + (torch.from_numpy(x[i]) @ torch.from_numpy(x[i])).numpy()

    alone = [work(i) for i in range(6)]
    seen.clear()
    usual = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        found = side_by_side(work, range(6))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(usual)
    assert all(np.array_equal(a, b) for a, b in zip(found, alone, strict=True))
    assert {threads for _, threads in seen} == {1}
    assert (threading.main_thread().name in {name for name, _ in seen}) == (idle == 1)
    assert side_by_side(work, []) == []


@pytest.mark.parametrize("idle", [1, 3])
def test_an_error_ends_it_and_leaves_threads_as_they_were(
    idle: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processors, "idle_processors", lambda: idle)
    usual = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda i: 1 // (i - 2), range(50))
    assert torch.get_num_threads() == usual
