"""The command line as a user meets it: a process with an environment, exit codes and text."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.postgres import MANY, Server, serving
from webhook_gateway.store import migrate

ROOT = Path(__file__).parents[2]
Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def surroundings(tmp_path: Path) -> dict[str, str]:
    """An environment in which nothing is configured, with a data directory of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WEBHOOK_", "DATABASE_URL"))}
    return {**kept, "PYTHONPATH": str(ROOT / "src"), "WEBHOOK_GATEWAY_DATA": str(tmp_path / "data"), "COLUMNS": "200"}


@pytest.fixture
def cli(surroundings: dict[str, str]) -> Cli:
    """Runs a command to its end: ``cli("keys", "list", stdin="", DATABASE_URL=url)``."""

    def run(*arguments: str, stdin: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
        found = subprocess.run(
            command(*arguments),
            input=stdin,
            env={**surroundings, **settings},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in found.stderr, found.stderr
        return found

    return run


@pytest.fixture
def start(surroundings: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a command that goes on; whatever is left of it is killed after the test."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str, settings: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command(*arguments),
            env={**surroundings, **(settings or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def durable() -> Iterator[Server]:
    """A server that keeps what it commits over a power cut, too: `check` asks for that."""
    with serving(MANY) as server:
        yield server


@pytest.fixture
async def durable_url(durable: Server) -> AsyncIterator[str]:
    """The URL of a freshly migrated database on that server."""
    async with durable.copy("template1") as url:
        await asyncio.to_thread(migrate.upgrade, url)
        yield url


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "webhook_gateway.cli", *arguments]
