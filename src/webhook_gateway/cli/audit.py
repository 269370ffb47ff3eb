"""``audit``: read the log of changes, take signed proofs of it, and check that nobody has altered it."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from webhook_gateway.crypto import signatures
from webhook_gateway.rules import ids
from webhook_gateway.rules.signing import BadSecret
from webhook_gateway.settings import settings

from .environment import TenantName, configured_vault, database_url, moment_in, read_in, tenant_named, with_database
from .exits import NO, WRONG, CannotGoOn
from .screen import answers, say, table, write_json

if TYPE_CHECKING:
    from webhook_gateway.crypto.audit_chain import Checked, Head
    from webhook_gateway.store.audit import Verification
    from webhook_gateway.store.database import Database

app = typer.Typer(no_args_is_help=True, help="The log of who changed what.")


@app.command()
def verify(
    file: Annotated[
        Path | None, typer.Option("--export", metavar="FILE", help="Check this export, and the database against it.")
    ] = None,
    public_key: Annotated[
        str, typer.Option("--public-key", metavar="whpk_…", help="The key that signs heads, as you once noted it.")
    ] = "",
    since: Annotated[int, typer.Option("--since", min=0, help="The export begins after this entry.")] = 0,
    tenant: TenantName = "default",
    as_json: Annotated[bool, typer.Option("--json", help='{"whole": …, "entries": …}')] = False,
) -> None:
    """Check the chain of hashes from its first entry. Exit code 0: whole, 1: broken.

    Only against an export (or a noted head) can one see that the end was cut off or the whole log made anew. An export
    needs no database to be checked; where one is configured, it is compared with the export, of whatever tenant.

    [dim]Example:[/dim]  webhook-gateway audit verify --export audit.jsonl --public-key whpk_…
    """
    if file is not None:
        _verify_export(file, public_key, since, as_json=as_json)
        return
    from webhook_gateway.store import audit

    found = read_in(tenant, audit.verify)
    whole = found.broken_at is None
    if as_json:
        write_json(
            {
                "whole": whole,
                "entries": found.entries,
                "broken_at": found.broken_at,
                "last_hash": found.last_hash.hex(),
            }
        )
    elif whole:
        answers.print(f"whole: {found.entries:,} entries, the last hash is {found.last_hash.hex()}", soft_wrap=True)
    else:
        answers.print(f"broken: entry {found.broken_at:,} does not follow from those before it", soft_wrap=True)
    raise typer.Exit(0 if whole else NO)


@app.command()
def head(
    tenant: TenantName = "default",
    as_json: Annotated[bool, typer.Option("--json", help='{"tenant": …, "sequence": …, "hash": …}')] = False,
) -> None:
    """Sign the last entry's number and hash: kept elsewhere, that proves what the log held at this moment.

    Note the public key once. It stays the same, and a head that is signed with another one proves nothing.

    [dim]Example:[/dim]  webhook-gateway audit head --json > head.json
    """
    from webhook_gateway.store import audit

    vault, now = configured_vault(), datetime.now(UTC)
    found = asdict(read_in(tenant, lambda connection, tenant_id: audit.head(connection, vault, tenant_id, now)))
    if as_json:
        write_json(found)
        return
    for name, value in found.items():
        answers.print(f"{name:<10}{value}", soft_wrap=True)


@app.command()
def export(
    since: Annotated[
        int, typer.Option("--since", metavar="N", min=0, help="Only entries after this one: the last export's head.")
    ] = 0,
    tenant: TenantName = "default",
) -> None:
    """Write the entries as JSON lines, oldest first, and a signed head as the last line.

    Exports that follow each other may be appended to one file, which is checked as a whole.

    [dim]Example:[/dim]  webhook-gateway audit export > audit.jsonl
    """
    vault = configured_vault()

    async def work(database: Database) -> Head:
        from webhook_gateway.operations.audit import export
        from webhook_gateway.store import audit

        tenant_id = await tenant_named(database, tenant)
        async with database.begin() as connection:
            signed = await audit.head(connection, vault, tenant_id, datetime.now(UTC))
        if since > signed.sequence:
            raise CannotGoOn(f"the log has only {signed.sequence} entries, so there are none after {since}", WRONG)
        async for lines in export(database, tenant_id, signed, since):
            print(lines, end="")
        return signed

    signed = with_database(work)
    say(f"{signed.sequence - since:,} entries, signed with {signed.key}: note this key where nobody can change it")


@app.command("list")
def list_entries(
    target: Annotated[str, typer.Option("--target", help="Only what was done to this, as in ep_…")] = "",
    actor: Annotated[str, typer.Option("--actor", help="Only what this key (or cli:USER) did.")] = "",
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="Only what was done from then on.")] = "",
    until: Annotated[str, typer.Option("--until", metavar="TIME", help="Only what was done before.")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000)] = 50,
    tenant: TenantName = "default",
    as_json: Annotated[bool, typer.Option("--json", help="A JSON array.")] = False,
) -> None:
    """List changes, newest first.

    [dim]Example:[/dim]  webhook-gateway audit list --target ep_01h455vb4pex5vsknk084sn02q --json
    """
    from webhook_gateway.store import audit

    fetch = partial(
        audit.page,
        before=None,
        limit=limit,
        target=target or None,
        actor=actor or None,
        since=moment_in(since),
        until=moment_in(until),
    )
    rows = read_in(tenant, fetch)
    if as_json:
        fields = ("sequence", "at", "actor", "source", "action", "target", "before", "after")
        write_json([{name: row[name] for name in fields} for row in rows])
        return
    shown = table("#", "at", "actor", "action", "target", "from", whole="target")
    for row in rows:
        moment = row["at"].strftime("%Y-%m-%d %H:%M:%S")
        shown.add_row(str(row["sequence"]), moment, row["actor"], row["action"], row["target"], row["source"])
    answers.print(shown)


def _verify_export(file: Path, public_key: str, since: int, *, as_json: bool) -> None:
    checked = _check(file, public_key, since)
    problem, broken_at, compared = checked.problem, checked.broken_at, False
    if checked.head is not None and problem is None and _has_database():
        found = _compare(file, checked.head)
        compared, broken_at = True, found.broken_at
        if broken_at is not None:
            problem = f"entry {broken_at} in the database is not the one that was exported, or is gone"
    if as_json:
        write_json(
            {
                "whole": problem is None,
                "since": since,
                "entries": checked.sequence - since,
                "broken_at": broken_at,
                "problem": problem,
                "compared": compared,
                "head": checked.head and asdict(checked.head),
            }
        )
    elif problem is None and checked.head is not None:
        also = ", and the database still holds them" if compared else ""
        sentence = f"whole: entries {since + 1:,} to {checked.sequence:,}, signed at {checked.head.at}{also}"
        answers.print(sentence, soft_wrap=True)
    else:
        answers.print(f"broken: {problem}", soft_wrap=True)
    if not public_key:
        say(
            "without --public-key, nobody knows whose signature that is: the export was only compared with the database"
        )
    raise typer.Exit(0 if problem is None else NO)


def _check(file: Path, public_key: str, since: int) -> Checked:
    from webhook_gateway.crypto.audit_chain import check_export

    if not public_key and not _has_database():
        raise CannotGoOn("say with --public-key which key signs heads: `webhook-gateway audit head` shows it", WRONG)
    try:
        if public_key:
            signatures.jwk_of(public_key)
        with file.open(encoding="utf-8", errors="replace") as lines:
            return check_export(lines, public_key or None, since)
    except OSError as fault:
        raise CannotGoOn(f"{file} can't be read: {fault.strerror}", WRONG) from None
    except BadSecret as fault:
        raise CannotGoOn(str(fault), WRONG) from None


def _compare(file: Path, head: Head) -> Verification:
    """Walks the database's chain, of the tenant that the export is of, beside the export."""

    async def work(database: Database) -> Verification:
        from webhook_gateway.crypto.audit_chain import noted_in
        from webhook_gateway.store import audit

        with file.open(encoding="utf-8") as lines:
            async with database.begin() as connection:
                return await audit.verify(connection, ids.parse(ids.TENANT, head.tenant), noted_in(lines))

    return with_database(work)


def _has_database() -> bool:
    try:
        database_url(settings())
    except CannotGoOn:
        return False
    return True
