"""``listen``: a receiver on a developer's machine that verifies what arrives and shows it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Annotated

from webhook_gateway.crypto import signatures
from webhook_gateway.rules.labels import visible
from webhook_gateway.rules.signing import BadSignature

from .plain import CannotGoOn, say, write_json
from .receive import Secret, check_secret, is_test, read_event

try:
    import typer
except ModuleNotFoundError:
    from . import light as typer  # type: ignore[no-redef]


def listen(
    secret: Secret,
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

    class Receiver(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def do_POST(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            length, code = headers.get("content-length", ""), 411
            if re.fullmatch("[0-9]{1,8}", length):
                body = self.rfile.read(int(length))
                reason = _why_not(headers, secret, body)
                _show(headers, body, reason, as_json=as_json)
                code = status if reason is None else 401
            self.close_connection = code == 411
            self.send_response(code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """What came is shown already."""

    try:
        server = ThreadingHTTPServer((host, port), Receiver)
    except OSError as error:
        raise CannotGoOn(f"{host}:{port} can't be listened on ({error.strerror}): choose another --port") from None
    with server:
        say(f"listening on http://{host}:{server.server_port} (any path); Ctrl-C ends")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            raise typer.Exit(0) from None


def _why_not(headers: Mapping[str, str], secret: str, body: bytes) -> str | None:
    """Why the message can't be trusted, or None."""
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


def _show(headers: Mapping[str, str], body: bytes, reason: str | None, *, as_json: bool) -> None:
    event = read_event(body)
    message_id = headers.get("webhook-id", "-")
    if as_json:
        write_json(
            {"id": message_id, "valid": reason is None, "reason": reason, "test": is_test(event), "event": event}
        )
        return
    kind = str(event.get("type", "-")) if isinstance(event, dict) else "-"
    verdict = "signature valid" if reason is None else f"refused: {reason}"
    shown = (
        f"{len(body):,} bytes that are not JSON" if event is None else json.dumps(event, indent=2, ensure_ascii=False)
    )
    line = f"{time.strftime('%H:%M:%S')}  {message_id}  {kind}{'  a test' * is_test(event)}  {verdict}"
    print(visible(f"{line}\n{shown}"), flush=True)
