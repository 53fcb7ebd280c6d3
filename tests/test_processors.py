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


def test_results_come_in_order_and_do_not_depend_on_how_many_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = np.random.default_rng().standard_normal((6, 150, 150)).astype(np.float32)
    seen: list[tuple[str, int]] = []

    def work(i: int) -> np.ndarray:
        seen.append((threading.current_thread().name, torch.get_num_threads()))
        return x[i] @ x[i].T + (torch.from_numpy(x[i]) @ torch.from_numpy(x[i])).numpy()

    found, usual = [], torch.get_num_threads()
    for idle in (1, 3):
        monkeypatch.setattr(processors, "idle_processors", lambda idle=idle: idle)
        seen.clear()
        try:
            torch.set_num_threads(2)
            found.append(side_by_side(work, range(6)))
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(usual)
        assert {threads for _, threads in seen} == {1}
        assert (threading.main_thread().name in {name for name, _ in seen}) == (idle == 1)
    for i, (one, other) in enumerate(zip(*found, strict=True)):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_allclose(one, work(i), rtol=1e-3, atol=1e-3)
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
