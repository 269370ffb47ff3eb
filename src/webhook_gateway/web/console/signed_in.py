"""Who is behind a browser's cookie, and how somebody signs in: by an API key, or by a one-time code."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from webhook_gateway.operations import sessions
from webhook_gateway.operations.change import changing
from webhook_gateway.operations.first_start import NO_TENANT
from webhook_gateway.rules import ids
from webhook_gateway.store import keyring
from webhook_gateway.store import sessions as stored
from webhook_gateway.store.driver import driver_of
from webhook_gateway.web.api.dependencies import Gateway
from webhook_gateway.web.callers import Caller, caller_from, is_within, unauthorized
from webhook_gateway.web.errors import Problem, granted
from webhook_gateway.web.guesses import Guesses

PATH = "/console"


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Somebody's session. ``ends_at`` is when it ends at the latest."""

    id: UUID
    caller: Caller
    name: str
    ends_at: datetime


class Door:
    """Knows browsers by their cookies. Cookies and codes that are none are bounded as unknown keys are."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._guesses = Guesses()
        development = gateway.settings.development
        self._is_secure = not development
        self.cookie = "session" if development else "__Host-session"

    async def find(self, request: Request, *, is_used: bool) -> SignedIn | None:
        """Who is signed in, if anybody. A look that nobody took themselves is no use of the session.

        Raises:
            Problem: 429, see `Guesses`.
            DatabaseUnavailable: it can't be looked up.
        """
        secret, source = request.cookies.get(self.cookie), source_of(request)
        if not secret or self._guesses.is_none(hashed := sessions.digest(secret)):
            return None
        async with self._guesses.look_up(hashed, source), self._gateway.database.reading() as connection:
            driver = await driver_of(connection)
            row = await stored.find(driver, hashed)
            self._guesses.learn(hashed, is_live=row is not None)
            if row is not None and row["stale"] and is_used:
                await stored.touch(driver, row["id"])
        if row is None:
            return None
        quotas = self._gateway.callers.quotas
        caller = caller_from(row, row["actor"], quotas, source)
        if not is_within(source, caller.networks):
            return None
        await self._know(caller.tenant_id)
        return SignedIn(row["id"], caller, row["name"] or row["actor"], row["ends_at"])

    async def sign_in(self, request: Request, given: str) -> str:
        """The secret for the cookie, from an API key or a one-time code.

        Raises:
            Problem: 401 for neither, 429 for too many of them.
        """
        if given.startswith(sessions.CODE):
            return await self._by_code(given, source_of(request))
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

    async def _know(self, tenant_id: UUID) -> None:
        if not self._gateway.vault.knows(tenant_id):
            await keyring.fill(self._gateway.database, self._gateway.vault)

    def let_in(self, response: Response, secret: str) -> None:
        response.set_cookie(self.cookie, secret, max_age=stored.LONGEST, **self._how())

    def let_out(self, response: Response) -> None:
        response.delete_cookie(self.cookie, **self._how())

    def _how(self) -> dict[str, Any]:
        return {"path": "/", "secure": self._is_secure, "httponly": True, "samesite": "lax"}


def source_of(request: Request) -> str:
    return request.client.host if request.client else ""
