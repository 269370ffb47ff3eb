"""Signing in with the hospital's accounts: OpenID Connect's code flow (Core, section 3.1), with PKCE (RFC 7636).

What binds the provider's answer to the browser that asked is one secret in its cookie: state, nonce and verifier are
made of it, so the gateway keeps nothing of who has only asked.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from hmac import compare_digest
from urllib.parse import quote, urlencode

from webhook_gateway.settings import Settings
from webhook_gateway.web.oidc import Identity, Issuer, Kept, NoKeys, NotAToken, NothingGranted, ask, expected, is_token


class NotLetIn(StrEnum):
    """Why somebody whom the provider has sent back is not signed in."""

    NOT_ASKED = "not_asked"
    DENIED = "denied"
    UNAVAILABLE = "unavailable"
    CODE_REFUSED = "code_refused"
    UNTRUSTED = "untrusted"
    NOTHING_GRANTED = "nothing_granted"


_ERRORS = {
    "access_denied": NotLetIn.DENIED,
    "server_error": NotLetIn.UNAVAILABLE,
    "temporarily_unavailable": NotLetIn.UNAVAILABLE,
}
"""What the provider may send instead of a code (RFC 6749, section 4.1.2.1); others say that we asked wrongly."""


@dataclass(frozen=True, slots=True)
class Published:
    """What the provider says of itself (OpenID Connect Discovery, section 3)."""

    authorization: str
    token: str
    sign_out: str | None
    issuer: Issuer


class Provider:
    """The hospital's identity provider, for people. ``back`` is the URL to which it sends their browsers."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        assert settings.oidc_client_secret_file is not None
        self._settings, self._clock = settings, clock
        self._name, self._client_id = settings.oidc_issuer or "", settings.oidc_client_id or ""
        self._secret_file = settings.oidc_client_secret_file
        self._published = Kept(self.discover, clock)

    async def sign_in_url(self, secret: str, back: str) -> str | None:
        """Where a browser with this secret signs in; None while that can't be known."""
        published = await self._published.get()
        asked = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": back,
            "scope": f"openid {self._settings.oidc_sign_in_scope}",
            "state": _made_of(secret, "state"),
            "nonce": _made_of(secret, "nonce"),
            "code_challenge": _digest(_made_of(secret, "verifier")),
            "code_challenge_method": "S256",
        }
        return None if published is None else _with(published.authorization, asked)

    async def sign_out_url(self) -> str | None:
        """Where somebody ends the provider's own session, if it offers that."""
        published = await self._published.get()
        where = None if published is None else published.sign_out
        return None if where is None else _with(where, {"client_id": self._client_id})

    def refusal(self, secret: str, answer: Mapping[str, str]) -> NotLetIn | None:
        """Why what a browser with this secret has brought back is no code that can be used."""
        state = answer.get("state", "").encode()
        is_ours = secret and compare_digest(_made_of(secret, "state").encode(), state)
        if not is_ours or answer.get("iss", self._name) != self._name:  # RFC 9207
            return NotLetIn.NOT_ASKED
        return None if answer.get("code") else _ERRORS.get(answer.get("error", ""), NotLetIn.CODE_REFUSED)

    async def identify(self, secret: str, code: str, back: str) -> Identity | NotLetIn:
        """Who has signed in: the code is exchanged for an ID token, and that is checked.

        Raises:
            OSError: the file with our secret can't be read.
        """
        published = await self._published.get()
        if published is None:
            return NotLetIn.UNAVAILABLE
        password = (await asyncio.to_thread(self._secret_file.read_text)).strip()
        verifier = _made_of(secret, "verifier")
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": back, "code_verifier": verifier}
        # Both encoded: RFC 6749, section 2.3.1.
        match await ask(published.token, form, auth=(quote(self._client_id, ""), quote(password, ""))):
            case 200, {"id_token": str(token)} if is_token(token):
                pass
            case None | (429 | 500 | 502 | 503 | 504, _):
                return NotLetIn.UNAVAILABLE
            case _:
                return NotLetIn.CODE_REFUSED
        nonce, azp = expected(_made_of(secret, "nonce")), {"value": self._client_id}
        try:
            return await published.issuer.identify(token, nonce=nonce, azp=azp, iat=expected())
        except NothingGranted:
            return NotLetIn.NOTHING_GRANTED
        except NoKeys:
            return NotLetIn.UNAVAILABLE
        except NotAToken:
            return NotLetIn.UNTRUSTED

    async def discover(self) -> Published | None:
        """None where the provider can't be reached, is another one, or leads to where others could listen."""
        match await ask(self._name.rstrip("/") + "/.well-known/openid-configuration"):
            case 200, {
                "issuer": self._name,
                "authorization_endpoint": str(authorization),
                "token_endpoint": str(token),
                "jwks_uri": str(keys),
                **more,
            } if all(map(self._settings.is_trusted, (authorization, token, keys))):
                sign_out = more.get("end_session_endpoint")
            case _:
                return None
        claim = self._settings.oidc_sign_in_claim
        return Published(
            authorization,
            token,
            sign_out if isinstance(sign_out, str) and self._settings.is_trusted(sign_out) else None,
            Issuer(self._settings, self._client_id, claim, keys, self._clock),
        )


def _made_of(secret: str, what: str) -> str:
    return _digest(f"{what}:{secret}")


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def _with(url: str, asked: Mapping[str, str]) -> str:
    return f"{url}{'&' if '?' in url else '?'}{urlencode(asked)}"
