"""Subscribers and their endpoints as one document has them: what differs is changed, all of it or nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from hashlib import sha256
from typing import Any, TypeVar

from sqlalchemy import RowMapping

from webhook_gateway.crypto import signatures
from webhook_gateway.crypto.vault import Vault
from webhook_gateway.intake.catalogue import Catalogue
from webhook_gateway.rules.denials import Denied
from webhook_gateway.rules.faults import Fault
from webhook_gateway.rules.filters import encode
from webhook_gateway.rules.targets import Policy, masked, parse
from webhook_gateway.rules.views import view_of
from webhook_gateway.store import endpoints as stored_endpoints
from webhook_gateway.store import subscribers as stored
from webhook_gateway.store.configuration import SEALED, open_column, whole_url

from . import endpoints, subscribers
from .change import Change
from .refusals import Conflict, Exhausted, Invalid, NotFound, NotHeld, Refusal, WouldCutOff

T = TypeVar("T")

OVERLAP = 86_400
"""Seconds for which an endpoint's secrets still sign once the document has another one."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One of the document: the members ``given``, and the ``whole`` with its defaults, for one that is to be made."""

    given: Mapping[str, Any]
    whole: Mapping[str, Any]
    endpoints: Sequence[Wanted] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One change, as the audit log has it. ``key`` is what the partner of a new endpoint verifies with, if it was made
    here."""

    action: str
    subscriber: str
    endpoint: str | None
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    key: str | None = None


def digest(steps: Sequence[Step]) -> str:
    """Equal for equal steps, whatever keys are made."""
    return sha256(encode({"": [astuple(replace(step, key=None)) for step in steps]})).hexdigest()


@dataclass(slots=True)
class Applying:
    """Changes what differs. What the document lacks stays, or is deleted with ``prune``; members it lacks stay, too."""

    change: Change
    vault: Vault
    catalogue: Catalogue
    policy: Policy
    prune: bool = False
    cancel_open: bool = False
    _steps: list[Step] = field(default_factory=list)
    _faults: list[Fault] = field(default_factory=list)

    async def apply(self, wanted: Sequence[Wanted], expected: str | None = None) -> list[Step] | Refusal:
        """Faults point into the document. ``expected`` is the `digest` of the steps that somebody has agreed to."""
        await stored_endpoints.lock_filters(self.change.connection, self.change.actor.tenant_id)
        rows = await stored.lock_all(self.change.connection, self.change.actor.tenant_id)
        for index, one in enumerate(wanted):
            await self._subscriber(f"/subscribers/{index}", one, rows)
        for row in rows if self.prune else ():
            await self._did("", _called(row), None, subscribers.delete(self.change, self.vault, row["id"], force=True))
        if self._faults:
            return Invalid(tuple(self._faults))
        return Conflict.OTHER_PLAN if expected not in (None, digest(self._steps)) else self._steps

    async def _subscriber(self, pointer: str, wanted: Wanted, rows: list[RowMapping]) -> None:
        """Makes or changes one and its endpoints, and takes it out of ``rows``."""
        row, change = _take(rows, wanted.given, "external_id", "name"), self.change
        name = _called(row or wanted.whole)
        if row is None:
            row = await self._did(pointer, name, None, subscribers.create(change, self.catalogue, wanted.whole))
        elif differing := _differing(wanted.given, row):
            differing["cancel_open"] = self.cancel_open
            changed = subscribers.change_one(change, self.catalogue, row["id"], differing)
            row = await self._did(pointer, name, None, changed)
        if row is None:
            return
        theirs = await stored_endpoints.of_subscriber(change.connection, row["tenant_id"], row["id"])
        states = [_state(self.vault, one) for one in theirs]
        for index, one in enumerate(wanted.endpoints):
            await self._endpoint(f"{pointer}/endpoints/{index}", name, row, one, states)
        for state in states if self.prune else ():
            await self._did(pointer, name, _named(state), endpoints.delete(change, self.vault, state["id"]))

    async def _endpoint(
        self, pointer: str, of: str, subscriber: RowMapping, wanted: Wanted, states: list[dict[str, Any]]
    ) -> None:
        parts = (self.change, self.vault, self.catalogue, self.policy)
        target = parse(wanted.given["url"], self.policy)
        given = {**wanted.given} if isinstance(target, Denied) else {**wanted.given, "url": target.url}
        if (state := _take(states, given, "name", "url")) is None:
            whole = {**wanted.whole, "subscriber_id": subscriber["id"]}
            made = await self._did(pointer, of, _named(whole), endpoints.create(*parts, whole))
            if made is not None and whole["secret"] is None:
                self._steps[-1] = replace(self._steps[-1], key=signatures.verifier_of(made[1]))
            return
        name, own = _named(state), given.pop("secret", None)
        if given.pop("signing", state["signing"]) != state["signing"]:
            remedy = "It can't be changed: make another endpoint under another name, then take this one away."
            self._faults.append(Fault("unchangeable", remedy, pointer=f"{pointer}/signing"))
        if differing := _differing(given, state):
            differing["cancel_open"] = self.cancel_open
            await self._did(pointer, of, name, endpoints.change_one(*parts, state["id"], differing))
        if own is not None and own != await self._newest_secret(state):
            await self._did(pointer, of, name, endpoints.rotate_secret(*parts[:2], state["id"], own, OVERLAP))

    async def _did(self, pointer: str, of: str, endpoint: str | None, done: Awaitable[T | Refusal]) -> T | None:
        """What was done, which is a step; or None where it was refused, which is a fault."""
        noted = len(self.change.entries)
        answer = await done
        if isinstance(answer, Refusal):
            self._faults += _faults_at(pointer, answer)
            return None
        for entry in self.change.entries[noted:]:
            after = entry.after and {name: value for name, value in entry.after.items() if name != "subscriber_id"}
            self._steps.append(Step(entry.action, of, endpoint, entry.before, after))
        return answer

    async def _newest_secret(self, state: Mapping[str, Any]) -> str | None:
        for row in await stored_endpoints.signing_keys(self.change.connection, state["id"], state["signing"]):
            return self.vault.open(row["tenant_id"], "endpoint_secrets", row["id"], row["secret"]).decode()
        return None


def _take(rows: list[Any], given: Mapping[str, Any], first: str, second: str) -> Any:
    """The row that is meant, taken out: it has the same ``first``, or the same ``second`` and as yet no ``first``."""
    key = given.get(first)
    same = [row for row in rows if key is not None and row[first] == key]
    known_as = [row for row in rows if row[second] == given[second] and (key is None or row[first] is None)]
    for row in (*same, *known_as):
        rows.remove(row)
        return row
    return None


def _state(vault: Vault, row: RowMapping) -> dict[str, Any]:
    """The row as a document has it, opened."""
    opened = {column: open_column(vault, row, column) for column in SEALED}
    window = {"from_": row["maintenance_from"], "until": row["maintenance_until"]}
    shown = {
        "url": whole_url(row, opened["url_query"]),
        "headers": opened["headers"] or {},
        "event_types": row["event_types"] or None,
        "maintenance": window if all(window.values()) else None,
    }
    return {**row, **opened, **shown}


def _differing(given: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if not _is_same(name, value, state[name])}


def _is_same(member: str, one: Any, other: Any) -> bool:
    if member == "content":  # pointers in another order mean the same
        return view_of(one) == view_of(other)
    return encode({"": one}) == encode({"": other})


def _called(subscriber: Any) -> str:
    return str(subscriber["external_id"] or subscriber["name"])


def _named(endpoint: Mapping[str, Any]) -> str:
    return str(endpoint["name"] or masked(endpoint["url"]))


def _faults_at(pointer: str, refusal: Refusal) -> Iterator[Fault]:
    """Where in the document it is refused, and why."""
    match refusal:
        case Invalid():
            yield from (replace(fault, pointer=pointer + (fault.pointer or "")) for fault in refusal.faults)
        case NotHeld():
            yield Fault("not_held", f"This key can't give {', '.join(refusal.beyond)}.", pointer=pointer)
        case WouldCutOff():
            yield Fault("conflict", str(refusal), pointer=pointer)
        case NotFound() | Conflict() | Exhausted():
            yield Fault("conflict", refusal.value, pointer=pointer)
