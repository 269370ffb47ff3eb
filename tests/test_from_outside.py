"""Whatever comes from outside ends in a named outcome: each parser of it, with anything and with the almost right."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook_gateway.crypto import signatures
from webhook_gateway.outbound import tokens
from webhook_gateway.outbound.http1 import Answer, Connection, NoAnswer
from webhook_gateway.outbound.tls import trust_in
from webhook_gateway.rules.credentials import TlsSettings
from webhook_gateway.rules.outcome import Accepted, Exchange, Phase, ResponseSummary, Unreachable
from webhook_gateway.rules.retry_after import LONGEST, read_retry_after
from webhook_gateway.rules.signing import BadSignature

NOW = datetime(2026, 11, 26, tzinfo=UTC)
ODD_NUMBERS = ["10", "\u00b2", "\u0661", "-1", "1e400", " 5", "", "9" * 400, "0x10", "NaN", "\U0001d7d9"]

values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([10**400, -(10**400), *ODD_NUMBERS]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
token_answers = st.fixed_dictionaries(
    {},
    optional={
        "token_type": st.sampled_from(["Bearer", "bearer", "mac"]) | values,
        "access_token": st.just("abc") | values,
        "expires_in": values,
    },
).map(lambda answer: json.dumps(answer).encode())


@given(st.binary() | values.map(lambda value: json.dumps(value).encode()) | token_answers)
def test_a_token_answer_gives_a_token_for_a_day_at_most_or_none(body: bytes) -> None:
    read = tokens.read(answered(body), 1_000.0)
    if isinstance(read, tokens.Token):
        assert 1_000.0 < read.until <= 1_000.0 + tokens.LONGEST
        assert read.text.isascii()
    else:
        assert read == Unreachable("token_unusable")


@pytest.mark.parametrize(
    ("expires_in", "lives"),
    [
        ("10" + "0" * 399, 86_370.0),
        ('"\u00b2"', 270.0),
        ('"3600"', 3570.0),
        ("Infinity", 86_370.0),
        ("NaN", 270.0),
        ("true", 270.0),
    ],
)
def test_an_odd_lifetime_is_the_usual_one_or_a_day(expires_in: str, lives: float) -> None:
    body = f'{{"token_type": "Bearer", "access_token": "abc", "expires_in": {expires_in}}}'.encode()
    assert tokens.read(answered(body), 0.0) == tokens.Token("abc", lives)


def answered(body: bytes) -> Exchange:
    summary = ResponseSummary(len(body), False, "application/json", sha256(body).digest(), body)
    return Exchange(Accepted(200), Phase.ANSWERED, 0.1, response=summary)


http_dates = st.from_regex(
    r"[A-Z][a-z]{2}, [0-9]{1,3} [A-Z][a-z]{2} [0-9]{1,5} [0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2} [A-Z+-][A-Z0-9]{0,4}"
)


@given(st.text() | http_dates | st.sampled_from(ODD_NUMBERS))
def test_a_retry_after_is_a_wait_of_a_day_at_most_or_none(header: str) -> None:
    seconds = read_retry_after(header, NOW)
    assert seconds is None or 0 <= seconds <= LONGEST


pieces = st.sampled_from(
    [
        *(
            b"HTTP/1.1 ",
            b"HTTP/1.0 ",
            b"HTTP/2 ",
            b"200",
            b"100",
            b"503",
            b" OK",
            b"\r\n",
            b"\n",
            b"\r",
            b": ",
            b" ",
            b"\x00",
        ),
        *(
            b"Content-Length",
            b"Transfer-Encoding",
            b"chunked",
            b"2",
            b"-1",
            b"9" * 30,
            b"ok",
            b"0\r\n\r\n",
            b"Connection: close",
        ),
        *(b"Upgrade: x", b"Set-Cookie: a", b"X: " + b"y" * 9_000),
    ]
) | st.binary(max_size=8)


@given(st.lists(pieces, max_size=20), st.booleans())
def test_whatever_bytes_a_partner_sends_are_an_answer_or_none_with_a_name(sent: list[bytes], head_only: bool) -> None:
    async def exchange() -> Answer | NoAnswer:
        connection = Connection()
        connection.connection_made(Deaf())
        waiter = connection.exchange(b"POST / HTTP/1.1\r\n\r\n", head_only=head_only)
        for data in sent:
            if not waiter.done():
                connection.data_received(data)
        if not waiter.done():
            connection.eof_received()
        try:
            return waiter.result()
        except NoAnswer as error:
            return error

    found = asyncio.run(exchange())
    if isinstance(found, Answer):
        assert 200 <= found.status <= 999
        assert not found.malformed or found.status < 300


class Deaf(asyncio.Transport):
    def write(self, data: object) -> None: ...

    def abort(self) -> None: ...


@given(st.text(), st.text(), st.text())
def test_tls_settings_are_usable_or_refused_as_those(ca: str, certificate: str, key: str) -> None:
    try:
        trust_in(TlsSettings(ca=ca, certificate=certificate, key=key))
    except (OSError, ValueError):
        return


@given(st.text(), st.integers(), st.text(), st.sampled_from(["v1,", "v1a,", ""]))
def test_a_signature_of_any_text_is_a_bad_one(message_id: str, timestamp: int, text: str, version: str) -> None:
    for key in ("whsec_" + "A" * 32, PUBLIC_KEY):
        for moment in (timestamp, 10**400):
            with pytest.raises(BadSignature):
                signatures.verify(key, message_id, moment, b"{}", version + text, float(timestamp))


PUBLIC_KEY = signatures.public_key_of(signatures.new_private_key())
