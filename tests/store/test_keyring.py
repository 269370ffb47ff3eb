"""Data keys come into the vaults of running processes, whoever made or rewrapped them."""

from __future__ import annotations

import asyncio
import os

import asyncpg
import pytest
from uuid_utils.compat import uuid7

from webhook_gateway.crypto.vault import KEY_BYTES, KeyMissing, MasterKeys, Tampered, Vault
from webhook_gateway.store import keyring, tenants
from webhook_gateway.store.database import Database

OLD, NEW = os.urandom(KEY_BYTES), os.urandom(KEY_BYTES)


async def test_a_rotated_data_key_seals_and_the_old_one_still_opens(database_url: str) -> None:
    database, vault, row = Database(database_url), Vault(MasterKeys({"old": OLD})), uuid7()
    async with database.connection() as connection:
        tenant_id = await tenants.make(connection, vault)
    assert await keyring.fill(database, vault) == []
    before = vault.seal(tenant_id, "events", row, b"before")
    other = Vault(MasterKeys({"old": OLD}))
    await keyring.fill(database, other)
    async with database.connection() as connection, connection.transaction():
        await keyring.rotate(connection, vault, tenant_id)
    await keyring.fill(database, vault)
    after = vault.seal(tenant_id, "events", row, b"after")
    assert not other.can_open(after)
    await keyring.fill(database, other)
    assert other.open(tenant_id, "events", row, after) == b"after"
    assert other.open(tenant_id, "events", row, before) == b"before"
    assert other.digest(tenant_id, b"patient") == vault.digest(tenant_id, b"patient")
    await database.close()


async def test_what_all_processes_seal_with_a_data_key_is_counted(
    database_url: str,
) -> None:
    database, first = Database(database_url), Vault(MasterKeys({"old": OLD}))
    async with database.connection() as connection:
        tenant_id = await tenants.make(connection, first)
    second = Vault(MasterKeys({"old": OLD}))
    for vault, times in [(first, keyring.COUNTED - 1), (second, keyring.COUNTED)]:
        await keyring.fill(database, vault)
        for _ in range(times):
            vault.seal(tenant_id, "events", tenant_id, b"")
    await asyncio.gather(keyring.count(database, first), keyring.count(database, second))
    assert await _counted(database) == [keyring.COUNTED]
    first.seal(tenant_id, "events", tenant_id, b"")
    await keyring.count(database, first)
    await keyring.count(database, first)
    assert await _counted(database) == [2 * keyring.COUNTED]
    await database.close()


async def test_what_could_not_be_written_down_is_counted_the_next_time(database_url: str) -> None:
    database, vault = Database(database_url), Vault(MasterKeys({"old": OLD}))
    async with database.connection() as connection:
        tenant_id = await tenants.make(connection, vault)
        await keyring.fill(database, vault)
        for _ in range(keyring.COUNTED):
            vault.seal(tenant_id, "events", tenant_id, b"")
        await connection.execute("ALTER TABLE data_keys RENAME TO hidden")
        with pytest.raises(asyncpg.UndefinedTableError):
            await keyring.count(database, vault)
        await connection.execute("ALTER TABLE hidden RENAME TO data_keys")
    await keyring.count(database, vault)
    assert await _counted(database) == [keyring.COUNTED]
    await database.close()


async def _counted(database: Database) -> list[int]:
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT sealed FROM data_keys WHERE purpose = 'seal' ORDER BY id")
    return [row["sealed"] for row in rows]


async def test_rewrapping_changes_no_record_and_may_run_twice_at_once(database_url: str) -> None:
    database, vault, row = Database(database_url), Vault(MasterKeys({"old": OLD})), uuid7()
    async with database.connection() as connection:
        tenant_ids = [await tenants.make(connection, vault, f"hospital {number}") for number in range(60)]
    await keyring.fill(database, vault)
    sealed = {tenant_id: vault.seal(tenant_id, "events", row, b"body") for tenant_id in tenant_ids}

    both = Vault(MasterKeys({"new": NEW, "old": OLD}))

    async def rewrap() -> list[keyring.Rewrapped]:
        return [one async for one in keyring.rewrap(database, both)]

    first, second = await asyncio.gather(rewrap(), rewrap())
    assert all(one.problem is None for one in (*first, *second))
    async with database.connection() as connection:
        assert await keyring.needed(connection) == {"new": 120}
    fresh = Vault(MasterKeys({"new": NEW}))
    assert await keyring.fill(database, fresh) == []
    assert all(fresh.open(tenant_id, "events", row, record) == b"body" for tenant_id, record in sealed.items())
    await database.close()


async def test_what_lacks_its_master_key_is_named_and_the_rest_is_there(database_url: str) -> None:
    database, vault = Database(database_url), Vault(MasterKeys({"old": OLD}))
    async with database.connection() as connection:
        await tenants.make(connection, vault, "first")
        second = await tenants.make(connection, Vault(MasterKeys({"new": NEW})), "second")
    lacking = Vault(MasterKeys({"new": NEW}))
    missing = await keyring.fill(database, lacking)
    assert len(missing) == 2
    assert all("'old'" in sentence for sentence in missing)
    assert lacking.knows(second)
    await database.close()


class SlowElsewhere:
    """A key service of one's own: three members are all that is needed."""

    newest = "elsewhere"

    def __init__(self) -> None:
        self.inner = MasterKeys({"elsewhere": OLD})
        self.unwrapped = 0
        self.reachable = True

    def wrap(self, tenant_id: object, purpose: str, key: bytes) -> tuple[str, bytes]:
        return self.inner.wrap(tenant_id, purpose, key)  # type: ignore[arg-type]

    def unwrap(self, data_key: object) -> bytes:
        if not self.reachable:
            raise KeyMissing("the key service does not answer")
        self.unwrapped += 1
        return self.inner.unwrap(data_key)  # type: ignore[arg-type]


async def test_a_key_service_is_asked_once_for_each_data_key_and_process(database_url: str) -> None:
    database, elsewhere = Database(database_url), SlowElsewhere()
    vault = Vault(elsewhere)
    async with database.connection() as connection:
        tenant_id = await tenants.make(connection, vault)
    elsewhere.reachable = False
    assert len(await keyring.fill(database, vault)) == 2
    elsewhere.reachable = True
    assert await keyring.fill(database, vault) == []
    assert await keyring.fill(database, vault) == []
    assert elsewhere.unwrapped == 2
    assert vault.knows(tenant_id)
    await database.close()


def test_a_record_opens_only_in_its_tenant_table_and_row() -> None:
    master, tenant_id, row = MasterKeys({"old": OLD}), uuid7(), uuid7()
    vault = Vault(master)
    for number, owner in enumerate((tenant_id, uuid7()), 1):
        name, wrapped = master.wrap(owner, "seal", os.urandom(KEY_BYTES))
        from webhook_gateway.crypto.vault import DataKey

        vault.add(DataKey(number, owner, "seal", name, wrapped))
    record = vault.seal(tenant_id, "events", row, b"body")
    assert vault.open(tenant_id, "events", row, record) == b"body"
    for place in ((uuid7(), "events", row), (tenant_id, "attempts", row), (tenant_id, "events", uuid7())):
        with pytest.raises(Tampered):
            vault.open(*place, record)
    with pytest.raises(Tampered):
        vault.open(tenant_id, "events", row, record[:-1] + bytes([record[-1] ^ 1]))
