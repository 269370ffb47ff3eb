"""A small OpenID Connect provider: a real server that checks what it is asked, and can be told to lie."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode

from joserfc import jws
from joserfc.jwk import KeySet, RSAKey

from tests.support.partner import Received, Reply, partner, status

CLIENT_ID, SECRET = "the-console", "ünd +/ and a secret~"


def rsa(kid: str) -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": kid, "use": "sig"})


FIRST, SECOND = rsa("first"), rsa("second")


def part(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


class IdentityProvider:
    """Signs everybody in as ``person``. ``changes`` are claims, or None for one that is left out."""

    def __init__(self) -> None:
        self.url = ""
        self.keys = [FIRST]
        self.person: dict[str, Any] = {"sub": "u-4711", "name": "Anna Meier", "groups": ["staff", "hms-operators"]}
        self.changes: dict[str, Any] = {}
        self.sign: Callable[[dict[str, Any]], str] = self._sign
        self.error: str | None = None
        self.instead: dict[str, Reply] = {}
        """By path: an answer in place of the right one."""
        self.asked: list[str] = []
        """Paths, in their order."""
        self.issued: list[str] = []
        """Codes and tokens: nobody else may ever write them down."""
        self.has_page = False
        """Whether people see a page and have to press a button."""
        self._codes: dict[str, dict[str, str]] = {}

    def __call__(self, received: Received) -> Reply:
        path, _, query = received.target.partition("?")
        self.asked.append(path)
        if path in self.instead:
            return self.instead[path]
        match path:
            case "/.well-known/openid-configuration":
                return 200, json.dumps(self.configuration()).encode()
            case "/keys":
                return 200, json.dumps(KeySet([*self.keys]).as_dict(private=False)).encode()
            case "/authorize" if self.has_page and "yes=" not in query:
                hidden = "".join(f'<input type=hidden name={name} value="{it}">' for name, it in parse_qsl(query))
                page = f"<!doctype html><title>Hospital</title><form>{hidden}<button name=yes value=1>It is me</button>"
                return status(200, "Content-Type: text/html", body=page.encode())
            case "/authorize":
                return status(302, f"Location: {self._authorize(dict(parse_qsl(query)))}")
            case "/token":
                return self._redeem(received)
            case _:
                return 404, b""

    def configuration(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
            "end_session_endpoint": f"{self.url}/leave",
        }

    def claims(self, nonce: str) -> dict[str, Any]:
        now = int(time.time())
        made = {"iss": self.url, "aud": CLIENT_ID, "iat": now, "exp": now + 300, "nonce": nonce}
        return {name: value for name, value in (made | self.person | self.changes).items() if value is not None}

    def _authorize(self, asked: dict[str, str]) -> str:
        assert asked["response_type"] == "code"
        assert asked["client_id"] == CLIENT_ID
        assert asked["code_challenge_method"] == "S256"
        assert "openid" in asked["scope"].split()
        if self.error is not None:
            answer = {"error": self.error, "error_description": "<b>its own words</b>"}
        else:
            answer = {"code": secrets.token_urlsafe(16)}
            self.issued.append(answer["code"])
            self._codes[answer["code"]] = asked
        return f"{asked['redirect_uri']}?{urlencode(answer | {'state': asked['state'], 'iss': self.url})}"

    def _redeem(self, received: Received) -> Reply:
        form = dict(parse_qsl(received.body.decode()))
        kind, _, credentials = received.headers["authorization"].partition(" ")
        client_id, _, secret = base64.b64decode(credentials).decode().partition(":")
        if (kind, unquote(client_id), unquote(secret)) != ("Basic", CLIENT_ID, SECRET):
            return 401, b'{"error": "invalid_client"}'
        asked = self._codes.pop(form["code"], {})
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
        is_right = (
            form["grant_type"] == "authorization_code"
            and asked.get("redirect_uri") == form["redirect_uri"]
            and asked.get("code_challenge") == challenge.decode()
            and len(form["code_verifier"]) >= 43
        )
        if not is_right:
            return 400, b'{"error": "invalid_grant"}'
        token = self.sign(self.claims(asked["nonce"]))
        self.issued.append(token)
        return 200, json.dumps({"token_type": "Bearer", "access_token": "unused", "id_token": token}).encode()

    def _sign(self, claims: dict[str, Any]) -> str:
        key = self.keys[-1]
        return jws.serialize_compact({"alg": "RS256", "kid": key.kid}, json.dumps(claims).encode(), key)


@asynccontextmanager
async def identity_provider(host: str = "127.0.0.1") -> AsyncIterator[IdentityProvider]:
    made = IdentityProvider()
    async with partner(otherwise=made) as there:
        made.url = there.url("", host)
        yield made
