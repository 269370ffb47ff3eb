"""Which events of its types an endpoint wants: set by the hospital, and tried on what came lately."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import RowMapping

from webhook_gateway.crypto.vault import KeyMissing, Tampered, Vault
from webhook_gateway.rules.faults import Fault
from webhook_gateway.rules.filters import HIDDEN, OTHER, Filter, encode, parse, read_data, shown
from webhook_gateway.rules.matching import may_have
from webhook_gateway.store import bodies
from webhook_gateway.store.configuration import open_column
from webhook_gateway.store.database import Database
from webhook_gateway.store.driver import driver_of

from .change import Actor, changing
from .content import view_of_endpoint
from .refusals import Invalid

READ_BYTES, SLICE_BYTES = 15_728_640, 1_048_576
SLICE_EVENTS, MOST_SLICES = 500, 40
"""What a preview reads: bytes of bodies (and at most the end of a slice more), and events, in a transaction each."""


@dataclass
class Tried:
    """How many of the latest events, back to ``since``, were read, and how many of these matched."""

    events: int = 0
    matched: int = 0
    bytes: int = 0
    since: datetime | None = None


def checked(actor: Actor, given: Mapping[str, Any]) -> Filter | Invalid:
    if actor.subscriber_id is not None:
        remedy = "Leave it out: which events of its types a partner gets is the hospital's to say."
        return Invalid((Fault("not_allowed", remedy, pointer="/filter"),))
    found = parse(msgspec.json.encode(given))
    if isinstance(found, Fault):
        return Invalid((Fault(found.rule, found.remedy, pointer=f"/filter{found.pointer}"),))
    return found


def digest(vault: Vault, tenant_id: UUID, given: Mapping[str, Any]) -> bytes:
    """What tells one filter from another without saying what is in it."""
    return vault.digest(tenant_id, b"filter\0" + encode(given))


def shown_filter(vault: Vault, row: RowMapping, actor: Actor) -> Any:
    """The filter, to a partner's key as far as it is about what the endpoint gets."""
    if row["filter"] is None:
        return None
    view = view_of_endpoint(row)
    try:
        opened = open_column(vault, row, "filter") or {}
    except (KeyMissing, Tampered):
        return HIDDEN  # deliveries wait for the key, and say so
    if actor.subscriber_id is not None:
        opened = {OTHER: HIDDEN} if view.is_thin else shown(opened, view.tree)
    return msgspec.json.decode(encode(opened))


def unmet(vault: Vault, row: Any, data: Any) -> dict[str, Any] | None:
    """What of an endpoint's filter the data does not meet; None where there is none that can be opened."""
    try:
        opened = open_column(vault, row, "filter")
    except (KeyMissing, Tampered):
        return None
    tests = {name: parse(encode({name: wanted})) for name, wanted in (opened or {}).items()}
    failing = {name for name, test in tests.items() if isinstance(test, Filter) and not test.matches(data)}
    return opened and {name: wanted for name, wanted in opened.items() if name in failing}


async def preview(
    database: Database, vault: Vault, actor: Actor, wanted: Filter, types: Sequence[str], about: str
) -> Tried:
    """How many of the latest events of the types would match. Stands in the audit log with the filter's digest."""
    tried, before = Tried(), UUID(int=(1 << 128) - 1)
    async with changing(database, actor) as change:
        hashed = digest(vault, actor.tenant_id, wanted.given).hex()
        change.note("filter.previewed", about, after={"filter_digest": hashed, "event_types": list(types)})
    for _ in range(MOST_SLICES):
        async with database.reading() as connection:
            driver = await driver_of(connection)
            rows = await bodies.latest(driver, before, SLICE_EVENTS)
            asked: list[Any] = []
            for row in rows:
                if sum(one["size"] for one in asked) >= SLICE_BYTES:
                    break
                before = row["id"]
                if row["tenant_id"] == actor.tenant_id and may_have(tuple(types), row["type"]):
                    asked.append(row)
            sealed = await bodies.bodies(driver, [row["id"] for row in asked])
        for row in (row for row in asked if row["id"] in sealed):
            body = vault.open(actor.tenant_id, "events", row["id"], sealed[row["id"]])
            tried.matched += wanted.matches(read_data(body))
            tried.events, tried.bytes, tried.since = tried.events + 1, tried.bytes + len(body), row["accepted_at"]
        if not rows or tried.bytes >= READ_BYTES:
            break
    return tried
