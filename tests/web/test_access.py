"""Every request is counted and has a line: its route, how it ended and who asked, and nothing of what it was about."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.command_line import bare_environment, command
from tests.web.cost import MASTER_KEYS
from tests.web.serving import Api
from webhook_gateway import telemetry
from webhook_gateway.rules import ids
from webhook_gateway.store.notifications import CONFIGURATION, notify
from webhook_gateway.web.access import NAMELESS

PATIENT = "patient-4711"
UNKNOWN = "evt_01h455vb4pex5vsknk084sn02q"


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What is written as lines, as it is written."""
    telemetry.configure()
    written: list[dict[str, Any]] = []
    monkeypatch.setattr("webhook_gateway.lines._put", lambda chunk: written.extend(map(json.loads, chunk.splitlines())))
    return written


async def requests_of(lines: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(10):
        while len(found := [one for one in lines if one["message"] == "request" and "actor" in one]) < count:  # noqa: ASYNC110 - a line gives no signal
            await asyncio.sleep(0)
    return found


async def test_a_request_has_a_line_with_its_template_its_status_and_its_key(
    lines: list[dict[str, Any]], api: Api
) -> None:
    async with await api.as_client("admin", "events:write") as client:
        posted = await client.post("/v1/events", json={"type": "shift.scheduled", "data": {"shift_id": PATIENT}})
        await client.get(f"/v1/events/{UNKNOWN}?what={PATIENT}")
        await client.get(f"/v1/{PATIENT}", headers={"X-Request-Id": PATIENT})
    one, two, three = await requests_of(lines, 3)
    assert (one["method"], one["route"], one["status"]) == ("POST", "/v1/events", posted.status_code)
    assert (two["method"], two["route"], two["status"]) == ("GET", "/v1/events/{event_id}", 404)
    assert (three["method"], three["status"]) == ("GET", 404)
    assert "route" not in three
    assert "request_id" not in three  # it may say anything
    assert one["request_id"] == posted.headers["x-request-id"]
    for line in (one, two, three):
        assert line["actor"].startswith("key_")
        assert line["tenant_id"] == ids.render(ids.TENANT, api.tenant_id)
        assert line["source"] == "127.0.0.1"
        assert line["duration"] > 0
    assert PATIENT not in json.dumps(lines)


async def test_without_a_key_all_are_counted_and_few_are_written(lines: list[dict[str, Any]], api: Api) -> None:
    began = time.monotonic()
    async with api.client(None) as stranger:
        for _ in range(60):
            assert (await stranger.get("/v1/endpoints")).status_code == 401
    passed = time.monotonic() - began
    async with await api.as_client("metrics:read") as scraper:
        counted = samples((await scraper.get("/metrics")).text)
    await requests_of(lines, 1)
    written = sum(line["status"] == 401 for line in lines if line["message"] == "request")
    assert 1 <= written <= NAMELESS * (1 + passed)
    assert counted["webhook_gateway_http_requests_total", ("none", "GET", "4xx")] >= 60


async def test_requests_are_counted_by_template_method_and_class(api: Api) -> None:
    async with await api.as_client("admin", "events:write") as client:
        before = samples((await client.get("/metrics")).text)
        for _ in range(3):
            await client.get(f"/v1/events/{UNKNOWN}")
        await client.post("/v1/events/batch", content=b"[")
        after = samples((await client.get("/metrics")).text)
    counted = {
        labels: value - before.get((name, labels), 0)
        for (name, labels), value in after.items()
        if name == "webhook_gateway_http_requests_total" and value > before.get((name, labels), 0)
    }
    assert counted == {
        ("/v1/events/{event_id}", "GET", "4xx"): 3,
        ("/v1/events/batch", "POST", "4xx"): 1,
        ("/metrics", "GET", "2xx"): 1,
    }
    timed = "webhook_gateway_http_request_seconds_count", ("/v1/events/{event_id}", "GET")
    assert after[timed] - before.get(timed, 0) == 3


@pytest.fixture
async def two_processes(database_url: str, api: Api) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an API of two processes, which writes no access log."""
    key = await api.make_key("metrics:read")
    settings = {
        "DATABASE_URL": database_url,
        "WEBHOOK_GATEWAY_MASTER_KEYS": MASTER_KEYS,
        "WEBHOOK_GATEWAY_ACCESS_LOG": "false",
    }
    process = await asyncio.create_subprocess_exec(
        *command("serve", "--port", "0", "--processes", "2"),
        env=bare_environment(**settings),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    url = (await process.stderr.readline()).decode().split()[-1]
    said: list[bytes] = []
    reading = asyncio.create_task(_read(process.stderr, said))
    try:
        async with asyncio.timeout(60):
            while True:
                async with httpx.AsyncClient(base_url=url, trust_env=False) as asking:
                    with_answer = await _answer(asking)
                if with_answer:
                    break
        async with httpx.AsyncClient(base_url=url, trust_env=False, headers={"Authorization": f"Bearer {key}"}) as one:
            yield one
    finally:
        process.terminate()
        await process.wait()
        await reading
    assert b'"message":"request"' not in b"".join(said)


async def _read(source: asyncio.StreamReader, said: list[bytes]) -> None:
    async for line in source:
        said.append(line)


async def _answer(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/healthz")).is_success
    except httpx.TransportError:
        await asyncio.sleep(0.05)
        return False


@pytest.mark.slow
async def test_whichever_process_is_asked_it_shows_what_all_have_counted(two_processes: httpx.AsyncClient) -> None:
    base, key = two_processes.base_url, two_processes.headers["Authorization"]
    before = samples((await two_processes.get("/metrics")).text)
    for _ in range(40):  # each over a connection of its own, so that both processes get some
        async with httpx.AsyncClient(base_url=base, trust_env=False, headers={"Authorization": key}) as client:
            assert (await client.get("/readyz")).is_success
    after = samples((await two_processes.get("/metrics")).text)
    name = "webhook_gateway_http_requests_total", ("/readyz", "GET", "2xx")
    assert after[name] - before.get(name, 0) == 40


def samples(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    return {
        (
            sample.name,
            tuple(sample.labels[name] for name in ("route", "method", "status") if name in sample.labels),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_requests_under_way_are_counted_until_they_end(api: Api) -> None:
    async with await api.as_client("metrics:read", "endpoints:write") as client, asyncio.timeout(20):
        sending, going_on = asyncio.Event(), asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            sending.set()
            yield b"{"
            await going_on.wait()
            yield b"}"

        headers = {"Content-Type": "application/json"}
        slow = asyncio.create_task(client.post("/v1/subscribers", content=body(), headers=headers))
        await sending.wait()
        await notify(api.database, CONFIGURATION)  # makes the API count them now
        while samples((await client.get("/metrics")).text)["webhook_gateway_http_requests_in_flight", ()] < 1:
            pass
        going_on.set()
        assert (await slow).status_code == 422
        await notify(api.database, CONFIGURATION)
        while samples((await client.get("/metrics")).text)["webhook_gateway_http_requests_in_flight", ()] > 0:
            pass
