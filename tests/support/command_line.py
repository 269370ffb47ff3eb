"""Commands as a user gives them: processes with an environment, exit codes and text."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import asyncpg

from webhook_gateway.crypto.master_keys import new_master_key

SOURCE = Path(__file__).parents[2] / "src"
_LONGEST = 200_000
"""Bytes of a message: arguments and an environment."""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "webhook_gateway.cli", *arguments]


def bare_environment(**settings: str) -> dict[str, str]:
    """An environment in which nothing of the gateway is configured but ``settings``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WEBHOOK_", "DATABASE_URL"))}
    return {**kept, "PYTHONPATH": str(SOURCE), "COLUMNS": "200", **settings}


class CommandLine:
    """Runs commands to their ends. Each is a process, forked from one that has imported the gateway already.

    Importing is most of what a command costs, and the tests give some hundreds of them.
    """

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._parent = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                env=bare_environment(),
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def run(
        self, *arguments: str, environment: Mapping[str, str], stdin: str = "", timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        with contextlib.ExitStack() as stack:
            given, said, complained = (stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(3))
            given.write(stdin)
            given.seek(0)
            asked = json.dumps([arguments, dict(environment), str(Path.cwd())]).encode()
            socket.send_fds(self._socket, [asked], [file.fileno() for file in (given, said, complained)])
            if not select.select([self._socket], [], [], timeout)[0]:
                os.killpg(self._parent.pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(command(*arguments), timeout)
            status = int(self._socket.recv(_LONGEST))
            for file in (said, complained):
                file.seek(0)
            return subprocess.CompletedProcess(command(*arguments), status, said.read(), complained.read())

    def close(self) -> None:
        self._socket.close()
        self._parent.wait(10)


class Operator:
    """Whoever gives commands where a database and a master key are configured; ``cli`` is the fixture of that name."""

    def __init__(self, cli: Callable[..., subprocess.CompletedProcess[str]], url: str) -> None:
        self.cli = cli
        self._settings = {"DATABASE_URL": url, "WEBHOOK_GATEWAY_MASTER_KEYS": new_master_key()}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.cli(*arguments, **self._settings)

    def execute(self, statements: str) -> None:
        """Behind the gateway's back: statements that return nothing, as one transaction."""
        asyncio.run(self._on_connection(lambda connection: connection.execute(statements)))

    def fetch(self, statement: str) -> list[asyncpg.Record]:
        rows: list[asyncpg.Record] = asyncio.run(self._on_connection(lambda connection: connection.fetch(statement)))
        return rows

    async def _on_connection(self, work: Callable[[asyncpg.Connection], Awaitable[Any]]) -> Any:
        connection = await asyncpg.connect(self._settings["DATABASE_URL"])
        try:
            return await work(connection)
        finally:
            await connection.close()


def _serve(requests: socket.socket) -> None:
    """Forks a child for each request; the child returns, and goes on as the command."""
    while True:
        asked, descriptors, _, _ = socket.recv_fds(requests, _LONGEST, 3)
        if not asked:
            os._exit(0)
        child = os.fork()
        if child == 0:
            break
        for descriptor in descriptors:
            os.close(descriptor)
        _, status = os.waitpid(child, 0)
        requests.send(b"%d" % os.waitstatus_to_exitcode(status))
    requests.close()
    for standard, descriptor in enumerate(descriptors):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    arguments, environment, directory = json.loads(asked)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    sys.argv = ["webhook-gateway", *arguments]


def _import_everything() -> None:
    import webhook_gateway

    for module in pkgutil.walk_packages(webhook_gateway.__path__, "webhook_gateway."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    gc.freeze()


def _run_to_its_end() -> None:
    """The command; and without taking the interpreter apart, which is longer than most commands are."""
    from webhook_gateway.cli import main

    status = 0
    try:
        main()
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 0
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    _import_everything()
    _serve(socket.socket(fileno=int(sys.argv[1])))
    _run_to_its_end()
