"""A worker that comes to nothing, whatever is due, says so and ends; one whose database is away does neither."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import httpx
import pytest

from tests.support.hospital import Hospital
from tests.support.partner import partner
from webhook_gateway import telemetry
from webhook_gateway.delivery import current
from webhook_gateway.delivery import worker as module
from webhook_gateway.host import health, loop
from webhook_gateway.host.loop import Loop
from webhook_gateway.store.database import DatabaseUnavailable


async def test_a_worker_whose_claims_hang_ends_in_order_so_that_it_is_started_again(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in {"HOPELESS": 3.0, "LOOK": 0.05, "SETTLING": 0.5}.items():
        monkeypatch.setattr(module, name, seconds)
    monkeypatch.setattr(current, "HEARTBEAT", 0.2)
    told: list[list[str]] = []
    monkeypatch.setattr(telemetry, "worker_stuck", told.append)
    async with partner() as there:
        await hospital.endpoint(url=there.url())
        async with hospital.worker() as worker:
            await hospital.post()
            await there.got(1)
            assert worker.stuck() == []
            claim = next(one for one in worker._stages if one.stage == "claim")
            monkeypatch.setattr(claim, "_poll", asyncio.Event().wait)
            claim.wake.set()
            async with asyncio.timeout(20):
                await worker._stopping.wait()
    assert told == [["claim"]]
    assert await hospital.count("workers") == 0  # it has signed off


@pytest.mark.parametrize(
    ("error", "ails"), [(None, False), (DatabaseUnavailable("away"), False), (ValueError("a bug"), True)]
)
async def test_a_stage_ails_by_bugs_and_not_for_want_of_a_database(
    error: Exception | None, ails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(loop, "monotonic", lambda: now)
    monkeypatch.setattr(loop, "BACKOFF", (0.0, 0.0))
    monkeypatch.setattr(telemetry, "stage_failed", lambda *_: None)
    seen = []

    async def poll() -> float:
        nonlocal now
        seen.append(stage.ailing())
        now += 100.0
        if len(seen) == 4:
            stage.stop()
        if error is not None:
            raise error
        return 0.0

    stage = Loop("claim", poll)
    await stage.run()
    assert seen == ([0.0, 100.0, 200.0, 300.0] if ails else [0.0] * 4)
    assert stage.ailing() == 0.0


async def test_a_stage_that_sleeps_is_not_stuck_however_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(loop, "monotonic", lambda: now)
    rounds = asyncio.Queue[None]()

    async def poll() -> float:
        rounds.put_nowait(None)
        return 3_600.0

    stage = Loop("stats", poll)
    running = asyncio.create_task(stage.run())
    await rounds.get()
    now += 3_000.0
    assert stage.ailing() == 0.0
    stage.wake.set()
    await rounds.get()
    assert stage.ailing() == 0.0
    stage.stop()
    await running


async def test_what_is_stuck_is_told_beside_the_metrics() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    stuck: list[str] = []
    health.show(port, lambda: stuck)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        asked: Any = await client.get("/readyz")
        assert (asked.status_code, asked.json()) == (200, {"status": "ok"})
        stuck.append("settle")
        asked = await client.get("/readyz")
        assert (asked.status_code, asked.json()) == (503, {"status": "stuck", "stages": ["settle"]})
        assert "webhook_gateway_attempts_total" in (await client.get("/metrics")).text
