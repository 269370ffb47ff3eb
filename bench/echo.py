"""The floor under ingest: a bare ASGI app on the same server, which checks the same body and answers at once.

It checks as the gateway's byte route does: jiter for what the body means, msgspec for its shape, and the event type's
JSON Schema. There is no key, no encryption and no database.

    python -m bench.echo PORT
"""

from __future__ import annotations

import sys
from typing import Any
from uuid import UUID

import jiter
import msgspec
import uvicorn

from webhook_gateway.intake.catalogue import Catalogue
from webhook_gateway.web.api.event_bodies import EventIn

NOBODY = UUID(int=0)

catalogue = Catalogue()
decoder = msgspec.json.Decoder(EventIn)


async def app(scope: Any, receive: Any, send: Any) -> None:
    body = b""
    more = True
    while more:
        message = await receive()
        body += message["body"]
        more = message.get("more_body", False)
    parsed = jiter.from_json(body, allow_inf_nan=False, catch_duplicate_keys=True, cache_mode="keys")
    event = decoder.decode(body)
    known = catalogue.get(NOBODY, event.type)
    valid = known is not None and catalogue.compiled(NOBODY, known).is_valid(parsed["data"])
    answer = msgspec.json.encode({"id": "evt_00000000000000000000000000", "type": event.type, "valid": valid})
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 202 if valid else 422, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


if __name__ == "__main__":
    uvicorn.run(
        app,
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        backlog=2048,
    )
