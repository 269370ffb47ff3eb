"""What the gateway does after an attempt: here "why was this retried?" is decided, `delivery/settling.py` writes it."""

from __future__ import annotations

from typing import assert_never

import msgspec
from msgspec.structs import replace

from . import breaker
from .model import Delivery, Endpoint, Health
from .outcome import Accepted, Blocked, Outcome, Rejected, Remedy, TimedOut, Unreachable, Unsendable
from .retry import RETRY_AFTER_LIMIT, at_least, delay_after, jitter

GONE = 410
ASKS_FOR_SILENCE = frozenset({429, 503})
DISABLE_AFTER = 5 * 86_400.0
"""Seconds in which nothing but failures came back: at least so many, and on so many of those days."""
DISABLE_FAILURES = 20
DISABLE_DAYS = 3
POSTPONEMENT = 30.0


class Done(msgspec.Struct, frozen=True):
    """The partner has it."""


class RetryIn(msgspec.Struct, frozen=True):
    """``delay`` is in seconds from when this is written down; the partner asked for ``retry_after`` of them."""

    delay: float
    retry_after: float | None = None


class Postpone(msgspec.Struct, frozen=True):
    """The same, and the attempt doesn't count: the gateway, not the partner, was unable."""

    delay: float


class GiveUp(msgspec.Struct, frozen=True):
    """The delivery is dead. ``why`` is a name from a closed list."""

    why: str


class Cancel(msgspec.Struct, frozen=True):
    """The endpoint is not to have it. ``why`` is ``not_permitted``, ``not_wanted`` or ``another_host``."""

    why: str


Action = Done | RetryIn | Postpone | GiveUp | Cancel


class Verdict(msgspec.Struct, frozen=True):
    """``disable`` names why the endpoint is to be disabled, or is None."""

    action: Action
    health: Health
    disable: str | None = None


def decide(
    delivery: Delivery, endpoint: Endpoint, health: Health, outcome: Outcome, now: float, chance: float
) -> Verdict:
    """The verdict on one attempt. ``chance`` in [0, 1) is the jitter of retries."""
    match outcome:
        case Accepted():
            return Verdict(Done(), breaker.after_success(health, now))
        case Unsendable():
            return Verdict(_after_unsendable(delivery, endpoint, outcome, chance), health)
        case _ if delivery.test:
            return Verdict(GiveUp("attempts_exhausted"), health)
        case Rejected(status, retry_after):
            failed = breaker.after_failure(health, now)
            if status in ASKS_FOR_SILENCE and retry_after is not None:
                until = now + min(retry_after, RETRY_AFTER_LIMIT)
                failed = replace(failed, retry_after_until=max(health.retry_after_until or 0.0, until))
            action = _retry_or_give_up(delivery, endpoint, retry_after, chance)
            return Verdict(action, failed, "gone" if status == GONE else _failing_too_long(failed, now))
        case TimedOut() | Unreachable() | Blocked():
            failed = breaker.after_failure(health, now)
            action = _retry_or_give_up(delivery, endpoint, None, chance)
            return Verdict(action, failed, _failing_too_long(failed, now))
        case _:
            assert_never(outcome)


def _after_unsendable(delivery: Delivery, endpoint: Endpoint, outcome: Unsendable, chance: float) -> Action:
    match outcome.remedy:
        case Remedy.ATTEMPT:
            return _retry_or_give_up(delivery, endpoint, None, chance)
        case Remedy.WAIT:
            return Postpone(jitter(POSTPONEMENT, chance))
        case Remedy.NONE:
            return GiveUp(outcome.reason)
        case Remedy.CANCEL:
            return Cancel(outcome.reason)
        case _:
            assert_never(outcome.remedy)


def _retry_or_give_up(
    delivery: Delivery, endpoint: Endpoint, retry_after: float | None, chance: float
) -> RetryIn | GiveUp:
    delay = None if delivery.test else delay_after(delivery.attempt, endpoint.schedule)
    if delay is None:
        return GiveUp("attempts_exhausted")
    delay = at_least(jitter(delay, chance), retry_after)
    return RetryIn(delay, None if retry_after is None else min(delay, retry_after))


def _failing_too_long(health: Health, now: float) -> str | None:
    for_days = health.failing_since is not None and now - health.failing_since >= DISABLE_AFTER
    too_many_in_a_row = health.failures_in_a_row >= DISABLE_FAILURES
    on_enough_days = health.failing_days.bit_count() >= DISABLE_DAYS
    return "failing_too_long" if for_days and too_many_in_a_row and on_enough_days else None
