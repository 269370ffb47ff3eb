"""`status`, `replay` and `try-now`, against the tables that a worker writes."""

import asyncio
import json
import subprocess
from collections.abc import Callable

import asyncpg
import pytest
from uuid_utils.compat import uuid7

from tests.support.rows import SUBSCRIBER
from webhook_gateway.crypto.master_keys import new_master_key
from webhook_gateway.rules import ids

Cli = Callable[..., subprocess.CompletedProcess[str]]
MASTER = new_master_key()
NOTHING = {"depth": 0, "oldest_seconds": None}

ENDPOINT = """
INSERT INTO endpoints (id, tenant_id, subscriber_id, url, event_types, state, state_reason)
VALUES ($1, $2, $3, 'https://lab.example/', '{*}', 'paused', 'holidays')
"""
DEAD = """
INSERT INTO finished_deliveries (id, tenant_id, endpoint_id, event_id, type, sequence, attempt, state, created_at)
VALUES ($1, $2, $3, $4, 'lab_order.placed', 1, 10, 'dead', now())
"""
EVENT = """
INSERT INTO events (id, tenant_id, type, occurred_at, size, body) VALUES ($1, $2, 'lab_order.placed', now(), 2, '{}')
"""
WAITING = """
INSERT INTO deliveries (id, tenant_id, endpoint_id, event_id, type, sequence, due_at)
VALUES ($1, $2, $3, $4, 'lab_order.placed', 2, now())
"""


class Hospital:
    """A tenant with one endpoint, one dead delivery and one that waits, written as a worker would have left them."""

    def __init__(self, cli: Cli, url: str) -> None:
        self._cli, self._url = cli, url
        self.endpoint, self.dead, self.waiting, self.event = uuid7(), uuid7(), uuid7(), uuid7()
        assert self.run("keys", "create", "ops", "--role", "admin").returncode == 0
        asyncio.run(self._furnish())

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._cli(*arguments, DATABASE_URL=self._url, WEBHOOK_GATEWAY_MASTER_KEYS=MASTER)

    def fetch(self, statement: str) -> list[asyncpg.Record]:
        async def ask() -> list[asyncpg.Record]:
            connection = await asyncpg.connect(self._url)
            try:
                return list(await connection.fetch(statement))
            finally:
                await connection.close()

        return asyncio.run(ask())

    async def _furnish(self) -> None:
        connection = await asyncpg.connect(self._url)
        try:
            tenant, subscriber = await connection.fetchval("SELECT id FROM tenants"), uuid7()
            await connection.execute(SUBSCRIBER, subscriber, tenant, "Northside")
            await connection.execute(ENDPOINT, self.endpoint, tenant, subscriber)
            await connection.execute(EVENT, self.event, tenant)
            await connection.execute(DEAD, self.dead, tenant, self.endpoint, self.event)
            await connection.execute(WAITING, self.waiting, tenant, self.endpoint, uuid7())
        finally:
            await connection.close()


@pytest.fixture
def hospital(cli: Cli, database_url: str) -> Hospital:
    return Hospital(cli, database_url)


def test_status_counts_what_waits_and_names_who_is_in_trouble(hospital: Hospital) -> None:
    found = json.loads(hospital.run("status", "--json").stdout)
    assert found["outbox"] == NOTHING
    assert (found["deliveries"]["open"], found["deliveries"]["waiting_for"]) == (1, {"paused": 1})
    assert found["last_24_hours"] == {"dead": 1, "cancelled": 0}
    assert found["workers"] == []
    (endpoint,) = found["endpoints_in_trouble"]
    assert endpoint["id"] == ids.render(ids.ENDPOINT, hospital.endpoint)
    assert (endpoint["subscriber"], endpoint["state"], endpoint["waiting"]) == ("Northside", "paused", 1)
    assert (endpoint["waiting_for"], endpoint["until"]) == ("paused", None)

    shown = hospital.run("status").stdout
    assert "holidays" in shown
    assert ids.render(ids.ENDPOINT, hospital.endpoint) in shown


@pytest.mark.parametrize(
    ("column", "reason"), [("open_until", "breaker"), ("held_until", "retry_after"), ("failing_since", "no_worker")]
)
def test_status_says_what_deliveries_wait_for_and_until_when(hospital: Hospital, column: str, reason: str) -> None:
    hospital.fetch("UPDATE endpoints SET state = 'enabled', state_reason = NULL")
    hospital.fetch(
        f"INSERT INTO endpoint_health (endpoint_id, tenant_id, failures_in_a_row, {column})"
        " SELECT id, tenant_id, 10, '2100-01-01T00:00:00Z' FROM endpoints"
    )
    found = json.loads(hospital.run("status", "--json").stdout)
    assert found["deliveries"]["waiting_for"] == {reason: 1}
    (endpoint,) = found["endpoints_in_trouble"]
    until = None if reason == "no_worker" else "2100-01-01 00:00:00+00:00"
    assert (endpoint["waiting_for"], endpoint["until"]) == (reason, until)
    assert f"waiting for 1 {reason}" in hospital.run("status").stdout


def test_one_dead_delivery_goes_back_into_the_outbox_for_its_endpoint(hospital: Hospital) -> None:
    dead = ids.render(ids.DELIVERY, hospital.dead)
    found = hospital.run("replay", dead, "--json")
    assert found.returncode == 0
    (row,) = hospital.fetch("SELECT event_id, endpoint_id, delivery_id, reason FROM outbox")
    assert (row["event_id"], row["endpoint_id"], row["reason"]) == (hospital.event, hospital.endpoint, "replay")
    answer = {"id": ids.render(ids.DELIVERY, row["delivery_id"]), "replay_of": dead}
    assert json.loads(found.stdout) == answer
    (entry,) = json.loads(hospital.run("audit", "list", "--target", dead, "--json").stdout)
    assert (entry["action"], entry["actor"], entry["after"]) == (
        "delivery.replayed",
        "cli",
        {"delivery_id": answer["id"]},
    )


def test_many_become_a_job_that_a_worker_carries_out(hospital: Hospital) -> None:
    endpoint = ids.render(ids.ENDPOINT, hospital.endpoint)
    found = hospital.run("replay", "--endpoint", endpoint, "--since", "2026-01-01", "--yes", "--no-wait", "--json")
    assert found.returncode == 0
    job = json.loads(found.stdout)
    assert (job["state"], job["total"], job["done"]) == ("pending", 1, 0)
    (row,) = hospital.fetch("SELECT filter FROM jobs")
    assert json.loads(row["filter"]) == {
        "endpoint_id": str(hospital.endpoint),
        "state": "dead",
        "since": "2026-01-01T00:00:00+00:00",
        "to_other_hosts": True,
    }
    (entry,) = json.loads(hospital.run("audit", "list", "--target", job["id"], "--json").stdout)
    assert entry["after"] == {
        "endpoint_id": endpoint,
        "state": "dead",
        "since": "2026-01-01T00:00:00+00:00",
        "total": 1,
    }


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE endpoints SET state = 'disabled'", "the endpoint is disabled: resume it first"),
        ("UPDATE endpoints SET deleted_at = now()", "was deleted"),
        ("DELETE FROM events", "body is no longer kept"),
    ],
)
def test_what_the_api_refuses_to_replay_the_command_line_refuses(hospital: Hospital, statement: str, said: str) -> None:
    hospital.fetch(statement)
    found = hospital.run("replay", ids.render(ids.DELIVERY, hospital.dead))
    assert (found.returncode, said in found.stderr) == (1, True), found.stderr
    if "endpoint" in statement:
        many = hospital.run("replay", "--endpoint", ids.render(ids.ENDPOINT, hospital.endpoint), "--yes", "--no-wait")
        assert many.returncode == 1
    assert hospital.fetch("SELECT FROM outbox UNION ALL SELECT FROM jobs") == []
    assert "replay" not in hospital.run("audit", "list", "--json").stdout


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ((), 2, "say which"),
        (("evt_01h455vb4pex5vsknk084sn02q",), 2, "dlv_"),
        (("dlv_01h455vb4pex5vsknk084sn02q",), 1, "no such delivery"),
        (("--endpoint", "ep_01h455vb4pex5vsknk084sn02q"), 1, "no such endpoint"),
        (("--type", "Lab!"), 2, "--type"),
        (("--since", "yesterday"), 2, "2026-11-23T08:00"),
    ],
)
def test_what_can_not_be_replayed_is_said_so(
    hospital: Hospital, arguments: tuple[str, ...], status: int, said: str
) -> None:
    found = hospital.run("replay", *arguments)
    assert found.returncode == status
    assert said in found.stderr


def test_a_delivery_that_is_still_open_is_not_replayed(hospital: Hospital) -> None:
    found = hospital.run("replay", ids.render(ids.DELIVERY, hospital.waiting))
    assert found.returncode == 1
    assert "only one that is finished" in found.stderr


def test_a_delivery_that_waits_for_its_next_attempt_is_tried_now(hospital: Hospital) -> None:
    waiting = ids.render(ids.DELIVERY, hospital.waiting)
    refused = hospital.run("try-now", waiting)
    assert (refused.returncode, "paused: resume it first" in refused.stderr) == (1, True), refused.stderr
    hospital.fetch("UPDATE endpoints SET state = 'enabled'")
    hospital.fetch("UPDATE deliveries SET due_at = now() + interval '1 day'")
    assert hospital.run("try-now", waiting).returncode == 0
    assert hospital.fetch("SELECT due_at <= now() AS due FROM deliveries")[0]["due"]
    (entry,) = json.loads(hospital.run("audit", "list", "--target", waiting, "--json").stdout)
    assert entry["action"] == "delivery.tried_now"


def test_nobody_is_asked_to_replay_without_saying_yes(hospital: Hospital) -> None:
    assert hospital.run("replay", "--type", "lab_order.placed").returncode == 1
    assert hospital.fetch("SELECT id FROM jobs") == []
