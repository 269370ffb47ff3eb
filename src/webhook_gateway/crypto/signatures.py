"""Signatures of both kinds that Standard Webhooks 1.0.0 knows: ``v1`` (HMAC) and ``v1a`` (Ed25519, RFC 8032).

With ``v1a`` a partner holds no secret: it has the public key (``whpk_``), and only the gateway has the private one
(``whsk_``). What is signed is the same. Which kind is meant shows in the key's prefix.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from webhook_gateway.rules import signing
from webhook_gateway.rules.signing import TOLERANCE, BadSecret, BadSignature

PRIVATE_PREFIX = "whsk_"
PUBLIC_PREFIX = "whpk_"
SEED_BYTES = 32


class BadPrivateKey(BadSecret):
    """A private signing key is whsk_ followed by base64 of 32 bytes (the seed), or 64 (the seed and the public key)."""


class BadPublicKey(BadSecret):
    """A public key is whpk_ followed by base64 of 32 bytes."""


def new_private_key() -> str:
    return encode_private_key(Ed25519PrivateKey.generate().private_bytes_raw())


def encode_private_key(seed: bytes) -> str:
    """Seed and public key together, as other implementations of the specification write and expect it."""
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    return PRIVATE_PREFIX + base64.b64encode(seed + public).decode()


def public_key_of(private_key: str) -> str:
    """The public key, for the partner.

    Raises:
        BadPrivateKey: it is no private key.
    """
    return PUBLIC_PREFIX + base64.b64encode(_private(private_key).public_key().public_bytes_raw()).decode()


def verifier_of(secret: str) -> str:
    """What a partner verifies with: the secret, or of a pair of keys the public one."""
    return public_key_of(secret) if is_private_key(secret) else secret


def is_private_key(secret: str) -> bool:
    return secret.startswith(PRIVATE_PREFIX)


def sign(secrets: Sequence[str], message_id: str, timestamp: int, body: bytes) -> str:
    """The ``webhook-signature`` header: a signature for each live secret, of the kind that its prefix names.

    Raises:
        BadSecret: one of them can't be used.
    """
    if len(secrets) == 1 and not secrets[0].startswith(PRIVATE_PREFIX):  # as nearly always
        return signing.sign(secrets, message_id, timestamp, body)
    return " ".join(
        _sign(secret, message_id, timestamp, body)
        if is_private_key(secret)
        else signing.sign([secret], message_id, timestamp, body)
        for secret in secrets
    )


def verify(key: str, message_id: str, timestamp: int, body: bytes, signature: str, now: float) -> None:
    """Checks a received message with a shared secret (``whsec_``), or a public or private key.

    Raises:
        BadSecret: the key can't be used.
        BadSignature: nothing offered fits, or the timestamp is more than five minutes off.
    """
    if not key.startswith((PUBLIC_PREFIX, PRIVATE_PREFIX)):
        signing.verify(key, message_id, timestamp, body, signature, now)
        return
    public = _private(key).public_key() if is_private_key(key) else _public(key)
    if not now - TOLERANCE <= timestamp <= now + TOLERANCE:
        raise BadSignature(
            "the timestamp is more than five minutes off: check both clocks, or it is a replayed request"
        )
    content = _content(message_id, timestamp, body)
    offered = (part.partition(",") for part in signature.split())
    if not any(version == "v1a" and _fits(public, text, content) for version, _, text in offered):
        raise BadSignature("no signature fits: check the key, and that the body's bytes are the ones received")


def check(key: str) -> None:
    """
    Raises:
        BadSecret: the key is of no kind that `verify` takes.
    """
    if is_private_key(key):
        _private(key)
    elif key.startswith(PUBLIC_PREFIX):
        _public(key)
    else:
        signing.parse_secret(key)


def sign_content(private_key: str, content: bytes) -> str:
    """Base64 of a plain Ed25519 signature, for what is no message to a partner.

    Raises:
        BadPrivateKey: it is no private key.
    """
    return base64.b64encode(_private(private_key).sign(content)).decode()


def fits_content(public_key: str, signature: str, content: bytes) -> bool:
    """Whether `sign_content` has made the signature with the private key of this public one.

    Raises:
        BadPublicKey: it is no public key.
    """
    return _fits(_public(public_key), signature, content)


def jwk_of(public_key: str) -> dict[str, str]:
    """The public key as a JSON Web Key (RFC 8037), whose id is its thumbprint (RFC 7638)."""
    members = {"crv": "Ed25519", "kty": "OKP", "x": _url(_decode(public_key, PUBLIC_PREFIX, BadPublicKey, {32}))}
    canonical = json.dumps(members, separators=(",", ":"), sort_keys=True)
    return {**members, "use": "sig", "alg": "EdDSA", "kid": _url(hashlib.sha256(canonical.encode()).digest())}


def _sign(private_key: str, message_id: str, timestamp: int, body: bytes) -> str:
    return "v1a," + sign_content(private_key, _content(message_id, timestamp, body))


def _fits(public: Ed25519PublicKey, text: str, content: bytes) -> bool:
    try:
        public.verify(base64.b64decode(text, validate=True), content)
    except (InvalidSignature, ValueError):
        return False
    return True


def _content(message_id: str, timestamp: int, body: bytes) -> bytes:
    return f"{message_id}.{timestamp}.".encode() + body


@lru_cache(maxsize=16_384)
def _private(key: str) -> Ed25519PrivateKey:
    raw = _decode(key, PRIVATE_PREFIX, BadPrivateKey, {SEED_BYTES, 64})
    private = Ed25519PrivateKey.from_private_bytes(raw[:SEED_BYTES])
    # A public half that doesn't belong would be a mistake of whoever joined them; nobody could verify a signature.
    if raw[SEED_BYTES:] not in {b"", private.public_key().public_bytes_raw()}:
        raise BadPrivateKey(str(BadPrivateKey.__doc__))
    return private


def _public(key: str) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(_decode(key, PUBLIC_PREFIX, BadPublicKey, {32}))


def _decode(key: str, prefix: str, wrong: type[BadSecret], lengths: set[int]) -> bytes:
    try:
        raw = base64.b64decode(key.removeprefix(prefix), validate=True)
    except (binascii.Error, ValueError):
        raise wrong(str(wrong.__doc__)) from None
    if not key.startswith(prefix) or len(raw) not in lengths:
        raise wrong(str(wrong.__doc__))
    return raw


def _url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
