"""What comes to its end: API keys, signing secrets that were replaced, and certificates that are shown to partners."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from cryptography import x509

from webhook_gateway.crypto.vault import KeyMissing, Tampered, Vault
from webhook_gateway.rules import ids

from .configuration import open_column
from .database import Connection

MOST = 50

EXPIRING = """
-- expiring: live keys, and secrets that were rotated, with whom they belong to; what ended within a week is told, too
SELECT * FROM (
    SELECT 'api_key' AS kind, id, name, expires_at FROM api_keys
    WHERE expires_at > now() - interval '7 days' AND revoked_at IS NULL AND ($1::uuid IS NULL OR tenant_id = $1)
    UNION ALL
    SELECT 'signing_secret', e.id, s.name, k.expires_at
    FROM endpoint_secrets k JOIN endpoints e ON e.id = k.endpoint_id JOIN subscribers s ON s.id = e.subscriber_id
    WHERE k.expires_at > now() AND e.deleted_at IS NULL AND ($1::uuid IS NULL OR k.tenant_id = $1)
) AS e ORDER BY expires_at LIMIT $2
"""

WITH_TLS = """
-- with TLS: endpoints with settings of their own, in which there may be a certificate
SELECT e.id, e.tenant_id, e.tls, s.name FROM endpoints e JOIN subscribers s ON s.id = e.subscriber_id
WHERE e.tls IS NOT NULL AND e.deleted_at IS NULL AND ($1::uuid IS NULL OR e.tenant_id = $1)
"""


class Expiry(NamedTuple):
    """``id`` is a key's, or an endpoint's; ``name`` the key's, or the subscriber's."""

    kind: str
    id: str
    name: str
    at: datetime


async def soonest(connection: Connection, tenant_id: UUID | None = None, vault: Vault | None = None) -> list[Expiry]:
    """`MOST` at most, the first to end first; of all tenants, or of one. Certificates with a ``vault`` only."""
    found = [
        Expiry(row["kind"], ids.render(ids.KEY if row["kind"] == "api_key" else ids.ENDPOINT, row["id"]), *row[2:])
        for row in await connection.fetch(EXPIRING, tenant_id, MOST)
    ]
    if vault is not None:
        for row in await connection.fetch(WITH_TLS, tenant_id):
            with suppress(KeyMissing, Tampered):
                opened = open_column(vault, row, "tls") or {}
                if certificate := opened.get("certificate"):
                    ends = x509.load_pem_x509_certificate(certificate.encode()).not_valid_after_utc
                    found.append(Expiry("client_certificate", ids.render(ids.ENDPOINT, row["id"]), row["name"], ends))
    return sorted(found, key=lambda one: one.at)[:MOST]
