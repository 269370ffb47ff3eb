"""`status`, `replay` and `try-now`, against the tables that a worker writes."""

import asyncio
import json
import subprocess
from collections.abc import Callable

import asyncpg
import pytest
from uuid_utils.compat import uuid7

from tests.support.command_line import Operator
from tests.support.rows import SUBSCRIBER
from webhook_gateway.operations.change import local_name
from webhook_gateway.rules import ids
from webhook_gateway.web.api.schemas.replays import Preview

Cli = Callable[..., subprocess.CompletedProcess[str]]
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


class Furnished(Operator):
    """One endpoint, one dead delivery and one that waits, written as a worker would have left them."""

    def __init__(self, cli: Cli, url: str) -> None:
        super().__init__(cli, url)
        self.endpoint, self.dead, self.waiting, self.event = uuid7(), uuid7(), uuid7(), uuid7()
        self.subscriber = uuid7()
        assert self.run("keys", "create", "ops", "--role", "admin").returncode == 0
        asyncio.run(self._on_connection(self._furnish))

    async def _furnish(self, connection: asyncpg.Connection) -> None:
        tenant = await connection.fetchval("SELECT id FROM tenants")
        await connection.execute(SUBSCRIBER, self.subscriber, tenant, "Northside")
        await connection.execute(ENDPOINT, self.endpoint, tenant, self.subscriber)
        await connection.execute(EVENT, self.event, tenant)
        await connection.execute(DEAD, self.dead, tenant, self.endpoint, self.event)
        await connection.execute(WAITING, self.waiting, tenant, self.endpoint, uuid7())


@pytest.fixture
def operator(cli: Cli, database_url: str) -> Furnished:
    return Furnished(cli, database_url)


def test_status_counts_what_waits_and_names_who_is_in_trouble(operator: Furnished) -> None:
    found = json.loads(operator.run("status", "--json").stdout)
    assert found["outbox"] == NOTHING
    assert (found["deliveries"]["open"], found["deliveries"]["waiting_for"]) == (1, {"paused": 1})
    assert found["last_24_hours"] == {"dead": 1, "cancelled": 0}
    assert found["workers"] == []
    (endpoint,) = found["endpoints_in_trouble"]
    assert endpoint["id"] == ids.render(ids.ENDPOINT, operator.endpoint)
    assert (endpoint["subscriber"], endpoint["state"], endpoint["waiting"]) == ("Northside", "paused", 1)
    assert (endpoint["waiting_for"], endpoint["until"]) == ("paused", None)

    shown = operator.run("status").stdout
    assert "holidays" in shown
    assert ids.render(ids.ENDPOINT, operator.endpoint) in shown


@pytest.mark.parametrize(
    ("column", "reason"), [("open_until", "breaker"), ("held_until", "retry_after"), ("failing_since", "no_worker")]
)
def test_status_says_what_deliveries_wait_for_and_until_when(operator: Furnished, column: str, reason: str) -> None:
    operator.fetch("UPDATE endpoints SET state = 'enabled', state_reason = NULL")
    operator.fetch(
        f"INSERT INTO endpoint_health (endpoint_id, tenant_id, failures_in_a_row, {column})"
        " SELECT id, tenant_id, 10, '2100-01-01T00:00:00Z' FROM endpoints"
    )
    found = json.loads(operator.run("status", "--json").stdout)
    assert found["deliveries"]["waiting_for"] == {reason: 1}
    (endpoint,) = found["endpoints_in_trouble"]
    until = None if reason == "no_worker" else "2100-01-01 00:00:00+00:00"
    assert (endpoint["waiting_for"], endpoint["until"]) == (reason, until)
    assert f"waiting for 1 {reason}" in operator.run("status").stdout


def test_one_dead_delivery_goes_back_into_the_outbox_for_its_endpoint(operator: Furnished) -> None:
    dead = ids.render(ids.DELIVERY, operator.dead)
    found = operator.run("replay", dead, "--json")
    assert found.returncode == 0
    (row,) = operator.fetch("SELECT event_id, endpoint_id, delivery_id, reason FROM outbox")
    assert (row["event_id"], row["endpoint_id"], row["reason"]) == (operator.event, operator.endpoint, "replay")
    answer = {"id": ids.render(ids.DELIVERY, row["delivery_id"]), "replay_of": dead}
    assert json.loads(found.stdout) == answer
    (entry,) = json.loads(operator.run("audit", "list", "--target", dead, "--json").stdout)
    assert (entry["action"], entry["actor"], entry["after"]) == (
        "delivery.replayed",
        local_name(),
        {"delivery_id": answer["id"]},
    )


def test_many_become_a_job_that_a_worker_carries_out(operator: Furnished) -> None:
    endpoint = ids.render(ids.ENDPOINT, operator.endpoint)
    found = operator.run("replay", "--endpoint", endpoint, "--since", "2026-01-01", "--yes", "--no-wait", "--json")
    assert found.returncode == 0
    job = json.loads(found.stdout)
    assert (job["state"], job["total"], job["done"]) == ("pending", 1, 0)
    (row,) = operator.fetch("SELECT filter FROM jobs")
    assert json.loads(row["filter"]) == {
        "endpoint_id": str(operator.endpoint),
        "state": "dead",
        "since": "2026-01-01T00:00:00+00:00",
        "to_other_hosts": True,
    }
    (entry,) = json.loads(operator.run("audit", "list", "--target", job["id"], "--json").stdout)
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
def test_what_the_api_refuses_to_replay_the_command_line_refuses(
    operator: Furnished, statement: str, said: str
) -> None:
    operator.fetch(statement)
    found = operator.run("replay", ids.render(ids.DELIVERY, operator.dead))
    assert (found.returncode, said in found.stderr) == (1, True), found.stderr
    if "endpoint" in statement:
        many = operator.run("replay", "--endpoint", ids.render(ids.ENDPOINT, operator.endpoint), "--yes", "--no-wait")
        assert many.returncode == 1
    assert operator.fetch("SELECT FROM outbox UNION ALL SELECT FROM jobs") == []
    assert "replay" not in operator.run("audit", "list", "--json").stdout


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
    operator: Furnished, arguments: tuple[str, ...], status: int, said: str
) -> None:
    found = operator.run("replay", *arguments)
    assert found.returncode == status
    assert said in found.stderr


def test_a_delivery_that_is_still_open_is_not_replayed(operator: Furnished) -> None:
    found = operator.run("replay", ids.render(ids.DELIVERY, operator.waiting))
    assert found.returncode == 1
    assert "only one that is finished" in found.stderr


def test_a_delivery_that_waits_for_its_next_attempt_is_tried_now(operator: Furnished) -> None:
    waiting = ids.render(ids.DELIVERY, operator.waiting)
    refused = operator.run("try-now", waiting)
    assert (refused.returncode, "paused: resume it first" in refused.stderr) == (1, True), refused.stderr
    operator.fetch("UPDATE endpoints SET state = 'enabled'")
    operator.fetch("UPDATE deliveries SET due_at = now() + interval '1 day'")
    assert operator.run("try-now", waiting).returncode == 0
    assert operator.fetch("SELECT due_at <= now() AS due FROM deliveries")[0]["due"]
    (entry,) = json.loads(operator.run("audit", "list", "--target", waiting, "--json").stdout)
    assert entry["action"] == "delivery.tried_now"


def test_an_endpoint_is_sent_what_was_accepted_before(operator: Furnished) -> None:
    endpoint = ids.render(ids.ENDPOINT, operator.endpoint)
    operator.fetch("DELETE FROM finished_deliveries")
    told = operator.run("backfill", endpoint, "--since", "2020-01-01", "--dry-run")
    assert (told.returncode, told.stderr.splitlines()[0]) == (0, "1 would be sent"), told.stderr
    assert "overtake" in told.stderr
    assert operator.fetch("SELECT FROM jobs") == []
    found = operator.run("backfill", endpoint, "--since", "2020-01-01", "--yes", "--no-wait", "--json")
    job = json.loads(found.stdout)
    assert (job["state"], job["total"], job["done"]) == ("pending", 1, 0)
    (entry,) = json.loads(operator.run("audit", "list", "--target", job["id"], "--json").stdout)
    after = {"endpoint_id": endpoint, "since": "2020-01-01T00:00:00+00:00", "total": 1}
    assert (entry["action"], entry["after"]) == ("backfill.created", after)


def test_nobody_is_asked_to_replay_without_saying_yes(operator: Furnished) -> None:
    asked = operator.run("replay", "--type", "lab_order.placed")
    assert (asked.returncode, "1 would be sent" in asked.stderr) == (1, True), asked.stderr
    assert operator.fetch("SELECT id FROM jobs") == []


def test_an_endpoint_is_paused_with_a_reason(operator: Furnished) -> None:
    endpoint = ids.render(ids.ENDPOINT, operator.endpoint)
    assert operator.run("resume", endpoint).returncode == 0
    refused = operator.run("pause", endpoint, "--reason", "two\nlines")
    assert (refused.returncode, "--reason: give printable text" in refused.stderr) == (2, True), refused.stderr
    assert operator.run("pause", endpoint, "--reason", "certificate change").returncode == 0
    (row,) = operator.fetch("SELECT state, state_reason, state_changed_by FROM endpoints")
    assert tuple(row) == ("paused", "certificate change", "the command line")


def test_what_would_be_sent_again_is_said_and_not_done(operator: Furnished) -> None:
    found = operator.run("replay", "--all", "--dry-run", "--json")
    told = json.loads(found.stdout)
    assert told == {**told, "count": 1, "more": False, "missing": 0, "second_deliveries": 0, "wider": 0}
    assert told.keys() == Preview.model_fields.keys()
    operator.fetch("DELETE FROM events")
    found = operator.run("replay", "--subscriber", ids.render(ids.SUBSCRIBER, operator.subscriber), "--dry-run")
    assert (found.returncode, found.stderr.splitlines()) == (
        0,
        ["0 would be sent", "  1 more can't be: their bodies are no longer kept"],
    )
    assert operator.fetch("SELECT FROM jobs UNION ALL SELECT FROM outbox") == []


def test_an_endpoint_is_paused_and_resumed_as_over_the_api(operator: Furnished) -> None:
    endpoint = ids.render(ids.ENDPOINT, operator.endpoint)
    for command, state in (("resume", "enabled"), ("pause", "paused")):
        assert operator.run(command, endpoint).stderr == f"{endpoint} is {state}\n"
        assert [row["state"] for row in operator.fetch("SELECT state FROM endpoints")] == [state]
    entries = json.loads(operator.run("audit", "list", "--target", endpoint, "--json").stdout)
    assert [entry["action"] for entry in entries] == ["endpoint.paused", "endpoint.resumed"]
    told = operator.fetch("SELECT type FROM outbox ORDER BY sequence")
    assert [row["type"] for row in told] == ["gateway.endpoint_resumed", "gateway.endpoint_paused"]


def test_why_says_how_a_delivery_stands_and_of_an_event_each_endpoint(operator: Furnished) -> None:
    found = operator.run("why", ids.render(ids.DELIVERY, operator.waiting))
    assert found.stdout.startswith("The endpoint was paused "), found.stderr
    assert found.stdout.endswith(' ago: "holidays". Next: Somebody has to resume it.\n')
    (line,) = operator.run("why", ids.render(ids.EVENT, operator.event)).stdout.splitlines()
    endpoint, _, sentence = line.partition("  ")
    assert endpoint == ids.render(ids.ENDPOINT, operator.endpoint)
    assert sentence.startswith("Given up ")
    unknown = operator.run("why", ids.render(ids.EVENT, operator.waiting))
    assert (unknown.returncode, "there is no such event" in unknown.stderr) == (1, True)
    wrong = operator.run("why", "ep_01h455vb4pex5vsknk084sn02q")
    assert (wrong.returncode, "begins with dlv_" in wrong.stderr) == (2, True)


def test_a_delivery_is_cancelled_once(operator: Furnished) -> None:
    delivery = ids.render(ids.DELIVERY, operator.waiting)
    assert operator.run("cancel", delivery).stderr == f"{delivery} is cancelled\n"
    (row,) = operator.fetch("SELECT state_reason FROM finished_deliveries WHERE state = 'cancelled'")
    assert row["state_reason"] == "by_hand"
    refused = operator.run("cancel", delivery)
    assert (refused.returncode, "has ended already" in refused.stderr) == (1, True)


def test_a_backlog_is_counted_and_then_cancelled(operator: Furnished) -> None:
    asked = ("cancel", "--endpoint", ids.render(ids.ENDPOINT, operator.endpoint))
    assert operator.run(*asked, "--dry-run").stderr == "waiting: 1\n"
    assert operator.run(*asked, "--yes", "--type", "lab_order.cancelled").stderr == "cancelled: 0\n"
    assert operator.fetch("SELECT FROM finished_deliveries WHERE state = 'cancelled'") == []
    assert operator.run(*asked, "--yes").stderr == "cancelled: 1\n"
    (row,) = operator.fetch("SELECT id FROM finished_deliveries WHERE state = 'cancelled'")
    assert row["id"] == operator.waiting
    refused = operator.run("cancel")
    assert (refused.returncode, "say which" in refused.stderr) == (2, True)


def test_an_id_leads_to_what_it_is_of(operator: Furnished) -> None:
    delivery, event = ids.render(ids.DELIVERY, operator.dead), ids.render(ids.EVENT, operator.event)
    found = json.loads(operator.run("find", delivery, "--json").stdout)
    assert [(item["kind"], item["id"]) for item in found["items"]] == [("delivery", delivery), ("event", event)]
    assert event in operator.run("find", event).stdout
    unknown = operator.run("find", "nobody")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "nothing that is known here" in unknown.stderr
