"""``console``: a link that signs its reader in to the console, once."""

from __future__ import annotations

from typing import Annotated

import typer

from webhook_gateway.rules.scopes import ROLES
from webhook_gateway.settings import settings

from .environment import TenantName, change_in
from .exits import WRONG, CannotGoOn
from .screen import say


def console(
    role: Annotated[
        str, typer.Option("--role", metavar="ROLE", help=f"What they may do: one of {', '.join(ROLES)}.")
    ] = "admin",
    open_it: Annotated[bool, typer.Option("--open", help="Open it in this machine's browser.")] = False,
    tenant: TenantName = "default",
) -> None:
    """Print a link to the console that signs in once, within ten minutes.

    [dim]Examples:[/dim]
      webhook-gateway console --open
      webhook-gateway console --role auditor
    """
    from webhook_gateway.operations import sessions

    if role not in ROLES or role == "partner":
        raise CannotGoOn(f"role: choose among {', '.join(name for name in ROLES if name != 'partner')}", WRONG)
    code = change_in(tenant, lambda change: sessions.offer(change, ROLES[role]))
    found = settings()
    link = sessions.link(found.public_url or f"http://{found.host}:{found.port}", code)
    say("signs in once, within ten minutes:")
    print(link)
    if open_it:
        typer.launch(link)
