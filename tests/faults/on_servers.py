"""Faults of where the database is: another server takes over, in good order or not, and the password is another."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from tests.support.postgres import MortalPostgres
from tests.support.standby import follow, standby_of
from webhook_gateway.store import migrate

from .house import House
from .link import Link
from .on_api import expect_honest_refusals
from .on_database import BACK_WITHIN
from .report import Report
from .stage import Stage, moment, staged, until

DATABASE = "gateway"
AWAY = 2.0
"""Seconds for which the address leads to a standby, or the password is another than the gateway's."""


@dataclass(slots=True, eq=False)
class Pair:
    """A primary and its standby: ``address`` leads to the primary. The gateway has its password from a file."""

    primary: MortalPostgres
    standby: MortalPostgres
    address: Link
    passwords: Path

    @property
    def url(self) -> str:
        return urlunsplit(urlsplit(self.primary.url)._replace(path=f"/{DATABASE}"))

    def url_of(self, *ports: int) -> str:
        """The gateway's."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        return f"postgresql://gateway@{hosts}/{DATABASE}?target_session_attrs=read-write&passfile={self.passwords}"

    def write(self, password: str) -> None:
        self.passwords.write_text(f"*:*:*:gateway:{password}\n")
        self.passwords.chmod(0o600)

    async def replace(self, stage: Stage) -> None:
        """The standby becomes the primary; the address still leads to the former one."""
        self.primary, self.standby = self.standby, self.primary
        stage.database_url = self.url
        stage.disturbances += 1
        await stage.value("SELECT pg_promote()")

    async def redirect(self, stage: Stage) -> None:
        """The address follows, and the gateway is at work again."""
        self.address.move(self.primary.port)
        stage.resumed.append(await stage.wait_for_traffic())


async def f23_change_the_primary(house: House) -> Report:
    """switchovers, a failover, another password"""
    house.postgres()
    async with _pair() as pair, _staged(pair, house) as stage:
        async with stage.load(rate=50):
            for _ in range(stage.length.times(4)):
                await _switch_over(stage, pair)
                await _change_the_password(stage, pair)
            await _fail_over(stage, pair)
        expect_honest_refusals(stage)
        return await stage.account(resumed_within=BACK_WITHIN)


async def _switch_over(stage: Stage, pair: Pair) -> None:
    """The primary ends in good order and comes back as a standby, where the address leads for a while."""
    await moment()
    await asyncio.to_thread(pair.primary.stop)
    await pair.replace(stage)
    await asyncio.to_thread(follow, pair.standby, pair.primary)
    await asyncio.sleep(AWAY)
    await pair.redirect(stage)


async def _fail_over(stage: Stage, pair: Pair) -> None:
    """The primary dies, with its machine as far as the API sees; the standby, which had to have every commit, takes
    over."""

    async def is_waited_for() -> bool:
        return bool(await stage.value("SELECT count(*) FROM pg_stat_replication WHERE sync_state <> 'async'"))

    await _execute(pair.url, "ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
    await until(is_waited_for, "commits wait for the standby")
    await stage.wait_for_traffic()
    await moment()
    pair.address.lose()
    await asyncio.to_thread(pair.primary.kill)
    await pair.replace(stage)
    await pair.redirect(stage)


async def _change_the_password(stage: Stage, pair: Pair) -> None:
    """For a while the gateway doesn't have it, and its connections are ended."""
    password = os.urandom(8).hex()
    stage.disturbances += 1
    await _execute(
        pair.url,
        f"ALTER ROLE gateway PASSWORD '{password}'",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'gateway'",
    )
    await asyncio.sleep(AWAY)
    pair.write(password)
    stage.resumed.append(await stage.wait_for_traffic())


@asynccontextmanager
async def _pair() -> AsyncIterator[Pair]:
    directory = Path(tempfile.mkdtemp(prefix="webhook-gateway-pair-"))
    directory.chmod(0o711)
    servers: list[MortalPostgres] = []
    try:
        servers.append(await asyncio.to_thread(MortalPostgres.start, directory / "a", die_with_parent=True))
        servers.append(await asyncio.to_thread(standby_of, servers[0], directory / "b"))
        link = Link("127.0.0.1", servers[0].port)
        await link.start()
        pair = Pair(servers[0], servers[1], link, directory / "pgpass")
        pair.write("first")
        await _execute(
            servers[0].url,
            "CREATE ROLE gateway SUPERUSER LOGIN PASSWORD 'first'",
            f"CREATE DATABASE {DATABASE} OWNER gateway",
        )
        await asyncio.to_thread(migrate.upgrade, pair.url)
        yield pair
        await link.close()
    finally:
        for server in reversed(servers):
            await asyncio.to_thread(server.stop, immediate=True)
        shutil.rmtree(directory)


@asynccontextmanager
async def _staged(pair: Pair, house: House) -> AsyncIterator[Stage]:
    """The API knows the address that moves, the workers know both servers."""
    by_address, by_names = pair.url_of(pair.address.port), pair.url_of(pair.primary.port, pair.standby.port)
    async with staged(pair.url, house.length, house.code, workers=0, settings={"DATABASE_URL": by_address}) as stage:
        for _ in range(2):
            await stage.start_worker(DATABASE_URL=by_names)
        yield stage


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()
