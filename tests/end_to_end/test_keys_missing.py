"""A key that is missing makes deliveries wait; none dies. A key that is newer than a worker's copy is found."""

from __future__ import annotations

from tests.end_to_end.inside import Inside, inside, master_key, partner
from webhook_gateway.store import configuration, keyring

COUNT = 20


async def test_without_its_master_key_everything_waits_and_with_it_everything_is_delivered(database_url: str) -> None:
    right, wrong = master_key("right"), master_key("other")
    async with partner() as there:
        async with inside(database_url, master_keys=right) as gateway:
            await gateway.add_endpoint(there.url(), schedule=[1.0], ordering="none")
            accepted = {await gateway.accept(payment_id=f"pay_{number}") for number in range(COUNT)}

        async with started_again(gateway, wrong) as keyless, keyless.working():
            await keyless.until("SELECT count(*) = $1 FROM attempts WHERE detail = 'key_missing'", COUNT)
        assert not there.got
        rows = await keyless_rows(database_url, "SELECT attempt FROM deliveries")
        assert [row["attempt"] for row in rows] == [0] * COUNT

        async with started_again(gateway, right) as whole:
            # Waiting lasts half a minute a time: what was due then is due now.
            await whole.rows("UPDATE deliveries SET due_at = now()")
            async with whole.working():
                got = await there.wait_for(COUNT)
            assert len({one.headers["webhook-id"] for one in got}) == len(accepted)
            ended = await whole.rows("SELECT state, count(*) FROM finished_deliveries GROUP BY state")
            assert [tuple(row) for row in ended] == [("delivered", COUNT)]


async def test_a_running_worker_takes_a_rotated_data_key_into_use(database_url: str) -> None:
    keys = master_key("only")
    async with inside(database_url, master_keys=keys) as gateway, partner() as there:
        await gateway.add_endpoint(there.url())
        await gateway.accept()
        async with gateway.working():
            await there.wait_for(1)
            # Another process rotates and posts at once, before any notification can have arrived.
            async with started_again(gateway, keys) as elsewhere:
                elsewhere.tenant_id = gateway.tenant_id
                async with elsewhere.database.connection() as connection, connection.transaction():
                    await keyring.rotate(connection, elsewhere.vault, gateway.tenant_id)
                    await configuration.changed(connection)
                await keyring.fill(elsewhere.database, elsewhere.vault)
                await elsewhere.accept()
            await there.wait_for(2)
        (row,) = await gateway.rows("SELECT count(*) FROM attempts WHERE outcome <> 'accepted'")
        assert row["count"] == 0


class started_again:
    """The same gateway as after a restart, with these master keys."""

    def __init__(self, before: Inside, master_keys: str) -> None:
        self.gateway = Inside(before.settings.model_copy(update={"master_keys": master_keys}))
        self.gateway.tenant_id = before.tenant_id

    async def __aenter__(self) -> Inside:
        return self.gateway

    async def __aexit__(self, *_: object) -> None:
        await self.gateway.close()


async def keyless_rows(database_url: str, query: str) -> list[dict[str, object]]:
    import asyncpg

    connection = await asyncpg.connect(database_url)
    try:
        return [dict(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()
