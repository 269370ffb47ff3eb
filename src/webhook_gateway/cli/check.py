"""``check``: would this configuration keep the promises? Errors apart from warnings."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError

from webhook_gateway import cores, failpoints
from webhook_gateway.crypto.master_keys import MasterKeysUnusable, load_master_keys
from webhook_gateway.crypto.vault import MasterKeys, Vault
from webhook_gateway.host import supervisor
from webhook_gateway.rules.labels import visible
from webhook_gateway.rules.scopes import OF_PATIENTS, Role
from webhook_gateway.rules.targets import never_opens
from webhook_gateway.settings import Settings, network_and_port

from .environment import database_url, key_settings
from .exits import NO, explain, setting_faults
from .screen import answers, write_json
from .status import SOON

if TYPE_CHECKING:
    from webhook_gateway.store.database import Database

OLDEST_POSTGRES = 150_000
LARGEST_SKEW = 30.0


class Level(StrEnum):
    ERROR = "error"
    WARNING = "warning"
    FINE = "ok"


@dataclass(frozen=True, slots=True)
class Finding:
    level: Level
    about: str
    text: str


def check(
    as_json: Annotated[bool, typer.Option("--json", help='{"errors": …, "warnings": …, "findings": […]}')] = False,
) -> None:
    """Check settings, database, keys and egress policy. Exit code 1 if anything is an error; warnings don't count.

    [dim]Example:[/dim]  webhook-gateway check && webhook-gateway serve
    """
    from rich.text import Text

    findings = _look()
    errors = sum(finding.level is Level.ERROR for finding in findings)
    warnings = sum(finding.level is Level.WARNING for finding in findings)
    if as_json:
        write_json({"errors": errors, "warnings": warnings, "findings": [asdict(finding) for finding in findings]})
    else:
        marks = {
            Level.ERROR: Text("error  ", "bold red"),
            Level.WARNING: Text("warning", "yellow"),
            Level.FINE: Text("ok     ", "green"),
        }
        for finding in findings:
            answers.print(Text.assemble(marks[finding.level], " ", (finding.about, "bold"), ":"), end=" ")
            answers.print(finding.text, soft_wrap=True)
        answers.print(f"{errors} errors, {warnings} warnings")
    raise typer.Exit(NO if errors else 0)


def _look() -> list[Finding]:
    try:
        found = Settings()
    except ValidationError as error:
        return [Finding(Level.ERROR, "settings", fault) for fault in setting_faults(error)]
    except SettingsError as error:
        return [Finding(Level.ERROR, "settings", str(error))]
    findings = [*_settings(found), *_egress(found)]
    findings += [*_mail(found), *_accounts(found)]
    keys, about_keys = _master_keys(found)
    return [*findings, *about_keys, *asyncio.run(_database(found, keys))]


def _settings(found: Settings) -> Iterator[Finding]:
    known = {failpoints.VARIABLE} | {f"WEBHOOK_GATEWAY_{name.upper()}" for name in type(found).model_fields}
    unknown = sorted(name for name in os.environ if name.startswith("WEBHOOK_GATEWAY_") and name not in known)
    for name in unknown:
        yield Finding(Level.WARNING, "settings", f"{name} is no setting: check its spelling")
    if os.environ.get(failpoints.VARIABLE):
        yield Finding(Level.ERROR, "settings", f"{failpoints.VARIABLE} kills processes, for tests only: unset it")
    may_read = {*OF_PATIENTS, Role.PRIVACY_OFFICER} & set((found.oidc_roles or {}).values())
    doubts = {
        f"the API listens on {found.host} without TLS: put a TLS proxy before it": not _is_loopback(found.host),
        "WEBHOOK_GATEWAY_PUBLIC_DOCS shows the API's documents without a key": found.public_docs,
        "tokens of the identity provider may be about patients: whoever manages its groups decides whose are": may_read,
        "WEBHOOK_GATEWAY_API_RATE is 0: one key, or whoever has stolen it, may keep the API busy": not found.api_rate,
        f"{found.keep_responses} bytes of each answer are kept (encrypted): they may hold patients' data": (
            found.keep_responses
        ),
    }
    yield from _warn("settings", doubts)
    if not unknown:
        yield Finding(Level.FINE, "settings", "every WEBHOOK_GATEWAY_* variable is a setting, and in its range")


def _egress(found: Settings) -> Iterator[Finding]:
    if found.development:
        text = "WEBHOOK_GATEWAY_DEVELOPMENT allows http, loopback, IP addresses and every port: never in production"
        yield Finding(Level.WARNING, "egress", text)
        return
    loosened: dict[str, object] = {
        "WEBHOOK_GATEWAY_ALLOW_HTTP sends events about patients unencrypted": found.allow_http,
        "WEBHOOK_GATEWAY_ALLOW_IP_LITERALS allows URLs whose certificate has no name to check": found.allow_ip_literals,
        f"private networks are open to partners' URLs: {', '.join(found.allow_networks)}": found.allow_networks,
        f"internal names are allowed, with all below them: {', '.join(sorted(found.allow_names))}": found.allow_names,
        f"ports beside 443 and 8443 are allowed: {', '.join(map(str, sorted(found.egress_ports)))}": (
            found.egress_ports - {443, 8443}
        ),
    }
    yield from _warn("egress", loosened)
    for text in found.allow_networks:
        if never_opens(network_and_port(text)[0]):
            text = f"WEBHOOK_GATEWAY_ALLOW_NETWORKS has no effect for {text}: nothing there is ever connected to"
            yield Finding(Level.WARNING, "egress", text)
    if not any(loosened.values()):
        yield Finding(Level.FINE, "egress", "https to public addresses only")
    if found.egress_proxy is not None and urlsplit(found.egress_proxy).hostname is None:
        yield Finding(Level.ERROR, "egress", "WEBHOOK_GATEWAY_EGRESS_PROXY is no URL: write http://proxy.example:3128")
    elif found.egress_proxy is not None:
        text = "the egress proxy looks names up itself, so addresses are not judged here: let it refuse private ones"
        yield Finding(Level.WARNING, "egress", text)


def _mail(found: Settings) -> Iterator[Finding]:
    if found.smtp_host is None:
        return
    from webhook_gateway.outbound import mail

    text = "WEBHOOK_GATEWAY_SMTP_TLS is none: names of partners, and the password, travel unencrypted"
    yield from _warn("mail", {text: found.smtp_tls == "none"})
    where, failure = f"{found.smtp_host}:{found.smtp_port}", asyncio.run(mail.send(found))
    if failure is None:
        yield Finding(Level.FINE, "mail", f"{where} takes mail for {', '.join(found.smtp_to)}")
    else:
        text = f"{where} takes no mail of ours ({failure}): correct WEBHOOK_GATEWAY_SMTP_…, or look at that server"
        yield Finding(Level.ERROR, "mail", text)


def _accounts(found: Settings) -> Iterator[Finding]:
    if found.oidc_client_secret_file is None:
        return
    from webhook_gateway.web.console.provider import Provider

    level, text = Level.FINE, f"{found.oidc_issuer} says where people sign in"
    if asyncio.run(Provider(found).discover()) is None:
        level = Level.ERROR
        text = f"{found.oidc_issuer}/.well-known/openid-configuration is away, or of another issuer: nobody can sign in"
    if not os.access(found.oidc_client_secret_file, os.R_OK):
        level, text = Level.ERROR, "WEBHOOK_GATEWAY_OIDC_CLIENT_SECRET_FILE can't be read: nobody can sign in"
    yield Finding(level, "accounts", text)


def _warn(about: str, doubts: Mapping[str, object]) -> Iterator[Finding]:
    """Of each sentence that is so."""
    return (Finding(Level.WARNING, about, text) for text, is_so in doubts.items() if is_so)


def _master_keys(found: Settings) -> tuple[MasterKeys | None, list[Finding]]:
    chosen = key_settings(found)
    try:
        keys = load_master_keys(chosen)
    except MasterKeysUnusable as error:
        return None, [Finding(Level.ERROR, "keys", str(error))]
    if found.master_keys is None and found.master_key_file is None:
        text = (
            "the master key is a file made for development: keep a copy, and name it in WEBHOOK_GATEWAY_MASTER_KEY_FILE"
        )
        return keys, [Finding(Level.WARNING, "keys", text)]
    return keys, [Finding(Level.FINE, "keys", f"the master key {keys.newest} wraps new data keys")]


async def _database(found: Settings, keys: MasterKeys | None) -> list[Finding]:
    from webhook_gateway.store.database import Database

    database: Database | None = None
    try:
        url = database_url(found)
        database = Database(url, connections=2)
        return [finding async for finding in _ask(database, url, found, keys)]
    except Exception as error:
        known = explain(error)
        if known is None:
            raise
        return [Finding(Level.ERROR, "database", str(known))]
    finally:
        if database is not None:
            await database.close()


async def _ask(database: Database, url: str, found: Settings, keys: MasterKeys | None) -> AsyncIterator[Finding]:
    from webhook_gateway.store import expiry, gateway_status, keyring, migrate, pause

    async with database.connection() as connection:
        server = await gateway_status.server(connection)
    for finding in _server(server, url, found):
        yield finding

    revision, newest = await asyncio.to_thread(migrate.current, url), migrate.head()
    if revision != newest:
        text = f"the schema is {revision or 'missing'}, the newest is {newest}: run `webhook-gateway migrate`"
        yield Finding(Level.ERROR, "database", text)
        return
    yield Finding(Level.FINE, "database", f"the schema is the newest ({newest})")

    vault = None if keys is None else Vault(keys)
    if keys is not None and vault is not None:
        missing = await keyring.fill(database, vault)
        for sentence in missing:
            yield Finding(Level.ERROR, "keys", f"{sentence}: what it encrypts can't be read until it is back")
        if not missing:
            yield Finding(Level.FINE, "keys", "every data key in the database opens")
            async with database.connection() as connection:
                needed = await keyring.needed(connection)
            for name, count in needed.items():
                if name != keys.newest:
                    text = f"{count} data keys are still wrapped by {name}: run `webhook-gateway keys rewrap`"
                    yield Finding(Level.WARNING, "keys", text)
    async with database.connection() as connection:
        for key_id, sealed in (await gateway_status.worn_data_keys(connection)).items():
            text = f"data key {key_id} has sealed {sealed:,} records, of 4,294,967,296 that it may (NIST SP 800-38D)"
            yield Finding(Level.WARNING, "keys", f"{text}: run `webhook-gateway keys rotate`")
        for one in await expiry.soonest(connection, vault=vault):
            if one.kind != "signing_secret" and one.at < datetime.now(UTC) + SOON:
                text = f"the {one.kind.replace('_', ' ')} of {one.id} ({visible(one.name)}) ends {one.at:%Y-%m-%d}"
                yield Finding(Level.WARNING, "expiry", f"{text}: give it a new one")
        if paused := await pause.state(connection):
            text = f"nothing is sent ({visible(paused.reason)}): run `webhook-gateway resume-all` when it may be"
            yield Finding(Level.WARNING, "sending", text)
        if unsaid := await gateway_status.permitted_by_migration(connection):
            names = ", ".join(visible(name) for name in unsaid[:5]) + (", …" if len(unsaid) > 5 else "")
            text = f"{len(unsaid)} subscribers may have what the upgrade left them, with all data: {names}"
            yield Finding(Level.WARNING, "permissions", f"{text}: say what each may have (PATCH /v1/subscribers/sub_…)")
        if await gateway_status.administrators(connection) == 0:
            text = "no API key may administer: run `webhook-gateway keys create NAME --role admin`"
            yield Finding(Level.WARNING, "keys", text)


def _server(server: dict[str, Any], url: str, found: Settings) -> Iterator[Finding]:
    def error(text: str) -> Finding:
        return Finding(Level.ERROR, "database", text)

    if server["version"] < OLDEST_POSTGRES:
        yield error(f"PostgreSQL {server['version_text']} is too old: 15 or newer is needed")
    for name in ("fsync", "full_page_writes"):
        if server[name] == "off":
            yield error(f"{name} is off, so a crash can lose accepted events: set it to on")
    if server["log_error_verbosity"] != "terse":
        text = f"log_error_verbosity is {server['log_error_verbosity']}, so its log quotes rows: set it to terse"
        yield Finding(Level.WARNING, "database", text)
    if server["logs_parameters"]:
        text = "its log holds parameters of statements: set log_parameter_max_length (and …_on_error) to 0"
        yield Finding(Level.WARNING, "database", text)
    if server["synchronous_commit"] == "off":
        yield error("synchronous_commit is off, so a crash can lose accepted events: set it to on")
    if server["encoding"] != "UTF8":
        yield error(f"the database's encoding is {server['encoding']}: create it with ENCODING 'UTF8'")
    apis, workers = _processes(found)
    if server["max_connections"] < (wanted := supervisor.connections(apis, workers)):
        text = (
            f"max_connections is {server['max_connections']}, but {apis} API and {workers} worker processes "
            f"may open {wanted}: raise it, or lower WEBHOOK_GATEWAY_API_PROCESSES"
        )
        yield Finding(Level.WARNING, "database", text)
    if not server["encrypted"] and not _is_loopback(urlsplit(url).hostname or "localhost"):
        yield Finding(
            Level.WARNING, "database", "the connection is not encrypted: add ?sslmode=verify-full to DATABASE_URL"
        )
    if abs(server["now"] - time.time()) > LARGEST_SKEW:
        text = (
            "this machine's clock and the database's differ by more than 30 s: partners check timestamps, so correct it"
        )
        yield Finding(Level.WARNING, "database", text)
    yield Finding(Level.FINE, "database", f"PostgreSQL {server['version_text']} answers")


def _processes(found: Settings) -> tuple[int, int]:
    """API and worker processes on this machine. Without DATABASE_URL it is `up` that runs both."""
    usable = cores.usable()
    if found.database_url is None:
        return cores.shared(found.api_processes, found.worker_processes, usable)
    return cores.alone(found.api_processes, usable), cores.alone(found.worker_processes, usable)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
