"""What an operator can fix is said in one sentence with the remedy; the exit code says which kind of thing it is."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command_line import command
from tests.support.pgbouncer import needs_pgbouncer, pooled
from webhook_gateway.crypto.master_keys import new_master_key

Cli = Callable[..., subprocess.CompletedProcess[str]]
AWAY = "postgresql://gateway:hunter2@127.0.0.1:1/gateway"


def test_the_version_is_printed(environment: dict[str, str]) -> None:
    found = subprocess.run(command("--version"), env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.split()[0] == "webhook-gateway"


@pytest.mark.parametrize(
    "command",
    [
        "",
        "up",
        "serve",
        "work",
        "migrate",
        "check",
        "demo",
        "status",
        "replay",
        "listen",
        "keys create",
        "keys master",
        "audit verify",
        "check-url",
        "sign",
        "verify",
    ],
)
def test_every_command_explains_itself(cli: Cli, command: str) -> None:
    found = cli(*command.split(), "--help")
    assert found.returncode == 0
    assert "Usage" in found.stdout


@pytest.mark.parametrize("arguments", [("status",), ("migrate",), ("keys", "list"), ("audit", "verify")])
def test_a_database_that_is_away_is_exit_code_3(cli: Cli, arguments: tuple[str, ...]) -> None:
    found = cli(*arguments, DATABASE_URL=AWAY)
    assert found.returncode == 3
    assert found.stderr.count("\n") == 1
    assert "DATABASE_URL" in found.stderr
    assert "hunter2" not in found.stderr


@pytest.mark.parametrize("command", ["status", "serve", "work"])
def test_without_a_database_one_is_told_which_setting_names_it(cli: Cli, command: str) -> None:
    found = cli(command)
    assert found.returncode == 2
    assert "DATABASE_URL is not set" in found.stderr


@pytest.mark.parametrize("command", ["serve", "work"])
def test_without_a_master_key_nothing_starts(cli: Cli, command: str, tmp_path: Path) -> None:
    found = cli(command, DATABASE_URL=AWAY)
    assert found.returncode == 2
    assert "webhook-gateway keys master" in found.stderr

    missing = cli(command, DATABASE_URL=AWAY, WEBHOOK_GATEWAY_MASTER_KEY_FILE=str(tmp_path / "gone"))
    assert missing.returncode == 2
    assert str(tmp_path / "gone") in missing.stderr


def test_a_wrong_setting_is_named_as_it_stands_in_the_environment(cli: Cli) -> None:
    found = cli("status", WEBHOOK_GATEWAY_BODY_LIMIT="huge")
    assert found.returncode == 2
    assert found.stderr.startswith("webhook-gateway: WEBHOOK_GATEWAY_BODY_LIMIT is wrong")


def test_wrong_credentials_and_a_missing_database_are_told_apart(cli: Cli, database_url: str) -> None:
    gone = cli("status", DATABASE_URL=database_url + "_gone")
    assert gone.returncode == 2
    assert "does not exist" in gone.stderr
    scheme, _, rest = database_url.partition("://")
    refused = cli("status", DATABASE_URL=f"{scheme}://nobody:wrong@{rest.partition('@')[2]}")
    assert refused.returncode == 2
    assert "password" in refused.stderr


@needs_pgbouncer
def test_a_pooler_that_shares_sessions_is_refused_with_the_remedy(cli: Cli, database_url: str) -> None:
    settings = {"WEBHOOK_GATEWAY_MASTER_KEYS": new_master_key()}
    with pooled(database_url, "session") as url:
        assert cli("status", DATABASE_URL=url).returncode == 0
    with pooled(database_url, "transaction") as url:
        for command, status in (("serve", 2), ("work", 2), ("status", 2), ("check", 1)):
            found = cli(command, DATABASE_URL=url, **settings)
            assert found.returncode == status
            assert "pool_mode = session" in found.stderr + found.stdout


def test_a_database_without_the_schema_sends_one_to_migrate(cli: Cli, database_url: str) -> None:
    bare = database_url.rpartition("/")[0] + "/postgres"
    found = cli("status", DATABASE_URL=bare)
    assert found.returncode == 1
    assert "webhook-gateway migrate" in found.stderr


def test_a_port_that_is_taken_is_said_to_be_taken(cli: Cli, database_url: str) -> None:
    port = database_url.partition("@")[2].partition(":")[2].partition("/")[0]
    settings = {"DATABASE_URL": database_url, "WEBHOOK_GATEWAY_MASTER_KEYS": new_master_key()}
    found = cli("serve", "--port", port, **settings)
    assert found.returncode == 1
    assert "choose another --port" in found.stderr


def test_migrate_says_what_it_did_and_check_changes_nothing(cli: Cli, database_url: str) -> None:
    assert cli("migrate", "--check", DATABASE_URL=database_url).returncode == 0
    assert "is the newest" in cli("migrate", DATABASE_URL=database_url).stderr
    bare = database_url.rpartition("/")[0] + "/postgres"
    for _ in range(2):
        assert cli("migrate", "--check", DATABASE_URL=bare).returncode == 1
