"""What Alembic runs, from its own command line (DATABASE_URL names the database) and for `webhook-gateway migrate`."""

import asyncio
import os

from alembic import context
from sqlalchemy import Connection

from webhook_gateway.store.migrate import run_on, take_lock


def migrate_database() -> None:
    url = context.config.attributes.get("url") or os.environ.get("DATABASE_URL")
    if not url:
        raise SystemExit(
            "Set DATABASE_URL to the database to migrate, for instance postgresql://gateway@localhost/gateway"
        )
    asyncio.run(run_on(url, migrate))


def migrate(connection: Connection) -> None:
    take_lock(connection)
    context.configure(
        connection=connection,
        # A revision each, so that one may step out of its transaction for CREATE INDEX CONCURRENTLY.
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def print_sql() -> None:
    """`alembic upgrade head --sql`, for those who want to read or run it themselves."""
    context.configure(dialect_name="postgresql", literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    print_sql()
else:
    migrate_database()
