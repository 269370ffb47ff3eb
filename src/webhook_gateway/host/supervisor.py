"""The gateway's own processes, as the command line, `up` and the demo start them."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from webhook_gateway import counters
from webhook_gateway.rules.deadlines import API_KILLED_AFTER, WORKER_KILLED_AFTER

from .processes import Program, Tree

if TYPE_CHECKING:
    import httpx

READY = 60.0
BACKLOG = 2_048
API_CONNECTIONS = 27
"""That one API process may have open to PostgreSQL: pools of 8, 8 and 3, and the console's of 4 and 4."""
WORKER_CONNECTIONS = 7
"""That one worker process may have open: a pool of six, and one for notifications."""


class AddressTaken(Exception):
    """The API can't listen there; the message says why and what to do."""


def gateway(*arguments: str) -> tuple[str, ...]:
    """This very gateway's command line; the directory that we happen to stand in is not searched for code."""
    return (sys.executable, "-P", "-m", "webhook_gateway.cli", *arguments)


def api(
    processes: int,
    listener: socket.socket,
    environment: Mapping[str, str] | None = None,
    trusted_proxies: str = "",
    share: Path | None = None,
) -> list[Program]:
    """They share one listening socket, so that the others take over while one of them starts again.

    ``share`` is the directory in which they count together.
    """
    descriptor = listener.fileno()
    command = gateway("serve", "--descriptor", str(descriptor), "--trusted-proxies", trusted_proxies)
    return [
        Program(
            f"API {number}",
            command,
            {**(environment or {}), **({} if share is None else {counters.SHARE: str(share / str(number))})},
            descriptors=(descriptor,),
            patience=API_KILLED_AFTER,
        )
        for number in range(1, processes + 1)
    ]


def workers(processes: int, environment: Mapping[str, str] | None = None) -> list[Program]:
    command = gateway("work", "--processes", "1")
    return [
        Program(f"worker {number}", command, environment or {}, patience=WORKER_KILLED_AFTER)
        for number in range(1, processes + 1)
    ]


def connections(apis: int, workers: int) -> int:
    """How many connections to PostgreSQL so many processes may open."""
    return API_CONNECTIONS * apis + WORKER_CONNECTIONS * workers


def listen_on(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        AddressTaken: somebody else listens there, or the address is none of this machine's.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AddressTaken(f"can't listen on {host}:{port} ({reason}): choose another --port or --host") from None


def address_of(listener: socket.socket) -> str:
    """The URL to reach it at, from this machine."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def wait_until_ready(tree: Tree, address: str, patience: float = READY) -> None:
    """Returns when the API takes events.

    Raises:
        DidNotStart: a process of the tree has ended before, or the time is over.
    """
    import httpx

    deadline = time.monotonic() + patience
    async with httpx.AsyncClient(trust_env=False) as http:  # it is on this machine: no proxy in between
        while not await _is_ready(http, address):
            for process in tree.processes():
                if process.ended.done():
                    raise process.why("ended before the gateway was ready")
            if time.monotonic() > deadline:
                raise next(iter(tree.processes())).why(f"was not ready within {patience:g} s")
            await asyncio.sleep(0.1)


async def _is_ready(http: httpx.AsyncClient, address: str) -> bool:
    import httpx

    try:
        return (await http.get(f"{address}/readyz", timeout=2)).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
