"""Operators are told of a trouble, and of its end, by mail: each once, by whichever worker comes first."""

from __future__ import annotations

from collections.abc import Sequence

from webhook_gateway import telemetry
from webhook_gateway.host.loop import POLL
from webhook_gateway.outbound import mail
from webhook_gateway.rules import ids
from webhook_gateway.rules.labels import visible
from webhook_gateway.settings import Settings
from webhook_gateway.store import notices
from webhook_gateway.store.database import Database
from webhook_gateway.store.notices import Notice

from .registry import Registry

EVERY = 30.0
MEANS = {
    "endpoint_failing": "Nothing but failures came back for ten minutes or more. Its deliveries wait.",
    "endpoint_disabled": "It was given up. Its deliveries wait until somebody resumes it.",
    "deliveries_dead": "Deliveries to it were given up within the last hour. They can be replayed.",
    "secret_expiring": "One of its signing secrets expires. The partner has to know the newer one by then.",
    "key_expiring": "This API key expires. Whoever uses it needs another by then.",
}


async def tell(settings: Settings, database: Database, registry: Registry) -> float:
    """A round, with one message for all that is new; returns the seconds to sleep. A copy of a database is silent."""
    if not registry.snapshot.version or registry.snapshot.is_paused:
        return POLL
    async with database.connection() as connection:
        claimed = await notices.claim(connection)
    if claimed:
        failure = await mail.send(settings, *_written(claimed, settings.public_url))
        telemetry.notices_sent(len(claimed), failure)
        if failure is None:
            async with database.connection() as connection:
                await notices.told(connection, claimed)
    return EVERY


def _written(claimed: Sequence[Notice], public_url: str | None) -> tuple[str, str]:
    """Subject and text. No patient is ever in it: names of partners and keys, URLs without their query."""
    lines = []
    for one in claimed:
        kind, page = (ids.KEY, "keys") if one.trouble == "key_expiring" else (ids.ENDPOINT, "endpoints")
        about = ids.render(kind, one.about_id)
        since = "expires" if one.trouble.endswith("expiring") else "since"
        lines += [_title(one), f"{about}, {since} {one.at:%Y-%m-%d %H:%M %Z}"]
        lines += [] if one.over else [MEANS[one.trouble]]
        lines += [f"{public_url.rstrip('/')}/console/{page}/{about}"] if public_url else []
        lines.append("")
    more = f" (and {len(claimed) - 1} more)" if len(claimed) > 1 else ""
    return _title(claimed[0])[:150] + more, "\n".join(lines)


def _title(one: Notice) -> str:
    return f"{'Over: ' if one.over else ''}{one.trouble.replace('_', ' ')}: {' '.join(visible(one.label).split())}"
