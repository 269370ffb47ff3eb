"""How a command ends when it can't go on: one sentence that names the remedy, and an exit code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar, assert_never

from pydantic import ValidationError
from pydantic_settings import SettingsError

from webhook_gateway.crypto.master_keys import MasterKeysUnusable
from webhook_gateway.host.processes import DidNotStart
from webhook_gateway.host.supervisor import AddressTaken
from webhook_gateway.operations.refusals import Conflict, Exhausted, Invalid, NotFound, NotHeld, Refusal, WouldCutOff

from .plain import NO, PENDING, UNAVAILABLE, WRONG, CannotGoOn

T = TypeVar("T")

__all__ = ["NO", "PENDING", "UNAVAILABLE", "WRONG", "CannotGoOn"]

OPTIONS = {
    "event_types": "--event-type",
    "name": "the name",
    "networks": "--network",
    "reason": "--reason",
    "role": "--role",
    "scopes": "--scope",
    "subscriber_id": "--subscriber",
    "tenant": "--tenant",
    "type": "--type",
}
"""What members of a use case are called here."""


def granted(answer: T | Refusal) -> T:
    """What was asked for.

    Raises:
        CannotGoOn: it was refused. Raised inside of a change, it leaves nothing of it.
    """
    if isinstance(answer, Refusal):
        raise refused(answer)
    return answer


def refused(refusal: Refusal) -> CannotGoOn:
    match refusal:
        case NotFound():
            return CannotGoOn(f"there is no such {refusal.value} in this tenant: check the id", NO)
        case Conflict() | Exhausted():
            return CannotGoOn(_lower(refusal.value).removesuffix("."), NO)
        case WouldCutOff():
            return CannotGoOn(_lower(str(refusal)).removesuffix("."), NO)
        case NotHeld():
            return CannotGoOn(f"nobody can grant what they don't hold: {', '.join(refusal.beyond)}", NO)
        case Invalid():
            wrong = (f"{_option(fault.pointer)}: {_lower(fault.remedy).removesuffix('.')}" for fault in refusal.faults)
            return CannotGoOn("; ".join(wrong), WRONG)
        case _:
            assert_never(refusal)


def explain(error: BaseException) -> CannotGoOn | None:
    """What an operator is told of an error, or None where it is a bug of ours."""
    import asyncpg

    from webhook_gateway.client import GatewayUnavailable, Refused
    from webhook_gateway.demo import NoExamples
    from webhook_gateway.host.postgres_binaries import EmbeddedPostgresError
    from webhook_gateway.store import database, primary

    causes = list(_causes(error))
    for cause in causes:
        match cause:
            case CannotGoOn():
                return cause
            case ValidationError():
                return CannotGoOn("; ".join(setting_faults(cause)), WRONG)
            case SettingsError():
                return CannotGoOn(f"a setting can't be read: {cause}", WRONG)
            case MasterKeysUnusable():
                return CannotGoOn(str(cause), WRONG)
            case EmbeddedPostgresError() | DidNotStart() | AddressTaken() | NoExamples():
                return CannotGoOn(str(cause))
            case Refused() | GatewayUnavailable():
                return CannotGoOn(str(cause))
            case asyncpg.InvalidPasswordError() | asyncpg.InvalidAuthorizationSpecificationError():
                return CannotGoOn("the database refuses the name or the password in DATABASE_URL: correct them", WRONG)
            case asyncpg.InvalidCatalogNameError():
                return CannotGoOn("the database that DATABASE_URL names does not exist: create it first", WRONG)
            case asyncpg.TargetServerAttributeNotMatched() | asyncpg.ReadOnlySQLTransactionError():
                return CannotGoOn("DATABASE_URL names no server that takes writes: name the primary, too", UNAVAILABLE)
            case primary.SharedSessions():
                return CannotGoOn(str(cause), WRONG)
            case asyncpg.InsufficientPrivilegeError():
                return CannotGoOn("the account in DATABASE_URL lacks a privilege on the database: grant it", WRONG)
            case asyncpg.UndefinedTableError() | asyncpg.UndefinedColumnError():
                return CannotGoOn("the database has not the newest schema: run `webhook-gateway migrate`", NO)
    away = (database.DatabaseUnavailable, asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError)
    for cause in causes:
        if isinstance(cause, away) or (cause is error and isinstance(error, database.UNAVAILABLE)):
            return database_unavailable(cause)
    return None


def database_unavailable(error: BaseException) -> CannotGoOn:
    reason = str(error) if type(error).__name__ == "DatabaseUnavailable" else type(error).__name__
    return CannotGoOn(
        f"the database does not answer ({reason}): check that it runs and that DATABASE_URL points to it", UNAVAILABLE
    )


def setting_faults(error: ValidationError) -> list[str]:
    """One phrase for each wrong setting, by the name that it has in the environment. Never its value."""
    return [f"{_variable(fault['loc'])} is wrong: {_lower(fault['msg'])}" for fault in error.errors()]


def _variable(path: tuple[int | str, ...]) -> str:
    name = str(path[0]) if path else "a setting"
    return name if name.isupper() else f"WEBHOOK_GATEWAY_{name.upper()}"


def _option(pointer: str | None) -> str:
    """``/networks/0`` is ``--network``."""
    _, member, *_ = (pointer or "/what was given").split("/")
    return OPTIONS.get(member, member)


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what is behind it: drivers and SQLAlchemy wrap what we know."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        original = getattr(seen, "orig", None)
        seen = original if isinstance(original, BaseException) else seen.__cause__
