"""Where commands write: answers to standard output, everything said about the work to standard error."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

answers = Console(highlight=False)
remarks = Console(stderr=True, highlight=False)


def say(sentence: str) -> None:
    """A remark about the work under way."""
    remarks.print(sentence, markup=False, soft_wrap=True)


def write_json(value: Any) -> None:
    """One JSON document, for scripts: indented for people, on one line into a pipe."""
    print(json.dumps(value, indent=2 if sys.stdout.isatty() else None, default=str, ensure_ascii=False), flush=True)


def progress(doing: str, *, quiet: bool) -> Progress:
    """A bar for work that takes a while; it leaves no trace."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=remarks, disable=quiet, transient=True)


def table(*columns: str, whole: str) -> Table:
    """A plain table; the column ``whole`` holds ids, which are of no use when cut."""
    from rich.table import Column, Table

    headers = [Column(name, no_wrap=name == whole, overflow="fold") for name in columns]
    return Table(*headers, box=None, header_style="bold", pad_edge=False)
