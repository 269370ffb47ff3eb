"""The control: what the design buys. The same tables, the same sender, but one delivery at a time.

So many tasks each claim one due delivery, send it and settle it, each step a statement and a commit of its own, as a
usual job queue would.

    python -m bench.control IN_FLIGHT SECONDS      prints deliveries a second (settings as the worker's)
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from uuid import UUID

import asyncpg
import uvloop
from uuid_utils.compat import uuid7

from webhook_gateway.crypto.master_keys import load_master_keys
from webhook_gateway.crypto.vault import Vault
from webhook_gateway.delivery.deliver import sign
from webhook_gateway.outbound.policy import policy_from
from webhook_gateway.outbound.sender import Request, Sender
from webhook_gateway.rules.model import Delivery
from webhook_gateway.settings import settings
from webhook_gateway.store import configuration, keyring
from webhook_gateway.store.database import Database

from . import children
from .backlog import fill_backlog
from .gateway import Gateway
from .report import Report

CLAIM = """
UPDATE deliveries d SET due_at = now() + interval '30 seconds', lease_id = $2, attempt = d.attempt + 1
WHERE id = (SELECT id FROM deliveries WHERE endpoint_id = $1 AND due_at <= now()
            ORDER BY due_at, id LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING id, tenant_id, endpoint_id, event_id, type, attempt, lease_id, ordering_key, sequence, skipped_event_id
"""
BODY = "SELECT body FROM events WHERE id = $1"
RECORD = """
INSERT INTO attempts (delivery_id, id, tenant_id, attempt, started_at, duration, phase, outcome, status)
VALUES ($1, $2, $3, $4, now(), $5, $6, 'accepted', 200)
"""
FINISH = """
WITH gone AS (DELETE FROM deliveries WHERE id = $1 AND lease_id = $2 RETURNING *)
INSERT INTO finished_deliveries (id, tenant_id, endpoint_id, event_id, type, sequence, ordering_key, attempt, state,
                                 created_at)
SELECT id, tenant_id, endpoint_id, event_id, type, sequence, ordering_key, attempt, 'delivered', created_at FROM gone
"""


async def measure_control(gateway: Gateway, report: Report, seconds: float) -> None:
    """Drains a backlog with the control."""
    endpoints = await gateway.set_endpoints(10)
    await gateway.empty()
    await fill_backlog(gateway, endpoints, int(seconds * 3_000))
    command = (sys.executable, "-m", "bench.control", "32", str(seconds))
    process = children.spawn(command, stdout=subprocess.PIPE, environment=gateway.environment)
    output, _ = await asyncio.to_thread(process.communicate)
    report.note("control", float(output), "deliveries/s with one-row-at-a-time claims on the same tables")
    await gateway.empty()


async def drain(in_flight: int, seconds: float) -> float:
    """Deliveries a second."""
    given = settings()
    database, vault = Database(str(given.database_url)), Vault(load_master_keys(given))
    await keyring.fill(database, vault)
    async with database.connection() as connection:
        endpoints = (await configuration.snapshot(connection, vault)).endpoints
    sender = Sender(policy_from(given))
    order, until, made = list(endpoints), time.monotonic() + seconds, 0

    async def work(number: int) -> None:
        nonlocal made
        connection = await asyncpg.connect(str(given.database_url))
        turn = number
        while time.monotonic() < until:
            turn += 1
            if await deliver(connection, order[turn % len(order)]):
                made += 1
        await connection.close()

    async def deliver(connection: asyncpg.Connection, endpoint_id: UUID) -> bool:
        row = await connection.fetchrow(CLAIM, endpoint_id, uuid7())
        if row is None:
            return False
        delivery = Delivery(*tuple(row))
        sealed = await connection.fetchval(BODY, delivery.event_id)
        body = vault.open(delivery.tenant_id, "events", delivery.event_id, sealed)
        request = sign(delivery, endpoints[endpoint_id], body, int(time.time()))
        assert isinstance(request, Request)
        exchange = await sender.post(request)
        async with connection.transaction():
            await connection.execute(
                RECORD, delivery.id, uuid7(), delivery.tenant_id, delivery.attempt, exchange.duration,
                exchange.phase.value,
            )  # fmt: skip
            await connection.execute(FINISH, delivery.id, delivery.lease_id)
        return True

    began = time.monotonic()
    await asyncio.gather(*(work(number) for number in range(in_flight)))
    rate = made / (time.monotonic() - began)
    await sender.aclose()
    await database.close()
    return rate


if __name__ == "__main__":
    print(uvloop.run(drain(int(sys.argv[1]), float(sys.argv[2]))), flush=True)
