"""Which endpoints want an event: by exact name, by prefix (``lab_result.*``), or everything (``*``)."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from uuid import UUID

from .model import Endpoint

NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+", re.ASCII)
PATTERN = re.compile(r"\*|[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*(\.\*)?", re.ASCII)
LONGEST_NAME = 128
OPERATIONAL = "gateway."
"""Types about the gateway itself. ``*`` leaves them out: a partner wants the hospital's events, not ours."""

TEST = f"{OPERATIONAL}test"
"""What is sent to try an endpoint: it tells nothing."""


def is_name(text: str) -> bool:
    return len(text) <= LONGEST_NAME and NAME.fullmatch(text) is not None


def is_pattern(text: str) -> bool:
    return len(text) <= LONGEST_NAME and PATTERN.fullmatch(text) is not None


def fits(pattern: str, event_type: str) -> bool:
    """Whether one pattern wants the type. ``lab_result.*`` wants all that begin with ``lab_result.``."""
    if pattern == "*":
        return not event_type.startswith(OPERATIONAL)
    if pattern.endswith(".*"):
        return event_type.startswith(pattern[:-1])
    return pattern == event_type


@lru_cache(maxsize=65_536)
def may_have(patterns: tuple[str, ...], event_type: str) -> bool:
    """Whether one of the patterns wants the type. A test that tells nothing may be sent to anybody."""
    return event_type == TEST or any(fits(pattern, event_type) for pattern in patterns)


def beyond(permitted: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """Those of the wanted patterns that want something which none of the permitted ones does."""
    return [pattern for pattern in wanted if not any(fits(other, pattern) for other in permitted)]


def effective(permitted: Sequence[str], own: Sequence[str]) -> tuple[str, ...]:
    """The patterns that want what both want: an endpoint's. Its ``own`` narrow its subscriber's, or are none.

    Of two patterns one holds the other, or they have no type in common. So it is those that the other side holds.
    """
    if not own:
        return tuple(permitted)
    cut = {*beyond(permitted, own), *beyond(own, permitted)}
    return tuple(dict.fromkeys(pattern for pattern in (*own, *permitted) if pattern not in cut))


class Matcher:
    """Endpoints indexed by what they want. Each type is worked out once, then remembered."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._of_tenant: dict[UUID, list[Endpoint]] = defaultdict(list)
        for endpoint in endpoints:
            self._of_tenant[endpoint.tenant_id].append(endpoint)
        self._known: dict[tuple[UUID, str], tuple[Endpoint, ...]] = {}

    def match(self, tenant_id: UUID, event_type: str) -> tuple[Endpoint, ...]:
        """The tenant's endpoints that want the type, whatever their state: those that are paused wait."""
        asked = (tenant_id, event_type)
        if asked not in self._known:
            self._known[asked] = tuple(
                endpoint
                for endpoint in self._of_tenant.get(tenant_id, ())
                if any(fits(pattern, event_type) for pattern in endpoint.event_types)
            )
        return self._known[asked]
