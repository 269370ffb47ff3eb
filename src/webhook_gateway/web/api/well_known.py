"""``/.well-known/webhook-gateway/keys``: the public keys that an endpoint's requests are signed with."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query

from webhook_gateway.crypto import signatures
from webhook_gateway.crypto.vault import KeyMissing, Tampered
from webhook_gateway.rules.model import Signing
from webhook_gateway.store import endpoints
from webhook_gateway.web.callers import Bucket
from webhook_gateway.web.errors import Problem

from .dependencies import Parts
from .schemas.signing import PublicKeys
from .schemas.typed_ids import EndpointId

router = APIRouter(tags=["Public keys"])

PATH = "/.well-known/webhook-gateway/keys"
RATE = 100.0
"""Answers a second and process: nobody has to show who they are, so nobody may keep the database busy."""

_bucket = Bucket(RATE)


@router.get(PATH, response_model=PublicKeys, operation_id="getPublicKeys", summary="Look up an endpoint's public keys")
async def public_keys(endpoint_id: Annotated[EndpointId, Query()], gateway: Parts) -> Any:
    """Shows the public keys of one endpoint as a JSON Web Key Set (RFC 7517, RFC 8037). Needs no key.

    Only the endpoint's own: what was signed for another partner must not pass with you. Without an endpoint of that id,
    or with one that has a shared secret, the set is empty.
    """
    if not _bucket.take(time.monotonic()):
        raise Problem(429, "too-many-requests", "Keep the keys and ask again later.", headers={"Retry-After": "1"})
    async with gateway.database.begin() as connection:
        rows = await endpoints.signing_keys(connection, endpoint_id, Signing.ED25519)
    keys = []
    for row in rows:
        try:
            opened = gateway.vault.open(row["tenant_id"], "endpoint_secrets", row["id"], row["secret"]).decode()
        except (KeyMissing, Tampered):
            continue
        if signatures.is_private_key(opened):
            keys.append(signatures.jwk_of(signatures.public_key_of(opened)))
    return {"keys": keys}
