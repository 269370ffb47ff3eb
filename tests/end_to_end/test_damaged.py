"""A body that can't be read costs its own delivery at most, and no attempt while nothing was sent."""

from __future__ import annotations

from tests.support.hospital import Hospital
from tests.support.partner import partner


async def test_a_body_cut_short_ends_its_own_delivery_and_no_other(hospital: Hospital) -> None:
    async with partner() as there:
        await hospital.endpoint(url=there.url())
        cut = await hospital.accept(payment_id="pay_cut")
        whole = {await hospital.accept(payment_id=f"pay_{number}") for number in range(5)}
        await hospital.rows("UPDATE events SET body = substr(body, 1, 3) WHERE id = $1", cut)
        async with hospital.worker():
            got = await there.got(len(whole))
            await hospital.until(
                "SELECT FROM finished_deliveries WHERE state_reason = 'body_damaged' HAVING count(*) = 1"
            )
        assert len({one.headers["webhook-id"] for one in got}) == len(whole)


async def test_what_could_not_be_sent_for_want_of_its_body_has_used_up_no_attempt(hospital: Hospital) -> None:
    async with partner() as there:
        await hospital.endpoint(url=there.url())
        await hospital.accept()
        await hospital.rows("ALTER TABLE events RENAME COLUMN body TO hidden")
        async with hospital.worker():
            await hospital.until("SELECT FROM deliveries WHERE lease_id IS NULL AND attempt = 0 HAVING count(*) = 1")
            await hospital.rows("ALTER TABLE events RENAME COLUMN hidden TO body")
            await there.got(1)
            await hospital.until("SELECT FROM finished_deliveries HAVING count(*) = 1")
        (row,) = await hospital.rows("SELECT attempt FROM finished_deliveries")
        assert row["attempt"] == 1
