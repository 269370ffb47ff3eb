"""Revisions of endpoints: of what decides what goes where, a row for each that anything was ever sent by.

A change records what it changed (`configuration.changed`), and a worker whatever else it finds before it sends by it
(`configuration.snapshot`): what the version before changed, or somebody by hand. So there is no way round.
"""

from __future__ import annotations

_KEPT = {
    "subscriber": "s.name",
    "host": "split_part(split_part(e.url, '/', 3), '?', 1)",
    "permitted_types": "s.event_types",
    "event_types": "e.event_types",
    "permitted_content": "s.content",
    "content": "e.content",
    "filter_digest": "e.filter_digest",
}
_COLUMNS, _VALUES = ", ".join(_KEPT), ", ".join(_KEPT.values())

LAST = """endpoints e JOIN subscribers s ON s.id = e.subscriber_id LEFT JOIN LATERAL (
    SELECT * FROM endpoint_revisions WHERE endpoint_id = e.id ORDER BY revision DESC LIMIT 1) AS last ON true"""
"""SQL: endpoints, with the last revision of each."""
IS_LAST = f"({_VALUES}) IS NOT DISTINCT FROM ({', '.join(f'last.{name}' for name in _KEPT)})"
"""SQL: whether it is what the endpoint is now."""

RECORD = f"""
-- record: the endpoints that are not what their last revision says. Whoever does it has the configuration's row locked.
INSERT INTO endpoint_revisions (endpoint_id, revision, tenant_id, {_COLUMNS})
SELECT e.id, coalesce(last.revision, 0) + 1, e.tenant_id, {_VALUES}
FROM {LAST} WHERE e.deleted_at IS NULL AND NOT {IS_LAST}
"""
