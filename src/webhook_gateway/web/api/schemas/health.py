"""How the process is."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict

from .shapes import Shown, examples


class Condition(Shown):
    """How the process is."""

    model_config = ConfigDict(json_schema_extra=examples({"status": "ok"}))

    status: Literal["ok"]
