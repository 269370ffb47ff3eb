"""What partners know the gateway by: signing secrets and public keys."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field

from .shapes import Body, Shown, examples, matching

SigningSecret = Annotated[
    str,
    Field(
        pattern=matching(r"^whsec_[A-Za-z0-9+/]{32,86}={0,2}$", "`whsec_` and base64 of 24 to 64 bytes"),
        description="`whsec_` and base64 of 24 to 64 bytes (Standard Webhooks).",
        examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw3ZQ3u7Yt3zI="],
    ),
]

PublicKey = Annotated[
    str,
    Field(
        description="With signing `ed25519`: `whpk_` and base64 of the public key (Standard Webhooks).",
        examples=["whpk_PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw="],
    ),
]

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw3ZQ3u7Yt3zI="  # noqa: S105 - an example


class SecretTimes(Shown):
    """A live signing secret, but for the secret."""

    created_at: datetime
    expires_at: datetime | None = Field(description="When it stops signing, after a rotation.")


class Rotation(Body):
    """A new signing secret. The old ones sign, too, until the overlap ends, so that no event is refused meanwhile."""

    model_config = examples({"overlap_seconds": 86_400})

    overlap_seconds: int = Field(86_400, strict=True, ge=0, le=604_800)
    secret: SigningSecret | None = Field(None, description="Their own; one is made where none is given.")


class RotatedSecret(Shown):
    """The new secret, which is never shown again."""

    model_config = examples({"secret": SECRET, "public_key": None, "previous_expire_at": "2026-11-24T08:00:00Z"})

    secret: str | None
    public_key: PublicKey | None
    previous_expire_at: datetime


class PublicKeys(Shown):
    """A JSON Web Key Set."""

    model_config = examples(
        {
            "keys": [
                {
                    "kty": "OKP",
                    "crv": "Ed25519",
                    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
                    "use": "sig",
                    "alg": "EdDSA",
                    "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
                }
            ]
        }
    )

    keys: list[dict[str, str]]
