"""Pages that browsers ask for by themselves, again and again: made once for all who may see the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from time import monotonic

from starlette.responses import Response

FRESH = 4.0
"""Seconds: workers write what they have counted every five."""
MOST = 500


class Polls:
    """The answers of the last seconds. `forget` where somebody has changed something: they would see it as it was."""

    def __init__(self) -> None:
        self._made: dict[Hashable, tuple[float, asyncio.Task[Response]]] = {}

    async def answer(self, alike: Hashable, make: Callable[[], Awaitable[Response]]) -> Response:
        """A copy of what was made for an equal ``alike``, or what is made now. What failed is made anew."""
        at, making = self._made.get(alike, (0.0, None))
        if making is None or at + FRESH < monotonic() or (making.done() and making.exception()):
            if len(self._made) >= MOST:
                self.forget()
            making = asyncio.ensure_future(make())
            self._made[alike] = monotonic(), making
        made = await asyncio.shield(making)
        return Response(made.body, made.status_code, made.headers)

    def forget(self) -> None:
        self._made.clear()
