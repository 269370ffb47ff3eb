"""Master keys and data keys change while the gateway works, and none that is needed can be lost silently."""

import asyncio
import json
import subprocess
from collections.abc import Callable

import asyncpg
import pytest

from webhook_gateway.crypto.master_keys import new_master_key

Cli = Callable[..., subprocess.CompletedProcess[str]]
OLD, NEW = new_master_key(), new_master_key()
OLD_NAME, NEW_NAME = OLD.partition(":")[0], NEW.partition(":")[0]


@pytest.fixture
def keys(cli: Cli, database_url: str) -> Cli:
    """``keys("rewrap", masters=…)`` in an installation that was set up with the old master key."""

    def run(*arguments: str, masters: str) -> subprocess.CompletedProcess[str]:
        return cli(*arguments, DATABASE_URL=database_url, WEBHOOK_GATEWAY_MASTER_KEYS=masters)

    assert run("keys", "create", "ops", "--role", "admin", masters=OLD).returncode == 0
    return run


def test_rewrapping_moves_every_data_key_to_the_newest_master_key(keys: Cli, database_url: str) -> None:
    rewrapped = keys("keys", "rewrap", "--json", masters=f"{NEW},{OLD}")
    assert rewrapped.returncode == 0, rewrapped.stderr
    assert json.loads(rewrapped.stdout) == {"master_key": NEW_NAME, "rewrapped": 2, "problems": []}
    assert {row["master_key"] for row in _fetch(database_url, "SELECT master_key FROM data_keys")} == {NEW_NAME}
    assert errors(keys("check", "--json", masters=NEW)) == []
    again = keys("keys", "rewrap", "--json", masters=NEW)
    assert json.loads(again.stdout)["rewrapped"] == 0


def test_a_master_key_that_rows_need_is_named_and_not_retired(keys: Cli) -> None:
    refused = keys("keys", "retire", OLD_NAME, masters=f"{NEW},{OLD}")
    assert refused.returncode == 1
    assert f"2 data keys are wrapped by {OLD_NAME}" in refused.stderr
    assert "keys rewrap" in refused.stderr
    assert keys("keys", "rewrap", masters=f"{NEW},{OLD}").returncode == 0
    assert keys("keys", "retire", OLD_NAME, masters=f"{NEW},{OLD}").returncode == 0
    newest = keys("keys", "retire", NEW_NAME, masters=f"{NEW},{OLD}")
    assert newest.returncode == 1


def test_check_names_the_master_key_that_is_gone_and_the_one_that_may_go(keys: Cli) -> None:
    gone = keys("check", "--json", masters=NEW)
    assert gone.returncode == 1
    assert OLD_NAME in "".join(errors(gone))
    both = keys("check", "--json", masters=f"{NEW},{OLD}")
    assert errors(both) == []
    assert f"2 data keys are still wrapped by {OLD_NAME}" in both.stdout


def test_rewrapping_without_the_old_master_key_fails_and_changes_nothing(keys: Cli, database_url: str) -> None:
    failed = keys("keys", "rewrap", masters=NEW)
    assert failed.returncode == 1
    assert OLD_NAME in failed.stderr
    assert {row["master_key"] for row in _fetch(database_url, "SELECT master_key FROM data_keys")} == {OLD_NAME}


def test_another_master_key_of_the_same_name_is_told_from_the_right_one(keys: Cli) -> None:
    impostor = f"{OLD_NAME}:{NEW.partition(':')[2]}"
    found = keys("check", "--json", masters=impostor)
    assert found.returncode == 1
    assert "does not open with the master key named" in found.stdout


@pytest.mark.parametrize("name", [OLD_NAME, NEW_NAME], ids=["the old one", "the new one"])
def test_a_rotation_with_a_master_key_that_is_not_the_gateways_says_so_and_changes_nothing(
    keys: Cli, database_url: str, name: str
) -> None:
    """With this one, running processes would have got data keys that they can't open."""
    counts = "SELECT (SELECT count(*) FROM data_keys), (SELECT count(*) FROM audit_log)"
    before = _fetch(database_url, counts)
    refused = keys("keys", "rotate", masters=f"{name}:{NEW.partition(':')[2]}")
    assert refused.returncode == 1
    assert "nothing was rotated: data key 1" in refused.stderr
    assert _fetch(database_url, counts) == before


def test_a_rotation_makes_a_newer_data_key_and_keeps_the_old_one(keys: Cli, database_url: str) -> None:
    before = _fetch(database_url, "SELECT version FROM configuration")[0]["version"]
    rotated = keys("keys", "rotate", "--json", masters=OLD)
    assert rotated.returncode == 0, rotated.stderr
    assert len(json.loads(rotated.stdout)) == 1
    counts = {
        row["purpose"]: row["count"]
        for row in _fetch(database_url, "SELECT purpose, count(*) FROM data_keys GROUP BY purpose")
    }
    assert counts == {"seal": 2, "index": 1}
    assert _fetch(database_url, "SELECT version FROM configuration")[0]["version"] > before


def test_a_data_key_that_has_sealed_half_of_what_it_may_is_told_with_the_remedy(keys: Cli, database_url: str) -> None:
    for records, is_told in [(2**31 - 1, False), (2**31, True)]:
        _fetch(database_url, f"UPDATE data_keys SET sealed = {records} WHERE purpose = 'seal'")
        for command in ("check", "status"):
            assert ("keys rotate" in keys(command, masters=OLD).stdout) is is_told
    assert keys("keys", "rotate", masters=OLD).returncode == 0
    assert "keys rotate" not in keys("check", masters=OLD).stdout


def test_rotating_and_rewrapping_are_audited(keys: Cli) -> None:
    keys("keys", "rotate", masters=OLD)
    keys("keys", "rewrap", masters=f"{NEW},{OLD}")
    listed = json.loads(keys("audit", "list", "--json", masters=NEW).stdout)
    assert {"data_key.rotated", "data_keys.rewrapped"} <= {entry["action"] for entry in listed}


def errors(checked: subprocess.CompletedProcess[str]) -> list[str]:
    """What `check` finds wrong with keys."""
    findings = json.loads(checked.stdout)["findings"]
    return [finding["text"] for finding in findings if (finding["level"], finding["about"]) == ("error", "keys")]


def _fetch(url: str, query: str) -> list[asyncpg.Record]:
    async def fetch() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetch(query)
        finally:
            await connection.close()

    return asyncio.run(fetch())
