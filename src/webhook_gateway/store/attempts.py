"""Attempts as they are recorded: once for many what they have in common, which mostly is all but names and times."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from uuid import UUID

import msgspec

from .rows import columns

RECORD = """
-- record: the attempts, even of who lost the lease: the request was made. What some have in common comes with the
-- numbers of the first and the last of them.
INSERT INTO attempts (delivery_id, id, started_at, duration, body_digest, tenant_id, attempt, revision, phase, outcome,
                      status, detail, tls_version, sends, response_length, response_type, response_digest,
                      response_excerpt)
SELECT ($1::uuid[])[n], ($2::uuid[])[n], to_timestamp(($3::float8[])[n]), ($4::real[])[n],
       substr($5::bytea, 32 * n - 31, digest), tenant_id, attempt, revision, phase, outcome, status, detail,
       tls_version, sends, response_length, response_type, response_digest, response_excerpt
FROM unnest($6::uuid[], $7::int[], $8::int[], $9::text[], $10::text[], $11::smallint[], $12::text[], $13::text[],
            $14::smallint[], $15::int[], $16::text[], $17::bytea[], $18::bytea[], $19::int[], $20::int[], $21::int[])
    AS a(tenant_id, attempt, revision, phase, outcome, status, detail, tls_version, sends, response_length,
         response_type, response_digest, response_excerpt, digest, first, last)
CROSS JOIN LATERAL generate_series(first, last) AS n
"""
RECORD_AGAIN = f"{RECORD}ON CONFLICT DO NOTHING\n"
"""Of which some may have been recorded. To look for each one costs as much as a third of recording it."""
_DIGEST = 32


class Attempt(msgspec.Struct, frozen=True):
    """One of them. ``began`` is in Unix seconds, ``duration`` in seconds; the digest is of what may have left."""

    delivery_id: UUID
    id: UUID
    began: float
    duration: float
    body_digest: bytes | None


class Alike(msgspec.Struct, frozen=True):
    """What they have in common, in the order of `RECORD`. ``response_excerpt`` is sealed.

    ``digest`` is how many bytes each one's has: 32, none where there was no key for it, None where nothing left.
    """

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
    digest: int | None


Attempts = Sequence[tuple[Alike, Sequence[Attempt]]]


def recorded(attempts: Attempts) -> list[object]:
    """The arguments of `RECORD`."""
    each = [one for _, some in attempts for one in some]
    last = list(accumulate(len(some) for _, some in attempts))
    return [
        [one.delivery_id for one in each],
        [one.id for one in each],
        [one.began for one in each],
        [one.duration for one in each],
        b"".join([(one.body_digest or b"").ljust(_DIGEST, b"\0") for one in each]),
        *columns(Alike, [alike for alike, _ in attempts]),
        [end - len(some) + 1 for (_, some), end in zip(attempts, last, strict=True)],
        last,
    ]
