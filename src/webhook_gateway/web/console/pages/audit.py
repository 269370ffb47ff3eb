"""Who changed what, and whether the chain of entries is whole."""

from __future__ import annotations

from starlette.responses import Response

from webhook_gateway.rules.scopes import Scope
from webhook_gateway.web.api import audit
from webhook_gateway.web.api.schemas.audit import AuditQuery
from webhook_gateway.web.console.frame import PER_PAGE, Visit, action, page


@page("/audit", Scope.AUDIT_READ, whole_tenant=True)
async def every(visit: Visit) -> Response:
    asked = {name: visit.asked(name) for name in ("target", "actor", "cursor")}
    found = await audit.every(AuditQuery(**asked, limit=PER_PAGE), visit.gateway, visit.caller)
    return visit.show("audit.html", "Audit", rows=found["items"], cursor=found["next_cursor"])


@action("/audit/verification", Scope.AUDIT_READ, whole_tenant=True)
async def verify(visit: Visit) -> Response:
    return visit.show("audit_verified.html", "Audit verified", **await audit.verify(visit.gateway, visit.caller))
