"""``pause``, ``resume`` and ``cancel``: an endpoint left alone for a while, deliveries given up. ``why`` it is so."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from webhook_gateway.rules import ids
from webhook_gateway.rules.sentences import Explanation

from .environment import TenantName, change_in, configured_vault, moment_in, parse_id, with_database
from .exits import NO, granted
from .screen import answers, say

if TYPE_CHECKING:
    from webhook_gateway.crypto.vault import Vault

EndpointId = Annotated[str, typer.Argument(metavar="ENDPOINT_ID", help="ep_…")]


def pause(
    endpoint: EndpointId,
    reason: Annotated[str, typer.Option("--reason", help="Why, for whoever looks at it later.")] = "",
    tenant: TenantName = "default",
) -> None:
    """Stop attempts to an endpoint. Its deliveries wait, also new ones; none is dropped.

    [dim]Example:[/dim]  webhook-gateway pause ep_01h455vb4pex5vsknk084sn02q --reason "certificate change"
    """
    from webhook_gateway.operations import endpoint_lifecycle

    endpoint_id, vault = parse_id(ids.ENDPOINT, endpoint), filled_vault()
    row = change_in(tenant, lambda change: endpoint_lifecycle.pause(change, vault, endpoint_id, reason or None))
    say(f"{endpoint} is {row['state']}")


def resume(endpoint: EndpointId, tenant: TenantName = "default") -> None:
    """Start attempts again, also where the gateway has disabled the endpoint."""
    from webhook_gateway.operations import endpoint_lifecycle

    endpoint_id, vault = parse_id(ids.ENDPOINT, endpoint), filled_vault()
    row = change_in(tenant, lambda change: endpoint_lifecycle.resume(change, vault, endpoint_id))
    say(f"{endpoint} is {row['state']}")


def pause_all(
    reason: Annotated[str, typer.Option("--reason", help="For whoever finds it so; nothing about a patient.")],
) -> None:
    """Send nothing more, to nobody, until ‘resume-all’: for all workers and tenants. Events are still accepted.

    A database that was restored from a dump starts like that by itself.

    [dim]Example:[/dim]  webhook-gateway pause-all --reason "restored from the backup of Monday"
    """
    from webhook_gateway.operations import pause

    paused = granted(with_database(lambda database: pause.pause_all(database, reason)))
    say("nothing is sent" if paused else "nothing was sent before: `webhook-gateway status` says why")


def resume_all() -> None:
    """Send again, after ‘pause-all’ or in a copy of a database: whatever waits goes out. Endpoints stay as they are."""
    from webhook_gateway.operations import pause

    say("sending goes on" if with_database(pause.resume_all) else "sending was not paused")


def cancel(
    delivery: Annotated[str, typer.Argument(metavar="[DELIVERY_ID]", help="dlv_…: only this one.")] = "",
    endpoint: Annotated[str, typer.Option("--endpoint", metavar="EP_ID", help="All that waits for it.")] = "",
    type: Annotated[str, typer.Option("--type", help="Only events of this type.")] = "",
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="Made at or after.")] = "",
    until: Annotated[str, typer.Option("--until", metavar="TIME", help="Made before; by default before now.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many that are.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    tenant: TenantName = "default",
) -> None:
    """Give a pending delivery up for good, or all that a filter finds. The next ones of their ordering keys go on.

    [dim]Example:[/dim]  webhook-gateway cancel --endpoint ep_01h455vb4pex5vsknk084sn02q --dry-run
    """
    from webhook_gateway.operations import deliveries

    if delivery:
        delivery_id = parse_id(ids.DELIVERY, delivery)
        row = change_in(tenant, lambda change: deliveries.cancel(change, delivery_id))
        say(f"{delivery} is {row['state']}")
        return
    endpoint_id = parse_id(ids.ENDPOINT, endpoint) if endpoint else None
    given = {"endpoint_id": endpoint_id, "type": type, "since": moment_in(since), "until": moment_in(until)}
    wanted: dict[str, Any] = {name: value for name, value in given.items() if value}
    count, more = change_in(tenant, lambda change: deliveries.cancel_many(change, wanted, dry_run=True))
    many = f"more than {count:,}" if more else f"{count:,}"
    if dry_run or (count and not yes and not typer.confirm(f"Cancel {many} deliveries?")):
        say(f"waiting: {many}")
        raise typer.Exit(0 if dry_run else NO)
    done, more, wanted = 0, True, {"until": datetime.now(UTC), **wanted}
    while more:
        count, more = change_in(tenant, lambda change: deliveries.cancel_many(change, wanted, dry_run=False))
        done += count
    say(f"cancelled: {done:,}")


def why(
    about: Annotated[str, typer.Argument(metavar="ID", help="dlv_… or evt_…")], tenant: TenantName = "default"
) -> None:
    """Say how a delivery stands and what happens next; of an event, why each endpoint has it, or has not.

    [dim]Example:[/dim]  webhook-gateway why dlv_01h455vb4pex5vsknk084sn02q
    """
    from webhook_gateway.operations import explain

    if not about.startswith(ids.EVENT):
        delivery_id = parse_id(ids.DELIVERY, about)
        told = change_in(tenant, lambda change: explain.delivery(change.connection, change.actor, delivery_id))
        _tell("", told["explanation"])
        return
    event_id, vault = parse_id(ids.EVENT, about), filled_vault()
    before: UUID | None = explain.NEWEST
    while before is not None:
        found, before = change_in(tenant, partial(explain.by_endpoint, vault=vault, event_id=event_id, before=before))
        for one in found:
            _tell(ids.render(ids.ENDPOINT, one["endpoint_id"]) + "  ", one["explanation"])


def _tell(whose: str, told: Explanation) -> None:
    after = "" if told.next is None else f" Next: {told.next}"
    answers.print(f"{whose}{told.sentence}{after}", soft_wrap=True)


def filled_vault() -> Vault:
    """With the data keys: an endpoint's change of state is an event, too."""
    from webhook_gateway.store import keyring

    vault = configured_vault()
    with_database(lambda database: keyring.fill(database, vault))
    return vault
