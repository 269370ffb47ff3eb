"""The migrations make what `store.tables` names, and the types of rows that statements take."""

from __future__ import annotations

import msgspec
import pytest
from sqlalchemy import Connection, inspect

from webhook_gateway.store.attempts import Alike, Attempt
from webhook_gateway.store.database import Database
from webhook_gateway.store.outbox import Appended, NewDelivery
from webhook_gateway.store.tables import metadata


async def test_tables_and_migrations_say_the_same(database_url: str) -> None:
    def differences(connection: Connection) -> list[str]:
        inspector = inspect(connection)
        found = []
        for table in metadata.sorted_tables:
            columns = {column["name"]: column for column in inspector.get_columns(table.name)}
            if set(columns) != {column.name for column in table.columns}:
                found.append(f"{table.name}: {set(columns) ^ {column.name for column in table.columns}}")
                continue
            for column in table.columns:
                there = columns[column.name]["type"]
                kinds = [kind.compile(connection.dialect) for kind in (there, column.type)]
                if kinds[0] != kinds[1]:
                    found.append(f"{table.name}.{column.name}: {kinds}")
        return found

    database = Database(database_url)
    async with database.begin() as connection:
        assert await connection.run_sync(differences) == []
    await database.close()


@pytest.mark.parametrize(
    ("type_", "struct", "more"),
    [
        ("appended", Appended, []),
        ("new_delivery", NewDelivery, []),
        ("made_attempt", Attempt, []),
        ("alike_attempts", Alike, ["made"]),
    ],
)
async def test_rows_have_the_attributes_of_their_type_in_its_order(
    database_url: str, type_: str, struct: type[msgspec.Struct], more: list[str]
) -> None:
    database = Database(database_url)
    async with database.connection() as connection:
        attributes = await connection.fetch(
            "SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass ORDER BY attnum", type_
        )
    await database.close()
    assert [row["attname"] for row in attributes] == [*struct.__struct_fields__, *more]
