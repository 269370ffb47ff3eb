"""API keys: ``whk_``, 8 characters that name the key, 43 that are secret, 6 of checksum.

All of it is base 62, so that a double click selects it whole and a scanner finds it (``whk_[0-9A-Za-z]{57}``). The
checksum is the CRC-32 of what stands before it: a mistyped or invented key is refused without asking the database.
"""

from __future__ import annotations

import hashlib
import re
import zlib

PREFIX = "whk_"
ENTROPY_BYTES = 38
"""Random bytes that `new_key` wants: 6 for the name, 32 for the secret."""

MOST_PATTERNS = 100
MOST_NETWORKS = 50
"""What a key may be bound to at most: each request with it is compared with all of them."""

_NAME_BYTES = 6
_NAME_LENGTH = 8
_SECRET_LENGTH = 43
_CHECKSUM_LENGTH = 6
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_KEY = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{_NAME_LENGTH + _SECRET_LENGTH + _CHECKSUM_LENGTH}}}", re.ASCII)


def new_key(entropy: bytes) -> str:
    """A new key from `ENTROPY_BYTES` random bytes."""
    if len(entropy) != ENTROPY_BYTES:
        raise ValueError(f"a key is made from {ENTROPY_BYTES} random bytes")
    name, secret = int.from_bytes(entropy[:_NAME_BYTES]), int.from_bytes(entropy[_NAME_BYTES:])
    body = PREFIX + _base62(name, _NAME_LENGTH) + _base62(secret, _SECRET_LENGTH)
    return body + _checksum(body)


def is_key(text: str) -> bool:
    """Whether the text can be a key at all: its form and its checksum are right."""
    return _KEY.fullmatch(text) is not None and _checksum(text[:-_CHECKSUM_LENGTH]) == text[-_CHECKSUM_LENGTH:]


def name_of(key: str) -> str:
    """The part that lists and logs may show, for example ``whk_3kTMd09a``."""
    return key[: len(PREFIX) + _NAME_LENGTH]


def digest(key: str) -> bytes:
    """What is stored: SHA-256. With 256 random bits in the key, a slow hash would add nothing."""
    return hashlib.sha256(key.encode()).digest()


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _CHECKSUM_LENGTH)


def _base62(number: int, length: int) -> str:
    characters = []
    for _ in range(length):
        number, digit = divmod(number, len(_ALPHABET))
        characters.append(_ALPHABET[digit])
    return "".join(reversed(characters))
