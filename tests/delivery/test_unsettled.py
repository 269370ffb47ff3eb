"""Results wait for each other until there are some, or until one comes late enough; a timer is the last to ask."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any

import pytest

from webhook_gateway.delivery import unsettled
from webhook_gateway.delivery.unsettled import COMPANY, FEW, Unsettled

RECORD: Any = object()
RESULT: Any = object()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1_000.0]
    monkeypatch.setattr(unsettled, "perf_counter", lambda: now[0])
    return now


async def test_one_that_comes_late_enough_ends_the_wait_of_all(clock: list[float]) -> None:
    some = Unsettled(began=clock[0])
    for _ in range(2):
        clock[0] += COMPANY / 3
        some.add(RECORD, RESULT)
        assert not some.due.is_set()
    clock[0] += COMPANY / 2
    some.add(RECORD, RESULT)
    assert some.due.is_set()


async def test_so_does_one_that_makes_them_enough(clock: list[float]) -> None:
    some = Unsettled(began=clock[0])
    for _ in range(FEW):
        assert not some.due.is_set()
        some.add(RECORD, RESULT)
    assert some.due.is_set()


async def test_or_else_a_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsettled, "COMPANY", 0.02)
    monkeypatch.setattr(unsettled, "PATIENCE", 0.02)
    some = Unsettled(began=perf_counter())
    some.add(RECORD, RESULT)
    await asyncio.wait_for(some.due.wait(), 5)
    assert not some.wait()
