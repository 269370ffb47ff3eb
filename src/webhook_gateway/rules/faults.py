"""One place that is wrong in what was given."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """A JSON Pointer (RFC 6901) into what was given, or a parameter's name. Never the value: it may be a patient's.

    ``rule`` names what was broken, ``remedy`` is a sentence that says what to do.
    """

    rule: str
    remedy: str
    pointer: str | None = None
    parameter: str | None = None
