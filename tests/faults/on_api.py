"""Faults of the API: what it was told to keep, it keeps, and a producer that asks again makes nothing twice."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from time import monotonic

import asyncpg

from .house import House
from .report import Report
from .stage import Never, Stage, moment, until

PROMISED_503 = 5.0
"""Seconds within which the API says that it can't."""


async def f1_kill_the_api(house: House) -> Report:
    """kill -9 the API in mid-burst"""
    async with house.stage() as stage:
        async with stage.load():
            for _ in range(stage.length.times(20)):
                await moment()
                killed_at = await stage.kill(stage.apis[0])
                await stage.start_api()
                await stage.wait_for_traffic()
                stage.resumed.append(monotonic() - killed_at)
        return await stage.account(allowed=0, resumed_within=20)


async def f2_kill_the_api_after_commit(house: House) -> Report:
    """kill -9 the API between commit and answer"""
    async with house.stage() as stage:
        async with stage.load():
            for _ in range(stage.length.times(8)):
                await stage.terminate(stage.apis[0])
                armed = await stage.start_api(WEBHOOK_GATEWAY_FAILPOINT=f"after_append_commit:{random.randint(1, 20)}")
                died_at = await stage.dies(armed)
                await stage.start_api()
                await stage.wait_for_traffic()
                stage.resumed.append(monotonic() - died_at)
        stage.expect(stage.ledger.repeated() > 0, "no retry was told that its event had been accepted before")
        return await stage.account(allowed=0)


async def f10_lose_the_answer_to_commit(house: House) -> Report:
    """the connection breaks after COMMIT was sent"""
    async with house.stage(links=True) as stage:
        assert stage.api_link is not None
        async with stage.load():
            for _ in range(stage.length.times(20)):
                swallowed = stage.api_link.swallowed
                stage.api_link.swallow(1)
                await until(lambda before=swallowed: _swallowed(stage, before), "an answer is swallowed")  # type: ignore[misc]
                await stage.wait_for_traffic()
        stage.expect(stage.ledger.repeated() > 0, "no retry was told that its event had been accepted before")
        expect_honest_refusals(stage)
        return await stage.account(allowed=0)


async def f12_use_up_the_connections(house: House) -> Report:
    """connection pool exhausted, max_connections reached"""
    house.postgres()
    async with house.stage() as stage, AsyncExitStack() as held:
        async with stage.load(rate=30):
            await _lock_the_outbox(stage, seconds=6)
            stage.resumed.append(await stage.wait_for_traffic())
            hoard = await _take_all_connections(stage, held)
            before = len(stage.ledger.refused)
            await until(lambda: _refused(stage, before + 3), "the API refuses for want of a connection")
            for connection in hoard:
                connection.terminate()
            stage.resumed.append(await stage.wait_for_traffic())
        stage.disturbances = 2
        expect_honest_refusals(stage)
        return await stage.account(resumed_within=10)


async def _lock_the_outbox(stage: Stage, seconds: float) -> None:
    """Every connection of the pool waits for a lock: the pool is exhausted."""
    connection = await asyncpg.connect(stage.database_url)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE")
            await connection.execute("SELECT pg_sleep($1)", seconds)
    finally:
        await connection.close()
    stage.expect(await _refused(stage, 1), "nothing was refused while the pool was exhausted")


END_OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> ALL($1::int[])
"""


async def _take_all_connections(stage: Stage, held: AsyncExitStack) -> list[asyncpg.Connection]:
    """Takes every connection that Postgres has: opens them until there is none left, and ends those of others.

    It is the count that says when: a connection that is just being made has a place already and no name yet, one that
    was just ended has a place still, and either would leave one to the gateway.
    """
    hoard: list[asyncpg.Connection] = []
    deadline, places = monotonic() + 30, 1
    while len(hoard) < places:
        if monotonic() > deadline:
            raise Never(f"all connections are taken: {len(hoard)} of {places} are")
        try:
            hoard.append(await asyncpg.connect(stage.database_url, timeout=10))
        except asyncpg.TooManyConnectionsError:
            await hoard[0].execute(END_OTHERS, [connection.get_server_pid() for connection in hoard])
        else:
            held.callback(hoard[-1].terminate)
            if places == 1:
                places = int(await hoard[0].fetchval("SHOW max_connections"))
    return hoard


def expect_honest_refusals(stage: Stage) -> None:
    """Whatever was refused was a 503 that says when to ask again, in good time."""
    for refused in stage.ledger.refused:
        stage.expect(refused.status == 503, f"the API answered {refused.status}")
        stage.expect(refused.retry_after is not None, "a 503 came without Retry-After")
        stage.expect(refused.seconds <= PROMISED_503, f"a 503 took {refused.seconds:.1f} s")
    stage.wrong[:] = list(dict.fromkeys(stage.wrong))


async def _refused(stage: Stage, times: int) -> bool:
    return len(stage.ledger.refused) >= times


async def _swallowed(stage: Stage, before: int) -> bool:
    assert stage.api_link is not None
    return stage.api_link.swallowed > before
