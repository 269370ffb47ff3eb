"""What a partner may use up with its own keys. The hospital's keys have no quotas."""

from __future__ import annotations

from webhook_gateway.store import usage
from webhook_gateway.store.driver import driver_of

from .change import Change
from .refusals import Conflict, Exhausted


async def one_endpoint_more(change: Change) -> Conflict | None:
    """Asked before it is made. Its subscriber's other requests wait, so that none comes in between."""
    quotas, subscriber_id = change.actor.quotas, change.actor.subscriber_id
    if quotas is None or subscriber_id is None:
        return None
    driver = await driver_of(change.connection)
    await usage.use(driver, subscriber_id, "endpoint", 1)
    return Conflict.TOO_MANY_ENDPOINTS if await usage.endpoints(driver, subscriber_id) >= quotas.endpoints else None


async def one_test_more(change: Change) -> Exhausted | None:
    quotas, subscriber_id = change.actor.quotas, change.actor.subscriber_id
    if quotas is None or subscriber_id is None:
        return None
    used = await usage.use(await driver_of(change.connection), subscriber_id, "test", 1)
    return Exhausted.TESTS if used > quotas.tests_a_day else None


async def replays_more(change: Change, deliveries: int, *, as_job: bool) -> Conflict | Exhausted | None:
    """So many deliveries are to be sent again."""
    quotas, subscriber_id = change.actor.quotas, change.actor.subscriber_id
    if quotas is None or subscriber_id is None:
        return None
    driver = await driver_of(change.connection)
    used = await usage.use(driver, subscriber_id, "replay", deliveries)
    if as_job and await usage.open_replays(driver, subscriber_id) >= quotas.open_replays:
        return Conflict.TOO_MANY_REPLAYS
    return Exhausted.REPLAYS if used > quotas.replays_a_day else None
