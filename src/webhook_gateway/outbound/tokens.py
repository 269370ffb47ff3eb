"""OAuth 2.0 access tokens for endpoints that ask for them: fetched with the client's credentials, kept until they end.

The token request is a POST like any other: the same egress policy, the same limits, the same bounded answer.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from time import monotonic
from uuid import UUID, uuid5

from webhook_gateway.rules.credentials import ClientCredentials
from webhook_gateway.rules.deadlines import TOKEN_DEADLINE
from webhook_gateway.rules.model import Endpoint
from webhook_gateway.rules.outcome import Accepted, Exchange, Outcome, Rejected, TimedOut, Unreachable
from webhook_gateway.rules.unreachable import Trouble

from .http1 import BODY_LIMIT
from .sender import Request, Sender

LIFETIME = 300.0
"""Seconds that a token is used for where the server doesn't say (RFC 6749, section 5.1)."""
LONGEST = 86_400.0
"""Seconds that one is used for at most, whatever the server says."""
MARGIN = 30.0
"""Seconds before its end from which a token is not used any more; less for one that lives shortly."""
MOST_KEPT = 20_000

_POOLS = UUID("5a3e3b0e-7f0c-5d6e-9a53-6f6b1f6f7a11")
_SECONDS = re.compile(r"[0-9]{1,300}")
_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")


@dataclass(frozen=True, slots=True)
class Token:
    text: str
    until: float
    """Monotonic seconds."""


class Tokens:
    """The tokens of one worker: one request at a time for each endpoint, however many deliveries wait for it."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._kept: dict[tuple[UUID, int], Token] = {}
        self._asking: dict[tuple[UUID, int], asyncio.Task[Token | Outcome]] = {}

    async def of(self, endpoint: Endpoint, credentials: ClientCredentials) -> str | Outcome:
        """A live token, or why none could be had."""
        place = (endpoint.id, endpoint.revision)
        kept = self._kept.get(place)
        if kept is not None and kept.until > monotonic():
            return kept.text
        asking = self._asking.get(place)
        if asking is None:
            asking = self._asking[place] = asyncio.create_task(self._ask(endpoint, credentials))
            asking.add_done_callback(lambda done: self._asked(place, done))
        got = await asyncio.shield(asking)
        return got.text if isinstance(got, Token) else got

    def drop(self, endpoint: Endpoint, token: str) -> None:
        """The partner didn't take the token: the next delivery gets a new one, unless it already has."""
        place = (endpoint.id, endpoint.revision)
        kept = self._kept.get(place)
        if kept is not None and kept.text == token:
            del self._kept[place]

    async def _ask(self, endpoint: Endpoint, credentials: ClientCredentials) -> Token | Outcome:
        asked_at = monotonic()
        exchange = await self._sender.post(_request(endpoint, credentials))
        return read(exchange, asked_at)

    def _asked(self, place: tuple[UUID, int], done: asyncio.Task[Token | Outcome]) -> None:
        del self._asking[place]
        if done.cancelled() or done.exception() is not None:
            return
        got = done.result()
        if isinstance(got, Token):
            if len(self._kept) >= MOST_KEPT:
                self._kept.clear()
            self._kept[place] = got


def _request(endpoint: Endpoint, credentials: ClientCredentials) -> Request:
    headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
    if credentials.header is not None:
        headers["authorization"] = credentials.header
    return Request(
        # A pool of its own, or the connections of partner and token server would push each other out.
        uuid5(_POOLS, endpoint.id.bytes.hex()),
        endpoint.revision,
        credentials.token_url,
        headers,
        credentials.form,
        deadline=TOKEN_DEADLINE,
        tls=endpoint.tls if credentials.own_tls else None,
        keep_excerpt=BODY_LIMIT,
        tenant_id=endpoint.tenant_id,
    )


def read(exchange: Exchange, asked_at: float) -> Token | Outcome:
    """What the token server's answer comes to. ``asked_at`` is in monotonic seconds."""
    match exchange.outcome:
        case Accepted():
            return _token_in(exchange, asked_at) or Unreachable(Trouble.TOKEN_UNUSABLE)
        case Rejected():
            return Unreachable(Trouble.TOKEN_REFUSED)
        case TimedOut() | Unreachable():
            return Unreachable(Trouble.TOKEN_SERVER_UNREACHABLE)
        case blocked_or_unsendable:
            return blocked_or_unsendable


def _token_in(exchange: Exchange, asked_at: float) -> Token | None:
    """The token of a successful answer (RFC 6749, section 5.1), or None where there is none that could be sent."""
    if exchange.response is None or exchange.response.truncated:
        return None
    try:
        answer = json.loads(exchange.response.excerpt)
    except (ValueError, RecursionError):
        return None
    if not isinstance(answer, dict):
        return None
    kind, token, lifetime = answer.get("token_type"), answer.get("access_token"), _lifetime(answer.get("expires_in"))
    if not isinstance(kind, str) or kind.lower() != "bearer":
        return None
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        return None
    return Token(token, asked_at + lifetime - min(MARGIN, lifetime / 2))


def _lifetime(said: object) -> float:
    """Seconds. A number as text is against the RFC, but seen in the wild."""
    if isinstance(said, str) and _SECONDS.fullmatch(said):
        said = int(said)
    if isinstance(said, bool) or not isinstance(said, int | float) or not said > 0:
        return LIFETIME
    return float(min(said, LONGEST))
