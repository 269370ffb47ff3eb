"""What somebody may do and hand on: never more than they hold, by whatever way; and how much a partner may use up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from uuid import UUID

from .matching import OPERATIONAL, TEST, fits
from .scopes import SCOPES_WITH, Capability, Scope, allows, not_held

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """None means: not bound so. ``event_types`` are patterns, ``expires_at`` is Unix time."""

    scopes: frozenset[str]
    subscriber_id: UUID | None = None
    """The only one whose things they see and change."""
    event_types: tuple[str, ...] | None = None
    networks: tuple[Network, ...] | None = None
    expires_at: float | None = None
    capabilities: frozenset[Capability] | None = None
    """What alone they use their scopes for."""

    def may(self, needed: Scope, by: Capability = Capability.VIEW) -> bool:
        """Whether they may do what needs the scope and, where they are bound to capabilities, belongs to this one."""
        if self.capabilities is not None and (by not in self.capabilities or needed not in SCOPES_WITH[by]):
            return False
        return allows(self.scopes, needed)

    def may_post(self, event_type: str) -> bool:
        """Whether events of the type are theirs (or, given a pattern, of all the types that it fits)."""
        return self.event_types is None or any(fits(pattern, event_type) for pattern in self.event_types)

    def may_send(self, event_type: str) -> bool:
        """Whether they may have events of the type sent, as a test or again."""
        return event_type == TEST or self.may_post(event_type)

    def may_want(self, pattern: str) -> bool:
        """Whether an endpoint that they make or redirect may want it. The gateway's own types tell of other
        subscribers, so a subscriber's never."""
        return self.may_post(pattern) and not (self.subscriber_id is not None and pattern.startswith(OPERATIONAL))


def not_granted(held: Rights, wanted: Rights) -> list[str]:
    """What of the wanted rights goes beyond the held ones, by name; empty where they may be granted."""
    beyond: list[str] = list(not_held(held.scopes, map(Scope, wanted.scopes)))
    if held.subscriber_id not in (None, wanted.subscriber_id):
        beyond.append("subscriber_id")
    if held.event_types is not None and (wanted.event_types is None or not all(map(held.may_post, wanted.event_types))):
        beyond.append("event_types")
    if held.networks is not None and not _are_within(wanted.networks, held.networks):
        beyond.append("networks")
    if held.expires_at is not None and (wanted.expires_at is None or wanted.expires_at > held.expires_at):
        beyond.append("expires_at")
    if held.capabilities is not None and (wanted.capabilities is None or wanted.capabilities - held.capabilities):
        beyond.append("capabilities")
    return beyond


def _are_within(inner: Iterable[Network] | None, outer: tuple[Network, ...]) -> bool:
    return inner is not None and all(any(_is_within(one, other) for other in outer) for one in inner)


def _is_within(inner: Network, outer: Network) -> bool:
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """What one partner may use up with keys of its own. ``replays_a_day`` counts deliveries, days are UTC's."""

    endpoints: int
    header_bytes: int
    tests_a_day: int
    replays_a_day: int
    open_replays: int
