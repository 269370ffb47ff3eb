"""The bodies of claimed deliveries: fetched once a claim, opened once an event, however many endpoints want it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from time import monotonic
from uuid import UUID

from webhook_gateway import telemetry
from webhook_gateway.crypto.vault import KeyMissing, Tampered, Vault
from webhook_gateway.rules.model import Delivery
from webhook_gateway.rules.outcome import Remedy, Unsendable
from webhook_gateway.store import bodies, keyring
from webhook_gateway.store.database import Connection, Database
from webhook_gateway.store.offers import Handed

KEEP_BYTES = 16_777_216
AT_ONCE = 8_388_608
RELEARN = 0.2
"""Seconds until data keys that are not there are asked for again."""


class Bodies:
    """Opened bodies, the most recent ones kept in memory only."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault
        self._open: OrderedDict[UUID, bytes] = OrderedDict()
        self._bytes = 0
        self._learnt_at = float("-inf")

    async def of(self, claimed: Sequence[Delivery]) -> dict[UUID, bytes | Unsendable]:
        """By event id: the body, or why it can't be had. A missing key only means waiting.

        Raises:
            DatabaseUnavailable: the claimed deliveries stay leased and are due again when the lease ends.
        """
        tenants = {delivery.event_id: delivery.tenant_id for delivery in claimed}
        # Kept by us while we wait for the rest: another claim may push them out of memory meanwhile.
        known: dict[UUID, bytes | Unsendable] = {i: self._open[i] for i in tenants if i in self._open}
        missing = self.missing(tenants)
        sealed: dict[UUID, bytes] = {}
        if missing:
            async with self._database.connection() as connection:
                sealed = await bodies.bodies(connection, missing)
                if lost := [event_id for event_id in missing if event_id not in sealed]:
                    # A query that crosses the making of a partition may miss rows which are there.
                    sealed |= await bodies.bodies(connection, lost)
            if not all(map(self._vault.can_open, sealed.values())):
                await self._learn_keys()
        found = known | {i: self._find(tenants[i], i, sealed.get(i)) for i in missing}
        self._forget()
        return found

    async def some(self, connection: Connection, events: Mapping[UUID, UUID]) -> dict[UUID, bytes]:
        """By event id, of events with their tenants: what can be opened now, up to `AT_ONCE` bytes; kept for `of`."""
        known = {i: self._open[i] for i in events if i in self._open}
        sealed = await bodies.some(connection, [i for i in events if i not in known], AT_ONCE)
        if not all(map(self._vault.can_open, sealed.values())):
            await self._learn_keys()
        found = {i: self._find(events[i], i, body) for i, body in sealed.items()}
        self._forget()
        return known | {i: body for i, body in found.items() if isinstance(body, bytes)}

    def missing(self, event_ids: Iterable[UUID]) -> list[UUID]:
        """Those that are not in memory."""
        return [event_id for event_id in event_ids if event_id not in self._open]

    def keep(self, tenants: Mapping[UUID, UUID], sealed: Mapping[UUID, bytes]) -> None:
        """Opens what came by the way, for `of`; what can't be opened yet is asked for again there."""
        for event_id, body in sealed.items():
            self._find(tenants[event_id], event_id, body)
        self._forget()

    def opened(self, handed: Handed) -> bytes | None:
        """The same of one; None where it can't be opened yet, or never."""
        found = self._find(handed.tenant_id, handed.event_id, handed.body)
        self._forget()
        return found if isinstance(found, bytes) else None

    def _find(self, tenant_id: UUID, event_id: UUID, sealed: bytes | None) -> bytes | Unsendable:
        if event_id in self._open:
            return self._open[event_id]  # another claim was faster
        if sealed is None:
            return Unsendable("body_gone")
        try:
            body = self._vault.open(tenant_id, "events", event_id, sealed)
        except KeyMissing:
            return Unsendable("key_missing", Remedy.WAIT)
        except Tampered:
            return Unsendable("body_damaged", Remedy.NONE)
        self._open[event_id] = body
        self._bytes += len(body)
        return body

    def _forget(self) -> None:
        while self._bytes > KEEP_BYTES:
            _, body = self._open.popitem(last=False)
            self._bytes -= len(body)

    async def _learn_keys(self) -> None:
        """A data key may be newer than our copy of them. One that is missing is not asked for again at every claim."""
        if monotonic() < self._learnt_at + RELEARN:
            return
        missing = await keyring.fill(self._database, self._vault)
        if missing:
            self._learnt_at = monotonic()
            telemetry.keys_missing(missing)
