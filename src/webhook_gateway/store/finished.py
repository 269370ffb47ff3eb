"""What a delivery leaves behind when it ends, whoever ends it."""

from __future__ import annotations

NOT_WANTED = "not_wanted"
"""The reason of those that a filter doesn't let through: no partner's key hears of them."""


def put_away(state: str, reason: str) -> str:
    """SQL: the deliveries in ``gone`` have ended in this state, for this reason."""
    return f"""
    INSERT INTO finished_deliveries (id, tenant_id, endpoint_id, event_id, type, sequence, ordering_key, attempt,
                                     state, state_reason, reason, created_at)
    SELECT id, tenant_id, endpoint_id, event_id, type, sequence, ordering_key, attempt,
           {state}, {reason}, reason, created_at
    FROM gone"""


def put_away_open(state: str, reason: str) -> str:
    """SQL: the same of those that no attempt has ended. A filter that wasn't asked yet may not have wanted them."""
    return put_away(f"'{state}'", f"CASE WHEN unfiltered THEN '{NOT_WANTED}' ELSE {reason} END")
