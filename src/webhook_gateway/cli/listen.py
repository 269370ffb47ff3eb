"""``listen``: a receiver on a developer's machine that verifies what arrives and shows it."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from webhook_gateway.crypto import signatures
from webhook_gateway.host.supervisor import address_of, listen_on
from webhook_gateway.rules.signing import BadSignature

from .receive import check_secret, is_test, read_event
from .screen import answers, say, write_json

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


def listen(
    secret: Annotated[
        str,
        typer.Option(
            "--secret",
            envvar="WEBHOOK_SECRET",
            help="The endpoint's secret, whsec_…, or its public key, whpk_…; shown when it was made.",
        ),
    ],
    port: Annotated[int, typer.Option("--port", "-p", min=0, max=65_535, help="0: any free one.")] = 9_000,
    host: Annotated[str, typer.Option("--host", help="0.0.0.0 lets other machines in.")] = "127.0.0.1",
    status: Annotated[
        int, typer.Option("--status", min=200, max=599, help="What to answer: 503, say, to see the retries.")
    ] = 204,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line a request.")] = False,
) -> None:
    """Receive webhooks here, verify each signature and show what came. A wrong one is answered with 401.

    It shows whole bodies: use made-up patients.

    [dim]Example:[/dim]  webhook-gateway listen --secret whsec_… --port 9000
    [dim]Failing:[/dim]  webhook-gateway listen --secret whsec_… --status 503
    """
    check_secret(secret)
    import uvicorn
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Route

    async def receive(request: Request) -> Response:
        body = await request.body()
        reason = _why_not(request, secret, body)
        _show(request, body, reason, as_json=as_json)
        return Response(status_code=status if reason is None else 401)

    app = Starlette(routes=[Route("/{path:path}", receive, methods=["POST"])])
    with listen_on(host, port) as listener:
        say(f"listening on {address_of(listener)} (any path); Ctrl-C ends")
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, server_header=False))
        try:
            asyncio.run(server.serve(sockets=[listener]))
        except KeyboardInterrupt:
            raise typer.Exit from None


def _why_not(request: Request, secret: str, body: bytes) -> str | None:
    """Why the message can't be trusted, or None."""
    headers = request.headers
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        if name not in headers:
            return f"the header {name} is missing"
    if not re.fullmatch("[0-9]{1,12}", headers["webhook-timestamp"]):
        return "webhook-timestamp is not a number of seconds"
    try:
        moment = int(headers["webhook-timestamp"])
        signatures.verify(secret, headers["webhook-id"], moment, body, headers["webhook-signature"], time.time())
    except BadSignature as error:
        return str(error)
    return None


def _show(request: Request, body: bytes, reason: str | None, *, as_json: bool) -> None:
    from rich.json import JSON

    event = read_event(body)
    message_id = request.headers.get("webhook-id", "-")
    if as_json:
        write_json(
            {"id": message_id, "valid": reason is None, "reason": reason, "test": is_test(event), "event": event}
        )
        return
    kind = event.get("type", "-") if isinstance(event, dict) else "-"
    kind += "  a test" * is_test(event)
    verdict = Text("signature valid", "green") if reason is None else Text(f"refused: {reason}", "bold red")
    answers.print(Text.assemble((time.strftime("%H:%M:%S"), "dim"), f"  {message_id}  ", (kind, "bold"), "  ", verdict))
    if event is not None:
        answers.print(JSON.from_data(event))
    else:
        answers.print(f"{len(body):,} bytes that are not JSON")
