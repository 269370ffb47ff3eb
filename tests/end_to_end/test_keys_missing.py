"""A key that is missing makes deliveries wait; none dies. A key that is newer than a worker's copy is found."""

from __future__ import annotations

from tests.support.hospital import Hospital, new_master_key
from tests.support.partner import partner
from webhook_gateway.store import configuration, keyring

COUNT = 20


async def test_without_its_master_key_everything_waits_and_with_it_everything_is_delivered(hospital: Hospital) -> None:
    async with partner() as there:
        await hospital.endpoint(url=there.url(), schedule=[1.0], ordering="none")
        accepted = {await hospital.accept(payment_id=f"pay_{number}") for number in range(COUNT)}

        async with hospital.elsewhere(new_master_key("other")) as keyless, keyless.worker():
            await keyless.until("SELECT FROM attempts WHERE detail = 'key_missing' HAVING count(*) = $1", COUNT)
        assert not there.received
        rows = await hospital.rows("SELECT attempt FROM deliveries")
        assert [row["attempt"] for row in rows] == [0] * COUNT

        async with hospital.elsewhere() as whole:
            # Waiting lasts half a minute a time: what was due then is due now.
            await whole.rows("UPDATE deliveries SET due_at = now()")
            async with whole.worker():
                got = await there.got(COUNT)
            assert len({one.id for one in got}) == len(accepted)
            ended = await whole.rows("SELECT state, count(*) FROM finished_deliveries GROUP BY state")
            assert [tuple(row) for row in ended] == [("delivered", COUNT)]


async def test_a_running_worker_takes_a_rotated_data_key_into_use(hospital: Hospital) -> None:
    async with partner() as there:
        await hospital.endpoint(url=there.url())
        await hospital.accept()
        async with hospital.worker():
            await there.got(1)
            # Another process rotates and posts at once, before any notification can have arrived.
            async with hospital.elsewhere() as elsewhere:
                async with elsewhere.database.connection() as connection, connection.transaction():
                    await keyring.rotate(connection, elsewhere.vault, elsewhere.tenant_id)
                    await configuration.changed(connection)
                await keyring.fill(elsewhere.database, elsewhere.vault)
                await elsewhere.accept()
            await there.got(2)
        (row,) = await hospital.rows("SELECT count(*) FROM attempts WHERE outcome <> 'accepted'")
        assert row["count"] == 0
