"""Signing in and out, who else is signed in, and in which zone times are shown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

from starlette.responses import RedirectResponse, Response

from webhook_gateway.operations import sessions
from webhook_gateway.rules.scopes import Capability, Scope
from webhook_gateway.store import sessions as stored
from webhook_gateway.web.console.frame import Visit, action, page
from webhook_gateway.web.console.provider import NotLetIn
from webhook_gateway.web.console.rendering import Zone
from webhook_gateway.web.errors import Problem, granted

MOST = 200
STATUS = {NotLetIn.NOT_ASKED: 400, NotLetIn.CODE_REFUSED: 400, NotLetIn.UNAVAILABLE: 503}
"""Of who is not let in; 403 for others."""
YEAR = 31_536_000
NOT_VALID = "This key or code is not valid, or not from this network."
USED = "This link was used already, or is too old: "
ANOTHER = ("webhook-gateway console prints another.", "ask the hospital for a new one.")


@page("/login", public=True, by=Capability.VIEW)
async def form(visit: Visit) -> Response:
    to, provider = visit.form.get("to") or visit.asked("to") or visit.root, visit.door.provider
    if visit.is_portal:  # a newer link takes the place of an older one
        visit = replace(visit, session=None)
    leave = await provider.sign_out_url() if provider and visit.asked("said") == "ended" else None
    return visit.show("sign_in.html", "Sign in", to=to, problem=visit.problem, leave=leave)


@action("/login", public=True, by=Capability.VIEW)
async def sign_in(visit: Visit) -> Response:
    to = visit.form.get("to", "")
    try:
        secret = await visit.door.sign_in(visit.request, visit.form.get("key", ""))
    except Problem as problem:
        if problem.status_code not in (401, 429):
            raise
        is_link = visit.is_portal or sessions.CODE in visit.form.get("key", "")
        not_valid = USED + ANOTHER[visit.is_portal] if is_link else NOT_VALID
        context = {"to": to, "problem": problem, "told": not_valid if problem.status_code == 401 else problem.detail}
        return replace(visit, session=None).show("sign_in.html", "Sign in", problem.status_code, **context)
    response = go_on(visit, to)
    visit.door.let_in(response, secret)
    return response


@page("/login/account", public=True)
async def to_provider(visit: Visit) -> Response:
    found = await visit.door.to_provider(visit.asked("to") or "", visit.address)
    return _refuse(visit, found) if isinstance(found, NotLetIn) else found


@page("/login/callback", public=True)
async def from_provider(visit: Visit) -> Response:
    found = await visit.door.from_provider(visit.request, visit.address)
    if isinstance(found, NotLetIn):
        response = _refuse(visit, found)
    else:
        secret, to = found
        response = go_on(visit, to)
        visit.door.let_in(response, secret)
    if found is not NotLetIn.NOT_ASKED:
        visit.door.back_from_provider(response)
    return response


@action("/logout", by=Capability.VIEW)
async def sign_out(visit: Visit) -> Response:
    assert visit.session is not None
    async with visit.changing() as change:
        granted(await sessions.end(change, visit.session.id, of_all=False))
    response = visit.go("/login", "ended")
    visit.door.let_out(response)
    return response


@page("/sessions")
async def every(visit: Visit) -> Response:
    actor = None if _sees_all(visit) else visit.caller.name
    async with visit.reading() as connection:
        rows = await stored.page(connection, visit.caller.tenant_id, actor=actor, limit=MOST)
    return visit.show("sessions.html", "Sessions", rows=rows)


@action("/sessions/end")
async def end_all(visit: Visit) -> Response:
    return await _end(visit, None)


@action("/sessions/{session_id}/end")
async def end(visit: Visit, session_id: UUID) -> Response:
    return await _end(visit, session_id)


@action("/zone", public=True, by=Capability.VIEW)
async def choose_zone(visit: Visit) -> Response:
    response = go_on(visit, visit.form.get("to", ""))
    how: dict[str, Any] = {"path": visit.root, "samesite": "lax", "secure": not visit.gateway.settings.development}
    response.set_cookie("zone", Zone(visit.form.get("zone", "")).name, max_age=YEAR, httponly=True, **how)
    return response


def go_on(visit: Visit, to: str, said: str | None = None) -> Response:
    """Only to pages of ours: what looks like another host's address is one."""
    to = to if to.startswith(f"{visit.root}/") else visit.root
    return RedirectResponse(f"{to}{'&' if '?' in to else '?'}said={said}" if said else to, 303)


def _refuse(visit: Visit, reason: NotLetIn) -> Response:
    alone = replace(visit, session=None)
    return alone.show("not_let_in.html", "Not signed in", STATUS.get(reason, 403), reason=reason)


async def _end(visit: Visit, session_id: UUID | None) -> Response:
    async with visit.changing() as change:
        granted(await sessions.end(change, session_id, of_all=_sees_all(visit)))
    return visit.go("/sessions", "session")


def _sees_all(visit: Visit) -> bool:
    return visit.may(Scope.ADMIN, whole_tenant=True)
