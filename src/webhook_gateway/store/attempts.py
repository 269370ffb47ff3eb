"""Attempts as they are recorded: once for many what they have in common, which mostly is all but names and times."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import msgspec

from .rows import records

RECORD = """
-- record: the attempts, even of who lost the lease: the request was made. What some have in common comes once,
-- with all of them.
INSERT INTO attempts (delivery_id, id, started_at, duration, body_digest, tenant_id, attempt, revision, phase, outcome,
                      status, detail, tls_version, sends, response_length, response_type, response_digest,
                      response_excerpt)
SELECT delivery_id, id, to_timestamp(began), duration, body_digest, tenant_id, attempt, revision, phase, outcome,
       status, detail, tls_version, sends, response_length, response_type, response_digest, response_excerpt
FROM unnest($1::alike_attempts[]) AS alike CROSS JOIN LATERAL unnest(made) AS one
"""
RECORD_AGAIN = f"{RECORD}ON CONFLICT DO NOTHING\n"
"""Of which some may have been recorded. To look for each one costs as much as a third of recording it."""


class Attempt(msgspec.Struct, frozen=True):
    """One of them. ``began`` is in Unix seconds, ``duration`` in seconds; the digest is of what may have left."""

    delivery_id: UUID
    id: UUID
    began: float
    duration: float
    body_digest: bytes | None


class Alike(msgspec.Struct, frozen=True):
    """What they have in common, in the order of the type ``alike_attempts``. ``response_excerpt`` is sealed."""

    tenant_id: UUID
    attempt: int
    revision: int | None
    phase: str
    outcome: str
    status: int | None
    detail: str | None
    tls_version: str | None
    sends: int
    response_length: int | None
    response_type: str | None
    response_digest: bytes | None
    response_excerpt: bytes | None


Attempts = Sequence[tuple[Alike, Sequence[Attempt]]]


def recorded(attempts: Attempts) -> list[tuple[object, ...]]:
    """The argument of `RECORD`."""
    return [(*msgspec.structs.astuple(alike), records(some)) for alike, some in attempts]
