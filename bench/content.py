"""What it costs to decide who gets what: an event that a filter is asked about, a delivery that is cut."""

from __future__ import annotations

import json
from collections.abc import Callable
from time import process_time

from webhook_gateway.intake.catalogue import shipped, thin_of
from webhook_gateway.rules.filters import Filter, parse, read_data
from webhook_gateway.rules.views import EVERYTHING, NOTHING, cut, tree_of
from webhook_gateway.store import bodies

from .backlog import fill_backlog
from .gateway import Gateway
from .machine import between, sample
from .report import Report

TYPE, ROUND, TIMES = "lab_result.final", 500, 20_000
FIELDS = ["/result_id", "/patient_id", "/panel/code", "/observations/*/value", "/observations/*/unit"]
FILTER = {
    "panel": {"code": ["24323-8", "2823-3"]},
    "version": [{"numeric": [">=", 1, "<", 5]}],
    "status": [{"anything-but": ["preliminary"]}],
    "observations": {"unit": ["mmol/L"], "value": [{"prefix": "4"}]},
}
"""Five conditions."""


async def measure_content(gateway: Gateway, report: Report) -> None:
    """By this process's CPU time; Postgres' by what it uses for the bodies of a round of fan-out."""
    (known,) = (known for known in shipped() if known.name == TYPE)
    body = json.dumps({"id": "evt_1", "type": TYPE, "timestamp": "t", "data": known.example, "subject": "s"}).encode()
    wanted, fields, thin = parse(json.dumps(FILTER).encode()), tree_of(FIELDS), thin_of(TYPE) or NOTHING
    assert isinstance(wanted, Filter)
    report.note("cut_none_us", _cost(lambda: cut(body, EVERYTHING, True)), "µs a delivery, everything")
    report.note("cut_thin_us", _cost(lambda: cut(body, thin, False)), "µs a delivery, a thin body")
    report.note("cut_fields_us", _cost(lambda: cut(body, fields, False)), "µs a delivery, five fields")
    report.note(
        "filter_us", _cost(lambda: wanted.matches(read_data(body))), "µs an event, five conditions, and reading"
    )
    await gateway.empty()
    await fill_backlog(gateway, await gateway.set_endpoints(10), 10 * ROUND)
    ids = [row["id"] for row in await gateway.connection.fetch("SELECT id FROM events")]
    first, began = sample(gateway.groups()), process_time()
    for _ in range(times := 200):
        sealed = await bodies.some(gateway.connection, ids, 8_388_608)
        for event_id in sealed:
            gateway.vault.open(gateway.tenant_id, "events", event_id, sealed[event_id])
    spent, used = process_time() - began, between(first, sample(gateway.groups()))
    report.strangers("content", used.others)
    events = times * len(ids)
    report.note("filter_postgres_us", used.groups["postgres"] / events * 1e6, "µs of Postgres an event, its body")
    report.note("filter_open_us", spent / events * 1e6, "µs of Python an event, to fetch and open its body")
    await gateway.empty()


def _cost(work: Callable[[], object]) -> float:
    """Microseconds."""
    began = process_time()
    for _ in range(TIMES):
        work()
    return (process_time() - began) / TIMES * 1e6
