"""Names and endpoints that hang by the hundred, and victims that are names, for `bench.isolation`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

from tests.support.dns_server import OWN_DNS, dns_server

from .backlog import fill_backlog
from .gateway import Gateway

NAMES, ENDPOINTS = 150, 300
EACH = 20
"""Open deliveries that each begins with; none of them ends within a phase."""
DEADLINE = 60.0


@asynccontextmanager
async def names_of_our_own(gateway: Gateway, victims: list[UUID]) -> AsyncIterator[None]:
    """Has the victims be names, which a DNS server of our own knows; about silent ones it says nothing."""
    async with dns_server() as dns:
        gateway.environment |= {"PYTHONPATH": str(OWN_DNS), "OWN_DNS": dns.address}
        for number, endpoint_id in enumerate(victims):
            dns.records[name := f"victim-{number}.example.com"] = ["127.0.0.1"]
            await _rename(gateway, endpoint_id, name)
        dns.silent |= {_silent(number) for number in range(NAMES)}
        yield


async def add_names(gateway: Gateway) -> list[UUID]:
    """Endpoints whose names are never answered."""
    made = await gateway.add_endpoints(NAMES, types=["bench.silent"], deadline=DEADLINE)
    for number, endpoint_id in enumerate(made):
        await _rename(gateway, endpoint_id, _silent(number))
    return made


async def add_endpoints(gateway: Gateway) -> list[UUID]:
    """Endpoints that never answer."""
    return await gateway.add_endpoints(ENDPOINTS, types=["bench.silent"], path="/hang", deadline=DEADLINE)


async def fill(gateway: Gateway, endpoints: Sequence[UUID]) -> None:
    """Gives them their backlog, which waits until they `begin`."""
    await _set_state(gateway, endpoints, "paused")
    if endpoints:
        await fill_backlog(gateway, endpoints, len(endpoints) * EACH)


async def begin(gateway: Gateway, endpoints: Sequence[UUID]) -> None:
    """Beside a worker that knows who answers: it takes this over within a second."""
    await asyncio.sleep(1.0)
    await _set_state(gateway, endpoints, "enabled")


async def under_way(gateway: Gateway, endpoints: Sequence[UUID]) -> int:
    """How many of their requests hang now."""
    leased = "SELECT count(*) FROM deliveries WHERE lease_id IS NOT NULL AND due_at > now() AND endpoint_id = ANY($1)"
    return int(await gateway.connection.fetchval(leased, endpoints))


async def _set_state(gateway: Gateway, endpoints: Sequence[UUID], state: str) -> None:
    await gateway.connection.execute("UPDATE endpoints SET state = $1 WHERE id = ANY($2)", state, endpoints)
    await gateway.connection.execute("UPDATE configuration SET version = version + 1")


async def _rename(gateway: Gateway, endpoint_id: UUID, name: str) -> None:
    await gateway.connection.execute(
        "UPDATE endpoints SET url = replace(url, '127.0.0.1', $2) WHERE id = $1", endpoint_id, name
    )


def _silent(number: int) -> str:
    return f"silent-{number}.example.com"
