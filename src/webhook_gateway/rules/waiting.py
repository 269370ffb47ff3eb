"""Why a delivery waits: the one table from which a claim takes its count, and everybody else the answer.

What is in rows is told exactly. How many requests are under way, and what is left of a rate, only a worker knows: a
delivery that nothing else keeps is due, with so many before it. Where its endpoint has a rate it is told `rate`, though
it may be a slot that is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import msgspec

from . import breaker
from .explained import Explained
from .model import Endpoint, EndpointState, Health


class Reason(Explained):
    """What a delivery that has not ended waits for."""

    PAUSED = "paused", "Somebody has to resume its endpoint."
    DISABLED = "disabled", "Its endpoint was given up: somebody has to resume it."
    BREAKER = "breaker", "Its endpoint fails and is left alone for a while, or one delivery tries whether it is back."
    RETRY_AFTER = "retry_after", "The partner asked for silence."
    MAINTENANCE = "maintenance", "Its endpoint's maintenance window has to end."
    RETRY = "retry", "Its next attempt is due later."
    KEY_MISSING = "key_missing", "An encryption key is missing; it is looked for again with the next attempt."
    ORDERING_KEY = "ordering_key", "An earlier delivery of its ordering key has to end."
    HELD_KEY = "held_key", "A delivery of its ordering key is dead, and an operator has to decide."
    FAN_OUT = "fan_out", "It is in the outbox, and a worker will take it out."
    SENDING = "sending", "It is being attempted."
    RATE = "rate", "It is due; its endpoint's rate has to allow it."
    SLOTS = "slots", "It is due; its endpoint needs a free slot."
    NO_WORKER = "no_worker", "It is due or in the outbox, and no worker is alive."
    SENDING_PAUSED = "sending_paused", "Nothing is sent to anybody: somebody has to say `resume-all`."


class Waiting(msgspec.Struct, frozen=True):
    """The reason, and until when, in Unix seconds; None where that is not a matter of time.

    ``before`` counts the endpoint's deliveries that are due before this one, where it is due itself.
    """

    reason: Reason
    until: float | None = None
    before: int | None = None


class OpenDelivery(msgspec.Struct, frozen=True):
    """What rows say of a delivery that has not ended. ``due_at`` is when its lease ends where it is leased."""

    due_at: float | None
    """None while an earlier one of its ordering key is open."""
    leased: bool = False
    key_held: bool = False
    """Nothing of its ordering key moves until an operator decides."""
    key_missing: bool = False
    """It was postponed because an encryption key was missing."""
    before: int = 0
    """How many of the endpoint's deliveries are due before it."""


_ENABLED, _PAUSED, _DISABLED = EndpointState.ENABLED, EndpointState.PAUSED, EndpointState.DISABLED
_NEVER = -inf
_OF_ENDPOINT: tuple[tuple[Reason, Callable[[Endpoint, Health, float], float]], ...] = (
    (Reason.PAUSED, lambda endpoint, health, at: inf if endpoint.state is _PAUSED else _NEVER),
    (Reason.DISABLED, lambda endpoint, health, at: inf if endpoint.state is _DISABLED else _NEVER),
    (Reason.BREAKER, lambda endpoint, health, at: health.open_until or _NEVER),
    (Reason.RETRY_AFTER, lambda endpoint, health, at: health.retry_after_until or _NEVER),
    (Reason.MAINTENANCE, lambda endpoint, health, at: _end_of_maintenance(endpoint.maintenance, at)),
)
"""Why all deliveries of an endpoint wait, each with its end, which has passed where it is no reason at that moment."""


def may_begin(endpoint: Endpoint, health: Health, now: float) -> int:
    """How many requests may be in flight to the endpoint now; 0 means that its deliveries wait."""
    # Nearly always nothing is the matter, and each of the reasons costs: an attempt asks four times.
    quiet = health.open_until is None and health.retry_after_until is None and endpoint.maintenance is None
    if quiet and endpoint.state is _ENABLED:
        return endpoint.slots
    for _, end in _OF_ENDPOINT:
        if end(endpoint, health, now) > now:
            return 0
    return 1 if breaker.is_probing(health, now) else endpoint.slots


def may_test(endpoint: Endpoint, health: Health, now: float) -> bool:
    """Whether a test may begin past what failures have caused: then one request at a time is allowed to it."""
    return may_begin(endpoint, health, now) < may_begin(endpoint, Health(), now)


def why_waiting(delivery: OpenDelivery, endpoint: Endpoint, health: Health, workers: int | None, now: float) -> Waiting:
    """Why a delivery is not attempted now. Of several reasons the one that lasts longest, the endpoint's first.

    ``workers`` is how many are alive; None while sending is paused.
    """
    if delivery.leased and delivery.due_at is not None and delivery.due_at > now:
        return Waiting(Reason.SENDING, delivery.due_at)
    reason, until = _own_reason(delivery, now)
    for of_endpoint, end in _OF_ENDPOINT:
        ends = end(endpoint, health, until)
        if ends > now and ends >= until:
            reason, until = of_endpoint, ends
    if workers is None and until != inf:
        return Waiting(Reason.SENDING_PAUSED)
    if reason is not None:
        return Waiting(reason, None if until == inf else until)
    if workers == 0:
        return Waiting(Reason.NO_WORKER, before=delivery.before)
    if breaker.is_probing(health, now) and delivery.before > 0:
        return Waiting(Reason.BREAKER, before=delivery.before)
    return Waiting(Reason.SLOTS if endpoint.rate is None else Reason.RATE, before=delivery.before)


def why_in_outbox(workers: int | None) -> Waiting:
    """Why an event has no deliveries yet, and a replay is not one."""
    if workers is None:
        return Waiting(Reason.SENDING_PAUSED)
    return Waiting(Reason.NO_WORKER if workers == 0 else Reason.FAN_OUT)


def _own_reason(delivery: OpenDelivery, now: float) -> tuple[Reason | None, float]:
    if delivery.due_at is None:
        return Reason.HELD_KEY if delivery.key_held else Reason.ORDERING_KEY, inf
    if delivery.due_at <= now:
        return None, now
    return Reason.KEY_MISSING if delivery.key_missing else Reason.RETRY, delivery.due_at


def _end_of_maintenance(window: tuple[float, float] | None, at: float) -> float:
    return _NEVER if window is None or at < window[0] else window[1]
