"""``apply`` and ``export``: partners as a file, over the API."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from webhook_gateway.rules.labels import visible

from .exits import NO, PENDING, WRONG, CannotGoOn
from .nouns import text
from .remote import Profile, every, gateway
from .screen import say, write_json

SIGNS = {"created": "+", "deleted": "-"}


def apply(
    file: Annotated[Path, typer.Option("--file", "-f", metavar="FILE", help="As in examples/partners.yaml.")],
    only_plan: Annotated[
        bool, typer.Option("--plan", help="Change nothing. Exit code 0: nothing to do, 4: changes are pending.")
    ] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete the subscribers and endpoints that the file lacks.")
    ] = False,
    cancel_open: Annotated[
        bool, typer.Option("--cancel-open", help="Cancel open deliveries that endpoints may not have any more.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask at a terminal.")] = False,
    profile: Profile = "",
    as_json: Annotated[bool, typer.Option("--json", help="The steps as the API has them.")] = False,
) -> None:
    """Make partners as a file says: subscribers, what they may have, and their endpoints. All of it, or nothing.

    What the file lacks stays. A second time there is nothing to do.

    [dim]Example:[/dim]  webhook-gateway apply -f partners.yaml
    """
    from webhook_gateway.client import Refused

    from .partners_file import File

    wanted = File(file)
    how = {"prune": str(prune).lower(), "cancel_open": str(cancel_open).lower()}
    with gateway(profile) as api:
        try:
            done = api.request("POST", "/v1/partners", wanted.document, dry_run="true", **how)
            pending = bool(done["steps"])
            if not as_json:
                print(visible("\n".join(map(_told, done["steps"]))), end="\n" * pending)
            if pending and not only_plan:
                if sys.stdin.isatty() and not yes and not typer.confirm("Apply?", err=True):
                    raise typer.Exit(NO)
                done = api.request("POST", "/v1/partners", wanted.document, plan=done["plan"], **how)
        except Refused as error:
            lines = [f"{wanted.place(fault.pointer)} {fault.pointer}: {fault.remedy}" for fault in error.faults]
            raise CannotGoOn("\n".join(["nothing was changed", *lines]) if lines else str(error), WRONG) from None
    if as_json:
        write_json(done)
    elif keys := [f"{one['subscriber']} {one['endpoint']}: {one['key']}" for one in done["steps"] if one["key"]]:
        say("what partners verify with, which is shown only now:")
        print(visible("\n".join(keys)), flush=True)
    count = f"{len(done['steps'])} changes {'pending' if only_plan else 'applied'}"
    say(count if pending else "nothing to do: everything is as the file says")
    raise typer.Exit(PENDING if pending and only_plan else 0)


def export(profile: Profile = "") -> None:
    """Write the partners that there are, as a file that `apply` takes. No secrets: what the file lacks stays.

    [dim]Example:[/dim]  webhook-gateway export > partners.yaml
    """
    from .partners_file import written

    with gateway(profile) as api:
        endpoints = [api.get(f"/v1/endpoints/{one['id']}") for one in reversed(every(api, "/v1/endpoints"))]
        print("\n".join(written(every(api, "/v1/subscribers")[::-1], endpoints)))


def _told(step: dict[str, Any]) -> str:
    """One line: what becomes of whom, and of which members."""
    done, before, after = step["action"].partition(".")[2], step["before"], step["after"]
    members = (
        f"{name} {text(before[name])} → {text(value)}" if before and after else f"{name} {text(value)}"
        for name, value in (after or before or {}).items()
        if (before and after) or value not in (None, "", [], {})
    )
    named = " ".join(filter(None, (step["subscriber"], step["endpoint"])))
    return f"{SIGNS.get(done, '~')} {named}: {done.replace('_', ' ')}; {', '.join(members)}"
