"""A key that is missing makes deliveries wait; none dies. A key that is newer than a worker's copy is found."""

from __future__ import annotations

from tests.support.hospital import Hospital, new_master_key
from tests.support.partner import partner
from webhook_gateway.crypto.vault import MasterKeys, Vault
from webhook_gateway.intake.catalogue import Catalogue
from webhook_gateway.intake.commits import EventRefused, RefusedBecause
from webhook_gateway.intake.events import NewEvent
from webhook_gateway.intake.ingest import Ingest
from webhook_gateway.store import configuration, keyring, tenants

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


async def test_while_a_key_is_missing_no_event_of_an_unknown_type_costs_other_tenants_their_schemas(
    hospital: Hospital,
) -> None:
    other = Vault(MasterKeys.parse(new_master_key("other")))
    async with hospital.database.connection() as connection:
        elsewhere = await tenants.make(connection, other, "elsewhere")
        await connection.execute(
            "INSERT INTO event_types (tenant_id, name, description, schema, example) VALUES ($1, $2, '', $3, '{}')",
            *(hospital.tenant_id, "ward.opened", '{"type": "object"}'),
        )
        await configuration.changed(connection)
    catalogue = Catalogue()
    ingest = Ingest(hospital.database, hospital.vault, catalogue)
    await ingest.refresh_all()
    known = catalogue.get(hospital.tenant_id, "ward.opened")
    assert known is not None
    compiled = catalogue.compiled(hospital.tenant_id, known)
    refused = await ingest.accept(hospital.tenant_id, NewEvent("ward.closed", b"{}", {}))
    assert refused == EventRefused(RefusedBecause.UNKNOWN_EVENT_TYPE)
    assert catalogue.compiled(hospital.tenant_id, known) is compiled

    # Its master key comes back without any change.
    assert not hospital.vault.knows(elsewhere)
    hospital.vault.master_keys = other.master_keys
    await ingest.refresh_all()
    assert hospital.vault.knows(elsewhere)
