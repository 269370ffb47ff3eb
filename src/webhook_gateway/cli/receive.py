"""``sign`` and ``verify``: one message, from standard input, for whoever builds a receiver."""

from __future__ import annotations

import json
import sys
import time
import uuid
from typing import Annotated, Any

from webhook_gateway.crypto import signatures
from webhook_gateway.rules.signing import BadSecret, BadSignature

from .plain import NO, WRONG, CannotGoOn, write_json

try:
    import typer
except ModuleNotFoundError:
    from . import light as typer  # type: ignore[no-redef]

Secret = Annotated[
    str,
    typer.Option(
        "--secret",
        envvar="WEBHOOK_SECRET",
        help="The endpoint's secret, whsec_…, or to verify its public key, whpk_…. In the environment it stays out of "
        "the shell's history.",
    ),
]


def sign(
    secret: Secret,
    id: Annotated[str, typer.Option("--id", help="The webhook-id; made up where it is left out.")] = "",
    timestamp: Annotated[int, typer.Option("--timestamp", help="Unix seconds; 0 means now.", show_default=False)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="The headers as a JSON object.")] = False,
) -> None:
    """Sign a body from standard input and print the three headers.

    [dim]Example:[/dim]  echo -n '{"hello":"world"}' | webhook-gateway sign --secret whsec_… --id evt_1
    """
    check_secret(secret)
    if secret.startswith(signatures.PUBLIC_PREFIX):
        raise CannotGoOn("a public key only verifies: to sign, give whsec_… or the private key, whsk_…", WRONG)
    message_id, moment = id or f"evt_{uuid.uuid4().hex}", timestamp or int(time.time())
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": str(moment),
        "webhook-signature": signatures.sign([secret], message_id, moment, sys.stdin.buffer.read()),
    }
    if as_json:
        write_json(headers)
    else:
        print("\n".join(f"{name}: {value}" for name, value in headers.items()))


def verify(
    secret: Secret,
    id: Annotated[str, typer.Option("--id", help="The webhook-id header.")],
    timestamp: Annotated[int, typer.Option("--timestamp", min=0, max=10**12, help="The webhook-timestamp header.")],
    signature: Annotated[str, typer.Option("--signature", help="The webhook-signature header, whole.")],
    any_age: Annotated[
        bool, typer.Option("--any-age", help="Don't mind an old timestamp: for a recorded one.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help='{"valid": …, "reason": …, "test": …}')] = False,
) -> None:
    """Check the signature of a body from standard input. Exit code 0: it is right, 1: it is not, with the reason.

    [dim]Example:[/dim]  webhook-gateway verify --id evt_1 --timestamp 1795392000 --signature 'v1,…' < body.json
    """
    check_secret(secret)
    body, reason = sys.stdin.buffer.read(), None
    try:
        now = float(timestamp) if any_age else time.time()
        signatures.verify(secret, id, timestamp, body, signature, now)
    except BadSignature as error:
        reason = str(error)
    test = is_test(read_event(body))
    if as_json:
        write_json({"valid": reason is None, "reason": reason, "test": test})
    else:
        print("valid" + ", a test" * test if reason is None else f"not valid: {reason}")
    raise typer.Exit(0 if reason is None else NO)


def read_event(body: bytes) -> Any:
    """None where it isn't JSON."""
    try:
        return json.loads(body)
    except ValueError:
        return None


def is_test(event: Any) -> bool:
    """Whether it was sent to try the endpoint, as its body says: that is signed, the header `webhook-test` is not."""
    return isinstance(event, dict) and event.get("test") is True


def check_secret(secret: str) -> None:
    try:
        signatures.check(secret)
    except BadSecret as error:
        raise CannotGoOn(f"the secret can't be used: {str(error)[0].lower()}{str(error)[1:]}", WRONG) from None
