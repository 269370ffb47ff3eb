"""Standard Webhooks signatures, against the vector and the independent library."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from webhook_gateway.rules import signing

VECTOR = json.loads((Path(__file__).parents[1] / "data/signature-vector.json").read_text())
keys = st.binary(min_size=24, max_size=64)


def test_the_vector_holds() -> None:
    body = VECTOR["body"].encode()
    assert signing.sign([VECTOR["secret"]], VECTOR["id"], VECTOR["timestamp"], body) == VECTOR["signature"]


@given(keys, st.text(), st.integers(0, 2**33))
def test_signed_and_the_independent_library_agrees(key: bytes, body: str, timestamp: int) -> None:
    secret = signing.encode_secret(key)
    theirs = Webhook(secret).sign("msg_1", datetime.fromtimestamp(timestamp, UTC), body)
    assert signing.sign([secret], "msg_1", timestamp, body.encode()) == theirs


@given(keys, keys, st.binary())
def test_while_a_secret_is_rotated_both_verify(old: bytes, new: bytes, body: bytes) -> None:
    secrets = [signing.encode_secret(new), signing.encode_secret(old)]
    signature = signing.sign(secrets, "evt_1", 1000, body)
    assert signature.count("v1,") == 2
    for secret in secrets:
        signing.verify(secret, "evt_1", 1000, body, signature, now=1000.0)


@given(keys, st.binary(min_size=1), st.data())
def test_a_changed_byte_is_noticed(key: bytes, body: bytes, data: st.DataObject) -> None:
    secret = signing.encode_secret(key)
    signature = signing.sign([secret], "evt_1", 1000, body)
    at = data.draw(st.integers(0, len(body) - 1))
    changed = body[:at] + bytes([body[at] ^ data.draw(st.integers(1, 255))]) + body[at + 1 :]
    with pytest.raises(signing.BadSignature):
        signing.verify(secret, "evt_1", 1000, changed, signature, now=1000.0)


@pytest.mark.parametrize("way", [-1, 1])
def test_a_timestamp_may_be_five_minutes_off_and_no_more(way: int) -> None:
    secret = signing.encode_secret(b"k" * 32)
    signature = signing.sign([secret], "evt_1", 1000, b"{}")
    signing.verify(secret, "evt_1", 1000, b"{}", signature, now=1000 + way * 300.0)
    with pytest.raises(signing.BadSignature, match="five minutes"):
        signing.verify(secret, "evt_1", 1000, b"{}", signature, now=1000 + way * 300.001)


@pytest.mark.parametrize("length", [24, 64])
def test_a_secret_has_24_to_64_bytes(length: int) -> None:
    assert signing.parse_secret(signing.encode_secret(bytes(length))) == bytes(length)
    with pytest.raises(signing.BadSecret):
        signing.parse_secret(signing.encode_secret(bytes(length + (1 if length == 64 else -1))))


def test_a_secret_of_ours_has_as_many_bytes_as_what_hmac_makes_with_it() -> None:
    """RFC 2104, section 3: a shorter one would be weaker, a longer one adds nothing."""
    assert hashlib.sha256().digest_size == signing.SECRET_BYTES


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_short", "whsec_" + "A" * 31 + "=", "whsec_€", "whsec_" + "A" * 100]
)
def test_a_bad_secret_says_what_a_secret_is(secret: str) -> None:
    with pytest.raises(signing.BadSecret, match="24 to 64 bytes"):
        signing.parse_secret(secret)
