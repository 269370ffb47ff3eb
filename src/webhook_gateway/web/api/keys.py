"""``/v1/keys``: API keys. A key is shown once, when it is made; nobody can grant what they don't hold."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated, Any

from fastapi import APIRouter, Query

from webhook_gateway.rules import ids
from webhook_gateway.rules.scopes import OF_A_SUBSCRIBER, SCOPES_OF, Role, Scope, not_held
from webhook_gateway.store import keys, subscribers
from webhook_gateway.store.notifications import CONFIGURATION
from webhook_gateway.web.callers import Caller
from webhook_gateway.web.errors import Fault, conflict, forbidden, invalid, not_found

from .dependencies import Parts, changing, needs, next_page, read_cursor
from .schemas.keys import CreatedKey, Key, KeyPage, NewKey
from .schemas.shapes import Paging
from .schemas.typed_ids import KeyId

router = APIRouter(prefix="/v1/keys", tags=["Keys"])

Admin = Annotated[Caller, needs(Scope.ADMIN, whole_tenant=True)]


@router.post("", status_code=201, response_model=CreatedKey, operation_id="createKey", summary="Make an API key")
async def create(body: NewKey, gateway: Parts, caller: Admin) -> Any:
    """Makes a key. The answer holds it, and it is never shown again."""
    scopes = _scopes(body)
    if lacking := not_held(caller.scopes, scopes):
        raise forbidden(f"This key can't grant what it doesn't hold itself: {', '.join(lacking)}.")
    networks = None if body.networks is None else [_network(text, place) for place, text in enumerate(body.networks)]
    new = keys.NewKey(
        caller.tenant_id, body.name, sorted(scopes), body.subscriber_id, body.event_types, networks, body.expires_at
    )
    async with changing(gateway, caller) as change:
        if body.subscriber_id is not None:
            found = await subscribers.get(change.connection, caller.tenant_id, body.subscriber_id, lock=True)
            if found is None:
                raise not_found("subscriber")
        row, key = await keys.issue(change.connection, new)
        after = body.model_dump(mode="json", exclude_none=True) | {"scopes": sorted(scopes), "prefix": row["prefix"]}
        change.note("key.created", ids.render(ids.KEY, row["id"]), after=after)
    return {**row, "key": key}


@router.get("", response_model=KeyPage, operation_id="listKeys", summary="List API keys")
async def every(query: Annotated[Paging, Query()], gateway: Parts, caller: Admin) -> Any:
    """Lists keys, newest first, also the revoked ones."""
    async with gateway.database.begin() as connection:
        rows = await keys.page(connection, caller.tenant_id, before=read_cursor(query.cursor), limit=query.limit + 1)
    items, next_cursor = next_page(rows, query.limit, lambda row: row["id"])
    return {"items": items, "next_cursor": next_cursor}


@router.get("/{key_id}", response_model=Key, operation_id="getKey", summary="Look at one API key")
async def one(key_id: KeyId, gateway: Parts, caller: Admin) -> Any:
    """Shows what a key may do and when it was last used."""
    async with gateway.database.begin() as connection:
        row = await keys.get(connection, caller.tenant_id, key_id)
    if row is None:
        raise not_found("key")
    return row


@router.post("/{key_id}/revoke", response_model=Key, operation_id="revokeKey", summary="Revoke an API key")
async def revoke(key_id: KeyId, gateway: Parts, caller: Admin) -> Any:
    """Ends a key for good, within five seconds everywhere. A key can't revoke itself: make its successor first."""
    if key_id == caller.key_id:
        raise conflict("A key can't revoke itself: use another key that has the scope admin.")
    async with changing(gateway, caller, CONFIGURATION) as change:
        before = await keys.get(change.connection, caller.tenant_id, key_id)
        row = await keys.revoke(change.connection, caller.tenant_id, key_id)
        if before is None or row is None:
            raise not_found("key")
        if before["revoked_at"] is None:
            change.note("key.revoked", ids.render(ids.KEY, key_id), before={"name": row["name"]})
    gateway.callers.forget()
    return row


def _scopes(body: NewKey) -> frozenset[Scope]:
    """
    Raises:
        Problem: 422, a subscriber's key would reach beyond its subscriber.
    """
    scopes = SCOPES_OF[body.role] if body.role is not None else frozenset(body.scopes or ())
    place = "/role" if body.role is not None else "/scopes"
    if body.role is Role.PARTNER and body.subscriber_id is None:
        raise invalid(Fault("required", "Name the subscriber that the partner is.", pointer="/subscriber_id"))
    if body.subscriber_id is not None and (beyond := scopes - OF_A_SUBSCRIBER):
        remedy = f"A subscriber's key can't have {', '.join(sorted(beyond))}: that is about the whole hospital."
        raise invalid(Fault("beyond_subscriber", remedy, pointer=place))
    return scopes


def _network(text: str, place: int) -> str:
    try:
        return str(ip_network(text))
    except ValueError:
        remedy = "Give a network in CIDR notation without host bits, as in 10.20.0.0/16."
        raise invalid(Fault("network", remedy, pointer=f"/networks/{place}")) from None
