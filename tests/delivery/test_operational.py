"""What the gateway says about endpoints, as events of its own."""

from __future__ import annotations

import json

import pytest

from tests.support.hospital import Hospital
from webhook_gateway.delivery import operational
from webhook_gateway.rules import ids
from webhook_gateway.rules.model import Endpoint, Health

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (Health(failing_since=NOW - operational.LONG), Health(), ["gateway.endpoint_recovered"]),
        (Health(failing_since=NOW - operational.LONG + 1), Health(), []),
        (Health(failing_since=NOW - operational.LONG), Health(failing_since=NOW - operational.LONG), []),
        (Health(), Health(failing_since=NOW), []),
        (Health(), Health(open_until=NOW + 5), ["gateway.breaker_opened"]),
        (Health(open_until=NOW), Health(), ["gateway.breaker_closed"]),
    ],
)
async def test_an_endpoint_that_answers_after_an_hour_of_failures_has_recovered(
    hospital: Hospital, before: Health, after: Health, told: list[str]
) -> None:
    endpoint_id = await hospital.endpoint()
    endpoint = Endpoint(endpoint_id, hospital.tenant_id, hospital.subscriber_id, 1, "https://x.example", ())
    async with hospital.database.connection() as connection:
        await operational.health_changed(connection, hospital.vault, endpoint, before, after, NOW)
    rows = await hospital.rows("SELECT id, type, body FROM events")
    assert [row["type"] for row in rows] == told
    for row in rows:
        body = json.loads(hospital.vault.open(hospital.tenant_id, "events", row["id"], row["body"]))
        assert body["data"]["endpoint_id"] == ids.render(ids.ENDPOINT, endpoint_id)
