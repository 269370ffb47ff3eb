"""One attempt of a delivery: sign → send → decide. No database connection is held meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from time import monotonic
from typing import assert_never
from uuid import UUID

import msgspec
from msgspec.structs import replace

from webhook_gateway import __version__, telemetry
from webhook_gateway.crypto import signatures
from webhook_gateway.failpoints import reach
from webhook_gateway.outbound.sender import Found, Request, Sender
from webhook_gateway.outbound.tokens import Tokens
from webhook_gateway.rules import ids
from webhook_gateway.rules.credentials import Authorization, Basic, Bearer, ClientCredentials
from webhook_gateway.rules.model import Delivery, Endpoint
from webhook_gateway.rules.outcome import Exchange, Phase, Unsendable, status_of
from webhook_gateway.rules.verdict import Verdict, decide
from webhook_gateway.store.deliveries import new_id

from .health import EndpointHealth

USER_AGENT = f"webhook-gateway/{__version__}"
UNAUTHORIZED = 401


class Attempt(msgspec.Struct, eq=False):
    """One delivery that is about to be sent, or under way. ``began`` is in Unix seconds."""

    delivery: Delivery
    endpoint: Endpoint
    request: Request | Unsendable
    began: float
    task: asyncio.Task[None] | None = None
    """Where it takes more than a connection that is open."""


class Result(msgspec.Struct, frozen=True):
    """A delivery after its attempt, on its way to be settled. ``began`` is in Unix seconds."""

    attempt_id: UUID
    """Made once, so that a settle of unknown outcome can be repeated without recording the attempt twice."""
    delivery: Delivery
    endpoint: Endpoint
    exchange: Exchange
    verdict: Verdict
    began: float
    body_sha256: bytes | None = None
    """Of what may have left."""


def prepare(delivery: Delivery, endpoint: Endpoint, body: bytes | Unsendable, now: float, keep: int) -> Attempt:
    """``keep`` is how many bytes of the partner's answer to hold on to."""
    if delivery.attempt > 1 and delivery.attempt > endpoint.attempts_allowed:  # workers died of it, again and again
        body = Unsendable("attempts_exhausted")
    request = sign(delivery, endpoint, body, int(now), keep) if isinstance(body, bytes) else body
    return Attempt(delivery, endpoint, request, now)


def begin(sender: Sender, tokens: Tokens, attempt: Attempt, done: Callable[[Found | Exception], None]) -> Found | None:
    """As `Sender.begin`. Nothing that a partner can cause is an exception."""
    request, endpoint = attempt.request, attempt.endpoint
    if not isinstance(request, Request):
        return Exchange(request, Phase.STARTED, 0.0)
    if isinstance(endpoint.authorization, ClientCredentials):
        return _post_with_token(sender, tokens, endpoint, endpoint.authorization, request)
    return sender.begin(request, done)


def conclude(attempt: Attempt, exchange: Exchange, health: EndpointHealth, now: float) -> Result:
    """Decides what comes next."""
    delivery, endpoint, request = attempt.delivery, attempt.endpoint, attempt.request
    verdict = decide(delivery, endpoint, health.current, exchange.outcome, now, random.random())  # noqa: S311
    reach("after_answer")
    sent = sha256(request.body).digest() if exchange.written and isinstance(request, Request) else None
    return Result(new_id(), delivery, endpoint, exchange, verdict, attempt.began, sent)


def sign(delivery: Delivery, endpoint: Endpoint, body: bytes, timestamp: int, keep: int = 0) -> Request | Unsendable:
    """The request as the partner gets it. A bug in here costs this delivery, never the worker."""
    message_id = ids.recall_recent(ids.EVENT, delivery.event_id)
    try:
        headers = {
            **_fixed(tuple(endpoint.headers.items()), endpoint.authorization),
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signatures.sign(endpoint.secrets, message_id, timestamp, body),
        }
        if delivery.skipped_event_id is not None:
            headers["webhook-skipped-id"] = ids.render(ids.EVENT, delivery.skipped_event_id)
        if delivery.test:
            headers["webhook-test"] = "true"
        reach("while_signing")
        return Request(
            endpoint.id,
            endpoint.revision,
            endpoint.url,
            headers,
            body,
            deadline=endpoint.deadline,
            tls=endpoint.tls,
            keep_excerpt=keep,
            tenant_id=endpoint.tenant_id,
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


@lru_cache(4096)
def _fixed(own: tuple[tuple[str, str], ...], authorization: Authorization | None) -> dict[str, str]:
    """The headers that all requests to an endpoint have. Some servers and firewalls refuse one without ``accept``."""
    accept = {} if any(name.lower() == "accept" for name, _ in own) else {"accept": "*/*"}
    ours = {"content-type": "application/json", "user-agent": USER_AGENT}
    return {**accept, **dict(own), **_authorize(authorization), **ours}


def _authorize(authorization: Authorization | None) -> dict[str, str]:
    match authorization:
        case Basic() | Bearer():
            return {"authorization": authorization.header}
        case ClientCredentials() | None:
            return {}  # a token is fetched when it is time to send
        case _:
            assert_never(authorization)
