"""What HMS services import, against a real API process: answers, refusals, and retries through its death."""

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest

from tests.support.partner import partner_beside, status
from webhook_gateway.client import Accepted, AsyncGateway, Event, Gateway, GatewayUnavailable, Refused
from webhook_gateway.crypto.master_keys import new_master_key
from webhook_gateway.crypto.vault import MasterKeys
from webhook_gateway.operations.first_start import first_key

SOURCE = Path(__file__).parents[2] / "src"
PATIENT = "pat_hermine"
ORDER = {"order_id": "ord_1", "patient_id": PATIENT, "ordering_practitioner_id": "prac_1", "priority": "stat"}
MASTER = new_master_key()
KILLS_AFTER_COMMIT = {"WEBHOOK_GATEWAY_FAILPOINT": "after_append_commit"}


class Api:
    """An API process that can be killed and started again on the same port."""

    def __init__(self, database_url: str, master_key: str) -> None:
        self.database_url = database_url
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("WEBHOOK_GATEWAY_")}
        self._environment = {
            **kept,
            "PYTHONPATH": str(SOURCE),
            "DATABASE_URL": database_url,
            "WEBHOOK_GATEWAY_MASTER_KEYS": master_key,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **settings: str) -> None:
        command = [sys.executable, "-m", "webhook_gateway.cli", "serve", "--port", str(self.port), "--processes", "1"]
        self.process = subprocess.Popen(command, env={**self._environment, **settings}, stderr=subprocess.DEVNULL)

    def wait_until_ready(self) -> None:
        with Gateway(self.url, "whk_nobody", deadline=30) as anybody:
            assert anybody.get("/readyz")["status"] == "ok"

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    async def count(self, table: str) -> int:
        connection = await asyncpg.connect(self.database_url)
        try:
            return int(await connection.fetchval(f"SELECT count(*) FROM {table}"))
        finally:
            await connection.close()


@pytest.fixture
async def api(database_url: str) -> AsyncIterator[Api]:
    found = Api(database_url, MASTER)
    yield found
    if found.process is not None:
        found.kill()


@pytest.fixture
async def key(database_url: str) -> str:
    made = await first_key(database_url, MasterKeys.parse(MASTER))
    assert made is not None
    return made


async def test_an_accepted_event_has_an_id_and_posted_again_it_is_a_duplicate(api: Api, key: str) -> None:
    api.start()
    api.wait_until_ready()
    with Gateway(api.url, key) as gateway:
        when = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
        first = gateway.post_event(
            "lab_order.placed", ORDER, subject=PATIENT, ordering_key="ord_1", timestamp=when, idempotency_key="once"
        )
        again = gateway.post_event(
            "lab_order.placed", ORDER, subject=PATIENT, ordering_key="ord_1", timestamp=when, idempotency_key="once"
        )
        assert first.type == "lab_order.placed"
        assert first.accepted_at.tzinfo is not None
        assert (first.duplicate, again.duplicate) == (False, True)
        assert first.id == again.id
        assert gateway.post_event("lab_order.placed", ORDER).id != first.id, "without a key, each has one of its own"


async def test_a_refusal_says_where_and_why_and_never_what(api: Api, key: str) -> None:
    api.start()
    api.wait_until_ready()
    with Gateway(api.url, key) as gateway:
        with pytest.raises(Refused) as unknown:
            gateway.post_event("lab_order.lost", ORDER)
        assert unknown.value.status == 422
        assert [fault.pointer for fault in unknown.value.faults] == ["/type"]

        with pytest.raises(Refused) as wrong:
            gateway.post_event("lab_order.placed", {**ORDER, "priority": PATIENT})
        assert wrong.value.status == 422
        assert [fault.pointer for fault in wrong.value.faults] == ["/data/priority"]
        assert PATIENT not in str(wrong.value) + repr(wrong.value)

        with pytest.raises(Refused) as nobody:
            gateway.post_event("lab_order.placed", ORDER, to=["payer_17"], patient=PATIENT)
        assert [fault.pointer for fault in nobody.value.faults] == ["/to/0"]

        gateway.post_event("lab_order.placed", ORDER, idempotency_key="once")
        with pytest.raises(Refused) as other:
            gateway.post_event("lab_order.placed", {**ORDER, "order_id": "ord_2"}, idempotency_key="once")
        assert other.value.status == 409
    with Gateway(api.url, "whk_wrong") as stranger, pytest.raises(Refused) as unauthorised:
        stranger.post_event("lab_order.placed", ORDER)
    assert unauthorised.value.status == 401


async def test_each_event_of_a_batch_has_its_own_result_in_the_order_given(api: Api, key: str) -> None:
    api.start()
    api.wait_until_ready()
    events = [Event("lab_order.placed", {**ORDER, "order_id": f"ord_{number}"}) for number in range(1_100)]
    events[7] = Event("lab_order.lost", ORDER)
    async with AsyncGateway(api.url, key) as gateway:
        results = await gateway.post_events(events)
        assert [number for number, result in enumerate(results) if isinstance(result, Refused)] == [7]
        again = await gateway.post_events(events)
    ids = [result.id for result in results if isinstance(result, Accepted)]
    assert ids == [result.id for result in again if isinstance(result, Accepted) and result.duplicate]
    assert await api.count("events") == 1_099


def orders(count: int, length: int = 0) -> list[Event]:
    notes = {"clinical_note": "x" * length} if length else {}
    return [Event("lab_order.placed", {**ORDER, "order_id": f"ord_{number}", **notes}) for number in range(count)]


async def test_a_batch_that_is_longer_than_one_request_may_be_goes_in_several(api: Api, key: str) -> None:
    api.start()
    api.wait_until_ready()
    with Gateway(api.url, key) as gateway:
        assert all(isinstance(result, Accepted) for result in gateway.post_events(orders(30, length=60_000)))
    assert await api.count("events") == 30


async def test_where_less_is_allowed_the_batch_goes_in_halves_and_only_what_is_too_long_alone_is_refused(
    api: Api, key: str
) -> None:
    api.start(WEBHOOK_GATEWAY_BODY_LIMIT="20000")
    api.wait_until_ready()
    events = orders(150)
    events[70] = orders(1, length=30_000)[0]
    with Gateway(api.url, key) as gateway:
        results = gateway.post_events(events)
    refused = [(number, result.status) for number, result in enumerate(results) if isinstance(result, Refused)]
    assert refused == [(70, 413)]
    assert await api.count("events") == 149


async def test_when_the_gateway_goes_away_amid_many_events_what_it_answered_before_is_kept(api: Api, key: str) -> None:
    api.start()
    api.wait_until_ready()

    def dying() -> Iterator[Event]:
        for number, event in enumerate(orders(1_500)):
            if number == 1_400:  # the first thousand are answered when the next one is asked for
                api.kill()
            yield event

    with Gateway(api.url, key, deadline=2) as gateway, pytest.raises(GatewayUnavailable) as away:
        gateway.post_events(dying())
    assert len([result for result in away.value.results if isinstance(result, Accepted)]) == 1_000
    assert await api.count("events") == 1_000


@pytest.mark.parametrize("client", ["sync", "async"])
async def test_killed_between_commit_and_answer_an_event_is_still_accepted_once(
    api: Api, key: str, client: str
) -> None:
    """The worst moment: it is stored, and nobody was told. The retry brings the same key, and finds it there."""
    api.start(**KILLS_AFTER_COMMIT)
    api.wait_until_ready()
    if client == "sync":
        with Gateway(api.url, key) as gateway:
            posting = asyncio.create_task(asyncio.to_thread(gateway.post_event, "lab_order.placed", ORDER))
            accepted = await restart_when_dead(api, posting)
    else:
        async with AsyncGateway(api.url, key) as async_gateway:
            accepted = await restart_when_dead(
                api, asyncio.create_task(async_gateway.post_event("lab_order.placed", ORDER))
            )
    assert accepted.duplicate, "the first request had been stored"
    assert await api.count("events") == 1


async def restart_when_dead(api: Api, posting: asyncio.Task[Accepted]) -> Accepted:
    assert api.process is not None
    assert await asyncio.to_thread(api.process.wait) == -signal.SIGKILL
    api.start()
    return await posting


async def test_a_gateway_that_stays_away_is_given_up_at_the_deadline_and_the_key_is_told(
    api: Api, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        Gateway(api.url, key, deadline=1.0) as gateway,
        caplog.at_level(logging.DEBUG),
        pytest.raises(GatewayUnavailable) as away,
    ):
        gateway.post_event("lab_order.placed", ORDER, subject=PATIENT)
    assert away.value.idempotency_key
    assert "asking again" in caplog.text
    assert PATIENT not in caplog.text + str(away.value)

    api.start()
    api.wait_until_ready()
    with Gateway(api.url, key) as gateway:
        late = gateway.post_event(
            "lab_order.placed", ORDER, subject=PATIENT, idempotency_key=away.value.idempotency_key
        )
        assert not late.duplicate


def receipt(code: int, *headers: str) -> bytes:
    """An answer to an event."""
    told = {"id": "evt_1", "type": "t", "accepted_at": "2026-11-23T08:00:00Z", "duplicate": False}
    return status(code, *headers, body=json.dumps(told).encode())


@pytest.mark.parametrize("later", [429, 502, 503, 504])
def test_later_is_asked_again_with_the_same_key(later: int) -> None:
    with partner_beside(receipt(later, "Retry-After: 0"), receipt(later), receipt(202)) as there:
        with Gateway(there.url(""), "whk_x") as gateway:
            gateway.post_event("lab_order.placed", ORDER)
        assert len(there.received) == 3
        assert len({request.body for request in there.received}) == 1


def test_retry_after_is_respected_and_one_beyond_the_deadline_ends_the_wait_at_once() -> None:
    with (
        partner_beside(receipt(503, "Retry-After: 3600")) as there,
        Gateway(there.url(""), "whk_x", deadline=5) as gateway,
    ):
        with pytest.raises(GatewayUnavailable) as away:
            gateway.post_event("lab_order.placed", ORDER)
        assert away.value.retry_after == 3_600


def test_what_may_have_been_done_is_not_done_twice() -> None:
    with partner_beside(receipt(503)) as there, Gateway(there.url(""), "whk_x", deadline=5) as gateway:
        with pytest.raises(GatewayUnavailable):
            gateway.create_subscriber("Northside")
        assert len(there.received) == 1


def test_what_json_can_not_hold_is_a_mistake_of_the_caller() -> None:
    with Gateway("http://127.0.0.1:1", "whk_x") as gateway:
        with pytest.raises(TypeError, match="datetime"):
            gateway.post_event("lab_order.placed", {"at": datetime.now(UTC)})
        with pytest.raises(ValueError, match="JSON"):
            gateway.post_event("lab_order.placed", {"level": float("nan")})
        with pytest.raises(ValueError, match="time zone"):
            gateway.post_event("lab_order.placed", {}, timestamp=datetime(2026, 11, 23, 8))  # noqa: DTZ001


def test_an_event_shows_nothing_of_the_patient() -> None:
    event = Event("lab_order.placed", ORDER, subject=PATIENT, ordering_key=PATIENT)
    assert PATIENT not in repr(event)


def test_an_api_key_that_can_not_be_one_is_a_mistake_of_the_caller() -> None:
    for key in ("", "whk_ä", "whk_x\n"):
        with pytest.raises(ValueError, match="API key"):
            Gateway("http://127.0.0.1:1", key)
