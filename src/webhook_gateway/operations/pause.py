"""Sending as a whole is paused and resumed: for all workers and tenants, and in the audit log of each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from webhook_gateway.store import audit, configuration, pause, tenants, workers
from webhook_gateway.store.database import Connection, Database
from webhook_gateway.store.driver import driver_of
from webhook_gateway.store.notifications import CONFIGURATION, notify

from .change import LOCAL, local_name
from .refusals import Conflict


async def pause_all(database: Database, reason: str) -> bool | Conflict:
    """From within two seconds on nothing is sent, until `resume_all`. False where that was so before."""
    async with database.connection() as connection, connection.transaction():
        if not await workers.require_current(connection):  # it would go on sending
            return Conflict.WORKERS_TOO_OLD
    entry = audit.Entry(local_name(), LOCAL, "sending.paused", "gateway", after={"reason": reason})
    return await _change(database, partial(pause.pause, reason=reason), entry)


async def resume_all(database: Database) -> bool:
    return await _change(database, pause.resume, audit.Entry(local_name(), LOCAL, "sending.resumed", "gateway"))


async def recognise(database: Database) -> None:
    """Pauses where this is another database than it was: restored from a dump, say, beside the one that works."""
    async with database.connection() as connection:
        identity = await pause.identity(connection)
        if identity is None or await pause.is_known(connection, identity):
            return
    entry = audit.Entry("gateway", LOCAL, "sending.paused", "gateway", after={"reason": pause.COPY})
    await _change(database, partial(pause.recognise, identity=identity), entry)


async def _change(database: Database, move: Callable[[Connection], Awaitable[bool]], entry: audit.Entry) -> bool:
    """Whether there was something to change: then it is in every tenant's audit log."""
    async with database.begin() as connection:
        driver = await driver_of(connection)
        known = await tenants.every(driver)
        for tenant_id in known:  # before the configuration, as at the end of every change
            await audit.lock(connection, tenant_id)
        if not await move(driver):
            return False
        for tenant_id in known:
            await audit.write(connection, tenant_id, entry)
        await configuration.changed(driver)
    await notify(database, CONFIGURATION)
    return True
