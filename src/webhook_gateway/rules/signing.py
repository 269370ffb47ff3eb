"""Standard Webhooks 1.0.0 signatures (https://github.com/standard-webhooks/standard-webhooks), symmetric kind.

What is signed is ``{webhook-id}.{webhook-timestamp}.{body}``; the secret is ``whsec_`` and base64 of 24 to 64 bytes.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterable
from functools import lru_cache

from .keyed_hash import KeyedHash

SECRET_PREFIX = "whsec_"  # noqa: S105 - what secrets begin with
SECRET_BYTES = 32
TOLERANCE = 300
"""Seconds by which a timestamp may be off, as the specification recommends."""


class BadSecret(ValueError):
    """A signing secret is whsec_ followed by base64 of 24 to 64 bytes."""


class BadSignature(ValueError):
    """The message was not signed with this secret, or was changed, or is too old."""


def encode_secret(key: bytes) -> str:
    return SECRET_PREFIX + base64.b64encode(key).decode()


@lru_cache(maxsize=16_384)
def parse_secret(secret: str) -> bytes:
    """The key's bytes.

    Raises:
        BadSecret: no base64, or fewer than 24 or more than 64 bytes.
    """
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise BadSecret(str(BadSecret.__doc__)) from None
    if not 24 <= len(key) <= 64:
        raise BadSecret(str(BadSecret.__doc__))
    return key


def sign(secrets: Iterable[str], message_id: str, timestamp: int, body: bytes) -> str:
    """The ``webhook-signature`` header: one ``v1`` signature for each live secret, separated by spaces.

    ``timestamp`` is the attempt's, in whole Unix seconds.
    """
    content = f"{message_id}.{timestamp}.".encode() + body
    return " ".join([f"v1,{_mac(secret, content)}" for secret in secrets])


def verify(secret: str, message_id: str, timestamp: int, body: bytes, signature: str, now: float) -> None:
    """Checks a received message, in constant time for each signature offered.

    Raises:
        BadSignature: nothing offered fits, or the timestamp is more than five minutes off.
    """
    if not now - TOLERANCE <= timestamp <= now + TOLERANCE:
        raise BadSignature(
            "the timestamp is more than five minutes off: check both clocks, or it is a replayed request"
        )
    expected = _mac(secret, f"{message_id}.{timestamp}.".encode() + body).encode()
    offered = (part.partition(",") for part in signature.split())
    if not any(
        version == "v1" and hmac.compare_digest(mac.encode(errors="replace"), expected) for version, _, mac in offered
    ):
        raise BadSignature("no signature fits: check the secret, and that the body's bytes are the ones received")


def _mac(secret: str, content: bytes) -> str:
    return binascii.b2a_base64(_keyed(secret).digest(content), newline=False).decode()


@lru_cache(maxsize=16_384)
def _keyed(secret: str) -> KeyedHash:
    return KeyedHash(parse_secret(secret))
