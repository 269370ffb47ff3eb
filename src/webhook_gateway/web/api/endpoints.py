"""``/v1/endpoints``: partners' URLs, their limits, their secrets and their state."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Query, Response
from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from webhook_gateway.crypto import signatures
from webhook_gateway.crypto.vault import Vault
from webhook_gateway.operations import content, endpoints, filters
from webhook_gateway.operations.change import changing
from webhook_gateway.operations.content import meaning, view_of_endpoint
from webhook_gateway.operations.credentials import shown_credentials
from webhook_gateway.operations.filters import shown_filter
from webhook_gateway.operations.permission import types_of
from webhook_gateway.rules import ids
from webhook_gateway.rules.matching import LONGEST_NAME
from webhook_gateway.rules.model import DEFAULT_SCHEDULE
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.store import endpoints as stored
from webhook_gateway.store.configuration import masked_url
from webhook_gateway.web.callers import Caller
from webhook_gateway.web.errors import granted

from .dependencies import Gateway, Parts, needs, next_page, read_cursor
from .schemas.endpoint_lifecycle import Breaker
from .schemas.endpoints import (
    CreatedEndpoint,
    Endpoint,
    EndpointChanges,
    EndpointQuery,
    FilterPreview,
    NewEndpoint,
    TriedFilter,
)
from .schemas.events import Payload
from .schemas.shapes import Page
from .schemas.signing import RotatedSecret, Rotation
from .schemas.typed_ids import EndpointId

router = APIRouter(prefix="/v1/endpoints", tags=["Endpoints"])

Reader = Annotated[Caller, needs(Scope.ENDPOINTS_READ)]
Opener = Annotated[Caller, needs(Scope.PAYLOAD_READ, whole_tenant=True)]
Writer = Annotated[Caller, needs(Scope.ENDPOINTS_WRITE)]


@router.post(
    "", status_code=201, response_model=CreatedEndpoint, operation_id="createEndpoint", summary="Add an endpoint"
)
async def create(body: NewEndpoint, gateway: Parts, caller: Writer) -> Any:
    """Adds a URL of a subscriber. The answer holds the signing secret, which is never shown again."""
    given = body.model_dump()
    async with changing(gateway.database, caller) as change:
        row, secret = granted(await endpoints.create(change, gateway.vault, gateway.catalogue, gateway.policy, given))
        return {**await shown(gateway.vault, change.connection, row, caller), **_given_out(secret)}


@router.get("", response_model=Page[Endpoint], operation_id="listEndpoints", summary="List endpoints")
async def every(query: Annotated[EndpointQuery, Query()], gateway: Parts, caller: Reader) -> Any:
    """Lists endpoints, newest first. A URL's query, which may be a secret, is shown of one endpoint only."""
    if caller.subscriber_id is not None and query.subscriber_id not in (None, caller.subscriber_id):
        return {"items": []}
    async with gateway.database.begin() as connection:
        rows = await stored.page(
            connection,
            caller.tenant_id,
            subscriber_id=caller.subscriber_id or query.subscriber_id,
            state=query.state,
            before=read_cursor(query.cursor),
            limit=query.limit + 1,
        )
        items, next_cursor = next_page(rows, query.limit, lambda row: row["id"])
        return {"items": await _show_all(gateway.vault, connection, items, caller), "next_cursor": next_cursor}


@router.get("/{endpoint_id}", response_model=Endpoint, operation_id="getEndpoint", summary="Look at one endpoint")
async def one(endpoint_id: EndpointId, gateway: Parts, caller: Reader) -> Any:
    """Shows one endpoint with its health. Secrets and the values of custom headers are not shown."""
    async with gateway.database.begin() as connection:
        row = granted(await endpoints.find(connection, caller, endpoint_id))
        return await shown(gateway.vault, connection, row, caller)


@router.patch("/{endpoint_id}", response_model=Endpoint, operation_id="changeEndpoint", summary="Change an endpoint")
async def change_one(endpoint_id: EndpointId, body: EndpointChanges, gateway: Parts, caller: Writer) -> Any:
    """Changes what the body holds and leaves the rest. Deliveries that are open are sent as the endpoint is then.

    `409` with their count where open deliveries would be cut off by fewer `event_types`, unless `cancel_open` is true.
    """
    # Members left out stay as they are; within a member that is given, what is left out has its default.
    given = body.model_dump(include=body.model_fields_set)
    async with changing(gateway.database, caller) as change:
        row = granted(
            await endpoints.change_one(change, gateway.vault, gateway.catalogue, gateway.policy, endpoint_id, given)
        )
        return await shown(gateway.vault, change.connection, row, caller)


@router.get(
    "/{endpoint_id}/preview",
    response_class=Response,
    operation_id="previewBody",
    summary="See what an endpoint gets",
    responses={200: {"model": Payload, "description": "The body that it would get of the type's example."}},
)
async def preview(
    endpoint_id: EndpointId,
    gateway: Parts,
    caller: Reader,
    type: Annotated[
        str | None, Query(max_length=LONGEST_NAME, description="By default the first that it gets.")
    ] = None,
) -> Response:
    """Shows what the endpoint gets of one of its types, as it is set up now, from the type's example.

    A replay is cut like this, too. It keeps its `webhook-id`, so a partner that has had the event takes it for a
    duplicate.
    """
    async with gateway.database.begin() as connection:
        row = granted(await endpoints.find(connection, caller, endpoint_id))
        body = granted(await content.preview(connection, gateway.catalogue, caller, row, type))
    return Response(body, media_type="application/json")


@router.post(
    "/filter-preview",
    response_model=TriedFilter,
    operation_id="previewFilterOfNone",
    summary="Try a filter of an endpoint to be",
)
async def preview_of_none(body: FilterPreview, gateway: Parts, caller: Opener) -> Any:
    """The same for an endpoint that is not made yet, on `event_types` or on all."""
    return await _try(gateway, caller, body, body.event_types or ["*"], "none")


@router.post(
    "/{endpoint_id}/filter-preview",
    response_model=TriedFilter,
    operation_id="previewFilter",
    summary="Try a filter of an endpoint",
)
async def preview_filter(endpoint_id: EndpointId, body: FilterPreview, gateway: Parts, caller: Opener) -> Any:
    """Counts what of the latest events would match, and stores nothing of the filter but a digest in the audit log.

    It reads payloads: 16 MiB of the latest at most, and 10,000 events.
    """
    async with gateway.database.begin() as connection:
        row = granted(await endpoints.find(connection, caller, endpoint_id))
    return await _try(gateway, caller, body, body.event_types or types_of(row), ids.render(ids.ENDPOINT, endpoint_id))


@router.delete(
    "/{endpoint_id}",
    status_code=204,
    response_class=Response,
    operation_id="deleteEndpoint",
    summary="Delete an endpoint",
)
async def delete(endpoint_id: EndpointId, gateway: Parts, caller: Writer) -> None:
    """Deletes an endpoint and cancels its open deliveries. A request that is under way just now is not recalled."""
    async with changing(gateway.database, caller) as change:
        granted(await endpoints.delete(change, gateway.vault, endpoint_id))


@router.post(
    "/{endpoint_id}/rotate-secret",
    response_model=RotatedSecret,
    operation_id="rotateSecret",
    summary="Change an endpoint's signing secret",
)
async def rotate_secret(
    endpoint_id: EndpointId, gateway: Parts, caller: Writer, body: Annotated[Rotation | None, Body()] = None
) -> Any:
    """Makes a new signing secret. Until the overlap ends every request carries a signature of each live secret."""
    wanted = body or Rotation()
    overlap = wanted.overlap_seconds
    async with changing(gateway.database, caller) as change:
        secret = granted(await endpoints.rotate_secret(change, gateway.vault, endpoint_id, wanted.secret, overlap))
    return {**_given_out(secret), "previous_expire_at": datetime.now(UTC) + timedelta(seconds=overlap)}


async def _try(
    gateway: Gateway, caller: Caller, body: FilterPreview, types: Sequence[str], about: str
) -> filters.Tried:
    wanted = granted(filters.checked(caller, body.filter))
    return await filters.preview(gateway.database, gateway.vault, caller, wanted, types, about)


async def shown(vault: Vault, connection: AsyncConnection, row: RowMapping, caller: Caller) -> dict[str, Any]:
    """An endpoint as the API shows it."""
    return {**(await _show_all(vault, connection, [row], caller))[0], "url": endpoints.shown_url(vault, row, caller)}


async def _show_all(
    vault: Vault, connection: AsyncConnection, rows: Sequence[RowMapping], caller: Caller
) -> list[dict[str, Any]]:
    found = [row["id"] for row in rows]
    secrets: dict[UUID, list[RowMapping]] = {endpoint_id: [] for endpoint_id in found}
    for secret in await stored.secrets_of(connection, found):
        secrets[secret["endpoint_id"]].append(secret)
    health = {row["endpoint_id"]: row for row in await stored.health_of(connection, found)}
    return [
        {
            **row,
            "url": masked_url(row),
            "header_names": endpoints.header_names(vault, row),
            "event_types": row["event_types"] or None,
            "effective_event_types": types_of(row),
            "filter": shown_filter(vault, row, caller),
            "effective_content": meaning(view_of_endpoint(row)),
            "schedule": DEFAULT_SCHEDULE if row["schedule"] is None else row["schedule"],
            "maintenance": _maintenance(row),
            **shown_credentials(vault, row),
            "state_changed_by": row["state_changed_by"] if caller.subscriber_id is None else None,
            "secrets": secrets[row["id"]],
            "health": _health(health.get(row["id"])),
        }
        for row in rows
    ]


def _given_out(secret: str) -> dict[str, str | None]:
    """What the partner needs to verify: of a pair of keys, only the public one leaves."""
    if signatures.is_private_key(secret):
        return {"secret": None, "public_key": signatures.public_key_of(secret)}
    return {"secret": secret, "public_key": None}


def _maintenance(row: RowMapping) -> dict[str, Any] | None:
    if row["maintenance_from"] is None or row["maintenance_until"] is None:
        return None
    return {"from_": row["maintenance_from"], "until": row["maintenance_until"]}


def _health(row: RowMapping | None) -> dict[str, Any]:
    if row is None:
        return {}
    breaker = Breaker.CLOSED if row["is_open"] is None else Breaker.OPEN if row["is_open"] else Breaker.HALF_OPEN
    return {**row, "breaker": breaker}
