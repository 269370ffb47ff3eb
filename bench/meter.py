"""What a stretch of time costs: CPU and wake-ups of processes, and what PostgreSQL was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import asyncpg

from .machine import Sample, Used, between, sample

SO_FAR = "SELECT pg_current_wal_lsn()::text AS wal, pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS commits"


@dataclass(frozen=True, slots=True)
class Cost:
    """What a stretch of time cost. ``wal`` is bytes, ``statements`` calls by the beginning of their text.

    ``commits`` are transactions that wrote or notified: those that have a number, and wait for the disk.
    """

    used: Used
    wal: int
    statements: int
    commits: int
    dearest: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Meter:
    """Counts from `begin` until `read`. ``groups`` are process ids by what they are."""

    connection: asyncpg.Connection
    groups: Mapping[str, list[int]]
    before: asyncpg.Record
    first: Sample

    @classmethod
    async def begin(cls, connection: asyncpg.Connection, groups: Mapping[str, list[int]]) -> Self:
        await connection.execute("SELECT pg_stat_statements_reset()")
        before = await connection.fetchrow(SO_FAR)
        assert before is not None
        return cls(connection, groups, before, sample(groups))

    async def read(self) -> Cost:
        used = between(self.first, sample(self.groups))
        now = await self.connection.fetchrow(SO_FAR)
        assert now is not None
        wal = await self.connection.fetchval(
            "SELECT pg_wal_lsn_diff($1::text::pg_lsn, $2::text::pg_lsn)", now["wal"], self.before["wal"]
        )
        rows = await self.connection.fetch(
            "SELECT left(ltrim(regexp_replace(query, '\\s+', ' ', 'g')), 60) AS query, calls, total_exec_time AS ms, "
            "rows, wal_bytes::bigint AS wal FROM pg_stat_statements WHERE query NOT LIKE '%pg_stat_statements%' "
            "AND query NOT LIKE '%pg_current_wal_lsn%' ORDER BY total_exec_time DESC"
        )
        return Cost(
            used,
            int(wal),
            sum(row["calls"] for row in rows),
            now["commits"] - self.before["commits"],
            [dict(row) for row in rows[:12]],
        )
