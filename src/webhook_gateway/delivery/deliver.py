"""The life of a delivery, from its claim to its verdict: sign → send → decide → settle.

No database connection is held while a request is under way.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from time import monotonic
from typing import assert_never
from uuid import UUID

import msgspec
from uuid_utils.compat import uuid7

from webhook_gateway import __version__, telemetry
from webhook_gateway.crypto import signatures
from webhook_gateway.crypto.vault import Vault
from webhook_gateway.failpoints import reach
from webhook_gateway.intake.events import announce
from webhook_gateway.outbound.sender import Request, Sender
from webhook_gateway.outbound.tokens import Tokens
from webhook_gateway.rules import ids
from webhook_gateway.rules.credentials import Authorization, Basic, Bearer, ClientCredentials
from webhook_gateway.rules.model import Delivery, Endpoint, Health, Ordering
from webhook_gateway.rules.outcome import Exchange, Phase, Unsendable, detail_of, name_of, status_of
from webhook_gateway.rules.verdict import Done, GiveUp, Postpone, RetryAt, Verdict, decide
from webhook_gateway.store import configuration, deliveries
from webhook_gateway.store.database import Connection
from webhook_gateway.store.deliveries import Attempt, Finished, Retried, Settled

from .slots import HealthChange, Slots

USER_AGENT = f"webhook-gateway/{__version__}"
UNAUTHORIZED = 401


class Result(msgspec.Struct, frozen=True):
    """A delivery after its attempt, on its way to be settled. ``began`` and ``ended`` are Unix seconds."""

    attempt_id: UUID
    """Made once, so that a settle of unknown outcome can be repeated without recording the attempt twice."""
    delivery: Delivery
    endpoint: Endpoint
    exchange: Exchange
    verdict: Verdict
    began: float
    ended: float
    announced: bool
    """Whether the delivery is dead and some endpoint wants to hear of it."""


async def attempt(
    sender: Sender,
    tokens: Tokens,
    slots: Slots,
    delivery: Delivery,
    endpoint: Endpoint,
    body: bytes | Unsendable,
    keep: int,
) -> Result:
    """Sends one delivery once and decides what comes next. Never raises for anything that a partner can cause.

    ``keep`` is how many bytes of the partner's answer to hold on to.
    """
    began = slots.now()
    if delivery.attempt > endpoint.attempts_allowed:  # workers died of it, again and again
        body = Unsendable("attempts_exhausted")
    request = body if isinstance(body, Unsendable) else sign(delivery, endpoint, body, int(began), keep)
    if isinstance(request, Unsendable):
        exchange = Exchange(request, Phase.STARTED, 0.0)
    elif isinstance(endpoint.authorization, ClientCredentials):
        exchange = await _post_with_token(sender, tokens, endpoint, endpoint.authorization, request)
    else:
        exchange = await sender.post(request)
    ended = slots.now()
    verdict = decide(delivery, endpoint, slots.health(endpoint.id), exchange.outcome, ended, random.random())  # noqa: S311
    reach("after_answer")
    announced = isinstance(verdict.action, GiveUp) and slots.wants_deaths(delivery)
    return Result(uuid7(), delivery, endpoint, exchange, verdict, began, ended, announced)


def sign(delivery: Delivery, endpoint: Endpoint, body: bytes, timestamp: int, keep: int = 0) -> Request | Unsendable:
    """The request as the partner gets it. A bug in here costs this delivery, never the worker."""
    message_id = ids.recall(ids.EVENT, delivery.event_id)
    try:
        headers = {
            **endpoint.headers,
            **_authorize(endpoint.authorization),
            "content-type": "application/json",
            "user-agent": USER_AGENT,
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signatures.sign(endpoint.secrets, message_id, timestamp, body),
        }
        if delivery.skipped_event_id is not None:
            headers["webhook-skipped-id"] = ids.render(ids.EVENT, delivery.skipped_event_id)
        reach("render")
        return Request(
            endpoint.id,
            endpoint.revision,
            endpoint.url,
            headers,
            body,
            deadline=endpoint.deadline,
            tls=endpoint.tls,
            keep_excerpt=keep,
        )
    except Exception as error:
        telemetry.stage_failed("sign", error)
        return Unsendable("not_renderable")


async def _post_with_token(
    sender: Sender, tokens: Tokens, endpoint: Endpoint, credentials: ClientCredentials, request: Request
) -> Exchange:
    """Sends with the endpoint's token. Without one nothing is sent, and why is the outcome."""
    began = monotonic()
    token = await tokens.of(endpoint, credentials)
    if not isinstance(token, str):
        return Exchange(token, Phase.STARTED, monotonic() - began)
    headers = {**request.headers, "authorization": f"Bearer {token}"}
    exchange = await sender.post(replace(request, headers=headers))
    if status_of(exchange.outcome) == UNAUTHORIZED:
        tokens.drop(endpoint, token)
    return exchange


def _authorize(authorization: Authorization | None) -> dict[str, str]:
    match authorization:
        case Basic() | Bearer():
            return {"authorization": authorization.header}
        case ClientCredentials() | None:
            return {}  # a token is had when it is time to send
        case _:
            assert_never(authorization)


async def settle(
    connection: Connection,
    vault: Vault,
    slots: Slots,
    results: Sequence[Result],
    changed: Sequence[HealthChange],
    keep: int,
) -> tuple[Settled, int | None]:
    """Writes down what became of claimed deliveries: one transaction for all results of the last few milliseconds.

    ``changed`` is what was learnt about endpoints, ``keep`` how many bytes of a partner's answer to store, sealed.

    Returns:
        What goes on of the ordering keys, and the configuration's version from which on it says itself which endpoints
        were disabled here, if any were.
    """
    async with connection.transaction():
        finished = [f for result in results if (f := _finished(result, slots)) is not None]
        retried = [r for result in results if (r := _retried(result)) is not None]
        made = [(result.delivery, _attempt(result, vault, keep)) for result in results]
        done = await deliveries.settle(connection, made, finished, retried)
        reach("within_settle")
        settled = [result for result in results if result.delivery.id in done.ours]
        await _settle_endpoints(connection, vault, settled, changed)
        disabling = any(result.verdict.disable for result in results)
        version = await configuration.version(connection) if disabling else None
    if len(settled) < len(results):
        telemetry.lease_lost(len(results) - len(settled))
    for f in finished:
        if f.delivery.id in done.ours:
            telemetry.finished.labels(f.state).inc()
    return done, version


async def _settle_endpoints(
    connection: Connection, vault: Vault, results: Sequence[Result], changed: Sequence[HealthChange]
) -> None:
    """What the results mean for their endpoints: health to keep, endpoints to disable, events to announce."""
    if changed:
        await configuration.save_health(connection, [(endpoint, after) for endpoint, _, after in changed])
    for endpoint, before, after in changed:
        if (change := _breaker_change(before, after)) is not None:
            telemetry.endpoint_changed(endpoint, change, None)
            await announce(connection, vault, endpoint.tenant_id, change, about(endpoint, None))
    for result in {r.endpoint.id: r for r in results if r.verdict.disable is not None}.values():
        reason = result.verdict.disable
        if reason is not None and await configuration.disable(connection, result.endpoint.id, reason):
            telemetry.endpoint_changed(result.endpoint, "endpoint_disabled", reason)
            await announce(
                connection, vault, result.endpoint.tenant_id, "endpoint_disabled", about(result.endpoint, reason)
            )
    for result in results:
        if isinstance(result.verdict.action, GiveUp) and result.announced:
            data = about(result.endpoint, result.verdict.action.why, result.delivery)
            await announce(connection, vault, result.endpoint.tenant_id, "delivery_dead", data)


def about(endpoint: Endpoint, reason: str | None, delivery: Delivery | None = None) -> dict[str, str | None]:
    """The data of a ``gateway.*`` event."""
    data = {
        "endpoint_id": ids.render(ids.ENDPOINT, endpoint.id),
        "subscriber_id": ids.render(ids.SUBSCRIBER, endpoint.subscriber_id),
        "reason": reason,
    }
    if delivery is not None:
        data["delivery_id"] = ids.render(ids.DELIVERY, delivery.id)
        data["event_id"] = ids.render(ids.EVENT, delivery.event_id)
    return data


def _breaker_change(before: Health, after: Health) -> str | None:
    if before.open_until is None and after.open_until is not None:
        return "breaker_opened"
    if before.open_until is not None and after.open_until is None:
        return "breaker_closed"
    return None


def _finished(result: Result, slots: Slots) -> Finished | None:
    follows = result.delivery.ordering_key is not None
    match result.verdict.action:
        case Done():
            return Finished(
                result.delivery, "delivered", lease=slots.lease_to_follow(result.endpoint) if follows else None
            )
        case GiveUp(why):
            return Finished(result.delivery, "dead", why, hold=result.endpoint.ordering is Ordering.STRICT)
        case RetryAt() | Postpone():
            return None
        case _:
            assert_never(result.verdict.action)


def _retried(result: Result) -> Retried | None:
    latest = result.endpoint.ordering is Ordering.LATEST
    match result.verdict.action:
        case RetryAt(when):
            return Retried(result.delivery, max(when - result.ended, 0.0), latest=latest)
        case Postpone(when):
            return Retried(result.delivery, max(when - result.ended, 0.0), counted=False, latest=latest)
        case Done() | GiveUp():
            return None
        case _:
            assert_never(result.verdict.action)


def _attempt(result: Result, vault: Vault, keep: int) -> Attempt:
    outcome, response = result.exchange.outcome, result.exchange.response
    excerpt = response.excerpt[:keep] if response is not None else b""
    return Attempt(
        id=result.attempt_id,
        started_at=datetime.fromtimestamp(result.began, UTC),
        duration=result.exchange.duration,
        phase=result.exchange.phase.value,
        outcome=name_of(outcome),
        status=status_of(outcome),
        detail=detail_of(outcome),
        tls_version=result.exchange.tls_version,
        response_length=None if response is None else response.length,
        response_type=None if response is None else _media_type(response.content_type),
        response_sha256=None if response is None else response.sha256,
        response_excerpt=vault.seal(result.delivery.tenant_id, "attempts", result.attempt_id, excerpt)
        if excerpt
        else None,
    )


_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,63}/[a-z0-9][a-z0-9!#$&^_.+-]{0,63}(?=\s*(;|$))")


def _media_type(text: str | None) -> str | None:
    """A content type is the partner's text, and might say anything: only what looks like one is kept (RFC 6838)."""
    found = _MEDIA_TYPE.match(text.strip().lower()) if text is not None else None
    return None if found is None else found[0]
