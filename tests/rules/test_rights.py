"""Nobody grants what they do not hold."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from itertools import product
from typing import Any
from uuid import UUID

import pytest

from webhook_gateway.rules.rights import Rights, not_granted
from webhook_gateway.rules.scopes import SCOPES_OF, SCOPES_WITH, Capability, Role, Scope, scopes_with

ALL = Rights(scopes=frozenset(Scope))
ONE, OTHER = UUID(int=1), UUID(int=2)


def networks(*written: str) -> tuple[Any, ...]:
    return tuple(map(ip_network, written))


BOUNDS: dict[str, tuple[Any, list[Any], list[Any]]] = {
    "subscriber_id": (ONE, [ONE], [None, OTHER]),
    "event_types": (
        ("lab_order.*", "visit.ended"),
        [("lab_order.*",), ("lab_order.placed", "visit.ended"), ("lab_order.inner.*",), ()],
        [None, ("*",), ("lab_result.final",), ("lab_order.placed", "visit.*"), ("gateway.test",)],
    ),
    "networks": (
        networks("10.20.0.0/16", "fd12::/32"),
        [networks("10.20.0.0/16"), networks("10.20.7.0/24", "fd12::/64")],
        [
            None,
            networks("10.20.0.0/15"),
            networks("0.0.0.0/0"),
            networks("10.20.7.0/24", "10.21.0.0/24"),
            networks("::/0"),
        ],
    ),
    "expires_at": (1_000.0, [1_000.0, 999.0], [None, 1_000.1]),
    "capabilities": (
        frozenset({Capability.VIEW, Capability.TEST}),
        [frozenset({Capability.VIEW, Capability.TEST}), frozenset({Capability.TEST}), frozenset()],
        [None, frozenset({Capability.VIEW, Capability.REPLAY}), frozenset({Capability.SECRET})],
    ),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_what_is_bound_hands_on_only_what_is_bound_as_much(name: str) -> None:
    bound, within, beyond = BOUNDS[name]
    held = replace(ALL, **{name: bound})
    for value in within:
        assert not_granted(held, replace(ALL, **{name: value})) == []
    for value in beyond:
        assert not_granted(held, replace(ALL, **{name: value})) == [name]
    for value in (*within, *beyond):
        assert not_granted(ALL, replace(ALL, **{name: value})) == []


def test_everything_beyond_is_named_with_the_scopes_first() -> None:
    held = Rights(scopes=frozenset({"admin"}), **{name: bound for name, (bound, _, _) in BOUNDS.items()})
    assert not_granted(held, ALL) == ["patients:search", "payload:read", *BOUNDS]


@pytest.mark.parametrize(("subscriber", "bound"), [*product([None, ONE], [None, ("lab_order.*",), ("*",)])])
def test_types_are_wanted_and_sent_as_they_are_held(subscriber: UUID | None, bound: tuple[str, ...] | None) -> None:
    held = replace(ALL, subscriber_id=subscriber, event_types=bound)
    assert held.may_want("lab_order.placed")
    assert held.may_want("visit.ended") is held.may_send("visit.ended") is (bound != ("lab_order.*",))
    assert held.may_send("gateway.test")
    assert held.may_send("gateway.endpoint_paused") is (bound is None)
    assert held.may_want("gateway.*") is (bound is None and subscriber is None)


@pytest.mark.parametrize("capability", Capability)
def test_who_is_bound_to_a_capability_uses_the_scopes_that_belong_to_it_and_for_it_alone(
    capability: Capability,
) -> None:
    bound = Rights(scopes=frozenset(Scope), capabilities=frozenset({capability}))
    for scope, by in product(Scope, Capability):
        assert bound.may(scope, by) == (by == capability and scope in SCOPES_WITH[by])
        assert ALL.may(scope, by)
        assert not replace(bound, scopes=frozenset()).may(scope, by), "a capability gives no scope"


def test_a_scope_alone_is_asked_for_by_who_looks() -> None:
    viewer = Rights(scopes=frozenset(Scope), capabilities=frozenset({Capability.VIEW}))
    allowed = {scope for scope in Scope if viewer.may(scope)}
    assert allowed == {Scope.ENDPOINTS_READ, Scope.DELIVERIES_READ}
    nobody = Rights(scopes=frozenset(Scope), capabilities=frozenset())
    assert not any(nobody.may(scope) for scope in Scope)


def test_a_link_gives_no_more_than_a_partners_key_and_only_view_gives_nothing_to_change() -> None:
    assert scopes_with(Capability) == SCOPES_OF[Role.PARTNER]
    writes = {Scope.ENDPOINTS_WRITE, Scope.DELIVERIES_WRITE}
    assert [capability for capability in Capability if not SCOPES_WITH[capability] & writes] == [Capability.VIEW]
