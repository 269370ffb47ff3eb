"""A partner that writes down every request: which event, when, which bytes, and what it answered."""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.support.partner import Partner, Received, Reply


@dataclass(frozen=True, slots=True)
class Call:
    """A complete request. ``at`` is monotonic seconds; ``timestamp`` is the header, Unix seconds."""

    at: float
    digest: bytes
    status: int
    timestamp: int


Hook = Callable[[str, str, int], Awaitable[int]]
"""Given endpoint, event id and how often it has come: the status to answer."""


class Bookkeeper(Partner):
    """Serves any number of endpoints, told apart by path. ``latency`` is in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.latency = 0.02
        self.calls: dict[str, dict[str, list[Call]]] = defaultdict(lambda: defaultdict(list))
        self.calls_of_all = 0
        """Whoever measures asks often, so nothing is counted then."""
        self.hook: Hook | None = None
        self.last_at = 0.0

    def had(self, endpoint: str, event_id: str) -> float | None:
        """When the endpoint first took the event with a 2xx, or None."""
        times = [call.at for call in self.calls[endpoint].get(event_id, ()) if call.status < 300]
        return min(times, default=None)

    async def keep(self, received: Received) -> None:
        """Nothing: a load of hours would not fit into memory."""

    async def answer(self, received: Received) -> Reply:
        endpoint, event_id = received.target.removeprefix("/"), received.id
        earlier = len(self.calls[endpoint][event_id])
        status = 200 if self.hook is None else await self.hook(endpoint, event_id, earlier)
        digest = hashlib.sha256(received.body).digest()
        call = Call(received.at, digest, status, int(received.headers["webhook-timestamp"]))
        self.calls[endpoint][event_id].append(call)
        self.calls_of_all += 1
        self.last_at = received.at
        if self.latency:
            await asyncio.sleep(self.latency)
        return status, b""
