"""The audit log as files. No transaction is held while a file is written: whoever takes it may be slow."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

from webhook_gateway.crypto.audit_chain import Head, write_entry, write_head
from webhook_gateway.store import audit
from webhook_gateway.store.database import Database

from .disclosures import as_csv

ENTRIES = 1_000
"""Read at once."""
COLUMNS = ("sequence", "at", "actor", "source", "action", "target", "before", "after", "hash")


async def export(database: Database, tenant_id: UUID, signed: Head, since: int = 0) -> AsyncIterator[str]:
    """JSON lines: the entries after ``since``, oldest first, and the signed head as the last one."""
    for begin in range(since, signed.sequence, ENTRIES):
        until = min(begin + ENTRIES, signed.sequence)
        async with database.reading() as connection:
            rows = [row async for row in audit.entries(connection, tenant_id, since=begin, until=until)]
        yield "".join(f"{write_entry(row)}\n" for row in rows)
    yield f"{write_head(signed)}\n"


async def export_csv(database: Database, tenant_id: UUID, **asked: Any) -> AsyncIterator[str]:
    """A table, newest first, of what was ``asked`` for: the filters of `store.audit.page`."""
    before, rows = None, None
    while rows is None or len(rows) == ENTRIES:
        async with database.reading() as connection:
            rows = await audit.page(connection, tenant_id, before=before, limit=ENTRIES, **asked)
        yield as_csv(({name: row[name] for name in COLUMNS} for row in rows), COLUMNS, header=before is None)
        before = rows[-1]["sequence"] if rows else None
