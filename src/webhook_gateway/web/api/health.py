"""``/healthz`` and ``/readyz``: for whoever decides whether to restart this process, or to send it requests."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter

from webhook_gateway.store import configuration
from webhook_gateway.store.database import DatabaseUnavailable

from .dependencies import Parts
from .schemas.health import Condition

router = APIRouter(tags=["Health"])

PATIENCE = 2.0
"""Seconds that the database has to answer a readiness check."""


@router.get("/healthz", response_model=Condition, operation_id="getHealth", summary="See whether the process lives")
async def alive() -> Any:
    """Answers as long as the process works, with or without its database. Needs no key."""
    return {"status": "ok"}


@router.get("/readyz", response_model=Condition, operation_id="getReadiness", summary="See whether it can work")
async def ready(gateway: Parts) -> Any:
    """Answers 200 while the database answers, 503 otherwise. Needs no key."""
    try:
        async with asyncio.timeout(PATIENCE), gateway.database.connection() as connection:
            await configuration.version(connection)
    except TimeoutError:
        raise DatabaseUnavailable("the database is silent") from None
    return {"status": "ok"}
