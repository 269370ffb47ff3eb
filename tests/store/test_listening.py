"""Who listens ends when it is told to, whatever breaks at that moment."""

from __future__ import annotations

import asyncio
import time

from tests.support.hospital import PATIENCE, Hospital
from webhook_gateway.store.notifications import OUTBOX, Heard, OwnChannel, listen

END_LISTENING = """
SELECT pg_terminate_backend(pid) FROM pg_locks
WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


async def test_it_ends_though_its_connection_breaks_as_it_is_cancelled(hospital: Hospital) -> None:
    for later in range(20):
        heard, own = Heard(), OwnChannel()
        listening = asyncio.create_task(listen(hospital.database, {OUTBOX: heard}, own=own))
        async with asyncio.timeout(PATIENCE):
            await heard.wait()
        async with hospital.database.connection() as connection:
            await connection.fetch(END_LISTENING)
        time.sleep(later / 1_000)  # it has ended by then, which this loop has not seen
        listening.cancel()
        done, _ = await asyncio.wait([listening], timeout=PATIENCE)
        assert done, f"cancelled {later} ms after its connection ended"
