"""What a scrape shows of partners, and of what expires: bounded, and with the name by which people know them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import trustme

from tests.support.rows import EVERYTHING, store_attempts
from tests.web.serving import Api, running
from tests.web.world import World, make_world, post
from webhook_gateway.rules import ids


async def shown(client: httpx.AsyncClient, name: str) -> dict[str, float]:
    """By labels as they are written."""
    text = (await client.get("/metrics")).text
    return {
        labels: float(value) for labels, value in re.findall(rf"^webhook_gateway_{name}\{{(.*)\}} (\S+)$", text, re.M)
    }


async def note(api: Api, world: World, endpoint: str, outcome: str, attempts: int, seconds_ago: float = 60) -> None:
    async with api.database.connection() as connection:
        endpoint_id, delivery_id = ids.parse(ids.ENDPOINT, endpoint), ids.parse(ids.DELIVERY, world.delivery_id)
        about = {"outcome": outcome, "status": None, "attempts": attempts, "seconds_ago": seconds_ago}
        await store_attempts(connection, api.tenant_id, endpoint_id, delivery_id, **about)  # type: ignore[arg-type]


async def test_endpoints_with_most_to_do_have_metrics_of_their_own_and_the_rest_are_other(database_url: str) -> None:
    async with running(database_url, metrics_endpoints=1) as api, await api.as_client("admin") as admin:
        world = await make_world(api, admin, api.tenant_id)
        lab = await post(admin, "/v1/subscribers", {"name": 'A "small" Lab', **EVERYTHING})
        small = await post(admin, "/v1/endpoints", {"subscriber_id": lab["id"], "url": "https://lab.example.com/"})
        own = f'endpoint="{world.endpoint_id}"', 'subscriber="Northside"'
        before = (await shown(admin, "endpoint_attempts"))[f'{own[0]},outcome="failed",{own[1]}']
        await note(api, world, world.endpoint_id, "accepted", 90)
        await note(api, world, world.endpoint_id, "rejected", 9)
        await note(api, world, world.endpoint_id, "rejected", 1, seconds_ago=3_000)
        await note(api, world, small["id"], "timed_out", 3)
        assert await shown(admin, "endpoint_attempts") == {
            f'{own[0]},outcome="accepted",{own[1]}': 90,
            f'{own[0]},outcome="failed",{own[1]}': before + 9,
            'endpoint="other",outcome="accepted",subscriber="other"': 0,
            'endpoint="other",outcome="failed",subscriber="other"': 3,
        }
        accepted = await shown(admin, "endpoint_last_accepted_timestamp_seconds")
        assert accepted == {",".join(own): pytest.approx(datetime.now(UTC).timestamp() - 60, abs=30)}
        others = 'endpoint="other",subscriber="other"'
        assert (await shown(admin, "oldest_due_seconds")).keys() == {",".join(own), others}


async def test_what_expires_is_shown_with_the_moment_the_next_first(api: Api, admin: httpx.AsyncClient) -> None:
    world = await make_world(api, admin, api.tenant_id)
    soon, later = (datetime.now(UTC).replace(microsecond=0) + timedelta(days=days) for days in (3, 300))
    keys = [
        await post(admin, "/v1/keys", {"name": name, "role": "producer", "expires_at": at.isoformat()})
        for name, at in (("hms", soon), ("laboratory", later), ("revoked", soon))
    ]
    assert (await admin.post(f"/v1/keys/{keys[2]['id']}/revoke")).is_success
    await post(admin, f"/v1/endpoints/{world.endpoint_id}/rotate-secret", {"overlap_seconds": 3_600})
    certificate = trustme.CA().issue_cert("gateway.example", not_after=later + timedelta(days=1))
    tls = {
        "certificate": certificate.cert_chain_pems[0].bytes().decode(),
        "key": certificate.private_key_pem.bytes().decode(),
    }
    assert (await admin.patch(f"/v1/endpoints/{world.endpoint_id}", json={"tls": tls})).is_success
    found = await shown(admin, "expires_timestamp_seconds")
    of_endpoint = f'id="{world.endpoint_id}",kind="%s",name="Northside"'
    assert list(found) == [
        of_endpoint % "signing_secret",
        f'id="{keys[0]["id"]}",kind="api_key",name="hms"',
        f'id="{keys[1]["id"]}",kind="api_key",name="laboratory"',
        of_endpoint % "client_certificate",
    ]
    _, hms, laboratory, shown_to_partner = found.values()
    assert [hms, laboratory] == [soon.timestamp(), later.timestamp()]
    assert shown_to_partner == (later + timedelta(days=1)).timestamp()
