"""The outbox is taken in turns over tenants: whoever floods it waits alone, and each one's order stays."""

from __future__ import annotations

from collections import defaultdict
from uuid import UUID

from webhook_gateway.store import outbox
from webhook_gateway.store.database import Database

ROUND = 500
FLOOD = 20 * ROUND
FLOODING, SMALL, LATE = (UUID(int=number) for number in (3, 1, 2))
TENANT = "INSERT INTO tenants (id, name) VALUES ($1, $2)"
ENQUEUE = """
INSERT INTO outbox (tenant_id, event_id, type)
SELECT $1, gen_random_uuid(), 'lab_result.final' FROM generate_series(1, $2::int)
"""


async def test_who_floods_the_outbox_waits_alone_and_every_tenants_order_stays(database_url: str) -> None:
    database = Database(database_url)
    rounds: list[list[outbox.OutboxEvent]] = []
    async with database.connection() as connection:
        for tenant_id, name in ((FLOODING, "flooding"), (SMALL, "small"), (LATE, "late")):
            await connection.execute(TENANT, tenant_id, name)
        await connection.execute(ENQUEUE, FLOODING, FLOOD)
        await connection.execute(ENQUEUE, SMALL, 2 * ROUND)
        await connection.execute(ENQUEUE, FLOODING, FLOOD)
        accepted = defaultdict(list)
        for row in await connection.fetch("SELECT tenant_id, event_id FROM outbox ORDER BY sequence"):
            accepted[row["tenant_id"]].append(row["event_id"])
        while events := (await outbox.dequeue(connection, 0, ROUND)).events:
            rounds.append(events)
            if len(rounds) == 2:
                await connection.execute(ENQUEUE, LATE, 1)
    await database.close()

    taken = [event for events in rounds for event in events]
    assert [event.sequence for event in taken] == sorted(event.sequence for event in taken)
    for tenant_id in (FLOODING, SMALL):
        assert [event.event_id for event in taken if event.tenant_id == tenant_id] == accepted[tenant_id]
    assert [event.tenant_id for event in rounds[2]].count(LATE) == 1, "is in the very next round, behind 19,000"
    assert all(event.tenant_id != SMALL for events in rounds[5:] for event in events), "half of each round was its own"
    assert max(map(len, rounds)) <= 2 * ROUND
