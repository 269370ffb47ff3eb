"""The ledger: what may have reached whom, as they were then, and whether it was this body."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest

from tests.support.hospital import PATIENCE, Hospital
from tests.support.partner import Partner, partner, status
from tests.support.rows import EVERYTHING
from tests.web.serving import Api, running
from tests.web.test_problems import check_problem
from tests.web.world import post
from webhook_gateway.operations import disclosures
from webhook_gateway.rules import ids
from webhook_gateway.rules.scopes import OF_A_SUBSCRIBER
from webhook_gateway.store import configuration
from webhook_gateway.store import disclosures as stored
from webhook_gateway.store.reports import first_id

PATIENT = "zzcanary-patient-0815"
TYPE = "payment.processed"
FINISHED = "SELECT FROM finished_deliveries"
LONG_AGO = """
WITH delivery AS (
    INSERT INTO finished_deliveries (id, tenant_id, endpoint_id, event_id, type, sequence, attempt, state, created_at)
    VALUES ($1, $2, $3, $4, 'payment.processed', 1, 1, 'delivered', $5)
)
INSERT INTO attempts (delivery_id, id, tenant_id, attempt, started_at, duration, phase, outcome, status, revision)
VALUES ($1, $1, $2, 1, $5, 0.1, 'answered', 'accepted', 200, 1)
"""
RECORDED = "SELECT * FROM endpoint_revisions WHERE endpoint_id = $1 ORDER BY revision"


@pytest.fixture
async def api(database_url: str) -> AsyncIterator[Api]:
    """One that sends to partners on this machine."""
    async with running(database_url, development=True) as found:
        yield found


@pytest.fixture
async def officer(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with await api.as_client("disclosures:read", "patients:search", "payload:read", "audit:read") as http:
        yield http


async def accept(admin: httpx.AsyncClient, patient: str = PATIENT) -> str:
    data = (await admin.get(f"/v1/event-types/{TYPE}")).json()["example"]
    event_id: str = (await post(admin, "/v1/events", {"type": TYPE, "data": data, "patient": patient}))["id"]
    return event_id


async def subscribe(admin: httpx.AsyncClient, there: Partner, name: str = "Insurer", **columns: Any) -> dict[str, Any]:
    subscriber = await post(admin, "/v1/subscribers", {"name": name, **EVERYTHING})
    new = {"subscriber_id": subscriber["id"], "url": there.url(), "event_types": [TYPE], **columns}
    return {"subscriber": subscriber["id"], **await post(admin, "/v1/endpoints", new)}


async def search(http: httpx.AsyncClient, **asked: Any) -> list[dict[str, Any]]:
    """All pages of it."""
    items: list[dict[str, Any]] = []
    while True:
        page = await post(http, "/v1/disclosures/search", asked)
        items += page["items"]
        if page["next_cursor"] is None:
            return items
        asked["cursor"] = page["next_cursor"]


async def test_a_patients_disclosures_say_who_got_what_and_how_far_it_got(
    hospital: Hospital, admin: httpx.AsyncClient, officer: httpx.AsyncClient
) -> None:
    async with partner() as taker, partner(otherwise=status(500)) as refuser:
        await subscribe(admin, taker, "Takes it")
        await subscribe(admin, refuser, "Refuses it", schedule=[1])
        away = await subscribe(admin, taker, "Away", url="http://127.0.0.1:1/hook", schedule=[])
        event_id = await accept(admin)
        await accept(admin, "another patient")
        async with hospital.worker():
            await hospital.until("SELECT FROM attempts WHERE status = 500 OFFSET 3")
            await hospital.until("SELECT FROM attempts WHERE status = 200 OFFSET 1")
            await hospital.until("SELECT FROM attempts WHERE phase <> 'answered' OFFSET 1")
    found = await search(officer, patient=PATIENT)
    told = sorted((one["subscriber"], one["reached"], one["times"], one["status"], one["attempt"]) for one in found)
    assert told == [
        ("Refuses it", "possible", 1, 500, 1),
        ("Refuses it", "possible", 1, 500, 2),
        ("Takes it", "confirmed", 1, 200, 1),
    ]
    assert away["id"] not in {one["endpoint_id"] for one in found}, "what did not leave is no disclosure"
    assert {(one["event_id"], one["event_type"], one["content"]) for one in found} == {(event_id, TYPE, "full")}
    assert {one["host"] for one in found} == {f"127.0.0.1:{there.port}" for there in (taker, refuser)}


async def test_the_recipient_is_told_as_it_was_then(
    hospital: Hospital, api: Api, admin: httpx.AsyncClient, officer: httpx.AsyncClient
) -> None:
    async with partner() as first, partner() as second:
        endpoint = await subscribe(admin, first, "Before")
        async with hospital.worker() as worker:
            await accept(admin)
            await first.got()
            thinner = {"name": "After", "content": {"level": "fields", "pointers": ["/payment_id"]}}
            await admin.patch(f"/v1/subscribers/{endpoint['subscriber']}", json=thinner)
            moved = await admin.patch(f"/v1/endpoints/{endpoint['id']}", json={"url": second.url("/x?token=secret")})
            assert moved.is_success, moved.text
            async with api.database.connection() as connection:
                version = await configuration.version(connection)
            async with asyncio.timeout(PATIENCE):
                while worker._registry.snapshot.version < version:  # noqa: ASYNC110 - a worker gives no signal
                    await asyncio.sleep(0.01)
            await accept(admin)
            await second.got()
    for path in (f"/v1/endpoints/{endpoint['id']}", f"/v1/subscribers/{endpoint['subscriber']}"):
        assert (await admin.delete(path)).is_success
    found = await search(officer, subscriber_id=endpoint["subscriber"])
    told = [(one["subscriber"], one["host"], one["content"], one["pointers"]) for one in found]
    assert told[-1] == ("Before", f"127.0.0.1:{first.port}", "full", None)
    assert told[0] == ("After", f"127.0.0.1:{second.port}", "fields", ["/payment_id"])
    assert "secret" not in json.dumps(found)


async def test_every_change_of_what_goes_where_is_a_revision_that_stays(api: Api, admin: httpx.AsyncClient) -> None:
    subscriber = await post(admin, "/v1/subscribers", {"name": "Insurer", **EVERYTHING})
    new = {"subscriber_id": subscriber["id"], "url": "https://one.example.com/in"}
    endpoint = await post(admin, "/v1/endpoints", new)
    paths = (f"/v1/endpoints/{endpoint['id']}", f"/v1/subscribers/{subscriber['id']}")
    changes: list[tuple[int, dict[str, Any], bool]] = [
        (0, {"url": "https://two.example.com/in"}, True),
        (0, {"url": "https://two.example.com/elsewhere?k=1"}, False),
        (0, {"event_types": ["payment.*"]}, True),
        (0, {"content": "thin"}, True),
        (0, {"filter": {"payment_id": ["p_1"]}}, True),
        (0, {"slots": 3, "description": "of no importance"}, False),
        (1, {"name": "Insurer, renamed"}, True),
        (1, {"content": {"level": "fields", "pointers": ["/payment_id"]}}, True),
        (1, {"event_types": ["payment.*"]}, True),
        (1, {"description": "of no importance"}, False),
        (0, {"url": "https://one.example.com/in"}, True),
    ]
    endpoint_id = ids.parse(ids.ENDPOINT, endpoint["id"])
    async with api.database.connection() as connection:
        for which, given, counts in changes:
            before = await connection.fetch(RECORDED, endpoint_id)
            changed = await admin.patch(
                paths[which], json={**given, "cancel_open": True} if "event_types" in given else given
            )
            assert changed.is_success, changed.text
            after = await connection.fetch(RECORDED, endpoint_id)
            assert (after[: len(before)], len(after) - len(before)) == (before, counts), given
        assert [row["revision"] for row in after] == list(range(1, len(after) + 1))
        assert after[-1]["host"] == "one.example.com"
        for statement in ("UPDATE endpoint_revisions SET host = ''", "DELETE FROM endpoint_revisions"):
            with pytest.raises(asyncpg.RaiseError):
                await connection.execute(statement)


async def test_nothing_is_sent_by_what_is_not_recorded_whoever_changed_it(hospital: Hospital) -> None:
    async with partner() as there:
        endpoint_id = await hospital.endpoint(url=there.url())
        async with hospital.worker():
            await hospital.post()
            await hospital.until("SELECT FROM attempts")
            # As the version before does it, or somebody by hand.
            await hospital.rows("UPDATE subscribers SET name = 'By hand'")
            await hospital.rows("UPDATE configuration SET version = version + 1")
            await hospital.until("SELECT FROM endpoint_revisions WHERE subscriber = 'By hand'")
            await hospital.post()
            rows = await hospital.until("SELECT revision FROM attempts ORDER BY started_at OFFSET 1")
    recorded = await hospital.rows(RECORDED, endpoint_id)
    assert [row["subscriber"] for row in recorded] == ["Laboratory", "By hand"]
    assert rows[0]["revision"] in (1, 2)


async def test_a_body_or_its_hash_is_verified_and_one_byte_more_is_another(
    hospital: Hospital, api: Api, admin: httpx.AsyncClient, officer: httpx.AsyncClient
) -> None:
    async with partner() as whole, partner() as cut:
        await subscribe(admin, whole, "All")
        fields = {"level": "fields", "pointers": ["/payment_id"]}
        await subscribe(admin, cut, "Some", content=fields)
        event_id = await accept(admin)
        async with hospital.worker():
            await hospital.until(f"{FINISHED} OFFSET 1")
    bodies = {"All": whole.received[0].body, "Some": cut.received[0].body}
    for name, body in bodies.items():
        by_hash = {"event_id": event_id, "digest": hashlib.sha256(body).hexdigest()}
        for given in ({"body": body.decode()}, by_hash):
            found = (await post(officer, "/v1/disclosures/verify", given))["items"]
            assert {one["subscriber"]: one["matches"] for one in found} == {n: n == name for n in bodies}
    found = (await post(officer, "/v1/disclosures/verify", {"body": bodies["All"].decode() + " "}))["items"]
    assert [one["matches"] for one in found] == [False, False]
    async with api.database.connection() as connection:
        await connection.execute(
            "UPDATE attempts SET body_digest = set_byte(body_digest, 0, get_byte(body_digest, 0) # 1)"
        )
    found = (await post(officer, "/v1/disclosures/verify", {"body": bodies["All"].decode()}))["items"]
    assert [one["matches"] for one in found] == [False, False], "what was changed here does not match"
    stored = await hospital.rows("SELECT body_digest FROM attempts")
    assert not {bytes(row["body_digest"]) for row in stored} & {hashlib.sha256(b).digest() for b in bodies.values()}


async def test_of_before_the_ledger_no_hash_and_no_revision_is_made_up(
    hospital: Hospital, admin: httpx.AsyncClient, officer: httpx.AsyncClient
) -> None:
    async with partner() as there:
        await subscribe(admin, there)
        event_id = await accept(admin)
        async with hospital.worker():
            await hospital.until(FINISHED)
    await hospital.rows("UPDATE attempts SET revision = NULL, body_digest = NULL")
    body = there.received[0].body.decode()
    (one,) = (await post(officer, "/v1/disclosures/verify", {"event_id": event_id, "body": body}))["items"]
    assert (one["reached"], one["revision"], one["body_hash"], one["matches"]) == ("confirmed", None, None, None)
    assert one["subscriber"] == "Insurer"


async def test_a_lease_that_ended_without_a_word_may_have_been_a_disclosure(
    hospital: Hospital, admin: httpx.AsyncClient, officer: httpx.AsyncClient
) -> None:
    async with partner() as there:
        endpoint = await subscribe(admin, there)
        event_id = await accept(admin)
        await hospital.fan_out()
        endpoint_id = ids.parse(ids.ENDPOINT, endpoint["id"])
        for _ in range(2):
            assert await hospital.claim(endpoint_id, lease=0)
        (lost,) = await search(officer, event_id=event_id)
        assert (lost["reached"], lost["recorded"], lost["times"], lost["host"]) == (
            "possible", False, 4, f"127.0.0.1:{there.port}",
        )  # fmt: skip
        assert lost["at"] <= lost["latest"]
        async with hospital.worker():
            await hospital.until(FINISHED)
    told = [(one["reached"], one["recorded"], one["times"]) for one in await search(officer, event_id=event_id)]
    assert sorted(told) == [("confirmed", True, 1), ("possible", False, 4)]


async def test_neither_an_extra_attempt_nor_one_that_did_not_count_hides_one_that_was_lost(
    hospital: Hospital, admin: httpx.AsyncClient, officer: httpx.AsyncClient
) -> None:
    async with partner(status(500)) as there:
        endpoint = await subscribe(admin, there, schedule=[3_600.0] * 9)
        event_id = await accept(admin)
        async with hospital.worker():
            await hospital.until("SELECT FROM attempts")
            await hospital.until("SELECT FROM deliveries WHERE lease_id IS NULL AND due_at > now()")
        (waiting,) = await hospital.rows("SELECT id FROM deliveries")
        await admin.post(f"/v1/deliveries/{ids.render(ids.DELIVERY, waiting['id'])}/try-now")
        assert await hospital.claim(ids.parse(ids.ENDPOINT, endpoint["id"]), lease=0)
        async with hospital.worker():
            await hospital.until(FINISHED)
    told = sorted(
        (one["recorded"], one["status"] or 0, one["times"]) for one in await search(officer, event_id=event_id)
    )
    assert told == [(False, 0, 2), (True, 200, 1), (True, 500, 1)]


async def test_one_that_is_cancelled_after_its_worker_was_lost_is_told(
    hospital: Hospital, admin: httpx.AsyncClient, officer: httpx.AsyncClient
) -> None:
    async with partner() as there:
        endpoint = await subscribe(admin, there)
        event_id = await accept(admin)
        await hospital.fan_out()
        (lost,) = await hospital.claim(ids.parse(ids.ENDPOINT, endpoint["id"]), lease=0)
    path = f"/v1/deliveries/{ids.render(ids.DELIVERY, lost.id)}/cancel"
    assert (await admin.post(path)).is_success
    (one,) = await search(officer, event_id=event_id)
    assert (one["reached"], one["recorded"], one["times"]) == ("possible", False, 2)


async def test_a_body_that_was_fetched_is_told_with_who_fetched_it_and_how_often(
    hospital: Hospital, api: Api, admin: httpx.AsyncClient, officer: httpx.AsyncClient
) -> None:
    async with partner() as there:
        endpoint = await subscribe(admin, there, "Asks for the rest")
        event_id = await accept(admin)
        async with hospital.worker():
            await hospital.until(FINISHED)
    subscriber_id = ids.parse(ids.SUBSCRIBER, endpoint["subscriber"])
    async with await api.as_client(*OF_A_SUBSCRIBER, "payload:read", subscriber_id=subscriber_id) as theirs:
        for _ in range(2):
            body = (await theirs.get(f"/v1/events/{event_id}/payload")).content
    assert (await officer.get(f"/v1/events/{event_id}/payload")).is_success
    for asked in ({"patient": PATIENT}, {"event_id": event_id}, {"subscriber_id": endpoint["subscriber"]}):
        fetched = [one for one in await search(officer, **asked) if one["reached"] == "fetched"]
        told = [(one["subscriber"], one["times"], one["event_id"], one["content"]) for one in fetched]
        ours = [] if "subscriber_id" in asked else [(None, 1, event_id, None)]
        assert told == [("Asks for the rest", 2, event_id, "full"), *ours]
        assert all(one["fetched_by"].startswith("key_") for one in fetched)
    found = (await post(officer, "/v1/disclosures/verify", {"body": body.decode()}))["items"]
    assert [one["matches"] for one in found] == [True, True, True]


async def test_pages_hold_everything_once(
    hospital: Hospital, admin: httpx.AsyncClient, officer: httpx.AsyncClient
) -> None:
    async with partner() as one, partner() as other:
        endpoint = await subscribe(admin, one, "One")
        await subscribe(admin, other, "Other")
        for _ in range(7):
            await accept(admin)
        async with hospital.worker():
            await hospital.until(f"{FINISHED} OFFSET 13")
    for asked, count in (({"patient": PATIENT}, 14), ({"subscriber_id": endpoint["subscriber"]}, 7)):
        whole = await search(officer, **asked)
        assert len(whole) == count
        for limit in (1, 3, count):
            assert await search(officer, **asked, limit=limit) == whole
    now = datetime.now(UTC)
    assert await search(officer, patient=PATIENT, to=(now - timedelta(hours=1)).isoformat()) == []
    assert len(await search(officer, patient=PATIENT, **{"from": (now - timedelta(hours=1)).isoformat()})) == 14


async def test_a_table_is_csv_without_formulas(
    hospital: Hospital, admin: httpx.AsyncClient, officer: httpx.AsyncClient
) -> None:
    async with partner() as there:
        await subscribe(admin, there, '=cmd|"calc"!A1, "Ltd"')
        for _ in range(2):
            await accept(admin)
        async with hospital.worker():
            await hospital.until(f"{FINISHED} OFFSET 1")
    asked = {"patient": PATIENT, "limit": 1}
    first = await officer.post("/v1/disclosures/search", json=asked, headers={"Accept": "text/csv"})
    assert first.headers["content-type"].startswith("text/csv")
    asked["cursor"] = first.headers["next-cursor"]
    second = await officer.post("/v1/disclosures/search", json={**asked, "format": "csv"})
    assert "next-cursor" not in second.headers
    for response in (first, second):
        (row,) = csv.DictReader(response.text.splitlines())
        assert row["subscriber"] == '\'=cmd|"calc"!A1, "Ltd"'
        assert (row["reached"], row["host"]) == ("confirmed", f"127.0.0.1:{there.port}")


async def test_a_search_is_audited_by_a_hash_and_never_by_the_id(api: Api, officer: httpx.AsyncClient) -> None:
    await search(officer, patient=PATIENT)
    await search(officer, patient=PATIENT)
    entries = (await officer.get("/v1/audit")).json()["items"]
    assert [entry["action"] for entry in entries] == ["disclosures.searched"] * 2
    assert len({entry["target"] for entry in entries}) == 1
    assert PATIENT not in json.dumps(entries)
    assert hashlib.sha256(PATIENT.encode()).hexdigest()[:32] not in json.dumps(entries)


@pytest.mark.parametrize(
    ("path", "asked", "pointer"),
    [
        ("search", {}, ""),
        ("search", {"patient": PATIENT, "event_id": "evt_01h455vb4pex5vsknk084sn02q"}, ""),
        ("search", {"patient": ""}, "/patient"),
        ("search", {"patient": PATIENT, "from": "2026-11-02T00:00:00Z", "to": "2026-11-01T00:00:00Z"}, ""),
        ("search", {"patient": PATIENT, "from": "yesterday"}, "/from"),
        ("search", {"patient": PATIENT, "format": "xlsx"}, "/format"),
        ("search", {"patient": PATIENT, "cursor": "AAAA"}, None),
        ("search", {"event_id": PATIENT}, "/event_id"),
        ("verify", {"event_id": "evt_01h455vb4pex5vsknk084sn02q"}, ""),
        ("verify", {"body": PATIENT}, "/event_id"),
        ("verify", {"body": f'{{"id": "{PATIENT}"}}'}, "/event_id"),
        ("verify", {"digest": hashlib.sha256(b"").hexdigest()}, "/event_id"),
        ("verify", {"digest": PATIENT}, "/digest"),
    ],
)
async def test_what_cannot_be_asked_is_refused_and_not_repeated(
    officer: httpx.AsyncClient, path: str, asked: dict[str, Any], pointer: str | None
) -> None:
    response = await officer.post(f"/v1/disclosures/{path}", json=asked)
    (fault,) = check_problem(response, 422, "invalid-request")["errors"]
    assert fault.get("pointer") == pointer
    assert PATIENT not in response.text


async def test_of_too_much_one_is_told_to_ask_for_less(
    admin: httpx.AsyncClient, officer: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        await accept(admin)
    monkeypatch.setattr(disclosures, "MOST_EVENTS", 2)
    response = await officer.post("/v1/disclosures/search", json={"patient": PATIENT})
    (fault,) = check_problem(response, 422, "invalid-request")["errors"]
    assert (fault["pointer"], fault["rule"]) == ("/from", "too_many")


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What pages of deliveries are asked for."""
    looked: list[Any] = []

    async def counted(*given: Any, **how: Any) -> Any:
        looked.append(given)
        return await page(*given, **how)

    page = stored.page
    monkeypatch.setattr(stored, "page", counted)
    return looked


async def test_years_before_an_event_are_not_looked_through(
    api: Api, admin: httpx.AsyncClient, officer: httpx.AsyncClient, looked: list[Any]
) -> None:
    event_id = await accept(admin)
    for asked in ({"event_id": event_id}, {"patient": PATIENT}, {"patient": "nobody"}):
        looked.clear()
        assert await search(officer, **asked) == []
        assert len(looked) <= 3, "two months ahead, and one of clocks that differ"


async def test_years_in_which_a_partner_or_an_event_had_nothing_are_not_looked_through(
    api: Api, admin: httpx.AsyncClient, officer: httpx.AsyncClient, looked: list[Any]
) -> None:
    async with partner() as there:
        endpoint = await subscribe(admin, there)
    of_it = {"subscriber_id": endpoint["subscriber"]}
    assert await search(officer, **of_it) == []
    assert len(looked) == 1
    made = datetime.now(UTC) - timedelta(days=1_500)
    event_id = first_id(made - timedelta(days=300))
    async with api.database.connection() as connection:
        endpoint_id = ids.parse(ids.ENDPOINT, endpoint["id"])
        await connection.execute(LONG_AGO, first_id(made), api.tenant_id, endpoint_id, event_id, made)
    for asked in (of_it, {"event_id": ids.render(ids.EVENT, event_id)}):
        looked.clear()
        (entry,) = await search(officer, **asked)
        assert entry["reached"] == "confirmed"
        assert len(looked) == 3, "what is to come, that time, and what was before"


async def test_an_id_of_no_time_at_all_finds_nothing(officer: httpx.AsyncClient) -> None:
    for suffix in ("7zzzzzzzzzzzzzzzzzzzzzzzzz", "00000000000000000000000000"):
        assert await search(officer, event_id=f"evt_{suffix}") == []
        assert await search(officer, subscriber_id=f"sub_{suffix}") == []


async def test_to_look_for_a_patient_takes_the_scope_for_that_too(api: Api) -> None:
    async with await api.as_client("admin") as http:
        refused = await http.post("/v1/disclosures/search", json={"patient": PATIENT})
        assert "patients:search" in check_problem(refused, 403, "forbidden")["detail"]
        assert await search(http, event_id="evt_01h455vb4pex5vsknk084sn02q") == []


async def test_no_partners_key_sees_any_of_it(hospital: Hospital, api: Api, admin: httpx.AsyncClient) -> None:
    async with partner() as there:
        endpoint = await subscribe(admin, there)
        event_id = await accept(admin)
        async with hospital.worker():
            await hospital.until(FINISHED)
    subscriber_id: UUID = ids.parse(ids.SUBSCRIBER, endpoint["subscriber"])
    theirs = ("disclosures:read", *OF_A_SUBSCRIBER)
    async with await api.as_client(*theirs, subscriber_id=subscriber_id) as http:
        for path, asked in (("search", {"event_id": event_id}), ("verify", {"event_id": event_id, "body": "{}"})):
            check_problem(await http.post(f"/v1/disclosures/{path}", json=asked), 403, "forbidden")
