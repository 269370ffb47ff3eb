"""Partners' URLs, with their limits and secrets."""

from __future__ import annotations

import re
import secrets as chance
from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from sqlalchemy import RowMapping, func
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from webhook_gateway.crypto import signatures
from webhook_gateway.crypto.vault import KeyMissing, Tampered, Vault
from webhook_gateway.intake.catalogue import Catalogue
from webhook_gateway.intake.events import emit
from webhook_gateway.rules import ids
from webhook_gateway.rules.credentials import NEVER_SENT
from webhook_gateway.rules.denials import Denied
from webhook_gateway.rules.faults import Fault
from webhook_gateway.rules.matching import beyond, effective
from webhook_gateway.rules.model import Signing
from webhook_gateway.rules.rights import Quotas
from webhook_gateway.rules.scopes import Scope, allows
from webhook_gateway.rules.signing import SECRET_BYTES, encode_secret
from webhook_gateway.rules.targets import MASK, Policy, parse
from webhook_gateway.store import endpoints, subscribers
from webhook_gateway.store.configuration import masked_url, open_column, seal_column, url_columns, whole_url
from webhook_gateway.store.driver import driver_of
from webhook_gateway.store.notifications import CONFIGURATION, OUTBOX

from . import content, filters
from .change import Actor, Change
from .credentials import CREDENTIALS, faults_of, faults_of_secret, header_given_twice, shown_credentials
from .permission import cut_off, faults_of_types, types_of
from .quotas import one_endpoint_more
from .refusals import Conflict, Invalid, NotFound, NotHeld, Refusal

MOST_SECRETS = 5
"""Live signing secrets of an endpoint: each makes every request longer."""

_OURS = re.compile(r"user-agent|accept-encoding|proxy-.*|content-.*|webhook-.*", re.IGNORECASE)


async def find(
    connection: AsyncConnection, actor: Actor, endpoint_id: UUID, *, lock: bool = False
) -> RowMapping | NotFound:
    row = await endpoints.get(connection, actor.tenant_id, endpoint_id, subscriber_id=actor.subscriber_id, lock=lock)
    return NotFound.ENDPOINT if row is None else row


async def find_theirs(connection: AsyncConnection, actor: Actor, endpoint_id: UUID) -> RowMapping | NotFound | NotHeld:
    """The endpoint, locked, for who may change where its events go: only who could have asked for all of them."""
    if isinstance(row := await find(connection, actor, endpoint_id, lock=True), NotFound):
        return row
    not_theirs = tuple(pattern for pattern in types_of(row) if not actor.may_want(pattern))
    return NotHeld(not_theirs) if not_theirs else row


async def create(
    change: Change, vault: Vault, catalogue: Catalogue, policy: Policy, given: Mapping[str, Any]
) -> tuple[RowMapping, str] | Refusal:
    """The endpoint, and its signing secret. ``given`` are its columns, and ``secret`` where the partner has one."""
    actor, endpoint_id = change.actor, endpoints.new_id()
    wanted = {name: value for name, value in given.items() if name != "secret"}
    subscriber_id = given["subscriber_id"]
    if actor.subscriber_id not in (None, subscriber_id):
        return NotFound.SUBSCRIBER
    if given["filter"] is not None or actor.subscriber_id is not None:
        await endpoints.lock_filters(change.connection, actor.tenant_id)
    subscriber = await subscribers.get(change.connection, actor.tenant_id, subscriber_id, lock=True)
    if subscriber is None:
        return NotFound.SUBSCRIBER
    if too_many := await one_endpoint_more(change):
        return too_many
    faults = [
        *_faults(wanted, policy, actor.quotas),
        *faults_of_secret(given["secret"], given["signing"]),
        *header_given_twice(list(given["headers"]), given["authorization"]),
        *await _faults_of_types(change, catalogue, given["event_types"], subscriber["event_types"]),
    ]
    if faults:
        return Invalid(tuple(faults))
    if wanted["filter"] is not None and (refused := await _check_filter(change, wanted)):
        return refused
    if refused := await _check_unfiltered(change, subscriber_id, ""):
        return refused
    types = effective(subscriber["event_types"], given["event_types"] or ())
    if refused := await content.check(change, catalogue, given["content"], types, subscriber["content"]):
        return refused
    if not given["event_types"] and (too_old := await change.needs_current_workers()):
        return too_old
    values = _columns(vault, actor.tenant_id, endpoint_id, wanted, policy)
    if values["url_query"] and (too_old := await change.needs_current_workers()):
        return too_old
    columns = {"id": endpoint_id, "tenant_id": actor.tenant_id, **values}
    if isinstance(row := await _named(change, endpoints.create(change.connection, columns)), Conflict):
        return row
    secret = await _add_secret(change, vault, endpoint_id, given["secret"], given["signing"])
    rendered = ids.render(ids.ENDPOINT, endpoint_id)
    change.note("endpoint.created", rendered, CONFIGURATION, after=_noted(vault, row, values))
    await emit_about(change, vault, row, "endpoint_created")
    return row, secret


async def change_one(
    change: Change, vault: Vault, catalogue: Catalogue, policy: Policy, endpoint_id: UUID, given: Mapping[str, Any]
) -> RowMapping | Refusal:
    """Changes the columns that are ``given`` and leaves the rest. With ``cancel_open`` it may cut off deliveries."""
    if "filter" in given or change.actor.subscriber_id is not None:
        await endpoints.lock_filters(change.connection, change.actor.tenant_id)
    before = await find_theirs(change.connection, change.actor, endpoint_id)
    if isinstance(before, NotFound | NotHeld):
        return before
    cancel_open = given.get("cancel_open", False)
    given = {name: value for name, value in given.items() if name != "cancel_open"}
    headers = header_names(vault, before) if "headers" not in given else list(given["headers"] or {})
    faults = [
        *_faults(given, policy, change.actor.quotas),
        *header_given_twice(headers, given.get("authorization", before["authorization"])),
    ]
    if "event_types" in given:
        faults += await _faults_of_types(change, catalogue, given["event_types"], before["permitted_types"])
    if faults:
        return Invalid(tuple(faults))
    if refused := await _check_filter(change, given):
        return refused
    if given.get("content") is not None:
        types = effective(before["permitted_types"], given.get("event_types", before["event_types"]) or ())
        if too_much := await content.check(change, catalogue, given["content"], types, before["permitted_content"]):
            return too_much
    if "event_types" in given and (refused := await _check_types(change, before, given["event_types"], cancel_open)):
        return refused
    values = _columns(vault, change.actor.tenant_id, endpoint_id, given, policy)
    if "url" in values:
        if values["url_query"] and (too_old := await change.needs_current_workers()):
            return too_old
        if shown_url(vault, before, change.actor) != shown_url(vault, {**before, **values}, change.actor):
            await _url_changed(change, vault, before, values)
    changed = endpoints.change(change.connection, change.actor.tenant_id, endpoint_id, values)
    if isinstance(after := await (_named(change, changed) if "name" in values else changed), Conflict):
        return after
    change.note(
        "endpoint.changed",
        ids.render(ids.ENDPOINT, endpoint_id),
        CONFIGURATION,
        before=_noted(vault, before, values),
        after=_noted(vault, after, values),
    )
    await emit_about(change, vault, after, "endpoint_changed")
    return after


async def _named(change: Change, written: Awaitable[RowMapping]) -> RowMapping | Conflict:
    """The row, unless another endpoint of its subscriber has the name."""
    try:
        async with change.connection.begin_nested():
            return await written
    except IntegrityError:
        return Conflict.ENDPOINT_NAME_TAKEN


async def _url_changed(change: Change, vault: Vault, before: RowMapping, values: dict[str, Any]) -> None:
    """Emits that it did, and keeps when the endpoint got another host."""
    if another := urlsplit(values["url"])[:2] != urlsplit(before["url"])[:2]:
        values["host_changed_at"] = func.now()
    await emit_about(change, vault, before, "endpoint_url_changed", "another_host" if another else "same_host")


async def emit_about(change: Change, vault: Vault, row: RowMapping, what: str, reason: str | None = None) -> None:
    """Tells whoever subscribes to the gateway's own events."""
    about = {**names_of(row), "reason": reason}
    await emit(await driver_of(change.connection), vault, change.actor.tenant_id, what, about)
    change.notifications.add(OUTBOX)


def names_of(endpoint: RowMapping) -> dict[str, str]:
    return {
        "endpoint_id": ids.render(ids.ENDPOINT, endpoint["id"]),
        "subscriber_id": ids.render(ids.SUBSCRIBER, endpoint["subscriber_id"]),
    }


async def delete(change: Change, vault: Vault, endpoint_id: UUID) -> NotFound | None:
    """Cancels its open deliveries. A request that is under way just now is not recalled."""
    if isinstance(row := await find(change.connection, change.actor, endpoint_id, lock=True), NotFound):
        return row
    cancelled = await endpoints.delete(change.connection, change.actor.tenant_id, endpoint_id)
    before = {"url": masked_url(row), "event_types": row["event_types"], "cancelled": cancelled}
    change.note("endpoint.deleted", ids.render(ids.ENDPOINT, endpoint_id), CONFIGURATION, before=before)
    await emit_about(change, vault, row, "endpoint_deleted")
    return None


async def rotate_secret(
    change: Change, vault: Vault, endpoint_id: UUID, own: str | None, overlap: int
) -> str | Refusal:
    """A new signing secret, ``own`` where the partner has one. The live ones sign, too, for ``overlap`` seconds."""
    row = await find_theirs(change.connection, change.actor, endpoint_id)
    if isinstance(row, NotFound | NotHeld):
        return row
    if faults := tuple(faults_of_secret(own, row["signing"])):
        return Invalid(faults)
    if overlap and len(await endpoints.secrets_of(change.connection, [endpoint_id])) >= MOST_SECRETS:
        return Conflict.TOO_MANY_SECRETS
    await endpoints.expire_secrets(change.connection, endpoint_id, overlap)
    secret = await _add_secret(change, vault, endpoint_id, own, row["signing"])
    after = {"overlap_seconds": overlap}
    change.note("endpoint.secret_rotated", ids.render(ids.ENDPOINT, endpoint_id), CONFIGURATION, after=after)
    return secret


def header_names(vault: Vault, row: RowMapping) -> list[str]:
    try:
        return sorted(open_column(vault, row, "headers") or {})
    except (KeyMissing, Tampered):
        return []  # deliveries wait for the key, and say so; the rest of the endpoint can still be shown


def may_send_again(actor: Actor, endpoint: Any, since: datetime | None) -> NotHeld | None:
    """Whether what came from then on may go to the endpoint again: whoever gave it another host could read it there."""
    changed = endpoint["host_changed_at"]
    if changed is None or (since is not None and since > changed) or allows(actor.scopes, Scope.PAYLOAD_READ):
        return None
    return NotHeld((f"{Scope.PAYLOAD_READ.value}, for what came before the endpoint had another host",))


def shown_url(vault: Vault, row: Any, actor: Actor) -> str:
    """The URL, with its query for who may change where the endpoint's events go."""
    may_change = allows(actor.scopes, Scope.ENDPOINTS_WRITE) and all(map(actor.may_want, types_of(row)))
    try:
        return whole_url(row, open_column(vault, row, "url_query")) if may_change else masked_url(row)
    except (KeyMissing, Tampered):
        return masked_url(row)


async def _add_secret(change: Change, vault: Vault, endpoint_id: UUID, own: str | None, signing: str) -> str:
    secret_id, tenant_id = endpoints.new_id(), change.actor.tenant_id
    made = signatures.new_private_key if signing == Signing.ED25519 else _new_secret
    secret = made() if own is None else own
    sealed = vault.seal(tenant_id, "endpoint_secrets", secret_id, secret.encode())
    await endpoints.add_secret(change.connection, tenant_id, endpoint_id, secret_id, sealed)
    return secret


def _new_secret() -> str:
    return encode_secret(chance.token_bytes(SECRET_BYTES))


def _columns(
    vault: Vault, tenant_id: UUID, endpoint_id: UUID, given: Mapping[str, Any], policy: Policy
) -> dict[str, Any]:
    """What was given and has no faults, as the table has it."""
    values = dict(given)
    if "event_types" in values:
        values["event_types"] = values["event_types"] or []
    if "url" in values:
        target = parse(values["url"], policy)
        assert not isinstance(target, Denied)
        values["url"], values["url_query"] = url_columns(vault, tenant_id, endpoint_id, target.url)
    if "filter" in values:
        values["filter_digest"] = values["filter"] and filters.digest(vault, tenant_id, values["filter"])
    for column in ("headers", "filter", *CREDENTIALS):
        if column in values:
            sealed = values[column] and seal_column(vault, tenant_id, endpoint_id, column, values[column])
            values[column] = sealed or None
    if "maintenance" in values:
        window = values.pop("maintenance") or {"from_": None, "until": None}
        values |= {"maintenance_from": window["from_"], "maintenance_until": window["until"]}
    return values


def _faults(given: Mapping[str, Any], policy: Policy, quotas: Quotas | None) -> Iterator[Fault]:
    if "url" in given and isinstance(target := parse(given["url"], policy), Denied):
        yield Fault(target.reason, target.remedy, pointer="/url")
    if given.get("url", "").endswith(MASK):
        yield Fault("masked_query", f"Give the query itself: {MASK} is shown to who may not see it.", pointer="/url")
    headers = given.get("headers") or {}
    for name in (name for name in headers if name.lower() in NEVER_SENT or _OURS.fullmatch(name)):
        remedy = "Remove it: HTTP or the gateway uses this header itself."
        yield Fault("reserved_header", remedy, pointer=f"/headers/{name}")
    if quotas is not None and sum(len(name) + len(value) for name, value in headers.items()) > quotas.header_bytes:
        remedy = f"Give names and values of at most {quotas.header_bytes:,} bytes together."
        yield Fault("too_large", remedy, pointer="/headers")
    if len({name.lower() for name in headers}) < len(headers):
        yield Fault("duplicate_header", "Give each header once: case makes no difference.", pointer="/headers")
    yield from faults_of(given, policy)


async def _faults_of_types(
    change: Change, catalogue: Catalogue, own: Sequence[str] | None, permitted: Sequence[str]
) -> list[Fault]:
    """``own`` is None where it gets all that its subscriber may have, which has to be the actor's to give, too."""
    if own is not None:
        return await faults_of_types(change, catalogue, own, permitted)
    if all(map(change.actor.may_want, permitted)):
        return []
    remedy = "Name event types: this key may not have all that the subscriber may."
    return [Fault("not_allowed", remedy, pointer="/event_types")]


async def _check_filter(change: Change, given: Mapping[str, Any]) -> Refusal | None:
    if "filter" not in given or (given["filter"] is None and change.actor.subscriber_id is None):
        return None
    if isinstance(found := filters.checked(change.actor, given["filter"] or {}), Invalid):
        return found
    return await change.needs_current_workers()


async def _check_unfiltered(change: Change, subscriber_id: UUID, pointer: str) -> Invalid | None:
    """What has no filter would let a partner's key get round those that the hospital has set."""
    if change.actor.subscriber_id is None or not await endpoints.was_filtered(change.connection, subscriber_id):
        return None
    remedy = "Ask the hospital for it: it says which events of their types this subscriber's endpoints get."
    return Invalid((Fault("not_allowed", remedy, pointer=pointer),))


async def _check_types(
    change: Change, before: RowMapping, own: Sequence[str] | None, cancel_open: bool
) -> Refusal | None:
    after = effective(before["permitted_types"], own or ())
    widens = before["filter"] is None and beyond(types_of(before), after)
    if widens and (refused := await _check_unfiltered(change, before["subscriber_id"], "/event_types")):
        return refused
    if own is None and (too_old := await change.needs_current_workers()):
        return too_old
    if not beyond(after, types_of(before)):
        return None
    return await cut_off(change, [(before["id"], after)], cancel_open=cancel_open)


def _noted(vault: Vault, row: RowMapping, changed: Iterable[str]) -> dict[str, Any]:
    """What the audit log says of the columns that changed: of headers, their names; of credentials, no secrets."""
    shown = {"headers": header_names(vault, row), "url": masked_url(row), **shown_credentials(vault, row)}
    (shown["authorization"] or {}).pop("username", None)  # for ever in the log, and often somebody's name
    shown["filter"] = row["filter_digest"] and row["filter_digest"].hex()
    hidden = {"url_query", "host_changed_at", "filter_digest"}
    return {name: shown.get(name, row[name]) for name in changed if name in row and name not in hidden}
