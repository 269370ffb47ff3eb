"""What a fault came to, as a line of the table."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Report:
    """``resumed_after`` and ``took`` are in seconds; ``wrong`` says why it didn't pass."""

    accepted: int = 0
    delivered: int = 0
    lost: int = 0
    duplicates: int = 0
    allowed: int = 0
    resumed_after: float | None = None
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    skipped: str | None = None
    name: str = ""
    title: str = ""
    took: float = 0.0

    @property
    def passed(self) -> bool:
        return self.skipped is None and not self.wrong


HEAD = (
    f"{'':4} {'fault':44} {'accepted':>8} {'delivered':>9} {'lost':>5} {'duplicates':>10} {'allowed':>8} "
    f"{'resumed after':>13}  passed"
)


def line(report: Report) -> str:
    if report.skipped is not None:
        return f"{report.name:4} {report.title[:44]:44} skipped: {report.skipped}"
    resumed = "-" if report.resumed_after is None else f"{report.resumed_after:.1f} s"
    told = "yes" if report.passed else "NO"
    return (
        f"{report.name:4} {report.title[:44]:44} {report.accepted:8} {report.delivered:9} {report.lost:5} "
        f"{report.duplicates:10} {report.allowed:8} {resumed:>13}  {told}"
    )


def details(report: Report) -> list[str]:
    """What belongs below the line."""
    return [f"       wrong: {text}" for text in report.wrong] + [f"       note: {text}" for text in report.notes]


def closing(reports: list[Report]) -> str:
    run = [report for report in reports if report.skipped is None]
    return (
        f"faults: run={len(run)} passed={sum(report.passed for report in run)} lost={sum(r.lost for r in run)} "
        f"duplicates={sum(r.duplicates for r in run)} allowed={sum(r.allowed for r in run)}"
    )
