"""``/v1/audit``: who changed what."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlalchemy import RowMapping

from webhook_gateway.rules.scopes import Scope
from webhook_gateway.store import audit
from webhook_gateway.web.callers import Caller

from .dependencies import Parts, needs, page_of
from .schemas.audit import AuditEntry, AuditHead, AuditQuery, AuditVerification
from .schemas.shapes import Page

router = APIRouter(prefix="/v1/audit", tags=["Audit"])

Auditor = Annotated[Caller, needs(Scope.AUDIT_READ, whole_tenant=True)]


@router.get("", response_model=Page[AuditEntry], operation_id="listAudit", summary="List audit entries")
async def every(query: Annotated[AuditQuery, Query()], gateway: Parts, caller: Auditor) -> Any:
    """Lists changes and every look at a payload, newest first. Entries can only be added."""
    asked = query.model_dump(include={"target", "actor", "since", "until"})
    fetch = partial(audit.page, tenant_id=caller.tenant_id, **asked)
    return await page_of(gateway, query, fetch, by="sequence", show=_shown, of_many=True)


@router.get("/head", response_model=AuditHead, operation_id="getAuditHead", summary="Take a signed proof of the log")
async def head(gateway: Parts, caller: Auditor) -> Any:
    """Signs the last entry's number and hash. Keep the answer elsewhere: it proves what the log held at that moment.

    The public key stays the same. Note it once, over a way that you trust (`webhook-gateway audit head` on the machine
    shows it, too), and from then on accept no other: a head that has been signed with another key proves nothing.
    """
    async with gateway.database.begin() as connection:
        return asdict(await audit.head(connection, gateway.vault, caller.tenant_id, datetime.now(UTC)))


@router.get(
    "/verification",
    response_model=AuditVerification,
    operation_id="verifyAudit",
    summary="Check that no audit entry was changed",
)
async def verify(gateway: Parts, caller: Auditor) -> Any:
    """Walks the whole chain of hashes and names the first entry that doesn't fit. Seconds for a million entries."""
    async with gateway.database.begin() as connection:
        found = await audit.verify(connection, caller.tenant_id)
    return {
        "intact": found.broken_at is None,
        "entries": found.entries,
        "broken_at": found.broken_at,
        "last_hash": found.last_hash.hex(),
    }


def _shown(row: RowMapping) -> dict[str, Any]:
    return {**row, "hash": row["hash"].hex()}
