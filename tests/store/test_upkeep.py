"""What one worker does for all, a slice at a time: no kind of work keeps another from its turn."""

from __future__ import annotations

import pytest

from tests.support.hospital import Hospital
from tests.support.rows import store_event, store_finished, store_open
from webhook_gateway.delivery.registry import Registry
from webhook_gateway.delivery.upkeep import Upkeep
from webhook_gateway.operations import replays
from webhook_gateway.operations.change import changing, local_actor
from webhook_gateway.operations.refusals import Refusal
from webhook_gateway.store.database import Database, StatementTimedOut


async def test_a_replay_goes_on_beside_an_endpoint_whose_cut_off_runs_out_of_time(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint("payment.*")
    async with hospital.database.connection() as connection:
        event_id = await store_event(hospital, connection, hospital.tenant_id)
        await store_finished(connection, hospital.tenant_id, endpoint_id, event_id, "dead")
        locked = await store_open(connection, hospital.tenant_id, endpoint_id, event_id)
    async with changing(hospital.database, local_actor(hospital.tenant_id)) as change:
        assert not isinstance(await replays.create(change, {"state": "dead", "all": True}), Refusal)
    await hospital.change("UPDATE finished_deliveries SET type = 'payment.processed'")  # which it may have
    await hospital.change("UPDATE endpoints SET cut_off_at = now()")
    impatient = Database(str(hospital.settings.database_url), connections=2, patience=0.3)
    upkeep = Upkeep(hospital.settings, impatient, hospital.vault, Registry())
    try:
        async with hospital.database.connection() as other, other.transaction():
            await other.execute("SELECT FROM deliveries WHERE id = $1 FOR UPDATE", locked)
            for _ in range(2):
                with pytest.raises(StatementTimedOut):
                    await upkeep.poll()
        (job,) = await hospital.rows("SELECT state, done FROM jobs")
        assert (job["state"], job["done"]) == ("done", 1)
        assert await upkeep.poll() == 0.0, "now there is something to cancel"
        assert await hospital.count("finished_deliveries WHERE state_reason = 'not_permitted'") == 1
    finally:
        await impatient.close()
