"""Run a partner as a process of its own: flags, store, routes, the ready line, an orderly stop."""

import argparse
import asyncio
import os
import signal
import socket
import sqlite3
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .receiver import Receiver, Work


def serve(name: str, work: Work, tables: str, pages: Sequence[Route] = ()) -> None:
    """Serve POST /webhooks, GET /ledger and the partner's own pages until SIGTERM or Ctrl-C."""
    flags = parse_flags(name)
    secret = os.environ.get("WEBHOOK_SECRET") or sys.exit(
        "set WEBHOOK_SECRET to the secret of your endpoint (whsec_...)"
    )
    store = open_store(flags.data / f"{name}.db", tables)
    receiver = Receiver(secret, store, work, flags.fail_first, flags.slow)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.store = store
        working = asyncio.create_task(receiver.work_off())
        yield
        receiver.stopping = True
        receiver.arrived.set()
        await working  # what is under way is finished; what waits is worked off after the next start

    routes = [Route("/webhooks", receiver.receive, methods=["POST"]), Route("/ledger", receiver.ledger), *pages]
    listen(Starlette(routes=routes, lifespan=lifespan), flags.host, flags.port)


def parse_flags(name: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(name, description="The signing secret is read from WEBHOOK_SECRET (whsec_...).")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument(
        "--data", type=Path, default=Path(tempfile.gettempdir(), "hms-partners"), help="folder of the store"
    )
    parser.add_argument("--fail-first", type=int, default=int(os.environ.get("FAIL_FIRST", "0")), metavar="N",
                        help="answer 503 with Retry-After: 1 N times before accepting")  # fmt: skip
    parser.add_argument("--slow", type=float, default=float(os.environ.get("SLOW", "0")), metavar="SECONDS",
                        help="keep the event, then wait so long before answering")  # fmt: skip
    return parser.parse_args()


def open_store(path: Path, tables: str) -> sqlite3.Connection:
    """Every statement is its own transaction, so nothing is held while a mail is being sent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    store = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    store.row_factory = sqlite3.Row
    store.executescript(f"PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; {tables}")
    return store


def page(path: str, query: str) -> Route:
    """A GET route that answers a query of the partner's store as JSON."""

    async def show(request: Request) -> Response:
        return JSONResponse([dict(row) for row in request.app.state.store.execute(query)])

    return Route(path, show)


def listen(app: Starlette, host: str, port: int) -> None:
    """Print one line when ready. SIGTERM and Ctrl-C finish the requests under way and exit with 0."""
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, lambda *_: sys.exit(0))  # uvicorn hands the signal back to us when it has finished
    with socket.create_server((host, port)) as listener:
        config = uvicorn.Config(app, host=host, log_level="warning", timeout_graceful_shutdown=3)
        Announced(config).run(sockets=[listener])


class Announced(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or []:
            print(f"listening on http://{self.config.host}:{listener.getsockname()[1]}", flush=True)
