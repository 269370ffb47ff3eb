"""`check` tells errors from warnings, and names the setting or the remedy of each."""

import asyncio
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from tests.support.identity_provider import CLIENT_ID, SECRET, identity_provider
from tests.support.mail_server import mail_server
from tests.support.postgres import Server
from webhook_gateway.crypto.master_keys import new_master_key

Cli = Callable[..., subprocess.CompletedProcess[str]]
MASTER = new_master_key()
on_a_durable_server = pytest.mark.xdist_group("durable")


def findings(found: subprocess.CompletedProcess[str], level: str) -> str:
    listed = json.loads(found.stdout)["findings"]
    return "\n".join(finding["text"] for finding in listed if finding["level"] == level)


@on_a_durable_server
def test_a_sound_configuration_has_no_errors(cli: Cli, durable_url: str) -> None:
    settings = {"DATABASE_URL": durable_url, "WEBHOOK_GATEWAY_MASTER_KEYS": MASTER}
    settings |= {"WEBHOOK_GATEWAY_API_PROCESSES": "2", "WEBHOOK_GATEWAY_WORKER_PROCESSES": "2"}
    assert cli("keys", "create", "ops", "--role", "admin", **settings).returncode == 0
    found = cli("check", "--json", **settings)
    assert found.returncode == 0, found.stdout
    assert json.loads(found.stdout)["warnings"] == 0, found.stdout
    assert MASTER.split(":")[1] not in found.stdout


def test_every_wrong_setting_is_named_at_once_without_its_value(cli: Cli) -> None:
    settings = {"WEBHOOK_GATEWAY_CONCURRENCY": "many", "WEBHOOK_GATEWAY_RETAIN_BODIES_DAYS": "0"}
    found = cli("check", "--json", WEBHOOK_GATEWAY_MASTER_KEYS="secret", **settings)
    assert found.returncode == 1
    errors = findings(found, "error")
    assert all(name in errors for name in settings)
    assert "secret" not in found.stdout + found.stderr


@on_a_durable_server
def test_a_misspelt_setting_and_every_loosened_guard_are_warnings(cli: Cli, durable_url: str) -> None:
    loose = {
        "WEBHOOK_GATEWAY_PROT": "8080",
        "WEBHOOK_GATEWAY_ALLOW_HTTP": "true",
        "WEBHOOK_GATEWAY_ALLOW_NETWORKS": "10.20.0.0/16,127.0.0.0/8",
        "WEBHOOK_GATEWAY_KEEP_RESPONSES": "100",
        "WEBHOOK_GATEWAY_HOST": "0.0.0.0",
    }
    found = cli("check", "--json", DATABASE_URL=durable_url, WEBHOOK_GATEWAY_MASTER_KEYS=MASTER, **loose)
    assert found.returncode == 0, found.stdout
    warnings = findings(found, "warning")
    for said in (
        "WEBHOOK_GATEWAY_PROT",
        "unencrypted",
        "10.20.0.0/16",
        "no effect for 127.0.0.0/8",
        "100 bytes",
        "0.0.0.0",
    ):
        assert said in warnings


def test_a_server_that_can_lose_what_it_committed_is_an_error(cli: Cli, postgres: Server, database_url: str) -> None:
    if postgres.data is None:
        pytest.skip("the server is somebody else's")
    found = cli("check", "--json", DATABASE_URL=database_url, WEBHOOK_GATEWAY_MASTER_KEYS=MASTER)
    assert found.returncode == 1
    assert "fsync is off" in findings(found, "error")


def test_more_connections_than_the_database_takes_are_a_warning_with_both_numbers(cli: Cli, database_url: str) -> None:
    settings = {"DATABASE_URL": database_url, "WEBHOOK_GATEWAY_MASTER_KEYS": MASTER}
    settings |= {"WEBHOOK_GATEWAY_API_PROCESSES": "200", "WEBHOOK_GATEWAY_WORKER_PROCESSES": "100"}
    warnings = findings(cli("check", "--json", **settings), "warning")
    assert "200 API and 100 worker processes may open 6100" in warnings


def test_a_database_without_the_schema_is_an_error_with_the_remedy(cli: Cli, database_url: str) -> None:
    bare = database_url.rpartition("/")[0] + "/postgres"
    found = cli("check", "--json", DATABASE_URL=bare, WEBHOOK_GATEWAY_MASTER_KEYS=MASTER)
    assert found.returncode == 1
    assert "webhook-gateway migrate" in findings(found, "error")


def test_a_lost_master_key_is_an_error(cli: Cli, database_url: str) -> None:
    made = {"DATABASE_URL": database_url, "WEBHOOK_GATEWAY_MASTER_KEYS": MASTER}
    cli("keys", "create", "ops", "--role", "admin", **made)
    found = cli("check", "--json", DATABASE_URL=database_url, WEBHOOK_GATEWAY_MASTER_KEYS=new_master_key())
    assert found.returncode == 1
    assert MASTER.split(":")[0] in findings(found, "error")


def test_a_database_that_is_away_is_said_to_be_away(cli: Cli) -> None:
    found = cli("check", "--json", DATABASE_URL="postgresql://gateway:hunter2@127.0.0.1:1/gateway")
    assert found.returncode == 1
    assert "does not answer" in findings(found, "error")
    assert "hunter2" not in found.stdout + found.stderr


def test_what_loosens_a_guard_is_said_by_its_consequence(cli: Cli, database_url: str) -> None:
    loose = {
        "WEBHOOK_GATEWAY_ALLOW_NAMES": "lab.internal",
        "WEBHOOK_GATEWAY_ALLOW_IP_LITERALS": "true",
        "WEBHOOK_GATEWAY_EGRESS_PORTS": "443,9443",
        "WEBHOOK_GATEWAY_EGRESS_PROXY": "http://proxy.example:3128",
        "WEBHOOK_GATEWAY_API_RATE": "0",
        "WEBHOOK_GATEWAY_PUBLIC_DOCS": "true",
        "WEBHOOK_GATEWAY_OIDC_ISSUER": "https://id.example.org",
        "WEBHOOK_GATEWAY_OIDC_AUDIENCE": "webhook-gateway",
        "WEBHOOK_GATEWAY_OIDC_JWKS_URL": "https://id.example.org/keys",
        "WEBHOOK_GATEWAY_OIDC_ROLES": "officers=privacy_officer",
    }
    found = cli("check", "--json", DATABASE_URL=database_url, WEBHOOK_GATEWAY_MASTER_KEYS=MASTER, **loose)
    warnings = findings(found, "warning")
    for said in (
        "lab.internal",
        "no name to check",
        "9443",
        "refuse private ones",
        "API_RATE",
        "without a key",
        "groups",
    ):
        assert said in warnings


def test_subscribers_of_which_nobody_has_said_what_they_may_have_are_named(cli: Cli, database_url: str) -> None:
    async def upgrade() -> None:
        connection = await asyncpg.connect(database_url)
        await connection.execute("INSERT INTO tenants (id, name) VALUES (gen_random_uuid(), 'default')")
        await connection.execute(
            "INSERT INTO subscribers (id, tenant_id, name, permission_by_migration)"
            " SELECT gen_random_uuid(), id, 'Northside', true FROM tenants"
        )
        await connection.close()

    asyncio.run(upgrade())
    found = cli("check", "--json", DATABASE_URL=database_url, WEBHOOK_GATEWAY_MASTER_KEYS=MASTER)
    assert "1 subscribers may have what the upgrade left them, with all data: Northside" in findings(found, "warning")


@on_a_durable_server
async def test_the_mail_server_is_asked_whether_it_would_take_a_message_and_gets_none(
    cli: Cli, durable_url: str, tmp_path: Path
) -> None:
    async with mail_server(tmp_path) as server:
        settings = {"DATABASE_URL": durable_url, "WEBHOOK_GATEWAY_MASTER_KEYS": MASTER}
        settings |= {f"WEBHOOK_GATEWAY_{name.upper()}": str(value) for name, value in server.settings.items()}
        settings |= {"WEBHOOK_GATEWAY_SMTP_TO": "operators@hospital.example", "SSL_CERT_FILE": f"{tmp_path}/ca.pem"}

        async def check(**changes: str) -> subprocess.CompletedProcess[str]:
            return await asyncio.to_thread(cli, "check", "--json", **{**settings, **changes})

        assert "takes mail for operators@hospital.example" in findings(await check(), "ok")
        found = await check(WEBHOOK_GATEWAY_SMTP_TO="nobody@hospital.example")
        assert "takes no mail of ours (SMTPRecipientRefused)" in findings(found, "error")
        assert found.returncode == 1
        found = await check(SSL_CERT_FILE="")
        assert "takes no mail of ours (SSLCertVerificationError)" in findings(found, "error")
        found = await check(WEBHOOK_GATEWAY_SMTP_TLS="none")
        assert "unencrypted" in findings(found, "warning")
    assert server.messages == []


@on_a_durable_server
def test_a_log_that_would_quote_rows_or_parameters_is_a_warning(cli: Cli, durable: Server, durable_url: str) -> None:
    settings = {"DATABASE_URL": durable_url, "WEBHOOK_GATEWAY_MASTER_KEYS": MASTER}
    name = durable_url.rpartition("/")[2]
    for change, said in (
        ("log_error_verbosity = 'default'", "log_error_verbosity is default"),
        ("log_min_duration_statement = 100", "log_parameter_max_length"),
        ("log_parameter_max_length_on_error = 64", "log_parameter_max_length"),
    ):
        assert said not in findings(cli("check", "--json", **settings), "warning")
        asyncio.run(durable.execute(f'ALTER DATABASE "{name}" SET {change}'))
        assert said in findings(cli("check", "--json", **settings), "warning")
        asyncio.run(durable.execute(f'ALTER DATABASE "{name}" RESET ALL'))


def test_keys_that_end_within_two_weeks_are_told_by_check_and_status(cli: Cli, database_url: str) -> None:
    settings = {"DATABASE_URL": database_url, "WEBHOOK_GATEWAY_MASTER_KEYS": MASTER}
    for name, days in (("hms", "13"), ("laboratory", "15")):
        assert cli("keys", "create", name, "--role", "producer", "--days", days, **settings).returncode == 0
    told = findings(cli("check", "--json", **settings), "warning")
    assert "(hms) ends" in told
    assert "laboratory" not in told
    (expiring,) = json.loads(cli("status", "--json", **settings).stdout)["expiring"]
    assert (expiring["kind"], expiring["name"]) == ("api_key", "hms")
    assert "(hms) until" in cli("status", **settings).stdout


def test_while_sending_is_paused_check_and_status_say_so(cli: Cli, database_url: str) -> None:
    settings = {"DATABASE_URL": database_url, "WEBHOOK_GATEWAY_MASTER_KEYS": MASTER}
    assert cli("keys", "create", "ops", "--role", "admin", **settings).returncode == 0
    assert json.loads(cli("status", "--json", **settings).stdout)["sending_paused"] is None
    assert cli("pause-all", "--reason", "a drill", **settings).returncode == 0
    assert "a drill" in findings(cli("check", "--json", **settings), "warning")
    assert json.loads(cli("status", "--json", **settings).stdout)["sending_paused"]["reason"] == "a drill"
    assert "a drill" in cli("status", **settings).stdout
    assert "goes on" in cli("resume-all", **settings).stderr
    assert "was not paused" in cli("resume-all", **settings).stderr
    actions = [entry["action"] for entry in json.loads(cli("audit", "list", "--json", **settings).stdout)]
    assert actions[:2] == ["sending.resumed", "sending.paused"]


@pytest.mark.parametrize("half", [("serve", "--port", "0", "--processes", "1"), ("work", "--processes", "1")])
def test_whoever_starts_it_for_development_is_told_loudly(
    start: Callable[..., subprocess.Popen[str]], database_url: str, half: tuple[str, ...]
) -> None:
    settings = {"DATABASE_URL": database_url, "WEBHOOK_GATEWAY_MASTER_KEYS": MASTER}
    process = start(*half, settings=settings | {"WEBHOOK_GATEWAY_DEVELOPMENT": "true"})
    assert process.stderr is not None
    assert any("DEVELOPMENT IS ON" in line for line in process.stderr)  # reads until there is one


@on_a_durable_server
async def test_the_identity_provider_is_asked_where_people_sign_in(cli: Cli, durable_url: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    async with identity_provider() as provider:
        settings = {
            "DATABASE_URL": durable_url,
            "WEBHOOK_GATEWAY_MASTER_KEYS": MASTER,
            "WEBHOOK_GATEWAY_DEVELOPMENT": "true",
            "WEBHOOK_GATEWAY_OIDC_ISSUER": provider.url,
            "WEBHOOK_GATEWAY_OIDC_CLIENT_ID": CLIENT_ID,
            "WEBHOOK_GATEWAY_OIDC_CLIENT_SECRET_FILE": str(tmp_path / "secret"),
            "WEBHOOK_GATEWAY_OIDC_ROLES": "hms-operators=operator",
        }

        async def check(**changes: str) -> subprocess.CompletedProcess[str]:
            return await asyncio.to_thread(cli, "check", "--json", **{**settings, **changes})

        assert f"{provider.url} says where people sign in" in findings(await check(), "ok")
        missing = await check(WEBHOOK_GATEWAY_OIDC_CLIENT_SECRET_FILE=str(tmp_path / "none"))
        assert "CLIENT_SECRET_FILE can't be read" in findings(missing, "error")
        provider.instead["/.well-known/openid-configuration"] = (503, b"")
        away = await check()
    assert "is away, or of another issuer" in findings(away, "error")
    assert SECRET not in away.stdout + away.stderr
