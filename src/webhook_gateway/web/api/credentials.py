"""An endpoint's TLS and ``Authorization``: checked when they are given, and shown without what is secret in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from sqlalchemy import RowMapping

from webhook_gateway.crypto.vault import KeyMissing, Tampered, Vault
from webhook_gateway.rules.credentials import without_secrets
from webhook_gateway.rules.denials import Denied
from webhook_gateway.rules.targets import Policy, parse
from webhook_gateway.store.configuration import open_column
from webhook_gateway.web.errors import Fault, invalid

CREDENTIALS = ("tls", "authorization")


def check_authorization(given: Mapping[str, Any], policy: Policy) -> None:
    """
    Raises:
        Problem: 422, tokens would be asked for where policy forbids it.
    """
    if given["kind"] == "oauth2":
        target = parse(given["token_url"], policy)
        if isinstance(target, Denied):
            raise invalid(Fault(target.reason, target.remedy, pointer="/authorization/token_url"))


def check_tls(given: Mapping[str, str | None]) -> None:
    """
    Raises:
        Problem: 422 that names the part which can't be used, and never quotes it.
    """
    faults = [*_faults_of_ca(given["ca"]), *_faults_of_certificate(given["certificate"], given["key"])]
    if faults:
        raise invalid(*faults)


def check_header(header_names: list[str], authorization: object | None) -> None:
    """
    Raises:
        Problem: 422, there would be two of them.
    """
    if authorization is not None and any(name.lower() == "authorization" for name in header_names):
        remedy = "Give the header Authorization or `authorization`, not both."
        raise invalid(Fault("duplicate_header", remedy, pointer="/authorization"))


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
        _certificates(ca)
    except ValueError:
        yield Fault("not_pem", "Give one or more certificates in PEM: -----BEGIN CERTIFICATE-----…", pointer="/tls/ca")


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
