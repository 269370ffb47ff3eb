"""The console as an application of its own, beside the API in the same process, and the portal as its narrower twin.

In this order: a request id, the policy and the security headers on whatever is answered, where a form comes from, who
is signed in, what they may, the page. It has a few connections to the database of its own, which give up soon: whatever
people look at, deliveries don't wait for it.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from webhook_gateway.crypto.vault import Tampered
from webhook_gateway.rules import ids
from webhook_gateway.rules.matching import is_name
from webhook_gateway.store.database import Database
from webhook_gateway.web import errors
from webhook_gateway.web.api.dependencies import Gateway
from webhook_gateway.web.errors import Problem
from webhook_gateway.web.guard import Answered, problem_behind, request_id_of
from webhook_gateway.web.live import is_stream

from . import files, pages  # noqa: F401 - they register themselves
from .forms import check_origin, read_form
from .frame import Page, Visit, pages_of
from .polls import Polls
from .rendering import Zone
from .signed_in import PATH, PORTAL, Door

CONNECTIONS, PATIENCE = 4, 2.0
"""To the database, and seconds that a statement may take."""
ZONE = "zone"
SAFE = {"GET", "HEAD"}
IDS = {
    "subscriber_id": ids.SUBSCRIBER,
    "endpoint_id": ids.ENDPOINT,
    "event_id": ids.EVENT,
    "delivery_id": ids.DELIVERY,
    "key_id": ids.KEY,
    "job_id": ids.JOB,
    "session_id": ids.SESSION,
}
"""Places in paths, and how the ids there begin."""

POLICY = (
    "default-src 'none'; script-src 'nonce-{}'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)


class Console:
    """The console's application; `close` gives its connections back."""

    def __init__(self, gateway: Gateway) -> None:
        assert gateway.settings.database_url is not None
        database = Database(gateway.settings.database_url, connections=CONNECTIONS, patience=PATIENCE, alike=True)
        self._gateway = replace(gateway, database=database)
        self._polls = Polls()
        self._doors = {root: Door(self._gateway, root) for root in (PATH, PORTAL)}
        self._routes = {
            root: [(re.compile(_pattern(page.path)), page) for page in pages_of(root)] for root in self._doors
        }

    @staticmethod
    def takes(scope: Scope) -> bool:
        return scope["type"] == "http" and _root_of(scope.get("path", "")) in (PATH, PORTAL)

    async def close(self) -> None:
        await self._gateway.database.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, request_id = Request(scope, receive), request_id_of(dict(scope["headers"]))
        answered = Answered(send, request_id)
        scope.setdefault("state", {})["request_id"] = request_id
        root = _root_of(request.url.path)
        if request.method in SAFE and (file := files.find(request.url.path.removeprefix(root))) is not None:
            await file(scope, receive, answered)
            return
        nonce = base64.b64encode(os.urandom(16)).decode()
        zone = Zone(request.cookies.get(ZONE, self._gateway.settings.time_zone))
        visit = Visit(request=request, gateway=self._gateway, door=self._doors[root], nonce=nonce, zone=zone)
        try:
            visit = await self._receive(visit)
            response = await self._answer(visit)
        except Exception as unexpected:
            problem = _problem(unexpected, request_id)
            context = {"problem": problem, "request_id": request_id}
            response = visit.show("problem.html", _heading(problem), problem.status_code, **context)
            response.headers.update(problem.headers or {})
        response.headers["content-security-policy"] = POLICY.format(nonce)
        await response(scope, receive, answered)

    async def _receive(self, visit: Visit) -> Visit:
        """The visit with who is signed in. What a page asks for by itself, again and again, keeps nobody signed in."""
        request = visit.request
        if request.method not in SAFE:
            check_origin(request, self._gateway.settings.public_url)
        session = await visit.door.find(request, is_used=not (visit.is_poll or is_stream(request.url.path)))
        if session is not None:
            session = replace(session, caller=replace(session.caller, zone=visit.zone.zone))
        request.scope["state"]["caller"] = None if session is None else session.caller
        return replace(visit, session=session)

    async def _answer(self, visit: Visit) -> Response:
        page, places = self._find(visit)
        visit.request.scope["route"] = page  # its path is what the log and the metrics call it
        if visit.session is None and not page.public:
            return self._to_sign_in(visit)
        if visit.is_poll and visit.session is not None:
            caller, words = visit.caller, self._gateway.live.words
            who = caller.tenant_id, caller.subscriber_id, caller.scopes, caller.capabilities, words
            answer = partial(page.answer, visit, dict(_read(places)))
            return await self._polls.answer((visit.here(), visit.zone.name, *who), answer)
        if page.method == "GET":
            return await page.answer(visit, dict(_read(places)))
        answered = await page.answer(replace(visit, form=await read_form(visit.request)), dict(_read(places)))
        self._polls.forget()
        return answered

    def _find(self, visit: Visit) -> tuple[Page, dict[str, str]]:
        asked, path = visit.request.method, visit.request.url.path.rstrip("/")
        method = "GET" if asked == "HEAD" else asked
        found = [(page, match) for pattern, page in self._routes[visit.root] if (match := pattern.fullmatch(path))]
        if not found:
            raise Problem(404, "not-found", "There is no page at this address. The menu leads to all.")
        for page, match in found:
            if page.method == method:
                return page, match.groupdict()
        raise Problem(405, "method-not-allowed", "This address can't be used like that. The menu leads to all pages.")

    def _to_sign_in(self, visit: Visit) -> Response:
        if visit.request.method in SAFE and not visit.is_poll:
            asked = visit.here()
            back = "" if asked.rstrip("/") == visit.root else f"?to={quote(asked)}"
            return RedirectResponse(f"{visit.root}/login{back}", 303)
        response = visit.show("signed_out.html", "Signed out", 401)
        visit.door.let_out(response)
        return response


def _root_of(path: str) -> str:
    return "/" + path[1:].partition("/")[0]


def _pattern(template: str) -> str:
    return re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(template))


def _read(places: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    """
    Raises:
        Problem: 404 for what is no id.
    """
    for name, text in places.items():
        try:
            if name == "name" and not is_name(text):
                raise errors.not_found("event type")
            yield name, ids.parse(IDS[name], text) if name in IDS else text
        except ids.NotAnId:
            raise errors.not_found(name.removesuffix("_id").replace("_", " ")) from None


def _problem(unexpected: Exception, request_id: str) -> Problem:
    match unexpected:
        case Tampered():
            return errors.record_damaged(unexpected)
        case _:
            return problem_behind(unexpected, request_id)


def _heading(problem: Problem) -> str:
    return {401: "Not signed in", 403: "You may not see this", 404: "There is nothing here"}.get(
        problem.status_code, errors.TITLES[problem.name]
    )
