"""``serve`` and ``work``: the two halves of a production gateway, each as many processes as asked for."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Annotated

import typer

from webhook_gateway import cores, counters
from webhook_gateway.crypto.master_keys import load_master_keys
from webhook_gateway.host import supervisor
from webhook_gateway.host.processes import Program, Tree, watch_signals
from webhook_gateway.rules.deadlines import API_DRAINS_WITHIN
from webhook_gateway.settings import Settings, settings

from .environment import Host, Port, with_database
from .exits import WRONG, CannotGoOn
from .screen import say

PROCESSES = "How many, or auto for one a core."


def serve(
    host: Host = "127.0.0.1",
    port: Port = 8_080,
    processes: Annotated[
        str,
        typer.Option("--processes", envvar="WEBHOOK_GATEWAY_API_PROCESSES", metavar="NUMBER", help=PROCESSES),
    ] = cores.AUTO,
    trusted_proxies: Annotated[
        str,
        typer.Option(
            "--trusted-proxies",
            metavar="ADDRESSES",
            help="Believe X-Forwarded-For and -Proto from these addresses only, as in 10.0.0.5,10.0.0.6. "
            "By default nobody is believed.",
        ),
    ] = "",
    descriptor: Annotated[int, typer.Option("--descriptor", hidden=True)] = -1,
) -> None:
    """Serve the API. Needs DATABASE_URL and a master key; put TLS in front of it.

    [dim]Example:[/dim]  webhook-gateway serve --host 0.0.0.0 --trusted-proxies 10.0.0.5
    """
    _check_production(settings())
    if descriptor >= 0:
        _serve_here(socket.socket(fileno=descriptor), trusted_proxies)
        return
    with supervisor.listen_on(host, port) as listener:
        say(f"the API listens on {supervisor.address_of(listener)}")
        _warn_of_development(settings())
        # Where it listens is no place for an endpoint, whoever said where: an option, or a setting.
        listening, number = listener.getsockname()[:2]
        os.environ |= {"WEBHOOK_GATEWAY_HOST": listening, "WEBHOOK_GATEWAY_PORT": str(number)}
        settings.cache_clear()
        count = _choose(processes, "API")
        if count == 1:
            _serve_here(listener, trusted_proxies)
        else:
            with counters.shared_by(count) as share:
                supervise([supervisor.api(count, listener, trusted_proxies=trusted_proxies, share=share)])


def work(
    processes: Annotated[
        str,
        typer.Option("--processes", envvar="WEBHOOK_GATEWAY_WORKER_PROCESSES", metavar="NUMBER", help=PROCESSES),
    ] = cores.AUTO,
) -> None:
    """Deliver what was accepted. Any number of these may run, on any number of machines.

    SIGTERM lets the requests in flight end, and takes no new ones.

    [dim]Example:[/dim]  webhook-gateway work --processes 4
    """
    _check_production(settings())
    _warn_of_development(settings())
    count = _choose(processes, "worker")
    if count > 1:
        supervise([supervisor.workers(count)])
        return
    import uvloop

    from webhook_gateway.delivery import worker

    uvloop.run(worker.run(settings()))


def supervise(groups: Sequence[Sequence[Program]]) -> None:
    """Keeps the programs running until SIGTERM or Ctrl-C, then stops group after group."""

    async def run() -> None:
        until, hurry = watch_signals()
        await Tree(groups, say).run(until, hurry)

    asyncio.run(run())


def _choose(processes: str, half: str) -> int:
    """How many processes of this half; says so where it was left to us."""
    try:
        wanted = cores.read(processes)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--processes") from None
    count = cores.alone(wanted, cores.usable())
    if wanted == cores.AUTO:
        say(f"{half} processes: {count}, one for each core (set --processes for another number)")
    return count


def _serve_here(listener: socket.socket, trusted_proxies: str) -> None:
    import uvicorn

    from webhook_gateway.web.connections import Limits
    from webhook_gateway.web.protocol import bounded
    from webhook_gateway.web.server import Server

    limits = Limits.from_settings(settings(), trusted_proxies)
    # uvicorn hands a signal back to us when its last request has ended; until it runs, we end at once.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    config = uvicorn.Config(
        "webhook_gateway.web.app:build",
        factory=True,
        loop="uvloop",
        http=bounded(limits),
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=trusted_proxies or None,
        backlog=limits.backlog,
        timeout_graceful_shutdown=int(API_DRAINS_WITHIN),
    )
    Server(config).run(sockets=[listener])


def _warn_of_development(found: Settings) -> None:
    if found.development:
        say(
            "WEBHOOK_GATEWAY_DEVELOPMENT IS ON: http, this machine and every port are allowed for partners. "
            "Never with real patients"
        )


def _check_production(found: Settings) -> None:
    """Without a database or a key a gateway can accept nothing, so it doesn't start; nor where sessions are shared."""
    from webhook_gateway.store.database import DatabaseUnavailable
    from webhook_gateway.store.primary import SharedSessions

    if found.database_url is None:
        raise CannotGoOn("DATABASE_URL is not set: set it, or try `webhook-gateway up`, which brings its own", WRONG)
    load_master_keys(found)
    if found.otlp_endpoint is not None and find_spec("opentelemetry.sdk") is None:
        raise CannotGoOn("WEBHOOK_GATEWAY_OTLP_ENDPOINT needs more: pip install 'hms-webhook-gateway[otlp]'", WRONG)
    try:
        with_database(lambda database: database.expect_writable())
    except DatabaseUnavailable as error:  # it may come, or come back, at any time
        if isinstance(error.__cause__, SharedSessions):
            raise
