"""``make bench ARGS="--against PATH"``: another checkout's gateway beside this one's, in one sitting.

Both stand ready, each on a PostgreSQL of its own, and take turns: a load on one, then the same on the other, the first
one changing. Load, receiver and this bench are the same code for both. What counts is the median of the pairs' ratios,
which a machine that is now fast and now slow changes least.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from .rates import FULL, HEAD, PARTS, TAKEN, Found, measure_load
from .report import Report
from .stand import Stand

Figure = Callable[[Found], float]

COSTS: dict[str, Figure] = {
    "CPU µs an event": lambda found: found.us["all"],
    **{f"  {part}": lambda found, part=part: found.us[part] for part in PARTS[:3]},  # type: ignore[misc]
    "statements an event": lambda found: found.statements,
    "commits an event": lambda found: found.commits,
    "wake-ups an event": lambda found: found.wakeups,
}
DELAYS: dict[str, Figure] = {
    "202, p50 ms": lambda found: found.answer["p50"],
    "202, p99 ms": lambda found: found.answer["p99"],
    "first byte, p50 ms": lambda found: found.first_byte["p50"],
    "first byte, p99 ms": lambda found: found.first_byte["p99"],
}


async def compare(one: Path, other: Path, loads: Sequence[str], seconds: float, pairs: int) -> Report:
    report = Report()
    names = {"this": _version(one), "that": _version(other)}
    report.say(f"this is {names['this']}, that is {names['that']}; starting both")
    found: dict[tuple[str, str], list[Found]] = {(side, load): [] for side in names for load in loads}
    stands: dict[str, Stand] = {}
    try:
        stands["this"] = await Stand.start(one)
        stands["that"] = await Stand.start(other)
        report.say(f"          {HEAD}")
        for pair in range(pairs):
            if pair:  # where a process happens to lie in memory is worth some per cent: each pair draws anew
                await asyncio.gather(*(stand.launch() for stand in stands.values()))
            for turn, load in enumerate(loads):
                for side in ("this", "that") if (pair + turn) % 2 == 0 else ("that", "this"):
                    found[side, load].append(last := await measure_load(stands[side], load, seconds))
                    report.say(f"{pair + 1:>4} {side} {last.row()}")
    finally:
        for stand in stands.values():
            await stand.close()
    for load in loads:
        both = found["this", load] + found["that", load]
        report.strangers(load, statistics.median(each.others for each in both))
    report.details = {
        "versions": names,
        "found": {f"{side} {load}": [asdict(each) for each in all_] for (side, load), all_ in found.items()},
    }
    _judge(report, found, loads)
    return report


def _judge(report: Report, found: dict[tuple[str, str], list[Found]], loads: Sequence[str]) -> None:
    """Prints medians of each side, and the median of the ratios with the middle half of them."""
    for load in loads:
        this, that = found["this", load], found["that", load]
        figures = COSTS | ({"events/s": lambda one: one.rate} if load in (FULL, TAKEN) else DELAYS)
        print(f"\n{load:24} {'this':>9} {'that':>9} {'this ÷ that':>12}   middle half of {len(this)} pairs")
        for name, figure in figures.items():
            ours, theirs = [figure(one) for one in this], [figure(one) for one in that]
            ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
            report.figures[f"{load}: {name.strip()}"] = median = statistics.median(ratios)
            quarter = len(ratios) // 4
            print(
                f"{name:24} {statistics.median(ours):>9,.1f} {statistics.median(theirs):>9,.1f} {median:>12.3f}"
                f"   {ratios[quarter]:.3f} to {ratios[-1 - quarter]:.3f}"
            )
    if FULL in loads and TAKEN in loads:
        for side in ("this", "that"):
            ratios = [b.rate / a.rate for a, b in zip(found[side, FULL], found[side, TAKEN], strict=True)]
            report.figures[f"taken ÷ full: {side}"] = statistics.median(ratios)
            print(f"\nevents/s, {TAKEN} ÷ {FULL}, {side}: {statistics.median(ratios):.3f}")
    print()


def _version(checkout: Path) -> str:
    command = ("git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=7")
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or str(checkout)
