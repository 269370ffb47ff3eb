"""An event becomes what is stored: the body that every partner gets, encoded once and sealed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any
from uuid import UUID

import msgspec

from webhook_gateway.crypto.vault import Vault
from webhook_gateway.rules import ids
from webhook_gateway.rules.keyed_hash import KeyedHash
from webhook_gateway.rules.matching import OPERATIONAL
from webhook_gateway.store import outbox
from webhook_gateway.store.clock import new_id
from webhook_gateway.store.database import Connection
from webhook_gateway.store.outbox import Appended

from .catalogue import EventType
from .lookups import Kind, digest, patients_of


class NewEvent(msgspec.Struct, frozen=True):
    """An event as it was posted: ``data`` as the very bytes that came, ``parsed`` as what they mean."""

    type: str
    data: bytes
    parsed: Any
    timestamp: datetime | None = None
    subject: str | None = None
    ordering_key: str | None = None
    idempotency_key: str | None = None
    test: bool = False
    """Made to try an endpoint, and says so in its body."""
    to: tuple[str, ...] | None = None
    """The subscribers that it is for, by id or external id; like ``patient`` for the gateway, never in the body."""
    patient: str | None = None


async def emit(connection: Connection, vault: Vault, tenant_id: UUID, name: str, data: Mapping[str, object]) -> None:
    """Stores an event of the gateway's own (``gateway.*``) in the caller's transaction."""
    raw = msgspec.json.encode(data)
    event = NewEvent(type=OPERATIONAL + name, data=raw, parsed=data)
    await outbox.append(connection, [prepare(vault, await new_id(connection), tenant_id, event, None)])


def prepare(
    vault: Vault,
    event_id: UUID,
    tenant_id: UUID,
    event: NewEvent,
    known: EventType | None,
    addressees: Sequence[UUID] | None = None,
    patient_index: bool = True,
) -> Appended:
    """Encodes the body that every partner gets, once, and seals it. ``addressees`` are the subscribers of its ``to``.

    Without the ``patient_index`` it is found by nothing that may name a patient. By its idempotency key it is found as
    long as that is remembered, and then where `partitions.prune_keys` puts it.

    Raises:
        KeyMissing: there is no key to seal it with.
    """
    occurred_at = ids.moment_of(event_id) if event.timestamp is None else event.timestamp.astimezone(UTC)
    body = encode_body(event_id, event, occurred_at)
    ordering_key = (
        event.ordering_key or (known and known.ordering_key and _fill(known.ordering_key, event.parsed)) or None
    )
    hashes = vault.hashes(tenant_id)
    key = None if event.idempotency_key is None else digest(hashes, Kind.IDEMPOTENCY_KEY, event.idempotency_key)
    order = None if ordering_key is None else digest(hashes, Kind.ORDERING_KEY, ordering_key)
    found_by = [order, *_named(hashes, event, known)] if patient_index else []
    return Appended(
        id=event_id,
        tenant_id=tenant_id,
        type=event.type,
        occurred_at=occurred_at,
        # 64 bits of the digest: should two ever collide, they only wait for each other.
        ordering_key=None if order is None else int.from_bytes(order[:8], signed=True),
        size=len(body),
        body=vault.seal(tenant_id, "events", event_id, body),
        key=key,
        fingerprint=None if key is None else hashes.digest(_fingerprint(event)),
        addressees=None if addressees is None else f"{{{','.join(map(str, addressees))}}}",
        lookups="{" + ",".join([each.hex()[:32] for each in found_by if each is not None]) + "}",
    )


class Body(msgspec.Struct, omit_defaults=True):
    """The JSON that partners get (Standard Webhooks: ``type``, ``timestamp``, ``data``)."""

    id: str
    type: str
    timestamp: datetime
    test: bool = False
    data: msgspec.Raw = msgspec.Raw()
    subject: str | None = None


def encode_body(event_id: UUID, event: NewEvent, occurred_at: datetime) -> bytes:
    """The body. ``data`` stays byte for byte what the hospital sent: no number changes its digits."""
    rendered, data = ids.recall_recent(ids.EVENT, event_id), msgspec.Raw(event.data)
    return _encode(Body(rendered, event.type, occurred_at, event.test, data, event.subject))


_encode = msgspec.json.Encoder().encode


def _fingerprint(event: NewEvent) -> bytes:
    """What makes two posts the same. A timestamp that we gave ourselves doesn't."""
    parts: tuple[object, ...] = (event.type, event.timestamp, event.subject, event.ordering_key)
    if event.to is not None or event.patient is not None:  # only then: keys from before these members still match
        parts += (event.to, event.patient)
    return _encode(parts) + event.data


def _named(hashes: KeyedHash, event: NewEvent, known: EventType | None) -> list[bytes]:
    """Whom it is about, each once."""
    patients = patients_of(known.patient if known else (), event.parsed, event.patient)
    named = [digest(hashes, Kind.PATIENT, each) for each in patients]
    if event.subject is not None and event.subject not in patients:
        named.append(digest(hashes, Kind.SUBJECT, event.subject))
    return named


def _fill(template: str, data: Any) -> str | None:
    """``patient:{patient_id}`` with the data's own value, or None where the data has none."""
    if not isinstance(data, dict):
        return None
    parts = list(_parts_of(template))
    for at in range(1, len(parts), 2):
        value = data.get(parts[at])
        if not isinstance(value, str | int):
            return None
        parts[at] = str(value)
    return "".join(parts)


@cache
def _parts_of(template: str) -> tuple[str, ...]:
    """Text and names in turn."""
    return tuple(re.split(r"\{(\w+)\}", template))
