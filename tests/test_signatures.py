"""Ed25519 signatures fit RFC 8032, Standard Webhooks and RFC 8037, by implementations other than ours."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import OKPKey

from webhook_gateway.crypto import signatures
from webhook_gateway.rules.signing import BadSecret, BadSignature, encode_secret

# RFC 8032, section 7.1, test 2; and RFC 8037, appendix A, whose key is that of test 1.
SEED = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
PUBLIC = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
OTHER_PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
NOW = 1_795_392_000


def whpk(raw: bytes) -> str:
    return "whpk_" + base64.b64encode(raw).decode()


def test_a_seed_gives_the_public_key_of_rfc_8032() -> None:
    assert signatures.public_key_of(signatures.encode_private_key(SEED)) == whpk(PUBLIC)
    assert signatures.public_key_of("whsk_" + base64.b64encode(SEED).decode()) == whpk(PUBLIC)


def test_a_public_key_is_the_jwk_of_rfc_8037_with_its_thumbprint() -> None:
    jwk = signatures.jwk_of(whpk(OTHER_PUBLIC))
    assert jwk["x"] == "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    assert jwk["kid"] == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    assert (jwk["kty"], jwk["crv"], jwk["alg"]) == ("OKP", "Ed25519", "EdDSA")
    assert OKPKey.import_key(dict(jwk)).thumbprint() == jwk["kid"]


@given(st.binary(max_size=2_000), st.integers(0, 2**40), st.from_regex(r"\Aevt_[0-9a-z]{26}\Z"))
def test_whoever_follows_the_specification_can_verify(body: bytes, timestamp: int, message_id: str) -> None:
    private = signatures.new_private_key()
    header = signatures.sign([private], message_id, timestamp, body)
    version, _, encoded = header.partition(",")
    assert version == "v1a"
    # {msg_id}.{timestamp}.{payload}, with the key as the specification serializes it.
    raw = base64.b64decode(signatures.public_key_of(private).removeprefix("whpk_"))
    Ed25519PublicKey.from_public_bytes(raw).verify(
        base64.b64decode(encoded), message_id.encode() + b"." + str(timestamp).encode() + b"." + body
    )
    with pytest.raises(InvalidSignature):
        Ed25519PublicKey.from_public_bytes(raw).verify(base64.b64decode(encoded), b"x" + body)
    signatures.verify(signatures.public_key_of(private), message_id, timestamp, body, header, timestamp)


def test_a_message_signed_elsewhere_is_verified() -> None:
    key = Ed25519PrivateKey.from_private_bytes(SEED)
    header = "v1a," + base64.b64encode(key.sign(f"msg_1.{NOW}.".encode() + b"{}")).decode()
    signatures.verify(whpk(PUBLIC), "msg_1", NOW, b"{}", header, NOW)
    for changed in (("msg_2", NOW, b"{}"), ("msg_1", NOW + 1, b"{}"), ("msg_1", NOW, b"[]")):
        with pytest.raises(BadSignature):
            signatures.verify(whpk(PUBLIC), *changed, header, NOW)
    with pytest.raises(BadSignature):
        signatures.verify(whpk(OTHER_PUBLIC), "msg_1", NOW, b"{}", header, NOW)
    with pytest.raises(BadSignature, match="five minutes"):
        signatures.verify(whpk(PUBLIC), "msg_1", NOW, b"{}", header, NOW + 301)


def test_during_a_change_of_kind_each_live_secret_signs_in_its_own() -> None:
    shared, private = encode_secret(bytes(32)), signatures.encode_private_key(SEED)
    header = signatures.sign([private, shared], "msg_1", NOW, b"{}")
    assert [part.partition(",")[0] for part in header.split()] == ["v1a", "v1"]
    signatures.verify(shared, "msg_1", NOW, b"{}", header, NOW)
    signatures.verify(whpk(PUBLIC), "msg_1", NOW, b"{}", header, NOW)


def test_a_public_key_never_verifies_an_hmac_made_with_it() -> None:
    """Who knows the public key knows no secret: were it taken as one, anybody could sign."""
    mac = hmac.digest(PUBLIC, f"msg_1.{NOW}.".encode() + b"{}", hashlib.sha256)
    header = "v1," + base64.b64encode(mac).decode()
    with pytest.raises(BadSignature):
        signatures.verify(whpk(PUBLIC), "msg_1", NOW, b"{}", header, NOW)


@pytest.mark.parametrize(
    "key",
    [
        "whsk_",
        "whsk_AAAA",
        "whsk_" + base64.b64encode(SEED + OTHER_PUBLIC).decode(),
        "whpk_AAAA",
        "whpk_" + "é" * 44,
        "whsec_AAAA",
        "",
    ],
)
def test_what_is_no_key_is_refused_without_being_quoted(key: str) -> None:
    with pytest.raises(BadSecret) as refused:
        signatures.check(key)
    assert not key.partition("_")[2] or key not in str(refused.value)


@given(st.text(max_size=200))
def test_no_signature_header_raises_anything_else(header: str) -> None:
    with pytest.raises(BadSignature):
        signatures.verify(whpk(PUBLIC), "msg_1", NOW, json.dumps({}).encode(), header, NOW)
