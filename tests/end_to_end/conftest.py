"""A worker in this process, real partners over real sockets, real Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack

import pytest
import uvloop

from tests.support.partner import OK, Answer, Partner, partner


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The exchange is tested on both event loops, since each has transports of its own."""
    plain = {"asyncio": asyncio.new_event_loop}
    return {**plain, "uvloop": uvloop.new_event_loop} if item.path.name == "test_http1.py" else plain


@pytest.fixture
async def open_partner() -> AsyncIterator[Callable[..., Awaitable[Partner]]]:
    """Opens partners' servers: ``await open_partner(status(503), status(503))`` fails twice, then accepts."""
    async with AsyncExitStack() as stack:

        async def opened(*answers: Answer, otherwise: Answer = OK) -> Partner:
            return await stack.enter_async_context(partner(*answers, otherwise=otherwise))

        yield opened
