"""The full path, from a POST to the partner's first byte: how much, how fast, and what each delivery costs."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import asdict
from typing import Any

from . import children
from .gateway import Gateway
from .hospital import TYPES
from .load import Notes, Plan, Posting, percentiles
from .machine import peak_megabytes
from .meter import Cost
from .receiver import firsts
from .report import Report

WINDOW = 2_000
"""Deliveries that may be under way while throughput is measured: the backlog can't grow beyond."""
RAMP = 2.0
"""Seconds that are not counted, until the pipeline is full."""
WARM = 1.0
"""Seconds of a load whose delays are not counted: tables were just emptied, and connections are not open yet."""
LOADS = (0.25, 0.5, 0.8)


def plan(gateway: Gateway, name: str, seconds: float, **more: Any) -> Plan:
    """A load on the gateway's API with numbers of its own."""
    first = gateway.numbers(10_000_000)  # more than a load of minutes posts
    given: dict[str, Any] = {"types": list(TYPES), "keys": gateway.keys, "receiver": gateway.receiver.port, **more}
    return Plan(
        port=gateway.port, notes=str(gateway.directory / name), seconds=seconds, first=first % 9_000_000_000, **given
    )


async def measure_ingest(gateway: Gateway, report: Report, seconds: float) -> None:
    """Single events and batches, each until its 202; no worker runs, as none does beside the bare echo."""
    await gateway.empty()
    await gateway.set_endpoints(10, types=TYPES)
    await gateway.start_api()
    await Posting(plan(gateway, "warm", 1.0)).notes_after_begun()
    meter = await gateway.meter()
    notes = await Posting(plan(gateway, "ingest", seconds)).notes_after_begun()
    cost = await meter.read()
    report.note("ingest", notes.rate(), f"events/s, one a POST{_refused(notes)}")
    report.details["ingest"] = {"cost": asdict(cost), "per_event": _per(cost, notes.accepted)}
    batches = Posting(plan(gateway, "batch", seconds, path="/v1/events/batch", batch=100, connections=8))
    notes = await batches.notes_after_begun()
    report.note("ingest_batch", notes.rate(), f"events/s, a hundred a POST{_refused(notes)}")
    gateway.stop_api()
    await gateway.empty()


async def measure_full(gateway: Gateway, report: Report, fanout: int, seconds: float) -> None:
    """The most that the whole pipeline sustains, with the API and one worker, and what it costs."""
    name = f"full_{fanout}"
    await gateway.empty()
    await gateway.set_endpoints(10, types=TYPES if fanout == 1 else ("*",))
    await gateway.start_api()
    await gateway.start_workers()
    more = {"window": WINDOW, "fanout": fanout, "connections": 64 if fanout == 1 else 16}
    posting = Posting(plan(gateway, name, seconds + RAMP, **more))
    await posting.begun()
    await asyncio.sleep(RAMP)
    before, at = gateway.receiver.count(), time.monotonic()
    meter = await gateway.meter(load=posting.pid)
    await asyncio.sleep(seconds - 0.2)
    delivered, took = gateway.receiver.count() - before, time.monotonic() - at
    cost = await meter.read()
    notes = await posting.notes()
    left = await _drained(gateway)
    report.note(f"{name}_deliveries", delivered / took, f"deliveries/s sustained, {fanout} endpoint(s) an event")
    report.note(f"{name}_events", delivered / took / fanout, f"events/s sustained{_refused(notes)}")
    if bare := report.get("floor_aiohttp"):
        report.note(f"{name}_to_aiohttp", delivered / took / bare, "of what a bare loop of aiohttp posts")
    per = _per(cost, delivered)
    for part in ("api", "worker", "postgres", "load", "receiver"):
        report.note(f"{name}_{part}_us", per[part], f"µs of CPU a delivery: {part}")
    report.note(f"{name}_wal", per["wal"], "bytes of WAL a delivery")
    report.note(f"{name}_statements", per["statements"], "statements a delivery")
    assert gateway.api is not None
    report.note(f"{name}_api_mb", peak_megabytes(gateway.api.pid), "MB at most, the API")
    report.note(f"{name}_worker_mb", peak_megabytes(gateway.workers[0].pid), "MB at most, the worker")
    missing = _missing(gateway, notes, fanout)
    report.note(f"{name}_missing", missing, f"accepted but not delivered, {left} still open")
    report.details[name] = {"cost": asdict(cost), "per_delivery": per}
    gateway.stop_workers()
    gateway.stop_api()


async def measure_latency(gateway: Gateway, report: Report, seconds: float) -> None:
    """Open-loop at parts of the capacity just measured: from when an event was due to the partner's first byte."""
    capacity = report.get("full_1_events")
    if capacity is None:
        await measure_full(gateway, report, 1, min(seconds, 5.0))
        capacity = report.figures["full_1_events"]
    await gateway.set_endpoints(10, types=TYPES)
    await gateway.start_api()
    await gateway.start_workers()
    await Posting(plan(gateway, "warm", 1.0, rate=capacity / 4)).notes_after_begun()
    for load in LOADS:
        await _drained(gateway)
        await gateway.empty()
        probe = await _start_probe(gateway) if load == 0.5 else None
        posting = Posting(plan(gateway, "latency", WARM + seconds, rate=load * capacity, connections=256))
        await posting.begun()
        await asyncio.sleep(WARM)
        floor = await _end_probe(probe, seconds - 0.5) if probe is not None else None
        notes = await posting.notes()
        await _drained(gateway)
        arrivals = firsts(gateway.receiver.take())
        answers, delays, lost = [], [], 0
        for due, answered, status, webhook in zip(notes.due, notes.answered, notes.statuses, notes.ids, strict=True):
            if status != 202 or due < notes.begun + WARM * 1e9:
                continue
            answers.append((answered - due) / 1e6)
            if webhook in arrivals:
                delays.append((arrivals[webhook].at - due) / 1e6)
            else:
                lost += 1
        late = percentiles([(noticed - due) / 1e6 for due, noticed in zip(notes.due, notes.noticed, strict=True)])
        part = f"{load:.0%} of capacity"
        found: dict[str, Any] = {
            "answer": percentiles(answers),
            "delivery": percentiles(delays),
            "late": late,
            "rate": load * capacity,
        }
        report.details[f"latency_{load:.0%}"] = found
        report.say(f"at {part}: 202 after {_row(found['answer'])} ms; first byte after {_row(found['delivery'])} ms")
        report.say(f"at {part}: the load itself was late by {_row(late)} ms{_refused(notes)}; not delivered: {lost}")
        report.figures[f"answer_p99_{load:.0%}"] = percentiles(answers)["p99"]
        report.figures[f"delivery_p99_{load:.0%}"] = percentiles(delays)["p99"]
        if floor is not None:
            report.note(
                "floor_commit_post_p99", percentiles(floor)["p99"], "ms, p99 of one commit and one bare POST then"
            )
            report.details["floor_commit_post"] = percentiles(floor)
    gateway.stop_workers()
    gateway.stop_api()


async def _start_probe(gateway: Gateway) -> subprocess.Popen[bytes]:
    """Before the load begins: what it takes to start a process would be part of the delays."""
    command = (sys.executable, "-m", "bench.probe", gateway.postgres.url, str(gateway.receiver.port))
    process = children.spawn(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    await asyncio.to_thread(process.stdout.readline)
    return process


async def _end_probe(process: subprocess.Popen[bytes], seconds: float) -> list[float]:
    output, _ = await asyncio.to_thread(process.communicate, f"{seconds}\n".encode())
    return [float(took) for took in json.loads(output)]


async def _drained(gateway: Gateway, patience: float = 20.0) -> int:
    """Waits until nothing is open any more; returns what is still open when patience ends."""
    deadline = time.monotonic() + patience
    while (left := await gateway.open_deliveries()) and time.monotonic() < deadline:  # noqa: ASYNC110 - a table shows it
        await asyncio.sleep(0.1)
    return left


def _missing(gateway: Gateway, notes: Notes, fanout: int) -> int:
    """How many of the accepted events did not reach as many endpoints as they should have."""
    arrivals = gateway.receiver.take()
    seen: dict[bytes, set[bytes]] = {}
    for path, webhook in zip(arrivals.paths, arrivals.ids, strict=True):
        seen.setdefault(webhook, set()).add(path)
    accepted = (webhook for webhook, status in zip(notes.ids, notes.statuses, strict=True) if status == 202)
    return sum(len(seen.get(webhook, ())) != fanout for webhook in accepted)


def _per(cost: Cost, count: int) -> dict[str, float]:
    """Microseconds of CPU by group, bytes and statements, for each of so many."""
    count = max(count, 1)
    per = {group: seconds / count * 1e6 for group, seconds in cost.used.groups.items()}
    return {**per, "wal": cost.wal / count, "statements": cost.statements / count}


def _refused(notes: Notes) -> str:
    return f"; {notes.refused} not accepted ({sorted(set(notes.statuses))})" if notes.refused else ""


def _row(found: dict[str, float]) -> str:
    return " / ".join(f"{value:.1f}" for value in found.values())
