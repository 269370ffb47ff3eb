"""What attempts taught this worker about an endpoint, kept between them. What follows from it is decided in `rules`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from time import monotonic

from msgspec.structs import replace

from webhook_gateway.rules.model import Health
from webhook_gateway.rules.outcome import Accepted, Outcome, TimedOut

PROVEN = 300.0
"""Seconds after a 2xx during which an endpoint counts as one that answers."""

_HEALTHY = Health()


@dataclass(slots=True, eq=False)
class EndpointHealth:
    current: Health = _HEALTHY
    saved: Health = _HEALTHY
    """As the database has it, for all workers."""
    duration: float = 1.0
    """Seconds that a request takes: a moving average."""
    limit: float = math.inf
    """Requests at once. Adaptive: halved by a timeout, one more with every success."""
    accepted_at: float = -math.inf
    """When the last 2xx came, by monotonic time."""
    disabled_until: float = 0
    """The version of the configuration from which on it says itself that the endpoint is disabled; infinite before
    that is written down."""

    def note(self, outcome: Outcome, duration: float, after: Health, share: int) -> None:
        """An attempt took ``duration`` seconds. ``share`` is what the worker may have under way to the endpoint."""
        self.current = after
        self.duration += (duration - self.duration) / 8
        if isinstance(outcome, Accepted):
            self.limit += 1
            self.accepted_at = monotonic()
        elif isinstance(outcome, TimedOut):
            self.limit = max(1.0, min(self.limit, share) / 2)

    def is_unproven(self) -> bool:
        """Whether no 2xx came lately: it is new, fails, or had nothing to answer."""
        return monotonic() - self.accepted_at >= PROVEN

    def doubt(self) -> None:
        """It hangs, so what it answered before proves nothing."""
        self.accepted_at = -math.inf

    def learn(self, told: Health) -> None:
        """What other workers found out. What we have written ourselves comes back, too, and is no news."""
        if self.is_unsaved() or not _differ(told, self.saved):
            return
        known = self.current
        self.current = self.saved = replace(
            told,
            window_start=known.window_start,
            window_total=known.window_total,
            window_failed=known.window_failed,
        )

    def is_unsaved(self) -> bool:
        """Whether a restart would forget what it must not; counters alone are not worth a write."""
        return _differ(self.current, self.saved)


def _differ(one: Health, other: Health) -> bool:
    return (
        one.openings != other.openings
        or one.failing_days != other.failing_days
        or _moved(one.failing_since, other.failing_since)
        or _moved(one.open_until, other.open_until)
        or _moved(one.retry_after_until, other.retry_after_until)
    )


def _moved(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is not other
    return round(one, 3) != round(other, 3)
