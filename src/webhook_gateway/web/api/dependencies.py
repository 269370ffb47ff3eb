"""What routes ask for: the gateway's parts, the caller with the scope it needs, and pages."""

from __future__ import annotations

import base64
from asyncio import Semaphore
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer

from webhook_gateway.crypto.vault import Vault
from webhook_gateway.intake.catalogue import Catalogue
from webhook_gateway.intake.ingest import Ingest
from webhook_gateway.rules.faults import Fault
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.rules.targets import Policy
from webhook_gateway.settings import Settings
from webhook_gateway.store.database import Database
from webhook_gateway.store.lists import Page
from webhook_gateway.web.callers import Caller, Callers
from webhook_gateway.web.errors import forbidden, invalid
from webhook_gateway.web.live import Live
from webhook_gateway.web.readiness import Readiness

from .schemas.shapes import Paging

MOST_WAITING = 32
"""Requests of one process that may wait for something at once."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """The parts that routes work with; one for each app, at ``app.state.gateway``."""

    settings: Settings
    database: Database
    vault: Vault
    catalogue: Catalogue
    ingest: Ingest
    policy: Policy
    callers: Callers
    readiness: Readiness
    waiting: Semaphore = field(default_factory=lambda: Semaphore(MOST_WAITING))
    """For requests that wait for what becomes of a test: they look at the database again and again."""
    live: Live = field(default_factory=Live)


def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


Parts = Annotated[Gateway, Depends(_gateway)]

_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="API key",
    description="A key made by `POST /v1/keys` or `webhook-gateway keys create`, as `Authorization: Bearer whk_…`.",
)


def needs(scope: Scope | None, *, whole_tenant: bool = False) -> Any:
    """The caller, if its key has the scope; with ``whole_tenant``, only if it isn't bound to one subscriber.

    The guard has already found out who it is: here is only what it may do.
    """

    def permitted(request: Request, _: Annotated[object, Security(_bearer)]) -> Caller:
        caller: Caller = request.state.caller
        if scope is not None:
            caller.need(scope)
        if whole_tenant and caller.subscriber_id is not None:
            raise forbidden("This key belongs to one subscriber, and this is about the whole hospital.")
        return caller

    permitted.scope = scope  # type: ignore[attr-defined] # so that the documentation can name it
    permitted.whole_tenant = whole_tenant  # type: ignore[attr-defined]
    return Depends(permitted)


AnyCaller = Annotated[Caller, needs(None)]


def write_cursor(last: UUID | int | str) -> str:
    """An opaque cursor: where the next page begins."""
    raw = last.bytes if isinstance(last, UUID) else str(last).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def read_cursor(cursor: str | None) -> UUID | None:
    """
    Raises:
        Problem: 422, not a cursor of ours.
    """
    try:
        return None if cursor is None else UUID(bytes=_decode(cursor))
    except ValueError:
        raise _not_a_cursor() from None


def read_number_cursor(cursor: str | None) -> int | None:
    """For lists that are ordered by a number.

    Raises:
        Problem: 422, not a cursor of ours.
    """
    try:
        number = None if cursor is None else int(_decode(cursor))
    except ValueError:
        raise _not_a_cursor() from None
    if number is not None and not -(2**63) <= number < 2**63:
        raise _not_a_cursor()
    return number


async def page_of(
    gateway: Gateway,
    query: Paging,
    fetch: Callable[..., Awaitable[list[Any] | Page]],
    *,
    by: str = "id",
    show: Callable[[Any], object] = lambda row: row,
    of_many: bool = False,
) -> dict[str, Any]:
    """A page of what ``fetch`` finds from below a cursor, in the order of the column ``by``, as ``show`` shows it;
    ``of_many`` are those of tables that grow with events."""
    before = read_cursor(query.cursor) if by == "id" else read_number_cursor(query.cursor)
    database = gateway.database
    async with database.reading() if of_many else database.begin() as connection:
        found = await fetch(connection, before=before, limit=query.limit + 1)
    rows, reached = found if isinstance(found, tuple) else (found, None)
    items, next_cursor = next_page(rows, query.limit, lambda row: row[by], reached)
    return {"items": [show(row) for row in items], "next_cursor": next_cursor}


def next_page(
    rows: list[Any], limit: int, last: Callable[[Any], UUID | int], reached: UUID | None = None
) -> tuple[list[Any], str | None]:
    """Cuts the one row that was read too many, and says where to go on: below the last row, or where it was reached."""
    if len(rows) <= limit:
        return rows, None if reached is None else write_cursor(reached)
    return rows[:limit], write_cursor(last(rows[limit - 1]))


def _decode(cursor: str) -> bytes:
    return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)


def _not_a_cursor() -> Exception:
    return invalid(Fault("cursor", "Give the next_cursor of the page before, unchanged.", parameter="cursor"))
