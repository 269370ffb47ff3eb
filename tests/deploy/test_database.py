"""The script makes a role and a database that have what the gateway needs, and no more."""

import os
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from tests.support.command_line import bare_environment, command
from tests.support.postgres import serving
from webhook_gateway.crypto.master_keys import make_key_file

SCRIPT = Path(__file__).parents[2] / "deploy" / "database.sql"
PASSWORD = "of-this-test"

pytestmark = [
    pytest.mark.skipif(shutil.which("psql") is None, reason="needs psql (Debian: postgresql-client)"),
    pytest.mark.skipif("DATABASE_URL" in os.environ, reason="makes a role, so it needs a server of its own"),
]


async def test_its_role_can_migrate_the_check_finds_nothing_wrong_and_others_stay_out(tmp_path: Path) -> None:
    key_file = make_key_file(tmp_path)
    with serving({}) as server:
        psql("--file", str(SCRIPT), url=server.url)
        await server.execute(f"ALTER ROLE gateway PASSWORD '{PASSWORD}'")
        await server.execute(f"CREATE ROLE stranger LOGIN PASSWORD '{PASSWORD}'")
        url = of("gateway", server.url_of("gateway"))
        settings = {"DATABASE_URL": url, "WEBHOOK_GATEWAY_MASTER_KEY_FILE": str(key_file)}
        for arguments in (["migrate"], ["check"]):
            ran = subprocess.run(
                command(*arguments), env=bare_environment(**settings), capture_output=True, text=True, timeout=120
            )
            assert ran.returncode == 0, ran.stdout + ran.stderr
        assert psql("--tuples-only", "--command", "SHOW log_error_verbosity", url=url).strip() == "terse"
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await asyncpg.connect(of("stranger", url))


def psql(*arguments: str, url: str) -> str:
    options = ["psql", "--no-psqlrc", "--set", "ON_ERROR_STOP=1", *arguments, url]
    return subprocess.run(options, check=True, capture_output=True, text=True, timeout=60).stdout


def of(role: str, url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{role}:{PASSWORD}@{parts.hostname}:{parts.port}"))
