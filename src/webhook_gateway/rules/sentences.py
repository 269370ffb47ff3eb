"""What people are told: how a delivery stands, or why an endpoint has none of an event, in a sentence each.

Of a filter is told what whoever asks may see. Times in a sentence are in the zone of ``now``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, assert_never
from uuid import UUID

import msgspec

from . import ids
from .explained import Explained
from .filters import OR, OTHER, encode
from .labels import visible
from .model import DeliveryState
from .waiting import Reason

LONGEST = 300
"""Characters of what a filter asks for."""
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


class Explanation(msgspec.Struct, frozen=True):
    """A sentence, what happens next, and when that is, where it is known."""

    sentence: str
    next: str | None = None
    next_at: datetime | None = None


class Ended(Explained):
    """Why a delivery is dead or cancelled."""

    ATTEMPTS_EXHAUSTED = "attempts_exhausted", "it has no attempts left"
    OPEN_TOO_LONG = "open_too_long", "it was open for longer than any may be"
    BODY_DAMAGED = "body_damaged", "its body was changed in the database"
    BY_HAND = "by_hand", "somebody gave it up"
    ENDPOINT_DELETED = "endpoint_deleted", "its endpoint was deleted"
    SUPERSEDED = "superseded", "a newer one of the same order took its place"
    NOT_PERMITTED = "not_permitted", "its endpoint may not have it any more"
    NOT_WANTED = "not_wanted", "its endpoint's filter did not let it through, or was never asked"
    ANOTHER_HOST = "another_host", "its endpoint has another host than when it was asked for"


class WhyNot(Explained):
    """Why an endpoint has no delivery of an event, by what is set up now; of several reasons the first."""

    FAN_OUT = "fan_out", "The event is in the outbox, and a worker will find out who gets it."
    TEST = "test", "The event was a test of another endpoint."
    NOT_ADDRESSED = "not_addressed", "The event was addressed to others."
    DELETED = "deleted", "It was deleted before the event was fanned out."
    NOT_PERMITTED = "not_permitted", "Its subscriber may not have events of this type."
    TYPE_NOT_WANTED = "type_not_wanted", "It does not want events of this type."
    FILTER = "filter", "Its filter does not let the event through."
    MADE_LATER = "made_later", "It was made after the event."
    CHANGED_LATER = "changed_later", "It, or what its subscriber may have, was changed after the event."
    UNKNOWN = "unknown", "It would get the event now: one is about to be made, or it was changed at the same moment."


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery, what its latest attempt ``met`` and its endpoint's latest failure, what keeps its ordering key, and
    how its endpoint came to its state.

    Who may not hear of what keeps a key, or who changed the endpoint, has None there.
    """

    state: str
    state_reason: str | None
    reason: str | None
    attempt: int
    allowed: int
    waiting_for: Reason | None
    due_at: datetime | None
    due_before: int | None
    created_at: datetime | None
    finished_at: datetime | None
    met: str | None
    endpoint_met: str | None
    duration: float | None
    head: UUID | None
    """The first open delivery of its ordering key; ``held_by`` is a dead one that holds the key."""
    held_by: UUID | None
    endpoint_reason: str | None
    changed_at: datetime
    changed_by: str | None
    failures: int
    """Of the endpoint, in a row."""
    replayed_as: UUID | None = None


def of_delivery(one: Standing, now: datetime) -> Explanation:
    ended = _clock(one.finished_at, now, "%H:%M:%S")
    why = next((each.sentence for each in Ended if each == one.state_reason), one.state_reason or "no reason is known")
    again = None if one.replayed_as is None else f"{_named(one.replayed_as)} sends it again."
    match state := DeliveryState(one.state):
        case DeliveryState.DELIVERED:
            which = ORDINALS[one.attempt - 1] if 0 < one.attempt <= len(ORDINALS) else f"{one.attempt}th"
            took = "" if one.duration is None else f", {one.duration * 1_000:.0f} ms"
            return Explanation(f"Delivered {ended} at the {which} attempt{took}.", again)
        case DeliveryState.DEAD:
            tried = _counted(one.attempt, "attempt") + (f", the last one {one.met}" if one.met else "")
            if one.reason == "test" and one.state_reason == Ended.ATTEMPTS_EXHAUSTED:
                met = f": it met {one.met}" if one.met else ""
                return Explanation(f"The test failed {ended}{met}. A test is attempted once.", again)
            return Explanation(f"Given up {ended} after {tried}: {why}.", again or "A replay sends it again.")
        case DeliveryState.CANCELLED:
            return Explanation(f"Cancelled {ended}: {why}.", again)
        case DeliveryState.PENDING | DeliveryState.SENDING:
            return Explanation(*_of_open(one, one.waiting_for or Reason.FAN_OUT, now), one.due_at)
        case _:
            assert_never(state)


def _of_open(one: Standing, reason: Reason, now: datetime) -> tuple[str, str]:
    """The sentence, and what happens next."""
    allowed = 1 if one.reason == "test" else one.allowed
    attempt = f"attempt {min(one.attempt + 1, allowed)} of {allowed}"
    until, wait, since = _clock(one.due_at, now), _span(one.due_at or now, now), _clock(one.created_at, now)
    after = f", after {one.met}" if one.met else ""
    match reason:
        case Reason.PAUSED | Reason.DISABLED:
            by = f" with {one.changed_by}" if one.changed_by and reason is Reason.PAUSED else ""
            why = one.endpoint_reason if one.endpoint_reason != Ended.BY_HAND else None
            told = "" if why is None else f': "{why}"' if reason is Reason.PAUSED else f": {why.replace('_', ' ')}"
            since = _span(now, one.changed_at)
            return f"The endpoint was {reason} {since} ago{by}{told}.", "Somebody has to resume it."
        case Reason.BREAKER:
            state = f"open until {until}" if one.due_at else "half-open"
            failed = f"{_counted(one.failures, 'failure')} in a row"
            failed += f", the last one {one.endpoint_met}" if one.endpoint_met else ""
            return f"The breaker is {state}, after {failed}.", "One delivery tries whether the endpoint is back."
        case Reason.RETRY_AFTER:
            return f"The partner asked for silence until {until}{after}.", attempt
        case Reason.MAINTENANCE:
            return f"The endpoint is in maintenance until {until}.", attempt
        case Reason.RETRY:
            return f"Next try in {wait}: {attempt}{after}.", attempt
        case Reason.KEY_MISSING:
            return f"An encryption key is missing, and is looked for again in {wait}.", attempt
        case Reason.ORDERING_KEY:
            return f"Waits behind {_named(one.head)} of the same order since {since}.", "It goes when that has ended."
        case Reason.HELD_KEY:
            sentence = f"Waits since {since}: {_named(one.held_by)} of the same order is dead."
            return sentence, "Somebody has to replay or skip that one, and release the key."
        case Reason.SENDING:
            return f"Attempt {one.attempt} of {allowed} is under way.", "What it meets decides."
        case Reason.RATE | Reason.SLOTS:
            lacks = "the endpoint's rate" if reason is Reason.RATE else "a free slot"
            return f"Due, behind {_counted(one.due_before or 0, 'other')}: it waits for {lacks}.", attempt
        case Reason.NO_WORKER | Reason.FAN_OUT | Reason.SENDING_PAUSED:
            return reason.sentence, "A worker goes on with it."
        case _:
            assert_never(reason)


def of_event(waiting_for: Reason | None, states: Sequence[str], next_at: datetime | None) -> Explanation:
    """By the latest delivery to each endpoint."""
    if waiting_for is not None or not states:
        return Explanation(waiting_for.sentence if waiting_for else "It went to no endpoint.")
    counts = ", ".join(f"{count} {state}" for state, count in Counter(states).most_common())
    following = "An attempt." if next_at else None
    return Explanation(f"It went to {_counted(len(states), 'endpoint')}: {counts}.", following, next_at)


def of_none(why: WhyNot, since: datetime | None, now: datetime) -> Explanation:
    following = "A backfill sends it." if why in (WhyNot.MADE_LATER, WhyNot.CHANGED_LATER) else None
    return Explanation(why.sentence if since is None else f"{why.sentence[:-1]}, {_span(now, since)} ago.", following)


def of_filter(given: object) -> Explanation:
    """``given`` is what of the filter may be seen, or of those conditions that were not met."""
    seen = {name: wanted for name, wanted in given.items() if name != OTHER} if isinstance(given, Mapping) else {}
    if not seen:
        return Explanation("Does not want it: its filter is set by the hospital.")
    asked, more = visible(_asks(seen)), ", and more that is set by the hospital" if seen != given else ""
    cut = asked if len(asked) <= LONGEST else f"{asked[:LONGEST]}…"
    return Explanation(f"Does not want it: its filter asks for {cut}{more}.")


def _asks(wanted: Mapping[str, Any], path: str = "") -> str:
    return " and ".join(
        f"({' or '.join(_asks(each, path) for each in below)})"
        if name == OR
        else _asks(below, f"{path}{name}.")
        if isinstance(below, Mapping)
        else f"{path}{name} {' or '.join(map(_condition, below))}"
        for name, below in wanted.items()
    )


def _condition(wanted: Any) -> str:
    if isinstance(wanted, Mapping):
        return " ".join(f"{name} {_condition(operand)}" for name, operand in wanted.items())
    if isinstance(wanted, list):
        return " ".join(map(_condition, wanted))
    return wanted if isinstance(wanted, str) else encode(wanted).decode()


def _named(delivery_id: UUID | None) -> str:
    return "an earlier one" if delivery_id is None else ids.render(ids.DELIVERY, delivery_id)


def _counted(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def _clock(at: datetime | None, now: datetime, form: str = "%H:%M") -> str:
    """With its day, unless that is today."""
    moment = (at or now).astimezone(now.tzinfo)
    return f"{moment:{form if moment.date() == now.date() else '%Y-%m-%d ' + form} %Z}"


def _span(later: datetime, earlier: datetime) -> str:
    """In the largest unit of which there are two."""
    seconds = max(round((later - earlier).total_seconds()), 0)
    for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}s"
    return _counted(seconds, "second")
