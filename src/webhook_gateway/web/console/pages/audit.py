"""Who changed what, and whether the chain of entries is whole; also as a file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from starlette.responses import Response, StreamingResponse

from webhook_gateway.operations.audit import export, export_csv
from webhook_gateway.rules import ids
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.store import audit as stored
from webhook_gateway.store import keys
from webhook_gateway.web.api import audit
from webhook_gateway.web.api.schemas.audit import AuditQuery
from webhook_gateway.web.console.frame import PER_PAGE, Visit, action, page


@page("/audit", Scope.AUDIT_READ, whole_tenant=True)
async def every(visit: Visit) -> Response:
    query = AuditQuery(**_asked(visit), cursor=visit.asked("cursor"), limit=PER_PAGE)
    found = await audit.every(query, visit.gateway, visit.caller)
    actors = {row["actor"] for row in found["items"] if row["actor"].startswith(f"{ids.KEY}_")}
    async with visit.reading() as connection:
        named = await keys.names(connection, visit.caller.tenant_id, [ids.parse(ids.KEY, actor) for actor in actors])
    context = {"rows": found["items"], "cursor": found["next_cursor"], "named": named}
    return visit.show("audit.html", "Audit", **context)


@action("/audit/verification", Scope.AUDIT_READ, whole_tenant=True)
async def verify(visit: Visit) -> Response:
    return visit.show("audit_verified.html", "Audit verified", **await audit.verify(visit.gateway, visit.caller))


@action("/audit/export", Scope.AUDIT_READ, whole_tenant=True, form=every)
async def download(visit: Visit) -> Response:
    """What is filtered as CSV, or all of it, signed, as `webhook-gateway audit export` writes it."""
    database, tenant_id = visit.gateway.database, visit.caller.tenant_id
    if visit.form.get("do") == "csv":
        asked = AuditQuery(**_asked(visit)).model_dump(include={"target", "actor", "since", "until"})
        return _file(export_csv(database, tenant_id, **asked), "audit.csv", "text/csv")
    async with database.begin() as connection:
        signed = await stored.head(connection, visit.gateway.vault, tenant_id, datetime.now(UTC))
    return _file(export(database, tenant_id, signed), "audit.jsonl", "application/jsonl")


def _asked(visit: Visit) -> dict[str, Any]:
    asked: dict[str, Any] = {name: visit.form.get(name) or visit.asked(name) for name in ("target", "actor")}
    return asked | {name: visit.moment(name) for name in ("since", "until")}


def _file(lines: AsyncIterator[str], name: str, kind: str) -> Response:
    return StreamingResponse(lines, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'})
