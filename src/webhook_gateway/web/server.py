"""uvicorn's server, which wakes up for requests and signals only, and doesn't look ten times a second for its end."""

from __future__ import annotations

import asyncio
from email.utils import formatdate
from time import time
from types import FrameType

import uvicorn
from uvicorn.server import ServerState


class _State(ServerState):
    """The Date header is of the second in which somebody asks for it."""

    _second = 0

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        if (second := int(time())) != self._second:
            self._second, self._headers = second, [(b"date", formatdate(second, usegmt=True).encode())]
        return self._headers

    @default_headers.setter
    def default_headers(self, _headers: list[tuple[bytes, bytes]]) -> None:
        """What uvicorn says would stay as it is."""


class Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.server_state = _State()
        self._signalled = asyncio.Event()

    async def main_loop(self) -> None:
        await self._signalled.wait()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        asyncio.get_running_loop().call_soon_threadsafe(self._signalled.set)
