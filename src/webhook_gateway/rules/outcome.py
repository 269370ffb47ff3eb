"""What one HTTP request to a partner met, as a value.

A partner's failure is data, never an exception: an exception means that the gateway itself has a bug.

    Outcome
    ├── Accepted      2xx: the partner has it
    ├── Rejected      any other status, with its Retry-After
    ├── TimedOut      the deadline passed, in a named phase
    ├── Unreachable   no answer could be had: refused, reset, no such name, TLS failure, protocol error
    ├── Blocked       policy forbids the address; no connection was opened
    └── Unsendable    the gateway could not build the request (no key for the body, a value it can't encode)
"""

from __future__ import annotations

import re
from enum import Enum, StrEnum
from functools import lru_cache

import msgspec


class Phase(StrEnum):
    """How far a request got. ``sent`` and ``answered`` mean that the partner may have the event."""

    STARTED = "started"
    RESOLVED = "resolved"
    CONNECTED = "connected"
    SECURED = "secured"
    SENT = "sent"
    ANSWERED = "answered"


class Accepted(msgspec.Struct, frozen=True):
    """``malformed`` is true where nothing of the answer could be read but its status line."""

    status: int
    malformed: bool = False


class Rejected(msgspec.Struct, frozen=True):
    """``retry_after`` is in seconds from the answer, or None where the partner gave none that makes sense."""

    status: int
    retry_after: float | None = None


class TimedOut(msgspec.Struct, frozen=True):
    phase: Phase


class Unreachable(msgspec.Struct, frozen=True):
    """``reason`` is a name from a closed list (``connection_refused``, ``name_not_found``), never free text."""

    reason: str


class Blocked(msgspec.Struct, frozen=True):
    """``reason`` is the value of a `rules.denials.Denial`."""

    reason: str


class Remedy(Enum):
    """What can help where the gateway was unable to send."""

    ATTEMPT = "attempt"
    """Another attempt: this one is used up."""
    WAIT = "wait"
    """Time, or an operator (a missing encryption key): no attempt is used up."""
    NONE = "none"
    """Nothing (a body that was tampered with): the delivery is dead at once."""
    CANCEL = "cancel"
    """None is wanted: the endpoint is not to have it, and the delivery is cancelled."""


class Unsendable(msgspec.Struct, frozen=True):
    reason: str
    remedy: Remedy = Remedy.ATTEMPT


Outcome = Accepted | Rejected | TimedOut | Unreachable | Blocked | Unsendable


class ResponseSummary(msgspec.Struct, frozen=True):
    """What is known of the partner's answer. A body may hold patients' data: by default only its measure is kept."""

    length: int
    truncated: bool
    content_type: str | None
    sha256: bytes
    excerpt: bytes


class Exchange(msgspec.Struct, frozen=True):
    """One HTTP request from start to end. ``duration`` is in seconds of monotonic time.

    ``sends`` is 2 where a kept connection turned out closed, and the same bytes went out once more over a new one.
    ``written``: some of the request may have left, in whatever phase it ended.
    """

    outcome: Outcome
    phase: Phase
    duration: float
    tls_version: str | None = None
    response: ResponseSummary | None = None
    sends: int = 1
    written: bool = False


def name_of(outcome: Outcome) -> str:
    """The outcome's word in tables, logs and metrics."""
    match outcome:
        case Accepted():
            return "accepted"
        case Rejected():
            return "rejected"
        case TimedOut():
            return "timed_out"
        case Unreachable():
            return "unreachable"
        case Blocked():
            return "blocked"
        case Unsendable():
            return "unsendable"


def status_of(outcome: Outcome) -> int | None:
    """The HTTP status, where there was one."""
    match outcome:
        case Accepted(status) | Rejected(status):
            return status
        case _:
            return None


def detail_of(outcome: Outcome) -> str | None:
    """The named reason or phase behind an outcome without a status."""
    match outcome:
        case Accepted(malformed=False) | Rejected():  # first: it is what nearly all are, and each case costs
            return None
        case TimedOut(phase):
            return phase.value
        case Unreachable(reason) | Blocked(reason) | Unsendable(reason):
            return reason
        case Accepted(malformed=True):
            return "answer_malformed"
        case _:
            return None


@lru_cache(1024)
def words_of(outcome: Outcome) -> tuple[str, int | None, str | None]:
    """Its name, status and detail: each attempt asks several times, mostly of the same ones."""
    return name_of(outcome), status_of(outcome), detail_of(outcome)


_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,63}/[a-z0-9][a-z0-9!#$&^_.+-]{0,63}(?=\s*(;|$))")


def media_type(text: str | None) -> str | None:
    """A content type is the partner's text, and might say anything: only what looks like one is kept (RFC 6838)."""
    found = _MEDIA_TYPE.match(text.strip().lower()) if text is not None else None
    return None if found is None else found[0]
