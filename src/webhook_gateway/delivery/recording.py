"""What is recorded of attempts, together where it is alike: the words of an answer that partners give again and again,
and its digest, are made once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from msgspec.structs import replace

from webhook_gateway.crypto.vault import Vault
from webhook_gateway.rules.outcome import media_type, words_of
from webhook_gateway.store.attempts import Alike, Attempt, Attempts

from .deliver import Result


def attempts_of(results: Sequence[Result], vault: Vault, keep: int) -> Attempts:
    """Of a partner's answer ``keep`` bytes are stored, sealed for the attempt."""
    alike: defaultdict[tuple[object, ...], list[Result]] = defaultdict(list)
    for one in results:
        response = one.exchange.response
        sealed_for = one.attempt_id if keep and response is not None and response.excerpt else None
        exchange, left = replace(one.exchange, duration=0.0), one.body_sha256 is not None
        alike[one.delivery.tenant_id, one.delivery.attempt, one.endpoint.recorded, exchange, left, sealed_for].append(
            one
        )
    return [_together(some, vault, keep) for some in alike.values()]


def _together(results: Sequence[Result], vault: Vault, keep: int) -> tuple[Alike, list[Attempt]]:
    tenant_id, bodies = results[0].delivery.tenant_id, [one.body_sha256 for one in results if one.body_sha256]
    digests = vault.digests_of_bodies(tenant_id, bodies) if bodies else [None] * len(results)
    each = [
        Attempt(one.delivery.id, one.attempt_id, one.began, one.exchange.duration, digest)
        for one, digest in zip(results, digests, strict=True)
    ]
    return _alike(results[0], vault, keep), each


def _alike(result: Result, vault: Vault, keep: int) -> Alike:
    tenant_id, exchange = result.delivery.tenant_id, result.exchange
    outcome, status, detail = words_of(exchange.outcome)
    response = exchange.response
    excerpt = response.excerpt[:keep] if response is not None else b""
    return Alike(
        tenant_id=tenant_id,
        attempt=result.delivery.attempt,
        revision=result.endpoint.recorded,
        phase=exchange.phase,
        outcome=outcome,
        status=status,
        detail=detail,
        tls_version=exchange.tls_version,
        sends=exchange.sends,
        response_length=None if response is None else response.length,
        response_type=None if response is None else media_type(response.content_type),
        response_digest=None if response is None else vault.digest_of_answer(tenant_id, response.sha256),
        response_excerpt=(excerpt and vault.seal(tenant_id, "attempts", result.attempt_id, excerpt)) or None,
    )
