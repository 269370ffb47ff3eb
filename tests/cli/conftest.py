"""The command line as a user meets it: a process with an environment, exit codes and text."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.command_line import CommandLine, bare_environment, command
from tests.support.postgres import MANY, Server, serving
from webhook_gateway.store import migrate

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment in which nothing is configured, with a data directory of its own."""
    return bare_environment(WEBHOOK_GATEWAY_DATA=str(tmp_path / "data"))


@pytest.fixture(scope="session")
def command_line() -> Iterator[CommandLine]:
    with closing(CommandLine()) as made:
        yield made


@pytest.fixture
def cli(environment: dict[str, str], command_line: CommandLine) -> Cli:
    """Runs a command to its end: ``cli("keys", "list", stdin="", DATABASE_URL=url)``."""

    def run(*arguments: str, stdin: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
        found = command_line.run(*arguments, environment={**environment, **settings}, stdin=stdin)
        assert "Traceback" not in found.stderr, found.stderr
        return found

    return run


@pytest.fixture
def start(environment: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a command that goes on; whatever is left of it is killed after the test."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str, settings: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command(*arguments),
            env={**environment, **(settings or {})},
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
