"""Scopes: what stands for what."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook_gateway.rules.scopes import OF_A_SUBSCRIBER, SCOPES_OF, Role, Scope, allows, not_held

some_scopes = st.frozensets(st.sampled_from(Scope))


@pytest.mark.parametrize("scope", Scope)
def test_admin_stands_for_every_scope_but_those_of_patients(scope: Scope) -> None:
    assert allows({Scope.ADMIN}, scope) == (scope not in {Scope.PAYLOAD_READ, Scope.PATIENTS_SEARCH})


@given(some_scopes, st.sampled_from(Scope))
def test_a_scope_is_held_or_it_is_not(granted: frozenset[Scope], needed: Scope) -> None:
    if Scope.ADMIN not in granted:
        assert allows(granted, needed) == (needed in granted)


@given(some_scopes, some_scopes)
def test_nobody_can_grant_what_they_do_not_hold(granted: frozenset[Scope], wanted: frozenset[Scope]) -> None:
    lacking = set(not_held(granted, wanted))
    assert lacking == {scope for scope in wanted if not allows(granted, scope)}


def test_an_operator_can_not_redirect_events() -> None:
    assert Scope.ENDPOINTS_WRITE not in SCOPES_OF[Role.OPERATOR]


def test_only_the_privacy_officer_reads_payloads_and_looks_for_patients() -> None:
    for scope in (Scope.PAYLOAD_READ, Scope.PATIENTS_SEARCH):
        assert [role for role in Role if scope in SCOPES_OF[role]] == [Role.PRIVACY_OFFICER]


def test_every_role_has_its_scopes_and_none_is_an_administrator() -> None:
    assert set(SCOPES_OF) == set(Role)
    assert all(scopes and Scope.ADMIN not in scopes for scopes in SCOPES_OF.values())


def test_a_partner_reaches_nothing_beyond_its_subscriber() -> None:
    assert SCOPES_OF[Role.PARTNER] <= OF_A_SUBSCRIBER
    assert {Scope.ADMIN, Scope.AUDIT_READ, Scope.EVENTS_WRITE, Scope.METRICS_READ}.isdisjoint(OF_A_SUBSCRIBER)
