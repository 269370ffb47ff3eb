"""The box in every page's head: it takes any id, and leads to what it names."""

from __future__ import annotations

from starlette.responses import Response

from webhook_gateway.rules import ids
from webhook_gateway.web.console.frame import Visit, action

PAGES = {
    ids.EVENT: "/events/",
    ids.DELIVERY: "/deliveries/",
    ids.ENDPOINT: "/endpoints/",
    ids.SUBSCRIBER: "/partners/",
    ids.JOB: "/replays/",
}


@action("/search")
async def search(visit: Visit) -> Response:
    asked = visit.form.get("q", "")
    for prefix, path in PAGES.items():
        try:
            return visit.go(path + ids.render(prefix, ids.parse(prefix, asked)))
        except ids.NotAnId:
            continue
    return visit.show("not_found.html", "Nothing found", 404)
