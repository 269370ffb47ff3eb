"""Endpoints that ask for more than a signature: pinned CAs, client certificates, and ``Authorization`` headers."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs
from uuid import UUID

import pytest
import trustme
from uuid_utils.compat import uuid7

from tests.support.hospital import Hospital
from tests.support.partner import Partner, Received, partner
from webhook_gateway.rules.credentials import Basic, ClientCredentials, as_stored
from webhook_gateway.store import configuration

SECRET = "s3cret+/ä"


def server(ca: trustme.CA, *, clients: trustme.CA | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    if clients is not None:
        clients.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def pem(ca: trustme.CA) -> str:
    return ca.cert_pem.bytes().decode()


async def test_an_endpoint_is_trusted_through_the_ca_that_it_is_pinned_to_and_no_other(hospital: Hospital) -> None:
    theirs, other = trustme.CA(), trustme.CA()
    async with partner(tls=server(theirs)) as there:
        await add(hospital, there.url("/pinned"), tls={"ca": pem(theirs)})
        await add(hospital, there.url("/other"), tls={"ca": pem(other)})
        await add(hospital, there.url("/system"))
        await hospital.accept()
        async with hospital.worker():
            (got,) = await there.got(1)
            await hospital.until("SELECT FROM attempts HAVING count(*) = 3")
        assert got.target == "/pinned"
        rows = await hospital.rows("SELECT outcome, detail, tls_version FROM attempts ORDER BY outcome")
        assert [tuple(row) for row in rows] == [
            ("accepted", None, "TLSv1.3"),
            ("unreachable", "tls_chain_incomplete", None),
            ("unreachable", "tls_chain_incomplete", None),
        ]


async def test_a_client_certificate_is_shown_to_a_partner_who_asks_for_one(hospital: Hospital) -> None:
    ca = trustme.CA()
    shown = ca.issue_cert("gateway.example.org")
    mutual = {
        "ca": pem(ca),
        "certificate": b"".join(blob.bytes() for blob in shown.cert_chain_pems).decode(),
        "key": shown.private_key_pem.bytes().decode(),
    }
    async with partner(tls=server(ca, clients=ca)) as there:
        await add(hospital, there.url("/mutual"), tls=mutual)
        await add(hospital, there.url("/without"), tls={"ca": pem(ca)})
        await hospital.accept()
        async with hospital.worker():
            (got,) = await there.got(1)
            await hospital.until("SELECT FROM attempts HAVING count(*) = 2")
        assert got.target == "/mutual"
        (row,) = await hospital.rows("SELECT * FROM endpoints WHERE url LIKE '%mutual'")
        assert b"PRIVATE KEY" not in row["tls"]


async def test_basic_and_bearer_are_sent_as_their_rfcs_say(hospital: Hospital) -> None:
    async with partner() as there:
        await add(hospital, there.url("/basic"), authorization=as_stored(Basic("Aladdin", "open sesame")))
        await add(hospital, there.url("/bearer"), authorization={"kind": "bearer", "token": "mF_9.B5f-4.1JqM"})
        await hospital.accept()
        async with hospital.worker():
            got = {one.target: one.headers["authorization"] for one in await there.got(2)}
        assert got == {
            "/basic": "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",  # RFC 7617, section 2
            "/bearer": "Bearer mF_9.B5f-4.1JqM",  # RFC 6750, section 2.1
        }


class OAuth:
    """A token server and the API behind it, in one partner."""

    def __init__(self, lifetime: int = 3_600) -> None:
        self.lifetime = lifetime
        self.given: list[str] = []
        self.revoked: set[str] = set()
        self.refuses = False

    def __call__(self, got: Received) -> tuple[int, bytes]:
        if got.target == "/token":
            if self.refuses:
                return 401, b'{"error": "invalid_client"}'
            self.given.append(f"token-{len(self.given)}")
            answer = {"access_token": self.given[-1], "token_type": "Bearer", "expires_in": self.lifetime}
            return 200, json.dumps(answer).encode()
        token = got.headers.get("authorization", "").removeprefix("Bearer ")
        return (204 if token in self.given and token not in self.revoked else 401), b""


def credentials(there: Partner, **changes: object) -> dict[str, object]:
    made = ClientCredentials(there.url("/token"), "gateway:1", SECRET, scope="events write")
    return as_stored(made) | changes


async def test_a_token_is_had_once_and_used_for_every_delivery(hospital: Hospital) -> None:
    oauth = OAuth()
    async with partner(otherwise=oauth) as there:
        await add(hospital, there.url(), authorization=credentials(there), ordering="none")
        for number in range(30):
            await hospital.accept(payment_id=f"pay_{number}")
        async with hospital.worker():
            got = await there.got(30, "/hook")
        assert {one.headers["authorization"] for one in got} == {"Bearer token-0"}
        (asked,) = await there.got(1, "/token")
        form = {name: values[0] for name, values in parse_qs(asked.body.decode(), strict_parsing=True).items()}
        assert form == {"grant_type": "client_credentials", "scope": "events write"}
        assert asked.headers["content-type"] == "application/x-www-form-urlencoded"
        # RFC 6749, section 2.3.1: both parts are form-encoded before they are joined.
        assert (
            base64.b64decode(asked.headers["authorization"].removeprefix("Basic ")) == b"gateway%3A1:s3cret%2B%2F%C3%A4"
        )


async def test_a_server_may_want_the_secret_in_the_body(hospital: Hospital) -> None:
    async with partner(otherwise=OAuth()) as there:
        await add(hospital, there.url(), authorization=credentials(there, secret_in="body", audience="urn:hospital"))
        await hospital.accept()
        async with hospital.worker():
            (asked,) = await there.got(1, "/token")
            await there.got(1, "/hook")
        form = {name: values[0] for name, values in parse_qs(asked.body.decode(), strict_parsing=True).items()}
        assert "authorization" not in asked.headers
        assert (form["client_id"], form["client_secret"], form["audience"]) == ("gateway:1", SECRET, "urn:hospital")


async def test_a_401_drops_the_token_and_the_retry_brings_a_new_one(hospital: Hospital) -> None:
    oauth = OAuth()
    async with partner(otherwise=oauth) as there:
        await add(hospital, there.url(), authorization=credentials(there), schedule=[0.05, 0.05, 0.05])
        async with hospital.worker():
            await hospital.accept()
            await there.got(1, "/hook")
            oauth.revoked.add("token-0")
            await hospital.accept()
            got = await there.got(3, "/hook")
        tokens = [one.headers["authorization"] for one in got]
        assert tokens == ["Bearer token-0", "Bearer token-0", "Bearer token-1"]


async def test_a_token_is_not_used_to_its_very_end(hospital: Hospital) -> None:
    oauth = OAuth(lifetime=1)  # used for half a second
    async with partner(otherwise=oauth) as there:
        await add(hospital, there.url(), authorization=credentials(there))
        async with hospital.worker():
            await hospital.accept()
            await there.got(1, "/hook")
            await asyncio.sleep(0.6)  # time itself is what is tested
            await hospital.accept()
            await there.got(2, "/hook")
        assert len(oauth.given) == 2


async def test_without_a_token_nothing_is_sent_to_the_partner_and_the_attempt_says_why(hospital: Hospital) -> None:
    oauth = OAuth()
    oauth.refuses = True
    async with partner(otherwise=oauth) as there:
        await add(hospital, there.url(), authorization=credentials(there), schedule=[60.0])
        await hospital.accept()
        async with hospital.worker():
            await hospital.until("SELECT FROM attempts HAVING count(*) = 1")
        assert [got.target for got in there.received] == ["/token"]
        (row,) = await hospital.rows("SELECT phase, outcome, detail FROM attempts")
        assert tuple(row) == ("started", "unreachable", "token_refused")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"null",
        b"{",
        b'{"access_token": "a\\r\\nx-evil: 1", "token_type": "bearer"}',
        b'{"access_token": "a", "token_type": "mac"}',
        b'{"access_token": 1, "token_type": "bearer"}',
        b'{"access_token": "' + b"a" * 20_000 + b'", "token_type": "bearer"}',
        b"[" * 10_000,
    ],
)
async def test_what_is_no_bearer_token_is_never_sent_on(hospital: Hospital, answer: bytes) -> None:
    async with partner(otherwise=lambda _: (200, answer)) as there:
        await add(hospital, there.url(), authorization=credentials(there), schedule=[60.0])
        await hospital.accept()
        async with hospital.worker():
            await hospital.until("SELECT FROM attempts HAVING count(*) = 1")
        assert [got.target for got in there.received] == ["/token"]
        (row,) = await hospital.rows("SELECT outcome, detail FROM attempts")
        assert tuple(row) == ("unreachable", "token_unusable")


async def test_a_token_server_stands_behind_the_same_egress_guard(hospital: Hospital) -> None:
    async with partner() as there:
        metadata = credentials(there, token_url="http://169.254.169.254/latest/token")
        await add(hospital, there.url(), authorization=metadata, schedule=[60.0])
        await hospital.accept()
        async with hospital.worker():
            await hospital.until("SELECT FROM attempts HAVING count(*) = 1")
        assert not there.received
        (row,) = await hospital.rows("SELECT outcome, detail FROM attempts")
        assert tuple(row) == ("blocked", "metadata")


async def test_a_sealed_column_opens_in_no_other_columns_place(hospital: Hospital) -> None:
    async with partner() as there:
        endpoint_id = await add(hospital, there.url(), authorization={"kind": "bearer", "token": "abc"})
        await hospital.rows('UPDATE endpoints SET headers = "authorization", "authorization" = NULL')
        async with hospital.database.connection() as connection:
            found = await configuration.snapshot(connection, hospital.vault)
        assert found.unsendable == {endpoint_id}


async def add(
    hospital: Hospital,
    url: str,
    *,
    tls: Mapping[str, Any] | None = None,
    authorization: Mapping[str, Any] | None = None,
    **columns: Any,
) -> UUID:
    """An endpoint with these credentials, sealed."""
    endpoint_id = uuid7()
    for column, value in (("tls", tls), ("authorization", authorization)):
        if value is not None:
            columns[column] = configuration.seal_column(hospital.vault, hospital.tenant_id, endpoint_id, column, value)
    return await hospital.endpoint(url=url, id=endpoint_id, **columns)
