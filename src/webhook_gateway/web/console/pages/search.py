"""The box in every page's head: it takes any id, key or partner's name, and leads to what it names."""

from __future__ import annotations

from pydantic import ValidationError
from sqlalchemy import RowMapping
from starlette.responses import Response

from webhook_gateway.intake.lookups import Kind
from webhook_gateway.operations.search import item
from webhook_gateway.rules import ids
from webhook_gateway.rules.labels import is_label
from webhook_gateway.rules.scopes import Capability, Scope
from webhook_gateway.store import lookups, subscribers
from webhook_gateway.store.driver import driver_of
from webhook_gateway.web.api import search as api
from webhook_gateway.web.api.schemas.search import Search
from webhook_gateway.web.console.frame import PER_PAGE, Visit, action, page

from .sign_in import go_on

PLACES = {
    "event": "/events/{}",
    "delivery": "/deliveries/{}",
    "endpoint": "/endpoints/{}",
    "subscriber": "/partners/{}",
    "replay": "/replays/{}",
    "key": "/keys#{}",
}


@action("/search", Scope.DELIVERIES_READ, by=Capability.VIEW)
async def search(visit: Visit) -> Response:
    """To what an id or a name is of; else what came with the key. It may name a patient, and so is in no URL."""
    text, cursor = visit.form.get("q", ""), visit.form.get("cursor") or None
    try:
        asked = Search(q=text, cursor=cursor, limit=PER_PAGE)
    except ValidationError:
        return go_on(visit, visit.form.get("to", ""), "blank")
    found = await api.find(asked, visit.gateway, visit.caller)
    if found["items"] and text == found["items"][0]["id"]:
        return visit.go(PLACES[found["items"][0]["kind"]].format(text))
    partners = [] if cursor else await _partners(visit, text)
    if found["items"] or found["next_cursor"] or cursor:
        by_name = (item(ids.SUBSCRIBER, row["id"], ["name"], row["created_at"], row["name"]) for row in partners)
        found["items"] = [*by_name, *found["items"]]
        return visit.show("found.html", "Found", found=found, places=PLACES)
    named = [ids.render(ids.SUBSCRIBER, row["id"]) for row in partners]
    if named:
        return visit.go(f"/partners/{named[0]}") if len(named) == 1 else visit.go("/partners", among=",".join(named))
    return visit.go("/search", without=",".join(found["not_searched"]))


@page("/search", Scope.DELIVERIES_READ, by=Capability.VIEW)
async def nothing(visit: Visit) -> Response:
    """Where a search that found nothing leads, so that going back from it sends no form again."""
    async with visit.reading() as connection:
        since = await lookups.indexed_since(await driver_of(connection))
    without = [one for one in (visit.asked("without") or "").split(",") if one in {*PLACES, *Kind}]
    found = {"items": [], "found": [], "next_cursor": None, "not_searched": without, "indexed_since": since}
    return visit.show("found.html", "Nothing found", found=found, places=PLACES)


async def _partners(visit: Visit, text: str) -> list[RowMapping]:
    if visit.is_portal or not visit.may(Scope.ENDPOINTS_READ) or not is_label(text):
        return []
    tenant_id, only = visit.caller.tenant_id, visit.caller.subscriber_id
    async with visit.reading() as connection:
        found = await subscribers.page(connection, tenant_id, only=only, called=text, before=None, limit=PER_PAGE)
    return [row for row in found if row["name"].lower() == text.lower()] or found
