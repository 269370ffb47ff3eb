"""Whom an event is for: subscribers by id or by external id, at most a second behind what is configured."""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic
from uuid import UUID

from webhook_gateway.rules import ids
from webhook_gateway.rules.faults import Fault
from webhook_gateway.rules.matching import may_have
from webhook_gateway.store import configuration, workers
from webhook_gateway.store.database import Database

from .events import NewEvent

CURRENT = 1.0
UNKNOWN = "Give the id or the external_id of a subscriber, as GET /v1/subscribers lists them."
NOT_PERMITTED = "This subscriber may not have events of this type: its event_types say which."


class Addressees:
    """Asks the database only where events are addressed, and then once a second."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[tuple[UUID, str], tuple[UUID, tuple[str, ...]]] = {}
        self._version = 0
        self._until = 0.0

    def know(self, tenant_id: UUID, named: Iterable[str]) -> bool:
        """Whether all those named are known as they are now."""
        return monotonic() < self._until and all((tenant_id, name) in self._known for name in named)

    async def learn(self, tenant_id: UUID, named: Iterable[str]) -> bool:
        """Makes sure that it knows those named, if there are such.

        False where a worker is alive that would take an addressed event for one that is for everybody.
        """
        if self.know(tenant_id, named):
            return True
        async with self._database.connection() as connection, connection.transaction():
            if not await workers.require_current(connection):
                return False
            version = await configuration.version(connection)
            if version != self._version:
                self._known = {
                    (row["tenant_id"], name): (row["id"], tuple(row["event_types"]))
                    for row in await connection.fetch(configuration.SUBSCRIBERS)
                    for name in (ids.render(ids.SUBSCRIBER, row["id"]), row["external_id"])
                }
        self._version, self._until = version, monotonic() + CURRENT
        return True

    def of(self, tenant_id: UUID, event: NewEvent) -> tuple[list[UUID], tuple[Fault, ...]]:
        """Their ids, each once, and which of them can't be meant."""
        found, faults = [], []
        for index, name in enumerate(event.to or ()):
            subscriber_id, permitted = self._known.get((tenant_id, name), (None, ()))
            if subscriber_id is None:
                faults.append(Fault("unknown_addressee", UNKNOWN, pointer=f"/to/{index}"))
            elif not may_have(permitted, event.type):
                faults.append(Fault("not_permitted", NOT_PERMITTED, pointer=f"/to/{index}"))
            else:
                found.append(subscriber_id)
        return list(dict.fromkeys(found)), tuple(faults)
