"""The hospital's claims desk: takes the insurer's decisions and posts them to the gateway as events.

The insurer signs its callbacks as the gateway signs, so the desk receives them exactly as a partner would. Here
WEBHOOK_SECRET is the secret agreed with the insurer (its CALLBACK_SECRET).
"""

import sqlite3

import httpx

from .partners.receiver import Event
from .partners.serve import serve
from .post_event import open_gateway, post_event

BILLING = "billing"
"""Who gets decisions, as the hospital calls them: the subscriber's `external_id`."""


def work(store: sqlite3.Connection, event: Event) -> str:
    if not event["type"].startswith("insurance_claim."):
        return "nothing: not a decision"
    claim = f"claim:{event['data']['claim_id']}"
    try:
        with open_gateway() as gateway:
            # Both insurers have `insurance_claim.*`, and a decision is none of the other one's business.
            posted = post_event(gateway, event["type"], event["data"], claim, claim, event["id"], to=[BILLING])
    except httpx.TransportError as error:
        raise OSError("the gateway is unavailable") from error
    except httpx.HTTPStatusError as error:
        if error.response.is_server_error or error.response.status_code == 429:
            raise OSError("the gateway is busy") from error
        raise
    return f"posted as {posted}"


if __name__ == "__main__":
    serve("claims_desk", work, tables="")
