"""What is refused, by name; and that the API and the command line say the same of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from tests.support.hospital import Hospital
from tests.support.rows import store_event, store_finished, store_open
from webhook_gateway.cli import exits
from webhook_gateway.intake.catalogue import Catalogue
from webhook_gateway.operations import (
    deliveries,
    endpoint_lifecycle,
    endpoints,
    event_types,
    explain,
    keys,
    partners,
    portal,
    replays,
    sessions,
    subscribers,
)
from webhook_gateway.operations.change import Actor, Change, changing, local_actor
from webhook_gateway.operations.refusals import Conflict, Exhausted, Invalid, NotFound, NotHeld, Refusal, WouldCutOff
from webhook_gateway.rules import ids
from webhook_gateway.rules.faults import Fault
from webhook_gateway.rules.rights import Quotas
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.rules.targets import Policy
from webhook_gateway.store import audit, configuration, notifications
from webhook_gateway.store.keys import NewKey
from webhook_gateway.store.replays import MOST_WALKED
from webhook_gateway.web import errors

URL = "https://lab.example.com/in"
NOBODY = UUID(int=7)
PLENTY = Quotas(endpoints=9, header_bytes=9, tests_a_day=9, replays_a_day=10**9, open_replays=9)
NOTHING = Quotas(endpoints=0, header_bytes=0, tests_a_day=0, replays_a_day=0, open_replays=0)
ALL_DEAD = {"state": "dead", "all": True}
OWN_TYPE = {"name": "dialysis.ended", "schema": {"type": "object"}, "example": {}, "description": ""}
OWN_TYPE_STORED = """
INSERT INTO event_types (tenant_id, name, description, schema, example)
SELECT id, 'dialysis.ended', '', '{}', '{}' FROM tenants
"""
FIVE_SECRETS = """
INSERT INTO endpoint_secrets (id, tenant_id, endpoint_id, secret)
SELECT gen_random_uuid(), tenant_id, id, '' FROM endpoints, generate_series(1, 5)
"""
MORE_THAN_IS_COUNTED = f"""
INSERT INTO finished_deliveries
    (id, tenant_id, endpoint_id, event_id, type, sequence, attempt, state, created_at, finished_at)
SELECT gen_random_uuid(), tenant_id, endpoint_id, gen_random_uuid(), type, 0, 1, state, now(), now()
FROM finished_deliveries, generate_series(1, {MOST_WALKED})
"""


class Furnished:
    """One subscriber with an endpoint, a dead delivery and one that waits, made by the use cases themselves."""

    def __init__(self, hospital: Hospital) -> None:
        self.database, self.vault, self.actor = hospital.database, hospital.vault, local_actor(hospital.tenant_id)
        self.rows, self.catalogue, self.policy = hospital.rows, Catalogue(), Policy()
        self.subscriber = self.endpoint = self.event = self.dead = self.waiting = self.job = self.key = NOBODY

    async def furnish(self) -> None:
        async with changing(self.database, self.actor) as change:
            everything = {"event_types": ["*", "gateway.*"], "content": {"level": "full", "subject": True}}
            new = {"name": "Lab", **everything}
            self.subscriber = value(await subscribers.create(change, self.catalogue, new))["id"]
            self.endpoint = value(await self.add_endpoint(change))[0]["id"]
            self.job = value(await replays.create(change, ALL_DEAD))["id"]
            self.key = value(await keys.create(change, NewKey("ops", [Scope.ADMIN])))[0]["id"]
        async with self.database.connection() as connection:
            tenant_id = self.actor.tenant_id
            self.event = await store_event(self, connection, tenant_id)
            self.dead = await store_finished(connection, tenant_id, self.endpoint, self.event, "dead")
            self.waiting = await store_open(connection, tenant_id, self.endpoint, self.event)

    async def add_endpoint(self, change: Change, **given: Any) -> tuple[Any, str] | Refusal:
        columns: dict[str, Any] = {
            "subscriber_id": self.subscriber,
            "url": URL,
            "event_types": ["lab_result.*", "staff_shift.*"],
            "headers": {},
            "signing": "hmac",
            "secret": None,
            "authorization": None,
            "content": None,
            "filter": None,
        }
        return await endpoints.create(change, self.vault, self.catalogue, self.policy, columns | given)

    async def change_endpoint(self, change: Change, **given: Any) -> Any:
        return await endpoints.change_one(change, self.vault, self.catalogue, self.policy, self.endpoint, given)

    async def entries(self) -> int:
        async with self.database.begin() as connection:
            return (await audit.verify(connection, self.actor.tenant_id)).entries


@pytest.fixture
async def furnished(hospital: Hospital) -> Furnished:
    found = Furnished(hospital)
    await found.furnish()
    return found


UseCase = Callable[[Furnished, Change], Awaitable[object]]
CASES: dict[NotFound | Conflict, tuple[str, UseCase]] = {
    NotFound.DELIVERY: ("", lambda h, c: deliveries.replay(c, NOBODY)),
    NotFound.ENDPOINT: ("", lambda h, c: endpoints.delete(c, h.vault, NOBODY)),
    NotFound.EVENT: ("", lambda h, c: explain.by_endpoint(c, h.vault, NOBODY, before=explain.NEWEST)),
    NotFound.EVENT_TYPE: ("", lambda h, c: event_types.delete(c, h.catalogue, "dialysis.ended")),
    NotFound.HELD_KEY: ("", lambda h, c: endpoint_lifecycle.release_key(c, h.endpoint, 1)),
    NotFound.KEY: ("", lambda h, c: keys.revoke(c, NOBODY)),
    NotFound.PORTAL_LINK: ("", lambda h, c: portal.revoke(c, h.subscriber, NOBODY)),
    NotFound.REPLAY: ("", lambda h, c: replays.cancel(c, NOBODY)),
    NotFound.SESSION: ("", lambda h, c: sessions.end(c, NOBODY, of_all=True)),
    NotFound.SUBSCRIBER: ("", lambda h, c: subscribers.change_one(c, h.catalogue, NOBODY, {"name": "x"})),
    Conflict.NO_TENANT: ("", lambda h, c: keys.create_with_tenant(c, h.vault, "southside", NewKey("x", ["admin"]))),
    Conflict.BODY_GONE: ("DELETE FROM events", lambda h, c: deliveries.replay(c, h.dead)),
    Conflict.DELIVERY_BEHIND: (
        "UPDATE deliveries SET due_at = NULL, ordering_key = 1",
        lambda h, c: deliveries.try_now(c, h.waiting),
    ),
    Conflict.DELIVERY_ENDED: ("", lambda h, c: deliveries.cancel(c, h.dead)),
    Conflict.DELIVERY_IN_OUTBOX: (
        "UPDATE outbox SET endpoint_id = e.id, delivery_id = '00000000-0000-0000-0000-000000000008' FROM endpoints e",
        lambda h, c: deliveries.cancel(c, UUID(int=8)),
    ),
    Conflict.DELIVERY_OPEN: ("", lambda h, c: deliveries.replay(c, h.waiting)),
    Conflict.DELIVERY_SENDING: (
        "UPDATE deliveries SET lease_id = id, due_at = now() + interval '1 hour'",
        lambda h, c: deliveries.cancel(c, h.waiting),
    ),
    Conflict.ENDPOINT_DELETED: ("UPDATE endpoints SET deleted_at = now()", lambda h, c: deliveries.replay(c, h.dead)),
    Conflict.ENDPOINT_DISABLED: (
        "UPDATE endpoints SET state = 'disabled'",
        lambda h, c: deliveries.replay(c, h.dead),
    ),
    Conflict.ENDPOINT_PAUSED: (
        "UPDATE endpoints SET state = 'paused'",
        lambda h, c: deliveries.try_now(c, h.waiting),
    ),
    Conflict.ENDPOINT_NAME_TAKEN: (
        (
            "INSERT INTO endpoints (id, tenant_id, subscriber_id, url, event_types, name)"
            " SELECT gen_random_uuid(), tenant_id, subscriber_id, url, event_types, 'results' FROM endpoints"
        ),
        lambda h, c: h.change_endpoint(c, name="results"),
    ),
    Conflict.EVENT_TYPE_CHANGED: (
        OWN_TYPE_STORED,
        lambda h, c: event_types.change_one(c, h.catalogue, OWN_TYPE | {"example": {"minutes": 1}}, {}),  # type: ignore[arg-type]
    ),
    Conflict.EVENT_TYPE_EXISTS: (
        OWN_TYPE_STORED,
        lambda h, c: event_types.create(c, h.catalogue, OWN_TYPE),
    ),
    Conflict.EVENT_TYPE_SHIPPED: ("", lambda h, c: event_types.delete(c, h.catalogue, "lab_result.final")),
    Conflict.NOTHING_TO_PAUSE: (
        "UPDATE endpoints SET state = 'disabled'",
        lambda h, c: endpoint_lifecycle.pause(c, h.vault, h.endpoint),
    ),
    Conflict.OTHER_PLAN: ("", lambda h, c: partners.Applying(c, h.vault, h.catalogue, h.policy).apply([], "another")),
    Conflict.OWN_KEY: ("", lambda h, c: keys.revoke(_as(c, name=ids.render(ids.KEY, h.key)), h.key)),
    Conflict.REPLAYED: (
        "UPDATE finished_deliveries SET replayed_as = id",
        lambda h, c: deliveries.replay(c, h.dead),
    ),
    Conflict.REPLAY_ENDED: ("UPDATE jobs SET state = 'done'", lambda h, c: replays.cancel(c, h.job)),
    Conflict.SUBSCRIBER_HAS_ENDPOINTS: ("", lambda h, c: subscribers.delete(c, h.vault, h.subscriber)),
    Conflict.SUBSCRIBER_NAME_TAKEN: (
        "INSERT INTO subscribers (id, tenant_id, name) SELECT id, id, 'Northside' FROM tenants",
        lambda h, c: subscribers.change_one(c, h.catalogue, h.subscriber, {"name": "Northside"}),
    ),
    Conflict.EXTERNAL_ID_TAKEN: (
        "INSERT INTO subscribers (id, tenant_id, name, external_id) SELECT id, id, 'Northside', 'payer_1' FROM tenants",
        lambda h, c: subscribers.change_one(c, h.catalogue, h.subscriber, {"external_id": "payer_1"}),
    ),
    Conflict.NOT_PERMITTED: (
        "UPDATE subscribers SET event_types = '{lab_order.*}'",
        lambda h, c: deliveries.replay(c, h.dead),
    ),
    Conflict.NOT_WANTED: (
        "UPDATE finished_deliveries SET state_reason = 'not_wanted'",
        lambda h, c: deliveries.replay(c, h.dead),
    ),
    Conflict.TENANT_EXISTS: (
        "",
        lambda h, c: keys.create_with_tenant(c, h.vault, "default", NewKey("x", ["admin"]), new=True),
    ),
    Conflict.TOO_MANY_ENDPOINTS: ("", lambda h, c: h.add_endpoint(_as(c, subscriber_id=h.subscriber, quotas=NOTHING))),
    Conflict.TOO_MANY_REPLAYS: (
        "",
        lambda h, c: replays.create(_as(c, subscriber_id=h.subscriber, quotas=NOTHING), ALL_DEAD),
    ),
    Conflict.TOO_MANY_TO_COUNT: (
        MORE_THAN_IS_COUNTED,
        lambda h, c: replays.create(_as(c, subscriber_id=h.subscriber, quotas=PLENTY), ALL_DEAD),
    ),
    Conflict.TOO_MANY_SECRETS: (
        FIVE_SECRETS,
        lambda h, c: endpoints.rotate_secret(c, h.vault, h.endpoint, None, 60),
    ),
    Conflict.WORKERS_TOO_OLD: (
        "INSERT INTO workers (id, name) VALUES (gen_random_uuid(), 'of the version before')",
        lambda h, c: c.needs_current_workers(),
    ),
}
ALL: tuple[Refusal, ...] = (
    *NotFound,
    *Conflict,
    *Exhausted,
    NotHeld((Scope.PAYLOAD_READ,)),
    Invalid((Fault("network", "Give a network in CIDR notation.", pointer="/networks/0"),)),
    WouldCutOff(3),
)


@pytest.mark.parametrize("refusal", [*NotFound, *Conflict], ids=str)
async def test_what_can_not_be_done_is_refused_by_name_and_leaves_nothing(
    furnished: Furnished, refusal: NotFound | Conflict
) -> None:
    scene, use_case = CASES[refusal]
    if scene.startswith("UPDATE outbox"):
        async with changing(furnished.database, furnished.actor) as change:
            await deliveries.replay(change, furnished.dead)
    if scene:
        await furnished.rows(scene)
    before = await furnished.entries()

    async def ask() -> None:
        async with changing(furnished.database, furnished.actor) as change:
            answer = await use_case(furnished, change)
            assert answer is refusal
            errors.granted(answer)

    with pytest.raises(errors.Problem) as problem:
        await ask()
    assert problem.value.status_code == (404 if isinstance(refusal, NotFound) else 409)
    assert await furnished.entries() == before
    assert await furnished.rows("SELECT FROM tenants WHERE name <> 'default'") == []


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ({"url": "http://127.0.0.1/"}, "/url"),
        ({"headers": {"Host": "x"}}, "/headers/Host"),
        ({"headers": {"X-A": "1", "x-a": "2"}}, "/headers"),
        ({"headers": {"Authorization": "x"}, "authorization": {"kind": "bearer", "token": "t"}}, "/authorization"),
        ({"event_types": ["lab_result.fnial"]}, "/event_types/0"),
        ({"tls": {"ca": "nonsense", "certificate": None, "key": None}}, "/tls/ca"),
    ],
)
async def test_an_endpoint_is_held_to_the_same_rules_when_it_is_made_and_when_it_is_changed(
    furnished: Furnished, given: dict[str, Any], pointer: str
) -> None:
    async with changing(furnished.database, furnished.actor) as change:
        for answer in (await furnished.add_endpoint(change, **given), await furnished.change_endpoint(change, **given)):
            assert isinstance(answer, Invalid)
            assert [fault.pointer for fault in answer.faults] == [pointer]


async def test_every_place_that_is_wrong_is_named_at_once(furnished: Furnished) -> None:
    wrong = {"url": "ftp://x", "headers": {"Host": "x"}, "event_types": ["lab_result.fnial"], "secret": "whsec_AA"}
    async with changing(furnished.database, furnished.actor) as change:
        answer = await furnished.add_endpoint(change, **wrong)
    assert isinstance(answer, Invalid)
    assert {fault.pointer for fault in answer.faults} == {"/url", "/headers/Host", "/event_types/0", "/secret"}


async def test_an_actor_of_one_subscriber_finds_nothing_of_another(furnished: Furnished) -> None:
    async with changing(furnished.database, replace(furnished.actor, subscriber_id=NOBODY)) as change:
        assert await furnished.add_endpoint(change) is NotFound.SUBSCRIBER
        assert await furnished.change_endpoint(change, slots=1) is NotFound.ENDPOINT
        assert await deliveries.cancel(change, furnished.waiting) is NotFound.DELIVERY
        assert await replays.create(change, {"state": "dead", "endpoint_id": furnished.endpoint}) is NotFound.ENDPOINT
        assert await replays.cancel(change, furnished.job) is NotFound.REPLAY


async def test_nobody_grants_what_they_do_not_hold(furnished: Furnished) -> None:
    async with changing(furnished.database, replace(furnished.actor, scopes=frozenset({"admin"}))) as change:
        answer = await keys.create(change, NewKey("officer", ()), "privacy_officer")
    assert answer == NotHeld((Scope.PATIENTS_SEARCH, Scope.PAYLOAD_READ))


LAB = ("lab_order.*",)


async def test_who_is_held_to_some_event_types_redirects_and_sends_no_others(furnished: Furnished) -> None:
    async with changing(furnished.database, furnished.actor) as change:
        own = value(await furnished.add_endpoint(change, event_types=["lab_order.placed"]))[0]["id"]
    (type_of,) = {row["type"] for row in await furnished.rows("SELECT type FROM finished_deliveries")}
    beyond = NotHeld(("lab_result.*", "staff_shift.*"))
    for bound in ({"event_types": LAB}, {"event_types": LAB, "subscriber_id": furnished.subscriber}):
        async with changing(furnished.database, replace(furnished.actor, **bound)) as change:
            assert await furnished.change_endpoint(change, url="https://elsewhere.example.com/") == beyond
            assert await furnished.change_endpoint(change, event_types=["lab_order.placed"]) == beyond
            assert await endpoints.rotate_secret(change, furnished.vault, furnished.endpoint, None, 0) == beyond
            assert isinstance(await furnished.add_endpoint(change, event_types=["lab_result.final"]), Invalid)
            assert await deliveries.replay(change, furnished.dead) == NotHeld((type_of,))
            assert isinstance(await replays.create(change, ALL_DEAD), NotHeld)
            assert await replays.create(change, {"state": "dead", "type": type_of}) == NotHeld((type_of,))
            assert await _test(furnished, change, own, "lab_result.final") == NotHeld(("lab_result.final",))
            assert not isinstance(await _test(furnished, change, own, "gateway.test"), Refusal)
            assert not isinstance(await replays.create(change, {"state": "dead", "type": "lab_order.placed"}), Refusal)
            changed = await endpoints.change_one(
                change, furnished.vault, furnished.catalogue, furnished.policy, own, {"url": URL}
            )
            assert not isinstance(changed, Refusal)


async def _test(furnished: Furnished, change: Change, endpoint_id: UUID, event_type: str) -> object:
    return await endpoint_lifecycle.send_test(change, furnished.vault, furnished.catalogue, endpoint_id, event_type)


async def test_a_partner_sends_no_more_in_a_day_than_its_quotas_and_the_hospital_as_much_as_it_likes(
    furnished: Furnished,
) -> None:
    partner = replace(
        furnished.actor,
        subscriber_id=furnished.subscriber,
        quotas=Quotas(endpoints=2, header_bytes=10, tests_a_day=2, replays_a_day=3, open_replays=2),
    )
    dead = ALL_DEAD

    async def ask(use_case: Callable[[Change], Awaitable[Any]], actor: Actor = partner) -> Any:
        try:
            async with changing(furnished.database, actor) as change:
                answer = await use_case(change)
                if isinstance(answer, Refusal):
                    raise Undone(answer)
                return None
        except Undone as undone:
            return undone.args[0]

    async def send_test(change: Change) -> object:
        return await _test(furnished, change, furnished.endpoint, "gateway.test")

    assert [await ask(send_test) for _ in range(3)] == [None, None, Exhausted.TESTS]
    assert await ask(furnished.add_endpoint) is None
    assert await ask(furnished.add_endpoint) is Conflict.TOO_MANY_ENDPOINTS
    long = await ask(lambda change: furnished.change_endpoint(change, headers={"X-Name": "value"}))
    assert [fault.pointer for fault in long.faults] == ["/headers"]
    assert await ask(lambda change: furnished.change_endpoint(change, headers={"X-Nam": "value"})) is None

    asked = await asyncio.gather(*(ask(lambda change: replays.create(change, dead)) for _ in range(5)))
    assert sorted(asked, key=str) == [Conflict.TOO_MANY_REPLAYS] * 3 + [None] * 2
    assert await ask(lambda change: deliveries.replay(change, furnished.dead)) is None
    assert await ask(lambda change: deliveries.replay(change, furnished.dead)) is Exhausted.REPLAYS
    await furnished.rows("UPDATE jobs SET state = 'done'")
    assert await ask(lambda change: replays.create(change, dead)) is Exhausted.REPLAYS

    for _ in range(3):
        for use_case in (send_test, furnished.add_endpoint, lambda change: replays.create(change, dead)):
            assert await ask(use_case, furnished.actor) is None
    await furnished.rows("UPDATE partner_usage SET day = day - 1")
    assert await ask(send_test) is None


async def test_what_is_too_much_to_count_a_hospital_may_replay_and_a_partner_is_refused_before_it_is_counted(
    furnished: Furnished,
) -> None:
    await furnished.rows(MORE_THAN_IS_COUNTED)
    async with changing(furnished.database, furnished.actor) as change:
        assert value(await replays.create(change, ALL_DEAD))["total"] is None
        for quotas, refusal in (
            (replace(PLENTY, open_replays=0), Conflict.TOO_MANY_REPLAYS),
            (replace(PLENTY, replays_a_day=0), Exhausted.REPLAYS),
        ):
            partner = _as(change, subscriber_id=furnished.subscriber, quotas=quotas)
            assert await replays.create(partner, ALL_DEAD) is refusal


class Undone(Exception):
    """Refused: nothing of it is kept."""


@pytest.mark.parametrize("refusal", ALL, ids=str)
def test_the_api_and_the_command_line_say_the_same_of_it(refusal: Refusal) -> None:
    problem, end = errors.refused(refusal), exits.refused(refusal)
    match refusal:
        case NotFound():
            assert (problem.status_code, problem.name, end.status) == (404, "not-found", exits.NO)
            remedy = refusal.value
        case Conflict():
            name = "workers-too-old" if refusal is Conflict.WORKERS_TOO_OLD else "conflict"
            assert (problem.status_code, problem.name, end.status) == (409, name, exits.NO)
            remedy = refusal.value[1:].removesuffix(".")
        case Exhausted():
            assert (problem.status_code, problem.name, end.status) == (429, "too-many-requests", exits.NO)
            remedy = refusal.value[1:].removesuffix(".")
        case WouldCutOff():
            assert (problem.status_code, problem.name, end.status) == (409, "conflict", exits.NO)
            remedy = "open deliveries, 3 of them: wait for them, or cancel them with cancel_open"
        case NotHeld():
            assert (problem.status_code, problem.name, end.status) == (403, "forbidden", exits.NO)
            remedy = "payload:read"
        case Invalid():
            assert (problem.status_code, problem.name, end.status) == (422, "invalid-request", exits.WRONG)
            assert problem.faults == refusal.faults
            assert str(end) == "--network: give a network in CIDR notation"
            return
    assert remedy in problem.detail
    assert remedy in str(end)
    assert (str(end)[:1].islower(), str(end)[-1:] != ".") == (True, True)


async def test_a_change_is_audited_moves_the_version_and_notifies_only_if_it_was_made(furnished: Furnished) -> None:
    async def version() -> int:
        async with furnished.database.connection() as connection:
            return await configuration.version(connection)

    listener = await furnished.database.connect()
    heard: list[object] = []
    await listener.add_listener(notifications.CHANNEL, lambda *arguments: heard.append(arguments[-1]))
    entries, moved = await furnished.entries(), await version()
    try:
        for _ in range(2):
            async with changing(furnished.database, furnished.actor) as change:
                await endpoint_lifecycle.pause(change, furnished.vault, furnished.endpoint)
        async with changing(furnished.database, furnished.actor) as change:
            await replays.create(change, ALL_DEAD)
        await listener.fetch("SELECT")  # what was sent before is heard before this is answered
    finally:
        await listener.close()
    assert (await furnished.entries(), await version()) == (entries + 2, moved + 1)
    assert heard == ["configuration", "deliveries", "outbox", "outbox"]


def value(answer: Any) -> Any:
    """What was asked for, where nothing stands in the way."""
    return errors.granted(answer)


def _as(change: Change, **other: Any) -> Change:
    change.actor = replace(change.actor, **other)
    return change
