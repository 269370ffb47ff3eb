"""``/healthz`` and ``/readyz``: for whoever decides whether to restart this process, or to send it requests."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from webhook_gateway.store.database import DatabaseUnavailable

from .dependencies import Parts
from .schemas.health import Condition, Readiness

router = APIRouter(tags=["Health"])


@router.get("/healthz", response_model=Condition, operation_id="getHealth", summary="See whether the process lives")
async def alive() -> Any:
    """Answers as long as the process works, with or without its database. Needs no key."""
    return {"status": "ok"}


@router.get("/readyz", response_model=Readiness, operation_id="getReadiness", summary="See whether it can work")
async def ready(gateway: Parts) -> Any:
    """Answers 200 while the database takes writes, 503 otherwise. Needs no key.

    While `sending` is `paused`, events are accepted and nothing is sent, until an operator says `resume-all`.
    """
    if (sending := await gateway.readiness.ask()) is None:
        raise DatabaseUnavailable("the database is silent, or takes no writes")
    return {"status": "ok", "sending": sending}
