"""What an event is found by: keyed hashes, which tell nobody without the tenant's key what came with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from functools import cache
from typing import Any
from uuid import UUID

from webhook_gateway.rules.keyed_hash import KeyedHash
from webhook_gateway.rules.views import EVERY_ITEM, tokens_of

MOST_PATIENTS = 1_000
"""By which one event is found."""


class Kind(StrEnum):
    """What a text may be that came with an event. All but the first may name a patient."""

    IDEMPOTENCY_KEY = "idempotency_key"
    ORDERING_KEY = "ordering_key"
    SUBJECT = "subject"
    PATIENT = "patient"


_ABOUT = dict(zip(Kind, (b"key\0", b"order\0", b"subject\0", b"patient\0"), strict=True))
_tokens_of = cache(tokens_of)


def digest(hashes: KeyedHash, kind: Kind, text: str) -> bytes:
    """By a tenant's key."""
    return hashes.digest(_ABOUT[kind] + text.encode())


def key_of(digest: bytes) -> UUID:
    """As much of a digest as events are looked up by."""
    return UUID(bytes=digest[:16])


def patients_of(pointers: Sequence[str], data: Any, given: str | None) -> list[str]:
    """The ids that a type's pointers lead to in the data, and the one ``given`` with the event, each once."""
    found = {} if given is None else {given: None}
    for pointer in pointers:
        for value in _values_at(data, _tokens_of(pointer)):
            if isinstance(value, str | int) and len(found) < MOST_PATIENTS:
                found[str(value)] = None
    return list(found)


def _values_at(value: Any, tokens: Sequence[str]) -> Iterator[Any]:
    for at, token in enumerate(tokens):
        if token == EVERY_ITEM and isinstance(value, list):
            for item in value:
                yield from _values_at(item, tokens[at + 1 :])
            return
        if not isinstance(value, dict) or token not in value:
            return
        value = value[token]
    yield value
