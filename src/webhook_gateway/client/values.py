"""What is posted, what comes back, and what may go wrong."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


class GatewayUnavailable(Exception):
    """The gateway gave no answer in time. Whether an event was accepted is unknown: post it again with the same key.

    ``idempotency_key`` is the key of the event that was posted, ``None`` for anything else (a batch's events have
    their own). ``retry_after`` is how many seconds the gateway asked to be left alone, where it did. ``results`` are
    what became of the first events, where many were posted.
    """

    def __init__(self, reason: str, idempotency_key: str | None, retry_after: float | None) -> None:
        super().__init__(f"the gateway is unavailable: {reason}")
        self.idempotency_key = idempotency_key
        self.retry_after = retry_after
        self.results: tuple[Accepted | Refused, ...] = ()


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: the rule that it breaks, and what to do about it. Never the value.

    ``pointer`` is a JSON pointer into what was posted (RFC 6901), or the name of a parameter.
    """

    pointer: str
    rule: str
    remedy: str


class Refused(Exception):
    """The gateway answered no (RFC 9457). ``faults`` say what is wrong in the event, and where.

    ``results`` are what became of the first events, where many were posted.
    """

    def __init__(self, status: int, title: str, detail: str = "", faults: Sequence[Fault] = ()) -> None:
        self.status, self.title, self.detail, self.faults = status, title, detail, tuple(faults)
        self.results: tuple[Accepted | Refused, ...] = ()
        reasons = [detail, *(f"{fault.pointer or '/'} ({fault.rule}): {fault.remedy}" for fault in faults)]
        super().__init__(f"{status} {title}" + "".join(f"; {reason}" for reason in reasons if reason))


@dataclass(frozen=True, slots=True)
class Accepted:
    """The event is in the gateway's outbox and will not be lost. ``duplicate``: it was there before."""

    id: str
    type: str
    accepted_at: datetime
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Event:
    """What is posted. Posting the same value again is safe: it keeps its idempotency key, made here unless given.

    ``data`` must be what `json.dumps` can write. ``timestamp`` is when it happened, with its zone; without it, the
    gateway takes the time at which it accepts. ``to`` are the subscribers that it is for, by id or external id. What is
    about a patient is left out of the ``repr``.
    """

    type: str
    data: Mapping[str, Any] = field(repr=False)
    subject: str | None = field(default=None, repr=False, kw_only=True)
    ordering_key: str | None = field(default=None, repr=False, kw_only=True)
    timestamp: datetime | None = field(default=None, kw_only=True)
    idempotency_key: str = field(default_factory=lambda: uuid.uuid4().hex, kw_only=True)
    to: Sequence[str] | None = field(default=None, kw_only=True)
    patient: str | None = field(default=None, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        if self.timestamp is not None and self.timestamp.tzinfo is None:
            raise ValueError("an event's timestamp needs a time zone, for example datetime.now(UTC)")


@dataclass(frozen=True, slots=True)
class Subscriber:
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A partner's URL. ``secret`` is known only right after it was made: the partner needs it to verify."""

    id: str
    url: str
    secret: str | None = field(default=None, repr=False)
