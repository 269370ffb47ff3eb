"""What a key may do. A role is a named set of scopes; nobody can grant what they don't hold."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Scope(StrEnum):
    """``admin`` stands for every other scope but `OF_PATIENTS`: running the gateway needs no patient's data."""

    EVENTS_WRITE = "events:write"
    ENDPOINTS_READ = "endpoints:read"
    ENDPOINTS_WRITE = "endpoints:write"
    DELIVERIES_READ = "deliveries:read"
    DELIVERIES_WRITE = "deliveries:write"
    PAYLOAD_READ = "payload:read"
    PATIENTS_SEARCH = "patients:search"
    AUDIT_READ = "audit:read"
    DISCLOSURES_READ = "disclosures:read"
    METRICS_READ = "metrics:read"
    ADMIN = "admin"


OF_PATIENTS = frozenset({Scope.PAYLOAD_READ, Scope.PATIENTS_SEARCH})


class Role(StrEnum):
    """Who somebody is to the gateway. An operator moves deliveries but can't redirect them to another URL."""

    PRODUCER = "producer"
    ENDPOINT_ADMIN = "endpoint_admin"
    OPERATOR = "operator"
    PRIVACY_OFFICER = "privacy_officer"
    AUDITOR = "auditor"
    PARTNER = "partner"


SCOPES_OF: dict[Role, frozenset[Scope]] = {
    Role.PRODUCER: frozenset({Scope.EVENTS_WRITE}),
    Role.ENDPOINT_ADMIN: frozenset(
        {Scope.ENDPOINTS_READ, Scope.ENDPOINTS_WRITE, Scope.DELIVERIES_READ, Scope.DELIVERIES_WRITE}
    ),
    Role.OPERATOR: frozenset({Scope.ENDPOINTS_READ, Scope.DELIVERIES_READ, Scope.DELIVERIES_WRITE, Scope.METRICS_READ}),
    Role.PRIVACY_OFFICER: OF_PATIENTS | {Scope.DELIVERIES_READ, Scope.AUDIT_READ, Scope.DISCLOSURES_READ},
    Role.AUDITOR: frozenset({Scope.AUDIT_READ, Scope.ENDPOINTS_READ, Scope.DELIVERIES_READ, Scope.DISCLOSURES_READ}),
    Role.PARTNER: frozenset(
        {Scope.ENDPOINTS_READ, Scope.ENDPOINTS_WRITE, Scope.DELIVERIES_READ, Scope.DELIVERIES_WRITE}
    ),
}

ROLES: dict[str, frozenset[Scope]] = {"admin": frozenset({Scope.ADMIN})} | {
    role.value: SCOPES_OF[role] for role in Role
}
"""By name, with the administrator that the command line begins with."""


class Capability(StrEnum):
    """What a link to its portal lets a partner do there."""

    VIEW = "view"
    ENDPOINT = "endpoint"
    SECRET = "secret"  # noqa: S105 - a name
    TEST = "test"
    REPLAY = "replay"


SCOPES_WITH: dict[Capability, frozenset[Scope]] = {
    Capability.VIEW: frozenset({Scope.ENDPOINTS_READ, Scope.DELIVERIES_READ}),
    Capability.ENDPOINT: frozenset({Scope.ENDPOINTS_WRITE, Scope.DELIVERIES_WRITE}),
    Capability.SECRET: frozenset({Scope.ENDPOINTS_WRITE}),
    Capability.TEST: frozenset({Scope.DELIVERIES_WRITE}),
    Capability.REPLAY: frozenset({Scope.DELIVERIES_WRITE}),
}

OF_A_SUBSCRIBER = SCOPES_OF[Role.PARTNER] | OF_PATIENTS
"""What a key that belongs to one subscriber may carry: the rest is about the whole hospital."""


def allows(granted: Iterable[str], needed: Scope) -> bool:
    """Whether somebody with the granted scopes may do what needs one."""
    scopes = set(granted)
    return needed in scopes or (Scope.ADMIN in scopes and needed not in OF_PATIENTS)


def scopes_with(capabilities: Iterable[Capability]) -> frozenset[Scope]:
    return frozenset(scope for capability in capabilities for scope in SCOPES_WITH[capability])


def not_held(granted: Iterable[str], wanted: Iterable[Scope]) -> list[Scope]:
    """The scopes wanted for somebody else that the granter lacks, sorted."""
    scopes = set(granted)
    return sorted(scope for scope in wanted if not allows(scopes, scope))
