"""The vocabulary, as values. Times are Unix seconds by the database's clock, durations are seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

import msgspec

from .credentials import Authorization, TlsSettings
from .filters import Filter
from .views import WHOLE, View


class EndpointState(StrEnum):
    """Only an enabled endpoint is attempted. Deliveries of the others wait; none is dropped."""

    ENABLED = "enabled"
    PAUSED = "paused"
    DISABLED = "disabled"


class Ordering(StrEnum):
    """What an endpoint promises for deliveries that share an ordering key.

    ``relaxed`` goes on after a dead delivery and names it to the partner; ``strict`` holds the key until an
    operator decides; ``latest`` drops an older delivery that nobody is sending when a newer one arrives.
    """

    NONE = "none"
    RELAXED = "relaxed"
    STRICT = "strict"
    LATEST = "latest"


class Signing(StrEnum):
    """``hmac``: a secret that both sides know. ``ed25519``: the partner has only the public key."""

    HMAC = "hmac"
    ED25519 = "ed25519"


class DeliveryState(StrEnum):
    """``pending → sending → delivered | dead | cancelled``; the last three are final."""

    PENDING = "pending"
    SENDING = "sending"
    DELIVERED = "delivered"
    DEAD = "dead"
    CANCELLED = "cancelled"


DEFAULT_SCHEDULE = (5.0, 60.0, 300.0, 1_800.0, 7_200.0, 21_600.0, 43_200.0, 86_400.0, 100_800.0)
"""Seconds between attempts: ten attempts in 72 hours."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A partner's URL with everything that a worker needs to send to it."""

    id: UUID
    tenant_id: UUID
    subscriber_id: UUID
    revision: int
    url: str
    event_types: tuple[str, ...]
    """What it gets: what its subscriber may have, and it wants."""
    state: EndpointState = EndpointState.ENABLED
    ordering: Ordering = Ordering.RELAXED
    slots: int = 10
    rate: float | None = None
    """Requests a second, or None for no limit."""
    deadline: float = 15.0
    schedule: tuple[float, ...] = DEFAULT_SCHEDULE
    host_changed_at: float | None = None
    maintenance: tuple[float, float] | None = None
    """From and until: no attempt is begun in between."""
    secrets: tuple[str, ...] = ()
    """Every live signing secret, newest first; each signs."""
    headers: Mapping[str, str] = field(default_factory=dict)
    tls: TlsSettings | None = None
    authorization: Authorization | None = None
    view: View = WHOLE
    is_filtered: bool = False
    filter: Filter | None = None
    """What it wants of its types; None where it is filtered and its filter can't be opened."""
    recorded: int | None = None
    """Its revision among those that are kept: of what decides what goes where."""

    @property
    def attempts_allowed(self) -> int:
        return len(self.schedule) + 1


class Delivery(msgspec.Struct, frozen=True):
    """One event on its way to one endpoint, leased to a worker. ``attempt`` counts the one under way."""

    id: UUID
    tenant_id: UUID
    endpoint_id: UUID
    event_id: UUID
    event_type: str
    attempt: int
    lease_id: UUID
    ordering_key: int | None = None
    sequence: int = 0
    skipped_event_id: UUID | None = None
    """The dead delivery of the same key that this one follows, so that the partner can be told."""
    reason: str | None = None
    """``replay``, ``backfill`` or ``test``; None for what fan-out makes."""
    unfiltered: bool | None = None
    """The endpoint's filter could not be asked at fan-out, so it is asked before an attempt."""

    @property
    def test(self) -> bool:
        """Sent to try the endpoint: one attempt, of which only a success says anything about its health."""
        return self.reason == "test"

    def is_for_another_host(self, endpoint: Endpoint) -> bool:
        """Something older that was asked for before the endpoint got the host that it has now."""
        changed = endpoint.host_changed_at
        is_older = self.reason in ("replay", "backfill")
        return changed is not None and is_older and self.id.int >> 80 < changed * 1_000


class Health(msgspec.Struct, frozen=True):
    """What recent attempts say of an endpoint. A fresh value means: nothing bad is known."""

    failures_in_a_row: int = 0
    failing_since: float | None = None
    failing_days: int = 0
    """The days since then on which it failed, a bit for each: 1 is the first 24 hours."""
    open_until: float | None = None
    """Set while the breaker is open; once it has passed, one request probes."""
    openings: int = 0
    """Openings since the last success; each lengthens the next."""
    retry_after_until: float | None = None
    """The partner asked for silence until then (Retry-After)."""
    window_start: float = 0.0
    window_total: int = 0
    window_failed: int = 0
