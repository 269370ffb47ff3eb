"""``/v1/keys``: API keys. A key is shown once, when it is made; nobody can grant what they don't hold."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query

from webhook_gateway.operations import keys
from webhook_gateway.operations.change import changing
from webhook_gateway.operations.refusals import NotFound
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.store import keys as stored
from webhook_gateway.web.callers import Caller
from webhook_gateway.web.errors import granted

from .dependencies import Parts, needs, page_of
from .schemas.keys import CreatedKey, Key, NewKey
from .schemas.shapes import Page, Paging
from .schemas.typed_ids import KeyId

router = APIRouter(prefix="/v1/keys", tags=["Keys"])

Admin = Annotated[Caller, needs(Scope.ADMIN, whole_tenant=True)]


@router.post("", status_code=201, response_model=CreatedKey, operation_id="createKey", summary="Make an API key")
async def create(body: NewKey, gateway: Parts, caller: Admin) -> Any:
    """Makes a key. The answer holds it, and it is never shown again."""
    new = stored.NewKey(**body.model_dump(exclude={"role"}) | {"scopes": body.scopes or ()})
    async with changing(gateway.database, caller) as change:
        row, key = granted(await keys.create(change, new, body.role))
    return {**row, "key": key}


@router.get("", response_model=Page[Key], operation_id="listKeys", summary="List API keys")
async def every(query: Annotated[Paging, Query()], gateway: Parts, caller: Admin) -> Any:
    """Lists keys, newest first, also the revoked ones."""
    return await page_of(gateway, query, partial(stored.page, tenant_id=caller.tenant_id))


@router.get("/{key_id}", response_model=Key, operation_id="getKey", summary="Look at one API key")
async def one(key_id: KeyId, gateway: Parts, caller: Admin) -> Any:
    """Shows what a key may do and when it was last used."""
    async with gateway.database.begin() as connection:
        return granted(await stored.get(connection, caller.tenant_id, key_id) or NotFound.KEY)


@router.post("/{key_id}/revoke", response_model=Key, operation_id="revokeKey", summary="Revoke an API key")
async def revoke(key_id: KeyId, gateway: Parts, caller: Admin) -> Any:
    """Ends a key for good, within five seconds everywhere. A key can't revoke itself: make its successor first."""
    async with changing(gateway.database, caller) as change:
        row = granted(await keys.revoke(change, key_id))
    gateway.callers.forget()
    return row
