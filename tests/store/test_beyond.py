"""What is beyond a permission, in rows: the same as by the rules."""

from __future__ import annotations

from uuid import UUID

from tests.support.hospital import Hospital
from webhook_gateway.rules.matching import may_have
from webhook_gateway.store import permission

TYPES = ("lab_result.final", "lab_result.corrected.late", "lab_results.final", "labxresult.final", "gateway.test",
         "gateway.delivery_dead", "payment.processed")  # fmt: skip
PATTERNS = (
    "*",
    "lab_result.*",
    "lab_result.final",
    "lab_result",
    "gateway.*",
    "gateway.delivery_dead",
    "lab_result.corrected.*",
)


async def test_the_database_and_the_rules_agree_on_every_form_of_pattern(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint()
    rows: dict[UUID, str] = {}
    for number, type in enumerate(TYPES * 2):
        (row,) = await hospital.rows(
            "INSERT INTO deliveries (id, tenant_id, endpoint_id, event_id, type, sequence, ordering_key, due_at)"
            " VALUES (gen_random_uuid(), $1, $2, $2, $3, $4, 1, CASE WHEN $5 THEN now() END) RETURNING id",
            *(hospital.tenant_id, endpoint_id, type, number, number < len(TYPES)),
        )
        rows[row["id"]] = type
    for gets in ((), *((pattern,) for pattern in PATTERNS), ("payment.*", "gateway.delivery_dead"), ("*", "gateway.*")):
        async with hospital.database.connection() as connection:
            found = await permission.beyond(connection, endpoint_id, gets, 100)
        assert sorted(found) == sorted(id for id, type in rows.items() if not may_have(gets, type)), gets


async def test_what_is_being_sent_is_not_cut_off(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint()
    await hospital.post(times=2)
    await hospital.fan_out()
    (sending,) = await hospital.claim(endpoint_id, free=1)
    async with hospital.database.connection() as connection:
        (waiting,) = await permission.beyond(connection, endpoint_id, (), 100)
    assert waiting != sending.id
