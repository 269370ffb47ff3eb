"""Where commands write: answers to standard output, everything said about the work to standard error."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.segment import Segment

from webhook_gateway.rules.labels import visible

from .plain import say, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import ConsoleOptions, RenderableType
    from rich.progress import Progress
    from rich.table import Table
    from rich.text import Text


__all__ = ["say", "write_json"]


class PlainConsole(Console):
    """Whatever is printed is text: ``[/x]`` is no markup, and no character of it commands the terminal."""

    def render_str(self, text: str, **how: Any) -> Text:  # before columns are laid out
        return super().render_str(visible(text), **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else visible(text), style, control)


answers = PlainConsole(highlight=False, markup=False, width=None if sys.stdout.isatty() else 100_000)
"""Into a pipe or a file nothing is cut or wrapped."""
remarks = PlainConsole(stderr=True, highlight=False, markup=False)


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
