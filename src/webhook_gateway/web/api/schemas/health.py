"""How the process is."""

from __future__ import annotations

from typing import Literal

from .shapes import Shown, examples


class Condition(Shown):
    """How the process is."""

    model_config = examples({"status": "ok"})

    status: Literal["ok"]


class Readiness(Condition):
    """Whether the process can work, and whether what it accepts is sent."""

    model_config = examples({"status": "ok", "sending": "on"})

    sending: Literal["on", "paused"]
