"""``make bench-isolation``: what bad partners cost the good ones, with and without them, in one run.

A hundred endpoints (the victims) get events at a steady rate. Beside them come, one after the other: (a) one endpoint
with a backlog, (b) ten that hang until the deadline, (c) ten that answer 500, (d) all of these at once, (e) 150 whose
names DNS never answers, (f) these and 300 that hang. The bad ones of (b) and (c) begin with a backlog and are sent new
events all the time. A victim's delay is from when its event was due at the load to the first byte at the partner, so
nothing is hidden by a slow load. Each phase starts its processes anew: its first seconds, in which they open their
connections, count in none of them, with bad partners or without. At last another tenant floods the API (`flood.py`).
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass, field
from uuid import UUID

import msgspec
import uvloop

from . import hanging
from .backlog import fill_backlog
from .flood import GOAL as FLOOD
from .flood import OTHERS_RATE, Others, measure_flood
from .gateway import Gateway
from .growth import measure_drain
from .load import Posting, percentiles
from .machine import between, sample
from .pipeline import plan
from .receiver import firsts
from .report import Goal, Report, judge

VICTIMS = 100
BAD = 10
SHARE = 0.25
"""The victims' rate, as a part of what drains at most: half load and more would measure the machine."""
WARM = 3.0
"""Seconds of load before anything counts."""
BEGINS_WITH = 500
"""Open deliveries of each bad endpoint at the start of its phase."""
VICTIM, HANGING, BROKEN = "bench.victim", "bench.hanging", "bench.broken"


@dataclass(frozen=True, slots=True)
class Size:
    """Seconds of a phase, deliveries of the backlog, seconds of a drain."""

    phase: float
    backlog: int
    drain: float


FULL = Size(phase=24, backlog=200_000, drain=6)
QUICK = Size(phase=8, backlog=50_000, drain=3)


@dataclass(frozen=True, slots=True)
class Phase:
    """Who is beside the victims."""

    name: str
    flood: bool = False
    hanging: bool = False
    broken: bool = False
    silent: bool = False
    hundreds: bool = False


ALONE = Phase("the victims alone")
NAMES_HANG = Phase("(e) 150 names that hang", silent=True)
HUNDREDS_HANG = Phase("(f) 300 that hang, too", silent=True, hundreds=True)
PHASES = (
    ALONE,
    Phase("(a) a backlog", flood=True),
    Phase("(b) ten that hang", hanging=True),
    Phase("(c) ten that answer 500", broken=True),
    Phase("(d) all of it", flood=True, hanging=True, broken=True),
    NAMES_HANG,
    HUNDREDS_HANG,
)


GOALS = (
    Goal(
        "victims", "victims' p99 beyond 2 × baseline or + 200 ms, worst phase, ms", 0, lambda r: r.get("p99_over"),
        at_most=True,
    ),
    Goal(
        "names", "the same beside 150 names that hang", 0, lambda r: _over(r, NAMES_HANG.name), at_most=True
    ),
    Goal(
        "hundreds", "the same beside these and 300 endpoints that hang", 0, lambda r: _over(r, HUNDREDS_HANG.name),
        at_most=True,
    ),
    Goal("jain", "Jain's index of the victims' deliveries, worst phase", 0.95, lambda r: r.get("jain")),
    Goal("healthy", "victims' throughput ÷ baseline, worst phase", 0.9, lambda r: r.get("healthy")),
    Goal("backlog", "a backlog of one endpoint alone, drain rate ÷ capacity", 0.8, lambda r: r.get("backlog")),
    FLOOD,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Found:
    """What the victims met: milliseconds, deliveries a second, and how equal they were."""

    delays: dict[str, float]
    jain: float
    victims: float
    total: float
    late: int
    """Events that had not reached their victim when the phase ended."""


@dataclass(slots=True)
class Place:
    """The endpoints of the run."""

    victims: list[UUID] = field(default_factory=list)
    flooded: list[UUID] = field(default_factory=list)
    hanging: list[UUID] = field(default_factory=list)
    broken: list[UUID] = field(default_factory=list)
    silent: list[UUID] = field(default_factory=list)
    hundreds: list[UUID] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-isolation", description="Measures what bad partners cost.")
    parser.add_argument("--quick", action="store_true", help="shorter, with a smaller backlog")
    report = uvloop.run(measure(QUICK if parser.parse_args().quick else FULL))
    report.say(f"wrote {report.write('isolation')}")
    judge(report, GOALS)
    names = ("p99_ratio", "p99_added_ms", "jain", "healthy", "backlog", "flood_added_ms")
    print("isolation: " + " ".join(f"{name}={report.figures[name]:.2f}" for name in names))


async def measure(size: Size) -> Report:
    report = Report()
    report.say("starting PostgreSQL and the receiver")
    gateway = await Gateway.start()
    try:
        place = await _settle_down(gateway)
        capacity = await measure_drain(gateway, place.victims, size.drain)
        report.note("capacity", capacity, f"deliveries/s drained over {VICTIMS} endpoints")
        alone = await measure_drain(gateway, place.flooded, size.drain)
        report.note("backlog", alone / capacity, f"of that by one endpoint's backlog alone ({alone:,.0f}/s)")
        found = {}
        async with hanging.names_of_our_own(gateway, place.victims):
            for phase in PHASES:
                found[phase.name] = await _run(gateway, report, place, phase, size, capacity * SHARE)
            await measure_flood(gateway, report, Others(_types(VICTIM, VICTIMS), OTHERS_RATE, WARM, size.phase))
    finally:
        await gateway.close()
    _compare(report, found)
    return report


async def _settle_down(gateway: Gateway) -> Place:
    """Event types and endpoints: each victim has a type of its own, so an event goes to one endpoint."""
    names = _types(VICTIM, VICTIMS) + _types(HANGING, BAD) + _types(BROKEN, BAD)
    await gateway.connection.executemany(
        "INSERT INTO event_types (tenant_id, name, schema, example) "
        """VALUES ($1, $2, '{"type":"object"}', '{"value":"x"}')""",
        [(gateway.tenant_id, name) for name in names],
    )
    await gateway.set_endpoints(0)
    place = Place(
        await gateway.add_endpoints(VICTIMS, types=_types(VICTIM, VICTIMS), path="/ok/victim"),
        await gateway.add_endpoints(1, types=["bench.flood"], path="/ok/flood"),
        await gateway.add_endpoints(BAD, types=_types(HANGING, BAD), path="/hang"),
        await gateway.add_endpoints(BAD, types=_types(BROKEN, BAD), path="/500"),
        await hanging.add_names(gateway),
        await hanging.add_endpoints(gateway),
    )
    # What a backlog is made of; the load posts none.
    await gateway.connection.execute("UPDATE endpoints SET event_types = event_types || '{lab_result.final}'")
    await gateway.connection.execute("UPDATE configuration SET version = version + 1")
    return place


async def _run(gateway: Gateway, report: Report, place: Place, phase: Phase, size: Size, rate: float) -> Found:
    await gateway.empty()
    if phase.flood:
        await fill_backlog(gateway, place.flooded, size.backlog)
    if phase.hanging:
        await fill_backlog(gateway, place.hanging, BAD * BEGINS_WITH)
    if phase.broken:
        await fill_backlog(gateway, place.broken, BAD * BEGINS_WITH)
    hang = (place.silent if phase.silent else []) + (place.hundreds if phase.hundreds else [])
    await hanging.fill(gateway, hang)
    await gateway.start_api()
    await gateway.start_workers()
    bad = (_types(HANGING, BAD) if phase.hanging else []) + (_types(BROKEN, BAD) if phase.broken else [])
    types = _types(VICTIM, VICTIMS) + bad
    first = sample({})
    posting = Posting(
        plan(gateway, "isolation", WARM + size.phase, rate=rate * len(types) / VICTIMS, types=types, connections=128)
    )
    await posting.begun()
    await hanging.begin(gateway, hang)
    notes = await posting.notes()
    hung = await hanging.under_way(gateway, hang)
    others = between(first, sample({})).others
    arrivals = gateway.receiver.take()
    gateway.kill_workers()
    gateway.stop_api()

    seen, warm, until = firsts(arrivals), notes.begun + int(WARM * 1e9), notes.ended
    sent = [n for n in range(len(notes.due)) if n % len(types) < VICTIMS and notes.due[n] >= warm]
    victims = [n for n in sent if notes.statuses[n] == 202]
    delays = [(seen[notes.ids[n]].at - notes.due[n]) / 1e6 for n in victims if notes.ids[n] in seen]
    delays += [(until - notes.due[n]) / 1e6 for n in victims if notes.ids[n] not in seen]  # at least so long
    reached = Counter(n % len(types) for n in victims if notes.ids[n] in seen and seen[notes.ids[n]].at <= until)
    offered = Counter(n % len(types) for n in victims)
    # Of what each was sent: with chance arrivals, the counts alone would differ by themselves.
    shares = [reached[victim] / offered[victim] for victim in range(VICTIMS) if offered[victim]]
    seconds = (until - warm) / 1e9
    found = Found(
        delays={**percentiles(delays, (50, 99)), "max": max(delays, default=float("nan"))},
        jain=sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares)) if any(shares) else 0.0,
        victims=sum(reached.values()) / seconds,
        total=sum(warm <= at <= until for at in arrivals.times) / seconds,
        late=sum(offered.values()) - sum(reached.values()),
    )
    report.say(
        f"{phase.name:24} delay p50 {found.delays['p50']:.0f} p99 {found.delays['p99']:.0f} "
        f"max {found.delays['max']:.0f} ms  Jain {found.jain:.4f}  victims {found.victims:,.0f}/s  "
        f"all requests {found.total:,.0f}/s  late {found.late}"
    )
    if hang:
        report.say(f"    {hung} requests of {len(hang)} endpoints hung at the end")
    if notes.refused:
        report.say(f"    {notes.refused} posts were not accepted: {sorted(set(notes.statuses))}")
    report.strangers(phase.name, others)
    report.details[phase.name] = msgspec.to_builtins(found)
    return found


def _compare(report: Report, found: dict[str, Found]) -> None:
    """The worst phase against the victims alone."""
    alone, *phases = found.values()
    p99 = max(phase.delays["p99"] for phase in phases)
    figures = report.figures
    figures["p99_ratio"] = p99 / alone.delays["p99"]
    figures["p99_added_ms"] = p99 - alone.delays["p99"]
    figures["p99_over"] = max(_over(report, phase.name) or 0.0 for phase in PHASES[1:])
    figures["jain"] = min(phase.jain for phase in phases)
    figures["healthy"] = min(phase.victims for phase in phases) / alone.victims


def _over(report: Report, phase: str) -> float | None:
    """By how many milliseconds the victims' p99 is beyond what it may be; less than nothing where it isn't."""
    found = report.details
    if phase not in found:
        return None
    alone, beside = (float(found[name]["delays"]["p99"]) for name in (ALONE.name, phase))
    return beside - max(2 * alone, alone + 200)


def _types(kind: str, count: int) -> list[str]:
    return [f"{kind}_{number}" for number in range(count)]


if __name__ == "__main__":
    main()
