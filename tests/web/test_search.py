"""What a text is, and where it leads: two requests from any id or key to the event and its deliveries."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, get_args

import httpx
import pytest

from tests.support.rows import prune_aged, store_finished
from tests.web.serving import Api, running
from tests.web.test_events import GOOD
from tests.web.world import World, make_world, post
from webhook_gateway.intake.lookups import Kind
from webhook_gateway.rules import ids
from webhook_gateway.store import partitions
from webhook_gateway.web.api.schemas.search import Noun

PATIENT = "pat_4711"
EVENT = {
    "type": "dialysis.session_ended",
    "data": {"minutes": 240},
    "idempotency_key": "ik-9",
    "ordering_key": "bed:7",
    "subject": "visit-3",
    "patient": PATIENT,
}


@dataclass(frozen=True, slots=True)
class Found:
    """A hospital, an event of its with everything that one may be found by, and that event's delivery."""

    world: World
    event_id: str
    delivery_id: str


@pytest.fixture
async def found(api: Api, admin: httpx.AsyncClient) -> Found:
    world = await make_world(api, admin, api.tenant_id)
    event_id = (await post(admin, "/v1/events", EVENT))["id"]
    return Found(world, event_id, await delivered(api, world.endpoint_id, event_id))


async def delivered(api: Api, endpoint_id: str, event_id: str) -> str:
    async with api.database.connection() as connection:
        made = await store_finished(
            connection,
            api.tenant_id,
            ids.parse(ids.ENDPOINT, endpoint_id),
            ids.parse(ids.EVENT, event_id),
            "delivered",
        )
    return ids.render(ids.DELIVERY, made)


@pytest.fixture
async def officer(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with await api.as_client("admin", "patients:search") as client:
        yield client


async def search(client: httpx.AsyncClient, text: str, **more: Any) -> dict[str, Any]:
    return await post(client, "/v1/search", {"q": text, **more})


KEYS = {Kind.IDEMPOTENCY_KEY: "ik-9", Kind.ORDERING_KEY: "bed:7", Kind.SUBJECT: "visit-3", Kind.PATIENT: PATIENT}


@pytest.mark.parametrize("kind", Kind)
async def test_any_key_leads_to_the_event_and_its_deliveries_in_two_requests(
    officer: httpx.AsyncClient, found: Found, kind: Kind
) -> None:
    answer = await search(officer, f" {KEYS[kind]} ")
    assert (answer["found"], answer["not_searched"], answer["next_cursor"]) == ([kind], [], None)
    (hit,) = answer["items"]
    assert (hit["kind"], hit["id"], hit["type"]) == ("event", found.event_id, EVENT["type"])
    event = (await officer.get(hit["link"])).json()
    assert [delivery["id"] for delivery in event["deliveries"]] == [found.delivery_id]
    assert (await officer.get(hit["deliveries"])).json()["items"] == event["deliveries"]


@pytest.mark.parametrize("kind", get_args(Noun))
async def test_any_id_leads_to_what_it_is_of(officer: httpx.AsyncClient, found: Found, kind: str) -> None:
    places = {"event": found.event_id, "delivery": found.delivery_id, "replay": found.world.job_id}
    given = places.get(kind) or getattr(found.world, f"{kind}_id")
    answer = await search(officer, given)
    assert answer["found"] == [kind]
    first, *others = answer["items"]
    assert (first["kind"], first["id"], first["found_by"]) == (kind, given, [kind])
    assert (await officer.get(first["link"])).json()["id"] == given
    if kind == "delivery":
        (event,) = others
        deliveries = (await officer.get(event["link"])).json()["deliveries"]
        assert [delivery["id"] for delivery in deliveries] == [given]


async def test_what_nobody_knows_is_nothing(officer: httpx.AsyncClient, found: Found) -> None:
    for text in ("nothing", "evt_01h455vb4pex5vsknk084sn02q", "dlv_01h455vb4pex5vsknk084sn02q", "evt_x", "☃" * 256):
        assert (await search(officer, text))["items"] == [], text


async def test_what_may_name_a_patient_needs_the_scope_and_an_idempotency_key_needs_none(
    api: Api, admin: httpx.AsyncClient, found: Found
) -> None:
    patients = [kind for kind in Kind if kind is not Kind.IDEMPOTENCY_KEY]
    for kind in patients:
        answer = await search(admin, KEYS[kind])
        assert (answer["items"], answer["not_searched"]) == ([], patients), kind
    assert [hit["id"] for hit in (await search(admin, "ik-9"))["items"]] == [found.event_id]
    async with await api.as_client("deliveries:read") as reader:
        for noun, given in (("endpoint", found.world.endpoint_id), ("key", found.world.key_id)):
            answer = await search(reader, given)
            assert (answer["items"], answer["not_searched"]) == ([], [noun])


async def test_a_look_for_a_patient_is_audited_by_a_hash_and_never_by_the_id(
    api: Api, admin: httpx.AsyncClient, officer: httpx.AsyncClient, found: Found
) -> None:
    await search(officer, PATIENT)
    await search(officer, "somebody else")
    await search(admin, PATIENT)
    entries = (await admin.get("/v1/audit")).json()["items"]
    looks = [entry for entry in entries if entry["action"] == "patients.searched"]
    assert [entry["after"] for entry in looks] == [{"found": 0}, {"found": 1}]
    assert len({entry["target"] for entry in looks}) == 2
    assert PATIENT not in str(entries)


async def test_a_partners_key_finds_only_what_it_was_sent(
    api: Api, admin: httpx.AsyncClient, officer: httpx.AsyncClient, found: Found
) -> None:
    other = await make_world(api, admin, api.tenant_id, "Southside")
    theirs = (await post(admin, "/v1/events", {**EVENT, "idempotency_key": "ik-10"}))["id"]
    await delivered(api, other.endpoint_id, theirs)
    assert [hit["id"] for hit in (await search(officer, PATIENT))["items"]] == [theirs, found.event_id]
    bound = {"subscriber_id": ids.parse(ids.SUBSCRIBER, other.subscriber_id)}
    scopes = ("deliveries:read", "endpoints:read", "patients:search", "admin")
    async with await api.as_client(*scopes, **bound) as partner:
        for kind in (Kind.ORDERING_KEY, Kind.SUBJECT, Kind.PATIENT):
            assert [hit["id"] for hit in (await search(partner, KEYS[kind]))["items"]] == [theirs], kind
        hidden = [found.world.subscriber_id, found.world.endpoint_id, found.world.job_id, found.world.key_id]
        for text in ("ik-9", found.event_id, found.delivery_id, *hidden):
            assert (await search(partner, text))["items"] == [], text
        for text in ("ik-10", theirs, other.subscriber_id, other.endpoint_id):
            assert (await search(partner, text))["items"] != [], text
    async with await api.as_client("deliveries:read", **bound) as partner:
        assert (await search(partner, PATIENT))["items"] == []


async def test_page_after_page_leads_back_through_all_of_a_patients_events(
    admin: httpx.AsyncClient, officer: httpx.AsyncClient, found: Found
) -> None:
    posted = [found.event_id]
    for number in range(4):
        posted.append((await post(admin, "/v1/events", {**EVENT, "idempotency_key": str(number)}))["id"])
    seen: list[str] = []
    more: dict[str, Any] = {"limit": 2}
    while True:
        answer = await search(officer, PATIENT, **more)
        seen += [hit["id"] for hit in answer["items"]]
        if answer["next_cursor"] is None:
            break
        more["cursor"] = answer["next_cursor"]
    assert seen == posted[::-1]


async def test_an_event_whose_day_has_gone_leads_to_its_deliveries(
    api: Api, officer: httpx.AsyncClient, found: Found
) -> None:
    async with api.database.connection() as connection:
        for partition in await connection.fetch(partitions.EXISTING, "events"):
            await connection.execute(f"TRUNCATE {partition['relname']}")
    for text in (PATIENT, found.event_id):
        (hit,) = (await search(officer, text))["items"]
        assert (hit["type"], hit["link"]) == (None, f"/v1/deliveries?event_id={found.event_id}")
        assert [row["id"] for row in (await officer.get(hit["link"])).json()["items"]] == [found.delivery_id]


async def test_events_are_listed_by_their_idempotency_key_also_those_from_before_there_was_an_index(
    api: Api, admin: httpx.AsyncClient, found: Found
) -> None:
    asked = {"idempotency_key": "ik-9"}
    for _ in range(2):
        assert [row["id"] for row in (await admin.get("/v1/events", params=asked)).json()["items"]] == [found.event_id]
        assert (await search(admin, "ik-9"))["found"] == ["idempotency_key"]
        async with api.database.connection() as connection:
            await connection.execute("TRUNCATE lookups")
    assert (await admin.get("/v1/events", params=asked | {"type": "lab_result.final"})).json()["items"] == []
    assert (await admin.get("/v1/events", params={"idempotency_key": "ik"})).json()["items"] == []


async def test_an_event_is_found_once_by_a_key_before_and_after_it_is_forgotten_and_by_all_that_the_text_is(
    api: Api, officer: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    one = {**GOOD, "subject": "same", "idempotency_key": "same"}
    first = (await post(officer, "/v1/events", one))["id"]
    second = (await post(officer, "/v1/events", {**one, "idempotency_key": "other"}))["id"]
    expected = [(second, ["subject"]), (first, ["idempotency_key", "subject"])]

    async def found(text: str, **more: Any) -> list[tuple[str, list[str]]]:
        return [(item["id"], item["found_by"]) for item in (await search(officer, text, **more))["items"]]

    for hours in (0, 73):
        async with api.database.connection() as connection:
            await prune_aged(connection, hours)
        assert await found("same") == expected
        page = await search(officer, "same", limit=1)
        assert [item["id"] for item in page["items"]] == [second]
        assert await found("same", limit=1, cursor=page["next_cursor"]) == expected[1:]
        for text, event_id in (("same", first), ("other", second)):
            listed = (await admin.get("/v1/events", params={"idempotency_key": text})).json()["items"]
            assert [row["id"] for row in listed] == [event_id]


async def test_without_the_patient_index_only_idempotency_keys_are_kept(database_url: str) -> None:
    async with (
        running(database_url, patient_index=False) as api,
        await api.as_client("admin", "patients:search") as officer,
    ):
        await post(officer, "/v1/events", {**GOOD, "idempotency_key": "ik", "subject": "s", "patient": "p"})
        async with api.database.connection() as connection:
            assert await connection.fetchval("SELECT count(*) FROM lookups") == 0
        assert (await search(officer, "ik"))["found"] == ["idempotency_key"]
        assert (await search(officer, "p"))["items"] == []
