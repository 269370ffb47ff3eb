"""What the gateway shows to a partner to be let in: TLS of the endpoint's own, and an ``Authorization`` header.

Values only: how a token is had is in `tokens`, how TLS is set up in `sender`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import quote_plus

from .targets import masked


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """An endpoint's own TLS, as PEM text: the CAs that it is pinned to, and a certificate to show to it (mTLS)."""

    ca: str | None = None
    certificate: str | None = None
    key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Basic:
    """RFC 7617, in UTF-8."""

    username: str
    password: str = field(repr=False)

    @property
    def header(self) -> str:
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class Bearer:
    """RFC 6750: a token that the partner gave out."""

    token: str = field(repr=False)

    @property
    def header(self) -> str:
        return f"Bearer {self.token}"


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """OAuth 2.0 (RFC 6749, section 4.4): a token is had from ``token_url`` with the client's id and secret.

    ``secret_in`` is ``header`` (HTTP Basic, which every server has to support) or ``body``. With ``own_tls`` the
    endpoint's TLS settings are used for the token request, too.
    """

    token_url: str
    client_id: str
    client_secret: str = field(repr=False)
    scope: str | None = None
    audience: str | None = None
    secret_in: str = "header"  # noqa: S105 - a place, not a secret
    own_tls: bool = False

    @property
    def form(self) -> bytes:
        """The token request's body."""
        fields = {"grant_type": "client_credentials", "scope": self.scope, "audience": self.audience}
        if self.secret_in == "body":  # noqa: S105
            fields |= {"client_id": self.client_id, "client_secret": self.client_secret}
        given = [f"{name}={quote_plus(value)}" for name, value in fields.items() if value is not None]
        return "&".join(given).encode()

    @property
    def header(self) -> str | None:
        """The token request's ``Authorization``. Section 2.3.1 wants both parts form-encoded first."""
        if self.secret_in == "body":  # noqa: S105
            return None
        return Basic(quote_plus(self.client_id), quote_plus(self.client_secret)).header


Authorization = Basic | Bearer | ClientCredentials

_KINDS: dict[str, type[Authorization]] = {"basic": Basic, "bearer": Bearer, "oauth2": ClientCredentials}
NEVER_SENT = frozenset(
    {
        *("host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer"),
        *("expect", "cookie", "proxy-authorization", "proxy-connection", "content-encoding"),
    }
)
"""Headers, in lower case, that no endpoint has of its own: they frame the request, or are between other parties."""
NEVER_SHOWN = frozenset({"password", "token", "client_secret", "key"})


def kind_of(authorization: Authorization) -> str:
    """``basic``, ``bearer`` or ``oauth2``."""
    return next(kind for kind, made in _KINDS.items() if isinstance(authorization, made))


def authorization_from(stored: Mapping[str, Any]) -> Authorization:
    """What `as_stored` made; its member ``kind`` names which."""
    fields = dict(stored)
    return _KINDS[fields.pop("kind")](**fields)


def as_stored(authorization: Authorization) -> dict[str, Any]:
    """All of it as JSON can hold it, with the secrets."""
    return {"kind": kind_of(authorization), **asdict(authorization)}


def without_secrets(stored: Mapping[str, Any]) -> dict[str, Any]:
    """What may be shown and audited."""
    shown = {name: value for name, value in stored.items() if name not in NEVER_SHOWN}
    return shown | ({"token_url": masked(shown["token_url"])} if "token_url" in shown else {})
