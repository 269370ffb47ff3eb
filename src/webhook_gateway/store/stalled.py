"""Sessions of frozen processes: stopped, or with a loop that hangs, on a machine that still answers for them.

Postgres ends a transaction that waits for its next statement (`idle_in_transaction_session_timeout`), and keepalives
end what a dead machine held. Neither sees a process that froze between two messages of one statement, as while it is
being prepared, nor one that holds a lock of its session: their locks would keep all others from their work.
"""

from __future__ import annotations

from .advisory_locks import UPKEEP
from .database import NAME, Connection

END_STALLED = """
-- end stalled: our sessions in which a statement waits for its client, as none does for longer than a moment; or an
-- open transaction, or upkeep, for so long that nobody is there
SELECT pg_terminate_backend(pid) FROM pg_stat_activity AS a
WHERE datname = current_database() AND usename = current_user AND application_name = $1 AND pid <> pg_backend_pid()
  AND wait_event_type = 'Client'
  AND state_change < clock_timestamp() - make_interval(secs => CASE state WHEN 'active' THEN $2::float8 ELSE $3 END)
  AND (state <> 'idle' OR EXISTS (
      SELECT FROM pg_locks
      WHERE pid = a.pid AND locktype = 'advisory'
        AND classid::bigint << 32 | objid::bigint = hashtextextended($4, 0)
  ))
"""

MID_STATEMENT = 2.0
BETWEEN_STATEMENTS = 60.0


async def end(
    connection: Connection, mid_statement: float = MID_STATEMENT, between_statements: float = BETWEEN_STATEMENTS
) -> int:
    """How many were ended. Times are in seconds."""
    rows = await connection.fetch(END_STALLED, NAME["application_name"], mid_statement, between_statements, UPKEEP)
    return len(rows)
