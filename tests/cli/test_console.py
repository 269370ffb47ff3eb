"""`console` prints a link that signs in once, with as much as a role may."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from webhook_gateway.crypto.master_keys import new_master_key
from webhook_gateway.operations import sessions

Cli = Callable[..., subprocess.CompletedProcess[str]]


async def test_the_link_has_its_code_in_the_fragment_and_the_role_that_was_asked_for(
    cli: Cli, database_url: str
) -> None:
    settings = {
        "DATABASE_URL": database_url,
        "WEBHOOK_GATEWAY_PUBLIC_URL": "https://gateway.example.org",
        "WEBHOOK_GATEWAY_MASTER_KEYS": new_master_key(),
    }
    assert cli("keys", "create", "ops", "--role", "admin", **settings).returncode == 0
    found = cli("console", "--role", "auditor", **settings)
    assert found.returncode == 0
    address, code = found.stdout.strip().split("#")
    assert address == "https://gateway.example.org/console/login"
    connection = await asyncpg.connect(database_url)
    try:
        row = await connection.fetchrow("SELECT scopes, code_hash, actor FROM sessions")
    finally:
        await connection.close()
    assert row is not None
    assert set(row["scopes"]) >= {"audit:read", "deliveries:read"}
    assert "admin" not in row["scopes"]
    assert row["code_hash"] == sessions.digest(code)
    assert row["actor"].startswith("cli")


def test_the_link_is_opened_in_the_machines_browser(
    cli: Cli, database_url: str, environment: dict[str, str], tmp_path: Path
) -> None:
    opened = tmp_path / "opened"
    (tmp_path / "xdg-open").write_text(f'#!/bin/sh\necho "$1" > {opened}.new && mv {opened}.new {opened}\n')
    (tmp_path / "xdg-open").chmod(0o755)
    environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
    settings = {"DATABASE_URL": database_url, "WEBHOOK_GATEWAY_MASTER_KEYS": new_master_key()}
    assert cli("keys", "create", "ops", "--role", "admin", **settings).returncode == 0
    found = cli("console", "--open", **settings)
    assert found.returncode == 0, found.stderr
    deadline = time.monotonic() + 20
    while not opened.exists() and time.monotonic() < deadline:
        time.sleep(0.02)  # the browser is nobody's child any more
    assert opened.read_text() == found.stdout


@pytest.mark.parametrize("role", ["partner", "boss"])
def test_a_role_that_is_none_or_needs_a_partner_is_refused(cli: Cli, database_url: str, role: str) -> None:
    found = cli("console", "--role", role, DATABASE_URL=database_url)
    assert found.returncode == 2
    assert "auditor" in found.stderr
