"""Spans reach a real receiver of OTLP/HTTP: an event is one trace, linked to the caller's, and tells of no patient."""

from __future__ import annotations

import asyncio
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from uuid_utils.compat import uuid7

from tests.support.command_line import bare_environment, command
from tests.support.hospital import Hospital
from tests.support.partner import Partner, partner
from webhook_gateway.host import tracing
from webhook_gateway.operations.first_start import issue_key
from webhook_gateway.rules import ids

CALLER, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PATIENT = "patient-0815"


@pytest.mark.slow
async def test_an_event_is_one_trace_from_the_hms_to_the_partners_answer(hospital: Hospital) -> None:
    async with partner() as collector, partner() as there:
        await hospital.endpoint(url=there.url())
        settings = {"WEBHOOK_GATEWAY_OTLP_ENDPOINT": collector.url("").rstrip("/")}
        _, key = await issue_key(hospital.database, hospital.vault, "hms", ["events:write"])
        async with running(hospital, settings, "serve", "--port", "0", "--processes", "1") as address:
            headers = {"Authorization": f"Bearer {key}", "traceparent": f"00-{CALLER}-{SPAN}-01"}
            async with httpx.AsyncClient(base_url=address, headers=headers, trust_env=False, timeout=60) as client:
                data = {"schedule_id": PATIENT}
                posted = [
                    await client.post("/v1/events", json={"type": "gone.wrong", "data": data}),
                    await client.post("/v1/events", json=await example(hospital)),
                    await client.post("/v1/events/batch", json={"events": [await example(hospital)]}),
                ]
            assert [answer.status_code for answer in posted] == [422, 202, 200]
        async with running(hospital, settings, "work", "--processes", "1"):
            await there.got(2)
            await hospital.until("SELECT FROM finished_deliveries HAVING count(*) = 2")
        spans = await spans_at(collector, 6)
    accepted = [posted[1].json()["id"], posted[2].json()["results"][0]["id"]]
    for event in accepted:
        trace = ids.parse(ids.EVENT, event).bytes
        ours = {span.name: span for span in spans if span.trace_id == trace}
        assert ours.keys() - {"claim"} == {"accept", "fan out", "attempt"}
        first = ours.pop("accept")
        assert not first.parent_span_id
        assert [(link.trace_id.hex(), link.span_id.hex()) for link in first.links] == [(CALLER, SPAN)]
        assert {span.parent_span_id for span in ours.values()} == {first.span_id}
        told = {one.key: one.value.string_value for one in ours["attempt"].attributes}
        assert told["webhook_gateway.outcome"] == "accepted"
        assert told["webhook_gateway.endpoint_id"].startswith("ep_")
        assert all(0 < span.start_time_unix_nano <= span.end_time_unix_nano for span in (first, *ours.values()))
    assert Counter(span.name for span in spans)["accept"] == 2
    wire = b"".join(one.body for one in collector.received)
    assert PATIENT.encode() not in wire
    assert {one.target for one in collector.received} == {"/v1/traces"}
    assert "traceparent" not in there.received[0].headers


async def example(hospital: Hospital) -> dict[str, object]:
    from webhook_gateway.intake.catalogue import Catalogue

    known = Catalogue().get(hospital.tenant_id, "lab_result.final")
    assert known is not None
    return {"type": known.name, "data": known.example, "subject": PATIENT}


async def spans_at(collector: Partner, count: int) -> list[Span]:
    """All that have come; both processes have ended, which sends what is left."""
    spans: list[Span] = []
    for one in collector.received:
        asked = ExportTraceServiceRequest.FromString(one.body)
        spans += [span for of in asked.resource_spans for within in of.scope_spans for span in within.spans]
    assert len(spans) >= count
    return spans


@asynccontextmanager
async def running(hospital: Hospital, settings: dict[str, str], *arguments: str) -> AsyncIterator[str]:
    """The last word of its first line, which for the API is where it listens. Ends in order."""
    environment = bare_environment(
        DATABASE_URL=str(hospital.settings.database_url),
        WEBHOOK_GATEWAY_MASTER_KEYS=str(hospital.settings.master_keys),
        WEBHOOK_GATEWAY_DEVELOPMENT="true",
        **settings,
    )
    process = await asyncio.create_subprocess_exec(
        *command(*arguments), env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        line = (await process.stderr.readline()).decode()
        reading = asyncio.create_task(process.stderr.read())
        yield line.split()[-1]
    finally:
        process.terminate()
        assert await process.wait() == 0
        await reading


def test_of_all_events_a_part_is_traced_and_the_same_in_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    events = [uuid7() for _ in range(4_000)]
    assert not any(map(tracing.traces, events)), "off by default"
    monkeypatch.setattr(tracing, "_tracer", object())
    chosen = {}
    for ratio in (0.0, 0.1, 0.5, 1.0):
        monkeypatch.setattr(tracing, "_below", ratio)
        chosen[ratio] = {event for event in events if tracing.traces(event)}
        assert len(chosen[ratio]) == pytest.approx(ratio * len(events), abs=250)
    assert chosen[0.1] < chosen[0.5] < chosen[1.0]
