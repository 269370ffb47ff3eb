"""``make bench``: every figure of the README in one run on one machine, so that their ratios hold.

- ``make bench`` runs all of it, in some minutes
- ``make bench ARGS="--quick"`` is shorter, about five minutes
- ``make bench ARGS="--only full,latency"`` runs a part of it (``--help`` lists the parts)
- ``make bench ARGS="--only depth --open 10000000"`` drains a deeper backlog, which takes some minutes to make
- ``make bench ARGS="--only find"`` looks for a patient among ten million events, which take some minutes to make
- ``make bench ARGS="--only rates --loads 50,500"`` measures what an event costs at some rates
- ``make bench ARGS="--against ../before"`` compares another checkout with this one, by turns, in a quarter of an hour
"""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import uvloop

from . import children, compare, content, control, finding, floors, growth, pipeline, plots, rates
from .gateway import Gateway
from .machine import between, sample
from .report import Goal, Report, judge

GOALS = (
    Goal("full_1", "full path, events/s ÷ bare client loop", 0.5, lambda r: r.ratio("full_1_events", "floor_client")),
    Goal(
        "full_10",
        "full path, ten endpoints an event, deliveries/s ÷ bare client loop",
        0.7,
        lambda r: r.ratio("full_10_deliveries", "floor_client"),
    ),
    Goal(
        "ingest",
        "single-event ingest ÷ bare ASGI echo that checks the same body",
        0.6,
        lambda r: r.ratio("ingest", "floor_echo"),
    ),
    Goal("batch", "batch ingest, events/s ÷ single-event ingest", 5, lambda r: r.ratio("ingest_batch", "ingest")),
    Goal(
        "postgres",
        "Postgres CPU a delivery, all stages, one endpoint an event, µs",
        150,
        lambda r: r.get("full_1_postgres_us"),
        at_most=True,
    ),
    Goal(
        "depth",
        "drain rate with the most open deliveries ÷ with 10,000",
        0.9,
        lambda r: r.ratio("drain_large", "drain_small"),
    ),
    Goal(
        "key",
        "one ordering key's drain rate with the most pending ÷ with 100",
        0.9,
        lambda r: r.ratio("key_hot_ok", "key_few_ok"),
    ),
    Goal("key_20ms", "the same, partner takes 20 ms", 0.9, lambda r: r.ratio("key_hot_20ms", "key_few_20ms")),
    Goal(
        "beside",
        "drain rate of ten endpoints beside such a key ÷ without",
        0.9,
        lambda r: r.ratio("beside_hot", "beside_none"),
    ),
    Goal(
        "endpoints",
        "drain rate with 5,000 endpoints ÷ with 10",
        0.8,
        lambda r: r.ratio("drain_endpoints_5000", "drain_endpoints_10"),
    ),
    Goal(
        "workers",
        "drain with 2 workers ÷ 1, partners that take 100 ms, concurrency binds",
        1.8,
        lambda r: r.ratio("drain_workers_2", "drain_workers_1"),
    ),
    Goal(
        "latency",
        "first attempt's delay at half load, p99 ÷ p99 of one commit + one bare POST then",
        5,
        lambda r: r.ratio("delivery_p99_50%", "floor_commit_post_p99"),
        at_most=True,
    ),
    Goal(
        "event_100",
        "CPU of an event at 100/s ÷ that of three commits and one POST by a bare loop",
        2.2,
        lambda r: r.ratio("at_100_us", "at_100_floor_us"),
        at_most=True,
    ),
    Goal(
        "event_500",
        "the same at 500/s",
        1.6,
        lambda r: r.ratio("at_500_us", "at_500_floor_us"),
        at_most=True,
    ),
    Goal(
        "taken",
        "full load to one endpoint with half a core taken by others ÷ quiet",
        0.7,
        lambda r: r.ratio("at_taken_events", "at_full_events"),
    ),
    Goal(
        "old_transaction",
        "throughput with a transaction left open ÷ clean",
        0.7,
        lambda r: r.ratio("old_transaction", "clean"),
    ),
    Goal(
        "filter",
        "a filter with five conditions: Python CPU of an event, µs",
        8,
        lambda r: None if (judged := r.get("filter_us")) is None else judged + (r.get("filter_open_us") or 0.0),
        at_most=True,
    ),
    Goal(
        "filter_postgres",
        "Postgres CPU of an event, for its filter, µs",
        25,
        lambda r: r.get("filter_postgres_us"),
        at_most=True,
    ),
    Goal("cut", "five fields: Python CPU of a delivery, µs", 10, lambda r: r.get("cut_fields_us"), at_most=True),
    Goal("uncut", "everything: Python CPU of a delivery, µs", 3, lambda r: r.get("cut_none_us"), at_most=True),
    Goal(
        "find",
        "a patient's events of 30 days among ten million of six years, ms",
        50,
        lambda r: r.get("find_month_ms"),
        at_most=True,
    ),
    Goal("find_years", "the same, of all six years, ms", 1_000, lambda r: r.get("find_years_ms"), at_most=True),
    Goal(
        "memory",
        "memory of one worker or API process with the most open deliveries, MB",
        200,
        lambda r: r.get("memory_large"),
        at_most=True,
    ),
)


@dataclass(frozen=True, slots=True)
class Size:
    """How long and how large; seconds and counts."""

    floor: float
    full: float
    latency: float
    drain: float
    old: float
    open: int
    key: int
    load: float
    events: int
    loads: tuple[str, ...] = rates.LOADS
    of: Path = children.CHECKOUT


FULL = Size(floor=4, full=10, latency=12, drain=5, old=60, open=1_000_000, key=100_000, load=8, events=10_000_000)
QUICK = Size(floor=2, full=4, latency=4, drain=2, old=8, open=100_000, key=10_000, load=4, events=1_000_000)
AGAINST = ("100", "500", rates.FULL)
PAIRS = 9
LONGEST = 60.0
"""Seconds that a load may be asked to last."""
MOST_PAIRS = 30
MOST = 2_000
"""Events a second at most that may be asked for: `full` finds out what is possible."""

Measure = Callable[[Gateway, Report, Size], Awaitable[None]]


async def _full(gateway: Gateway, report: Report, size: Size) -> None:
    for fanout in (1, 10):
        await pipeline.measure_full(gateway, report, fanout, size.full)


MEASURES: dict[str, Measure] = {
    "floors": lambda g, r, s: floors.measure_floors(g, r, s.floor),
    "ingest": lambda g, r, s: pipeline.measure_ingest(g, r, s.floor),
    "full": _full,
    "rates": lambda g, r, s: rates.measure_rates(g, r, s.of, s.loads, s.load),
    "latency": lambda g, r, s: pipeline.measure_latency(g, r, s.latency),
    "depth": lambda g, r, s: growth.measure_depth(g, r, s.open),
    "hotkey": lambda g, r, s: growth.measure_hot_key(g, r, s.key, s.drain),
    "endpoints": lambda g, r, s: growth.measure_endpoints(g, r, (10, 1_000, 5_000), s.drain),
    "workers": lambda g, r, s: growth.measure_workers(g, r, (1, 2, 4), s.drain),
    "old": lambda g, r, s: growth.measure_old_transaction(g, r, s.old),
    "content": lambda g, r, s: content.measure_content(g, r),
    "control": lambda g, r, s: control.measure_control(g, r, s.drain),
    "find": lambda g, r, s: finding.measure_finding(g, r, s.events),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description="Measures the gateway on this machine.")
    parser.add_argument("--quick", action="store_true", help="shorter, with smaller backlogs")
    parser.add_argument("--only", default=",".join(MEASURES), help="some of " + ",".join(MEASURES))
    parser.add_argument("--open", type=int, help="open deliveries of the deepest backlog, by default a million")
    parser.add_argument(
        "--loads", type=_loads, help=f"of rates and --against: events a second, {rates.FULL}, {rates.TAKEN}"
    )
    parser.add_argument("--seconds", type=_seconds, help="of each of these loads")
    parser.add_argument("--of", type=_checkout, help="a checkout with a .venv whose gateway this is, instead of ours")
    parser.add_argument("--against", type=_checkout, help="a checkout with a .venv, to compare with this one by turns")
    parser.add_argument("--pairs", type=_pairs, default=PAIRS, help=f"of --against, by default {PAIRS}")
    given = parser.parse_args()
    size = QUICK if given.quick else FULL
    size = replace(size, load=given.seconds or size.load, loads=given.loads or size.loads, of=given.of or size.of)
    if given.against is not None:
        report = uvloop.run(compare.compare(size.of, given.against, given.loads or AGAINST, size.load, given.pairs))
        report.say(f"wrote {report.write('against')}")
        return
    if given.open is not None:
        if given.open < growth.DEEP:
            parser.error(f"--open: a deep backlog has {growth.DEEP:,} open deliveries or more")
        size = replace(size, open=given.open)
    wanted = [name.strip() for name in given.only.split(",")]
    if unknown := [name for name in wanted if name not in MEASURES]:
        parser.error(f"there is no measure {', '.join(unknown)}: choose from {', '.join(MEASURES)}")
    report = uvloop.run(measure(wanted, size))
    path = report.write("bench")
    for picture in (path, *plots.draw(report, path)):
        report.say(f"wrote {picture}")
    met, measured, missed = judge(report, GOALS)
    print(f"bench: met={met} of={measured} missed={','.join(missed) or '-'}")
    if report.failed:
        raise SystemExit(f"bench: could not measure {', '.join(report.failed)}")


def _loads(text: str) -> tuple[str, ...]:
    loads = tuple(load.strip() for load in text.split(","))
    for load in loads:
        if load not in (rates.FULL, rates.TAKEN) and not (load.isdecimal() and 1 <= int(load) <= MOST):
            raise argparse.ArgumentTypeError(
                f"{load} is neither {rates.FULL}, {rates.TAKEN} nor a number from 1 to {MOST:,}"
            )
    return loads


def _seconds(text: str) -> float:
    if not 1 <= (seconds := float(text)) <= LONGEST:
        raise argparse.ArgumentTypeError(f"from 1 to {LONGEST:g}")
    return seconds


def _pairs(text: str) -> int:
    if not 1 <= (pairs := int(text)) <= MOST_PAIRS:
        raise argparse.ArgumentTypeError(f"from 1 to {MOST_PAIRS}")
    return pairs


def _checkout(text: str) -> Path:
    checkout = Path(text).absolute()
    if not (checkout / ".venv/bin/python").exists():
        raise argparse.ArgumentTypeError(f"{checkout} has no .venv: run `make venv` there")
    return checkout


async def measure(wanted: list[str], size: Size) -> Report:
    report = Report()
    report.say("starting PostgreSQL and the receiver")
    gateway = await Gateway.start()
    try:
        for name in wanted:
            report.say(f"-- {name}")
            first = sample({})
            try:
                await MEASURES[name](gateway, report, size)
            except Exception as error:
                report.fail(name, error)
                gateway.kill_workers()
                gateway.stop_api()
            report.strangers(name, between(first, sample({})).others)
    finally:
        await gateway.close()
    return report


if __name__ == "__main__":
    main()
