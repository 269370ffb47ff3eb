"""What every page is made of: who visits, what they may see, and the frame around it.

A page is a function of a `Visit`, registered by its path and the scope that it needs, and a template.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from webhook_gateway.operations.change import Change, changing
from webhook_gateway.operations.sessions import digest
from webhook_gateway.rules.faults import Fault
from webhook_gateway.rules.labels import is_label
from webhook_gateway.rules.scopes import Capability, Scope
from webhook_gateway.store import sessions
from webhook_gateway.web.api.dependencies import Gateway
from webhook_gateway.web.callers import Caller
from webhook_gateway.web.errors import Problem, forbidden, invalid, of_validation
from webhook_gateway.web.live import is_stream

from .forms import Form
from .rendering import Zone, render
from .signed_in import PATH, Door, SignedIn

PER_PAGE = 50
SAID = {
    "blank": "Nothing was looked for. Give an id, a key or a name, of at most 256 characters.",
    "cancelled": "It was given up.",
    "many": "They were given up.",
    "changed": "The change is saved.",
    "partner": "The partner is made. Now say where its events go.",
    "tested": "The test has arrived.",
    "testing": "The test was queued: what becomes of it stands below.",
    "deleted": "It was deleted.",
    "event_type": "The event type is made: events of it are accepted.",
    "ended": "Signed out.",
    "link": "The link is revoked, and whoever was signed in by it is out.",
    "session": "Ended: whoever it was has to sign in again.",
    "paused": "The endpoint is paused: its deliveries wait.",
    "released": "What waited behind it goes on.",
    "replayed": "It is sent again.",
    "resumed": "The endpoint is enabled: what waited goes out.",
    "revoked": "The key is revoked.",
    "tried": "It is tried now.",
}
"""What a page says after something was done: a closed list, so that nobody's link can make it say anything else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One request to the console, or to a partner's portal. ``gateway`` has the console's own connections."""

    request: Request
    gateway: Gateway
    door: Door
    nonce: str
    zone: Zone
    session: SignedIn | None = None
    form: Form = field(default_factory=Form)
    problem: Problem | None = None
    """Why the form that the page shows again was refused."""

    @property
    def caller(self) -> Caller:
        assert self.session is not None
        return self.session.caller

    @property
    def is_poll(self) -> bool:
        """Whether a page that is kept current asks for this, nobody themselves: it takes no more than what it shows."""
        return (
            self.request.method in ("GET", "HEAD")
            and "hx-request" in self.request.headers
            and not is_stream(self.request.url.path)
        )

    @property
    def root(self) -> str:
        return self.door.root

    @property
    def is_portal(self) -> bool:
        return self.door.is_portal

    @property
    def address(self) -> str:
        """Where others reach the gateway."""
        return self.gateway.settings.public_url or str(self.request.base_url).rstrip("/")

    def may(
        self, scope: Scope | str | None, *, whole_tenant: bool = False, by: Capability | str = Capability.VIEW
    ) -> bool:
        """Whether the visitor may do what needs this. ``by`` is the capability that a partner's link has to have."""
        if self.session is None:
            return False
        is_bound = whole_tenant and self.caller.subscriber_id is not None
        return not is_bound and (scope is None or self.caller.may(Scope(scope), Capability(by)))

    def asked(self, name: str) -> str | None:
        """What the URL asks for, or None."""
        return self.request.query_params.get(name) or None

    def moment(self, name: str) -> datetime | None:
        """A time that a form or the URL asks for, in the zone in which times are shown.

        Raises:
            Problem: 422.
        """
        if not (text := self.form.get(name) or self.asked(name)):
            return None
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            raise invalid(Fault("time", "Give a time, as in 2026-11-24T09:30.", pointer=f"/{name}")) from None
        return found if found.tzinfo is not None else found.replace(tzinfo=self.zone.zone)

    def reading(self) -> AbstractAsyncContextManager[AsyncConnection]:
        return self.gateway.database.reading()

    def changing(self) -> AbstractAsyncContextManager[Change]:
        return changing(self.gateway.database, self.caller)

    def show(self, template: str, title: str, status: int = 200, **context: Any) -> Response:
        """A page. ``title`` names what it is about, so that no two pages have the same."""
        status = self.problem.status_code if self.problem is not None and status == 200 else status
        # A form is sent to where its page was: what that page said is no news any more.
        said = SAID.get(self.asked("said") or "") if self.request.method == "GET" else None
        about = {"title": title, "visit": self, "may": self.may, "said": said, "menu": _menu(self), "here": self.here}
        return HTMLResponse(render(self.root, template, self.zone, {**about, **context}), status)

    def here(self, **changed: Any) -> str:
        """The URL of this page, with other values of what it asks for; None leaves one out."""
        return url(self.request.url.path, {**self.request.query_params, "said": None, **changed})

    def expect_typed(self, text: str) -> None:
        """
        Raises:
            Problem: 422: what has to be typed for something that can't be taken back was not.
        """
        if self.form.get("typed", "") != text:
            raise invalid(Fault("typed", f"Type {text} to confirm.", pointer="/typed"))

    def reason(self) -> str:
        """Why a body is to be shown.

        Raises:
            Problem: 422.
        """
        if not is_label(given := self.form.get("reason", "")):
            remedy = "Say why you have to read it, in one line: it stands in the audit log. Never a patient's name."
            raise invalid(Fault("reason", remedy, pointer="/reason"))
        return given

    def go(self, path: str, said: str | None = None, **asked: str) -> Response:
        """To another page, with GET."""
        return RedirectResponse(url(self.root + path, {"said": said, **asked}), 303)


Handler = Callable[..., Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A path, and who may see what is there."""

    path: str
    handle: Handler
    method: str = "GET"
    scope: Scope | None = None
    whole_tenant: bool = False
    public: bool = False
    by: Capability | None = None
    """What a partner's link must let its reader do; None for what is not in the portal."""
    form: Handler | None = None
    """The page that shows the form again where it was refused."""
    once: str | None = None
    """Of an action whose answer is shown only now, and whose form so works once: what helps who has not kept it."""

    async def answer(self, visit: Visit, places: Mapping[str, Any]) -> Response:
        by = self.by or Capability.VIEW
        if not self.public and not visit.may(self.scope, whole_tenant=self.whole_tenant, by=by):
            raise forbidden(self._lacking(visit))
        try:
            return await self._do(visit, places)
        except ValidationError as wrong:
            found = [{**one, "loc": ("body", *one["loc"])} for one in wrong.errors()]
            problem = of_validation(RequestValidationError(found))
        except Problem as refused:
            problem = refused
        if self.form is None or problem.status_code not in (409, 422):
            raise problem
        return await self.form(replace(visit, problem=problem), **places)

    async def _do(self, visit: Visit, places: Mapping[str, Any]) -> Response:
        given, session, database = visit.form.get("once"), visit.session, visit.gateway.database
        if not (self.once and session and given) or visit.form.get("do", "save") != "save":
            return await self.handle(visit, **places)  # a form of the version before has no token
        token = UUID(bytes=digest(given)[:16])
        async with database.connection() as connection:
            if not await sessions.spend(connection, session.id, token):
                return visit.show("done_already.html", "Done already", 409, remedy=self.once)
        try:
            return await self.handle(visit, **places)
        except Exception:
            async with database.connection() as connection:
                await sessions.unspend(connection, session.id, token)
            raise

    def _lacking(self, visit: Visit) -> str:
        if visit.session is not None and visit.session.viewing is not None:
            return "You only look at what the partner sees. To do something, go back to the console."
        if visit.is_portal:
            return f"Your link is not made for this: ask the hospital for one with “{self.by}”."
        if visit.may(self.scope):
            return "You are signed in for one partner, and this is about the whole hospital."
        return f"It needs the scope {self.scope}, which what you have signed in with lacks."


PAGES: list[Page] = []
MENU: dict[str, dict[str, tuple[str, str]]] = {
    "": {PATH: ("Overview", "gauge")},
    "Traffic": {
        f"{PATH}/deliveries": ("Deliveries", "send"),
        f"{PATH}/events": ("Events", "inbox"),
        f"{PATH}/problems": ("Problems", "alert"),
        f"{PATH}/held-keys": ("Held keys", "lock"),
        f"{PATH}/replays": ("Replays", "repeat"),
    },
    "Who gets what": {f"{PATH}/partners": ("Partners", "building"), f"{PATH}/catalogue": ("Catalogue", "book")},
    "Oversight": {
        f"{PATH}/disclosures": ("Disclosures", "file"),
        f"{PATH}/audit": ("Audit", "scroll"),
        f"{PATH}/keys": ("API keys", "key"),
        f"{PATH}/sessions": ("Sessions", "monitor"),
    },
}
"""Headings, and below each the pages that are always a click away: their names and icons."""


def page(path: str, scope: Scope | None = None, **about: Any) -> Callable[[Handler], Handler]:
    """Registers a page that is looked at."""

    def register(handle: Handler) -> Handler:
        PAGES.append(Page(path=(PATH + path).rstrip("/"), handle=handle, scope=scope, **about))
        return handle

    return register


def action(path: str, scope: Scope | None = None, **about: Any) -> Callable[[Handler], Handler]:
    """Registers something that a form does."""
    return page(path, scope, method="POST", **about)


@cache
def pages_of(root: str) -> list[Page]:
    """The pages below a root: at the portal those that a link can be for."""
    shown = [page for page in PAGES if page.by is not None or root == PATH]
    return [replace(page, path=root + page.path.removeprefix(PATH)) for page in shown]


def _menu(visit: Visit) -> dict[str, list[tuple[str, str, str]]]:
    """What of the menu the visitor may see: URL, name and icon."""
    seen = {
        PATH + page.path.removeprefix(visit.root)
        for page in pages_of(visit.root)
        if page.method == "GET" and visit.may(page.scope, whole_tenant=page.whole_tenant)
    }
    shown = {
        head: [(visit.root + path.removeprefix(PATH), *about) for path, about in rows.items() if path in seen]
        for head, rows in MENU.items()
    }
    return {head: rows for head, rows in shown.items() if rows}


def url(path: str, asked: Mapping[str, Any]) -> str:
    query = urlencode({name: value for name, value in asked.items() if value not in (None, "")})
    return f"{path}?{query}" if query else path
