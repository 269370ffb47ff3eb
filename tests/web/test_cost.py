"""Whatever one request holds, the process that serves it stays small and goes on serving the others."""

from __future__ import annotations

import pytest

from tests.web.cost import LIMIT, REQUESTS, served

MEMORY = 300_000_000
HELD = 2.0
"""Ten times what is aimed at; `python -m tests.web.cost` shows the figures."""


@pytest.mark.slow
async def test_no_single_request_takes_much_memory_or_holds_everybody_up(database_url: str) -> None:
    offenders = {}
    async with served(database_url) as api:
        for name, ((method, path), body) in REQUESTS.items():
            content = body()
            assert len(content) <= LIMIT, name
            cost = await api.cost(method, path, content)
            if cost.status >= 500 or cost.memory > MEMORY or cost.held > HELD:
                offenders[name] = cost
    assert offenders == {}
