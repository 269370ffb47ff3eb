"""``up``: everything in one process tree, for one machine."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from webhook_gateway import cores, counters
from webhook_gateway.crypto.master_keys import KEY_FILE, data_directory, load_master_keys, make_key_file
from webhook_gateway.host import supervisor
from webhook_gateway.host.processes import Tree, watch_signals
from webhook_gateway.settings import Settings, settings

from .environment import Host, Port, url_file
from .screen import say

FEWEST = 200
OTHERS = 20
"""Connections for commands, and for operators."""


def up(
    host: Host = "127.0.0.1",
    port: Port = 8_080,
    data: Annotated[
        Path | None,
        typer.Option("--data", envvar="WEBHOOK_GATEWAY_DATA", help="Where the embedded PostgreSQL and the key live."),
    ] = None,
    development: Annotated[
        bool, typer.Option("--development", help="Allow http and this machine as partners: never with real patients.")
    ] = False,
) -> None:
    """Start everything: PostgreSQL (unless DATABASE_URL is set), migrations, API and workers; Ctrl-C ends it.

    Prints an administrator's key at the first start. A process that dies is started again. SIGTERM stops the API first,
    lets the workers finish what is in flight, and stops PostgreSQL last.

    [dim]Examples:[/dim]
      webhook-gateway up --development
      DATABASE_URL=postgresql://… webhook-gateway up --host 0.0.0.0
    """
    found = settings().model_copy(update={"data": data or settings().data})
    found = found.model_copy(update={"development": development or found.development})
    counts = cores.shared(found.api_processes, found.worker_processes, cores.usable())
    with supervisor.listen_on(host, port) as listener, _database(found, counts) as url:
        found = _with_master_key(found.model_copy(update={"database_url": url}))
        load_master_keys(found)  # what can't work is said before anything is changed
        _prepare(url)
        say(f"processes: {counts[0]} for the API, {counts[1]} for the workers")
        with counters.shared_by(counts[0]) as share:
            asyncio.run(_run(found, listener, counts, share))
    say("stopped")


@contextmanager
def _database(found: Settings, counts: tuple[int, int]) -> Iterator[str]:
    """The configured database, or the embedded one for as long as we run."""
    if found.database_url is not None:
        yield found.database_url
        return
    from webhook_gateway.host.embedded_postgres import EmbeddedPostgres

    directory = data_directory(found) / "postgres"
    say(f"starting PostgreSQL in {directory}")
    settings = {"max_connections": str(max(OTHERS + supervisor.connections(*counts), FEWEST))}
    with EmbeddedPostgres.start(directory, settings=settings, die_with_parent=True) as server:
        file = url_file(found)
        file.unlink(missing_ok=True)
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as text:  # noqa: PTH123
            text.write(server.url + "\n")
        try:
            yield server.url
        finally:
            file.unlink(missing_ok=True)


def _with_master_key(found: Settings) -> Settings:
    if found.master_keys is not None or found.master_key_file is not None:
        return found
    file = data_directory(found) / KEY_FILE
    if not file.exists():
        file = make_key_file(data_directory(found))
        say(f"made a master key in {file}: keep a copy, for without it nobody can read what is stored")
    return found.model_copy(update={"master_key_file": file})


def _prepare(url: str) -> None:
    from webhook_gateway.store import migrate

    if migrate.current(url) != migrate.head():
        say(f"migrating the database to {migrate.head()}")
        migrate.upgrade(url)


async def _run(found: Settings, listener: socket.socket, counts: tuple[int, int], share: Path | None) -> None:
    from webhook_gateway.operations.first_start import first_key
    from webhook_gateway.operations.sessions import first_link

    environment, address = _environment(found, listener), supervisor.address_of(listener)
    until, hurry = watch_signals()
    apis, workers = counts
    groups = [supervisor.api(apis, listener, environment, share=share), supervisor.workers(workers, environment)]
    tree = Tree(groups, say)
    running = asyncio.create_task(tree.run(until, hurry))
    ready = asyncio.create_task(supervisor.wait_until_ready(tree, address))
    stopping = asyncio.create_task(until.wait())
    try:
        await asyncio.wait((ready, stopping), return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            ready.result()
            key = await first_key(str(found.database_url), load_master_keys(found))
            _show(address, key, await first_link(str(found.database_url), address))
            await running
    finally:
        until.set()
        ready.cancel()
        stopping.cancel()
        await running


def _environment(found: Settings, listener: socket.socket) -> dict[str, str]:
    """What our children have to know beside what they inherit: where the API is, so that none delivers to it."""
    host, port = listener.getsockname()[:2]
    environment = {
        "DATABASE_URL": str(found.database_url),
        "WEBHOOK_GATEWAY_HOST": host,
        "WEBHOOK_GATEWAY_PORT": str(port),
    }
    if found.master_key_file is not None:
        environment["WEBHOOK_GATEWAY_MASTER_KEY_FILE"] = str(found.master_key_file)
    if found.development:
        environment["WEBHOOK_GATEWAY_DEVELOPMENT"] = "true"
    return environment


def _show(address: str, key: str | None, link: str) -> None:
    print(f"API      {address}")
    print(f"docs     {address}/docs")
    print(f"console  {link}")
    print("         signs in once, within ten minutes; `webhook-gateway console` prints another")
    if key is not None:
        print(f"key      {key}")
        print("         may do everything, and is shown only now")
    print("ready; Ctrl-C stops everything", flush=True)
