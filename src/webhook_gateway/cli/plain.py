"""What a command says and how it ends, without any library: `sign`, `verify` and `listen` run on the core alone."""

from __future__ import annotations

import json
import sys
from typing import Any

from webhook_gateway.rules.labels import visible

NO = 1
WRONG = 2
UNAVAILABLE = 3
PENDING = 4
"""Of ``apply --plan``: something is to be changed. Not 2, which a pipeline would get of a misspelt option, too."""


class CannotGoOn(Exception):
    """The message is for the operator: what is wrong, and what to do about it. ``status`` is the exit code."""

    def __init__(self, sentence: str, status: int = NO) -> None:
        super().__init__(sentence)
        self.status = status


def say(sentence: str) -> None:
    """A remark about the work under way."""
    print(visible(sentence), file=sys.stderr, flush=True)


def write_json(value: Any) -> None:
    """One JSON document, for scripts: indented for people, on one line into a pipe."""
    text = json.dumps(value, indent=2 if sys.stdout.isatty() else None, default=str, ensure_ascii=False)
    print(visible(text), flush=True)
