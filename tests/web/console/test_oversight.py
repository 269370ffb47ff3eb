"""Audit, API keys, disclosures and sessions at the console: found by who, what and when, and taken away as files."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import httpx
import pytest

from tests.support.hospital import Hospital
from tests.support.partner import partner
from tests.web.console.people import Person, text_of
from tests.web.serving import Api
from tests.web.test_disclosures import FINISHED, PATIENT, TYPE, accept, subscribe
from tests.web.world import World
from webhook_gateway.crypto.audit_chain import check_export
from webhook_gateway.operations import audit


async def test_the_audit_log_is_filtered_by_actor_target_and_time(somebody: Any, world: World) -> None:
    person: Person = await somebody("admin")
    await person.do(f"/endpoints/{world.endpoint_id}/pause", reason="certificate change")
    page = await person.see(f"/audit?target={world.endpoint_id}")
    assert "endpoint.paused" in page
    assert "subscriber.created" not in page
    actor = page.partition("/console/audit?target=")[2].partition("actor=key_")[2][:26]
    assert "endpoint.paused" in await person.see(f"/audit?actor=key_{actor}")
    assert "No entries here" in await person.see("/audit?actor=key_nobody")
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert "No entries here" in await person.see(f"/audit?since={tomorrow:%Y-%m-%dT%H:%M}")
    assert "endpoint.paused" in await person.see(f"/audit?until={tomorrow:%Y-%m-%dT%H:%M}")
    await person.see("/audit?since=yesterday", 422)


async def test_who_did_it_is_called_by_the_name_of_the_key(somebody: Any) -> None:
    person: Person = await somebody("admin")
    await person.do("/partners/new", name="Central laboratory", content="thin")
    entry = (await person.see("/audit")).partition("subscriber.created")[0].rpartition("<tr>")[2]
    assert "a test" in text_of(f"<main{entry}"), "the name of the key, before its id"


async def test_the_whole_audit_log_is_taken_away_signed_as_the_command_line_writes_it(
    somebody: Any, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "ENTRIES", 2)
    person: Person = await somebody("audit:read")
    answer = await person.do("/audit/export", do="jsonl", target=world.endpoint_id)
    assert answer.headers["content-disposition"] == 'attachment; filename="audit.jsonl"'
    assert answer.headers["cache-control"] == "no-store"
    lines = answer.text.splitlines()
    found = check_export(lines, json.loads(lines[-1])["key"])
    assert found.problem is None
    assert found.sequence == len(lines) - 1 > 4
    lines.pop(1)
    assert check_export(lines, None).broken_at == 2


async def test_what_is_filtered_of_the_audit_log_is_taken_away_as_csv(
    api: Api, somebody: Any, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "ENTRIES", 2)
    person: Person = await somebody("admin")
    for reason in ("one", "two", "=cmd()"):
        await person.do(f"/endpoints/{world.endpoint_id}/pause", reason=reason)
        await person.do(f"/endpoints/{world.endpoint_id}/resume")
    answer = await person.do("/audit/export", do="csv", target=world.endpoint_id)
    assert answer.headers["content-disposition"] == 'attachment; filename="audit.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["action"] for row in rows].count("endpoint.paused") == 3
    assert {row["target"] for row in rows} == {world.endpoint_id}
    sequences = [int(row["sequence"]) for row in rows]
    assert sequences == sorted(set(sequences), reverse=True)
    async with api.database.connection() as connection:
        count = await connection.fetchval("SELECT count(*) FROM audit_log WHERE target = $1", world.endpoint_id)
    assert len(rows) == count
    assert json.loads(rows[-1]["after"])["url"]
    refused = await person.do("/audit/export", do="csv", since="yesterday")
    assert refused.status_code == 422


async def test_a_key_says_by_whom_and_when_it_was_made(somebody: Any) -> None:
    person: Person = await somebody("admin")
    await person.do("/keys/new", name="night shift", role="operator", days="30")
    row = (await person.see("/keys")).partition("night shift")[2].partition("</tr>")[0]
    told = text_of(f"<main{row}")
    assert "live until" in told
    assert "never" in told, "it was not used yet"
    found = re.search(r'href="/console(/audit[^"]*)"', row)
    assert found is not None
    page = await person.see(found[1])
    assert "key.created" in page
    assert "operator" in page


async def test_a_body_is_checked_against_what_was_sent(
    hospital: Hospital, api: Api, somebody: Any, admin: httpx.AsyncClient
) -> None:
    async with partner() as there:
        await subscribe(admin, there)
        async with hospital.worker():
            event_id = await accept(admin)
            sent = (await there.got())[0].body.decode()
            await hospital.until(FINISHED)
            await hospital.until("SELECT FROM attempts")
    person: Person = await somebody("disclosures:read", "patients:search", "audit:read")
    said = await person.do("/disclosures/check", body=sent)
    assert "Exactly this body was sent" in text_of(said.text)
    assert "exactly this" in said.text
    said = await person.do("/disclosures/check", body=f"{sent} x", event_id=event_id)
    assert "nothing is this body" in text_of(said.text)
    refused = await person.do("/disclosures/check", digest="0" * 64)
    assert refused.status_code == 422
    assert "Give the event's id" in text_of(unescape(refused.text))
    assert (await person.do("/disclosures/check", event_id=event_id)).status_code == 422
    for asked in ({"patient": PATIENT}, {"event_id": event_id}):
        ledger = await person.do("/disclosures", **asked, do="search")
        assert TYPE in text_of(ledger.text)
        assert "Insurer" in text_of(ledger.text)
    log = await person.see("/audit")
    assert "disclosures.searched" in log, "the check, too"
    assert PATIENT not in log
    table = await person.do("/disclosures", patient=PATIENT, do="csv")
    assert [row["event_id"] for row in csv.DictReader(io.StringIO(table.text))] == [event_id]


async def test_sessions_are_ended_one_by_one_or_all_at_once(somebody: Any) -> None:
    boss: Person = await somebody("admin")
    others: list[Person] = [await somebody("audit:read") for _ in range(3)]
    listed = await boss.see("/sessions")
    assert listed.count('/end"') == 5, "four of them, and all"
    mine = (await others[0].see("/sessions")).partition("this one")[0].rpartition("ses_")[2][:26]
    assert (await boss.do(f"/sessions/ses_{mine}/end")).status_code == 303
    assert (await others[0].get("/console/audit")).status_code == 303
    await others[1].see("/audit")
    assert (await others[1].do("/sessions/end")).status_code == 303, "all of one's own key"
    assert (await others[1].get("/console/audit")).status_code == 303
    await others[2].see("/audit")
    await boss.do("/sessions/end")
    for person in (boss, *others):
        assert (await person.get("/console/sessions")).status_code == 303
