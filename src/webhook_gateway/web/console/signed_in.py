"""Who is behind a browser's cookie, and how somebody signs in: by a key, a one-time code, or the hospital's account; a
partner at its portal by a link's code alone."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import quote, unquote
from uuid import UUID

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from webhook_gateway import telemetry
from webhook_gateway.operations import portal, sessions
from webhook_gateway.operations.change import changing
from webhook_gateway.operations.first_start import NO_TENANT
from webhook_gateway.rules import ids
from webhook_gateway.rules.scopes import Capability, scopes_with
from webhook_gateway.store import keyring
from webhook_gateway.store import sessions as stored
from webhook_gateway.web.api.dependencies import Gateway
from webhook_gateway.web.callers import Caller, caller_from, is_within, unauthorized
from webhook_gateway.web.errors import Problem, granted
from webhook_gateway.web.guesses import Guesses
from webhook_gateway.web.oidc import Identity

from .provider import NotLetIn, Provider

PATH, PORTAL = "/console", "/portal"
CALLBACK = f"{PATH}/login/callback"
AT_PROVIDER = 900
"""Seconds that a browser may take there."""
LONGEST_TO = 1_000


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Somebody's session. ``ends_at`` is when it ends at the latest; ``viewing`` names the partner with whose eyes one
    of the hospital's people looks at the portal."""

    id: UUID
    caller: Caller
    name: str
    ends_at: datetime
    viewing: str | None = None


class Door:
    """Knows browsers by their cookies. Cookies and codes that are none are bounded as unknown keys are.

    The console's and the portal's have cookies of their own; who has signed in to the console may look at the portal.
    """

    def __init__(self, gateway: Gateway, root: str) -> None:
        self.root, self.is_portal = root, root == PORTAL
        self._gateway = gateway
        self._guesses = Guesses()
        self._is_secure = not gateway.settings.development
        prefix = "__Host-" if self._is_secure else ""
        self._cookies = [f"{prefix}session", f"{prefix}portal"] if self.is_portal else [f"{prefix}session"]
        self.cookie, self._asked = self._cookies[-1], f"{prefix}asked"
        has_accounts = gateway.settings.oidc_client_id is not None and not self.is_portal
        self.provider = Provider(gateway.settings) if has_accounts else None
        self._codes = Guesses()

    async def find(self, request: Request, *, is_used: bool) -> SignedIn | None:
        """Who is signed in, if anybody. A look that nobody took themselves is no use of the session.

        Raises:
            Problem: 429, see `Guesses`.
            DatabaseUnavailable: it can't be looked up.
        """
        for cookie in self._cookies:
            secret = request.cookies.get(cookie)
            if secret and (found := await self._find(secret, source_of(request), is_used)) is not None:
                return found
        return None

    async def _find(self, secret: str, source: str, is_used: bool) -> SignedIn | None:
        if self._guesses.is_none(hashed := sessions.digest(secret)):
            return None
        async with self._guesses.look_up(hashed, source), self._gateway.database.connection() as connection:
            row = await stored.find(connection, hashed)
            self._guesses.learn(hashed, is_live=row is not None)
            if row is not None and row["stale"] and is_used:
                await stored.touch(connection, row["id"])
        if row is None or not _is_for(row, is_portal=self.is_portal):
            return None
        caller = caller_from(row, row["actor"], self._gateway.callers.quotas, source)
        if not is_within(source, caller.networks):
            return None
        await self._know(caller.tenant_id)
        name = row["name"] or row["person"] or row["actor"]
        if not self.is_portal:
            return SignedIn(row["id"], caller, name, row["ends_at"])
        name, viewing = (row["partner"], None) if row["viewing"] is None else (name, row["partner"])
        return SignedIn(row["id"], _as_partner(caller, row), name, row["ends_at"], viewing)

    async def sign_in(self, request: Request, given: str) -> str:
        """The secret for the cookie, from an API key or a one-time code.

        Raises:
            Problem: 401 for neither, 429 for too many of them.
        """
        given = given.rpartition("#")[2]  # somebody may paste all of a link
        if given.startswith(portal.CODE if self.is_portal else sessions.CODE):
            return await self._by_code(given, source_of(request))
        if self.is_portal:
            raise unauthorized()
        caller = await self._gateway.callers.authenticate(
            request.scope, {b"authorization": b"Bearer " + given.encode("ascii", "replace")}
        )
        key_id = None if caller.by_token else ids.parse(ids.KEY, caller.name)
        async with changing(self._gateway.database, caller) as change:
            return await sessions.begin(change, key_id)

    async def _by_code(self, code: str, source: str) -> str:
        hashed = sessions.digest(code)
        if self._guesses.is_none(hashed):
            raise unauthorized()
        async with self._guesses.look_up(hashed, source):
            try:
                async with changing(self._gateway.database, NO_TENANT) as change:
                    secret = granted(await sessions.exchange(change, code, source))
                    await self._know(change.actor.tenant_id)
            except Problem as problem:
                if problem.name != "not-found":
                    raise
                self._guesses.learn(hashed, is_live=False)
                raise unauthorized() from None
        return secret

    async def to_provider(self, to: str, address: str) -> Response | NotLetIn:
        """Sends a browser to sign in with the hospital's account. ``to`` is where it wanted to go.

        Raises:
            Problem: 404 without a provider.
        """
        asked = secrets.token_urlsafe(32)
        url = await self._expect_provider().sign_in_url(asked, address.rstrip("/") + CALLBACK)
        if url is None:
            return NotLetIn.UNAVAILABLE
        response = RedirectResponse(url, 303)
        kept = f"{asked}.{quote(to, '') if len(to) <= LONGEST_TO else ''}"
        response.set_cookie(self._asked, kept, max_age=AT_PROVIDER, **self._how())
        return response

    async def from_provider(self, request: Request, address: str) -> tuple[str, str] | NotLetIn:
        """The secret for the cookie of whom the provider has sent back, and where they wanted to go.

        Raises:
            Problem: 404 without a provider, 429 for too many codes.
        """
        provider, answer, source = self._expect_provider(), request.query_params, source_of(request)
        asked, _, to = request.cookies.get(self._asked, "").partition(".")
        refusal = provider.refusal(asked, answer)
        if refusal is not None:
            return refusal
        hashed = sessions.digest(answer["code"])
        if self._codes.is_none(hashed):
            return NotLetIn.NOT_ASKED
        async with self._codes.look_up(hashed, source):
            self._codes.learn(hashed, is_live=False)  # it is good for one time, whatever comes of it
            found = await provider.identify(asked, answer["code"], address.rstrip("/") + CALLBACK)
        if isinstance(found, Identity):
            caller = await self._gateway.callers.caller_of(found)
            if caller is not None:
                async with changing(self._gateway.database, replace(caller, source=source)) as change:
                    return await sessions.begin(change, None, found.person), unquote(to)
            found = NotLetIn.NOTHING_GRANTED
        telemetry.not_let_in(found)
        return found

    def back_from_provider(self, response: Response) -> None:
        """What was asked is answered, and can't be again."""
        response.delete_cookie(self._asked, **self._how())

    def _expect_provider(self) -> Provider:
        if self.provider is None:
            raise Problem(404, "not-found", "The hospital's accounts are not set up here. Sign in with an API key.")
        return self.provider

    async def _know(self, tenant_id: UUID) -> None:
        if not self._gateway.vault.knows(tenant_id):
            await keyring.fill(self._gateway.database, self._gateway.vault)

    def let_in(self, response: Response, secret: str) -> None:
        response.set_cookie(self.cookie, secret, max_age=stored.LONGEST, **self._how())

    def let_out(self, response: Response) -> None:
        response.delete_cookie(self.cookie, **self._how())

    def _how(self) -> dict[str, Any]:
        return {"path": "/", "secure": self._is_secure, "httponly": True, "samesite": "lax"}


def _is_for(row: Mapping[str, Any], *, is_portal: bool) -> bool:
    """A link's session is none at the console, and one of the console at the portal only to view it."""
    is_a_links = row["capabilities"] is not None
    return is_a_links or row["viewing"] is not None if is_portal else not is_a_links


def _as_partner(caller: Caller, row: Mapping[str, Any]) -> Caller:
    """With what a link lets its reader do; or to look at what the partner sees, by the viewer's own scopes."""
    if row["viewing"] is None:
        capabilities = frozenset(map(Capability, row["capabilities"]))
        return replace(
            caller, scopes=scopes_with(capabilities), capabilities=capabilities, means="a link to the portal"
        )
    scopes = frozenset(filter(caller.may, scopes_with([Capability.VIEW])))
    capabilities = frozenset({Capability.VIEW})
    return replace(caller, subscriber_id=row["viewing"], scopes=scopes, capabilities=capabilities)


def source_of(request: Request) -> str:
    return request.client.host if request.client else ""
