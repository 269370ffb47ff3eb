"""What encryption at rest costs: events a second into the outbox, with sealing and without, in turns.

    python -m bench.encryption [--events 4000] [--rounds 7]

"Without" is a vault whose `seal` returns what it is given: the product has no such mode. Turns alternate, so that both
meet the same neighbours; the medians are printed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
from pathlib import Path
from shutil import rmtree
from time import perf_counter, process_time
from uuid import UUID

import uvloop
from uuid_utils.compat import uuid7

from webhook_gateway.crypto.vault import KEY_BYTES, MasterKeys, Vault
from webhook_gateway.host.embedded_postgres import EmbeddedPostgres
from webhook_gateway.intake.catalogue import Catalogue
from webhook_gateway.intake.events import NewEvent, prepare
from webhook_gateway.intake.ingest import Ingest
from webhook_gateway.store import keyring, migrate, tenants
from webhook_gateway.store.database import Database
from webhook_gateway.store.partitions import make_all

TYPE = "lab_result.final"
AT_ONCE = 100


class Open(Vault):
    """Stores bodies as they are."""

    def seal(self, tenant_id: UUID, table: str, row: UUID, plain: bytes) -> bytes:
        return plain


def events(count: int) -> list[NewEvent]:
    known = Catalogue().get(UUID(int=0), TYPE)
    assert known is not None
    parsed = [{**known.example, "result_id": f"res_{number}"} for number in range(count)]
    return [NewEvent(TYPE, json.dumps(data).encode(), data) for data in parsed]


async def ingest(database: Database, vault: Vault, tenant_id: UUID, batch: list[NewEvent]) -> tuple[float, float]:
    """Events a second, and microseconds of this process's CPU an event."""
    took_in, waiting = Ingest(database, vault, Catalogue()), iter(batch)

    async def producer() -> None:
        for event in waiting:
            await took_in.accept(tenant_id, event)

    began, used = perf_counter(), process_time()
    await asyncio.gather(*(producer() for _ in range(AT_ONCE)))
    return len(batch) / (perf_counter() - began), (process_time() - used) / len(batch) * 1e6


def render(vault: Vault, tenant_id: UUID, batch: list[NewEvent]) -> float:
    """Microseconds to render and, where the vault does, seal an event."""
    began = process_time()
    for event in batch:
        prepare(vault, uuid7(), tenant_id, event, None)
    return (process_time() - began) / len(batch) * 1e6


async def measure(url: str, count: int, rounds: int) -> None:
    database, master = Database(url), MasterKeys({"bench": os.urandom(KEY_BYTES)})
    sealed, opened = Vault(master), Open(master)
    async with database.connection() as connection:
        await make_all(connection)
        tenant_id = await tenants.make(connection, sealed)
    batch = events(count)
    rates: dict[str, list[float]] = {"sealed": [], "open": []}
    costs: dict[str, list[float]] = {"sealed": [], "open": []}
    renders: dict[str, list[float]] = {"sealed": [], "open": []}
    for name, vault in (("sealed", sealed), ("open", opened)) * (rounds + 1):
        await keyring.fill(database, vault)
        rate, cost = await ingest(database, vault, tenant_id, batch)
        rates[name].append(rate)
        costs[name].append(cost)
        renders[name].append(render(vault, tenant_id, batch))
    await database.close()
    size = len(prepare(opened, uuid7(), tenant_id, batch[0], None).body)
    print(f"{count} events of {size} bytes, {AT_ONCE} at once, {rounds} rounds each, medians:")
    for name in rates:  # the first round of each warms up
        rate, cost = statistics.median(rates[name][1:]), statistics.median(costs[name][1:])
        print(f"  {name:6}  {rate:7,.0f} events/s  {cost:6.1f} µs CPU an event", end="")
        print(f"  {statistics.median(renders[name][1:]):5.1f} µs of it to render")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--events", type=int, default=4_000)
    options.add_argument("--rounds", type=int, default=7)
    chosen = options.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="webhook-gateway-bench-"))
    try:
        with EmbeddedPostgres.start(directory, die_with_parent=True) as server:
            migrate.upgrade(server.url)
            uvloop.run(measure(server.url, chosen.events, chosen.rounds))
    finally:
        rmtree(directory)


if __name__ == "__main__":
    main()
