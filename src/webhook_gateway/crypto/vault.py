"""Encryption at rest: AES-256-GCM with a data key per tenant, wrapped by a versioned master key.

A sealed record is ``version (1) | data key id (4) | nonce (12) | ciphertext and tag``, bound to tenant, table and
row: a record copied to another row doesn't open. The layout follows NIST SP 800-38D (96-bit nonces).

Nonces are random, so that standard (section 8.3) lets a key seal at most 2³² records. They are counted, and before that
many a data key is replaced: `webhook-gateway keys rotate`.
"""

from __future__ import annotations

import base64
import os
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from webhook_gateway.rules.keyed_hash import KeyedHash

KEY_BYTES = 32
_VERSION = 1
_NONCE_BYTES = 12
_HEADER = struct.Struct(">BI")


class KeyMissing(Exception):
    """The key that this record was sealed with is not there (yet). Nothing is lost: give the key back."""


class Tampered(Exception):
    """The record doesn't open with its key: it was changed, or belongs to another row."""


class BadMasterKey(ValueError):
    """A master key is name:base64 with 32 bytes, for example made by `webhook-gateway keys master`."""


@dataclass(frozen=True, slots=True)
class DataKey:
    """A tenant's key as stored.

    ``purpose`` is ``seal`` (encrypts), ``index`` (hashes keys for look-up) or ``audit`` (signs heads of the audit log).
    """

    id: int
    tenant_id: UUID
    purpose: str
    master_key: str
    wrapped: bytes


class Wrapping(Protocol):
    """What keeps data keys safe: master keys in this process (`MasterKeys`), or a key service elsewhere.

    A key service (a KMS, an HSM, Vault's transit engine) needs these three and nothing more. Its calls may block: the
    keyring makes them in a thread, once for each data key and process, never for a record.
    """

    @property
    def newest(self) -> str:
        """The name of the master key that wraps from now on."""

    def wrap(self, tenant_id: UUID, purpose: str, key: bytes) -> tuple[str, bytes]:
        """The master key's name, and the data key wrapped by it, bound to tenant and purpose."""

    def unwrap(self, data_key: DataKey) -> bytes:
        """The data key itself.

        Raises:
            KeyMissing: its master key can't be had (now).
            Tampered: the wrapped key was changed, or the master key is another one of the same name.
        """


class MasterKeys:
    """The keys that wrap data keys, by name; the first one given wraps new ones."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = dict(keys)

    @classmethod
    def parse(cls, text: str) -> MasterKeys:
        """Reads ``name:base64,name:base64`` (commas or lines).

        Raises:
            BadMasterKey: nothing there, a name without a key, or a key that is not 32 bytes.
        """
        keys: dict[str, bytes] = {}
        for part in text.replace("\n", ",").split(","):
            if not part.strip():
                continue
            name, _, encoded = part.strip().partition(":")
            try:
                key = base64.b64decode(encoded, validate=True)
            except ValueError:
                raise BadMasterKey(str(BadMasterKey.__doc__)) from None
            if len(key) != KEY_BYTES or not name:
                raise BadMasterKey(str(BadMasterKey.__doc__))
            keys[name] = key
        if not keys:
            raise BadMasterKey(str(BadMasterKey.__doc__))
        return cls(keys)

    @property
    def newest(self) -> str:
        return next(iter(self._keys))

    def wrap(self, tenant_id: UUID, purpose: str, key: bytes) -> tuple[str, bytes]:
        """The newest master key's name, and the data key wrapped by it."""
        nonce = os.urandom(_NONCE_BYTES)
        return self.newest, nonce + AESGCM(self._keys[self.newest]).encrypt(nonce, key, _about(tenant_id, purpose))

    def unwrap(self, data_key: DataKey) -> bytes:
        """The data key itself.

        Raises:
            KeyMissing: its master key is not among ours.
            Tampered: the wrapped key was changed.
        """
        master = self._keys.get(data_key.master_key)
        if master is None:
            raise KeyMissing(f"master key {data_key.master_key!r} is not configured")
        nonce, wrapped = data_key.wrapped[:_NONCE_BYTES], data_key.wrapped[_NONCE_BYTES:]
        try:
            return AESGCM(master).decrypt(nonce, wrapped, _about(data_key.tenant_id, data_key.purpose))
        except InvalidTag:
            raise Tampered(f"data key {data_key.id}") from None


class Vault:
    """Seals and opens records with the data keys it has been given. Does no I/O."""

    def __init__(self, master_keys: Wrapping) -> None:
        self.master_keys = master_keys
        self._ciphers: dict[int, AESGCM] = {}
        self._sealing: dict[UUID, int] = {}
        self._index: dict[UUID, KeyedHash] = {}
        self._audit: dict[UUID, bytes] = {}
        self._taken: set[int] = set()
        self.sealed: Counter[int] = Counter()
        """By data key: how many records it has sealed here since `store.keyring.count` wrote that down."""

    def add(self, data_key: DataKey) -> None:
        """Takes a data key into use; the one with the highest id seals.

        Raises:
            KeyMissing, Tampered: see `MasterKeys.unwrap`.
        """
        self.take(data_key, self.master_keys.unwrap(data_key))

    def take(self, data_key: DataKey, key: bytes) -> None:
        """Takes a data key into use that was unwrapped already."""
        self._taken.add(data_key.id)
        match data_key.purpose:
            case "index":
                self._index[data_key.tenant_id] = KeyedHash(key)
            case "audit":
                self._audit[data_key.tenant_id] = key
            case _:
                self._ciphers[data_key.id] = AESGCM(key)
                self._sealing[data_key.tenant_id] = max(self._sealing.get(data_key.tenant_id, 0), data_key.id)

    def knows(self, tenant_id: UUID) -> bool:
        """Whether the tenant's records can be sealed and its keys hashed."""
        return tenant_id in self._sealing and tenant_id in self._index

    def has(self, data_key_id: int) -> bool:
        """Whether the data key was taken into use: rewrapping doesn't change it, so it needn't be unwrapped again."""
        return data_key_id in self._taken

    def can_open(self, record: bytes) -> bool:
        """Whether the data key that a record names is here."""
        if len(record) < _HEADER.size:
            return False
        version, key_id = _HEADER.unpack_from(record)
        return version == _VERSION and key_id in self._ciphers

    def seal(self, tenant_id: UUID, table: str, row: UUID, plain: bytes) -> bytes:
        """The record for a row.

        Raises:
            KeyMissing: the tenant has no data key here.
        """
        key_id = self._sealing.get(tenant_id)
        if key_id is None:
            raise KeyMissing(f"no data key for tenant {tenant_id}")
        self.sealed[key_id] += 1
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[key_id].encrypt(nonce, plain, _about(tenant_id, table, row))
        return _HEADER.pack(_VERSION, key_id) + nonce + sealed

    def open(self, tenant_id: UUID, table: str, row: UUID, record: bytes) -> bytes:
        """What was sealed.

        Raises:
            KeyMissing: the record's data key is not here.
            Tampered: the record was changed, or belongs to another tenant, table or row.
        """
        if len(record) < _HEADER.size + _NONCE_BYTES:
            raise Tampered(f"{table} {row} is cut short")
        version, key_id = _HEADER.unpack_from(record)
        if version != _VERSION:
            raise Tampered(f"record version {version} in {table}")
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise KeyMissing(f"data key {key_id}")
        body = _HEADER.size + _NONCE_BYTES
        try:
            return cipher.decrypt(record[_HEADER.size : body], record[body:], _about(tenant_id, table, row))
        except InvalidTag:
            raise Tampered(f"{table} {row}") from None

    def digest(self, tenant_id: UUID, text: bytes) -> bytes:
        """See `hashes`."""
        return self.hashes(tenant_id).digest(text)

    def hashes(self, tenant_id: UUID) -> KeyedHash:
        """Keyed hashes (HMAC-SHA-256), so that a patient's number can be looked up without being stored.

        Raises:
            KeyMissing: the tenant has no index key here.
        """
        key = self._index.get(tenant_id)
        if key is None:
            raise KeyMissing(f"no index key for tenant {tenant_id}")
        return key

    def digest_of_answer(self, tenant_id: UUID, sha256: bytes) -> bytes | None:
        """What tells equal answers: without the key, a pseudonym in one can't be found by trying them all. None where
        there was nothing in it, or the tenant has no index key here."""
        return self.digest(tenant_id, b"answer\0" + sha256) if sha256 and self.knows(tenant_id) else None

    def digest_of_body(self, tenant_id: UUID, sha256: bytes) -> bytes:
        """What tells whether this body was sent; empty where the tenant has no index key here."""
        return self.digests_of_bodies(tenant_id, [sha256])[0]

    def digests_of_bodies(self, tenant_id: UUID, sha256s: Sequence[bytes]) -> list[bytes]:
        """The same of many."""
        if not self.knows(tenant_id):
            return [b""] * len(sha256s)
        digest = self.hashes(tenant_id).digest
        return [digest(b"body\0" + sha256) for sha256 in sha256s]

    def audit_key(self, tenant_id: UUID) -> bytes | None:
        """The seed of the key that signs heads of the tenant's audit log, if it has been taken into use."""
        return self._audit.get(tenant_id)


def _about(tenant_id: UUID, what: str, row: UUID | None = None) -> bytes:
    return tenant_id.bytes + what.encode() + b"\0" + (b"" if row is None else row.bytes)
