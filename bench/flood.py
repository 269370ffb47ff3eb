"""What one tenant that floods the API costs the others: how long they wait for their `202`, with it and without.

The flood is batches of as many events as a batch may have, on many connections, as fast as they are answered, by a key
without a rate: so it is the queue at intake that protects the others, and fan-out in turns behind it. A time is from
when an event was due at the load; one that was refused counts as if it had waited until the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from webhook_gateway.operations import keys
from webhook_gateway.operations.change import changing
from webhook_gateway.operations.first_start import NO_TENANT
from webhook_gateway.store.keys import NewKey
from webhook_gateway.web.api.event_bodies import MOST_EVENTS

from .gateway import Gateway
from .hospital import TYPES
from .load import Notes, Plan, Posting, percentiles
from .machine import between, sample
from .pipeline import plan
from .receiver import firsts
from .report import Goal, Report

CONNECTIONS = 16
OTHERS_RATE = 1_000.0
"""Events a second that the others post, one by one: more than a large hospital does, and less than half of what one API
process takes beside a flood. Each tenant may have its half; who asks for more waits for itself."""
LOOSENED = {"WEBHOOK_GATEWAY_API_RATE": "0", "WEBHOOK_GATEWAY_API_EVENT_RATE": "0"}

GOAL = Goal(
    "flood", "others' 202 beside a tenant that floods, p99 beyond 2 × baseline or + 200 ms, ms", 0,
    lambda report: report.get("flood_over"), at_most=True,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Others:
    """They post events of these types, ``rate`` a second together; the first ``warm`` seconds don't count."""

    types: Sequence[str]
    rate: float
    warm: float
    seconds: float


async def measure_flood(gateway: Gateway, report: Report, others: Others) -> None:
    key, seconds = await _key_of_another_tenant(gateway), others.warm + others.seconds
    alone = await _p99(gateway, report, "others alone", others)
    flood = plan(gateway, "flood", seconds, keys=[key], path="/v1/events/batch", batch=MOST_EVENTS, types=list(TYPES))
    flood.connections = CONNECTIONS
    beside = await _p99(gateway, report, "beside a tenant that floods", others, flood)
    report.figures["flood_added_ms"] = beside - alone
    report.figures["flood_over"] = beside - max(2 * alone, alone + 200)


async def _key_of_another_tenant(gateway: Gateway) -> str:
    async with changing(gateway.database, NO_TENANT) as change:
        wanted = NewKey("flood", ["events:write"])
        made = await keys.create_with_tenant(change, gateway.vault, "flooding", wanted, new=True)
        assert isinstance(made, tuple), made
    return made[1]


async def _p99(gateway: Gateway, report: Report, name: str, others: Others, flood: Plan | None = None) -> float:
    """Milliseconds to the others' `202`."""
    await gateway.empty()
    await gateway.start_api(LOOSENED)
    await gateway.start_workers()
    seconds = others.warm + others.seconds
    wanted = plan(gateway, "others", seconds, rate=others.rate, types=list(others.types), connections=128)
    first = sample({})
    posting = Posting(wanted)
    await posting.begun()
    flooding = None
    if flood is not None:
        flood.port = gateway.port
        flooding = Posting(flood)
        await flooding.begun()
    notes = await posting.notes()
    report.strangers(name, between(first, sample({})).others)
    if flooding is not None:
        flooded = await flooding.notes()
        report.note("flood_events", flooded.rate(), f"events/s of the flood were accepted{_refused(flooded)}")
    seen = firsts(gateway.receiver.take())
    gateway.kill_workers()
    gateway.stop_api()

    counted = [n for n, due in enumerate(notes.due) if due >= notes.begun + others.warm * 1e9]
    answers = [(notes.answered[n] if notes.statuses[n] == 202 else notes.ended) - notes.due[n] for n in counted]
    arrivals = [(seen[notes.ids[n]].at if notes.ids[n] in seen else notes.ended) - notes.due[n] for n in counted]
    found = {"answer": percentiles(answers, (50, 99)), "first byte": percentiles(arrivals, (50, 99))}
    report.details[name] = found
    said = "; ".join(f"{what} p50 {at['p50'] / 1e6:.0f} p99 {at['p99'] / 1e6:.0f} ms" for what, at in found.items())
    report.say(f"{name}: {said}{_refused(notes)}")
    return found["answer"]["p99"] / 1e6


def _refused(notes: Notes) -> str:
    return f"; {notes.refused} posts were not accepted ({sorted(set(notes.statuses))})" if notes.refused else ""
