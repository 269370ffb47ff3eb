"""Whom to trust, and what to show, where a connection is secured."""

from __future__ import annotations

import os
import ssl
from functools import lru_cache

from webhook_gateway.rules.credentials import TlsSettings
from webhook_gateway.rules.unreachable import Trouble


@lru_cache(1024)
def trust_in(settings: TlsSettings | None) -> ssl.SSLContext:
    """A client context: TLS 1.2 or later, certificate and host name verified. Raises ssl.SSLError or ValueError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if settings is None or settings.ca is None:
        context.load_default_certs()
    else:
        # What may stand around certificates is anything; ssl takes ASCII only.
        context.load_verify_locations(cadata=settings.ca.encode("ascii", "ignore").decode())
    if settings is not None and settings.certificate is not None and settings.key is not None:
        _show_certificate(context, settings.certificate, settings.key)
    return context


def trouble_with_certificate(error: ssl.SSLCertVerificationError) -> Trouble:
    """What OpenSSL found wrong (X509_V_ERR_…, in its x509_vfy.h)."""
    return _TROUBLES.get(error.verify_code, Trouble.TLS_CERTIFICATE_INVALID)


_TROUBLES = {
    **dict.fromkeys((9, 10), Trouble.TLS_CERTIFICATE_EXPIRED),  # not yet valid, has expired
    **dict.fromkeys((62, 64), Trouble.TLS_CERTIFICATE_NAME),  # another host name, another address
    **dict.fromkeys((2, 20, 21), Trouble.TLS_CHAIN_INCOMPLETE),  # an issuer is neither sent nor known
    **dict.fromkeys((18, 19), Trouble.TLS_CA_UNKNOWN),  # self-signed: the certificate itself, or one above it
}


def _show_certificate(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """OpenSSL takes a key only from a file; this one is in memory, so that the key never reaches a disk."""
    memory = os.memfd_create("client-certificate")
    try:
        os.write(memory, f"{certificate}\n{key}\n".encode())
        context.load_cert_chain(f"/proc/self/fd/{memory}", password="")
    finally:
        os.close(memory)
