"""A body that can't be read costs its own delivery at most, and no attempt while nothing was sent."""

from __future__ import annotations

from tests.end_to_end.inside import inside, master_key, partner


async def test_a_body_cut_short_ends_its_own_delivery_and_no_other(database_url: str) -> None:
    async with inside(database_url, master_keys=master_key("only")) as gateway, partner() as there:
        await gateway.add_endpoint(there.url())
        cut = await gateway.accept(payment_id="pay_cut")
        whole = {await gateway.accept(payment_id=f"pay_{number}") for number in range(5)}
        await gateway.rows("UPDATE events SET body = substr(body, 1, 3) WHERE id = $1", cut)
        async with gateway.working():
            got = await there.wait_for(len(whole))
            await gateway.until("SELECT count(*) = 1 FROM finished_deliveries WHERE state_reason = 'body_damaged'")
        assert len({one.headers["webhook-id"] for one in got}) == len(whole)


async def test_what_could_not_be_sent_for_want_of_its_body_has_used_up_no_attempt(database_url: str) -> None:
    async with inside(database_url, master_keys=master_key("only")) as gateway, partner() as there:
        await gateway.add_endpoint(there.url())
        await gateway.accept()
        await gateway.rows("ALTER TABLE events RENAME COLUMN body TO hidden")
        async with gateway.working():
            await gateway.until("SELECT count(*) = 1 FROM deliveries WHERE lease_id IS NULL AND attempt = 0")
            await gateway.rows("ALTER TABLE events RENAME COLUMN hidden TO body")
            await there.wait_for(1)
            await gateway.until("SELECT count(*) = 1 FROM finished_deliveries")
        (row,) = await gateway.rows("SELECT attempt FROM finished_deliveries")
        assert row["attempt"] == 1
