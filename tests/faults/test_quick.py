"""The quickest faults, so that every change meets them; `make faults` plays all of them, and longer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic

import pytest

from tests.support.pgbouncer import needs_pgbouncer, pooled
from tests.support.postgres import Server

from . import on_api, on_partners, on_workers
from .house import House, copy_code
from .report import Report
from .stage import QUICK, error_in, staged


@pytest.fixture
def house(postgres: Server, template: str, tmp_path: Path) -> House:
    return House(postgres, template, QUICK, copy_code(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        on_api.f1_kill_the_api,
        on_workers.f3_kill_workers,
        on_workers.f4_kill_workers_at_failpoints,
        on_workers.f5_terminate_workers,
        on_partners.f14_poison,
    ],
)
async def test_nothing_accepted_is_lost(house: House, fault: Callable[[House], Awaitable[Report]]) -> None:
    report = await fault(house)
    assert report.passed, report.wrong
    assert report.lost == 0
    assert report.duplicates <= report.allowed


LISTENING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN %'"


@pytest.mark.slow
@needs_pgbouncer
async def test_it_works_through_a_pooler_that_leaves_it_its_sessions(house: House) -> None:
    async with house.databases.copy(house.template) as url:
        with pooled(url, "session") as by_pooler:
            async with staged(by_pooler, QUICK, house.code) as stage:
                async with stage.load(rate=20):
                    assert await stage.value(LISTENING) >= len(stage.workers)
                    await stage.catch_up(monotonic())
                report = await stage.account(allowed=0)
    assert report.passed, report.wrong


FAIL = """
from webhook_gateway import telemetry
telemetry.configure("warning")
try:
    1 / 0
except ZeroDivisionError as problem:
    telemetry.stage_failed("claim", problem)
"""


def test_an_error_that_a_process_logs_is_seen() -> None:
    logged = subprocess.run([sys.executable, "-c", FAIL], capture_output=True, text=True, check=True).stderr
    assert error_in(logged.strip()) == "stage_failed claim ZeroDivisionError <string>:5"
    assert error_in('{"level":"warning","message":"database_unavailable"}') is None
