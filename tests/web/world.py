"""A hospital with something of everything, written as a worker would have left it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx

from tests.support.rows import EVERYTHING, store_attempts, store_event, store_finished, store_open, store_worker
from tests.web.serving import Api
from webhook_gateway.rules import ids
from webhook_gateway.store import keys

HELD = -4_235_713_561_732_571_313


@dataclass(frozen=True, slots=True)
class World:
    """Ids as the API writes them, by the names that paths have for them."""

    subscriber_id: str
    endpoint_id: str
    event_id: str
    delivery_id: str
    """Dead."""
    open_delivery_id: str
    key_id: str
    job_id: str
    session_id: str
    """Of a link to the portal."""
    name: str = "dialysis.session_ended"
    ordering_key: str = str(HELD)

    def path(self, template: str) -> str:
        """A path with its places filled."""
        return template.format(**{name: getattr(self, name) for name in self.__slots__})


async def make_world(api: Api, admin: httpx.AsyncClient, tenant_id: UUID, name: str = "Northside") -> World:
    """Something of everything for one subscriber of one tenant, made through the API where it can make it."""
    subscriber = await post(admin, "/v1/subscribers", {"name": name, **EVERYTHING})
    endpoint = await post(
        admin,
        "/v1/endpoints",
        {"subscriber_id": subscriber["id"], "url": "https://lab.example.com/in", "event_types": ["staff_shift.*"]},
    )
    if (await admin.get("/v1/event-types/dialysis.session_ended")).status_code == 404:
        await post(
            admin,
            "/v1/event-types",
            {"name": "dialysis.session_ended", "schema": {"type": "object"}, "example": {"minutes": 240}},
        )
    endpoint_id = ids.parse(ids.ENDPOINT, endpoint["id"])
    async with api.database.connection() as connection:
        await connection.execute("DELETE FROM outbox WHERE type = 'gateway.endpoint_created'")
        event_id = await store_event(api, connection, tenant_id)
        dead = await store_finished(connection, tenant_id, endpoint_id, event_id, "dead")
        waiting = await store_open(connection, tenant_id, endpoint_id, event_id)
        await store_worker(connection)
        await store_attempts(connection, tenant_id, endpoint_id, dead)
        await connection.execute(
            "INSERT INTO held_keys (endpoint_id, ordering_key, tenant_id, delivery_id, event_id)"
            " VALUES ($1, $2, $3, $4, $5)",
            endpoint_id,
            HELD,
            tenant_id,
            dead,
            event_id,
        )
    job = await post(admin, "/v1/replays", {"endpoint_id": endpoint["id"], "until": "2020-01-01T00:00:00Z"})
    link = await post(admin, f"/v1/subscribers/{subscriber['id']}/portal-links", {})
    async with api.database.begin() as transaction:
        key, _ = await keys.issue(transaction, tenant_id, keys.NewKey("one of theirs", ["events:write"]))
    return World(
        subscriber_id=subscriber["id"],
        endpoint_id=endpoint["id"],
        event_id=ids.render(ids.EVENT, event_id),
        delivery_id=ids.render(ids.DELIVERY, dead),
        open_delivery_id=ids.render(ids.DELIVERY, waiting),
        key_id=ids.render(ids.KEY, key["id"]),
        job_id=job["id"],
        session_id=link["id"],
    )


async def post(client: httpx.AsyncClient, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """The answer to a POST that is expected to work."""
    response = await client.post(path, json=body)
    assert response.is_success, response.text
    answer: dict[str, Any] = response.json()
    return answer
