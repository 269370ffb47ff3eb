"""An endpoint's TLS, ``Authorization`` and own secret: checked when they are given, and shown without secrets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from sqlalchemy import RowMapping

from webhook_gateway.crypto.vault import KeyMissing, Tampered, Vault
from webhook_gateway.rules.credentials import without_secrets
from webhook_gateway.rules.denials import Denied
from webhook_gateway.rules.faults import Fault
from webhook_gateway.rules.model import Signing
from webhook_gateway.rules.signing import BadSecret, parse_secret
from webhook_gateway.rules.targets import Policy, parse
from webhook_gateway.store.configuration import open_column

CREDENTIALS = ("tls", "authorization")


def faults_of(given: Mapping[str, Any], policy: Policy) -> Iterator[Fault]:
    """What can't be used of ``tls`` and ``authorization``, where they are given; never quoted."""
    tls, authorization = given.get("tls"), given.get("authorization")
    if authorization is not None and authorization["kind"] == "oauth2":
        target = parse(authorization["token_url"], policy)
        if isinstance(target, Denied):
            yield Fault(target.reason, target.remedy, pointer="/authorization/token_url")
    if tls is not None:
        yield from _faults_of_ca(tls["ca"])
        yield from _faults_of_certificate(tls["certificate"], tls["key"])


def header_given_twice(headers: Iterable[str], authorization: object | None) -> Iterator[Fault]:
    if authorization is not None and any(name.lower() == "authorization" for name in headers):
        remedy = "Give the header Authorization or `authorization`, not both."
        yield Fault("duplicate_header", remedy, pointer="/authorization")


def faults_of_secret(own: str | None, signing: str) -> Iterator[Fault]:
    if own is None:
        return
    if signing == Signing.ED25519:
        remedy = "Leave it out: with signing ed25519 only the gateway has a secret."
        yield Fault("secret", remedy, pointer="/secret")
        return
    try:
        parse_secret(own)
    except BadSecret:
        remedy = "Give whsec_ and base64 of 24 to 64 bytes, or none to have one made."
        yield Fault("secret", remedy, pointer="/secret")


def shown_credentials(vault: Vault, row: RowMapping) -> dict[str, Any]:
    """The two as the API shows and the audit log notes them. None, too, where the key to them is missing just now."""
    shown: dict[str, Any] = dict.fromkeys(CREDENTIALS)
    for column in CREDENTIALS:
        try:
            opened = open_column(vault, row, column)
        except (KeyMissing, Tampered):
            continue
        if opened is not None:
            shown[column] = _shown_tls(opened) if column == "tls" else without_secrets(opened)
    return shown


def _shown_tls(opened: Mapping[str, str | None]) -> dict[str, Any]:
    certificate = opened["certificate"]
    return {
        "ca": [] if opened["ca"] is None else [_facts(one) for one in _certificates(opened["ca"])],
        "certificate": None if certificate is None else _facts(_certificates(certificate)[0]),
    }


def _facts(certificate: x509.Certificate) -> dict[str, Any]:
    return {
        "subject": certificate.subject.rfc4514_string(),
        "expires_at": certificate.not_valid_after_utc,
        "sha256": certificate.fingerprint(hashes.SHA256()).hex(),
    }


def _faults_of_ca(ca: str | None) -> Iterator[Fault]:
    if ca is None:
        return
    try:
        found = _certificates(ca)
    except ValueError:
        yield Fault("not_pem", "Give one or more certificates in PEM: -----BEGIN CERTIFICATE-----…", pointer="/tls/ca")
        return
    roots = [certificate for certificate in found if certificate.subject == certificate.issuer]
    if not roots:
        remedy = "Give the root, too, which is issued by itself: a chain that doesn't end there is never trusted."
        yield Fault("not_a_root", remedy, pointer="/tls/ca")
    elif all(root.not_valid_after_utc <= datetime.now(UTC) for root in roots):
        yield Fault("expired", "Give a CA that is still valid.", pointer="/tls/ca")


def _faults_of_certificate(certificate: str | None, key: str | None) -> Iterator[Fault]:
    if certificate is None or key is None:
        if certificate is not key:
            missing = "key" if key is None else "certificate"
            yield Fault("required", "Give certificate and key together.", pointer=f"/tls/{missing}")
        return
    try:
        first = _certificates(certificate)[0]
    except ValueError:
        remedy = "Give the certificate in PEM, then the ones between it and its CA."
        yield Fault("not_pem", remedy, pointer="/tls/certificate")
        return
    if first.not_valid_after_utc <= datetime.now(UTC):
        yield Fault("expired", "Give a certificate that is still valid.", pointer="/tls/certificate")
    try:
        private = serialization.load_pem_private_key(key.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        remedy = "Give the private key in PEM, without a passphrase: it is encrypted here."
        yield Fault("not_pem", remedy, pointer="/tls/key")
        return
    if private.public_key() != first.public_key():
        yield Fault("mismatch", "Give the private key that belongs to the certificate.", pointer="/tls/key")


def _certificates(pem: str) -> list[x509.Certificate]:
    """
    Raises:
        ValueError: there is none, or one of them can't be read.
    """
    found = x509.load_pem_x509_certificates(pem.encode())
    for certificate in found:
        certificate.public_key()  # of a kind that is known
    return found
