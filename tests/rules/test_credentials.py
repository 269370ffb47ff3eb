"""What the gateway shows to a partner, against the RFCs' own examples; no secret where it does not belong."""

from __future__ import annotations

import json
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook_gateway.rules.credentials import (
    Authorization,
    Basic,
    Bearer,
    ClientCredentials,
    TlsSettings,
    as_stored,
    authorization_from,
    kind_of,
    without_secrets,
)

SECRET = "s3cr3t+&=\u00a3"
texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
EACH: list[Authorization] = [
    Basic("hospital", SECRET),
    Bearer(SECRET),
    ClientCredentials("https://login.example/token", "hospital", SECRET, secret_in="body"),
]


@pytest.mark.parametrize(
    ("username", "password", "header"),
    [
        ("Aladdin", "open sesame", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        ("test", "123\u00a3", "Basic dGVzdDoxMjPCow=="),
    ],
)
def test_basic_is_as_rfc_7617_writes_it(username: str, password: str, header: str) -> None:
    assert Basic(username, password).header == header


def test_bearer_is_as_rfc_6750_writes_it() -> None:
    assert Bearer("mF_9.B5f-4.1JqM").header == "Bearer mF_9.B5f-4.1JqM"


def test_a_token_request_is_as_rfc_6749_writes_it() -> None:
    client = ClientCredentials("https://login.example/token", "s6BhdRkqt3", "gX1fBat3bV")
    assert client.header == "Basic czZCaGRSa3F0MzpnWDFmQmF0M2JW"
    assert client.form == b"grant_type=client_credentials"


@given(texts, texts, st.none() | texts, st.none() | texts)
def test_a_client_shows_its_secret_in_one_place(
    client_id: str, secret: str, scope: str | None, audience: str | None
) -> None:
    asked = {"grant_type": ["client_credentials"]}
    asked |= {name: [value] for name, value in {"scope": scope, "audience": audience}.items() if value is not None}
    shown = {"client_id": [client_id], "client_secret": [secret]}
    for place, form in [("header", asked), ("body", asked | shown)]:
        client = ClientCredentials("https://login.example/token", client_id, secret, scope, audience, place)
        assert parse_qs(client.form.decode(), strict_parsing=True) == form
        assert (client.header is None) == (place == "body")


@pytest.mark.parametrize("authorization", EACH, ids=kind_of)
def test_what_is_stored_comes_back(authorization: Authorization) -> None:
    assert authorization_from(json.loads(json.dumps(as_stored(authorization)))) == authorization


@pytest.mark.parametrize("authorization", EACH, ids=kind_of)
def test_no_secret_is_shown_or_printed(authorization: Authorization) -> None:
    shown = without_secrets(as_stored(authorization))
    assert shown["kind"] == kind_of(authorization)
    assert SECRET not in shown.values()
    assert SECRET not in repr(authorization)
    assert set(as_stored(authorization)) - set(shown) <= {"password", "token", "client_secret"}


def test_a_private_key_is_not_printed() -> None:
    assert "PRIVATE" not in repr(TlsSettings(ca="CA", certificate="CERTIFICATE", key="PRIVATE"))
