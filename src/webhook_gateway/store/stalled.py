"""Sessions of frozen processes: stopped, or with a loop that hangs, on a machine that still answers for them.

Postgres ends a transaction that waits for its next statement (`idle_in_transaction_session_timeout`), and keepalives
end what a dead machine held. Neither sees a process that froze between two messages of one statement, as while it is
being prepared, nor one that holds a lock of its session: their locks would keep all others from their work.
"""

from __future__ import annotations

from .advisory_locks import UPKEEP
from .database import NAME


def end(mid_statement: str, between_statements: str) -> str:
    """SQL: ends our sessions in which a statement waits for its client, as none does for longer than a moment; or an
    open transaction, or upkeep, for so long that nobody is there. How many there were; times are in seconds."""
    return f"""(
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity AS a
WHERE datname = current_database() AND usename = current_user AND application_name = '{NAME["application_name"]}'
  AND pid <> pg_backend_pid() AND wait_event_type = 'Client'
  AND state_change < clock_timestamp() - make_interval(
      secs => CASE state WHEN 'active' THEN {mid_statement} ELSE {between_statements} END)
  AND (state <> 'idle' OR EXISTS (
      SELECT FROM pg_locks
      WHERE pid = a.pid AND locktype = 'advisory'
        AND classid::bigint << 32 | objid::bigint = hashtextextended('{UPKEEP}', 0)
  )))"""
