"""API keys: who has one, what it may do, and ending it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from starlette.responses import Response

from webhook_gateway.rules.scopes import SCOPES_OF, Scope
from webhook_gateway.store import subscribers
from webhook_gateway.web.api import keys
from webhook_gateway.web.api.schemas.keys import NewKey
from webhook_gateway.web.api.schemas.shapes import Paging
from webhook_gateway.web.console.frame import PER_PAGE, Visit, action, page

MOST = 1_000


@page("/keys", Scope.ADMIN, whole_tenant=True)
async def every(visit: Visit) -> Response:
    query = Paging(cursor=visit.asked("cursor"), limit=PER_PAGE)
    found = await keys.every(query, visit.gateway, visit.caller)
    async with visit.reading() as connection:
        whose = [row["subscriber_id"] for row in found["items"] if row["subscriber_id"] is not None]
        named = await subscribers.names(connection, visit.caller.tenant_id, whose)
    context = {"rows": found["items"], "cursor": found["next_cursor"], "named": named}
    return visit.show("keys.html", "API keys", **context)


@page("/keys/new", Scope.ADMIN, whole_tenant=True)
async def new(visit: Visit) -> Response:
    async with visit.reading() as connection:
        rows = await subscribers.page(connection, visit.caller.tenant_id, only=None, before=None, limit=MOST)
    return visit.show("key_form.html", "New API key", roles=SCOPES_OF, partners=rows)


@action("/keys/new", Scope.ADMIN, whole_tenant=True, form=new, once="Revoke it if it is lost, and make another.")
async def create(visit: Visit) -> Response:
    form, days = visit.form, visit.form.number("days")
    given = {
        "name": form.get("name", ""),
        "role": form.get("role") if form.get("role") != Scope.ADMIN else None,
        "scopes": [Scope.ADMIN] if form.get("role") == Scope.ADMIN else None,
        "subscriber_id": form.get("subscriber_id") or None,
        "event_types": form.lines("event_types") or None,
        "networks": form.lines("networks") or None,
        "expires_at": datetime.now(UTC) + timedelta(days=min(max(days, 0), 36_500)) if days else None,
    }
    made = await keys.create(NewKey.model_validate(given), visit.gateway, visit.caller)
    return visit.show("key_made.html", "API key made", 201, made=made)


@action("/keys/{key_id}/revoke", Scope.ADMIN, whole_tenant=True)
async def revoke(visit: Visit, key_id: UUID) -> Response:
    await keys.revoke(key_id, visit.gateway, visit.caller)
    return visit.go("/keys", "revoked")
