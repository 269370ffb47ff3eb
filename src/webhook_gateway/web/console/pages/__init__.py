"""A file a page, or a few that belong together: a visit comes in, a template filled with what it may see goes out."""

from webhook_gateway.web.console.frame import PAGES

from . import (  # noqa: F401 - each registers its pages
    audit,
    backfills,
    catalogue,
    deliveries,
    disclosures,
    endpoints,
    events,
    held_keys,
    keys,
    overview,
    partners,
    portal,
    problems,
    replays,
    search,
    sign_in,
)

__all__ = ["PAGES"]
