"""How a request is sent: again, with growing pauses, until there is an answer or no time left."""

from __future__ import annotations

import logging
import random
import time
from datetime import UTC, datetime
from typing import Any

import httpx
from tenacity import RetryCallState, retry_if_exception, stop_before_delay

from webhook_gateway.rules.retry_after import read_retry_after

from .calls import Call, problem, refusal
from .values import GatewayUnavailable

LONGEST_WAIT = 5.0
LONGEST_REQUEST = 10.0
CONNECT = 5.0

_log = logging.getLogger("webhook_gateway.client")


class Later(Exception):
    """No final answer yet. ``after`` is the Retry-After in seconds, ``again`` whether asking again is safe."""

    def __init__(self, reason: str, *, again: bool, after: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.again, self.after = reason, again, after


def headers(key: str) -> dict[str, str]:
    if not (key and key.isascii() and key.isprintable()):
        raise ValueError("an API key is text like whk_…: this one is empty, or holds something else")
    return {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "Accept": "application/json"}


def ask(http: httpx.Client, call: Call, until: float) -> httpx.Response:
    try:
        return http.request(
            call.method, call.path, content=call.body, params=dict(call.parameters), timeout=_timeout(until)
        )
    except httpx.TransportError as error:
        raise _unanswered(call, error) from None


async def ask_async(http: httpx.AsyncClient, call: Call, until: float) -> httpx.Response:
    try:
        return await http.request(
            call.method, call.path, content=call.body, params=dict(call.parameters), timeout=_timeout(until)
        )
    except httpx.TransportError as error:
        raise _unanswered(call, error) from None


def _timeout(until: float) -> httpx.Timeout:
    left = max(0.1, until - time.monotonic())
    return httpx.Timeout(min(LONGEST_REQUEST, left), connect=min(CONNECT, left))


def _unanswered(call: Call, error: httpx.TransportError) -> Exception:
    if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        return ValueError("the gateway's URL must begin with https:// or http://")
    not_begun = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
    return Later(type(error).__name__, again=call.repeatable or not_begun)


def judge(call: Call, response: httpx.Response) -> httpx.Response:
    """The answer, if it is a yes; otherwise raises `Refused` or `Later`."""
    status = response.status_code
    if status < 400:
        return response
    if status == 429 or status >= 500 or "Retry-After" in response.headers:
        # Below 500 it is said before anything is done; after the others it may have been.
        again = call.repeatable or status < 500
        after = read_retry_after(response.headers.get("Retry-After", ""), datetime.now(UTC))
        raise Later(f"HTTP status {status}", again=again, after=after)
    raise refusal(status, problem(response))


def patience(deadline: float) -> dict[str, Any]:
    return {
        "retry": retry_if_exception(lambda error: isinstance(error, Later) and error.again),
        "wait": _wait,
        "stop": stop_before_delay(deadline),
        "before_sleep": _say,
        "reraise": True,
    }


def _wait(state: RetryCallState) -> float:
    """Full jitter, so that a gateway that comes back isn't met by everybody at once; never before Retry-After."""
    backoff = random.uniform(0, min(LONGEST_WAIT, 0.1 * 2**state.attempt_number))  # noqa: S311
    return max(backoff, _later(state).after or 0.0)


def _say(state: RetryCallState) -> None:
    _log.warning("webhook gateway: %s, asking again in %.1f s", _later(state).reason, state.upcoming_sleep)


def _later(state: RetryCallState) -> Later:
    error = state.outcome.exception() if state.outcome is not None else None
    assert isinstance(error, Later)
    return error


def unavailable(error: Later, call: Call) -> GatewayUnavailable:
    return GatewayUnavailable(error.reason, call.idempotency_key, error.after)
