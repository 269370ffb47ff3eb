"""What tells open pages that something was counted, never what: they then ask, and see what they may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import monotonic
from uuid import UUID

from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from starlette.types import Receive, Scope, Send

from .errors import Problem

GAP = 5.0
"""Seconds between two words, however many workers count."""
PING = 10.0
"""Seconds of silence, which the proxies of `deploy/` end after 15."""
LASTS = 600.0
"""Seconds of a stream. The browser comes again, and is asked anew who it is."""
MOST, MOST_OF_A_SESSION = 200, 6
"""Streams of one process."""

STATS = format_sse_event(event="stats", data_str="1")


class Live:
    """The streams of one process. ``counted`` is set by its one connection that listens."""

    def __init__(self) -> None:
        self.counted = asyncio.Event()
        self.words = 0
        """How often it was told: whoever asks after that gets nothing from before."""
        self.streams: dict[Stream, UUID] = {}

    async def run(self) -> None:
        while True:
            await self.counted.wait()
            self.counted.clear()
            self.words += bool(self.streams)
            for stream in self.streams:
                stream.wake.set()
            await asyncio.sleep(GAP)

    def open(self, session_id: UUID) -> Stream:
        """
        Raises:
            Problem: 429: there are too many.
        """
        if len(self.streams) >= MOST or list(self.streams.values()).count(session_id) >= MOST_OF_A_SESSION:
            detail = "Too many pages are open. This one asks every ten seconds instead."
            raise Problem(429, "too-many-requests", detail, headers={"Retry-After": "60"})
        return Stream(self, session_id)


class Stream(EventSourceResponse):
    """Ends by itself, with its client, or by `end`, which the connection calls when its process stops."""

    def __init__(self, live: Live, session_id: UUID) -> None:
        super().__init__(self._words(), headers={"X-Accel-Buffering": "no"})
        self.wake = asyncio.Event()
        self._live, self._session_id = live, session_id
        self._ends_at = monotonic() + LASTS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["end"] = self.end
        self._live.streams[self] = self._session_id
        try:
            await super().__call__(scope, receive, send)
        finally:
            del self._live.streams[self]

    def end(self) -> None:
        self._ends_at = 0.0
        self.wake.set()

    async def _words(self) -> AsyncIterator[bytes]:
        yield KEEPALIVE_COMMENT
        while monotonic() < self._ends_at:
            try:
                async with asyncio.timeout(PING):
                    await self.wake.wait()
            except TimeoutError:
                yield KEEPALIVE_COMMENT
            else:
                self.wake.clear()
                yield STATS


def is_stream(path: str) -> bool:
    """Whether a page asks for it by itself, and goes on with it."""
    return path.endswith("/live")
