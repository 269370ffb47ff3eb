"""The form of the audit log: what an entry's hash covers, the signed head of a chain, and files of both.

Entry and head are JSON objects. An entry's hash is the SHA-256 of all its other members, a head's signature is Ed25519
(RFC 8032) over all its other members, each time as JSON with sorted members, no white space and only ASCII. So whoever
has an exported file and the public key can check it, without the gateway and without its database.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from webhook_gateway.rules import ids

from . import signatures

FIRST = bytes(32)
"""What stands for the hash before the first entry's."""

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Head:
    """The last entry of a tenant's chain at a moment, signed: what stood there then can't be denied later.

    ``key`` is the public key (``whpk_``) and ``signature`` base64. A head shows whose it is only to those who have
    noted the key before.
    """

    tenant: str
    sequence: int
    hash: str
    at: str
    key: str
    signature: str = ""


@dataclass(frozen=True, slots=True)
class Checked:
    """What an export holds: the entries after ``since`` up to ``sequence``, and the head that they end with.

    ``problem`` is None where all is whole. ``broken_at`` is the sequence of the first entry that doesn't fit, or None
    where it is the head that doesn't.
    """

    since: int
    sequence: int
    head: Head | None
    broken_at: int | None = None
    problem: str | None = None


def hash_of(row: Mapping[str, Any]) -> bytes:
    """The hash of a row of the audit log, whatever its own says."""
    return hashlib.sha256(_canonical(_covered(row))).digest()


def sign_head(private_key: str, tenant_id: UUID, sequence: int, last_hash: bytes, now: datetime) -> Head:
    """``private_key`` is written ``whsk_``; sequence 0 and `FIRST` are the head of an empty chain."""
    public_key = signatures.public_key_of(private_key)
    head = Head(ids.render(ids.TENANT, tenant_id), sequence, last_hash.hex(), _moment(now), public_key)
    return replace(head, signature=signatures.sign_content(private_key, _signed(head)))


def write_entry(row: Mapping[str, Any]) -> str:
    """The row as a line of an export."""
    return _canonical({**_covered(row), "hash": row["hash"].hex()}).decode()


def write_head(head: Head) -> str:
    return _canonical(asdict(head)).decode()


def check_export(lines: Iterable[str], public_key: str | None, since: int = 0) -> Checked:
    """Follows an export from line to line; it begins after the entry ``since`` and has to end with a signed head.

    Exports that were joined are one export: heads in between are checked, too. Without a public key, that of the first
    head is taken, which shows only that nothing was changed since somebody signed it.
    """
    found, tenant, expected = Checked(since, since, None), None, FIRST.hex() if since == 0 else None
    for line in lines:
        read = _read(line)
        if isinstance(read, Head):
            tenant, expected = tenant or read.tenant, expected or read.hash
            public_key = public_key or read.key
            fault = _fault_of_head(read, found.sequence, tenant, expected, public_key)
            found = replace(found, head=read)
        else:
            here = found.sequence + 1
            fault = _fault_of_entry(read, here, tenant, expected)
            if fault is None and read is not None:
                tenant, expected = _tenant_of(read), read["hash"]
                found = replace(found, sequence=here, head=None)
        if fault is not None:
            return replace(found, broken_at=fault[0], problem=fault[1])
    if found.head is None:
        return replace(
            found, broken_at=found.sequence + 1, problem="there is no signed head at the end: it was cut off"
        )
    return found


def noted_in(lines: Iterable[str]) -> Iterator[tuple[int, bytes]]:
    """Sequence and hash of what an export holds, in order; for one that `check_export` has found whole."""
    for line in lines:
        match _read(line):
            case Head(sequence=sequence, hash=found) if sequence > 0:
                yield sequence, bytes.fromhex(found)
            case {"sequence": sequence, "hash": found}:
                yield sequence, bytes.fromhex(found)


Fault = tuple[int | None, str]


def _fault_of_entry(entry: Entry | None, here: int, tenant: str | None, expected: str | None) -> Fault | None:
    if entry is None:
        return here, f"what stands in the place of entry {here} is no entry and no head"
    if entry.get("sequence") != here:
        return here, f"entry {here} is missing"
    covered = {name: value for name, value in entry.items() if name != "hash"}
    if entry.get("hash") != hashlib.sha256(_canonical(covered)).hexdigest():
        return here, f"entry {here} was changed: its hash is another one"
    if _tenant_of(entry) is None or _tenant_of(entry) != (tenant or _tenant_of(entry)):
        return here, f"entry {here} is another tenant's"
    if entry.get("previous_hash") != (expected or entry.get("previous_hash")):
        return here, f"entry {here} does not follow from the one before"
    return None


def _fault_of_head(head: Head, reached: int, tenant: str, expected: str, public_key: str) -> Fault | None:
    signed = head.key == public_key and signatures.fits_content(public_key, head.signature, _signed(head))
    if not signed:
        return None, f"the head after entry {reached} is not signed with {public_key}"
    if head.tenant != tenant:
        return None, f"the head after entry {reached} is another tenant's"
    if head.sequence > reached:
        return reached + 1, f"entry {reached + 1} is missing: the signed head is of entry {head.sequence}"
    if head.sequence < reached:
        return head.sequence + 1, f"entry {head.sequence + 1} is not covered by the signed head"
    if head.hash != expected:
        return reached, f"entry {reached}, or one before it, was changed: the signed head has another hash"
    return None


def _read(line: str) -> Entry | Head | None:
    try:
        read = json.loads(line, object_pairs_hook=_once_each)
        return _head(read) if "signature" in read else dict(read)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _head(read: Entry) -> Head:
    texts = (text for name, text in read.items() if name != "sequence")
    if not isinstance(read["sequence"], int) or not all(isinstance(text, str) for text in texts):
        raise TypeError
    head = Head(**read)
    ids.parse(ids.TENANT, head.tenant), bytes.fromhex(head.hash)
    return head


def _once_each(pairs: list[tuple[str, Any]]) -> Entry:
    """Readers differ about which of two members of one name counts, so a hash would not say what they show."""
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError
    return found


def _tenant_of(entry: Entry) -> str | None:
    try:
        return ids.render(ids.TENANT, UUID(entry["tenant_id"]))
    except (KeyError, ValueError, AttributeError, TypeError):
        return None


def _covered(row: Mapping[str, Any]) -> Entry:
    return {
        "tenant_id": str(row["tenant_id"]),
        "sequence": row["sequence"],
        "at": _moment(row["at"]),
        **{name: row[name] for name in ("actor", "source", "action", "target", "before", "after")},
        "previous_hash": row["previous_hash"].hex(),
    }


def _signed(head: Head) -> bytes:
    return _canonical({name: value for name, value in asdict(head).items() if name != "signature"})


def _canonical(members: Mapping[str, Any]) -> bytes:
    return json.dumps(members, sort_keys=True, separators=(",", ":")).encode()


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")
