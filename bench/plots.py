"""The figures of a run as pictures, beside its JSON."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

from .report import Report

RATES = (
    ("floor_client", "bare client loop"),
    ("floor_echo", "bare ASGI echo"),
    ("ingest", "ingest, single"),
    ("ingest_batch", "ingest, batches"),
    ("full_1_deliveries", "full path, 1 endpoint"),
    ("full_10_deliveries", "full path, 10 endpoints"),
    ("control", "control: a row at a time"),
    ("drain_small", "drain, 10,000 open"),
    ("drain_large", "drain, most open"),
    ("drain_endpoints_10", "drain, 10 endpoints"),
    ("drain_endpoints_1000", "drain, 1,000 endpoints"),
    ("drain_endpoints_5000", "drain, 5,000 endpoints"),
)
LOADS = ("25%", "50%", "80%")


def draw(report: Report, beside: Path) -> list[Path]:
    """Throughput, latency over load, and the course with a transaction left open: what of it was measured."""
    mpl.use("Agg")
    return [path for path in (_throughput(report, beside), _latency(report, beside), _course(report, beside)) if path]


def _throughput(report: Report, beside: Path) -> Path | None:
    import matplotlib.pyplot as plt

    known = [(label, report.figures[name]) for name, label in RATES if name in report.figures]
    if not known:
        return None
    figure, axes = plt.subplots(figsize=(8, 0.45 * len(known) + 1))
    bars = axes.barh([label for label, _ in known], [rate for _, rate in known], color="#3465a4")
    axes.bar_label(bars, fmt="{:,.0f}", padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel("a second")
    return _save(figure, beside, "throughput")


def _latency(report: Report, beside: Path) -> Path | None:
    import matplotlib.pyplot as plt

    loads = [load for load in LOADS if f"latency_{load}" in report.details]
    if not loads:
        return None
    figure, both = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    for axes, kind, title in zip(both, ("answer", "delivery"), ("202", "partner's first byte"), strict=True):
        for percentile in ("p50", "p95", "p99", "p99.9"):
            axes.plot(
                loads, [report.details[f"latency_{load}"][kind][percentile] for load in loads], "o-", label=percentile
            )
        axes.set_title(f"from when an event was due to the {title}")
        axes.set_xlabel("part of capacity")
        axes.set_yscale("log")
        axes.grid(True, alpha=0.3)
    both[0].set_ylabel("ms")
    both[0].legend()
    return _save(figure, beside, "latency")


def _course(report: Report, beside: Path) -> Path | None:
    import matplotlib.pyplot as plt

    course = report.details.get("old_transaction")
    if not course:
        return None
    figure, axes = plt.subplots(figsize=(8, 3))
    axes.plot([2 * (n + 1) for n in range(len(course["every_2_seconds"]))], course["every_2_seconds"], "o-")
    axes.axhline(course["clean"], linestyle="--", color="grey", label="clean")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("seconds since the transaction was left open")
    axes.set_ylabel("deliveries/s")
    axes.legend()
    return _save(figure, beside, "old-transaction")


def _save(figure: object, beside: Path, name: str) -> Path:
    import matplotlib.pyplot as plt

    path = beside.with_name(f"{beside.stem}-{name}.png")
    figure.tight_layout()  # type: ignore[attr-defined]
    figure.savefig(path, dpi=120)  # type: ignore[attr-defined]
    plt.close()
    return path
