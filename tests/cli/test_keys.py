"""`keys` works straight on the database, since before the first key nobody can ask the API."""

import asyncio
import json
import subprocess
from collections.abc import Callable
from datetime import datetime

import asyncpg
import pytest

from webhook_gateway.crypto.master_keys import new_master_key
from webhook_gateway.operations.change import local_name
from webhook_gateway.rules import api_keys

Cli = Callable[..., subprocess.CompletedProcess[str]]
MASTER = new_master_key()

IN_TROUBLE = """
WITH subscriber AS (
    INSERT INTO subscribers (id, tenant_id, name) SELECT gen_random_uuid(), id, $1 FROM tenants RETURNING *
)
INSERT INTO endpoints (id, tenant_id, subscriber_id, url, event_types, state)
SELECT gen_random_uuid(), tenant_id, id, 'https://lab.example.com/in', '{}', 'disabled' FROM subscriber
"""


@pytest.fixture
def keys(cli: Cli, database_url: str) -> Cli:
    def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return cli("keys", *arguments, DATABASE_URL=database_url, WEBHOOK_GATEWAY_MASTER_KEYS=MASTER, **settings)

    return run


def test_the_first_key_needs_nothing_but_a_database(keys: Cli, database_url: str) -> None:
    made = keys("create", "ops", "--role", "admin")
    assert made.returncode == 0
    key = made.stdout.strip()
    assert api_keys.is_key(key)

    (stored,) = asyncio.run(_fetch(database_url, "SELECT hash, scopes FROM api_keys"))
    assert stored["hash"] == api_keys.digest(key)
    assert stored["scopes"] == ["admin"]
    assert len(asyncio.run(_fetch(database_url, "SELECT FROM data_keys"))) == 2


def test_a_key_is_shown_once_and_never_again(keys: Cli) -> None:
    made = json.loads(keys("create", "lab", "--role", "producer", "--event-type", "lab_result.*", "--json").stdout)
    listed = keys("list", "--json")
    (row,) = json.loads(listed.stdout)
    assert made["key"] not in listed.stdout
    assert row["id"] == made["id"]
    assert (row["state"], row["scopes"], row["event_types"]) == ("valid", ["events:write"], ["lab_result.*"])
    assert made["id"] in keys("list").stdout


def test_a_revoked_key_stays_in_the_list_and_both_are_audited(keys: Cli, cli: Cli, database_url: str) -> None:
    made = json.loads(keys("create", "lab", "--scope", "events:write", "--days", "30", "--json").stdout)
    for _ in range(2):
        assert keys("revoke", made["id"]).returncode == 0
    (row,) = json.loads(keys("list", "--json").stdout)
    assert row["state"] == "revoked"

    audited = cli("audit", "list", "--target", made["id"], "--json", DATABASE_URL=database_url)
    assert [entry["actor"] for entry in json.loads(audited.stdout)] == [local_name(), local_name()]
    verified = cli("audit", "verify", "--json", DATABASE_URL=database_url)
    assert (verified.returncode, json.loads(verified.stdout)["whole"]) == (0, True)


@pytest.mark.parametrize(
    "name", ["[/x]", "[link=https://evil.example]here[/link]", "a\x1b[2Jb", "a\x9b2Jb", "a\u202eb"]
)
def test_whatever_a_key_or_subscriber_was_named_lists_show_it_as_text(
    keys: Cli, cli: Cli, database_url: str, name: str
) -> None:
    made = json.loads(keys("create", "lab", "--role", "producer", "--json").stdout)
    asyncio.run(_execute(database_url, "UPDATE api_keys SET name = $1", name))
    asyncio.run(_execute(database_url, IN_TROUBLE, name))
    printed = name.translate({0x1B: r"\u001b", 0x9B: r"\u009b", 0x202E: r"\u202e"})
    for shown in (keys("list"), cli("status", DATABASE_URL=database_url)):
        assert shown.returncode == 0, shown.stderr
        assert printed in "".join(shown.stdout.split())
    assert json.loads(keys("list", "--json").stdout)[0]["name"] == name
    said = keys("revoke", made["id"])
    assert said.returncode == 0
    assert printed in said.stderr


def test_what_holds_a_key_back_is_audited_but_not_the_key(keys: Cli, cli: Cli, database_url: str) -> None:
    restricted = ("--event-type", "lab_result.*", "--network", "10.20.0.0/16", "--days", "30")
    made = json.loads(keys("create", "lab", "--role", "producer", *restricted, "--json").stdout)
    audited = cli("audit", "list", "--target", made["id"], "--json", DATABASE_URL=database_url).stdout
    (entry,) = json.loads(audited)
    after = entry["after"]
    assert datetime.fromisoformat(after.pop("expires_at")) == datetime.fromisoformat(made["expires_at"])
    assert made["key"].startswith(after.pop("prefix"))
    assert after == {
        "name": "lab",
        "role": "producer",
        "scopes": ["events:write"],
        "event_types": ["lab_result.*"],
        "networks": ["10.20.0.0/16"],
    }
    assert made["key"] not in audited


def test_a_tenant_is_made_when_it_is_asked_for_and_stands_apart(keys: Cli, cli: Cli, database_url: str) -> None:
    keys("create", "ours", "--role", "admin")
    mistyped = keys("create", "theirs", "--role", "admin", "--tenant", "southside")
    assert (mistyped.returncode, "--new-tenant" in mistyped.stderr) == (1, True)
    made = keys("create", "theirs", "--role", "admin", "--tenant", "southside", "--new-tenant")
    assert made.returncode == 0, made.stderr
    assert keys("create", "x", "--role", "admin", "--tenant", "southside", "--new-tenant").returncode == 1
    purposes = "SELECT array_agg(purpose ORDER BY purpose) AS made FROM data_keys GROUP BY tenant_id"
    assert [row["made"] for row in asyncio.run(_fetch(database_url, purposes))] == [["index", "seal"]] * 2

    assert [row["name"] for row in json.loads(keys("list", "--json").stdout)] == ["ours"]
    (theirs,) = json.loads(keys("list", "--tenant", "southside", "--json").stdout)
    assert theirs["name"] == "theirs"
    assert keys("revoke", theirs["id"]).returncode == 1
    assert keys("revoke", theirs["id"], "--tenant", "southside").returncode == 0

    def audited(*arguments: str) -> list[str]:
        found = cli("audit", "list", *arguments, "--json", DATABASE_URL=database_url)
        return [entry["action"] for entry in json.loads(found.stdout)]

    assert audited() == ["key.created", "tenant.created"]
    assert audited("--tenant", "southside") == ["key.revoked", "key.created", "tenant.created"]
    assert cli("replay", "--since", "2026-01-01", "--tenant", "nowhere", DATABASE_URL=database_url).returncode == 1


def test_a_subscribers_key_needs_a_subscriber_of_that_tenant(keys: Cli) -> None:
    keys("create", "ours", "--role", "admin")
    found = keys("create", "lab", "--role", "partner", "--subscriber", "sub_01h455vb4pex5vsknk084sn02q")
    assert (found.returncode, "no such subscriber" in found.stderr) == (1, True)


def test_an_altered_audit_log_is_found(keys: Cli, cli: Cli, database_url: str) -> None:
    keys("create", "one", "--role", "auditor")
    keys("create", "two", "--role", "auditor")
    alter = (
        "ALTER TABLE audit_log DISABLE TRIGGER USER",
        "UPDATE audit_log SET actor = 'somebody else' WHERE sequence = 1",
    )
    for statement in alter:
        asyncio.run(_fetch(database_url, statement))
    verified = cli("audit", "verify", DATABASE_URL=database_url)
    assert verified.returncode == 1
    assert verified.stdout.startswith("broken: entry 1 ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", "x"), "--role"),
        (("create", "x", "--role", "king"), "choose among admin, producer"),
        (("create", "x", "--role", "partner"), "--subscriber"),
        (("create", "", "--role", "producer"), "the name"),
        (("create", " x", "--role", "producer"), "the name"),
        (("create", "x" * 201, "--role", "producer"), "the name"),
        (("create", "x", "--role", "producer", "--scope", "audit:read"), "either a role or scopes"),
        (("create", "x", "--role", "producer", "--event-type", "Lab!"), "--event-type"),
        (("create", "x", "--role", "producer", *("--event-type", "lab_result.*") * 101), "at most 100"),
        (("create", "x", "--role", "producer", "--network", "10.0.0.0/99"), "--network"),
        (("create", "x", "--role", "producer", "--network", "10.0.0.1/8"), "without host bits"),
        (("create", "x", "--role", "producer", *("--network", "10.0.0.0/8") * 51), "at most 50"),
        (("create", "x", "--role", "producer", "--days", "3000000"), "--days"),
        (("create", "x", "--role", "producer", "--subscriber", "evt_1"), "sub_"),
        (("create", "x", "--role", "producer", "--tenant", " ", "--new-tenant"), "tenant"),
        (("revoke", "not-an-id"), "key_"),
    ],
)
def test_what_makes_no_sense_is_wrong_usage(keys: Cli, arguments: tuple[str, ...], said: str) -> None:
    found = keys(*arguments)
    assert found.returncode == 2
    assert said in found.stderr


def test_a_key_that_is_not_there_can_not_be_revoked(keys: Cli) -> None:
    keys("create", "ops", "--role", "admin")
    found = keys("revoke", "key_01h455vb4pex5vsknk084sn02q")
    assert found.returncode == 1
    assert "no such key" in found.stderr


async def _fetch(url: str, statement: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch(statement))
    finally:
        await connection.close()


async def _execute(url: str, statement: str, *arguments: object) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement, *arguments)
    finally:
        await connection.close()
