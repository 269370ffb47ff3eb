"""``check-url``: would the gateway deliver there?"""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from webhook_gateway.outbound.policy import policy_from
from webhook_gateway.outbound.resolvers import NameNotFound, ResolverFailed, resolver_named
from webhook_gateway.rules.denials import Denied
from webhook_gateway.rules.targets import Policy, judge, parse
from webhook_gateway.settings import settings

from .exits import NO
from .screen import write_json

PATIENCE = 3.0
"""Seconds for a look-up."""


def check_url(
    url: Annotated[str, typer.Argument(metavar="URL")],
    resolve: Annotated[
        bool, typer.Option("--resolve/--no-resolve", help="Look the name up, and judge all of its addresses, too.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help='{"allowed": …, "reason": …, "remedy": …}')] = False,
) -> None:
    """Say whether policy allows to deliver to a URL. Exit code 0: allowed, 1: denied, with the reason.

    [dim]Example:[/dim]  webhook-gateway check-url https://partner.example.com/webhooks
    """
    denied = _judge(url, policy_from(settings()), resolve=resolve)
    if as_json:
        reason, remedy = (denied.reason, denied.remedy) if denied is not None else (None, None)
        write_json({"allowed": denied is None, "reason": reason, "remedy": remedy})
    elif denied is None:
        print("allowed")
    else:
        print(f"denied: {denied.reason}")
        typer.echo(denied.remedy, err=True)
    raise typer.Exit(0 if denied is None else NO)


def _judge(url: str, policy: Policy, *, resolve: bool) -> Denied | None:
    target = parse(url, policy)
    if isinstance(target, Denied) or not resolve:
        return target if isinstance(target, Denied) else None
    for address in _addresses(target.host):
        denied = judge(address, target.port, policy)
        if denied is not None:
            return denied
    return None


def _addresses(host: str) -> list[str]:
    """What the name resolves to now. A name that doesn't is no reason to deny: it may tomorrow, and is judged then."""
    try:
        addresses = asyncio.run(_look_up(host))
    except (NameNotFound, ResolverFailed, OSError):  # TimeoutError is one
        addresses = []
    if not addresses:
        typer.echo(f"{host} has no address just now; the policy was asked about the URL alone", err=True)
    return addresses


async def _look_up(host: str) -> list[str]:
    """Asks whom a worker would ask. Address literals need nobody."""
    resolve = resolver_named(settings().resolver)
    try:
        async with asyncio.timeout(PATIENCE):
            return list(dict.fromkeys(await resolve(host)))
    finally:
        await resolve.close()
