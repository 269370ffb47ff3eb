"""What was measured, as it is said while the run goes on, kept as JSON, and judged at the end."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .machine import CORES

QUIET = 0.1
"""Cores that others may keep busy before a figure is called provisional."""
RESULTS = Path(__file__).parent / "results"


@dataclass(slots=True)
class Report:
    """Figures by name, and whatever stands behind them (``details``)."""

    began: float = field(default_factory=time.monotonic)
    figures: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    busy: dict[str, float] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def note(self, name: str, figure: float, what: str) -> None:
        """Keeps a figure and says it."""
        self.figures[name] = figure
        self.say(f"{name:24} {_short(figure):>10}  {what}")

    def say(self, line: str) -> None:
        print(f"{time.monotonic() - self.began:6.1f}s  {line}", flush=True)

    def strangers(self, name: str, cores: float) -> None:
        """Keeps how many cores processes not ours kept busy during a measure, and warns where that spoils it."""
        self.busy[name] = cores
        if cores > QUIET:
            self.say(f"others kept {cores:.1f} cores busy meanwhile: these figures are provisional")

    def fail(self, name: str, problem: Exception) -> None:
        """A measure that could not be made: the others are still worth having."""
        self.failed.append(name)
        self.say(f"{name} FAILED: {type(problem).__name__}: {problem}")

    def get(self, name: str) -> float | None:
        return self.figures.get(name)

    def ratio(self, above: str, below: str) -> float | None:
        over, under = self.get(above), self.get(below)
        return None if over is None or not under else over / under

    def write(self, name: str) -> Path:
        """Into bench/results, by the time of day; returns where."""
        RESULTS.mkdir(exist_ok=True)
        at = datetime.now(UTC)
        path = RESULTS / f"{at:%Y%m%d-%H%M%S}-{name}.json"
        machine = {"cores": CORES, "python": platform.python_version(), "kernel": platform.release()}
        content = {
            "at": at.isoformat(),
            "command": sys.argv,
            "machine": machine,
            "figures": self.figures,
            "details": self.details,
            "cores_busy_for_others": self.busy,
        }
        path.write_text(json.dumps(content, indent=1, default=str))
        return path


@dataclass(frozen=True, slots=True)
class Goal:
    """``value`` finds the figure in a report, None where it was not measured; ``at_most`` turns the comparison."""

    name: str
    what: str
    limit: float
    value: Callable[[Report], float | None]
    at_most: bool = False

    def met(self, value: float) -> bool:
        return value <= self.limit if self.at_most else value >= self.limit


def judge(report: Report, goals: tuple[Goal, ...]) -> tuple[int, int, list[str]]:
    """Prints the table; returns how many goals were met, of how many measured, and the others' names."""
    met, missed = 0, []
    print(f"\n{'what':<84} {'to reach':>9} {'here':>9}")
    for goal in goals:
        value = goal.value(report)
        limit = f"{'≤' if goal.at_most else '≥'} {goal.limit:g}"
        if value is None:
            print(f"{goal.what:<84} {limit:>9} {'-':>9}")
        elif goal.met(value):
            met += 1
            print(f"{goal.what:<84} {limit:>9} {_short(value):>9}  met")
        else:
            missed.append(goal.name)
            print(f"{goal.what:<84} {limit:>9} {_short(value):>9}  missed")
    if any(cores > QUIET for cores in report.busy.values()):
        print("provisional: others used the machine meanwhile")
    print()
    return met, met + len(missed), missed


def _short(figure: float) -> str:
    return f"{figure:,.0f}" if abs(figure) >= 100 else f"{figure:.2f}"
