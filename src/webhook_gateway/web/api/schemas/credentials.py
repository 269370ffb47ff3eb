"""What the gateway shows a partner to be let in: headers, TLS, authorization."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from .shapes import Body, Shown, examples, matching
from .values import Url

HeaderName = Annotated[
    str,
    Field(
        max_length=100,
        pattern=matching(r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$", "a field name: letters, digits and !#$%&'*+-.^_`|~"),
        description="A field name (RFC 9110) that HTTP or the gateway doesn't need for itself.",
    ),
]

HeaderValue = Annotated[
    str,
    Field(
        max_length=2_000,
        pattern=matching(
            r"^([\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?)?$",
            "printable ASCII that neither begins nor ends with a space",
        ),
        description="Printable ASCII.",
    ),
]

Headers = Annotated[
    dict[HeaderName, HeaderValue],
    Field(max_length=20, description="Sent with every request. Encrypted at rest; values are never shown again."),
]

Pem = Annotated[
    str,
    Field(
        min_length=1,
        max_length=100_000,
        pattern=matching(r"^[\x20-\x7e\t\r\n]*$", "PEM, which is lines of printable ASCII"),
    ),
]

Credential = Annotated[
    str,
    Field(min_length=1, max_length=4_000, pattern=matching(r"^[^\x00-\x1f\x7f]*$", "text without control characters")),
]


class Tls(Body):
    """TLS of the endpoint's own, as PEM. Encrypted at rest; the private key is never shown again."""

    model_config = examples({"ca": "-----BEGIN CERTIFICATE-----\nMIIB…"})

    ca: Pem | None = Field(None, description="Only certificates that these CAs have issued are trusted.")
    certificate: Pem | None = Field(None, description="Shown to the partner (mTLS), with those up to its CA.")
    key: Pem | None = Field(None, description="The certificate's private key, without a passphrase.")

    @model_validator(mode="after")
    def _something(self) -> Tls:
        if self.ca is self.certificate is self.key is None:
            raise PydanticCustomError("empty", "Give `ca`, or `certificate` and `key`, or all three")
        return self


class BasicAuthorization(Body):
    """User name and password (RFC 7617)."""

    kind: Literal["basic"]
    username: Annotated[
        Credential, Field(pattern=matching(r"^[^:\x00-\x1f\x7f]*$", "text without a colon and control characters"))
    ]
    password: Credential


class BearerAuthorization(Body):
    """A token that the partner gave out (RFC 6750)."""

    kind: Literal["bearer"]
    token: Annotated[
        str,
        Field(
            max_length=4_000,
            pattern=matching(
                r"^[A-Za-z0-9._~+/-]+=*$", "a bearer token: letters, digits and -._~+/, then = or nothing"
            ),
        ),
    ]


class OAuth2Authorization(Body):
    """An access token, fetched with the client's credentials (RFC 6749, section 4.4)."""

    kind: Literal["oauth2"]
    token_url: Url
    client_id: Credential
    client_secret: Credential
    scope: Credential | None = None
    audience: Credential | None = None
    secret_in: Literal["header", "body"] = Field("header", description="Where the token server wants the secret.")
    own_tls: bool = Field(False, strict=True, description="Use the endpoint's `tls` for the token server, too.")


Authorization = Annotated[
    BasicAuthorization | BearerAuthorization | OAuth2Authorization,
    Field(
        discriminator="kind",
        description="What the `Authorization` header is made of. Encrypted at rest; its secrets are never shown again.",
    ),
]


class CertificateFacts(Shown):
    """A certificate, told from others."""

    subject: str
    expires_at: datetime
    sha256: str


class ShownTls(Shown):
    """TLS of the endpoint's own. An empty `ca` means the system's CAs."""

    ca: list[CertificateFacts]
    certificate: CertificateFacts | None


class ShownAuthorization(Shown):
    """What the `Authorization` header is made of, but for its secrets."""

    kind: Literal["basic", "bearer", "oauth2"]
    username: str | None = None
    token_url: str | None = None
    client_id: str | None = None
    scope: str | None = None
    audience: str | None = None
    secret_in: str | None = None
    own_tls: bool | None = None
