"""``/v1/endpoints``: partners' URLs, their limits, their secrets and their state."""

from __future__ import annotations

import json
import re
import secrets as chance
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Query, Response
from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from webhook_gateway.crypto import signatures
from webhook_gateway.crypto.vault import KeyMissing, Tampered, Vault
from webhook_gateway.rules import ids
from webhook_gateway.rules.denials import Denied
from webhook_gateway.rules.matching import OPERATIONAL
from webhook_gateway.rules.model import DEFAULT_SCHEDULE, Signing
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.rules.signing import SECRET_BYTES, BadSecret, parse_secret, render_secret
from webhook_gateway.rules.targets import parse
from webhook_gateway.store import endpoints, event_types, subscribers
from webhook_gateway.store.configuration import seal_column
from webhook_gateway.store.notifications import CONFIGURATION
from webhook_gateway.web.callers import Caller
from webhook_gateway.web.errors import Fault, conflict, invalid, not_found

from .credentials import CREDENTIALS, check_authorization, check_header, check_tls, shown_credentials
from .dependencies import Gateway, Parts, changing, needs, next_page, read_cursor
from .schemas.endpoint_lifecycle import Breaker
from .schemas.endpoints import CreatedEndpoint, Endpoint, EndpointChanges, EndpointPage, EndpointQuery, NewEndpoint
from .schemas.signing import RotatedSecret, Rotation
from .schemas.typed_ids import EndpointId

router = APIRouter(prefix="/v1/endpoints", tags=["Endpoints"])

Reader = Annotated[Caller, needs(Scope.ENDPOINTS_READ)]
Writer = Annotated[Caller, needs(Scope.ENDPOINTS_WRITE)]

MOST_SECRETS = 5
"""Live signing secrets of an endpoint: each makes every request longer."""

NOT_THEIRS = re.compile(
    r"host|connection|transfer-encoding|te|trailer|upgrade|keep-alive|proxy-.*|expect|user-agent|accept-encoding"
    r"|content-.*|webhook-.*",
    re.IGNORECASE,
)
"""Header names that HTTP or the gateway uses itself."""


@router.post(
    "", status_code=201, response_model=CreatedEndpoint, operation_id="createEndpoint", summary="Add an endpoint"
)
async def create(body: NewEndpoint, gateway: Parts, caller: Writer) -> Any:
    """Adds a URL of a subscriber. The answer holds the signing secret, which is never shown again."""
    if caller.subscriber_id not in (None, body.subscriber_id):
        raise not_found("subscriber")
    endpoint_id, secret_id, secret = endpoints.new_id(), endpoints.new_id(), _secret(body.secret, body.signing)
    values = _columns(gateway, caller, endpoint_id, body.model_dump(exclude={"secret"}))
    check_header(list(body.headers), body.authorization)
    async with changing(gateway, caller, CONFIGURATION) as change:
        if await subscribers.get(change.connection, caller.tenant_id, body.subscriber_id, lock=True) is None:
            raise not_found("subscriber")
        await _check_event_types(gateway, change.connection, caller, body.event_types)
        row = await endpoints.create(change.connection, {"id": endpoint_id, "tenant_id": caller.tenant_id, **values})
        sealed = gateway.vault.seal(caller.tenant_id, "endpoint_secrets", secret_id, secret.encode())
        await endpoints.add_secret(change.connection, caller.tenant_id, endpoint_id, secret_id, sealed)
        change.note("endpoint.created", ids.render(ids.ENDPOINT, endpoint_id), after=_noted(gateway.vault, row, values))
        return {**await shown(gateway.vault, change.connection, row), **_given_out(secret)}


@router.get("", response_model=EndpointPage, operation_id="listEndpoints", summary="List endpoints")
async def every(query: Annotated[EndpointQuery, Query()], gateway: Parts, caller: Reader) -> Any:
    """Lists endpoints, newest first."""
    if caller.subscriber_id is not None and query.subscriber_id not in (None, caller.subscriber_id):
        return {"items": []}
    async with gateway.database.begin() as connection:
        rows = await endpoints.page(
            connection,
            caller.tenant_id,
            subscriber_id=caller.subscriber_id or query.subscriber_id,
            state=query.state,
            before=read_cursor(query.cursor),
            limit=query.limit + 1,
        )
        items, next_cursor = next_page(rows, query.limit, lambda row: row["id"])
        return {"items": await _show_all(gateway.vault, connection, items), "next_cursor": next_cursor}


@router.get("/{endpoint_id}", response_model=Endpoint, operation_id="getEndpoint", summary="Look at one endpoint")
async def one(endpoint_id: EndpointId, gateway: Parts, caller: Reader) -> Any:
    """Shows one endpoint with its health. Secrets and the values of custom headers are not shown."""
    async with gateway.database.begin() as connection:
        return await shown(gateway.vault, connection, await find(connection, caller, endpoint_id))


@router.patch("/{endpoint_id}", response_model=Endpoint, operation_id="changeEndpoint", summary="Change an endpoint")
async def change_one(endpoint_id: EndpointId, body: EndpointChanges, gateway: Parts, caller: Writer) -> Any:
    """Changes what the body holds and leaves the rest. Deliveries that are open are sent as the endpoint is then."""
    # Members left out stay as they are; within a member that is given, what is left out has its default.
    values = _columns(gateway, caller, endpoint_id, body.model_dump(include=body.model_fields_set))
    async with changing(gateway, caller, CONFIGURATION) as change:
        before = await find(change.connection, caller, endpoint_id, lock=True)
        if "event_types" in values:
            await _check_event_types(gateway, change.connection, caller, values["event_types"])
        after = await endpoints.change(change.connection, caller.tenant_id, endpoint_id, values)
        check_header(_header_names(gateway.vault, after), after["authorization"])
        change.note(
            "endpoint.changed",
            ids.render(ids.ENDPOINT, endpoint_id),
            before=_noted(gateway.vault, before, values),
            after=_noted(gateway.vault, after, values),
        )
        return await shown(gateway.vault, change.connection, after)


@router.delete(
    "/{endpoint_id}",
    status_code=204,
    response_class=Response,
    operation_id="deleteEndpoint",
    summary="Delete an endpoint",
)
async def delete(endpoint_id: EndpointId, gateway: Parts, caller: Writer) -> None:
    """Deletes an endpoint and cancels its open deliveries. A request that is under way just now is not recalled."""
    async with changing(gateway, caller, CONFIGURATION) as change:
        row = await find(change.connection, caller, endpoint_id, lock=True)
        cancelled = await endpoints.delete(change.connection, caller.tenant_id, endpoint_id)
        change.note(
            "endpoint.deleted",
            ids.render(ids.ENDPOINT, endpoint_id),
            before={"url": row["url"], "event_types": row["event_types"], "cancelled": cancelled},
        )


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
    secret_id = endpoints.new_id()
    async with changing(gateway, caller, CONFIGURATION) as change:
        row = await find(change.connection, caller, endpoint_id, lock=True)
        secret = _secret(wanted.secret, row["signing"])
        if overlap and len(await endpoints.secrets_of(change.connection, [endpoint_id])) >= MOST_SECRETS:
            raise conflict("The endpoint has as many live secrets as it can: wait, or rotate with overlap_seconds 0.")
        await endpoints.expire_secrets(change.connection, endpoint_id, overlap)
        sealed = gateway.vault.seal(caller.tenant_id, "endpoint_secrets", secret_id, secret.encode())
        await endpoints.add_secret(change.connection, caller.tenant_id, endpoint_id, secret_id, sealed)
        change.note(
            "endpoint.secret_rotated",
            ids.render(ids.ENDPOINT, endpoint_id),
            after={"overlap_seconds": overlap},
        )
    return {**_given_out(secret), "previous_expire_at": datetime.now(UTC) + timedelta(seconds=overlap)}


async def find(connection: AsyncConnection, caller: Caller, endpoint_id: UUID, *, lock: bool = False) -> RowMapping:
    """The endpoint, if the caller may see it.

    Raises:
        Problem: 404.
    """
    row = await endpoints.get(connection, caller.tenant_id, endpoint_id, subscriber_id=caller.subscriber_id, lock=lock)
    if row is None:
        raise not_found("endpoint")
    return row


async def shown(vault: Vault, connection: AsyncConnection, row: RowMapping) -> dict[str, Any]:
    """An endpoint as the API shows it."""
    return (await _show_all(vault, connection, [row]))[0]


async def _show_all(vault: Vault, connection: AsyncConnection, rows: Sequence[RowMapping]) -> list[dict[str, Any]]:
    found = [row["id"] for row in rows]
    secrets: dict[UUID, list[RowMapping]] = {endpoint_id: [] for endpoint_id in found}
    for secret in await endpoints.secrets_of(connection, found):
        secrets[secret["endpoint_id"]].append(secret)
    health = {row["endpoint_id"]: row for row in await endpoints.health_of(connection, found)}
    return [
        {
            **row,
            "header_names": _header_names(vault, row),
            "schedule": DEFAULT_SCHEDULE if row["schedule"] is None else row["schedule"],
            "maintenance": _maintenance(row),
            **shown_credentials(vault, row),
            "secrets": secrets[row["id"]],
            "health": _health(health.get(row["id"])),
        }
        for row in rows
    ]


def _columns(gateway: Gateway, caller: Caller, endpoint_id: UUID, given: dict[str, Any]) -> dict[str, Any]:
    """What was given, as the table has it.

    Raises:
        Problem: 422 where the URL, a header or a credential is not allowed.
    """
    values = dict(given)
    if "url" in values:
        values["url"] = _allowed_url(gateway, values["url"])
    if "headers" in values:
        headers = _allowed_headers(values["headers"] or {})
        plain = json.dumps(headers).encode()
        values["headers"] = gateway.vault.seal(caller.tenant_id, "endpoints", endpoint_id, plain) if headers else None
    if values.get("authorization") is not None:
        check_authorization(values["authorization"], gateway.policy)
    if values.get("tls") is not None:
        check_tls(values["tls"])
    for column in CREDENTIALS:
        if values.get(column) is not None:
            values[column] = seal_column(gateway.vault, caller.tenant_id, endpoint_id, column, values[column])
    if "maintenance" in values:
        window = values.pop("maintenance") or {"from_": None, "until": None}
        values |= {"maintenance_from": window["from_"], "maintenance_until": window["until"]}
    return values


def _allowed_url(gateway: Gateway, url: str) -> str:
    target = parse(url, gateway.policy)
    if isinstance(target, Denied):
        raise invalid(Fault(target.reason, target.remedy, pointer="/url"))
    return target.url


def _allowed_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    faults = [
        Fault("reserved_header", "Remove it: HTTP or the gateway uses this header itself.", pointer=f"/headers/{name}")
        for name in headers
        if NOT_THEIRS.fullmatch(name)
    ]
    if len({name.lower() for name in headers}) < len(headers):
        faults.append(Fault("duplicate_header", "Give each header once: case makes no difference.", pointer="/headers"))
    if faults:
        raise invalid(*faults)
    return headers


def _secret(own: str | None, signing: str) -> str:
    if signing == Signing.ED25519:
        if own is not None:
            remedy = "Leave it out: with signing ed25519 only the gateway has a secret."
            raise invalid(Fault("secret", remedy, pointer="/secret"))
        return signatures.new_private_key()
    if own is None:
        return render_secret(chance.token_bytes(SECRET_BYTES))
    try:
        parse_secret(own)
    except BadSecret:
        remedy = "Give whsec_ and base64 of 24 to 64 bytes, or none to have one made."
        raise invalid(Fault("secret", remedy, pointer="/secret")) from None
    return own


def _given_out(secret: str) -> dict[str, str | None]:
    """What the partner needs to verify: of a pair of keys, only the public one leaves."""
    if signatures.is_private_key(secret):
        return {"secret": None, "public_key": signatures.public_key_of(secret)}
    return {"secret": secret, "public_key": None}


async def _check_event_types(
    gateway: Gateway, connection: AsyncConnection, caller: Caller, patterns: Iterable[str]
) -> None:
    """A misspelt name would never match, and nobody would notice; a pattern may be for types to come."""
    faults = []
    own: set[str] | None = None
    for index, pattern in enumerate(patterns):
        pointer = f"/event_types/{index}"
        if caller.subscriber_id is not None and not _may_want(caller, pattern):
            remedy = "Remove it: the hospital decides which events this subscriber gets, and this key says no."
            faults.append(Fault("not_allowed", remedy, pointer=pointer))
        if pattern.endswith("*") or gateway.catalogue.get(caller.tenant_id, pattern) is not None:
            continue
        if own is None:
            own = {row["name"] for row in await event_types.all_of(connection, caller.tenant_id)}
        if pattern not in own:
            remedy = "Give one of the types that GET /v1/event-types lists, or a pattern such as lab_result.*"
            faults.append(Fault("unknown_event_type", remedy, pointer=pointer))
    if faults:
        raise invalid(*faults)


def _may_want(caller: Caller, pattern: str) -> bool:
    """A subscriber's key may want what it names. The gateway's own types tell of other subscribers, so never those."""
    return caller.may_post(pattern) and not pattern.startswith(OPERATIONAL)


def _header_names(vault: Vault, row: RowMapping) -> list[str]:
    if row["headers"] is None:
        return []
    try:
        return sorted(json.loads(vault.open(row["tenant_id"], "endpoints", row["id"], row["headers"])))
    except (KeyMissing, Tampered):
        return []  # deliveries wait for the key, and say so; the rest of the endpoint can still be shown


def _maintenance(row: RowMapping) -> dict[str, Any] | None:
    if row["maintenance_from"] is None or row["maintenance_until"] is None:
        return None
    return {"from_": row["maintenance_from"], "until": row["maintenance_until"]}


def _health(row: RowMapping | None) -> dict[str, Any]:
    if row is None:
        return {}
    breaker = Breaker.CLOSED if row["is_open"] is None else Breaker.OPEN if row["is_open"] else Breaker.HALF_OPEN
    return {**row, "breaker": breaker}


def _noted(vault: Vault, row: RowMapping, changed: Iterable[str]) -> dict[str, Any]:
    """What the audit log says of the columns that changed: of headers, their names; of credentials, no secrets."""
    shown = {"headers": _header_names(vault, row), **shown_credentials(vault, row)}
    return {name: shown.get(name, row[name]) for name in changed if name in row}
