"""API keys. A key is shown once, when it is made; nobody can grant what they don't hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping

from webhook_gateway.crypto.vault import Vault
from webhook_gateway.rules import ids
from webhook_gateway.rules.api_keys import MOST_NETWORKS, MOST_PATTERNS
from webhook_gateway.rules.faults import Fault
from webhook_gateway.rules.labels import LONGEST_LABEL, is_label
from webhook_gateway.rules.matching import is_pattern
from webhook_gateway.rules.rights import Rights, not_granted
from webhook_gateway.rules.scopes import OF_A_SUBSCRIBER, ROLES, Role, Scope
from webhook_gateway.store import keys, subscribers, tenants
from webhook_gateway.store.driver import driver_of
from webhook_gateway.store.keys import NewKey
from webhook_gateway.store.notifications import CONFIGURATION

from .change import Change, local_actor
from .refusals import Conflict, Invalid, NotFound, NotHeld, Refusal


async def create(change: Change, wanted: NewKey, role: str | None = None) -> tuple[RowMapping, str] | Refusal:
    """The key's row, and the key itself. With a ``role`` it has that role's scopes."""
    if faults := tuple(_faults(wanted, role)):
        return Invalid(faults)
    scopes = frozenset(map(Scope, wanted.scopes)) if role is None else ROLES[role]
    connection, tenant_id, subscriber_id = change.connection, change.actor.tenant_id, wanted.subscriber_id
    networks = None if wanted.networks is None else tuple(map(ip_network, wanted.networks))
    rights = Rights(
        scopes=frozenset(scopes),
        subscriber_id=subscriber_id,
        event_types=None if wanted.event_types is None else tuple(wanted.event_types),
        networks=networks,
        expires_at=None if wanted.expires_at is None else wanted.expires_at.timestamp(),
    )
    if beyond := not_granted(change.actor, rights):
        return NotHeld(tuple(beyond))
    if subscriber_id and not await subscribers.get(connection, tenant_id, subscriber_id, lock=True):
        return NotFound.SUBSCRIBER
    written = None if networks is None else [str(network) for network in networks]
    row, key = await keys.issue(connection, tenant_id, replace(wanted, scopes=sorted(scopes), networks=written))
    change.note("key.created", ids.render(ids.KEY, row["id"]), after=_noted(row, role))
    return row, key


async def create_with_tenant(
    change: Change, vault: Vault, tenant: str, wanted: NewKey, role: str | None = None, *, new: bool = False
) -> tuple[RowMapping, str] | Refusal:
    """A key for the tenant of that name. The default one is made with its first key; any other only if it is ``new``,
    so that a typo makes none."""
    if not tenant.isprintable() or not 0 < len(tenant.strip()) == len(tenant) <= 100:
        remedy = "Give 1 to 100 printable characters and no space around them."
        return Invalid((Fault("name", remedy, pointer="/tenant"),))
    driver = await driver_of(change.connection)
    is_there = await tenants.find(driver, tenant) is not None
    if is_there and new:
        return Conflict.TENANT_EXISTS
    if not is_there and not new and tenant != tenants.DEFAULT:
        return Conflict.NO_TENANT
    change.actor = local_actor(await tenants.make(driver, vault, tenant))
    if not is_there:
        change.note("tenant.created", ids.render(ids.TENANT, change.actor.tenant_id), after={"name": tenant})
    return await create(change, wanted, role)


async def revoke(change: Change, key_id: UUID) -> RowMapping | NotFound | Conflict:
    """Ends a key for good. One that was revoked before keeps its time."""
    rendered, tenant_id = ids.render(ids.KEY, key_id), change.actor.tenant_id
    if rendered == change.actor.name:
        return Conflict.OWN_KEY
    before = await keys.get(change.connection, tenant_id, key_id)
    row = await keys.revoke(change.connection, tenant_id, key_id)
    if before is None or row is None:
        return NotFound.KEY
    if before["revoked_at"] is None:
        change.note("key.revoked", rendered, CONFIGURATION, before={"name": row["name"]})
    return row


def _faults(wanted: NewKey, role: str | None) -> Iterator[Fault]:
    if not is_label(wanted.name):
        remedy = f"Give 1 to {LONGEST_LABEL} printable characters and no space around them."
        yield Fault("name", remedy, pointer="/name")
    yield from _faults_of_scopes(wanted, role)
    for name, most in (("event_types", MOST_PATTERNS), ("networks", MOST_NETWORKS)):
        if len(getattr(wanted, name) or ()) > most:
            yield Fault("too_many", f"Give at most {most}.", pointer=f"/{name}")
    for index, pattern in enumerate(wanted.event_types or ()):
        if not is_pattern(pattern):
            yield Fault("pattern", "Give lab_result.final, lab_result.* or *.", pointer=f"/event_types/{index}")
    for index, network in enumerate(wanted.networks or ()):
        try:
            ip_network(network)
        except ValueError:
            remedy = "Give a network in CIDR notation without host bits, as in 10.20.0.0/16."
            yield Fault("network", remedy, pointer=f"/networks/{index}")


def _faults_of_scopes(wanted: NewKey, role: str | None) -> Iterator[Fault]:
    """A subscriber's key never reaches beyond its subscriber."""
    member = "/scopes" if role is None else "/role"
    if (role is None) is not bool(wanted.scopes):
        yield Fault("role_or_scopes", "Give either a role or scopes.", pointer="/role")
    elif role is not None and role not in ROLES:
        yield Fault("role", f"Choose among {', '.join(ROLES)}.", pointer=member)
    elif role == Role.PARTNER and wanted.subscriber_id is None:
        yield Fault("required", "Name the subscriber that the partner is.", pointer="/subscriber_id")
    elif wanted.subscriber_id is not None and (beyond := (ROLES[role] if role else {*wanted.scopes}) - OF_A_SUBSCRIBER):
        remedy = f"A subscriber's key can't have {', '.join(sorted(beyond))}: that is about the whole hospital."
        yield Fault("beyond_subscriber", remedy, pointer=member)


def _noted(row: RowMapping, role: str | None) -> dict[str, Any]:
    """What the key may do, and what holds it back; never the key, of which its beginning is only the name."""
    names = ("name", "prefix", "scopes", "event_types", "networks", "expires_at")
    noted = {name: row[name] for name in names if row[name] is not None}
    if row["subscriber_id"] is not None:
        noted["subscriber_id"] = ids.render(ids.SUBSCRIBER, row["subscriber_id"])
    return noted if role is None else noted | {"role": role}
