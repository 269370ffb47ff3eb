"""What an event costs where hospitals live, at 20 to 1,000 a second to one endpoint, and at full load.

Arrivals come by chance on a schedule that no answer slows down, the same one each time. Beside each rate stands the
floor: three commits and one POST by a bare loop (`least`). ``full`` is all that the gateway sustains, ``taken`` the
same while somebody else takes half a core.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from . import children
from .gateway import Gateway
from .load import Notes, Posting, percentiles
from .meter import Cost, Meter
from .pipeline import WINDOW
from .receiver import Arrivals, firsts
from .report import Report
from .stand import Stand

FULL, TAKEN = "full", "taken"
LOADS = ("20", "50", "100", "250", "500", "1000", FULL, TAKEN)
SHARE = 0.5
"""Of a core, that somebody else takes."""
WARM = 1.5
"""Seconds of a load that do not count."""
AFTER = 0.5
"""Seconds that a load goes on after what counts."""
PATIENCE = 10.0
"""Seconds that the last deliveries may take to arrive."""
REST = 3.0
"""Seconds without load before nothing to do is measured."""
PARTS = ("api", "worker", "postgres", "supervisor")


@dataclass(frozen=True, slots=True)
class Found:
    """One load. ``us`` is CPU by part and ``all``, in µs; it, statements, commits and wake-ups are an event's.

    ``answer`` (the 202) and ``first_byte`` (at the partner) are ms since the event was due.
    """

    load: str
    rate: float
    us: dict[str, float]
    statements: float
    commits: float
    wakeups: float
    answer: dict[str, float]
    first_byte: dict[str, float]
    late: dict[str, float]
    """By how many ms the load itself was late."""
    refused: int
    missing: int
    """Accepted, but not arrived in time."""
    others: float

    def row(self) -> str:
        parts = "".join(f"{self.us[part]:>9,.0f}" for part in ("all", *PARTS))
        counts = f"{self.statements:>9.2f}{self.commits:>9.2f}{self.wakeups:>9.1f}"
        delays = "".join(f"{delay:>9.1f}" for delay in (*self.answer.values(), *self.first_byte.values()))
        odd = f"  {self.refused} refused" * bool(self.refused) + f"  {self.missing} missing" * bool(self.missing)
        return f"{self.load:>6}{self.rate:>9,.1f}{parts}{counts}{delays}{self.others:>7.1f}{odd}"


HEAD = (
    "  load events/s   µs all      api   worker postgres superv.   statem.  commits wake-ups"
    "  202 p50      p99 byte p50      p99 others"
)
"""Above rows. ``others`` is cores that processes not ours took meanwhile."""


async def measure_rates(gateway: Gateway, report: Report, checkout: Path, loads: Sequence[str], seconds: float) -> None:
    """Nothing to do, then each load; the floors on a PostgreSQL on which no gateway is at work."""
    stand = await Stand.start(checkout)
    try:
        await _measure_idle(stand, report, seconds)
        report.say(HEAD)
        for load in loads:
            found = await measure_load(stand, load, seconds)
            floor = None if load in (FULL, TAKEN) else await _measure_floor(gateway, float(load), seconds / 2)
            report.say(found.row() + (f"   floor {floor:,.0f} µs" if floor else ""))
            report.figures |= {f"at_{load}_us": found.us["all"], f"at_{load}_events": found.rate}
            report.details[f"at_{load}"] = {**asdict(found), "floor_us": floor}
            if floor:
                report.figures[f"at_{load}_floor_us"] = floor
                report.figures[f"at_{load}_first_byte_p50"] = found.first_byte["p50"]
    finally:
        await stand.close()


async def measure_load(stand: Stand, load: str, seconds: float) -> Found:
    """``load`` is events a second, or `FULL` or `TAKEN`."""
    await stand.empty()
    full = load in (FULL, TAKEN)
    before = stand.receiver.count()
    posting = Posting(stand.plan(WARM + seconds + AFTER, **({"window": WINDOW} if full else {"rate": float(load)})))
    async with _burning(WARM + seconds if load == TAKEN else 0):
        await posting.begun()
        await asyncio.sleep(WARM)
        meter = await stand.meter(load=posting.pid)
        await asyncio.sleep(seconds)
        cost = await meter.read()
    notes = await posting.notes()
    deadline = time.monotonic() + PATIENCE
    while stand.receiver.count() - before < notes.accepted and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    return _find(load, meter, cost, notes, stand.receiver.take())


def _find(load: str, meter: Meter, cost: Cost, notes: Notes, arrivals: Arrivals) -> Found:
    begin = int(meter.first.at * 1e9)
    end = begin + int(cost.used.seconds * 1e9)
    events = max(1, sum(begin <= at < end for at in arrivals.times))
    seen = firsts(arrivals)
    counted = [n for n in range(len(notes.due)) if begin <= notes.due[n] < end and notes.statuses[n] == 202]
    accepted = [webhook for webhook, status in zip(notes.ids, notes.statuses, strict=True) if status == 202]
    return Found(
        load=load,
        rate=events / cost.used.seconds,
        us={part: seconds / events * 1e6 for part, seconds in parts_of(cost.used.groups).items()},
        statements=cost.statements / events,
        commits=cost.commits / events,
        wakeups=parts_of(cost.used.wakeups)["all"] / events,
        answer=percentiles([(notes.answered[n] - notes.due[n]) / 1e6 for n in counted], (50, 99)),
        first_byte=percentiles(
            [(seen[notes.ids[n]].at - notes.due[n]) / 1e6 for n in counted if notes.ids[n] in seen], (50, 99)
        ),
        late=percentiles([(notes.noticed[n] - notes.due[n]) / 1e6 for n in counted], (50, 99)),
        refused=notes.refused,
        missing=sum(webhook not in seen for webhook in accepted),
        others=cost.used.others,
    )


def parts_of(groups: Mapping[str, float]) -> dict[str, float]:
    """By part of the gateway, and ``all`` of them; the supervisor is what `up` takes itself."""
    own = max(0, groups["gateway"] - groups["api"] - groups["worker"])  # clocks are read one after the other
    parts = {"api": groups["api"], "worker": groups["worker"], "postgres": groups["postgres"], "supervisor": own}
    return {"all": sum(parts.values()), **parts}


async def _measure_idle(stand: Stand, report: Report, seconds: float) -> None:
    await stand.empty()
    await asyncio.sleep(REST)
    meter = await stand.meter()
    await asyncio.sleep(seconds)
    cost = await meter.read()
    cores = {part: used / seconds * 1000 for part, used in parts_of(cost.used.groups).items()}
    wakeups = parts_of(cost.used.wakeups)["all"] / seconds
    shares = ", ".join(f"{part} {cores[part]:.1f}" for part in PARTS)
    report.note("idle_millicores", cores["all"], f"millicores with nothing to do: {shares}")
    report.note("idle_wakeups", wakeups, f"wake-ups a second then, and {cost.statements / seconds:.1f} statements")
    report.details["idle"] = {"millicores": cores, "wakeups": wakeups, "statements": cost.statements / seconds}


async def _measure_floor(gateway: Gateway, rate: float, seconds: float) -> float:
    """µs of CPU an event, PostgreSQL's included."""
    gateway.receiver.take()
    command = (sys.executable, "-m", "bench.least", gateway.postgres.url, str(gateway.receiver.port))
    process = children.spawn((*command, str(rate), str(WARM + seconds + AFTER)), stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        await asyncio.to_thread(process.stdout.readline)
        await asyncio.sleep(WARM)
        before = gateway.receiver.count()
        meter = await gateway.meter(least=process.pid)
        await asyncio.sleep(seconds)
        cost, events = await meter.read(), gateway.receiver.count() - before
    finally:
        children.end(process)
    return (cost.used.groups["least"] + cost.used.groups["postgres"]) / events * 1e6


@asynccontextmanager
async def _burning(seconds: float) -> AsyncIterator[None]:
    """Somebody else, for so many seconds at most; nobody for none."""
    if not seconds:
        yield
        return
    process = children.spawn((sys.executable, "-m", "bench.burner", str(SHARE), str(seconds + PATIENCE)))
    try:
        yield
    finally:
        children.end(process)
