"""The API as one application. uvicorn runs it with ``--factory webhook_gateway.web.app:build``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache, partial
from time import monotonic
from typing import Any

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from webhook_gateway import __version__, telemetry
from webhook_gateway.crypto.master_keys import load_master_keys
from webhook_gateway.crypto.vault import Vault
from webhook_gateway.host import garbage, tracing, watchdog
from webhook_gateway.host.loop import Loop
from webhook_gateway.intake.catalogue import Catalogue
from webhook_gateway.intake.ingest import Ingest
from webhook_gateway.outbound.policy import policy_from, reached_at
from webhook_gateway.rules.rights import Quotas
from webhook_gateway.settings import Settings
from webhook_gateway.settings import settings as process_settings
from webhook_gateway.store import keyring, workers
from webhook_gateway.store.database import Database
from webhook_gateway.store.notifications import API_CHANNEL, CONFIGURATION, STATS, listen

from . import errors
from .access import Access
from .api import (
    audit,
    contract,
    deliveries,
    disclosures,
    docs,
    document,
    endpoint_lifecycle,
    endpoints,
    event_reports,
    event_types,
    events,
    health,
    keys,
    metrics,
    partners,
    portal_links,
    replays,
    search,
    stats,
    subscribers,
    well_known,
)
from .api.byte_routes import ByteRoutes
from .api.dependencies import Gateway
from .callers import Callers
from .console.application import Console
from .guard import Guard
from .oidc import issuer_from
from .readiness import Readiness

ROUTERS = tuple(
    part.router
    for part in (
        event_reports,
        event_types,
        subscribers,
        partners,
        portal_links,
        endpoints,
        endpoint_lifecycle,
        contract,
        deliveries,
        replays,
        search,
        keys,
        audit,
        disclosures,
        stats,
        metrics,
        well_known,
        health,
    )
)
PUBLIC = frozenset({"/healthz", "/readyz", well_known.PATH})
REFRESH = 4.0
"""Seconds between two reads of the configuration where no notification comes."""

TELL = 60.0
"""Seconds between two words on where this process listens."""


class Application(FastAPI):
    """The framework's application, with the byte routes' own door before it, and the console beside it."""

    byte_routes: ByteRoutes
    access: Access
    console: Console

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
        elif self.byte_routes.takes(scope):
            await self.access(self.byte_routes, scope, receive, send, scope["path"])
        elif self.console.takes(scope):
            await self.access(self.console, scope, receive, send, None)
        else:
            await self.access(super().__call__, scope, receive, send, None)


def build() -> FastAPI:
    """The application from the process's settings. Starts without its database, and answers 503 until it is there.

    Raises:
        MasterKeysUnusable, ValueError: the settings name no usable master key, or no database.
    """
    settings = process_settings()
    if settings.database_url is None:
        raise ValueError("DATABASE_URL is not set")
    telemetry.configure(settings.log_level)
    tracing.start(settings, "api")
    database, vault, catalogue = Database(settings.database_url), Vault(load_master_keys(settings)), Catalogue()
    ingest = Ingest(database, vault, catalogue, patient_index=settings.patient_index)
    return create_app(settings, database, vault, catalogue, ingest)


def create_app(
    settings: Settings,
    database: Database,
    vault: Vault,
    catalogue: Catalogue,
    ingest: Ingest,
) -> FastAPI:
    """The application around the parts given. Its lifespan keeps them current, and closes the database at the end."""
    app = Application(
        title="Webhook gateway",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_live,
        # It would record parameters and bodies; what the gateway tells of itself is in telemetry.py.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    quotas = Quotas(
        endpoints=settings.partner_endpoints,
        header_bytes=settings.partner_header_bytes,
        tests_a_day=settings.partner_tests_a_day,
        replays_a_day=settings.partner_replays_a_day,
        open_replays=settings.partner_open_replays,
    )
    callers = Callers(database, vault, settings, issuer_from(settings), quotas)
    policy, readiness = policy_from(settings), Readiness(database)
    app.state.gateway = Gateway(settings, database, vault, catalogue, ingest, policy, callers, readiness)
    app.access = Access(has_log=settings.access_log)
    app.console = Console(app.state.gateway)
    handlers, begin = events.handlers(ingest, callers), partial(events.begin_event, ingest)
    app.byte_routes = ByteRoutes(handlers, begin, callers, app.access, settings.body_limit)
    app.router.routes.extend(docs.ROUTES)
    for router in ROUTERS:
        app.include_router(router)
    errors.install(app)
    are_docs_public = settings.public_docs or settings.development
    public = PUBLIC | docs.PATHS if are_docs_public else PUBLIC
    app.add_middleware(Guard, callers=callers, public=public, body_limit=settings.body_limit)

    # Made when it is first asked for: it takes as long as everything else here together.
    app.openapi = cache(lambda: document.describe(app, ROUTERS))  # type: ignore[method-assign]
    app.state.methods = cache(lambda: _methods(app.openapi()))
    return app


@asynccontextmanager
async def _live(app: Application) -> AsyncIterator[None]:
    gateway: Gateway = app.state.gateway
    refreshing = Loop("configuration", partial(_refresh, app))
    heard = {CONFIGURATION: refreshing.wake, STATS: gateway.live.counted}
    tasks = [
        asyncio.create_task(gateway.ingest.run()),
        asyncio.create_task(listen(gateway.database, heard, API_CHANNEL, beside=True)),
        asyncio.create_task(gateway.live.run()),
        asyncio.create_task(refreshing.run()),
        asyncio.create_task(Loop("listening", partial(_tell_where, gateway)).run()),
    ]
    garbage.relax()
    watchdog.start()
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await app.console.close()
        await gateway.database.close()


async def _refresh(app: Application) -> float:
    """Takes over the time, event types and new data keys, and forgets who may have been revoked; returns the seconds to
    sleep."""
    gateway: Gateway = app.state.gateway
    began = monotonic()
    telemetry.http_in_flight.set(app.access.in_flight)  # at each request it would cost more than all else
    await gateway.ingest.refresh_all()
    await keyring.count(gateway.database, gateway.vault)
    if not gateway.callers.keep(gateway.ingest.version, began):
        app.byte_routes.heads.clear()
    return REFRESH


async def _tell_where(gateway: Gateway) -> float:
    """Workers on other machines learn where this one listens, since no endpoint may be there."""
    if addresses := reached_at(gateway.settings):
        async with gateway.database.connection() as connection:
            await workers.listen(connection, addresses, gateway.settings.port)
    return TELL


def _methods(described: dict[str, Any]) -> dict[str, set[str]]:
    """By path: its methods, for the Allow header."""
    known = {path: {method.upper() for method in item} for path, item in described["paths"].items()}
    return known | {path: {"GET", "HEAD"} for path in docs.PATHS}
