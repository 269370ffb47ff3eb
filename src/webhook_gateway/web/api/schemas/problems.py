"""What is answered when something is wrong."""

from __future__ import annotations

from pydantic import Field

from .shapes import Shown


class Fault(Shown):
    """One place that is wrong: `pointer` (JSON Pointer) into the body, or the name of a `parameter`."""

    pointer: str | None = None
    parameter: str | None = None
    rule: str
    remedy: str


class Problem(Shown):
    """RFC 9457 problem details."""

    type: str = Field(description="`urn:problem:webhook-gateway:` and a name to tell problems apart by.")
    title: str
    status: int
    detail: str = Field(description="What to do.")
    request_id: str = Field(description="What to tell an operator; also in the header X-Request-Id.")
    errors: list[Fault] | None = None
