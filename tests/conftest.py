"""The database fixtures: one PostgreSQL for the run, a migrated template for each worker, and a copy for each test.

DATABASE_URL in the environment points the tests at another server; its account must be allowed to create databases.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.hospital import Hospital, hospital_on
from tests.support.postgres import Server, serving
from webhook_gateway import lines
from webhook_gateway.cores import usable
from webhook_gateway.store import migrate

_of_all_workers = pytest.StashKey[Server]()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Half as many again as there are cores: the tests wait for processes and clocks a third of their time."""
    return usable() + usable() // 2


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Gives each worker of pytest-xdist the one server; it ends with the run."""
    stash = node.config.stash
    if _of_all_workers not in stash:
        stack = ExitStack()
        node.config.add_cleanup(stack.close)
        stash[_of_all_workers] = stack.enter_context(serving())
    server = stash[_of_all_workers]
    node.workerinput["postgres"] = (server.url, server.data and str(server.data))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What takes long begins first where tests run beside each other, so that no worker is left alone with it."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def _lines_written() -> Iterator[None]:
    """A test's event loop ends before the lines that still wait for others."""
    yield
    lines.write()


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The server of this run."""
    if (given := getattr(request.config, "workerinput", {}).get("postgres")) is not None:
        url, data = given
        yield Server(url, data and Path(data))
        return
    with serving() as server:
        yield server


@pytest.fixture(scope="session")
def template(postgres: Server) -> Iterator[str]:
    """The name of a database with the newest schema and nothing else in it."""
    name = f"webhook_gateway_template_{os.getpid()}"
    # In a thread of its own, which has no event loop that theirs could get in the way of.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, postgres.execute(f'CREATE DATABASE "{name}"')).result()
        try:
            thread.submit(migrate.upgrade, postgres.url_of(name)).result()
            yield name
        finally:
            drop = postgres.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            thread.submit(asyncio.run, drop).result()


@pytest.fixture
async def database_url(postgres: Server, template: str) -> AsyncIterator[str]:
    """The URL of a freshly migrated database which this test has for itself."""
    async with postgres.copy(template) as url:
        yield url


@pytest.fixture
async def hospital(database_url: str) -> AsyncIterator[Hospital]:
    """A hospital with one subscriber."""
    async with hospital_on(database_url) as found:
        yield found


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that PostgreSQL's account can pass, as pytest's own can't be."""
    path = Path(tempfile.mkdtemp(prefix="webhook-gateway-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)
