"""uvicorn's server, which looks once a second whether it is to end, and not ten times: each look wakes the process."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import FrameType

import uvicorn

TICK = 1.0
"""Seconds that the Date header stays as it is."""


class Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._signalled = asyncio.Event()

    async def main_loop(self) -> None:
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK):
                    await self._signalled.wait()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        asyncio.get_running_loop().call_soon_threadsafe(self._signalled.set)
