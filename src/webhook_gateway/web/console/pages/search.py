"""The box in every page's head: it takes any id or key, and leads to what it names."""

from __future__ import annotations

from starlette.responses import Response

from webhook_gateway.rules.scopes import Capability, Scope
from webhook_gateway.web.api import search as api
from webhook_gateway.web.api.schemas.search import Search
from webhook_gateway.web.console.frame import PER_PAGE, Visit, action

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
    """To the page of an id; else what came with the key, which may name a patient and so is in no URL."""
    given = {"q": visit.form.get("q", ""), "cursor": visit.form.get("cursor") or None, "limit": PER_PAGE}
    found = await api.find(Search.model_validate(given), visit.gateway, visit.caller)
    if found["items"] and given["q"] == found["items"][0]["id"]:
        return visit.go(PLACES[found["items"][0]["kind"]].format(given["q"]))
    return visit.show("found.html", "Found", 200 if found["items"] else 404, found=found, places=PLACES)
