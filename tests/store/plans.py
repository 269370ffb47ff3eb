"""What a statement's plan is, and what it reads."""

from __future__ import annotations

import re

from webhook_gateway.store.database import Connection

KEPT = "SELECT name, parameter_types::text[] FROM pg_prepared_statements WHERE statement = $1"


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
    return plan, touched(plan)


async def explain_prepared(connection: Connection, statement: str, *arguments: object) -> tuple[str, int]:
    """The same by the plan that the connection keeps for a statement which it has run before."""
    ((name, kinds),) = await connection.fetch(KEPT, statement)
    literals = [
        f"{await connection.fetchval(f'SELECT quote_nullable($1::{kind}::text)', argument)}::{kind}"
        for kind, argument in zip(kinds, arguments, strict=True)
    ]
    execute = f"EXECUTE {name}({', '.join(literals)})" if literals else f"EXECUTE {name}"
    transaction = connection.transaction()
    await transaction.start()
    rows = await connection.fetch("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) " + execute)
    await transaction.rollback()
    plan = "\n".join(row[0] for row in rows)
    return plan, touched(plan)


def touched(plan: str) -> int:
    """How many pages a plan read, its planning left out."""
    lines = (line for line in plan.partition("Planning:")[0].splitlines() if "shared" in line)
    return max((sum(map(int, re.findall(r"(?:hit|read)=(\d+)", line))) for line in lines), default=0)
