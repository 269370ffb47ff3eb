"""What a statement's plan is, and what it reads."""

from __future__ import annotations

import re

from webhook_gateway.store.database import Connection


async def explain(
    connection: Connection, statement: str, *arguments: object, mode: str = "force_generic_plan"
) -> tuple[str, int]:
    """The plan with which a statement ran, and how many pages it touched; what it did is undone."""
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(f"SET LOCAL plan_cache_mode = {mode}")
    rows = await connection.fetch("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF)" + statement, *arguments)
    await transaction.rollback()
    plan = "\n".join(row[0] for row in rows)
    lines = (line for line in plan.splitlines() if "shared" in line)
    return plan, max(sum(map(int, re.findall(r"(?:hit|read)=(\d+)", line))) for line in lines)
