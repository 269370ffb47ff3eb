"""Six years of the ledger are read in slices: no transaction locks more than the months that it reads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from tests.support.hospital import Hospital
from webhook_gateway.operations.disclosures import SLICE
from webhook_gateway.store import disclosures, partitions
from webhook_gateway.store.driver import driver_of
from webhook_gateway.store.reports import first_id

LOCKED = "SELECT count(DISTINCT relation) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation'"


@pytest.mark.parametrize("of_events", [True, False])
async def test_a_slice_locks_the_months_that_it_reads_and_no_others(hospital: Hospital, of_events: bool) -> None:
    now = datetime.now(UTC)
    async with hospital.database.connection() as connection:
        for cut in (partitions.FINISHED, partitions.ATTEMPTS):
            await partitions.make_ahead(connection, cut, (now - timedelta(days=2_190)).date(), 72)
    until = now - timedelta(days=400)
    async with hospital.database.reading() as transaction:
        driver = await driver_of(transaction)
        made, sent = (first_id(until - SLICE), first_id(until)), (until - SLICE, until)
        await disclosures.page(driver, hospital.tenant_id, [uuid4()], made, sent, 50, of_events=of_events)
        locked = await driver.fetchval(LOCKED)
    assert locked < 80, "three months of finished deliveries and attempts with their indexes, and what is not cut"
