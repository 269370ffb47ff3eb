"""Requests a second to one endpoint: a token bucket that holds one second's worth, at least one."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic


@dataclass(slots=True, eq=False)
class TokenBucket:
    tokens: float = 0.0
    filled_at: float = 0.0
    """By monotonic time."""

    def holds(self, rate: float) -> int:
        """How many requests may begin now."""
        now = monotonic()
        self.tokens = min(self.tokens + (now - self.filled_at) * rate, max(rate, 1.0))
        self.filled_at = now
        return int(self.tokens)

    def take(self, count: int) -> None:
        self.tokens = max(self.tokens - count, 0.0)

    def put_back(self, count: int) -> None:
        self.tokens += count
