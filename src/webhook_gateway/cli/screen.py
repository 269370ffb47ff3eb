"""Where commands write: answers to standard output, everything said about the work to standard error."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console

answers = Console(highlight=False)
remarks = Console(stderr=True, highlight=False)


def say(sentence: str) -> None:
    """A remark about the work under way."""
    remarks.print(sentence, markup=False, soft_wrap=True)


def write_json(value: Any) -> None:
    """One JSON document, for scripts: indented for people, on one line into a pipe."""
    print(json.dumps(value, indent=2 if sys.stdout.isatty() else None, default=str, ensure_ascii=False), flush=True)
