"""Partitions by time. Ids are UUIDv7, whose first 48 bits are milliseconds, so a range of ids is a range of time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from webhook_gateway.rules import ids

from .database import Connection

DAYS_AHEAD = 7
MONTHS_AHEAD = 2
LOCK_TIMEOUT = "500ms"
"""A partition is made and dropped under short locks or not at all: the next round tries again."""

EXISTING = """
-- existing: the partitions of a table by name, but for the default one
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = $1::regclass AND c.relname NOT LIKE '%\\_default' ORDER BY c.relname
"""


@dataclass(frozen=True, slots=True)
class Cut:
    """How a table is cut: by day or by month."""

    table: str
    monthly: bool
    key: str = "id"

    def name(self, day: date) -> str:
        return f"{self.table}_{day:%Y%m}" if self.monthly else f"{self.table}_{day:%Y%m%d}"

    def begin(self, day: date) -> date:
        return day.replace(day=1) if self.monthly else day

    def next(self, begin: date) -> date:
        return (begin + timedelta(days=32)).replace(day=1) if self.monthly else begin + timedelta(days=1)

    def begin_of(self, partition: str) -> date:
        digits = partition.rpartition("_")[2]
        return datetime.strptime(digits, "%Y%m" if self.monthly else "%Y%m%d").replace(tzinfo=UTC).date()


EVENTS = Cut("events", monthly=False)
LOOKUPS = Cut("lookups", monthly=False, key="event_id")
FINISHED = Cut("finished_deliveries", monthly=True)
ATTEMPTS = Cut("attempts", monthly=True, key="delivery_id")


def lowest_id(day: date) -> UUID:
    """The lowest UUIDv7 of a day that begins at midnight UTC."""
    milliseconds = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)
    return UUID(int=milliseconds << 80)


async def make_all(connection: Connection) -> list[str]:
    """Makes the partitions of the days and months to come; safe to call at any time, by several at once."""
    day = await today(connection)
    made = []
    for cut in (EVENTS, LOOKUPS, FINISHED, ATTEMPTS):
        made += await make_ahead(connection, cut, day, MONTHS_AHEAD if cut.monthly else DAYS_AHEAD)
    return made


async def make_ahead(connection: Connection, cut: Cut, today: date, ahead: int) -> list[str]:
    """Makes the partitions from today's to the one ``ahead`` periods later; returns the new ones' names."""
    existing = {row["relname"] for row in await connection.fetch(EXISTING, cut.table)}
    begins = [cut.begin(today)]
    for _ in range(ahead):
        begins.append(cut.next(begins[-1]))
    if (stray := await _oldest_stray(connection, cut)) is not None:
        begins.append(cut.begin(stray))
    made = []
    for begin in begins:
        if cut.name(begin) not in existing and cut.name(begin) not in made:
            await _make(connection, cut, begin, cut.next(begin), may_have_rows=begin <= today)
            made.append(cut.name(begin))
    return made


async def ended(connection: Connection, cut: Cut, day: date) -> list[tuple[str, date, date]]:
    """The partitions that end before the day, the oldest first, each with its first day and the one after its last."""
    begins = [(row["relname"], cut.begin_of(row["relname"])) for row in await connection.fetch(EXISTING, cut.table)]
    return [(name, begin, cut.next(begin)) for name, begin in begins if cut.next(begin) <= day]


async def drop_before(connection: Connection, cut: Cut, day: date) -> list[str]:
    """Drops partitions that end before the day."""
    dropped = []
    for name, *_ in await ended(connection, cut, day):
        async with connection.transaction():
            await lock(connection, name)
            await connection.execute(f"DROP TABLE {name}")
        dropped.append(name)
    return dropped


async def lock(connection: Connection, partition: str) -> None:
    """Nobody else reads or writes the partition until the transaction ends.

    Raises:
        asyncpg.LockNotAvailableError: somebody does now.
    """
    await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
    await connection.execute(f"LOCK TABLE {partition} IN ACCESS EXCLUSIVE MODE")


async def first_day(connection: Connection, cut: Cut) -> date:
    """The oldest that has a partition; today where none has."""
    name = await connection.fetchval(f"{EXISTING} LIMIT 1", cut.table)
    return await today(connection) if name is None else cut.begin_of(name)


async def today(connection: Connection) -> date:
    """By the database's clock, in UTC."""
    found: date = await connection.fetchval("SELECT (now() AT TIME ZONE 'UTC')::date")
    return found


async def _oldest_stray(connection: Connection, cut: Cut) -> date | None:
    """The day of the oldest row that came when there was no partition for it: retention has to reach it, too."""
    found = await connection.fetchval(f"SELECT {cut.key} FROM {cut.table}_default ORDER BY {cut.key} LIMIT 1")
    return None if found is None else ids.moment_of(found).date()


async def _make(connection: Connection, cut: Cut, begin: date, end: date, *, may_have_rows: bool) -> None:
    """Attaching takes a weaker lock than creating in place, so neither ingest nor workers wait for it.

    Rows that came before their partition was made are in the default one, and move over first. Where there may be
    some, everybody waits for that moment: who read with the old list of partitions while rows move would miss them.
    """
    name, low, high = cut.name(begin), lowest_id(begin), lowest_id(end)
    within = f"{cut.key} >= '{low}' AND {cut.key} < '{high}'"
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('webhook_gateway.partitions', 0))")
        if await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", name):
            return  # somebody else has just made it
        await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        await connection.execute(f"CREATE TABLE {name} (LIKE {cut.table} INCLUDING DEFAULTS INCLUDING STORAGE)")
        if may_have_rows:
            await connection.execute(f"LOCK TABLE {cut.table} IN ACCESS EXCLUSIVE MODE")
        await connection.execute(f"LOCK TABLE {cut.table}_default IN ACCESS EXCLUSIVE MODE")
        await connection.execute(
            f"WITH moved AS (DELETE FROM {cut.table}_default WHERE {within} RETURNING *) "
            f"INSERT INTO {name} SELECT * FROM moved"
        )
        await connection.execute(
            f"ALTER TABLE {cut.table} ATTACH PARTITION {name} FOR VALUES FROM ('{low}') TO ('{high}')"
        )


PRUNE_KEYS = """
-- prune keys: idempotency keys older than promised, a slice at a time. Until now their events were found by them here:
-- from now on it is done by what is kept longer, unless the event's day has gone from there, too.
WITH pruned AS (
    DELETE FROM idempotency_keys WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM idempotency_keys WHERE created_at < now() - make_interval(hours => $1) LIMIT 10000))
    RETURNING encode(substring(key FOR 16), 'hex')::uuid AS key, event_id
), kept AS (
    INSERT INTO lookups (key, event_id) SELECT * FROM pruned WHERE event_id >= $2 ORDER BY key, event_id
)
SELECT count(*) FROM pruned
"""


async def prune_keys(connection: Connection, hours: int) -> int:
    """Makes a slice of old idempotency keys mere look-ups; returns how many."""
    kept_from = lowest_id(await first_day(connection, LOOKUPS))
    pruned: int = await connection.fetchval(PRUNE_KEYS, hours, kept_from)
    return pruned
